//! The motion gate: what it leaves out, and what it must not.

use std::collections::BTreeSet;
use std::time::Duration;

use watchpost::event::{CameraStatus, Detections, EventKind};

use crate::support::clips::{STILL_AND_WALKING, still_and_walking};
use crate::support::cores::all_cores;
use crate::support::daemon::Daemon;

const LIMIT: Duration = Duration::from_secs(120);

/// Parked cars, and two people who stand there all the time.
const MASK: &str = "mask = [[[0.0, 0.0], [1.0, 0.0], [1.0, 0.2], [0.0, 0.2]], \
    [[0.48, 0.3], [0.6, 0.3], [0.6, 0.48], [0.48, 0.48]]]\n";

#[test]
fn a_still_scene_is_gated_its_first_moving_frame_is_not_nor_any_while_a_track_lives() {
    let _cores = all_cores();
    let Some(file) = still_and_walking() else { return };
    let [before, walking, after] = STILL_AND_WALKING;
    let all = before + walking + after;
    let camera = format!(
        "[[camera]]\nid = \"walk\"\nurl = {file:?}\npace = \"fast\"\n{MASK}[events]\nlabels = [\"person\"]\n\
         [tracking]\nlost_after = \"300ms\"\n[motion]\nenabled = true\nhold = \"500ms\"\n"
    );
    let Some(mut daemon) = Daemon::start("", &camera) else { return };
    daemon.until("the end of the file", LIMIT, |heard| heard.is("walk", CameraStatus::Finished));
    let of_kind = |events: &[watchpost::event::Event], kind| events.iter().filter(|e| e.kind == kind).count();
    daemon.until("every end", LIMIT, |heard| {
        let news = of_kind(&heard.events, EventKind::New);
        news > 0 && of_kind(&heard.events, EventKind::End) == news && heard.state("walk").unwrap().frames.gated > 0
    });
    let page = daemon.page("/metrics");
    let counts = daemon.finish()["walk"];
    assert_eq!((counts.decoded, counts.overwritten, counts.dropped), (all, 0, 0), "{counts:?}");
    assert_eq!(counts.inferred + counts.gated, all, "{counts:?}");
    let line = format!("watchpost_frames_gated_total{{camera=\"walk\"}} {}", counts.gated);
    assert!(page.lines().any(|of_page| of_page == line), "{line}: {page}");
    let messages: Vec<&Detections> = daemon.heard.of("walk").iter().map(|(_, m)| m).collect();
    let inferred: BTreeSet<u64> = messages.iter().map(|m| m.frame).collect();
    assert_eq!(inferred.len() as u64, counts.inferred, "each inferred frame has its message");
    let gated: Vec<u64> = (0..all).filter(|frame| !inferred.contains(frame)).collect();
    eprintln!("{} of {all} frames gated: {gated:?}", gated.len());

    assert!(inferred.contains(&0), "with nothing to compare to");
    let early = gated.iter().filter(|frame| **frame < before).count() as u64;
    assert!(early >= before / 2, "of {before} frames without motion {early} are gated");
    assert!(gated.iter().any(|frame| *frame >= before + walking), "nobody is there any more");
    let last = daemon.heard.events.iter().map(|event| event.frame).max().unwrap();
    assert!(last >= before + walking - 10, "people are followed up to frame {last}");
    let lost: Vec<u64> = gated.iter().copied().filter(|frame| (before..=last).contains(frame)).collect();
    assert!(lost.is_empty(), "from the first that moves on all are inferred while a track lives, but not {lost:?}");
}
