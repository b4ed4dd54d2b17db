//! What the service manager is told: ready, status, stopping, alive. Without `NOTIFY_SOCKET` nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

/// Start-up is over; `status` says in a few words what is served.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// The configuration is being read again; [`ready`] ends that. With the time at which it began, which tells the service
/// manager its own reload from an earlier one (`Type=notify-reload`).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("cannot tell the service manager of a reload: no monotonic clock ({error})"),
    }
}

/// What `systemctl status` shows, such as how far an engine is opened.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&one_line(text))]);
}

/// The stop has begun.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Alive: to be sent every [`watchdog_interval`], and only while progress is made.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] is to be called: half the service's `WatchdogSec=`. `None` where it has none.
pub fn watchdog_interval() -> Option<Duration> {
    let mut usec = 0;
    sd_notify::watchdog_enabled(false, &mut usec).then(|| Duration::from_micros(usec / 2))
}

/// A line break would begin another assignment of the protocol.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!("cannot tell the service manager ({error}): look at NOTIFY_SOCKET and NotifyAccess=");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    /// Not a test of its own: what the test below runs in a process with an environment of its own.
    #[test]
    #[ignore = "run by the_service_manager_hears_everything"]
    fn child() {
        assert_eq!(watchdog_interval(), None, "WATCHDOG_PID is another process");
        ready("3 cameras");
        reloading();
        status("opening\nWATCHDOG=1");
        watchdog();
        stopping();
    }

    #[test]
    fn the_service_manager_hears_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "systemd::tests::child"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "20000000")
            .env("WATCHDOG_PID", "1")
            .status()
            .unwrap();
        assert!(status.success());
        let mut buffer = [0; 256];
        let mut hear = || {
            let length = socket.recv(&mut buffer).unwrap();
            std::str::from_utf8(&buffer[..length]).unwrap().to_owned()
        };
        assert_eq!(hear(), "READY=1\nSTATUS=3 cameras\n");
        let reload = hear();
        let at = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|at| at.strip_suffix('\n'));
        assert!(at.is_some_and(|at| at.parse::<u64>().is_ok_and(|at| at > 0)), "{reload}");
        for expected in ["STATUS=opening WATCHDOG=1\n", "WATCHDOG=1\n", "STOPPING=1\n"] {
            assert_eq!(hear(), expected);
        }
    }

    /// Not a test of its own either. `exec` keeps the process id, so the shell can write it down first.
    #[test]
    #[ignore = "run by the_watchdog_is_fed_twice_an_interval"]
    fn watchdog_child() {
        assert_eq!(watchdog_interval(), Some(Duration::from_secs(10)));
    }

    #[test]
    fn the_watchdog_is_fed_twice_an_interval() {
        let test = std::env::current_exe().unwrap();
        let script = "WATCHDOG_PID=$$ exec \"$0\" --ignored --exact systemd::tests::watchdog_child";
        let mut command = Command::new("sh");
        let status = command.args(["-c", script]).arg(test).env("WATCHDOG_USEC", "20000000").status().unwrap();
        assert!(status.success());
        assert_eq!(watchdog_interval(), None, "tests run without a service manager");
    }
}
