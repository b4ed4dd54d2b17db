//! Each thing that may differ is said, and nothing else is.

use super::*;

/// A stamp of an H100.
pub(crate) fn stamp() -> Stamp {
    Stamp {
        schema: SCHEMA.to_owned(),
        watchpost: "0.1.0".to_owned(),
        built: "2026-03-01T10:00:00.000Z".to_owned(),
        seconds: 36,
        sha256: "ab".repeat(32),
        model: Model {
            name: "m".to_owned(),
            sha256: "cd".repeat(32),
            precision: Precision::Fp32,
            meaning: Some("01".repeat(32)),
        },
        tensorrt: Runtime { flavour: Flavour::TensorRT, version: "8.5.3.1".to_owned() },
        gpu: Some(gpu("NVIDIA H100 80GB HBM3", "9.0")),
        options: options(),
    }
}

fn options() -> Options {
    Options {
        precision: Precision::Fp16,
        batch: 16,
        batches: [16, 16, 16],
        input: (640, 640),
        workspace: None,
        dla_core: None,
        sparse: false,
        plugins: Vec::new(),
        calibration: None,
    }
}

fn gpu(name: &str, sm: &str) -> Gpu {
    Gpu { name: name.to_owned(), sm: sm.to_owned(), cuda: "13.0".to_owned() }
}

fn machine() -> Machine {
    Machine { tensorrt: stamp().tensorrt, gpu: stamp().gpu }
}

fn wanted() -> Wanted {
    Wanted { model_sha256: Some("cd".repeat(32)), options: options() }
}

#[test]
fn a_stamp_survives_its_file() {
    let text = toml::to_string(&stamp()).expect("TOML");
    assert!(text.contains("flavour = \"TensorRT\"\n") && text.contains("precision = \"fp16\"\n"), "{text}");
    assert_eq!(toml::from_str::<Stamp>(&text).expect("a stamp"), stamp());
    let full = Options {
        workspace: Some(1 << 30),
        dla_core: Some(1),
        plugins: vec!["ef".repeat(32)],
        calibration: Some("cd".repeat(32)),
        batches: [1, 8, 16],
        ..options()
    };
    let tensorrt = Runtime { flavour: Flavour::Rtx, version: "1.7.1".to_owned() };
    let bare = Stamp { gpu: None, tensorrt, options: full, ..stamp() };
    let text = toml::to_string(&bare).expect("TOML");
    assert!(text.contains("\"TensorRT-RTX\""), "{text}");
    assert_eq!(toml::from_str::<Stamp>(&text).expect("a stamp"), bare);
    assert!(toml::from_str::<Stamp>(&format!("colour = 1\n{text}")).is_err());
}

#[test]
fn an_engine_fits_where_it_was_built() {
    assert_eq!(stamp().mismatch(&machine(), &wanted()), [""; 0]);
    let no_model = Wanted { model_sha256: None, ..wanted() };
    assert_eq!(stamp().mismatch(&Machine { gpu: None, ..machine() }, &no_model), [""; 0]);
    // A newer driver runs what an older one built.
    let driver =
        Machine { gpu: Some(Gpu { cuda: "14.2".to_owned(), ..gpu("NVIDIA H100 80GB HBM3", "9.0") }), ..machine() };
    assert_eq!(stamp().mismatch(&driver, &wanted()), [""; 0]);
    // Built without a GPU by a library that builds for any.
    assert_eq!(Stamp { gpu: None, ..stamp() }.mismatch(&machine(), &wanted()), [""; 0]);
}

#[test]
fn each_difference_of_the_machine_is_said() {
    let said = |machine: Machine| stamp().mismatch(&machine, &wanted());
    let runtime = |flavour, version: &str| Runtime { flavour, version: version.to_owned() };
    for (tensorrt, words) in [
        (
            runtime(Flavour::TensorRT, "8.5.2.2"),
            "it was built by TensorRT 8.5.3.1, this machine has TensorRT 8.5.2.2",
        ),
        (
            runtime(Flavour::Rtx, "8.5.3.1"),
            "it was built by TensorRT 8.5.3.1, this machine has TensorRT-RTX 8.5.3.1",
        ),
    ] {
        assert_eq!(said(Machine { tensorrt, ..machine() }), [words]);
    }
    // The same compute capability, another GPU.
    let h200 = Machine { gpu: Some(gpu("NVIDIA H200", "9.0")), ..machine() };
    let built = "it was built on NVIDIA H100 80GB HBM3 (SM 9.0), this machine has";
    assert_eq!(said(h200), [format!("{built} NVIDIA H200 (SM 9.0)")]);
    let orin = Machine { gpu: Some(gpu("Orin", "8.7")), ..machine() };
    assert_eq!(said(orin), [format!("{built} Orin (SM 8.7)")]);
}

#[test]
fn each_difference_of_what_is_wanted_is_said() {
    let cases = [
        (Options { precision: Precision::Int8, ..options() }, "it was built for fp16, int8 is wanted"),
        (Options { input: (640, 384), ..options() }, "it was built for input 640x640, 640x384 is wanted"),
        (
            Options { workspace: Some(1 << 30), ..options() },
            "it was built with a workspace of no limit, 1024 MiB is wanted",
        ),
        (Options { dla_core: Some(0), ..options() }, "it was built for the GPU, DLA core 0 is wanted"),
        (Options { sparse: true, ..options() }, "it was built for dense weights, sparse weights is wanted"),
        (Options { plugins: vec!["ab".repeat(32)], ..options() }, "it was built with other plug-in libraries"),
        (
            Options { calibration: Some("ab".repeat(32)), ..options() },
            "it was calibrated with other frames, or another table",
        ),
        (Options { batch: 8, ..options() }, "it takes batches of 16, 8 is wanted"),
    ];
    for (options, words) in cases {
        assert_eq!(stamp().mismatch(&machine(), &Wanted { options, ..wanted() }), [words]);
    }
    let model = Wanted { model_sha256: Some("ef".repeat(32)), ..wanted() };
    let words = "it was built from another model (SHA-256 cdcdcdcdcdcd…, the model here has efefefefefef…)";
    assert_eq!(stamp().mismatch(&machine(), &model), [words]);
}

#[test]
fn a_range_of_batches_takes_each_of_them() {
    let ranged = Stamp { options: Options { batches: [2, 8, 16], ..options() }, ..stamp() };
    let said = |batch| ranged.mismatch(&machine(), &Wanted { options: Options { batch, ..options() }, ..wanted() });
    assert_eq!((said(2), said(16)), (Vec::new(), Vec::new()));
    assert_eq!(said(17), ["it takes batches of 2 to 16, 17 is wanted"]);
    assert_eq!(said(1), ["it takes batches of 2 to 16, 1 is wanted"]);
}

#[test]
fn the_refusal_names_the_file_every_fact_and_the_next_step() {
    let facts = ["it was A".to_owned(), "it was B".to_owned()];
    let text = refusal(Path::new("/var/lib/m.engine"), &facts);
    assert_eq!(text, "engine /var/lib/m.engine: it was A; it was B: build it again with `watchpost engine build`");
}

#[test]
fn precisions_have_names() {
    for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
        assert_eq!(Precision::from_name(precision.name()), Some(precision));
    }
    assert_eq!(Precision::from_name("bf16"), None);
}

#[test]
fn an_engine_serves_meanwhile_where_its_boxes_mean_what_is_wanted() {
    let meaning = "01".repeat(32);
    let verdict = |stamp: &Stamp, wanted: &Wanted| stamp.verdict(&machine(), wanted, &meaning);
    let other_model = Wanted { model_sha256: Some("ee".repeat(32)), ..wanted() };
    let other_precision = Wanted { options: Options { precision: Precision::Int8, ..options() }, ..wanted() };
    let with = |options: Options| Wanted { options, ..other_model.clone() };
    assert_eq!(verdict(&stamp(), &wanted()), Verdict::Good);
    for wanted in [&other_model, &other_precision] {
        assert!(matches!(verdict(&stamp(), wanted), Verdict::Meanwhile(facts) if facts.len() == 1));
    }
    for wanted in [with(Options { input: (320, 320), ..options() }), with(Options { batch: 8, ..options() })] {
        assert!(matches!(verdict(&stamp(), &wanted), Verdict::Unfit(_)));
    }
    let elsewhere = Machine { gpu: Some(gpu("NVIDIA L4", "8.9")), ..machine() };
    assert!(matches!(stamp().verdict(&elsewhere, &other_model, &meaning), Verdict::Unfit(_)));
    // Other labels, or a stamp that does not say: as good as none for another model, and all the same for its own.
    let mut silent = stamp();
    silent.model.meaning = None;
    for (stamp, meaning) in [(&stamp(), "02".repeat(32)), (&silent, meaning.clone())] {
        assert!(matches!(stamp.verdict(&machine(), &other_model, &meaning), Verdict::Unfit(_)));
        assert_eq!(stamp.verdict(&machine(), &wanted(), &meaning), Verdict::Good);
    }
}
