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
use super::{Config, resolve, shape};

/// Hex digits of [`Config::hash`].
const HASH_DIGITS: usize = 12;

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

/// Reads and checks the configuration at `path`.
///
/// # Errors
///
/// Every problem found, with its line and path.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let alone = |line: Option<usize>, text: String| Problems(vec![Problem { line, path: name.clone(), text }]);
    let (bytes, world_writable) = files::config(path)
        .map_err(|text| alone(None, format!("{text}: give the path of a configuration file")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|b| **b == b'\n').count();
        alone(Some(line), "this line is not UTF-8 text: save the file as UTF-8".to_owned())
    })?;
    let parsed = parse(&text, path.parent().unwrap_or(Path::new("")));
    if !world_writable {
        return parsed;
    }
    let mut problems = alone(None, "everyone may change this file: chmod o-w it".to_owned());
    problems.0.extend(parsed.err().into_iter().flat_map(|found| found.0));
    Err(problems)
}

/// Checks a configuration given as text; relative paths are resolved against `folder`.
///
/// # Errors
///
/// Every problem found, with its line and path.
pub fn parse(text: &str, folder: &Path) -> Result<Config, Problems> {
    let host = Host { env: &|name| std::env::var(name).ok(), name: files::host_name() };
    parse_on(text, folder, &host)
}

fn parse_on(text: &str, folder: &Path, host: &Host<'_>) -> Result<Config, Problems> {
    let mut report = Report::new(text);
    if text.len() > files::CONFIG_BYTES_MAX {
        let text = format!("it is larger than {} KiB", files::CONFIG_BYTES_MAX >> 10);
        report.whole("(file)", None, text);
        return Err(report.into_problems());
    }
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let start = error.span().map(|span| span.start);
            report.whole("(file)", start, format!("this is not TOML: {}", error.message()));
            return Err(report.into_problems());
        }
    };
    match shape::read(&document, &mut report) {
        Some(file) => resolve::resolve(&file, &Section::root(&document), folder, host, report, hash(text)),
        None => Err(report.into_problems()),
    }
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..HASH_DIGITS].to_owned()
}
