//! The only part of the configuration that opens files: the configuration itself, secrets, certificates, models.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::tz::TimeZone;

use crate::config::Secret;
use crate::process::{EVERYONES, is_everyones};

/// Largest configuration file.
pub(super) const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Largest password or token.
const SECRET_BYTES_MAX: usize = 4 << 10;
/// Largest certificate or key file.
const PEM_BYTES_MAX: usize = 1 << 20;

/// Mode bits that let others read a file, or the group or others write it.
const MODE_OPEN: u32 = 0o026;

/// What the machine says: the environment and the host's name.
pub(in crate::config) struct Host<'a> {
    /// A variable of the environment, where it is set and UTF-8.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The host's name.
    pub name: Option<String>,
}

/// The host's name.
pub(super) fn host_name() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned())
}

/// The bytes of the configuration at `path`, and whether everyone may write it.
///
/// # Errors
///
/// One sentence that says why there are none.
pub(super) fn config(path: &Path) -> Result<(Vec<u8>, bool), String> {
    let (bytes, metadata) = read(path, CONFIG_BYTES_MAX)?;
    Ok((bytes, is_everyones(&metadata)))
}

/// `path` is a file that this user may read and not everyone may change: a manifest names libraries to be loaded, a
/// pipeline description files to be written.
///
/// # Errors
///
/// One sentence that says why not; where it cannot be read it ends with `remedy`.
pub(in crate::config) fn readable(path: &Path, remedy: &str) -> Result<(), String> {
    let (_, metadata) = open(path).map_err(|text| format!("{text}: {remedy}"))?;
    if is_everyones(&metadata) {
        return Err(format!("{EVERYONES} ({})", path.display()));
    }
    Ok(())
}

/// The time zone of that name, else this machine's own: the machine's zone files, or what is compiled in.
///
/// # Errors
///
/// One sentence that says why there is none.
pub(in crate::config) fn time_zone(name: Option<&str>) -> Result<TimeZone, String> {
    match name {
        Some(name) => TimeZone::get(name)
            .map_err(|_| "there is no such time zone: give one as in \"Europe/Berlin\" or \"UTC\"".to_owned()),
        None => TimeZone::try_system()
            .map_err(|_| "this machine does not say its time zone: give one as in \"Europe/Berlin\"".to_owned()),
    }
}

/// A password or token in a file. The file's mode is checked unless systemd put it there, with a mode of its own.
///
/// # Errors
///
/// One sentence that says why there is none; it repeats neither the file's path nor its text.
pub(in crate::config) fn secret(path: &Path, by_systemd: bool) -> Result<Secret, String> {
    let (bytes, metadata) = read(path, SECRET_BYTES_MAX)
        .map_err(|text| format!("{text}: give a file of mode 600 with the secret in it"))?;
    if !by_systemd && metadata.mode() & MODE_OPEN != 0 {
        return Err("others may read or change this file: chmod 600 it".to_owned());
    }
    secret_text(String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())?)
}

/// A password or token as a text, less the newline that editors leave at the end.
///
/// # Errors
///
/// One sentence that says why it is none.
pub(in crate::config) fn secret_text(mut text: String) -> Result<Secret, String> {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err("it is empty: write the secret on one line".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("it holds more than one line or a control character: write the secret on one line".to_owned());
    }
    Ok(Secret::new(text))
}

/// `path` is a readable PEM file that not everyone may change; `private` keys must not be readable by others.
///
/// # Errors
///
/// One sentence that says why not.
pub(in crate::config) fn pem(path: &Path, private: bool) -> Result<(), String> {
    let (bytes, metadata) = read(path, PEM_BYTES_MAX).map_err(|text| format!("{text}: give a PEM file"))?;
    if private && metadata.mode() & MODE_OPEN != 0 {
        return Err("others may read or change this file: chmod 600 it".to_owned());
    }
    if is_everyones(&metadata) {
        return Err(EVERYONES.to_owned());
    }
    let label: &[u8] = if private { b"PRIVATE KEY-----" } else { b"-----BEGIN CERTIFICATE-----" };
    if !bytes.windows(label.len()).any(|window| window == label) {
        let what = if private { "private key" } else { "certificate" };
        return Err(format!("there is no PEM {what} in this file: give one that holds it"));
    }
    Ok(())
}

fn read(path: &Path, bytes_max: usize) -> Result<(Vec<u8>, Metadata), String> {
    let (file, metadata) = open(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(|e| sentence(&e))?;
    if bytes.len() > bytes_max {
        return Err(format!("the file is larger than {} KiB", bytes_max >> 10));
    }
    Ok((bytes, metadata))
}

fn open(path: &Path) -> Result<(File, Metadata), String> {
    // Looked at before it is opened: opening a named pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(|e| sentence(&e))?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let file = File::open(path).map_err(|e| sentence(&e))?;
    let metadata = file.metadata().map_err(|e| sentence(&e))?;
    Ok((file, metadata))
}

fn sentence(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "this user may not read the file".to_owned(),
        _ => format!("the file cannot be read ({error})"),
    }
}
