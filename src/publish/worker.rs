//! The `publish` thread: it connects, sends, and starts again from the cursor after every failure: `run` loops, `run_once`
//! lives one connection.

use std::cell::RefCell;
use std::pin::pin;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use tokio::time::{sleep, timeout};

use super::connection::{Endpoint, Events, Happened, PACKET_BYTES_MAX, Version};
use super::fault::{Complaints, Fault, Kind};
use super::session::Session;
use super::spool::Batch;
use super::{Request, Shared};
use crate::config::MqttProtocol;
use crate::event::NoticeKind;
use crate::worker::Backoff;

/// Waits between attempts.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Shortest wait where the broker does not let us in: it may lock the account.
const UNWELCOME_WAIT: Duration = Duration::from_secs(30);
/// The loop looks at the clock this often.
const TICK: Duration = Duration::from_secs(1);
/// A connection that a message too large has ended so soon was ended by one that the broker keeps.
const KEPT_COMES_WITHIN: Duration = Duration::from_secs(30);
/// So many connections in a row are ended by such a message; on the next none is asked for.
const TOO_LARGE_MAX: u32 = 2;
/// Part of the stop's time that is kept for the good-bye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Which protocol version the next connection speaks.
struct Choice {
    protocol: MqttProtocol,
    /// The broker said that it does not speak MQTT 5.
    v4_only: bool,
    /// It closed the connection at the first MQTT 5 packet, which says the same, but not surely.
    v4_next: bool,
}

impl Choice {
    fn version(&self) -> Version {
        match self.protocol {
            MqttProtocol::V5 => Version::V5,
            MqttProtocol::V4 => Version::V4,
            MqttProtocol::Auto if self.v4_only || self.v4_next => Version::V4,
            MqttProtocol::Auto => Version::V5,
        }
    }

    /// Learns from a connection that ended before it was accepted; `true`: try the other version at once. Without
    /// a clear word from the broker 3.1.1 gets one attempt at a time: a broker that was just being restarted is not
    /// spoken to in it for ever.
    fn learn(&mut self, version: Version, kind: Kind) -> bool {
        let refused = matches!(kind, Kind::Version | Kind::ClosedEarly);
        match version {
            Version::V5 if refused && self.protocol == MqttProtocol::Auto => {
                self.v4_only = kind == Kind::Version;
                self.v4_next = true;
                true
            }
            Version::V5 => false,
            Version::V4 => {
                self.v4_next = false;
                self.v4_only &= !refused;
                false
            }
        }
    }
}

/// How one connection ended.
struct End {
    fault: Fault,
    /// The broker had accepted us.
    accepted: bool,
    /// It had acknowledged something.
    proven: bool,
}

/// Waits between attempts to connect.
pub fn backoff() -> Backoff {
    Backoff::new(BACKOFF_MIN, BACKOFF_MAX)
}

/// The next wait, after a connection that ended so.
pub fn pause(backoff: &mut Backoff, kind: Kind) -> Duration {
    let wait = backoff.next(fastrand::f64());
    match kind {
        Kind::Unwelcome => wait.max(UNWELCOME_WAIT.mul_f64(1.0 + 0.2 * fastrand::f64())),
        _ => wait,
    }
}

/// The `publish` thread.
pub struct Worker<'a> {
    shared: &'a Shared,
    endpoint: Endpoint,
    commands: Sender<Request>,
    choice: Choice,
    greeted: RefCell<Complaints>,
    /// Connections in a row that a message too large has ended.
    too_large: u32,
}

impl<'a> Worker<'a> {
    /// Not yet connected.
    pub fn new(shared: &'a Shared, endpoint: Endpoint, protocol: MqttProtocol, commands: Sender<Request>) -> Self {
        let choice = Choice { protocol, v4_only: false, v4_next: false };
        Self { shared, endpoint, commands, choice, greeted: RefCell::default(), too_large: 0 }
    }

    /// Connects again and again until told to stop.
    pub async fn run(mut self) {
        let mut backoff = backoff();
        let mut complaints = Complaints::default();
        loop {
            let stopping = self.shared.stop_at().is_some();
            let (version, begun) = (self.choice.version(), Instant::now());
            let Err(end) = self.run_once(version).await else { break };
            if end.fault.kind == Kind::Stopping {
                break;
            }
            self.shared.metrics.failures.inc();
            if end.proven {
                backoff.reset();
            }
            self.learn_size(end.fault.kind, begun.elapsed());
            let mut text = end.fault.text;
            if end.fault.kind == Kind::ClosedEarly && !end.accepted {
                text.push_str(" without accepting us: check mqtt.protocol, mqtt.user and its password_file");
            }
            if let Some(line) = complaints.hear(&text, Instant::now()) {
                tracing::warn!("{line}");
            }
            self.shared.set_problem(Some(text));
            let other_at_once = if end.accepted {
                self.choice.v4_next = false;
                false
            } else {
                self.choice.learn(version, end.fault.kind)
            };
            // One attempt is made after the word to stop, to send what is spooled; the rest stays on disk.
            if stopping {
                break;
            }
            if !other_at_once {
                self.wait(pause(&mut backoff, end.fault.kind)).await;
            }
            if self.shared.stop_at().is_some() && self.nothing_to_send() {
                break;
            }
        }
        if let Err(error) = self.shared.spool.commit(&Batch::default()) {
            tracing::error!("the last acknowledgements could not be written ({error}): some messages come again");
        }
    }

    /// Over MQTT 5 the broker keeps to itself what is too large for us. Over 3.1.1 it ends the connection, and one that is
    /// retained would end each: in the end no message is asked for, so that all others go out.
    fn learn_size(&mut self, kind: Kind, lived: Duration) {
        if kind != Kind::TooLarge {
            self.too_large = 0;
            return;
        }
        self.too_large = if lived < KEPT_COMES_WITHIN { self.too_large + 1 } else { 1 };
        let (topics, most) = (&self.shared.topics, PACKET_BYTES_MAX >> 20);
        let filters = format!("{} or {}", topics.command_filter(), topics.enabled_set_filter());
        let text = match self.too_large {
            TOO_LARGE_MAX => format!(
                "The broker keeps a message of more than {most} MiB at {filters}: no command is heard on the next connection. Clear it \
                 by an empty retained message, and start the broker or this box again."
            ),
            _ => format!(
                "A message of more than {most} MiB came to {filters}, and ended the connection to the broker."
            ),
        };
        tracing::warn!("{text}");
        let messages = vec![self.shared.notices.draft(NoticeKind::CommandRefused, None, text)];
        if let Err(error) = self.shared.spool.commit(&Batch { messages, ..Batch::default() }) {
            tracing::error!("the spool cannot be written: {error}");
        }
    }

    fn nothing_to_send(&self) -> bool {
        self.shared.have_inputs_ended() && self.shared.spool.pending() == 0
    }

    /// Waits, but no longer than to the word to stop.
    async fn wait(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while self.shared.stop_at().is_none() {
            self.shared.beat();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left.min(TICK)) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Lives one connection. Ends well only after a good-bye.
    async fn run_once(&self, version: Version) -> Result<(), End> {
        let (client, mut events) = match self.endpoint.connect(version) {
            Ok(connection) => connection,
            Err(fault) => return Err(End { fault, accepted: false, proven: false }),
        };
        let mut session = None;
        let result = self.live(version, &client, &mut events, &mut session).await;
        self.shared.metrics.connected.set(0);
        let (accepted, proven) =
            (session.is_some(), session.is_some_and(|session: Session<'_>| session.is_proven()));
        result.map_err(|fault| End { fault, accepted, proven })
    }

    async fn live<'s>(
        &'s self,
        version: Version,
        client: &'s super::connection::Client,
        events: &mut Events,
        session: &mut Option<Session<'s>>,
    ) -> Result<(), Fault> {
        loop {
            let happened = self.next(events, session).await?;
            match (session.as_mut(), happened) {
                (None, Happened::Connected(limits)) => {
                    let text = format!("connected to the broker {} by {}", self.endpoint.name(), version.name());
                    // A connection that comes and goes is not worth a line each time either.
                    if let Some(line) = self.greeted.borrow_mut().hear(&text, Instant::now()) {
                        tracing::info!("{line}");
                    }
                    self.shared.metrics.connects.inc();
                    self.shared.set_problem(None);
                    *session = Some(Session::open(self.shared, client, limits, self.too_large < TOO_LARGE_MAX)?);
                    self.shared.metrics.connected.set(1);
                }
                (Some(session), happened) => {
                    if session.happened(happened, &self.commands)? {
                        return Ok(());
                    }
                }
                (None, _) => {}
            }
        }
    }

    /// The next thing that happens; meanwhile everything that comes in is handed over.
    async fn next(&self, events: &mut Events, session: &mut Option<Session<'_>>) -> Result<Happened, Fault> {
        let patience = events.patience();
        let mut next = pin!(timeout(patience, events.next(&self.endpoint)));
        loop {
            self.shared.beat();
            if let Some(session) = session {
                session.fill()?;
                if session.is_deaf(Instant::now(), patience) {
                    return Err(Fault::deaf(&self.endpoint.name(), patience));
                }
            }
            if let Some(stop_at) = self.shared.stop_at() {
                let now = Instant::now();
                if now >= stop_at {
                    return Err(Fault::stopping());
                }
                match session {
                    Some(session) => {
                        let drained = self.shared.have_inputs_ended() && session.is_drained();
                        if drained || now + GOODBYE >= stop_at {
                            session.leave()?;
                        }
                    }
                    None if self.nothing_to_send() => {
                        return Err(Fault::stopping());
                    }
                    None => {}
                }
            }
            let until_stop = self.shared.stop_at().map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                biased;
                happened = &mut next => {
                    return happened.unwrap_or_else(|_| Err(Fault::silent(&self.endpoint.name())));
                }
                () = self.shared.wake.notified() => {}
                () = sleep(TICK.min(until_stop.max(Duration::from_millis(10)))) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1() {
        let mut choice = Choice { protocol: MqttProtocol::Auto, v4_only: false, v4_next: false };
        assert_eq!(choice.version(), Version::V5);
        assert!(!choice.learn(Version::V5, Kind::Network));
        assert_eq!(choice.version(), Version::V5, "a broker that is away says nothing about versions");
        assert!(choice.learn(Version::V5, Kind::Version));
        assert_eq!(choice.version(), Version::V4);
        assert!(!choice.learn(Version::V4, Kind::ClosedEarly));
        assert_eq!(choice.version(), Version::V5);
        assert!(choice.learn(Version::V5, Kind::ClosedEarly));
        assert_eq!(choice.version(), Version::V4);
        assert!(!choice.learn(Version::V4, Kind::Network));
        assert_eq!(choice.version(), Version::V5, "it was only being restarted");
    }

    #[test]
    fn a_fixed_version_stays() {
        for (protocol, version) in [(MqttProtocol::V5, Version::V5), (MqttProtocol::V4, Version::V4)] {
            let mut choice = Choice { protocol, v4_only: false, v4_next: false };
            assert!(!choice.learn(version, Kind::Version));
            assert!(!choice.learn(version, Kind::ClosedEarly));
            assert_eq!(choice.version(), version);
        }
    }
}
