//! Decoding against a slow reference, in every layout, with lanes, limits and hostile numbers.

use super::*;
use crate::engine::HeadChoice;
use crate::letterbox::Fit;
use crate::yolo::head::HeadKind;
use crate::yolo::{TensorData, TensorSpec};

const INPUT: (u32, u32) = (64, 32);
/// 8 × 4 + 4 × 2 + 2 × 1.
const CELLS: usize = 42;

/// Outputs with their own memory.
struct Output {
    name: &'static str,
    shape: Vec<usize>,
    data: Data,
}

enum Data {
    F32(Vec<f32>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

fn float(name: &'static str, shape: &[usize], data: Vec<f32>) -> Output {
    Output { name, shape: shape.to_vec(), data: Data::F32(data) }
}

impl Output {
    fn view(&self) -> TensorView<'_> {
        let data = match &self.data {
            Data::F32(data) => TensorData::F32(data),
            Data::I32(data) => TensorData::I32(data),
            Data::I64(data) => TensorData::I64(data),
        };
        TensorView { name: self.name, shape: &self.shape, data }
    }

    fn spec(&self) -> TensorSpec {
        let shape = self.shape.iter().copied().map(Some).collect();
        TensorSpec { name: self.name.to_owned(), shape, integer: !matches!(self.data, Data::F32(_)) }
    }
}

fn resolve(kind: HeadKind, logits: bool, outputs: &[Output], labels: usize) -> Head {
    let specs: Vec<TensorSpec> = outputs.iter().map(Output::spec).collect();
    let sizes = TensorSpec { name: "orig_target_sizes".to_owned(), shape: vec![None, Some(2)], integer: true };
    Head::resolve(HeadChoice::Named(kind), logits, &[sizes], &specs, INPUT, labels).expect("a head")
}

fn whole() -> Letterbox {
    Letterbox::new((640, 320), INPUT, Fit::Centre)
}

fn decode(head: &Head, outputs: &[Output], lane: usize, confidence: f32, limit: usize) -> Candidates {
    let views: Vec<TensorView> = outputs.iter().map(Output::view).collect();
    // What a batch before has left must not matter.
    let old = Candidate { rect: [0.0, 0.0, 1.0, 1.0], score: 1.0, class: 0 };
    let mut out = Candidates { boxes: vec![old], final_boxes: true, dropped: 7 };
    head.decode(&views, lane, &whole(), confidence, limit, &mut out).expect("well-formed outputs");
    out.boxes.sort_by(Candidate::rank);
    out
}

/// A box as the layouts store it: centre and size in input pixels, objectness, class probabilities.
#[derive(Clone)]
struct Stored {
    centre: [f32; 4],
    objectness: f32,
    classes: Vec<f32>,
}

fn random_box(random: &mut fastrand::Rng, classes: usize) -> Stored {
    let mut near = |from: f32, span: f32| from + random.f32() * span;
    let centre = [near(-20.0, 110.0), near(-20.0, 80.0), near(-1.0, 40.0), near(-1.0, 40.0)];
    // A few in a hundred pass, as in life.
    let objectness = near(0.0, 1.0).powi(2);
    Stored { centre, objectness, classes: (0..classes).map(|_| near(0.0, 1.0)).collect() }
}

fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The boxes with their probabilities as they come back from logits, rounding included.
fn through_logits(boxes: &[Stored]) -> Vec<Stored> {
    let there_and_back = |p: f32| sigmoid(logit(p));
    let one = |b: &Stored| Stored {
        centre: b.centre,
        objectness: there_and_back(b.objectness),
        classes: b.classes.iter().map(|p| there_and_back(*p)).collect(),
    };
    boxes.iter().map(one).collect()
}

/// What the text of the documentation says, box by box.
fn reference(boxes: &[Stored], objectness: bool, confidence: f32, limit: usize) -> (Vec<Candidate>, u32) {
    let mut all = Vec::new();
    for b in boxes {
        let mut best = (0, f32::MIN);
        for (class, score) in b.classes.iter().enumerate() {
            best = if *score > best.1 { (class as u32, *score) } else { best };
        }
        let score = best.1 * if objectness { b.objectness } else { 1.0 };
        let [x, y, w, h] = b.centre;
        let rect = [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0];
        let inside = rect[0] < 64.0 && rect[2] > 0.0 && rect[1] < 32.0 && rect[3] > 0.0;
        if score >= confidence && inside && w > 0.0 && h > 0.0 {
            all.push(Candidate { rect, score, class: best.0 });
        }
    }
    all.sort_by(Candidate::rank);
    let dropped = all.len().saturating_sub(limit) as u32;
    all.truncate(limit);
    (all, dropped)
}

fn assert_close(got: &Candidates, expected: &(Vec<Candidate>, u32), what: &str) {
    assert_eq!((got.boxes.len(), got.dropped), (expected.0.len(), expected.1), "{what}");
    for (a, b) in got.boxes.iter().zip(&expected.0) {
        let apart = a.rect.iter().zip(&b.rect).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a.class == b.class && (a.score - b.score).abs() < 1e-5 && apart < 1e-3, "{what}: {a:?} {b:?}");
    }
}

fn rows(lanes: &[Vec<Stored>], map: impl Fn(f32) -> f32) -> Output {
    let (boxes, classes) = (lanes[0].len(), lanes[0][0].classes.len());
    let mut data = Vec::new();
    for b in lanes.iter().flatten() {
        data.extend(b.centre);
        data.push(map(b.objectness));
        data.extend(b.classes.iter().map(|p| map(*p)));
    }
    float("output", &[lanes.len(), boxes, 5 + classes], data)
}

/// `weighted`: class scores are those times the objectness.
fn planes(lanes: &[Vec<Stored>], weighted: bool, map: impl Fn(f32) -> f32) -> Output {
    let (boxes, classes) = (lanes[0].len(), lanes[0][0].classes.len());
    let mut data = Vec::new();
    for lane in lanes {
        for channel in 0..4 {
            data.extend(lane.iter().map(|b| b.centre[channel]));
        }
        for class in 0..classes {
            data.extend(lane.iter().map(|b| map(b.classes[class] * if weighted { b.objectness } else { 1.0 })));
        }
    }
    float("output", &[lanes.len(), 4 + classes, boxes], data)
}

/// The inverse of what the YOLOX head does.
fn raw_grid(lanes: &[Vec<Stored>]) -> Output {
    let mut cells = Vec::new();
    for stride in [8, 16, 32] {
        for y in 0..32 / stride {
            cells.extend((0..64 / stride).map(|x| (x as f32, y as f32, stride as f32)));
        }
    }
    let mut output = rows(lanes, |p| p);
    let columns = output.shape[2];
    let Data::F32(data) = &mut output.data else { unreachable!("rows are floats") };
    for (index, row) in data.chunks_exact_mut(columns).enumerate() {
        let (x, y, stride) = cells[index % CELLS];
        let [cx, cy, w, h] = [row[0], row[1], row[2], row[3]];
        row[..4].copy_from_slice(&[cx / stride - x, cy / stride - y, (w / stride).ln(), (h / stride).ln()]);
    }
    output
}

fn end_to_end(lanes: &[Vec<Stored>]) -> Output {
    let mut data = Vec::new();
    for b in lanes.iter().flatten() {
        let (class, best) = best_class(b.classes.iter().copied()).expect("a class");
        data.extend(corners(b.centre));
        data.extend([best * b.objectness, class as f32]);
    }
    float("output", &[lanes.len(), lanes[0].len(), 6], data)
}

#[test]
fn yolov8_agrees_with_the_reference() {
    let mut random = fastrand::Rng::with_seed(1);
    // 1025 and 2500 cross the block size.
    for (boxes, classes) in [(1, 1), (42, 3), (1024, 2), (1025, 5), (2500, 80)] {
        let lanes: Vec<Vec<Stored>> =
            (0..3).map(|_| (0..boxes).map(|_| random_box(&mut random, classes)).collect()).collect();
        for logits in [false, true] {
            let map = |p: f32| if logits { logit(p) } else { p };
            let outputs = [planes(&lanes, false, map)];
            let head = resolve(HeadKind::Yolov8, logits, &outputs, classes);
            for (lane, stored) in lanes.iter().enumerate() {
                let stored = if logits { through_logits(stored) } else { stored.clone() };
                for (confidence, limit) in [(0.9, 1000), (0.5, 20), (0.0, 10_000), (1.0, 5)] {
                    let got = decode(&head, &outputs, lane, confidence, limit);
                    let expected = reference(&stored, false, confidence, limit);
                    assert_close(&got, &expected, &format!("{boxes} {classes} {logits} {lane} {confidence}"));
                    assert!(!got.final_boxes);
                }
            }
        }
    }
}

#[test]
fn yolov5_agrees_with_the_reference() {
    let mut random = fastrand::Rng::with_seed(2);
    for (boxes, classes) in [(1, 1), (126, 3), (700, 80)] {
        let lanes: Vec<Vec<Stored>> =
            (0..2).map(|_| (0..boxes).map(|_| random_box(&mut random, classes)).collect()).collect();
        for logits in [false, true] {
            let outputs = [rows(&lanes, |p| if logits { logit(p) } else { p })];
            let head = resolve(HeadKind::Yolov5, logits, &outputs, classes);
            for (lane, stored) in lanes.iter().enumerate() {
                let stored = if logits { through_logits(stored) } else { stored.clone() };
                for (confidence, limit) in [(0.3, 1000), (0.3, 10), (0.0, 10_000)] {
                    let got = decode(&head, &outputs, lane, confidence, limit);
                    let expected = reference(&stored, true, confidence, limit);
                    assert_close(&got, &expected, &format!("{boxes} {classes} {logits} {lane} {confidence}"));
                }
            }
        }
    }
}

#[test]
fn four_layouts_of_the_same_boxes_agree() {
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..50 {
        let mut one = || {
            let mut b = random_box(&mut random, 7);
            // A raw grid cannot say a negative size.
            b.centre[2] = b.centre[2].abs().max(0.1);
            b.centre[3] = b.centre[3].abs().max(0.1);
            b
        };
        let lanes: Vec<Vec<Stored>> = (0..2).map(|_| (0..CELLS).map(|_| one()).collect()).collect();
        let layouts = [
            (HeadKind::Yolov5, rows(&lanes, |p| p)),
            (HeadKind::Yolov8, planes(&lanes, true, |p| p)),
            (HeadKind::Yolox, raw_grid(&lanes)),
            (HeadKind::EndToEnd, end_to_end(&lanes)),
        ];
        for (kind, output) in layouts {
            let outputs = [output];
            let head = resolve(kind, false, &outputs, 7);
            for (lane, stored) in lanes.iter().enumerate() {
                let got = decode(&head, &outputs, lane, 0.3, 8);
                assert_close(&got, &reference(stored, true, 0.3, 8), &format!("{kind} round {round}"));
                assert_eq!(got.final_boxes, kind == HeadKind::EndToEnd);
            }
        }
    }
}

#[test]
fn efficient_nms_reads_its_count() {
    let boxes: Vec<f32> = (0..2 * 3).flat_map(|i| [i as f32, 1.0, i as f32 + 4.0, 9.0]).collect();
    let mut outputs = [
        Output { name: "num_dets", shape: vec![2, 1], data: Data::I32(vec![2, 99]) },
        float("det_boxes", &[2, 3, 4], boxes),
        float("det_scores", &[2, 3], vec![0.9, 0.2, 0.8, 0.7, 0.6, 0.5]),
        Output { name: "det_classes", shape: vec![2, 3], data: Data::I32(vec![1, 2, 0, 0, -1, 2]) },
    ];
    let head = resolve(HeadKind::EfficientNms, false, &outputs, 3);
    let got = decode(&head, &outputs, 0, 0.3, 100);
    // The second is under the threshold, the third beyond the count.
    assert_eq!(got.boxes, [Candidate { rect: [0.0, 1.0, 4.0, 9.0], score: 0.9, class: 1 }]);
    assert!(got.final_boxes);
    // A count beyond the tensor is all of it; class -1 is padding.
    let classes: Vec<u32> = decode(&head, &outputs, 1, 0.3, 100).boxes.iter().map(|b| b.class).collect();
    assert_eq!(classes, [0, 2]);
    outputs[0].data = Data::I32(vec![-5, 0]);
    assert_eq!(decode(&head, &outputs, 0, 0.0, 100).boxes, []);
}

#[test]
fn a_deployed_detr_reads_boxes_in_input_pixels() {
    let outputs = [
        float("scores", &[1, 2], vec![logit(0.8), logit(0.1)]),
        Output { name: "labels", shape: vec![1, 2], data: Data::I64(vec![2, 1]) },
        float("boxes", &[1, 2, 4], vec![1.0, 2.0, 30.0, 20.0, 0.0, 0.0, 9.0, 9.0]),
    ];
    let head = resolve(HeadKind::Detr, true, &outputs, 3);
    let got = decode(&head, &outputs, 0, 0.5, 100);
    let expected = Candidate { rect: [1.0, 2.0, 30.0, 20.0], score: 0.8, class: 2 };
    assert_close(&got, &(vec![expected], 0), "detr");
    assert!(got.final_boxes);
}

#[test]
fn a_raw_detr_reads_logits_and_boxes_of_the_unit_square() {
    let outputs = [
        float("pred_boxes", &[2, 2, 4], [[0.5, 0.5, 0.25, 0.5]; 4].concat()),
        float("logits", &[2, 2, 2], vec![-9.0, -9.0, -9.0, -9.0, 2.0, 3.0, -9.0, 1.0]),
    ];
    let head = resolve(HeadKind::Detr, false, &outputs, 2);
    assert_eq!(decode(&head, &outputs, 0, 0.5, 100).boxes, []);
    let rect = [24.0, 8.0, 40.0, 24.0];
    let expected = [3.0, 1.0].map(|x| Candidate { rect, score: sigmoid(x), class: 1 });
    assert_close(&decode(&head, &outputs, 1, 0.5, 100), &(expected.to_vec(), 0), "raw detr");
}

#[test]
fn scores_that_are_not_finite_do_not_hide_the_others() {
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let stored = |classes: [f32; 3]| Stored {
            centre: [32.0, 16.0, 8.0, 8.0],
            objectness: 1.0,
            classes: classes.to_vec(),
        };
        let lane = vec![stored([odd, 0.5, 0.1]), stored([0.1, 0.2, odd]), stored([odd; 3])];
        let outputs = [planes(std::slice::from_ref(&lane), false, |p| p)];
        let got = decode(&resolve(HeadKind::Yolov8, false, &outputs, 3), &outputs, 0, 0.4, 10);
        let classes: Vec<(u32, f32)> = got.boxes.iter().map(|b| (b.class, b.score)).collect();
        assert_eq!(classes, [(1, 0.5)], "{odd}");
        let outputs = [rows(&[lane], |p| p)];
        assert_eq!(decode(&resolve(HeadKind::Yolov5, false, &outputs, 3), &outputs, 0, 0.4, 10).boxes, got.boxes);
    }
    // Scores beyond 1 and boxes that are not finite.
    let outputs =
        [float("output", &[1, 2, 6], vec![1.0, 1.0, 9.0, 9.0, 1.5, 0.0, f32::NAN, 1.0, 9.0, 9.0, 0.9, 0.0])];
    let got = decode(&resolve(HeadKind::EndToEnd, false, &outputs, 3), &outputs, 0, 0.4, 10);
    assert_eq!(got.boxes, [Candidate { rect: [1.0, 1.0, 9.0, 9.0], score: 1.0, class: 0 }]);
}

#[test]
fn boxes_wholly_in_the_padding_take_no_room() {
    let outputs = [float("output", &[1, 2, 6], vec![0.0, 0.0, 64.0, 7.0, 0.9, 0.0, 0.0, 5.0, 64.0, 9.0, 0.8, 0.0])];
    let head = resolve(HeadKind::EndToEnd, false, &outputs, 1);
    let views = [outputs[0].view()];
    // The picture covers rows 8 to 24.
    let letterbox = Letterbox::new((640, 160), INPUT, Fit::Centre);
    let mut out = Candidates::default();
    head.decode(&views, 0, &letterbox, 0.3, 1, &mut out).expect("well-formed outputs");
    assert_eq!((out.boxes.len(), out.boxes[0].score, out.dropped), (1, 0.8, 0));
}

#[test]
fn a_class_without_a_label_is_said_in_words() {
    let outputs = [float("output", &[1, 1, 6], vec![1.0, 1.0, 9.0, 9.0, 0.9, 80.0])];
    let head = resolve(HeadKind::EndToEnd, false, &outputs, 80);
    let mut out = Candidates::default();
    let error = head.decode(&[outputs[0].view()], 0, &whole(), 0.3, 10, &mut out).expect_err("class 80");
    assert!(matches!(&error, HeadError::Manifest(text) if text.contains("class 80") && text.contains("80 labels")));
    assert_eq!(out.boxes, []);
}

#[test]
fn tensors_that_break_their_promise_are_refused_in_words() {
    let good = [float("output", &[1, 7, 10], vec![0.0; 70])];
    let head = resolve(HeadKind::Yolov8, false, &good, 3);
    let mut out = Candidates::default();
    let mut refuse = |outputs: &[Output], lane: usize| {
        let views: Vec<TensorView> = outputs.iter().map(Output::view).collect();
        let error = head.decode(&views, lane, &whole(), 0.3, 10, &mut out).expect_err("refused");
        assert!(matches!(error, HeadError::Tensor(_)), "{error:?}");
        error.to_string()
    };
    assert!(refuse(&[], 0).contains("output 0 is missing"));
    assert!(refuse(&good, 1).contains("`output` 1x7x10 should have a lane 1"));
    assert!(refuse(&[float("output", &[1, 8, 10], vec![0.0; 80])], 0).contains("yolov8"));
    assert!(refuse(&[float("output", &[1, 7, 10], vec![0.0; 69])], 0).contains("69 in all"));
    assert!(refuse(&[float("output", &[7, 10], vec![0.0; 70])], 0).contains("3 dimensions"));
    let integers = Output { name: "output", shape: vec![1, 7, 10], data: Data::I32(vec![0; 70]) };
    assert!(refuse(&[integers], 0).contains("floating-point"));
}

/// Any shape, any numbers, any head: an answer or an error, at most the limit, and always in range.
#[test]
fn decoding_never_panics() {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -1.0, 0.0, 0.5, 1.0, 3.0, 300.0];
    let names =
        ["num_dets", "det_boxes", "det_scores", "det_classes", "labels", "boxes", "scores", "logits", "pred_boxes"];
    let sizes = [0, 1, 2, 4, 5, 6, 7, CELLS, usize::MAX];
    let mut random = fastrand::Rng::with_seed(13);
    let mut decoded = 0;
    for round in 0..20_000 {
        let labels = random.usize(1..4);
        let mut output = |name: &'static str, shape: Vec<usize>| {
            let product = shape.iter().try_fold(1, |p: usize, d| p.checked_mul(*d)).filter(|n| *n < 2000);
            let len = product.unwrap_or(10).saturating_sub(usize::from(random.u8(..) == 0));
            let floats: Vec<f32> = (0..len).map(|_| odd[random.usize(..odd.len())]).collect();
            let data = match random.u8(0..4) {
                0 => Data::I32(floats.iter().map(|v| *v as i32).collect()),
                1 => Data::I64(floats.iter().map(|v| *v as i64).collect()),
                _ => Data::F32(floats),
            };
            Output { name, shape, data }
        };
        let kind = HeadKind::ALL[round % 6];
        let boxes = sizes[round / 6 % sizes.len()];
        let outputs: Vec<Output> = match kind {
            HeadKind::Yolov8 => vec![output("x", vec![2, 4 + labels, boxes])],
            HeadKind::Yolov5 | HeadKind::Yolox => vec![output("x", vec![2, boxes, 5 + labels])],
            HeadKind::EndToEnd => vec![output("x", vec![2, boxes, 6])],
            HeadKind::EfficientNms | HeadKind::Detr => names
                .into_iter()
                .map(|name| {
                    let columns = if name == "logits" { labels } else { 4 };
                    let shape = match name {
                        "num_dets" => vec![2],
                        "det_boxes" | "boxes" | "pred_boxes" | "logits" => vec![2, boxes, columns],
                        _ => vec![2, boxes],
                    };
                    output(name, shape)
                })
                .collect(),
        };
        // Resolved from open dimensions, so that decoding itself has to look.
        let specs = outputs.iter().map(|o| TensorSpec {
            shape: o.shape.iter().map(|_| None).collect(),
            integer: false,
            ..o.spec()
        });
        let specs: Vec<TensorSpec> = specs.collect();
        let Ok(head) = Head::resolve(HeadChoice::Named(kind), round % 5 == 0, &[], &specs, INPUT, labels) else {
            panic!("{kind} of open dimensions");
        };
        let views: Vec<TensorView> = outputs.iter().map(Output::view).collect();
        let (limit, confidence) = (random.usize(0..9), odd[random.usize(..odd.len())]);
        let mut out = Candidates::default();
        decoded +=
            usize::from(head.decode(&views, random.usize(0..3), &whole(), confidence, limit, &mut out).is_ok());
        assert!(out.boxes.len() <= limit);
        for b in &out.boxes {
            assert!((0.0..=1.0).contains(&b.score) && (b.class as usize) < labels, "{b:?}");
            assert!(b.rect.iter().all(|v| v.is_finite()), "{b:?}");
        }
    }
    assert!(decoded > 3000, "only {decoded} were well-formed");
}
