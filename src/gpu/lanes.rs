//! One batch's way over the GPU: frames → letterbox → engine → head → candidates.
//!
//! [`Lanes`] is one context of the engine with a stream and all buffers of a batch. Everything after the frames'
//! addresses are known is one CUDA graph: the lane table goes up, one letterbox launch, the engine, one launch that
//! reads the head, and the candidates come down. Behind it come the thumbnails of the few frames that are to have one. Several
//! of them overlap on one GPU.

use std::sync::{Arc, Mutex, PoisonError};

use super::device::Device;
use super::error::GpuError;
use super::head::HeadPlan;
use super::kernels::Kernels;
use super::letterbox::{InputFormat, LaneEntry};
use super::memory::{DeviceBuffer, Pinned};
use super::stream::{Event, Graph, Stream};
use super::surface::SurfaceMap;
use super::thumbnail::{self, Wanted};
use super::trt::{Context, Engine};
use crate::frame::{Image, PixelFormat, SystemImage};
use crate::letterbox::Letterbox;
use crate::yolo::Candidates;

/// Planes of an uploaded frame start at multiples of this.
const PLANE_ALIGN: usize = 256;

/// What all [`Lanes`] of an engine share.
pub struct Plan {
    /// The device.
    pub device: Device,
    /// Compiled for it.
    pub kernels: Kernels,
    /// The picture input.
    pub format: InputFormat,
    /// How the outputs are read.
    pub head: HeadPlan,
    /// Frames a batch has.
    pub lanes: usize,
    /// Inputs whose shape the engine leaves open, with the one that is used.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Name of the picture input.
    pub picture: String,
    /// Name and content of the input that is fed the input's size, where there is one.
    pub size: Option<(String, Vec<u8>)>,
    /// Names and bytes of the outputs, in the order of the head's plan.
    pub outputs: Vec<(String, usize)>,
    /// Where a Jetson's surfaces are mapped.
    pub surfaces: Mutex<SurfaceMap>,
}

impl Plan {
    /// A frame in device memory as a lane; `None`: it lies in the host's.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where it cannot be mapped.
    pub fn entry(&self, frame: &LaneInput<'_>) -> Result<Option<LaneEntry>, GpuError> {
        let (planes, strides, format, colour) = match frame.image {
            Image::Cuda(image) => (image.planes, image.strides, image.format, image.colour),
            Image::System(_) => return Ok(None),
            Image::Nvmm(image) => {
                let mut surfaces = self.surfaces.lock().unwrap_or_else(PoisonError::into_inner);
                let (planes, strides) = surfaces.planes(image)?;
                (planes, strides, PixelFormat::Nv12, image.colour)
            }
        };
        Ok(Some(LaneEntry::new(planes, strides, format, colour, &frame.letterbox, frame.mask)))
    }
}

/// One frame of a batch.
pub struct LaneInput<'a> {
    /// The pixels.
    pub image: &'a Image,
    /// How they are fitted.
    pub letterbox: Letterbox,
    /// Device address of the bitmap of input pixels to blank, 0 for none.
    pub mask: u64,
    /// A thumbnail is made of it; see [`Lanes::make_room_for_thumbnails`].
    pub thumbnail: bool,
}

/// How the work of a batch is started.
enum Launch {
    /// As one graph.
    Graph(Graph),
    /// Call by call: the engine cannot be captured.
    Calls,
}

/// One context of the engine with its stream and buffers.
///
/// Fields are dropped in order: what the stream works on is dropped after it has been waited for.
pub struct Lanes {
    plan: Arc<Plan>,
    stream: Stream,
    launch: Launch,
    context: Context,
    started: Event,
    /// Put behind each frame's decoder in turn.
    decoded: Event,
    finished: Event,
    table_host: Pinned,
    table: DeviceBuffer,
    picture: DeviceBuffer,
    /// By lane, the last frame whose padding is in `picture`.
    drawn: Vec<LaneEntry>,
    /// Held for the engine, which has its address.
    _size: Option<DeviceBuffer>,
    outputs: Vec<DeviceBuffer>,
    found_host: Pinned,
    found: DeviceBuffer,
    overflow: DeviceBuffer,
    overflow_host: Option<Pinned>,
    lost: Vec<(usize, String)>,
    /// By lane: where frames in host memory pass through.
    uploads: Vec<Option<Upload>>,
    thumbnails: Option<thumbnail::Room>,
}

/// Room for one frame of host memory on its way to the device.
struct Upload {
    host: Pinned,
    device: DeviceBuffer,
}

impl Lanes {
    /// Makes the context and the buffers, runs the engine once over empty lanes and captures the graph.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] where the device is full, else what the engine says.
    pub fn new(plan: &Arc<Plan>, engine: &Engine) -> Result<Self, GpuError> {
        let device = &plan.device;
        let stream = Stream::new(device)?;
        let mut context = Context::new(engine)?;
        for (name, shape) in &plan.shapes {
            context.set_shape(name, shape)?;
        }
        let picture = DeviceBuffer::new(device, plan.format.bytes(plan.lanes))?;
        context.set_address(&plan.picture, picture.address())?;
        let size = plan.size.as_ref().map(|(name, content)| feed(&mut context, &stream, device, name, content));
        let tensors = engine.tensors();
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        for (name, bytes) in &plan.outputs {
            // The engine knows, once its inputs' shapes are set. What varies with the batch need not be the batch.
            let shape = context.shape(name);
            let needed = match (tensors.iter().find(|tensor| tensor.name == *name), &shape) {
                (Some(tensor), Some(shape)) => Some(tensor.bytes(shape)?),
                _ => None,
            };
            if needed != Some(*bytes) {
                return Err(wrong_output(name, shape.as_deref(), plan.lanes));
            }
            let output = DeviceBuffer::new(device, *bytes)?;
            context.set_address(name, output.address())?;
            outputs.push(output);
        }
        let table_bytes = plan.lanes * size_of::<LaneEntry>();
        let (found_bytes, overflow_bytes) =
            (plan.head.found_bytes(plan.lanes), plan.head.overflow_bytes(plan.lanes));
        let mut lanes = Self {
            plan: Arc::clone(plan),
            launch: Launch::Calls,
            context,
            started: Event::new(device)?,
            decoded: Event::timeless(device)?,
            finished: Event::new(device)?,
            table_host: Pinned::new(device, table_bytes)?,
            table: DeviceBuffer::new(device, table_bytes)?,
            picture,
            drawn: vec![LaneEntry::unused(); plan.lanes],
            _size: size.transpose()?,
            outputs,
            found_host: Pinned::new(device, found_bytes)?,
            found: DeviceBuffer::new(device, found_bytes)?,
            overflow: DeviceBuffer::new(device, overflow_bytes.max(1))?,
            overflow_host: None,
            lost: Vec::new(),
            uploads: (0..plan.lanes).map(|_| None).collect(),
            thumbnails: None,
            stream,
        };
        lanes.warm_up()?;
        Ok(lanes)
    }

    /// The first run sets the engine up; only then can it be captured.
    fn warm_up(&mut self) -> Result<(), GpuError> {
        let lanes = self.plan.lanes;
        self.table_host.slice_mut(0, lanes).fill(LaneEntry::unused());
        self.work()?;
        self.stream.synchronize()?;
        let stream = self.stream.clone();
        match stream.capture(|| self.work()) {
            Ok(graph) => self.launch = Launch::Graph(graph),
            Err(error) => tracing::info!("this engine runs without a CUDA graph: {error}"),
        }
        self.start()?;
        self.stream.synchronize()
    }

    /// From now on there may be thumbnails.
    ///
    /// # Errors
    ///
    /// [`GpuError::Memory`] where there is no room for them.
    pub fn make_room_for_thumbnails(&mut self) -> Result<(), GpuError> {
        self.thumbnails = Some(thumbnail::Room::new(&self.plan.device, self.plan.lanes)?);
        Ok(())
    }

    /// Starts a batch. `done` is called on a thread of the driver when its candidates are there; it makes no CUDA
    /// calls. The frames must live until then. At most as many as the plan has lanes. A frame that cannot be read costs no
    /// other: its lane and why are in [`Lanes::lost`].
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where the device is gone, [`GpuError::Memory`] where it has no room for a frame of the host's.
    pub fn launch(&mut self, frames: &[LaneInput<'_>], done: Box<dyn FnOnce() + Send>) -> Result<(), GpuError> {
        self.enqueue(frames, done).inspect_err(|_| {
            // Part of the work may be under way, and the frames are about to go back.
            let _ = self.stream.synchronize();
            self.drawn.fill(LaneEntry::unused());
        })
    }

    fn enqueue(&mut self, frames: &[LaneInput<'_>], done: Box<dyn FnOnce() + Send>) -> Result<(), GpuError> {
        self.started.record(&self.stream)?;
        self.lost.clear();
        for (lane, frame) in frames.iter().enumerate() {
            self.stream.follow(frame.image, &self.decoded)?;
            let entry = match self.entry(lane, frame)? {
                Ok(entry) => entry.after(&self.drawn[lane]),
                Err(why) => {
                    self.lost.push((lane, why));
                    LaneEntry::unused()
                }
            };
            self.drawn[lane] = entry;
            self.table_host.slice_mut::<LaneEntry>(0, self.plan.lanes)[lane] = entry;
        }
        self.table_host.slice_mut(0, self.plan.lanes)[frames.len()..].fill(LaneEntry::unused());
        self.start()?;
        self.start_thumbnails(frames)?;
        self.finished.record(&self.stream)?;
        self.stream.notify(done)
    }

    fn start_thumbnails(&mut self, frames: &[LaneInput<'_>]) -> Result<(), GpuError> {
        let Some(room) = &mut self.thumbnails else { return Ok(()) };
        let table = self.table_host.slice::<LaneEntry>(0, self.plan.lanes);
        let wanted = frames.iter().enumerate().filter(|(lane, frame)| frame.thumbnail && table[*lane].is_used());
        let wanted = wanted.map(|(lane, frame)| Wanted::new(lane, frame.letterbox.source));
        room.start(&self.plan.kernels, &self.stream, &self.table, wanted)
    }

    /// Size and pixels of a lane's thumbnail in the finished batch, as [`thumbnail::Room::get`] has them.
    pub fn thumbnail(&self, lane: usize) -> Option<((u32, u32), &[u8])> {
        self.thumbnails.as_ref().and_then(|room| room.get(lane))
    }

    /// Lanes of the batch last launched whose frames could not be read, in order, and why.
    pub fn lost(&self) -> &[(usize, String)] {
        &self.lost
    }

    /// Whether the batch has finished.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where it failed.
    pub fn is_done(&self) -> Result<bool, GpuError> {
        self.finished.done()
    }

    /// Milliseconds from the first upload of the finished batch to its candidates.
    ///
    /// # Errors
    ///
    /// [`GpuError::Failed`] where it failed.
    pub fn milliseconds(&self) -> Result<f32, GpuError> {
        self.finished.ms_since(&self.started)
    }

    /// Reads the candidates of a lane of the finished batch: at most `limit`, the best.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where the model reports a class that has no label.
    pub fn read(&mut self, lane: usize, limit: usize, out: &mut Candidates) -> Result<(), GpuError> {
        let plan = Arc::clone(&self.plan);
        let more = plan.head.overflowed(&self.found_host, plan.lanes, lane);
        if more > 0 {
            self.fetch_overflow(lane, more)?;
        }
        plan.head.read(&self.found_host, self.overflow_host.as_ref(), plan.lanes, lane, limit, out)
    }

    /// The boxes that did not fit beside the counts: rare, so they come when asked for.
    fn fetch_overflow(&mut self, lane: usize, boxes: usize) -> Result<(), GpuError> {
        let bytes = self.plan.head.overflow_bytes(1);
        if self.overflow_host.is_none() {
            self.overflow_host = Some(Pinned::new(&self.plan.device, bytes)?);
        }
        let Some(host) = &mut self.overflow_host else { return Ok(()) };
        let wanted = boxes * size_of::<super::head::GpuBox>();
        self.stream.download(&self.overflow, lane * bytes, host, 0, wanted)?;
        self.stream.synchronize()
    }

    fn start(&mut self) -> Result<(), GpuError> {
        match &self.launch {
            Launch::Graph(graph) => graph.launch(&self.stream),
            Launch::Calls => self.work(),
        }
    }

    /// What the graph holds.
    fn work(&mut self) -> Result<(), GpuError> {
        let (plan, stream) = (&self.plan, &self.stream);
        stream.upload(&self.table_host, 0, &self.table, 0, self.table.len())?;
        plan.kernels.letterbox(stream, &self.table, plan.lanes, &plan.format, &self.picture)?;
        self.context.enqueue(stream.raw())?;
        let outputs: Vec<&DeviceBuffer> = self.outputs.iter().collect();
        plan.kernels.decode(stream, &plan.head, &self.table, plan.lanes, &outputs, &self.found, &self.overflow)?;
        stream.download(&self.found, 0, &mut self.found_host, 0, self.found.len())
    }

    /// What the kernels are told of a frame, or why that frame alone is lost.
    fn entry(&mut self, lane: usize, frame: &LaneInput<'_>) -> Result<Result<LaneEntry, String>, GpuError> {
        let mut entry = self.plan.entry(frame);
        if let (Ok(None), Image::System(image)) = (&entry, frame.image) {
            let made = |planes| {
                LaneEntry::new(planes, image.strides, image.format, image.colour, &frame.letterbox, frame.mask)
            };
            entry = match self.upload(lane, image) {
                // The way of a sound frame: what fails here is the device's.
                Err(GpuError::Failed(text)) => return Err(GpuError::Failed(text)),
                planes => planes.map(|planes| Some(made(planes))),
            };
        }
        lost_alone(entry)
    }

    /// Copies a frame of host memory into pinned memory and starts its way to the device.
    fn upload(&mut self, lane: usize, image: &SystemImage) -> Result<[u64; 3], GpuError> {
        let (mut offsets, mut bytes) = ([0; 3], 0);
        for (plane, offset) in offsets.iter_mut().enumerate() {
            *offset = bytes;
            bytes += image.plane_bytes(plane).next_multiple_of(PLANE_ALIGN);
        }
        let slot = &mut self.uploads[lane];
        if slot.as_ref().is_none_or(|upload| upload.device.len() < bytes) {
            let device = &self.plan.device;
            *slot = Some(Upload { host: Pinned::new(device, bytes)?, device: DeviceBuffer::new(device, bytes)? });
        }
        let Some(upload) = slot else { return Ok([0; 3]) };
        let mut addresses = [0; 3];
        for plane in (0..3).filter(|plane| image.plane_bytes(*plane) > 0) {
            let from = image.plane(plane).map_err(GpuError::Config)?;
            upload.host.bytes_mut()[offsets[plane]..][..from.len()].copy_from_slice(from);
            addresses[plane] = upload.device.address() + offsets[plane] as u64;
        }
        self.stream.upload(&upload.host, 0, &upload.device, 0, bytes)?;
        Ok(addresses)
    }
}

/// What the kernels are told of a frame, or why that frame alone is lost: others that are read with it are not. Where it is the
/// device that has gone, what else it was given says so.
///
/// # Errors
///
/// What is no fault of the frame.
pub fn lost_alone(entry: Result<Option<LaneEntry>, GpuError>) -> Result<Result<LaneEntry, String>, GpuError> {
    match entry {
        Ok(Some(entry)) if entry.is_used() => Ok(Ok(entry)),
        Ok(Some(_)) => Ok(Err("it is too large for the kernels: 65,535 pixels a side at most".to_owned())),
        Ok(None) => Ok(Err("it lies in host memory, and was to be looked at on the GPU".to_owned())),
        Err(GpuError::Config(text) | GpuError::Failed(text)) => Ok(Err(text)),
        Err(other) => Err(other),
    }
}

impl Drop for Lanes {
    /// The device may still be writing into the buffers that are about to go.
    fn drop(&mut self) {
        if let Err(error) = self.stream.synchronize() {
            tracing::debug!("the GPU's stream ends with: {error}");
        }
    }
}

/// An output that is not one row of boxes a lane.
fn wrong_output(name: &str, shape: Option<&[usize]>, lanes: usize) -> GpuError {
    let known =
        shape.map_or_else(|| "a shape that only its content decides".to_owned(), |shape| format!("{shape:?}"));
    GpuError::Config(format!(
        "the engine's output {name:?} has {known} for a batch of {lanes}, and its first number is to be the batch: export the \
         model with that output fixed, or without it"
    ))
}

/// Fills an input of the engine that never changes.
fn feed(
    context: &mut Context,
    stream: &Stream,
    device: &Device,
    name: &str,
    content: &[u8],
) -> Result<DeviceBuffer, GpuError> {
    let (mut host, buffer) = (Pinned::new(device, content.len())?, DeviceBuffer::new(device, content.len())?);
    host.bytes_mut().copy_from_slice(content);
    stream.upload(&host, 0, &buffer, 0, content.len())?;
    stream.synchronize()?;
    context.set_address(name, buffer.address())?;
    Ok(buffer)
}
