//! Head decoding on the CPU: output tensors → candidates. The fast path of every layout is one comparison a box
//! with the threshold (moved into logits where the scores are logits); all else is done for survivors only.

use super::head::{Head, HeadError, Layout, grid_boxes};
use super::tensor::TensorView;
use super::{Candidate, Candidates};
use crate::letterbox::{Letterbox, Rect};

/// Boxes whose best score is searched at a time: their running maxima stay in the first-level cache while the
/// class planes stream by.
const BLOCK: usize = 1024;

impl Head {
    /// Reads one lane's boxes into `out`, whose list keeps its memory.
    ///
    /// A box has one class, its best. Kept are boxes with a score of at least `confidence` (0..1) that touch the
    /// picture within the letterbox, the best `max_candidates` of them; `out.dropped` counts the rest. Scores and
    /// coordinates that are not finite are passed over; scores beyond 0..1 are clamped.
    ///
    /// # Errors
    ///
    /// [`HeadError::Tensor`] where an output is missing or is not of the shape that the head was resolved for,
    /// [`HeadError::Manifest`] where the model reports a class without a label. `out` is empty then.
    pub fn decode(
        &self,
        outputs: &[TensorView],
        lane: usize,
        letterbox: &Letterbox,
        confidence: f32,
        max_candidates: usize,
        out: &mut Candidates,
    ) -> Result<(), HeadError> {
        out.boxes.clear();
        out.dropped = 0;
        out.final_boxes = self.final_boxes();
        let scores = Scores::new(self.reads_logits(), confidence);
        let mut sink = Sink::new(letterbox, max_candidates, out);
        let tensors = Tensors { outputs, lane };
        let read = match self.layout {
            Layout::Yolov5(index) => self.rows(tensors.get(index)?, lane, false, &scores, &mut sink),
            Layout::Yolox(index) => self.rows(tensors.get(index)?, lane, true, &scores, &mut sink),
            Layout::Yolov8(index) => self.planes(tensors.get(index)?, lane, &scores, &mut sink),
            Layout::EndToEnd(index) => self.end_to_end(tensors.get(index)?, lane, &scores, &mut sink),
            Layout::EfficientNms { count, boxes, scores: values, classes } => {
                let selected = Selected { count: Some(count), boxes, scores: values, classes };
                self.selected(&tensors, &selected, &scores, &mut sink)
            }
            Layout::DetrDeployed { classes, boxes, scores: values } => {
                let selected = Selected { count: None, boxes, scores: values, classes };
                self.selected(&tensors, &selected, &scores, &mut sink)
            }
            Layout::DetrRaw { logits, boxes } => self.queries(&tensors, logits, boxes, &scores, &mut sink),
        };
        out.keep_best(max_candidates);
        if read.is_err() {
            out.boxes.clear();
            out.dropped = 0;
        }
        read
    }

    /// `boxes x (5 + classes)`: YOLOv5, or YOLOX with its raw grid.
    fn rows(
        &self,
        tensor: &TensorView,
        lane: usize,
        raw_grid: bool,
        scores: &Scores,
        sink: &mut Sink,
    ) -> Result<(), HeadError> {
        let [boxes, columns] = tensor.lane_shape()?;
        if columns != self.classes.saturating_add(5) || raw_grid && boxes != grid_boxes(self.input) {
            return Err(tensor.wrong(&format!("is not what the {} head was found in", self.kind())));
        }
        let data = tensor.floats(lane, boxes.saturating_mul(columns))?;
        for (index, row) in data.chunks_exact(columns).enumerate() {
            // A class score is at most 1: objectness alone rules nearly every box out.
            if !scores.may_pass(row[4]) {
                continue;
            }
            let Some((class, best)) = best_class(row[5..].iter().copied()) else { continue };
            let score = scores.probability(row[4]) * scores.probability(best);
            if !scores.passes(score) {
                continue;
            }
            let centre = [row[0], row[1], row[2], row[3]];
            let centre = if raw_grid { self.off_grid(centre, index) } else { centre };
            sink.offer(Candidate { rect: corners(centre), score, class });
        }
        Ok(())
    }

    /// Centre and size in input pixels of a raw grid's box; NaN beyond the grid.
    fn off_grid(&self, raw: [f32; 4], index: usize) -> [f32; 4] {
        let (x, y, stride) = self.cell(index).unwrap_or((f32::NAN, f32::NAN, f32::NAN));
        [(raw[0] + x) * stride, (raw[1] + y) * stride, raw[2].exp() * stride, raw[3].exp() * stride]
    }

    /// `(4 + classes) x boxes`: YOLOv8. The class planes are read front to back a block of boxes at a time, which
    /// the compiler turns into vector maxima; the class is looked up for survivors only.
    fn planes(&self, tensor: &TensorView, lane: usize, scores: &Scores, sink: &mut Sink) -> Result<(), HeadError> {
        let [channels, boxes] = tensor.lane_shape()?;
        if channels != self.classes.saturating_add(4) {
            return Err(tensor.wrong("is not what the yolov8 head was found in"));
        }
        let data = tensor.floats(lane, channels.saturating_mul(boxes))?;
        if boxes == 0 {
            return Ok(());
        }
        let mut block = [f32::NEG_INFINITY; BLOCK];
        for start in (0..boxes).step_by(BLOCK) {
            let best = &mut block[..BLOCK.min(boxes - start)];
            running_best(&data[4 * boxes..], boxes, start, best);
            for (offset, _) in best.iter().enumerate().filter(|(_, best)| scores.may_pass(**best)) {
                let at = |channel: usize| data[channel * boxes + start + offset];
                let Some((class, raw)) = best_class((4..channels).map(at)) else { continue };
                let score = scores.probability(raw);
                if scores.passes(score) {
                    sink.offer(Candidate { rect: corners([at(0), at(1), at(2), at(3)]), score, class });
                }
            }
        }
        Ok(())
    }

    /// `boxes x 6`.
    fn end_to_end(
        &self,
        tensor: &TensorView,
        lane: usize,
        scores: &Scores,
        sink: &mut Sink,
    ) -> Result<(), HeadError> {
        let [boxes, columns] = tensor.lane_shape()?;
        if columns != 6 {
            return Err(tensor.wrong("is not what the end-to-end head was found in"));
        }
        for row in tensor.floats(lane, boxes.saturating_mul(6))?.chunks_exact(6) {
            let rect = [row[0], row[1], row[2], row[3]];
            self.offer_selected(rect, row[4], f64::from(row[5]), scores, sink)?;
        }
        Ok(())
    }

    /// Boxes, scores and classes in tensors of their own: EfficientNMS and deployed DETRs.
    fn selected(
        &self,
        tensors: &Tensors,
        selected: &Selected,
        scores: &Scores,
        sink: &mut Sink,
    ) -> Result<(), HeadError> {
        let lane = tensors.lane;
        let values = tensors.get(selected.scores)?;
        let boxes = values.lane_len();
        let values = values.floats(lane, boxes)?;
        let rects = tensors.get(selected.boxes)?.floats(lane, boxes.saturating_mul(4))?;
        let classes = tensors.get(selected.classes)?.numbers(lane, boxes)?;
        let valid = match selected.count {
            // Negative and NaN become 0.
            Some(count) => (tensors.get(count)?.numbers(lane, 1)?.get(0) as usize).min(boxes),
            None => boxes,
        };
        for (index, rect) in rects.chunks_exact(4).enumerate().take(valid) {
            let rect = [rect[0], rect[1], rect[2], rect[3]];
            self.offer_selected(rect, values[index], classes.get(index), scores, sink)?;
        }
        Ok(())
    }

    /// A box that the model has selected and classified itself. A class that is negative or not a number is the
    /// padding of an unused row.
    fn offer_selected(
        &self,
        rect: Rect,
        raw: f32,
        class: f64,
        scores: &Scores,
        sink: &mut Sink,
    ) -> Result<(), HeadError> {
        let score = scores.probability(raw);
        if !raw.is_finite() || !scores.passes(score) || !class.is_finite() || class < 0.0 {
            return Ok(());
        }
        let class = class.round();
        if class >= self.classes as f64 {
            return Err(unlabelled(class, self.classes));
        }
        sink.offer(Candidate { rect, score, class: class as u32 });
        Ok(())
    }

    /// `logits` and `pred_boxes` of a DETR as trained.
    fn queries(
        &self,
        tensors: &Tensors,
        logits: usize,
        boxes: usize,
        scores: &Scores,
        sink: &mut Sink,
    ) -> Result<(), HeadError> {
        let tensor = tensors.get(logits)?;
        let [queries, classes] = tensor.lane_shape()?;
        if classes != self.classes {
            return Err(tensor.wrong("is not what the detr head was found in"));
        }
        let logits = tensor.floats(tensors.lane, queries.saturating_mul(classes))?;
        let boxes = tensors.get(boxes)?.floats(tensors.lane, queries.saturating_mul(4))?;
        let (width, height) = (self.input.0 as f32, self.input.1 as f32);
        for (row, b) in logits.chunks_exact(classes.max(1)).zip(boxes.chunks_exact(4)) {
            let Some((class, raw)) = best_class(row.iter().copied()) else { continue };
            let score = scores.probability(raw);
            if scores.passes(score) {
                let rect = corners([b[0] * width, b[1] * height, b[2] * width, b[3] * height]);
                sink.offer(Candidate { rect, score, class });
            }
        }
        Ok(())
    }
}

/// The outputs of a run and the lane to be read.
struct Tensors<'a> {
    outputs: &'a [TensorView<'a>],
    lane: usize,
}

impl<'a> Tensors<'a> {
    fn get(&self, index: usize) -> Result<&'a TensorView<'a>, HeadError> {
        let missing =
            || HeadError::Tensor(format!("output {index} is missing: the model gave {}", self.outputs.len()));
        self.outputs.get(index).ok_or_else(missing)
    }
}

/// Numbers of the outputs of a model that selects boxes itself.
struct Selected {
    count: Option<usize>,
    boxes: usize,
    scores: usize,
    classes: usize,
}

/// A model that selects boxes itself has a class that the manifest has no label for.
pub(crate) fn unlabelled(class: f64, labels: usize) -> HeadError {
    HeadError::Manifest(format!(
        "the model reports class {class} but the manifest has {labels} labels: give the labels it was trained with"
    ))
}

/// How raw scores compare with the threshold.
pub(crate) struct Scores {
    pub(crate) logits: bool,
    pub(crate) confidence: f32,
    /// Raw scores below cannot pass.
    pub(crate) floor: f32,
}

impl Scores {
    pub(crate) fn new(logits: bool, confidence: f32) -> Self {
        let floor = if confidence <= 0.0 {
            f32::NEG_INFINITY
        } else if logits {
            // The margin makes up for rounding: `passes` is exact. In float32 the sigmoid reaches 1 near 16.6.
            let p = f64::from(confidence).min(1.0 - f64::from(f32::EPSILON));
            (p / (1.0 - p)).ln() as f32 - 1e-2
        } else {
            confidence
        };
        Self { logits, confidence, floor }
    }

    /// Whether a raw score is worth a closer look; not so for NaN.
    fn may_pass(&self, raw: f32) -> bool {
        raw >= self.floor
    }

    /// Whether a probability reaches the threshold; not so for NaN.
    fn passes(&self, probability: f32) -> bool {
        probability >= self.confidence
    }

    fn probability(&self, raw: f32) -> f32 {
        if self.logits { 1.0 / (1.0 + (-raw).exp()) } else { raw.clamp(0.0, 1.0) }
    }
}

/// The best finite score of boxes `start..` over all class planes of `boxes` scores each; NaN never wins.
fn running_best(planes: &[f32], boxes: usize, start: usize, best: &mut [f32]) {
    best.fill(f32::NEG_INFINITY);
    for plane in planes.chunks_exact(boxes) {
        for (best, score) in best.iter_mut().zip(&plane[start..]) {
            // Not f32::max: this is one instruction, and false for NaN.
            *best = if *score > *best { *score } else { *best };
        }
    }
}

/// The class of the best finite score and that score, the first where two are equal.
fn best_class(scores: impl Iterator<Item = f32>) -> Option<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for (class, score) in scores.enumerate() {
        if score.is_finite() && best.is_none_or(|(_, top)| score > top) {
            best = Some((class as u32, score));
        }
    }
    best
}

/// Centre and size → corners.
fn corners([x, y, width, height]: [f32; 4]) -> Rect {
    let (half_width, half_height) = (width / 2.0, height / 2.0);
    [x - half_width, y - half_height, x + half_width, y + half_height]
}

/// Takes candidates and keeps the best: at most twice the limit are held at any time.
struct Sink<'a> {
    out: &'a mut Candidates,
    /// The picture within the letterbox, in input pixels.
    picture: Rect,
    limit: usize,
}

impl<'a> Sink<'a> {
    fn new(letterbox: &Letterbox, limit: usize, out: &'a mut Candidates) -> Self {
        let (x, y) = (letterbox.pad.0 as f32, letterbox.pad.1 as f32);
        let picture = [x, y, x + letterbox.picture.0 as f32, y + letterbox.picture.1 as f32];
        Self { out, picture, limit }
    }

    /// Takes a candidate unless its box is empty, not finite or wholly within the padding.
    fn offer(&mut self, candidate: Candidate) {
        let (r, p) = (candidate.rect, self.picture);
        let touches = r[0].max(p[0]) < r[2].min(p[2]) && r[1].max(p[1]) < r[3].min(p[3]);
        if !touches || !r.iter().all(|v| v.is_finite()) || !candidate.score.is_finite() {
            return;
        }
        self.out.boxes.push(candidate);
        if self.out.boxes.len() >= self.limit.saturating_mul(2) {
            self.out.keep_best(self.limit);
        }
    }
}

#[cfg(test)]
mod tests;
