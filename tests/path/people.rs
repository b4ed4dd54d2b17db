//! People as a viewer counts them, by the real model, the tracker and the broker.

use std::collections::BTreeSet;
use std::time::Duration;

use watchpost::event::{CameraStatus, EndReason, Event, EventKind};

use crate::support::assets::find_assets;
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, Heard};

const LIMIT: Duration = Duration::from_secs(240);

/// Whom a viewer of the clip sees, each alone in the picture: all come in at the lower border, stand at the table and leave at
/// the right, from 6.0 to 19.6 s, 22.8 to 44.6, 50.6 to 69.8, 74.5 to 86.9, 92.5 to 119.8 and 123.7 to 135.9.
const VIEWER: usize = 6;

fn of_kind<'a>(heard: &'a Heard, camera: &str, kind: EventKind) -> Vec<&'a Event> {
    heard.events.iter().filter(|event| event.camera == camera && event.kind == kind).collect()
}

/// At all of its 10 frames a second, and at 3: a file that is read fast is thinned out and tracked by its own time.
#[test]
fn people_who_come_one_by_one_are_counted_as_a_viewer_counts_them() {
    let _cores = all_cores();
    let clip = find_assets().map(|assets| assets.join("videos/intel_one-by-one-person-detection.mp4"));
    let Some(clip) = clip.filter(|clip| clip.exists()) else {
        eprintln!("skipped: no clip of people one by one: set WATCHPOST_ASSETS");
        return;
    };
    let camera =
        |id: &str, more: &str| format!("[[camera]]\nid = \"{id}\"\nurl = {clip:?}\npace = \"fast\"\n{more}");
    let cameras = camera("all", "") + &camera("three", "fps_max = 3\n") + "[events]\nlabels = [\"person\"]\n";
    let Some(mut daemon) = Daemon::start("", &cameras) else { return };
    for id in ["all", "three"] {
        daemon.until("the end of the file", LIMIT, |heard| heard.is(id, CameraStatus::Finished));
        daemon.until("nobody left", LIMIT, |heard| {
            let ends = of_kind(heard, id, EventKind::End).len();
            ends > 0 && ends == of_kind(heard, id, EventKind::New).len()
        });
    }
    let counts = daemon.finish();
    let share = counts["three"].inferred as f32 / counts["all"].inferred as f32;
    assert!((0.29..0.31).contains(&share), "3 of 10 frames: {counts:?}");
    for id in ["all", "three"] {
        let (new, end) = (of_kind(&daemon.heard, id, EventKind::New), of_kind(&daemon.heard, id, EventKind::End));
        assert!(new.len().abs_diff(VIEWER) <= 1, "{id}: {} people, a viewer sees {}", new.len(), VIEWER);
        let ids = |events: &[&Event]| -> Vec<String> { events.iter().map(|event| event.id.clone()).collect() };
        assert_eq!(BTreeSet::from_iter(ids(&new)), BTreeSet::from_iter(ids(&end)), "{id}: each has one end");
        assert_eq!((ids(&new).len(), ids(&end).len()), (new.len(), new.len()), "{id}: none has two");
        let left = end.iter().filter(|event| event.end_reason == Some(EndReason::Left)).count();
        assert!(left >= end.len() - 1, "{id}: they leave the picture: {end:?}");
        eprintln!("{id}: {} people, {left} left the picture", new.len());
    }
}
