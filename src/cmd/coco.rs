//! COCO detection results: what evaluation tools read. Pure; the commands do the reading and writing.

use serde::Serialize;

use crate::engine::coco::category_id;
use crate::yolo::Detection;

/// One detection in COCO's results format.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CocoResult {
    /// Id of the image in the annotations.
    pub image_id: u64,
    /// COCO category, 1..=90.
    pub category_id: u32,
    /// Left, top, width, height in pixels of the source.
    pub bbox: [f64; 4],
    /// Score, 0..1.
    pub score: f64,
}

/// The results of one image of `size` (width, height in pixels). Detections whose label is not one of COCO's are
/// left out: they have no category.
pub fn results<'a>(
    image_id: u64,
    size: (u32, u32),
    detections: &'a [Detection],
    labels: &'a [String],
) -> impl Iterator<Item = CocoResult> + 'a {
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    detections.iter().filter_map(move |d| {
        let [x1, y1, x2, y2] = d.rect.map(f64::from);
        let bbox = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height];
        let category_id = category_id(labels.get(d.class as usize)?)?;
        Some(CocoResult { image_id, category_id, bbox, score: f64::from(d.score) })
    })
}

/// The image id that COCO writes into its file names: `000000397133.jpg` is 397133.
pub fn image_id(file_name: &str) -> Option<u64> {
    let stem = file_name.rsplit('/').next()?.split('.').next()?;
    stem.bytes().all(|b| b.is_ascii_digit()).then(|| stem.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_pixels_and_in_categories() {
        let labels = ["person", "my own", "toothbrush"].map(str::to_owned);
        let detection = |class| Detection { rect: [0.25, 0.5, 0.75, 1.0], score: 0.5, class };
        let detections = [detection(2), detection(1), detection(0), detection(9)];
        let got: Vec<CocoResult> = results(7, (640, 480), &detections, &labels).collect();
        let bbox = [160.0, 240.0, 320.0, 240.0];
        let expected = [90, 1].map(|category_id| CocoResult { image_id: 7, category_id, bbox, score: 0.5 });
        assert_eq!(got, expected);
        let json = serde_json::to_string(&got[0]).expect("JSON");
        assert_eq!(json, r#"{"image_id":7,"category_id":90,"bbox":[160.0,240.0,320.0,240.0],"score":0.5}"#);
    }

    #[test]
    fn image_ids_are_read_from_file_names() {
        assert_eq!(image_id("000000397133.jpg"), Some(397_133));
        assert_eq!(image_id("images/000000000139.png"), Some(139));
        for name in ["bus.jpg", "", ".jpg", "12a.jpg", "99999999999999999999999.jpg"] {
            assert_eq!(image_id(name), None, "{name}");
        }
    }

    #[test]
    fn coco_has_80_classes_in_91_categories() {
        let table = crate::engine::coco::COCO80;
        assert_eq!((table[0], table[11], table[79]), (("person", 1), ("stop sign", 13), ("toothbrush", 90)));
        assert!(table.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }
}
