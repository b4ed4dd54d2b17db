//! The life of one camera: `run` loops and waits, `run_once` lives one connection.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError, SendError, Sender, after, bounded};
use gstreamer as gst;
use gstreamer::prelude::*;

use super::crowd::{self, Starting};
use super::pipeline::{self, CameraError, Pipeline};
use super::sink::{self, Connection, Feeder, Intake, Seen};
use crate::config::{CameraConfig, Source};
use crate::event::CameraStatus;
use crate::frame::CameraId;
use crate::health::{Board, CameraReport};
use crate::metrics::CameraMetrics;
use crate::motion::Gate;
use crate::slot::SlotWriter;
use crate::worker::{self, Backoff};

/// First and longest wait between attempts.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Wait after refused credentials: another attempt may lock the account.
const RETRY_REFUSED: Duration = Duration::from_secs(300);
/// A connection must have delivered frames this long before back-off starts anew.
const PROVEN: Duration = Duration::from_secs(10);
/// A file that is repeated is opened no more often.
const REPEAT_MIN: Duration = Duration::from_millis(250);
/// How often a camera's thread looks at what its pipeline has learnt: until frames come, and then.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_secs(1);
/// What is read of a pipeline's bus.
const WANTED: [gst::MessageType; 3] = [gst::MessageType::Error, gst::MessageType::Eos, gst::MessageType::Latency];
/// A pipeline that takes longer to be built, to start or to go back to its start is abandoned: many cameras that start at once
/// on a busy machine take their time, and orders are obeyed meanwhile.
const START_LIMIT: Duration = Duration::from_secs(15);
/// So many abandoned pipelines that still hang are more than a process can bear: each holds threads, memory, perhaps a decoder
/// of the GPU's or a connection that the camera counts.
pub const ABANDONED_MAX: i64 = 32;

/// How a camera is told what to do. Dropping it ends the camera.
pub struct Control {
    enabled: Arc<AtomicBool>,
    hurry: Arc<AtomicBool>,
    nudge: Sender<()>,
    gate: Option<Arc<Gate>>,
}

impl Control {
    /// Switches the camera on or off. The newest order holds, however busy its thread is.
    pub fn enable(&self, on: bool) {
        self.enabled.store(on, Ordering::Relaxed);
        // Full means that the thread is about to look.
        let _ = self.nudge.try_send(());
    }

    /// Whether somebody waits for a picture: no frame is too still for that.
    pub fn ask_for_picture(&self, waits: bool) {
        self.gate.iter().for_each(|gate| gate.ask(waits));
    }

    /// It need not wait out its back-off. One that was refused waits all the same.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
        let _ = self.nudge.try_send(());
    }

    /// The newest order.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }
}

/// A running camera. Dropping `control` ends its thread.
pub struct Camera {
    /// Its name.
    pub id: CameraId,
    /// Its orders.
    pub control: Control,
    /// Its thread.
    pub thread: JoinHandle<()>,
}

/// Starts a camera's thread.
pub fn start(config: CameraConfig, slot: SlotWriter, metrics: CameraMetrics, board: Board) -> Camera {
    let (nudge, orders) = bounded(1);
    let id = config.id.clone();
    let name = format!("cam-{id}");
    let enabled = Arc::new(AtomicBool::new(config.enabled));
    let hurry = Arc::new(AtomicBool::new(false));
    let gate = config.motion.as_ref().map(|motion| Arc::new(Gate::new(motion, config.mask.as_deref())));
    let control = Control { enabled: Arc::clone(&enabled), hurry: Arc::clone(&hurry), nudge, gate: gate.clone() };
    let thread = worker::spawn(&name, move || {
        let intake = Arc::new(Intake::new(config, gate, slot, metrics, Instant::now()));
        Life { intake, board, orders, enabled, hurry, since: None, held: None, seeks: true }.run();
    });
    Camera { id, control, thread }
}

/// Told of each message that is wanted; the others are thrown away as they come. A wait on the bus itself could not be ended by
/// an order: it looked for one ten times a second, which with 128 cameras took 3 % of a core.
fn wake_by(bus: &gst::Bus) -> Receiver<()> {
    let (posted, woken) = bounded(1);
    bus.set_sync_handler(move |_, message| {
        if !WANTED.contains(&message.type_()) {
            return gst::BusSyncReply::Drop;
        }
        // Full means woken already.
        let _ = posted.try_send(());
        gst::BusSyncReply::Pass
    });
    woken
}

/// Why a connection ended without failing.
enum End {
    /// The file was read to its end.
    Finished,
    /// Switched off.
    Disabled,
    /// The daemon, or this camera, is being taken down.
    Shutdown,
}

struct Life {
    intake: Arc<Intake>,
    board: Board,
    orders: Receiver<()>,
    /// The newest order.
    enabled: Arc<AtomicBool>,
    /// Whether the next back-off may be cut short.
    hurry: Arc<AtomicBool>,
    since: Option<(CameraStatus, SystemTime)>,
    /// Why and until when no attempt is made, even if the camera is switched off and on.
    held: Option<(CameraError, Instant)>,
    /// A file that is repeated may be read again by a seek to its start.
    seeks: bool,
}

impl Life {
    fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        self.say(CameraStatus::Offline, "connecting");
        loop {
            if !self.enabled.load(Ordering::Relaxed) {
                self.say(CameraStatus::Disabled, "switched off");
                if !self.wait(None) {
                    return;
                }
                continue;
            }
            let started = Instant::now();
            if let Some((error, until)) = self.held.take_if(|(_, until)| started < *until) {
                self.failed(&error, backoff.failures(), until.saturating_duration_since(started));
                self.held = Some((error, until));
                if !self.wait(Some(until)) {
                    return;
                }
                continue;
            }
            let end = self.run_once();
            self.intake.set_live(false);
            if !(matches!(end, Ok(End::Finished)) && self.repeats()) {
                self.intake.next_connection();
            }
            match end {
                Ok(End::Shutdown) => return,
                Ok(End::Disabled) => {}
                Ok(End::Finished) => {
                    backoff.reset();
                    if self.repeats() {
                        // A picture, or a clip of a few frames, is not read a hundred times a second.
                        if !self.wait(Some(started + REPEAT_MIN)) {
                            return;
                        }
                        continue;
                    }
                    self.say(CameraStatus::Finished, "read to its end");
                    if !self.wait(None) {
                        return;
                    }
                }
                Err(error) => {
                    let silence = self.intake.silence(started, Instant::now());
                    let is_proven = started.elapsed().saturating_sub(silence) > PROVEN;
                    if is_proven {
                        backoff.reset();
                    }
                    let delay = backoff.next(fastrand::f64());
                    // One that worked and fell silent has been left alone since then: 4 s of silence are enough of a hang.
                    let delay = if is_proven { delay.saturating_sub(silence) } else { delay };
                    self.intake.metrics().reconnects.inc();
                    if matches!(error, CameraError::Refused(_)) {
                        self.held = Some((error, Instant::now() + delay.max(RETRY_REFUSED)));
                        continue;
                    }
                    self.failed(&error, backoff.failures(), delay);
                    if !self.wait_to_retry(delay) {
                        return;
                    }
                }
            }
        }
    }

    /// One connection, from building the pipeline to its end.
    fn run_once(&mut self) -> Result<End, CameraError> {
        let config = self.intake.config();
        let (name, source, decode) = (config.pipeline.clone(), config.source.clone(), config.decode);
        let (has_gate, place) = (config.motion.is_some(), place(&config.source));
        // It opens files, which may lie on a network drive.
        let build = move || pipeline::build(&name, &source, decode, has_gate);
        let parts = match self.call("build", build, drop).map_err(|error| error.of(&place))? {
            ControlFlow::Continue(parts) => parts?,
            ControlFlow::Break(end) => return Ok(end),
        };
        let connection = Arc::new(Connection::default());
        sink::attach(&self.intake, &connection, &parts);
        let intake = Arc::clone(&self.intake);
        let mut running = Running { parts: Some(parts), feeder: None, is_late: false, intake, connection };
        self.start_and_watch(&mut running).map_err(|error| error.of(&place))
    }

    fn start_and_watch(&mut self, running: &mut Running) -> Result<End, CameraError> {
        let reading = Reading::begin(&self.intake);
        // A failure is on the bus, in words.
        let start = |pipeline: &gst::Pipeline| pipeline.set_state(gst::State::Playing).is_ok();
        if let ControlFlow::Break(end) = self.call_into(running, "start", start)? {
            return Ok(end);
        }
        running.feed();
        self.watch(running, reading)
    }

    /// A call into a pipeline; one that takes too long stops it in the end.
    fn call_into<T: Send + 'static>(
        &mut self,
        running: &mut Running,
        what: &str,
        call: impl FnOnce(&gst::Pipeline) -> T + Send + 'static,
    ) -> Result<ControlFlow<End, T>, CameraError> {
        let Some(pipeline) = running.parts.as_ref().map(|parts| parts.pipeline.clone()) else {
            return Ok(ControlFlow::Break(End::Shutdown));
        };
        let stop = |(pipeline, _): (gst::Pipeline, T)| {
            let _ = pipeline.set_state(gst::State::Null);
        };
        let outcome = self.call(
            what,
            move || {
                let outcome = call(&pipeline);
                (pipeline, outcome)
            },
            stop,
        );
        running.is_late = outcome.is_err();
        Ok(match outcome? {
            ControlFlow::Continue((_, outcome)) => ControlFlow::Continue(outcome),
            ControlFlow::Break(end) => ControlFlow::Break(end),
        })
    }

    /// What is done on a thread of its own: stock elements have been seen to hang, and a camera must not hang with them.
    /// Orders are obeyed meanwhile. What takes too long is counted until it has ended, and then undone.
    fn call<T: Send + 'static>(
        &mut self,
        what: &str,
        call: impl FnOnce() -> T + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> Result<ControlFlow<End, T>, CameraError> {
        let (camera, hanging) = (self.intake.config().id.clone(), self.intake.metrics().abandoned.clone());
        // Without room: what nobody takes is known to be late, or unwanted.
        let (done, outcome) = bounded(0);
        let is_late = Arc::new(AtomicBool::new(false));
        let (ended, was_late) = (hanging.clone(), Arc::clone(&is_late));
        worker::spawn(&format!("{what}-{camera}"), move || {
            let unwanted = done.send(call()).err();
            if let Some(SendError(outcome)) = unwanted.filter(|_| was_late.load(Ordering::Acquire)) {
                undo(outcome);
                ended.dec();
            }
        });
        let late = after(START_LIMIT);
        loop {
            crossbeam::select! {
                recv(outcome) -> outcome => match outcome {
                    Ok(outcome) => return Ok(ControlFlow::Continue(outcome)),
                    Err(_) => return Err(CameraError::Stream(format!("its {what} ended in a panic"))),
                },
                recv(self.orders) -> order => if let Some(end) = self.obey(order.ok()) {
                    return Ok(ControlFlow::Break(end));
                },
                recv(late) -> _ => {
                    let hanging = hanging.inc() + 1;
                    is_late.store(true, Ordering::Release);
                    tracing::error!(%camera, hanging, "its {what} takes more than 15 s: abandoned");
                    let text = format!("its {what} takes more than 15 s: the log of GStreamer says where (GST_DEBUG=4)");
                    return Err(CameraError::Stream(text));
                }
            }
        }
    }

    fn watch(&mut self, running: &mut Running, mut reading: Reading) -> Result<End, CameraError> {
        let connection = Arc::clone(&running.connection);
        let Some(bus) = running.parts.as_ref().and_then(|parts| parts.pipeline.bus()) else {
            return Err(CameraError::Setup("the pipeline has no bus".to_owned()));
        };
        let posted = wake_by(&bus);
        // Silence is counted from here, or from the last frame.
        let mut quiet = Instant::now();
        let mut said = Seen::default();
        let mut starting = Some(Starting::begin());
        loop {
            let message = bus.pop_filtered(&WANTED);
            match message.as_ref().map(|m| m.view()) {
                Some(gst::MessageView::Error(error)) => {
                    return Err(connection.seen().error.unwrap_or_else(|| running.error(error)));
                }
                Some(gst::MessageView::Eos(_)) => match self.end_of_stream(running)? {
                    End::Finished if self.repeats() => match self.again(running, &mut reading)? {
                        Some(end) => return Ok(end),
                        None => quiet = Instant::now(),
                    },
                    end => return Ok(end),
                },
                Some(gst::MessageView::Latency(_)) => running.set_latency(),
                _ => {}
            }
            let seen = connection.seen();
            if let Some(error) = seen.error {
                return Err(error);
            }
            if let Some(cause) = running.parts.as_ref().and_then(Pipeline::cause) {
                return Err(cause);
            }
            // Again when the size changes in the stream, or the camera's clock becomes known.
            if seen.size.is_some() && (seen.size, seen.clock) != (said.size, said.clock) {
                self.intake.set_live(true);
                self.hurry.store(false, Ordering::Relaxed);
                starting = None;
                self.say_online(&seen);
                said = seen;
            }
            if connection.is_waiting() {
                quiet = Instant::now();
            }
            let left = self.check_silence(quiet, starting.is_none())?;
            let look = if starting.is_some() { LOOK_FIRST } else { LOOK };
            let wait = if message.is_some() { Duration::ZERO } else { look.min(left) };
            crossbeam::select! {
                recv(posted) -> _ => {}
                recv(self.orders) -> order => if let Some(end) = self.obey(order.ok()) { return Ok(end); },
                default(wait) => {}
            }
        }
    }

    /// How much longer there may be silence; an error where there was too long a one.
    fn check_silence(&self, quiet: Instant, online: bool) -> Result<Duration, CameraError> {
        let limit = self.intake.config().stall_timeout;
        let limit = if online { limit } else { Starting::limit().max(limit) };
        let silence = self.intake.silence(quiet, Instant::now());
        if silence <= limit {
            // A moment more: at the limit itself it is not yet too long.
            return Ok(limit - silence + Duration::from_millis(1));
        }
        let seconds = silence.as_secs_f64();
        Err(CameraError::Stream(format!("no frame for {seconds:.1} s: the connection is built anew")))
    }

    fn end_of_stream(&mut self, running: &Running) -> Result<End, CameraError> {
        if !matches!(self.intake.config().source, Source::File { .. }) {
            return Err(CameraError::Stream("the camera ended the stream".to_owned()));
        }
        let end = self.wait_for_feeder(running);
        match running.connection.seen() {
            Seen { error: Some(error), .. } => Err(error),
            // To read it again at once, as `repeat` says, would be a loop without end or rest.
            Seen { size: None, .. } if matches!(end, End::Finished) => {
                Err(CameraError::Setup("it holds no video that can be decoded: give another".to_owned()))
            }
            _ => Ok(end),
        }
    }

    /// A file that was read to its end is read again in the pipeline that is there; else why the connection ends. A new
    /// pipeline each time let memory grow by 177 MiB an hour with 16 files of two minutes (`benches/soak`).
    fn again(&mut self, running: &mut Running, reading: &mut Reading) -> Result<Option<End>, CameraError> {
        let frames = reading.frames(&self.intake);
        // Lossless is promised, and no demuxer answers for that: each reading must have as many frames as the first. A picture,
        // in which newer GStreamers can seek, is opened anew by all: another may lie there by then.
        self.seeks &= frames > 1 && reading.whole.is_none_or(|whole| whole == frames);
        if !self.seeks {
            return Ok(Some(End::Finished));
        }
        // A clip of a few frames is not read a hundred times a second.
        if !self.wait(Some(reading.begun + REPEAT_MIN)) {
            return Ok(Some(End::Shutdown));
        }
        if !self.enabled.load(Ordering::Relaxed) {
            return Ok(Some(End::Disabled));
        }
        // Counted from before the seek: after it frames come at once.
        *reading = Reading { whole: Some(frames), ..Reading::begin(&self.intake) };
        running.connection.rewind();
        let seek =
            |pipeline: &gst::Pipeline| pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO).is_ok();
        // False where its pipeline cannot.
        self.seeks = match self.call_into(running, "seek", seek)? {
            ControlFlow::Continue(done) => done,
            ControlFlow::Break(end) => return Ok(Some(end)),
        };
        if self.seeks {
            running.feed();
        }
        Ok((!self.seeks).then_some(End::Finished))
    }

    /// What a feeder still holds at the end of its file goes through first.
    fn wait_for_feeder(&mut self, running: &Running) -> End {
        let Some(feeder) = &running.feeder else { return End::Finished };
        loop {
            crossbeam::select! {
                recv(feeder.ended) -> _ => return End::Finished,
                recv(self.orders) -> order => if let Some(end) = self.obey(order.ok()) { return end; },
            }
        }
    }

    /// `None` is the end of all orders.
    fn obey(&mut self, order: Option<()>) -> Option<End> {
        match order {
            Some(()) => (!self.enabled.load(Ordering::Relaxed)).then_some(End::Disabled),
            None => Some(End::Shutdown),
        }
    }

    /// Waits until the camera is switched off (or on, where it is off or done), or until `due`; false where it is being
    /// taken down. To be told "on" again does not cut a back-off short.
    fn wait(&mut self, due: Option<Instant>) -> bool {
        loop {
            let order = match due {
                Some(due) => self.orders.recv_deadline(due),
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(()) if due.is_some() && self.enabled.load(Ordering::Relaxed) => {}
                Ok(()) | Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// As [`Life::wait`], but others that come back cut it short.
    fn wait_to_retry(&mut self, delay: Duration) -> bool {
        let failed = Instant::now();
        let mut due = failed + delay;
        loop {
            if self.hurry.swap(false, Ordering::Relaxed) {
                due = due.min(failed + RETRY_MIN);
            }
            match self.orders.recv_deadline(due) {
                Ok(()) if self.enabled.load(Ordering::Relaxed) => {}
                Ok(()) | Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn repeats(&self) -> bool {
        matches!(self.intake.config().source, Source::File { repeat: true, .. })
    }

    fn failed(&mut self, error: &CameraError, attempts: u32, delay: Duration) {
        let (camera, seconds) = (&self.intake.config().id, delay.as_secs_f64());
        // The first failure and then every tenth: a camera that is away for a week is not a log full of it.
        if attempts == 1 || attempts.is_multiple_of(10) {
            tracing::warn!(%camera, attempts, "{error}; next attempt in {seconds:.0} s");
        } else {
            tracing::debug!(%camera, attempts, "{error}; next attempt in {seconds:.0} s");
        }
        let report = self.report(CameraStatus::Offline, error.to_string());
        let next_retry = Some(Instant::now() + delay);
        self.board.report(&self.intake.config().id, CameraReport { attempts, next_retry, ..report });
    }

    fn say_online(&mut self, seen: &Seen) {
        let camera = &self.intake.config().id;
        let (width, height) = seen.size.unwrap_or_default();
        if self.since.is_none_or(|(status, _)| status != CameraStatus::Online) {
            tracing::info!(%camera, "online: {width}x{height}");
        }
        let report = self.report(CameraStatus::Online, "frames arrive".to_owned());
        self.board.report(&self.intake.config().id, CameraReport { size: seen.size, clock: seen.clock, ..report });
    }

    fn say(&mut self, status: CameraStatus, reason: &str) {
        let report = self.report(status, reason.to_owned());
        self.board.report(&self.intake.config().id, report);
    }

    /// A report of now; `since` stays where the state does.
    fn report(&mut self, status: CameraStatus, reason: String) -> CameraReport {
        let since = match self.since {
            Some((old, since)) if old == status => since,
            _ => SystemTime::now(),
        };
        self.since = Some((status, since));
        CameraReport { status, reason, since, attempts: 0, next_retry: None, size: None, clock: None }
    }
}

/// Where video comes from, for people. Of an address only host and port: some cameras take a password in the path.
fn place(source: &Source) -> String {
    match source {
        Source::Rtsp(rtsp) => {
            let place = rtsp.url.split_once("://").map_or(rtsp.url.as_str(), |(_, place)| place);
            place.split(['/', '?']).next().unwrap_or_default().to_owned()
        }
        Source::File { path, .. } => path.display().to_string(),
        Source::V4l2 { device } => device.display().to_string(),
        Source::Csi { sensor, .. } => format!("CSI sensor {sensor}"),
        Source::Test { .. } => "test picture".to_owned(),
    }
}

/// From the start of a stream to its end. Begun before its pipeline is told to go.
struct Reading {
    begun: Instant,
    /// The camera's frames before it.
    before: u64,
    /// Frames of the reading before it, where the pipeline had one.
    whole: Option<u64>,
}

impl Reading {
    fn begin(intake: &Intake) -> Self {
        Self { begun: Instant::now(), before: intake.metrics().decoded.get(), whole: None }
    }

    fn frames(&self, intake: &Intake) -> u64 {
        intake.metrics().decoded.get() - self.before
    }
}

/// A started pipeline; dropping stops it.
struct Running {
    parts: Option<Pipeline>,
    feeder: Option<Feeder>,
    /// A call into it takes too long: its thread stops it once that has ended.
    is_late: bool,
    intake: Arc<Intake>,
    connection: Arc<Connection>,
}

impl Running {
    fn error(&self, error: &gst::message::Error) -> CameraError {
        match &self.parts {
            Some(parts) => parts.error(error),
            None => CameraError::Stream(error.error().to_string()),
        }
    }

    fn set_latency(&self) {
        if let Some(parts) = &self.parts {
            let _ = parts.pipeline.recalculate_latency(); // a failure is on the bus
        }
    }

    /// Carries the frames of a file that is read fast.
    fn feed(&mut self) {
        self.feeder = self.parts.as_ref().and_then(|parts| sink::feeder(&self.intake, &self.connection, parts));
    }
}

impl Drop for Running {
    /// The slot is freed before the change to NULL, which waits for the streaming threads.
    fn drop(&mut self) {
        self.connection.close();
        self.intake.stop_feeding();
        if let Some(feeder) = self.feeder.take() {
            let _ = feeder.thread.join();
        }
        // Whoever is late stops it.
        let Some(parts) = self.parts.take().filter(|_| !self.is_late) else { return };
        crowd::stop(parts, &self.intake.config().id, self.intake.metrics());
    }
}
