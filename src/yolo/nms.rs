//! Non-maximum suppression and the way back to the source: candidates → detections.

use super::{Candidate, Candidates, Detection};
use crate::letterbox::{Letterbox, Rect};

/// Sorts the candidates, the best first, and drops every box that overlaps a better one of its class by an IoU
/// above `iou`. Boxes that the model has already suppressed are only sorted. At most `max_detections` stay.
///
/// Greedy and exact; equal scores are ordered by class, then position, so the outcome does not depend on the
/// order in which the boxes came. Works in place and allocates nothing.
pub fn nms(candidates: &mut Candidates, iou: f32, max_detections: usize) {
    let boxes = &mut candidates.boxes;
    boxes.sort_unstable_by(Candidate::rank);
    if !candidates.final_boxes {
        let mut kept = 0;
        for index in 0..boxes.len() {
            if kept == max_detections {
                break;
            }
            let candidate = boxes[index];
            let suppressed =
                |better: &Candidate| better.class == candidate.class && overlap(better.rect, candidate.rect) > iou;
            if !boxes[..kept].iter().any(suppressed) {
                boxes[kept] = candidate;
                kept += 1;
            }
        }
        boxes.truncate(kept);
    }
    boxes.truncate(max_detections);
}

/// Runs [`nms`] and turns what is left into 0..1 of the source, the best first; boxes that have no area after
/// clipping are dropped. `out` is replaced and keeps its memory.
pub fn detections(
    candidates: &mut Candidates,
    letterbox: &Letterbox,
    iou: f32,
    max_detections: usize,
    out: &mut Vec<Detection>,
) {
    nms(candidates, iou, max_detections);
    out.clear();
    let placed = candidates.boxes.iter().map(|b| (letterbox.to_source(b.rect), b));
    out.extend(placed.filter(|(rect, _)| rect[2] > rect[0] && rect[3] > rect[1]).map(|(rect, b)| Detection {
        rect,
        score: b.score,
        class: b.class,
    }));
}

/// Intersection over union of two boxes, 0..1; NaN where both are empty.
pub fn overlap(a: Rect, b: Rect) -> f32 {
    let area = |r: Rect| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let shared = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    shared / (area(a) + area(b) - shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letterbox::Fit;

    fn candidate(rect: Rect, score: f32, class: u32) -> Candidate {
        Candidate { rect, score, class }
    }

    fn crowd(random: &mut fastrand::Rng, boxes: usize) -> Vec<Candidate> {
        let one = |_| {
            let (x, y) = (random.f32() * 100.0, random.f32() * 100.0);
            let rect = [x, y, x + 10.0 + random.f32() * 60.0, y + 10.0 + random.f32() * 60.0];
            // Coarse scores, so that there are ties.
            candidate(rect, random.u8(1..=20) as f32 / 20.0, random.u32(0..3))
        };
        (0..boxes).map(one).collect()
    }

    /// One class at a time, in double precision, marking what is suppressed.
    fn naive(boxes: &[Candidate], iou: f64) -> Vec<Candidate> {
        let exact = |a: Rect, b: Rect| {
            let (a, b) = (a.map(f64::from), b.map(f64::from));
            let w = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
            let h = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
            let union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h;
            w * h / union
        };
        let mut left = Vec::new();
        for class in 0..3 {
            let mut rest: Vec<Candidate> = boxes.iter().copied().filter(|b| b.class == class).collect();
            while let Some(best) = rest.iter().copied().min_by(Candidate::rank) {
                left.push(best);
                rest.retain(|b| *b != best && exact(best.rect, b.rect) <= iou);
            }
        }
        left.sort_by(Candidate::rank);
        left
    }

    #[test]
    fn agrees_with_a_naive_reference_in_any_order() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..100 {
            let mut boxes = crowd(&mut random, round * 3);
            let expected = naive(&boxes, 0.45);
            for _ in 0..3 {
                random.shuffle(&mut boxes);
                let mut candidates = Candidates { boxes: boxes.clone(), ..Candidates::default() };
                nms(&mut candidates, 0.45, usize::MAX);
                assert_eq!(candidates.boxes, expected, "round {round}");
            }
            let mut few = Candidates { boxes, ..Candidates::default() };
            nms(&mut few, 0.45, 5);
            assert_eq!(few.boxes, expected[..expected.len().min(5)], "round {round}");
        }
    }

    #[test]
    fn suppresses_within_a_class_only() {
        let (high, low) = (candidate([0.0, 0.0, 10.0, 10.0], 0.9, 1), candidate([0.0, 0.0, 10.0, 9.0], 0.8, 1));
        let other = candidate([0.0, 0.0, 10.0, 10.0], 0.7, 2);
        let mut candidates = Candidates { boxes: vec![other, low, high], ..Candidates::default() };
        nms(&mut candidates, 0.5, 300);
        assert_eq!(candidates.boxes, [high, other]);
    }

    #[test]
    fn boxes_of_an_end_to_end_head_are_sorted_and_cut_only() {
        let boxes = vec![candidate([0.0, 0.0, 10.0, 10.0], 0.5, 1), candidate([0.0, 0.0, 10.0, 10.0], 0.9, 1)];
        let mut candidates = Candidates { boxes: boxes.clone(), final_boxes: true, dropped: 0 };
        nms(&mut candidates, 0.1, 300);
        assert_eq!(candidates.boxes, [boxes[1], boxes[0]]);
        nms(&mut candidates, 0.1, 1);
        assert_eq!(candidates.boxes, [boxes[1]]);
    }

    #[test]
    fn the_limit_of_overlap_is_not_above_it() {
        let (a, b) = ([0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]);
        assert_eq!(overlap(a, b), 0.5);
        let boxes = vec![candidate(a, 0.9, 0), candidate(b, 0.8, 0)];
        for (iou, left) in [(0.5, 2), (0.49, 1), (1.0, 2), (0.0, 1)] {
            let mut candidates = Candidates { boxes: boxes.clone(), ..Candidates::default() };
            nms(&mut candidates, iou, 300);
            assert_eq!(candidates.boxes.len(), left, "iou {iou}");
        }
    }

    #[test]
    fn detections_lie_in_the_source_and_have_an_area() {
        let letterbox = Letterbox::new((1920, 1080), (640, 640), Fit::Centre);
        let inside = candidate([160.0, 140.0, 480.0, 320.0], 0.9, 3);
        let padding = candidate([0.0, 0.0, 640.0, 140.0], 0.8, 3);
        let mut candidates = Candidates { boxes: vec![padding, inside], ..Candidates::default() };
        let mut out = vec![Detection { rect: [0.0; 4], score: 0.0, class: 0 }];
        detections(&mut candidates, &letterbox, 0.45, 300, &mut out);
        assert_eq!(out, [Detection { rect: [0.25, 0.0, 0.75, 0.5], score: 0.9, class: 3 }]);
    }

    #[test]
    fn hostile_values_do_no_harm() {
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0, 0.0, 1.0];
        let mut random = fastrand::Rng::with_seed(11);
        let letterbox = Letterbox::new((640, 480), (416, 416), Fit::Centre);
        for _ in 0..500 {
            let mut value = || odd[random.usize(..odd.len())];
            let one = |_| candidate([value(), value(), value(), value()], value(), 0);
            let boxes: Vec<Candidate> = (0..20).map(one).collect();
            let mut out = Vec::new();
            let mut candidates = Candidates { boxes, ..Candidates::default() };
            detections(&mut candidates, &letterbox, value(), random.usize(..30), &mut out);
            assert!(out.iter().all(|d| d.rect.iter().all(|v| (0.0..=1.0).contains(v))), "{out:?}");
        }
    }
}
