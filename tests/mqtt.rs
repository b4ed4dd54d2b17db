//! Publishing to real brokers: what is promised about lost, retained and refused messages.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;
use support::certificates::{certificates, dated_server_certificate};
use support::link::{Condition, Link};
use support::mosquitto::{
    Message, Mosquitto, PATIENCE, Relay, Subscriber, free_port, old_broker, wait_until, within,
};
use support::publisher::{Box, DEVICES, config, detections, event, gate, homeassistant, notice, tls};
use tempfile::TempDir;
use watchpost::config::{MqttConfig, MqttProtocol, Secret};
use watchpost::event::{Counter, Detections, Direction, Event, EventKind, NoticeKind};
use watchpost::frame::CameraId;
use watchpost::metrics::PublishMetrics;
use watchpost::publish::{self, Card, Identity, Wanted};

#[test]
fn status_is_online_then_offline_by_will_and_by_good_bye() {
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let broker = Mosquitto::start(&[]);
        let relay = Relay::start(broker.port());
        let state = TempDir::new().unwrap();
        let subscriber = Subscriber::start(broker.port(), "watchpost/box/status", None);
        let tested = Box::start(&MqttConfig { protocol, ..config(relay.port()) }, state.path());
        assert_eq!(subscriber.next().text(), "online");
        relay.cut();
        assert_eq!(subscriber.next().text(), "offline", "the last will");
        assert_eq!(subscriber.next().text(), "online", "after the reconnection");
        let metrics = tested.finish();
        assert_eq!(subscriber.next().text(), "offline", "the good-bye");
        let late = Subscriber::start(broker.port(), "watchpost/box/status", None).next();
        assert!(late.retained && late.text() == "offline");
        assert_eq!((metrics.connects.get(), metrics.failures.get(), metrics.connected.get()), (2, 1, 0));
    }
}

/// A box without power says nothing, closes nothing, and answers nobody.
#[test]
fn who_falls_silent_is_offline_by_will_within_one_and_a_half_keep_alives() {
    let broker = Mosquitto::start(&[]);
    let state = TempDir::new().unwrap();
    let subscriber = Subscriber::start(broker.port(), "watchpost/box/status", None);
    let link = Link::mqtt(broker.port());
    // The least with which that holds: Mosquitto is up to 5 s late.
    let wanted = MqttConfig { keep_alive: Duration::from_secs(9), ..config(link.port()) };
    let tested = Box::start(&wanted, state.path());
    assert_eq!(subscriber.next().text(), "online");
    let since = Instant::now();
    link.set(Condition::Hole);
    assert_eq!(subscriber.next().text(), "offline");
    let took = since.elapsed();
    println!("offline {took:.1?} after the last word, keep-alive {:?}", wanted.keep_alive);
    assert!(took <= wanted.keep_alive * 3 / 2, "{took:?}");
    link.set(Condition::Good);
    assert_eq!(subscriber.next().text(), "online", "after the reconnection");
    tested.finish();
}

#[test]
fn every_kind_of_message_arrives_over_both_protocols() {
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let broker = Mosquitto::start(&[]);
        let state = TempDir::new().unwrap();
        let subscriber = Subscriber::start(broker.port(), "watchpost/#", None);
        let link = Link::mqtt(broker.port());
        link.set(Condition::Hole);
        let tested = Box::start(&MqttConfig { protocol, ..config(link.port()) }, state.path());
        tested.publisher.detections(&gate(), &detections(0));
        tested.publisher.wake();
        assert_eq!(tested.metrics.detections_dropped.get(), 1, "not connected yet");
        link.set(Condition::Good);
        tested.wait_connected();
        tested.publisher.detections(&gate(), &detections(1));
        tested.publisher.wake();
        let seen = subscriber.next_of("watchpost/box/cam/gate/detections");
        assert_eq!(serde_json::from_slice::<Detections>(&seen.body).unwrap(), detections(1));
        tested.notices(0..1);
        let seen = notice(&subscriber.next_of("watchpost/box/notice").body);
        assert_eq!((seen.seq, seen.text.as_str(), seen.replayed), (0, "n0", false));
        assert_eq!(
            (seen.node.as_str(), seen.boot.as_str(), seen.camera.as_deref()),
            ("box", "0123ab", Some("gate"))
        );
        // A JPEG is larger than rumqttc's default packet.
        let state_topic = tested.publisher.topics().camera_state(&gate());
        let jpeg = vec![0xd8; 1 << 20];
        tested.publisher.retain(state_topic.clone(), jpeg.clone());
        assert_eq!(subscriber.next_of(state_topic.as_str()).body, jpeg);
        let metrics = tested.finish();
        assert_eq!((metrics.spool_pending.get(), metrics.failures.get(), metrics.dead_letters.get()), (0, 0, 0));
    }
}

#[test]
fn detections_expire_on_mqtt_5() {
    let broker = Mosquitto::start(&[]);
    let state = TempDir::new().unwrap();
    let port = broker.port().to_string();
    let topic = "watchpost/box/cam/gate/detections";
    let arguments = ["-V", "5", "-p", &port, "-t", topic, "-F", "%t %E", "-C", "2"];
    let mut mosquitto_sub =
        Process::new("mosquitto_sub").args(arguments).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let tested = Box::start(&config(broker.port()), state.path());
    tested.wait_connected();
    wait_until("mosquitto_sub has heard two", || {
        tested.publisher.detections(&gate(), &detections(1));
        tested.publisher.wake();
        mosquitto_sub.try_wait().unwrap().is_some()
    });
    let output = mosquitto_sub.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line == format!("{topic} 5")), "{text}");
    tested.finish();
}

#[test]
fn the_retained_map_comes_back_after_a_broker_lost_it() {
    let mut broker = Mosquitto::start(&[]);
    let state = TempDir::new().unwrap();
    let tested = Box::start(&config(broker.port()), state.path());
    let topics = tested.publisher.topics().clone();
    let cameras: Vec<_> = (0..40).map(|n| CameraId::new(&format!("cam{n}"))).collect();
    for camera in &cameras {
        tested.publisher.retain(topics.camera_status(camera), b"offline".to_vec());
        tested.publisher.retain(topics.camera_status(camera), b"online".to_vec());
    }
    let subscriber = Subscriber::start(broker.port(), "watchpost/box/cam/+/status", None);
    while subscriber.next().topic != topics.camera_status(&cameras[39]).as_str() {}
    broker.restart();
    wait_until("the second connection", || tested.metrics.connects.get() == 2);
    // A camera is gone; the others are as before, which is no news.
    tested.publisher.forget_other_cameras(&cameras[1..]);
    tested.publisher.retain(topics.camera_status(&cameras[1]), b"online".to_vec());
    tested.publisher.notice(NoticeKind::Started, None, "after".to_owned());
    tested.finish();
    let late = Subscriber::start(broker.port(), "watchpost/box/cam/+/status", None);
    let mut left: Vec<_> = (0..39).map(|_| late.next()).collect();
    left.sort_by(|a, b| a.topic.cmp(&b.topic));
    let mut expected: Vec<_> = cameras[1..].iter().map(|camera| topics.camera_status(camera).to_string()).collect();
    expected.sort();
    assert_eq!(left.iter().map(|message| message.topic.clone()).collect::<Vec<_>>(), expected);
    assert!(left.iter().all(|message| message.retained && message.text() == "online"));
    assert!(late.messages.is_empty());

    // The next start sends the map from the disk, without anything being retained anew.
    broker.restart();
    let tested = Box::start(&config(broker.port()), state.path());
    let late = Subscriber::start(broker.port(), "watchpost/box/cam/cam7/status", None);
    assert_eq!(late.next().text(), "online");
    tested.finish();
}

/// Checks first sight in order without a gap, and steps back within the window only.
fn assert_no_loss(seen: &[u64], total: u64) {
    let mut next = 0;
    for pair in seen.windows(2) {
        assert!(pair[1] <= pair[0] + 1, "a gap: {seen:?}");
        assert!(pair[1] + 16 > pair[0], "further back than the window: {seen:?}");
    }
    for seq in seen {
        if *seq == next {
            next += 1;
        }
    }
    assert_eq!(next, total, "{seen:?}");
}

#[test]
fn a_broker_killed_again_and_again_loses_nothing() {
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let mut broker = Mosquitto::start(&[]);
        let state = TempDir::new().unwrap();
        let subscriber = Subscriber::start(broker.port(), "watchpost/box/notice", None);
        subscriber.subscribed.try_iter().for_each(drop);
        let link = Link::mqtt(broker.port());
        let tested = Box::start(&MqttConfig { protocol, ..config(link.port()) }, state.path());
        tested.wait_connected();
        let mut seen = Vec::new();
        for cycle in 0..5 {
            tested.notices(cycle * 40..cycle * 40 + 20);
            // Killed in the middle of them, once what the last death left has come.
            loop {
                seen.push(notice(&subscriber.next().body).seq);
                if seen.last() >= Some(&u64::from(cycle * 40)) {
                    break;
                }
            }
            broker.kill();
            link.set(Condition::Away);
            tested.notices(cycle * 40 + 20..cycle * 40 + 40);
            broker.restart();
            // The broker acknowledges also what nobody listens to.
            subscriber.subscribed.recv_timeout(PATIENCE).unwrap();
            link.set(Condition::Good);
        }
        while !seen.contains(&199) {
            seen.push(notice(&subscriber.next().body).seq);
        }
        let metrics = tested.finish();
        seen.extend(subscriber.messages.try_iter().map(|message| notice(&message.body).seq));
        assert_no_loss(&seen, 200);
        assert!(metrics.connects.get() >= 6, "{}", metrics.connects.get());
        assert_eq!((metrics.spool_pending.get(), metrics.spool_dropped.get()), (0, 0));
    }
}

#[test]
fn what_a_stopped_daemon_left_is_sent_by_the_next_with_its_own_times() {
    let port = free_port();
    let state = TempDir::new().unwrap();
    let tested = Box::start(&config(port), state.path());
    tested.wait_problem("nothing listens at 127.0.0.1:");
    tested.notices(0..3);
    let metrics = tested.finish();
    assert_eq!((metrics.spool_pending.get(), metrics.connects.get()), (3, 0));
    assert!(metrics.failures.get() >= 2, "an attempt is made for the last time");

    let mut broker = Mosquitto::prepare(port);
    broker.restart();
    let subscriber = Subscriber::start(port, "watchpost/box/notice", None);
    let tested = Box::start(&config(port), state.path());
    assert_eq!(tested.publisher.problem(), None);
    for n in 0..3 {
        let seen = notice(&subscriber.next().body);
        assert_eq!((seen.seq, seen.text, seen.replayed), (n, format!("n{n}"), true));
    }
    tested.wait_connected();
    tested.notices(7..8);
    assert!(!notice(&subscriber.next().body).replayed);
    tested.finish();
}

#[test]
fn a_broker_that_comes_late_gets_everything() {
    let mut broker = Mosquitto::prepare(free_port());
    let link = Link::away(broker.port());
    let state = TempDir::new().unwrap();
    let tested = Box::start(&config(link.port()), state.path());
    tested.notices(0..30);
    tested.wait_problem("closed the connection");
    broker.restart();
    let subscriber = Subscriber::start(broker.port(), "watchpost/box/notice", None);
    link.set(Condition::Good);
    let seen: Vec<_> = (0..30).map(|_| notice(&subscriber.next().body)).collect();
    assert!(seen.iter().enumerate().all(|(n, notice)| notice.seq == n as u64 && notice.replayed));
    assert_eq!(tested.publisher.problem(), None);
    tested.finish();
}

#[test]
fn a_wrong_password_is_said_in_words_and_retried_slowly() {
    let mut broker = Mosquitto::prepare(free_port());
    let other = format!("password_file {}", broker.password_file("box", "other"));
    let right = format!("password_file {}", broker.password_file("box", "s3cret-word"));
    broker.configure(&["allow_anonymous false", &other]);
    broker.restart();
    let state = TempDir::new().unwrap();
    let user = |config: MqttConfig| MqttConfig {
        user: Some("box".to_owned()),
        password: Some(Secret::new("s3cret-word".to_owned())),
        ..config
    };
    let tested = Box::start(&user(config(broker.port())), state.path());
    tested.notices(0..1);
    tested.wait_problem("refused the user \"box\": check mqtt.user and its password_file");
    let refused = Instant::now();
    assert!(!tested.publisher.problem().unwrap().contains("s3cret"));
    broker.configure(&["allow_anonymous false", &right]);
    broker.restart();
    let subscriber = Subscriber::start(broker.port(), "watchpost/box/notice", Some(("box", "s3cret-word")));
    let message = subscriber.messages.recv_timeout(Duration::from_secs(45)).unwrap();
    assert!(refused.elapsed() > Duration::from_secs(20), "no faster than each 30 s");
    assert_eq!(notice(&message.body).text, "n0");
    assert_eq!(tested.metrics.failures.get(), 1);
    tested.finish();
}

#[test]
fn a_broker_of_mqtt_3_1_1_alone_is_spoken_to_in_it() {
    let (address, levels) = old_broker();
    let state = TempDir::new().unwrap();
    let tested = Box::start(&config(address.port()), state.path());
    assert_eq!(levels.recv_timeout(PATIENCE), Ok(5));
    assert_eq!(levels.recv_timeout(PATIENCE), Ok(4), "at once");
    tested.wait_connected();
    drop(tested.publisher);
    tested.running.finish(Duration::from_secs(1));

    let (address, _levels) = old_broker();
    let state = TempDir::new().unwrap();
    let v5 = MqttConfig { protocol: MqttProtocol::V5, ..config(address.port()) };
    let tested = Box::start(&v5, state.path());
    tested.wait_problem("without accepting us: check mqtt.protocol");
    tested.finish();
}

#[test]
fn tls_with_a_private_ca_works_and_every_failure_has_its_words() {
    let mut broker = Mosquitto::prepare(free_port());
    let dir = broker.dir().to_owned();
    certificates(&dir, "ours", "IP:127.0.0.1");
    let file = |option: &str, name: &str| format!("{option} {}", dir.join(name).display());
    let served = [file("cafile", "ca.pem"), file("certfile", "server.pem"), file("keyfile", "server.key")];
    let mut lines: Vec<_> = served.iter().map(String::as_str).collect();
    lines.extend(["allow_anonymous true", "require_certificate true"]);
    broker.configure(&lines);
    broker.restart();
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let state = TempDir::new().unwrap();
        let good = MqttConfig { protocol, ..tls(broker.port(), &dir, Some(&dir)) };
        let tested = Box::start(&good, state.path());
        tested.notices(0..3);
        tested.wait_connected();
        assert_eq!(tested.finish().spool_pending.get(), 0);

        let no_certificate = MqttConfig { protocol, ..tls(broker.port(), &dir, None) };
        let tested = Box::start(&no_certificate, state.path());
        tested.wait_problem("asks for a client certificate: give mqtt.cert_file");
        tested.finish();
    }
    let state = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    for authority in ["ours", "theirs"] {
        certificates(elsewhere.path(), authority, "DNS:elsewhere");
        let wrong_ca = tls(broker.port(), elsewhere.path(), Some(&dir));
        let tested = Box::start(&wrong_ca, state.path());
        tested.wait_problem("not from an authority that is trusted here: give its CA as mqtt.ca_file");
        tested.finish();
    }

    let mut misnamed = Mosquitto::prepare(free_port());
    let at = |name: &str| elsewhere.path().join(name).display().to_string();
    let cert = format!("certfile {}", at("server.pem"));
    let key = format!("keyfile {}", at("server.key"));
    misnamed.configure(&["allow_anonymous true", &cert, &key]);
    misnamed.restart();
    let tested = Box::start(&tls(misnamed.port(), elsewhere.path(), None), state.path());
    tested.wait_problem("not for the name 127.0.0.1");
    tested.finish();

    for (dates, words) in [(("2020", "2021"), "has expired: renew it"), (("2089", "2090"), "is not valid yet: set")]
    {
        dated_server_certificate(&dir, dates);
        broker.restart();
        let tested = Box::start(&tls(broker.port(), &dir, Some(&dir)), state.path());
        tested.wait_problem(words);
        tested.finish();
    }

    let plain = Mosquitto::start(&[]);
    let tested = Box::start(&tls(plain.port(), &dir, None), state.path());
    tested.wait_problem("speak TLS on this port");
    tested.finish();

    let missing = tls(1, Path::new("/nonexistent"), None);
    let identity = Identity { node: "box".to_owned(), boot: "0123ab".to_owned() };
    let error = publish::start(
        Wanted::default(),
        &missing,
        identity,
        state.path(),
        PublishMetrics::default(),
        bounded(1).0,
    )
    .err();
    assert!(error.unwrap().to_string().contains("mqtt.ca_file /nonexistent/ca.pem cannot be read"));
}

#[test]
fn crossings_counted_before_a_kill_are_0_after_the_next_start() {
    let broker = Mosquitto::start(&[]);
    let state = TempDir::new().unwrap();
    let watch = Subscriber::start(broker.port(), "watchpost/box/cam/gate/line/path/in/person", None);
    let lines = BTreeMap::from([("path".to_owned(), BTreeSet::from(["person".to_owned()]))]);
    let cameras = BTreeMap::from([(gate(), Card { lines, events: true, ..Card::default() })]);
    let wanted = || Wanted { cameras: cameras.clone(), ..Wanted::default() };
    let tested = Box::telling(wanted(), &config(broker.port()), state.path());
    // Nobody sets it to 0, as where a process is killed.
    tested.publisher.count(&gate(), &Counter::Line("path".to_owned(), Direction::In, "person".to_owned()), 5);
    assert_eq!(watch.next().text(), "5");
    tested.finish();
    let tested = Box::telling(wanted(), &config(broker.port()), state.path());
    tested.publisher.reset_counts();
    let last = std::iter::repeat_with(|| watch.next().text()).find(|text| text != "5");
    assert_eq!(last.unwrap(), "0");
    tested.finish();
}

#[test]
fn who_is_in_an_onvif_zone_is_retained_and_goes_with_its_camera() {
    let broker = Mosquitto::start(&[]);
    let state = TempDir::new().unwrap();
    let card =
        || Card { zones: BTreeMap::from([("drive".to_owned(), BTreeSet::new())]), events: true, ..Card::default() };
    let wanted = |onvif| Wanted { onvif, cameras: BTreeMap::from([(gate(), card())]), ..Wanted::default() };
    let topic = "watchpost/box/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&gate/drive";
    let watch = Subscriber::start(broker.port(), topic, None);
    let is_inside = |message: &Message| {
        let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
        body["Data"]["IsInside"].as_bool().unwrap()
    };
    let tested = Box::telling(wanted(true), &config(broker.port()), state.path());
    tested.publisher.greet();
    assert!(!is_inside(&watch.next()), "nobody so far");
    tested.publisher.event(event(EventKind::New));
    assert!(is_inside(&watch.next()));
    let late = Subscriber::start(broker.port(), topic, None).next();
    assert!(late.retained && is_inside(&late));
    // Both in one breath: what the end says goes, too.
    tested.publisher.event(event(EventKind::End));
    tested.publisher.forget_camera(&gate());
    let last = std::iter::repeat_with(|| watch.next()).find(|message| message.body.is_empty());
    assert_eq!(last.unwrap().topic, topic);
    tested.publisher.greet_camera(&gate(), card());
    assert!(!is_inside(&watch.next()));
    let other = |kind| Event { id: "gate-0123ab-8".to_owned(), ..event(kind) };
    tested.publisher.event(other(EventKind::New));
    assert!(is_inside(&watch.next()));
    // Other rules for a camera that goes on: who is in a zone that stays is not forgotten, and a zone that goes is cleared.
    tested.publisher.welcome_camera(&gate(), Card { labels: BTreeSet::from(["person".to_owned()]), ..card() });
    tested.publisher.welcome_camera(&gate(), Card { events: true, ..Card::default() });
    assert!(watch.next().body.is_empty(), "nothing comes between");
    tested.publisher.event(Event { zones: Vec::new(), ..other(EventKind::Update) });
    // The same zone again, in which nobody is counted yet: known at once.
    tested.publisher.welcome_camera(&gate(), card());
    assert!(!is_inside(&watch.next()));
    tested.publisher.event(other(EventKind::Update));
    assert!(is_inside(&watch.next()));
    tested.finish();
    // The next start ends the track, and says no more of zones.
    let tested = Box::telling(wanted(false), &config(broker.port()), state.path());
    tested.publisher.greet();
    let last = std::iter::repeat_with(|| watch.next()).find(|message| message.body.is_empty());
    assert_eq!(last.unwrap().topic, topic);
    tested.finish();
}

/// A retained birth is Home Assistant's to choose; what is kept of an earlier one brings nothing twice.
#[test]
fn home_assistants_birth_brings_its_devices_again() {
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let broker = Mosquitto::start(&[]);
        let state = TempDir::new().unwrap();
        let (wanted, config) = (homeassistant(), MqttConfig { protocol, ..config(broker.port()) });
        let tested = Box::telling(wanted.clone(), &config, state.path());
        let watch = Subscriber::start(broker.port(), "homeassistant/#", None);
        tested.publisher.greet();
        let devices = || BTreeMap::from([watch.next(), watch.next()].map(|device| (device.topic, device.body)));
        let kept = devices();
        assert!(kept.keys().eq(&DEVICES), "{kept:?}");
        tested.finish();
        let status = "homeassistant/status";
        watch.publish(status, "online", true);
        watch.next_of(status);
        let tested = Box::telling(wanted, &config, state.path());
        assert_eq!(devices(), kept, "on connecting");
        for (text, retain) in [("offline", false), ("online", true)] {
            watch.publish(status, text, retain);
            assert_eq!((watch.next().topic.as_str(), text), (status, text), "nothing comes between");
        }
        assert_eq!(devices(), kept, "at its birth");
        tested.finish();
        assert!(watch.messages.is_empty(), "{:?}", watch.messages.try_recv());
    }
}

#[test]
fn an_overflowing_spool_loses_exactly_what_it_counts() {
    let mut broker = Mosquitto::prepare(free_port());
    let link = Link::away(broker.port());
    let state = TempDir::new().unwrap();
    let tested = Box::start(&MqttConfig { spool_bytes: 50_000, ..config(link.port()) }, state.path());
    tested.notices(0..2000);
    let (pending, dropped) = (tested.metrics.spool_pending.clone(), tested.metrics.spool_dropped.clone());
    // One more than was given: the notice of the overflow.
    wait_until("all are spooled or dropped", || pending.get() as u64 + dropped.get() == 2001);
    assert!(tested.metrics.spool_bytes.get() <= 50_000);
    broker.restart();
    let subscriber = Subscriber::start(broker.port(), "watchpost/box/notice", None);
    link.set(Condition::Good);
    let metrics = tested.finish();
    assert_eq!((metrics.spool_pending.get(), metrics.spool_bytes.get()), (0, 0));
    wait_until("the last", || subscriber.messages.len() as u64 + metrics.spool_dropped.get() == 2001);
    let seen: Vec<_> = subscriber.messages.try_iter().map(|message| notice(&message.body)).collect();
    let overflows = seen.iter().filter(|notice| notice.kind == NoticeKind::SpoolOverflow).count();
    assert_eq!(overflows, 1);
    assert!(seen.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert!(seen.iter().any(|notice| notice.text == "n1999"));
}

#[test]
fn a_message_refused_for_good_is_a_dead_letter_and_not_tried_for_ever() {
    let mut broker = Mosquitto::prepare(free_port());
    let acl = broker.dir().join("acl");
    std::fs::write(&acl, "topic readwrite #\ntopic deny watchpost/box/notice\ntopic deny watchpost/box/info\n")
        .unwrap();
    let acl = format!("acl_file {}", acl.display());
    broker.configure(&["allow_anonymous true", &acl]);
    broker.restart();
    let state = TempDir::new().unwrap();
    let v5 = MqttConfig { protocol: MqttProtocol::V5, ..config(broker.port()) };
    let tested = Box::start(&v5, state.path());
    tested.wait_connected();
    tested.notices(0..3);
    // Three notices, and three about them.
    wait_until("six dead letters", || tested.metrics.dead_letters.get() == 6);
    wait_until("nothing pending", || tested.metrics.spool_pending.get() == 0);
    tested.publisher.retain(tested.publisher.topics().info(), b"{}".to_vec());
    wait_until("two more", || tested.metrics.dead_letters.get() == 8);
    assert_eq!((tested.metrics.failures.get(), tested.metrics.connects.get()), (0, 1));
    tested.finish();
}

#[test]
fn a_frozen_broker_stalls_nobody_and_is_left() {
    let broker = Mosquitto::start(&[]);
    let state = TempDir::new().unwrap();
    let v5 = MqttConfig { protocol: MqttProtocol::V5, ..config(broker.port()) };
    let tested = Box::start(&v5, state.path());
    tested.wait_connected();
    broker.signal("STOP");
    let started = Instant::now();
    for n in 0..20_000 {
        tested.publisher.detections(&gate(), &detections(n));
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(tested.metrics.detections_dropped.get() > 0);
    // 1.5 times the keep-alive and 10 s, on a busy machine.
    within(Duration::from_secs(40), "the silence is noticed", || tested.metrics.failures.get() == 1);
    broker.signal("CONT");
    wait_until("a new connection", || tested.metrics.connects.get() == 2);
    tested.finish();
}

#[test]
fn a_damaged_spool_is_moved_aside_and_told_of_and_what_is_whole_in_it_is_sent() {
    let port = free_port();
    let state = TempDir::new().unwrap();
    let tested = Box::start(&config(port), state.path());
    tested.notices(0..3);
    tested.finish();
    let path = state.path().join("spool.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..512].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let mut broker = Mosquitto::prepare(port);
    broker.restart();
    let subscriber = Subscriber::start(broker.port(), "watchpost/box/notice", None);
    let tested = Box::start(&config(broker.port()), state.path());
    for n in 0..3 {
        let seen = notice(&subscriber.next().body);
        assert_eq!((seen.text, seen.replayed), (format!("n{n}"), true));
    }
    let told = notice(&subscriber.next().body);
    assert_eq!(told.kind, NoticeKind::SpoolReset);
    assert!(told.text.contains("spool.redb.corrupt-1") && told.text.contains(": 3;"), "{}", told.text);
    let identity = Identity { node: "box".to_owned(), boot: "0123ab".to_owned() };
    let metrics = PublishMetrics::default();
    let second =
        publish::start(Wanted::default(), &config(broker.port()), identity, state.path(), metrics, bounded(1).0)
            .err();
    assert!(matches!(second, Some(publish::PublishError::Spool { .. })));
    tested.finish();
}
