//! Reading a configuration: text → [`Config`], or every problem at once.

pub(super) mod files;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};
use toml::de::DeTable;

use self::files::Host;
use super::report::{Report, Section};
use super::{CameraConfig, Config, Draft, EngineConfig, LabelUse, resolve, shape};
use crate::process::EVERYONES;

/// Hex digits of [`Config::hash`].
const HASH_DIGITS: usize = 12;

/// [`Problem::path`] of what is wrong with a file as a whole.
pub const WHOLE_FILE: &str = "(file)";

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1, where known.
    pub line: Option<usize>,
    /// Path of the setting, such as `camera[gate].fps_max`.
    pub path: String,
    /// What is wrong and what to do, one sentence.
    pub text: String,
}

/// Everything wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            let line = problem.line.map(|l| format!("line {l}: ")).unwrap_or_default();
            write!(f, "{newline}{line}{}: {}", problem.path, problem.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A configuration as far as it can be read.
pub struct Inspection {
    /// Everything wrong with it.
    pub problems: Vec<Problem>,
    /// The engine, where its section is sound.
    pub engine: Option<EngineConfig>,
    /// The cameras that are sound.
    pub cameras: Vec<CameraConfig>,
    /// Where labels are named; [`unknown_labels`](super::unknown_labels) holds them against the model's.
    pub labels: Vec<LabelUse>,
    /// The whole, where every part is sound.
    pub(super) config: Option<Config>,
    /// What can be changed of it by and by.
    pub(super) draft: Option<Draft>,
}

impl Inspection {
    /// The configuration.
    ///
    /// # Errors
    ///
    /// Every problem found.
    pub fn into_config(self) -> Result<Config, Problems> {
        match self.config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(Problems(self.problems)),
        }
    }

    /// What lets commands change cameras later, where every part is sound.
    pub fn take_draft(&mut self) -> Option<Draft> {
        self.draft.take()
    }

    fn unreadable(problems: Vec<Problem>) -> Self {
        Self { problems, engine: None, cameras: Vec::new(), labels: Vec::new(), config: None, draft: None }
    }
}

/// Reads and checks the configuration at `path`.
///
/// # Errors
///
/// Every problem found, with its line and path.
pub fn load(path: &Path) -> Result<Config, Problems> {
    inspect(path).into_config()
}

/// [`load`], with what lets commands change cameras later.
///
/// # Errors
///
/// As [`load`].
pub fn open(path: &Path) -> Result<(Config, Draft), Problems> {
    let mut found = inspect(path);
    let draft = found.take_draft();
    let config = found.into_config()?;
    // Where the text could be read there is one.
    Ok((config, draft.unwrap_or_else(|| Draft::new("", Path::new("")))))
}

/// Reads the configuration at `path` as far as that is possible.
pub fn inspect(path: &Path) -> Inspection {
    let whole = |line: Option<usize>, text: String| Problem { line, path: WHOLE_FILE.to_owned(), text };
    let (bytes, world_writable) = match files::config(path) {
        Ok(read) => read,
        Err(text) => {
            let text = format!("{text}: give the path of a configuration file");
            return Inspection::unreadable(vec![whole(None, text)]);
        }
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|b| **b == b'\n').count();
            let text = "this line is not UTF-8 text: save the file as UTF-8".to_owned();
            return Inspection::unreadable(vec![whole(Some(line), text)]);
        }
    };
    let host = Host { env: &|name| std::env::var(name).ok(), name: files::host_name() };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut found = inspect_on(&text, folder, &host);
    found.draft = found.config.is_some().then(|| Draft::new(&text, folder));
    if world_writable {
        found.problems.insert(0, whole(None, EVERYONES.to_owned()));
    }
    found
}

/// Checks a configuration given as text; relative paths are resolved against `folder`.
///
/// # Errors
///
/// Every problem found, with its line and path.
pub fn parse(text: &str, folder: &Path) -> Result<Config, Problems> {
    let host = Host { env: &|name| std::env::var(name).ok(), name: files::host_name() };
    inspect_on(text, folder, &host).into_config()
}

fn inspect_on(text: &str, folder: &Path, host: &Host<'_>) -> Inspection {
    let mut report = Report::new(text);
    if text.len() > files::CONFIG_BYTES_MAX {
        let text = format!("it is larger than {} KiB", files::CONFIG_BYTES_MAX >> 10);
        report.whole(WHOLE_FILE, None, text);
        return Inspection::unreadable(report.into_problems());
    }
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let start = error.span().map(|span| span.start);
            report.whole(WHOLE_FILE, start, format!("this is not TOML: {}", error.message()));
            return Inspection::unreadable(report.into_problems());
        }
    };
    match shape::read(&document, &mut report) {
        Some(file) => resolve::resolve(&file, &Section::root(&document), folder, host, report, hash(text)),
        None => Inspection::unreadable(report.into_problems()),
    }
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..HASH_DIGITS].to_owned()
}
