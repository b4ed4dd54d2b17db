//! Checks a `[[camera]]`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::source::{self, Scheme};
use super::{Origin, Resolver, polygon};
use crate::config::file::{FileCamera, FileConfig};
use crate::config::load::files;
use crate::config::report::{NAME_BYTES_MAX, Section, is_topic_level};
use crate::config::{CameraConfig, Decode, RtspSource, Source};
use crate::frame::CameraId;
use crate::mask::RegionMask;

/// Names of the pipeline descriptions that are part of the program.
const PIPELINES: [&str; 5] = ["rtsp", "file", "v4l2", "csi", "test"];
/// Highest rate that may be asked for, a second.
const HZ_MAX: f64 = 1000.0;
/// Longest jitter buffer.
const LATENCY_MAX: Duration = Duration::from_secs(10);
/// Shortest and longest wait for a frame.
const STALL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

const RTSP: &[Scheme] = &[Scheme::Rtsp, Scheme::Rtsps];
const RTSPS: &[Scheme] = &[Scheme::Rtsps];
const FILE: &[Scheme] = &[Scheme::File];

/// Settings that only some kinds of cameras have.
const ONLY_FOR: [(&str, &[Scheme]); 10] = [
    ("user", RTSP),
    ("password_file", RTSP),
    ("password_env", RTSP),
    ("password_credential", RTSP),
    ("transport", RTSP),
    ("latency", RTSP),
    ("ca_file", RTSPS),
    ("tls_verify", RTSPS),
    ("pace", FILE),
    ("repeat", FILE),
];

impl Resolver<'_> {
    /// `whole` has what holds for cameras that do not say otherwise.
    pub(super) fn camera(
        &mut self,
        section: &Section<'_>,
        file: &FileCamera,
        whole: &FileConfig,
    ) -> Option<CameraConfig> {
        let id = self.id(section, file.id.as_deref());
        let scheme = self.scheme(section, file);
        let source = scheme.and_then(|(scheme, rest)| self.source(section, file, scheme, rest));
        let pipeline = scheme.and_then(|(scheme, _)| self.pipeline(section, file, scheme));
        let decode = scheme.and_then(|(scheme, _)| self.decode(section, file, scheme));
        let fps_max = file.fps_max.and_then(|value| self.rate(section, "fps_max", value));
        let hz_max = file.detections_hz_max.and_then(|value| self.rate(section, "detections_hz_max", value));
        let priority = self.count(section, "priority", file.priority, 1..=10);
        let stall_timeout = self.between(section, "stall_timeout", file.stall_timeout, STALL);
        let mask = self.mask(section, &file.mask);
        let zones = self.zones(section, &file.zone, whole);
        let lines = self.lines(section, &file.line, whole);
        let filter = self.filter(section, file);
        let events = self.event_rules(section, file, whole, &zones);
        let motion = self.motion(section, &file.motion, &whole.motion);
        Some(CameraConfig {
            id: id?,
            enabled: file.enabled,
            source: source?,
            decode: decode?,
            pipeline: pipeline?,
            fps_max,
            priority: u8::try_from(priority?).ok()?,
            mask,
            stall_timeout: stall_timeout?,
            detections: file.detections,
            detections_hz_max: hz_max,
            zones,
            lines,
            filter,
            events,
            motion,
        })
    }

    fn id(&mut self, section: &Section<'_>, written: Option<&str>) -> Option<CameraId> {
        if let Some(id) = written.filter(|id| is_topic_level(id)) {
            return Some(CameraId::new(id));
        }
        let rule = format!("1 to {NAME_BYTES_MAX} of the characters A-Z, a-z, 0-9, _ and -");
        let text = match written {
            Some(_) => format!("this cannot stand in a topic: give {rule}"),
            None => format!("the camera has no name: give an id of {rule}"),
        };
        self.report.at(section, "id", text);
        None
    }

    fn scheme<'f>(&mut self, section: &Section<'_>, file: &'f FileCamera) -> Option<(Scheme, &'f str)> {
        let Some(url) = &file.url else {
            self.report.at(section, "url", "the camera has no address: give a url such as rtsp://host/path");
            return None;
        };
        let (scheme, rest) = match source::scheme(url.expose()) {
            Ok(found) => found,
            Err(text) => {
                self.report.at(section, "url", text);
                return None;
            }
        };
        for (key, schemes) in ONLY_FOR {
            if section.given(key) && !schemes.contains(&scheme) {
                let whose: Vec<&str> = schemes.iter().map(|scheme| scheme.cameras()).collect();
                let text = format!("this is for {}, not for {}: remove it", whose.join(" and "), scheme.cameras());
                self.report.at(section, key, text);
            }
        }
        Some((scheme, rest))
    }

    fn source(&mut self, section: &Section<'_>, file: &FileCamera, scheme: Scheme, rest: &str) -> Option<Source> {
        let url = file.url.as_ref()?.expose();
        let source = match scheme {
            Scheme::Rtsp | Scheme::Rtsps => return self.rtsp(section, file, scheme, rest),
            Scheme::File => source::file(url, rest, self.folder).map(|path| Source::File {
                path,
                pace: file.pace,
                repeat: file.repeat,
            }),
            Scheme::V4l2 => source::device(rest).map(|device| Source::V4l2 { device }),
            Scheme::Csi => source::csi(rest).map(|p| Source::Csi { sensor: p.sensor, size: p.size, fps: p.fps }),
            Scheme::Test => {
                source::test(rest).map(|p| Source::Test { size: p.size, fps: p.fps, pattern: p.pattern })
            }
        };
        source.map_err(|text| self.report.at(section, "url", text)).ok()
    }

    fn rtsp(&mut self, section: &Section<'_>, file: &FileCamera, scheme: Scheme, rest: &str) -> Option<Source> {
        let origins = [
            ("password_file", file.password_file.as_deref().map(Origin::File)),
            ("password_env", file.password_env.as_deref().map(Origin::Env)),
            ("password_credential", file.password_credential.as_deref().map(Origin::Credential)),
        ];
        let mut address = source::rtsp(rest).map_err(|text| self.report.at(section, "url", text)).ok();
        let in_url = address.as_mut().map(|a| (a.user.take(), a.password.take())).unwrap_or_default();
        let (user, password) = if address.is_some() || file.user.is_some() {
            self.login(section, in_url, file.user.as_deref(), &origins)
        } else {
            // The user may stand in the address that could not be read.
            (None, self.secret(section, &origins))
        };
        let latency = self.between(section, "latency", file.latency, Duration::ZERO..=LATENCY_MAX);
        let ca_file = self.pem(section, "ca_file", file.ca_file.as_deref(), false);
        if ca_file.is_some() && !file.tls_verify {
            let text = "tls_verify = false accepts any certificate: remove one of the two";
            self.report.at(section, "ca_file", text);
        }
        let name = if scheme == Scheme::Rtsps { "rtsps" } else { "rtsp" };
        Some(Source::Rtsp(RtspSource {
            url: address?.stripped(name),
            user,
            password,
            transport: file.transport,
            latency: latency?,
            ca_file,
            verify: file.tls_verify,
        }))
    }

    fn pipeline(&mut self, section: &Section<'_>, file: &FileCamera, scheme: Scheme) -> Option<String> {
        let built_in = scheme.pipeline();
        let Some(written) = file.pipeline.as_deref() else { return Some(built_in.to_owned()) };
        if written == built_in {
            return Some(written.to_owned());
        }
        if PIPELINES.contains(&written) {
            let text =
                format!("this description is not for {}: give \"{built_in}\" or remove it", scheme.cameras());
            self.report.at(section, "pipeline", text);
            return None;
        }
        let path = self.folder.join(Path::new(written));
        let remedy = format!("give \"{built_in}\" or the path of a pipeline description");
        if let Err(text) = files::readable(&path, &remedy) {
            self.report.at(section, "pipeline", text);
            return None;
        }
        let text = path.to_str().map(str::to_owned);
        if text.is_none() {
            self.report.at(section, "pipeline", "its path is not UTF-8: move the file");
        }
        text
    }

    fn decode(&mut self, section: &Section<'_>, file: &FileCamera, scheme: Scheme) -> Option<Decode> {
        if section.given("decode") && file.pipeline.as_deref().is_some_and(|p| !PIPELINES.contains(&p)) {
            let text = "the description named by pipeline says how to decode: remove one of the two";
            self.report.at(section, "decode", text);
            return None;
        }
        let fits = match file.decode {
            Decode::Auto | Decode::Software => true,
            Decode::Cuda => matches!(scheme, Scheme::Rtsp | Scheme::Rtsps | Scheme::File),
            Decode::Jetson => scheme != Scheme::Test,
        };
        if !fits {
            let text = format!("{} cannot be decoded that way: give \"software\" or remove it", scheme.cameras());
            self.report.at(section, "decode", text);
        }
        fits.then_some(file.decode)
    }

    pub(super) fn rate(&mut self, section: &Section<'_>, key: &str, value: f64) -> Option<f64> {
        if value > 0.0 && value <= HZ_MAX {
            return Some(value);
        }
        self.report.at(section, key, format!("give a number above 0, at most {HZ_MAX}"));
        None
    }

    fn mask(&mut self, section: &Section<'_>, written: &[Vec<Vec<f64>>]) -> Option<Arc<RegionMask>> {
        if written.is_empty() {
            return None;
        }
        match polygon::polygons(written) {
            Ok(polygons) => Some(Arc::new(RegionMask::new(polygons))),
            Err(text) => {
                self.report.at(section, "mask", text);
                None
            }
        }
    }
}
