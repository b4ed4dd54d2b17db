//! TensorRT: NVIDIA GPUs. Frames stay in the device's memory from the decoder to the candidates.
//!
//! Batches take turns over a few contexts of the engine, each with buffers and a CUDA graph of its own
//! ([`crate::gpu::lanes`]), so that one batch is staged while another is in the engine. Nothing waits on the GPU: the
//! driver wakes the loop when a batch is done.

mod build;
mod candidate;
mod engine;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use super::{Back, Backend, BackendError, Batch, LOOK_MAX, Lane, ModelSpec, Progress};
use crate::config::{EngineConfig, TensorrtConfig};
use crate::engine::Manifest;
use crate::frame::{Colour, Frame, GpuShare};
use crate::gpu::alone;
use crate::gpu::device::Device;
use crate::gpu::error::GpuError;
use crate::gpu::lanes::{LaneInput, Lanes, Plan, lost_alone};
use crate::gpu::mask::MaskCache;
use crate::gpu::motion::Looks;
use crate::gpu::stream::Stream;
use crate::gpu::trt::Library;
use crate::letterbox::{Fit, Letterbox};
use crate::mask::RegionMask;
use crate::process;
use crate::thumbnail::{Blank, Thumbnails};
use crate::yolo::Candidates;

pub use engine::{check, look};

/// What to open: everything [`TensorRt::open`] needs, so that a failed backend can be opened anew.
#[derive(Clone)]
pub struct Settings {
    /// The model and how its tensors are meant.
    manifest: Manifest,
    /// The manifest's file, for the program that builds the engine.
    manifest_file: PathBuf,
    /// Frames a call takes; `None` = as many as the engine was built for.
    lanes: Option<usize>,
    tensorrt: TensorrtConfig,
    /// Where engines and kernels are kept; `None` keeps nothing.
    state_dir: Option<PathBuf>,
    /// Another engine may serve until the one that is wanted is built.
    stand_ins: bool,
    /// An engine is being built beside the one that serves. Clones share.
    is_building: Arc<AtomicBool>,
    /// An engine was opened once. Clones share.
    has_served: Arc<AtomicBool>,
    device: Device,
    library: Library,
}

impl Settings {
    /// From a checked engine section, on an opened device.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unavailable`] where the library cannot be had.
    pub fn on(
        device: Device,
        engine: &EngineConfig,
        manifest: &Manifest,
        state_dir: Option<&Path>,
    ) -> Result<Self, BackendError> {
        Ok(Self {
            manifest: manifest.clone(),
            manifest_file: engine.manifest.clone(),
            lanes: Some(engine.batch),
            tensorrt: engine.tensorrt.clone(),
            state_dir: state_dir.map(Path::to_path_buf),
            stand_ins: true,
            is_building: Arc::default(),
            has_served: Arc::default(),
            device,
            library: library(&engine.tensorrt)?,
        })
    }

    /// For the engine file that `tensorrt` names, with the batch it was built for.
    ///
    /// # Errors
    ///
    /// As [`Settings::on`].
    pub fn of_engine(tensorrt: &TensorrtConfig, manifest: &Manifest) -> Result<Self, BackendError> {
        Ok(Self {
            manifest: manifest.clone(),
            manifest_file: PathBuf::new(),
            lanes: None,
            tensorrt: tensorrt.clone(),
            state_dir: None,
            stand_ins: true,
            is_building: Arc::default(),
            has_served: Arc::default(),
            device: Device::open(tensorrt.device)?,
            library: library(tensorrt)?,
        })
    }

    /// Nothing but the engine that is wanted will do: it is measured.
    #[must_use]
    pub fn without_stand_ins(self) -> Self {
        Self { stand_ins: false, ..self }
    }

    /// The device that the engine runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What decoders need to know.
    pub fn share(&self) -> GpuShare {
        // A live camera has one frame in a batch. A lossless file that fills batches alone waits for its decoder.
        let frames = 2 + self.tensorrt.contexts;
        let context = self.device.raw_context();
        // Device numbers are at most 63, contexts at most 8.
        GpuShare { context, device: self.device.ordinal() as i32, frames: frames as u32 }
    }
}

fn library(tensorrt: &TensorrtConfig) -> Result<Library, BackendError> {
    Ok(Library::open(tensorrt.library.as_deref()).map_err(GpuError::from)?)
}

/// A batch's place: a context and what is remembered of the batch in it.
struct Seat {
    lanes: Lanes,
    /// Alive until the device has read them.
    frames: Vec<Frame>,
    letterboxes: Vec<Letterbox>,
    /// Of few of them.
    due: Vec<Due>,
    submitted: Instant,
    /// Time the host spent on the batch before the device had it.
    staged: Duration,
}

/// A frame that is to have a thumbnail.
struct Due {
    lane: usize,
    place: Blank,
    colour: Colour,
    mask: Option<Arc<RegionMask>>,
}

/// An engine with its contexts.
pub struct TensorRt {
    spec: ModelSpec,
    fit: Fit,
    candidates_max: usize,
    seats: Vec<Seat>,
    /// The seat of the oldest batch in flight.
    oldest: usize,
    in_flight: usize,
    masks: MaskCache,
    thumbnails: Option<Thumbnails>,
    /// Made for the first camera with a motion gate. Dropped before the frames, which it waits for, and the kernels.
    looks: Option<Looks>,
    /// With the place of its cells, or why it has none.
    looked_at: Vec<(Frame, Result<usize, String>)>,
    plan: Arc<Plan>,
    wake: Sender<()>,
}

impl TensorRt {
    /// Finds the engine, or has it built, and warms it. `wake` is told of every finished batch.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unavailable`] where the engine cannot be had, [`BackendError::Config`] where manifest and
    /// engine contradict each other.
    pub fn open(settings: &Settings, wake: Sender<()>, progress: &Progress) -> Result<Self, BackendError> {
        // After a fault that it does not survive every call fails: that is no fault of the engine's.
        Stream::new(&settings.device)?.synchronize()?;
        engine::open(settings, progress, |loaded| Self::ready(settings, loaded, wake.clone()))
    }

    fn ready(settings: &Settings, loaded: engine::Loaded, wake: Sender<()>) -> Result<Self, BackendError> {
        let plan = Arc::new(loaded.plan);
        let seats = (0..settings.tensorrt.contexts).map(|_| Seat::new(&plan, &loaded.engine));
        let seats: Vec<Seat> = seats.collect::<Result<_, _>>()?;
        drop(loaded.trial);
        settings.has_served.store(true, Ordering::Relaxed);
        Ok(Self {
            spec: ModelSpec {
                name: settings.manifest.name.clone(),
                lanes: plan.lanes,
                input: plan.format.size,
                in_flight: seats.len(),
                digest: loaded.digest,
                runtime: loaded.runtime,
                engine: Some(loaded.stamp),
            },
            fit: settings.manifest.input.fit,
            candidates_max: settings.manifest.thresholds.max_candidates,
            seats,
            oldest: 0,
            in_flight: 0,
            masks: MaskCache::new(&settings.device)?,
            thumbnails: None,
            plan,
            looks: None,
            looked_at: Vec::new(),
            wake,
        })
    }

    /// Wakes the loop, from a thread of the driver.
    fn woken(&self) -> Box<dyn FnOnce() + Send> {
        let wake = self.wake.clone();
        Box::new(move || {
            // Full means awake already.
            let _ = wake.try_send(());
        })
    }
}

/// A frame that cannot be read costs its batch; everything else is as it is.
fn of_frame(error: GpuError) -> BackendError {
    match error {
        GpuError::Config(text) => BackendError::DropBatch(text),
        other => other.into(),
    }
}

impl Seat {
    fn new(plan: &Arc<Plan>, engine: &crate::gpu::trt::Engine) -> Result<Self, GpuError> {
        Ok(Self {
            lanes: Lanes::new(plan, engine)?,
            frames: Vec::new(),
            letterboxes: Vec::new(),
            due: Vec::new(),
            submitted: Instant::now(),
            staged: Duration::ZERO,
        })
    }
}

/// Runs the engine alone for `time`, on as many contexts as [`TensorRt`] and with nothing around it. Returns images,
/// wall time and processor time of this process.
///
/// # Errors
///
/// As [`TensorRt::open`].
pub fn engine_alone(settings: &Settings, time: Duration) -> Result<(u64, Duration, Duration), BackendError> {
    settings.device.bind()?;
    let loaded = engine::open(settings, &super::nothing_is_built(), Ok)?;
    let cpu = process::cpu_time().unwrap_or_default();
    let (lanes, contexts) = (loaded.plan.lanes, settings.tensorrt.contexts);
    let measured = alone::measure(&loaded.engine, lanes, &settings.device, contexts, true, time)?;
    let cpu = process::cpu_time().unwrap_or_default().saturating_sub(cpu);
    Ok((measured.batches * lanes as u64, measured.wall, cpu))
}

impl Backend for TensorRt {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn submit(&mut self, frames: Vec<Frame>) -> Result<(), BackendError> {
        if self.in_flight == self.seats.len() {
            return Err(BackendError::DropBatch("every context is busy".to_owned()));
        }
        let (submitted, woken) = (Instant::now(), self.woken());
        let at = (self.oldest + self.in_flight) % self.seats.len();
        let seat = &mut self.seats[at];
        let fit = |frame: &Frame| Letterbox::new(frame.info.size, self.spec.input, self.fit);
        seat.letterboxes.clear();
        seat.letterboxes.extend(frames.iter().map(fit));
        if let Some(thumbnails) = &mut self.thumbnails {
            seat.find_due(&frames, thumbnails);
        }
        let mut inputs = Vec::with_capacity(frames.len());
        for (lane, (frame, letterbox)) in frames.iter().zip(&seat.letterboxes).enumerate() {
            let mask = match &frame.mask {
                Some(mask) => self.masks.address(mask, letterbox)?,
                None => 0,
            };
            let thumbnail = seat.due.iter().any(|due| due.lane == lane);
            inputs.push(LaneInput { image: &frame.image, letterbox: *letterbox, mask, thumbnail });
        }
        seat.lanes.launch(&inputs, woken).map_err(of_frame)?;
        drop(inputs);
        seat.frames = frames;
        seat.submitted = submitted;
        seat.staged = submitted.elapsed();
        self.in_flight += 1;
        Ok(())
    }

    fn try_collect(&mut self, out: &mut Batch) -> Result<bool, BackendError> {
        if self.in_flight == 0 {
            return Ok(false);
        }
        let seats = self.seats.len();
        let seat = &mut self.seats[self.oldest];
        if !seat.lanes.is_done()? {
            return Ok(false);
        }
        self.oldest = (self.oldest + 1) % seats;
        self.in_flight -= 1;
        seat.collect(self.candidates_max, out)?;
        if let Some(thumbnails) = &mut self.thumbnails {
            super::keep_what_shows_something(thumbnails, &mut out.lanes);
        }
        Ok(true)
    }

    fn look(&mut self, frames: Vec<Frame>) -> Result<(), BackendError> {
        let woken = self.woken();
        let looks = match &mut self.looks {
            Some(looks) => looks,
            None => self.looks.insert(Looks::new(&self.plan.device, LOOK_MAX)?),
        };
        let mut entries = Vec::with_capacity(frames.len());
        let mut looked_at = Vec::with_capacity(frames.len());
        for frame in frames {
            let letterbox = Letterbox::new(frame.info.size, self.spec.input, self.fit);
            let input = LaneInput { image: &frame.image, letterbox, mask: 0, thumbnail: false };
            looks.follow(&frame.image)?;
            let place = lost_alone(self.plan.entry(&input))?.map(|entry| {
                entries.push(entry);
                entries.len() - 1
            });
            looked_at.push((frame, place));
        }
        match entries.is_empty() {
            true => woken(),
            false => looks.launch(&self.plan.kernels, &entries, woken).map_err(of_frame)?,
        }
        self.looked_at = looked_at;
        Ok(())
    }

    fn looked(&mut self, back: &mut Back<'_>) -> Result<bool, BackendError> {
        let Some(looks) = &self.looks else { return Ok(true) };
        if !looks.is_done()? {
            return Ok(false);
        }
        for (frame, place) in self.looked_at.drain(..) {
            back(frame, place.as_ref().map(|at| looks.cells(*at)).map_err(String::as_str));
        }
        Ok(true)
    }

    fn set_thumbnails(&mut self, thumbnails: Thumbnails) {
        match self.seats.iter_mut().try_for_each(|seat| seat.lanes.make_room_for_thumbnails()) {
            Ok(()) => self.thumbnails = Some(thumbnails),
            Err(error) => tracing::error!("there are no snapshots: {error}"),
        }
    }
}

impl Seat {
    /// Which of the frames are to have a thumbnail.
    fn find_due(&mut self, frames: &[Frame], thumbnails: &mut Thumbnails) {
        self.due.clear();
        for (lane, frame) in frames.iter().enumerate() {
            if let Some(place) = thumbnails.due(&frame.info) {
                self.due.push(Due { lane, place, colour: frame.image.colour(), mask: frame.mask.clone() });
            }
        }
    }

    /// The thumbnails of lanes in which something was found, or that were asked for. The others' are not fetched.
    fn hand_over_thumbnails(&mut self, lanes: &mut [Lane]) {
        for Due { lane, place, colour, mask } in self.due.drain(..) {
            let Some(to) = lanes.get_mut(lane) else { continue };
            if (place.is_asked() || !to.candidates.boxes.is_empty())
                && let Some((size, pixels)) = self.lanes.thumbnail(lane)
            {
                let source = to.letterbox.source;
                to.thumbnail = Some(Arc::new(place.copy(pixels, size, source, colour, mask.as_deref())));
            }
        }
    }

    /// The finished batch into `out`; the frames go back to their decoders.
    fn collect(&mut self, candidates_max: usize, out: &mut Batch) -> Result<(), BackendError> {
        let finished = Instant::now();
        out.lanes.truncate(self.frames.len());
        for (index, (frame, letterbox)) in self.frames.drain(..).zip(&self.letterboxes).enumerate() {
            match out.lanes.get_mut(index) {
                Some(lane) => (lane.frame, lane.letterbox, lane.thumbnail) = (frame.info, *letterbox, None),
                None => {
                    let (candidates, thumbnail) = (Candidates::default(), None);
                    out.lanes.push(Lane { frame: frame.info, letterbox: *letterbox, candidates, thumbnail });
                }
            }
        }
        for (index, lane) in out.lanes.iter_mut().enumerate() {
            self.lanes.read(index, candidates_max, &mut lane.candidates)?;
        }
        self.hand_over_thumbnails(&mut out.lanes);
        take_lost(self.lanes.lost(), out);
        out.submitted = self.submitted;
        out.finished = finished;
        out.preprocess = self.staged;
        out.infer = Duration::from_secs_f32(self.lanes.milliseconds()? / 1e3);
        out.decode = finished.elapsed();
        Ok(())
    }
}

/// Takes lanes whose frames could not be read, in order, out of those that were: the device has found nothing in them.
fn take_lost(lost: &[(usize, String)], out: &mut Batch) {
    out.lost.clear();
    for (gone, (lane, why)) in lost.iter().enumerate() {
        let lane = out.lanes.remove(lane - gone);
        out.lost.push((lane.frame.camera, why.clone()));
    }
}

impl From<GpuError> for BackendError {
    fn from(error: GpuError) -> Self {
        match error {
            GpuError::Unavailable(text) => Self::Unavailable(text),
            GpuError::Config(text) => Self::Config(text),
            // A full device may be another program's doing: the next attempt may find room.
            GpuError::Memory(text) | GpuError::Failed(text) => Self::Reopen(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{CameraId, PixelFormat};
    use crate::gpu::letterbox::LaneEntry;

    #[test]
    fn a_frame_that_cannot_be_mapped_is_lost_alone_and_without_libraries_none_can_be() {
        let entry = |size| {
            let (colour, letterbox) =
                (Colour { bt709: true, full_range: false }, Letterbox::new(size, (64, 64), Fit::Centre));
            LaneEntry::new([256; 3], [64, 64, 0], PixelFormat::Nv12, colour, &letterbox, 0)
        };
        let why = |entry| lost_alone(entry).unwrap().unwrap_err();
        assert_eq!(lost_alone(Ok(Some(entry((64, 48))))).unwrap(), Ok(entry((64, 48))));
        assert!(why(Ok(Some(entry((70_000, 48))))).contains("too large"));
        assert!(why(Ok(None)).contains("host memory"));
        let text = || "an NVMM surface cannot be mapped".to_owned();
        assert_eq!(why(Err(GpuError::Failed(text()))), text());
        assert_eq!(why(Err(GpuError::Config(text()))), text());
        assert!(matches!(lost_alone(Err(GpuError::Unavailable(text()))), Err(GpuError::Unavailable(_))));
    }

    #[test]
    fn lanes_behind_a_lost_one_move_up() {
        let now = Instant::now();
        let lane = |number: u32| {
            let frame = Frame::solid(&CameraId::new(&format!("camera{number}")), (8, 8), now).info;
            let letterbox = Letterbox::new((8, 8), (8, 8), Fit::Centre);
            Lane { frame, letterbox, candidates: Candidates::default(), thumbnail: None }
        };
        let taken = |lost: &[(usize, String)]| {
            let mut batch = Batch { lanes: (0..4).map(lane).collect(), ..Batch::new(now) };
            take_lost(lost, &mut batch);
            let read: Vec<String> = batch.lanes.iter().map(|lane| lane.frame.camera.to_string()).collect();
            let lost: Vec<String> = batch.lost.iter().map(|(camera, why)| format!("{camera} {why}")).collect();
            (read.join(" "), lost.join(" "))
        };
        let lost = [(0, "a".to_owned()), (2, "b".to_owned())];
        assert_eq!(taken(&lost), ("camera1 camera3".to_owned(), "camera0 a camera2 b".to_owned()));
        assert_eq!(taken(&[]), ("camera0 camera1 camera2 camera3".to_owned(), String::new()));
    }
}
