//! Cameras that fail in every way a camera, its host and the network between can: only they are rebuilt, and all come back.

use std::time::{Duration, Instant};

use watchpost::event::{CameraStatus, NoticeKind};

use crate::Held;
use crate::support::clips::{Clip, clip};
use crate::support::cores::{all_cores, some_cores};
use crate::support::daemon::{Daemon, Heard, camera, witness};
use crate::support::link::{Condition, Link};
use crate::support::rtsp::RtspServer;

const LIMIT: Duration = Duration::from_secs(120);
/// From the end of an outage to the last camera's first frame.
const BACK: Duration = Duration::from_secs(10);
const CAMERAS: usize = 16;

/// The witness: how often its frames come is a matter of what else runs on the machine, too.
fn never_lost(daemon: &Daemon) {
    assert!(daemon.heard.states["witness"].iter().all(|state| state.attempts == 0));
    assert!(daemon.heard.notices_of(NoticeKind::CameraLost, Some("witness")).is_empty());
}

/// So many failed attempts make the next wait 16 to 32 s: with back-off alone, most would be late. `WATCHPOST_ATTEMPTS=8`
/// waits for an outage of minutes.
#[test]
fn sixteen_cameras_are_back_within_ten_seconds_of_a_common_outage() {
    let _cores = all_cores();
    let Some(small) = clip(Clip::Small) else { return };
    let attempts = std::env::var("WATCHPOST_ATTEMPTS").map_or(6, |count| count.parse().unwrap());
    let walk = format!("walk={}", small.display());
    let server = RtspServer::start(&["--stream", &walk]);
    let guarded = RtspServer::start(&["--user", "viewer", "--password", "right-Pa55", "--stream", &walk]);
    let port = server.port.to_string();
    let ids: Vec<String> = (0..CAMERAS).map(|n| format!("cam{n:02}")).collect();
    let mut cameras: String = ids.iter().map(|id| camera(id, &server.url("walk"), "fps_max = 2")).collect();
    // Away since the same time as the others, and not to be hurried.
    let refused = guarded.url("walk").replace("rtsp://", "rtsp://viewer:wrong-Pa55@");
    cameras.push_str(&camera("refused", &refused, ""));
    cameras.push_str(&witness());
    let begun = Instant::now();
    let mut daemon = Daemon::start_tiny("batch = 4", &cameras);
    let all = |heard: &Heard, is: &dyn Fn(&String) -> bool| heard.count("witness") > 0 && ids.iter().all(is);
    daemon.until("frames of all", LIMIT, |heard| {
        all(heard, &|id| heard.count(id) >= 2 && heard.is(id, CameraStatus::Online))
    });
    // What the machine takes to connect 16, with whatever else runs on it.
    let pace = begun.elapsed();
    drop(server);
    daemon.until("all are lost", LIMIT, |heard| all(heard, &|id| heard.is(id, CameraStatus::Offline)));
    let outage = Instant::now();
    daemon.until("attempts of all", Duration::from_secs(600), |heard| {
        all(heard, &|id| heard.state(id).is_some_and(|state| state.attempts >= attempts))
    });
    let _server = RtspServer::start(&["--port", &port, "--stream", &walk]);
    let back = Instant::now();
    let since = |heard: &Heard, id: &String| heard.of(id).last().is_some_and(|(at, _)| *at > back);
    daemon.until("all are back", LIMIT, |heard| all(heard, &|id| since(heard, id)));
    let took = back.elapsed();
    println!(
        "{CAMERAS} cameras, at first connected in {pace:?}, were away for {:?}: back after {took:?}",
        back - outage
    );
    assert!(took < BACK + pace, "all are back after {took:?}, at first connected in {pace:?}");
    daemon.until("the notices", LIMIT, |heard| {
        all(heard, &|id| !heard.notices_of(NoticeKind::CameraBack, Some(id)).is_empty())
    });
    let state = daemon.heard.state("refused").unwrap();
    assert_eq!(state.attempts, 1, "one that was refused is not hurried: {state:?}");
    assert!(state.next_retry_ms.is_some_and(|ms| ms > 120_000), "{state:?}");
    daemon.finish();
    never_lost(&daemon);
}

/// No hang is longer: what is silent is noticed, and its pipeline replaced, within it.
const HANG: Duration = Duration::from_secs(5);
/// A camera that is none of the noisy; what else runs on the machine is in it.
const OTHERS_PAUSE: Duration = Duration::from_secs(3);

/// The longest time between two messages of a camera.
fn longest_pause(heard: &Heard, id: &str) -> Duration {
    let pauses = heard.of(id).windows(2).map(|pair| pair[1].0.duration_since(pair[0].0));
    pauses.max().unwrap_or_default()
}

/// From its last frame to the next, over a new connection; with the default `stall_timeout`.
#[test]
fn a_camera_that_hangs_is_back_within_five_seconds() {
    let _cores = all_cores();
    let Some(small) = clip(Clip::Small) else { return };
    let mut server = RtspServer::start(&["--stream", &format!("walk={}", small.display())]);
    let cameras = camera("hanging", &server.url("walk"), "") + &witness();
    let mut daemon = Daemon::start_tiny("", &cameras);
    let begun = Instant::now();
    daemon.until("the first frames", LIMIT, |heard| heard.count("hanging") > 0);
    let connecting = begun.elapsed();
    // A connection that lasted for less than 10 s is not built anew at once.
    daemon.until("frames for a while", LIMIT, |_| begun.elapsed() > Duration::from_secs(12));
    server.command("hang walk");
    daemon.until("that it is lost, and back", LIMIT, |heard| {
        !heard.notices_of(NoticeKind::CameraBack, Some("hanging")).is_empty()
    });
    let pause = longest_pause(&daemon.heard, "hanging");
    println!("it hung for {pause:?}; start and first connection took {connecting:?}");
    let lost = &daemon.heard.notices_of(NoticeKind::CameraLost, Some("hanging"))[0].1.text;
    assert!(lost.contains("no frame for 3."), "{lost}");
    assert!(pause < HANG.max(Duration::from_millis(3500) + connecting), "it hung for {pause:?}");
    daemon.finish();
    never_lost(&daemon);
}

/// From its first frame on: a busy machine may take longer than a first connection is waited for.
fn never_failed(daemon: &Daemon, id: &str) -> bool {
    let states = &daemon.heard.states[id];
    let first = states.iter().position(|state| state.status == CameraStatus::Online).unwrap();
    states[first..].iter().all(|state| state.attempts == 0)
}

/// `WATCHPOST_GARBLE=600 cargo test --test chaos hostile -- --nocapture` garbles for so many frames.
#[test]
fn hostile_video_holds_up_nobody_and_is_over_when_it_is_over() {
    let _cores = all_cores();
    let clips = (clip(Clip::H264), clip(Clip::H265), clip(Clip::Small));
    let (Some(walk), Some(other), Some(small)) = clips else { return };
    let (walk, small) = (walk.display(), small.display());
    let frames = std::env::var("WATCHPOST_GARBLE").map_or(60, |count| count.parse().unwrap());
    let start = |streams: [String; 2]| {
        // One position for all: whoever comes later comes in the middle of a group of pictures.
        RtspServer::start(&["--shared", "--stream", &streams[0], "--stream", &streams[1]])
    };
    // A server that sends over TCP waits for the slowest of its clients: each kind has its own.
    let mut server = start([format!("noise=raw:{walk}"), format!("noise265=raw:{}", other.display())]);
    let odd = start([format!("sizes=raw:{walk}+{small}"), format!("bare=bare:{walk}")]);
    let sound = start([format!("late={walk}"), format!("small={small}")]);
    let mut cameras = String::new();
    for (id, server, stream, more) in [
        ("noise", &server, "noise", ""),
        ("noise265", &server, "noise265", ""),
        ("sizes", &odd, "sizes", ""),
        ("bare-first", &odd, "bare", ""),
        ("late-first", &sound, "late", ""),
        ("bare", &odd, "bare", "enabled = false"),
        ("late", &sound, "late", "enabled = false"),
    ] {
        cameras.push_str(&camera(id, &server.url(stream), more));
    }
    cameras.push_str(&witness());
    let mut daemon = Daemon::start_tiny("batch = 4", &cameras);
    let noisy = ["noise", "noise265"];
    let ids = ["noise", "noise265", "sizes", "bare-first", "late-first", "witness"];
    daemon.until("frames", LIMIT, |heard| ids.iter().all(|id| heard.count(id) >= 3));
    // What a new connection takes, with whatever else runs on the machine.
    let mut connecting = Duration::ZERO;
    for id in ["bare", "late"] {
        daemon.publish(&format!("cam/{id}/enabled/set"), "ON");
        let begun = Instant::now();
        daemon.until("frames of who comes late", LIMIT, |heard| heard.count(id) >= 3);
        println!("{id}: the first frames {:?} after it was switched on", begun.elapsed());
        connecting = connecting.max(begun.elapsed());
    }
    // Every frame has data that are none.
    let before = daemon.heard.count("late");
    noisy.iter().for_each(|id| server.command(&format!("garble {id}")));
    daemon.until("a while of noise", Duration::from_secs(900), |heard| heard.count("late") >= before + frames);
    let clean = Instant::now();
    for id in noisy {
        let (state, seen) = (daemon.heard.state(id).unwrap().clone(), daemon.heard.count(id));
        server.command(&format!("clean {id}"));
        daemon.until("frames after the noise", LIMIT, |heard| {
            heard.count(id) >= seen + 10 && heard.is(id, CameraStatus::Online)
        });
        let (status, attempts, reason) = (state.status, state.attempts, state.reason);
        println!("{id}: {status:?}, {attempts} attempts, {reason}; well {:?} after its end", clean.elapsed());
    }
    daemon.until("both sizes, again and again", LIMIT, |heard| {
        let sizes: Vec<[u32; 2]> = heard.of("sizes").iter().map(|(_, m)| m.size).collect();
        sizes.windows(2).filter(|pair| pair[0] != pair[1]).count() >= 2
    });
    for id in ids.into_iter().chain(["bare", "late"]) {
        let pause = longest_pause(&daemon.heard, id);
        println!("{id}: {} frames, silent for {pause:?} at most", daemon.heard.count(id));
        let limit = if noisy.contains(&id) { HANG + connecting } else { OTHERS_PAUSE };
        assert!(pause < limit, "{id} was silent for {pause:?}, a new connection takes {connecting:?}");
        // Of a size that changes the decoder may say an error; of the others nothing is to be said.
        let is_disturbed = noisy.contains(&id) || id == "sizes";
        assert!(is_disturbed || never_failed(&daemon, id), "{id} is none of the noisy");
    }
    daemon.finish();
    never_lost(&daemon);
}

#[test]
fn a_camera_frozen_in_a_frame_in_a_black_hole_or_with_a_new_password_is_the_only_one_that_suffers() {
    let _cores = some_cores();
    let Some(walk) = clip(Clip::H264) else { return };
    let walk = format!("walk={}", walk.display());
    let server = RtspServer::start(&["--stream", &walk]);
    let guarded = RtspServer::start(&["--stream", &walk]);
    let port = guarded.port.to_string();
    let link = Link::opaque(server.port);
    let by_link = format!("rtsp://127.0.0.1:{}/walk", link.port());
    let cameras = [
        camera("frozen", &by_link, "fps_max = 5\nstall_timeout = \"2s\""),
        camera("guarded", &guarded.url("walk").replace("rtsp://", "rtsp://viewer:old-Pa55@"), "fps_max = 5"),
        witness(),
    ];
    let mut daemon = Daemon::start_tiny("", &cameras.concat());
    let ids = ["frozen", "guarded", "witness"];
    daemon.until("frames", LIMIT, |heard| {
        ids.iter().all(|id| heard.count(id) >= 3 && heard.is(id, CameraStatus::Online))
    });
    link.set(Condition::Hole);
    drop(guarded);
    let _guarded =
        RtspServer::start(&["--port", &port, "--user", "viewer", "--password", "new-Pa55", "--stream", &walk]);
    let begun = Instant::now();
    daemon.until("silence is noticed", LIMIT, |heard| heard.is("frozen", CameraStatus::Offline));
    let noticed = begun.elapsed();
    let reason = daemon.heard.state("frozen").unwrap().reason.clone();
    assert!(reason.contains("no frame for"), "{reason}");
    assert!(
        noticed < Duration::from_secs(10),
        "noticed after {noticed:?}: 2 s, a look a second, and what stopping takes"
    );
    daemon.until("attempts into the hole", LIMIT, |heard| heard.state("frozen").is_some_and(|s| s.attempts >= 2));
    daemon.until("the new password", LIMIT, |heard| {
        heard.state("guarded").is_some_and(|state| state.reason.contains("refused the user or password"))
    });
    let seen = daemon.heard.count("frozen");
    let back = Instant::now();
    link.set(Condition::Good);
    daemon.until("frames again", LIMIT, |heard| heard.count("frozen") >= seen + 3);
    println!("frozen in a frame: noticed after {noticed:?}, back {:?} after the hole was closed", back.elapsed());
    assert!(back.elapsed() < 2 * BACK, "back after {:?}", back.elapsed());
    let state = daemon.heard.state("guarded").unwrap();
    assert!(state.next_retry_ms.is_some_and(|ms| ms > 120_000), "{state:?}");
    daemon.finish();
    never_lost(&daemon);
}

/// `WATCHPOST_CYCLES=100 cargo test --test chaos random_all -- --nocapture` is the long form.
#[test]
fn cameras_that_fail_at_random_all_come_back_and_leave_nothing_behind() {
    let _cores = all_cores();
    let Some(small) = clip(Clip::Small) else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (cycles, seed) =
        (number("WATCHPOST_CYCLES").unwrap_or(6), number("WATCHPOST_SEED").unwrap_or_else(|| fastrand::u64(..)));
    println!("WATCHPOST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = RtspServer::start(&["--stream", &format!("walk={}", small.display())]);
    let links: Vec<Link> = (0..CAMERAS).map(|_| Link::opaque(server.port)).collect();
    let ids: Vec<String> = (0..CAMERAS).map(|n| format!("cam{n:02}")).collect();
    let more = "fps_max = 2\nstall_timeout = \"2s\"";
    let url = |link: &Link| format!("rtsp://127.0.0.1:{}/walk", link.port());
    let mut cameras: String = ids.iter().zip(&links).map(|(id, link)| camera(id, &url(link), more)).collect();
    cameras.push_str(&witness());
    let mut daemon = Daemon::start_tiny("batch = 4", &cameras);
    daemon.until("frames of all", LIMIT, |heard| {
        ids.iter().all(|id| heard.count(id) >= 2 && heard.is(id, CameraStatus::Online))
    });
    let warm = cycles / 4;
    let mut before = Held::of(daemon.pid());
    for cycle in 0..cycles {
        if cycle == warm {
            before = Held::of(daemon.pid());
        }
        // Some of them, each in its own way.
        let hit: Vec<usize> = (0..CAMERAS).filter(|_| random.u8(..4) == 0).collect();
        for n in &hit {
            match random.u8(..4) {
                0 => links[*n].set(Condition::Hole),
                1 => links[*n].set(Condition::Slow),
                2 => {
                    links[*n].set(Condition::Away);
                    links[*n].cut();
                }
                _ => links[*n].cut(),
            }
        }
        let seen = daemon.heard.count("witness");
        daemon.until("a while", LIMIT, |heard| heard.count("witness") >= seen + random.usize(1..25));
        let counts: Vec<usize> = hit.iter().map(|n| daemon.heard.count(&ids[*n])).collect();
        let mended = Instant::now();
        hit.iter().for_each(|n| links[*n].set(Condition::Good));
        daemon.until("all are back", LIMIT, |heard| {
            hit.iter().zip(&counts).all(|(n, count)| heard.count(&ids[*n]) >= count + 3)
        });
        println!("{cycle}: {} of {CAMERAS} failed, all back after {:?}", hit.len(), mended.elapsed());
    }
    let after = Held::of(daemon.pid());
    println!("after {warm} cycles {before:?}, after {cycles} {after:?}");
    assert!(after.descriptors <= before.descriptors + 4 * CAMERAS, "descriptors grow: {before:?}, {after:?}");
    assert!(after.threads <= before.threads + 8 * CAMERAS, "threads grow: {before:?}, {after:?}");
    assert!(after.memory <= before.memory + (150 << 20), "memory grows: {before:?}, {after:?}");
    daemon.finish();
    never_lost(&daemon);
}
