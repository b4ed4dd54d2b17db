//! Pure: what a model's output tensors mean. [`head`] recognises the layout and turns tensors into candidates,
//! [`nms`] keeps the best.

mod decode;
pub mod head;
pub mod nms;
mod tensor;

use std::cmp::Ordering;

use crate::letterbox::Rect;

pub(crate) use decode::{Scores, unlabelled};
pub use tensor::{TensorData, TensorSpec, TensorView};

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

impl Candidate {
    /// The better one first: by score, then the lower class, then the position. A total order, so that what is
    /// kept does not depend on the order of the boxes in a tensor.
    pub fn rank(&self, other: &Self) -> Ordering {
        let by_score = other.score.total_cmp(&self.score).then(self.class.cmp(&other.class));
        let sides = self.rect.iter().zip(&other.rect);
        sides.fold(by_score, |order, (a, b)| order.then_with(|| a.total_cmp(b)))
    }
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

impl Candidates {
    /// Cuts down to the best `limit` and counts the rest as dropped.
    pub(crate) fn keep_best(&mut self, limit: usize) {
        let over = self.boxes.len().saturating_sub(limit);
        if over > 0 {
            self.boxes.select_nth_unstable_by(limit, Candidate::rank);
            self.boxes.truncate(limit);
            self.dropped = self.dropped.saturating_add(over as u32);
        }
    }
}

/// A box that is left after NMS, where it lies in the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// x1, y1, x2, y2, 0..1 of the source; never empty.
    pub rect: Rect,
    /// Score, 0..1.
    pub score: f32,
    /// Class number.
    pub class: u32,
}
