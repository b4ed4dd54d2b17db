//! A broker that fails in every way a broker, its host and the network between can, while events flow: none is lost,
//! each camera's come in order, and twice only what QoS 1 allows.
//!
//! `WATCHPOST_CYCLES=100 cargo test --test chaos broker -- --nocapture` is the long form.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watchpost::config::{MqttConfig, MqttProtocol, Secret};
use watchpost::event::{Event, EventKind};
use watchpost::publish::Publisher;
use watchpost::worker::spawn;

use crate::support::certificates::{certificates, dated_server_certificate};
use crate::support::link::{Condition, Link};
use crate::support::mosquitto::{Mosquitto, PATIENCE, Subscriber, free_port, within};
use crate::support::publisher::{Box, config, event, tls};

/// Messages in flight at most: as many may come twice at each connection.
const WINDOW: u64 = 16;
const CAMERAS: [&str; 4] = ["gate", "yard", "hall", "dock"];
/// One event each.
const PACE: Duration = Duration::from_millis(8);
/// From a fault mended to everything sent: back-off, and what has waited.
const RECOVERY: Duration = Duration::from_secs(60);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    StoppedAndStarted,
    ForgotEverything,
    Cut,
    CutAgainAndAgain,
    Pause,
    Hole,
    Slow,
    Refusing,
    Deaf,
    WrongPassword,
    NewCertificate,
    StrangeCertificate,
}

const IN_THE_CLEAR: &[Fault] = &[
    Fault::Killed,
    Fault::StoppedAndStarted,
    Fault::ForgotEverything,
    Fault::Cut,
    Fault::CutAgainAndAgain,
    Fault::Pause,
    Fault::Hole,
    Fault::Slow,
    Fault::Refusing,
    Fault::Deaf,
    // Half a minute each, by design.
    Fault::WrongPassword,
];
const OVER_TLS: &[Fault] = &[
    Fault::Killed,
    Fault::Cut,
    Fault::CutAgainAndAgain,
    Fault::Pause,
    Fault::Slow,
    Fault::NewCertificate,
    Fault::StrangeCertificate,
];

/// A box that says one event after the other, by a link to a broker that somebody listens to.
struct Scene {
    broker: Mosquitto,
    link: Link,
    subscriber: Subscriber,
    tested: Box,
    random: fastrand::Rng,
    /// Lines of the broker's configuration, and those that keep the box out.
    lines: [Vec<String>; 2],
    certificates: TempDir,
    seen: BTreeMap<String, Vec<u64>>,
}

impl Scene {
    /// Cycles of faults, each as often as the others.
    fn run(mut self, faults: &[Fault], cycles: usize) {
        let stop = Arc::new(AtomicBool::new(false));
        let speaker = speak(self.tested.publisher.clone(), Arc::clone(&stop));
        let mut deck = Vec::new();
        for cycle in 0..cycles {
            if deck.is_empty() {
                deck = faults.to_vec();
                self.random.shuffle(&mut deck);
            }
            let fault = deck.pop().unwrap();
            let (begun, connects) = (Instant::now(), self.tested.metrics.connects.get());
            self.fail(fault);
            let mended = Instant::now();
            if !matches!(fault, Fault::Pause | Fault::Slow) {
                let metrics = self.tested.metrics.clone();
                within(RECOVERY, &format!("a new connection after {fault:?}"), || {
                    metrics.connects.get() > connects
                });
            }
            self.recover(fault);
            println!("{cycle}: {fault:?} for {:?}, sent after {:?}", mended - begun, mended.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        let said = speaker.join().unwrap();
        self.recover(Fault::Pause);
        self.finish(said, cycles);
    }

    fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.restart(true, 0),
            Fault::StoppedAndStarted => self.restart(false, 0),
            Fault::ForgotEverything => {
                self.broker.kill();
                let _ = std::fs::remove_file(self.broker.dir().join("mosquitto.db"));
                self.restart(true, 0);
            }
            Fault::Cut => self.link.cut(),
            Fault::CutAgainAndAgain => {
                for _ in 0..3 {
                    self.link.cut();
                    self.tested.wait_connected();
                }
            }
            Fault::Pause => self.condition_for(Condition::Hole, 2000),
            Fault::Slow => self.condition_for(Condition::Slow, 4000),
            Fault::Hole => self.condition_until_left(Condition::Hole),
            Fault::Deaf => self.condition_until_left(Condition::Deaf),
            Fault::Refusing => {
                self.link.set(Condition::Refusing);
                self.link.cut();
                self.tested.wait_problem("refused the connection");
            }
            Fault::WrongPassword => {
                self.restart(true, 1);
                self.tested.wait_problem("refused the user \"box\"");
                self.restart(true, 0);
            }
            Fault::NewCertificate => {
                dated_server_certificate(self.certificates.path(), ("2020", "2090"));
                self.restart(true, 0);
            }
            Fault::StrangeCertificate => {
                self.restart(true, 1);
                self.tested.wait_problem("not from an authority that is trusted here");
                self.restart(true, 0);
            }
        }
        self.link.set(Condition::Good);
    }

    /// The broker goes and comes back; nobody gets in before whoever listens.
    fn restart(&mut self, killed: bool, lines: usize) {
        if !killed {
            self.broker.stop();
        }
        self.broker.kill();
        self.link.set(Condition::Away);
        self.link.cut();
        self.collect();
        let lines: Vec<&str> = self.lines[lines].iter().map(String::as_str).collect();
        self.broker.configure(&lines);
        self.subscriber.subscribed.try_iter().for_each(drop);
        self.broker.restart();
        self.subscriber.subscribed.recv_timeout(PATIENCE).unwrap();
        self.link.set(Condition::Good);
    }

    fn condition_for(&mut self, condition: Condition, most_ms: u64) {
        self.link.set(condition);
        std::thread::sleep(Duration::from_millis(self.random.u64(most_ms / 4..most_ms))); // the fault itself
    }

    fn condition_until_left(&mut self, condition: Condition) {
        let failures = self.tested.metrics.failures.get();
        self.link.set(condition);
        // 1.5 times the keep-alive and 10 s, on a busy machine.
        within(Duration::from_secs(40), "the connection is given up", || {
            self.tested.metrics.failures.get() > failures
        });
        self.link.set(Condition::Good);
        // What is still on its way comes, or not, before anything new.
        self.link.cut();
    }

    fn recover(&mut self, fault: Fault) {
        let metrics = self.tested.metrics.clone();
        within(RECOVERY, &format!("a connection after {fault:?}"), || metrics.connected.get() == 1);
        within(RECOVERY, &format!("everything is sent after {fault:?}"), || {
            self.collect();
            metrics.spool_pending.get() <= WINDOW as i64
        });
    }

    fn collect(&mut self) {
        for message in self.subscriber.messages.try_iter() {
            let event: Event = serde_json::from_slice(&message.body).unwrap();
            self.seen.entry(event.camera.to_string()).or_default().push(event.seq);
        }
    }

    fn finish(mut self, said: u64, cycles: usize) {
        let metrics = self.tested.metrics.clone();
        within(RECOVERY, "all is acknowledged", || metrics.spool_pending.get() == 0);
        // What the broker relays in order comes before this.
        let last = BTreeMap::from_iter(CAMERAS.map(|camera| (camera.to_owned(), said - 1)));
        within(PATIENCE, "the last events", || {
            self.collect();
            last.iter().all(|(camera, seq)| self.seen.get(camera).is_some_and(|seen| seen.contains(seq)))
        });
        let (total, first_times) = (self.seen.values().map(Vec::len).sum::<usize>() as u64, said * 4);
        for (camera, seen) in &self.seen {
            assert_in_order(camera, seen, said);
        }
        let connects = metrics.connects.get();
        let twice = total - first_times;
        assert!(twice <= connects * WINDOW, "{twice} came twice in {connects} connections");
        assert_eq!((metrics.spool_dropped.get(), metrics.dead_letters.get()), (0, 0));
        println!("{cycles} cycles, {connects} connections: {first_times} events, 0 lost, {twice} twice");
        self.tested.finish();
    }
}

/// Checks that first sights are in order without a gap, and that what comes again is of the window.
fn assert_in_order(camera: &str, seen: &[u64], total: u64) {
    let mut next = 0;
    for seq in seen {
        assert!(*seq <= next, "{camera}: {next} is missing before {seq}");
        assert!(*seq + WINDOW >= next, "{camera}: {seq} comes again after {next}, beyond the window");
        next = next.max(seq + 1);
    }
    assert_eq!(next, total, "{camera}");
}

/// Says tracks that come and go, until told to stop; how many events each camera had.
fn speak(publisher: Publisher, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    spawn("speaker", move || {
        let mut said = 0;
        while !stop.load(Ordering::Relaxed) || said % 2 == 1 {
            for camera in CAMERAS {
                let kind = if said % 2 == 0 { EventKind::New } else { EventKind::End };
                let id = format!("{camera}-0123ab-{}", said / 2);
                publisher.event(Event { camera: camera.to_owned(), id, ..event(kind) });
                std::thread::sleep(PACE); // a pace, not a wait
            }
            said += 1;
        }
        said
    })
}

/// Cycles, and the seed of what is random.
fn cycles(short: usize) -> (usize, fastrand::Rng) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("WATCHPOST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("WATCHPOST_SEED={seed}");
    (number("WATCHPOST_CYCLES").map_or(short, |cycles| cycles as usize), fastrand::Rng::with_seed(seed))
}

fn in_the_clear(protocol: MqttProtocol) {
    let (cycles, random) = cycles(IN_THE_CLEAR.len());
    let mut broker = Mosquitto::prepare(free_port());
    let kept = ["persistence true".to_owned(), format!("persistence_location {}/", broker.dir().display())];
    let other = format!("password_file {}", broker.password_file("box", "other"));
    let right = format!("password_file {}", broker.password_file("box", "s3cret-word"));
    // Who listens has no name.
    let lines = [right, other].map(|file| [&kept[..], &["allow_anonymous true".to_owned(), file]].concat());
    broker.configure(&lines[0].iter().map(String::as_str).collect::<Vec<_>>());
    broker.restart();
    let link = Link::mqtt(broker.port());
    let state = TempDir::new().unwrap();
    let config = MqttConfig {
        protocol,
        user: Some("box".to_owned()),
        password: Some(Secret::new("s3cret-word".to_owned())),
        ..config(link.port())
    };
    scene(broker, link, &config, state.path(), random, lines, TempDir::new().unwrap()).run(IN_THE_CLEAR, cycles);
}

fn scene(
    broker: Mosquitto,
    link: Link,
    config: &MqttConfig,
    state: &Path,
    random: fastrand::Rng,
    lines: [Vec<String>; 2],
    certificates: TempDir,
) -> Scene {
    // Where TLS is spoken, who listens comes by a second door.
    let door =
        if lines[0].iter().any(|line| line.starts_with("certfile")) { door(&lines[0]) } else { broker.port() };
    let subscriber = Subscriber::start(door, "watchpost/box/cam/+/events", None);
    let tested = Box::start(config, state);
    tested.wait_connected();
    Scene { broker, link, subscriber, tested, random, lines, certificates, seen: BTreeMap::new() }
}

/// The port of the second listener.
fn door(lines: &[String]) -> u16 {
    let line = lines.iter().find_map(|line| line.strip_prefix("listener ")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_broker_that_fails_in_every_way_loses_nothing_over_mqtt_5() {
    in_the_clear(MqttProtocol::V5);
}

#[test]
fn a_broker_that_fails_in_every_way_loses_nothing_over_mqtt_3_1_1() {
    in_the_clear(MqttProtocol::V4);
}

#[test]
fn a_broker_that_fails_in_every_way_loses_nothing_over_tls() {
    let (cycles, random) = cycles(OVER_TLS.len());
    let dir = TempDir::new().unwrap();
    let strange = dir.path().join("strange");
    std::fs::create_dir(&strange).unwrap();
    certificates(dir.path(), "ours", "IP:127.0.0.1");
    certificates(&strange, "theirs", "IP:127.0.0.1");
    let mut broker = Mosquitto::prepare(free_port());
    let door = format!("listener {} 127.0.0.1", free_port());
    let lines = [dir.path(), &strange].map(|of| {
        let file = |option: &str, name: &str| format!("{option} {}", of.join(name).display());
        let (cert, key) = (file("certfile", "server.pem"), file("keyfile", "server.key"));
        vec![cert, key, "allow_anonymous true".to_owned(), door.clone()]
    });
    broker.configure(&lines[0].iter().map(String::as_str).collect::<Vec<_>>());
    broker.restart();
    let link = Link::opaque(broker.port());
    let state = TempDir::new().unwrap();
    let config = tls(link.port(), dir.path(), None);
    scene(broker, link, &config, state.path(), random, lines, dir).run(OVER_TLS, cycles);
}
