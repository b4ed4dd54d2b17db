//! The geometry of fitting a source frame into a model's input: computed once, inverted exactly once.

/// How the source is fitted into the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Aspect kept, padding shared between both sides (Ultralytics).
    Centre,
    /// Aspect kept, padding at the right and the bottom (YOLOX).
    TopLeft,
    /// Aspect not kept, no padding (RT-DETR, D-FINE).
    Stretch,
}

/// A box as x1, y1, x2, y2. Its unit is said where it is used: model pixels, or 0..1 of the source.
pub type Rect = [f32; 4];

/// Where the source lies in the input, in input pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letterbox {
    /// Source width and height in pixels.
    pub source: (u32, u32),
    /// Input width and height in pixels.
    pub input: (u32, u32),
    /// Left and top edge of the picture in the input.
    pub pad: (u32, u32),
    /// Width and height of the picture in the input, at least 1.
    pub picture: (u32, u32),
}

impl Letterbox {
    /// Fits a `source` of width × height into an `input` of width × height; both at least 1 × 1.
    pub fn new(source: (u32, u32), input: (u32, u32), fit: Fit) -> Self {
        assert!(source.0 > 0 && source.1 > 0 && input.0 > 0 && input.1 > 0, "empty letterbox");
        if fit == Fit::Stretch {
            return Self { source, input, pad: (0, 0), picture: input };
        }
        let scale = f64::min(f64::from(input.0) / f64::from(source.0), f64::from(input.1) / f64::from(source.1));
        let side = |length: u32, limit: u32| ((f64::from(length) * scale).round() as u32).clamp(1, limit);
        let picture = (side(source.0, input.0), side(source.1, input.1));
        let pad = match fit {
            Fit::Centre => ((input.0 - picture.0) / 2, (input.1 - picture.1) / 2),
            Fit::TopLeft | Fit::Stretch => (0, 0),
        };
        Self { source, input, pad, picture }
    }

    /// A box in input pixels as 0..1 of the source, clipped to it.
    pub fn to_source(&self, b: Rect) -> Rect {
        let (pad_x, pad_y) = (self.pad.0 as f32, self.pad.1 as f32);
        let (width, height) = (self.picture.0 as f32, self.picture.1 as f32);
        let x = |v: f32| ((v - pad_x) / width).clamp(0.0, 1.0);
        let y = |v: f32| ((v - pad_y) / height).clamp(0.0, 1.0);
        [x(b[0]), y(b[1]), x(b[2]), y(b[3])]
    }

    /// A point in 0..1 of the source as input pixels.
    pub fn to_input(&self, point: [f32; 2]) -> [f32; 2] {
        [self.pad.0 as f32 + point[0] * self.picture.0 as f32, self.pad.1 as f32 + point[1] * self.picture.1 as f32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_and_padding_of_each_fit() {
        let wide = Letterbox::new((1920, 1080), (640, 640), Fit::Centre);
        assert_eq!((wide.pad, wide.picture), ((0, 140), (640, 360)));
        let corner = Letterbox::new((768, 576), (416, 416), Fit::TopLeft);
        assert_eq!((corner.pad, corner.picture), ((0, 0), (416, 312)));
        let stretched = Letterbox::new((1920, 1080), (640, 640), Fit::Stretch);
        assert_eq!((stretched.pad, stretched.picture), ((0, 0), (640, 640)));
    }

    #[test]
    fn to_source_inverts_to_input() {
        for fit in [Fit::Centre, Fit::TopLeft, Fit::Stretch] {
            for source in [(1920, 1080), (333, 517), (1, 1), (1, 4000)] {
                let letterbox = Letterbox::new(source, (416, 416), fit);
                let [x, y] = letterbox.to_input([0.25, 0.75]);
                let back = letterbox.to_source([x, y, x, y]);
                assert!(
                    (back[0] - 0.25).abs() < 1e-4 && (back[1] - 0.75).abs() < 1e-4,
                    "{fit:?} {source:?} {back:?}"
                );
            }
        }
    }

    #[test]
    fn boxes_are_clipped_to_the_source() {
        let letterbox = Letterbox::new((1920, 1080), (640, 640), Fit::Centre);
        assert_eq!(letterbox.to_source([-50.0, 0.0, 900.0, 900.0]), [0.0, 0.0, 1.0, 1.0]);
    }
}
