//! Other rules for a scene that goes on: tracks live on, zones and lines of the same name are the same.

use super::{Open, Rules, Scene};
use crate::track::filter::Sieve;

impl Scene {
    /// Goes on with other rules. Zones and lines that are no more are forgotten, in tracks and in counts; what changed of
    /// the others shows with the next frame.
    pub fn exchange(&mut self, rules: Rules) {
        let zones = numbers(names(&self.rules.zones, |zone| &zone.name), names(&rules.zones, |zone| &zone.name));
        let lines = numbers(names(&self.rules.lines, |line| &line.name), names(&rules.lines, |line| &line.name));
        self.counts.renumber(&zones, &lines);
        let labels = &self.speaker.labels;
        self.zones.exchange(&rules.zones, labels);
        let rect_of = |track| self.open.get(&track).map(|open| open.track.rect);
        self.lines.exchange(&rules.lines, labels, rect_of);
        self.tracker.exchange(&rules.tracking);
        self.sieve = Sieve::new(&rules.filter, labels);
        self.wanted = super::wanted(&rules, labels);
        for (id, open) in &mut self.open {
            open.renumber(&zones, &lines);
            open.zones = self.zones.current(*id).to_vec();
        }
        self.rules = rules;
    }

    /// The number of the next track.
    pub fn next_track(&self) -> u64 {
        self.tracker.next_id()
    }

    /// Tracks below this number were another scene's of this camera: their ids are not used again.
    pub fn number_from(&mut self, next: u64) {
        self.tracker.number_from(next);
    }
}

impl Open {
    fn renumber(&mut self, zones: &[Option<usize>], lines: &[Option<usize>]) {
        if let Some(told) = &mut self.told {
            told.entered = self.entered[..told.entered].iter().filter(|zone| zones[**zone].is_some()).count();
        }
        self.entered = self.entered.iter().filter_map(|zone| zones[*zone]).collect();
        let counted = self.crossings[..self.counted].iter().filter(|(c, _)| lines[c.line].is_some()).count();
        let before = self.crossings.len();
        self.crossings.retain_mut(|(crossing, _)| match lines[crossing.line] {
            Some(line) => {
                crossing.line = line;
                true
            }
            None => false,
        });
        self.counted = counted;
        if let Some(told) = &mut self.told {
            // To be in a zone that is no more is told, once: no zone has that number. Crossings of lines that are no more
            // are no news.
            told.zones = told.zones.iter().map(|zone| zones[*zone].unwrap_or(usize::MAX)).collect();
            told.zones.sort_unstable();
            told.crossings -= (before - self.crossings.len()).min(told.crossings);
        }
    }
}

fn names<T>(all: &[T], name: impl Fn(&T) -> &String) -> Vec<&str> {
    all.iter().map(|one| name(one).as_str()).collect()
}

/// By old number the new one of the same name.
fn numbers(old: Vec<&str>, new: Vec<&str>) -> Vec<Option<usize>> {
    old.iter().map(|name| new.iter().position(|other| other == name)).collect()
}
