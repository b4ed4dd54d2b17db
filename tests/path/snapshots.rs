//! Snapshots: each track that has ended has its picture in the folder, on MQTT and by HTTP.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use watchpost::event::{CameraStatus, Event, EventKind};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::Daemon;

const LIMIT: Duration = Duration::from_secs(120);

/// Width, height and RGB.
pub fn decode(jpeg: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut decoder = JpegDecoder::new(ZCursor::new(jpeg));
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    (width, height, pixels)
}

fn ends(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|event| event.kind == EventKind::End).collect()
}

/// Pixels of a box's colour, though its lines are thin and their colour runs.
pub fn green(pixels: &[u8]) -> usize {
    let is_green = |p: &&[u8]| p[1] > 150 && p[1] - p[0].max(p[2]).min(p[1]) > 80;
    pixels.chunks_exact(3).filter(is_green).count()
}

/// `WATCHPOST_PICTURES` names a folder that gets a copy, for people to look at.
#[test]
fn every_track_that_ended_has_its_picture_in_the_folder_on_mqtt_and_by_http() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let camera = format!(
        "[[camera]]\nid = \"walk\"\nurl = {walk:?}\npace = \"fast\"\n[events]\nlabels = [\"person\"]\n\
         [snapshots]\ndraw_box = true\nfolder = \"pictures\"\n"
    );
    let Some(mut daemon) = Daemon::start("", &camera) else { return };
    daemon.until("the end of the file", LIMIT, |heard| heard.is("walk", CameraStatus::Finished));
    let opened = |events: &[Event]| events.iter().filter(|event| event.kind == EventKind::New).count();
    let pictures = daemon.dir().join("pictures/walk");
    let kept = |id: &str| fs::read(pictures.join(format!("{id}.jpg"))).ok();
    let files = || fs::read_dir(&pictures).map_or(0, Iterator::count);
    // Events come behind the word that the file has ended; nothing else is kept than is theirs. A better picture takes the place of the first: the file, and then the message.
    daemon.until("every picture", LIMIT, |heard| {
        let ended = ends(&heard.events);
        let is_told = |id: &str| kept(id).as_ref() == heard.pictures.get(&format!("cam/walk/snapshot/{id}"));
        heard.text("cam/walk/count/person") == "0"
            && ended.len() == opened(&heard.events)
            && ended.len() == files()
            && ended.iter().all(|event| kept(&event.id).is_some() && is_told(&event.id))
            && heard.pictures.contains_key("cam/walk/snapshot")
    });
    let ids: BTreeSet<String> = ends(&daemon.heard.events).iter().map(|event| event.id.clone()).collect();
    assert!(ids.len() >= 5, "{} people", ids.len());
    for id in &ids {
        let url = format!("/snapshots/walk/{id}.jpg");
        let end = ends(&daemon.heard.events).into_iter().find(|event| event.id == *id).unwrap();
        assert_eq!(end.snapshot_url.as_deref(), Some(url.as_str()));
        let file = kept(id).unwrap();
        let answer = daemon.answer(&url);
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&file), "{id}");
        let (width, height, pixels) = decode(&file);
        assert_eq!((width, height), (640, 480));
        assert!(green(&pixels) > 40, "{id}: a box is drawn: {}", green(&pixels));
        assert!(pixels.chunks_exact(3).collect::<BTreeSet<_>>().len() > 1000, "{id}: not a picture");
    }
    let (written, dropped) = (daemon.total("snapshots_written"), daemon.total("snapshots_dropped"));
    assert!(written >= ids.len() as u64 && dropped == 0, "{written} {dropped}");
    if let Some(copy) = std::env::var_os("WATCHPOST_PICTURES") {
        for id in &ids {
            fs::copy(pictures.join(format!("{id}.jpg")), std::path::Path::new(&copy).join(format!("{id}.jpg")))
                .unwrap();
        }
    }
    let page = daemon.page("/metrics");
    let costs = page.lines().filter(|line| ["_sum{stage", "_count{stage"].iter().any(|part| line.contains(part)));
    let costs: Vec<&str> = costs.filter(|line| line.contains("thumbnail") || line.contains("snapshot")).collect();
    eprintln!("{} tracks, {written} pictures\n{}", ids.len(), costs.join("\n"));
    daemon.finish();
}

/// What is in the folder is found again by the next start.
#[test]
fn after_a_restart_what_is_kept_is_still_served() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let camera =
        format!("[[camera]]\nid = \"walk\"\nurl = {walk:?}\nrepeat = true\n[events]\nlabels = [\"person\"]\n");
    let Some(mut daemon) = Daemon::start("", &camera) else { return };
    daemon.until("a picture", LIMIT, |heard| heard.pictures.len() > 1 && !heard.health.is_empty());
    let of_track = |topic: &String| topic.strip_prefix("cam/walk/snapshot/").map(str::to_owned);
    let id = daemon.heard.pictures.keys().find_map(of_track).unwrap();
    let boot = daemon.heard.health[0].boot.clone();
    daemon.kill_and_restart();
    // What the last life sent may still be on its way.
    daemon.until("the next start", LIMIT, |heard| heard.health.iter().any(|health| health.boot != boot));
    assert!(daemon.answer(&format!("/snapshots/walk/{id}.jpg")).starts_with(b"HTTP/1.1 200"), "{id}");
    let kept: u64 = daemon
        .page("/metrics")
        .lines()
        .find_map(|l| l.strip_prefix("watchpost_snapshots_files "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(kept >= 1);
    assert!(daemon.stop().0.success());
}
