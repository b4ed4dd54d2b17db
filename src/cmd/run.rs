//! `run`: the daemon. Starts everything in order, tells once a second how it goes, stops in order.

mod pictures;
mod reload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, bounded};

use super::snapshots::{self, Answer};
use super::status_line::StatusLine;
use crate::analyze::Output;
use crate::backend::{Building, ModelSpec};
use crate::cli::{Code, Failure};
use crate::config::{Config, Draft};
use crate::daemon::{self, Graph, Surroundings};
use crate::engine::Manifest;
use crate::event::{
    CameraState, CameraStatus, DETECTIONS_SCHEMA, EVENT_SCHEMA, EndReason, HEALTH_SCHEMA, INFO_SCHEMA, Info,
    NOTICE_SCHEMA, NoticeKind, STATE_SCHEMA, rfc3339,
};
use crate::frame::CameraId;
use crate::health::{self, Board, HealthReport, Monitor};
use crate::http::{self, Latest};
use crate::infer::News;
use crate::logging::Console;
use crate::metrics::Metrics;
use crate::publish::{self, Publisher, Request, Topics};
use crate::signal::{self, Signal};
use crate::worker::{self, Heartbeat};
use crate::{camera, process, systemd};
use pictures::Waiting;

/// How often health is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often `health` is published.
const HEALTH_EVERY: Duration = Duration::from_secs(10);
/// How often a camera's `state` is where nothing changed: each is a write to the disk.
const STATE_EVERY: Duration = Duration::from_secs(60);
/// How often the building of an engine is told.
const BUILD_STEP_PCT: u8 = 10;
/// The part of `stop_deadline` that the last pictures have, and the one at hand after that.
const PICTURES: u32 = 10;
/// Progress of inference and analysis: older than this stops feeding the watchdog.
const HUNG: Duration = Duration::from_secs(12);

/// Runs until told to stop.
pub fn run(path: &Path, console: &Console) -> Result<(), Failure> {
    process::keep_files_from_others();
    process::leave_no_core().map_err(|e| Failure::new(Code::Internal, format!("the limit of a core: {e}")))?;
    let (config, draft, manifest) = super::open(path)?;
    super::start_gstreamer()?;
    let settings = super::backend(&config, &manifest)?;
    settings.look()?;
    settings.gpu_share().into_iter().for_each(camera::use_gpu);
    let signals = signal::listen().map_err(|e| Failure::new(Code::Internal, format!("signals: {e}")))?;
    let around =
        Surroundings { boot: super::boot(), metrics: Arc::new(Metrics::default()), board: Board::default() };
    let latest = Latest::default();
    let server = match config.http.enabled {
        true => Some(
            http::start(&config.http, Arc::clone(&around.metrics), latest.clone(), pictures(&config))
                .map_err(|e| Failure::new(Code::Unavailable, e))?,
        ),
        false => None,
    };
    let (commands, orders) = bounded(16);
    let (publisher, publishing) = super::start_publisher(&config, &around, &config.state_dir, commands)?;
    let cameras: Vec<CameraId> = config.cameras.iter().map(|c| c.id.clone()).collect();
    publisher.forget_other_cameras(&cameras);
    publisher.reset_counts();
    publisher.greet();
    let (made, pictures) = bounded(pictures::WAITING_MAX);
    let (snapshots, making) = snapshots::start(&config, &settings, &around, &publisher, made.clone())?.unzip();
    let sink = publisher.clone();
    let sink = Box::new(move |camera: &CameraId, output: Output<'_>| match output {
        Output::Snapshot(snapshot) => snapshots.iter().for_each(|snapshots| snapshots.give(snapshot.clone())),
        Output::OnDemand(asked) => snapshots.iter().for_each(|snapshots| snapshots.give_on_demand(asked.clone())),
        output => say(&sink, camera, output),
    });
    let graph = Graph::start(&config, &manifest, &settings, &around, sink);
    tracing::info!(node = %config.node, cameras = config.cameras.len(), "started");
    publisher.notice(NoticeKind::Started, None, format!("watchpost {} started", env!("CARGO_PKG_VERSION")));
    let hearts = [&graph.hearts[..], &[publishing.heartbeat()]].concat();
    let deadline = config.stop_deadline;
    let written = Written { path: path.to_owned(), config, draft, manifest };
    let daemon = Daemon::new(written, &around, graph, publisher, latest, hearts);
    let (end, ends_by) = daemon.serve(&signals, &orders, &pictures, StatusLine::new(console));
    // Until now: without a sender the main loop would spin.
    drop(made);
    // Its last pictures are published, too.
    making.into_iter().for_each(|making| making.finish(deadline / PICTURES));
    publishing.finish(for_the_broker(deadline, ends_by.saturating_duration_since(Instant::now())));
    drop(server);
    end
}

/// The broker's time of a stop: half of its `deadline`, or what is `left` of it but for the publisher's patience with its own
/// threads, and for the process's own end.
fn for_the_broker(deadline: Duration, left: Duration) -> Duration {
    left.saturating_sub(deadline / 20).div_f64(1.0 + publish::PATIENCE).min(deadline / 2)
}

/// The configuration that holds, and where it is from.
struct Written {
    path: PathBuf,
    config: Config,
    draft: Draft,
    manifest: Manifest,
}

/// Where the HTTP server finds pictures.
fn pictures(config: &Config) -> Option<PathBuf> {
    config.snapshots.as_ref().map(|snapshots| snapshots.folder.clone())
}

/// The running daemon as its main loop sees it.
struct Daemon<'a> {
    path: PathBuf,
    config: Config,
    draft: Draft,
    manifest: Manifest,
    around: &'a Surroundings,
    graph: Graph,
    publisher: Publisher,
    topics: Topics,
    latest: Latest,
    monitor: Monitor,
    /// Progress of inference, analysis and publishing.
    hearts: Vec<Heartbeat>,
    started: SystemTime,
    ready: Result<(), String>,
    info: Option<Info>,
    health_due: Instant,
    state_due: Instant,
    /// Cameras whose `status` topic says this.
    told: BTreeMap<CameraId, CameraStatus>,
    /// The step of an engine's building that was published last.
    told_build: Option<u8>,
    /// Who waits for a picture.
    waiting: Waiting,
}

impl<'a> Daemon<'a> {
    fn new(
        written: Written,
        around: &'a Surroundings,
        graph: Graph,
        publisher: Publisher,
        latest: Latest,
        hearts: Vec<Heartbeat>,
    ) -> Self {
        let now = Instant::now();
        let Written { path, config, draft, manifest } = written;
        Self {
            monitor: Monitor::new(&config.node, &around.boot, now),
            path,
            config,
            draft,
            manifest,
            around,
            graph,
            topics: publisher.topics().clone(),
            publisher,
            latest,
            hearts,
            started: SystemTime::now(),
            ready: Err("the backend is being opened".to_owned()),
            info: None,
            health_due: now,
            state_due: now,
            told: BTreeMap::new(),
            told_build: None,
            waiting: Waiting::default(),
        }
    }

    /// The main loop, then the stop in order; what came of it, and when the process is ended at the latest.
    fn serve(
        mut self,
        signals: &Receiver<Signal>,
        orders: &Receiver<Request>,
        pictures: &Receiver<Answer>,
        line: StatusLine,
    ) -> (Result<(), Failure>, Instant) {
        let mut due = Instant::now();
        let news = self.graph.news.clone();
        let mut hang = None;
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            crossbeam::select! {
                recv(signals) -> signal => match signal {
                    Ok(Signal::Reload) => {
                        // What came of it was said.
                        let _ = self.reload();
                        due = Instant::now();
                    }
                    Ok(Signal::Stop) | Err(_) => break,
                    Ok(Signal::Now) => daemon::end_now(),
                },
                recv(orders) -> order => if let Ok(order) = order {
                    self.obey(order);
                    due = Instant::now(); // what it changed is told at once
                },
                recv(pictures) -> answer => if let Ok((camera, made)) = answer {
                    self.picture_made(&camera, made);
                },
                recv(news) -> news => if let Ok(news) = news {
                    self.backend_news(news);
                    due = Instant::now(); // whoever waits for /readyz need not wait for the second
                },
                default(wait) => {}
            }
            // Whatever waits beside: the service manager must hear that the daemon lives.
            if Instant::now() >= due {
                let report = self.tick();
                line.update(&report);
                due = Instant::now() + TICK;
            }
            hang = self.pipelines_hang();
            if hang.is_some() || self.graph.failed() {
                break;
            }
        }
        drop(line);
        self.stop(signals, hang)
    }

    /// Why the process cannot go on, where too many pipelines do not end: only its own end frees what they hold.
    fn pipelines_hang(&self) -> Option<Failure> {
        let hanging = self.around.metrics.pipelines_abandoned.get();
        let failure = || {
            let text = format!(
                "{hanging} pipelines of cameras hang and cannot be stopped: watchpost ends and is to be started anew; the log \
                 names the cameras, look for a fault in what decodes them or in the pipeline that was given"
            );
            Failure::new(Code::Unavailable, text)
        };
        (hanging >= camera::ABANDONED_MAX).then(failure)
    }

    fn backend_news(&mut self, news: News) {
        match news {
            News::Opened(spec) if self.info.is_some() => {
                self.ready = Ok(());
                let text = format!("the backend was opened anew: {}", spec.runtime);
                tracing::info!("{text}");
                systemd::status("running");
                self.publisher.notice(NoticeKind::BackendReopened, None, text);
                self.tell_info(&spec);
            }
            News::Opened(spec) => self.opened(&spec),
            News::Building(step) => self.building(&step),
            News::Failed(text) => self.ready = Err(format!("the backend is being opened anew: {text}")),
        }
    }

    /// Where nothing serves yet, READY=1 goes out at the first step: the service manager must not end a start that
    /// builds for minutes.
    fn building(&mut self, step: &Building) {
        let serving = self.info.is_some();
        let (pct, text) = match step {
            Building::Step { pct, text, beside: _ } => {
                let line = format!("the engine is being built: {pct} %, {text}");
                if serving {
                    systemd::status(&line);
                } else {
                    systemd::ready(&line);
                    self.ready = Err(line.clone());
                }
                let tenth = pct / BUILD_STEP_PCT;
                if self.told_build.replace(tenth) == Some(tenth) {
                    return;
                }
                (Some(*pct), line)
            }
            Building::Done => (Some(100), "the engine is built".to_owned()),
            Building::Failed(text) => (None, text.clone()),
        };
        match step {
            Building::Failed(_) => tracing::warn!("{text}"),
            Building::Done | Building::Step { .. } => tracing::info!("{text}"),
        }
        if !matches!(step, Building::Step { .. }) {
            systemd::status("running");
        }
        self.publisher.engine_build(pct, text);
    }

    fn opened(&mut self, spec: &ModelSpec) {
        self.ready = Ok(());
        let seconds = self.started.elapsed().unwrap_or_default().as_secs_f64();
        tracing::info!("ready after {seconds:.2} s: {}", spec.runtime);
        systemd::ready("running");
        self.tell_info(spec);
    }

    fn tell_info(&mut self, spec: &ModelSpec) {
        let schemas = [
            ("detections", DETECTIONS_SCHEMA),
            ("events", EVENT_SCHEMA),
            ("notice", NOTICE_SCHEMA),
            ("info", INFO_SCHEMA),
            ("health", HEALTH_SCHEMA),
            ("state", STATE_SCHEMA),
        ];
        let info = Info {
            schema: INFO_SCHEMA.to_owned(),
            node: self.config.node.clone(),
            boot: self.around.boot.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: rfc3339(self.started),
            config: self.config.hash.clone(),
            model: spec.model(),
            runtime: spec.runtime.clone(),
            engine: spec.engine.clone(),
            schemas: schemas.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            cameras: self.config.cameras.iter().map(|c| c.id.as_str().to_owned()).collect(),
        };
        self.publisher.retain(self.topics.info(), json(&info));
        self.info = Some(info);
    }

    /// Once a second: what there is to say about ourselves.
    fn tick(&mut self) -> HealthReport {
        let (now, wall) = (Instant::now(), SystemTime::now());
        self.give_up_on_pictures(now);
        let rss = process::rss_bytes().unwrap_or(0);
        let mut input = health::gather(&self.around.metrics, &self.around.board, self.ready.clone(), rss);
        input.publish.problem = self.publisher.problem();
        let report = self.monitor.observe(now, wall, &input);
        for transition in &report.transitions {
            let (camera, text) = (transition.camera.as_ref(), &transition.text);
            match transition.kind {
                NoticeKind::Overload => tracing::warn!("{text}"),
                _ => tracing::info!(camera = camera.map(CameraId::as_str), "{text}"),
            }
            self.publisher.notice(transition.kind, camera, text.clone());
        }
        report.hurried.iter().for_each(|camera| self.graph.hurry(camera));
        // A change is told at once, the rest in its turn.
        let all = now >= self.health_due || !report.transitions.is_empty();
        let refresh = now >= self.state_due;
        if refresh {
            self.state_due = now + STATE_EVERY;
        }
        for (id, state) in &report.states {
            if !refresh && !report.changed.contains(id) {
                continue;
            }
            match state.status {
                CameraStatus::Online => {}
                CameraStatus::Disabled => self.graph.end_tracks(id, EndReason::Disabled),
                CameraStatus::Offline => self.graph.end_tracks(id, EndReason::CameraLost),
                CameraStatus::Finished => self.graph.finish_tracks(id),
            }
            self.publisher.retain(self.topics.camera_state(id), json(state));
            if self.told.insert(id.clone(), state.status) != Some(state.status) {
                self.publisher.retain(self.topics.camera_status(id), status_word(state.status).into());
                let enabled = if state.status == CameraStatus::Disabled { "OFF" } else { "ON" };
                self.publisher.retain(self.topics.enabled_state(id), enabled.into());
            }
        }
        if all {
            self.publisher.health(&report.health);
            self.monitor.count_message();
            self.health_due = now + HEALTH_EVERY;
        }
        self.latest.set(now, &report, self.info.clone());
        self.feed(now);
        report
    }

    /// Tells the service manager that every stage makes progress, where it does.
    fn feed(&self, now: Instant) {
        if self.hearts.iter().all(|heart| heart.age(now) < HUNG) {
            systemd::watchdog();
        }
    }

    /// Closes the data path in order, telling the broker last.
    fn stop(mut self, signals: &Receiver<Signal>, hang: Option<Failure>) -> (Result<(), Failure>, Instant) {
        tracing::info!("stopping");
        systemd::stopping();
        self.give_up_on_all_pictures();
        let ends_by = daemon::enforce_deadline(self.config.stop_deadline);
        let signals = signals.clone();
        worker::spawn("stop-now", move || {
            if signals.iter().any(|signal| signal != Signal::Reload) {
                daemon::end_now();
            }
        });
        let Self { around, graph, publisher, topics, mut monitor, ready, .. } = self;
        let ended = graph.stop().map_err(Failure::from);
        let ended = hang.map_or(ended, Err);
        let text = match &ended {
            Ok(()) => "watchpost is stopping: it was told to".to_owned(),
            Err(failure) => format!("watchpost is stopping: {}", failure.text),
        };
        let input = health::gather(&around.metrics, &around.board, ready, 0);
        for (id, state) in monitor.observe(Instant::now(), SystemTime::now(), &input).states {
            publisher.retain(topics.camera_state(&id), json(&stopped(state)));
            publisher.retain(topics.camera_status(&id), "offline".into());
        }
        publisher.notice(NoticeKind::Stopping, None, text);
        publisher.take_leave();
        (ended, ends_by)
    }
}

/// Says what analysis has to say.
pub(super) fn say(publisher: &Publisher, camera: &CameraId, output: Output<'_>) {
    match output {
        Output::Detections(message) => publisher.detections(camera, message),
        Output::Event(event) => publisher.event(*event),
        Output::Count(counter, value) => publisher.count(camera, &counter, value),
        Output::Notice(kind, text) => {
            tracing::warn!("{text}");
            publisher.notice(kind, Some(camera), text);
        }
        Output::Snapshot(_) | Output::OnDemand(_) => {}
        Output::BatchEnd => publisher.wake(),
    }
}

/// A camera's last word, with the final account of its frames.
fn stopped(mut state: CameraState) -> CameraState {
    if state.status != CameraStatus::Finished {
        (state.status, state.reason) = (CameraStatus::Offline, "watchpost was stopped".to_owned());
    }
    CameraState { next_retry_ms: None, fps: 0.0, ..state }
}

fn status_word(status: CameraStatus) -> &'static str {
    match status {
        CameraStatus::Online => "online",
        CameraStatus::Offline | CameraStatus::Finished => "offline",
        CameraStatus::Disabled => "disabled",
    }
}

/// Our own types always serialise.
fn json(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_gets_half_of_a_stop_or_what_is_left_of_it() {
        let ms = Duration::from_millis;
        let of = |left| for_the_broker(ms(10_000), ms(left)).as_millis();
        assert_eq!([of(10_000), of(7_000), of(4_100), of(500), of(0)], [5_000, 5_000, 3_000, 0, 0]);
    }
}
