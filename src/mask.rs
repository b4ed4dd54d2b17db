//! Region masks: polygons whose pixels are never looked at.

use crate::letterbox::Letterbox;

/// Polygons in 0..1 of the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionMask {
    polygons: Vec<Vec<[f32; 2]>>,
}

/// Input pixels `x0..x1` of row `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Row.
    pub y: u32,
    /// First pixel.
    pub x0: u32,
    /// One past the last pixel.
    pub x1: u32,
}

impl RegionMask {
    /// Polygons of at least three points each, in 0..1 of the source.
    pub fn new(polygons: Vec<Vec<[f32; 2]>>) -> Self {
        Self { polygons }
    }

    /// The input pixels to blank: each whose bilinear footprint touches a polygon.
    pub fn spans(&self, letterbox: &Letterbox) -> Vec<Span> {
        let mut spans = Vec::new();
        for polygon in &self.polygons {
            let points: Vec<[f32; 2]> = polygon.iter().map(|p| letterbox.to_input(*p)).collect();
            polygon_spans(&points, letterbox, &mut spans);
        }
        spans
    }
}

/// How far beyond a pixel's own area its value may come from, in input pixels: half a pixel and one source pixel.
fn reach(letterbox: &Letterbox) -> (f32, f32) {
    let x = letterbox.picture.0 as f32 / letterbox.source.0 as f32;
    let y = letterbox.picture.1 as f32 / letterbox.source.1 as f32;
    (0.5 + 2.0 * x, 0.5 + 2.0 * y)
}

fn polygon_spans(points: &[[f32; 2]], letterbox: &Letterbox, out: &mut Vec<Span>) {
    let (reach_x, reach_y) = reach(letterbox);
    let (left, right) = (letterbox.pad.0, letterbox.pad.0 + letterbox.picture.0);
    for y in letterbox.pad.1..letterbox.pad.1 + letterbox.picture.1 {
        let (top, bottom) = (y as f32 + 0.5 - reach_y, y as f32 + 0.5 + reach_y);
        for (x0, x1) in covered(points, top, bottom) {
            let x0 = ((x0 - reach_x - 0.5).ceil().max(left as f32)) as u32;
            let x1 = ((x1 + reach_x + 0.5).floor().min(right as f32)).max(0.0) as u32;
            if x0 < x1 {
                out.push(Span { y, x0, x1 });
            }
        }
    }
}

/// The x ranges of the polygon within the strip `top..bottom`: the interiors at both edges and the strip's own
/// share of every polygon side (an even-odd fill at three heights plus the sides is exact enough at this size).
fn covered(points: &[[f32; 2]], top: f32, bottom: f32) -> Vec<(f32, f32)> {
    let mut ranges = Vec::new();
    for y in [top, (top + bottom) / 2.0, bottom] {
        let mut crossings: Vec<f32> = sides(points)
            .filter(|(a, b)| (a[1] <= y) != (b[1] <= y))
            .map(|(a, b)| a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))
            .collect();
        crossings.sort_by(f32::total_cmp);
        ranges.extend(crossings.chunks_exact(2).map(|pair| (pair[0], pair[1])));
    }
    for (a, b) in sides(points) {
        let (low, high) = if a[1] <= b[1] { (a, b) } else { (b, a) };
        if high[1] < top || low[1] > bottom {
            continue;
        }
        let at = |y: f32| {
            if high[1] == low[1] { low[0] } else { low[0] + (y - low[1]) / (high[1] - low[1]) * (high[0] - low[0]) }
        };
        let (p, q) = (at(top.max(low[1])), at(bottom.min(high[1])));
        let flat = if high[1] == low[1] { high[0] } else { q };
        ranges.push((p.min(q).min(flat), p.max(q).max(flat)));
    }
    ranges
}

fn sides(points: &[[f32; 2]]) -> impl Iterator<Item = ([f32; 2], [f32; 2])> + '_ {
    let next = points.iter().cycle().skip(1);
    points.iter().zip(next).map(|(a, b)| (*a, *b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letterbox::Fit;

    fn blanked(mask: &RegionMask, letterbox: &Letterbox, x: u32, y: u32) -> bool {
        mask.spans(letterbox).iter().any(|s| s.y == y && (s.x0..s.x1).contains(&x))
    }

    #[test]
    fn left_half_is_blank_and_the_rest_is_not() {
        let letterbox = Letterbox::new((1920, 1080), (640, 640), Fit::Centre);
        let mask = RegionMask::new(vec![vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]]);
        for y in [140, 300, 499] {
            assert!(blanked(&mask, &letterbox, 0, y) && blanked(&mask, &letterbox, 319, y), "row {y}");
            assert!(!blanked(&mask, &letterbox, 325, y), "row {y}");
        }
        assert!(!blanked(&mask, &letterbox, 10, 100), "the padding is not the picture");
    }

    #[test]
    fn a_sliver_thinner_than_a_pixel_is_still_blank() {
        let letterbox = Letterbox::new((3840, 2160), (416, 416), Fit::TopLeft);
        let mask = RegionMask::new(vec![vec![[0.1, 0.5], [0.9, 0.5003], [0.9, 0.5006]]]);
        assert!(blanked(&mask, &letterbox, 200, 117));
        assert!(!blanked(&mask, &letterbox, 200, 130));
    }
}
