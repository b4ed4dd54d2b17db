//! From GStreamer's threads to the slot: counts, stamps and hands over each decoded frame.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, bounded};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;
use gstreamer_video::{VideoInfo, VideoMeta};

use super::clock::{Arrival, Arrivals, CaptureClock, FileTime};
use super::memory::{self, Memory};
use super::pipeline::{CameraError, Pipeline};
use crate::config::{CameraConfig, Pace, Source};
use crate::frame::{ClockSource, Frame, FrameInfo, Image};
use crate::metrics::CameraMetrics;
use crate::motion::{Gate, Pass};
use crate::rate::RateLimit;
use crate::slot::SlotWriter;

/// What lasts over the connections of one camera in one boot.
pub struct Intake {
    config: CameraConfig,
    slot: SlotWriter,
    metrics: CameraMetrics,
    gate: Option<Arc<Gate>>,
    boot: Mutex<BootState>,
    origin: Instant,
    last_frame_ms: AtomicU64,
    stopping: AtomicBool,
}

#[derive(Default)]
struct BootState {
    next_seq: u64,
    connection: u32,
    clock: CaptureClock,
    limiter: RateLimit,
    file: FileTime,
}

/// What one connection has learnt; read by the camera's thread.
#[derive(Default)]
pub struct Connection {
    arrivals: Mutex<Arrivals>,
    seen: Mutex<Seen>,
    /// The caps of the last frame, read.
    video: Mutex<Option<(gst::Caps, VideoInfo)>>,
    closed: AtomicBool,
    waiting: AtomicBool,
}

/// What the last frame looked like, or why there is none.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Clock of the capture times.
    pub clock: Option<ClockSource>,
    /// The sink refused a frame.
    pub error: Option<CameraError>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// What is known of the stream.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// No frame is taken any more: a pipeline that does not stop must not mix its frames with its successor's.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// A file's frame is decoded and waits, for its time or for room in the slot: this is not silence.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The file is about to be read again: nothing waits any more.
    pub fn rewind(&self) {
        self.waiting.store(false, Ordering::Relaxed);
    }

    /// What the caps say. They are one object until they change, and reading them takes longer than all else here.
    fn video(&self, caps: &gst::Caps) -> Result<VideoInfo, CameraError> {
        let mut known = lock(&self.video);
        if let Some((of, video)) = &*known
            && of.as_ptr() == caps.as_ptr()
        {
            return Ok(video.clone());
        }
        let video = VideoInfo::from_caps(caps)
            .map_err(|_| CameraError::Setup("the pipeline delivers something that is not raw video".to_owned()))?;
        // A reference: a copy would be another object.
        *known = Some((caps.clone(), video.clone()));
        Ok(video)
    }

    fn fail(&self, error: CameraError) {
        lock(&self.seen).error = Some(error);
    }
}

impl Intake {
    /// For one camera, over all its connections. Frames are numbered on from those of a camera of this name before it.
    pub fn new(
        config: CameraConfig,
        gate: Option<Arc<Gate>>,
        slot: SlotWriter,
        metrics: CameraMetrics,
        now: Instant,
    ) -> Self {
        let boot = BootState { next_seq: metrics.decoded.get(), ..BootState::default() };
        Self {
            config,
            slot,
            metrics,
            gate,
            boot: Mutex::new(boot),
            origin: now,
            last_frame_ms: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    /// The camera's settings.
    pub fn config(&self) -> &CameraConfig {
        &self.config
    }

    /// The camera's counters.
    pub fn metrics(&self) -> &CameraMetrics {
        &self.metrics
    }

    /// The camera delivers frames, or no longer does.
    pub fn set_live(&self, live: bool) {
        self.slot.set_live(live);
        self.metrics.online.set(i64::from(live));
    }

    /// The connection has ended: frames from here on are of another.
    pub fn next_connection(&self) {
        lock(&self.boot).connection += 1;
    }

    /// Time since the last frame, or since `connected` where there was none after it.
    pub fn silence(&self, connected: Instant, now: Instant) -> Duration {
        let last = self.origin + Duration::from_millis(self.last_frame_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(last.max(connected))
    }

    /// A waiting feeder gives up.
    pub fn stop_feeding(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.slot.interrupt();
    }

    fn resume_feeding(&self) {
        self.stopping.store(false, Ordering::Relaxed);
        self.slot.resume();
    }

    fn is_fast_file(&self) -> bool {
        matches!(self.config.source, Source::File { pace: Pace::Fast, .. })
    }

    /// Counts a decoded frame and makes it ours, unless `fps_max` skips it or the motion gate leaves it out.
    fn accept(
        &self,
        connection: &Connection,
        sink: &AppSink,
        sample: &gst::Sample,
    ) -> Result<Option<Frame>, CameraError> {
        let now = Instant::now();
        self.last_frame_ms.store(now.saturating_duration_since(self.origin).as_millis() as u64, Ordering::Relaxed);
        self.metrics.decoded.inc();
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
            self.metrics.dropped.inc();
            return Err(CameraError::Stream("a sample without a frame came out of the pipeline".to_owned()));
        };
        let video = connection.video(&caps).inspect_err(|_| {
            self.metrics.dropped.inc();
        })?;
        let size = (video.width(), video.height());
        // Before anything is skipped: a camera with a low limit is online all the same.
        lock(&connection.seen).size = Some(size);
        let (arrived, wall, by_stream) = self.arrival(connection, sink, sample, &buffer, now);
        let mut boot = lock(&self.boot);
        let (seq, number) = (boot.next_seq, boot.connection);
        boot.next_seq += 1;
        // A file read as fast as possible lives in its own time, not in that of its reader: there it is thinned out, gated and
        // tracked.
        let own = buffer.pts().filter(|_| self.is_fast_file());
        let (at, wall) = own.map_or((arrived, wall), |pts| boot.file.at(pts.into(), (self.origin, wall)));
        if self.config.fps_max.is_some_and(|fps_max| !boot.limiter.passes(at, fps_max)) {
            drop(boot);
            self.metrics.skipped_fps.inc();
            return Ok(None);
        }
        let captured = match (&self.config.source, by_stream) {
            (Source::Rtsp(rtsp), Some(arrival)) => boot.clock.network(arrival, rtsp.latency),
            (Source::File { .. }, _) => boot.clock.local(wall, ClockSource::File),
            _ => boot.clock.local(wall, ClockSource::HostArrival),
        };
        drop(boot);
        lock(&connection.seen).clock = Some(captured.clock);
        let pts_ns = buffer.pts().map(gst::ClockTime::nseconds);
        let image = memory::image(buffer, &caps, &video).inspect_err(|_| {
            self.metrics.dropped.inc();
        })?;
        if !self.passes_gate(seq, at, &image) {
            self.metrics.gated.inc();
            return Ok(None);
        }
        let gate = self.gate.clone().map(|gate| Pass::new(gate, at));
        let (camera, connection, decoded) = (self.config.id.clone(), number, now);
        let info = FrameInfo { camera, seq, connection, arrived, decoded, captured, pts_ns, size, gate };
        Ok(Some(Frame { info, image, mask: self.config.mask.clone() }))
    }

    /// Frames in device memory are judged by inference.
    fn passes_gate(&self, seq: u64, at: Instant, image: &Image) -> bool {
        let (Some(gate), Image::System(image)) = (&self.gate, image) else { return true };
        let passes = gate.judge_image(seq, at, image);
        self.slot.set_resting(!passes);
        passes
    }

    /// When the frame arrived, on both clocks. Streams: by the probe before the decoder. Devices and paced files:
    /// by how long ago the frame was due on the pipeline's clock. Files read as fast as possible: now.
    fn arrival(
        &self,
        connection: &Connection,
        sink: &AppSink,
        sample: &gst::Sample,
        buffer: &gst::BufferRef,
        now: Instant,
    ) -> (Instant, SystemTime, Option<Arrival>) {
        let wall = SystemTime::now();
        let by_stream = match (&self.config.source, buffer.pts()) {
            (Source::Rtsp(_), Some(pts)) => lock(&connection.arrivals).find(pts.nseconds()),
            _ => None,
        };
        if let Some(arrival) = by_stream {
            return (arrival.at, arrival.wall, by_stream);
        }
        if self.is_fast_file() || matches!(self.config.source, Source::Rtsp(_)) {
            let unknown = Arrival { pts_ns: 0, at: now, wall, ntp_ns: None };
            return (now, wall, Some(unknown));
        }
        let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>());
        let due = segment.zip(buffer.pts()).and_then(|(segment, pts)| segment.to_running_time(pts));
        let late = sink.current_running_time().zip(due).map(|(clock, due)| clock.saturating_sub(due));
        let late = late.map(Duration::from).unwrap_or_default();
        (now.checked_sub(late).unwrap_or(now), wall.checked_sub(late).unwrap_or(wall), None)
    }
}

/// The thread that carries a file's frames to the slot, waiting for room.
pub struct Feeder {
    /// The thread.
    pub thread: JoinHandle<()>,
    /// Disconnected when the thread has ended.
    pub ended: Receiver<()>,
}

/// Connects a pipeline that is not yet started to its slot. A file read as fast as possible needs a [`feeder`] too.
pub fn attach(intake: &Arc<Intake>, connection: &Arc<Connection>, parts: &Pipeline) {
    intake.gate.iter().for_each(|gate| gate.reset());
    offer_video_meta(parts);
    if matches!(intake.config.source, Source::Rtsp(_)) {
        watch_arrivals(connection, &parts.source);
    }
    if matches!(intake.config.source, Source::File { pace: Pace::Realtime, .. }) {
        watch_pace(connection, &parts.frames);
    }
    if !intake.is_fast_file() {
        set_callback(intake, connection, &parts.frames);
    }
}

/// The feeder of a file read as fast as possible (a callback that waits for the slot would deadlock the change to
/// NULL). For a pipeline that is started: before, its sink calls itself at the end of the stream.
pub fn feeder(intake: &Arc<Intake>, connection: &Arc<Connection>, parts: &Pipeline) -> Option<Feeder> {
    if !intake.is_fast_file() {
        return None;
    }
    intake.resume_feeding();
    let (intake, connection, sink) = (Arc::clone(intake), Arc::clone(connection), parts.frames.clone());
    let name = format!("feed-{}", intake.config.id);
    let (ending, ended) = bounded(0);
    let thread = crate::worker::spawn(&name, move || {
        feed(&intake, &connection, &sink);
        drop(ending);
    });
    Some(Feeder { thread, ended })
}

fn set_callback(intake: &Arc<Intake>, connection: &Arc<Connection>, sink: &AppSink) {
    // Weak: a pipeline that hangs and is abandoned must not hold the slot open, for whose end inference waits.
    let (intake, connection) = (Arc::downgrade(intake), Arc::clone(connection));
    let callbacks = gstreamer_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let intake = intake.upgrade().ok_or(gst::FlowError::Flushing)?;
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            if connection.closed.load(Ordering::Relaxed) {
                return Err(gst::FlowError::Flushing);
            }
            connection.waiting.store(false, Ordering::Relaxed);
            match intake.accept(&connection, sink, &sample) {
                Ok(Some(frame)) => intake.slot.put(frame),
                Ok(None) => {}
                Err(error) => {
                    connection.fail(error);
                    return Err(gst::FlowError::NotNegotiated);
                }
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    sink.set_callbacks(callbacks);
}

/// The loop of a feeder: ends with the file, or when it is told to.
fn feed(intake: &Intake, connection: &Connection, sink: &AppSink) {
    while !intake.stopping.load(Ordering::Relaxed) {
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) else {
            if sink.is_eos() {
                return;
            }
            continue;
        };
        match intake.accept(connection, sink, &sample) {
            Ok(Some(frame)) => {
                drop(sample);
                connection.waiting.store(true, Ordering::Relaxed);
                let put = intake.slot.put_lossless(frame);
                connection.waiting.store(false, Ordering::Relaxed);
                if !put {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                connection.fail(error);
                return;
            }
        }
    }
}

/// Tells decoders that padded rows are welcome: they then decode straight into the buffers we read, and do not
/// copy each picture into a tight one. Decoders into CUDA memory are told how many surfaces will be out at a time; those
/// into NVMM have a property for it, and might count both.
fn offer_video_meta(parts: &Pipeline) {
    let Some(pad) = parts.frames.static_pad("sink") else { return };
    let frames = parts.frames_out.filter(|_| parts.memory == Memory::Cuda);
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH, move |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Allocation(allocation) = query.view_mut()
        {
            allocation.add_allocation_meta::<VideoMeta>(None);
            let size = allocation.get_owned().0.and_then(|caps| VideoInfo::from_caps(&caps).ok());
            if let (Some(frames), Some(size)) = (frames, size) {
                let size = u32::try_from(size.size()).unwrap_or(u32::MAX);
                allocation.add_allocation_pool(None::<&gst::BufferPool>, size, frames, 0);
            }
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

/// Tells when a frame, or the end, reaches the sink of a paced file: it may have to wait there for minutes.
fn watch_pace(connection: &Arc<Connection>, sink: &AppSink) {
    let Some(pad) = sink.static_pad("sink") else { return };
    let connection = Arc::clone(connection);
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let waits = match &info.data {
            Some(gst::PadProbeData::Buffer(_)) => true,
            Some(gst::PadProbeData::Event(event)) => event.type_() == gst::EventType::Eos,
            _ => false,
        };
        if waits {
            connection.waiting.store(true, Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Records the arrival of each access unit on every pad the source opens.
fn watch_arrivals(connection: &Arc<Connection>, source: &gst::Element) {
    let connection = Arc::clone(connection);
    source.connect_pad_added(move |_, pad| {
        let connection = Arc::clone(&connection);
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => connection.note(buffer),
                Some(gst::PadProbeData::BufferList(list)) => {
                    if let Some(buffer) = list.get(0) {
                        connection.note(buffer);
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    });
}

/// For `probe`: only the clocks of a source are watched.
pub fn watch_clock(source: &gst::Element) -> Arc<Connection> {
    let connection = Arc::new(Connection::default());
    if source.has_property("latency") {
        watch_arrivals(&connection, source);
    }
    connection
}

impl Connection {
    /// The camera's clock minus ours at the latest arrival, in milliseconds, where it is known.
    pub fn camera_clock_ms(&self) -> Option<i64> {
        lock(&self.arrivals).camera_clock_ms()
    }

    fn note(&self, buffer: &gst::BufferRef) {
        let Some(pts) = buffer.pts() else { return };
        let ntp_ns = buffer
            .iter_meta::<gst::ReferenceTimestampMeta>()
            .find(|meta| meta.reference().structure(0).is_some_and(|s| s.name() == "timestamp/x-ntp"))
            .map(|meta| meta.timestamp().nseconds());
        let arrival = Arrival { pts_ns: pts.nseconds(), at: Instant::now(), wall: SystemTime::now(), ntp_ns };
        lock(&self.arrivals).push(arrival);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::decode::Kind;
    use crate::camera::pipeline;

    #[test]
    fn caps_are_read_once_until_they_change() {
        gst::init().unwrap();
        let caps = |width: i32| {
            gst::Caps::builder("video/x-raw")
                .field("format", "NV12")
                .field("width", width)
                .field("height", 48)
                .build()
        };
        let (connection, first, second) = (Connection::default(), caps(64), caps(128));
        let known = || lock(&connection.video).as_ref().map(|(of, video)| (of.as_ptr(), video.width()));
        for (caps, width) in [(&first, 64), (&first, 64), (&second, 128), (&first, 64)] {
            assert_eq!(connection.video(caps).unwrap().width(), width);
            assert_eq!(known(), Some((caps.as_ptr(), width)), "it is this object that is known");
        }
        assert!(connection.video(&gst::Caps::new_empty_simple("audio/x-raw")).is_err());
    }

    #[test]
    fn a_decoder_into_cuda_memory_is_told_how_many_frames_its_camera_holds() {
        gst::init().unwrap();
        let told = |memory, frames_out| {
            let mut parts = pipeline::parse("test", Kind::Software).unwrap();
            (parts.memory, parts.frames_out) = (memory, frames_out);
            offer_video_meta(&parts);
            let caps = "video/x-raw,format=NV12,width=64,height=48".parse::<gst::Caps>().unwrap();
            let mut query = gst::query::Allocation::new(Some(&caps), true);
            let pad = parts.frames.static_pad("sink").unwrap();
            assert!(pad.peer().unwrap().peer_query(&mut query));
            query.allocation_pools().map(|(_, size, least, _)| (size, least)).collect::<Vec<_>>()
        };
        assert_eq!(told(Memory::Cuda, Some(6)), [(64 * 48 * 3 / 2, 6)]);
        assert_eq!(told(Memory::System, Some(6)), [], "software has a pool that grows");
        assert_eq!(told(Memory::Cuda, None), []);
    }
}
