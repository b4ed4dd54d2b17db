//! The unit under a real systemd, PID 1 of namespaces of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watchpost::event::Detections;

use super::unit::{root, unit};
use crate::support::assets::{find_assets, openvino_library};
use crate::support::hold::Held;
use crate::support::mosquitto::{Mosquitto, PATIENCE, Subscriber, free_port};

const PASSWORD: &str = "pl4nted-s3cret";
/// From a stage that hangs to `online` of the service that was started anew: 12 s, `WatchdogSec`, `RestartSec`, its start.
const RESTARTED_AFTER_MAX: Duration = Duration::from_secs(30);

/// A systemd; ends when dropped.
struct Booted {
    child: Child,
    /// Its PID 1, as this machine counts.
    pid: String,
    _folder: TempDir,
}

impl Booted {
    /// `None`, with a word about it, where this machine lets nobody do so.
    fn start(config: &str) -> Option<Self> {
        let is_root = fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t");
        if !is_root || !PathBuf::from("/lib/systemd/systemd").exists() {
            eprintln!("skipped: a systemd of its own needs root and the package systemd");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        for made in ["units/watchpost.service.d", "etc/watchpost/credentials", "etc/sysusers.d"] {
            fs::create_dir_all(path(made)).unwrap();
        }
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(path("units/watchpost.service"), unit()).unwrap();
        let drop_in = "[Service]\nLoadCredential=mqtt:/etc/watchpost/credentials/mqtt\n";
        fs::write(path("units/watchpost.service.d/test.conf"), drop_in).unwrap();
        fs::write(path("etc/watchpost/watchpost.toml"), config).unwrap();
        let credential = path("etc/watchpost/credentials/mqtt");
        fs::write(&credential, PASSWORD).unwrap();
        fs::set_permissions(&credential, PermissionsExt::from_mode(0o600)).unwrap();
        fs::copy(root().join("systemd/sysusers.conf"), path("etc/sysusers.d/watchpost.conf")).unwrap();
        assert!(Command::new("mkfifo").arg(path("up")).status().unwrap().success());
        let program = PathBuf::from(env!("CARGO_BIN_EXE_watchpost"));
        let shared = [root(), program.parent().unwrap(), openvino_library().parent().unwrap(), &find_assets()?]
            .map(|shared| fs::canonicalize(shared).unwrap());
        let mut child = Command::new(root().join("scripts/tools/systemd-box"))
            .arg(folder.path())
            .args(shared)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let up = Command::new("timeout").args(["20", "cat"]).arg(path("up")).output().unwrap();
        assert_eq!(up.stdout, b"up\n", "systemd did not start: {:?}", child.try_wait());
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let pid = fs::read_to_string(children).unwrap().trim().to_owned();
        Some(Self { child, pid, _folder: folder })
    }

    fn inside<'a>(&'a self, line: &[&'a str]) -> Vec<&'a str> {
        [&["nsenter", "--all", "--target", &self.pid][..], line].concat()
    }

    /// Runs something inside; whether that went well, and what it said.
    fn run(&self, line: &[&str]) -> (bool, String) {
        let line = self.inside(line);
        let done = Command::new(line[0]).args(&line[1..]).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// A property of the service.
    fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "watchpost", "--value", "-p", name]).1
    }

    /// Its journal, of all units.
    fn log(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--output=cat"]).1
    }

    #[track_caller]
    fn systemctl(&self, verb: &str, goes_well: bool) {
        let (went_well, _) = self.run(&["systemctl", verb, "watchpost"]);
        let state = || self.run(&["systemctl", "status", "--no-pager", "watchpost"]).1;
        assert_eq!(went_well, goes_well, "systemctl {verb}: {}\n{}", state(), self.log());
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // With it goes PID 1, and with that everything inside.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The service detects people in its sandbox.
fn detects(watch: &Subscriber) {
    loop {
        let message = watch.next_of("watchpost/box/cam/walk/detections");
        let detections: Detections = serde_json::from_slice(&message.body).unwrap();
        if detections.objects.iter().any(|object| &*object.label == "person") {
            return;
        }
    }
}

/// Waits for a text on a topic.
fn says(watch: &Subscriber, topic: &str, text: &str) {
    says_by(Instant::now() + PATIENCE, watch, topic, text);
}

fn says_by(deadline: Instant, watch: &Subscriber, topic: &str, text: &str) {
    loop {
        assert!(Instant::now() < deadline, "waited in vain for {text} on {topic}");
        let Ok(message) = watch.messages.recv_deadline(deadline) else { continue };
        if message.topic == topic && message.text().contains(text) {
            return;
        }
    }
}

/// No capability, no new privilege, system calls filtered, no core; what it writes is not for others.
fn is_locked_in(booted: &Booted) {
    let pid = booted.property("MainPID");
    let (_, status) = booted.run(&["cat", &format!("/proc/{pid}/status")]);
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    assert!(!status.contains("\nUid:\t0\t"), "{status}");
    let (_, limits) = booted.run(&["grep", "core file size", &format!("/proc/{pid}/limits")]);
    assert_eq!(limits.split_whitespace().nth(4), Some("0"), "{limits}");
    // But for a library's cache: fontconfig, which plug-ins of GStreamer bring, opens its folder whatever the umask.
    let cache = ["-path", "/var/lib/watchpost/.cache", "-prune", "-o"];
    let (_, open) =
        booted.run(&[&["find", "/var/lib/watchpost"], &cache[..], &["-perm", "/027", "-print"]].concat());
    assert_eq!(open, "", "others may read what it writes, or its group may change it");
}

#[test]
fn the_service_lives_under_a_real_systemd() {
    let Some(assets) = find_assets() else {
        eprintln!("skipped: no folder of models: set WATCHPOST_ASSETS");
        return;
    };
    let mut broker = Mosquitto::prepare(free_port());
    let file = broker.password_file("box", PASSWORD);
    broker.configure(&["allow_anonymous false", &format!("password_file {file}")]);
    broker.restart();
    let config = format!(
        "node = \"box\"\n[engine]\nmanifest = {:?}\nmodel = {:?}\nopenvino.library = {:?}\n\
         [mqtt]\nbroker = \"mqtt://127.0.0.1:{}\"\nuser = \"box\"\npassword_credential = \"mqtt\"\n\
         [http]\nlisten = \"127.0.0.1:{}\"\n\
         [[camera]]\nid = \"walk\"\nrepeat = true\nurl = {:?}\n",
        root().join("engines/yolox-nano.toml"),
        assets.join("models/yolox_nano.onnx"),
        openvino_library(),
        broker.port(),
        free_port(),
        assets.join("videos/intel_one-by-one-person-detection.mp4"),
    );
    let Some(booted) = Booted::start(&config) else { return };
    assert!(booted.run(&["systemd-sysusers"]).0);
    booted.systemctl("start", true);
    let watch = Subscriber::start(broker.port(), "watchpost/box/#", Some(("box", PASSWORD)));
    detects(&watch);
    is_locked_in(&booted);
    // A reload is heard of; a file that is not right is told by systemctl, and never reaches the daemon.
    booted.systemctl("reload", true);
    says(&watch, "watchpost/box/notice", "the configuration was read again");
    let toml = "/etc/watchpost/watchpost.toml";
    assert!(booted.run(&["sed", "-i", "s/repeat = true/repeat = 7/", toml]).0);
    booted.systemctl("reload", false);
    assert!(booted.log().contains("camera[walk].repeat: "), "{}", booted.log());
    assert_eq!(booted.property("ActiveState"), "active");
    assert!(booted.run(&["sed", "-i", "s/repeat = 7/repeat = true/", toml]).0);
    // A stage that hangs.
    let pid = booted.property("MainPID").parse().unwrap();
    let held = Held::thread(&booted.inside(&[]), pid, "analyze");
    let since = Instant::now();
    let deadline = since + RESTARTED_AFTER_MAX;
    says_by(deadline, &watch, "watchpost/box/status", "offline");
    let killed = since.elapsed();
    says_by(deadline, &watch, "watchpost/box/status", "online");
    println!("a stage hung: killed after {killed:?}, online after {:?}", since.elapsed());
    drop(held);
    detects(&watch);
    assert_eq!(booted.property("NRestarts"), "1");
    // A configuration that is wrong is not tried again.
    assert!(booted.run(&["sed", "-i", "s/repeat = true/repeat = 7/", toml]).0);
    booted.systemctl("restart", false);
    let ended = ["ActiveState", "ExecMainStatus"].map(|name| booted.property(name));
    assert_eq!(ended, ["failed", "78"]);
    assert!(booted.run(&["sed", "-i", "s/repeat = 7/repeat = true/", toml]).0);
    booted.systemctl("start", true);
    booted.systemctl("stop", true);
    assert_eq!(booted.property("Result"), "success");
    let journal = booted.log();
    assert!(journal.contains("ready after") && journal.contains("stopping"), "{journal}");
    assert!(!journal.contains(PASSWORD), "{journal}");
}
