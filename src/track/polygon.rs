//! An area of the picture.

use crate::letterbox::Rect;

/// A polygon that does not cross itself, 0..1 of the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon {
    points: Vec<[f32; 2]>,
    /// The smallest box around it: most points and boxes are settled by that.
    bounds: Rect,
}

impl Polygon {
    /// A polygon with these corners in order around the area: at least three, 0..1 of the source.
    pub fn new(points: Vec<[f32; 2]>) -> Self {
        let wide = |bounds: Rect, p: &[f32; 2]| {
            [bounds[0].min(p[0]), bounds[1].min(p[1]), bounds[2].max(p[0]), bounds[3].max(p[1])]
        };
        let bounds = points.iter().fold([1.0, 1.0, 0.0, 0.0], wide);
        Self { points, bounds }
    }

    /// The corners.
    pub fn points(&self) -> &[[f32; 2]] {
        &self.points
    }

    /// The point lies inside. Of areas that share a side, a point on it lies in one only, but at their outer edge.
    pub fn contains(&self, point: [f32; 2]) -> bool {
        let [x, y] = point;
        let [left, top, right, bottom] = self.bounds;
        if !(left <= x && x <= right && top <= y && y <= bottom) {
            return false;
        }
        // A foot at the picture's lower or right edge belongs to an area that reaches to that edge.
        let (x, y) = (x.min(BEFORE_ONE), y.min(BEFORE_ONE));
        let crossed = self
            .sides()
            .filter(|(a, b)| (a[1] <= y) != (b[1] <= y) && x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
        crossed.count() % 2 == 1
    }

    /// The share of the box's area that lies inside, 0..1.
    pub fn share(&self, rect: Rect) -> f32 {
        let [x0, y0, x1, y1] = rect.map(f64::from);
        let area = (x1 - x0) * (y1 - y0);
        let [left, top, right, bottom] = self.bounds;
        let apart = rect[0] >= right || rect[2] <= left || rect[1] >= bottom || rect[3] <= top;
        if apart || area.is_nan() || area <= 0.0 {
            return 0.0;
        }
        let inside: f64 = self.sides().map(|(a, b)| left_of(a.map(f64::from), b.map(f64::from), rect)).sum();
        (inside.abs() / area).min(1.0) as f32
    }

    fn sides(&self) -> impl Iterator<Item = ([f32; 2], [f32; 2])> + '_ {
        let next = self.points.iter().cycle().skip(1);
        self.points.iter().zip(next).map(|(a, b)| (*a, *b))
    }
}

/// The largest number below 1.
const BEFORE_ONE: f32 = 1.0 - f32::EPSILON / 2.0;

/// The area of `rect` between its left edge and the side, signed by the side's direction. Over all sides of a polygon
/// it sums to the area that both share: at every height the crossings, held between the left and right edge, leave
/// just the lengths inside. Needs no clipped polygon, and so no memory.
fn left_of(a: [f64; 2], b: [f64; 2], rect: Rect) -> f64 {
    let [x0, y0, x1, y1] = rect.map(f64::from);
    let (ya, yb) = (a[1].clamp(y0, y1), b[1].clamp(y0, y1));
    if ya == yb {
        return 0.0;
    }
    let x = |y: f64| a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]);
    let (xa, xb) = (x(ya), x(yb));
    // Integral of x held between both edges, less x0.
    let upto = |x: f64| {
        let within = x.clamp(x0, x1) - x0;
        within * within / 2.0 + (x - x1).max(0.0) * (x1 - x0)
    };
    let mean = if (xb - xa).abs() < 1e-7 {
        (xa.midpoint(xb)).clamp(x0, x1) - x0
    } else {
        (upto(xb) - upto(xa)) / (xb - xa)
    };
    mean * (yb - ya)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> Polygon {
        Polygon::new(vec![[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.5, 0.3], [0.1, 0.9]])
    }

    #[test]
    fn points_in_a_concave_area() {
        for (point, inside) in [
            ([0.5, 0.2], true),
            ([0.5, 0.4], false),
            ([0.15, 0.7], true),
            ([0.85, 0.7], true),
            ([0.05, 0.5], false),
            ([0.5, 0.05], false),
            ([f32::NAN, 0.2], false),
        ] {
            assert_eq!(hook().contains(point), inside, "{point:?}");
        }
    }

    #[test]
    fn a_point_on_a_shared_side_lies_in_one_area_only() {
        let left = Polygon::new(vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]);
        let right = Polygon::new(vec![[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]);
        for y in [0.0, 0.3, 1.0] {
            assert!(left.contains([0.5, y]) != right.contains([0.5, y]), "{y}");
        }
    }

    #[test]
    fn a_foot_at_the_pictures_edge_is_inside_an_area_that_reaches_it() {
        let whole = Polygon::new(vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]);
        for point in [[0.5, 1.0], [1.0, 0.5], [1.0, 1.0], [0.0, 0.0]] {
            assert!(whole.contains(point), "{point:?}");
        }
    }

    #[test]
    fn shares_of_boxes() {
        let square = Polygon::new(vec![[0.2, 0.2], [0.6, 0.2], [0.6, 0.6], [0.2, 0.6]]);
        let triangle = Polygon::new(vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
        for (polygon, rect, share) in [
            (&square, [0.3, 0.3, 0.5, 0.5], 1.0),
            (&square, [0.2, 0.2, 0.6, 0.6], 1.0),
            (&square, [0.4, 0.4, 0.8, 0.8], 0.25),
            (&square, [0.0, 0.0, 1.0, 1.0], 0.16),
            (&square, [0.7, 0.7, 0.9, 0.9], 0.0),
            (&square, [0.5, 0.5, 0.5, 0.5], 0.0),
            (&triangle, [0.0, 0.0, 1.0, 1.0], 0.5),
            (&triangle, [0.5, 0.5, 1.0, 1.0], 0.0),
            (&triangle, [0.25, 0.25, 0.75, 0.75], 0.5),
        ] {
            assert!((polygon.share(rect) - share).abs() < 1e-5, "{rect:?}: {}", polygon.share(rect));
        }
        assert_eq!(square.share([f32::NAN, 0.0, 1.0, 1.0]), 0.0);
    }

    #[test]
    fn the_share_agrees_with_counting_points() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let (x, y) = (random.f32() * 0.8, random.f32() * 0.8);
            let rect = [x, y, x + 0.05 + random.f32() * 0.15, y + 0.05 + random.f32() * 0.15];
            let steps = 100;
            let at = |i: usize, low: f32, high: f32| low + (i as f32 + 0.5) / steps as f32 * (high - low);
            let point = |i: usize| [at(i % steps, rect[0], rect[2]), at(i / steps, rect[1], rect[3])];
            let counted = (0..steps * steps).filter(|i| hook().contains(point(*i))).count();
            let counted = counted as f32 / (steps * steps) as f32;
            assert!((hook().share(rect) - counted).abs() < 0.02, "{rect:?}: {} {counted}", hook().share(rect));
        }
    }
}
