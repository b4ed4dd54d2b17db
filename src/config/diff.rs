//! What a new configuration changes in a running daemon. Pure: two configurations in, a [`Plan`] out.
//!
//! Structures are taken apart without `..`: a new setting does not compile until somebody says what its change asks for.

use super::{CameraConfig, Config};
use crate::frame::CameraId;

/// What is to be done for a new configuration to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Settings whose change only a restart can apply: where there is one, nothing of the plan is carried out.
    pub restart: Vec<&'static str>,
    /// Cameras that are no more.
    pub removed: Vec<CameraId>,
    /// Cameras whose pipeline is built anew, as they are to be.
    pub rebuilt: Vec<CameraConfig>,
    /// New cameras.
    pub added: Vec<CameraConfig>,
    /// Cameras that go on, and are looked at by other rules: as they are to be.
    pub rules: Vec<CameraConfig>,
    /// Cameras that go on or are rebuilt, and are switched on or off. The others stay as commands have switched them.
    pub switched: Vec<(CameraId, bool)>,
    /// How many cameras go on as if nothing had been.
    pub untouched: usize,
}

impl Plan {
    /// One sentence for people.
    pub fn summary(&self) -> String {
        let names = |cameras: &[CameraConfig]| cameras.iter().map(|c| c.id.to_string()).collect::<Vec<_>>();
        let switched = |wanted: bool| {
            let of = self.switched.iter().filter(|(_, on)| *on == wanted);
            of.map(|(id, _)| id.to_string()).collect::<Vec<_>>()
        };
        let parts = [
            ("added", names(&self.added)),
            ("removed", self.removed.iter().map(CameraId::to_string).collect()),
            ("built anew", names(&self.rebuilt)),
            ("other rules", names(&self.rules)),
            ("switched on", switched(true)),
            ("switched off", switched(false)),
        ];
        let mut said: Vec<String> = parts
            .iter()
            .filter(|(_, cameras)| !cameras.is_empty())
            .map(|(what, cameras)| format!("{what}: {}", cameras.join(", ")))
            .collect();
        if said.is_empty() {
            said.push("nothing changes".to_owned());
        }
        format!("{}; cameras untouched: {}", said.join("; "), self.untouched)
    }
}

/// What a change of a camera asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    rebuild: bool,
    rules: bool,
    switch: bool,
}

/// The plan that leads from `old` to `new`.
pub fn plan(old: &Config, new: &Config) -> Plan {
    let mut plan = Plan { restart: restart(old, new), ..Plan::default() };
    let other_tracking = old.tracking != new.tracking;
    plan.removed = old.cameras.iter().map(|c| &c.id).filter(|id| find(new, id).is_none()).cloned().collect();
    for camera in &new.cameras {
        let Some(before) = find(old, &camera.id) else {
            plan.added.push(camera.clone());
            continue;
        };
        let asked = asked(before, camera);
        if asked.switch {
            plan.switched.push((camera.id.clone(), camera.enabled));
        }
        if asked.rebuild {
            plan.rebuilt.push(camera.clone());
            continue;
        }
        if asked.rules || other_tracking {
            plan.rules.push(camera.clone());
        }
        plan.untouched += usize::from(asked == Asked::default() && !other_tracking);
    }
    plan
}

fn find<'c>(config: &'c Config, id: &CameraId) -> Option<&'c CameraConfig> {
    config.cameras.iter().find(|camera| camera.id == *id)
}

/// The settings that differ and that a running process cannot change.
fn restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let Config {
        node,
        state_dir,
        stop_deadline,
        engine,
        mqtt,
        http,
        tracking: _, // exchanged with the cameras' rules
        snapshots,
        homeassistant,
        frigate,
        deepstream,
        onvif,
        cloudevents,
        cameras: _, // each by itself
        labels: _,  // where labels stand, not what they are
        hash: _,
    } = old;
    let differ = [
        ("node", *node != new.node),
        ("state_dir", *state_dir != new.state_dir),
        ("stop_deadline", *stop_deadline != new.stop_deadline),
        ("engine", *engine != new.engine),
        ("mqtt", *mqtt != new.mqtt),
        ("http", *http != new.http),
        ("snapshots", *snapshots != new.snapshots),
        ("homeassistant", *homeassistant != new.homeassistant),
        ("frigate", *frigate != new.frigate),
        ("deepstream", *deepstream != new.deepstream),
        ("onvif", *onvif != new.onvif),
        ("cloudevents", *cloudevents != new.cloudevents),
    ];
    differ.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}

fn asked(old: &CameraConfig, new: &CameraConfig) -> Asked {
    let CameraConfig {
        id: _, // they are found by it
        enabled,
        source,
        decode,
        pipeline,
        fps_max,
        priority,
        mask,
        stall_timeout,
        detections,
        detections_hz_max,
        zones,
        lines,
        filter,
        events,
        motion,
    } = old;
    Asked {
        rebuild: *source != new.source
            || *decode != new.decode
            || *pipeline != new.pipeline
            || *fps_max != new.fps_max
            || *priority != new.priority
            || *mask != new.mask
            || *stall_timeout != new.stall_timeout
            || *motion != new.motion,
        rules: *detections != new.detections
            || *detections_hz_max != new.detections_hz_max
            || *zones != new.zones
            || *lines != new.lines
            || *filter != new.filter
            || *events != new.events,
        switch: *enabled != new.enabled,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(head: &str, cameras: &[&str]) -> Config {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/yolox-nano.toml");
        let section =
            |(index, more): (usize, &&str)| format!("[[camera]]\nid = \"c{index}\"\nurl = \"test://\"\n{more}\n");
        let cameras: String = cameras.iter().enumerate().map(section).collect();
        let text = format!("node = \"n\"\n{head}\n[engine]\nmanifest = {manifest:?}\n{cameras}");
        crate::config::parse(&text, Path::new("")).unwrap()
    }

    fn ids(cameras: &[CameraConfig]) -> Vec<&str> {
        cameras.iter().map(|camera| camera.id.as_str()).collect()
    }

    const ZONE: &str = "[[camera.zone]]\nname = \"z\"\npolygon = [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]";

    #[test]
    fn nothing_changes_where_only_the_text_does() {
        let plan = plan(&config("", &["", ""]), &config("# a comment", &["", ""]));
        assert_eq!(plan, Plan { untouched: 2, ..Plan::default() });
        assert_eq!(plan.summary(), "nothing changes; cameras untouched: 2");
    }

    #[test]
    fn cameras_come_and_go_by_name() {
        let (one, three) = (config("", &[""]), config("", &["", "", ""]));
        let more = plan(&one, &three);
        assert_eq!((ids(&more.added), more.untouched), (vec!["c1", "c2"], 1));
        let fewer = plan(&three, &one);
        assert_eq!((fewer.removed.len(), fewer.untouched), (2, 1));
        assert_eq!(fewer.summary(), "removed: c1, c2; cameras untouched: 1");
    }

    #[test]
    fn what_the_pipeline_is_made_of_rebuilds_it_and_rules_do_not() {
        let old = config("", &["", "", "", "", ""]);
        let new = config("", &["fps_max = 2.0", ZONE, "detections = \"off\"", "enabled = false", ""]);
        let plan = plan(&old, &new);
        assert_eq!((ids(&plan.rebuilt), ids(&plan.rules)), (vec!["c0"], vec!["c1", "c2"]));
        assert_eq!((&plan.switched[..], plan.untouched), (&[(CameraId::new("c3"), false)][..], 1));
        assert!(plan.restart.is_empty() && plan.added.is_empty() && plan.removed.is_empty());
    }

    #[test]
    fn a_motion_gate_that_comes_goes_or_differs_rebuilds_its_camera_which_holds_other_frames() {
        let (without, with) = (config("", &["", ""]), config("", &["[camera.motion]\nenabled = true", ""]));
        let other = config("", &["[camera.motion]\nenabled = true\nthreshold = 20", ""]);
        for (old, new) in [(&without, &with), (&with, &without), (&with, &other)] {
            let plan = plan(old, new);
            assert_eq!((ids(&plan.rebuilt), plan.untouched), (vec!["c0"], 1));
        }
        assert_eq!(ids(&plan(&without, &config("[motion]\nenabled = true", &["", ""])).rebuilt), ["c0", "c1"]);
    }

    #[test]
    fn other_tracking_is_a_rule_of_every_camera() {
        let new = config("[tracking]\nlost_after = \"9s\"", &["", "priority = 9"]);
        let plan = plan(&config("", &["", ""]), &new);
        assert_eq!((ids(&plan.rules), ids(&plan.rebuilt), plan.untouched), (vec!["c0"], vec!["c1"], 0));
    }

    #[test]
    fn what_the_process_stands_on_needs_a_restart() {
        let old = config("", &[""]);
        for (head, name) in [
            ("stop_deadline = \"3s\"", "stop_deadline"),
            ("[mqtt]\nbase = \"b\"", "mqtt"),
            ("[http]\nenabled = false", "http"),
            ("[frigate]\nenabled = true", "frigate"),
            ("[onvif]\nenabled = true", "onvif"),
        ] {
            assert_eq!(plan(&old, &config(head, &[""])).restart, [name]);
        }
    }
}
