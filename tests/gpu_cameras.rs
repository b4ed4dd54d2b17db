//! Cameras whose frames stay on the GPU, on a host that has one; elsewhere each test says in a line that it is skipped.
//!
//! * `WATCHPOST_GPU_CLIP`: an H.264 clip, 8-bit 4:2:0, of a few seconds or more. Required.
//! * `WATCHPOST_GPU_FRAMES`: frames compared with software decode, 100 unless given.
//! * `WATCHPOST_GPU_HOLD_S`: seconds for which frames are held, 10 unless given.
//! * `WATCHPOST_GPU_ENGINE`, `WATCHPOST_GPU_MANIFEST`: an engine with one input and one output, and its manifest. Required.
//! * `WATCHPOST_TENSORRT`: the folder of TensorRT's libraries, if the loader does not know it.

#![allow(unsafe_code)]

extern crate watchpost;

#[path = "support/device.rs"]
mod device;
#[allow(dead_code)]
#[path = "support/gpu.rs"]
mod numbers;
mod support;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use cudarc::driver::{CudaContext, result, sys};
use support::rig::file;
use watchpost::camera::{self, Camera};
use watchpost::config::{CameraConfig, Decode, Pace};
use watchpost::engine::Manifest;
use watchpost::event::CameraStatus;
use watchpost::frame::{CameraId, CudaImage, Frame, GpuShare, Image, PixelFormat, SystemImage};
use watchpost::gpu::device::Device;
use watchpost::gpu::element::Element;
use watchpost::gpu::head::HeadPlan;
use watchpost::gpu::kernels::Kernels;
use watchpost::gpu::letterbox::{InputFormat, LaneEntry};
use watchpost::gpu::memory::DeviceBuffer;
use watchpost::gpu::motion::Looks;
use watchpost::gpu::stream::{Event, Stream};
use watchpost::gpu::trt::{Context, Engine, IoTensor, Layout, Library};
use watchpost::health::Board;
use watchpost::letterbox::{Fit, Letterbox};
use watchpost::metrics::CameraMetrics;
use watchpost::motion::{CELLS, GRID};
use watchpost::slot::{self, SlotReader};
use watchpost::yolo::head::Head;
use watchpost::yolo::{Candidates, TensorSpec};

/// Frames that a test holds.
const HELD: usize = 16;
/// Depth of a slot of a file that is read fast.
const DEPTH: usize = 4;
/// For a first frame, and for each next one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The GPU and the clip, shared by all tests of this process.
struct Host {
    gpu: Arc<CudaContext>,
    clip: PathBuf,
}

/// `None` where there is no GPU, no driver or no clip, which is said once.
fn host() -> Option<&'static Host> {
    static HOST: OnceLock<Result<Host, String>> = OnceLock::new();
    let found = HOST.get_or_init(|| {
        let clip = std::env::var_os("WATCHPOST_GPU_CLIP").ok_or("WATCHPOST_GPU_CLIP names no clip")?;
        // cudarc panics where there is no driver.
        // SAFETY: the driver's own library; it stays loaded.
        let driver = unsafe { libloading::Library::new("libcuda.so.1") }.map_err(|e| e.to_string())?;
        std::mem::forget(driver);
        let gpu = CudaContext::new(0).map_err(|e| format!("no GPU: {e}"))?;
        camera::init().map_err(|e| e.to_string())?;
        let frames = (HELD + DEPTH + 1) as u32;
        camera::use_gpu(GpuShare { context: gpu.cu_ctx() as usize, device: 0, frames });
        Ok(Host { gpu, clip: clip.into() })
    });
    found.as_ref().inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

/// The decoders to try: `cuda`, and `jetson` where its decoder is installed.
fn decoders() -> Vec<Decode> {
    let installed = |element: &str| gstreamer::ElementFactory::find(element).is_some();
    let mut found = Vec::new();
    for (element, decode) in [("nvh264dec", Decode::Cuda), ("nvv4l2decoder", Decode::Jetson)] {
        if installed(element) {
            found.push(decode);
        } else {
            eprintln!("not tried: {decode:?}, GStreamer has no {element}");
        }
    }
    assert!(!found.is_empty(), "there is a GPU, but GStreamer has no decoder for it");
    found
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no whole number")))
}

/// A camera whose slot is in the test's hands.
struct Rig {
    camera: Camera,
    reader: SlotReader,
    wake: Receiver<()>,
    metrics: CameraMetrics,
    board: Board,
}

impl Rig {
    fn start(host: &Host, name: &str, decode: Decode, pace: Pace) -> Self {
        let id = CameraId::new(name);
        let config = CameraConfig {
            id: id.clone(),
            decode,
            stall_timeout: Duration::from_secs(60),
            ..file(host.clip.clone(), pace, pace == Pace::Realtime)
        };
        let (waker, wake) = bounded(1);
        let (metrics, board) = (CameraMetrics::default(), Board::default());
        let depth = if pace == Pace::Fast { DEPTH } else { 1 };
        let (writer, reader) = slot::slot(id, metrics.clone(), depth, 5, waker);
        let camera = camera::start(config, writer, metrics.clone(), board.clone());
        Self { camera, reader, wake, metrics, board }
    }

    /// The next frame; `None` at the end of a file that is not repeated.
    fn next(&self) -> Option<Frame> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Before the slot is looked into: the last frames may come between the two.
            let finished = self.status().is_some_and(|(status, _)| status == CameraStatus::Finished);
            if let Some(frame) = self.reader.take() {
                return Some(frame);
            }
            if finished {
                return None;
            }
            assert!(Instant::now() < deadline, "no frame: {:?}", self.status());
            let _ = self.wake.recv_timeout(Duration::from_millis(100));
        }
    }

    fn frame(&self) -> Frame {
        self.next().unwrap_or_else(|| panic!("the clip is too short"))
    }

    fn status(&self) -> Option<(CameraStatus, String)> {
        self.board.snapshot().values().next().map(|posted| (posted.report.status, posted.report.reason.clone()))
    }

    fn stop(self) -> Duration {
        let begun = Instant::now();
        drop(self.camera.control);
        self.camera.thread.join().unwrap();
        begun.elapsed()
    }
}

/// A frame in device memory; a surface array of a Jetson is not what this test can read.
fn on_device(frame: &Frame) -> &CudaImage {
    match &frame.image {
        Image::Cuda(image) => image,
        other => panic!("a frame in {} where CUDA addresses were wanted", other.memory()),
    }
}

/// Rows of `width` bytes, `stride` apart, without their padding.
fn tight(bytes: &[u8], stride: usize, width: usize, rows: usize) -> Vec<u8> {
    (0..rows).flat_map(|row| &bytes[row * stride..row * stride + width]).copied().collect()
}

/// Y, U and V planes without padding, whatever lay between them.
fn planar(format: PixelFormat, size: (u32, u32), plane: impl Fn(usize, usize, usize) -> Vec<u8>) -> [Vec<u8>; 3] {
    let (width, height) = (size.0 as usize, size.1 as usize);
    let chroma = (width.div_ceil(2), height.div_ceil(2));
    let luma = plane(0, width, height);
    match format {
        PixelFormat::I420 => [luma, plane(1, chroma.0, chroma.1), plane(2, chroma.0, chroma.1)],
        PixelFormat::Nv12 => {
            let both = plane(1, 2 * chroma.0, chroma.1);
            let every_second = |first: usize| both[first..].iter().step_by(2).copied().collect();
            [luma, every_second(0), every_second(1)]
        }
    }
}

fn in_host_memory(image: &SystemImage) -> [Vec<u8>; 3] {
    planar(image.format, (image.width, image.height), |index, width, rows| {
        tight(image.planes.plane(index), image.strides[index], width, rows)
    })
}

fn downloaded(host: &Host, image: &CudaImage) -> [Vec<u8>; 3] {
    host.gpu.bind_to_thread().unwrap();
    // SAFETY: the frame's loan keeps its decoder's stream alive; stream 0 is the device's own.
    unsafe { result::stream::synchronize(image.stream as sys::CUstream) }.unwrap();
    planar(image.format, (image.width, image.height), |index, width, rows| {
        let stride = image.strides[index];
        let mut bytes = vec![0u8; stride * (rows - 1) + width];
        // SAFETY: the frame's loan keeps at least this much mapped at the plane's address.
        unsafe { result::memcpy_dtoh_sync(&mut bytes, image.planes[index]) }.unwrap();
        tight(&bytes, stride, width, rows)
    })
}

/// First difference of two planes as `(x, y)`, and how many bytes differ.
fn difference(a: &[u8], b: &[u8], width: usize) -> Option<((usize, usize), usize)> {
    let differs = || a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at);
    differs().next().map(|at| ((at % width, at / width), differs().count()))
}

#[test]
fn gpu_frames_are_bit_equal_to_software_decode() {
    let Some(host) = host() else { return };
    let wanted = number("WATCHPOST_GPU_FRAMES", 100);
    for decode in decoders() {
        let software = Rig::start(host, "software", Decode::Software, Pace::Fast);
        let gpu = Rig::start(host, "gpu", decode, Pace::Fast);
        let mut compared = 0;
        while compared < wanted {
            let (here, there) = match (software.next(), gpu.next()) {
                (Some(here), Some(there)) => (here, there),
                (None, None) => break,
                (here, _) => {
                    panic!("{decode:?}: after {compared} frames only software goes on: {}", here.is_some())
                }
            };
            let Image::System(of_host) = &here.image else { panic!("software decode not in host memory") };
            let of_gpu = on_device(&there);
            assert_eq!(here.info.size, there.info.size);
            assert_eq!((of_host.width, of_host.height), (of_gpu.width, of_gpu.height));
            assert_eq!(of_host.colour, of_gpu.colour, "{decode:?}");
            let (Some(a), Some(b)) = (here.info.pts_ns, there.info.pts_ns) else { panic!("a frame without PTS") };
            assert!(a.abs_diff(b) <= 2_000_000, "{decode:?}: frame {compared}: PTS {a} and {b} ns");
            let width = of_host.width as usize;
            let widths = [width, width.div_ceil(2), width.div_ceil(2)];
            let (a, b) = (in_host_memory(of_host), downloaded(host, of_gpu));
            for plane in 0..3 {
                assert_eq!(a[plane].len(), b[plane].len());
                let found = difference(&a[plane], &b[plane], widths[plane]);
                assert_eq!(found, None, "{decode:?}: frame {compared}, plane {plane}: first difference, bytes");
            }
            compared += 1;
        }
        assert!(compared > 0);
        eprintln!("{decode:?}: {compared} frames bit-equal to software decode");
        software.stop();
        gpu.stop();
    }
}

/// Mean luma of each cell, of all its pixels.
fn cells(image: &SystemImage) -> Vec<u8> {
    let (luma, stride) = (image.planes.plane(0), image.strides[0]);
    let range = |at: usize, cells: usize, length: u32| {
        let from = at * length as usize / cells;
        from..((at + 1) * length as usize / cells).max(from + 1)
    };
    let mean = |cell: usize| {
        let columns = range(cell % GRID.0, GRID.0, image.width);
        let rows = range(cell / GRID.0, GRID.1, image.height);
        let pixels = columns.len() * rows.len();
        let sum: usize =
            rows.flat_map(|y| &luma[y * stride..][columns.clone()]).map(|luma| usize::from(*luma)).sum();
        ((sum + pixels / 2) / pixels) as u8
    };
    (0..CELLS).map(mean).collect()
}

#[test]
fn the_motion_gate_sees_on_the_gpu_what_was_decoded() {
    let Some(host) = host() else { return };
    let device = Device::open(0).unwrap();
    let kernels = Kernels::load(&device, None).unwrap();
    let mut looks = Looks::new(&device, 1).unwrap();
    for decode in decoders() {
        let software = Rig::start(host, "software", Decode::Software, Pace::Fast);
        let gpu = Rig::start(host, "gpu", decode, Pace::Fast);
        for number in 0..25 {
            let (here, there) = (software.frame(), gpu.frame());
            let (Image::System(of_host), of_gpu) = (&here.image, on_device(&there)) else {
                panic!("software decode not in host memory")
            };
            let letterbox = Letterbox::new(there.info.size, (64, 64), Fit::Centre);
            let CudaImage { planes, strides, format, colour, .. } = *of_gpu;
            let entry = LaneEntry::new(planes, strides, format, colour, &letterbox, 0);
            let (done, told) = bounded(1);
            looks.follow(&there.image).unwrap();
            looks.launch(&kernels, &[entry], Box::new(move || done.send(()).unwrap())).unwrap();
            told.recv_timeout(PATIENCE).unwrap();
            assert!(looks.is_done().unwrap());
            assert_eq!(looks.cells(0), cells(of_host), "{decode:?}: frame {number}");
        }
        software.stop();
        gpu.stop();
    }
}

/// An engine with one input and one output, and what its kernels need.
struct Net {
    stream: Stream,
    kernels: Kernels,
    context: Context,
    manifest: Manifest,
    format: InputFormat,
    lanes: usize,
    picture: DeviceBuffer,
    output: DeviceBuffer,
    element: Element,
    head: Head,
    specs: Vec<TensorSpec>,
    plan: HeadPlan,
}

impl Net {
    fn open(device: &Device) -> Option<Self> {
        let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let Some((engine, manifest)) = given("WATCHPOST_GPU_ENGINE").zip(given("WATCHPOST_GPU_MANIFEST")) else {
            eprintln!("skipped: WATCHPOST_GPU_ENGINE and WATCHPOST_GPU_MANIFEST name no engine");
            return None;
        };
        let manifest = Manifest::load(&manifest).unwrap();
        let library = Library::open(given("WATCHPOST_TENSORRT").as_deref()).unwrap();
        let engine = Engine::load(&library, &std::fs::read(engine).unwrap(), None).unwrap();
        let (inputs, outputs): (Vec<IoTensor>, Vec<IoTensor>) = engine.tensors().into_iter().partition(|t| t.input);
        let ([input], [read]) = (&inputs[..], &outputs[..]) else { panic!("{inputs:?} {outputs:?}") };
        let known: Vec<usize> = input.shape.iter().map(|side| side.unwrap()).collect();
        let size = (known[3] as u32, known[2] as u32);
        let (half, packed) = (input.element == Element::F16, input.layout == Layout::Packed);
        let format = InputFormat { spec: manifest.input.clone(), size, half, packed };
        let spec = |t: &IoTensor| TensorSpec { name: t.name.clone(), shape: t.shape.clone(), integer: false };
        let (specs, choice) = (vec![spec(read)], manifest.output.head);
        let labels = manifest.labels.len();
        let head = Head::resolve(choice, manifest.output.logits, &[spec(input)], &specs, size, labels).unwrap();
        let plan = HeadPlan::new(&head, &specs, &[read.element], manifest.thresholds.confidence).unwrap();
        let elements: usize = read.shape.iter().flatten().product();
        let picture = DeviceBuffer::new(device, format.bytes(known[0])).unwrap();
        let output = DeviceBuffer::new(device, elements * read.element.bytes()).unwrap();
        let mut context = Context::new(&engine).unwrap();
        context.set_address(&input.name, picture.address()).unwrap();
        context.set_address(&read.name, output.address()).unwrap();
        let (stream, kernels) = (Stream::new(device).unwrap(), Kernels::load(device, None).unwrap());
        let (lanes, element) = (known[0], read.element);
        Some(Self {
            stream,
            kernels,
            context,
            manifest,
            format,
            lanes,
            picture,
            output,
            element,
            head,
            specs,
            plan,
        })
    }

    /// The numbers in a buffer.
    fn numbers(&self, buffer: &DeviceBuffer, element: Element) -> Vec<f32> {
        let host = device::download(&self.stream, buffer);
        match element {
            Element::F16 => {
                host.slice::<u16>(0, buffer.len() / 2).iter().map(|bits| numbers::widen(*bits)).collect()
            }
            _ => host.slice::<f32>(0, buffer.len() / 4).to_vec(),
        }
    }

    /// A batch of the decoder's frames, and of the same as the CPU decodes them; candidates of all lanes.
    fn check(&mut self, frames: &[(Frame, Frame)]) -> usize {
        let fitted = |frame: &Frame| Letterbox::new(frame.info.size, self.format.size, self.format.spec.fit);
        let letterboxes: Vec<Letterbox> = frames.iter().map(|(_, gpu)| fitted(gpu)).collect();
        let entry = |((_, gpu), letterbox): (&(Frame, Frame), &Letterbox)| {
            let CudaImage { planes, strides, format, colour, .. } = *on_device(gpu);
            LaneEntry::new(planes, strides, format, colour, letterbox, 0)
        };
        let mut entries: Vec<LaneEntry> = frames.iter().zip(&letterboxes).map(entry).collect();
        entries.resize_with(self.lanes, LaneEntry::unused);
        let table = device::upload(&self.stream, &entries);
        let decoded = Event::timeless(self.stream.device()).unwrap();
        for (_, gpu) in frames {
            self.stream.follow(&gpu.image, &decoded).unwrap();
        }
        self.kernels.letterbox(&self.stream, &table, self.lanes, &self.format, &self.picture).unwrap();
        self.context.enqueue(self.stream.raw()).unwrap();
        let found = DeviceBuffer::new(self.stream.device(), self.plan.found_bytes(self.lanes)).unwrap();
        let overflow = DeviceBuffer::new(self.stream.device(), self.plan.overflow_bytes(self.lanes)).unwrap();
        let (stream, outputs) = (&self.stream, [&self.output]);
        self.kernels.decode(stream, &self.plan, &table, self.lanes, &outputs, &found, &overflow).unwrap();
        let drawn = self.numbers(&self.picture, if self.format.half { Element::F16 } else { Element::F32 });
        let found = device::download(&self.stream, &found);
        let case = numbers::Case {
            lanes: self.lanes,
            letterboxes: letterboxes.iter().copied().map(Some).collect(),
            head: self.head.clone(),
            specs: self.specs.clone(),
            outputs: vec![numbers::Numbers::F32(self.numbers(&self.output, self.element))],
            confidence: self.manifest.thresholds.confidence,
        };
        let mut boxes = 0;
        for (lane, ((software, _), letterbox)) in frames.iter().zip(&letterboxes).enumerate() {
            let Image::System(image) = &software.image else { panic!("software decode not in host memory") };
            let expected = numbers::drawn(image, letterbox, &self.format, &[]);
            let values = drawn.len() / self.lanes;
            let drawn = numbers::by_planes(&drawn[lane * values..][..values], &self.format);
            device::assert_drawn(&drawn, &self.format, &expected, &format!("lane {lane}"));
            assert_eq!(self.plan.overflowed(&found, self.lanes, lane), 0, "the threshold is too low");
            let mut got = Candidates::default();
            self.plan.read(&found, None, self.lanes, lane, usize::MAX, &mut got).unwrap();
            numbers::assert_same(&got, &case.expected(lane, usize::MAX).unwrap(), 1e-3, &format!("lane {lane}"));
            boxes += got.boxes.len();
        }
        boxes
    }
}

#[test]
fn decoded_frames_are_drawn_and_what_a_model_makes_of_them_is_read_as_on_the_host() {
    let Some(host) = host() else { return };
    let Some(mut net) = Net::open(&Device::open(0).unwrap()) else { return };
    for decode in decoders() {
        let software = Rig::start(host, "software", Decode::Software, Pace::Fast);
        let gpu = Rig::start(host, "gpu", decode, Pace::Fast);
        // No more frames at once than a decoder has for its camera.
        let batches = 100 / HELD;
        let lanes = net.lanes.min(HELD);
        let mut boxes = 0;
        for _ in 0..batches {
            let frames: Vec<_> = (0..lanes).map(|_| (software.frame(), gpu.frame())).collect();
            boxes += net.check(&frames);
        }
        assert!(boxes > 0, "the model finds nothing");
        eprintln!("{decode:?}: {batches} batches of {lanes} frames drawn, {boxes} boxes read");
        software.stop();
        gpu.stop();
    }
}

#[test]
fn a_gpu_decoder_goes_on_after_every_frame_was_held() {
    let Some(host) = host() else { return };
    let hold = Duration::from_secs(number("WATCHPOST_GPU_HOLD_S", 10));
    for decode in decoders() {
        let rig = Rig::start(host, "held", decode, Pace::Realtime);
        let held: Vec<Frame> = (0..HELD).map(|_| rig.frame()).collect();
        let before: Vec<_> = held.iter().map(|frame| downloaded(host, on_device(frame))).collect();
        let (decoded, until) = (rig.metrics.decoded.get(), Instant::now() + hold);
        while Instant::now() < until {
            // What else comes is overwritten in the slot.
            let _ = rig.wake.recv_deadline(until);
        }
        let meanwhile = rig.metrics.decoded.get() - decoded;
        eprintln!("{decode:?}: {meanwhile} frames decoded in {hold:?} while {HELD} were held");
        assert!(decode != Decode::Cuda || meanwhile > 0, "the decoder stood still: {:?}", rig.status());
        let same = held.iter().zip(&before).all(|(frame, planes)| downloaded(host, on_device(frame)) == *planes);
        assert!(same, "{decode:?}: a frame on loan was written to");
        let last = rig.metrics.decoded.get();
        drop(held);
        let until = Instant::now() + PATIENCE;
        while rig.metrics.decoded.get() < last + 20 {
            assert!(Instant::now() < until, "{decode:?}: decoding does not resume: {:?}", rig.status());
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = rig.stop();
        assert!(took < Duration::from_secs(5), "{decode:?}: stopped in {took:?}");
    }
}

#[test]
fn a_frame_outlives_its_camera() {
    let Some(host) = host() else { return };
    for decode in decoders() {
        let rig = Rig::start(host, "gone", decode, Pace::Fast);
        let frame = rig.frame();
        let before = downloaded(host, on_device(&frame));
        rig.stop();
        assert!(downloaded(host, on_device(&frame)) == before, "{decode:?}: changed after its camera ended");
    }
}

#[test]
fn cuda_cameras_share_the_engines_context() {
    let Some(host) = host() else { return };
    if !decoders().contains(&Decode::Cuda) {
        return;
    }
    let rigs = ["left", "right"].map(|name| Rig::start(host, name, Decode::Cuda, Pace::Realtime));
    let frames = rigs.each_ref().map(Rig::frame);
    host.gpu.bind_to_thread().unwrap();
    for frame in &frames {
        let mut context: sys::CUcontext = std::ptr::null_mut();
        let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_CONTEXT;
        // SAFETY: the attribute is a context, for which there is room; the address is a live frame's.
        let asked =
            unsafe { sys::cuPointerGetAttribute((&raw mut context).cast(), attribute, on_device(frame).planes[0]) };
        assert_eq!(asked, sys::CUresult::CUDA_SUCCESS);
        assert_eq!(context, host.gpu.cu_ctx(), "a decoder made a context of its own");
    }
    assert_ne!(on_device(&frames[0]).planes[0], on_device(&frames[1]).planes[0]);
    drop(frames);
    for rig in rigs {
        rig.stop();
    }
}
