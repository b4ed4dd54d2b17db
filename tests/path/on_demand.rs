//! Pictures on demand: `cmd/snapshot`, from the broker to the picture on its topic, in the folder and by HTTP, and what is
//! answered where there is none.

use std::fs;
use std::time::{Duration, Instant};

use watchpost::publish::Acknowledgement;

use crate::commands::{ask, tell};
use crate::snapshots::{decode, green};
use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, camera, witness};
use crate::support::mosquitto::free_port;

const LIMIT: Duration = Duration::from_secs(120);

/// The file that the answer names, as it is in the folder, on the camera's topic and by HTTP.
fn picture(daemon: &mut Daemon, camera: &str, answer: &Acknowledgement) -> Vec<u8> {
    let text = answer.text.as_deref().unwrap_or_else(|| panic!("{answer:?}"));
    assert!(answer.ok && text.starts_with(&format!("what camera {camera} saw at 2")), "{answer:?}");
    let (_, name) = text.split_once(" is published, and kept as ").unwrap();
    assert!(name.starts_with(&format!("{camera}/{camera}-2")) && name.ends_with("Z.jpg"), "{name}");
    let kept = fs::read(daemon.dir().join("state/snapshots").join(name)).unwrap();
    let topic = format!("cam/{camera}/snapshot");
    daemon.until("the picture", LIMIT, |heard| heard.pictures.get(&topic) == Some(&kept));
    let served = daemon.answer(&format!("/snapshots/{name}"));
    assert!(served.starts_with(b"HTTP/1.1 200") && served.ends_with(&kept), "{name}");
    kept
}

fn refusal(answer: &Acknowledgement) -> &str {
    assert!(!answer.ok && answer.command == "snapshot", "{answer:?}");
    answer.error.as_deref().unwrap()
}

fn of(camera: &str) -> String {
    format!("{{\"camera\":\"{camera}\"}}")
}

/// A model that never finds anything looks at it.
#[test]
fn a_picture_is_made_when_asked_for_whatever_is_in_it() {
    let mut daemon = Daemon::start_tiny("", &witness());
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0);
    let answer = ask(&daemon, "cmd/snapshot", &of("witness"));
    let first = picture(&mut daemon, "witness", &answer);
    let (width, height, pixels) = decode(&first);
    assert_eq!((width, height), (320, 240));
    let brightest = pixels.iter().max().unwrap() - pixels.iter().min().unwrap();
    assert!(brightest > 200, "not a test picture: {brightest}");
    // Over MQTT 3.1.1, and while an answer to somebody else is under way.
    daemon.publish("cmd/snapshot", &of("witness"));
    let answer = tell(&mut daemon, "snapshot", of("witness").as_bytes());
    assert_ne!(picture(&mut daemon, "witness", &answer), first, "what it sees now");
    assert!(daemon.heard.pictures.keys().all(|topic| topic == "cam/witness/snapshot"), "no track has one");
    assert_eq!(daemon.total("snapshots_dropped"), 0);
    daemon.finish();
}

/// Waits until so many frames were left out; no message comes of that, so the page is looked at.
fn gated(daemon: &mut Daemon, count: u64) {
    let deadline = Instant::now() + LIMIT;
    while daemon.counter("frames_gated", "still") < count {
        assert!(Instant::now() < deadline, "the gate stays open: {}", daemon.page("/metrics"));
        daemon.listen();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Of a scene in which nothing moves, so that no frame reaches the model by itself.
#[test]
fn a_shut_motion_gate_lets_the_picture_that_was_asked_for_pass() {
    let motion = "[camera.motion]\nenabled = true\n[motion]\nhold = \"0s\"\nrefresh = \"1h\"\n";
    let still = camera("still", "test://?size=320x240&fps=10&pattern=green", motion);
    let mut daemon = Daemon::start_tiny("", &still);
    daemon.until("the first frame", LIMIT, |heard| heard.count("still") > 0);
    gated(&mut daemon, 1);
    let before = daemon.counter("frames_inferred", "still");
    let answer = tell(&mut daemon, "snapshot", of("still").as_bytes());
    picture(&mut daemon, "still", &answer);
    let more = daemon.counter("frames_gated", "still") + 1;
    gated(&mut daemon, more);
    let given = daemon.counter("frames_inferred", "still") - before;
    assert!((1..50).contains(&given), "{given} frames for one picture");
    daemon.finish();
}

#[test]
fn why_there_is_no_picture_is_answered_in_one_sentence_and_in_time() {
    let dead = format!("rtsp://127.0.0.1:{}/none", free_port());
    let cameras = witness()
        + &camera("slow", "test://?size=320x240&fps=5", "fps_max = 0.01")
        + &camera("dead", &dead, "")
        + &camera("off", "test://?size=320x240&fps=5", "enabled = false");
    let mut daemon = Daemon::start_tiny("", &cameras);
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0 && heard.count("slow") > 0);
    daemon.until("a failed attempt", LIMIT, |heard| heard.state("dead").is_some_and(|state| state.attempts > 0));
    for (camera, words) in [
        ("nobody", "there is no camera nobody"),
        ("off", "camera off is switched off: switch it on"),
        ("dead", "camera dead is offline: "),
    ] {
        let answer = ask(&daemon, "cmd/snapshot", &of(camera));
        assert!(refusal(&answer).starts_with(words), "{answer:?}");
    }
    let begun = Instant::now();
    let answer = tell(&mut daemon, "snapshot", of("slow").as_bytes());
    assert!(refusal(&answer).starts_with("no picture of camera slow in 10 s: it gave no frame"), "{answer:?}");
    assert!((10..30).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(daemon.heard.pictures.is_empty());
    // It is told why also where that came later.
    daemon.publish("cmd/snapshot", &of("slow"));
    daemon.publish("cam/slow/enabled/set", "OFF");
    daemon.heard.texts.remove("cmd/snapshot/result");
    daemon.until("the answer", LIMIT, |heard| {
        heard.text("cmd/snapshot/result").contains("camera slow is switched off")
    });
    let answer = ask(&daemon, "cmd/snapshot", &of("witness"));
    picture(&mut daemon, "witness", &answer);
    daemon.finish();
}

#[test]
fn without_snapshots_it_is_answered_what_to_set() {
    let mut daemon = Daemon::start_tiny("", &(witness() + "[snapshots]\nenabled = false\n"));
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0);
    let answer = ask(&daemon, "cmd/snapshot", &of("witness"));
    assert!(refusal(&answer).contains("set snapshots.enabled and tracking.enabled to true"), "{answer:?}");
    daemon.finish();
}

/// Who waits when the daemon is told to stop is answered, too.
#[test]
fn a_stop_answers_those_who_wait() {
    let cameras = witness() + &camera("slow", "test://?size=320x240&fps=5", "fps_max = 0.01");
    let mut daemon = Daemon::start_tiny("", &cameras);
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0 && heard.count("slow") > 0);
    daemon.publish("cmd/snapshot", &of("slow"));
    // Commands are carried out in order: this one's answer says that the other waits.
    assert!(tell(&mut daemon, "reload", b"").ok);
    assert!(daemon.stop().0.success());
    let answer: Acknowledgement = serde_json::from_str(daemon.heard.text("cmd/snapshot/result")).unwrap();
    assert_eq!(refusal(&answer), "the daemon is stopping");
}

/// `WATCHPOST_PICTURES` names a folder that gets a copy, for people to look at.
#[test]
fn boxes_are_drawn_around_all_that_was_found_where_that_is_wanted() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let mut seen = Vec::new();
    for draw_box in [true, false] {
        let cameras = format!(
            "[[camera]]\nid = \"walk\"\nurl = {walk:?}\nrepeat = true\n[snapshots]\ndraw_box = {draw_box}\n"
        );
        let Some(mut daemon) = Daemon::start("", &cameras) else { return };
        daemon.until("people", LIMIT, |heard| heard.of("walk").last().is_some_and(|(_, m)| m.objects.len() > 2));
        let answer = ask(&daemon, "cmd/snapshot", &of("walk"));
        // Among those of tracks, and at once.
        let jpeg = picture(&mut daemon, "walk", &answer);
        let (width, height, pixels) = decode(&jpeg);
        assert_eq!((width, height), (640, 480));
        seen.push(green(&pixels));
        if let Some(copy) = std::env::var_os("WATCHPOST_PICTURES") {
            fs::write(std::path::Path::new(&copy).join(format!("on-demand-box-{draw_box}.jpg")), jpeg).unwrap();
        }
        assert!(daemon.stop().0.success());
    }
    assert!(seen[0] > seen[1] + 100, "{seen:?}");
}
