//! Zones, lines, filters, schedules and what is made of tracks: what is taken, and every way it can be wrong.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Folder, GOOD, with};
use crate::config::*;
use crate::track::Anchor;
use crate::track::filter::Rule;
use crate::track::zone::Inside;

const EVERYTHING: &str = r#"
[tracking]
low = 0.2
confirm_hits = 5
[events]
labels = ["person", "car"]
min_score = 0.5
update_every = "10s"
new_hz_max = 0.5
[snapshots]
folder = "pictures"
max_bytes = "2GiB"
max_age = "30d"
[motion]
enabled = true
threshold = 20
[homeassistant]
enabled = true
[frigate]
enabled = true
prefix = "site/frigate"
[deepstream]
enabled = true
schema = "full"
topic = "ds/all"
[onvif]
enabled = true
[[schedule]]
name = "night"
time_zone = "Europe/Berlin"
windows = ["mon-fri 22:00-06:00", "sat,sun"]
[[camera]]
id = "far"
url = "test://"
[[camera.zone]]
name = "drive"
polygon = [[0,0],[1,0],[1,1],[0,0]]
point = "overlap"
overlap = 0.25
labels = ["car"]
min_score = 0.4
enter_after = "0s"
schedule = "night"
[[camera.zone]]
name = "door"
polygon = [[0,0],[1,0],[1,1]]
[[camera.line]]
name = "gate"
points = [[0,0.5],[0.5,0.4],[1,0.5]]
point = "centre"
schedule = "night"
[[camera.filter]]
labels = ["person"]
min_score = 0.6
max_area = 0.5
min_height = 0.05
[[camera.ignore]]
polygon = [[0,0],[1,0],[1,1]]
labels = ["car"]
[camera.events]
labels = ["person"]
zones = ["door"]
[camera.motion]
area = 0.01
[[camera]]
id = "near"
url = "test://"
events = { enabled = false }
motion.enabled = false
"#;

#[test]
fn everything_about_tracks_that_can_be_given_is_taken() {
    let folder = Folder::new();
    let config = folder.parse(&format!("{GOOD}{EVERYTHING}")).unwrap();
    let tracking = config.tracking.unwrap();
    assert_eq!((tracking.low, tracking.high, tracking.confirm_hits), (0.2, 0.4, 5));
    let snapshots = config.snapshots.unwrap();
    assert_eq!((snapshots.folder, snapshots.max_bytes), (folder.path("pictures"), 2 << 30));
    assert_eq!(snapshots.max_age, Duration::from_secs(30 * 86_400));
    assert_eq!(config.homeassistant.unwrap().prefix, "homeassistant");
    assert_eq!(config.frigate.unwrap().prefix, "site/frigate");
    let topic = Some("ds/all".to_owned());
    assert_eq!(config.deepstream, Some(DeepstreamConfig { schema: DeepstreamSchema::Full, topic }));
    assert!(config.onvif && !config.cloudevents);
    let [.., far, near] = config.cameras.as_slice() else { panic!("{:?}", config.cameras) };
    let [drive, door] = far.zones.as_slice() else { panic!("{:?}", far.zones) };
    assert_eq!((drive.name.as_str(), drive.inside, drive.min_score), ("drive", Inside::Overlap(0.25), 0.4));
    assert_eq!(drive.polygon.points(), [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]);
    assert_eq!((drive.enter_after, drive.leave_after), (Duration::ZERO, Duration::from_secs(1)));
    assert_eq!((door.inside, &door.schedule), (Inside::At(Anchor::Foot), &None));
    let night = drive.schedule.as_ref().unwrap();
    // The night of a Thursday in summer, when Berlin is two hours ahead.
    let hour = |hour: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_783_555_200 + hour * 3600);
    assert_eq!([19, 20, 27, 28].map(|h| night.holds(hour(h))), [false, true, true, false]);
    let [gate] = far.lines.as_slice() else { panic!("{:?}", far.lines) };
    assert_eq!((gate.anchor, gate.margin, gate.points.len()), (Anchor::Centre, 0.01, 3));
    assert!(gate.schedule.as_ref().is_some_and(|schedule| Arc::ptr_eq(schedule, night)));
    let labels = vec!["person".to_owned()];
    let (area, height, ratio) = ([0.0, 0.5], [0.05, 1.0], [0.0, 1000.0]);
    assert_eq!(far.filter.rules, [Rule { labels: labels.clone(), min_score: 0.6, area, height, ratio }]);
    assert_eq!(far.filter.ignored.len(), 1);
    let update_every = Duration::from_secs(10);
    assert_eq!(
        far.events,
        Some(EventRules { labels, min_score: 0.5, zones: vec![1], update_every, new_hz_max: 0.5 })
    );
    let motion = far.motion.as_ref().unwrap();
    assert_eq!((motion.threshold, motion.area), (20, 0.01));
    assert!(near.events.is_none() && near.motion.is_none());
    assert_eq!(config.cameras[0].motion.as_ref().map(|motion| motion.area), Some(0.002));
}

#[test]
fn without_a_word_about_them_there_are_tracks_events_and_snapshots() {
    let config = Folder::new().parse(GOOD).unwrap();
    // `detect --track` uses the tracker's own.
    assert_eq!(config.tracking, Some(crate::track::tracker::TrackerSettings::default()));
    assert!(config.cameras.iter().all(|camera| camera.events.is_some()));
    assert_eq!(config.snapshots.unwrap().folder, std::path::Path::new("/var/lib/watchpost/snapshots"));
    assert!(config.homeassistant.is_none() && config.frigate.is_none() && config.deepstream.is_none());
    assert!(config.cameras.iter().all(|camera| camera.motion.is_none()));
}

#[test]
fn without_tracks_there_are_no_events_and_no_snapshots() {
    let config = Folder::new().parse(&format!("{GOOD}[tracking]\nenabled = false\n")).unwrap();
    assert!(config.tracking.is_none() && config.snapshots.is_none());
    assert!(config.cameras.iter().all(|camera| camera.events.is_none()));
}

#[test]
fn labels_are_noted_with_where_they_are_named() {
    let config = Folder::new().parse(&format!("{GOOD}{EVERYTHING}")).unwrap();
    let unknown = unknown_labels(&config.labels, &["person".to_owned()]);
    let found: Vec<(Option<usize>, &str)> = unknown.iter().map(|p| (p.line, p.path.as_str())).collect();
    let zone = (Some(51), "camera[far].zone[drive].labels");
    assert_eq!(found, [(Some(17), "events.labels"), zone, (Some(70), "camera[far].ignore[#1].labels")]);
}

/// What is added after `GOOD` (11 lines; the last section is `camera[yard]`), the line after it on which the problem is, path, and a
/// piece of its text. Exactly one problem each.
#[rustfmt::skip]
const WRONG: &[(&str, usize, &str, &str)] = &[
    ("[tracking]\nlow = 0.45", 1, "tracking.high", "give at least low, which is 0.45"),
    ("[tracking]\nhigh = 0.05", 2, "tracking.high", "give at least low"),
    ("[tracking]\nhigh = 0.6", 1, "tracking.new", "give at least high"),
    ("[tracking]\nnew = 1.5", 2, "tracking.new", "from 0 to 1"),
    ("[tracking]\nconfirm_hits = 0", 2, "tracking.confirm_hits", "from 1 to 100"),
    ("[tracking]\nconfirm_after = \"2m\"", 2, "tracking.confirm_after", "from 0s to 1m"),
    ("[tracking]\nlost_after = 2", 2, "tracking.lost_after", "with a unit"),
    ("[tracking]\nlost_after = \"0s\"", 2, "tracking.lost_after", "from 100ms to 10m"),
    ("[tracking]\nstationary_after = \"2d\"", 2, "tracking.stationary_after", "from 1s to 1day"),
    ("[tracking]\nenabled = false\n[events]\nenabled = true", 4, "events.enabled", "this needs tracks"),
    ("[tracking]\nenabled = false\n[frigate]\nenabled = true", 4, "frigate.enabled", "this needs tracks"),
    ("events.enabled = true\n[tracking]\nenabled = false", 1, "camera[yard].events.enabled", "this needs tracks"),
    ("zone = [{ name = \"a\", polygon = [[0,0],[1,0],[1,1]] }]\n[tracking]\nenabled = false", 1, "camera[yard].zone", "this needs tracks"),
    ("line = [{ name = \"a\", points = [[0,0],[1,0]] }]\n[tracking]\nenabled = false", 1, "camera[yard].line", "this needs tracks"),
    ("[events]\nlabels = \"person\"", 2, "events.labels", "give a list of texts"),
    ("[events]\nmin_score = 2", 2, "events.min_score", "from 0 to 1"),
    ("[events]\nupdate_every = \"0s\"", 2, "events.update_every", "from 100ms to 1h"),
    ("[events]\nnew_hz_max = 0", 2, "events.new_hz_max", "above 0"),
    ("[event]\nmin_score = 1", 1, "event", "did you mean `events`?"),
    ("[snapshots]\nmax_bytes = \"1kB\"", 2, "snapshots.max_bytes", "from 1MiB to 1TiB"),
    ("[snapshots]\nmax_age = \"1s\"", 2, "snapshots.max_age", "from 1m to 10years"),
    ("[snapshots]\nquality = 101", 2, "snapshots.quality", "from 1 to 100"),
    ("[motion]\nthreshold = 0", 2, "motion.threshold", "from 1 to 255"),
    ("[motion]\narea = 0", 2, "motion.area", "above 0, at most 1"),
    ("[motion]\nhold = \"2h\"", 2, "motion.hold", "from 0s to 1h"),
    ("[motion]\nrefresh = \"0s\"", 2, "motion.refresh", "from 100ms to 1h"),
    ("motion.threshold = 256", 1, "camera[yard].motion.threshold", "from 1 to 255"),
    ("motion.area = nan", 1, "camera[yard].motion.area", "above 0, at most 1"),
    ("motion.hold = \"1s\"", 1, "camera[yard].motion.hold", "no such setting"),
    ("[homeassistant]\nprefix = \"a/\"", 2, "homeassistant.prefix", "no / at either end"),
    ("[frigate]\nprefix = \"\"", 2, "frigate.prefix", "topic levels"),
    ("[deepstream]\nschema = \"off\"", 2, "deepstream.schema", "give \"minimal\" or \"full\""),
    ("[deepstream]\ntopic = \"a/#\"", 2, "deepstream.topic", "topic levels"),
    ("[onvif]\nprefix = \"a\"", 2, "onvif.prefix", "no such setting"),
    ("[[schedule]]\nwindows = [\"mon\"]\ntime_zone = \"UTC\"", 1, "schedule[#1].name", "it has no name"),
    ("[[schedule]]\nname = \"a b\"\nwindows = [\"mon\"]\ntime_zone = \"UTC\"", 2, "schedule[#1].name", "cannot stand in a topic"),
    ("[[schedule]]\nname = \"always\"\nwindows = [\"mon\"]\ntime_zone = \"UTC\"", 2, "schedule[always].name", "another name"),
    ("[[schedule]]\nname = \"a\"\ntime_zone = \"UTC\"", 1, "schedule[a].windows", "it never holds"),
    ("[[schedule]]\nname = \"a\"\ntime_zone = \"UTC\"\nwindows = [\"mon\", \"08:00-08:00\"]", 4, "schedule[a].windows", "window 2: it ends when it begins and never holds"),
    ("[[schedule]]\nname = \"a\"\ntime_zone = \"UTC\"\nwindows = [\"monday\"]", 4, "schedule[a].windows", "write days and hours"),
    ("[[schedule]]\nname = \"a\"\ntime_zone = \"UTC\"\nwindows = \"mon\"", 4, "schedule[a].windows", "give a list of texts"),
    ("[[schedule]]\nname = \"a\"\ntime_zone = \"Mars/Olympus\"\nwindows = [\"mon\"]", 3, "schedule[a].time_zone", "no such time zone"),
    ("[schedule]\nname = \"a\"", 1, "schedule", "give [[schedule]] sections"),
    ("zone = 1", 1, "camera[yard].zone", "give [[camera.zone]] sections"),
    ("[[camera.zone]]\npolygon = [[0,0],[1,0],[1,1]]", 1, "camera[yard].zone[#1].name", "it has no name"),
    ("[[camera.zone]]\nname = \"a/b\"\npolygon = [[0,0],[1,0],[1,1]]", 2, "camera[yard].zone[#1].name", "1 to 64 of the characters"),
    ("[[camera.zone]]\nname = \"a\"", 1, "camera[yard].zone[a].polygon", "no area: give its corners"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0]]", 3, "camera[yard].zone[a].polygon", "at least three points"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,1],[1,0],[0,1]]", 3, "camera[yard].zone[a].polygon", "cross"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1.1]]", 3, "camera[yard].zone[a].polygon", "from 0 to 1"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1]]", 3, "camera[yard].zone[a].polygon", "[x, y]"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [0,1]", 3, "camera[yard].zone[a].polygon", "give its corners, as in"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]\npoint = \"feet\"", 4, "camera[yard].zone[a].point", "\"foot\", \"centre\", \"overlap\""),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]\noverlap = 0.5", 4, "camera[yard].zone[a].overlap", "for point = \"overlap\""),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]\noverlap = 0.0\npoint = \"overlap\"", 4, "camera[yard].zone[a].overlap", "above 0, at most 1"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]\nmin_score = -1", 4, "camera[yard].zone[a].min_score", "from 0 to 1"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]\nenter_after = \"1h\"", 4, "camera[yard].zone[a].enter_after", "from 0s to 10m"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]\nschedule = \"night\"", 4, "camera[yard].zone[a].schedule", "no [[schedule]] with this name"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]\nlabel = [\"car\"]", 4, "camera[yard].zone[a].label", "did you mean `labels`?"),
    ("[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]\n[[camera.zone]]\nname = \"a\"\npolygon = [[0,0],[1,0],[1,1]]", 5, "camera[yard].zone[a].name", "another zone on line 13 has this name"),
    ("[[camera.line]]\nname = \"a\"", 1, "camera[yard].line[a].points", "no points"),
    ("[[camera.line]]\nname = \"a\"\npoints = [[0,0]]", 3, "camera[yard].line[a].points", "at least two points"),
    ("[[camera.line]]\nname = \"a\"\npoints = [[0,0],[1,2]]", 3, "camera[yard].line[a].points", "from 0 to 1"),
    ("[[camera.line]]\nname = \"a\"\npoints = [[0,0],[1,1],[1,0],[0,1]]", 3, "camera[yard].line[a].points", "crosses or touches itself"),
    ("[[camera.line]]\nname = \"a\"\npoints = [[0,0],[1,1]]\npoint = \"overlap\"", 4, "camera[yard].line[a].point", "\"foot\" or \"centre\""),
    ("[[camera.line]]\nname = \"a\"\npoints = [[0,0],[1,1]]\nmargin = 0.6", 4, "camera[yard].line[a].margin", "from 0 to 0.5"),
    ("[[camera.line]]\nname = \"a\"\npoints = [[0,0],[1,1]]\n[[camera.line]]\nname = \"a\"\npoints = [[0,0],[1,1]]", 5, "camera[yard].line[a].name", "another line on line 13 has this name"),
    ("[[camera.filter]]\nmin_area = 0.5\nmax_area = 0.4", 3, "camera[yard].filter[#1].max_area", "nothing could pass: give at least min_area, which is 0.5"),
    ("[[camera.filter]]\nmax_height = 1.5", 2, "camera[yard].filter[#1].max_height", "from 0 to 1"),
    ("[[camera.filter]]\nmin_ratio = 1001", 2, "camera[yard].filter[#1].min_ratio", "from 0 to 1000"),
    ("[[camera.filter]]\nmin_score = nan", 2, "camera[yard].filter[#1].min_score", "from 0 to 1"),
    ("[camera.filter]\nmin_score = 0.5", 1, "camera[yard].filter", "give [[camera.filter]] sections"),
    ("[[camera.ignore]]\nlabels = [\"car\"]", 1, "camera[yard].ignore[#1].polygon", "no area"),
    ("events.zones = [\"drive\"]", 1, "camera[yard].events.zones", "name 1: this camera has no such zone"),
    ("events.min_score = 1.1", 1, "camera[yard].events.min_score", "from 0 to 1"),
];

#[test]
fn each_wrong_setting_about_tracks_is_one_problem_with_its_line_and_path() {
    let folder = Folder::new();
    for (added, line, path, text) in WRONG {
        let problems = folder.problems(&format!("{GOOD}{added}\n"));
        assert_eq!(problems.len(), 1, "{added}: {problems:#?}");
        let line = line + GOOD.lines().count();
        assert!(problems[0].starts_with(&format!("line {line}: {path}: ")), "{added}: {problems:?}");
        assert!(problems[0].contains(text), "{added}: {problems:?}");
    }
}

#[test]
fn all_problems_of_a_scene_at_once() {
    let added = r#"
[[schedule]]
name = "night"
time_zone = "Mars/Olympus"
[[camera]]
id = "far"
url = "test://"
[[camera.zone]]
name = "a b"
polygon = [[0,0]]
schedule = "night"
[[camera.line]]
name = "x"
points = [[0,0],[2,0]]
labels = [1]
[camera.events]
zones = ["a b", "c"]
"#;
    let problems = Folder::new().problems(&format!("{GOOD}{added}"));
    let found: Vec<&str> = problems.iter().map(|p| p.rsplit_once(": ").unwrap().0).collect();
    let expected = [
        "line 13: schedule[night].windows: it never holds",
        "line 15: schedule[night].time_zone: there is no such time zone",
        "line 20: camera[far].zone[#1].name: this cannot stand in a topic",
        "line 21: camera[far].zone[#1].polygon",
        "line 25: camera[far].line[x].points",
        "line 26: camera[far].line[x].labels",
        "line 28: camera[far].events.zones: name 2: this camera has no such zone",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}: {problems:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{problems:#?}");
}

#[test]
fn cameras_may_have_zones_of_the_same_name_and_many_are_too_many() {
    let zone = |n: usize| format!("[[camera.zone]]\nname = \"z{n}\"\npolygon = [[0,0],[1,0],[1,1]]\n");
    let folder = Folder::new();
    let other = with("[[camera]]\nid = \"yard\"", &format!("{}[[camera]]\nid = \"yard\"", zone(0)));
    assert_eq!(folder.problems(&format!("{other}{}", zone(0))), Vec::<String>::new());
    let many: String = (0..65).map(zone).collect();
    let problems = folder.problems(&format!("{GOOD}{many}"));
    assert!(problems.len() == 1 && problems[0].contains("65 sections: give at most 64"), "{problems:?}");
}
