//! Planted passwords are looked for in everything that a running daemon says, at its most talkative level: its log, every
//! message, every page; and what it writes to the disk is not for others.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use watchpost::event::CameraStatus;

use crate::support::cores::some_cores;
use crate::support::daemon::{self, camera};
use crate::support::mosquitto::{Message, Mosquitto, PATIENCE, Subscriber, free_port};
use crate::support::program::{Daemon, Site, Written};
use crate::support::rtsp::RtspServer;

const CAMERA: &str = "pl4nted-camera";
const BROKER: &str = "pl4nted-broker";
const TOKEN: &str = "pl4nted-token";
const PLANTED: &str = "pl4nted";
/// `viewer:pl4nted` as it is sent.
const BASIC: &str = "dmlld2VyOnBsNG50ZW";
/// Exit code of a configuration that is wrong.
const CONFIG: i32 = 78;

/// A page as it comes, with its head.
fn page(port: u16, path: &str, token: Option<&str>) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: box\r\n{token}Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn tells_no_secret(what: &str, text: &str) {
    assert!(!text.contains(PLANTED), "{what}: {text}");
}

/// Files and folders below `folder`, and it itself, are not for others, and not to be changed by their group.
fn is_private(folder: &Path) -> usize {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(folder) & 0o027, 0, "{}: {:o}", folder.display(), mode(folder));
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += is_private(&path);
        } else {
            assert_eq!(mode(&path) & 0o137, 0, "{}: {:o}", path.display(), mode(&path));
            files += 1;
        }
    }
    files
}

/// Takes messages until one of `topic` has come.
fn take_until(watch: &Subscriber, topic: &str, taken: &mut Vec<Message>) {
    loop {
        taken.push(watch.next());
        if taken.last().is_some_and(|message| message.topic == topic) {
            return;
        }
    }
}

/// Gives orders that are refused, after one that brings a camera with a password, each when the one before was answered.
fn orders(watch: &Subscriber, dead: u16, taken: &mut Vec<Message>) {
    let order = format!(
        "{{\"action\":\"add\",\"camera\":{{\"id\":\"yard\",\"url\":\"rtsp://a:{CAMERA}@127.0.0.1:{dead}/y\"}}}}"
    );
    let orders = [
        &order,
        &order.replace("\"url\"", "\"address\""),
        &order.replace("rtsp:", "foo:"),
        &order.replace("add", CAMERA),
    ];
    for order in orders {
        watch.publish("watchpost/box/cmd/camera", order, false);
        take_until(watch, "watchpost/box/cmd/camera/result", taken);
    }
}

/// Every page with the token, and with another.
fn pages(http: u16) {
    for path in ["/", "/status", "/metrics", "/healthz", "/readyz", "/snapshots/gate/x.jpg", "/none"] {
        let answer = page(http, path, Some(TOKEN));
        assert!(!answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        tells_no_secret(path, &answer);
        let refused = page(http, path, Some("other"));
        assert_eq!(refused.starts_with("HTTP/1.1 401"), path != "/healthz", "{path}: {refused}");
        tells_no_secret(path, &refused);
    }
}

#[test]
fn planted_secrets_are_in_no_log_message_or_page_and_files_are_not_for_others() {
    let site = Site::new();
    let (http, dead) = (free_port(), free_port());
    let token = site.write("token", TOKEN);
    fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let mut broker = Mosquitto::prepare(free_port());
    let file = broker.password_file("box", BROKER);
    broker.configure(&["allow_anonymous false", &format!("password_file {file}")]);
    broker.restart();
    let watch = Subscriber::start(broker.port(), "#", Some(("box", BROKER)));
    let cameras = format!(
        "[homeassistant]\nenabled = true\n[frigate]\nenabled = true\n\
         [[camera]]\nid = \"gate\"\nurl = \"rtsp://admin:{CAMERA}@127.0.0.1:{dead}/x\"\n\
         [[camera]]\nid = \"picture\"\nurl = \"test://?size=64x48&fps=5\""
    );
    let written = Written {
        mqtt: &format!("broker = \"mqtt://box:{BROKER}@127.0.0.1:{}\"", broker.port()),
        http: &format!("listen = \"127.0.0.1:{http}\"\ntoken_file = \"token\""),
        cameras: &cameras,
        ..Written::default()
    };
    let mut daemon = Daemon::start(site.run(&written).args(["--log", "trace"]));
    daemon.wait_for("ready after");
    daemon.wait_for("next attempt in");
    let mut bodies = Vec::new();
    take_until(&watch, "watchpost/box/cam/picture/detections", &mut bodies);
    orders(&watch, dead, &mut bodies);
    site.write(
        "config.toml",
        format!("node = \"box\"\n[mqtt]\npassword = \"{BROKER}\"\nbroker = \"mqtt://u:{BROKER}@\"\n"),
    );
    daemon.signal("HUP");
    daemon.wait_for("the configuration that holds stays");
    pages(http);
    for topic in ["info", "status", "health", "notice", "cam/gate/state", "cam/picture/detections"] {
        let topic = format!("watchpost/box/{topic}");
        if !bodies.iter().any(|message| message.topic == topic) {
            take_until(&watch, &topic, &mut bodies);
        }
    }
    daemon.terminate();
    let (code, log, _) = daemon.finish();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("DEBUG rumqttc"), "it was not at its most talkative: {log}");
    tells_no_secret("log", &log);
    bodies.extend(watch.messages.try_iter());
    // What was sent to it is no word of its own.
    let told = bodies.iter().filter(|message| message.topic != "watchpost/box/cmd/camera");
    told.for_each(|message| tells_no_secret(&message.topic, &message.text()));
    assert!(is_private(&site.path("state")) >= 2, "a spool and a compiled model");
}

/// GStreamer says a camera's whole address in its log; ours has it only where somebody asks for that with GST_DEBUG.
#[test]
fn gstreamers_own_log_tells_no_password_either_and_no_core_is_left() {
    let _cores = some_cores();
    let login = ["--user", "viewer", "--password", CAMERA, "--auth", "basic"];
    let server = RtspServer::start(&[&login[..], &["--stream", "walk=test:64x48@5"]].concat());
    let at =
        |password: &str, path: &str| server.url(path).replace("rtsp://", &format!("rtsp://viewer:{password}@"));
    let cameras = [
        camera("right", &at(CAMERA, "walk"), ""),
        camera("wrong", &at(&format!("{PLANTED}%2Fother"), "walk"), ""),
        camera("path", &at(CAMERA, &format!("user=a&password={PLANTED}")), ""),
    ];
    let loud = ("GST_DEBUG".to_owned(), "*:6,*rtsp*:9,GST_REFCOUNTING:3".to_owned());
    let tiny = |cameras: &str| {
        daemon::Daemon::start_tiny_in(TempDir::new().unwrap(), vec![loud], "confidence = 1.0", cameras, |port| port)
    };
    let mut daemon = tiny(&cameras.concat());
    daemon.until("each camera's word", PATIENCE, |heard| {
        let tried = |id| heard.state(id).is_some_and(|state| state.attempts > 0);
        heard.is("right", CameraStatus::Online) && tried("wrong") && tried("path")
    });
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
    daemon.finish();
    let log = daemon.log();
    assert!(log.contains(" DEBUG rtspsrc ") && log.contains("rtsp://***@127.0.0.1:"), "it was not talkative");
    let secret = log.lines().find(|line| line.contains(PLANTED) || line.contains(BASIC));
    assert_eq!(secret, None);
}

#[test]
fn what_everyone_may_change_is_refused() {
    let site = Site::new();
    let cameras = "[[camera]]\nid = \"gate\"\nurl = \"test://\"\npipeline = \"own.gst\"";
    let written = Written { cameras, ..Written::default() };
    site.write("own.gst", fs::read("pipelines/software/test.gst").unwrap());
    assert_eq!(site.check(&written).code, Some(0));
    for (file, setting) in [("tiny.toml", "engine.manifest"), ("own.gst", "camera[gate].pipeline")] {
        let set_mode = |mode| fs::set_permissions(site.path(file), PermissionsExt::from_mode(mode)).unwrap();
        set_mode(0o646);
        site.check(&written)
            .says_in_one_line(CONFIG, &[setting, ": everyone may change this file: chmod o-w it", file]);
        set_mode(0o664);
        assert_eq!(site.check(&written).code, Some(0), "its group may");
    }
}
