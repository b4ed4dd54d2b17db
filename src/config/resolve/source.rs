//! Where a camera's video comes from: the parts of its `url`.

use std::path::{Path, PathBuf};

use super::address::{Address, percent_decoded};
use crate::config::file::{CsiPicture, FileCamera, TestPicture};
use crate::config::{RtspSource, Source};

/// Patterns of `videotestsrc`.
const PATTERNS: [&str; 26] = [
    "smpte",
    "snow",
    "black",
    "white",
    "red",
    "green",
    "blue",
    "checkers-1",
    "checkers-2",
    "checkers-4",
    "checkers-8",
    "circular",
    "blink",
    "smpte75",
    "zone-plate",
    "gamut",
    "chroma-zone-plate",
    "solid-color",
    "ball",
    "smpte100",
    "bar",
    "pinwheel",
    "spokes",
    "gradient",
    "colors",
    "smpte-rp-219",
];
/// Width or height that is asked for, in pixels.
const SIDE_PIXELS: std::ops::RangeInclusive<u32> = 16..=8192;
/// Highest number of a CSI sensor.
const SENSOR_MAX: u32 = 15;
/// Frames a second that are asked for.
const FPS: std::ops::RangeInclusive<u32> = 1..=240;

/// What kind of address a camera has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Rtsp,
    Rtsps,
    File,
    V4l2,
    Csi,
    Test,
}

impl Scheme {
    /// The built-in pipeline description for it.
    pub fn pipeline(self) -> &'static str {
        match self {
            Self::Rtsp | Self::Rtsps => "rtsp",
            Self::File => "file",
            Self::V4l2 => "v4l2",
            Self::Csi => "csi",
            Self::Test => "test",
        }
    }

    /// Its cameras, in words.
    pub fn cameras(self) -> &'static str {
        match self {
            Self::Rtsp => "rtsp:// cameras",
            Self::Rtsps => "rtsps:// cameras",
            Self::File => "files",
            Self::V4l2 => "v4l2:// cameras",
            Self::Csi => "csi:// cameras",
            Self::Test => "test:// cameras",
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "rtsp" => Some(Self::Rtsp),
            "rtsps" => Some(Self::Rtsps),
            "file" => Some(Self::File),
            "v4l2" => Some(Self::V4l2),
            "csi" => Some(Self::Csi),
            "test" => Some(Self::Test),
            _ => None,
        }
    }
}

/// Splits a camera's `url` into its kind and what follows `scheme://`; without a scheme it is a file's path.
///
/// # Errors
///
/// One sentence that names the kinds there are.
pub(super) fn scheme(url: &str) -> Result<(Scheme, &str), String> {
    let unknown = "give rtsp://, rtsps://, file:///, v4l2:///dev/…, csi:// or test://, or the path of a file";
    if url.is_empty() || url.chars().any(char::is_control) {
        return Err(unknown.to_owned());
    }
    match url.split_once("://") {
        Some((name, rest)) => {
            Scheme::named(&name.to_ascii_lowercase()).map(|scheme| (scheme, rest)).ok_or(unknown.to_owned())
        }
        None => {
            let name = url.split(':').next().filter(|name| name.len() < url.len()).map(str::to_ascii_lowercase);
            if name.is_some_and(|name| Scheme::named(&name).is_some()) {
                return Err("write :// after the kind of the address, as in rtsp://".to_owned());
            }
            Ok((Scheme::File, url))
        }
    }
}

/// The file that `url` names.
///
/// # Errors
///
/// One sentence that says what is wrong.
pub(super) fn file(url: &str, rest: &str, folder: &Path) -> Result<PathBuf, String> {
    if !url.contains("://") {
        return Ok(folder.join(url));
    }
    absolute(rest).ok_or("give an absolute path, as in file:///srv/video.mp4, or a path without file://".to_owned())
}

/// The device that follows `v4l2://`.
///
/// # Errors
///
/// One sentence that says what is wrong.
pub(super) fn device(rest: &str) -> Result<PathBuf, String> {
    absolute(rest).ok_or("give the device's path, as in v4l2:///dev/video0".to_owned())
}

fn absolute(rest: &str) -> Option<PathBuf> {
    let path = PathBuf::from(percent_decoded(rest).ok()?);
    path.is_absolute().then_some(path)
}

/// The address that follows `rtsp://` or `rtsps://`.
///
/// # Errors
///
/// One sentence that says what is wrong.
pub(super) fn rtsp(rest: &str) -> Result<Address, String> {
    Address::parse(rest)
}

/// The picture that follows `test://`.
///
/// # Errors
///
/// One sentence that says what is wrong.
pub(super) fn test(rest: &str) -> Result<TestPicture, String> {
    let mut picture = TestPicture::default();
    let shape = "write test://?size=640x480&fps=10&pattern=ball, or less of it";
    let query = match rest.strip_prefix('?') {
        Some(query) => query,
        None if rest.is_empty() => return Ok(picture),
        None => return Err(shape.to_owned()),
    };
    for pair in query.split('&') {
        match pair.split_once('=').ok_or(shape)? {
            ("size", text) => picture.size = size(text)?,
            ("fps", text) => picture.fps = fps(text)?,
            ("pattern", name) => {
                let known = PATTERNS.iter().find(|known| **known == name);
                picture.pattern =
                    known.ok_or_else(|| format!("pattern: give one of {}", PATTERNS.join(", ")))?.to_string();
            }
            _ => return Err(shape.to_owned()),
        }
    }
    Ok(picture)
}

/// The sensor that follows `csi://`, and what is asked of it.
///
/// # Errors
///
/// One sentence that says what is wrong.
pub(super) fn csi(rest: &str) -> Result<CsiPicture, String> {
    let shape = "write csi://0?size=1920x1080&fps=30, or less of it";
    let (sensor, query) = match rest.split_once('?') {
        Some((sensor, query)) => (sensor, Some(query)),
        None => (rest, None),
    };
    let sensor =
        if sensor.is_empty() { 0 } else { sensor.parse().ok().filter(|n| *n <= SENSOR_MAX).ok_or(shape)? };
    let mut picture = CsiPicture { sensor, ..CsiPicture::default() };
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        match pair.split_once('=').ok_or(shape)? {
            ("size", text) => picture.size = size(text)?,
            ("fps", text) => picture.fps = fps(text)?,
            _ => return Err(shape.to_owned()),
        }
    }
    Ok(picture)
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides
        .filter(|(w, h)| SIDE_PIXELS.contains(w) && SIDE_PIXELS.contains(h))
        .ok_or_else(|| format!("size: give WIDTHxHEIGHT, {} to {} pixels", SIDE_PIXELS.start(), SIDE_PIXELS.end()))
}

fn fps(text: &str) -> Result<u32, String> {
    let fps = text.parse().ok().filter(|fps| FPS.contains(fps));
    fps.ok_or_else(|| format!("fps: give a whole number from {} to {}", FPS.start(), FPS.end()))
}

/// The built-in description and the source that an address alone names, everything else at its default.
///
/// # Errors
///
/// One sentence that says what is wrong; it never repeats a password.
pub fn of_address(url: &str, folder: &Path) -> Result<(String, Source), String> {
    let (scheme, rest) = scheme(url)?;
    let defaults = FileCamera::default();
    let source = match scheme {
        Scheme::Rtsp | Scheme::Rtsps => {
            let address = rtsp(rest)?;
            Source::Rtsp(RtspSource {
                url: address.stripped(if scheme == Scheme::Rtsps { "rtsps" } else { "rtsp" }),
                user: address.user,
                password: address.password,
                transport: defaults.transport,
                latency: defaults.latency,
                ca_file: None,
                verify: defaults.tls_verify,
            })
        }
        Scheme::File => {
            Source::File { path: file(url, rest, folder)?, pace: defaults.pace, repeat: defaults.repeat }
        }
        Scheme::V4l2 => Source::V4l2 { device: device(rest)? },
        Scheme::Csi => {
            let picture = csi(rest)?;
            Source::Csi { sensor: picture.sensor, size: picture.size, fps: picture.fps }
        }
        Scheme::Test => {
            let picture = test(rest)?;
            Source::Test { size: picture.size, fps: picture.fps, pattern: picture.pattern }
        }
    };
    Ok((scheme.pipeline().to_owned(), source))
}
