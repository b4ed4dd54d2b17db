//! Where a box is and goes: a Kalman filter of constant velocity, whose time steps may have any length.
//!
//! Centre, width and height are filtered each for itself: their noises are independent, so that four filters of two states
//! say the same as one of eight. The acceleration is white noise, so its share of the uncertainty grows with the time step
//! (Bar-Shalom, Li, Kirubarajan: Estimation with Applications to Tracking and Navigation, 6.2.2). All noise is in shares of
//! the box's own size, as in SORT and its successors: what is near moves and errs in larger steps.

/// A box in pixels by its centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    pub x: f32,
    pub y: f32,
    /// Width and height, above 0.
    pub w: f32,
    pub h: f32,
}

impl Extent {
    /// What noise and speed are measured by: the side of a square of the same area, at least a pixel.
    pub fn scale(&self) -> f32 {
        (self.w * self.h).sqrt().max(1.0)
    }

    /// Intersection over union, 0..=1.
    pub fn overlap(&self, other: &Extent) -> f32 {
        let both = shared(self.x - other.x, self.w, other.w) * shared(self.y - other.y, self.h, other.h);
        both / (self.w * self.h + other.w * other.h - both)
    }

    /// What of it lies in a picture of that size; at least a pixel of it, if only the nearest.
    pub fn clipped(&self, size: (u32, u32)) -> Extent {
        let side = |middle: f32, side: f32, picture: u32| {
            let least = (picture as f32 - 1.0).max(0.0);
            let low = (middle - side / 2.0).clamp(0.0, least);
            let high = (middle + side / 2.0).clamp(low + 1.0, picture.max(1) as f32);
            ((low + high) / 2.0, high - low)
        };
        let ((x, w), (y, h)) = (side(self.x, self.w, size.0), side(self.y, self.h, size.1));
        Extent { x, y, w, h }
    }

    /// The share of it that `other` covers, 0..=1.
    pub fn covered_by(&self, other: &Extent) -> f32 {
        // First what most pairs have not: this is asked for each.
        let apart = |distance: f32, a: f32, b: f32| 2.0 * distance.abs() >= a + b;
        if apart(self.x - other.x, self.w, other.w) || apart(self.y - other.y, self.h, other.h) {
            return 0.0;
        }
        shared(self.x - other.x, self.w, other.w) * shared(self.y - other.y, self.h, other.h) / (self.w * self.h)
    }

    /// The share of it that `other` hides if it stands before it, 0..=1: lower feet are nearer. Where they are nearer each other
    /// than `depth` scales nobody knows, and of the same height it is half of the share.
    pub fn hidden_by(&self, other: &Extent, depth: f32) -> f32 {
        let share = self.covered_by(other);
        if share == 0.0 {
            return 0.0;
        }
        let nearer = (other.y + other.h / 2.0) - (self.y + self.h / 2.0);
        share * (0.5 + nearer / (2.0 * depth * self.scale())).clamp(0.0, 1.0)
    }
}

/// How much two sides have in common whose middles are that far apart.
fn shared(distance: f32, a: f32, b: f32) -> f32 {
    ((a + b) / 2.0 - distance.abs()).clamp(0.0, a.min(b))
}

/// Standard deviation of a detected box's middle, in shares of the scale. YOLOX-nano's boxes of people who walk lie within .03
/// of a smooth way in two of three frames, and within .08 in 19 of 20 (clip `vtest.avi`); the next two are from there too.
const MEASURED: f32 = 0.04;
/// The same of the length of a side.
const MEASURED_SIDE: f32 = 0.1;
/// Speed of what was seen once, scales a second: a person who walks by makes 1.3, one who runs 3.
const FIRST_SPEED: f32 = 2.0;
/// Change of speed, scales a second in a second: people who walk make up to .4 (the most
/// likely value at 2, 3 and 10 frames/s on that clip).
const AGILITY: f32 = 0.5;
/// Sizes change slower.
const GROWTH: f32 = 0.3;
/// A size's speed dies down in this many seconds: what grew because it came out from behind something does not go on.
const GROWTH_LASTS: f32 = 0.5;
/// The odds against a box of which one end is wrong: something hides it, or there is a piece of another object.
const PARTLY: f32 = 3.0;
/// Detectors hardly find that of which less than this share shows.
const SCRAP: f32 = 0.33;
/// Degrees of freedom of Student's t: how often a box is farther off than a normal distribution would have it.
const TAIL: f32 = 4.0;

/// How near the picture's border a box touches it, in shares of the picture.
pub(super) const BORDER: f32 = 0.01;

/// Which end of a box's side lies at the picture's border. There is more of the object beyond, nobody knows how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Neither, or both.
    No,
    Low,
    High,
}

/// A box as it was detected, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub extent: Extent,
    x: Cut,
    y: Cut,
}

impl Sighting {
    /// In a picture of that size.
    pub fn new(extent: Extent, size: (u32, u32)) -> Self {
        let cut = |middle: f32, length: f32, picture: u32| {
            let border = BORDER * picture as f32;
            match (middle - length / 2.0 <= border, middle + length / 2.0 >= picture as f32 - border) {
                (true, false) => Cut::Low,
                (false, true) => Cut::High,
                _ => Cut::No,
            }
        };
        Self { extent, x: cut(extent.x, extent.w, size.0), y: cut(extent.y, extent.h, size.1) }
    }
}

/// A filtered box.
#[derive(Clone, Copy, Debug)]
pub(super) struct Motion {
    x: Side,
    y: Side,
}

impl Motion {
    /// Seen once, here; how fast it is nobody knows.
    pub fn new(seen: &Sighting) -> Self {
        let Extent { x, y, w, h } = seen.extent;
        let scale = seen.extent.scale();
        Self { x: Side::new(x, w, seen.x, scale), y: Side::new(y, h, seen.y, scale) }
    }

    /// `dt` seconds later, 0 or more.
    pub fn predict(&mut self, dt: f32) {
        let scale = self.extent().scale();
        let kept = (-dt / GROWTH_LASTS).exp();
        for side in [&mut self.x, &mut self.y] {
            side.middle.predict(dt, dt, 1.0, AGILITY * scale);
            side.length.predict(dt, GROWTH_LASTS * (1.0 - kept), kept, GROWTH * scale);
        }
    }

    /// Seen here now; `doubt` multiplies the standard deviation that a box has.
    pub fn correct(&mut self, seen: &Sighting, doubt: f32) {
        let Extent { x, y, w, h } = seen.extent;
        let unit = doubt * seen.extent.scale();
        self.x.correct(x, w, seen.x, unit);
        self.y.correct(y, h, seen.y, unit);
    }

    /// Where it is believed to be.
    pub fn extent(&self) -> Extent {
        let [x, y] = [self.x.middle.value, self.y.middle.value];
        Extent { x, y, w: self.x.length.value.max(1.0), h: self.y.length.value.max(1.0) }
    }

    /// Standard deviation of the centre, pixels: the greater of both directions.
    #[cfg(test)]
    fn spread(&self) -> f32 {
        self.x.middle.p[0].max(self.y.middle.p[0]).sqrt()
    }

    /// What its next box will be like; `doubt` as in [`Motion::correct`]. Nothing that surprises by more than `most` is it.
    pub fn expect(&self, doubt: f32, most: f32) -> Expected {
        let unit = doubt * self.extent().scale();
        let ([x, w], [y, h]) = (self.x.expect(unit), self.y.expect(unit));
        let (middle, length) = ((MEASURED * unit).powi(2), (MEASURED_SIDE * unit).powi(2));
        let wider = |value: &Value, error: f32| 1.0 / (TAIL * value.inverse * error);
        let vague = wider(&x, middle) * wider(&y, middle) * wider(&w, length) * wider(&h, length);
        let vague = vague.ln() / 2.0;
        let odds_most = ((most - vague) * 2.0 / (TAIL + 1.0)).exp();
        // A hair more, as both are rounded.
        let far = [x, y].map(|value| ((odds_most - 1.0).max(0.0) / value.inverse).sqrt() * 1.001 + 0.01);
        Expected { x, y, w, h, cut: [self.x.cut, self.y.cut], vague, odds_most, far }
    }
}

/// What a track's next box will be like: a distribution over boxes, Student's t in each direction, so that a box that is off in
/// one of them, half hidden for instance, is still known by the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    x: Value,
    y: Value,
    w: Value,
    h: Value,
    cut: [Cut; 2],
    /// How much wider it is than a box's own error, as a logarithm.
    vague: f32,
    /// Odds from here on are too much.
    odds_most: f32,
    /// What is at least so far off, both ends of a side to the same direction, has them.
    far: [f32; 2],
}

/// A value that is expected.
#[derive(Clone, Copy, Debug)]
struct Value {
    mean: f32,
    /// 1 / (TAIL x variance).
    inverse: f32,
}

impl Value {
    /// How much less likely `seen` is than the mean, 1 or more.
    fn odds(self, seen: f32) -> f32 {
        let off = seen - self.mean;
        1.0 + off * off * self.inverse
    }
}

impl Expected {
    /// It is too small for what is left of an object that is hidden in part. Of one that the border cuts nothing is known.
    fn is_scrap(&self, seen: &Sighting) -> bool {
        let whole = [self.cut[0], self.cut[1], seen.x, seen.y].iter().all(|cut| *cut == Cut::No);
        whole && seen.extent.w * seen.extent.h < SCRAP * self.w.mean * self.h.mean
    }

    /// How surprising the box would be: minus the logarithm of its likelihood, and 0 for a track whose place is known for
    /// sure and a box just there. None: by too much.
    pub fn surprise(&self, seen: &Sighting) -> Option<f32> {
        let Extent { x, y, w, h } = seen.extent;
        // Most pairs of a frame are far from each other: whichever end or middle is asked for is too far off then.
        let far = |off: f32, longer: f32, far: f32| off.abs() - longer.abs() / 2.0 >= far;
        if far(x - self.x.mean, w - self.w.mean, self.far[0]) || far(y - self.y.mean, h - self.h.mean, self.far[1])
        {
            return None;
        }
        let (of_x, _) = fit([self.x, self.w], self.cut[0], [x, w], seen.x);
        if of_x >= self.odds_most || self.is_scrap(seen) {
            return None;
        }
        let (of_y, _) = fit([self.y, self.h], self.cut[1], [y, h], seen.y);
        let odds = of_x * of_y;
        (odds < self.odds_most).then(|| self.vague + (TAIL + 1.0) / 2.0 * odds.ln())
    }
}

/// How a seen side, by middle and length, fits an expected one: its odds, and the end that is not to be believed.
///
/// Where the picture's border cuts an end off, or did the last time, only the other one counts. And where one end fits much better
/// than the whole, the other one is wrong: something hides a part, or two objects came out as one.
fn fit(side: [Value; 2], was: Cut, seen: [f32; 2], is: Cut) -> (f32, Cut) {
    let ends = |value: [f32; 2]| [value[0] - value[1] / 2.0, value[0] + value[1] / 2.0];
    let ([low, high], [seen_low, seen_high]) = (ends(side.map(|value| value.mean)), ends(seen));
    let by_low = || Value { mean: low, ..side[0] }.odds(seen_low);
    let by_high = || Value { mean: high, ..side[0] }.odds(seen_high);
    match if is == Cut::No { was } else { is } {
        Cut::Low => (by_high(), Cut::Low),
        Cut::High => (by_low(), Cut::High),
        Cut::No => {
            let whole = side[0].odds(seen[0]) * side[1].odds(seen[1]);
            if whole < PARTLY {
                return (whole, Cut::No);
            }
            let (by_low, by_high) = (PARTLY * by_low(), PARTLY * by_high());
            let partly = if by_low < by_high { (by_low, Cut::High) } else { (by_high, Cut::Low) };
            if partly.0 < whole { partly } else { (whole, Cut::No) }
        }
    }
}

/// A box in one direction.
#[derive(Clone, Copy, Debug)]
struct Side {
    middle: Axis,
    length: Axis,
    /// As it was seen last.
    cut: Cut,
}

impl Side {
    fn new(middle: f32, length: f32, cut: Cut, scale: f32) -> Self {
        Self {
            middle: Axis::new(middle, MEASURED * scale, FIRST_SPEED * scale),
            length: Axis::new(length, MEASURED_SIDE * scale, GROWTH * scale),
            cut,
        }
    }

    /// A picture's border cuts off what goes out and what comes in: the box changes its size, and its middle goes half as fast
    /// as the object. So where an end is cut off, or was the last time, the other end tells where the object goes; of its
    /// length only what was not seen before is news. Where an end is wrong ([`fit`]) the length says nothing.
    fn correct(&mut self, middle: f32, length: f32, cut: Cut, unit: f32) {
        let (_, end) = fit(self.expect(unit), self.cut, [middle, length], cut);
        let hidden = self.cut == Cut::No && cut == Cut::No;
        self.cut = cut;
        let error = MEASURED * unit;
        if end == Cut::No {
            self.middle.correct(middle, error);
            self.length.correct(length, MEASURED_SIDE * unit);
            return;
        }
        let outward = if end == Cut::Low { -0.5 } else { 0.5 };
        let known = match (hidden, cut) {
            (true, _) => self.length.value,
            (false, Cut::No) => length,
            (false, _) => length.max(self.length.value),
        };
        self.middle.value += outward * (known - self.length.value);
        self.length.value = known;
        self.middle.correct(middle - outward * length + outward * known, error);
    }

    fn expect(&self, unit: f32) -> [Value; 2] {
        let value = |axis: &Axis, error: f32| Value {
            mean: axis.value,
            inverse: 1.0 / (TAIL * (axis.p[0] + error * error)),
        };
        [value(&self.middle, MEASURED * unit), value(&self.length, MEASURED_SIDE * unit)]
    }
}

/// A value, its speed, and the covariance of both: value, value with speed, speed.
#[derive(Clone, Copy, Debug)]
struct Axis {
    value: f32,
    speed: f32,
    p: [f32; 3],
}

impl Axis {
    fn new(value: f32, error: f32, speed: f32) -> Self {
        Self { value, speed: 0.0, p: [error * error, 0.0, speed * speed] }
    }

    /// `reach` is how far a speed of 1 carries in `dt`, `kept` its share that is left then.
    fn predict(&mut self, dt: f32, reach: f32, kept: f32, agility: f32) {
        let noise = agility * agility * dt;
        let [value, both, speed] = self.p;
        self.value += reach * self.speed;
        self.speed *= kept;
        self.p = [
            value + 2.0 * reach * both + reach * reach * speed + noise * dt * dt / 3.0,
            kept * (both + reach * speed) + noise * dt / 2.0,
            kept * kept * speed + noise,
        ];
    }

    fn correct(&mut self, seen: f32, error: f32) {
        let [value, both, speed] = self.p;
        let total = value + error * error;
        let (gain, turn) = (value / total, both / total);
        let surprise = seen - self.value;
        self.value += gain * surprise;
        self.speed += turn * surprise;
        self.p = [(1.0 - gain) * value, (1.0 - gain) * both, speed - turn * both];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: Extent = Extent { x: 100.0, y: 100.0, w: 40.0, h: 100.0 };

    const SIZE: (u32, u32) = (1000, 500);

    fn sighting(extent: Extent) -> Sighting {
        Sighting::new(extent, SIZE)
    }

    fn moved(x: f32) -> Extent {
        Extent { x: BOX.x + x, ..BOX }
    }

    #[test]
    fn a_steady_walk_is_foretold_whatever_the_frame_rate() {
        for rate in [2.0, 5.0, 10.0, 30.0] {
            let mut motion = Motion::new(&sighting(BOX));
            let frames = (2.0 * rate) as u32;
            for frame in 1..=frames {
                motion.predict(1.0 / rate);
                motion.correct(&sighting(moved(80.0 * frame as f32 / rate)), 1.0);
            }
            motion.predict(1.0);
            let off = motion.extent().x - (BOX.x + 240.0);
            assert!(off.abs() < 8.0, "{off} pixels off at {rate} frames a second");
        }
    }

    #[test]
    fn one_long_step_is_as_uncertain_as_many_short_ones() {
        let mut long = Motion::new(&sighting(BOX));
        let mut short = long;
        long.predict(1.0);
        (0..30).for_each(|_| short.predict(1.0 / 30.0));
        let ratio = long.spread() / short.spread();
        assert!((0.99..1.01).contains(&ratio), "{ratio}");
        assert!(long.spread() > Motion::new(&sighting(BOX)).spread());
    }

    #[test]
    fn a_box_of_doubt_moves_it_less() {
        let mut sure = Motion::new(&sighting(BOX));
        sure.predict(0.1);
        let mut unsure = sure;
        sure.correct(&sighting(moved(20.0)), 1.0);
        unsure.correct(&sighting(moved(20.0)), 3.0);
        assert!(unsure.extent().x < sure.extent().x);
    }

    #[test]
    fn what_goes_out_goes_on_as_fast_as_before() {
        let mut motion = Motion::new(&sighting(BOX));
        for frame in 1..=36 {
            motion.predict(0.1);
            // The last 9 of them are cut off at the left.
            motion.correct(&sighting(moved(-3.0 * frame as f32).clipped(SIZE)), 1.0);
        }
        let off = motion.extent().x - (BOX.x - 108.0);
        assert!(off.abs() < 1.0 && (motion.extent().w - BOX.w).abs() < 1.0, "{off} pixels off");
    }

    #[test]
    fn what_enters_goes_as_fast_as_its_inner_edge() {
        let mut motion = Motion::new(&sighting(moved(-115.0).clipped(SIZE)));
        for frame in 1..=30 {
            motion.predict(0.1);
            // Of the first 11 of them the left end is cut off.
            motion.correct(&sighting(moved(-115.0 + 4.0 * frame as f32).clipped(SIZE)), 1.0);
            let off = motion.extent().x + motion.extent().w / 2.0 - (5.0 + 4.0 * frame as f32);
            assert!(off.abs() < 3.0, "{off} pixels off in frame {frame}");
        }
    }

    #[test]
    fn surprise_grows_with_the_distance_and_knows_how_sure_a_place_is() {
        let mut sure = Motion::new(&sighting(BOX));
        (0..20).for_each(|_| sure.correct(&sighting(BOX), 1.0));
        let mut unsure = sure;
        unsure.predict(1.0);
        let surprise = |motion: &Motion, x: f32| motion.expect(1.0, 99.0).surprise(&sighting(moved(x)));
        assert!(surprise(&sure, 0.0) < Some(0.2) && surprise(&sure, 0.0).is_some());
        assert!(surprise(&sure, 5.0) < surprise(&sure, 10.0));
        assert!(surprise(&sure, 0.0) < surprise(&unsure, 0.0));
        assert!(surprise(&sure, 60.0) > surprise(&unsure, 60.0));
    }

    #[test]
    fn who_stands_farther_is_hidden() {
        let nearer = Extent { y: BOX.y + 10.0, ..BOX };
        assert_eq!(BOX.hidden_by(&nearer, 0.1), 0.9);
        assert_eq!(nearer.hidden_by(&BOX, 0.1), 0.0);
        assert_eq!(BOX.hidden_by(&moved(20.0), 0.1), 0.25);
        assert_eq!(BOX.overlap(&BOX), 1.0);
        assert_eq!(BOX.overlap(&moved(50.0)), 0.0);
    }
}
