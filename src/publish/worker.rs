//! The two threads. `spool` takes what must not be lost and puts it on disk; `publish` connects, sends, and starts
//! again from the cursor after every failure: `run` loops, `run_once` lives one connection.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use tokio::time::{sleep, timeout};

use super::connection::{Endpoint, Events, Happened, Version};
use super::fault::{Complaints, Fault, Kind};
use super::session::Session;
use super::spool::Batch;
use super::{Input, Request, Shared};
use crate::config::MqttProtocol;
use crate::event::{EventKind, NoticeKind};
use crate::worker::Backoff;

/// Waits between attempts.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Shortest wait where the broker does not let us in: it may lock the account.
const UNWELCOME_WAIT: Duration = Duration::from_secs(30);
/// The loops look at the clock this often; acknowledgements reach the disk within it.
const TICK: Duration = Duration::from_secs(1);
/// Most entries in one commit.
const GROUP_MAX: usize = 512;
/// Most entries kept in memory while the disk takes nothing, looked at once a [`TICK`].
const BACKLOG_MAX: usize = 4096;
/// Part of the stop's time that is kept for the good-bye.
const GOODBYE: Duration = Duration::from_millis(500);

/// What was given and is not yet in a commit.
struct Waiting<'a> {
    input: &'a Receiver<Input>,
    /// What came while the disk took nothing, so that nobody waits for it.
    backlog: VecDeque<Input>,
    /// Messages dropped of it that no notice has told of.
    dropped: u64,
}

impl Waiting<'_> {
    fn next(&mut self) -> Result<Input, RecvTimeoutError> {
        self.backlog.pop_front().map_or_else(|| self.input.recv_timeout(TICK), Ok)
    }

    fn try_next(&mut self) -> Option<Input> {
        self.backlog.pop_front().or_else(|| self.input.try_recv().ok())
    }

    /// Takes what comes, the oldest messages making room; how many of them were dropped.
    fn gather(&mut self, until: Instant) -> u64 {
        // As many again, whatever could not be dropped before: else the disk would be asked without a pause.
        let full = self.backlog.len().max(BACKLOG_MAX) + BACKLOG_MAX;
        while self.backlog.len() < full {
            match self.input.recv_deadline(until) {
                Ok(input) => self.backlog.push_back(input),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(until.saturating_duration_since(Instant::now()));
                    break;
                }
            }
        }
        let dropped = shed(&mut self.backlog, BACKLOG_MAX);
        self.dropped += dropped;
        dropped
    }
}

/// Of each retained topic the latest stays, and of the messages so many that no more than `most` entries wait: how many
/// messages, the oldest, were dropped. What begins and ends tracks goes last, and of whole tracks only, so that each `new` on
/// disk has its `end`: beyond `most` there may be two messages for each track that lives.
fn shed(backlog: &mut VecDeque<Input>, most: usize) -> u64 {
    let mut later = HashSet::new();
    let is_latest = |input: &Input| match input {
        Input::Retain(topic, _) => later.insert(topic.as_str().to_owned()),
        Input::Count(topic, _) | Input::Forget(topic) => later.insert(topic.clone()),
        Input::Message(_) | Input::RetainFirst(..) | Input::ForgetThose(_) => true,
    };
    let mut latest: Vec<bool> = backlog.iter().rev().map(is_latest).collect();
    backlog.retain(|_| latest.pop().unwrap_or(true));
    let before = backlog.len();
    let mut excess = before.saturating_sub(most);
    backlog.retain(|input| {
        let goes = excess > 0
            && matches!(input, Input::Message(draft) if !matches!(draft.track(), Some((_, EventKind::New | EventKind::End))));
        excess -= usize::from(goes);
        !goes
    });
    let whole = whole_tracks(backlog, excess);
    backlog.retain(
        |input| !matches!(input, Input::Message(draft) if draft.track().is_some_and(|(id, _)| whole.contains(id))),
    );
    (before - backlog.len()) as u64
}

/// The oldest tracks that begin and end in the backlog, so many that they have `excess` messages, if there are.
fn whole_tracks(backlog: &VecDeque<Input>, excess: usize) -> HashSet<String> {
    let of_kind = |wanted: EventKind| {
        backlog.iter().filter_map(move |input| match input {
            Input::Message(draft) => draft.track().filter(|(_, kind)| *kind == wanted).map(|(id, _)| id),
            _ => None,
        })
    };
    let ended: HashSet<&str> = of_kind(EventKind::End).collect();
    of_kind(EventKind::New).filter(|id| ended.contains(id)).take(excess.div_ceil(2)).map(str::to_owned).collect()
}

/// The `spool` thread: ends when every [`super::Publisher`] is gone and all they gave is on disk.
pub fn spool(shared: &Shared, input: &Receiver<Input>) {
    let mut waiting = Waiting { input, backlog: VecDeque::new(), dropped: 0 };
    loop {
        let mut batch = Batch::default();
        match waiting.next() {
            Ok(first) => {
                take(shared, &mut waiting, &mut batch, first);
                while batch.len() < GROUP_MAX
                    && let Some(next) = waiting.try_next()
                {
                    take(shared, &mut waiting, &mut batch, next);
                }
            }
            Err(RecvTimeoutError::Timeout) if shared.spool.is_behind() => {}
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        commit(shared, &mut waiting, &batch);
        shared.wake.notify_one();
    }
    shared.inputs_ended();
}

fn take(shared: &Shared, waiting: &mut Waiting<'_>, batch: &mut Batch, input: Input) {
    match input {
        Input::Message(draft) => batch.messages.push(draft),
        Input::Retain(topic, body) => batch.retained.push((topic.as_str().to_owned(), Some(body))),
        Input::RetainFirst(topic, body) => {
            let of_batch =
                batch.retained.iter().rfind(|(of, _)| of == topic.as_str()).map(|(_, body)| body.is_some());
            // What an event of this batch retains goes before all else of it.
            if !of_batch.unwrap_or_else(|| shared.spool.retained_body(topic.as_str()).is_some()) {
                batch.retained.push((topic.as_str().to_owned(), Some(body)));
            }
        }
        Input::Count(topic, value) => batch.retained.push((topic, Some(value.to_string().into()))),
        Input::Forget(topic) => batch.retained.push((topic, None)),
        Input::ForgetThose(which) => {
            // What events retain is known once they are written.
            if !batch.messages.is_empty() {
                commit(shared, waiting, &std::mem::take(batch));
            }
            // Those of this batch, too.
            for (topic, body) in &mut batch.retained {
                *body = body.take().filter(|_| !which(topic));
            }
            batch.retained.extend(shared.spool.retained_topics(&which).into_iter().map(|topic| (topic, None)));
        }
    }
}

/// Writes a batch, again and again where the disk fails. Nobody waits for the disk meanwhile: what comes is kept in memory,
/// the oldest messages are dropped and counted, and a notice says so once there is room again.
fn commit(shared: &Shared, waiting: &mut Waiting<'_>, batch: &Batch) {
    let mut complaints = Complaints::default();
    while let Err(error) = shared.spool.commit(batch) {
        if let Some(line) = complaints.hear(&error.to_string(), Instant::now()) {
            tracing::error!("the spool cannot be written: {line}: free or repair the disk of state_dir");
        }
        if shared.stop_at().is_some_and(|at| Instant::now() >= at) {
            let lost = batch.len() + waiting.backlog.len();
            tracing::error!("{lost} messages could not be spooled before the stop");
            return;
        }
        shared.metrics.spool_dropped.inc_by(waiting.gather(Instant::now() + TICK));
    }
    if waiting.dropped > 0 {
        let text = format!(
            "The disk of state_dir took nothing: {} messages were dropped, the oldest that waited for it. Free or \
             repair it.",
            std::mem::take(&mut waiting.dropped)
        );
        waiting.backlog.push_front(Input::Message(shared.notices.draft(NoticeKind::SpoolOverflow, None, text)));
    }
}

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
}

impl<'a> Worker<'a> {
    /// Not yet connected.
    pub fn new(shared: &'a Shared, endpoint: Endpoint, protocol: MqttProtocol, commands: Sender<Request>) -> Self {
        let choice = Choice { protocol, v4_only: false, v4_next: false };
        Self { shared, endpoint, commands, choice, greeted: RefCell::default() }
    }

    /// Connects again and again until told to stop.
    pub async fn run(mut self) {
        let mut backoff = backoff();
        let mut complaints = Complaints::default();
        loop {
            let stopping = self.shared.stop_at().is_some();
            let version = self.choice.version();
            let Err(end) = self.run_once(version).await else { break };
            if end.fault.kind == Kind::Stopping {
                break;
            }
            self.shared.metrics.failures.inc();
            if end.proven {
                backoff.reset();
            }
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
                    *session = Some(Session::open(self.shared, client, limits)?);
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
    use crate::frame::CameraId;
    use crate::publish::draft::Draft;
    use crate::publish::notice::{Identity, Notices};
    use crate::publish::topic::Topics;

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
    fn a_backlog_keeps_the_latest_of_each_topic_and_drops_the_oldest_messages() {
        let identity = Identity { node: "n".to_owned(), boot: "0123ab".to_owned() };
        let topics = Topics::new("w", "n").unwrap();
        let notices = Notices::new(identity, topics.notice());
        let message = |n: u32| Input::Message(notices.draft(NoticeKind::Started, None, n.to_string()));
        let retain = |body: &[u8]| Input::Retain(topics.info(), body.to_vec());
        let mut backlog =
            VecDeque::from([retain(b"1"), message(0), message(1), Input::Count("a".to_owned(), 1), message(2)]);
        backlog.extend([retain(b"2"), Input::Forget("a".to_owned()), message(3)]);
        assert_eq!(shed(&mut backlog, 4), 2);
        let texts: Vec<String> = backlog
            .iter()
            .map(|input| match input {
                Input::Message(draft) => {
                    let (body, _) = draft.body(0).unwrap();
                    serde_json::from_slice::<crate::event::Notice>(&body).unwrap().text
                }
                Input::Retain(_, body) => format!("retained {}", body.escape_ascii()),
                Input::Forget(topic) => format!("forget {topic}"),
                _ => "another".to_owned(),
            })
            .collect();
        assert_eq!(texts, ["2", "retained 2", "forget a", "3"]);
        assert_eq!(shed(&mut backlog, 1), 2, "what is retained stays");
        assert_eq!(backlog.len(), 2);
    }

    #[test]
    fn of_events_whole_tracks_are_dropped_and_no_beginning_or_end_alone() {
        use crate::formats::samples;
        let topics = Topics::new("w", "n").unwrap();
        let event = |id: &str, event: crate::event::Event| {
            let event = crate::event::Event { id: id.to_owned(), ..event };
            Input::Message(Draft::event(topics.events(&CameraId::new("gate")), event))
        };
        // `a` began before; `b` and `c` begin and end, `d` goes on.
        let mut backlog = VecDeque::from([event("b", samples::new()), event("a", samples::update())]);
        backlog.extend([event("a", samples::end()), event("b", samples::update()), event("d", samples::new())]);
        backlog.extend([event("b", samples::end()), event("c", samples::new()), event("c", samples::end())]);
        let left = |backlog: &VecDeque<Input>| -> String {
            let tracks = backlog.iter().filter_map(|input| match input {
                Input::Message(draft) => draft.track(),
                _ => None,
            });
            tracks.map(|(id, kind)| format!("{id} {kind:?} ").to_lowercase()).collect()
        };
        assert_eq!(shed(&mut backlog, 6), 2);
        assert_eq!(left(&backlog), "b new a end d new b end c new c end ");
        assert_eq!(shed(&mut backlog, 5), 2);
        assert_eq!(left(&backlog), "a end d new c new c end ");
        assert_eq!(shed(&mut backlog, 0), 2);
        assert_eq!(left(&backlog), "a end d new ", "each has its other half elsewhere");
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
