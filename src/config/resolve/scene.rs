//! Checks `[[schedule]]`, and a camera's zones, lines, rules and ignored areas.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::analytics::TRACKS;
use super::{Resolver, polygon};
use crate::config::file::{
    ALWAYS, FileCamera, FileConfig, FileIgnored, FileLine, FilePoint, FilePoints, FileRule, FileSchedule, FileZone,
};
use crate::config::load::files;
use crate::config::report::{NAME_BYTES_MAX, Section, is_topic_level};
use crate::track::filter::{Filter, Ignored, Rule};
use crate::track::line::Line;
use crate::track::schedule::{Schedule, Window};
use crate::track::zone::{Inside, Zone};
use crate::track::{Anchor, Polygon};

/// Most sections of a kind: zones of a camera, lines, and so on.
const SECTIONS_MAX: usize = 64;
/// Most windows of a schedule.
const WINDOWS_MAX: usize = 64;
/// How long a track may have to be seen inside or outside.
const HYSTERESIS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
/// Most of a line's margin.
const MARGIN_MAX: f64 = 0.5;
/// Most of width by height.
const RATIO_MAX: f64 = 1000.0;

impl Resolver<'_> {
    pub(super) fn schedules(&mut self, root: &Section<'_>, files: &[FileSchedule]) {
        let Some(sections) = self.some(root, "schedule", files.len()) else { return };
        self.unlike(&sections, "name", "schedule", files.iter().map(|file| file.name.as_deref()));
        for (section, file) in sections.iter().zip(files) {
            let name = self.name(section, file.name.as_deref());
            if name.as_deref() == Some(ALWAYS) {
                let text = "\"always\" is the one that always holds: give this one another name";
                self.report.at(section, "name", text);
            }
            let schedule = self.schedule(section, file);
            // The name as written: whoever names it means it, and its own problem is said.
            if let Some(written) = &file.name {
                self.schedules.insert(written.clone(), schedule.map(Arc::new));
            }
        }
    }

    fn schedule(&mut self, section: &Section<'_>, file: &FileSchedule) -> Option<Schedule> {
        let zone = files::time_zone(file.time_zone.as_deref());
        let zone = zone.map_err(|text| self.report.at(section, "time_zone", text)).ok();
        if file.windows.is_empty() {
            let text = "it never holds: give windows, such as [\"mon-fri 22:00-06:00\"]";
            self.report.at(section, "windows", text);
        }
        if file.windows.len() > WINDOWS_MAX {
            self.report.at(section, "windows", format!("give at most {WINDOWS_MAX}"));
            return None;
        }
        let mut windows = Vec::new();
        for (index, text) in file.windows.iter().enumerate() {
            match Window::parse(text) {
                Ok(window) => windows.push(window),
                Err(text) => self.report.at(section, "windows", format!("window {}: {text}", index + 1)),
            }
        }
        Some(Schedule::new(zone?, windows))
    }

    /// The sound ones.
    pub(super) fn zones(&mut self, camera: &Section<'_>, files: &[FileZone], whole: &FileConfig) -> Vec<Zone> {
        let Some(sections) = self.some(camera, "zone", files.len()) else { return Vec::new() };
        if !files.is_empty() && !whole.tracking.enabled {
            self.report.at(camera, "zone", TRACKS);
        }
        self.unlike(&sections, "name", "zone", files.iter().map(|file| file.name.as_deref()));
        sections.iter().zip(files).filter_map(|(section, file)| self.zone(section, file)).collect()
    }

    fn zone(&mut self, section: &Section<'_>, file: &FileZone) -> Option<Zone> {
        let name = self.name(section, file.name.as_deref());
        let polygon = self.polygon(section, file.polygon.as_ref());
        if !(file.overlap > 0.0 && file.overlap <= 1.0) {
            self.report.at(section, "overlap", "give a number above 0, at most 1");
        } else if section.given("overlap") && file.point != FilePoint::Overlap {
            self.report.at(section, "overlap", "this is for point = \"overlap\": give that too or remove this");
        }
        let inside = match file.point {
            FilePoint::Foot => Inside::At(Anchor::Foot),
            FilePoint::Centre => Inside::At(Anchor::Centre),
            FilePoint::Overlap => Inside::Overlap(file.overlap as f32),
        };
        let labels = self.labels(section, "labels", &file.labels);
        let min_score = self.fraction(section, "min_score", file.min_score);
        let enter_after = self.between(section, "enter_after", file.enter_after, HYSTERESIS);
        let leave_after = self.between(section, "leave_after", file.leave_after, HYSTERESIS);
        let schedule = self.named_schedule(section, &file.schedule);
        Some(Zone {
            name: name?,
            polygon: polygon?,
            inside,
            labels,
            min_score: min_score?,
            enter_after: enter_after?,
            leave_after: leave_after?,
            schedule,
        })
    }

    /// The sound ones.
    pub(super) fn lines(&mut self, camera: &Section<'_>, files: &[FileLine], whole: &FileConfig) -> Vec<Line> {
        let Some(sections) = self.some(camera, "line", files.len()) else { return Vec::new() };
        if !files.is_empty() && !whole.tracking.enabled {
            self.report.at(camera, "line", TRACKS);
        }
        self.unlike(&sections, "name", "line", files.iter().map(|file| file.name.as_deref()));
        sections.iter().zip(files).filter_map(|(section, file)| self.line(section, file)).collect()
    }

    fn line(&mut self, section: &Section<'_>, file: &FileLine) -> Option<Line> {
        let name = self.name(section, file.name.as_deref());
        let points = match file.points.as_deref().map(polygon::line) {
            Some(Ok(points)) => Some(points),
            Some(Err(text)) => {
                self.report.at(section, "points", text);
                None
            }
            None => {
                self.report.at(section, "points", "no points: give them as in [[0.1, 0.5], [0.9, 0.5]]");
                None
            }
        };
        let margin = self.within(section, "margin", file.margin, 0.0..=MARGIN_MAX);
        let labels = self.labels(section, "labels", &file.labels);
        let min_score = self.fraction(section, "min_score", file.min_score);
        let schedule = self.named_schedule(section, &file.schedule);
        Some(Line {
            name: name?,
            points: points?,
            anchor: file.point,
            margin: margin?,
            labels,
            min_score: min_score?,
            schedule,
        })
    }

    /// What of it is sound.
    pub(super) fn filter(&mut self, camera: &Section<'_>, file: &FileCamera) -> Filter {
        let mut filter = Filter::default();
        let rules = self.some(camera, "filter", file.filter.len()).unwrap_or_default();
        for (section, file) in rules.iter().zip(&file.filter) {
            filter.rules.extend(self.rule(section, file));
        }
        let ignored = self.some(camera, "ignore", file.ignore.len()).unwrap_or_default();
        for (section, file) in ignored.iter().zip(&file.ignore) {
            filter.ignored.extend(self.ignored(section, file));
        }
        filter
    }

    fn rule(&mut self, section: &Section<'_>, file: &FileRule) -> Option<Rule> {
        let labels = self.labels(section, "labels", &file.labels);
        let min_score = self.fraction(section, "min_score", file.min_score);
        let mut range = |min_key: &str, max_key: &str, [min, max]: [f64; 2], most: f64| {
            let low = self.within(section, min_key, min, 0.0..=most);
            let high = self.within(section, max_key, max, 0.0..=most);
            if low? > high? {
                self.report.at(
                    section,
                    max_key,
                    format!("nothing could pass: give at least {min_key}, which is {min}"),
                );
            }
            Some([low?, high?])
        };
        let area = range("min_area", "max_area", [file.min_area, file.max_area], 1.0);
        let height = range("min_height", "max_height", [file.min_height, file.max_height], 1.0);
        let ratio = range("min_ratio", "max_ratio", [file.min_ratio, file.max_ratio], RATIO_MAX);
        Some(Rule { labels, min_score: min_score?, area: area?, height: height?, ratio: ratio? })
    }

    fn ignored(&mut self, section: &Section<'_>, file: &FileIgnored) -> Option<Ignored> {
        let polygon = self.polygon(section, file.polygon.as_ref());
        let labels = self.labels(section, "labels", &file.labels);
        Some(Ignored { polygon: polygon?, anchor: file.point, labels })
    }

    /// The `[[key]]` sections of `parent`, unless there are too many.
    fn some<'d>(&mut self, parent: &Section<'d>, key: &str, count: usize) -> Option<Vec<Section<'d>>> {
        if count > SECTIONS_MAX {
            self.report.at(parent, key, format!("{count} sections: give at most {SECTIONS_MAX}"));
            return None;
        }
        Some(parent.tables(key))
    }

    fn name(&mut self, section: &Section<'_>, written: Option<&str>) -> Option<String> {
        if let Some(name) = written.filter(|name| is_topic_level(name)) {
            return Some(name.to_owned());
        }
        let rule = format!("1 to {NAME_BYTES_MAX} of the characters A-Z, a-z, 0-9, _ and -");
        let text = match written {
            Some(_) => format!("this cannot stand in a topic: give {rule}"),
            None => format!("it has no name: give a name of {rule}"),
        };
        self.report.at(section, "name", text);
        None
    }

    fn polygon(&mut self, section: &Section<'_>, written: Option<&FilePoints>) -> Option<Polygon> {
        let text = match written.map(|points| polygon::polygon(points)) {
            Some(Ok(points)) => return Some(Polygon::new(points)),
            Some(Err(text)) => text,
            None => "no area: give its corners as in [[0.1, 0.5], [0.9, 0.5], [0.5, 0.9]]".to_owned(),
        };
        self.report.at(section, "polygon", text);
        None
    }

    /// `None` always holds.
    fn named_schedule(&mut self, section: &Section<'_>, name: &str) -> Option<Arc<Schedule>> {
        if name == ALWAYS {
            return None;
        }
        match self.schedules.get(name) {
            Some(schedule) => schedule.clone(),
            None => {
                let text = "there is no [[schedule]] with this name: add one, or give \"always\"";
                self.report.at(section, "schedule", text);
                None
            }
        }
    }

    fn within(&mut self, section: &Section<'_>, key: &str, value: f64, range: RangeInclusive<f64>) -> Option<f32> {
        if !range.contains(&value) {
            self.report.at(section, key, format!("give a number from {} to {}", range.start(), range.end()));
            return None;
        }
        Some(value as f32)
    }
}
