//! From a description and a source to a pipeline.
//!
//! A description is `gst-launch` text of structure only: one element `name=src`, one `appsink name=frames`,
//! lines that begin with `#` are comments. Addresses and credentials are set as properties, never by text.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;

use crate::config::{Pace, RtspSource, Source, Transport};

/// Descriptions that come with the program, by name.
const BUILT_IN: [(&str, &str); 4] = [
    ("rtsp", include_str!("../../pipelines/software/rtsp.gst")),
    ("file", include_str!("../../pipelines/software/file.gst")),
    ("v4l2", include_str!("../../pipelines/software/v4l2.gst")),
    ("test", include_str!("../../pipelines/software/test.gst")),
];

/// What ended a camera's connection, by what its thread may do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CameraError {
    /// Retry soon: network, stream, decoder.
    #[error("{0}")]
    Stream(String),
    /// Retry after five minutes: another wrong password may lock the account.
    #[error("{0}")]
    Refused(String),
    /// Retry slowly: the pipeline cannot be built as things are (plug-in, file, device missing).
    #[error("{0}")]
    Setup(String),
}

/// A pipeline with its two named elements.
pub struct Pipeline {
    /// The whole.
    pub pipeline: gst::Pipeline,
    /// The element `src`.
    pub source: gst::Element,
    /// The element `frames`.
    pub frames: AppSink,
}

/// The names of the built-in descriptions.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// The text of a description: a built-in name, or a path.
///
/// # Errors
///
/// A sentence naming the description.
pub fn description(name: &str) -> Result<String, CameraError> {
    let built_in = BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    let text = match built_in {
        Some(text) => text,
        None => std::fs::read_to_string(name).map_err(|e| {
            let known: Vec<_> = built_in_names().collect();
            let known = known.join(", ");
            CameraError::Setup(format!("pipeline description `{name}`: {e}; give a file, or one of {known}"))
        })?,
    };
    let structure = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    Ok(structure.collect::<Vec<_>>().join("\n"))
}

/// Parses a description and finds its named elements, nothing set or started.
///
/// # Errors
///
/// A sentence naming the description, and the plug-ins it misses.
pub fn parse(name: &str) -> Result<Pipeline, CameraError> {
    let text = description(name)?;
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS;
    let element = gst::parse::launch_full(&text, Some(&mut context), flags).map_err(|e| {
        let missing = context.missing_elements();
        if missing.is_empty() {
            return CameraError::Setup(format!("pipeline description `{name}`: {}", e.message()));
        }
        let list: Vec<&str> = missing.iter().map(|m| m.as_str()).collect();
        CameraError::Setup(format!(
            "pipeline description `{name}` needs the missing GStreamer element(s) {}: install the plug-in package that \
             has them (gst-inspect-1.0 lists what is there)",
            list.join(", ")
        ))
    })?;
    let wrong = |what: &str| CameraError::Setup(format!("pipeline description `{name}`: {what}"));
    let pipeline = element.downcast::<gst::Pipeline>().map_err(|_| wrong("it holds a single element"))?;
    let source = pipeline.by_name("src").ok_or_else(|| wrong("no element has name=src"))?;
    let frames = pipeline
        .by_name("frames")
        .and_then(|e| e.downcast::<AppSink>().ok())
        .ok_or_else(|| wrong("no appsink has name=frames"))?;
    Ok(Pipeline { pipeline, source, frames })
}

/// A pipeline ready to start: source properties, decoder threads and the sink's pace are set.
///
/// # Errors
///
/// A sentence naming the description or the setting that does not fit.
pub fn build(name: &str, source: &Source) -> Result<Pipeline, CameraError> {
    let parts = parse(name)?;
    match source {
        Source::Rtsp(rtsp) => set_rtsp(&parts.source, rtsp)?,
        Source::File { path, .. } => {
            if let Err(e) = std::fs::File::open(path) {
                return Err(CameraError::Setup(format!("file {}: {e}", path.display())));
            }
            set(&parts.source, "location", path_text(path))?;
        }
        Source::V4l2 { device } => set(&parts.source, "device", path_text(device))?,
        Source::Test { size, fps, pattern } => set_test(&parts, *size, *fps, pattern)?,
    }
    let realtime = matches!(source, Source::File { pace: Pace::Realtime, .. });
    let fast = matches!(source, Source::File { pace: Pace::Fast, .. });
    parts.frames.set_sync(realtime);
    parts.frames.set_max_buffers(1);
    parts.frames.set_drop(!fast);
    parts.frames.set_enable_last_sample(false);
    parts.frames.set_qos(false);
    parts.pipeline.connect_deep_element_added(|_, _, element| set_decoder(element));
    Ok(parts)
}

/// Plug-ins that a description and a source need and that are not installed.
///
/// # Errors
///
/// The first thing missing, in words.
pub fn check(name: &str, source: &Source) -> Result<(), CameraError> {
    let _ = parse(name)?;
    let needed: &[(&str, &str)] = match source {
        Source::Rtsp(_) => &[
            ("rtph264depay", "gstreamer1.0-plugins-good"),
            ("h264parse", "gstreamer1.0-plugins-bad"),
            ("avdec_h264", "gstreamer1.0-libav"),
        ],
        Source::File { .. } => &[("avdec_h264", "gstreamer1.0-libav"), ("qtdemux", "gstreamer1.0-plugins-good")],
        Source::V4l2 { .. } | Source::Test { .. } => &[],
    };
    for (element, package) in needed {
        if gst::ElementFactory::find(element).is_none() {
            return Err(CameraError::Setup(format!("GStreamer element {element} is missing: install {package}")));
        }
    }
    Ok(())
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Sets a property where the element has it; else the description and the camera's source do not fit.
fn set(element: &gst::Element, property: &str, value: impl Into<gst::glib::Value>) -> Result<(), CameraError> {
    if !element.has_property(property) {
        let kind = element.factory().map(|f| f.name().to_string()).unwrap_or_default();
        return Err(CameraError::Setup(format!(
            "the description's `src` is {kind}, which has no `{property}`: it does not fit the camera's url"
        )));
    }
    element.set_property_from_value(property, &value.into());
    Ok(())
}

fn set_rtsp(src: &gst::Element, rtsp: &RtspSource) -> Result<(), CameraError> {
    set(src, "location", rtsp.url.clone())?;
    set(src, "latency", u32::try_from(rtsp.latency.as_millis()).unwrap_or(u32::MAX))?;
    if let Some(user) = &rtsp.user {
        set(src, "user-id", user.clone())?;
    }
    if let Some(password) = &rtsp.password {
        set(src, "user-pw", password.expose().to_owned())?;
    }
    let transport = match (rtsp.transport, rtsp.url.starts_with("rtsps")) {
        (Transport::Tcp, false) => "tcp",
        (Transport::Udp, false) => "udp",
        (Transport::Tcp, true) => "tcp+tls",
        (Transport::Udp, true) => "udp+tls",
    };
    src.set_property_from_str("protocols", transport);
    // A dead host is given up after 5 s instead of 20 s; UDP silence likewise.
    set(src, "tcp-timeout", 5_000_000u64)?;
    set(src, "timeout", 5_000_000u64)?;
    // Late packets are worth less than the next ones.
    set(src, "drop-on-latency", true)?;
    if src.has_property("add-reference-timestamp-meta") {
        src.set_property("add-reference-timestamp-meta", true);
    }
    set_tls(src, rtsp)?;
    // Audio and metadata are never asked for.
    src.connect("select-stream", false, |values| {
        let caps = values.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        let media = caps.as_ref().and_then(|c| c.structure(0)).and_then(|s| s.get::<String>("media").ok());
        Some((media.as_deref() == Some("video")).to_value())
    });
    Ok(())
}

fn set_tls(src: &gst::Element, rtsp: &RtspSource) -> Result<(), CameraError> {
    if !rtsp.verify {
        set(src, "tls-validation-flags", gio::TlsCertificateFlags::empty())?;
    }
    if let Some(ca) = &rtsp.ca_file {
        let database = gio::TlsFileDatabase::new(ca).map_err(|e| {
            CameraError::Setup(format!(
                "ca_file {}: {} (TLS needs the package glib-networking)",
                ca.display(),
                e.message()
            ))
        })?;
        set(src, "tls-database", database)?;
    }
    Ok(())
}

fn set_test(parts: &Pipeline, size: (u32, u32), fps: u32, pattern: &str) -> Result<(), CameraError> {
    let wrong = |what: String| CameraError::Setup(what);
    let class = parts.source.property_value("pattern").type_();
    let known = gst::glib::EnumClass::with_type(class).is_some_and(|c| c.value_by_nick(pattern).is_some());
    if !known {
        return Err(wrong(format!("pattern {pattern} is unknown: gst-inspect-1.0 videotestsrc lists them")));
    }
    parts.source.set_property_from_str("pattern", pattern);
    let filter = parts
        .pipeline
        .by_name("size")
        .ok_or_else(|| wrong("the description has no capsfilter name=size".to_owned()))?;
    let caps = gst::Caps::builder("video/x-raw")
        .field("width", size.0 as i32)
        .field("height", size.1 as i32)
        .field("framerate", gst::Fraction::new(fps as i32, 1))
        .build();
    set(&filter, "caps", caps)
}

/// One thread a decoder: many cameras share the cores, and frame threading would hold frames back. Pictures with
/// missing references are not passed on: they would be "detected".
fn set_decoder(element: &gst::Element) {
    let is_libav = element.factory().is_some_and(|f| f.name().starts_with("avdec_"));
    if is_libav && element.has_property("max-threads") {
        element.set_property("max-threads", 1i32);
    }
    if is_libav && element.has_property("output-corrupt") {
        element.set_property("output-corrupt", false);
    }
}

/// A bus error in words, by what may be done about it.
pub fn stream_error(error: &gst::message::Error) -> CameraError {
    let reason = error.error();
    let debug = error.debug().unwrap_or_default();
    let text = reason.message().trim_end_matches('.').to_owned();
    // rtspsrc reports a missing or wrong password as 401 in the debug text with a generic code on some versions.
    let refused = reason.matches(gst::ResourceError::NotAuthorized)
        || debug.contains("401")
        || debug.contains("Unauthorized");
    if refused {
        return CameraError::Refused(
            "the camera refused the user or password: correct them in the configuration".to_owned(),
        );
    }
    if reason.matches(gst::CoreError::MissingPlugin) || reason.matches(gst::StreamError::CodecNotFound) {
        return CameraError::Setup(format!("{text}: install the GStreamer plug-in for this codec"));
    }
    let tls = debug.contains("TLS") || debug.contains("certificate");
    let hint = if tls { " (TLS: give the camera's ca_file, or tls_verify = false)" } else { "" };
    let detail = debug.lines().last().unwrap_or_default().trim();
    let detail = if detail.is_empty() || detail == text { String::new() } else { format!(" ({detail})") };
    CameraError::Stream(format!("{text}{detail}{hint}"))
}
