//! Input for the tests of the kernels, on the CPU (`gpu::host_tests`) and on a GPU (`tests/gpu.rs`): noise as frames, and
//! noise as a model's outputs with what the CPU reads in them. Both have `watchpost` as their parent module's name.

use super::watchpost::backend::planar::Writer;
use super::watchpost::engine::{Channels, HeadChoice, InputSpec, Range};
use super::watchpost::frame::{Colour, OwnedPlanes, PixelFormat, SystemImage};
use super::watchpost::gpu::element::Element;
use super::watchpost::gpu::letterbox::{InputFormat, LaneEntry};
use super::watchpost::letterbox::{Fit, Letterbox};
use super::watchpost::mask::Span;
use super::watchpost::yolo::head::{Head, HeadError, HeadKind};
use super::watchpost::yolo::{Candidate, Candidates, TensorData, TensorSpec, TensorView};

/// Noise, with rows longer than the picture but for the last, as decoders have them.
pub fn noise(rng: &mut fastrand::Rng, size: (u32, u32), format: PixelFormat) -> SystemImage {
    let (width, height) = (size.0 as usize, size.1 as usize);
    let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
    let shapes = match format {
        PixelFormat::I420 => [(width, height), (half_width, half_height), (half_width, half_height)],
        PixelFormat::Nv12 => [(width, height), (2 * half_width, half_height), (0, 0)],
    };
    let mut strides = [0; 3];
    let planes = [0, 1, 2].map(|plane: usize| {
        let (row, rows): (usize, usize) = shapes[plane];
        strides[plane] = if row > 0 { row + rng.usize(..7) } else { 0 };
        (0..(strides[plane] * rows.saturating_sub(1) + row)).map(|_| rng.u8(..)).collect()
    });
    let colour = Colour { bt709: rng.bool(), full_range: rng.bool() };
    SystemImage { format, width: size.0, height: size.1, strides, colour, planes: Box::new(OwnedPlanes(planes)) }
}

/// Any input that a manifest may describe.
pub fn input(rng: &mut fastrand::Rng, size: (u32, u32)) -> InputFormat {
    let mut three = |from: f32, to: f32| [0; 3].map(|_: i32| from + rng.f32() * (to - from));
    let (mean, std) = (three(-0.5, 0.5), three(0.2, 2.0));
    let spec = InputSpec {
        size: None,
        range: if rng.bool() { Range::Byte } else { Range::Unit },
        channels: if rng.bool() { Channels::Rgb } else { Channels::Bgr },
        fit: [Fit::Centre, Fit::TopLeft, Fit::Stretch][rng.usize(..3)],
        pad: rng.u8(..),
        mean: if rng.bool() { mean } else { [0.0; 3] },
        std: if rng.bool() { std } else { [1.0; 3] },
    };
    let half = rng.bool();
    InputFormat { spec, size, half, packed: half && rng.bool() }
}

/// A few pixels to blank, perhaps none.
pub fn spans(rng: &mut fastrand::Rng, (width, height): (u32, u32)) -> Vec<Span> {
    let one = |rng: &mut fastrand::Rng| {
        let x0 = rng.u32(..width);
        Span { y: rng.u32(..height), x0, x1: rng.u32(x0..=width) }
    };
    (0..rng.usize(..4)).map(|_| one(rng)).collect()
}

/// What the CPU makes of a frame: 3 × height × width.
pub fn drawn(image: &SystemImage, letterbox: &Letterbox, format: &InputFormat, spans: &[Span]) -> Vec<f32> {
    let mut tensor = vec![0.0; 3 * format.size.0 as usize * format.size.1 as usize];
    Writer::new(format.spec.clone(), format.size, 1).write(image, letterbox, spans, 0, &mut tensor);
    tensor
}

/// A lane of a tensor by planes, 3 × height × width, of which a packed one has the pixels side by side.
pub fn by_planes(lane: &[f32], format: &InputFormat) -> Vec<f32> {
    if !format.packed {
        return lane.to_vec();
    }
    assert!(lane.chunks(4).all(|pixel| pixel[3] == 0.0), "what is not used of a packed input is 0");
    (0..3).flat_map(|plane| lane.iter().skip(plane).step_by(4).copied()).collect()
}

/// float16 → float32.
pub fn widen(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * (-24f32).exp2(),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * ((exponent - 25) as f32).exp2(),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// float32 → the nearest float16, the smaller where two are as near.
pub fn narrow(value: f32) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    if value.is_nan() {
        return sign | 0x7fff;
    }
    // The magnitudes ascend with their bits.
    let (mut low, mut high) = (0, 0x7c00);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if widen(middle) <= value.abs() { low = middle } else { high = middle }
    }
    let (below, above) = (value.abs() - widen(low), widen(high) - value.abs());
    sign | if widen(high) == value.abs() || above < below { high } else { low }
}

/// The elements of an output, row by row.
#[derive(Clone, Debug)]
pub enum Numbers {
    /// float32.
    F32(Vec<f32>),
    /// float16, and the same as float32.
    F16(Vec<u16>, Vec<f32>),
    /// int32.
    I32(Vec<i32>),
    /// int64.
    I64(Vec<i64>),
}

impl Numbers {
    /// Real numbers in the precision of `element`.
    pub fn real(element: Element, values: Vec<f32>) -> Self {
        if element != Element::F16 {
            return Self::F32(values);
        }
        let bits: Vec<u16> = values.into_iter().map(narrow).collect();
        let wide = bits.iter().map(|bits| widen(*bits)).collect();
        Self::F16(bits, wide)
    }

    /// Whole numbers as `element`.
    pub fn whole(element: Element, values: Vec<i32>) -> Self {
        match element {
            Element::I32 => Self::I32(values),
            Element::I64 => Self::I64(values.into_iter().map(i64::from).collect()),
            _ => Self::real(element, values.into_iter().map(|v| v as f32).collect()),
        }
    }

    /// Their type.
    pub fn element(&self) -> Element {
        match self {
            Self::F32(_) => Element::F32,
            Self::F16(..) => Element::F16,
            Self::I32(_) => Element::I32,
            Self::I64(_) => Element::I64,
        }
    }

    /// As the device has them.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            Self::F16(bits, _) => bits.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            Self::I32(values) => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            Self::I64(values) => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        }
    }

    fn data(&self) -> TensorData<'_> {
        match self {
            Self::F32(values) | Self::F16(_, values) => TensorData::F32(values),
            Self::I32(values) => TensorData::I32(values),
            Self::I64(values) => TensorData::I64(values),
        }
    }
}

/// A model's outputs and how they are meant.
pub struct Case {
    /// Of all lanes.
    pub lanes: usize,
    /// Where each lane's frame lies in the input; `None` in lanes without one.
    pub letterboxes: Vec<Option<Letterbox>>,
    /// The head.
    pub head: Head,
    /// Names and shapes.
    pub specs: Vec<TensorSpec>,
    /// The elements.
    pub outputs: Vec<Numbers>,
    /// Least score.
    pub confidence: f32,
}

/// Names, shapes after the batch, and elements of a model's outputs.
type Model = Vec<(&'static str, Vec<usize>, Numbers)>;

impl Case {
    /// Three lanes, the second without a frame.
    pub fn new(kind: HeadKind, logits: bool, labels: usize, confidence: f32, model: Model) -> Self {
        let lanes = LANES;
        let spec = |name: &str, shape: &[usize], integer| {
            let shape = std::iter::once(lanes).chain(shape.iter().copied()).map(Some).collect();
            TensorSpec { name: name.to_owned(), shape, integer }
        };
        let mut inputs = vec![spec("images", &[3, INPUT.1 as usize, INPUT.0 as usize], false)];
        if model.iter().any(|(name, ..)| *name == "labels") {
            inputs.push(spec("orig_target_sizes", &[2], true));
        }
        let whole = |numbers: &Numbers| matches!(numbers, Numbers::I32(_) | Numbers::I64(_));
        let specs: Vec<TensorSpec> =
            model.iter().map(|(name, shape, numbers)| spec(name, shape, whole(numbers))).collect();
        let head = Head::resolve(HeadChoice::Named(kind), logits, &inputs, &specs, INPUT, labels).unwrap();
        let fitted = |source| Some(Letterbox::new(source, INPUT, Fit::Centre));
        let letterboxes = vec![fitted((64, 48)), None, fitted((50, 200))];
        let outputs = model.into_iter().map(|(.., numbers)| numbers).collect();
        Self { lanes, letterboxes, head, specs, outputs, confidence }
    }

    /// The types of the outputs.
    pub fn elements(&self) -> Vec<Element> {
        self.outputs.iter().map(Numbers::element).collect()
    }

    /// The lanes as the kernels get them, with planes that nobody reads.
    pub fn table(&self) -> Vec<LaneEntry> {
        let colour = Colour { bt709: false, full_range: false };
        let entry = |letterbox: &Option<Letterbox>| match letterbox {
            Some(letterbox) => LaneEntry::new([0; 3], [0; 3], PixelFormat::Nv12, colour, letterbox, 0),
            None => LaneEntry::unused(),
        };
        self.letterboxes.iter().map(entry).collect()
    }

    /// What the CPU reads in a lane.
    pub fn expected(&self, lane: usize, max_candidates: usize) -> Result<Candidates, HeadError> {
        let mut out = Candidates { final_boxes: self.head.kind() != HeadKind::Yolov8, ..Candidates::default() };
        let shapes: Vec<Vec<usize>> =
            self.specs.iter().map(|spec| spec.shape.iter().flatten().copied().collect()).collect();
        let views: Vec<TensorView> = (self.specs.iter().zip(&shapes).zip(&self.outputs))
            .map(|((spec, shape), numbers)| TensorView { name: &spec.name, shape, data: numbers.data() })
            .collect();
        let letterbox = self.letterboxes[lane].unwrap_or(Letterbox::new((1, 1), INPUT, Fit::Centre));
        self.head.decode(&views, lane, &letterbox, self.confidence, max_candidates, &mut out)?;
        if self.letterboxes[lane].is_none() {
            (out.boxes, out.dropped) = (Vec::new(), 0);
        }
        Ok(out)
    }
}

/// Lanes of a [`Case`].
const LANES: usize = 3;
/// Input of a [`Case`]'s model.
const INPUT: (u32, u32) = (96, 64);

/// Every layout in every type, with scores as they are and as logits.
pub fn cases(rng: &mut fastrand::Rng) -> Vec<Case> {
    let mut cases = Vec::new();
    for real in [Element::F32, Element::F16] {
        for (logits, confidence) in [(false, 0.25), (true, 0.3), (false, 0.0), (true, 0.9)] {
            let noise = Noise { real, logits, confidence };
            cases.push(noise.yolov5(rng));
            cases.push(noise.yolov8(rng));
            cases.push(noise.yolox(rng));
            cases.push(noise.end_to_end(rng));
            for whole in [Element::I32, Element::I64, real] {
                cases.push(noise.efficient_nms(rng, whole));
                cases.push(noise.detr_deployed(rng, whole));
            }
            cases.push(noise.detr_raw(rng));
        }
    }
    cases
}

/// A case whose model reports a class beyond its labels.
pub fn unlabelled(whole: Element) -> Vec<Case> {
    let scores = |at: usize| if at % 50 == 7 { 0.9 } else { 0.1 };
    let boxes: Vec<f32> = (0..LANES * 100).flat_map(|_| [10.0, 10.0, 40.0, 40.0]).collect();
    let model = vec![
        ("boxes", vec![100, 4], Numbers::F32(boxes)),
        ("scores", vec![100], Numbers::F32((0..LANES * 100).map(scores).collect())),
        ("labels", vec![100], Numbers::whole(whole, (0..LANES as i32 * 100).map(|at| at % 100).collect())),
    ];
    let rows = (0..LANES * 50).flat_map(|at| [1.0, 1.0, 9.0, 9.0, scores(at), if at < 50 { 3.0 } else { 4.4 }]);
    let end_to_end = vec![("output0", vec![50, 6], Numbers::F32(rows.collect()))];
    vec![Case::new(HeadKind::Detr, false, 20, 0.5, model), Case::new(HeadKind::EndToEnd, false, 4, 0.5, end_to_end)]
}

/// How a case's numbers are drawn: coarse, so that scores tie, and now and then not finite.
struct Noise {
    real: Element,
    logits: bool,
    confidence: f32,
}

impl Noise {
    fn score(&self, rng: &mut fastrand::Rng) -> f32 {
        let high = rng.u8(..8) == 0;
        match rng.u8(..) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            3 => 1.5,
            4 => -0.5,
            _ if self.logits => f32::from(rng.i8(-60..if high { 40 } else { -20 })) / 8.0,
            _ => f32::from(rng.u8(0..if high { 64 } else { 12 })) / 64.0,
        }
    }

    fn coordinate(&self, rng: &mut fastrand::Rng) -> f32 {
        match rng.u8(..) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            _ => f32::from(rng.i16(-40..290)) / 4.0,
        }
    }

    fn centred(&self, rng: &mut fastrand::Rng) -> [f32; 4] {
        let side = |rng: &mut fastrand::Rng| f32::from(rng.u8(..120)) / 4.0;
        [self.coordinate(rng), self.coordinate(rng), side(rng), side(rng)]
    }

    fn corners(&self, rng: &mut fastrand::Rng) -> [f32; 4] {
        let [x, y, width, height] = self.centred(rng);
        [x, y, x + width, y + height]
    }

    fn numbers(&self, values: Vec<f32>) -> Numbers {
        Numbers::real(self.real, values)
    }

    fn case(&self, kind: HeadKind, labels: usize, model: Model) -> Case {
        Case::new(kind, self.logits, labels, self.confidence, model)
    }

    fn rows(&self, rng: &mut fastrand::Rng, boxes: usize, labels: usize, raw: bool) -> Numbers {
        let mut values = Vec::new();
        for _ in 0..LANES * boxes {
            let [x, y, width, height] = self.centred(rng);
            let scale = if raw { 16.0 } else { 1.0 };
            values.extend([x / scale, y / scale, width / scale, height / scale]);
            // Objectness is high more often: the product of two is what counts.
            values.push(if rng.bool() { self.score(rng).max(0.9) } else { self.score(rng) });
            values.extend((0..labels).map(|_| self.score(rng)));
        }
        self.numbers(values)
    }

    fn yolov5(&self, rng: &mut fastrand::Rng) -> Case {
        let numbers = self.rows(rng, 700, 7, false);
        self.case(HeadKind::Yolov5, 7, vec![("output0", vec![700, 12], numbers)])
    }

    fn yolox(&self, rng: &mut fastrand::Rng) -> Case {
        // 12 x 8, 6 x 4 and 3 x 2 cells.
        let numbers = self.rows(rng, 126, 3, true);
        self.case(HeadKind::Yolox, 3, vec![("output", vec![126, 8], numbers)])
    }

    fn yolov8(&self, rng: &mut fastrand::Rng) -> Case {
        let (boxes, labels) = (701, 21);
        let mut values = Vec::new();
        for _ in 0..LANES {
            let rects: Vec<[f32; 4]> = (0..boxes).map(|_| self.centred(rng)).collect();
            values.extend((0..4).flat_map(|side| rects.iter().map(move |rect| rect[side])));
            values.extend((0..labels * boxes).map(|_| self.score(rng)));
        }
        let numbers = self.numbers(values);
        self.case(HeadKind::Yolov8, labels, vec![("output0", vec![labels + 4, boxes], numbers)])
    }

    fn end_to_end(&self, rng: &mut fastrand::Rng) -> Case {
        let mut values = Vec::new();
        for _ in 0..LANES * 300 {
            values.extend(self.corners(rng));
            values.push(self.score(rng));
            values.push(if rng.u8(..20) == 0 { f32::NAN } else { f32::from(rng.i8(-4..18)) / 4.0 });
        }
        let numbers = self.numbers(values);
        self.case(HeadKind::EndToEnd, 5, vec![("output0", vec![300, 6], numbers)])
    }

    fn boxes(&self, rng: &mut fastrand::Rng, boxes: usize) -> Numbers {
        self.numbers((0..LANES * boxes).flat_map(|_| self.corners(rng)).collect())
    }

    fn scores(&self, rng: &mut fastrand::Rng, boxes: usize) -> Numbers {
        self.numbers((0..LANES * boxes).map(|_| self.score(rng)).collect())
    }

    fn classes(rng: &mut fastrand::Rng, whole: Element, boxes: usize) -> Numbers {
        Numbers::whole(whole, (0..LANES * boxes).map(|_| rng.i32(-1..9)).collect())
    }

    fn efficient_nms(&self, rng: &mut fastrand::Rng, whole: Element) -> Case {
        let counts = vec![150, 50, [-1, 0, 90, 400][rng.usize(..4)]];
        let model = vec![
            ("num_dets", vec![1], Numbers::whole(whole, counts)),
            ("det_boxes", vec![300, 4], self.boxes(rng, 300)),
            ("det_scores", vec![300], self.scores(rng, 300)),
            ("det_classes", vec![300], Self::classes(rng, whole, 300)),
        ];
        self.case(HeadKind::EfficientNms, 9, model)
    }

    fn detr_deployed(&self, rng: &mut fastrand::Rng, whole: Element) -> Case {
        let model = vec![
            ("labels", vec![300], Self::classes(rng, whole, 300)),
            ("boxes", vec![300, 4], self.boxes(rng, 300)),
            ("scores", vec![300], self.scores(rng, 300)),
        ];
        self.case(HeadKind::Detr, 9, model)
    }

    fn detr_raw(&self, rng: &mut fastrand::Rng) -> Case {
        let logits = Self { logits: true, ..*self };
        let unit = |values: [f32; 4]| values.map(|v| v / 96.0);
        let boxes = (0..LANES * 290).flat_map(|_| unit(self.centred(rng))).collect();
        let model = vec![
            ("pred_boxes", vec![290, 4], self.numbers(boxes)),
            ("logits", vec![290, 11], self.numbers((0..LANES * 290 * 11).map(|_| logits.score(rng)).collect())),
        ];
        self.case(HeadKind::Detr, 11, model)
    }
}

/// Asserts that both hold the same boxes, in any order, each number within `within`.
pub fn assert_same(got: &Candidates, expected: &Candidates, within: f32, said: &str) {
    assert_eq!((got.boxes.len(), got.dropped), (expected.boxes.len(), expected.dropped), "{said}");
    assert_eq!(got.final_boxes, expected.final_boxes, "{said}");
    let near = |a: f32, b: f32| (a - b).abs() <= within * b.abs().max(1.0);
    // Ranks may swap where scores are as near as `within`: each box finds its own, once.
    let mut left: Vec<Candidate> = expected.boxes.clone();
    for candidate in &got.boxes {
        let same = |other: &Candidate| {
            let sides = candidate.rect.iter().zip(&other.rect).all(|(a, b)| near(*a, *b));
            sides && candidate.class == other.class && near(candidate.score, other.score)
        };
        let at = left.iter().position(same).unwrap_or_else(|| panic!("{said}: {candidate:?} is not expected"));
        left.swap_remove(at);
    }
}
