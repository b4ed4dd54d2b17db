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

    /// Intersection over union after both boxes have grown by `margin` on every side, 0..=1 (the buffered IoU of Yang et
    /// al. 2023, C-BIoU; theirs grows by a share of the box).
    pub fn overlap(&self, other: &Extent, margin: f32) -> f32 {
        let (aw, ah) = (self.w + 2.0 * margin, self.h + 2.0 * margin);
        let (bw, bh) = (other.w + 2.0 * margin, other.h + 2.0 * margin);
        let shared = |distance: f32, a: f32, b: f32| ((a + b) / 2.0 - distance.abs()).clamp(0.0, a.min(b));
        let both = shared(self.x - other.x, aw, bw) * shared(self.y - other.y, ah, bh);
        both / (aw * ah + bw * bh - both)
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

    /// How alike the sizes are: the ratio of the areas of one laid centred on the other and of both, 0..=1.
    pub fn likeness(&self, other: &Extent) -> f32 {
        Extent { x: 0.0, y: 0.0, ..*self }.overlap(&Extent { x: 0.0, y: 0.0, ..*other }, 0.0)
    }
}

/// Standard deviation of a detected edge's middle, in shares of the scale: detectors err by some hundredths.
const MEASURED: f32 = 0.06;
/// Speed of what was seen once, scales a second: a person who walks by makes 1.3, one who runs 3.
const FIRST_SPEED: f32 = 1.5;
/// Change of speed, scales a second in a second: a person turns round in one.
const AGILITY: f32 = 1.0;
/// Sizes change slower.
const GROWTH: f32 = 0.3;
/// A size's speed dies down in this many seconds: what grew because it came out from behind something does not go on.
const GROWTH_LASTS: f32 = 0.5;

/// How near the picture's border a box touches it, in shares of the picture.
pub(super) const BORDER: f32 = 0.01;

/// A filtered box.
#[derive(Clone, Copy, Debug)]
pub(super) struct Motion {
    x: Axis,
    y: Axis,
    w: Axis,
    h: Axis,
}

impl Motion {
    /// Seen once, here; how fast it is nobody knows.
    pub fn new(seen: &Extent) -> Self {
        let scale = seen.scale();
        let axis = |value, speed: f32| Axis::new(value, MEASURED * scale, speed * scale);
        Self {
            x: axis(seen.x, FIRST_SPEED),
            y: axis(seen.y, FIRST_SPEED),
            w: axis(seen.w, GROWTH),
            h: axis(seen.h, GROWTH),
        }
    }

    /// `dt` seconds later, 0 or more.
    pub fn predict(&mut self, dt: f32) {
        let scale = self.extent().scale();
        for axis in [&mut self.x, &mut self.y] {
            axis.predict(dt, dt, 1.0, AGILITY * scale);
        }
        let kept = (-dt / GROWTH_LASTS).exp();
        for axis in [&mut self.w, &mut self.h] {
            axis.predict(dt, GROWTH_LASTS * (1.0 - kept), kept, GROWTH * scale);
        }
    }

    /// Seen here now, in a picture of that size; `doubt` multiplies the standard deviation that a box has.
    ///
    /// A picture's border cuts off what goes out: the box shrinks, and its middle goes half as fast as the object. So where
    /// a box that touches the border is smaller than it was, its inner edge is believed and its size is not.
    pub fn correct(&mut self, seen: &Extent, size: (u32, u32), doubt: f32) {
        let error = MEASURED * doubt * seen.scale();
        for (middle, side, value, length, picture) in [
            (&mut self.x, &mut self.w, seen.x, seen.w, size.0 as f32),
            (&mut self.y, &mut self.h, seen.y, seen.h, size.1 as f32),
        ] {
            let (low, high) = (value - length / 2.0, value + length / 2.0);
            let border = BORDER * picture;
            let (at_low, at_high) = (low <= border, high >= picture - border);
            if side.value > length && at_low != at_high {
                let half = side.value / 2.0;
                middle.correct(if at_low { high - half } else { low + half }, error);
            } else {
                middle.correct(value, error);
                side.correct(length, error);
            }
        }
    }

    /// Where it is believed to be.
    pub fn extent(&self) -> Extent {
        Extent { x: self.x.value, y: self.y.value, w: self.w.value.max(1.0), h: self.h.value.max(1.0) }
    }

    /// Standard deviation of the centre, pixels: the greater of both directions.
    pub fn spread(&self) -> f32 {
        self.x.p[0].max(self.y.p[0]).sqrt()
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

    fn moved(x: f32) -> Extent {
        Extent { x: BOX.x + x, ..BOX }
    }

    #[test]
    fn a_steady_walk_is_foretold_whatever_the_frame_rate() {
        for rate in [2.0, 5.0, 10.0, 30.0] {
            let mut motion = Motion::new(&BOX);
            let frames = (2.0 * rate) as u32;
            for frame in 1..=frames {
                motion.predict(1.0 / rate);
                motion.correct(&moved(80.0 * frame as f32 / rate), SIZE, 1.0);
            }
            motion.predict(1.0);
            let off = motion.extent().x - (BOX.x + 240.0);
            assert!(off.abs() < 8.0, "{off} pixels off at {rate} frames a second");
        }
    }

    #[test]
    fn one_long_step_is_as_uncertain_as_many_short_ones() {
        let mut long = Motion::new(&BOX);
        let mut short = long;
        long.predict(1.0);
        (0..30).for_each(|_| short.predict(1.0 / 30.0));
        let ratio = long.spread() / short.spread();
        assert!((0.99..1.01).contains(&ratio), "{ratio}");
        assert!(long.spread() > Motion::new(&BOX).spread());
    }

    #[test]
    fn a_box_of_doubt_moves_it_less() {
        let mut sure = Motion::new(&BOX);
        sure.predict(0.1);
        let mut unsure = sure;
        sure.correct(&moved(20.0), SIZE, 1.0);
        unsure.correct(&moved(20.0), SIZE, 3.0);
        assert!(unsure.extent().x < sure.extent().x);
    }

    #[test]
    fn what_goes_out_goes_on_as_fast_as_before() {
        let mut motion = Motion::new(&BOX);
        for frame in 1..=36 {
            motion.predict(0.1);
            // The last 9 of them are cut off at the left.
            motion.correct(&moved(-3.0 * frame as f32).clipped(SIZE), SIZE, 1.0);
        }
        let off = motion.extent().x - (BOX.x - 108.0);
        assert!(off.abs() < 1.0 && (motion.extent().w - BOX.w).abs() < 1.0, "{off} pixels off");
    }

    #[test]
    fn overlap_grows_with_the_margin_and_likeness_knows_no_place() {
        assert_eq!(BOX.overlap(&BOX, 0.0), 1.0);
        assert_eq!(BOX.overlap(&moved(50.0), 0.0), 0.0);
        assert!(BOX.overlap(&moved(50.0), 20.0) > 0.1);
        assert_eq!(BOX.likeness(&moved(500.0)), 1.0);
        assert_eq!(BOX.likeness(&Extent { w: 20.0, ..BOX }), 0.5);
    }
}
