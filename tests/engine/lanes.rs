//! Frames through real backends: TensorRT on a machine with a GPU, OpenVINO on any.

use super::*;

/// A real engine of four lanes; its files live as long as the folder.
fn tiny_backend(library: String) -> (Site, TensorRt, Receiver<()>) {
    let site = Site::new();
    site.write("tiny.onnx", onnx::yolov8_convolution());
    let words = ["build", "--manifest", "tiny.toml", "--precision", "fp32", "--batch", "4", "--out", "tiny.engine"];
    let built = engine(site.0.path(), &[&words[..], &["--tensorrt", &library]].concat());
    assert_eq!(built.code, Some(0), "{built:#?}");
    let (library, engine) = (Some(library.into()), Some(site.path("tiny.engine")));
    let tensorrt = TensorrtConfig { library, engine, device: 0, contexts: 2, build: false };
    let manifest = Manifest::load(&site.path("tiny.toml")).unwrap();
    let settings = tensorrt::Settings::of_engine(&tensorrt, &manifest).unwrap();
    let (wake, woken) = bounded(1);
    let backend = TensorRt::open(&settings, wake, &backend::nothing_is_built()).unwrap();
    (site, backend, woken)
}

fn through(backend: &mut impl Backend, woken: &Receiver<()>, frames: Vec<Frame>) -> Batch {
    backend.submit(frames).unwrap();
    let mut batch = Batch::new(Instant::now());
    while !backend.try_collect(&mut batch).unwrap() {
        woken.recv_timeout(Duration::from_secs(30)).unwrap();
    }
    batch
}

/// Planes that are shorter than their caps say.
struct Short;

impl Planes for Short {
    fn plane(&self, _index: usize) -> &[u8] {
        &[0; 8]
    }
}

/// The picture of a camera in a round: of another size every other round, so that the padding moves.
fn picture(round: u64, number: u64) -> SystemImage {
    let size = if round.is_multiple_of(2) { (64, 48) } else { (48, 96) };
    gpu::noise(&mut fastrand::Rng::with_seed(100 * round + number), size, PixelFormat::Nv12)
}

fn frame_of(round: u64, number: u64, image: SystemImage) -> Frame {
    let camera = CameraId::new(&format!("camera{number}"));
    let size = (image.width, image.height);
    let mut frame = Frame { image: Image::System(image), ..Frame::solid(&camera, size, Instant::now()) };
    frame.info.captured.wall = SystemTime::UNIX_EPOCH + Duration::from_secs(round);
    frame
}

/// By camera what was found, in no order.
fn found(batch: &Batch) -> BTreeMap<String, Vec<String>> {
    let of = |lane: &Lane| {
        let mut boxes: Vec<String> = lane.candidates.boxes.iter().map(|found| format!("{found:?}")).collect();
        boxes.sort_unstable();
        (lane.frame.camera.to_string(), boxes)
    };
    batch.lanes.iter().map(of).collect()
}

/// Four pictures of a round, and what a backend finds in them.
fn found_in(backend: &mut impl Backend, woken: &Receiver<()>, round: u64) -> BTreeMap<String, Vec<String>> {
    found(&through(backend, woken, (0..4).map(|number| frame_of(round, number, picture(round, number))).collect()))
}

/// The CPU's backend with the same model.
fn openvino_backend() -> (Site, OpenVino, Receiver<()>) {
    let site = Site::new();
    site.write("tiny.onnx", onnx::yolov8_convolution());
    let manifest = Manifest::load(&site.path("tiny.toml")).unwrap();
    let (device, precision) = ("CPU".to_owned(), OpenvinoPrecision::F32);
    let openvino = OpenvinoConfig { library: None, device, precision, requests: 2, streams: 1, threads: 1 };
    let (wake, woken) = bounded(1);
    let settings = openvino::Settings { manifest, lanes: 4, openvino, cache_dir: None };
    let backend = OpenVino::open(&settings, wake).unwrap();
    (site, backend, woken)
}

/// And no more than the kernel gives: which ones it gave were a matter of chance then.
#[test]
fn the_model_finds_some_boxes_in_noise() {
    let (_site, mut backend, woken) = openvino_backend();
    for boxes in (0..8).flat_map(|round| found_in(&mut backend, &woken, round).into_values()) {
        assert!((10..HEAD_BOXES).contains(&boxes.len()), "{}", boxes.len());
    }
}

#[test]
fn on_a_gpu_a_frame_that_cannot_be_read_is_lost_alone() {
    let Some(library) = on_a_gpu() else { return };
    let (_site, mut backend, woken) = tiny_backend(library);
    what_cannot_be_read_is_lost_alone(&mut backend, &woken);
}

#[test]
fn a_frame_that_openvino_cannot_read_is_lost_alone() {
    let (_site, mut backend, woken) = openvino_backend();
    what_cannot_be_read_is_lost_alone(&mut backend, &woken);
    let nowhere = |number| {
        let (size, image) = ((64, 48), picture(0, number));
        let SystemImage { format, width, height, strides, colour, .. } = image;
        let (planes, loan) = ([0; 3], Box::new(()));
        let image = Image::Cuda(CudaImage { format, width, height, planes, strides, colour, stream: 0, loan });
        Frame { image, ..Frame::solid(&CameraId::new(&format!("camera{number}")), size, Instant::now()) }
    };
    let batch = through(&mut backend, &woken, (0..4).map(nowhere).collect());
    assert!(batch.lanes.is_empty(), "{batch:?}");
    assert_eq!(batch.lost.len(), 4);
    assert!(batch.lost[0].1.contains("CUDA memory, which OpenVINO cannot read: set decode = \"software\""));
    assert_eq!(found_in(&mut backend, &woken, 0).len(), 4, "it goes on");
}

/// Batches in flight take turns: each lane of each is lost, read again and lost again.
fn what_cannot_be_read_is_lost_alone(backend: &mut impl Backend, woken: &Receiver<()>) {
    let expected: Vec<_> = (0..8).map(|round| found_in(backend, woken, round)).collect();
    assert!(expected.iter().flat_map(BTreeMap::values).all(|boxes| !boxes.is_empty()), "the model finds nothing");
    let thumbnails = Thumbnails::new(4, ThumbnailMetrics::default());
    let asked = thumbnails.asked();
    backend.set_thumbnails(thumbnails);
    let (pool, mut shrink) = (Pool::new(4, ThumbnailMetrics::default()), Shrink::default());
    for round in 0..8u64 {
        let is_lost = |number: u64| (number + round / 2).is_multiple_of(2);
        let (mut frames, mut pictures) = (Vec::new(), Vec::new());
        for number in 0..4 {
            let mut image = picture(round, number);
            if is_lost(number) {
                image.planes = Box::new(Short);
            } else {
                asked.ask(&CameraId::new(&format!("camera{number}")));
                pictures.push(pool.take().unwrap().write(&image, None, &mut shrink));
            }
            frames.push(frame_of(round, number, image));
        }
        let batch = through(backend, woken, frames);
        let mut expected = expected[round as usize].clone();
        (0..4)
            .filter(|number| is_lost(*number))
            .for_each(|number| drop(expected.remove(&format!("camera{number}"))));
        assert_eq!(found(&batch), expected, "round {round}");
        let lost: Vec<String> = batch.lost.iter().map(|(camera, _)| camera.to_string()).collect();
        let wanted: Vec<String> = (0..4).filter(|n| is_lost(*n)).map(|number| format!("camera{number}")).collect();
        assert_eq!(lost, wanted);
        assert!(batch.lost.iter().all(|(_, why)| why.contains("shorter than its caps say")), "{:?}", batch.lost);
        let got: Vec<_> = batch.lanes.iter().filter_map(|lane| lane.thumbnail.as_ref()).collect();
        assert_eq!(got.len(), 2, "{got:?}");
        assert!(got.iter().zip(&pictures).all(|(got, picture)| got.planes() == picture.planes()), "round {round}");
    }
}

/// Frames of host memory and of the GPU's, one of them masked, through a real engine: what is asked for comes with a
/// thumbnail as the host makes it, batch after batch in the same buffers.
#[test]
fn on_a_gpu_frames_come_with_thumbnails() {
    let Some(library) = on_a_gpu() else { return };
    let (_site, mut backend, woken) = tiny_backend(library);
    let thumbnails = Thumbnails::new(4, ThumbnailMetrics::default());
    let asked = thumbnails.asked();
    backend.set_thumbnails(thumbnails);
    let device = Device::open(0).unwrap();
    let (pool, mut shrink) = (Pool::new(4, ThumbnailMetrics::default()), Shrink::default());
    let mask = Arc::new(RegionMask::new(vec![vec![[0.0, 0.0], [0.6, 0.0], [0.3, 1.0]]]));
    let (mut rng, mut wall) = (fastrand::Rng::with_seed(31), SystemTime::UNIX_EPOCH);
    for sizes in [[(1920, 1080), (703, 577), (64, 48)], [(641, 3), (1280, 720), (64, 48)], [(3840, 2160); 3]] {
        // So far apart that each of a camera's frames is due.
        wall += Duration::from_secs(1);
        let (mut frames, mut expected) = (Vec::new(), Vec::new());
        for (number, size) in sizes.into_iter().enumerate() {
            let camera = CameraId::new(&format!("camera{number}"));
            let format = if number == 1 { PixelFormat::I420 } else { PixelFormat::Nv12 };
            let image = gpu::noise(&mut rng, size, format);
            let mask = (number == 0).then(|| Arc::clone(&mask));
            if number < 2 {
                asked.ask(&camera);
                expected.push(pool.take().unwrap().write(&image, mask.as_deref(), &mut shrink));
            }
            let image = if number == 0 { on_the_device(&device, image) } else { Image::System(image) };
            let mut frame = Frame { image, mask, ..Frame::solid(&camera, size, Instant::now()) };
            frame.info.captured.wall = wall;
            frames.push(frame);
        }
        let batch = through(&mut backend, &woken, frames);
        let got: Vec<_> = batch.lanes.iter().filter_map(|lane| lane.thumbnail.as_ref()).collect();
        assert!(got.len() >= 2 && got[0].is_asked() && got[1].is_asked(), "{sizes:?}: {got:?}");
        for (got, expected) in got.into_iter().zip(&expected) {
            assert_eq!((got.size(), got.colour()), (expected.size(), expected.colour()));
            assert!(got.planes() == expected.planes(), "{sizes:?}: {got:?}");
        }
    }
}

/// The same frame in device memory.
fn on_the_device(device: &Device, image: SystemImage) -> Image {
    let stream = Stream::new(device).unwrap();
    let buffers = [0, 1, 2].map(|plane| on_device::upload(&stream, image.planes.plane(plane)));
    let planes = buffers.each_ref().map(DeviceBuffer::address);
    let SystemImage { format, width, height, strides, colour, .. } = image;
    Image::Cuda(CudaImage { format, width, height, planes, strides, colour, stream: 0, loan: Box::new(buffers) })
}
