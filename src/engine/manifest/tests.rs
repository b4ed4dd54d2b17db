//! Manifests as they are written: defaults, every kind of mistake, and the ones in `engines/`.

use super::*;
use crate::yolo::head::HeadKind;

const LEAST: &str = "name = \"m\"\nmodel = \"m.onnx\"\nlabels = [\"person\"]\n";

fn parse(text: &str) -> Result<Manifest, Problems> {
    let read = |path: &Path| match path.to_str() {
        Some("/etc/names.txt") => Ok("person\ntraffic light\n\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    Manifest::parse(text, Path::new("/etc"), read)
}

/// The problems of a text, one a line.
fn problems(text: &str) -> String {
    parse(text).expect_err("a mistake").to_string()
}

#[test]
fn what_the_configuration_says_takes_the_manifests_place() {
    let text = format!("{LEAST}sha256 = \"{}\"\n", "ab".repeat(32));
    let manifest = parse(&text).expect("a manifest");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("m.toml"), "").expect("a file");
    let engine = |settings: &str| {
        let text = format!(
            "node = \"a\"\n[engine]\nmanifest = \"m.toml\"\n{settings}[[camera]]\nid = \"a\"\nurl = \"test://\"\n"
        );
        crate::config::parse(&text, folder.path()).expect("a configuration").engine
    };
    assert_eq!(manifest.overridden(&engine("")), manifest);
    let other = manifest.overridden(&engine("model = \"/o.onnx\"\nconfidence = 0.9\nnms = 0.1\n"));
    assert_eq!((other.model, other.sha256), (PathBuf::from("/o.onnx"), None));
    assert_eq!((other.thresholds.confidence, other.thresholds.nms), (0.9, 0.1));
}

#[test]
fn defaults_are_those_of_a_common_yolo_export() {
    let manifest = parse(LEAST).expect("a manifest");
    let input = InputSpec {
        size: None,
        range: Range::Unit,
        channels: Channels::Rgb,
        fit: Fit::Centre,
        pad: 114,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let expected = Manifest {
        name: "m".to_owned(),
        model: PathBuf::from("/etc/m.onnx"),
        sha256: None,
        labels: Arc::new(vec!["person".to_owned()]),
        input,
        output: OutputSpec { head: HeadChoice::Auto, logits: false },
        thresholds: Thresholds { confidence: 0.3, nms: 0.45, max_candidates: 1000, max_detections: 300 },
        tensorrt: TensorrtSpec {
            precision: Precision::Fp16,
            workspace: None,
            batches: None,
            plugins: Vec::new(),
            dla_core: None,
            sparse: false,
            calibration: None,
        },
    };
    assert_eq!(manifest, expected);
}

#[test]
fn every_setting_is_read() {
    let digest = "AB".repeat(32);
    let text = format!(
        "name = \"m\"\nmodel = \"/models/m.onnx\"\nlabels_file = \"names.txt\"\nsha256 = \"{digest}\"\n\
         [input]\nsize = [640, 384]\nrange = \"0..255\"\nchannels = \"bgr\"\nletterbox = \"top-left\"\npad = 0\n\
         mean = [103.5, 116, 123]\nstd = [57, 57.5, 58]\n\
         [output]\nhead = \"efficient-nms\"\nlogits = true\n\
         [thresholds]\nconfidence = 0.5\nnms = 1\nmax_candidates = 10\nmax_detections = 5\n"
    );
    let manifest = parse(&text).expect("a manifest");
    assert_eq!(manifest.model, Path::new("/models/m.onnx"));
    assert_eq!(*manifest.labels, ["person", "traffic light"]);
    assert_eq!(manifest.sha256, Some("ab".repeat(32)));
    let input = InputSpec {
        size: Some((640, 384)),
        range: Range::Byte,
        channels: Channels::Bgr,
        fit: Fit::TopLeft,
        pad: 0,
        mean: [103.5, 116.0, 123.0],
        std: [57.0, 57.5, 58.0],
    };
    assert_eq!(manifest.input, input);
    assert_eq!(manifest.output, OutputSpec { head: HeadChoice::Named(HeadKind::EfficientNms), logits: true });
    let thresholds = Thresholds { confidence: 0.5, nms: 1.0, max_candidates: 10, max_detections: 5 };
    assert_eq!(manifest.thresholds, thresholds);
}

#[test]
fn how_an_engine_is_built_is_read() {
    let text = "[tensorrt]\nprecision = \"int8\"\nworkspace = \"2GiB\"\nbatches = [1, 8, 16]\n\
                plugins = [\"libmy.so\", \"/opt/other.so\"]\ndla_core = 1\nsparse = true\ncalibration = \"m.frames\"\n";
    let read = parse(&format!("{LEAST}{text}")).expect("a manifest").tensorrt;
    let expected = TensorrtSpec {
        precision: Precision::Int8,
        workspace: Some(2 << 30),
        batches: Some([1, 8, 16]),
        plugins: vec![PathBuf::from("/etc/libmy.so"), PathBuf::from("/opt/other.so")],
        dla_core: Some(1),
        sparse: true,
        calibration: Some(PathBuf::from("/etc/m.frames")),
    };
    assert_eq!(read, expected);
    let many = (0..17).map(|i| format!("\"{i}.so\"")).collect::<Vec<_>>().join(",");
    for (extra, start, part) in [
        ("precision = \"bf16\"", "line 5: precision: ", "`fp16`"),
        ("workspace = \"2\"", "line 5: tensorrt.workspace: is no size", "\"1GiB\""),
        ("workspace = \"0MiB\"", "line 5: tensorrt.workspace: is no size", ""),
        ("batches = [1, 8]", "line 5: batches: ", ""),
        ("batches = [8, 4, 16]", "line 5: tensorrt.batches: is no row", "rising, from 1 to 256"),
        ("batches = [0, 4, 16]", "line 5: tensorrt.batches: is no row", ""),
        ("batches = [1, 4, 257]", "line 5: tensorrt.batches: is no row", ""),
        ("dla_core = 2", "line 5: tensorrt.dla_core: is no accelerator: give 0 or 1", ""),
        ("dla_core = 0\nprecision = \"fp32\"", "line 5: tensorrt.dla_core: computes in fp16 or int8 only", ""),
        (&format!("plugins = [{many}]"), "line 5: tensorrt.plugins: is too long: give at most 16", ""),
        ("colour = 1", "line 5: colour: unknown field", "`calibration`"),
    ] {
        let told = problems(&format!("{LEAST}[tensorrt]\n{extra}\n"));
        assert!(told.starts_with(start) && told.contains(part) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_line() {
    let text = "name = \"\"\nlabels = []\nsha256 = \"12\"\n[input]\nsize = [8, 640]\nmean = [nan, 0, 0]\n\
                std = [1, 0, 1]\n[output]\nhead = \"yolov3\"\n[thresholds]\nconfidence = 1.5\nnms = -0.1\n\
                max_candidates = 0\nmax_detections = 1000000\n";
    let told = problems(text);
    let lines: Vec<&str> = told.lines().collect();
    for (line, start) in lines.iter().zip([
        "line 1: name: is empty",
        "model: is missing",
        "line 3: sha256: is not a SHA-256",
        "line 2: labels: is empty",
        "line 5: input.size: is out of range",
        "line 6: input.mean: is not finite",
        "line 7: input.std: divides",
        "line 9: output.head: \"yolov3\" is no head: give one of auto, yolov5",
        "line 11: thresholds.confidence: 1.5 is out of range: give 0 to 1",
        "line 12: thresholds.nms: -0.1",
        "line 13: thresholds.max_candidates: 0",
        "line 14: thresholds.max_detections: 1000000",
    ]) {
        assert!(line.starts_with(start), "{start}\n{told}");
    }
    assert_eq!(lines.len(), 12, "{told}");
}

#[test]
fn mistakes_of_form_have_their_line_and_key() {
    for (extra, start, part) in [
        ("labls = 3\n", "line 4: labls: ", "unknown field `labls`"),
        ("[input]\nrange = \"0-1\"\n", "line 5: range: ", "`0..255`"),
        ("[input]\nletterbox = \"center\"\n", "line 5: letterbox: ", "`centre`"),
        ("[input]\npad = 300\n", "line 5: pad: ", "u8"),
        ("[thresholds]\nconfidence = \"high\"\n", "line 5: confidence: ", "expected f32"),
        ("[output\n", "line 4: [output: ", ""),
        ("name = \"again\"\n", "line 4: name: ", "duplicate"),
    ] {
        let told = problems(&format!("{LEAST}{extra}"));
        assert!(told.starts_with(start) && told.contains(part), "{told}");
    }
    let told = problems("name = \"m\"\nmodel = \"m.onnx\"\nlabels = 80\n");
    assert!(told.starts_with("line 3: labels: ") && told.contains("\"coco80\" or a list"), "{told}");
}

#[test]
fn labels_come_from_one_place() {
    let with = |labels: &str| format!("name = \"m\"\nmodel = \"m.onnx\"\n{labels}\n");
    let coco = parse(&with("labels = \"coco80\"")).expect("a manifest").labels;
    assert_eq!((coco.len(), coco[0].as_str(), coco[79].as_str()), (80, "person", "toothbrush"));
    for (labels, part) in [
        ("", "labels: is missing"),
        ("labels = \"coco91\"", "line 3: labels: \"coco91\" is no built-in list"),
        ("labels = \"coco80\"\nlabels_file = \"names.txt\"", "line 4: labels_file: stands beside `labels`"),
        ("labels_file = \"none.txt\"", "line 3: labels_file: none.txt cannot be read"),
        ("labels = [\"a\", \" \"]", "line 3: labels: the name of class 1 is empty"),
        ("labels = [\"a\\nb\"]", "class 0 holds a control character"),
    ] {
        let told = problems(&with(labels));
        assert!(told.contains(part) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn hostile_text_is_answered() {
    let mut random = fastrand::Rng::with_seed(17);
    let whole = include_bytes!("../../../engines/yolox-nano.toml");
    for _ in 0..300 {
        let mut bytes = whole[whole.len() - 700..random.usize(whole.len() - 700..whole.len())].to_vec();
        for _ in 0..random.usize(0..4) {
            if !bytes.is_empty() {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
        }
        if let Err(problems) = parse(&String::from_utf8_lossy(&bytes)) {
            assert!(!problems.0.is_empty());
        }
    }
    let _ = parse("\u{feff}名前 = \"é\n\"");
}

#[test]
fn manifests_of_this_project_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("engines/") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "toml") {
            let manifest = Manifest::load(&path).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(path.file_stem().and_then(|s| s.to_str()), Some(manifest.name.as_str()));
            assert!(
                manifest.sha256.is_some() && manifest.labels.len() == 80 && manifest.model.starts_with(&folder)
            );
            names.push(manifest.name);
        }
    }
    assert!(names.len() >= 5, "{names:?}");
}

/// The head of `engines/yolox-nano.toml` claims that what is commented out stands at its default.
#[test]
fn commented_settings_of_the_documented_manifest_are_the_defaults() {
    let text = include_str!("../../../engines/yolox-nano.toml");
    let optional = [
        "pad =",
        "mean =",
        "std =",
        "logits =",
        "confidence =",
        "nms =",
        "max_",
        "precision =",
        "plugins =",
        "sparse =",
    ];
    let uncommented = |line: &'static str| match line.strip_prefix("# ") {
        Some(setting) if optional.iter().any(|key| setting.starts_with(key)) => setting,
        _ => line,
    };
    let lines: Vec<&str> = text.lines().map(uncommented).collect();
    assert_eq!(lines.iter().filter(|line| !line.starts_with('#') && line.contains('=')).count(), 8 + 11);
    let shown = parse(&lines.join("\n")).expect("every setting uncommented");
    assert_eq!(shown, parse(text).expect("the file as it is"));
}

#[test]
fn a_model_is_held_against_its_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("m.onnx");
    std::fs::write(&model, "abc").expect("a file");
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest(&model).expect("a digest"), abc);

    let path = folder.path().join("m.toml");
    let load = |sha256: &str| {
        std::fs::write(&path, format!("sha256 = \"{sha256}\"\n{LEAST}")).expect("a file");
        Manifest::load(&path).expect("a manifest")
    };
    assert_eq!(load(abc).check_sha256().expect("the same"), abc);
    let error = load(&"0".repeat(64)).check_sha256().expect_err("another").to_string();
    assert!(error.contains(abc) && error.contains("m.onnx"), "{error}");

    let mut away = load(abc);
    away.model = folder.path().join("none.onnx");
    assert!(matches!(away.check_sha256(), Err(ManifestError::Read { path, .. }) if path == away.model));
    assert!(matches!(Manifest::load(&folder.path().join("none.toml")), Err(ManifestError::Read { .. })));
    std::fs::write(&path, "name = 3\n").expect("a file");
    let error = Manifest::load(&path).expect_err("a number").to_string();
    assert!(error.contains("m.toml is not a valid engine manifest:\nline 1: name: "), "{error}");
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("a file");
    assert!(matches!(Manifest::load(&path), Err(ManifestError::Read { .. })));
}

#[test]
fn models_mean_the_same_where_labels_pictures_and_heads_do() {
    let of =
        |more: &str| parse(&format!("name = \"m\"\nmodel = \"m.onnx\"\n{more}")).expect("a manifest").meaning();
    let meaning = of("labels = [\"a\", \"b\"]\n");
    assert_eq!(meaning.len(), 64);
    for same in
        ["[thresholds]\nconfidence = 0.1\n", "[tensorrt]\nprecision = \"int8\"\n", "[input]\nsize = [320, 320]\n"]
    {
        assert_eq!(of(&format!("labels = [\"a\", \"b\"]\n{same}")), meaning, "{same}");
    }
    for other in [
        "labels = [\"b\", \"a\"]\n",
        "labels = [\"a\", \"b\"]\n[input]\nchannels = \"bgr\"\n",
        "labels = [\"a\", \"b\"]\n[output]\nhead = \"yolox\"\n",
    ] {
        assert_ne!(of(other), meaning, "{other}");
    }
}
