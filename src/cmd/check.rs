//! `check`: every problem of a configuration, its manifest and this machine, at once.

use std::path::Path;

use crate::backend::{Settings, openvino, tensorrt};
use crate::camera::pipeline;
use crate::cli::{Code, Failure};
use crate::config::{self, CameraConfig, EngineConfig};
use crate::engine::Manifest;
use crate::gpu::device::Waits;
use crate::publish;

/// Reads the configuration, then looks for what it needs on this machine, as far as it can be read.
pub fn run(path: &Path) -> Result<(), Failure> {
    let mut found = config::inspect(path);
    let (engine, sound) = (found.engine.take(), std::mem::take(&mut found.cameras));
    let labels = std::mem::take(&mut found.labels);
    let mut problems = Problems::default();
    let config = found.into_config().map_err(|all| Failure::new(Code::Config, super::listed(path, &all.0)));
    let config = problems.keep(config);
    if problems.keep(super::start_gstreamer()).is_some() {
        cameras(path, &sound, &mut problems);
    }
    let manifest = engine.as_ref().and_then(|engine| problems.keep(super::manifest(&engine.manifest)));
    if let Some(manifest) = &manifest {
        problems.keep(super::known_labels(path, &labels, manifest));
    }
    if let (Some(engine), Some(manifest)) = (&engine, &manifest) {
        let state_dir = config.as_ref().map(|config| config.state_dir.as_path());
        backend(path, engine, manifest, state_dir, &mut problems);
    }
    if let Some(config) = &config {
        problems.keep(state_dir(path, &config.state_dir));
        let tls = |error| Failure::new(Code::Config, format!("{}: mqtt: {error}", path.display()));
        problems.keep(publish::check_tls(&config.mqtt).map_err(tls));
    }
    problems.into_result()?;
    // Both are there where there is no problem.
    if let (Some(config), Some(manifest)) = (config, manifest) {
        let (path, node, cameras, model) = (path.display(), config.node, config.cameras.len(), manifest.name);
        println!("{path}: good: node {node}, {cameras} camera(s), model {model}");
    }
    Ok(())
}

/// What was found so far.
#[derive(Default)]
struct Problems(Vec<Failure>);

impl Problems {
    fn add(&mut self, failure: Failure) {
        self.0.push(failure);
    }

    /// What is good of a result; else the failure is kept.
    fn keep<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        result.map_err(|failure| self.add(failure)).ok()
    }

    /// A wrong configuration outweighs what a machine lacks: only the latter may come by itself.
    fn into_result(self) -> Result<(), Failure> {
        let wrong = self.0.iter().find(|failure| failure.code == Code::Config);
        let Some(code) = wrong.or(self.0.first()).map(|failure| failure.code) else { return Ok(()) };
        let mut texts: Vec<String> = self.0.into_iter().map(|failure| failure.text).collect();
        texts.dedup();
        Err(Failure::new(code, texts.join("\n")))
    }
}

fn cameras(path: &Path, cameras: &[CameraConfig], problems: &mut Problems) {
    for camera in cameras {
        for error in pipeline::check(&camera.pipeline, &camera.source, camera.decode) {
            let failure = Failure::from(error);
            let text = format!("{}: camera[{}]: {}", path.display(), camera.id, failure.text);
            problems.add(Failure { text, ..failure });
        }
    }
}

fn backend(
    path: &Path,
    engine: &EngineConfig,
    manifest: &Manifest,
    state_dir: Option<&Path>,
    problems: &mut Problems,
) {
    let mut add = |error| {
        let failure = Failure::from(error);
        let text = format!("{}: engine: {}", path.display(), failure.text);
        problems.add(Failure { text, ..failure });
    };
    let settings = match Settings::choose(engine, &manifest.overridden(engine), state_dir, Waits::Asleep) {
        // Nothing is kept of a look.
        Ok(Settings::OpenVino(settings)) => openvino::Settings { cache_dir: None, ..settings },
        Ok(Settings::TensorRt(settings)) => return tensorrt::check(&settings).err().into_iter().for_each(add),
        Err(error) => return add(error),
    };
    // A model that is not there is a problem of its own where the library is not there either.
    match openvino::load_library(engine.openvino.library.as_deref()) {
        Ok(()) => openvino::check(&settings).err().into_iter().for_each(add),
        Err(error) => {
            add(error);
            openvino::check_model(&settings).err().into_iter().for_each(add);
        }
    }
}

/// The folder is there or can be made, as far as a look tells.
fn state_dir(path: &Path, folder: &Path) -> Result<(), Failure> {
    let Some(there) = folder.ancestors().find(|ancestor| ancestor.exists()) else { return Ok(()) };
    if there.is_dir() {
        return Ok(());
    }
    let (path, there) = (path.display(), there.display());
    Err(Failure::new(Code::Spool, format!("{path}: state_dir: {there} is not a folder: give another path")))
}
