//! Wiring, and nothing but wiring: cameras → slots → inference → analysis → whoever publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::analyze::{Analysis, Order, Output, Policy, Setup, View};
use crate::backend::{BackendError, Batch, Building, Progress, Settings};
use crate::camera::{self, Camera};
use crate::config::{CameraConfig, Config, Pace, Plan, Source};
use crate::engine::Manifest;
use crate::event::EndReason;
use crate::frame::CameraId;
use crate::health::Board;
use crate::infer::{Inference, News};
use crate::metrics::Metrics;
use crate::scene::Rules;
use crate::slot::{self, Arrivals, Waker};
use crate::thumbnail::{Asked, Thumbnails};
use crate::worker::{self, Heartbeat};

/// Finished batches on their way to analysis, and the empty ones on their way back.
const BATCHES: usize = 4;
/// Slots of new cameras on their way to inference: all of a configuration's fit, so that nobody waits for the engine.
const ROSTER: usize = 256;

/// Takes what is said of a camera, on the analysis thread.
pub type Sink = Box<dyn FnMut(&CameraId, Output<'_>) + Send>;
/// Orders about cameras that may wait for analysis: those of a reload of as many cameras as there may be.
const ORDERS: usize = 1024;
/// Longest wait for analysis to have carried out its orders.
const SETTLED: Duration = Duration::from_secs(2);

/// The running data path.
pub struct Graph {
    cameras: BTreeMap<CameraId, Camera>,
    infer: JoinHandle<Result<(), BackendError>>,
    analyze: JoinHandle<()>,
    /// Tells analysis of cameras that come, change and go.
    orders: Sender<Order>,
    wake: Waker,
    /// Keeps inference waiting for cameras to come; dropped to let it end.
    roster: Option<Sender<slot::SlotReader>>,
    /// Ends the building of an engine, and once the cameras are gone inference, whatever waits for it.
    stopping: Arc<AtomicBool>,
    /// Asks for pictures; `None`: none are made.
    asked: Option<Asked>,
    /// Told what becomes of the backend.
    pub news: Receiver<News>,
    /// Progress of inference and analysis, for the watchdog.
    pub hearts: [Heartbeat; 2],
}

/// What the graph is told about, by name.
pub struct Surroundings {
    /// This start of the daemon: 6 hex digits.
    pub boot: String,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where cameras report.
    pub board: Board,
}

impl Graph {
    /// Starts every thread of the data path. Cameras connect while the backend opens.
    pub fn start(
        config: &Config,
        manifest: &Manifest,
        settings: &Settings,
        around: &Surroundings,
        sink: Sink,
    ) -> Self {
        let (wake, frames) = (bounded(1), Arc::new(Arrivals::default()));
        let (roster, arrivals) = bounded(ROSTER);
        let (finished, batches) = bounded(BATCHES);
        let (returned, free) = bounded(BATCHES);
        let (telling, news) = bounded(4);
        let (orders, ordered) = bounded(ORDERS);
        let hearts = [Heartbeat::new(Instant::now()), Heartbeat::new(Instant::now())];
        for _ in 0..BATCHES {
            // Fits: the channel was made for as many.
            let _ = returned.try_send(Batch::new(Instant::now()));
        }
        let (swap, swaps) = bounded(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let progress = progress(telling.clone(), swap, hearts[0].clone(), Arc::clone(&stopping));
        let (settings, thumbnails) = (settings.clone(), thumbnails(config, around));
        let asked = thumbnails.as_ref().map(Thumbnails::asked);
        let inference = Inference {
            open: Box::new(move |wake| {
                let mut backend = settings.open(wake, &progress)?;
                thumbnails.iter().for_each(|thumbnails| backend.set_thumbnails(thumbnails.clone()));
                Ok(backend)
            }),
            swaps,
            roster: arrivals,
            wake: wake.clone(),
            arrivals: Arc::clone(&frames),
            out: finished,
            free,
            deadline: config.engine.batch_deadline,
            stopping: Arc::clone(&stopping),
            metrics: Arc::clone(&around.metrics),
            heart: hearts[0].clone(),
            news: telling,
        };
        let infer = worker::spawn("infer", move || inference.run());
        let analysis = Analysis::new(setup(config, manifest, around), Arc::clone(&around.metrics));
        let analyze = start_analysis(analysis, (batches, returned, ordered), hearts[1].clone(), sink);
        let wake = Waker::new(wake.0, frames);
        let cameras = BTreeMap::new();
        let mut graph =
            Self { cameras, infer, analyze, orders, wake, roster: Some(roster), stopping, asked, news, hearts };
        for camera in &config.cameras {
            graph.start_camera(config, camera, around);
        }
        graph
    }

    fn start_camera(&mut self, config: &Config, camera: &CameraConfig, around: &Surroundings) {
        // Together the lossless files fill a batch; each holds two frames, so that one is ready while one is taken.
        let lossless = config.cameras.iter().filter(|camera| is_lossless(camera)).count();
        let depth = if is_lossless(camera) { config.engine.batch.div_ceil(lossless).max(2) } else { 1 };
        let counters = around.metrics.camera(&camera.id);
        let (id, priority, waker) = (camera.id.clone(), camera.priority, self.wake.clone());
        let (writer, reader) = slot::slot(id, counters.clone(), depth, priority, waker);
        // Inference that has ended already says so when it is joined.
        let _ = self.roster.as_ref().map(|roster| roster.send(reader));
        let running = camera::start(camera.clone(), writer, counters, around.board.clone());
        self.cameras.insert(camera.id.clone(), running);
    }

    /// Whether so many more cameras can be taken now: while no model is open yet, nobody takes their slots.
    pub fn has_room_for(&self, cameras: usize) -> bool {
        self.roster.as_ref().is_some_and(|roster| roster.len() + cameras <= ROSTER)
    }

    /// Carries out what leads to `config`, the new configuration. Cameras that the plan does not name are not touched.
    /// Waits for those that go, up to the 5 s after which a pipeline is abandoned, all at once.
    pub fn apply(&mut self, plan: &Plan, config: &Config, around: &Surroundings) {
        let goes = |id: &CameraId| plan.removed.contains(id) || plan.rebuilt.iter().any(|c| c.id == *id);
        let going: Vec<Camera> = self.cameras.extract_if(.., |id, _| goes(id)).map(|(_, camera)| camera).collect();
        let mut switched: BTreeMap<CameraId, bool> =
            going.iter().map(|camera| (camera.id.clone(), camera.control.is_enabled())).collect();
        switched.extend(plan.switched.iter().cloned());
        // All are told before the first is waited for.
        let threads: Vec<_> = going.into_iter().map(|camera| camera.thread).collect();
        for thread in threads {
            let _ = thread.join();
        }
        for id in &plan.removed {
            self.order(Order::Remove(id.clone()));
        }
        for camera in plan.rebuilt.iter().chain(&plan.added) {
            around.board.remove(&camera.id);
            self.order(Order::Begin(camera.id.clone(), Instant::now(), view(config, camera)));
        }
        for camera in &plan.rules {
            self.order(Order::Exchange(camera.id.clone(), view(config, camera)));
        }
        self.settle();
        for id in &plan.removed {
            around.board.remove(id);
            around.metrics.forget(id);
        }
        for camera in plan.rebuilt.iter().chain(&plan.added) {
            // What was switched by a command stays so.
            let enabled = switched.get(&camera.id).copied().unwrap_or(camera.enabled);
            self.start_camera(config, &CameraConfig { enabled, ..camera.clone() }, around);
        }
        for (id, on) in &plan.switched {
            self.set_enabled(id, *on);
        }
    }

    /// Waits until analysis has done what it was told, and has said what there was to say.
    fn settle(&self) {
        let (done, settled) = bounded(0);
        self.order(Order::Settled(done));
        let _ = settled.recv_timeout(SETTLED);
    }

    fn order(&self, order: Order) {
        // Analysis that is so far behind has ended: so do its tracks.
        let _ = self.orders.try_send(order);
    }

    /// Switches a camera on or off; false where there is none of that name.
    pub fn set_enabled(&self, camera: &CameraId, on: bool) -> bool {
        let Some(camera) = self.cameras.get(camera) else { return false };
        camera.control.enable(on);
        true
    }

    /// The camera need not wait out its back-off.
    pub fn hurry(&self, camera: &CameraId) {
        self.cameras.get(camera).iter().for_each(|camera| camera.control.hurry());
    }

    /// The camera's next frame becomes a picture, whatever is in it: an [`Output::OnDemand`].
    pub fn ask_for_picture(&self, camera: &CameraId) {
        // The gate first: the picture that closes it again may come at once.
        self.cameras.get(camera).iter().for_each(|camera| camera.control.ask_for_picture(true));
        self.asked.iter().for_each(|asked| asked.ask(camera));
    }

    /// Nobody waits for that picture any more.
    pub fn forget_picture(&self, camera: &CameraId) {
        self.asked.iter().for_each(|asked| asked.forget(camera));
        self.cameras.get(camera).iter().for_each(|camera| camera.control.ask_for_picture(false));
    }

    /// A camera gives no frames any more: its tracks end for `reason`.
    pub fn end_tracks(&self, camera: &CameraId, reason: EndReason) {
        self.order(Order::End(camera.clone(), reason));
    }

    /// A file was read to its end.
    pub fn finish_tracks(&self, camera: &CameraId) {
        self.order(Order::Finish(camera.clone()));
    }

    /// Inference has ended: nothing goes on without it.
    pub fn failed(&self) -> bool {
        self.infer.is_finished()
    }

    /// Closes the data path in order: cameras, slots, inference, analysis. Returns when all threads have ended.
    ///
    /// # Errors
    ///
    /// Why inference ended, where it failed.
    pub fn stop(mut self) -> Result<(), BackendError> {
        self.stopping.store(true, Ordering::Relaxed);
        let cameras = std::mem::take(&mut self.cameras);
        // All are told before the first is waited for.
        let threads: Vec<_> = cameras.into_values().map(|camera| camera.thread).collect();
        for thread in threads {
            let _ = thread.join();
        }
        self.roster = None;
        let ended = self.infer.join();
        let _ = self.analyze.join();
        ended.unwrap_or_else(|_| Err(BackendError::Reopen("the inference thread panicked".to_owned())))
    }
}

fn is_lossless(camera: &CameraConfig) -> bool {
    matches!(camera.source, Source::File { pace: Pace::Fast, .. })
}

/// Tells the main loop of an engine being built, and inference when it is to take it.
fn progress(news: Sender<News>, swap: Sender<()>, heart: Heartbeat, stopping: Arc<AtomicBool>) -> Progress {
    Arc::new(move |step| {
        // The loop does not turn while an engine is built before there is another, and is alive all the same.
        if matches!(step, Building::Step { beside: false, .. }) {
            heart.beat(Instant::now());
        }
        if step == Building::Done {
            // Full: it is about to look.
            let _ = swap.try_send(());
        }
        // Full: the next step says more.
        let _ = news.try_send(News::Building(step));
        !stopping.load(Ordering::Relaxed)
    })
}

fn setup(config: &Config, manifest: &Manifest, around: &Surroundings) -> Setup {
    Setup {
        node: config.node.clone(),
        boot: around.boot.clone(),
        labels: Arc::clone(&manifest.labels),
        nms: manifest.thresholds.nms,
        max_detections: manifest.thresholds.max_detections,
        policies: config.cameras.iter().map(|c| (c.id.clone(), policy(c))).collect(),
        rules: config.cameras.iter().filter_map(|c| Some((c.id.clone(), rules(config, c)?))).collect(),
    }
}

fn policy(camera: &CameraConfig) -> Policy {
    Policy { mode: camera.detections, hz_max: camera.detections_hz_max }
}

fn view(config: &Config, camera: &CameraConfig) -> View {
    View { policy: policy(camera), rules: rules(config, camera) }
}

/// What snapshots are made of; `None`: there are none.
fn thumbnails(config: &Config, around: &Surroundings) -> Option<Thumbnails> {
    config.snapshots.as_ref().map(|_| Thumbnails::new(config.cameras.len(), around.metrics.thumbnails.clone()))
}

/// What is looked for in a camera's picture; `None`: nothing is tracked.
fn rules(config: &Config, camera: &CameraConfig) -> Option<Rules> {
    Some(Rules {
        tracking: config.tracking.clone()?,
        filter: camera.filter.clone(),
        zones: camera.zones.clone(),
        lines: camera.lines.clone(),
        events: camera.events.clone(),
        snapshots: config.snapshots.is_some(),
        snapshot_urls: config.http.enabled,
    })
}

fn start_analysis(
    analysis: Analysis,
    (batches, free, orders): (Receiver<Batch>, Sender<Batch>, Receiver<Order>),
    heart: Heartbeat,
    sink: Sink,
) -> JoinHandle<()> {
    worker::spawn("analyze", move || analysis.run(&batches, &free, &orders, &heart, sink))
}

/// Ends the process at once where an orderly stop takes longer than `deadline`; when that is.
pub fn enforce_deadline(deadline: Duration) -> Instant {
    let ends_by = Instant::now() + deadline;
    worker::spawn("deadline", move || {
        std::thread::sleep(ends_by.saturating_duration_since(Instant::now()));
        tracing::error!("the stop took longer than stop_deadline ({} s): ending now", deadline.as_secs_f64());
        end_now();
    });
    ends_by
}

/// Ends the process with code 1, whatever its threads do.
pub fn end_now() -> ! {
    end(1)
}

/// Ends the process without what libraries want done at an orderly exit: it would be done beside threads that still use them.
/// GStreamer and the driver of a GPU have such threads, and pipelines that were abandoned (signals 6 and 11 at the end of a
/// daemon with 200 cameras on a GPU).
pub fn end(code: i32) -> ! {
    signal_hook::low_level::exit(code)
}
