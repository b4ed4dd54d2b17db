//! The analysis loop: batches in, messages out. Suppresses duplicates, goes back to the source's coordinates, follows
//! what was seen through each camera's scene and decides which frames are worth a message.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, Sender};

use crate::backend::{Batch, Lane};
use crate::config::DetectionsMode;
use crate::event::{
    Counter, DETECTIONS_SCHEMA, Detections, EndReason, Event, LatMs, Model, NoticeKind, Object, Ts, rfc3339,
};
use crate::frame::{CameraId, FrameInfo};
use crate::metrics::{CameraMetrics, Metrics};
use crate::rate::RateLimit;
use crate::scene::{Outcome, Rules, Scene, Sight, Speaker};
use crate::snapshot::{OnDemand, Snapshot};
use crate::worker::Heartbeat;
use crate::yolo::{Detection, nms};

/// Longest wait without a beat of the heart.
const TICK: Duration = Duration::from_secs(1);
/// A camera's frames that were on their way when it went away have come after this long.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// What is said.
#[derive(Debug)]
pub enum Output<'a> {
    /// A frame's detections.
    Detections(&'a Detections),
    /// An event of a track.
    Event(Box<Event>),
    /// A count that changed.
    Count(Counter, u64),
    /// Something people should know, once an episode.
    Notice(NoticeKind, String),
    /// A view of a track to make a picture of.
    Snapshot(Snapshot),
    /// A view of a camera that somebody asked for.
    OnDemand(OnDemand),
    /// All of a batch is said, its last camera's frame too.
    BatchEnd,
}

/// What the analysis is told about cameras while it runs.
#[derive(Clone, Debug)]
pub enum Order {
    /// The camera gives no frames from now on: its tracks end for this reason, and its lines are counted from 0.
    End(CameraId, EndReason),
    /// The camera's file was read to its end: its tracks end, and what has crossed its lines stays known.
    Finish(CameraId),
    /// There is a camera of this name from now on. Frames that arrived before are those of another that had it.
    Begin(CameraId, Instant, View),
    /// The camera goes on and is looked at differently.
    Exchange(CameraId, View),
    /// There is no such camera any more: its tracks end, and frames still on their way are not looked at.
    Remove(CameraId),
    /// All that was ordered before is done when this is dropped.
    Settled(Sender<()>),
}

/// How a camera is looked at.
#[derive(Clone, Debug)]
pub struct View {
    /// Which frames become messages.
    pub policy: Policy,
    /// What is looked for; `None`: nothing is tracked.
    pub rules: Option<Rules>,
}

/// Which frames of a camera become `detections` messages.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Which frames are worth a message.
    pub mode: DetectionsMode,
    /// Most messages a second.
    pub hz_max: Option<f64>,
}

/// What is the same for every frame.
pub struct Setup {
    /// Name of the box.
    pub node: String,
    /// This start of the daemon.
    pub boot: String,
    /// Class names.
    pub labels: Arc<Vec<String>>,
    /// Overlap (IoU) limit of NMS, 0..1.
    pub nms: f32,
    /// Most objects a frame.
    pub max_detections: usize,
    /// By camera; cameras not listed publish every frame.
    pub policies: BTreeMap<CameraId, Policy>,
    /// By camera; those of cameras not listed are not tracked.
    pub rules: BTreeMap<CameraId, Rules>,
}

/// What is remembered of a camera.
struct Memory {
    counters: CameraMetrics,
    seq: u64,
    /// Objects by class in the frame published last, where a change is what is published.
    counts: BTreeMap<u32, usize>,
    /// Holds messages to the camera's most a second.
    rate: RateLimit,
    scene: Option<Scene>,
    /// When the camera went away, and why.
    gone: Option<(Instant, EndReason)>,
    arrived: Instant,
    /// Number of the connection that its latest frame is of.
    connection: u32,
}

/// What outlives a camera: numbers that are not used twice in a boot.
#[derive(Clone, Copy, Default)]
struct Past {
    seq: u64,
    track: u64,
}

impl Past {
    fn max(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), track: self.track.max(other.track) }
    }
}

/// Cameras whose numbers are remembered one by one; beyond, all go on from the highest.
const PASTS_MAX: usize = 1024;

/// What messages name, shared by all of them.
struct Names {
    node: Arc<str>,
    boot: Arc<str>,
    labels: Vec<Arc<str>>,
}

impl Names {
    fn of(setup: &Setup) -> Self {
        let labels = setup.labels.iter().map(|label| label.as_str().into()).collect();
        Self { node: setup.node.as_str().into(), boot: setup.boot.as_str().into(), labels }
    }
}

/// The loop and what it remembers.
pub struct Analysis {
    setup: Setup,
    metrics: Arc<Metrics>,
    cameras: HashMap<CameraId, Memory>,
    /// Cameras that were taken down, or taken down and begun anew: frames that arrived before are not theirs. `None`:
    /// there is none of that name.
    begun: HashMap<CameraId, Option<Instant>>,
    past: HashMap<CameraId, Past>,
    past_of_all: Past,
    names: Names,
    found: Vec<Detection>,
    outcome: Outcome,
    /// The last frame in small, where somebody asked for it.
    on_demand: Option<OnDemand>,
    epoch: Instant,
}

impl Analysis {
    /// For one engine's batches.
    pub fn new(setup: Setup, metrics: Arc<Metrics>) -> Self {
        let (names, found, outcome) = (Names::of(&setup), Vec::new(), Outcome::default());
        Self {
            setup,
            metrics,
            cameras: HashMap::new(),
            begun: HashMap::new(),
            past: HashMap::new(),
            past_of_all: Past::default(),
            names,
            found,
            outcome,
            on_demand: None,
            epoch: Instant::now(),
        }
    }

    /// Runs until inference has ended; then every track ends, too. Hands what is to be said to `publish`, and each batch
    /// back through `free`.
    pub fn run(
        mut self,
        batches: &Receiver<Batch>,
        free: &Sender<Batch>,
        orders: &Receiver<Order>,
        heart: &Heartbeat,
        mut publish: impl FnMut(&CameraId, Output<'_>),
    ) {
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            heart.beat(now);
            if now.duration_since(looked) >= TICK {
                looked = now;
                self.end_stragglers(now, &mut publish);
            }
            crossbeam::select! {
                recv(batches) -> batch => match batch {
                    Ok(batch) => self.batch(batch, free, &mut publish),
                    Err(_) => break,
                },
                recv(orders) -> order => if let Ok(order) = order {
                    self.obey(order, Instant::now(), &mut publish);
                },
                default(TICK) => {}
            }
        }
        let cameras: Vec<CameraId> = self.cameras.keys().cloned().collect();
        for camera in cameras {
            self.clear(&camera, EndReason::Shutdown, &mut publish);
        }
    }

    fn batch(&mut self, mut batch: Batch, free: &Sender<Batch>, publish: &mut impl FnMut(&CameraId, Output<'_>)) {
        let stages = &self.metrics.stages;
        stages.preprocess.record(batch.preprocess);
        stages.infer.record(batch.infer);
        stages.head.record(batch.decode);
        let times = (batch.submitted, batch.finished);
        let model = Arc::clone(&batch.model);
        batch.lanes.retain(|lane| self.is_looked_at(&lane.frame));
        for lane in &mut batch.lanes {
            self.end_connection(&lane.frame, publish);
            let message = self.lane(lane, &model, times, Instant::now(), SystemTime::now());
            self.say(&lane.frame.camera, publish);
            if let Some(message) = message {
                publish(&lane.frame.camera, Output::Detections(&message));
            }
            let age = lane.frame.arrived.elapsed();
            self.account(lane, times, age);
        }
        if let Some(last) = batch.lanes.last() {
            publish(&last.frame.camera, Output::BatchEnd);
        }
        // Nobody waiting for it means that inference has ended.
        let _ = free.try_send(batch);
    }

    /// Between this frame and the one before, the camera was away: too short, maybe, for anybody to have said so.
    fn end_connection(&mut self, frame: &FrameInfo, publish: &mut impl FnMut(&CameraId, Output<'_>)) {
        let Some(memory) = self.cameras.get_mut(&frame.camera) else { return };
        if std::mem::replace(&mut memory.connection, frame.connection) != frame.connection {
            self.clear(&frame.camera, EndReason::CameraLost, publish);
            self.recount(&frame.camera, publish);
        }
    }

    /// Events, pictures and counts of the last outcome.
    fn say(&mut self, camera: &CameraId, publish: &mut impl FnMut(&CameraId, Output<'_>)) {
        for event in self.outcome.events.drain(..) {
            publish(camera, Output::Event(Box::new(event)));
        }
        for snapshot in self.outcome.snapshots.drain(..) {
            publish(camera, Output::Snapshot(snapshot));
        }
        if let Some(asked) = self.on_demand.take() {
            publish(camera, Output::OnDemand(asked));
        }
        for (counter, value) in self.outcome.counts.drain(..) {
            publish(camera, Output::Count(counter, value));
        }
        let suppressed = std::mem::take(&mut self.outcome.suppressed);
        if let Some(memory) = self.cameras.get(camera).filter(|_| suppressed > 0) {
            memory.counters.events_suppressed.inc_by(suppressed);
        }
        if let Some(text) = self.outcome.notice.take() {
            publish(camera, Output::Notice(NoticeKind::EventsSuppressed, text));
        }
    }

    /// False for what is left of a camera that was taken down.
    fn is_looked_at(&self, frame: &FrameInfo) -> bool {
        self.begun.get(&frame.camera).is_none_or(|begun| begun.is_some_and(|begun| frame.arrived >= begun))
    }

    fn obey(&mut self, order: Order, now: Instant, publish: &mut impl FnMut(&CameraId, Output<'_>)) {
        match order {
            Order::End(camera, reason) => {
                self.end(&camera, reason, now, publish);
                self.recount(&camera, publish);
            }
            Order::Finish(camera) => self.end(&camera, EndReason::CameraLost, now, publish),
            Order::Begin(camera, since, view) => {
                self.take_down(&camera, publish);
                self.begun.insert(camera.clone(), Some(since));
                self.view(camera, view);
            }
            Order::Exchange(camera, view) => {
                match self.cameras.get_mut(&camera).map(|memory| &mut memory.scene) {
                    Some(Some(scene)) if view.rules.is_some() => {
                        view.rules.iter().for_each(|rules| scene.exchange(rules.clone()));
                    }
                    // Not tracked before, or not from now on.
                    Some(Some(_)) => self.take_down(&camera, publish),
                    Some(None) if view.rules.is_some() => self.take_down(&camera, publish),
                    Some(None) | None => {}
                }
                self.view(camera, view);
            }
            Order::Remove(camera) => {
                self.take_down(&camera, publish);
                self.setup.policies.remove(&camera);
                self.setup.rules.remove(&camera);
                if self.begun.len() >= PASTS_MAX {
                    // By now no frame of these is on its way.
                    self.begun.retain(|_, begun| begun.is_some());
                }
                self.begun.insert(camera, None);
            }
            Order::Settled(done) => drop(done),
        }
    }

    fn view(&mut self, camera: CameraId, view: View) {
        match view.rules {
            Some(rules) => drop(self.setup.rules.insert(camera.clone(), rules)),
            None => drop(self.setup.rules.remove(&camera)),
        }
        self.setup.policies.insert(camera, view.policy);
    }

    /// Ends a camera's tracks and forgets it, but for the numbers that were used.
    fn take_down(&mut self, camera: &CameraId, publish: &mut impl FnMut(&CameraId, Output<'_>)) {
        self.clear(camera, EndReason::Removed, publish);
        self.recount(camera, publish);
        let Some(memory) = self.cameras.remove(camera) else { return };
        let past = self.past.get(camera).copied().unwrap_or(self.past_of_all);
        let track = memory.scene.as_ref().map_or(0, Scene::next_track);
        let past = past.max(Past { seq: memory.seq, track });
        if self.past.len() >= PASTS_MAX {
            self.past_of_all = self.past.drain().fold(self.past_of_all, |all, (_, past)| all.max(past));
        }
        self.past.insert(camera.clone(), past);
    }

    /// Frames that were on their way when their camera went away may have begun tracks that no frame will end.
    fn end_stragglers(&mut self, now: Instant, publish: &mut impl FnMut(&CameraId, Output<'_>)) {
        let is_over = |memory: &Memory| {
            let (since, reason) = memory.gone?;
            let busy = memory.scene.as_ref().is_some_and(Scene::is_busy);
            (busy && memory.arrived <= since && now.duration_since(since) >= STRAGGLERS).then_some(reason)
        };
        let over: Vec<_> = self.cameras.iter().filter_map(|(id, m)| Some((id.clone(), is_over(m)?))).collect();
        for (camera, reason) in over {
            self.clear(&camera, reason, publish);
        }
    }

    /// No frames come from now on; some may be on their way.
    fn end(
        &mut self,
        camera: &CameraId,
        reason: EndReason,
        now: Instant,
        publish: &mut impl FnMut(&CameraId, Output<'_>),
    ) {
        if let Some(memory) = self.cameras.get_mut(camera) {
            memory.gone = Some((now, reason));
        }
        self.clear(camera, reason, publish);
    }

    fn recount(&mut self, camera: &CameraId, publish: &mut impl FnMut(&CameraId, Output<'_>)) {
        if let Some(scene) = self.cameras.get_mut(camera).and_then(|memory| memory.scene.as_mut()) {
            scene.recount(&mut self.outcome);
            self.say(camera, publish);
        }
    }

    fn clear(&mut self, camera: &CameraId, reason: EndReason, publish: &mut impl FnMut(&CameraId, Output<'_>)) {
        if let Some(scene) = self.cameras.get_mut(camera).and_then(|memory| memory.scene.as_mut()) {
            scene.clear(reason, SystemTime::now(), &mut self.outcome);
            self.say(camera, publish);
        }
    }

    /// One frame: its message, if it is worth one.
    fn lane(
        &mut self,
        lane: &mut Lane,
        model: &Arc<Model>,
        times: (Instant, Instant),
        now: Instant,
        wall: SystemTime,
    ) -> Option<Detections> {
        let most = self.setup.max_detections;
        nms::detections(&mut lane.candidates, &lane.letterbox, self.setup.nms, most, &mut self.found);
        self.remember(&lane.frame);
        let memory = self.cameras.get_mut(&lane.frame.camera)?;
        memory.arrived = lane.frame.arrived;
        // Taken: the batch is used again, and what is in it would stay.
        let thumbnail = lane.thumbnail.take();
        if let Some(scene) = &mut memory.scene {
            let (at, thumbnail) = (lane.frame.time(self.epoch), thumbnail.as_ref());
            let sight = Sight { at, frame: &lane.frame, model, now: wall, thumbnail };
            scene.sift(lane.frame.size, &mut self.found);
            scene.frame(&sight, &self.found, &mut self.outcome);
        }
        let rects = || self.found.iter().map(|d| d.rect).collect();
        let asked = thumbnail.filter(|thumbnail| thumbnail.is_asked());
        self.on_demand = asked.map(|thumbnail| OnDemand::new(&lane.frame, thumbnail, rects()));
        if let Some(gate) = &lane.frame.gate {
            gate.tell(lane.frame.seq, memory.scene.as_ref().is_some_and(Scene::is_busy), self.on_demand.is_some());
        }
        let policy = self.setup.policies.get(&lane.frame.camera);
        if !worth_a_message(policy, memory, &self.found, now) {
            return None;
        }
        let seq = memory.seq;
        memory.seq += 1;
        let frame = &lane.frame;
        let ts = Ts {
            captured: rfc3339(frame.captured.wall),
            clock: frame.captured.clock,
            err_ms: frame.captured.err_ms,
            published: rfc3339(wall),
            pts_ns: frame.pts_ns,
        };
        let ms = |from: Instant, to: Instant| round3(to.saturating_duration_since(from).as_secs_f64() * 1e3);
        let lat_ms = LatMs {
            decode: ms(frame.arrived, frame.decoded),
            queue: ms(frame.decoded, times.0),
            infer: ms(times.0, times.1),
            total: ms(frame.arrived, now),
        };
        let scene = memory.scene.as_ref();
        let tracks = self.outcome.tracks.iter().copied().map(Some).chain(std::iter::repeat(None));
        let seen = self.found.iter().zip(tracks);
        let objects = seen.map(|(d, track)| object(d, &self.names.labels, scene.zip(track.flatten()))).collect();
        Some(Detections {
            schema: DETECTIONS_SCHEMA.into(),
            node: Arc::clone(&self.names.node),
            camera: frame.camera.clone(),
            boot: Arc::clone(&self.names.boot),
            seq,
            frame: frame.seq,
            ts,
            size: [frame.size.0, frame.size.1],
            model: Arc::clone(model),
            lat_ms,
            objects,
        })
    }

    fn remember(&mut self, frame: &FrameInfo) {
        let (camera, setup) = (&frame.camera, &self.setup);
        if self.cameras.contains_key(camera) {
            return;
        }
        let past = self.past.get(camera).copied().unwrap_or(self.past_of_all);
        let scene = setup.rules.get(camera).map(|rules| {
            let (node, boot) = (setup.node.clone(), setup.boot.clone());
            let speaker = Speaker { node, boot, camera: camera.clone(), labels: Arc::clone(&setup.labels) };
            let mut scene = Scene::new(speaker, rules.clone());
            scene.number_from(past.track);
            scene
        });
        let fresh = Memory {
            counters: self.metrics.camera(camera),
            seq: past.seq,
            counts: BTreeMap::new(),
            rate: RateLimit::default(),
            scene,
            gone: None,
            arrived: frame.arrived,
            connection: frame.connection,
        };
        self.cameras.insert(camera.clone(), fresh);
    }

    fn account(&mut self, lane: &Lane, (submitted, finished): (Instant, Instant), age: Duration) {
        let (stages, frame) = (&self.metrics.stages, &lane.frame);
        stages.decode.record(frame.decoded.saturating_duration_since(frame.arrived));
        stages.queue.record(submitted.saturating_duration_since(frame.decoded));
        stages.analyze.record(finished.elapsed());
        stages.total.record(age);
        if let Ok(captured) = SystemTime::now().duration_since(frame.captured.wall) {
            stages.captured.record(captured);
        }
        let Some(Memory { counters, .. }) = self.cameras.get(&frame.camera) else { return };
        counters.age.record(age);
        counters.last_age_us.set(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    }
}

/// The camera's mode and its most messages a second.
fn worth_a_message(policy: Option<&Policy>, memory: &mut Memory, found: &[Detection], now: Instant) -> bool {
    let Some(policy) = policy else { return true };
    let mut counts = BTreeMap::new();
    if policy.mode == DetectionsMode::Change {
        for detection in found {
            *counts.entry(detection.class).or_insert(0) += 1;
        }
    }
    let wanted = match policy.mode {
        DetectionsMode::All => true,
        DetectionsMode::Nonempty => !found.is_empty(),
        DetectionsMode::Change => counts != memory.counts,
        DetectionsMode::Off => false,
    };
    let passes = wanted && policy.hz_max.is_none_or(|hz_max| memory.rate.passes(now, hz_max));
    if passes {
        memory.counts = counts;
    }
    passes
}

fn object(detection: &Detection, labels: &[Arc<str>], track: Option<(&Scene, u64)>) -> Object {
    let label = labels.get(detection.class as usize).cloned();
    Object {
        track: track.map(|(scene, track)| scene.id(track)),
        label: label.unwrap_or_else(|| format!("class{}", detection.class).into()),
        class: detection.class,
        score: round4(detection.score),
        rect: detection.rect.map(round4),
        zones: track.map(|(scene, track)| scene.zones_of(track)).unwrap_or_default(),
    }
}

/// A tenth of a pixel at 1000 pixels is all the digits a consumer can use.
fn round4(value: f32) -> f32 {
    (value * 1e4).round() / 1e4
}

fn round3(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
