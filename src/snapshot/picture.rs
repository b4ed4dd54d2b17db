//! A thumbnail as a JPEG, with or without boxes in it.

use jpeg_encoder::{ColorType, Encoder, EncodingError};

use crate::letterbox::Rect;
use crate::thumbnail::Thumbnail;

/// Red, green and blue of a box.
const COLOUR: [u8; 3] = [0, 255, 0];
/// Width of a box's lines in pixels: those of chroma are two wide.
const LINE: usize = 2;

/// Red, green and blue of its pixels, with the outlines of `rects` (0..1 of the picture).
pub(super) fn drawn(thumbnail: &Thumbnail, rects: &[Rect]) -> Vec<u8> {
    let (width, height) = thumbnail.size();
    let mut rgb = rgb(thumbnail);
    for rect in rects {
        draw(&mut rgb, (width as usize, height as usize), *rect);
    }
    rgb
}

/// Encodes them in `quality` (1..=100).
pub(super) fn jpeg(rgb: &[u8], (width, height): (u32, u32), quality: u8) -> Result<Vec<u8>, EncodingError> {
    let mut jpeg = Vec::with_capacity(rgb.len() / 8);
    // Thumbnails have 640 pixels a side at most.
    Encoder::new(&mut jpeg, quality).encode(rgb, width as u16, height as u16, ColorType::Rgb)?;
    Ok(jpeg)
}

fn rgb(thumbnail: &Thumbnail) -> Vec<u8> {
    let [luma, u, v] = thumbnail.planes();
    let (width, half) = (thumbnail.size().0 as usize, thumbnail.size().0.div_ceil(2) as usize);
    let matrix = thumbnail.colour().matrix();
    let mut rgb = vec![0; 3 * luma.len()];
    for (y, (row, out)) in luma.chunks_exact(width).zip(rgb.chunks_exact_mut(3 * width)).enumerate() {
        let chroma = y / 2 * half;
        // Two pixels of a row share their colour.
        let pairs = row.chunks(2).zip(out.chunks_mut(6));
        for ((lumas, pixels), (u, v)) in pairs.zip(u[chroma..].iter().zip(&v[chroma..])) {
            let colour = matrix.map(|m| m[1] * f32::from(*u) + m[2] * f32::from(*v) + m[3] + 0.5);
            for (luma, pixel) in lumas.iter().zip(pixels.chunks_exact_mut(3)) {
                for ((byte, m), colour) in pixel.iter_mut().zip(&matrix).zip(colour) {
                    // A cast clamps.
                    *byte = (m[0] * f32::from(*luma) + colour) as u8;
                }
            }
        }
    }
    rgb
}

/// The outline of a box, just within it and within the picture.
fn draw(rgb: &mut [u8], (width, height): (usize, usize), rect: Rect) {
    let at = |v: f32, length: usize| (v.clamp(0.0, 1.0) * length as f32).round() as usize;
    let (left, right) = (at(rect[0], width), at(rect[2], width));
    let (top, bottom) = (at(rect[1], height), at(rect[3], height));
    for y in top..bottom {
        let is_edge = y < top + LINE || y + LINE >= bottom;
        let sides = [left..(left + LINE).min(right), right.saturating_sub(LINE).max(left)..right];
        let whole = [left..right, right..right];
        for x in if is_edge { whole } else { sides }.into_iter().flatten() {
            rgb[3 * (y * width + x)..][..3].copy_from_slice(&COLOUR);
        }
    }
}
