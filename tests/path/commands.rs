//! Commands by MQTT, from the broker to what comes of them, and their acknowledgements over MQTT 5 and 3.1.1.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use watchpost::config::{MqttConfig, MqttProtocol};
use watchpost::event::{CameraStatus, NoticeKind};
use watchpost::publish::{Acknowledgement, Command as ToDo};

use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, Heard, camera, lost_no_frame, witness};
use crate::support::mosquitto::{Mosquitto, PATIENCE, Subscriber, wait_until};
use crate::support::publisher::{Box, config, gate, notice};

const LIMIT: Duration = Duration::from_secs(120);
const COMES: &str = "{\"id\":\"comes\",\"url\":\"test://?size=320x240&fps=5\"}";

/// Asks over MQTT 5 with a response topic and correlation data; the answer, which has to carry the same.
pub fn ask(daemon: &Daemon, topic: &str, body: &str) -> Acknowledgement {
    let done = Command::new("mosquitto_rr")
        .args(["-V", "5", "-h", "127.0.0.1", "-p", &daemon.port().to_string(), "-q", "1", "-W", "30"])
        .args(["-t", &format!("watchpost/box/{topic}"), "-e", "answers/7", "-m", body])
        .args(["-D", "publish", "correlation-data", "id-7", "-F", "%D %p"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let body = text.strip_prefix("id-7 ").unwrap_or_else(|| panic!("{text:?} {done:?}"));
    serde_json::from_str(body).unwrap()
}

/// Asks over MQTT 3.1.1; the answer on the command's result topic.
pub fn tell(daemon: &mut Daemon, name: &str, body: &[u8]) -> Acknowledgement {
    let (topic, asked) = match name.starts_with("cam/") {
        true => ("cmd/enabled/result".to_owned(), name.to_owned()),
        false => (format!("cmd/{name}/result"), format!("cmd/{name}")),
    };
    daemon.listen();
    daemon.heard.texts.remove(&topic);
    daemon.publish_bytes(&asked, body);
    daemon.until("the answer", LIMIT, |heard| heard.texts.contains_key(&topic));
    serde_json::from_str(daemon.heard.text(&topic)).unwrap()
}

fn edit(action: &str, camera: &str) -> String {
    format!("{{\"action\":\"{action}\",\"camera\":{camera}}}")
}

#[test]
fn commands_are_carried_out_and_acknowledged_over_mqtt_5() {
    let _cores = all_cores();
    let mut daemon = Daemon::start_tiny("", &witness());
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0);
    let added = ask(&daemon, "cmd/camera", &edit("add", COMES));
    let text = added.text.unwrap();
    assert!(added.ok && text.contains("added: comes") && text.contains("until the next start or reload"), "{text}");
    daemon.until("the new camera", LIMIT, |heard| {
        heard.count("comes") > 0 && heard.is("comes", CameraStatus::Online)
    });
    let slower = "{\"id\":\"comes\",\"url\":\"test://?size=320x240&fps=5\",\"fps_max\":2}";
    let changed = ask(&daemon, "cmd/camera", &edit("change", slower));
    assert!(changed.ok && changed.text.unwrap().contains("built anew: comes"));
    let wrong = ask(&daemon, "cmd/camera", &edit("add", "{\"id\":\"x\",\"url\":\"gopher://x\",\"fps_max\":-1}"));
    let mut paths: Vec<&str> = wrong.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert!(!wrong.ok && wrong.error.is_some(), "{wrong:?}");
    paths.sort_unstable();
    assert_eq!(paths, ["camera[x].fps_max", "camera[x].url"]);
    let off = ask(&daemon, "cam/comes/enabled/set", "OFF");
    assert!(off.ok, "{off:?}");
    daemon.until("the camera to be off", LIMIT, |heard| heard.is("comes", CameraStatus::Disabled));
    let faster = "{\"id\":\"comes\",\"url\":\"test://?size=320x240&fps=5\",\"fps_max\":3}";
    assert!(ask(&daemon, "cmd/camera", &edit("change", faster)).ok);
    let before = daemon.heard.count("witness");
    daemon.until("what was on its way", LIMIT, |heard| heard.count("witness") > before + 2);
    let count = daemon.heard.count("comes");
    daemon.until("time", LIMIT, |heard| heard.count("witness") > before + 10);
    assert_eq!(daemon.heard.count("comes"), count, "built anew it is still off");
    // The file knows nothing of the camera that was added.
    let reloaded = ask(&daemon, "cmd/reload", "");
    assert!(reloaded.ok && reloaded.text.unwrap().contains("removed: comes"));
    daemon.until("its topics to be cleared", LIMIT, |heard| {
        heard.text("cam/comes/state").is_empty() && heard.text("cam/comes/status").is_empty()
    });
    daemon.write(&(witness() + &camera("bad", "gopher://x", "")));
    let refused = ask(&daemon, "cmd/reload", "{}");
    assert!(!refused.ok && refused.problems[0].line.is_some(), "{refused:?}");
    lost_no_frame(&daemon);
    assert!(daemon.stop().0.success());
}

#[test]
fn without_a_response_topic_the_result_topic_has_the_answer() {
    let mut daemon = Daemon::start_tiny("", &witness());
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0);
    let added = tell(&mut daemon, "camera", edit("add", COMES).as_bytes());
    assert!(added.ok && added.command == "camera", "{added:?}");
    daemon.until("the new camera", LIMIT, |heard| heard.count("comes") > 0);
    let removed = tell(&mut daemon, "camera", edit("remove", "{\"id\":\"comes\"}").as_bytes());
    assert!(removed.ok && removed.text.unwrap().contains("removed: comes"));
    // The same name again, at once: its numbers go on, and its topics are there.
    assert!(tell(&mut daemon, "camera", edit("add", COMES).as_bytes()).ok);
    let before = daemon.heard.count("comes");
    daemon.until("its frames", LIMIT, |heard| heard.count("comes") > before + 2);
    daemon.until("its state", LIMIT, |heard| heard.text("cam/comes/status") == "online");
    let seqs: Vec<u64> = daemon.heard.of("comes").iter().map(|(_, message)| message.seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    let off = tell(&mut daemon, "cam/comes/enabled/set", b"OFF");
    assert!(off.ok && off.command == "enabled/set" && off.text.as_ref().unwrap().contains("comes"), "{off:?}");
    daemon.until("the camera to be off", LIMIT, |heard| heard.is("comes", CameraStatus::Disabled));
    let nobody = tell(&mut daemon, "cam/nobody/enabled/set", b"OFF");
    assert!(!nobody.ok && nobody.error.as_ref().unwrap().contains("nobody"), "{nobody:?}");
    assert!(!tell(&mut daemon, "camera", edit("remove", "{\"id\":\"nobody\"}").as_bytes()).ok);
    assert!(tell(&mut daemon, "reload", b"").ok);
    assert!(daemon.stop().0.success());
}

#[test]
fn hostile_and_retained_commands_change_nothing_and_are_told() {
    let mut daemon = Daemon::start_tiny("", &witness());
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0 && heard.texts.contains_key("info"));
    let before = daemon.heard.text("info").to_owned();
    let mut hostile: Vec<(&str, Vec<u8>)> = vec![
        ("camera", b"{".to_vec()),
        ("camera", vec![b'['; 60_000]),
        ("camera", edit("add", "\"rtsp://u:planted@h/\"").into_bytes()),
        ("camera", edit("add", "{\"id\":\"a/b\",\"url\":\"test://\"}").into_bytes()),
        ("camera", edit("add", "{\"id\":\"witness\",\"url\":\"test://\"}").into_bytes()),
        ("camera", edit("remove", "{\"id\":\"witness\"}").into_bytes()),
        ("snapshot", b"witness".to_vec()),
        ("snapshot", b"{\"camera\":\"nobody\"}".to_vec()),
        ("reboot", Vec::from(*b"now")),
        ("reload", b"{\"force\":true}".to_vec()),
    ];
    hostile.push(("camera", vec![b' '; 70_000]));
    hostile.push(("camera", (0..=255).cycle().take(50_000).collect()));
    let set = "cam/witness/enabled/set";
    hostile.extend([
        (set, b"perhaps".to_vec()),
        (set, vec![b'F'; 70_000]),
        (set, vec![0xff; 100]),
        (set, Vec::new()),
    ]);
    let told_of =
        |heard: &Heard| heard.notices.iter().filter(|(_, n)| n.kind == NoticeKind::CommandRefused).count();
    for (name, body) in hostile {
        let told = told_of(&daemon.heard);
        let answer = tell(&mut daemon, name, &body);
        assert!(!answer.ok && answer.error.is_some(), "{answer:?}");
        daemon.until("a notice", LIMIT, |heard| told_of(heard) > told);
    }
    // To a daemon that was there already 3.1.1 could not tell it from another; MQTT 5 can.
    daemon.publish_retained("cmd/camera", &edit("add", COMES));
    assert!(tell(&mut daemon, "reload", b"").ok, "and it goes on");
    let log = daemon.log();
    assert!(log.contains("cmd/camera: a retained command is ignored") && !log.contains("planted"), "{log}");
    assert_eq!(daemon.heard.text("info"), before);
    assert!(!daemon.heard.states.contains_key("comes"));
    daemon.finish();
}

/// Where the sender wants the answer is checked before anything is done.
#[test]
fn answers_do_not_go_where_the_box_says_other_things() {
    let mut daemon = Daemon::start_tiny("", &witness());
    daemon.until("frames", LIMIT, |heard| heard.count("witness") > 0);
    let result = "cmd/camera/result";
    daemon.heard.texts.remove(result);
    let done = Command::new("mosquitto_pub")
        .args(["-V", "5", "-h", "127.0.0.1", "-p", &daemon.port().to_string(), "-q", "1"])
        .args(["-t", "watchpost/box/cmd/camera", "-m", &edit("add", COMES)])
        .args(["-D", "publish", "response-topic", "watchpost/box/status"])
        .status()
        .unwrap();
    assert!(done.success());
    daemon.until("the refusal", LIMIT, |heard| heard.text(result).contains("one of this box's own"));
    assert_eq!(daemon.heard.text("status"), "online");
    assert!(!daemon.heard.states.contains_key("comes"));
    daemon.finish();
}

/// Over MQTT 5 the broker keeps it to itself. Over 3.1.1 it ends two connections; on the next no command is asked for, and all
/// others are sent.
#[test]
fn a_kept_command_that_is_too_large_does_not_end_every_connection() {
    let huge = "x".repeat(5 << 20);
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let (mut broker, state) = (Mosquitto::start(&[]), TempDir::new().unwrap());
        let watch = Subscriber::start(broker.port(), "watchpost/box/+", None);
        watch.publish("watchpost/box/cmd/camera", &huge, true);
        assert_eq!(Subscriber::start(broker.port(), "watchpost/box/cmd/+", None).next().body.len(), huge.len());
        let tested = Box::start(&MqttConfig { protocol, ..config(broker.port()) }, state.path());
        let online = || while watch.next_of("watchpost/box/status").text() != "online" {};
        let is_heard = || {
            watch.publish("watchpost/box/cmd/reload", "", false);
            assert_eq!(tested.commands.recv_timeout(PATIENCE).map(|asked| asked.command), Ok(ToDo::Reload));
        };
        if protocol == MqttProtocol::V5 {
            online();
            is_heard();
            watch.publish("watchpost/box/cmd/camera", &huge, false);
            is_heard();
            assert_eq!(tested.finish().failures.get(), 0);
            continue;
        }
        // One that the connection's end kept from being acknowledged comes twice.
        let told = |words: &str| while !notice(&watch.next_of("watchpost/box/notice").body).text.contains(words) {};
        told("more than 4 MiB came to watchpost/box/cmd/+");
        told("keeps a message of more than 4 MiB");
        wait_until("a connection without commands", || tested.metrics.connects.get() == 3);
        tested.notices(0..1);
        told("n0");
        assert_eq!((tested.metrics.failures.get(), tested.metrics.connected.get()), (2, 1));
        // This broker keeps nothing over its end.
        broker.restart();
        watch.messages.try_iter().for_each(drop);
        online();
        is_heard();
        // Not kept, it ends one connection.
        watch.publish("watchpost/box/cmd/camera", &huge, false);
        assert_eq!(watch.next_of("watchpost/box/status").text(), "offline");
        online();
        is_heard();
        tested.finish();
    }
}

#[test]
fn what_came_of_a_command_is_told_by_both_protocols() {
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let broker = Mosquitto::start(&[]);
        let state = TempDir::new().unwrap();
        let subscriber = Subscriber::start(broker.port(), "watchpost/#", None);
        let tested = Box::start(&MqttConfig { protocol, ..config(broker.port()) }, state.path());
        tested.wait_connected();
        subscriber.next_of("watchpost/box/status");
        subscriber.publish("watchpost/box/cmd/reload", "", false);
        let asked = tested.commands.recv_timeout(PATIENCE).unwrap();
        assert_eq!(asked.command, ToDo::Reload);
        let done = Acknowledgement::done("reload", "nothing changes".to_owned());
        tested.publisher.acknowledge(asked.reply.unwrap(), &done);
        let told = subscriber.next_of("watchpost/box/cmd/reload/result");
        assert_eq!((serde_json::from_slice(&told.body).ok(), told.retained), (Some(done), false));
        subscriber.publish("watchpost/box/cmd/camera", "no JSON", false);
        let told = subscriber.next_of("watchpost/box/cmd/camera/result");
        let refused: Acknowledgement = serde_json::from_slice(&told.body).unwrap();
        assert!(!refused.ok && refused.error.unwrap().contains("it is not JSON"));
        tested.finish();
    }
}

#[test]
fn a_retained_command_is_ignored_and_a_live_one_obeyed() {
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let broker = Mosquitto::start(&[]);
        let state = TempDir::new().unwrap();
        let subscriber = Subscriber::start(broker.port(), "watchpost/#", None);
        let set = "watchpost/box/cam/gate/enabled/set";
        subscriber.publish(set, "OFF", true);
        subscriber.next_of(set);
        let tested = Box::start(&MqttConfig { protocol, ..config(broker.port()) }, state.path());
        tested.wait_connected();
        subscriber.next_of("watchpost/box/status");
        subscriber.publish(set, "perhaps", false);
        let refusal = notice(&subscriber.next_of("watchpost/box/notice").body);
        assert_eq!((refusal.kind, refusal.camera.as_deref()), (NoticeKind::CommandRefused, Some("gate")));
        subscriber.publish(set, "ON", false);
        let on = ToDo::SetEnabled { camera: gate(), on: true };
        assert_eq!(
            tested.commands.recv_timeout(PATIENCE).map(|asked| asked.command),
            Ok(on.clone()),
            "and not OFF"
        );
        assert!(tested.commands.is_empty());
        // To a subscriber that is there, 3.1.1 hands a retained message over like any other.
        subscriber.publish(set, "OFF", true);
        subscriber.next_of(set);
        let off = ToDo::SetEnabled { camera: gate(), on: false };
        match protocol {
            MqttProtocol::V4 => {
                assert_eq!(tested.commands.recv_timeout(PATIENCE).map(|asked| asked.command), Ok(off))
            }
            _ => {
                subscriber.publish(set, "ON", false);
                assert_eq!(
                    tested.commands.recv_timeout(PATIENCE).map(|asked| asked.command),
                    Ok(on),
                    "and not OFF"
                );
            }
        }
        tested.finish();
    }
}
