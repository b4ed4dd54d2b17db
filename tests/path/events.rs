//! Events: each track has one `new` and one `end`, whatever happens to the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use watchpost::event::{CameraStatus, EndReason, Event, EventKind};

use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, Heard, witness};
use crate::support::hold::Held;
use crate::support::link::{Condition, Link};
use crate::support::mosquitto::wait_until;

const LIMIT: Duration = Duration::from_secs(120);

/// The right half of the picture, and a line down its middle.
pub const SCENE: &str = "[[camera.zone]]\nname = \"right\"\npolygon = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]\n\
    [[camera.line]]\nname = \"middle\"\npoints = [[0.5, 0.0], [0.5, 1.0]]\n";

/// The sections of other consumers.
pub const CONSUMERS: [&str; 5] = ["homeassistant", "frigate", "deepstream", "onvif", "cloudevents"];

/// The events of each track in order, without those that came twice.
pub fn lives(events: &[Event]) -> BTreeMap<String, Vec<&Event>> {
    let mut seen = BTreeSet::new();
    let mut lives: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in events {
        if seen.insert((event.camera.clone(), event.boot.clone(), event.seq)) {
            lives.entry(event.id.clone()).or_default().push(event);
        }
    }
    lives
}

/// Every life begins with its only `new` and ends with its only `end`.
fn all_are_whole(lives: &BTreeMap<String, Vec<&Event>>) {
    for (id, life) in lives {
        let kinds: Vec<EventKind> = life.iter().map(|event| event.kind).collect();
        let count = |kind| kinds.iter().filter(|k| **k == kind).count();
        assert_eq!((kinds[0], count(EventKind::New)), (EventKind::New, 1), "{id}: {kinds:?}");
        assert_eq!((kinds[kinds.len() - 1], count(EventKind::End)), (EventKind::End, 1), "{id}: {kinds:?}");
        let end = life[life.len() - 1];
        assert!(end.end.is_some() && end.end_reason.is_some() && end.end.as_ref() >= Some(&end.start), "{end:?}");
        assert!(life.iter().all(|event| event.start == life[0].start && event.label == "person"), "{life:?}");
    }
}

/// In how many lives of the daemon somebody came.
fn boots_with_people(heard: &Heard) -> usize {
    heard
        .events
        .iter()
        .filter(|event| event.kind == EventKind::New)
        .map(|event| &event.boot)
        .collect::<BTreeSet<_>>()
        .len()
}

#[test]
fn every_track_of_a_file_has_one_new_and_one_end() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let camera = format!(
        "[[camera]]\nid = \"walk\"\nurl = {walk:?}\npace = \"fast\"\n{SCENE}[events]\nlabels = [\"person\"]\n"
    );
    let Some(mut daemon) = Daemon::start("", &camera) else { return };
    daemon.until("the end of the file", LIMIT, |heard| heard.is("walk", CameraStatus::Finished));
    daemon.until("no person left", LIMIT, |heard| {
        heard.text("cam/walk/count/person") == "0" && lives(&heard.events).values().all(|life| life.len() > 1)
    });
    daemon.finish();
    let lives = lives(&daemon.heard.events);
    all_are_whole(&lives);
    assert!(lives.len() >= 5, "{} people", lives.len());
    let entered = |event: &&Event| event.entered_zones == ["right"];
    assert!(daemon.heard.events.iter().any(|event| entered(&event)), "nobody went to the right");
    let tracked = |id: &String| {
        daemon.heard.of("walk").iter().flat_map(|(_, m)| &m.objects).any(|object| object.track.as_ref() == Some(id))
    };
    assert!(lives.keys().all(tracked), "detections name the track of every event");
    let crossings: usize = lives.values().map(|life| life[life.len() - 1].crossings.len()).sum();
    let counted = |way: &str| daemon.heard.text(&format!("cam/walk/line/middle/{way}/person")).parse().unwrap_or(0);
    assert_eq!(counted("in") + counted("out"), crossings, "line counts and crossings of events agree");
    assert!(daemon.heard.texts.contains_key("cam/walk/zone/right/count/person"));
}

#[test]
fn a_camera_switched_off_ends_its_tracks_and_so_does_a_stop() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let camera = |id: &str| format!("[[camera]]\nid = \"{id}\"\nurl = {walk:?}\nrepeat = true\n");
    let cameras = camera("off") + &camera("stop") + "[events]\nlabels = [\"person\"]\n";
    let Some(mut daemon) = Daemon::start("", &cameras) else { return };
    let opened = |heard: &Heard, id: &str| heard.events.iter().any(|event| event.camera == id);
    daemon.until("people on both cameras", LIMIT, |heard| opened(heard, "off") && opened(heard, "stop"));
    daemon.publish("cam/off/enabled/set", "OFF");
    daemon.until("the end of the tracks", LIMIT, |heard| {
        heard.is("off", CameraStatus::Disabled)
            && heard.text("cam/off/count/person") == "0"
            && heard.events.iter().any(|event| event.end_reason == Some(EndReason::Disabled))
    });
    daemon.finish();
    all_are_whole(&lives(&daemon.heard.events));
    let reasons: BTreeSet<(String, String)> = daemon
        .heard
        .events
        .iter()
        .filter_map(|event| Some((event.camera.clone(), format!("{:?}", event.end_reason?))))
        .collect();
    for wanted in [("off", "Disabled"), ("stop", "Shutdown")] {
        assert!(reasons.contains(&(wanted.0.to_owned(), wanted.1.to_owned())), "{reasons:?}");
    }
}

/// `WATCHPOST_KILLS=50` is the long form.
#[test]
fn after_kill_9_the_next_start_ends_what_was_open_once() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let kills: usize = std::env::var("WATCHPOST_KILLS").ok().map_or(4, |text| text.parse().unwrap());
    let cameras: String = (0..4)
        .map(|n| format!("[[camera]]\nid = \"walk{n}\"\nurl = {walk:?}\npace = \"fast\"\nrepeat = true\n"))
        .collect();
    let Some(mut daemon) = Daemon::start("", &(cameras + "[events]\nlabels = [\"person\"]\n")) else { return };
    let mut random = fastrand::Rng::with_seed(9);
    for kill in 0..kills {
        // Of this life: what the last one sent may still be on its way.
        daemon.until("people", LIMIT, |heard| boots_with_people(heard) > kill);
        // Some moment, not an event: that is what is tried. At the first, somebody is there for sure.
        let wait = if kill == 0 { 0 } else { random.u64(0..1500) };
        let until = Instant::now() + Duration::from_millis(wait);
        daemon.until("the moment", LIMIT, |_| Instant::now() >= until);
        daemon.kill_and_restart();
    }
    daemon.until("people again", LIMIT, |heard| boots_with_people(heard) > kills);
    let (status, took) = daemon.stop();
    assert!(status.success(), "ended with {status} after {took:?}: {}", daemon.log());
    let lives = lives(&daemon.heard.events);
    all_are_whole(&lives);
    let restarts = lives.values().flatten().filter(|event| event.end_reason == Some(EndReason::Restart)).count();
    assert!(restarts > 0, "no track was open at any of {kills} kills");
    eprintln!("{kills} kills, {} tracks, {restarts} ended by the next start", lives.len());
}

/// By a second SIGTERM, and by `stop_deadline`, since analysis hangs; while the broker is in a black hole.
#[test]
fn a_stop_that_is_cut_short_loses_nothing_that_was_accepted() {
    const SPOOLED: u64 = 20;
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let cameras: String = (0..4)
        .map(|n| format!("[[camera]]\nid = \"walk{n}\"\nurl = {walk:?}\npace = \"fast\"\nrepeat = true\n"))
        .collect();
    let mut link = None;
    let by = |port| link.insert(Link::mqtt(port)).port();
    let Some(mut daemon) = Daemon::start_over("", &(cameras + "[events]\nlabels = [\"person\"]\n"), by) else {
        return;
    };
    let link = link.unwrap();
    for (stop, hangs) in [false, true].into_iter().enumerate() {
        daemon.until("people", LIMIT, |heard| boots_with_people(heard) > stop);
        link.set(Condition::Hole);
        wait_until("messages in the spool", || daemon.metric("spool_pending") >= SPOOLED);
        let (before, spooled) =
            (daemon.heard.events.len() + daemon.heard.notices.len(), daemon.metric("spool_pending"));
        let held = hangs.then(|| Held::thread(&[], daemon.pid(), "analyze"));
        daemon.signal("TERM");
        if !hangs {
            wait_until("the stop", || daemon.log().contains("watchpost::cmd::run: stopping"));
            daemon.signal("TERM");
        }
        let (status, _) = daemon.ended(LIMIT);
        assert_eq!(status.code(), Some(1), "{status}: {}", daemon.log());
        drop(held);
        link.cut();
        link.set(Condition::Good);
        daemon.start_again();
        daemon.until("what the last one left", LIMIT, |heard| {
            (heard.events.len() + heard.notices.len()).saturating_sub(before) as u64 >= spooled
        });
    }
    daemon.until("people again", LIMIT, |heard| boots_with_people(heard) > 2);
    let (status, took) = daemon.stop();
    assert!(status.success(), "ended with {status} after {took:?}: {}", daemon.log());
    let mut heard: BTreeMap<(&str, &str), BTreeSet<u64>> = BTreeMap::new();
    for event in &daemon.heard.events {
        heard.entry((event.camera.as_str(), event.boot.as_str())).or_default().insert(event.seq);
    }
    for (from, seqs) in heard {
        let span = seqs.last().unwrap() - seqs.first().unwrap() + 1;
        assert_eq!(seqs.len() as u64, span, "{from:?}: some are missing: {seqs:?}");
    }
    all_are_whole(&lives(&daemon.heard.events));
}

#[test]
fn frigates_available_is_offline_after_kill_9_and_after_a_stop() {
    const AVAILABLE: &str = "frigate/available";
    let _cores = all_cores();
    let sections = witness() + &consumer("frigate");
    let Some(mut daemon) = Daemon::start("", &sections) else { return };
    let said = |daemon: &mut Daemon, word: &str| {
        daemon.heard.texts.remove(AVAILABLE);
        daemon.until(word, LIMIT, |heard| heard.text(AVAILABLE) == word);
    };
    // By the publisher, and by the connection that holds the will: then it does.
    said(&mut daemon, "online");
    said(&mut daemon, "online");
    daemon.kill();
    said(&mut daemon, "offline");
    daemon.kill_and_restart();
    said(&mut daemon, "online");
    said(&mut daemon, "online");
    daemon.finish();
    assert_eq!(daemon.heard.text(AVAILABLE), "offline");
}

/// Each in its own form, from one run: Frigate, CloudEvents in MQTT 5's binary mode, ONVIF, DeepStream, Home Assistant.
#[test]
fn other_consumers_are_told_in_their_own_forms() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let switches: String = CONSUMERS.map(consumer).concat();
    let camera = format!("[[camera]]\nid = \"walk\"\nurl = {walk:?}\npace = \"fast\"\n{SCENE}");
    let Some(mut daemon) = Daemon::start("", &(camera + &switches + "[events]\nlabels = [\"person\"]\n")) else {
        return;
    };
    daemon.until("the end of the file", LIMIT, |heard| heard.is("walk", CameraStatus::Finished));
    daemon.until("no person left", LIMIT, |heard| {
        heard.text("cam/walk/count/person") == "0" && lives(&heard.events).values().all(|life| life.len() > 1)
    });
    daemon.finish();
    let heard = &daemon.heard;
    let json = |topic: &str| -> serde_json::Value {
        serde_json::from_str(heard.text(topic)).unwrap_or_else(|e| panic!("{topic}: {e}: {:?}", heard.texts.keys()))
    };
    let last = heard.events.last().unwrap();
    let frigate = json("frigate/events");
    assert_eq!((frigate["type"].as_str(), frigate["after"]["id"].as_str()), (Some("end"), Some(last.id.as_str())));
    assert_eq!(frigate["before"]["end_time"], serde_json::Value::Null);
    assert_eq!((heard.text("frigate/available"), heard.text("frigate/walk/person")), ("offline", "0"));
    let event: Event = serde_json::from_str(heard.text("cam/walk/cloudevents")).unwrap();
    assert_eq!((event.id.as_str(), event.seq), (last.id.as_str(), last.seq), "the event without an envelope");
    assert_eq!(json("cam/walk/deepstream")["sensorId"], "walk");
    assert!(heard.texts.keys().any(|topic| topic.starts_with("onvif-mj/")), "{:?}", heard.texts.keys());
    let zone = json("onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&walk/right");
    assert_eq!(zone["Data"], serde_json::json!({"IsInside": false}), "all have left");
    let discovery = json("homeassistant/device/box_walk/config");
    let components = discovery["cmps"].as_object().unwrap();
    for part in ["count/person", "occupancy/person", "zone/right/count/person", "line/middle/in/person", "events"] {
        assert!(components.keys().any(|key| key.contains(part)), "{part}: {:?}", components.keys());
    }
}

/// A section that switches another consumer on, below what the test listens to.
pub fn consumer(name: &str) -> String {
    format!("[{name}]\nenabled = true\n{}", own_prefix(name))
}

fn own_prefix(name: &str) -> String {
    match name {
        "homeassistant" | "frigate" => format!("prefix = \"watchpost/box/{name}\"\n"),
        _ => String::new(),
    }
}
