//! The tracker: which detection is the same object as one before.
//!
//! ByteTrack (Zhang et al., ECCV 2022): sure boxes are matched first, and unsure ones with the tracks left over, so that a
//! half hidden object keeps its track and a doubtful box begins none. It has no eye for looks. What else it knows:
//!
//! * A track's place is foretold over the time that has passed, not over "a frame", and a box is judged by how likely it is
//!   there ([`Expected::surprise`]), not by overlap: at 2 frames a second boxes of a walking person do not touch, and where two
//!   people cross, overlap says the same of both ways to tell them apart. All tracks and boxes of a round are matched at once,
//!   so that the likelihood of the whole is greatest (global nearest neighbour: Blackman and Popoli, Design and Analysis of
//!   Modern Tracking Systems, 1999, chapter 6).
//! * Who stands nearer hides who stands farther, and nearer is whose foot is lower (the pseudo-depth of SparseTrack, Liu et al.
//!   2023): of two tracks that claim one box the hidden one has the weaker claim ([`unlikely_seen`]). So has one that is
//!   leaving the picture.
//! * The time without a box needs no repair of the kind OC-SORT makes (Cao et al., CVPR 2023): a filter of exact time steps
//!   turns where an object is found again into its speed by itself.
//! * Tracks are confirmed, remembered and ended by time, not by numbers of frames.
//! * A frame that did not come is not one in which nothing was found.
//!
//! Pure: time is an argument.

use std::time::Duration;

use super::assign::Assigner;
use super::kalman::{BORDER, Expected, Extent, Motion, Sighting};
use super::rest::Rest;
use crate::letterbox::Rect;
use crate::yolo::Detection;

/// How detections become tracks. The tracker sees every box that the engine passes on, from its confidence threshold on.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackerSettings {
    /// Boxes of less are not looked at, 0..1; without effect below the engine's confidence.
    pub low: f32,
    /// Boxes from here on are matched first, those below only with confirmed tracks that are left over; `low..=1`.
    pub high: f32,
    /// Least score of a box that begins a track, `high..=1`.
    pub new: f32,
    /// Sightings of at least `high` before a track is confirmed, 1..=100.
    pub confirm_hits: u32,
    /// Time from the first to the last of them, 0..=1 min.
    pub confirm_after: Duration,
    /// A confirmed track not seen for this long has ended, 100 ms..=10 min.
    pub lost_after: Duration,
    /// A track that has not moved for this long is stationary, 1 s..=1 day.
    pub stationary_after: Duration,
}

/// What suits a camera of 2 to 30 frames a second; the defaults of `[tracking]`.
impl Default for TrackerSettings {
    fn default() -> Self {
        Self {
            low: 0.1,
            high: 0.4,
            new: 0.5,
            confirm_hits: 3,
            confirm_after: Duration::from_millis(300),
            lost_after: Duration::from_secs(2),
            stationary_after: Duration::from_secs(10),
        }
    }
}

/// An object over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Counts up from 0 and is never used again.
    pub id: u64,
    /// The class whose boxes have the greatest sum of scores so far.
    pub class: u32,
    /// Score of the latest box, 0..1.
    pub score: f32,
    /// Greatest score so far, 0..1.
    pub top_score: f32,
    /// The latest box; while unseen, where it is believed to be. 0..1 of the source.
    pub rect: Rect,
    /// Seen often and long enough to be believed. Stays so.
    pub confirmed: bool,
    /// There was a box of it in this frame.
    pub seen: bool,
    /// Has not moved for long.
    pub stationary: bool,
    /// When its first box was.
    pub first_seen: Duration,
    /// When its latest box was.
    pub last_seen: Duration,
    /// Boxes so far.
    pub hits: u32,
}

/// A track that is no more. Its `rect` is that of its last box.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// As it was at the last; one never confirmed was most likely no object.
    pub track: Track,
    /// What became of it.
    pub how: Exit,
}

/// What became of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Its last box was at the picture's border, or it was on its way out.
    Left,
    /// It was last seen inside the picture.
    Lost,
}

/// What a frame made of the tracks.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Of each detection, in their order, the track it belongs to.
    pub of_detection: Vec<Option<u64>>,
    /// Those that were seen, and the confirmed ones that are remembered, by id. What was seen once and may come back, of which
    /// noise makes many, is not among them.
    pub tracks: Vec<Track>,
    /// Those that ended with this frame, by id, unconfirmed ones too. They are not in `tracks`.
    pub ended: Vec<Ended>,
}

/// Follows the objects of one camera.
///
/// Allocates for new tracks and where tracks compete for detections.
#[derive(Clone, Debug)]
pub struct Tracker {
    settings: TrackerSettings,
    live: Vec<Live>,
    next: u64,
    /// The latest frame's time and size in pixels.
    last: Option<(Duration, (u32, u32))>,
    work: Work,
    step: Step,
}

/// Used again from frame to frame.
#[derive(Clone, Debug, Default)]
struct Work {
    assigner: Assigner,
    boxes: Vec<Sighting>,
    /// Where each track is believed to be.
    places: Vec<Extent>,
    /// Of each track of a round what its box will be like.
    expected: Vec<Expected>,
    /// And how unlikely there is one, where that was asked.
    unlikely: Vec<Option<f32>>,
    /// Indices of tracks and of detections that may be matched in a round.
    tracks: Vec<usize>,
    detections: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Live {
    track: Track,
    motion: Motion,
    rest: Rest,
    /// Sum of scores by class.
    votes: Vec<(u32, f32)>,
    /// Boxes of at least `high`.
    sure_hits: u32,
    last_rect: Rect,
    /// Frames since the last box, and the time that passed over them.
    missed: u32,
    unseen: Duration,
}

/// Tracks and detections that may be matched, and how well they must fit.
#[derive(Clone, Copy, Debug)]
struct Round {
    tracks: fn(&Live) -> bool,
    sure: bool,
    /// A box that surprises by more than this is no track's.
    most: f32,
}

/// ByteTrack's rounds.
const ROUNDS: [Round; 2] = [
    Round { tracks: |_| true, sure: true, most: 12.0 },
    // A doubtful box prolongs what was just there, and does not bring back what is long gone.
    Round { tracks: |live| live.unseen < DOUBT_LASTS || live.missed == 0, sure: false, most: 7.0 },
];
const DOUBT_LASTS: Duration = Duration::from_millis(500);

/// A box of another class surprises by this much more: detectors take a van for a truck, but a rider is not the bicycle.
const OTHER_CLASS: f32 = 3.0;
/// How surely an object is not found that another one hides whole: not quite, since who is nearer may be mistaken.
const HIDDEN: f32 = 0.9;
/// Feet that are this far from each other, in scales, belong to different distances for sure.
const DEPTH: f32 = 0.1;
/// What was not found in the last frame is less likely found in this one, as a logarithm.
const MISSING: f32 = 0.3;
/// A box of another class that covers a matched one by this IoU is the same object said twice.
const SAID_TWICE: f32 = 0.8;
/// An unsure box says less about where the object is: often it is half hidden. So does one that may be of two.
const DOUBT: f32 = 2.0;
/// Two of whom one is hidden by so much often have one box between them.
const HALF: f32 = 0.5;
/// An unconfirmed track ends when it is missing in two frames in a row and for this long.
const TENTATIVE_MISSES: u32 = 2;
const TENTATIVE_LASTS: Duration = Duration::from_millis(300);

impl Tracker {
    /// Follows nothing yet.
    pub fn new(settings: &TrackerSettings) -> Self {
        Self {
            settings: settings.clone(),
            live: Vec::new(),
            next: 0,
            last: None,
            work: Work::default(),
            step: Step::default(),
        }
    }

    /// Other settings from the next frame on; what lives goes on.
    pub fn exchange(&mut self, settings: &TrackerSettings) {
        self.settings = settings.clone();
    }

    /// The id of the next track.
    pub fn next_id(&self) -> u64 {
        self.next
    }

    /// Ids below this were given to others.
    pub fn number_from(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// A frame of `size` pixels, taken `at` (since any fixed moment, never going back), and all that was found in it:
    /// `detections` are 0..1 of the source. The answer holds until the next update.
    pub fn update(&mut self, at: Duration, size: (u32, u32), detections: &[Detection]) -> &Step {
        let passed = self.pass_time(at, size);
        self.step.of_detection.clear();
        self.step.of_detection.resize(detections.len(), None);
        self.step.ended.clear();
        self.work.boxes.clear();
        self.work.boxes.extend(detections.iter().map(|detection| sighting(detection.rect, size)));
        for round in ROUNDS {
            self.play(&round, at, size, detections);
        }
        for live in self.live.iter_mut().filter(|live| !live.track.seen) {
            live.miss(passed, size);
        }
        self.end(size);
        self.begin(at, detections);
        self.step.tracks.clear();
        let told = self.live.iter().map(|live| &live.track).filter(|track| track.seen || track.confirmed);
        self.step.tracks.extend(told.cloned());
        &self.step
    }

    /// The camera is gone: everything that lived has ended, by id, with the rect of its last box.
    pub fn clear(&mut self) -> Vec<Track> {
        self.last = None;
        self.step = Step::default();
        self.live.drain(..).map(|live| live.as_last_seen()).collect()
    }

    /// Brings every track to `at`. How long that is after the frame before.
    fn pass_time(&mut self, at: Duration, size: (u32, u32)) -> Duration {
        let (before, old_size) = self.last.unwrap_or((at, size));
        let passed = at.saturating_sub(before);
        for live in &mut self.live {
            live.track.seen = false;
            if old_size != size {
                live.rest.rescale(size.0 as f32 / old_size.0 as f32, size.1 as f32 / old_size.1 as f32);
                live.motion = Motion::new(&sighting(live.track.rect, size));
            }
            live.motion.predict(passed.as_secs_f32());
        }
        self.last = Some((at.max(before), size));
        passed
    }

    /// Matches a round's tracks with its detections.
    fn play(&mut self, round: &Round, at: Duration, size: (u32, u32), detections: &[Detection]) {
        let Work { assigner, boxes, places, expected, unlikely, tracks, detections: open } = &mut self.work;
        let settings = &self.settings;
        let live = &mut self.live;
        let may_play = |live: &Live| !live.track.seen && !live.is_outside(size) && (round.tracks)(live);
        tracks.clear();
        tracks.extend((0..live.len()).filter(|n| may_play(&live[*n])));
        let in_round = |score: f32| score >= settings.low && (score >= settings.high) == round.sure;
        let of_detection = &mut self.step.of_detection;
        open.clear();
        open.extend((0..detections.len()).filter(|n| of_detection[*n].is_none() && in_round(detections[*n].score)));
        if tracks.is_empty() || open.is_empty() {
            return;
        }
        let doubt = if round.sure { 1.0 } else { DOUBT };
        places.clear();
        places.extend(live.iter().map(|live| live.motion.extent()));
        expected.clear();
        expected.extend(tracks.iter().map(|n| live[*n].motion.expect(doubt, round.most)));
        unlikely.clear();
        unlikely.resize(tracks.len(), None);
        let gain = |row: usize, column: usize| {
            let (here, detection) = (&live[tracks[row]], open[column]);
            let Some(surprise) = expected[row].surprise(&boxes[detection]) else { return 0.0 };
            let missing = if here.missed > 0 { MISSING } else { 0.0 };
            // Asked only of tracks that a box is near: it takes a look at all the others.
            let unseen = *unlikely[row].get_or_insert_with(|| unlikely_seen(tracks[row], places, size));
            let other = if detections[detection].class == here.track.class { 0.0 } else { OTHER_CLASS };
            1.0 - (surprise + missing + unseen + other) / round.most
        };
        let pairs = assigner.solve(tracks.len(), open.len(), gain);
        for (row, _) in pairs {
            live[tracks[*row]].track.seen = true;
        }
        for (row, column) in pairs {
            let (track, detection) = (tracks[*row], open[*column]);
            // What covers another track that has no box may be the box of both.
            let here = boxes[detection].extent;
            let mut others = live.iter().zip(&*places).filter(|(other, _)| !other.track.seen);
            let of_both = others.any(|(_, place)| place.covered_by(&here) > HALF);
            let doubt = if of_both { doubt * DOUBT } else { doubt };
            live[track].see(at, &detections[detection], &boxes[detection], doubt, settings);
            of_detection[detection] = Some(live[track].track.id);
        }
    }

    /// Ends tracks that have not been seen for too long.
    fn end(&mut self, size: (u32, u32)) {
        let ended = &mut self.step.ended;
        let settings = &self.settings;
        self.live.retain_mut(|live| {
            let keep = live.track.seen || !live.is_over(settings, size);
            if !keep {
                ended.push(Ended { how: live.exit(size), track: live.as_last_seen() });
            }
            keep
        });
    }

    /// Begins tracks with what is left.
    fn begin(&mut self, at: Duration, detections: &[Detection]) {
        for (index, detection) in detections.iter().enumerate() {
            let begins = self.step.of_detection[index].is_none() && detection.score >= self.settings.new;
            if !begins {
                continue;
            }
            let seen = self.work.boxes[index];
            let twice = |live: &Live| {
                let other = live.track.class != detection.class;
                other && live.track.seen && live.motion.extent().overlap(&seen.extent) >= SAID_TWICE
            };
            if self.live.iter().any(twice) {
                continue;
            }
            let live = Live::new(self.next, at, detection, &seen, &self.settings);
            self.step.of_detection[index] = Some(self.next);
            self.next += 1;
            self.live.push(live);
        }
    }
}

impl Live {
    fn new(id: u64, at: Duration, detection: &Detection, seen: &Sighting, settings: &TrackerSettings) -> Self {
        let track = Track {
            id,
            class: detection.class,
            score: detection.score,
            top_score: detection.score,
            rect: detection.rect,
            confirmed: settings.confirm_hits <= 1 && settings.confirm_after.is_zero(),
            seen: true,
            stationary: false,
            first_seen: at,
            last_seen: at,
            hits: 1,
        };
        Self {
            track,
            motion: Motion::new(seen),
            rest: Rest::new(at, &seen.extent),
            votes: vec![(detection.class, detection.score)],
            sure_hits: 1,
            last_rect: detection.rect,
            missed: 0,
            unseen: Duration::ZERO,
        }
    }

    fn see(
        &mut self,
        at: Duration,
        detection: &Detection,
        seen: &Sighting,
        doubt: f32,
        settings: &TrackerSettings,
    ) {
        let sure = detection.score >= settings.high;
        self.motion.correct(seen, doubt);
        self.sure_hits += u32::from(sure);
        (self.missed, self.unseen) = (0, Duration::ZERO);
        self.last_rect = detection.rect;
        let class = self.vote(detection);
        let track = &mut self.track;
        track.class = class;
        track.score = detection.score;
        track.top_score = track.top_score.max(detection.score);
        track.rect = detection.rect;
        track.seen = true;
        track.last_seen = at;
        track.hits = track.hits.saturating_add(1);
        let long = at.saturating_sub(track.first_seen) >= settings.confirm_after;
        track.confirmed |= sure && long && self.sure_hits >= settings.confirm_hits;
        // The middle of a half hidden object is not where it was, though it has not moved.
        if sure {
            track.stationary = self.rest.update(at, &self.motion.extent(), settings.stationary_after);
        }
    }

    fn vote(&mut self, detection: &Detection) -> u32 {
        match self.votes.iter_mut().find(|(class, _)| *class == detection.class) {
            Some((_, sum)) => *sum += detection.score,
            None => self.votes.push((detection.class, detection.score)),
        }
        let best = self.votes.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or(self.track.class, |(class, _)| *class)
    }

    fn miss(&mut self, passed: Duration, size: (u32, u32)) {
        self.missed += 1;
        self.unseen += passed;
        self.track.rect = rect(&self.motion.extent(), size);
    }

    fn is_over(&self, settings: &TrackerSettings, size: (u32, u32)) -> bool {
        if !self.track.confirmed {
            return self.missed >= TENTATIVE_MISSES && self.unseen >= TENTATIVE_LASTS;
        }
        self.unseen >= settings.lost_after || (self.missed >= TENTATIVE_MISSES && self.is_outside(size))
    }

    /// It is believed to be beyond the picture's border.
    fn is_outside(&self, size: (u32, u32)) -> bool {
        let here = self.motion.extent();
        let beyond = |middle: f32, side: f32, picture: u32| {
            middle + side / 2.0 <= 0.0 || middle - side / 2.0 >= picture as f32
        };
        beyond(here.x, here.w, size.0) || beyond(here.y, here.h, size.1)
    }

    fn exit(&self, size: (u32, u32)) -> Exit {
        let [x1, y1, x2, y2] = self.last_rect;
        let at_border = x1 <= BORDER || y1 <= BORDER || x2 >= 1.0 - BORDER || y2 >= 1.0 - BORDER;
        if at_border || self.is_outside(size) { Exit::Left } else { Exit::Lost }
    }

    fn as_last_seen(&self) -> Track {
        Track { rect: self.last_rect, ..self.track.clone() }
    }
}

/// How unlikely the `n`th of them is found at all, as minus a logarithm: another may hide it, or the picture's border.
fn unlikely_seen(n: usize, places: &[Extent], size: (u32, u32)) -> f32 {
    let here = &places[n];
    let others = places.iter().enumerate().filter(|(other, _)| *other != n);
    let hidden = others.map(|(_, other)| here.hidden_by(other, DEPTH)).fold(0.0, f32::max);
    let inside = here.clipped(size);
    // Detectors hardly find what shows by less than a third.
    let shows = (inside.w * inside.h / (here.w * here.h)).clamp(0.01, 1.0).powi(3);
    -((1.0 - HIDDEN * hidden) * shows).ln()
}

/// As it was detected.
fn sighting(rect: Rect, size: (u32, u32)) -> Sighting {
    Sighting::new(extent(rect, size), size)
}

/// 0..1 of the source as pixels; at least a pixel wide and high.
fn extent(rect: Rect, size: (u32, u32)) -> Extent {
    let (width, height) = (size.0 as f32, size.1 as f32);
    Extent {
        x: (rect[0] + rect[2]) / 2.0 * width,
        y: (rect[1] + rect[3]) / 2.0 * height,
        w: ((rect[2] - rect[0]) * width).max(1.0),
        h: ((rect[3] - rect[1]) * height).max(1.0),
    }
}

/// Pixels as 0..1 of the source, clipped to it.
fn rect(extent: &Extent, size: (u32, u32)) -> Rect {
    let x = |v: f32| (v / size.0 as f32).clamp(0.0, 1.0);
    let y = |v: f32| (v / size.1 as f32).clamp(0.0, 1.0);
    let (w, h) = (extent.w / 2.0, extent.h / 2.0);
    [x(extent.x - w), y(extent.y - h), x(extent.x + w), y(extent.y + h)]
}

#[cfg(test)]
mod tests;
