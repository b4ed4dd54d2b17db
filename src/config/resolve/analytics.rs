//! Checks `[tracking]`, `[events]`, `[snapshots]`, `[motion]`, and the forms in which others read events.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::Resolver;
use crate::config::file::{
    FileCamera, FileCameraMotion, FileConfig, FileDeepstream, FileFrigate, FileHomeAssistant, FileMotion,
    FileSnapshots, FileTracking,
};
use crate::config::report::Section;
use crate::config::{
    DeepstreamConfig, EventRules, FrigateConfig, HomeAssistantConfig, MotionConfig, SnapshotsConfig,
};
use crate::track::tracker::TrackerSettings;
use crate::track::zone::Zone;

/// Most sightings before a track is believed.
const HITS_MAX: i64 = 100;
/// Longest wait before a track is believed.
const CONFIRM_MAX: Duration = Duration::from_secs(60);
/// How long a track may be out of sight.
const LOST: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
/// How long a track must stand to be stationary.
const STATIONARY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// Time between updates of an event, and between frames given to the model without motion.
const OFTEN: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// Longest time that the model goes on after motion.
const HOLD_MAX: Duration = Duration::from_secs(3600);
/// Least and most bytes of snapshots.
const SNAPSHOT_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// Ten years in seconds, as durations are written.
const TEN_YEARS: u64 = 315_576_000;
/// Shortest and longest life of a snapshot.
const SNAPSHOT_AGE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(TEN_YEARS);
/// Why something cannot be had without tracks.
pub(super) const TRACKS: &str = "this needs tracks: set tracking.enabled = true or remove it";

/// What holds for all cameras together.
pub(super) struct Analytics {
    pub tracking: Option<TrackerSettings>,
    pub snapshots: Option<SnapshotsConfig>,
    pub homeassistant: Option<HomeAssistantConfig>,
    pub frigate: Option<FrigateConfig>,
    pub deepstream: Option<DeepstreamConfig>,
}

impl Resolver<'_> {
    /// Parts that are switched off are checked all the same: they are to be right when they are switched on.
    pub(super) fn analytics(
        &mut self,
        root: &Section<'_>,
        file: &FileConfig,
        state_dir: &Path,
    ) -> Option<Analytics> {
        if !file.tracking.enabled {
            for (key, wanted) in [
                ("events", file.events.enabled),
                ("frigate", file.frigate.enabled),
                ("onvif", file.onvif.enabled),
                ("cloudevents", file.cloudevents.enabled),
            ] {
                let section = root.child(key);
                if wanted && section.given("enabled") {
                    self.report.at(&section, "enabled", TRACKS);
                }
            }
        }
        let events = root.child("events");
        self.labels(&events, "labels", &file.events.labels);
        self.fraction(&events, "min_score", file.events.min_score);
        self.between(&events, "update_every", file.events.update_every, OFTEN);
        self.rate(&events, "new_hz_max", file.events.new_hz_max);
        self.motion_levels(&root.child("motion"), &file.motion);
        let tracking = self.tracking(&root.child("tracking"), &file.tracking);
        let snapshots = self.snapshots(&root.child("snapshots"), &file.snapshots, state_dir);
        let homeassistant = self.homeassistant(&root.child("homeassistant"), &file.homeassistant);
        let frigate = self.frigate(&root.child("frigate"), &file.frigate);
        let deepstream = self.deepstream(&root.child("deepstream"), &file.deepstream);
        Some(Analytics {
            tracking: Some(tracking?).filter(|_| file.tracking.enabled),
            snapshots: Some(snapshots?).filter(|_| file.snapshots.enabled && file.tracking.enabled),
            homeassistant: Some(homeassistant?).filter(|_| file.homeassistant.enabled),
            frigate: Some(frigate?).filter(|_| file.frigate.enabled),
            deepstream: Some(deepstream?).filter(|_| file.deepstream.enabled),
        })
    }

    fn tracking(&mut self, section: &Section<'_>, file: &FileTracking) -> Option<TrackerSettings> {
        let scores = [("low", file.low), ("high", file.high), ("new", file.new)];
        let [low, high, new] = scores.map(|(key, value)| self.fraction(section, key, value));
        for [(lower_key, lower), (key, value)] in [[scores[0], scores[1]], [scores[1], scores[2]]] {
            if (0.0..=1.0).contains(&value) && lower > value && lower <= 1.0 {
                self.report.at(section, key, format!("give at least {lower_key}, which is {lower}"));
            }
        }
        let confirm_hits = self.count(section, "confirm_hits", file.confirm_hits, 1..=HITS_MAX);
        let confirm = Duration::ZERO..=CONFIRM_MAX;
        let confirm_after = self.between(section, "confirm_after", file.confirm_after, confirm);
        let lost_after = self.between(section, "lost_after", file.lost_after, LOST);
        let stationary_after = self.between(section, "stationary_after", file.stationary_after, STATIONARY);
        Some(TrackerSettings {
            low: low?,
            high: high?,
            new: new?,
            confirm_hits: u32::try_from(confirm_hits?).ok()?,
            confirm_after: confirm_after?,
            lost_after: lost_after?,
            stationary_after: stationary_after?,
        })
    }

    fn snapshots(
        &mut self,
        section: &Section<'_>,
        file: &FileSnapshots,
        state_dir: &Path,
    ) -> Option<SnapshotsConfig> {
        let folder = file.folder.as_deref().map(|folder| self.folder.join(folder));
        if !SNAPSHOT_BYTES.contains(&file.max_bytes) {
            self.report.at(section, "max_bytes", "give a size from 1MiB to 1TiB");
        }
        let max_age = self.between(section, "max_age", file.max_age, SNAPSHOT_AGE);
        let quality = self.count(section, "quality", file.quality, 1..=100);
        Some(SnapshotsConfig {
            folder: folder.unwrap_or_else(|| state_dir.join("snapshots")),
            max_bytes: file.max_bytes,
            max_age: max_age?,
            quality: u8::try_from(quality?).ok()?,
            draw_box: file.draw_box,
            publish: file.publish,
        })
    }

    fn homeassistant(&mut self, section: &Section<'_>, file: &FileHomeAssistant) -> Option<HomeAssistantConfig> {
        Some(HomeAssistantConfig { prefix: self.levels(section, "prefix", &file.prefix)? })
    }

    fn frigate(&mut self, section: &Section<'_>, file: &FileFrigate) -> Option<FrigateConfig> {
        Some(FrigateConfig { prefix: self.levels(section, "prefix", &file.prefix)? })
    }

    fn deepstream(&mut self, section: &Section<'_>, file: &FileDeepstream) -> Option<DeepstreamConfig> {
        let topic = match &file.topic {
            Some(topic) => Some(self.levels(section, "topic", topic)?),
            None => None,
        };
        Some(DeepstreamConfig { schema: file.schema, topic })
    }

    /// The rules of a camera whose sound zones are `zones`.
    pub(super) fn event_rules(
        &mut self,
        camera: &Section<'_>,
        file: &FileCamera,
        whole: &FileConfig,
        zones: &[Zone],
    ) -> Option<EventRules> {
        let section = camera.child("events");
        let own = &file.events;
        if own.enabled == Some(true) && !whole.tracking.enabled {
            self.report.at(&section, "enabled", TRACKS);
        }
        let labels = own.labels.as_deref().map(|labels| self.labels(&section, "labels", labels));
        let min_score = own.min_score.map(|score| self.fraction(&section, "min_score", score));
        let mut wanted = Vec::new();
        for (index, name) in own.zones.iter().enumerate() {
            // One that is written and not sound has its own problem.
            if !file.zone.iter().any(|zone| zone.name.as_ref() == Some(name)) {
                let text = format!("name {}: this camera has no such zone: give names of its zones", index + 1);
                self.report.at(&section, "zones", text);
            }
            wanted.extend(zones.iter().position(|zone| zone.name == *name));
        }
        Some(EventRules {
            labels: labels.unwrap_or_else(|| whole.events.labels.clone()),
            min_score: min_score.unwrap_or(Some(whole.events.min_score as f32))?,
            zones: wanted,
            update_every: whole.events.update_every,
            new_hz_max: whole.events.new_hz_max,
        })
        .filter(|_| own.enabled.unwrap_or(whole.events.enabled) && whole.tracking.enabled)
    }

    /// The motion gate of a camera.
    pub(super) fn motion(
        &mut self,
        camera: &Section<'_>,
        own: &FileCameraMotion,
        whole: &FileMotion,
    ) -> Option<MotionConfig> {
        let section = camera.child("motion");
        let merged = FileMotion {
            enabled: own.enabled.unwrap_or(whole.enabled),
            threshold: own.threshold.unwrap_or(whole.threshold),
            area: own.area.unwrap_or(whole.area),
            ..whole.clone()
        };
        let enabled = merged.enabled;
        if merged == *whole {
            // Its problems are those of `[motion]`.
            return motion_config(whole).filter(|_| enabled);
        }
        if own.threshold.is_some() {
            self.threshold(&section, merged.threshold);
        }
        if own.area.is_some() {
            self.motion_area(&section, merged.area);
        }
        motion_config(&merged).filter(|_| enabled)
    }

    fn motion_levels(&mut self, section: &Section<'_>, file: &FileMotion) {
        self.threshold(section, file.threshold);
        self.motion_area(section, file.area);
        self.between(section, "hold", file.hold, Duration::ZERO..=HOLD_MAX);
        self.between(section, "refresh", file.refresh, OFTEN);
    }

    fn threshold(&mut self, section: &Section<'_>, threshold: i64) {
        self.count(section, "threshold", threshold, 1..=255);
    }

    fn motion_area(&mut self, section: &Section<'_>, area: f64) {
        if !(area > 0.0 && area <= 1.0) {
            self.report.at(section, "area", "give a number above 0, at most 1");
        }
    }
}

fn motion_config(file: &FileMotion) -> Option<MotionConfig> {
    let threshold = u8::try_from(file.threshold).ok()?;
    Some(MotionConfig { threshold, area: file.area as f32, hold: file.hold, refresh: file.refresh })
}
