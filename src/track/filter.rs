//! Filters: detections that are dropped before tracking, by place, size, shape and score.

use super::classes::Classes;
use super::{Anchor, Polygon};
use crate::letterbox::Rect;

/// What a camera's detections must be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Every rule that is for a detection's class must hold.
    pub rules: Vec<Rule>,
    /// Where detections are dropped.
    pub ignored: Vec<Ignored>,
}

/// Least and most of what a detection may be. All ranges include their ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Classes that it is for, by name; all where there is none.
    pub labels: Vec<String>,
    /// Least score, 0..1.
    pub min_score: f32,
    /// Least and most area, in shares of the picture's area, 0..1.
    pub area: [f32; 2],
    /// Least and most height, in shares of the picture's height, 0..1.
    pub height: [f32; 2],
    /// Least and most of width by height, both in pixels; above 0.
    pub ratio: [f32; 2],
}

/// An area in which detections are dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Ignored {
    /// Where it is.
    pub polygon: Polygon,
    /// The point of a box that must lie inside.
    pub anchor: Anchor,
    /// Classes that it is for, by name; all where there is none.
    pub labels: Vec<String>,
}

/// A [`Filter`] for the classes of a model.
#[derive(Clone, Debug)]
pub struct Sieve {
    rules: Vec<(Classes, Rule)>,
    ignored: Vec<(Classes, Ignored)>,
}

impl Sieve {
    /// `labels` are the model's class names by class number.
    pub fn new(filter: &Filter, labels: &[String]) -> Self {
        let rules = filter.rules.iter().map(|rule| (Classes::named(&rule.labels, labels), rule.clone()));
        let ignored =
            filter.ignored.iter().map(|ignored| (Classes::named(&ignored.labels, labels), ignored.clone()));
        Self { rules: rules.collect(), ignored: ignored.collect() }
    }

    /// The detection stays. `rect` is 0..1 of the source, whose width and height in pixels are `size`.
    pub fn keeps(&self, rect: Rect, class: u32, score: f32, size: (u32, u32)) -> bool {
        let ignored = |(classes, ignored): &(Classes, Ignored)| {
            classes.contains(class) && ignored.polygon.contains(ignored.anchor.of(rect))
        };
        let fits = |(classes, rule): &(Classes, Rule)| !classes.contains(class) || rule.holds(rect, score, size);
        self.rules.iter().all(fits) && !self.ignored.iter().any(ignored)
    }
}

impl Rule {
    fn holds(&self, rect: Rect, score: f32, size: (u32, u32)) -> bool {
        let (width, height) = (rect[2] - rect[0], rect[3] - rect[1]);
        let ratio = width * size.0 as f32 / (height * size.1 as f32);
        let within = |range: [f32; 2], value: f32| range[0] <= value && value <= range[1];
        score >= self.min_score
            && within(self.area, width * height)
            && within(self.height, height)
            && within(self.ratio, ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (1920, 1080);
    /// A tenth of the picture wide and four tenths high: 192 x 432 pixels.
    const PERSON: Rect = [0.4, 0.3, 0.5, 0.7];

    fn any() -> Rule {
        Rule { labels: vec![], min_score: 0.0, area: [0.0, 1.0], height: [0.0, 1.0], ratio: [0.0, f32::INFINITY] }
    }

    fn sieve(rules: Vec<Rule>, ignored: Vec<Ignored>) -> Sieve {
        Sieve::new(&Filter { rules, ignored }, &["person", "car"].map(str::to_owned))
    }

    #[test]
    fn size_shape_and_score() {
        for (rule, kept) in [
            (any(), true),
            (Rule { min_score: 0.6, ..any() }, true),
            (Rule { min_score: 0.61, ..any() }, false),
            (Rule { area: [0.05, 1.0], ..any() }, false),
            (Rule { area: [0.0, 0.03], ..any() }, false),
            (Rule { area: [0.03, 0.05], ..any() }, true),
            (Rule { height: [0.5, 1.0], ..any() }, false),
            (Rule { height: [0.0, 0.3], ..any() }, false),
            (Rule { ratio: [0.4, 0.5], ..any() }, true),
            (Rule { ratio: [0.5, 2.0], ..any() }, false),
            (Rule { ratio: [0.0, 0.4], ..any() }, false),
        ] {
            assert_eq!(sieve(vec![rule.clone()], vec![]).keeps(PERSON, 0, 0.6, SIZE), kept, "{rule:?}");
        }
    }

    #[test]
    fn every_rule_for_the_class_must_hold() {
        let people = Rule { labels: vec!["person".to_owned()], min_score: 0.7, ..any() };
        let sieve = sieve(vec![Rule { min_score: 0.3, ..any() }, people], vec![]);
        assert!(!sieve.keeps(PERSON, 0, 0.6, SIZE) && sieve.keeps(PERSON, 0, 0.7, SIZE));
        assert!(sieve.keeps(PERSON, 1, 0.6, SIZE) && !sieve.keeps(PERSON, 1, 0.2, SIZE));
    }

    #[test]
    fn a_detection_whose_point_lies_in_an_ignored_area_is_dropped() {
        let lower = Polygon::new(vec![[0.0, 0.6], [1.0, 0.6], [1.0, 1.0], [0.0, 1.0]]);
        let ignored = |anchor| Ignored { polygon: lower.clone(), anchor, labels: vec!["person".to_owned()] };
        let foot = sieve(vec![], vec![ignored(Anchor::Foot)]);
        assert!(!foot.keeps(PERSON, 0, 0.9, SIZE) && foot.keeps(PERSON, 1, 0.9, SIZE));
        assert!(sieve(vec![], vec![ignored(Anchor::Centre)]).keeps(PERSON, 0, 0.9, SIZE));
    }

    #[test]
    fn a_box_without_area_or_numbers_passes_no_rule() {
        let sieve = sieve(vec![any()], vec![]);
        assert!(!sieve.keeps([0.5; 4], 0, 0.9, SIZE));
        assert!(!sieve.keeps([f32::NAN; 4], 0, 0.9, SIZE));
        assert!(!sieve.keeps(PERSON, 0, f32::NAN, SIZE));
    }
}
