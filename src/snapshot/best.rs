//! Which view of a track is its best. Pure: time is an argument.

use std::sync::Arc;
use std::time::Duration;

use crate::letterbox::Rect;
use crate::thumbnail::Thumbnail;

/// A larger share of the picture says no more.
const AREA_ENOUGH: f32 = 0.25;
/// A box within this of the picture's edge is cut by it, most likely.
const EDGE: f32 = 0.005;
/// What a view is worth that is cut by the edge, of one that is not.
const CUT: f32 = 0.4;
/// A box whose shorter side has fewer pixels of the thumbnail is a blur; it is worth as much less.
const CLEAR_PX: f32 = 32.0;
/// A new view must be worth this much more than the one that was made a picture of.
const CLEARLY: f32 = 1.15;
/// A better view waits for this long at most, as others need the memory that it is in. A track that is no event after so
/// long keeps only its latest view, which it shares with the others in the picture.
const PATIENCE: Duration = Duration::from_secs(10);

/// A track in a picture.
#[derive(Clone, Debug)]
pub struct View {
    /// The picture.
    pub thumbnail: Arc<Thumbnail>,
    /// The track's box, 0..1 of the picture.
    pub rect: Rect,
    /// The box's score, 0..1.
    pub score: f32,
}

/// What a view is worth: a sure box that is large, whole and sharp.
pub fn worth(rect: Rect, score: f32, (width, height): (u32, u32)) -> f32 {
    let (w, h) = ((rect[2] - rect[0]).max(0.0), (rect[3] - rect[1]).max(0.0));
    let area = (w * h).min(AREA_ENOUGH);
    let is_cut = rect[0] <= EDGE || rect[1] <= EDGE || rect[2] >= 1.0 - EDGE || rect[3] >= 1.0 - EDGE;
    let sharp = ((w * width as f32).min(h * height as f32) / CLEAR_PX).min(1.0);
    // The root: twice as near counts twice, not four times, and does not outweigh everything else.
    score * area.sqrt() * sharp * if is_cut { CUT } else { 1.0 }
}

/// The best view of a track, until it is taken.
#[derive(Debug, Default)]
pub struct Best {
    waiting: Option<(View, f32)>,
    first: Option<Duration>,
    /// When a view was taken last, and the worth of the best that ever was.
    taken: Option<(Duration, f32)>,
}

impl Best {
    /// A view at `at`; kept if it is better than what was there.
    pub fn offer(&mut self, at: Duration, view: View) {
        let worth = worth(view.rect, view.score, view.thumbnail.size());
        let first = *self.first.get_or_insert(at);
        let taken = self.taken.map_or(0.0, |(_, taken)| taken * CLEARLY);
        let waiting = self.waiting.as_ref().map_or(-1.0, |(_, waiting)| *waiting);
        let grows_old = self.taken.is_none() && at.saturating_sub(first) >= PATIENCE;
        if grows_old || (worth > waiting && worth >= taken) {
            self.waiting = Some((view, worth));
        }
    }

    /// The view to make a picture of at `at`: the first at once, a better one when `every` has passed since.
    pub fn due(&mut self, at: Duration, every: Duration) -> Option<View> {
        let waits = |(taken, _): (Duration, f32)| at.saturating_sub(taken) < every.min(PATIENCE);
        if self.taken.is_some_and(waits) {
            return None;
        }
        self.last(at)
    }

    /// The view that waits, whenever the last one was taken: the track has ended.
    pub fn last(&mut self, at: Duration) -> Option<View> {
        let (view, worth) = self.waiting.take()?;
        self.taken = Some((at, worth));
        Some(view)
    }

    /// When a view was taken last.
    pub fn taken_at(&self) -> Option<Duration> {
        self.taken.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::SystemImage;
    use crate::metrics::ThumbnailMetrics;
    use crate::thumbnail::{Pool, Shrink};

    const SIZE: (u32, u32) = (640, 360);
    const EVERY: Duration = Duration::from_secs(5);

    fn thumbnail() -> Arc<Thumbnail> {
        let blank = Pool::new(1, ThumbnailMetrics::default()).take().unwrap();
        Arc::new(blank.write(&SystemImage::solid(640, 360, [0; 3]), None, &mut Shrink::default()))
    }

    fn seconds(seconds: f32) -> Duration {
        Duration::from_secs_f32(seconds)
    }

    #[test]
    fn large_sure_whole_and_sharp_is_better() {
        let person = [0.4, 0.3, 0.5, 0.7];
        let sure = worth(person, 0.9, SIZE);
        assert!(sure > worth(person, 0.6, SIZE), "sure");
        assert!(worth([0.4, 0.2, 0.55, 0.9], 0.8, SIZE) > sure, "nearer");
        assert!(worth([0.0, 0.2, 0.15, 0.9], 0.9, SIZE) < sure, "nearer, but cut off at the left");
        assert!(worth([0.4, 0.5, 0.55, 1.0], 0.9, SIZE) < sure, "nearer, but without feet");
        let far = [0.4, 0.3, 0.42, 0.38];
        assert!(worth(far, 1.0, SIZE) < worth(person, 0.5, SIZE) / 4.0, "a blur");
        assert_eq!(worth([0.1, 0.1, 0.7, 0.9], 0.9, SIZE), worth([0.2, 0.2, 0.9, 0.9], 0.9, SIZE), "large enough");
        assert_eq!(worth([0.5; 4], 0.9, SIZE), 0.0);
    }

    #[test]
    fn the_first_is_taken_at_once_and_a_clearly_better_one_after_a_while() {
        let (mut best, thumbnail) = (Best::default(), thumbnail());
        let view = |score| View { thumbnail: Arc::clone(&thumbnail), rect: [0.4, 0.3, 0.5, 0.7], score };
        assert!(best.due(seconds(0.0), EVERY).is_none() && best.taken_at().is_none());
        for (n, score) in [0.5, 0.6, 0.55].into_iter().enumerate() {
            best.offer(seconds(n as f32 / 5.0), view(score));
        }
        assert_eq!(best.due(seconds(0.6), EVERY).map(|view| view.score), Some(0.6));
        assert_eq!(best.taken_at(), Some(seconds(0.6)));
        best.offer(seconds(1.0), view(0.65));
        assert!(best.last(seconds(1.0)).is_none(), "hardly better");
        for score in [0.7, 0.9, 0.8] {
            best.offer(seconds(2.0), view(score));
        }
        assert!(best.due(seconds(5.5), EVERY).is_none(), "too soon");
        assert_eq!(best.due(seconds(5.7), EVERY).map(|view| view.score), Some(0.9));
        best.offer(seconds(6.0), view(0.99));
        assert!(best.last(seconds(6.0)).is_none());
        drop(best);
        let mut ended = Best::default();
        ended.offer(seconds(0.0), view(0.5));
        assert!(ended.due(seconds(0.0), EVERY).is_some());
        ended.offer(seconds(0.2), view(0.9));
        assert_eq!(ended.last(seconds(0.4)).map(|view| view.score), Some(0.9), "the end does not wait");
    }

    #[test]
    fn memory_is_not_held_by_tracks_that_are_no_events() {
        let mut best = Best::default();
        let old = thumbnail();
        best.offer(seconds(0.0), View { thumbnail: Arc::clone(&old), rect: [0.4, 0.3, 0.5, 0.7], score: 0.9 });
        assert_eq!(Arc::strong_count(&old), 2);
        best.offer(seconds(11.0), View { thumbnail: thumbnail(), rect: [0.4, 0.3, 0.5, 0.7], score: 0.3 });
        assert_eq!(Arc::strong_count(&old), 1, "only the latest view is kept");
    }
}
