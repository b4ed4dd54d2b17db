//! What was written → what is true: checks every setting, completes what depends on others, opens secrets.
//!
//! A check that fails reports its problem and yields `None`; a part that lacks a value is `None` too. So a
//! [`Config`] exists only where no check failed, and no check hides another.

mod address;
mod analytics;
mod camera;
mod mqtt;
mod polygon;
mod scene;
pub mod source;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::{FileConfig, FileEngine, FileHttp, FileOpenvino, FileTensorrt};
use super::load::files::{self, Host};
use super::report::{NAME_BYTES_MAX, Report, Section, is_topic_level};
use super::{
    CameraConfig, Config, EngineConfig, HttpConfig, Inspection, LabelUse, OpenvinoConfig, Secret, TensorrtConfig,
};
use crate::track::schedule::Schedule;

/// Most cameras of one process.
const CAMERAS_MAX: usize = 256;
/// Most lanes of a batch.
const BATCH_MAX: i64 = 64;
/// Most batches in flight.
const REQUESTS_MAX: i64 = 16;
/// Most execution streams.
const STREAMS_MAX: i64 = 64;
/// Most inference threads.
const THREADS_MAX: i64 = 1024;
/// Highest number of a CUDA device.
const DEVICES_MAX: i64 = 63;
/// Most contexts of a TensorRT engine.
const CONTEXTS_MAX: i64 = 8;
/// Device names of OpenVINO, without a number.
const DEVICES: [&str; 4] = ["CPU", "GPU", "NPU", "AUTO"];

/// Checks `file`, written as `root`, whose relative paths start at `folder`. The problems are those that `report`
/// already holds and every one found here.
pub(super) fn resolve(
    file: &FileConfig,
    root: &Section<'_>,
    folder: &Path,
    host: &Host<'_>,
    report: Report,
    hash: String,
) -> Inspection {
    let mut resolver = Resolver { report, folder, host, schedules: HashMap::new(), labels: Vec::new() };
    let (engine, cameras, config) = resolver.config(file, root, hash);
    Inspection {
        problems: resolver.report.into_problems(),
        engine,
        cameras,
        labels: resolver.labels,
        config,
        draft: None,
    }
}

/// What the checks share.
struct Resolver<'a> {
    report: Report,
    folder: &'a Path,
    host: &'a Host<'a>,
    /// By name; `None` those that are not sound.
    schedules: HashMap<String, Option<Arc<Schedule>>>,
    /// Where labels are named, so far.
    labels: Vec<LabelUse>,
}

/// Where a secret may come from.
enum Origin<'f> {
    File(&'f Path),
    Env(&'f str),
    Credential(&'f str),
}

/// The settings that name a secret's origin, by key.
type Origins<'f> = [(&'static str, Option<Origin<'f>>)];

impl Resolver<'_> {
    /// The engine and the cameras as far as they are sound, and the whole where every part is.
    fn config(
        &mut self,
        file: &FileConfig,
        root: &Section<'_>,
        hash: String,
    ) -> (Option<EngineConfig>, Vec<CameraConfig>, Option<Config>) {
        let FileConfig { node, state_dir, stop_deadline, engine, mqtt, http, .. } = file;
        let node = self.node(root, node.as_deref());
        let second = Duration::from_secs(1);
        let stop_deadline = self.between(root, "stop_deadline", *stop_deadline, second..=second * 300);
        let engine = self.engine(&root.child("engine"), engine);
        // A placeholder keeps the broker's own problems visible where the node's name is wrong.
        let mqtt = self.mqtt(&root.child("mqtt"), mqtt, node.as_deref().unwrap_or("node"));
        let http = self.http(&root.child("http"), http);
        let state_dir = self.folder.join(state_dir);
        let analytics = self.analytics(root, file, &state_dir);
        self.schedules(root, &file.schedule);
        let cameras = self.cameras(root, file);
        let labels = self.labels.clone();
        let (sound_engine, sound_cameras) = (engine.clone(), cameras.clone());
        let whole = || {
            (cameras.len() == file.camera.len()).then_some(())?;
            let analytics = analytics?;
            Some(Config {
                node: node?,
                state_dir,
                stop_deadline: stop_deadline?,
                engine: engine?,
                mqtt: mqtt?,
                http: http?,
                tracking: analytics.tracking,
                snapshots: analytics.snapshots,
                homeassistant: analytics.homeassistant,
                frigate: analytics.frigate,
                deepstream: analytics.deepstream,
                onvif: file.onvif.enabled,
                cloudevents: file.cloudevents.enabled,
                cameras,
                labels,
                hash,
            })
        };
        (sound_engine, sound_cameras, whole())
    }

    fn node(&mut self, root: &Section<'_>, written: Option<&str>) -> Option<String> {
        let host = self.host.name.as_deref().and_then(|name| name.split('.').next());
        let node = written.or(host).unwrap_or_default();
        if is_topic_level(node) {
            return Some(node.to_owned());
        }
        let text = match written {
            Some(_) => format!("give 1 to {NAME_BYTES_MAX} of the characters A-Z, a-z, 0-9, _ and -"),
            None => "the host's name cannot stand in a topic: give this box a name, such as node = \"edge07\""
                .to_owned(),
        };
        self.report.at(root, "node", text);
        None
    }

    fn engine(&mut self, section: &Section<'_>, file: &FileEngine) -> Option<EngineConfig> {
        let FileEngine { manifest, model, batch, batch_deadline, confidence, nms, backend, openvino, tensorrt } =
            file;
        if manifest.is_none() {
            let text = "no model: give the path of an engine manifest (engines/*.toml)";
            self.report.at(section, "manifest", text);
        }
        let manifest = manifest.as_deref().and_then(|path| self.existing(section, "manifest", path));
        // Whether model and library are there is for the backend to say: they may be on a disk that comes later.
        let model = model.as_deref().map(|path| self.folder.join(path));
        let batch = self.count(section, "batch", *batch, 1..=BATCH_MAX);
        let deadline = Duration::ZERO..=Duration::from_secs(1);
        let batch_deadline = self.between(section, "batch_deadline", *batch_deadline, deadline);
        let confidence = confidence.and_then(|value| self.fraction(section, "confidence", value));
        let nms = nms.and_then(|value| self.fraction(section, "nms", value));
        let openvino = self.openvino(&section.child("openvino"), openvino);
        let tensorrt = self.tensorrt(&section.child("tensorrt"), tensorrt);
        Some(EngineConfig {
            manifest: manifest?,
            model,
            batch: batch?,
            batch_deadline: batch_deadline?,
            confidence,
            nms,
            backend: *backend,
            openvino: openvino?,
            tensorrt: tensorrt?,
        })
    }

    fn tensorrt(&mut self, section: &Section<'_>, file: &FileTensorrt) -> Option<TensorrtConfig> {
        let FileTensorrt { library, engine, device, contexts, build } = file;
        let device = self.count(section, "device", *device, 0..=DEVICES_MAX);
        let contexts = self.count(section, "contexts", *contexts, 1..=CONTEXTS_MAX);
        Some(TensorrtConfig {
            library: library.as_deref().map(|path| self.folder.join(path)),
            engine: engine.as_deref().map(|path| self.folder.join(path)),
            device: device?,
            contexts: contexts?,
            build: *build,
        })
    }

    fn openvino(&mut self, section: &Section<'_>, file: &FileOpenvino) -> Option<OpenvinoConfig> {
        let FileOpenvino { library, device, precision, requests, streams, threads } = file;
        let library = library.as_deref().map(|path| self.folder.join(path));
        let kind = device.split(['.', ':']).next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".:,_-()".contains(&b);
        if !DEVICES.contains(&kind) || device.len() > NAME_BYTES_MAX || !device.bytes().all(plain) {
            let text = "give CPU, GPU, NPU or AUTO (or one of several, such as GPU.1)";
            self.report.at(section, "device", text);
        }
        let requests = self.count(section, "requests", *requests, 1..=REQUESTS_MAX);
        let streams = self.count(section, "streams", *streams, 0..=STREAMS_MAX);
        let threads = self.count(section, "threads", *threads, 0..=THREADS_MAX);
        Some(OpenvinoConfig {
            library,
            device: device.clone(),
            precision: *precision,
            requests: requests?,
            streams: streams?,
            threads: threads?,
        })
    }

    fn http(&mut self, section: &Section<'_>, file: &FileHttp) -> Option<HttpConfig> {
        let FileHttp { enabled, listen, token_file, token_credential } = file;
        let origins = [
            ("token_file", token_file.as_deref().map(Origin::File)),
            ("token_credential", token_credential.as_deref().map(Origin::Credential)),
        ];
        let token = self.secret(section, &origins);
        let listen = self.listen(section, "listen", listen);
        if *enabled && listen.is_some_and(|at| !at.ip().is_loopback()) && !any_given(section, &origins) {
            let text = "others can reach this address: give token_file or token_credential, or listen on 127.0.0.1";
            self.report.at(section, "listen", text);
        }
        Some(HttpConfig { enabled: *enabled, listen: listen?, token })
    }

    /// The sound ones.
    fn cameras(&mut self, root: &Section<'_>, file: &FileConfig) -> Vec<CameraConfig> {
        if file.camera.is_empty() {
            self.report.at(root, "camera", "no camera: add a [[camera]] section");
        }
        if file.camera.len() > CAMERAS_MAX {
            let text = format!("{} cameras: one process takes at most {CAMERAS_MAX}", file.camera.len());
            self.report.at(root, "camera", text);
            return Vec::new();
        }
        let sections = root.tables("camera");
        self.unlike(&sections, "id", "camera", file.camera.iter().map(|camera| camera.id.as_deref()));
        let sections = file.camera.iter().zip(&sections);
        sections.filter_map(|(camera, section)| self.camera(section, camera, file)).collect()
    }

    /// Names that more than one of `sections` has are problems, each but the first.
    fn unlike<'f>(
        &mut self,
        sections: &[Section<'_>],
        key: &str,
        what: &str,
        names: impl Iterator<Item = Option<&'f str>>,
    ) {
        let mut first_lines = HashMap::new();
        for (section, name) in sections.iter().zip(names) {
            let line = self.report.line_of(section, key);
            if let Some(name) = name
                && let Some(first) = first_lines.insert(name, line)
            {
                let first = first.map_or_else(String::new, |line| format!(" on line {line}"));
                let text = format!("another {what}{first} has this {key}: give each its own");
                self.report.at(section, key, text);
            }
        }
    }

    /// The path of a file that is there and may be read.
    fn existing(&mut self, section: &Section<'_>, key: &str, path: &Path) -> Option<PathBuf> {
        let path = self.folder.join(path);
        match files::readable(&path, &format!("give the path of one ({path:?})")) {
            Ok(()) => Some(path),
            Err(text) => {
                self.report.at(section, key, text);
                None
            }
        }
    }

    /// The path of a PEM file.
    fn pem(&mut self, section: &Section<'_>, key: &str, path: Option<&Path>, private: bool) -> Option<PathBuf> {
        let path = self.folder.join(path?);
        match files::pem(&path, private) {
            Ok(()) => Some(path),
            Err(text) => {
                self.report.at(section, key, format!("{text} ({path:?})"));
                None
            }
        }
    }

    /// The secret that at most one of `origins` names. Neither the secret nor its origin stands in a problem: people
    /// write passwords where a file's name belongs.
    fn secret(&mut self, section: &Section<'_>, origins: &Origins<'_>) -> Option<Secret> {
        let mut given = origins.iter().filter_map(|(key, origin)| Some((*key, origin.as_ref()?)));
        let (key, origin) = given.next()?;
        for (other, _) in given {
            self.report.at(section, other, format!("{key} is given too: give only one of the two"));
        }
        match self.open_secret(origin) {
            Ok(secret) => Some(secret),
            Err(text) => {
                self.report.at(section, key, text);
                None
            }
        }
    }

    fn open_secret(&self, origin: &Origin<'_>) -> Result<Secret, String> {
        match origin {
            Origin::File(path) => files::secret(&self.folder.join(path), false),
            Origin::Env(name) => {
                let value = (self.host.env)(name).ok_or("there is no such variable in the environment: set it")?;
                files::secret_text(value)
            }
            Origin::Credential(name) => {
                if name.is_empty() || name.contains('/') || *name == "." || *name == ".." {
                    return Err("give the name of a systemd credential, not a path".to_owned());
                }
                let folder = (self.host.env)("CREDENTIALS_DIRECTORY")
                    .ok_or("systemd gave no credentials: add LoadCredential= with this name to the unit")?;
                files::secret(&Path::new(&folder).join(name), true)
                    .map_err(|text| format!("{text}: add LoadCredential= with this name to the unit"))
            }
        }
    }

    fn listen(&mut self, section: &Section<'_>, key: &str, written: &str) -> Option<SocketAddr> {
        let address = written.parse().ok();
        if address.is_none() {
            let text = "give an IP address and a port, such as \"127.0.0.1:9400\" or \"[::1]:9400\"";
            self.report.at(section, key, text);
        }
        address
    }

    fn count(&mut self, section: &Section<'_>, key: &str, value: i64, range: RangeInclusive<i64>) -> Option<usize> {
        if !range.contains(&value) {
            self.report.at(section, key, format!("give a whole number from {} to {}", range.start(), range.end()));
            return None;
        }
        usize::try_from(value).ok()
    }

    fn fraction(&mut self, section: &Section<'_>, key: &str, value: f64) -> Option<f32> {
        if !(0.0..=1.0).contains(&value) {
            self.report.at(section, key, "give a number from 0 to 1");
            return None;
        }
        Some(value as f32)
    }

    /// The labels, noted to be held against the model's.
    fn labels(&mut self, section: &Section<'_>, key: &str, written: &[String]) -> Vec<String> {
        let (line, path) = (self.report.line_of(section, key), section.path_of(key));
        let used = |label: &String| LabelUse { label: label.clone(), line, path: path.clone() };
        self.labels.extend(written.iter().map(used));
        written.to_vec()
    }

    fn between(
        &mut self,
        section: &Section<'_>,
        key: &str,
        value: Duration,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        if !range.contains(&value) {
            let [low, high] = [range.start(), range.end()].map(|d| humantime::format_duration(*d));
            self.report.at(section, key, format!("give a duration from {low} to {high}"));
            return None;
        }
        Some(value)
    }
}

fn any_given(section: &Section<'_>, origins: &Origins<'_>) -> bool {
    origins.iter().any(|(key, _)| section.given(key))
}
