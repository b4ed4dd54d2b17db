//! CloudEvents and DeepStream as others read them from a broker: both modes of the one, the whole schema of the other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use watchpost::event::{CameraStatus, Event};

use super::events::{consumer, lives};
use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::Daemon;
use crate::support::mosquitto::Witness;
use crate::support::schemas;

const LIMIT: Duration = Duration::from_secs(120);
const CLOUD: &str = "watchpost/box/cam/walk/cloudevents";
const LAST: &str = "watchpost/box/end-of-test";

/// A camera on the clip, read fast, and a consumer's section.
fn sections(consumers: &str) -> Option<String> {
    let walk = clip(Clip::H264)?;
    let camera = format!("[[camera]]\nid = \"walk\"\nurl = {walk:?}\npace = \"fast\"\n");
    Some(format!("{camera}{consumers}[events]\nlabels = [\"person\"]\n"))
}

/// Until the file is over and everybody has left it.
fn play(daemon: &mut Daemon) {
    daemon.until("the end of the file", LIMIT, |heard| heard.is("walk", CameraStatus::Finished));
    daemon.until("no person left", LIMIT, |heard| {
        heard.text("cam/walk/count/person") == "0" && lives(&heard.events).values().all(|life| life.len() > 1)
    });
    daemon.finish();
}

/// Mosquitto's own subscriber over MQTT 5, which has subscribed: topic, content type, user properties and body a line, between bars.
fn mosquitto_sub(port: u16) -> (Child, Lines<BufReader<ChildStdout>>) {
    let port = port.to_string();
    let at = ["-V", "5", "-h", "127.0.0.1", "-p", &port, "-q", "1"];
    let kept = Command::new("mosquitto_pub").args(at).args(["-t", "ready", "-r", "-m", "yes"]).status().unwrap();
    assert!(kept.success());
    let mut child = Command::new("mosquitto_sub")
        .args(at)
        .args(["-t", CLOUD, "-t", LAST, "-t", "ready", "-F", "%t|%C|%P|%p"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready|||yes");
    (child, lines)
}

#[test]
fn cloudevents_over_mqtt_5_have_their_envelope_in_user_properties() {
    let _cores = all_cores();
    let Some(sections) = sections(&consumer("cloudevents")) else { return };
    let mut reader = None;
    let by = |port| {
        reader = Some(mosquitto_sub(port));
        port
    };
    let Some(mut daemon) = Daemon::start_by(TempDir::new().unwrap(), Vec::new(), "", &sections, by) else { return };
    let (mut reader, lines) = reader.unwrap();
    play(&mut daemon);
    let lines: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.starts_with(LAST)).collect();
    reader.kill().unwrap();
    reader.wait().unwrap();
    let events = &daemon.heard.events;
    assert_eq!(lines.len(), events.len(), "one each");
    for (line, event) in lines.iter().zip(events) {
        let [topic, content, properties, body] = line.splitn(4, '|').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!((topic, content), (CLOUD, "application/json"));
        let said: Event = serde_json::from_str(body).unwrap();
        assert_eq!(said, *event, "as in `events`");
        let kind = serde_json::to_value(event.kind).unwrap();
        let wanted = BTreeMap::from([
            ("specversion", "1.0".to_owned()),
            ("id", format!("{}-{}", event.boot, event.seq)),
            ("source", "/watchpost/box/cam/walk".to_owned()),
            ("type", format!("watchpost.event.{}", kind.as_str().unwrap())),
            ("subject", event.id.clone()),
            ("time", event.ts.captured.clone()),
        ]);
        let properties: BTreeMap<&str, String> = properties
            .split(' ')
            .map(|pair| pair.split_once(':').unwrap())
            .map(|(k, v)| (k, v.to_owned()))
            .collect();
        assert_eq!(properties, wanted);
    }
}

#[test]
fn over_mqtt_3_1_1_cloudevents_are_structured_and_deepstream_is_whole() {
    let _cores = all_cores();
    let deepstream = consumer("deepstream") + "schema = \"full\"\n";
    let Some(sections) = sections(&(deepstream + &consumer("cloudevents"))) else { return };
    let mut witness = None;
    let by = |port| {
        witness = Some(Witness::start(port, "watchpost/box/#"));
        port
    };
    let Some(mut daemon) = Daemon::start_over("protocol = \"3.1.1\"\n", &sections, by) else { return };
    let witness = witness.unwrap();
    play(&mut daemon);
    let (mut clouds, mut objects) = (Vec::new(), 0);
    for message in witness.until(LAST) {
        let Some(channel) = schemas::check(&message.topic, &message.body) else { continue };
        match message.topic.rsplit('/').next() {
            Some("cloudevents") => {
                assert_eq!(channel.name, "cloudEvents");
                let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
                assert_eq!(
                    body["id"],
                    format!("{}-{}", body["data"]["boot"].as_str().unwrap(), body["data"]["seq"])
                );
                clouds.push(serde_json::from_value::<Event>(body["data"].clone()).unwrap());
            }
            Some("deepstream") => {
                assert_eq!(channel.name, "deepstreamFull");
                objects += 1;
            }
            _ => {}
        }
    }
    assert!(clouds == daemon.heard.events, "one each, in order");
    // Live messages may be dropped where the broker is slow; whole frames of them, and never more than were seen.
    let seen: usize = daemon.heard.of("walk").iter().map(|(_, message)| message.objects.len()).sum();
    assert!(objects > 0 && objects <= seen, "{objects} of {seen}");
}
