//! The embedded broker: its ordinary clients, and those that keep to nothing, who may hurt nobody but themselves.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command as Process, Output, Stdio};
use std::time::Duration;

use support::mosquitto::{PATIENCE, Subscriber, free_port, wait_until};
use support::publisher::{Box, DEVICES, config, detections, gate, homeassistant, notice};
use tempfile::TempDir;
use watchpost::config::{Broker, MqttConfig, MqttProtocol, Secret};
use watchpost::event::{Detections, NoticeKind};
use watchpost::publish::{Command, Wanted};

const NOTICES: &str = "watchpost/box/notice";
const STATUS: &str = "watchpost/box/status";

fn embedded(port: u16) -> MqttConfig {
    MqttConfig { broker: Broker::Embedded { listen: (Ipv4Addr::LOCALHOST, port).into() }, ..config(0) }
}

/// A publisher with the broker in it, and a client that does as it should.
struct Site {
    tested: Box,
    port: u16,
    good: Subscriber,
    notices: u32,
    _state: TempDir,
}

impl Site {
    fn start() -> Self {
        let (port, state) = (free_port(), TempDir::new().unwrap());
        let tested = Box::start(&embedded(port), state.path());
        tested.wait_connected();
        Self { tested, port, good: Subscriber::start(port, NOTICES, None), notices: 0, _state: state }
    }

    /// The publisher still publishes, the good client still gets it, and another is still let in.
    #[track_caller]
    fn serves_on(&mut self, after: &str) {
        self.good_client_gets_on(after);
        let other = Subscriber::start(self.port, STATUS, None);
        assert!(other.messages.recv_timeout(PATIENCE).is_ok_and(|m| m.retained && m.text() == "online"), "{after}");
    }

    #[track_caller]
    fn good_client_gets_on(&mut self, after: &str) {
        self.tested.notices(self.notices..self.notices + 1);
        let next = self.good.messages.recv_timeout(PATIENCE);
        let text = next.map(|message| notice(&message.body).text);
        assert_eq!(text, Ok(format!("n{}", self.notices)), "after {after}");
        assert_eq!(self.good.subscribed.len(), 0, "the good client was cut off by {after}");
        self.notices += 1;
    }

    fn raw(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Says something and then nothing more: what the broker answers before it closes.
    fn says(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.raw();
        let mut answer = Vec::new();
        // The broker may close in the middle of it.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            answer.extend_from_slice(&chunk[..length]);
        }
        answer
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut bytes, mut left) = (vec![first], body.len());
    while left > 127 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    [bytes, body.to_vec()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn connect(id: &str, clean: bool) -> Vec<u8> {
    packet(0x10, &[&text("MQTT")[..], &[4, u8::from(clean) << 1, 0, 30], &text(id)].concat())
}

fn publish(qos: u8, topic: &str, body: &[u8]) -> Vec<u8> {
    let id: &[u8] = if qos > 0 { &[0, 7] } else { &[] };
    packet(0x30 | qos << 1, &[&text(topic)[..], id, body].concat())
}

fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 9][..], &text(filter), &[qos]].concat())
}

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const SUBACK: [u8; 5] = [0x90, 3, 0, 9, 0];
const SUBACK_REFUSED: [u8; 5] = [0x90, 3, 0, 9, 0x80];
const PUBACK: [u8; 4] = [0x40, 2, 0, 7];

#[test]
fn frigates_available_has_its_own_connection_here_too() {
    let (port, state) = (free_port(), TempDir::new().unwrap());
    let wanted = Wanted { frigate: Some("frigate".to_owned()), ..Wanted::default() };
    let tested = Box::telling(wanted, &embedded(port), state.path());
    tested.wait_connected();
    let watch = Subscriber::start(port, "frigate/available", None);
    // Nobody has greeted: it is from the connection that holds the will.
    assert_eq!(watch.next().text(), "online");
    tested.publisher.take_leave();
    tested.finish();
    assert_eq!(watch.next().text(), "offline");
}

#[test]
fn home_assistants_birth_is_heard_here_too() {
    let (port, state) = (free_port(), TempDir::new().unwrap());
    let tested = Box::telling(homeassistant(), &embedded(port), state.path());
    tested.wait_connected();
    let watch = Subscriber::start(port, "homeassistant/#", None);
    let devices = || [watch.next(), watch.next()].map(|device| device.topic);
    tested.publisher.greet();
    assert_eq!(devices(), DEVICES);
    watch.publish("homeassistant/status", "online", false);
    assert_eq!(watch.next().topic, "homeassistant/status");
    assert_eq!(devices(), DEVICES);
    tested.finish();
}

#[test]
fn a_subscriber_over_3_1_1_gets_every_kind_of_message() {
    let (port, state) = (free_port(), TempDir::new().unwrap());
    let login = Some(("box", "s3cret-word"));
    let locked = MqttConfig {
        user: Some("box".to_owned()),
        password: Some(Secret::new("s3cret-word".to_owned())),
        // The embedded broker is spoken to in 3.1.1 all the same.
        protocol: MqttProtocol::V5,
        ..embedded(port)
    };
    let tested = Box::start(&locked, state.path());
    tested.wait_connected();
    let topic = tested.publisher.topics().camera_state(&gate());
    let jpeg = vec![0xd8; 1 << 20];
    let live = Subscriber::start(port, topic.as_str(), login);
    tested.publisher.retain(topic.clone(), jpeg.clone());
    assert!(live.next().body == jpeg);
    let all = Subscriber::start(port, "watchpost/#", login);
    let mut kept = [all.next(), all.next()];
    kept.sort_by(|a, b| a.topic.cmp(&b.topic));
    assert!(kept[0].topic == topic.as_str() && kept[0].retained && kept[0].body == jpeg);
    assert_eq!((kept[1].topic.as_str(), kept[1].retained, kept[1].text().as_str()), (STATUS, true, "online"));
    tested.publisher.detections(&gate(), &detections(1));
    tested.publisher.wake();
    let seen = all.next_of("watchpost/box/cam/gate/detections");
    assert_eq!(serde_json::from_slice::<Detections>(&seen.body).unwrap(), detections(1));
    tested.notices(0..1);
    assert_eq!(notice(&all.next_of(NOTICES).body).text, "n0");
    all.publish("watchpost/box/cam/gate/enabled/set", "ON", false);
    let on = Command::SetEnabled { camera: gate(), on: true };
    assert_eq!(tested.commands.recv_timeout(PATIENCE).map(|asked| asked.command), Ok(on));

    let refused = mosquitto("mosquitto_pub", port, "-u box -P wrong -t x -m x");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("bad user name or password"), "{words}");
    assert!(!mosquitto("mosquitto_pub", port, "-t x -m x").status.success());

    let metrics = tested.finish();
    assert_eq!(all.next_of(STATUS).text(), "offline", "before the broker ends");
    assert_eq!((metrics.spool_pending.get(), metrics.failures.get()), (0, 0));
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the broker has ended");
}

fn mosquitto(program: &str, port: u16, arguments: &str) -> Output {
    let port = port.to_string();
    Process::new(program).args(["-h", "127.0.0.1", "-p", &port]).args(arguments.split(' ')).output().unwrap()
}

#[test]
fn mosquittos_own_programs_are_served() {
    let mut site = Site::start();
    for qos in 0..3 {
        let sent = mosquitto("mosquitto_pub", site.port, &format!("-q {qos} -r -t kept/{qos} -m body"));
        assert!(sent.status.success(), "{sent:?}");
        let got = mosquitto("mosquitto_sub", site.port, &format!("-q {qos} -t kept/{qos} -C 1 -W 20 -F %t=%p=%r"));
        assert_eq!(String::from_utf8_lossy(&got.stdout), format!("kept/{qos}=body=1\n"));
    }
    let newer = mosquitto("mosquitto_sub", site.port, "-V 5 -t kept/0 -C 1 -W 20");
    assert!(!newer.status.success() && newer.stdout.is_empty(), "{newer:?}");
    let older = mosquitto("mosquitto_sub", site.port, "-V 31 -t kept/0 -C 1 -W 20");
    assert!(!older.status.success() && older.stdout.is_empty(), "{older:?}");

    let wills = Subscriber::start(site.port, "will", None);
    let arguments = "-t kept/1 -k 60 --will-topic will --will-payload gone";
    let mut child = Process::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &site.port.to_string()])
        .args(arguments.split(' '))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(wills.next().text(), "gone");
    site.serves_on("Mosquitto");
}

#[test]
fn every_breach_of_the_protocol_ends_its_own_connection_only() {
    let mut site = Site::start();
    let hello = connect("h", true);
    let then = |packets: &[Vec<u8>]| [hello.clone(), packets.concat()].concat();
    let level = |level: u8| packet(0x10, &[&text("MQTT")[..], &[level, 2, 0, 30, 0], &text("h")].concat());
    let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("nothing", vec![], vec![]),
        ("garbage", vec![0xff; 500], vec![]),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), vec![]),
        ("half a CONNECT", hello[..7].to_vec(), vec![]),
        ("a CONNECT that never ends", packet(0x10, &vec![0; 1 << 20]), vec![]),
        ("MQTT 5", level(5), vec![0x20, 3, 0, 0x84, 0]),
        ("MQTT 6", level(6), vec![0x20, 2, 0, 1]),
        ("no id in a session", connect("", false), vec![0x20, 2, 0, 2]),
        ("PUBLISH first", publish(0, "a", b"x"), vec![]),
        ("CONNECT twice", then(std::slice::from_ref(&hello)), CONNACK.to_vec()),
        ("PUBLISH to #", then(&[publish(1, "#", b"x")]), CONNACK.to_vec()),
        ("PUBLISH to nothing", then(&[publish(1, "", b"x")]), CONNACK.to_vec()),
        ("QoS 3", then(&[publish(3, "a", b"x")]), CONNACK.to_vec()),
        ("over the limit", then(&[vec![0x30, 0xff, 0xff, 0xff, 0x7f]]), CONNACK.to_vec()),
        ("a length of five bytes", then(&[vec![0x30, 0xff, 0xff, 0xff, 0xff, 1]]), CONNACK.to_vec()),
        ("acknowledgements of nothing", then(&[packet(0x40, &[0, 1]), packet(0x50, &[0, 1])]), CONNACK.to_vec()),
        ("SUBSCRIBE to nothing", then(&[subscribe("", 0)]), [&CONNACK[..], &SUBACK_REFUSED].concat()),
        ("SUBSCRIBE to a#/b+", then(&[subscribe("a#/b+", 1)]), [&CONNACK[..], &SUBACK_REFUSED].concat()),
        ("SUBSCRIBE shared", then(&[subscribe("$share/g/#", 1)]), [&CONNACK[..], &SUBACK_REFUSED].concat()),
        ("SUBSCRIBE at QoS 3", then(&[subscribe("a", 3)]), CONNACK.to_vec()),
        ("a topic beyond ASCII", then(&[publish(1, "Öl/Stand", b"x")]), [&CONNACK[..], &PUBACK].concat()),
        ("an id with a slash", connect("a/b", true), CONNACK.to_vec()),
        ("an id with a slash, again", connect("a/b", true), CONNACK.to_vec()),
        ("a session", [connect("p", false), subscribe("z", 1)].concat(), [&CONNACK[..], &SUBACK].concat()),
        ("a session, again", [connect("p", false), subscribe("z", 1)].concat(), [&CONNACK[..], &SUBACK].concat()),
    ];
    for (name, bytes, answer) in cases {
        assert_eq!(site.says(&bytes), answer, "{name}");
        site.serves_on(name);
    }
    // The second copy of a QoS 2 message is not passed on.
    let twice = [publish(2, NOTICES, b"once"), publish(2, NOTICES, b"once"), packet(0x62, &[0, 7])];
    let (pubrec, pubcomp) = ([0x50, 2, 0, 7], [0x70, 2, 0, 7]);
    assert_eq!(site.says(&then(&twice)), [CONNACK, pubrec, pubrec, pubcomp].concat());
    assert_eq!(site.good.next().text(), "once");
    site.serves_on("QoS 2");
}

#[test]
fn two_thousand_mutations_of_good_conversations_hurt_nobody() {
    let mut site = Site::start();
    let filters = [&[0, 9][..], &text("a/+"), &text("#")].concat();
    let parts = [
        connect("h", true),
        publish(0, "watchpost/a", b"x"),
        publish(1, "a/b", b"y"),
        publish(2, "z", &[7; 300]),
        packet(0x31, &[&text("kept")[..], b"body"].concat()),
        subscribe("#", 1),
        subscribe("a/+", 2),
        packet(0xa2, &filters),
        packet(0x62, &[0, 7]),
        packet(0xc0, &[]),
        packet(0xe0, &[]),
    ];
    let mut let_in = 0;
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = connect(["h", "p", "q", ""][random.usize(..4)], random.bool());
        for _ in 0..random.usize(1..8) {
            bytes.extend(&parts[random.usize(..parts.len())]);
        }
        for _ in 0..random.usize(..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = if random.bool() { random.u8(..) } else { bytes[at] ^ 1 << random.u8(..8) };
        }
        bytes.truncate(random.usize(bytes.len() / 2..=bytes.len()));
        let_in += usize::from(site.says(&bytes).starts_with(&CONNACK));
        if seed % 200 == 199 {
            // A mutation may well have published a notice of its own.
            site.good.messages.try_iter().for_each(drop);
            site.serves_on(&format!("seed {seed}"));
        }
    }
    assert!(let_in > 500, "{let_in} went further than CONNECT");
}

#[test]
fn the_65th_connection_waits_for_another_to_go() {
    let mut site = Site::start();
    // The publisher and the good client are there already.
    let mut held: Vec<_> = (0..62).map(|_| site.raw()).collect();
    for (n, stream) in held.iter_mut().enumerate() {
        stream.write_all(&connect(&format!("held-{n}"), true)).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, CONNACK);
    }
    assert!(site.says(&connect("one-more", true)).is_empty(), "closed at once");
    site.good_client_gets_on("64 connections");
    held.pop();
    wait_until("there is room again", || site.says(&connect("one-more", true)) == CONNACK);
    drop(held);
    wait_until("there is much room", || site.says(&connect("one-more", true)) == CONNACK);
    site.serves_on("they have gone");
}

#[test]
fn a_client_that_takes_nothing_holds_up_nobody() {
    let mut site = Site::start();
    let mut deaf = site.raw();
    deaf.write_all(&[connect("deaf", true), subscribe("#", 0)].concat()).unwrap();
    let topic = site.tested.publisher.topics().camera_state(&gate());
    let watching = Subscriber::start(site.port, topic.as_str(), None);
    for n in 0..60 {
        site.tested.publisher.retain(topic.clone(), vec![n; 1 << 20]);
        let body = watching.next().body;
        assert!(body.len() == 1 << 20 && body[0] == n);
    }
    site.serves_on("60 MiB that one did not take");
    // It was left; what the system still held for it comes, then the end.
    let mut taken = Vec::new();
    let ended = deaf.read_to_end(&mut taken);
    assert!(ended.is_err() || taken.len() < 60 << 20, "{ended:?}");
}

#[test]
fn an_address_that_is_taken_is_said_in_words() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = start_fails(&embedded(address.port()), TempDir::new().unwrap().path());
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    assert!(error.contains("give another mqtt.embedded_listen"), "{error}");
}

fn start_fails(config: &MqttConfig, state: &Path) -> String {
    use watchpost::{metrics::PublishMetrics, publish};
    let identity = publish::Identity { node: "box".to_owned(), boot: "0123ab".to_owned() };
    let commands = crossbeam::channel::bounded(1).0;
    let started = publish::start(Wanted::default(), config, identity, state, PublishMetrics::default(), commands);
    started.err().expect("it fails").to_string()
}

#[test]
fn a_broker_that_is_stopped_and_started_again_has_what_is_retained() {
    let (port, state) = (free_port(), TempDir::new().unwrap());
    for _ in 0..2 {
        let tested = Box::start(&embedded(port), state.path());
        let topic = tested.publisher.topics().camera_status(&gate());
        tested.publisher.retain(topic.clone(), b"online".to_vec());
        tested.publisher.notice(NoticeKind::Started, None, "again".to_owned());
        let late = Subscriber::start(port, topic.as_str(), None);
        assert_eq!(
            late.messages.recv_timeout(Duration::from_secs(10)).map(|message| message.text()),
            Ok("online".to_owned())
        );
        tested.finish();
    }
}
