//! Pure: what a model's output tensors mean. [`head`] turns tensors into candidates, [`nms`] keeps the best.

pub mod head;
pub mod nms;

use crate::letterbox::Rect;

/// A box over the confidence threshold, in input pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// x1, y1, x2, y2 in input pixels.
    pub rect: Rect,
    /// Score, 0..1.
    pub score: f32,
    /// Class number.
    pub class: u32,
}

/// What a backend returns for a frame: at most `max_candidates` boxes.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// The boxes, in no order.
    pub boxes: Vec<Candidate>,
    /// The head ran NMS itself (end-to-end heads): ours is left out.
    pub final_boxes: bool,
    /// Boxes over the threshold that did not fit.
    pub dropped: u32,
}
