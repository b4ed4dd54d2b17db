//! TensorRT through `gpu::trt`, with the real TensorRT-RTX, which reads models and builds engines on any machine, and
//! with libraries that are none. Engines run on a GPU only: `scripts/gpu-test`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use watchpost::gpu::trt::{BuildOptions, Calibrator, Engine, Library, Progress, TrtError, build, unsupported};

#[path = "support/mod.rs"]
mod support;

use support::library::library;
use support::{assets, onnx};

/// Opened, or `None` where scripts/get-tensorrt-rtx has left nothing (said on standard error).
fn rtx(test: &str) -> Option<Library> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tensorrt-rtx");
    if !folder.is_dir() {
        eprintln!("{test}: skipped: no .tensorrt-rtx: run scripts/get-tensorrt-rtx");
        return None;
    }
    if !Library::slices().iter().any(|slice| slice.starts_with("RTX")) {
        eprintln!("{test}: skipped: built without the headers: run scripts/get-tensorrt-headers");
        return None;
    }
    Some(Library::open(Some(&folder)).unwrap())
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn sentence(error: &TrtError) -> String {
    error.to_string()
}

#[test]
fn slices_have_the_versions_of_the_headers_that_were_there() {
    let slices = Library::slices();
    for slice in &slices {
        let (name, version) = slice.split_once(" (").unwrap();
        let major = name.trim_start_matches("RTX ");
        assert!(["8", "10", "11", "1"].contains(&major), "{slice}");
        assert!(version.starts_with(&format!("{major}.")) && version.ends_with(')'), "{slice}");
    }
    let headers = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("tensorrt-headers");
    for (folder, start) in [("8", "8 (8."), ("10", "10 (10."), ("11", "11 (11."), ("rtx", "RTX 1 (1.")] {
        let there = headers.join(folder).join("NvInfer.h").exists();
        assert!(!there || slices.iter().any(|slice| slice.starts_with(start)), "{folder}: {slices:?}");
    }
}

#[test]
fn what_is_not_tensorrt_is_refused_in_words() {
    if Library::slices().is_empty() {
        let refused = sentence(&Library::open(None).err().unwrap());
        assert!(refused.contains("get-tensorrt-headers"), "{refused}");
        eprintln!("what_is_not_tensorrt: skipped: built without headers");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let open = || match Library::open(Some(folder.path())) {
        Err(TrtError::Unavailable(refused)) => refused,
        Err(other) => panic!("{other:?}"),
        Ok(library) => panic!("opened {}", library.name()),
    };
    assert!(open().contains("there is no TensorRT in "), "{}", open());
    written(folder.path(), "libnvinfer.so.10", b"not a library");
    assert!(open().contains("libnvinfer.so.10: ") && open().contains("slices for TensorRT"), "{}", open());
    library(folder.path(), "libnvinfer.so.10", "int other(void) { return 1; }", &[]);
    assert!(open().contains("it is no TensorRT library"), "{}", open());
}

/// Each under a file name of its own: the loader does not open the same name twice.
#[test]
fn a_library_without_a_slice_is_refused_in_words() {
    if Library::slices().is_empty() {
        eprintln!("a_library_without_a_slice: skipped: built without headers");
        return;
    }
    for (name, number, words) in [
        ("libnvinfer.so.11", 120_000, "it is TensorRT 12.0.0, for which this watchpost has no slice"),
        ("libnvinfer.so.8", 8401, "it is TensorRT 8.4.1, and 8.5 is the oldest that can be used"),
        ("libtensorrt_rtx.so.1", 20_000, "it is TensorRT-RTX 2.0.0, for which"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        library(folder.path(), name, &format!("int getInferLibVersion(void) {{ return {number}; }}"), &[]);
        let refused = sentence(&Library::open(Some(folder.path())).err().unwrap());
        assert!(refused.contains(words), "{refused}");
        for slice in Library::slices() {
            assert!(refused.contains(&slice), "{refused}");
        }
    }
}

#[test]
fn the_real_library_is_opened_with_its_slice() {
    let Some(library) = rtx("the_real_library") else { return };
    assert!(library.is_rtx() && library.is_strongly_typed());
    let version = library.version();
    assert_eq!(version.major, 1);
    assert!(version.build > 0, "{version}");
    assert!(library.name().starts_with("TensorRT-RTX 1."), "{}", library.name());
}

/// What a build told.
#[derive(Default)]
struct Told {
    messages: Vec<String>,
    /// Name, done, total.
    phases: Vec<(String, u32, u32)>,
    cache: Vec<u8>,
}

impl Told {
    fn note(&mut self, progress: Progress) {
        match progress {
            Progress::Message(line) => self.messages.push(line.to_owned()),
            Progress::Phase { name, done, total } => self.phases.push((name.to_owned(), done, total)),
            Progress::Cache(bytes) => self.cache = bytes.to_vec(),
        }
    }
}

#[test]
fn a_real_model_becomes_an_engine_and_progress_is_told() {
    let Some(library) = rtx("a_real_model") else { return };
    let Some(assets) = assets::find_assets() else {
        eprintln!("a_real_model: skipped: no WATCHPOST_ASSETS");
        return;
    };
    let model = assets.join("models/yolox_nano.onnx");
    let mut told = Told::default();
    let built = build(&library, &model, &BuildOptions::default(), None, &mut |step| told.note(step)).unwrap();
    // 0.9 million weights of two bytes at least.
    assert!(built.engine.len() > 1_000_000, "{} bytes", built.engine.len());
    assert!(!told.messages.is_empty());
    assert!(!told.phases.is_empty());
    for (name, done, total) in &told.phases {
        assert!(done <= total, "{name}: {done} of {total}");
    }
    assert!(told.phases.iter().any(|(_, done, total)| done == total && *total > 0), "{:?}", told.phases);
    assert!(!built.timing_cache.is_empty() && built.timing_cache == told.cache);
    let options = BuildOptions { timing_cache: Some(built.timing_cache), ..BuildOptions::default() };
    assert!(!build(&library, &model, &options, None, &mut |_| {}).unwrap().engine.is_empty());
    let options = BuildOptions { timing_cache: Some(b"no cache".to_vec()), ..BuildOptions::default() };
    assert!(!build(&library, &model, &options, None, &mut |_| {}).unwrap().engine.is_empty());
    assert_eq!(unsupported(&library, &model).unwrap(), []);
}

/// A model whose batch varies: each first dimension of 1 is made one with a name, in as many bytes.
fn any_batch() -> Vec<u8> {
    let mut model = onnx::yolov8_any_batch();
    let (one, named) = ([0x0a, 3, 0x08, 0x81, 0], [0x0a, 3, 0x12, 1, b'n']);
    let places: Vec<usize> = (0..model.len() - 5).filter(|at| model[*at..*at + 5] == one).collect();
    assert_eq!(places.len(), 2, "of the input and of the output");
    for at in places {
        model[at..at + 5].copy_from_slice(&named);
    }
    model
}

#[test]
fn a_varying_batch_takes_a_profile() {
    let Some(library) = rtx("a_varying_batch") else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = written(folder.path(), "tiny.onnx", &any_batch());
    let of = |input: &str, shapes: [Vec<usize>; 3]| {
        let profile = vec![(input.to_owned(), shapes)];
        build(&library, &model, &BuildOptions { profile, ..BuildOptions::default() }, None, &mut |_| {})
    };
    let shapes = [1, 2, 4].map(|batch| vec![batch, 3, 32, 32]);
    assert!(!of("images", shapes.clone()).unwrap().engine.is_empty());

    let refused = of("pictures", shapes.clone()).unwrap_err();
    assert!(matches!(&refused, TrtError::Failed(text) if text.contains("no input \"pictures\"")), "{refused:?}");
    let refused = of("images", [vec![1], vec![1, 3], vec![1, 3, 32]]).unwrap_err();
    assert!(sentence(&refused).contains("different lengths"), "{refused}");
    let [least, usual, most] = shapes;
    let refused = of("images", [most, usual, least]).unwrap_err();
    assert!(matches!(refused, TrtError::Failed(_)), "{refused:?}");
}

#[test]
fn a_broken_model_is_refused_in_words() {
    let Some(library) = rtx("a_broken_model") else { return };
    let folder = tempfile::tempdir().unwrap();
    let whole = onnx::yolov8();
    let mut inside = whole.clone();
    // The node's operator, of the same length.
    let at = whole.windows(7).position(|word| word == b"Reshape").unwrap();
    inside[at..at + 7].copy_from_slice(b"\xff\xfe\xfd\xfc\xfb\xfa\xf9");
    for (name, bytes) in [
        ("cut.onnx", &whole[..whole.len() / 2]),
        ("page.onnx", b"<html>not found</html>".as_slice()),
        ("empty.onnx", b""),
        ("inside.onnx", &inside),
    ] {
        let path = written(folder.path(), name, bytes);
        for error in [
            build(&library, &path, &BuildOptions::default(), None, &mut |_| {}).err().unwrap(),
            match unsupported(&library, &path) {
                Err(error) => error,
                Ok(refused) => {
                    assert!(name == "inside.onnx" && !refused.is_empty(), "{name}: {refused:?}");
                    continue;
                }
            },
        ] {
            let TrtError::Model(text) = &error else { panic!("{name}: {error:?}") };
            assert!(text.contains(name), "{text}");
        }
    }
    let absent = folder.path().join("absent.onnx");
    let refused = sentence(&unsupported(&library, &absent).unwrap_err());
    assert!(refused.contains("absent.onnx") && refused.contains("put the model there"), "{refused}");
}

#[test]
fn an_unknown_operator_is_named_with_its_node() {
    let Some(library) = rtx("an_unknown_operator") else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = written(folder.path(), "strange.onnx", &onnx::picture("Sorcery"));
    let refused = unsupported(&library, &model).unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((refused[0].node.as_str(), refused[0].op.as_str()), ("output", "Sorcery"), "{refused:?}");
    assert!(!refused[0].reason.is_empty());
    let error = build(&library, &model, &BuildOptions::default(), None, &mut |_| {}).unwrap_err();
    let TrtError::Model(text) = &error else { panic!("{error:?}") };
    assert!(text.contains("strange.onnx") && text.contains("node \"output\" (Sorcery)"), "{text}");
}

struct NoPictures;

impl Calibrator for NoPictures {
    fn batch_size(&self) -> usize {
        1
    }

    fn next(&mut self, _input: &str) -> Option<u64> {
        None
    }

    fn read_cache(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn write_cache(&mut self, _cache: &[u8]) {}
}

#[test]
fn where_precision_comes_from_the_model_calibration_is_refused_in_words() {
    let Some(library) = rtx("calibration") else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = written(folder.path(), "tiny.onnx", &onnx::yolov8());
    let options = BuildOptions::default();
    let refused = build(&library, &model, &options, Some(&mut NoPictures), &mut |_| {}).unwrap_err();
    assert!(sentence(&refused).contains("Q/DQ"), "{refused}");
}

#[test]
fn plugins_that_are_none_are_refused_in_words() {
    let Some(rtx) = rtx("plugins") else { return };
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("libabsent.so");
    let refused = rtx.load_plugins(&absent).unwrap_err();
    assert!(matches!(&refused, TrtError::Unavailable(text) if text.contains("libabsent.so")), "{refused:?}");
    // Registers itself while it is opened, as far as can be told.
    library(folder.path(), "libsilent.so", "int nothing(void) { return 1; }", &[]);
    rtx.load_plugins(&folder.path().join("libsilent.so")).unwrap();
    library(
        folder.path(),
        "libunwilling.so",
        "int initLibNvInferPlugins(void *l, const char *n) { return 0; }",
        &[],
    );
    let refused = rtx.load_plugins(&folder.path().join("libunwilling.so")).unwrap_err();
    assert!(sentence(&refused).contains("libunwilling.so"), "{refused}");
    // An engine is opened again and again, and TensorRT knows its plugins by then.
    let once = "static int calls; int initLibNvInferPlugins(void *l, const char *n) { return ++calls == 1; }";
    library(folder.path(), "libonce.so", once, &[]);
    for _ in 0..3 {
        rtx.load_plugins(&folder.path().join("libonce.so")).unwrap();
    }
    let silent = folder.path().join("libsilent.so");
    fs::set_permissions(&silent, Permissions::from_mode(0o757)).unwrap();
    let refused = rtx.load_plugins(&silent).unwrap_err();
    assert!(sentence(&refused).contains("libsilent.so: everyone may change this file"), "{refused}");
}

#[test]
fn what_is_no_engine_is_an_error() {
    let Some(library) = rtx("what_is_no_engine") else { return };
    for bytes in [b"".as_slice(), b"no engine", &[0; 4096]] {
        let error = Engine::load(&library, bytes, None).err().unwrap();
        assert!(matches!(&error, TrtError::Engine(text) if text.contains("build it again")), "{error:?}");
    }
}
