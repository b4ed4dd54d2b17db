//! What is there now and what has crossed, and which of it changed.

use std::collections::BTreeMap;

use crate::track::line::Direction;

/// What is counted, by the numbers of zone, line and class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Objects of a class.
    Label(u32),
    /// Those in a zone.
    Zone(usize, u32),
    /// Crossings of a line in (true) or out.
    Line(usize, bool, u32),
}

impl Key {
    /// Crossings of a line.
    pub fn line(line: usize, direction: Direction, class: u32) -> Self {
        Self::Line(line, direction == Direction::In, class)
    }
}

/// The counts of a camera.
#[derive(Debug, Default)]
pub struct Counts {
    /// Those of this frame and, of lines, of all frames.
    now: BTreeMap<Key, u64>,
    /// Those told last.
    told: BTreeMap<Key, u64>,
}

impl Counts {
    /// One more.
    pub fn add(&mut self, key: Key) {
        *self.now.entry(key).or_default() += 1;
    }

    /// Zones and lines have other numbers; the counts of those that have none are forgotten.
    pub fn renumber(&mut self, zones: &[Option<usize>], lines: &[Option<usize>]) {
        let renumbered = |key: &Key| match *key {
            Key::Label(class) => Some(Key::Label(class)),
            Key::Zone(zone, class) => zones[zone].map(|zone| Key::Zone(zone, class)),
            Key::Line(line, is_in, class) => lines[line].map(|line| Key::Line(line, is_in, class)),
        };
        for counts in [&mut self.now, &mut self.told] {
            *counts = counts.iter().filter_map(|(key, value)| Some((renumbered(key)?, *value))).collect();
        }
    }

    /// Lines are counted from 0 again.
    pub fn clear(&mut self) {
        self.now.clear();
    }

    /// The counts that changed; what is there now is counted anew from here on.
    pub fn changes(&mut self) -> Vec<(Key, u64)> {
        let gone = self.told.keys().filter(|key| !self.now.contains_key(key)).map(|key| (*key, 0));
        let changed = |(key, value): &(Key, u64)| self.told.get(key).copied().unwrap_or(0) != *value;
        let changes: Vec<_> =
            self.now.iter().map(|(key, value)| (*key, *value)).chain(gone).filter(changed).collect();
        self.told.extend(changes.iter().copied());
        self.now.retain(|key, _| matches!(key, Key::Line(..)));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told_and_lines_add_up() {
        let mut counts = Counts::default();
        let (person, crossed) = (Key::Label(0), Key::line(1, Direction::In, 0));
        counts.add(person);
        counts.add(person);
        counts.add(crossed);
        assert_eq!(counts.changes(), [(person, 2), (crossed, 1)]);
        counts.add(person);
        counts.add(person);
        assert_eq!(counts.changes(), []);
        counts.add(crossed);
        assert_eq!(counts.changes(), [(crossed, 2), (person, 0)]);
        assert_eq!(counts.changes(), []);
        counts.clear();
        assert_eq!(counts.changes(), [(crossed, 0)]);
        counts.add(crossed);
        assert_eq!(counts.changes(), [(crossed, 1)]);
    }
}
