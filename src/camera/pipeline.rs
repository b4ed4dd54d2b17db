//! From a description and a source to a pipeline.
//!
//! A description is `gst-launch` text of structure only: one element `name=src`, one `appsink name=frames`,
//! lines that begin with `#` are comments. Addresses and credentials are set as properties, never by text. Between a
//! `parsebin name=streams` and a `decodebin name=decoder` the program makes the link.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use gio::prelude::TlsBackendExt;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;

use super::decode::{self, Kind};
use super::description;
use super::elements::{install, is_installed, missing_decoders};
use super::memory::{Memory, cuda};
use crate::config::{Decode, Pace, RtspSource, Source, Transport};

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
    /// Retry slowly: the pipeline description must be corrected first.
    #[error("{0}")]
    Description(String),
}

impl CameraError {
    /// The same, of something with a name.
    pub fn of(self, name: &str) -> Self {
        match self {
            Self::Stream(text) => Self::Stream(format!("{name}: {text}")),
            Self::Refused(text) => Self::Refused(format!("{name}: {text}")),
            Self::Setup(text) => Self::Setup(format!("{name}: {text}")),
            Self::Description(text) => Self::Description(format!("{name}: {text}")),
        }
    }
}

/// A pipeline with its two named elements.
pub struct Pipeline {
    /// The whole.
    pub pipeline: gst::Pipeline,
    /// The element `src`.
    pub source: gst::Element,
    /// The element `frames`.
    pub frames: AppSink,
    /// Where its frames lie.
    pub memory: Memory,
    /// Most of them that are out at once, where an engine takes them from a GPU.
    pub frames_out: Option<u32>,
    /// What is wrong with the camera's certificate or its decoder: errors on the bus do not tell.
    cause: Arc<OnceLock<CameraError>>,
}

impl Pipeline {
    /// A bus error in words, by what may be done about it.
    pub fn error(&self, error: &gst::message::Error) -> CameraError {
        self.cause().unwrap_or_else(|| stream_error(error, self.memory))
    }

    /// What will keep frames from coming, as soon as it is known.
    pub fn cause(&self) -> Option<CameraError> {
        self.cause.get().cloned()
    }
}

/// Parses a description and finds its named elements, nothing set or started.
///
/// # Errors
///
/// A sentence naming the description, and the plug-ins it misses.
pub fn parse(name: &str, kind: Kind) -> Result<Pipeline, CameraError> {
    let text = description::text(name, kind)?;
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS;
    let wrong = |what: &str| {
        CameraError::Description(format!(
            "pipeline description `{name}`: {what}: correct it (pipelines/ has examples)"
        ))
    };
    let element = gst::parse::launch_full(&text, Some(&mut context), flags).map_err(|e| {
        let missing = context.missing_elements();
        let missing: Vec<&str> = missing.iter().map(|m| m.as_str()).filter(|m| !is_installed(m)).collect();
        if missing.is_empty() {
            return wrong(e.message());
        }
        CameraError::Setup(format!("pipeline description `{name}`: {}", install(&missing)))
    })?;
    let pipeline = element.downcast::<gst::Pipeline>().map_err(|_| wrong("it holds a single element"))?;
    let source = pipeline.by_name("src").ok_or_else(|| wrong("no element has name=src"))?;
    let frames = pipeline
        .by_name("frames")
        .and_then(|e| e.downcast::<AppSink>().ok())
        .ok_or_else(|| wrong("no appsink has name=frames"))?;
    let memory = match kind {
        // Its descriptions cannot name it: the decoder's pad says host memory until it has been linked.
        Kind::Deepstream => Memory::Nvmm,
        Kind::Software | Kind::Cuda | Kind::Jetson => Memory::of_description(&text),
    };
    Ok(Pipeline { pipeline, source, frames, memory, frames_out: None, cause: Arc::default() })
}

/// A pipeline ready to start: source properties, the decoder, the GPU's context and the sink's pace are set. Behind a motion
/// gate the decoder gives out more frames at a time.
///
/// # Errors
///
/// A sentence naming the description or the setting that does not fit.
pub fn build(name: &str, source: &Source, decode: Decode, has_gate: bool) -> Result<Pipeline, CameraError> {
    // A file says itself what decodes.
    let kind = if description::is_built_in(name) { Kind::of(decode, source)? } else { Kind::Software };
    assemble(name, source, kind, decode::frames_out(has_gate))
}

fn assemble(name: &str, source: &Source, kind: Kind, frames_out: Option<u32>) -> Result<Pipeline, CameraError> {
    let parts = Pipeline { frames_out, ..parse(name, kind)? };
    set_source(&parts, source)?;
    set_sink(&parts.frames, source);
    if description::is_built_in(name) {
        decode::choose_decoders(&parts.pipeline, kind, &parts.cause);
    }
    decode::join_streams(&parts.pipeline, &parts.cause);
    decode::prepare_elements(&parts.pipeline, parts.memory, frames_out);
    if let (Memory::Cuda, Some(gpu)) = (parts.memory, decode::gpu()) {
        parts.pipeline.set_context(&cuda::context(gpu)?);
    }
    Ok(parts)
}

fn set_source(parts: &Pipeline, source: &Source) -> Result<(), CameraError> {
    match source {
        Source::Rtsp(rtsp) => {
            set_rtsp(&parts.source, rtsp)?;
            watch_certificate(parts);
            Ok(())
        }
        Source::File { path, .. } => {
            if let Err(e) = std::fs::File::open(path) {
                let text = format!("file {}: {e}: give the path of a video this user may read", path.display());
                return Err(CameraError::Setup(text));
            }
            set(&parts.source, "location", path_text(path))
        }
        Source::V4l2 { device } => set(&parts.source, "device", path_text(device)),
        Source::Csi { sensor, size, fps } => {
            set(&parts.source, "sensor-id", i32::try_from(*sensor).unwrap_or(i32::MAX))?;
            let caps = gst::Caps::builder("video/x-raw").features(["memory:NVMM"]).field("format", "NV12");
            set_size(parts, caps, *size, *fps)
        }
        Source::Test { size, fps, pattern } => set_test(parts, *size, *fps, pattern),
    }
}

fn set_sink(frames: &AppSink, source: &Source) {
    let realtime = matches!(source, Source::File { pace: Pace::Realtime, .. });
    let fast = matches!(source, Source::File { pace: Pace::Fast, .. });
    frames.set_sync(realtime);
    frames.set_max_buffers(1);
    frames.set_drop(!fast);
    frames.set_enable_last_sample(false);
    frames.set_qos(false);
}

/// All that keeps a description and a source from working on this machine: what is wrong with the description, which
/// elements are missing (those that decoders are found by at run time too), whether file or device are there. Nothing
/// is started.
pub fn check(name: &str, source: &Source, decode: Decode) -> Vec<CameraError> {
    let mut problems: Vec<CameraError> = build(name, source, decode, false).err().into_iter().collect();
    if let Source::V4l2 { device } = source
        && let Err(e) = std::fs::metadata(device)
    {
        let text = format!("device {}: {e}: connect the camera, or correct its url", device.display());
        problems.push(CameraError::Setup(text));
    }
    // Of a decoder that cannot be had something is said already.
    let kind = if description::is_built_in(name) { Kind::of(decode, source).ok() } else { Some(Kind::Software) };
    let chosen_from =
        kind.filter(|kind| description::text(name, *kind).is_ok_and(|text| text.contains("decodebin")));
    let missing = chosen_from.map(|kind| missing_decoders(source, kind)).unwrap_or_default();
    if !missing.is_empty() {
        problems.push(CameraError::Setup(install(&missing)));
    }
    let tls = matches!(source, Source::Rtsp(rtsp) if rtsp.url.starts_with("rtsps"));
    if tls && !gio::TlsBackend::default().supports_tls() {
        problems.push(CameraError::Setup("rtsps needs TLS: install glib-networking".to_owned()));
    }
    problems
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Sets a property where the element has it; else the description and the camera's source do not fit.
fn set(element: &gst::Element, property: &str, value: impl Into<gst::glib::Value>) -> Result<(), CameraError> {
    if !element.has_property(property) {
        let kind = element.factory().map(|f| f.name().to_string()).unwrap_or_default();
        return Err(CameraError::Description(format!(
            "the description's `{}` is {kind}, which has no `{property}`: give a description that fits the camera's url",
            element.name()
        )));
    }
    element.set_property_from_value(property, &value.into());
    Ok(())
}

fn set_rtsp(src: &gst::Element, rtsp: &RtspSource) -> Result<(), CameraError> {
    set(src, "location", location(rtsp))?;
    set(src, "latency", u32::try_from(rtsp.latency.as_millis()).unwrap_or(u32::MAX))?;
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

/// The address with user and password in it: rtspsrc answers a refusal with those of an address once, with those of its
/// properties eight times in a row, and accounts get locked.
fn location(rtsp: &RtspSource) -> String {
    let escaped = |text: &str| gst::glib::uri_escape_string(text, None::<&str>, false);
    match (rtsp.url.split_once("://"), &rtsp.user) {
        (Some((scheme, place)), Some(user)) => {
            let password = rtsp.password.as_ref().map(|password| escaped(password.expose())).unwrap_or_default();
            format!("{scheme}://{}:{password}@{place}", escaped(user))
        }
        _ => rtsp.url.clone(),
    }
}

fn set_tls(src: &gst::Element, rtsp: &RtspSource) -> Result<(), CameraError> {
    if !rtsp.verify {
        set(src, "tls-validation-flags", gio::TlsCertificateFlags::empty())?;
    }
    if let Some(ca) = &rtsp.ca_file {
        // GIO refuses a relative path, without a word of why.
        let whole = std::path::absolute(ca).unwrap_or_else(|_| ca.clone());
        let database = gio::TlsFileDatabase::new(whole).map_err(|e| {
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

/// Asked only about certificates that were found wanting.
fn watch_certificate(parts: &Pipeline) {
    let cause = Arc::clone(&parts.cause);
    parts.source.connect("accept-certificate", false, move |values| {
        let flags = values.get(3).and_then(|v| v.get::<gio::TlsCertificateFlags>().ok());
        // The first complaint stands.
        let _ = cause.set(CameraError::Setup(certificate_error(flags)));
        Some(false.to_value())
    });
}

fn certificate_error(flags: Option<gio::TlsCertificateFlags>) -> String {
    use gio::TlsCertificateFlags as Flags;
    let known = [
        (Flags::UNKNOWN_CA, "its authority is not trusted"),
        (Flags::BAD_IDENTITY, "it is for another host"),
        (Flags::NOT_ACTIVATED, "it is not yet valid"),
        (Flags::EXPIRED, "it has expired"),
        (Flags::REVOKED, "it was revoked"),
        (Flags::INSECURE, "its algorithm is insecure"),
    ];
    let flags = flags.unwrap_or(Flags::GENERIC_ERROR);
    let found: Vec<&str> = known.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, text)| *text).collect();
    let found = if found.is_empty() { "it cannot be checked".to_owned() } else { found.join(", ") };
    format!("TLS: the camera's certificate is refused, {found}: give the camera's ca_file, or tls_verify = false")
}

fn set_test(parts: &Pipeline, size: (u32, u32), fps: u32, pattern: &str) -> Result<(), CameraError> {
    let wrong = |text: String| Err(CameraError::Description(text));
    if !parts.source.has_property("pattern") {
        return set(&parts.source, "pattern", pattern);
    }
    let class = parts.source.property_value("pattern").type_();
    let known = gst::glib::EnumClass::with_type(class).is_some_and(|c| c.value_by_nick(pattern).is_some());
    if !known {
        return wrong(format!("pattern {pattern} is unknown: gst-inspect-1.0 videotestsrc lists them"));
    }
    parts.source.set_property_from_str("pattern", pattern);
    set_size(parts, gst::Caps::builder("video/x-raw"), size, fps)
}

/// Asks the source for frames of this size and rate.
fn set_size<F>(
    parts: &Pipeline,
    caps: gst::caps::Builder<F>,
    size: (u32, u32),
    fps: u32,
) -> Result<(), CameraError> {
    let Some(filter) = parts.pipeline.by_name("size") else {
        let text = "the description has no capsfilter name=size: add one after its `src`";
        return Err(CameraError::Description(text.to_owned()));
    };
    let caps = caps
        .field("width", size.0 as i32)
        .field("height", size.1 as i32)
        .field("framerate", gst::Fraction::new(fps as i32, 1))
        .build();
    set(&filter, "caps", caps)
}

/// A bus error in words, by what may be done about it.
fn stream_error(error: &gst::message::Error, memory: Memory) -> CameraError {
    let status = error.details().and_then(|details| details.get::<u32>("rtsp-status-code").ok());
    match status {
        // A locked account is 403 on some cameras.
        Some(401 | 403) => refused(),
        _ => fault(&error.error(), &error.debug().unwrap_or_default(), memory),
    }
}

fn refused() -> CameraError {
    let text = "the camera refused the user or password: correct them in the configuration";
    CameraError::Refused(text.to_owned())
}

/// Of a file.
pub(super) fn without_video() -> CameraError {
    CameraError::Setup("it holds sound and no video: give another".to_owned())
}

fn fault(reason: &gst::glib::Error, debug: &str, memory: Memory) -> CameraError {
    let text = reason.message().trim_end_matches('.').to_owned();
    // On some versions rtspsrc reports a wrong password with a generic code. The number alone may stand in codec data.
    if reason.matches(gst::ResourceError::NotAuthorized)
        || debug.contains("(401)")
        || debug.contains("Unauthorized")
    {
        return refused();
    }
    if debug.contains("gst_rtspsrc") && reason.matches(gst::StreamError::CodecNotFound) {
        let text =
            "the camera offers no video over this transport: correct the path in the url, or change transport";
        return CameraError::Stream(text.to_owned());
    }
    if reason.matches(gst::CoreError::MissingPlugin) || reason.matches(gst::StreamError::CodecNotFound) {
        // "Missing decoder: H.264 (Main Profile) (video/x-h264, …)": the caps are long.
        let missing = debug.lines().find_map(|line| line.strip_prefix("Missing "));
        if missing.is_some_and(|what| what.contains("(audio/")) && !debug.contains("(video/") {
            return without_video();
        }
        let missing = missing.map(|what| what.split(" (video/").next().unwrap_or(what));
        if memory != Memory::System {
            let what = missing.map(|what| format!(" ({what})")).unwrap_or_default();
            return CameraError::Setup(format!(
                "NVIDIA's decoder does not take this video{what}, or GPU memory is used up: give the camera decode = \
                 \"software\""
            ));
        }
        let what = missing.map_or(text, |what| format!("GStreamer has no {what}"));
        return CameraError::Setup(format!("{what}: install the plug-in for it (gstreamer1.0-libav has most)"));
    }
    let unlinked = ["not-negotiated", "not-linked", "delayed link"].iter().any(|word| debug.contains(word));
    if unlinked && memory != Memory::System {
        let memory = memory.name();
        return CameraError::Setup(format!(
            "the decoder does not give NV12 frames in {memory}: give the camera decode = \"software\""
        ));
    }
    // The first line says where in GStreamer's source the error was raised.
    let detail = debug.lines().skip(1).last().unwrap_or_default().trim().trim_end_matches('.');
    let text = if detail.is_empty() || detail == text { text } else { format!("{text} ({detail})") };
    let tls = debug.contains("TLS") || debug.contains("certificate");
    let next = if tls {
        ": give the camera's ca_file, or tls_verify = false"
    } else if reason.matches(gst::ResourceError::NotFound) {
        ": correct the path in the url"
    } else if debug.contains("filesrc") {
        ": give the path of a video"
    } else if reason.is::<gst::ResourceError>() {
        ": check the address, and that the camera is on"
    } else if reason.matches(gst::StreamError::TypeNotFound) || reason.matches(gst::StreamError::WrongType) {
        ": it is no video or picture that GStreamer knows, give another"
    } else {
        ""
    };
    CameraError::Stream(format!("{text}{next}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_data_with_401_in_it_is_no_refused_password() {
        let reason =
            gst::glib::Error::new(gst::CoreError::MissingPlugin, "Your installation is missing a plug-in.");
        let debug = "gstdecodebin2.c(4704): gst_decode_bin_expose ():\nno suitable plugins found:\n\
            Missing decoder: H.264 (Main Profile) (video/x-h264, codec_data=(buffer)014d401fffe1)\n";
        let words = "GStreamer has no decoder: H.264 (Main Profile): install the plug-in for it (gstreamer1.0-libav has most)";
        assert_eq!(fault(&reason, debug, Memory::System), CameraError::Setup(words.to_owned()));
    }

    #[test]
    fn descriptions_parse_or_name_the_elements_they_miss() {
        gst::init().unwrap();
        for (kind, name) in description::built_in() {
            match parse(name, kind) {
                Ok(parts) => assert_eq!(parts.memory == Memory::System, kind == Kind::Software, "{kind:?} {name}"),
                Err(CameraError::Setup(text)) => {
                    let needs_jetson = kind == Kind::Jetson || name == "csi";
                    assert!(needs_jetson && text.ends_with("install nvidia-l4t-gstreamer (JetPack)"), "{text}");
                }
                Err(other) => panic!("{kind:?} {name}: {other}"),
            }
        }
    }

    /// A folder with the file `clip`, which the launch text `make` writes to `{}`.
    fn clip(make: &str) -> tempfile::TempDir {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip");
        let maker = gst::parse::launch(&make.replace("{}", &path.display().to_string())).unwrap();
        maker.set_state(gst::State::Playing).unwrap();
        let ends = [gst::MessageType::Error, gst::MessageType::Eos];
        let end = maker.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &ends).unwrap();
        assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
        maker.set_state(gst::State::Null).unwrap();
        folder
    }

    /// The pipeline of `kind` that reads the file `clip` of a folder.
    fn reading(folder: &tempfile::TempDir, kind: Kind) -> Pipeline {
        let source = Source::File { path: folder.path().join("clip"), pace: Pace::Fast, repeat: false };
        assemble("file", &source, kind, None).unwrap()
    }

    /// What ends the pipeline of `kind` on a file that `make` writes.
    fn end_of(kind: Kind, make: &str) -> CameraError {
        let folder = clip(make);
        let parts = reading(&folder, kind);
        let _ = parts.pipeline.set_state(gst::State::Playing); // a failure is on the bus
        let bus = parts.pipeline.bus().unwrap();
        // As a camera's thread does: the cause may be known where no element fails.
        let ended = (0..200).find_map(|_| {
            let message = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(100), &[gst::MessageType::Error]);
            match message.as_ref().map(|m| m.view()) {
                Some(gst::MessageView::Error(error)) => Some(parts.error(error)),
                _ => parts.cause(),
            }
        });
        let error = ended.unwrap_or_else(|| panic!("no error within 20 s"));
        parts.pipeline.set_state(gst::State::Null).unwrap();
        error
    }

    #[test]
    fn host_memory_where_gpu_memory_was_promised_is_an_error_at_once() {
        for (kind, memory) in [(Kind::Cuda, "CUDA memory"), (Kind::Deepstream, "NVMM surfaces")] {
            let error = end_of(kind, "videotestsrc num-buffers=1 ! jpegenc ! filesink location={}");
            let words = format!(
                "jpegdec gives frames in host memory where {memory} was promised: give the camera decode = \"software\""
            );
            assert_eq!(error, CameraError::Setup(words));
        }
    }

    const H264: &str = "videotestsrc num-buffers=9 ! video/x-raw,width=64,height=64 ! x264enc ! matroskamux ! filesink location={}";

    /// With a decoder that is there on every machine: what it would be told when it asks, on its first buffer, is what
    /// NVIDIA's is told.
    #[test]
    fn a_decoder_is_offered_cuda_memory_before_anything_is_linked_behind_it() {
        let folder = clip(H264);
        let parts = reading(&folder, Kind::Software);
        let heard = Arc::new(OnceLock::new());
        let told = Arc::clone(&heard);
        parts.pipeline.connect_deep_element_added(move |_, _, element| {
            if element.factory().is_none_or(|f| !f.name().starts_with("avdec_")) {
                return;
            }
            decode::offer_cuda_memory(element);
            let (src, told) = (element.static_pad("src").unwrap(), Arc::clone(&told));
            element.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                let _ = told.set((src.allowed_caps(), src.peer().is_some())); // the first stands
                gst::PadProbeReturn::Ok
            });
        });
        parts.pipeline.set_state(gst::State::Playing).unwrap();
        parts.frames.try_pull_sample(gst::ClockTime::from_seconds(20));
        parts.pipeline.set_state(gst::State::Null).unwrap();
        let caps = "video/x-raw(memory:CUDAMemory)".parse::<gst::Caps>().unwrap();
        assert_eq!(heard.get(), Some(&(Some(caps), true)));
    }

    /// Handing each frame from the demuxer to a second thread was the dearest step of 128 files on an H100 host.
    #[test]
    fn one_thread_reads_a_file_from_the_demuxer_to_the_sink() {
        let sound = "audiotestsrc num-buffers=9 ! vorbisenc ! mux.  videotestsrc num-buffers=9 ! x264enc ! mux.";
        let folder = clip(&format!("{sound}  matroskamux name=mux ! filesink location={{}}"));
        let parts = reading(&folder, Kind::Software);
        let (sender, threads) = crossbeam::channel::bounded(2);
        let ends = [parts.pipeline.by_name("decoder").unwrap(), parts.frames.clone().upcast()];
        for pad in ends.iter().map(|element| element.static_pad("sink").unwrap()) {
            let sender = sender.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                let _ = sender.try_send(std::thread::current().id()); // the first of each
                gst::PadProbeReturn::Remove
            });
        }
        parts.pipeline.set_state(gst::State::Playing).unwrap();
        let limit = std::time::Duration::from_secs(20);
        let (before, after) = (threads.recv_timeout(limit).unwrap(), threads.recv_timeout(limit).unwrap());
        let elements: Vec<_> = parts.pipeline.iterate_recurse().into_iter().flatten().collect();
        parts.pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(before, after);
        let made = elements.iter().filter_map(|element| element.factory()).map(|f| f.name().to_string());
        let made: Vec<String> = made.filter(|name| name.contains("queue") || name.contains("vorbis")).collect();
        assert!(made.is_empty(), "{made:?}");
    }

    #[test]
    fn software_decoders_are_not_taken_for_the_gpu() {
        let CameraError::Setup(error) = end_of(Kind::Cuda, H264) else { panic!() };
        assert!(error.starts_with("NVIDIA's decoder does not take this video (decoder: H.264"), "{error}");
    }

    #[test]
    fn refused_passwords_in_either_shape() {
        let named = gst::glib::Error::new(gst::ResourceError::NotAuthorized, "Not authorised.");
        let generic = gst::glib::Error::new(gst::ResourceError::OpenReadWrite, "Could not open resource.");
        for (reason, debug) in [(&named, ""), (&generic, "gstrtspsrc.c(1): f ():\nUnauthorized (401)")] {
            assert!(matches!(fault(reason, debug, Memory::System), CameraError::Refused(_)), "{debug}");
        }
        let dead = fault(&generic, "gstrtspsrc.c(1): f ():\nFailed to connect. (Generic error)", Memory::System);
        let words = "Could not open resource (Failed to connect. (Generic error)): check the address, and that the camera is on";
        assert_eq!(dead, CameraError::Stream(words.to_owned()));
    }
}
