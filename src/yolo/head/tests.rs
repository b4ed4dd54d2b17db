//! Recognition: what fits is found, what does not is refused in words.

use super::*;

const INPUT: (u32, u32) = (416, 416);

fn float(name: &str, shape: &[usize]) -> TensorSpec {
    let shape = shape.iter().map(|d| (*d > 0).then_some(*d)).collect();
    TensorSpec { name: name.to_owned(), shape, integer: false }
}

fn integer(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec { integer: true, ..float(name, shape) }
}

fn picture() -> Vec<TensorSpec> {
    vec![float("images", &[1, 3, 416, 416])]
}

fn auto(outputs: &[TensorSpec], labels: usize) -> Result<HeadKind, String> {
    let head = Head::resolve(HeadChoice::Auto, false, &picture(), outputs, INPUT, labels);
    head.map(|head| head.kind()).map_err(|e| e.to_string())
}

fn named(kind: HeadKind, outputs: &[TensorSpec], labels: usize) -> Result<HeadKind, String> {
    let head = Head::resolve(HeadChoice::Named(kind), false, &picture(), outputs, INPUT, labels);
    head.map(|head| head.kind()).map_err(|e| e.to_string())
}

#[test]
fn one_tensor_heads_are_recognised_from_shapes() {
    for (shape, labels, kind) in [
        ([1, 84, 3549], 80, HeadKind::Yolov8),
        ([8, 84, 8400], 80, HeadKind::Yolov8),
        ([1, 5, 3549], 1, HeadKind::Yolov8),
        ([1, 6, 3549], 2, HeadKind::Yolov8),
        ([1, 84, 0], 80, HeadKind::Yolov8),
        ([1, 3549, 85], 80, HeadKind::Yolox),
        ([1, 3549, 6], 1, HeadKind::Yolox),
        ([1, 10647, 85], 80, HeadKind::Yolov5),
        ([4, 10647, 6], 1, HeadKind::Yolov5),
        ([1, 3 * (3549 + 49), 6], 1, HeadKind::Yolov5),
        ([1, 300, 6], 80, HeadKind::EndToEnd),
        ([1, 300, 6], 1, HeadKind::EndToEnd),
        ([1, 0, 6], 80, HeadKind::EndToEnd),
    ] {
        assert_eq!(auto(&[float("output0", &shape)], labels), Ok(kind), "{shape:?} {labels}");
    }
}

#[test]
fn further_outputs_of_old_exports_do_not_matter() {
    let outputs =
        [float("350", &[1, 3, 52, 52, 85]), float("output", &[1, 10647, 85]), float("498", &[1, 3, 26, 26, 85])];
    assert_eq!(auto(&outputs, 80), Ok(HeadKind::Yolov5));
}

#[test]
fn a_decoded_export_of_an_anchor_free_model_is_named_yolov5() {
    let outputs = [float("output0", &[1, 3549, 85])];
    assert_eq!(auto(&outputs, 80), Ok(HeadKind::Yolox));
    assert_eq!(named(HeadKind::Yolov5, &outputs, 80), Ok(HeadKind::Yolov5));
}

#[test]
fn heads_of_several_tensors_are_recognised_from_names() {
    let efficient = [
        integer("num_dets", &[1, 1]),
        float("det_boxes", &[1, 100, 4]),
        float("det_scores", &[1, 100]),
        integer("det_classes", &[1, 100]),
    ];
    assert_eq!(auto(&efficient, 80), Ok(HeadKind::EfficientNms));

    let deployed = [integer("labels", &[0, 300]), float("boxes", &[0, 300, 4]), float("scores", &[0, 300])];
    let sizes = [picture(), vec![integer("orig_target_sizes", &[0, 2])]].concat();
    let head = Head::resolve(HeadChoice::Auto, false, &sizes, &deployed, INPUT, 80).expect("a deployed DETR");
    assert_eq!((head.kind(), head.size_input()), (HeadKind::Detr, Some(1)));
    // Without that input these are boxes of an unknown unit.
    assert!(auto(&deployed, 80).is_err_and(|e| e.contains("orig_target_sizes")));

    let raw = [float("logits", &[1, 300, 80]), float("pred_boxes", &[1, 300, 4])];
    let head = Head::resolve(HeadChoice::Auto, false, &picture(), &raw, INPUT, 80).expect("a raw DETR");
    assert_eq!((head.kind(), head.size_input()), (HeadKind::Detr, None));
    // 81 logits are a softmax with a class for "nothing".
    assert!(auto(&raw, 79).is_err());
}

#[test]
fn a_refusal_says_what_there_is_what_was_tried_and_what_to_do() {
    let outputs = [float("output0", &[1, 84, 3549])];
    let error = auto(&outputs, 3).expect_err("three labels");
    for part in
        ["`output0` 1x84x3549 float", "3 labels", "yolov8 (B x 7 x boxes)", "80 classes", "end-to-end", "detr"]
    {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    let error = named(HeadKind::Yolox, &outputs, 80).expect_err("another layout");
    for part in
        ["`head = \"yolox\"`", "B x 3549 x 85", "`output0` 1x84x3549 float", "`head = \"auto\"` finds yolov8"]
    {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert!(named(HeadKind::Yolox, &[float("output0", &[1, 10647, 85])], 80).is_err());
    assert!(auto(&[float("output0", &[1, 3549, 85])], 20).is_err_and(|e| e.contains("80 classes")));
    assert!(auto(&[], 80).is_err_and(|e| e.contains("no outputs")));
    assert!(auto(&[float("output0", &[1, 1000])], 80).is_err());
    assert!(auto(&[integer("output0", &[1, 84, 3549])], 80).is_err());
    assert!(auto(&outputs, 0).is_err());
}

#[test]
fn shapes_that_two_heads_have_must_be_named() {
    // 296 classes of YOLOv8 over 6 boxes, or 300 end-to-end boxes.
    let outputs = [float("output0", &[1, 300, 6])];
    assert!(auto(&outputs, 296).is_err_and(|e| e.contains("yolov8 and end-to-end")));
    assert_eq!(named(HeadKind::EndToEnd, &outputs, 296), Ok(HeadKind::EndToEnd));
    // Boxes left open: a grid or not, nobody knows.
    let outputs = [float("output0", &[1, 0, 85])];
    assert!(auto(&outputs, 80).is_err());
    assert_eq!(named(HeadKind::Yolov5, &outputs, 80), Ok(HeadKind::Yolov5));
    assert_eq!(named(HeadKind::Yolox, &outputs, 80), Ok(HeadKind::Yolox));
}

#[test]
fn inputs_that_nobody_can_feed_are_refused() {
    let inputs = [picture(), vec![float("scale_factor", &[1, 2])]].concat();
    let outputs = [float("output0", &[1, 84, 3549])];
    let error = Head::resolve(HeadChoice::Auto, false, &inputs, &outputs, INPUT, 80).expect_err("scale_factor");
    assert!(error.to_string().contains("`scale_factor`"), "{error}");
}

#[test]
fn names_of_heads_go_both_ways() {
    for kind in HeadKind::ALL {
        assert_eq!(HeadKind::from_name(kind.name()), Some(kind));
    }
    assert_eq!(HeadKind::from_name("auto"), None);
}

#[test]
fn resolving_never_panics() {
    let mut random = fastrand::Rng::with_seed(3);
    let names = ["output0", "labels", "boxes", "scores", "logits", "pred_boxes", "num_dets", "orig_target_sizes"];
    let sizes = [0, 1, 4, 5, 6, 84, 85, 3549, usize::MAX];
    for _ in 0..5000 {
        let mut spec = || {
            let shape: Vec<usize> = (0..random.usize(0..5)).map(|_| sizes[random.usize(..sizes.len())]).collect();
            TensorSpec { integer: random.bool(), ..float(names[random.usize(..names.len())], &shape) }
        };
        let (inputs, outputs) = ([spec()], [spec(), spec(), spec()]);
        let labels = sizes[random.usize(..sizes.len())];
        let kind = HeadKind::ALL[random.usize(..6)];
        let choice = if random.bool() { HeadChoice::Auto } else { HeadChoice::Named(kind) };
        let input = (random.u32(..) >> random.u32(0..32), random.u32(..) >> random.u32(0..32));
        let _ = Head::resolve(choice, random.bool(), &inputs, &outputs, input, labels);
    }
}
