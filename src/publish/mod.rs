//! Publishing: the only module that knows MQTT clients and brokers.
//!
//! ```text
//!   detections, health ──► queue (256, drops its oldest) ────────────────┐
//!   notice ──┐                                                            ├─► session ─► broker
//!   retain ──┴─► channel (4,096) ─► `spool` ─► `disk` ─► file ─► cursor ──┘   (one a connection)
//! ```
//!
//! * [`topic`]: every topic; [`commands`]: what comes in.
//! * [`spool`] over [`store`]: what must not be lost, on disk before anything is sent; [`retained`]: the latest of
//!   every retained topic; [`queue`]: what is worth something only now.
//! * [`connection`]: one connection over MQTT 5 or 3.1.1, [`tls`], and in [`fault`] why it ended.
//! * [`presence`]: a second connection, whose last will says `offline` to those that read Frigate's topics.
//! * [`session`]: what was sent on it, in a [`window`] of 16; [`spooler`] and [`worker`]: the threads.
//! * [`embedded`]: a broker in this process, for a box without one.
//!
//! The rule of it all: the spool is the truth. Any failure drops the connection with everything that belongs to it;
//! the next one starts from the acknowledged cursor.

mod commands;
mod connection;
mod consumers;
#[cfg(test)]
mod damage_tests;
mod draft;
mod embedded;
mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod notice;
mod open;
mod presence;
mod queue;
mod record;
mod retained;
mod session;
mod spool;
#[cfg(test)]
mod spool_tests;
mod spooler;
mod store;
mod tls;
mod topic;
mod window;
mod worker;

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::Notify;

use crate::config::{Broker, MqttConfig, MqttProtocol};
use crate::event::{Counter, Detections, Event, Health, NoticeKind};
use crate::frame::CameraId;
use crate::metrics::PublishMetrics;
use crate::worker::Heartbeat;

pub use commands::{Acknowledgement, CameraCommand, Command, ReloadCommand, Reply, Request, SnapshotCommand};
pub use connection::LIVE_EXPIRY_S;
pub use consumers::{Card, Wanted};
pub use notice::Identity;
pub use topic::{Topic, TopicError, Topics};

use connection::Endpoint;
use consumers::Consumers;
use draft::Draft;
use embedded::Embedded;
use notice::Notices;
use presence::Presence;
use queue::{Kind, Live, LiveQueue};
use spool::{Batch, Derive, Spool};

/// Entries that may wait for the spool: minutes of events.
const INPUT_CAPACITY: usize = 4096;
/// So many messages wait for the end of their batch, at most, before they are sent.
const WAITING_MAX: usize = 32;
/// Most `detections` messages fit: their text without objects, and an object in it.
const MESSAGE_BYTES: usize = 640;
const OBJECT_BYTES: usize = 128;
/// Answers to commands that may wait for the broker; beyond, the oldest is dropped and logged.
const ANSWERS_MAX: usize = 64;
/// So much longer than its threads' own deadline, as a share of it, [`Running::finish`] waits: they must see it first.
pub const PATIENCE: f64 = 0.2;
/// Name of the spool's file in the state directory.
const SPOOL_FILE: &str = "spool.redb";

/// The publisher could not start.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Names that cannot be topics.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Certificates that cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The spool cannot be opened: exit code 74.
    #[error("the spool {} cannot be opened ({reason}): give a state_dir that this user may write to and whose disk has room, and run one watchpost in it", path.display())]
    Spool {
        /// Its file.
        path: PathBuf,
        /// What the system or the store says.
        reason: String,
    },
    /// The embedded broker does not start.
    #[error("{0}")]
    Embedded(String),
    /// The system has no room for the network loop.
    #[error("the network loop cannot start: {0}")]
    Network(std::io::Error),
}

/// What goes to the `spool` thread.
enum Input {
    Message(Draft),
    Retain(Topic, Vec<u8>),
    /// Where nothing is retained then.
    RetainFirst(Topic, Vec<u8>),
    Forget(String),
    /// Whatever is retained then.
    ForgetThose(Box<dyn Fn(&str) -> bool + Send>),
    Count(String, u64),
}

/// What came of a command, on its way to whoever asked.
struct Answer {
    reply: Reply,
    body: Vec<u8>,
}

/// What the publishers and the two threads share.
struct Shared {
    topics: Topics,
    notices: Notices,
    consumers: Arc<Consumers>,
    metrics: PublishMetrics,
    live: LiveQueue,
    spool: Spool,
    wake: Notify,
    heartbeat: Heartbeat,
    inputs_ended: AtomicBool,
    stop_at: Mutex<Option<Instant>>,
    problem: Mutex<Option<String>>,
    /// Retained topics that the broker refused, told of once.
    refused: Mutex<HashSet<String>>,
    answers: Mutex<VecDeque<Answer>>,
    /// The cameras there are, once that was said: their last pictures may be made when they are gone.
    cameras: Mutex<Option<HashSet<CameraId>>>,
}

impl Shared {
    fn stop_at(&self) -> Option<Instant> {
        *lock(&self.stop_at)
    }

    fn inputs_ended(&self) {
        self.inputs_ended.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn have_inputs_ended(&self) -> bool {
        self.inputs_ended.load(Ordering::Acquire)
    }

    fn set_problem(&self, problem: Option<String>) {
        *lock(&self.problem) = problem;
    }

    fn first_refusal(&self, topic: &str) -> bool {
        lock(&self.refused).insert(topic.to_owned())
    }

    fn answers(&self) -> MutexGuard<'_, VecDeque<Answer>> {
        lock(&self.answers)
    }

    fn answer(&self, reply: Reply, acknowledgement: &Acknowledgement) {
        // Our own types always serialise.
        let body = serde_json::to_vec(acknowledgement).unwrap_or_default();
        let mut answers = self.answers();
        if answers.len() == ANSWERS_MAX {
            let name = answers.pop_front().map(|answer| answer.reply.name).unwrap_or_default();
            tracing::warn!("what came of {name} is not told: more than {ANSWERS_MAX} answers wait for the broker");
        }
        answers.push_back(Answer { reply, body });
        drop(answers);
        self.wake.notify_one();
    }

    fn beat(&self) {
        self.heartbeat.beat(Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands messages to the publisher. Clones share; the publisher ends when all are dropped.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    input: Sender<Input>,
}

impl Publisher {
    /// The topics of this box.
    pub fn topics(&self) -> &Topics {
        &self.shared.topics
    }

    /// A `detections` message. Never blocks; dropped and counted while there is no connection, and where the broker
    /// is slow, the oldest first. QoS 0, expires after 5 s. Sent at the next [`Publisher::wake`], or when many wait:
    /// to wake the thread that sends for each of a batch's messages costs both threads more than the messages do.
    pub fn detections(&self, camera: &CameraId, message: &Detections) {
        if !self.shared.live.is_open() {
            self.shared.live.count_dropped(Kind::Message);
            return;
        }
        let topic = self.shared.topics.detections(camera);
        let body = Vec::with_capacity(MESSAGE_BYTES + OBJECT_BYTES * message.objects.len());
        let mut waiting = 0;
        if let Some(live) = live(topic, message, body) {
            waiting = self.shared.live.push(live);
        }
        for message in self.shared.consumers.detections(camera, message) {
            let topic = Topic::of_consumer(message.topic);
            waiting = self.shared.live.push(Live::new(topic, message.body));
        }
        if waiting >= WAITING_MAX {
            self.wake();
        }
    }

    /// What was given is sent now.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// A `health` message, QoS 0; dropped while there is no connection.
    pub fn health(&self, message: &Health) {
        if let Some(live) = live(self.shared.topics.health(), message, Vec::new()) {
            self.shared.live.push_health(live);
            self.shared.wake.notify_one();
        }
    }

    /// The best picture of a track so far, a JPEG at QoS 0. Never blocks; dropped and counted while there is no connection,
    /// and where the broker is slow, the oldest first.
    pub fn snapshot(&self, camera: &CameraId, track: &str, jpeg: &[u8]) {
        let topic = self.shared.topics.snapshot_of(camera, track);
        self.shared.live.push_picture(Live { kind: Kind::Picture, ..Live::new(topic, jpeg.to_vec()) });
        self.shared.wake.notify_one();
    }

    /// The latest picture of a camera, retained: it goes through the spool, so this is for few a second.
    pub fn latest_snapshot(&self, camera: &CameraId, jpeg: &[u8]) {
        // Held until it is given: a camera that goes meanwhile clears it.
        let cameras = lock(&self.shared.cameras);
        if cameras.as_ref().is_none_or(|cameras| cameras.contains(camera)) {
            self.retain(self.shared.topics.snapshot(camera), jpeg.to_vec());
        }
    }

    /// Clears the latest picture of a camera.
    pub fn forget_snapshot(&self, camera: &CameraId) {
        self.forget(self.shared.topics.snapshot(camera));
    }

    /// A notice: one sentence for people. On disk before it is sent, at QoS 1. Waits only where the disk is slower
    /// than 4,096 messages.
    pub fn notice(&self, kind: NoticeKind, camera: Option<&CameraId>, text: String) {
        self.give(Input::Message(self.shared.notices.draft(kind, camera, text)));
    }

    /// A notice of an engine that is being built: `pct`, 0..100, is done; `None` where it failed. As [`Publisher::notice`].
    pub fn engine_build(&self, pct: Option<u8>, text: String) {
        self.give(Input::Message(self.shared.notices.build(pct, text)));
    }

    /// An event of a track, which gets its number here. As [`Publisher::notice`]; until its `end` was
    /// given, the next start ends it.
    pub fn event(&self, event: Event) {
        let topic = self.shared.topics.events(&CameraId::new(&event.camera));
        self.give(Input::Message(Draft::event(topic, event)));
    }

    /// A count, retained.
    pub fn count(&self, camera: &CameraId, counter: &Counter, value: u64) {
        self.retain(self.shared.topics.count(camera, counter), value.to_string().into());
        let latest = |topic: &str| self.shared.spool.retained_body(topic);
        self.retain_all(self.shared.consumers.count(camera, counter, value, latest));
    }

    /// Tells other consumers that there is this box, and what it has; what is to be counted is 0 so far.
    pub fn greet(&self) {
        for (camera, counter) in self.shared.consumers.counters() {
            self.count(&camera, &counter, 0);
        }
        self.retain_all(self.shared.consumers.greeting(|topic| self.shared.spool.retained_body(topic)));
        self.shared.consumers.cameras().iter().for_each(|camera| self.retain_vacancies(camera));
    }

    /// Behind all that was said of the camera's zones, and before all that will be: who is in one already stays there.
    fn retain_vacancies(&self, camera: &CameraId) {
        for message in self.shared.consumers.vacancies(camera) {
            self.give(Input::RetainFirst(Topic::of_consumer(message.topic), message.body));
        }
    }

    /// Tells other consumers that it goes.
    pub fn take_leave(&self) {
        self.retain_all(self.shared.consumers.farewell());
    }

    fn retain_all(&self, messages: Vec<crate::formats::Message>) {
        for message in messages {
            self.retain(Topic::of_consumer(message.topic), message.body);
        }
    }

    /// Every count is 0: nothing was seen yet.
    pub fn reset_counts(&self) {
        let (topics, consumers) = (&self.shared.topics, &self.shared.consumers);
        for topic in self.shared.spool.retained_topics(|topic| topics.is_count(topic) || consumers.is_count(topic))
        {
            self.give(Input::Count(topic, 0));
        }
    }

    /// The latest message of a retained topic, QoS 1. Kept on disk and sent after every connect; an equal body is
    /// not sent again. An empty body clears the topic, as [`Publisher::forget`] does. Waits as
    /// [`Publisher::notice`].
    pub fn retain(&self, topic: Topic, body: Vec<u8>) {
        if body.is_empty() {
            return self.forget(topic);
        }
        self.give(Input::Retain(topic, body));
    }

    /// Clears a retained topic on the broker, now or after the next connect, until it is acknowledged. A topic that
    /// was never retained is left alone.
    pub fn forget(&self, topic: Topic) {
        self.give(Input::Forget(topic.as_str().to_owned()));
    }

    /// Clears the retained topics of every camera but these: those of cameras that were configured before the last
    /// start, too.
    pub fn forget_other_cameras(&self, cameras: &[CameraId]) {
        *lock(&self.shared.cameras) = Some(cameras.iter().cloned().collect());
        let (topics, cameras) = (self.shared.topics.clone(), cameras.to_vec());
        self.give(Input::ForgetThose(Box::new(move |topic| {
            topics.camera_of(topic).is_some_and(|camera| !cameras.contains(&camera))
        })));
    }

    /// There is no such camera any more: clears what was retained of it. Whatever was given before is cleared, too.
    pub fn forget_camera(&self, camera: &CameraId) {
        lock(&self.shared.cameras).as_mut().map(|cameras| cameras.remove(camera));
        let latest = |topic: &str| self.shared.spool.retained_body(topic);
        self.retain_all(self.shared.consumers.remove_camera(camera, latest));
        let (shared, camera) = (Arc::clone(&self.shared), camera.clone());
        self.give(Input::ForgetThose(Box::new(move |topic| {
            shared.topics.camera_of(topic).is_some_and(|of| of == camera)
                || shared.consumers.is_count_of(&camera, topic)
        })));
    }

    /// The camera is new: what is to be counted is 0 so far, and other consumers are told of it.
    pub fn greet_camera(&self, camera: &CameraId, card: Card) {
        lock(&self.shared.cameras).as_mut().map(|cameras| cameras.insert(camera.clone()));
        for counter in card.counters() {
            self.retain(self.shared.topics.count(camera, &counter), b"0".to_vec());
        }
        let latest = |topic: &str| self.shared.spool.retained_body(topic);
        self.retain_all(self.shared.consumers.set_camera(camera, card, latest));
        self.retain_vacancies(camera);
    }

    /// The camera has other zones and lines than before: clears what was retained of those that it has not, says of the new
    /// ones that nothing is there so far, and tells other consumers.
    pub fn welcome_camera(&self, camera: &CameraId, card: Card) {
        let latest = |topic: &str| self.shared.spool.retained_body(topic);
        let counters = card.counters();
        // First, so that no event from here on brings back what is cleared then.
        let told = self.shared.consumers.set_camera(camera, card, latest);
        let (shared, id) = (Arc::clone(&self.shared), camera.clone());
        self.give(Input::ForgetThose(Box::new(move |topic| {
            shared.topics.place_of(&id, topic).is_some() && !shared.consumers.keeps(topic)
        })));
        self.retain_all(told);
        for counter in counters {
            self.give(Input::RetainFirst(self.shared.topics.count(camera, &counter), b"0".to_vec()));
        }
        self.retain_vacancies(camera);
    }

    /// Tells whoever gave a command what came of it. Lost where the connection is: nobody waits for ever.
    pub fn acknowledge(&self, reply: Reply, acknowledgement: &Acknowledgement) {
        self.shared.answer(reply, acknowledgement);
    }

    /// Why there is no connection, in one sentence; `None` while there is one, and before the first attempt ended.
    pub fn problem(&self) -> Option<String> {
        lock(&self.shared.problem).clone()
    }

    fn give(&self, input: Input) {
        if self.input.send(input).is_err() {
            tracing::error!("the spool has ended: a message is lost");
        }
    }
}

/// Writes into `body`, which is empty.
fn live(topic: Topic, message: &impl serde::Serialize, mut body: Vec<u8>) -> Option<Live> {
    match serde_json::to_writer(&mut body, message) {
        Ok(()) => Some(Live::new(topic, body)),
        Err(error) => {
            tracing::error!("a message for {topic} cannot be written as JSON: {error}");
            None
        }
    }
}

/// The publisher's threads, and the embedded broker.
pub struct Running {
    shared: Arc<Shared>,
    /// Disconnects when both threads have ended.
    ended: Receiver<()>,
    /// Ends after them: its clients still get the good-bye.
    broker: Option<Embedded>,
}

impl Running {
    /// Beats while the publisher makes progress, connected or not.
    pub fn heartbeat(&self) -> Heartbeat {
        self.shared.heartbeat.clone()
    }

    /// Ends the publisher, to be called when every [`Publisher`] is dropped: all that was given is put on disk and
    /// sent as far as `deadline` allows, then `offline` is published and the connection closed. What was not sent
    /// stays on disk for the next start. Without a connection and with something to send, one attempt is made. Returns after
    /// `deadline` and [`PATIENCE`] at the latest, but for the embedded broker.
    pub fn finish(self, deadline: Duration) {
        *lock(&self.shared.stop_at) = Some(Instant::now() + deadline);
        self.shared.wake.notify_one();
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(deadline.mul_f64(1.0 + PATIENCE)) {
            tracing::error!("the publisher did not end in time; what is spooled is safe");
        }
        drop(self.broker);
    }
}

/// Opens the spool, starts the embedded broker where one is configured, and the publisher's threads. Does not wait
/// for the broker: a broker that is away is a state, not an error. Commands go to `commands`, without waiting.
/// Other consumers are told in their forms what they want.
///
/// # Errors
///
/// See [`PublishError`].
pub fn start(
    wanted: Wanted,
    config: &MqttConfig,
    identity: Identity,
    state_dir: &Path,
    metrics: PublishMetrics,
    commands: Sender<Request>,
) -> Result<(Publisher, Running), PublishError> {
    let topics = Topics::new(&config.base, &identity.node)?;
    check_tls(config)?;
    let notices = Notices::new(identity, topics.notice());
    let consumers = Arc::new(Consumers::new(wanted, &notices.identity().node, &topics));
    let spool = open_spool(config, state_dir, &topics, &notices, &consumers, &metrics)?;
    // The embedded broker speaks nothing else.
    let (broker, protocol) = match config.broker {
        Broker::Embedded { listen } => {
            let broker = embedded::start(listen, config.user.as_deref(), config.password.as_ref());
            (Some(broker.map_err(PublishError::Embedded)?), MqttProtocol::V4)
        }
        Broker::Remote { .. } => (None, config.protocol),
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PublishError::Network)?;
    let shared = Arc::new(Shared {
        notices,
        consumers,
        live: LiveQueue::new(metrics.detections_dropped.clone(), metrics.snapshots_dropped.clone()),
        metrics,
        spool,
        wake: Notify::new(),
        heartbeat: Heartbeat::new(Instant::now()),
        inputs_ended: AtomicBool::new(false),
        stop_at: Mutex::new(None),
        problem: Mutex::new(None),
        refused: Mutex::default(),
        answers: Mutex::default(),
        cameras: Mutex::default(),
        topics,
    });
    let endpoint = Endpoint::new(config, shared.topics.status().as_str());
    let (input, inputs) = bounded(INPUT_CAPACITY);
    let (alive, ended) = bounded::<()>(1);
    // Bound first, dropped last: the end is told when the spool's file is closed, and the next start may open it.
    let spooler = (alive.clone(), Arc::clone(&shared));
    crate::worker::spawn("spool", move || {
        let (alive, shared) = spooler;
        spooler::run(&shared, &inputs, &alive);
    });
    let sender = (alive, Arc::clone(&shared));
    let config = MqttConfig { protocol, ..config.clone() };
    let available = shared.consumers.availability();
    let presence = available.map(|topic| Presence::new(&config, topic, shared.metrics.clone()));
    crate::worker::spawn("publish", move || {
        let (_alive, shared) = sender;
        let worker = worker::Worker::new(&shared, endpoint, protocol, commands);
        runtime.block_on(async {
            tokio::select! {
                () = worker.run() => {}
                Some(never) = async { Some(presence?.hold().await) } => match never {},
            }
        });
    });
    Ok((Publisher { shared: Arc::clone(&shared), input }, Running { shared, ended, broker }))
}

/// Whether the certificates that the broker needs are there and can be used: a look before anything is started.
///
/// # Errors
///
/// [`PublishError::Tls`]: which are not, and what to do.
pub fn check_tls(config: &MqttConfig) -> Result<(), PublishError> {
    match config.broker {
        Broker::Remote { tls: true, .. } => tls::client_config(&config.tls).map(drop).map_err(PublishError::Tls),
        Broker::Remote { .. } | Broker::Embedded { .. } => Ok(()),
    }
}

fn open_spool(
    config: &MqttConfig,
    state_dir: &Path,
    topics: &Topics,
    notices: &Notices,
    consumers: &Arc<Consumers>,
    metrics: &PublishMetrics,
) -> Result<Spool, PublishError> {
    let path = state_dir.join(SPOOL_FILE);
    let error = |reason: String| PublishError::Spool { path: path.clone(), reason };
    std::fs::create_dir_all(state_dir).map_err(|e| error(e.to_string()))?;
    let told = Arc::clone(consumers);
    let derive: Derive = Box::new(move |open, before, event| told.event(open, before, event));
    let opened = Spool::open(&path, config.spool_bytes, notices.clone(), derive, metrics.clone());
    let (spool, aside) = opened.map_err(|e| error(e.to_string()))?;
    // Topics of another base or node name, or of a consumer that is no more, would stay on the broker for ever.
    let strangers = spool.retained_topics(|topic| !consumers.keeps(topic));
    let mut batch = Batch { retained: strangers.into_iter().map(|t| (t, None)).collect(), ..Batch::default() };
    // Before anything of this start, and in one transaction: whatever happens then, they end once.
    batch.messages = spool.open_tracks().ends(notices.identity(), topics, SystemTime::now());
    if let Some(aside) = aside {
        let text = format!(
            "The spool was damaged: it is now {}. Messages found whole in it, which are sent from a new one: {}; others \
             that waited are lost.",
            aside.path.display(),
            aside.saved
        );
        batch.messages.push(notices.draft(NoticeKind::SpoolReset, None, text));
    }
    if !batch.is_empty() {
        spool.commit(&batch).map_err(|e| error(e.to_string()))?;
    }
    Ok(spool)
}
