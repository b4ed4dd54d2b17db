//! `watchpost engine` as a user meets it: the real program, the real TensorRT-RTX, which builds without a GPU, and
//! cameras and files that it is calibrated with. What runs an engine is tested on a GPU: `scripts/gpu-test`.

extern crate watchpost;

mod support;

#[path = "engine/lanes.rs"]
mod lanes;
#[path = "engine/quantize.rs"]
mod quantize;

#[allow(dead_code)]
#[path = "support/gpu.rs"]
mod gpu;
#[allow(dead_code)]
#[path = "support/device.rs"]
mod on_device;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, bounded};
use serde_json::Value;
use support::assets::find_assets;
use support::clips::{CLIP_FRAMES, Clip, clip};
use support::onnx;
use support::program::{Daemon, Ended, Site, Written, ended, program};
use watchpost::backend::openvino::{self, OpenVino};
use watchpost::backend::tensorrt::{self, TensorRt};
use watchpost::backend::{self, Backend, Batch, Lane};
use watchpost::config::{OpenvinoConfig, Precision as OpenvinoPrecision, TensorrtConfig};
use watchpost::engine::Manifest;
use watchpost::engine::built::{self, ProgressLine};
use watchpost::engine::calibration::{self, Calibration, Frames};
use watchpost::engine::stamp::{Flavour, Gpu, Precision, Stamp};
use watchpost::frame::{CameraId, CudaImage, Frame, Image, PixelFormat, Planes, SystemImage};
use watchpost::gpu::device::Device;
use watchpost::gpu::head::HEAD_BOXES;
use watchpost::gpu::memory::DeviceBuffer;
use watchpost::gpu::stream::Stream;
use watchpost::gpu::trt::Library;
use watchpost::mask::RegionMask;
use watchpost::metrics::ThumbnailMetrics;
use watchpost::thumbnail::{Pool, Shrink, Thumbnails};

/// Exit codes.
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;

/// `watchpost engine` with these words, in a folder.
fn engine(folder: &Path, words: &[&str]) -> Ended {
    ended(program().current_dir(folder).args(["--log", "warn", "engine"]).args(words))
}

/// TensorRT-RTX's folder; `None`, with a word about it, where it is not at hand.
fn rtx() -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tensorrt-rtx");
    let has_slice = Library::slices().iter().any(|slice| slice.starts_with("RTX"));
    if folder.is_dir() && has_slice {
        return Some(folder.display().to_string());
    }
    eprintln!("skipped: no TensorRT-RTX here: run scripts/get-tensorrt-headers and scripts/get-tensorrt-rtx");
    None
}

/// Its one engine.
fn only_engine(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let engines: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "engine")).collect();
    assert_eq!(engines.len(), 1, "{engines:?}");
    engines.into_iter().next().unwrap()
}

fn frames(path: &Path) -> Frames {
    match calibration::open(path).unwrap_or_else(|e| panic!("{e}")) {
        Calibration::Frames(frames) => frames,
        Calibration::Table(_) => panic!("a table"),
    }
}

#[test]
fn the_version_lists_what_tensorrt_it_can_use() {
    let said = ended(program().arg("--version"));
    let slices = Library::slices();
    let listed = if slices.is_empty() { "none".to_owned() } else { slices.join(", ") };
    assert!(said.out.contains(&format!("\nTensorRT {listed}\n")), "{said:?}");
}

#[test]
fn wrong_arguments_are_answered() {
    let site = Site::new();
    for wrong in [
        &["build"][..],
        &["build", "--manifest", "tiny.toml", "--config", "x.toml"],
        &["build", "--manifest", "tiny.toml", "--precision", "bf16"],
        &["build", "--manifest", "tiny.toml", "--batch", "0"],
        &["build", "--manifest", "tiny.toml", "--workspace", "1"],
        &["calibrate", "--manifest", "tiny.toml", "--out", "x"],
        &["calibrate", "--out", "x", "--images", "."],
        &["calibrate", "--config", "c.toml", "--images", ".", "--out", "x"],
        &["bench", "x.engine", "--contexts", "9"],
    ] {
        assert_eq!(engine(site.0.path(), wrong).code, Some(2), "{wrong:?}");
    }
    for batches in ["1,2", "4,2,8"] {
        let said = engine(site.0.path(), &["build", "--manifest", "tiny.toml", "--batches", batches]);
        said.says_in_one_line(CONFIG, &["--batches: give"]);
    }
}

#[test]
fn what_is_missing_is_told_before_anything_is_built() {
    let site = Site::new();
    let build = |more: &[&str]| engine(site.0.path(), &[&["build", "--manifest", "tiny.toml"], more].concat());
    let empty = site.path("empty");
    fs::create_dir(&empty).unwrap();
    let none = ["--tensorrt", empty.to_str().unwrap()];
    build(&none).says_in_one_line(UNAVAILABLE, &["TensorRT"]);
    build(&["--precision", "int8"])
        .says_in_one_line(CONFIG, &["INT8 without calibration: run `watchpost engine calibrate` first"]);
    build(&["--batch", "4"]).says_in_one_line(CONFIG, &["tiny.onnx: it takes batches of 1, not of 4"]);
    site.write("tiny.onnx", &onnx::yolov8()[..50]);
    build(&[]).says_in_one_line(UNAVAILABLE, &["model tiny.onnx: it is cut off", "get the file again"]);
    fs::remove_file(site.path("tiny.onnx")).unwrap();
    build(&[]).says_in_one_line(UNAVAILABLE, &["model tiny.onnx: No such file"]);
    let sha = format!(
        "name = \"tiny\"\nmodel = \"tiny.onnx\"\nlabels = [\"a\", \"b\"]\nsha256 = \"{}\"\n",
        "0".repeat(64)
    );
    site.write("tiny.onnx", onnx::yolov8());
    site.write("tiny.toml", sha);
    build(&[]).says_in_one_line(CONFIG, &["tiny.onnx has the SHA-256", "the manifest says 0000"]);
    assert!(!site.path("built").exists(), "nothing was begun");
}

#[test]
fn an_engine_that_cannot_be_trusted_is_not_loaded() {
    let site = Site::new();
    for command in ["inspect", "bench"] {
        engine(site.0.path(), &[command, "m.engine"])
            .says_in_one_line(UNAVAILABLE, &["m.engine: there is no such file: run `watchpost engine build`"]);
    }
    site.write("m.engine", "a plan");
    for words in
        [&["inspect", "m.engine"][..], &["bench", "m.engine"], &["check", "tiny.toml", "--engine", "m.engine"]]
    {
        engine(site.0.path(), words).says_in_one_line(UNAVAILABLE, &["it has no stamp m.engine.toml"]);
    }
    site.write("m.engine.toml", "schema = 1\n");
    engine(site.0.path(), &["inspect", "m.engine"]).says_in_one_line(UNAVAILABLE, &["its stamp cannot be read"]);
}

#[test]
fn an_engine_is_built_stamped_and_checked() {
    let Some(library) = rtx() else { return };
    let site = Site::new();
    site.write("tiny.onnx", onnx::yolov8_convolution());
    site.write(
        "tiny.toml",
        "name = \"tiny\"\nmodel = \"tiny.onnx\"\nlabels = [\"a\", \"b\"]\n[tensorrt]\nprecision = \"fp32\"\n",
    );
    let run = |words: &[&str]| engine(site.0.path(), &[words, &["--tensorrt", &library]].concat());
    let built = run(&["build", "--manifest", "tiny.toml", "--progress", "json"]);
    assert_eq!((built.code, built.err.as_str()), (Some(0), ""), "{built:#?}");
    let lines: Vec<ProgressLine> = built.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.windows(2).all(|pair| pair[0].pct <= pair[1].pct), "{lines:?}");
    let last = lines.last().unwrap();
    assert!(last.pct == 100 && last.text.contains("built in") && last.text.contains("TensorRT-RTX"), "{last:?}");

    let path = only_engine(&site.path("built"));
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("tiny-b1-fp32-any-trt1."), "{name}");
    let stamp = built::stamp(&path).unwrap();
    assert_eq!((stamp.options.batch, stamp.options.input, stamp.gpu.clone()), (1, (32, 32), None));
    assert_eq!((stamp.tensorrt.flavour, stamp.model.precision), (Flavour::Rtx, Precision::Fp32));
    built::load(&path, &stamp).unwrap();

    let engine = path.to_str().unwrap();
    let checked = run(&["check", "tiny.toml", "--engine", engine]);
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{checked:#?}");
    assert!(checked.out.contains("good for this machine") && checked.out.contains("takes every operator"));
    let inspected = run(&["inspect", engine]);
    inspected.says_in_one_line(UNAVAILABLE, &["needs an NVIDIA GPU"]);
    for words in ["model      tiny (SHA-256", "any GPU that TensorRT-RTX", "asked for  fp32, input 32x32, batch 1"]
    {
        assert!(inspected.out.contains(words), "{inspected:#?}");
    }
    run(&["bench", engine]).says_in_one_line(UNAVAILABLE, &["needs an NVIDIA GPU"]);
    mismatches(&site, &path, &run);

    fs::write(&path, &fs::read(&path).unwrap()[..1000]).unwrap();
    run(&["check", "tiny.toml", "--engine", engine])
        .says_in_one_line(UNAVAILABLE, &["not the file that was built", "cut off or changed"]);
}

/// Each difference between a stamp and what is wanted, as `engine check` says it.
fn mismatches(site: &Site, path: &Path, run: &dyn Fn(&[&str]) -> Ended) {
    let whole = built::stamp(path).unwrap();
    let check = |stamp: &Stamp| {
        fs::write(built::stamp_path(path), toml::to_string(stamp).unwrap()).unwrap();
        run(&["check", "tiny.toml", "--engine", path.to_str().unwrap()])
    };
    let mut other = whole.clone();
    other.tensorrt.version = "1.6.0".to_owned();
    other.model.sha256 = "0".repeat(64);
    other.options.precision = Precision::Int8;
    check(&other).says_in_one_line(
        UNAVAILABLE,
        &[
            "it was built by TensorRT-RTX 1.6.0, this machine has TensorRT-RTX 1.",
            "it was built from another model",
            "it was built for int8, fp32 is wanted",
            "build it again with `watchpost engine build`",
        ],
    );
    let mut sized = whole.clone();
    sized.options.input = (64, 64);
    check(&sized).says_in_one_line(UNAVAILABLE, &["it was built for input 64x64, 32x32 is wanted"]);
    assert_eq!(check(&whole).code, Some(0));
    let said = run(&["check", "tiny.toml", "--engine", path.to_str().unwrap(), "--batch", "8"]);
    said.says_in_one_line(UNAVAILABLE, &["it takes batches of 1, 8 is wanted"]);
    assert!(site.path("tiny.onnx").exists());
}

/// Without a GPU it gets as far as the GPU.
#[test]
fn of_a_manifest_the_engine_that_was_built_beside_it_is_timed() {
    let Some(library) = rtx() else { return };
    let site = Site::new();
    site.write("tiny.onnx", onnx::yolov8_of_four());
    let run = |words: &[&str]| engine(site.0.path(), &[words, &["--tensorrt", &library]].concat());
    run(&["bench", "tiny.toml"]).says_in_one_line(UNAVAILABLE, &["tiny-b4-", "there is no such file"]);
    let built = run(&["build", "--manifest", "tiny.toml"]);
    assert_eq!(built.code, Some(0), "{built:#?}");
    let stamp = built::stamp(&only_engine(&site.path("built"))).unwrap();
    let manifest = Manifest::load(&site.path("tiny.toml")).unwrap();
    assert_eq!((stamp.options.batch, stamp.model.meaning), (4, Some(manifest.meaning())));
    run(&["bench", "tiny.toml"]).says_in_one_line(UNAVAILABLE, &["needs an NVIDIA GPU for this"]);
    run(&["bench", "tiny.toml", "--batch", "8"])
        .says_in_one_line(UNAVAILABLE, &["tiny-b8-", "there is no such file"]);
}

/// TensorRT's folder on a machine with a GPU (WATCHPOST_TENSORRT); `None`, with a word about it, elsewhere.
fn on_a_gpu() -> Option<String> {
    let Err(why) = Device::open(0).map(drop) else {
        let folder = std::env::var("WATCHPOST_TENSORRT").ok();
        return folder.or_else(|| {
            eprintln!("skipped: WATCHPOST_TENSORRT names no folder of TensorRT");
            None
        });
    };
    eprintln!("skipped: {why}");
    None
}

#[test]
fn on_a_gpu_engines_run_and_are_timed() {
    let Some(library) = on_a_gpu() else { return };
    let site = Site::new();
    site.write("tiny.onnx", onnx::yolov8_convolution());
    let run = |words: &[&str]| engine(site.0.path(), &[words, &["--tensorrt", &library]].concat());
    for precision in ["fp32", "fp16"] {
        let out = format!("{precision}.engine");
        let words =
            ["build", "--manifest", "tiny.toml", "--precision", precision, "--batches", "1,4,8", "--batch", "4"];
        let built = run(&[&words[..], &["--out", &out]].concat());
        assert_eq!(built.code, Some(0), "{built:#?}");
        let stamp = built::stamp(&site.path(&out)).unwrap();
        assert!(stamp.gpu.as_ref().is_some_and(|gpu| built.out.contains(&gpu.name)), "{built:#?}");
        let inspected = run(&["inspect", &out]);
        assert_eq!(inspected.code, Some(0), "{inspected:#?}");
        for words in ["layers after fusion", "ms a batch", "images", "?x3x32x32", "computes: ", "outputs: "] {
            assert!(inspected.out.contains(words), "{words}: {inspected:#?}");
        }
        let json: Value = serde_json::from_str(&run(&["inspect", &out, "--json"]).out).unwrap();
        assert!(json["Layers"].as_array().is_some_and(|layers| !layers.is_empty()), "{json}");
        for more in [&["--contexts", "1"][..], &["--contexts", "2", "--batch", "8"], &["--no-graph"]] {
            let timed = run(&[&["bench", &out, "--seconds", "1", "--json"], more].concat());
            assert_eq!(timed.code, Some(0), "{timed:#?}");
            let figures: Value = serde_json::from_str(&timed.out).unwrap();
            assert!(figures["images_per_second"].as_f64().unwrap() > 100.0, "{figures}");
            assert!(figures["batch_ms_p99"].as_f64() >= figures["batch_ms_p50"].as_f64(), "{figures}");
        }
        run(&["bench", &out, "--batch", "9"])
            .says_in_one_line(UNAVAILABLE, &["it takes batches of 1 to 8, 9 is wanted"]);
        if stamp.tensorrt.version.starts_with("8.") {
            run(&["bench", &out, "--contexts", "3"])
                .says_in_one_line(UNAVAILABLE, &["its batch varies, and it was built for 2 at once"]);
        }
    }
    // Of a manifest: the one that was built beside it.
    assert_eq!(run(&["build", "--manifest", "tiny.toml"]).code, Some(0));
    let timed = run(&["bench", "tiny.toml", "--seconds", "1"]);
    assert_eq!(timed.code, Some(0), "{timed:#?}");
    let mut foreign = built::stamp(&site.path("fp16.engine")).unwrap();
    foreign.gpu = foreign.gpu.map(|gpu| Gpu { name: "NVIDIA H299".to_owned(), ..gpu });
    site.write("fp16.engine.toml", toml::to_string(&foreign).unwrap());
    run(&["inspect", "fp16.engine"]).says_in_one_line(UNAVAILABLE, &["it was built on NVIDIA H299 (SM "]);
}

#[test]
fn on_a_gpu_int8_is_calibrated_once() {
    let Some(library) = on_a_gpu() else { return };
    let site = Site::new();
    site.write("tiny.onnx", onnx::yolov8_convolution());
    let Some(assets) = find_assets() else {
        eprintln!("skipped: no pictures: set WATCHPOST_ASSETS");
        return;
    };
    let pictures = assets.join("coco-ccby/images").display().to_string();
    let words =
        ["calibrate", "--manifest", "tiny.toml", "--images", &pictures, "--frames", "20", "--out", "tiny.frames"];
    let calibrated = engine(site.0.path(), &words);
    assert_eq!(calibrated.code, Some(0), "{calibrated:?}");
    let build = |calibration: &str| {
        let words =
            ["build", "--manifest", "tiny.toml", "--precision", "int8", "--out", "tiny.engine", "--batch", "3"];
        let more = ["--calibration", calibration, "--tensorrt", &library];
        engine(site.0.path(), &[&words[..], &more].concat())
    };
    let built = build("tiny.frames");
    assert_eq!(built.code, Some(0), "{built:#?}");
    let table = fs::read(calibration::table_path(&site.path("tiny.frames"))).unwrap();
    let start = table.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(table[start..].starts_with(b"TRT-"), "{:?}", String::from_utf8_lossy(&table));
    // By the table alone, as other tools keep it.
    site.write("own.table", &table[start..]);
    let again = build("own.table");
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(engine(site.0.path(), &["inspect", "tiny.engine", "--tensorrt", &library]).code, Some(0));
}

#[test]
fn on_a_gpu_a_start_that_builds_its_engine_is_ready_meanwhile() {
    let Some(library) = on_a_gpu() else { return };
    let site = Site::new();
    site.write("tiny.onnx", onnx::yolov8_convolution());
    let manager = UnixDatagram::bind(site.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let next = || {
        let mut buffer = [0; 1024];
        let length = manager.recv(&mut buffer).expect("nothing is told");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let section =
        format!("manifest = \"tiny.toml\"\nbackend = \"tensorrt\"\n[engine.tensorrt]\nlibrary = {library:?}");
    let mut run = site.run(&Written { engine: &section, ..Written::default() });
    let daemon = Daemon::start(run.env("NOTIFY_SOCKET", site.path("notify")));
    let told: Vec<String> =
        std::iter::repeat_with(next).take_while(|told| told != "READY=1\nSTATUS=running\n").collect();
    let first = told.iter().find(|told| told.starts_with("READY=1"));
    assert!(first.is_some_and(|told| told.contains("STATUS=the engine is being built: ")), "{told:?}");
    assert!(told.iter().any(|told| told == "WATCHDOG=1\n"), "{told:?}");
    only_engine(&site.path("state/engines"));
    daemon.terminate();
    assert_eq!(daemon.finish().0, Some(0));
}

#[test]
fn a_configuration_says_what_is_built_and_where() {
    let Some(library) = rtx() else { return };
    let site = Site::new();
    site.write("other.onnx", onnx::yolov8_open_batch());
    let engine_section = "manifest = \"tiny.toml\"\nmodel = \"other.onnx\"\nbatch = 3";
    let config = site.config(&Written { engine: engine_section, ..Written::default() });
    let config = config.to_str().unwrap();
    let words = ["build", "--config", config, "--batches", "1,3,4", "--tensorrt", &library];
    let built = engine(site.0.path(), &words);
    assert_eq!(built.code, Some(0), "{built:#?}");
    let path = only_engine(&site.path("state/engines"));
    let stamp = built::stamp(&path).unwrap();
    assert_eq!((stamp.options.batch, stamp.options.batches), (3, [1, 3, 4]));
    assert!(path.file_name().unwrap().to_str().unwrap().starts_with("tiny-b3-fp16-any-trt1."));
    // Again, elsewhere, over a folder.
    fs::create_dir(site.path("taken")).unwrap();
    engine(
        site.0.path(),
        &["build", "--config", config, "--precision", "fp32", "--out", "taken", "--tensorrt", &library],
    )
    .says_in_one_line(CONFIG, &["taken: is a directory: give a path"]);
}

#[test]
fn nothing_that_is_read_is_written_over() {
    let Some(library) = rtx() else { return };
    let site = Site::new();
    site.write("tiny.onnx", onnx::yolov8());
    let build = |more: &[&str]| {
        engine(
            site.0.path(),
            &[&["build", "--manifest", "tiny.toml", "--tensorrt", &library, "--precision"], more].concat(),
        )
    };
    for words in [
        &["fp32", "--out", "tiny.onnx"][..],
        &["fp32", "--out", "./tiny.toml"],
        &["fp32", "--timing-cache", "tiny.onnx"],
        &["fp32", "--out", "same", "--timing-cache", "same"],
    ] {
        build(words).says_in_one_line(CONFIG, &["it would be written over", "give another path"]);
    }
    build(&["fp32", "--batches", "1,2,4"]).says_in_one_line(CONFIG, &["--batches: the model takes 1 at a time"]);
    let picture = picture(&site);
    engine(site.0.path(), &["calibrate", "--manifest", "tiny.toml", "--images", &picture, "--out", &picture])
        .says_in_one_line(CONFIG, &["it would be written over"]);
    assert_eq!(fs::read(site.path("tiny.onnx")).unwrap(), onnx::yolov8());
    build(&["int8"]).says_in_one_line(CONFIG, &["INT8 with TensorRT-RTX", "scripts/quantize-onnx"]);
}

#[test]
fn operators_that_tensorrt_lacks_are_named_with_a_suggestion() {
    let Some(library) = rtx() else { return };
    let site = Site::new();
    site.write("tiny.onnx", onnx::picture("NoSuchOperator"));
    engine(site.0.path(), &["check", "tiny.toml", "--tensorrt", &library]).says_in_one_line(
        UNAVAILABLE,
        &["model tiny.onnx: node \"output\" (NoSuchOperator): ", "give a plug-in library that has it"],
    );
    let words =
        ["build", "--manifest", "tiny.toml", "--precision", "fp32", "--tensorrt", &library, "--out", "m.engine"];
    engine(site.0.path(), &words).says_in_one_line(UNAVAILABLE, &["tiny.onnx: ", "(NoSuchOperator)"]);
    assert!(!site.path("m.engine").exists());
}

#[test]
fn int8_without_a_calibrator_needs_a_quantized_model() {
    let Some(library) = rtx() else { return };
    let site = Site::new();
    let calibrated = engine(
        site.0.path(),
        &["calibrate", "--manifest", "tiny.toml", "--images", &picture(&site), "--out", "tiny.frames"],
    );
    assert_eq!(calibrated.code, Some(0), "{calibrated:#?}");
    let words = ["build", "--manifest", "tiny.toml", "--precision", "int8", "--calibration", "tiny.frames"];
    engine(site.0.path(), &[&words[..], &["--tensorrt", &library]].concat()).says_in_one_line(
        CONFIG,
        &["INT8 with TensorRT-RTX", "needs QuantizeLinear and DequantizeLinear", "scripts/quantize-onnx"],
    );
}

/// A grey picture, as the simplest format that decoders read.
fn picture(site: &Site) -> String {
    let (width, height) = (48_u32, 24_u32);
    let mut bytes = b"BM".to_vec();
    let pixels = (width * height * 3) as usize;
    for value in [54 + pixels as u32, 0, 54, 40, width, height] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    bytes.extend(std::iter::repeat_n(200, pixels));
    let path = site.write("grey.bmp", bytes);
    path.display().to_string()
}

#[test]
fn frames_of_pictures_and_clips_are_those_that_the_model_sees() {
    let site = Site::new();
    site.write(
        "tiny.toml",
        "name = \"tiny\"\nmodel = \"tiny.onnx\"\nlabels = [\"a\", \"b\"]\n[input]\npad = 10\nmean = [0.5, 0.5, 0.5]\n",
    );
    let grey = picture(&site);
    let calibrate = |more: &[&str]| {
        let words = ["calibrate", "--manifest", "tiny.toml", "--out", "tiny.frames"];
        engine(site.0.path(), &[&words[..], more].concat())
    };
    let said = calibrate(&["--images", &grey]);
    assert!(said.code == Some(0) && said.out.contains("1 frames of 32x32 written to tiny.frames"), "{said:#?}");
    let mut read = frames(&site.path("tiny.frames"));
    let mut tensor = vec![0.0; 3 * 32 * 32];
    read.read(0, &mut tensor).unwrap();
    // 48x24 in 32x32: 8 rows of padding above and below.
    let unit = |grey: f32| grey / 255.0 - 0.5;
    assert!((tensor[0] - unit(10.0)).abs() < 1e-6, "{}", tensor[0]);
    assert!((tensor[16 * 32 + 16] - unit(200.0)).abs() < 2.5 / 255.0, "{}", tensor[16 * 32 + 16]);

    calibrate(&["--images", "none.jpg"]).says_in_one_line(CONFIG, &["--images none.jpg: No such file"]);
    calibrate(&["--images", "tiny.toml"]).says_in_one_line(CONFIG, &["no pictures or clips: give files that end"]);
    let broken = site.write("broken.mp4", "no video");
    let said = calibrate(&["--images", broken.to_str().unwrap()]);
    assert_eq!(said.code, Some(CONFIG), "{said:#?}");
    assert!(frames(&site.path("tiny.frames")).header.frames == 1, "the old one stands");
    assert_eq!(fs::read_dir(site.0.path()).unwrap().filter(|e| is_part(e.as_ref().unwrap())).count(), 0);

    let Some(clip) = clip(Clip::Small) else { return };
    let said = calibrate(&["--images", &grey, clip.to_str().unwrap(), "--frames", "21"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    let read = frames(&site.path("tiny.frames"));
    let given: Vec<usize> = read.header.sources.iter().map(|source| source.frames).collect();
    assert_eq!((given, read.header.frames), (vec![1, 20], 21));
    // All of a clip that is shorter than what is wanted.
    let said = calibrate(&["--images", clip.to_str().unwrap(), "--frames", "1000"]);
    assert_eq!(frames(&site.path("tiny.frames")).header.frames as u64, CLIP_FRAMES, "{said:#?}");
}

fn is_part(entry: &fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|ending| ending == "part")
}

#[test]
fn frames_of_cameras_are_spread_over_cameras_and_time() {
    let site = Site::new();
    let cameras = "[[camera]]\nid = \"gate\"\nurl = \"test://?size=64x48&fps=20\"\n\
        [[camera]]\nid = \"yard\"\nurl = \"test://?size=96x48&fps=20&pattern=white\"\n\
        [[camera]]\nid = \"off\"\nurl = \"test://\"\nenabled = false";
    let config = site.config(&Written { cameras, ..Written::default() });
    let config = config.to_str().unwrap();
    let start = std::time::Instant::now();
    let words = ["calibrate", "--config", config, "--seconds", "3", "--frames", "12", "--out", "tiny.frames"];
    let said = engine(site.0.path(), &words);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(start.elapsed().as_secs_f64() > 2.5, "over the whole time");
    let mut read = frames(&site.path("tiny.frames"));
    let given: BTreeMap<String, usize> = read.header.sources.iter().map(|s| (s.name.clone(), s.frames)).collect();
    // One may come a little later than the other, and the last be due as the time is over.
    let all: usize = given.values().sum();
    assert!((11..=12).contains(&all) && given.values().all(|frames| (5..=7).contains(frames)), "{given:?}");
    let line: Value =
        serde_json::from_slice(&fs::read(site.path("tiny.frames")).unwrap()[..calibration::HEADER_BYTES]).unwrap();
    assert_eq!((&line["frames"], &line["size"]), (&Value::from(all), &serde_json::json!([32, 32])));
    assert_eq!(line["input"]["letterbox"], "centre");
    // White in the middle of one camera's.
    let mut tensor = vec![0.0; 3 * 32 * 32];
    let white = (0..all).filter(|index| {
        read.read(*index, &mut tensor).unwrap();
        tensor[16 * 32 + 2] > 0.95
    });
    assert_eq!(white.count(), given["yard"]);
}

#[test]
fn cameras_that_give_nothing_are_told() {
    let site = Site::new();
    let cameras = "[[camera]]\nid = \"gate\"\nurl = \"test://?size=64x48&fps=20\"\nenabled = false";
    let config = site.config(&Written { cameras, ..Written::default() });
    let words = ["calibrate", "--config", config.to_str().unwrap(), "--seconds", "1", "--out", "tiny.frames"];
    engine(site.0.path(), &words).says_in_one_line(UNAVAILABLE, &["no camera gave a frame (none is enabled)"]);
    assert!(!site.path("tiny.frames").exists());
}
