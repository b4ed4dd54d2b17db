//! Bad input: what concerns one camera shows in its state, in words, and the others run on.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use watchpost::event::CameraStatus;
use watchpost::worker::spawn;

use crate::support::clips::{Clip, clip};
use crate::support::cores::some_cores;
use crate::support::daemon::{Daemon, camera, undisturbed, witness};
use crate::support::mosquitto::free_port;
use crate::support::rtsp::RtspServer;

const LIMIT: Duration = Duration::from_secs(120);

/// A server that answers whatever is said with `answer`; its port.
fn talker(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn("talker", move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            spawn("talk", move || {
                let mut heard = [0; 4096];
                while let Ok(1..) = stream.read(&mut heard) {
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn sound_file(path: &Path) {
    let line = format!("audiotestsrc num-buffers=20 ! wavenc ! filesink location={}", path.display());
    let done = Command::new("gst-launch-1.0").arg("-q").args(line.split(' ')).status().unwrap();
    assert!(done.success());
}

#[test]
fn every_fault_is_said_in_words_and_retried_while_the_others_run_on() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let whole = fs::read(&walk).unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let server = RtspServer::start(&["--stream", &format!("walk={}", walk.display())]);
    let sound = folder.path().join("sound.wav");
    sound_file(&sound);
    let rtsp = |port: u16| format!("rtsp://127.0.0.1:{port}/walk");
    // Name, url, settings, and what the reason must say.
    let faults = [
        ("nobody", rtsp(free_port()), "", "Failed to connect"),
        ("silent", rtsp(talker(b"")), "", "Timeout while waiting"),
        ("nonsense", rtsp(talker(b"220 ready\r\n\0\xff\xfe{}\r\n\r\n")), "", "Parse error"),
        ("web", rtsp(talker(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")), "", "Parse error"),
        ("elsewhere", server.url("nowhere"), "", "correct the path"),
        ("empty", file("empty.mp4", b""), "", "is no video"),
        ("text", file("text.mp4", b"This is no video.\n".repeat(50).as_slice()), "", "is no video"),
        ("cut", file("cut.mp4", &whole[..1500]), "", "cut.mp4: "),
        ("sound", sound.to_str().unwrap().to_owned(), "repeat = true", "sound and no video"),
        ("folder", folder.path().to_str().unwrap().to_owned(), "", "give the path of a video"),
    ];
    let mut cameras: String = faults.iter().map(|(id, url, more, _)| camera(id, url, more)).collect();
    cameras.push_str(&witness());
    let Some(mut daemon) = Daemon::start("", &cameras) else { return };
    for (id, _, _, words) in &faults {
        daemon.until("a failed attempt", LIMIT, |heard| heard.state(id).is_some_and(|s| s.attempts >= 1));
        let state = daemon.heard.state(id).unwrap();
        assert_eq!(state.status, CameraStatus::Offline, "{state:?}");
        assert!(state.reason.contains(words), "{id}: {:?}", state.reason);
        assert!(state.next_retry_ms.is_some_and(|ms| ms <= 60_000), "{state:?}");
        assert_eq!(daemon.heard.count(id), 0);
    }
    // A fault that is mended is over; one that is not is tried again.
    fs::write(folder.path().join("empty.mp4"), &whole).unwrap();
    daemon.until("the file that is whole now", LIMIT, |heard| heard.count("empty") >= 10);
    daemon.until("more attempts", LIMIT, |heard| heard.state("nobody").is_some_and(|s| s.attempts >= 3));
    daemon.until("frames", LIMIT, |heard| heard.count("witness") >= 30);
    daemon.finish();
    undisturbed(&daemon);
}

#[test]
fn a_camera_is_switched_off_and_on_by_mqtt() {
    let _cores = some_cores();
    let cameras = [
        camera("gate", "test://?size=320x240&fps=10", ""),
        camera("yard", "test://?size=320x240&fps=10", "enabled = false"),
        witness(),
    ];
    let Some(mut daemon) = Daemon::start("", &cameras.concat()) else { return };
    daemon.until("frames", LIMIT, |heard| heard.count("gate") >= 5 && heard.count("witness") >= 1);
    let switched = |daemon: &mut Daemon, camera: &str, enabled: &str, status: &str| {
        daemon.until("the switch", LIMIT, |heard| {
            heard.text(&format!("cam/{camera}/enabled/state")) == enabled
                && heard.text(&format!("cam/{camera}/status")) == status
        });
    };
    switched(&mut daemon, "gate", "ON", "online");
    switched(&mut daemon, "yard", "OFF", "disabled");
    daemon.publish("cam/gate/enabled/set", "OFF");
    switched(&mut daemon, "gate", "OFF", "disabled");
    assert!(daemon.heard.is("gate", CameraStatus::Disabled));
    let decoded = daemon.counter("frames_decoded", "gate");
    let seen = daemon.heard.count("witness");
    daemon.until("the other camera goes on", LIMIT, |heard| heard.count("witness") >= seen + 10);
    assert_eq!(daemon.counter("frames_decoded", "gate"), decoded, "decoded while switched off");
    assert_eq!(daemon.counter("frames_decoded", "yard"), 0, "decoded while switched off");
    for id in ["gate", "yard"] {
        let seen = daemon.heard.count(id);
        daemon.publish(&format!("cam/{id}/enabled/set"), "ON");
        switched(&mut daemon, id, "ON", "online");
        daemon.until("frames again", LIMIT, |heard| heard.count(id) >= seen + 5);
    }
    daemon.finish();
    let frames: Vec<u64> = daemon.heard.of("gate").iter().map(|(_, m)| m.frame).collect();
    assert!(frames.is_sorted_by(|a, b| a < b), "numbers go on over a switch");
    undisturbed(&daemon);
}

/// As a power cut leaves it: as long as it was, with nothing in some of its pages.
#[test]
fn a_compiled_model_that_was_damaged_is_compiled_anew() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::Small) else { return };
    let camera = camera("walk", walk.to_str().unwrap(), "pace = \"fast\"");
    let Some(mut daemon) = Daemon::start("", &camera) else { return };
    let folder = daemon.dir().join("state/openvino");
    let found = |daemon: &Daemon| -> Vec<_> {
        let messages = daemon.heard.of("walk").iter().map(|(_, message)| (message.frame, message.objects.len()));
        messages.collect()
    };
    daemon.until("the clip's end", LIMIT, |heard| heard.is("walk", CameraStatus::Finished));
    let whole = found(&daemon);
    assert!(whole.iter().any(|(_, objects)| *objects > 0), "{whole:?}");
    let model = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let model = model.into_iter().find(|path| path.extension().is_some_and(|e| e == "blob")).unwrap();
    let good = fs::read(&model).unwrap();
    let mut damaged = good.clone();
    for page in (1 << 18..damaged.len() - (1 << 16)).step_by(1 << 19) {
        damaged[page..page + (1 << 16)].fill(0);
    }
    daemon.kill();
    // OpenVINO writes it for its owner to read alone.
    fs::remove_file(&model).unwrap();
    fs::write(&model, &damaged).unwrap();
    daemon.start_again();
    daemon.heard.detections.clear();
    daemon.until("the whole clip", LIMIT, |heard| heard.count("walk") == whole.len());
    assert_eq!(found(&daemon), whole);
    assert_eq!(fs::read(&model).unwrap().len(), good.len());
    assert!(daemon.log().contains("it is not as it was written, and is compiled anew"), "{}", daemon.log());
}
