//! The configuration read again while the daemon runs: whole or not at all, and without a frame lost by those that stay.

use std::time::Duration;

use watchpost::event::{CameraStatus, EndReason, EventKind, Info, NoticeKind};

use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, Heard, camera, lost_no_frame, witness};

const LIMIT: Duration = Duration::from_secs(120);

/// Sends SIGHUP and waits for what came of it; its text.
fn reload(daemon: &mut Daemon) -> String {
    let before = results(&daemon.heard).len();
    daemon.signal("HUP");
    daemon.until("the result of the reload", LIMIT, |heard| results(heard).len() > before);
    results(&daemon.heard)[before].clone()
}

/// Without what comes again after a kill -9: its acknowledgement was still on its way.
fn results(heard: &Heard) -> Vec<String> {
    let notices = heard.notices_of(NoticeKind::ReloadResult, None);
    notices.iter().filter(|(_, notice)| !notice.replayed).map(|(_, notice)| notice.text.clone()).collect()
}

fn frames(heard: &Heard, camera: &str) -> Vec<u64> {
    heard.of(camera).iter().map(|(_, message)| message.frame).collect()
}

fn more(daemon: &mut Daemon, camera: &str) {
    let before = daemon.heard.count(camera);
    daemon.until("more frames", LIMIT, |heard| heard.count(camera) >= before + 5);
}

#[test]
fn cameras_are_added_removed_and_rebuilt_while_others_lose_no_frame() {
    let _cores = all_cores();
    let goes = camera("goes", "test://?size=320x240&fps=5", "");
    let changes = camera("changes", "test://?size=320x240&fps=5", "");
    let mut daemon = Daemon::start_tiny("", &(witness() + &goes + &changes));
    daemon.until("all cameras", LIMIT, |heard| {
        ["witness", "goes", "changes"].iter().all(|id| heard.count(id) > 0 && heard.is(id, CameraStatus::Online))
    });
    for round in 0..3 {
        let comes = format!("comes{round}");
        let other = camera("changes", &format!("test://?size=320x240&fps={}", 6 + round), "");
        let fresh = camera(&comes, "test://?size=320x240&fps=5", "");
        daemon.write(&(witness() + &other + &fresh));
        let text = reload(&mut daemon);
        for part in [format!("added: {comes}"), "built anew: changes".to_owned(), "untouched: 1".to_owned()] {
            assert!(text.contains(&part), "{part:?} is not in {text:?}");
        }
        daemon.until("the new camera", LIMIT, |heard| {
            heard.count(&comes) > 0 && heard.is(&comes, CameraStatus::Online)
        });
        more(&mut daemon, "changes");
        let info: Info = serde_json::from_str(daemon.heard.text("info")).unwrap();
        assert_eq!(info.cameras, ["witness", "changes", &comes]);
        let gone = if round == 0 { "goes".to_owned() } else { format!("comes{}", round - 1) };
        assert!(text.contains(&format!("removed: {gone}")), "{text}");
        for topic in ["status", "state", "enabled/state"] {
            assert_eq!(daemon.heard.text(&format!("cam/{gone}/{topic}")), "", "{topic} of {gone} is cleared");
        }
        let metrics = daemon.page("/metrics");
        assert!(!metrics.contains(&format!("camera=\"{gone}\"")) && metrics.contains("camera=\"witness\""));
    }
    more(&mut daemon, "witness");
    lost_no_frame(&daemon);
    let rebuilt = frames(&daemon.heard, "changes");
    assert!(rebuilt.windows(2).all(|pair| pair[0] < pair[1]), "numbers are not used twice: {rebuilt:?}");
    let seqs: Vec<u64> = daemon.heard.of("changes").iter().map(|(_, message)| message.seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
    assert!(daemon.heard.notices_of(NoticeKind::CameraLost, Some("changes")).is_empty(), "it was not lost");
    let last = daemon.heard.count("comes0");
    more(&mut daemon, "witness");
    assert_eq!(daemon.heard.count("comes0"), last, "it is no more");
    assert!(daemon.stop().0.success());
}

#[test]
fn a_file_read_without_loss_goes_on_through_a_reload() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let file = format!("[[camera]]\nid = \"file\"\nurl = {walk:?}\npace = \"fast\"\nrepeat = true\n");
    let mut daemon = Daemon::start_tiny("", &file);
    daemon.until("frames", LIMIT, |heard| heard.count("file") > 100);
    for round in 0..4 {
        daemon.write(&(file.clone() + &if round % 2 == 0 { witness() } else { String::new() }));
        reload(&mut daemon);
        more(&mut daemon, "file");
    }
    daemon.until("many frames", LIMIT, |heard| heard.count("file") > 1000);
    assert!(daemon.stop().0.success());
    // A message may be dropped where the broker is slower than the file; a frame may not.
    let frames = frames(&daemon.heard, "file");
    assert!(frames.windows(2).all(|pair| pair[0] < pair[1]));
    let counts = daemon.heard.states["file"].last().unwrap().frames;
    assert_eq!((counts.overwritten, counts.skipped_fps), (0, 0));
    assert!(counts.inferred + 4 >= counts.decoded, "{counts:?}");
}

#[test]
fn what_is_not_right_or_needs_a_restart_changes_nothing() {
    let _cores = all_cores();
    let mut daemon = Daemon::start_tiny("", &witness());
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0);
    let line = daemon.head_lines();
    daemon.write(&(witness() + "[[camera]]\nid = \"new\"\nurl = \"gopher://x\"\nfps_max = -1\ncolour = 3\n"));
    let text = reload(&mut daemon);
    let first = line + witness().lines().count() + 3;
    for part in [
        format!("line {first}: camera[new].url: "),
        format!("line {}: camera[new].fps_max: ", first + 1),
        format!("line {}: camera[new].colour: ", first + 2),
    ] {
        assert!(text.contains(&part), "{part:?} is not in {text:?}");
        assert!(daemon.log().contains(&part), "{part:?} is not in the log");
    }
    daemon.write("[[camera");
    assert!(reload(&mut daemon).contains("this is not TOML"));
    // A camera that would be right is not added where something else needs a restart.
    let good = camera("new", "test://", "");
    daemon.write(&(witness() + &good + "[tracking]\nlost_after = \"9s\"\n[frigate]\nenabled = true\n"));
    let text = reload(&mut daemon);
    assert!(text.contains("what changed of frigate needs a restart"), "{text}");
    // Labels that the model has not, and another model of the same file name.
    daemon.write(&(witness() + "[events]\nlabels = [\"zebra\"]\n"));
    assert!(reload(&mut daemon).contains("the model has no label \"zebra\""));
    let manifest = daemon.dir().join("tiny.toml");
    let old = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, old.replace("\"b\"", "\"c\"")).unwrap();
    daemon.write(&(witness() + &good));
    assert!(reload(&mut daemon).contains("what changed of engine.manifest needs a restart"));
    assert_eq!(daemon.heard.count("new"), 0);
    std::fs::write(&manifest, old).unwrap();
    assert!(reload(&mut daemon).contains("added: new"));
    daemon.until("the new camera", LIMIT, |heard| heard.count("new") > 0);
    lost_no_frame(&daemon);
    daemon.finish();
}

/// The retained topic of who is in a zone, in ONVIF's form.
fn inside(camera: &str, zone: &str) -> String {
    format!("onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&{camera}/{zone}")
}

/// In a picture without anybody: no event says it.
#[test]
fn a_zone_that_comes_by_reload_has_a_state_at_once_and_one_that_goes_leaves_none() {
    let section = |zone: &str, more: &str| {
        let zone = format!(
            "[[camera.zone]]\nname = \"{zone}\"\npolygon = [[0, 0], [1, 0], [1, 1]]\nlabels = [\"a\"]\n{more}"
        );
        camera("witness", "test://?size=320x240&fps=5", &zone) + "[onvif]\nenabled = true\n"
    };
    let mut daemon = Daemon::start_tiny("", &section("first", ""));
    let knows = |heard: &Heard, zone: &str| {
        heard.text(&inside("witness", zone)).contains("\"IsInside\":false")
            && heard.text(&format!("cam/witness/zone/{zone}/count/a")) == "0"
    };
    let forgot = |heard: &Heard, zone: &str| {
        ["cam/witness/zone/".to_owned() + zone + "/count/a", inside("witness", zone)]
            .iter()
            .all(|topic| heard.texts.get(topic).is_some_and(String::is_empty))
    };
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0 && knows(heard, "first"));
    daemon.write(&section("second", ""));
    assert!(reload(&mut daemon).contains("other rules: witness"));
    daemon.until("the other zone", LIMIT, |heard| knows(heard, "second") && forgot(heard, "first"));
    daemon.write(&section("third", "[camera.motion]\nenabled = true\n"));
    assert!(reload(&mut daemon).contains("built anew: witness"));
    daemon.until("the third zone", LIMIT, |heard| knows(heard, "third") && forgot(heard, "second"));
    // Between two runs, too.
    daemon.write(&section("fourth", ""));
    daemon.kill_and_restart();
    daemon.until("the fourth zone", LIMIT, |heard| knows(heard, "fourth") && forgot(heard, "third"));
    // Without events nobody would ever say more of it.
    daemon.write(&section("fourth", "[camera.events]\nenabled = false\n"));
    assert!(reload(&mut daemon).contains("other rules: witness"));
    daemon.until("no state", LIMIT, |heard| {
        heard.texts.get(&inside("witness", "fourth")).is_some_and(String::is_empty)
    });
    assert!(daemon.stop().0.success());
}

#[test]
fn zones_changed_live_show_in_events() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let zone =
        |name: &str| format!("[[camera.zone]]\nname = \"{name}\"\npolygon = [[0, 0], [1, 0], [1, 1], [0, 1]]\n");
    let section = |zones: &str| {
        format!(
            "[[camera]]\nid = \"walk\"\nurl = {walk:?}\nrepeat = true\n{zones}{}[events]\nlabels = [\"person\"]\n\
             [onvif]\nenabled = true\n",
            camera("goes", walk.to_str().unwrap(), "repeat = true")
        )
    };
    let Some(mut daemon) = Daemon::start("", &section(&zone("before"))) else { return };
    let entered = |heard: &Heard, zone: &str| {
        heard.events.iter().any(|e| e.camera == "walk" && e.zones.iter().any(|name| name == zone))
    };
    daemon.until("people in the zone", LIMIT, |heard| {
        entered(heard, "before")
            && heard.texts.contains_key("cam/walk/zone/before/count/person")
            && !heard.text(&inside("walk", "before")).is_empty()
            && heard.events.iter().any(|event| event.camera == "goes")
    });
    daemon.write(&section(&zone("after")));
    let text = reload(&mut daemon);
    assert!(text.contains("other rules: walk") && !text.contains("built anew"), "{text}");
    daemon.until("people in the other zone", LIMIT, |heard| {
        entered(heard, "after")
            && heard.text("cam/walk/zone/before/count/person").is_empty()
            && heard.text(&inside("walk", "before")).is_empty()
    });
    // The tracks of a camera that is taken out end as such.
    let only = section(&zone("after")).replace(&camera("goes", walk.to_str().unwrap(), "repeat = true"), "");
    daemon.write(&only);
    let opened = |heard: &Heard| heard.events.iter().filter(|e| e.camera == "goes").count();
    assert!(opened(&daemon.heard) > 0);
    reload(&mut daemon);
    daemon.until("the last word of the camera", LIMIT, |heard| {
        ["status", "state", "count/person", "snapshot"]
            .iter()
            .all(|t| heard.text(&format!("cam/goes/{t}")).is_empty())
    });
    assert!(daemon.stop().0.success());
    assert_eq!(daemon.heard.text("cam/goes/snapshot"), "", "nor does a picture that was being made come back");
    assert_eq!(daemon.heard.text(&inside("walk", "before")), "", "nor does it that people have left the zone");
    let of = |id: &str| daemon.heard.events.iter().filter(move |e| e.camera == id).collect::<Vec<_>>();
    let ended = |kind: EventKind| of("goes").iter().filter(|event| event.kind == kind).count();
    assert_eq!(ended(EventKind::New), ended(EventKind::End));
    let reasons: Vec<EndReason> = of("goes").iter().filter_map(|event| event.end_reason).collect();
    assert!(!reasons.contains(&EndReason::Shutdown) && !reasons.contains(&EndReason::CameraLost), "{reasons:?}");
    let frames = frames(&daemon.heard, "walk");
    assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "its pipeline was not built anew");
}
