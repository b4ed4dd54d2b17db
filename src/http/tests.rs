//! Requests over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::Secret;
use crate::event::CameraStatus;
use crate::frame::CameraId;
use crate::health::{Board, CameraReport, Monitor, gather};

/// A report with one camera.
pub(super) fn report(ready: Result<(), String>) -> HealthReport {
    let (metrics, board) = (Metrics::default(), Board::default());
    let report = CameraReport {
        status: CameraStatus::Offline,
        reason: "<b>refused</b>".to_owned(),
        since: SystemTime::UNIX_EPOCH,
        attempts: 2,
        next_retry: None,
        size: None,
        clock: None,
    };
    board.report(&CameraId::new("gate"), report);
    let now = Instant::now();
    Monitor::new("edge07", "9f3c1a", now).observe(now, SystemTime::UNIX_EPOCH, &gather(&metrics, &board, ready, 1))
}

fn server(token: Option<&str>, limits: Limits) -> (Server, Latest, Arc<Metrics>) {
    let latest = Latest::default();
    let (server, metrics) = start_with(token, latest.clone(), None, limits);
    (server, latest, metrics)
}

fn start_with(
    token: Option<&str>,
    latest: Latest,
    snapshots: Option<PathBuf>,
    limits: Limits,
) -> (Server, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let token = token.map(|token| Secret::new(token.to_owned()));
    let config = HttpConfig { enabled: true, listen: "127.0.0.1:0".parse().unwrap(), token };
    (start_limited(&config, Arc::clone(&metrics), latest, snapshots, limits).unwrap(), metrics)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// The whole answer; the server closes.
fn ask(server: &Server, request: &str, headers: &str) -> String {
    let mut stream = connect(server);
    write!(stream, "{request} HTTP/1.1\r\nHost: edge07\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn every_path_answers() {
    let (server, latest, metrics) = server(None, Limits::default());
    let get = |path: &str| ask(&server, &format!("GET {path}"), "");
    assert_eq!((code(&get("/healthz")), body(&get("/healthz"))), (200, "ok\n"));
    assert_eq!((code(&get("/readyz")), body(&get("/readyz"))), (503, "starting\n"));
    assert_eq!(code(&get("/status")), 503);
    latest.set(Instant::now(), &report(Err("the engine is being opened".to_owned())), None);
    assert_eq!((code(&get("/readyz")), body(&get("/readyz"))), (503, "the engine is being opened\n"));
    latest.set(Instant::now(), &report(Ok(())), None);
    assert_eq!((code(&get("/readyz")), body(&get("/readyz"))), (200, "ready\n"));

    let answer = get("/status");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    let status: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(status["health"]["node"], "edge07");
    assert_eq!(status["cameras"]["gate"]["attempts"], 2);
    assert_eq!((&status["info"], &status["mqtt_connected"]), (&serde_json::Value::Null, &false.into()));

    metrics.camera(&CameraId::new("gate")).decoded.inc_by(3);
    let answer = get("/metrics");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(body(&answer).contains("watchpost_frames_decoded_total{camera=\"gate\"} 3\n"));
    assert!(body(&answer).ends_with("# EOF\n"));
    let answer = get("/");
    assert!(answer.contains("content-type: text/html; charset=utf-8\r\n"));
    for outside in ["http://", "https://", "src=", "@import", "innerHTML"] {
        assert!(!body(&answer).contains(outside), "the page asks for nothing else: {outside}");
    }

    assert_eq!((code(&get("/nowhere")), code(&ask(&server, "DELETE /status", ""))), (404, 405));
    let answer = ask(&server, "HEAD /status", "");
    assert_eq!((code(&answer), body(&answer)), (200, ""));
    assert!(["/", "/nowhere"].iter().all(|path| get(path).contains("connection: close\r\n")));
    server.stop();
}

/// A folder with a picture of `gate`, and something beside it that is nobody's business.
fn pictures() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("snapshots");
    std::fs::create_dir_all(folder.join("gate")).unwrap();
    std::fs::write(folder.join("gate/gate-1-0.jpg"), b"a picture").unwrap();
    std::fs::write(folder.join("gate/notes.txt"), b"s3cret").unwrap();
    std::fs::write(root.path().join("passwd.jpg"), b"s3cret").unwrap();
    (root, folder)
}

#[test]
fn pictures_are_served_and_nothing_around_them() {
    let (_root, folder) = pictures();
    for token in [None, Some("t0ken")] {
        let (server, _) = start_with(token, Latest::default(), Some(folder.clone()), Limits::default());
        let headers = if token.is_some() { "Authorization: Bearer t0ken\r\n" } else { "" };
        let get = |path: &str| ask(&server, &format!("GET {path}"), headers);
        let answer = get("/snapshots/gate/gate-1-0.jpg");
        assert_eq!((code(&answer), body(&answer)), (200, "a picture"));
        assert!(answer.contains("content-type: image/jpeg\r\n"), "{answer}");
        for path in [
            "/snapshots/gate/gate-1-1.jpg",
            "/snapshots/gate/notes.txt",
            "/snapshots/gate/../passwd.jpg",
            "/snapshots/../passwd.jpg",
            "/snapshots/%2e%2e/passwd.jpg",
            "/snapshots/gate/..%2f..%2fpasswd.jpg",
            "/snapshots/gate%2f../gate-1-0.jpg",
            "/snapshots/gate/%00.jpg",
            "/snapshots/gate/%ff.jpg",
            "/snapshots/gate",
            "/snapshots/",
        ] {
            let answer = get(path);
            assert!([400, 404].contains(&code(&answer)) && !answer.contains("s3cret"), "{path}: {answer}");
        }
        if token.is_some() {
            assert_eq!(code(&ask(&server, "GET /snapshots/gate/gate-1-0.jpg", "")), 401);
        }
    }
    let (server, ..) = server(None, Limits::default());
    assert_eq!(code(&ask(&server, "GET /snapshots/gate/gate-1-0.jpg", "")), 404, "none are kept");
}

#[test]
fn the_token_guards_every_path_but_healthz() {
    let (server, latest, _) = server(Some("s3cret"), Limits::default());
    latest.set(Instant::now(), &report(Ok(())), None);
    assert_eq!(code(&ask(&server, "GET /healthz", "")), 200);
    for path in
        ["/", "/readyz", "/metrics", "/status", "/nowhere", "//healthz", "/healthz/", "/healthz%2f../status"]
    {
        let request = format!("GET {path}");
        let refused = ask(&server, &request, "");
        assert_eq!(code(&refused), 401, "{path}");
        assert!(refused.contains("www-authenticate: Basic") && !refused.contains("s3cret"), "{refused}");
        assert_eq!(code(&ask(&server, &request, "Authorization: Bearer wrong\r\n")), 401, "{path}");
        let allowed = code(&ask(&server, &request, "Authorization: Bearer s3cret\r\n"));
        assert!([200, 404].contains(&allowed), "{path}: {allowed}");
    }
    // As a browser asks: base64 of "watchpost:s3cret".
    let browser = "Authorization: Basic d2F0Y2hwb3N0OnMzY3JldA==\r\n";
    assert_eq!(code(&ask(&server, "GET /status", browser)), 200);
}

#[test]
fn an_address_in_use_is_named_with_the_setting() {
    let (server, latest, metrics) = server(None, Limits::default());
    let config = HttpConfig { enabled: true, listen: server.address(), token: None };
    let error = start(&config, metrics, latest, None).err().unwrap().to_string();
    assert!(error.contains(&server.address().to_string()) && error.contains("http.listen"), "{error}");
}

#[test]
fn slow_clients_are_cut_and_make_room() {
    let limits = Limits { connections: 2, time: Duration::from_secs(1) };
    let (server, ..) = server(None, limits);
    let started = Instant::now();
    let mut silent = connect(&server);
    let mut dripping = connect(&server);
    dripping.write_all(b"GET /healthz HTTP/1.1\r\nHost: e").unwrap();
    // Both places are taken: this one is served once they are cut.
    assert_eq!(code(&ask(&server, "GET /healthz", "")), 200);
    assert!(started.elapsed() >= limits.time, "{:?}", started.elapsed());
    for stream in [&mut silent, &mut dripping] {
        let mut left = Vec::new();
        // Closed or reset, as the system likes.
        let _ = stream.read_to_end(&mut left);
        assert!(!left.starts_with(b"HTTP/1.1 200"), "{left:?}");
    }
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let (server, latest, _) = server(None, Limits { connections: 1, time: Duration::from_secs(1) });
    let mut big = report(Ok(()));
    // More than the sockets of both sides hold.
    big.health.problems = vec!["x".repeat(32 << 20)];
    latest.set(Instant::now(), &big, None);
    let mut stream = connect(&server);
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: edge07\r\n\r\n").unwrap();
    assert_eq!(code(&ask(&server, "GET /healthz", "")), 200);
}

#[test]
fn a_body_is_not_read() {
    let (server, ..) = server(None, Limits::default());
    let mut stream = connect(&server);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: e\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(code(&answer), 200);
}

#[test]
fn stop_does_not_wait_for_open_connections() {
    let (server, ..) = server(None, Limits::default());
    let address = server.address();
    let mut open = connect(&server);
    open.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(TcpStream::connect(address).is_err());
}
