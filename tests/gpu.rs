//! The kernels, streams and graphs on a real GPU, against what the CPU computes. Without one, each test says so and is
//! skipped. Needs no file but the driver and NVRTC: the binary can be copied to a machine with a GPU.

extern crate watchpost;

#[path = "support/device.rs"]
mod device;
#[path = "support/gpu.rs"]
mod support;

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use watchpost::frame::{Colour, PixelFormat, SystemImage};
use watchpost::gpu::device::Device;
use watchpost::gpu::element::Element;
use watchpost::gpu::error::GpuError;
use watchpost::gpu::head::{GpuBox, HeadPlan};
use watchpost::gpu::kernels::Kernels;
use watchpost::gpu::letterbox::{InputFormat, LaneEntry, mask_bits};
use watchpost::gpu::memory::{DeviceBuffer, Pinned};
use watchpost::gpu::nvjpeg::Encoder;
use watchpost::gpu::stream::{Event, Stream};
use watchpost::gpu::thumbnail::{Room, Wanted};
use watchpost::letterbox::Letterbox;
use watchpost::mask::Span;
use watchpost::motion::{CELLS, GRID};
use watchpost::thumbnail::{self, Shrink};
use watchpost::yolo::Candidates;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use support::{Case, assert_same, by_planes, cases, drawn, input, noise, spans, unlabelled, widen};

/// How far a kernel's scores and corners may be from the host's.
const DECODE_WITHIN: f32 = 1e-3;
/// Longest wait for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// One test at a time: they measure time and free memory.
static TURN: Mutex<()> = Mutex::new(());

struct Gpu {
    device: Device,
    stream: Stream,
    kernels: Kernels,
    _turn: MutexGuard<'static, ()>,
}

impl Gpu {
    /// `None`, said aloud, where there is no GPU; a GPU without NVRTC is a failure.
    fn open() -> Option<Self> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let device = match Device::open(0) {
            Ok(device) => device,
            Err(GpuError::Unavailable(why)) => {
                println!("skipped: {why}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let kernels = Kernels::load(&device, None).unwrap();
        let stream = Stream::new(&device).unwrap();
        Some(Self { device, stream, kernels, _turn })
    }

    fn buffer(&self, bytes: usize) -> DeviceBuffer {
        DeviceBuffer::new(&self.device, bytes).unwrap()
    }

    fn upload(&self, bytes: &[u8]) -> DeviceBuffer {
        device::upload(&self.stream, bytes)
    }

    fn table(&self, entries: &[LaneEntry]) -> DeviceBuffer {
        device::upload(&self.stream, entries)
    }

    fn download(&self, buffer: &DeviceBuffer) -> Pinned {
        device::download(&self.stream, buffer)
    }

    /// Puts a frame into device memory.
    fn frame(&self, image: SystemImage) -> OnDevice {
        let planes = [0, 1, 2].map(|plane| self.upload(image.planes.plane(plane)));
        OnDevice { planes, image }
    }

    /// Milliseconds of one of `rounds` calls, each of which puts the same work on the stream.
    fn time(&self, rounds: u32, work: impl Fn()) -> f32 {
        let (start, end) = (Event::new(&self.device).unwrap(), Event::new(&self.device).unwrap());
        (0..10).for_each(|_| work());
        start.record(&self.stream).unwrap();
        (0..rounds).for_each(|_| work());
        end.record(&self.stream).unwrap();
        self.stream.synchronize().unwrap();
        end.ms_since(&start).unwrap() / rounds as f32
    }
}

/// A frame in device memory, and the same on the host.
struct OnDevice {
    planes: [DeviceBuffer; 3],
    image: SystemImage,
}

impl OnDevice {
    fn entry(&self, letterbox: &Letterbox, mask: u64) -> LaneEntry {
        let addresses = [0, 1, 2].map(|plane: usize| self.planes[plane].address());
        LaneEntry::new(addresses, self.image.strides, self.image.format, self.image.colour, letterbox, mask)
    }
}

/// Asserts that lane `lane` of a tensor is what the host draws, within a grey level.
fn assert_drawn(tensor: &Pinned, lane: usize, format: &InputFormat, expected: &[f32], said: &str) {
    let count = format.bytes(1) / if format.half { 2 } else { 4 };
    let got: Vec<f32> = if format.half {
        tensor.slice::<u16>(lane * count * 2, count).iter().map(|bits| widen(*bits)).collect()
    } else {
        tensor.slice::<f32>(lane * count * 4, count).to_vec()
    };
    device::assert_drawn(&by_planes(&got, format), format, expected, said);
}

/// A batch of four lanes, the third of them unused.
fn check_letterbox(gpu: &Gpu, images: Vec<SystemImage>, format: &InputFormat, spans: &[Span]) {
    let bits: Vec<u8> = mask_bits(spans, format.size).iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mask = gpu.upload(&bits);
    let address = if spans.is_empty() { 0 } else { mask.address() };
    let frames: Vec<OnDevice> = images.into_iter().map(|image| gpu.frame(image)).collect();
    let letterboxes: Vec<Letterbox> = frames
        .iter()
        .map(|frame| Letterbox::new((frame.image.width, frame.image.height), format.size, format.spec.fit))
        .collect();
    let mut entries: Vec<LaneEntry> = frames.iter().zip(&letterboxes).map(|(f, l)| f.entry(l, address)).collect();
    entries.insert(2, LaneEntry::unused());
    let out = gpu.buffer(format.bytes(entries.len()));
    let draw = |entries: &[LaneEntry]| {
        gpu.kernels.letterbox(&gpu.stream, &gpu.table(entries), entries.len(), format, &out).unwrap();
    };
    // What comes second finds its padding there, or redraws it: the first two lanes' were others.
    let mut others = entries.clone();
    others.swap(0, 1);
    draw(&others);
    draw(&entries.iter().zip(&others).map(|(entry, before)| entry.after(before)).collect::<Vec<_>>());
    let out = gpu.download(&out);
    let lane_bytes = format.bytes(1);
    assert!(
        out.bytes()[2 * lane_bytes..3 * lane_bytes].iter().all(|byte| *byte == 0),
        "unused lanes are left alone"
    );
    for (number, (frame, letterbox)) in frames.iter().zip(&letterboxes).enumerate() {
        let expected = drawn(&frame.image, letterbox, format, spans);
        let lane = number + usize::from(number >= 2);
        assert_drawn(&out, lane, format, &expected, &format!("{letterbox:?} {format:?}"));
    }
}

#[test]
fn letterbox_is_within_a_grey_level_of_the_host() {
    let Some(gpu) = Gpu::open() else { return };
    let mut rng = fastrand::Rng::with_seed(21);
    let formats = [PixelFormat::Nv12, PixelFormat::I420];
    for _ in 0..60 {
        let mut side = |most: u32| if rng.u8(..8) == 0 { 1 + rng.u32(..3) } else { 1 + rng.u32(..most) };
        let (size, sources) = ((side(400), side(300)), [0; 3].map(|_: i32| (side(700), side(500))));
        let images = sources.map(|source| {
            let format = formats[rng.usize(..2)];
            noise(&mut rng, source, format)
        });
        let (format, spans) = (input(&mut rng, size), spans(&mut rng, size));
        check_letterbox(&gpu, images.into(), &format, &spans);
    }
    for (source, size) in [((1920, 1080), (640, 640)), ((704, 576), (768, 768)), ((3840, 2160), (416, 416))] {
        let images = formats.map(|format| noise(&mut rng, source, format));
        let (format, spans) = (input(&mut rng, size), spans(&mut rng, size));
        check_letterbox(&gpu, images.into(), &format, &spans);
    }
}

#[test]
fn luma_cells_are_means_of_the_source() {
    let Some(gpu) = Gpu::open() else { return };
    let mut rng = fastrand::Rng::with_seed(22);
    for size in [(1920, 1080), (63, 37), (1, 1)] {
        let frame = gpu.frame(noise(&mut rng, size, PixelFormat::Nv12));
        let letterbox = Letterbox::new(size, (64, 64), watchpost::letterbox::Fit::Centre);
        let table = gpu.table(&[LaneEntry::unused(), frame.entry(&letterbox, 0)]);
        let out = gpu.buffer(2 * CELLS);
        gpu.kernels.luma_cells(&gpu.stream, &table, 2, &out).unwrap();
        let out = gpu.download(&out);
        for cell in 0..CELLS {
            let range = |at: usize, cells: usize, length: u32| {
                let from = at * length as usize / cells;
                from..((at + 1) * length as usize / cells).max(from + 1)
            };
            let (columns, rows) = (range(cell % GRID.0, GRID.0, size.0), range(cell / GRID.0, GRID.1, size.1));
            let pixels = columns.len() * rows.len();
            let row = |y: usize| &frame.image.planes.plane(0)[y * frame.image.strides[0]..][columns.clone()];
            let sum: usize = rows.flat_map(row).map(|luma| usize::from(*luma)).sum();
            assert_eq!(
                usize::from(out.bytes()[CELLS + cell]),
                (sum + pixels / 2) / pixels,
                "cell {cell} of {size:?}"
            );
        }
    }
}

/// Of a batch of four, the second of which is to have none.
#[test]
fn thumbnails_are_those_of_the_host() {
    let Some(gpu) = Gpu::open() else { return };
    let (mut rng, mut shrink) = (fastrand::Rng::with_seed(27), Shrink::default());
    let mut room = Room::new(&gpu.device, 4).unwrap();
    let batches = [
        [(1920, 1080), (64, 64), (704, 576), (1283, 721)],
        [(3840, 2160), (64, 64), (641, 3), (1, 1)],
        [(640, 640), (64, 64), (320, 241), (1999, 1999)],
    ];
    for sizes in batches {
        let formats = [PixelFormat::Nv12, PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Nv12];
        let frames: Vec<OnDevice> =
            std::iter::zip(sizes, formats).map(|(size, format)| gpu.frame(noise(&mut rng, size, format))).collect();
        let fitted = |size| Letterbox::new(size, (64, 64), watchpost::letterbox::Fit::Centre);
        let entries: Vec<LaneEntry> =
            std::iter::zip(&frames, sizes).map(|(frame, size)| frame.entry(&fitted(size), 0)).collect();
        let table = gpu.table(&entries);
        let wanted = [0, 2, 3].map(|lane| Wanted::new(lane, sizes[lane]));
        room.start(&gpu.kernels, &gpu.stream, &table, wanted.into_iter()).unwrap();
        gpu.stream.synchronize().unwrap();
        assert!(room.get(1).is_none() && room.get(4).is_none());
        for lane in [0, 2, 3] {
            let (size, pixels) = room.get(lane).unwrap();
            let mut expected = Vec::new();
            shrink.shrink(&frames[lane].image, size, &mut expected);
            assert_eq!((size, pixels.len()), (thumbnail::size_of(sizes[lane]), expected.len()));
            let differs = pixels.iter().zip(&expected).position(|(got, expected)| got.abs_diff(*expected) > 1);
            assert_eq!(differs, None, "{:?} of {size:?}", sizes[lane]);
        }
    }
    let none = room.start(&gpu.kernels, &gpu.stream, &gpu.table(&[LaneEntry::unused()]), std::iter::empty());
    assert!(none.is_ok() && room.get(0).is_none(), "those of the batch before are gone");
    let more = (0..5).map(|lane| Wanted::new(lane, (640, 640)));
    let refused = room.start(&gpu.kernels, &gpu.stream, &gpu.table(&[LaneEntry::unused(); 5]), more);
    assert!(matches!(refused, Err(GpuError::Config(_))), "{refused:?}");
}

/// The buffers of a case.
struct Decoding {
    plan: HeadPlan,
    table: DeviceBuffer,
    outputs: Vec<DeviceBuffer>,
    found: DeviceBuffer,
    overflow: DeviceBuffer,
}

impl Decoding {
    fn new(gpu: &Gpu, case: &Case) -> Self {
        let plan = HeadPlan::new(&case.head, &case.specs, &case.elements(), case.confidence).unwrap();
        let (found, overflow) = (plan.found_bytes(case.lanes), plan.overflow_bytes(case.lanes));
        Self {
            table: gpu.table(&case.table()),
            outputs: case.outputs.iter().map(|output| gpu.upload(&output.bytes())).collect(),
            found: gpu.buffer(found),
            overflow: gpu.buffer(overflow),
            plan,
        }
    }

    fn start(&self, gpu: &Gpu, lanes: usize) -> Result<(), GpuError> {
        let outputs: Vec<&DeviceBuffer> = self.outputs.iter().collect();
        gpu.kernels.decode(&gpu.stream, &self.plan, &self.table, lanes, &outputs, &self.found, &self.overflow)
    }

    /// A lane's candidates, with what of them lies in the overflow fetched for it.
    fn read(
        &self,
        gpu: &Gpu,
        found: &Pinned,
        lanes: usize,
        lane: usize,
        limit: usize,
    ) -> Result<Candidates, GpuError> {
        let more = self.plan.overflowed(found, lanes, lane) * size_of::<GpuBox>();
        let mut overflow = Pinned::new(&gpu.device, more)?;
        let offset = lane * self.plan.overflow_bytes(1);
        gpu.stream.download(&self.overflow, offset, &mut overflow, 0, more)?;
        gpu.stream.synchronize()?;
        let mut out = Candidates::default();
        self.plan.read(found, Some(&overflow), lanes, lane, limit, &mut out).map(|()| out)
    }
}

#[test]
fn every_layout_in_every_type_reads_as_on_the_host() {
    let Some(gpu) = Gpu::open() else { return };
    let mut rng = fastrand::Rng::with_seed(23);
    let (mut boxes, mut overflowed) = (0, 0);
    for (number, case) in cases(&mut rng).iter().enumerate() {
        let decoding = Decoding::new(&gpu, case);
        decoding.start(&gpu, case.lanes).unwrap();
        let found = gpu.download(&decoding.found);
        for lane in 0..case.lanes {
            for limit in [usize::MAX, 10] {
                let said = format!("case {number} ({}) lane {lane} limit {limit}", case.head.kind());
                let got = decoding.read(&gpu, &found, case.lanes, lane, limit).unwrap();
                if limit == usize::MAX {
                    assert_same(&got, &case.expected(lane, limit).unwrap(), DECODE_WITHIN, &said);
                }
                assert!(got.boxes.len() <= limit, "{said}");
                boxes += got.boxes.len();
            }
            overflowed += decoding.plan.overflowed(&found, case.lanes, lane);
        }
    }
    println!("{boxes} boxes, {overflowed} of them in the overflow");
    assert!(boxes > 10_000 && overflowed > 1000, "the noise is too quiet: {boxes} {overflowed}");
}

#[test]
fn a_class_without_a_label_is_an_error_in_words() {
    let Some(gpu) = Gpu::open() else { return };
    for case in [Element::I32, Element::I64, Element::F32].into_iter().flat_map(unlabelled) {
        let decoding = Decoding::new(&gpu, &case);
        decoding.start(&gpu, case.lanes).unwrap();
        let found = gpu.download(&decoding.found);
        for lane in (0..case.lanes).filter(|lane| case.letterboxes[*lane].is_some()) {
            match (decoding.read(&gpu, &found, case.lanes, lane, 300), case.expected(lane, 300)) {
                (Ok(got), Ok(expected)) => assert_same(&got, &expected, DECODE_WITHIN, "labelled"),
                (Err(GpuError::Config(text)), Err(_)) => assert!(text.contains("labels"), "{text}"),
                (got, expected) => panic!("{got:?} {expected:?}"),
            }
        }
    }
}

#[test]
fn a_graph_repeats_its_work_on_what_the_buffers_hold_then() {
    let Some(gpu) = Gpu::open() else { return };
    let mut rng = fastrand::Rng::with_seed(24);
    let case = cases(&mut rng).into_iter().find(|case| case.head.kind().name() == "yolov8").unwrap();
    let decoding = Decoding::new(&gpu, &case);
    let format = InputFormat { half: true, packed: true, ..input(&mut rng, (320, 256)) };
    let out = gpu.buffer(format.bytes(1));
    let mut entries = Pinned::new(&gpu.device, size_of::<LaneEntry>()).unwrap();
    let table = gpu.buffer(entries.bytes().len());
    let mut found = Pinned::new(&gpu.device, decoding.found.len()).unwrap();
    let graph = gpu.stream.capture(|| {
        gpu.stream.upload(&entries, 0, &table, 0, table.len())?;
        gpu.kernels.letterbox(&gpu.stream, &table, 1, &format, &out)?;
        decoding.start(&gpu, case.lanes)?;
        gpu.stream.download(&decoding.found, 0, &mut found, 0, decoding.found.len())
    });
    let graph = graph.unwrap();
    for _ in 0..5 {
        let size = (rng.u32(100..900), rng.u32(100..900));
        let frame = gpu.frame(noise(&mut rng, size, PixelFormat::Nv12));
        let letterbox = Letterbox::new((frame.image.width, frame.image.height), format.size, format.spec.fit);
        entries.slice_mut::<LaneEntry>(0, 1)[0] = frame.entry(&letterbox, 0);
        found.bytes_mut().fill(0xFF);
        graph.launch(&gpu.stream).unwrap();
        gpu.stream.synchronize().unwrap();
        assert_drawn(&gpu.download(&out), 0, &format, &drawn(&frame.image, &letterbox, &format, &[]), "replayed");
        for lane in 0..case.lanes {
            let got = decoding.read(&gpu, &found, case.lanes, lane, usize::MAX).unwrap();
            assert_same(&got, &case.expected(lane, usize::MAX).unwrap(), DECODE_WITHIN, "replayed");
        }
    }
}

#[test]
fn a_capture_that_fails_leaves_the_stream_usable() {
    let Some(gpu) = Gpu::open() else { return };
    let refused = gpu.stream.capture(|| Err(GpuError::Config("no".into())));
    assert_eq!(refused.err(), Some(GpuError::Config("no".into())));
    let noticed = gpu.stream.capture(|| gpu.stream.notify(Box::new(|| ())));
    assert!(matches!(noticed.err(), Some(GpuError::Failed(_))), "a graph would call it twice");
    let buffer = gpu.upload(&[1, 2, 3]);
    assert_eq!(gpu.download(&buffer).bytes(), [1, 2, 3]);
}

#[test]
fn a_notice_comes_after_the_work_before_it() {
    let Some(gpu) = Gpu::open() else { return };
    let (sender, receiver) = crossbeam::channel::bounded(1);
    let bytes = 64 << 20;
    let (from, mut to) = (gpu.upload(&vec![7; bytes]), Pinned::new(&gpu.device, bytes).unwrap());
    let copied = Event::new(&gpu.device).unwrap();
    gpu.stream.download(&from, 0, &mut to, 0, bytes).unwrap();
    copied.record(&gpu.stream).unwrap();
    gpu.stream.notify(Box::new(move || sender.try_send(()).unwrap())).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
    assert!(copied.done().unwrap());
    assert!(to.bytes().iter().all(|byte| *byte == 7));
}

#[test]
fn copies_stay_within_their_buffers() {
    let Some(gpu) = Gpu::open() else { return };
    let (buffer, mut host) = (gpu.buffer(100), Pinned::new(&gpu.device, 50).unwrap());
    host.bytes_mut().iter_mut().zip(1..).for_each(|(byte, value)| *byte = value);
    gpu.stream.upload(&host, 10, &buffer, 60, 40).unwrap();
    let all = gpu.download(&buffer);
    assert_eq!(all.bytes()[..60], [0; 60], "new memory is clear");
    assert_eq!(all.bytes()[60..], host.bytes()[10..]);
    gpu.stream.clear(&buffer, 90, 10).unwrap();
    assert_eq!(gpu.download(&buffer).bytes()[89..], [40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (from, to, bytes) in [(0, 0, 51), (0, 61, 40), (50, 0, 1), (usize::MAX, 0, 2)] {
        let up = gpu.stream.upload(&host, from, &buffer, to, bytes);
        let down = gpu.stream.download(&buffer, to, &mut host, from, bytes);
        assert!(matches!((up, down), (Err(GpuError::Config(_)), Err(GpuError::Config(_)))), "{from} {to} {bytes}");
    }
    let format = input(&mut fastrand::Rng::with_seed(1), (32, 32));
    let small = gpu.kernels.letterbox(&gpu.stream, &buffer, 1, &format, &buffer);
    assert!(matches!(small, Err(GpuError::Config(_))), "{small:?}");
}

#[test]
fn a_gpu_that_is_not_there_is_a_sentence() {
    let Some(_gpu) = Gpu::open() else { return };
    let error = Device::open(99).unwrap_err();
    assert!(matches!(error, GpuError::Unavailable(_)) && error.to_string().contains("GPU 99"), "{error}");
}

#[test]
fn kernels_come_from_the_cache_the_second_time_and_broken_files_do_not() {
    let Some(gpu) = Gpu::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let load = || Kernels::load(&gpu.device, Some(folder.path())).unwrap().cached();
    assert_eq!([load(), load()], [false, true]);
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&file, bytes).unwrap();
    assert_eq!([load(), load()], [false, true], "written anew");
    let nowhere = Kernels::load(&gpu.device, Some(std::path::Path::new("/proc/nowhere"))).unwrap();
    assert!(!nowhere.cached(), "a folder that cannot be written is lived without");
}

#[test]
fn memory_stays_flat_over_a_thousand_rounds() {
    let Some(gpu) = Gpu::open() else { return };
    let mut rng = fastrand::Rng::with_seed(25);
    let case = cases(&mut rng).swap_remove(0);
    let round = || {
        let decoding = Decoding::new(&gpu, &case);
        let (stream, event) = (Stream::new(&gpu.device).unwrap(), Event::new(&gpu.device).unwrap());
        let graph = gpu.stream.capture(|| decoding.start(&gpu, case.lanes)).unwrap();
        graph.launch(&stream).unwrap();
        event.record(&stream).unwrap();
        stream.notify(Box::new(|| ())).unwrap();
        stream.synchronize().unwrap();
    };
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    // What the driver keeps for later is there after a while.
    (0..100).for_each(|_| round());
    let (free, rss) = (gpu.device.memory().unwrap().0, resident());
    (0..1000).for_each(|_| round());
    let (lost, grown) = (free.saturating_sub(gpu.device.memory().unwrap().0), resident().saturating_sub(rss));
    println!("after 1000 rounds: {lost} bytes less on the GPU, {grown} bytes more resident");
    assert!(lost <= 2 << 20 && grown <= 8 << 20, "{lost} {grown}");
}

#[test]
fn timing() {
    let Some(gpu) = Gpu::open() else { return };
    let mut rng = fastrand::Rng::with_seed(26);
    let colour = Colour { bt709: true, full_range: false };
    let frames: Vec<OnDevice> = (0..16)
        .map(|_| {
            let planes = [(1920 * 1080, 1920), (1920 * 540, 1920), (0, 0)];
            let bytes = planes.map(|(bytes, _)| (0..bytes).map(|_| rng.u8(..)).collect());
            let planes = Box::new(watchpost::frame::OwnedPlanes(bytes));
            let (format, strides) = (PixelFormat::Nv12, [1920, 1920, 0]);
            gpu.frame(SystemImage { format, width: 1920, height: 1080, strides, colour, planes })
        })
        .collect();
    let letterbox = Letterbox::new((1920, 1080), (640, 640), watchpost::letterbox::Fit::Centre);
    let entries: Vec<LaneEntry> = frames.iter().map(|frame| frame.entry(&letterbox, 0)).collect();
    let table = gpu.table(&entries);
    let again = gpu.table(&entries.iter().map(|entry| entry.after(entry)).collect::<Vec<_>>());
    println!("on {} (sm {:?}), 16 frames of 1080p NV12:", gpu.device.name(), gpu.device.compute_capability());
    let mut letterbox_ms = Vec::new();
    for (half, packed) in [(true, true), (true, false), (false, false)] {
        let format = InputFormat { half, packed, ..input(&mut rng, (640, 640)) };
        let out = gpu.buffer(format.bytes(16));
        for (table, padding) in [(&table, "and its padding"), (&again, "its padding is there")] {
            let ms = gpu.time(200, || gpu.kernels.letterbox(&gpu.stream, table, 16, &format, &out).unwrap());
            let (element, order) = (if half { "half" } else { "float" }, if packed { "packed" } else { "planes" });
            println!("letterbox to 640x640 {element}, {order}, {padding}: {:.1} us a batch", 1000.0 * ms);
            letterbox_ms.push(ms);
        }
    }
    let out = gpu.buffer(16 * CELLS);
    let work = || gpu.kernels.luma_cells(&gpu.stream, &table, 16, &out).unwrap();
    println!("luma cells: {:.1} us a batch", 1000.0 * gpu.time(200, work));
    let (room, small) = (RefCell::new(Room::new(&gpu.device, 16).unwrap()), gpu.buffer(1 << 20));
    for count in [1, 16] {
        let wanted = || (0..count).map(|lane| Wanted::new(lane, (1920, 1080)));
        let shrink = |one| gpu.kernels.shrink(&gpu.stream, &table, one, &small, 0).unwrap();
        let alone = gpu.time(200, || wanted().for_each(shrink));
        let start = || room.borrow_mut().start(&gpu.kernels, &gpu.stream, &table, wanted()).unwrap();
        let (alone, fetched) = (1000.0 * alone, 1000.0 * gpu.time(200, start));
        println!("{count} thumbnails of 640x360: {alone:.1} us, with the way to the host {fetched:.1} us");
    }
    let decode_ms = [Element::F16, Element::F32].map(|element| {
        let (plan, outputs, boxes) = yolov8(&gpu, element, &mut rng);
        let (found, overflow) = (gpu.buffer(plan.found_bytes(16)), gpu.buffer(plan.overflow_bytes(16)));
        let outputs = [&outputs];
        let work = || gpu.kernels.decode(&gpu.stream, &plan, &table, 16, &outputs, &found, &overflow).unwrap();
        let ms = gpu.time(200, work);
        println!("decode of 16x84x8400 {element:?}, {boxes} boxes a lane: {:.1} us a batch", 1000.0 * ms);
        ms
    });
    if gpu.device.name().contains("H100") {
        assert!(letterbox_ms[0] < 0.2, "letterbox {letterbox_ms:?} ms");
        assert!(decode_ms[0] < 0.1, "decode {decode_ms:?} ms");
    }
}

/// The outputs of a YOLOv8 of 80 classes at 640x640 for 16 lanes, with ten boxes a lane.
fn yolov8(gpu: &Gpu, element: Element, rng: &mut fastrand::Rng) -> (HeadPlan, DeviceBuffer, usize) {
    use watchpost::engine::HeadChoice;
    use watchpost::yolo::TensorSpec;
    use watchpost::yolo::head::{Head, HeadKind};
    let (boxes, channels, found) = (8400, 84, 10);
    let spec =
        TensorSpec { name: "output0".into(), shape: [16, channels, boxes].map(Some).to_vec(), integer: false };
    let picture = TensorSpec { name: "images".into(), shape: [16, 3, 640, 640].map(Some).to_vec(), integer: false };
    let choice = HeadChoice::Named(HeadKind::Yolov8);
    let head = Head::resolve(choice, false, &[picture], std::slice::from_ref(&spec), (640, 640), 80).unwrap();
    let mut values: Vec<f32> = (0..16 * channels * boxes)
        .map(|at| if at / boxes % channels < 4 { 100.0 + rng.f32() * 400.0 } else { rng.f32() * 0.2 })
        .collect();
    for lane in 0..16 {
        (0..found).for_each(|at| values[(lane * channels + 4 + at) * boxes + 800 * at] = 0.9);
    }
    let bytes = support::Numbers::real(element, values).bytes();
    let plan = HeadPlan::new(&head, &[spec], &[element], 0.25).unwrap();
    (plan, gpu.upload(&bytes), found)
}

/// Needs nvJPEG beside the driver; without it the test says so.
#[test]
fn a_picture_that_nvjpeg_has_encoded_is_the_one_that_was_given() {
    let Some(gpu) = Gpu::open() else { return };
    let mut encoder = match Encoder::open(&gpu.device) {
        Ok(encoder) => encoder,
        Err(GpuError::Unavailable(why)) => return println!("skipped: {why}"),
        Err(error) => panic!("{error}"),
    };
    // Sizes that go up and down, whole blocks and others; the last many times, to be timed. As gentle in the smallest: JPEG keeps
    // one colour for four pixels.
    for (width, height) in [(64, 48), (640, 360), (641, 363), (3, 1), (640, 360)] {
        let slope = |at: usize| {
            let (x, y) = (at % width as usize, at / width as usize);
            [(x * 255 / 641) as u8, (y * 255 / 363) as u8, 128]
        };
        let rgb: Vec<u8> = (0..(width * height) as usize).flat_map(slope).collect();
        let started = Instant::now();
        let jpegs: Vec<Vec<u8>> = (0..20).map(|_| encoder.encode(&rgb, width, height, 85).unwrap()).collect();
        println!("nvJPEG, {width}x{height}: {:.2} ms", started.elapsed().as_secs_f64() * 1e3 / 20.0);
        assert!(jpegs.iter().all(|jpeg| *jpeg == jpegs[0]));
        let mut decoder = JpegDecoder::new(ZCursor::new(&jpegs[0][..]));
        let pixels = decoder.decode().unwrap();
        assert_eq!(decoder.dimensions(), Some((width as usize, height as usize)));
        let off: u64 = pixels.iter().zip(&rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(off < 4 * rgb.len() as u64, "{width}x{height}: {:.1} grey levels", off as f64 / rgb.len() as f64);
    }
    assert!(matches!(encoder.encode(&[0; 9], 2, 2, 85), Err(GpuError::Config(_))));
}
