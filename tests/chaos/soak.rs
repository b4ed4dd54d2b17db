//! Sixteen cameras with the real model, for hours, while the broker, the cameras, the configuration and the daemon itself fail at
//! random: memory stays where it is, and every frame and every event is accounted for.
//!
//! `WATCHPOST_SOAK_HOURS=1 cargo test --release --test chaos soak -- --nocapture` is the long form. Until a fifth of the time
//! is left, or 12 min, one process runs, whose memory is looked at; then it is stopped and killed again and again.

mod ledger;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;
use watchpost::event::{CameraStatus, FrameCounts, Health};

use crate::Held;
use crate::support::clips::{Clip, clip};
use crate::support::cores::all_cores;
use crate::support::daemon::{Daemon, camera};
use crate::support::link::{Condition, Link};
use crate::support::rtsp::RtspServer;
use ledger::Ledger;

const CAMERAS: usize = 16;
/// Of faults mended to everything as it was: back-off, and what has waited.
const RECOVERY: Duration = Duration::from_secs(120);
/// Cameras that are back later are named.
const LATE: Duration = Duration::from_secs(15);
/// Messages in flight at most.
const WINDOW: u64 = 16;
/// Frames of all cameras between decoder and analysis: in slots, in batches, and what is counted while it is looked at.
const ON_THEIR_WAY: i64 = 4 * CAMERAS as i64;
/// For how long the daemon is stopped and killed at the end, at most.
const RESTARTS: Duration = Duration::from_secs(12 * 60);

#[derive(Clone, Copy, Debug, PartialEq)]
enum BrokerFault {
    None,
    Killed,
    Frozen,
    Cut,
    Link(Condition),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum CameraFault {
    None,
    /// Some cameras' links, each in its own way.
    Links,
    /// The server of half of the cameras.
    Killed,
    Frozen,
    /// Both servers.
    AllKilled,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    None,
    /// One camera taken out, or in again.
    InOrOut,
    /// One camera's pipeline built anew.
    Rebuilt,
    /// One camera looked at by other rules.
    Rules,
    /// A configuration that is refused.
    Wrong,
}

const BROKER: &[BrokerFault] = &[
    BrokerFault::None,
    BrokerFault::Killed,
    BrokerFault::Frozen,
    BrokerFault::Cut,
    BrokerFault::Link(Condition::Hole),
    BrokerFault::Link(Condition::Slow),
    BrokerFault::Link(Condition::Refusing),
    BrokerFault::Link(Condition::Deaf),
];
const CAMERA: &[CameraFault] =
    &[CameraFault::None, CameraFault::Links, CameraFault::Killed, CameraFault::Frozen, CameraFault::AllKilled];
const CHANGE: &[Change] = &[Change::None, Change::InOrOut, Change::Rebuilt, Change::Rules, Change::Wrong];

/// How a camera is configured.
#[derive(Clone, Copy)]
struct Written {
    there: bool,
    fps_max: u32,
    zone: bool,
}

/// `/status`, what is looked at.
#[derive(Deserialize)]
struct Status {
    health: Option<Health>,
    mqtt_connected: bool,
}

struct Soak {
    daemon: Daemon,
    broker: Link,
    servers: [Option<RtspServer>; 2],
    ports: [u16; 2],
    links: Vec<Link>,
    stream: String,
    written: [Written; CAMERAS],
    random: fastrand::Rng,
    ledger: Ledger,
    frames: FrameCounts,
    /// Numbers of `/metrics` of the processes that have ended.
    past: BTreeMap<&'static str, u64>,
    samples: Vec<(Duration, Held)>,
    begun: Instant,
    longest: [Duration; 2],
    stops: Vec<Duration>,
    kills: usize,
    on_their_way: i64,
}

impl Soak {
    fn start(random: fastrand::Rng) -> Option<Self> {
        let stream = format!("walk={}", clip(Clip::Small)?.display());
        let servers = [(); 2].map(|()| RtspServer::start(&["--stream", &stream]));
        let ports = [servers[0].port, servers[1].port];
        let links: Vec<Link> = (0..CAMERAS).map(|n| Link::opaque(ports[n % 2])).collect();
        let written = [Written { there: true, fps_max: 2, zone: false }; CAMERAS];
        let mut broker = None;
        let by = |port| broker.insert(Link::mqtt(port)).port();
        let daemon = Daemon::start_by(TempDir::new().unwrap(), Vec::new(), "", &sections(&links, &written), by)?;
        Some(Self {
            daemon,
            broker: broker.unwrap(),
            servers: servers.map(Some),
            ports,
            links,
            stream,
            written,
            random,
            ledger: Ledger::default(),
            frames: FrameCounts::default(),
            past: BTreeMap::new(),
            samples: Vec::new(),
            begun: Instant::now(),
            longest: [Duration::ZERO; 2],
            stops: Vec::new(),
            kills: 0,
            on_their_way: 0,
        })
    }

    /// A fault of each kind, for a while of `most` at most, and everything as it was.
    fn cycle(&mut self, most: Duration) {
        let (broker, cameras, change) = (self.pick(BROKER), self.pick(CAMERA), self.pick(CHANGE));
        self.fail_broker(broker);
        self.fail_cameras(cameras);
        self.change(change);
        self.a_while(most);
        self.mend(broker);
        self.recover(&format!("{broker:?}, {cameras:?}, {change:?}"));
        self.samples.push((self.begun.elapsed(), Held::of(self.daemon.pid())));
    }

    /// The daemon stopped or killed, while something fails or nothing does, and started again.
    fn end(&mut self, most: Duration) {
        let (broker, cameras) = (self.pick(BROKER), self.pick(CAMERA));
        let (broker, cameras) =
            if self.random.bool() { (BrokerFault::None, CameraFault::None) } else { (broker, cameras) };
        self.fail_broker(broker);
        self.fail_cameras(cameras);
        self.a_while(most);
        self.close_the_books();
        let how = if self.kills <= self.stops.len() {
            self.daemon.kill();
            self.kills += 1;
            "killed".to_owned()
        } else if broker == BrokerFault::None {
            self.finish()
        } else {
            self.daemon.heard.states.clear();
            let (status, took) = self.daemon.end();
            assert!(status.success(), "with {broker:?} and {cameras:?} it ended with {status} after {took:?}");
            self.stops.push(took);
            format!("stopped in {took:?}")
        };
        self.mend(broker);
        // The last change may have been a wrong one.
        self.daemon.write(&sections(&self.links, &self.written));
        self.daemon.start_again();
        self.recover(&format!("{how} with {broker:?}, {cameras:?}"));
    }

    /// A stop that the broker hears of: each frame is accounted for.
    fn finish(&mut self) -> String {
        self.absorb();
        // A camera that was taken out has no last word.
        self.daemon.heard.states.clear();
        let begun = Instant::now();
        let counts = self.daemon.finish();
        self.stops.push(begun.elapsed());
        assert_eq!(counts.len(), self.written.iter().filter(|w| w.there).count(), "each has its last word");
        for c in counts.values() {
            self.frames.decoded += c.decoded;
            self.frames.inferred += c.inferred;
            self.frames.overwritten += c.overwritten;
            self.frames.skipped_fps += c.skipped_fps;
            self.frames.dropped += c.dropped;
        }
        self.absorb();
        format!("stopped in {:?}", begun.elapsed())
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.usize(..of.len())]
    }

    fn fail_broker(&mut self, fault: BrokerFault) {
        match fault {
            BrokerFault::None => {}
            BrokerFault::Killed => self.daemon.kill_broker(&self.broker),
            BrokerFault::Frozen => self.daemon.signal_broker("STOP"),
            BrokerFault::Cut => self.broker.cut(),
            BrokerFault::Link(condition) => {
                self.broker.set(condition);
                if condition == Condition::Refusing {
                    self.broker.cut();
                }
            }
        }
    }

    fn fail_cameras(&mut self, fault: CameraFault) {
        match fault {
            CameraFault::None => {}
            CameraFault::Links => {
                for link in &self.links {
                    match self.random.u8(..12) {
                        0 => link.set(Condition::Hole),
                        1 => link.set(Condition::Slow),
                        2 => {
                            link.set(Condition::Away);
                            link.cut();
                        }
                        3 => link.cut(),
                        _ => {}
                    }
                }
            }
            CameraFault::Killed => self.servers[self.random.usize(..2)] = None,
            CameraFault::Frozen => {
                let server = &mut self.servers[self.random.usize(..2)];
                server.iter_mut().for_each(|server| server.command("freeze walk"));
            }
            CameraFault::AllKilled => self.servers = [None, None],
        }
    }

    fn change(&mut self, change: Change) {
        let n = self.random.usize(..CAMERAS);
        // One is out at most: sixteen are to run.
        let out = self.written.iter().position(|written| !written.there).filter(|_| change == Change::InOrOut);
        let written = &mut self.written[out.unwrap_or(n)];
        match change {
            Change::None => return,
            Change::InOrOut => written.there ^= true,
            Change::Rebuilt => written.fps_max ^= 1,
            Change::Rules => written.zone ^= true,
            Change::Wrong => {}
        }
        let cameras = sections(&self.links, &self.written);
        let wrong = if change == Change::Wrong { "[tracking]\nlow = 2\n" } else { "" };
        self.daemon.write(&(cameras + wrong));
        self.ledger.asked(change == Change::Wrong);
        self.daemon.signal("HUP");
    }

    fn mend(&mut self, broker: BrokerFault) {
        match broker {
            BrokerFault::Killed => self.daemon.start_broker(&self.broker),
            BrokerFault::Frozen => self.daemon.signal_broker("CONT"),
            _ => self.broker.set(Condition::Good),
        }
        for (server, port) in self.servers.iter_mut().zip(self.ports) {
            match server {
                Some(server) => server.command("thaw walk"),
                None => {
                    *server = Some(RtspServer::start(&["--port", &port.to_string(), "--stream", &self.stream]));
                }
            }
        }
        self.links.iter().for_each(|link| link.set(Condition::Good));
    }

    /// Waits until all is as it was.
    fn recover(&mut self, after: &str) {
        let (mended, before) = (Instant::now(), self.frames_inferred());
        let (mut back, mut last): ([Option<Duration>; 2], Vec<String>) = ([None; 2], Vec::new());
        while back.contains(&None) || self.ledger.results_missing() > 0 {
            assert!(
                mended.elapsed() < RECOVERY,
                "{RECOVERY:?} after {after} cameras and broker are back: {back:?}, {} reloads without a result; {:?}",
                self.ledger.results_missing(),
                self.status().and_then(|status| status.health).map(|health| health.problems)
            );
            self.listen(Duration::from_millis(250));
            let Some(Status { health: Some(health), mqtt_connected }) = self.status() else { continue };
            let is_back = |id: &str| {
                let camera = health.cameras.get(id);
                camera.is_some_and(|c| {
                    c.status == CameraStatus::Online
                        && c.frames.inferred >= before.get(id).copied().unwrap_or_default() + 3
                })
            };
            let there = (0..CAMERAS).filter(|n| self.written[*n].there).map(name);
            let away: Vec<String> = there.filter(|id| !is_back(id)).collect();
            if away.is_empty() {
                back[0].get_or_insert(mended.elapsed());
            } else {
                last = away;
            }
            if mqtt_connected && health.spool_pending <= WINDOW {
                back[1].get_or_insert(mended.elapsed());
            }
        }
        let back = back.map(Option::unwrap);
        self.longest = [0, 1].map(|n| self.longest[n].max(back[n]));
        let on_their_way = self.look_at_frames();
        let at = self.begun.elapsed().as_secs();
        let late = if back[0] > LATE { format!(" ({last:?})") } else { String::new() };
        let [cameras, broker] = back;
        println!(
            "{at} s: {after}: cameras back after {cameras:.1?}{late}, broker after {broker:.1?}; {on_their_way}"
        );
    }

    fn frames_inferred(&self) -> BTreeMap<String, u64> {
        let health = self.status().and_then(|status| status.health);
        let cameras = health.map(|health| health.cameras).unwrap_or_default();
        cameras.into_iter().map(|(id, camera)| (id, camera.frames.inferred)).collect()
    }

    /// While all is well, few frames are on their way.
    fn look_at_frames(&mut self) -> String {
        let health = self.status().and_then(|status| status.health).unwrap();
        let on_their_way: i64 = health
            .cameras
            .values()
            .map(|camera| {
                let f = camera.frames;
                f.decoded as i64 - (f.inferred + f.overwritten + f.skipped_fps + f.gated + f.dropped) as i64
            })
            .sum();
        assert!(on_their_way.abs() <= ON_THEIR_WAY, "{on_their_way} frames without account: {:?}", health.cameras);
        assert_eq!(health.spool_dropped, 0);
        self.on_their_way = self.on_their_way.max(on_their_way.abs());
        let Held { memory, descriptors, threads } = Held::of(self.daemon.pid());
        format!("{:.1} MiB, {descriptors} descriptors, {threads} threads", memory as f64 / f64::from(1 << 20))
    }

    /// `None`: it does not answer yet. One that has ended by itself is told by [`Daemon::until`].
    fn status(&self) -> Option<Status> {
        std::net::TcpStream::connect(("127.0.0.1", self.daemon.http_port())).ok()?;
        let page = self.daemon.page("/status");
        let (head, body) = page.split_once("\r\n\r\n")?;
        // Until it has looked at itself for the first time it answers that it starts.
        head.contains(" 200 ").then(|| serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}")))
    }

    fn a_while(&mut self, most: Duration) {
        let ms = self.random.u64(500..most.as_millis() as u64);
        self.listen(Duration::from_millis(ms)); // the fault itself
    }

    fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.daemon.until("a while", time + RECOVERY, |_| Instant::now() >= until);
        self.absorb();
    }

    /// Takes what was heard into the ledger, or hours of it would be kept.
    fn absorb(&mut self) {
        self.daemon.listen();
        let heard = &mut self.daemon.heard;
        self.ledger.detections += heard.detections.values().map(|messages| messages.len() as u64).sum::<u64>();
        heard.detections.clear();
        heard.health.clear();
        heard.events.drain(..).for_each(|event| self.ledger.event(&event));
        heard.notices.drain(..).for_each(|(_, notice)| self.ledger.notice(&notice));
        for states in heard.states.values_mut() {
            states.drain(..states.len().saturating_sub(1));
        }
    }

    /// The counters of a process that is about to end.
    fn close_the_books(&mut self) {
        if self.status().is_none() {
            return;
        }
        let page = self.daemon.page("/metrics");
        for name in ["camera_reconnects", "mqtt_connects", "spool_dropped", "dead_letters", "detections_dropped"] {
            let start = format!("watchpost_{name}_total");
            let of = |line: &str| line.strip_prefix(&start)?.rsplit_once(' ')?.1.parse::<u64>().ok();
            *self.past.entry(name).or_default() += page.lines().filter_map(of).sum::<u64>();
        }
    }

    fn report(&self) {
        let FrameCounts { decoded, inferred, overwritten, skipped_fps, dropped, .. } = self.frames;
        for skipped in [self.samples.len() / 4, self.samples.len() / 2] {
            let held = &self.samples[skipped..];
            let (first, last) = (held[0], held[held.len() - 1]);
            let (slope, error) = slope(held);
            println!(
                "memory      {slope:+.2} ± {error:.2} MiB/h over the last {:.1} min: {:?}, then {:?}",
                (last.0 - first.0).as_secs_f64() / 60.0,
                first.1,
                last.1
            );
        }
        println!(
            "frames      {decoded} decoded at orderly ends = {inferred} inferred + {overwritten} overwritten + \
             {skipped_fps} skipped + {dropped} dropped; {} on their way at most when looked at",
            self.on_their_way
        );
        println!("events      {}", self.ledger);
        println!(
            "ends        {} stops, the longest {:?}; {} kills",
            self.stops.len(),
            self.stops.iter().max(),
            self.kills
        );
        println!("counters    {:?}", self.past);
        println!("recovery    cameras {:.1?}, broker {:.1?} at most", self.longest[0], self.longest[1]);
    }
}

/// Least squares over the samples, MiB an hour, and the standard error of that.
fn slope(samples: &[(Duration, Held)]) -> (f64, f64) {
    let points: Vec<(f64, f64)> = samples
        .iter()
        .map(|(at, held)| (at.as_secs_f64() / 3600.0, held.memory as f64 / f64::from(1 << 20)))
        .collect();
    let count = points.len() as f64;
    let (mean_t, mean_m) =
        (points.iter().map(|p| p.0).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
    let above: f64 = points.iter().map(|(t, m)| (t - mean_t) * (m - mean_m)).sum();
    let spread = points.iter().map(|(t, _)| (t - mean_t).powi(2)).sum::<f64>();
    let slope = above / spread;
    let rest: f64 = points.iter().map(|(t, m)| (m - mean_m - slope * (t - mean_t)).powi(2)).sum();
    (slope, (rest / (count - 2.0) / spread).sqrt())
}

fn name(n: usize) -> String {
    format!("cam{n:02}")
}

fn sections(links: &[Link], written: &[Written]) -> String {
    let section = |(n, (link, written)): (usize, (&Link, &Written))| {
        let zone = "[[camera.zone]]\nname = \"right\"\npolygon = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]";
        let more = format!(
            "fps_max = {}\nstall_timeout = \"3s\"\n{}",
            written.fps_max,
            if written.zone { zone } else { "" }
        );
        camera(&name(n), &format!("rtsp://127.0.0.1:{}/walk", link.port()), &more)
    };
    let there = links.iter().zip(written).enumerate().filter(|(_, (_, written))| written.there);
    // Each picture that is kept is remembered: so few that memory would not grow for days.
    let rest = "[events]\nlabels = [\"person\"]\n[snapshots]\nmax_age = \"1m\"\n";
    there.map(section).collect::<String>() + rest
}

#[test]
fn sixteen_cameras_soak_in_faults_of_every_kind_and_all_is_accounted_for() {
    let _cores = all_cores();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<f64>().unwrap());
    let seed = number("WATCHPOST_SEED").map_or_else(|| fastrand::u64(..1 << 50), |seed| seed as u64);
    println!("WATCHPOST_SEED={seed}");
    let hours = number("WATCHPOST_SOAK_HOURS");
    let Some(mut soak) = Soak::start(fastrand::Rng::with_seed(seed)) else { return };
    soak.recover("the start");
    let time = Duration::from_secs_f64(3600.0 * hours.unwrap_or(0.0));
    let most = Duration::from_secs(if hours.is_some() { 25 } else { 4 });
    while soak.samples.len() < 2 || soak.begun.elapsed() < time - RESTARTS.min(time / 5) {
        soak.cycle(most);
    }
    let rounds = if hours.is_some() { usize::MAX } else { 2 };
    for _ in 0..rounds {
        if hours.is_some() && soak.begun.elapsed() >= time {
            break;
        }
        soak.end(most);
    }
    soak.close_the_books();
    soak.finish();
    soak.report();
    let (first, last) = (soak.samples[0].1, soak.samples[soak.samples.len() - 1].1);
    assert!(last.descriptors <= first.descriptors + 4 * CAMERAS, "descriptors grow: {first:?}, {last:?}");
    assert!(last.threads <= first.threads + 8 * CAMERAS, "threads grow: {first:?}, {last:?}");
    assert!(last.memory <= first.memory + (150 << 20), "memory grows: {first:?}, {last:?}");
    let counted = |name: &str| soak.past[name];
    assert_eq!((counted("spool_dropped"), counted("dead_letters")), (0, 0));
    soak.ledger.close();
}
