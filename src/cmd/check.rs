//! `check`: every problem of a configuration and of this machine, at once.

use std::path::Path;

use crate::backend::openvino;
use crate::camera::pipeline;
use crate::cli::{Code, Failure};
use crate::config::Config;
use crate::engine::Manifest;

/// Reads the configuration, then looks for what it needs on this machine.
pub fn run(path: &Path) -> Result<(), Failure> {
    let (config, manifest) = super::load(path)?;
    super::start_gstreamer()?;
    let missing = missing(&config, &manifest);
    if !missing.is_empty() {
        return Err(Failure::new(Code::Unavailable, format!("{}:\n{}", path.display(), missing.join("\n"))));
    }
    let cameras = config.cameras.len();
    println!("{}: good: node {}, {cameras} camera(s), model {}", path.display(), config.node, manifest.name);
    Ok(())
}

/// What this machine lacks, a sentence each.
fn missing(config: &Config, manifest: &Manifest) -> Vec<String> {
    let mut missing = Vec::new();
    for camera in &config.cameras {
        if let Err(error) = pipeline::check(&camera.pipeline, &camera.source) {
            missing.push(format!("camera[{}]: {error}", camera.id));
        }
    }
    let settings = openvino::Settings::new(config, manifest);
    if let Err(error) = openvino::check(&settings) {
        missing.push(format!("engine: {error}"));
    }
    missing.dedup();
    missing
}
