//! The commands, one file each.

mod bench;
mod check;
pub mod coco;
mod detect;
mod engine;
mod manual;
mod probe;
mod run;
mod schema;
mod snapshots;
pub mod status_line;
mod track;

use std::collections::BTreeSet;
use std::path::Path;

use crossbeam::channel::Sender;

use crate::backend::{BackendError, Settings};
use crate::camera::CameraError;
use crate::cli::{Cli, Code, Command, Failure};
use crate::config::{self, CameraConfig, Config, Draft, LabelUse, Pace, Problem, Source, WHOLE_FILE};
use crate::daemon::Surroundings;
use crate::engine::{Manifest, ManifestError};
use crate::gpu::device::Waits;
use crate::publish::{self, Identity, PublishError, Publisher};
use crate::{camera, logging};

/// Runs the command.
///
/// # Errors
///
/// What ends the process, with its exit code.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let console = logging::start(cli.log.as_deref()).map_err(|e| Failure::new(Code::Config, e))?;
    match cli.command {
        Command::Run { config } => run::run(&config, &console),
        Command::Check { config } => check::run(&config),
        Command::Probe(args) => probe::run(&args),
        Command::Detect(args) => detect::run(&args, &console),
        Command::Engine(command) => engine::run(&command, &console),
        Command::Bench(args) => bench::run(&args, &console),
        Command::Schema { out } => schema::run(out.as_deref()),
        Command::Manual { out } => manual::run(&out),
    }
}

/// A checked configuration and its manifest, in which the configuration's own settings hold.
fn load(path: &Path) -> Result<(Config, Manifest), Failure> {
    open(path).map(|(config, _, manifest)| (config, manifest))
}

/// [`load`], with what lets commands change cameras later.
fn open(path: &Path) -> Result<(Config, Draft, Manifest), Failure> {
    let (config, draft) =
        config::open(path).map_err(|problems| Failure::new(Code::Config, listed(path, &problems.0)))?;
    let manifest = manifest(&config.engine.manifest)?.overridden(&config.engine);
    known_labels(path, &config.labels, &manifest)?;
    Ok((config, draft, manifest))
}

/// Every label that the configuration at `path` names is one of the model's.
fn known_labels(path: &Path, labels: &[LabelUse], manifest: &Manifest) -> Result<(), Failure> {
    let unknown = config::unknown_labels(labels, &manifest.labels);
    if unknown.is_empty() { Ok(()) } else { Err(Failure::new(Code::Config, listed(path, &unknown))) }
}

fn manifest(path: &Path) -> Result<Manifest, Failure> {
    Manifest::load(path).map_err(|e| match e {
        ManifestError::Invalid { path, problems } => Failure::new(Code::Config, listed(&path, &problems.0)),
        ManifestError::Read { .. } | ManifestError::Sha256 { .. } => Failure::new(Code::Config, e),
    })
}

/// A line a problem, each with the file's name.
fn listed(file: &Path, problems: &[Problem]) -> String {
    let line = |problem: &Problem| {
        let line = problem.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let setting = if problem.path == WHOLE_FILE { String::new() } else { format!("{}: ", problem.path) };
        format!("{}: {line}{setting}{}", file.display(), problem.text)
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn start_gstreamer() -> Result<(), Failure> {
    camera::init().map_err(|e| Failure::new(Code::Unavailable, e))
}

/// The backend that a checked configuration asks for on this machine. After GStreamer has started.
fn backend(config: &Config, manifest: &Manifest) -> Result<Settings, Failure> {
    let is_pressed = |camera: &CameraConfig| matches!(camera.source, Source::File { pace: Pace::Fast, .. });
    let short = !config.cameras.iter().any(is_pressed) && camera::decoders_wait_for_copies();
    let waits = if short { Waits::Spinning } else { Waits::Asleep };
    Ok(Settings::choose(&config.engine, manifest, Some(&config.state_dir), waits)?)
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let code = match error {
            BackendError::Config(_) => Code::Config,
            BackendError::Unavailable(_) | BackendError::Reopen(_) => Code::Unavailable,
            BackendError::DropBatch(_) | BackendError::Stopped => Code::Internal,
        };
        Self::new(code, error)
    }
}

impl From<CameraError> for Failure {
    fn from(error: CameraError) -> Self {
        let code = match error {
            CameraError::Description(_) => Code::Config,
            CameraError::Stream(_) | CameraError::Refused(_) | CameraError::Setup(_) => Code::Unavailable,
        };
        Self::new(code, error)
    }
}

/// The publisher, its spool in `folder`.
fn start_publisher(
    config: &Config,
    around: &Surroundings,
    folder: &Path,
    commands: Sender<publish::Request>,
) -> Result<(Publisher, publish::Running), Failure> {
    std::fs::create_dir_all(folder).map_err(|e| {
        let text = format!("state_dir {}: {e}: create it, or set state_dir to a writable folder", folder.display());
        Failure::new(Code::Spool, text)
    })?;
    let identity = Identity { node: config.node.clone(), boot: around.boot.clone() };
    let counters = around.metrics.publish.clone();
    publish::start(wanted(config), &config.mqtt, identity, folder, counters, commands).map_err(|e| {
        let code = match e {
            PublishError::Topic(_) | PublishError::Tls(_) => Code::Config,
            PublishError::Spool { .. } => Code::Spool,
            PublishError::Embedded(_) | PublishError::Network(_) => Code::Unavailable,
        };
        Failure::new(code, e)
    })
}

/// Who is told in their own form, and what of each camera.
fn wanted(config: &Config) -> publish::Wanted {
    publish::Wanted {
        homeassistant: config.homeassistant.as_ref().map(|homeassistant| homeassistant.prefix.clone()),
        frigate: config.frigate.as_ref().map(|frigate| frigate.prefix.clone()),
        deepstream: config.deepstream.as_ref().map(|deepstream| (deepstream.schema, deepstream.topic.clone())),
        onvif: config.onvif,
        cloudevents: config.cloudevents,
        cameras: config.cameras.iter().map(|camera| (camera.id.clone(), wanted_card(config, camera))).collect(),
    }
}

/// What other consumers are told of a camera.
fn wanted_card(config: &Config, camera: &CameraConfig) -> publish::Card {
    let labels = || camera.events.iter().flat_map(|events| events.labels.iter().cloned()).collect::<BTreeSet<_>>();
    let place = |name: &String, own: &[String]| match own.is_empty() {
        true => (name.clone(), labels()),
        false => (name.clone(), own.iter().cloned().collect()),
    };
    let zones = camera.zones.iter().map(|zone| place(&zone.name, &zone.labels)).collect();
    let lines = camera.lines.iter().map(|line| place(&line.name, &line.labels)).collect();
    let events = config.tracking.is_some() && camera.events.is_some();
    let snapshots = events && config.snapshots.as_ref().is_some_and(|snapshots| snapshots.publish);
    publish::Card { labels: labels(), zones, lines, events, snapshots }
}

/// 6 hex digits that no other start of this box is likely to have.
fn boot() -> String {
    format!("{:06x}", fastrand::u32(..0x0100_0000))
}
