//! What the service manager is told by the real daemon, over a socket of the test's own.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::hold::Held;
use crate::support::mosquitto::PATIENCE;
use crate::support::program::{Daemon, Site, Written};

const READY: &str = "READY=1\nSTATUS=running\n";
const FED: &str = "WATCHDOG=1\n";
/// It is fed once a second: as long as this it is not.
const SILENCE: Duration = Duration::from_secs(6);
/// A stage may be still for 12 s; the rest is the daemon's own second, and a slow machine.
const STARVED_AFTER_MAX: Duration = Duration::from_secs(16);
/// The least that may be given, and a slow machine.
const STOP: Duration = Duration::from_secs(2);
const STOPPED_AFTER_MAX: Duration = Duration::from_secs(4);

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self { socket: UnixDatagram::bind(folder.path().join("notify")).unwrap(), folder }
    }

    fn start(&self, site: &Site) -> Daemon {
        let mut run = site.run(&Written::default());
        Daemon::start(run.env("NOTIFY_SOCKET", self.folder.path().join("notify")))
    }

    /// The next message, if one comes in time.
    fn next_within(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 1024];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The next message but for those that feed the watchdog.
    fn next(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.next_within(PATIENCE) {
                Some(text) if text == FED => {}
                Some(text) => return text,
                None => break,
            }
        }
        panic!("the daemon told nothing but that it is alive")
    }

    fn is_fed(&self) {
        let text = self.next_within(PATIENCE);
        assert_eq!(text.as_deref(), Some(FED));
    }
}

#[test]
fn a_service_manager_is_told_of_the_start_each_reload_and_the_stop() {
    let (manager, site) = (Manager::new(), Site::new());
    let daemon = manager.start(&site);
    assert_eq!(manager.next(), READY);
    manager.is_fed();
    for broken in [false, true] {
        if broken {
            site.write("config.toml", "node = 1");
        }
        daemon.signal("HUP");
        let told = manager.next();
        assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
        assert_eq!(manager.next(), READY, "what is wrong changes nothing");
    }
    daemon.terminate();
    assert_eq!(manager.next(), "STOPPING=1\n");
    assert_eq!(daemon.finish().0, Some(0));
}

/// The thread stands still, and the daemon with it: nothing feeds the watchdog until it goes on.
fn a_stage_that_hangs_starves_the_watchdog(thread: &str) {
    let (manager, site) = (Manager::new(), Site::new());
    let daemon = manager.start(&site);
    assert_eq!(manager.next(), READY);
    manager.is_fed();
    let held = Held::thread(&[], daemon.id(), thread);
    let since = Instant::now();
    let mut fed_last = since;
    while let Some(told) = manager.next_within(SILENCE) {
        assert_eq!(told, FED);
        fed_last = Instant::now();
        assert!(fed_last - since < STARVED_AFTER_MAX, "{thread} hangs, and the watchdog is fed");
    }
    drop(held);
    manager.is_fed();
    daemon.terminate();
    assert_eq!(daemon.finish().0, Some(0), "after {:?}", fed_last - since);
}

#[test]
fn inference_that_hangs_starves_the_watchdog() {
    a_stage_that_hangs_starves_the_watchdog("infer");
}

#[test]
fn analysis_that_hangs_starves_the_watchdog() {
    a_stage_that_hangs_starves_the_watchdog("analyze");
}

#[test]
fn publishing_that_hangs_starves_the_watchdog() {
    a_stage_that_hangs_starves_the_watchdog("publish");
}

/// What is documented of `stop_deadline`: code 1, and a line that names it.
fn a_stage_that_hangs_at_a_stop_is_not_waited_for(thread: &str) {
    let site = Site::new();
    let written = Written { top: &format!("stop_deadline = \"{}s\"", STOP.as_secs()), ..Written::default() };
    let mut daemon = Daemon::start(&mut site.run(&written));
    daemon.wait_for("ready after");
    let _held = Held::thread(&[], daemon.id(), thread);
    let since = Instant::now();
    daemon.terminate();
    let (code, log, _) = daemon.finish();
    let took = since.elapsed();
    assert_eq!(code, Some(1), "{thread}: {log}");
    assert!(log.contains("the stop took longer than stop_deadline (2 s): ending now"), "{thread}: {log}");
    assert!(took >= STOP && took < STOPPED_AFTER_MAX, "{thread}: ended after {took:?}");
}

#[test]
fn a_stop_ends_at_its_deadline_whatever_hangs() {
    for thread in ["cam-gate", "infer", "analyze"] {
        a_stage_that_hangs_at_a_stop_is_not_waited_for(thread);
    }
}
