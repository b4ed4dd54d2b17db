//! RTSP cameras: codecs, transports, clocks, credentials, TLS.

use std::collections::BTreeSet;
use std::time::Duration;

use watchpost::event::{CameraStatus, EndReason, Event, EventKind, NoticeKind};
use watchpost::frame::ClockSource;

use crate::support::certificates::certificates;
use crate::support::clips::{Clip, clip};
use crate::support::cores::{all_cores, some_cores};
use crate::support::daemon::{Daemon, Heard, camera, undisturbed, witness};
use crate::support::rtsp::RtspServer;
use crate::support::tap::Tap;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn h264_and_h265_over_tcp_and_udp_tell_the_cameras_time() {
    let _cores = some_cores();
    let (Some(h264), Some(h265)) = (clip(Clip::H264), clip(Clip::H265)) else { return };
    let (h264, h265) = (format!("h264={}", h264.display()), format!("h265={}", h265.display()));
    let server = RtspServer::start(&["--stream", &h264, "--stream", &h265]);
    let at = |name: &str| server.url(name);
    let cameras = [
        camera("tcp264", &at("h264"), "fps_max = 4"),
        camera("udp264", &at("h264"), "fps_max = 4\ntransport = \"udp\""),
        camera("tcp265", &at("h265"), "fps_max = 4"),
    ];
    let Some(mut daemon) = Daemon::start("", &cameras.concat()) else { return };
    let ids = ["tcp264", "udp264", "tcp265"];
    daemon.until("the cameras' clocks", LIMIT, |heard| {
        let by_camera = |id| heard.of(id).last().is_some_and(|(_, m)| m.ts.clock == ClockSource::RtcpSr);
        // On a slow machine the clock is known with the first frame, of which no age can be told.
        ids.iter().all(|id| heard.count(id) >= 5 && by_camera(id))
    });
    daemon.until("the clock in each state", LIMIT, |heard| {
        ids.iter().all(|id| heard.state(id).is_some_and(|state| state.clock == Some(ClockSource::RtcpSr)))
    });
    for id in ids {
        let messages: Vec<_> = daemon.heard.of(id).iter().map(|(_, m)| m).collect();
        let last = messages.last().unwrap();
        let by_camera = messages.iter().filter(|m| m.ts.clock == ClockSource::RtcpSr);
        let nearest = by_camera.map(|m| m.ts.err_ms).min().unwrap();
        assert!(nearest <= 300, "{id}: both clocks are this host's, {nearest} ms apart");
        assert_eq!(last.size, [768, 576]);
        assert_eq!((&*last.schema, &*last.node), ("watchpost.detections/1", "box"));
        assert_eq!(last.model.input, [416, 416]);
        let lat = last.lat_ms;
        assert!(lat.decode > 0.0 && lat.infer > 0.0 && lat.total >= lat.decode + lat.queue + lat.infer - 0.01);
        let age = daemon.heard.age_ms(id, 0.5);
        // rtspsrc's own jitter buffer would add 2 s.
        assert!(age < 1500.0, "{id}: half of the frames are older than {age} ms");
        let with_people = messages.iter().filter(|m| m.objects.iter().any(|o| &*o.label == "person")).count();
        assert!(with_people * 10 >= messages.len() * 8, "{id}: people in {with_people} of {}", messages.len());
        assert!(messages.is_sorted_by(|a, b| a.frame < b.frame && a.seq + 1 == b.seq), "{id}: in order");
        assert!(messages.is_sorted_by(|a, b| a.ts.captured <= b.ts.captured), "{id}: captured goes backward");
    }
    daemon.finish();
}

#[test]
fn a_refused_password_is_not_tried_again_and_stays_secret() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let walk = format!("walk={}", walk.display());
    let server = RtspServer::start(&["--user", "viewer", "--password", "right-Pa55", "--stream", &walk]);
    let tap = Tap::start(server.port);
    let at = |login: &str, port: u16| format!("rtsp://{login}127.0.0.1:{port}/walk");
    let cameras = [
        camera("right", &at("viewer:right-Pa55@", server.port), "fps_max = 5"),
        camera("wrong", &at("viewer:wrong-Pa55@", tap.port()), ""),
        camera("none", &at("", server.port), ""),
        witness(),
    ];
    let Some(mut daemon) = Daemon::start("", &cameras.concat()) else { return };
    daemon.until("people on the camera with the right password", LIMIT, |heard| {
        heard.of("right").iter().any(|(_, m)| m.objects.iter().any(|o| &*o.label == "person"))
    });
    for id in ["wrong", "none"] {
        daemon.until("a refusal in words", LIMIT, |heard| {
            heard.state(id).is_some_and(|state| state.reason.contains("refused the user or password"))
        });
        let state = daemon.heard.state(id).unwrap();
        assert_eq!(state.status, CameraStatus::Offline);
        assert!(state.next_retry_ms.is_some_and(|ms| (120_000..=330_000).contains(&ms)), "{state:?}");
        assert_eq!(state.attempts, 1);
    }
    // Nor when somebody switches it on and off.
    for word in ["ON", "OFF", "ON"] {
        daemon.publish("cam/wrong/enabled/set", word);
        let disabled = word == "OFF";
        daemon.until("the switch", LIMIT, |heard| (heard.text("cam/wrong/status") == "disabled") == disabled);
    }
    let state = daemon.heard.state("wrong").unwrap();
    assert!(state.reason.contains("refused the user or password"), "{state:?}");
    assert!(state.next_retry_ms.is_some_and(|ms| ms > 120_000), "{state:?}");
    let seen = daemon.heard.count("witness");
    daemon.until("the others go on", LIMIT, |heard| heard.count("witness") >= seen + 15);
    assert_eq!(daemon.heard.count("wrong") + daemon.heard.count("none"), 0);
    let asked = tap.requests("DESCRIBE");
    assert!((1..=2).contains(&asked), "{asked} requests: {}", tap.said());
    let answers = tap.said().matches("Authorization:").count();
    assert!(answers <= 1, "the wrong password was sent {answers} times: {}", tap.said());
    daemon.finish();
    let said =
        format!("{}{:?}{:?}{:?}", daemon.log(), daemon.heard.states, daemon.heard.notices, daemon.heard.texts);
    assert!(!said.contains("Pa55"), "a password was told");
}

#[test]
fn rtsps_is_checked_against_the_cameras_own_authority() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let walk = format!("walk={}", walk.display());
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path(), "cameras", "IP:127.0.0.1");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server =
        RtspServer::start(&["--tls", &file("server.pem"), &file("server.key"), "--stream", &walk, "--shared"]);
    let url = server.url("walk");
    let cameras = [
        camera("own", &url, &format!("fps_max = 5\nca_file = {:?}", file("ca.pem"))),
        camera("unchecked", &url, "fps_max = 5\ntls_verify = false"),
        camera("unknown", &url, ""),
        witness(),
    ];
    let Some(mut daemon) = Daemon::start("", &cameras.concat()) else { return };
    for id in ["own", "unchecked"] {
        daemon.until("frames over TLS", LIMIT, |heard| heard.count(id) >= 5);
    }
    daemon.until("a refusal that names TLS", LIMIT, |heard| {
        heard.state("unknown").is_some_and(|state| state.attempts >= 1 && state.reason.contains("TLS"))
    });
    let state = daemon.heard.state("unknown").unwrap();
    assert!(state.reason.contains("ca_file") && state.next_retry_ms.is_some(), "{state:?}");
    assert_eq!(daemon.heard.count("unknown"), 0);
    daemon.finish();
}

#[test]
fn a_camera_that_was_away_comes_back() {
    let _cores = some_cores();
    let (Some(walk), Some(small)) = (clip(Clip::H264), clip(Clip::Small)) else { return };
    let (walk, small) = (format!("walk={}", walk.display()), format!("walk={}", small.display()));
    let server = RtspServer::start(&["--stream", &walk]);
    let port = server.port.to_string();
    let cameras = [camera("gate", &server.url("walk"), "fps_max = 5"), witness()];
    let Some(mut daemon) = Daemon::start("", &cameras.concat()) else { return };
    daemon.until("frames", LIMIT, |heard| heard.count("gate") >= 5 && heard.count("witness") >= 5);
    drop(server);
    daemon.until("the camera is lost", LIMIT, |heard| heard.text("cam/gate/status") == "offline");
    daemon.until("two attempts", LIMIT, |heard| heard.state("gate").is_some_and(|s| s.attempts >= 2));
    let state = daemon.heard.state("gate").unwrap();
    assert!(state.reason.to_lowercase().contains("connect"), "{state:?}");
    assert!(state.next_retry_ms.is_some_and(|ms| ms <= 10_000), "{state:?}");
    // The same address, another resolution.
    let _server = RtspServer::start(&["--port", &port, "--stream", &small]);
    let back = std::time::Instant::now();
    daemon.until("the camera is back", LIMIT, |heard| {
        heard.of("gate").last().is_some_and(|(_, m)| m.size == [384, 288])
    });
    assert!(back.elapsed() < Duration::from_secs(20), "back after {:?}", back.elapsed());
    daemon.until("online again", LIMIT, |heard| heard.text("cam/gate/status") == "online");
    daemon.until("the notices", LIMIT, |heard| !heard.notices_of(NoticeKind::CameraBack, Some("gate")).is_empty());
    assert_eq!(daemon.heard.notices_of(NoticeKind::CameraLost, Some("gate")).len(), 1);
    assert_eq!(daemon.heard.state("gate").unwrap().size, Some([384, 288]));
    daemon.finish();
    undisturbed(&daemon);
    let numbers: Vec<u64> = daemon.heard.of("gate").iter().map(|(_, m)| m.frame).collect();
    assert!(numbers.is_sorted(), "frame numbers go on over a reconnection");
}

/// Shorter, mostly, than the second at which health is looked at.
#[test]
fn tracks_end_with_their_connection_however_short_the_camera_was_away() {
    let _cores = all_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let mut server = RtspServer::start(&["--stream", &format!("walk={}", walk.display())]);
    let cameras = camera("gate", &server.url("walk"), "") + "[events]\nlabels = [\"person\"]\n";
    let Some(mut daemon) = Daemon::start("", &cameras) else { return };
    let open = |heard: &Heard| {
        let of = |kind| heard.events.iter().filter(move |event| event.kind == kind).map(|event| event.id.clone());
        let ended: BTreeSet<String> = of(EventKind::End).collect();
        of(EventKind::New).filter(|id| !ended.contains(id)).collect::<BTreeSet<String>>()
    };
    for _ in 0..3 {
        daemon.until("people", LIMIT, |heard| open(heard).len() >= 2);
        let before = open(&daemon.heard);
        server.command("stop walk");
        daemon.listen();
        let last = daemon.heard.of("gate").last().unwrap().1.frame;
        server.command("start walk");
        daemon.until("their ends", LIMIT, |heard| before.is_disjoint(&open(heard)));
        let ends = daemon.heard.events.iter().filter(|e| e.kind == EventKind::End && before.contains(&e.id));
        let ends: Vec<&Event> = ends.collect();
        // Some frames were on their way.
        assert!(ends.iter().all(|end| end.frame < last + 30), "{last}: {ends:?}");
        assert!(ends.iter().any(|end| end.end_reason == Some(EndReason::CameraLost)), "{ends:?}");
    }
    daemon.finish();
}

#[test]
fn a_stream_that_falls_silent_or_changes_its_codec_is_rebuilt() {
    let _cores = some_cores();
    let (Some(walk), Some(h265)) = (clip(Clip::H264), clip(Clip::H265)) else { return };
    let (frozen, switched) = (format!("frozen={}", walk.display()), format!("switched={}", walk.display()));
    let mut server = RtspServer::start(&["--stream", &frozen]);
    let other = RtspServer::start(&["--stream", &switched]);
    let port = other.port.to_string();
    let cameras = [
        camera("frozen", &server.url("frozen"), "fps_max = 5\nstall_timeout = \"2s\""),
        camera("switched", &other.url("switched"), "fps_max = 5"),
        witness(),
    ];
    let Some(mut daemon) = Daemon::start("", &cameras.concat()) else { return };
    let ids = ["frozen", "switched"];
    daemon.until("frames", LIMIT, |heard| {
        ids.iter().all(|id| heard.count(id) >= 3 && heard.is(id, CameraStatus::Online))
    });
    server.command("freeze frozen");
    drop(other);
    let h265 = format!("switched={}", h265.display());
    let _other = RtspServer::start(&["--port", &port, "--stream", &h265]);
    daemon.until("silence in words", LIMIT, |heard| {
        heard.states.get("frozen").is_some_and(|states| states.iter().any(|s| s.reason.contains("no frame for")))
    });
    server.command("thaw frozen");
    for id in ids {
        daemon.until("the camera is back", LIMIT, |heard| {
            !heard.notices_of(NoticeKind::CameraLost, Some(id)).is_empty()
                && !heard.notices_of(NoticeKind::CameraBack, Some(id)).is_empty()
        });
        let seen = daemon.heard.count(id);
        daemon.until("frames after that", LIMIT, |heard| heard.count(id) > seen);
    }
    daemon.finish();
    undisturbed(&daemon);
}
