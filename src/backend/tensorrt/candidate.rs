//! The engine file that a configuration means, and what may serve in its place.

use std::path::{Path, PathBuf};

use super::Settings;
use crate::backend::BackendError;
use crate::engine::built::{self, Name};
use crate::engine::order::{self, OrderError};
use crate::engine::stamp::{Machine, Stamp, Verdict, Wanted, refusal};
use crate::gpu::machine;

/// An engine that is wanted.
pub struct Candidate {
    /// Where it lies once it is built.
    pub path: PathBuf,
    /// What there is.
    pub state: State,
}

/// What there is of an engine that is wanted.
pub enum State {
    /// It is there, perhaps by another name.
    Good(PathBuf, Stamp),
    /// It is not, and another may serve until it is.
    Old {
        /// The other one.
        at: PathBuf,
        /// Its stamp.
        stamp: Stamp,
        /// In words, why it is not what is wanted.
        text: String,
    },
    /// It cannot be run here, or is not there: in words, why.
    Unusable(String),
}

impl Candidate {
    /// Looks at its own file first. Where that is not good, and no file was named, others of the model may be: one built
    /// where there was no GPU, say, or in another precision.
    ///
    /// # Errors
    ///
    /// Why manifest and model say nothing of what is wanted.
    pub fn find(settings: &Settings) -> Result<Self, BackendError> {
        let machine = machine::describe(&settings.library, Some(&settings.device));
        let path = path(settings, &machine);
        let state = match built::stamp(&path) {
            Ok(stamp) => judge(settings, &machine, &wanted(settings, &stamp)?, path.clone(), stamp),
            Err(error) => State::Unusable(error.to_string()),
        };
        let is_named = settings.tensorrt.engine.is_some();
        let state = match state {
            State::Good(..) => state,
            state if is_named => state,
            state => other(settings, &machine, &path, state)?,
        };
        let state = match state {
            State::Old { text, .. } if !settings.stand_ins => State::Unusable(text),
            state => state,
        };
        Ok(Self { path, state })
    }
}

/// The file's name: as it was named, or by what it is for.
fn path(settings: &Settings, machine: &Machine) -> PathBuf {
    let manifest = &settings.manifest;
    if let Some(path) = &settings.tensorrt.engine {
        return path.clone();
    }
    let name = Name {
        model: &manifest.name,
        batch: settings.lanes.unwrap_or(1),
        precision: manifest.tensorrt.precision,
        sm: Some(settings.device.compute_capability()),
        gpu: Some(settings.device.name()),
        tensorrt: &machine.tensorrt.version,
    };
    let beside = settings.manifest_file.parent().unwrap_or(Path::new("")).join("built");
    name.engine(&settings.state_dir.as_deref().map_or(beside, built::folder))
}

/// What an engine with that stamp must be to be what is wanted.
fn wanted(settings: &Settings, stamp: &Stamp) -> Result<Wanted, BackendError> {
    let manifest = &settings.manifest;
    match settings.lanes {
        Some(lanes) => order::wanted(manifest, lanes).map_err(wrong_order),
        // The engine was named by hand: the model it was built from is all that is asked.
        None => Ok(Wanted { model_sha256: manifest.sha256.clone(), options: stamp.options.clone() }),
    }
}

fn judge(settings: &Settings, machine: &Machine, wanted: &Wanted, at: PathBuf, stamp: Stamp) -> State {
    match stamp.verdict(machine, wanted, &settings.manifest.meaning()) {
        Verdict::Good => State::Good(at, stamp),
        Verdict::Meanwhile(facts) => {
            let text = refusal(&at, &facts);
            State::Old { at, stamp, text }
        }
        Verdict::Unfit(facts) => State::Unusable(refusal(&at, &facts)),
    }
}

/// Another engine of the model in place of the one at `path`, which is not good, in what `state` it may be.
fn other(settings: &Settings, machine: &Machine, path: &Path, state: State) -> Result<State, BackendError> {
    let others = built::beside_it(path, &settings.manifest.name);
    // What is wanted is the same for all, and takes reading the model.
    let Some((_, first)) = others.first() else { return Ok(state) };
    let wanted = wanted(settings, first)?;
    let mut best = state;
    for (at, stamp) in others {
        match judge(settings, machine, &wanted, at, stamp) {
            State::Good(at, stamp) => return Ok(State::Good(at, stamp)),
            State::Old { at, stamp, .. } => {
                if let State::Unusable(text) = best {
                    best = State::Old { at, stamp, text };
                }
            }
            State::Unusable(_) => {}
        }
    }
    Ok(best)
}

/// As a failure of the backend.
pub fn wrong_order(error: OrderError) -> BackendError {
    match error {
        OrderError::Read { .. } => BackendError::Unavailable(error.to_string()),
        OrderError::Manifest(_) | OrderError::Shapes { .. } => BackendError::Config(error.to_string()),
    }
}
