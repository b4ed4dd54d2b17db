//! Signals as a channel: what the process is asked to do from outside.
//!
//! SIGPIPE needs nothing here: Rust's own start-up ignores it, and a closed pipe is an error like any other.

use std::io;

use crossbeam::channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::worker;

/// Signals that wait for the main loop, which looks at least once a second.
const QUEUE: usize = 8;

/// What the process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The first SIGTERM or SIGINT: stop in order.
    Stop,
    /// Each further one: end at once.
    Now,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Takes over SIGTERM, SIGINT and SIGHUP, for the rest of the process. The thread `signal` ends at the first signal
/// after the receiver is dropped.
///
/// # Errors
///
/// Where the system refuses the handlers.
pub fn listen() -> io::Result<Receiver<Signal>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = bounded(QUEUE);
    worker::spawn("signal", move || {
        let mut stopping = false;
        for number in signals.forever() {
            let signal = match number {
                SIGHUP => Signal::Reload,
                _ if stopping => Signal::Now,
                _ => Signal::Stop,
            };
            stopping |= signal == Signal::Stop;
            // Waits where the queue is full: a request to stop is never lost behind reloads.
            if sender.send(signal).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn the_first_termination_stops_and_the_second_ends_at_once() {
        let receiver = listen().unwrap();
        for (number, expected) in [
            (SIGHUP, Signal::Reload),
            (SIGTERM, Signal::Stop),
            (SIGHUP, Signal::Reload),
            (SIGINT, Signal::Now),
            (SIGTERM, Signal::Now),
        ] {
            raise(number).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::from_secs(20)).unwrap(), expected);
        }
    }
}
