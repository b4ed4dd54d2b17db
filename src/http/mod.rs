//! The HTTP server: alive, ready, metrics, status. Reads snapshots only; never a lock of the data path.
//!
//! | path | what |
//! |---|---|
//! | `/healthz` | 200 while the process lives; never asks for the token |
//! | `/readyz` | 200, or 503 with why not |
//! | `/metrics` | OpenMetrics text |
//! | `/status` | JSON: [`Status`] |
//! | `/snapshots/{camera}/{name}.jpg` | the best picture of a track, or one on demand, as long as it is kept |
//! | `/` | the status for people |

mod access;
mod listener;
mod pages;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::config::HttpConfig;
use crate::event::{CameraState, Health, Info};
use crate::health::HealthReport;
use crate::metrics::Metrics;
use crate::worker;
use access::Access;
use listener::{Limits, Listener};

/// What `/status` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The latest health message.
    pub health: Health,
    /// Connected to the MQTT broker.
    pub mqtt_connected: bool,
    /// The state of every camera, by name.
    pub cameras: BTreeMap<String, CameraState>,
    /// What runs here; `null` until the engine is open.
    pub info: Option<Info>,
}

/// The latest status: written by the monitor about once a second, read by requests. Clones share.
#[derive(Clone, Default)]
pub struct Latest(Arc<RwLock<Option<Found>>>);

/// When a status was found, and the status.
type Found = (Instant, Arc<Status>);

impl Latest {
    /// Replaces the status by what was found at `now`.
    pub fn set(&self, now: Instant, report: &HealthReport, info: Option<Info>) {
        let cameras = report.states.iter().map(|(id, state)| (id.as_str().to_owned(), state.clone())).collect();
        let status = Status { health: report.health.clone(), mqtt_connected: report.mqtt_connected, cameras, info };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((now, Arc::new(status)));
    }

    /// The status and when it was found; `None` before the first one.
    fn get(&self) -> Option<Found> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why there is no HTTP server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({source}): give http.listen another address, or stop what listens there")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The system has no room for an event loop.
    #[error("cannot start the HTTP server ({0}): raise the limit of open files")]
    Runtime(io::Error),
}

/// A running server; stops when dropped.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Listens, then serves on the thread `http`: pictures from the folder `snapshots`, where there is one.
///
/// # Errors
///
/// Where the address cannot be had.
pub fn start(
    config: &HttpConfig,
    metrics: Arc<Metrics>,
    latest: Latest,
    snapshots: Option<PathBuf>,
) -> Result<Server, HttpError> {
    start_limited(config, metrics, latest, snapshots, Limits::default())
}

fn start_limited(
    config: &HttpConfig,
    metrics: Arc<Metrics>,
    latest: Latest,
    snapshots: Option<PathBuf>,
    limits: Limits,
) -> Result<Server, HttpError> {
    let bind = |source| HttpError::Bind { address: config.listen, source };
    let socket = TcpListener::bind(config.listen).map_err(bind)?;
    socket.set_nonblocking(true).map_err(bind)?;
    let address = socket.local_addr().map_err(bind)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(HttpError::Runtime)?;
    let listener = {
        let _inside = runtime.enter();
        Listener::new(tokio::net::TcpListener::from_std(socket).map_err(bind)?, limits)
    };
    let router = pages::router(metrics, latest, snapshots, Access::new(config.token.as_ref()));
    let (stop, stopped) = oneshot::channel();
    let thread = worker::spawn("http", move || {
        runtime.spawn(async move { axum::serve(listener, router).await });
        // Told to, or the server was dropped: both end it. Open connections end with the runtime.
        let _ = runtime.block_on(stopped);
    });
    Ok(Server { address, stop: Some(stop), thread: Some(thread) })
}

impl Server {
    /// Where it listens: the configured address, with the port the system chose where that was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, cuts what is open and waits for the thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the HTTP server ended in a panic");
        }
    }
}

#[cfg(test)]
mod tests;
