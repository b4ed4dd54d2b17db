//! The answers.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Access, Found, Latest};
use crate::metrics::Metrics;
use crate::snapshot;

/// A status older than this means that the monitor hangs, which looks once a second.
const STALE: Duration = Duration::from_secs(10);

const ALIVE: &str = "/healthz";
const TEXT: &str = "text/plain; charset=utf-8";
const JPEG: &str = "image/jpeg";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const NOWHERE: &str = "not found: try /, /status, /metrics, /readyz, /healthz\n";
const NO_PICTURE: &str = "no picture of that name: not written yet, or no longer kept\n";

/// The page asks for nothing but `/status`, and nothing may frame it.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                              connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    latest: Latest,
    /// Folder of pictures.
    snapshots: Option<Arc<Path>>,
    access: Access,
}

pub(super) fn router(metrics: Arc<Metrics>, latest: Latest, snapshots: Option<PathBuf>, access: Access) -> Router {
    let shared = Shared { metrics, latest, snapshots: snapshots.map(Arc::from), access };
    Router::new()
        .route(ALIVE, get(async || page(StatusCode::OK, TEXT, "ok\n")))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/status", get(status))
        .route("/snapshots/{camera}/{file}", get(picture))
        .route("/", get(async || page(StatusCode::OK, HTML, include_str!("page.html"))))
        .fallback(async || page(StatusCode::NOT_FOUND, TEXT, NOWHERE))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Asks for the token, and puts on every answer what every answer has.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let allowed = request.uri().path() == ALIVE || shared.access.allows(request.headers());
    let mut response = if allowed {
        next.run(request).await
    } else {
        let mut refused = page(StatusCode::UNAUTHORIZED, TEXT, "give the token of the setting http.token_file\n");
        let challenge = HeaderValue::from_static("Basic realm=\"watchpost\", charset=\"UTF-8\"");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        refused
    };
    let every: [(HeaderName, &'static str); 4] = [
        // One request a connection: the time limit of a connection is that of a request.
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    ];
    for (name, value) in every {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn page(code: StatusCode, kind: &'static str, body: impl IntoResponse) -> Response {
    (code, [(header::CONTENT_TYPE, kind)], body).into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    match not_ready(shared.latest.get(), Instant::now()) {
        None => page(StatusCode::OK, TEXT, "ready\n"),
        Some(why) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    }
}

fn not_ready(latest: Option<Found>, now: Instant) -> Option<String> {
    let Some((at, status)) = latest else { return Some("starting".to_owned()) };
    let age = now.saturating_duration_since(at);
    if age > STALE {
        return Some(format!("the monitor has said nothing for {} s", age.as_secs()));
    }
    if status.health.ready {
        return None;
    }
    // Why the backend is not ready is always the first problem.
    Some(status.health.problems.first().map_or_else(|| "not ready".to_owned(), Clone::clone))
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    page(StatusCode::OK, OPEN_METRICS, shared.metrics.render())
}

async fn status(State(shared): State<Shared>) -> Response {
    let Some((_, status)) = shared.latest.get() else {
        return page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "starting\n");
    };
    match serde_json::to_string(&*status) {
        Ok(json) => page(StatusCode::OK, JSON, json),
        Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

/// Some tens of kilobytes, read at once: the thread serves nothing else that could wait for it.
async fn picture(State(shared): State<Shared>, UrlPath((camera, file)): UrlPath<(String, String)>) -> Response {
    let path = shared.snapshots.as_deref().and_then(|folder| snapshot::file(folder, &camera, &file));
    let Some(path) = path else { return page(StatusCode::NOT_FOUND, TEXT, NOWHERE) };
    match std::fs::read(path) {
        Ok(jpeg) => page(StatusCode::OK, JPEG, jpeg),
        Err(error) if error.kind() == ErrorKind::NotFound => page(StatusCode::NOT_FOUND, TEXT, NO_PICTURE),
        Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::report;

    #[test]
    fn a_monitor_that_hangs_is_not_ready() {
        let (latest, now) = (Latest::default(), Instant::now());
        let why = |latest: &Latest, seconds| not_ready(latest.get(), now + Duration::from_secs(seconds));
        assert_eq!(why(&latest, 0).as_deref(), Some("starting"));
        latest.set(now, &report(Err("the engine is being opened".to_owned())), None);
        assert_eq!(why(&latest, 1).as_deref(), Some("the engine is being opened"));
        latest.set(now, &report(Ok(())), None);
        assert_eq!(why(&latest, 10), None);
        assert_eq!(why(&latest, 11).as_deref(), Some("the monitor has said nothing for 11 s"));
    }
}
