//! Which frames go together, and when. Pure: time and the slots' views are arguments.

use std::time::{Duration, Instant};

use crate::slot::SlotView;

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is ready: wait for a frame.
    Idle,
    /// Something is ready, but its batch may still fill until then; before so many more frames it will not.
    WaitUntil(Instant, usize),
    /// Take one frame from each of these slots; a lossless slot may be named more than once.
    Go(Vec<usize>),
}

/// Remembers who was served when, so that more cameras than lanes share fairly.
///
/// Each slot gathers credit of its weight with every batch it waits through with a frame ready, and pays for a
/// lane with all of it (weighted round robin by waiting time). A weight of 10 against 1 is served ten times as
/// often under overload, and nobody starves.
#[derive(Debug, Default)]
pub struct Fairness {
    credit: Vec<u64>,
    /// Where equal credits are broken, rotated with each batch.
    start: usize,
}

impl Fairness {
    /// Decides over `slots`, in a fixed order, for an engine of `lanes` lanes. A partial batch leaves when no
    /// live camera or file has more to give, or when its oldest frame has waited for `deadline`.
    pub fn decide(&mut self, now: Instant, slots: &[SlotView], lanes: usize, deadline: Duration) -> Decision {
        let Some(oldest) = slots.iter().filter_map(|s| s.since).min() else {
            return Decision::Idle;
        };
        let ready: usize = slots.iter().map(|s| s.ready).sum();
        let expected: usize = slots.iter().filter(|s| s.live).map(|s| s.depth.saturating_sub(s.ready)).sum();
        let missing = expected.min(lanes.saturating_sub(ready));
        let due = oldest + deadline;
        if missing > 0 && now < due {
            return Decision::WaitUntil(due, missing);
        }
        Decision::Go(self.choose(slots, lanes))
    }

    /// A slot went away: the later ones move up.
    pub fn remove(&mut self, index: usize) {
        if index < self.credit.len() {
            self.credit.remove(index);
        }
    }

    fn choose(&mut self, slots: &[SlotView], lanes: usize) -> Vec<usize> {
        self.credit.resize(slots.len(), 0);
        for (credit, slot) in self.credit.iter_mut().zip(slots) {
            *credit = if slot.ready > 0 { *credit + u64::from(slot.weight) } else { 0 };
        }
        let mut order: Vec<usize> = (0..slots.len()).filter(|i| slots[*i].ready > 0).collect();
        let rotated = |i: usize| (i + slots.len() - self.start % slots.len()) % slots.len();
        order.sort_by_key(|i| (std::cmp::Reverse(self.credit[*i]), rotated(*i)));
        let mut chosen = Vec::with_capacity(lanes);
        for depth in 0.. {
            let before = chosen.len();
            let deep_enough = order.iter().copied().filter(|i| slots[*i].ready > depth);
            chosen.extend(deep_enough.take(lanes - before));
            if chosen.len() == before || chosen.len() == lanes {
                break;
            }
        }
        for index in &chosen {
            self.credit[*index] = 0;
        }
        self.start = self.start.wrapping_add(1);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(40);

    fn view(ready: usize, live: bool, weight: u8, since: Instant) -> SlotView {
        SlotView { ready, depth: 1, since: (ready > 0).then_some(since), live, weight, unjudged: false }
    }

    #[test]
    fn a_full_batch_goes_at_once_and_a_partial_one_at_its_deadline() {
        let t = Instant::now();
        let mut fairness = Fairness::default();
        let slots = [view(1, true, 5, t), view(0, true, 5, t), view(0, true, 5, t)];
        assert_eq!(fairness.decide(t, &slots, 2, DEADLINE), Decision::WaitUntil(t + DEADLINE, 1));
        assert_eq!(fairness.decide(t + DEADLINE, &slots, 2, DEADLINE), Decision::Go(vec![0]));
        let slots = [view(1, true, 5, t), view(1, true, 5, t), view(0, true, 5, t)];
        assert!(matches!(fairness.decide(t, &slots, 2, DEADLINE), Decision::Go(chosen) if chosen.len() == 2));
    }

    #[test]
    fn a_dead_camera_does_not_cost_the_deadline() {
        let t = Instant::now();
        let slots = [view(1, true, 5, t), view(0, false, 5, t)];
        assert_eq!(Fairness::default().decide(t, &slots, 8, DEADLINE), Decision::Go(vec![0]));
    }

    #[test]
    fn nothing_ready_is_idle() {
        let t = Instant::now();
        assert_eq!(Fairness::default().decide(t, &[view(0, true, 5, t)], 4, DEADLINE), Decision::Idle);
        assert_eq!(Fairness::default().decide(t, &[], 4, DEADLINE), Decision::Idle);
    }

    #[test]
    fn a_lossless_file_fills_several_lanes() {
        let t = Instant::now();
        let file = |ready: usize, live: bool| SlotView { depth: 4, ..view(ready, live, 5, t) };
        let slots = [file(2, true), view(1, true, 5, t)];
        assert_eq!(Fairness::default().decide(t, &slots, 4, DEADLINE), Decision::WaitUntil(t + DEADLINE, 1));
        let at_its_end = [file(2, false), view(1, true, 5, t)];
        assert!(matches!(Fairness::default().decide(t, &at_its_end, 4, DEADLINE), Decision::Go(c) if c.len() == 3));
        let slots = [file(4, true), view(1, true, 5, t)];
        let Decision::Go(mut chosen) = Fairness::default().decide(t, &slots, 4, DEADLINE) else {
            panic!("ready frames fill the batch")
        };
        chosen.sort_unstable();
        assert_eq!(chosen, [0, 0, 0, 1]);
    }

    #[test]
    fn more_cameras_than_lanes_share_fairly_and_by_weight() {
        let t = Instant::now();
        let mut fairness = Fairness::default();
        let weights = [5, 5, 5, 5, 5, 5, 10];
        let slots: Vec<SlotView> = weights.iter().map(|w| view(1, true, *w, t)).collect();
        let mut served = [0usize; 7];
        for _ in 0..8000 {
            let Decision::Go(chosen) = fairness.decide(t, &slots, 2, DEADLINE) else { panic!("all ready") };
            chosen.iter().for_each(|i| served[*i] += 1);
        }
        assert_eq!(served.iter().sum::<usize>(), 16000);
        let (least, most) = (served[..6].iter().min(), served[..6].iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 20), "{served:?}");
        let ratio = served[6] as f64 / served[0] as f64;
        assert!((1.5..=2.5).contains(&ratio), "{served:?}");
    }
}
