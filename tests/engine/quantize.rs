//! INT8 of libraries without calibration, with the real model and ONNX Runtime's tools.

use super::*;

/// As YOLOX-nano takes its pictures.
const INPUT: &str = "[input]\nrange = \"0..255\"\nchannels = \"bgr\"\nletterbox = \"top-left\"\n";

#[test]
fn a_model_that_was_quantized_with_frames_becomes_an_int8_engine() {
    let (Some(library), Some(assets)) = (rtx(), find_assets()) else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join(".quantize/PACKAGES").exists() {
        eprintln!("skipped: no tools: run scripts/quantize-onnx --fetch");
        return;
    }
    let site = Site::new();
    let model = assets.join("models/yolox_nano.onnx");
    let manifest =
        |model: &str| format!("name = \"nano\"\nmodel = {model:?}\nlabels = \"coco80\"\n{INPUT}[tensorrt]\n");
    site.write("plain.toml", manifest(model.to_str().unwrap()));
    site.write("int8.toml", manifest("int8.onnx") + "precision = \"int8\"\n");
    let quantize = |words: &[&str]| {
        ended(Command::new(root.join("scripts/quantize-onnx")).current_dir(site.0.path()).args(words))
    };
    let pictures = assets.join("coco-ccby/images").display().to_string();
    // As many as ONNX Runtime's tools once took for none.
    let words =
        ["calibrate", "--manifest", "plain.toml", "--images", &pictures, "--frames", "16", "--out", "frames"];
    assert_eq!(engine(site.0.path(), &words).code, Some(0));
    let model = model.to_str().unwrap();
    let quantized = quantize(&[model, "frames", "int8.onnx"]);
    assert_eq!(quantized.code, Some(0), "{quantized:#?}");
    assert!(quantized.out.contains("tensors quantized with 16 frames"), "{quantized:#?}");
    let built = engine(site.0.path(), &["build", "--manifest", "int8.toml", "--tensorrt", &library]);
    assert_eq!(built.code, Some(0), "{built:#?}");
    let stamp = built::stamp(&only_engine(&site.path("built"))).unwrap();
    assert_eq!((stamp.options.precision, stamp.model.precision), (Precision::Int8, Precision::Int8));
    // On a CPU the same model finds what the one before finds.
    let sure = |manifest: &str| {
        let out = format!("{manifest}.json");
        let found = ended(
            program().current_dir(site.0.path()).args(["detect", "--engine", manifest, "--coco", &out, &pictures]),
        );
        assert_eq!(found.code, Some(0), "{found:#?}");
        let boxes: Vec<Value> = serde_json::from_slice(&fs::read(site.path(&out)).unwrap()).unwrap();
        boxes.iter().filter(|found| found["score"].as_f64().unwrap() > 0.3).count()
    };
    let (plain, int8) = (sure("plain.toml"), sure("int8.toml"));
    assert!(plain > 100 && int8 * 10 > plain * 8 && int8 * 10 < plain * 12, "{int8} of {plain}");
    let frames = fs::read(site.path("frames")).unwrap();
    site.write("cut", &frames[..frames.len() - 1]);
    for (words, said) in [
        (["absent.onnx", "frames", "x.onnx"], "absent.onnx: No such file"),
        (["frames", "frames", "x.onnx"], "frames: it is no ONNX model"),
        ([model, "absent", "x.onnx"], "run `watchpost engine calibrate`"),
        ([model, "plain.toml", "x.onnx"], "it holds no frames: run `watchpost engine calibrate`"),
        (["int8.onnx", "frames", "x.onnx"], "it is quantized already"),
        ([model, "cut", "x.onnx"], "it was cut off, so gather the frames again"),
        ([model, "frames", "frames"], "it would be written over what is read"),
        ([model, "frames", "nowhere/x.onnx"], "its folder is not there"),
    ] {
        let refused = quantize(&words);
        assert!(
            refused.code == Some(1) && refused.err.lines().count() == 1 && refused.err.contains(said),
            "{refused:#?}"
        );
    }
}
