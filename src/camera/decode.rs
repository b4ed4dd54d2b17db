//! Which decoder a camera gets, and so in which memory its frames lie.

use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::VideoInfo;

use super::elements::is_installed;
use super::memory::{Memory, cuda};
use super::pipeline::{CameraError, without_video};
use crate::config::{Decode, Source};
use crate::frame::GpuShare;

/// Surfaces beyond those that are out: one being written, one on its way.
const SPARE_SURFACES: i64 = 2;
/// Frames on their way past a camera's motion gate: one that is looked at, and one that waits for its batch.
const GATED: u32 = 2;

static GPU: OnceLock<GpuShare> = OnceLock::new();

/// Says that the engine takes frames from the memory of this GPU. Once a process, before the first camera starts; a
/// second call changes nothing.
pub fn use_gpu(share: GpuShare) {
    let _ = GPU.set(share);
}

/// The GPU of the engine, where it takes frames from one.
pub fn gpu() -> Option<GpuShare> {
    GPU.get().copied()
}

/// Most frames of a camera that are out at once, where an engine takes them from a GPU. By the camera's own settings, which a
/// reload may change: its pipeline is built anew then.
pub fn frames_out(has_gate: bool) -> Option<u32> {
    gpu().map(|gpu| most_out(gpu, has_gate))
}

fn most_out(gpu: GpuShare, has_gate: bool) -> u32 {
    gpu.frames + if has_gate { GATED } else { 0 }
}

/// A set of built-in descriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `pipelines/software`.
    Software,
    /// `pipelines/cuda`.
    Cuda,
    /// `pipelines/jetson`: JetPack's elements.
    Jetson,
    /// `pipelines/deepstream`: the same decoder on other NVIDIA GPUs.
    Deepstream,
}

impl Kind {
    /// The set that a camera's built-in description is taken from.
    ///
    /// # Errors
    ///
    /// A sentence where the configuration asks for a decoder that this machine or its engine does not have.
    pub fn of(decode: Decode, source: &Source) -> Result<Self, CameraError> {
        choose(decode, source, gpu().map(|gpu| gpu.device), &is_installed, &cuda::library)
    }
}

impl Kind {
    /// The usual decoder of the set for `h264` or `h265`.
    pub fn decoder(self, media: &str) -> String {
        match self {
            Self::Software => format!("avdec_{media}"),
            Self::Cuda => nvcodec(media, gpu().map_or(0, |gpu| gpu.device)),
            Self::Jetson | Self::Deepstream => "nvv4l2decoder".to_owned(),
        }
    }
}

/// `device` is the engine's GPU, `has` knows the installed elements, `shares` whether CUDA contexts can be shared.
fn choose(
    decode: Decode,
    source: &Source,
    device: Option<i32>,
    has: &dyn Fn(&str) -> bool,
    shares: &dyn Fn() -> Result<(), CameraError>,
) -> Result<Kind, CameraError> {
    let streams = matches!(source, Source::Rtsp(_) | Source::File { .. });
    let devices = matches!(source, Source::V4l2 { .. } | Source::Csi { .. });
    let nvmm = has("nvv4l2decoder");
    let jetson = nvmm && has("nvvidconv") && (streams || devices);
    let cuda = streams && device.is_some_and(|device| has(&nvcodec("h264", device)));
    let wants = match decode {
        Decode::Auto | Decode::Software => None,
        Decode::Cuda => Some("cuda"),
        Decode::Jetson => Some("jetson"),
    };
    let Some(device) = device else {
        return match wants {
            None => Ok(Kind::Software),
            Some(wanted) => Err(CameraError::Setup(format!(
                "decode = \"{wanted}\" needs the engine on an NVIDIA GPU, and it runs on none here: \
                 give decode = \"software\" or \"auto\""
            ))),
        };
    };
    match decode {
        Decode::Software => Ok(Kind::Software),
        Decode::Auto if jetson => Ok(Kind::Jetson),
        Decode::Auto if cuda && shares().is_ok() => Ok(Kind::Cuda),
        Decode::Auto if nvmm && streams => Ok(Kind::Deepstream),
        Decode::Auto => Ok(Kind::Software),
        Decode::Cuda if cuda => shares().map(|()| Kind::Cuda),
        Decode::Cuda => Err(CameraError::Setup(format!(
            "decode = \"cuda\": GStreamer has no {}: install gstreamer1.0-plugins-bad 1.22 or newer and NVIDIA's \
             driver with libnvcuvid (libnvcuvid1 on Debian, libnvidia-decode-N on Ubuntu), or give decode = \"software\"",
            nvcodec("h264", device)
        ))),
        Decode::Jetson if jetson => Ok(Kind::Jetson),
        Decode::Jetson if nvmm && streams => Ok(Kind::Deepstream),
        Decode::Jetson => Err(CameraError::Setup(
            "decode = \"jetson\": GStreamer has no nvv4l2decoder and nvvidconv: install nvidia-l4t-gstreamer \
             (JetPack) or DeepStream, or give decode = \"software\""
                .to_owned(),
        )),
    }
}

/// The name of an element of the plug-in nvcodec: those of the first device have no number.
pub fn nvcodec(codec: &str, device: i32) -> String {
    if device == 0 { format!("nv{codec}dec") } else { format!("nv{codec}device{device}dec") }
}

/// Whether the descriptions of a set use this decoder. Ranks alone do not settle it: they differ between versions, and
/// sets can be mixed in one process.
pub fn fits(decoder: &gst::ElementFactory, kind: Kind) -> bool {
    let name = decoder.name();
    let class = decoder.metadata("klass").unwrap_or_default();
    match kind {
        Kind::Software => !class.contains("Hardware") && !name.starts_with("nv"),
        // Pictures (MJPEG) may come from host memory: nvvidconv takes both.
        _ if !class.contains("Video") => true,
        Kind::Cuda => gpu().is_some_and(|gpu| is_nvcodec(&name, gpu.device)),
        Kind::Jetson | Kind::Deepstream => name == "nvv4l2decoder",
    }
}

/// Elements of nvcodec for another device have its number in their name.
fn is_nvcodec(name: &str, device: i32) -> bool {
    let of_device = name.split_once("device").map(|(_, rest)| rest.trim_end_matches("dec"));
    let plain = name.starts_with("nv") && name.ends_with("dec");
    plain && of_device.map_or(device == 0, |number| number == device.to_string())
}

/// Makes every `decodebin` of a built-in description use decoders of its set only, and notes in `cause` why the frames
/// of one cannot be used.
pub fn choose_decoders(pipeline: &gst::Pipeline, kind: Kind, cause: &Arc<OnceLock<CameraError>>) {
    for bin in pipeline.iterate_elements().into_iter().flatten() {
        if is_made_by(&bin, "decodebin") {
            on_select(&bin, move |_, factory| {
                let is_decoder = factory.has_type(gst::ElementFactoryType::DECODER);
                if is_decoder && !fits(factory, kind) { "skip" } else { "try" }
            });
        }
    }
    let wanted = match kind {
        Kind::Cuda => Memory::Cuda,
        Kind::Deepstream => Memory::Nvmm,
        // A converter follows.
        Kind::Software | Kind::Jetson => return,
    };
    let cause = Arc::clone(cause);
    pipeline.connect_deep_element_added(move |_, _, element| {
        if is_video_decoder(element) {
            watch_caps(element, wanted, &cause);
        }
    });
}

/// Where a description has `parsebin name=streams` and `decodebin name=decoder`: the first video stream goes from one to
/// the other, sound and the rest are dropped; `cause` is noted where no video comes. Reading, demuxing, parsing and
/// decoding are then one thread's; behind a demuxer of its own `decodebin` puts a `multiqueue`, which hands every frame to
/// a second one.
pub fn join_streams(pipeline: &gst::Pipeline, cause: &Arc<OnceLock<CameraError>>) {
    let Some((streams, sink)) = streams(pipeline) else { return };
    // The parser is left to `decodebin`, which lets it give what the decoder takes. But for a stream without container:
    // there the parser is what reads the file.
    on_select(&streams, |pad, factory| {
        let is_demuxed = maker(pad).is_none_or(|maker| !is_made_by(&maker, "typefind"));
        if is_demuxed && factory.has_type(gst::ElementFactoryType::PARSER) { "expose" } else { "try" }
    });
    let cause = Arc::clone(cause);
    streams.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let media = caps.structure(0).map(|s| s.name().as_str()).unwrap_or_default();
        let is_video = media.starts_with("video/") || media.starts_with("image/");
        if sink.is_linked() || !is_video || pad.link(&sink).is_err() {
            drop_all(pad, &sink, &cause);
        }
    });
}

/// Takes what comes out of a pad: a demuxer that is rid of nothing gives up, even if its video comes later.
fn drop_all(pad: &gst::Pad, video: &gst::Pad, cause: &Arc<OnceLock<CameraError>>) {
    let (video, cause) = (video.clone(), Arc::clone(cause));
    let all = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(all, move |_, info| {
        let Some(event) = info.event() else { return gst::PadProbeReturn::Drop };
        if event.type_() == gst::EventType::Eos && !video.is_linked() {
            let _ = cause.set(without_video()); // the first stands
        }
        gst::PadProbeReturn::Ok
    });
}

fn streams(pipeline: &gst::Pipeline) -> Option<(gst::Element, gst::Pad)> {
    let streams = pipeline.by_name("streams").filter(|element| is_made_by(element, "parsebin"))?;
    Some((streams, pipeline.by_name("decoder")?.static_pad("sink")?))
}

fn is_made_by(element: &gst::Element, factory: &str) -> bool {
    element.factory().is_some_and(|of| of.name() == factory)
}

/// The element within a bin whose stream comes out of this pad of the bin.
fn maker(pad: &gst::Pad) -> Option<gst::Element> {
    pad.downcast_ref::<gst::GhostPad>()?.target()?.parent_element()
}

/// Answers a bin that asks whether to go on from a pad with an element: `try`, `skip`, or `expose` the pad.
fn on_select<F>(bin: &gst::Element, answer: F)
where
    F: Fn(&gst::Pad, &gst::ElementFactory) -> &'static str + Send + Sync + 'static,
{
    bin.connect("autoplug-select", false, move |values| {
        let pad = values.get(1).and_then(|value| value.get::<gst::Pad>().ok());
        let factory = values.get(3).and_then(|value| value.get::<gst::ElementFactory>().ok());
        verdict(pad.zip(factory).map_or("try", |(pad, factory)| answer(&pad, &factory)))
    });
}

/// A value of the enumeration that `autoplug-select` returns, which GStreamer registers at run time.
fn verdict(nick: &str) -> Option<gst::glib::Value> {
    let class = gst::glib::EnumClass::with_type(gst::glib::Type::from_name("GstAutoplugSelectResult")?)?;
    class.to_value_by_nick(nick)
}

fn is_video_decoder(element: &gst::Element) -> bool {
    let Some(factory) = element.factory() else { return false };
    let class = factory.metadata("klass").unwrap_or_default();
    class.contains("Decoder") && (class.contains("Video") || class.contains("Image"))
}

/// A decoder that cannot put its frames where they are wanted does not fail: it puts them elsewhere, and what follows
/// says no more than "not negotiated".
fn watch_caps(decoder: &gst::Element, wanted: Memory, cause: &Arc<OnceLock<CameraError>>) {
    let Some(pad) = decoder.static_pad("src") else { return };
    let (name, cause) = (decoder.factory().map(|f| f.name()).unwrap_or_default(), Arc::clone(cause));
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(event) = info.event()
            && let gst::EventView::Caps(caps) = event.view()
            && let Some(problem) = unusable(&name, caps.caps(), wanted)
        {
            // The first stands.
            let _ = cause.set(CameraError::Setup(problem));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Why frames with these caps cannot be used where frames in `wanted` memory are.
fn unusable(decoder: &str, caps: &gst::CapsRef, wanted: Memory) -> Option<String> {
    let memory = Memory::of_caps(caps);
    if memory != wanted {
        let (memory, wanted) = (memory.name(), wanted.name());
        return Some(format!(
            "{decoder} gives frames in {memory} where {wanted} was promised: give the camera decode = \"software\""
        ));
    }
    let format = VideoInfo::from_caps(caps).ok()?.format();
    (format != gstreamer_video::VideoFormat::Nv12).then(|| {
        format!(
            "{decoder} gives {format} frames, and the GPU path reads 8-bit NV12 only: set the camera to 8-bit 4:2:0 \
             video, or give it decode = \"software\""
        )
    })
}

/// Sets what decoders and converters need, on those of the description and those that are chosen later, where so many frames
/// are out at a time as [`frames_out`] says.
pub fn prepare_elements(pipeline: &gst::Pipeline, memory: Memory, frames_out: Option<u32>) {
    // A pipeline that is not yet started does not change meanwhile.
    let elements: Vec<gst::Element> = pipeline.iterate_elements().into_iter().flatten().collect();
    let converts = elements.iter().any(|element| element.has_property("output-buffers"));
    elements.iter().for_each(|element| prepare(element, memory, frames_out, converts));
    pipeline.connect_deep_element_added(move |_, _, element| prepare(element, memory, frames_out, converts));
}

/// `converts`: frames are those of NVIDIA's converter, so the decoder gets its own back at once.
fn prepare(element: &gst::Element, memory: Memory, frames_out: Option<u32>, converts: bool) {
    let name = element.factory().map(|f| f.name()).unwrap_or_default();
    if name.starts_with("avdec_") {
        // One thread a decoder: many cameras share the cores, and frame threading would hold frames back.
        set_if_there(element, "max-threads", 1);
        // Pictures with missing references are not passed on: they would be "detected".
        if element.has_property("output-corrupt") {
            element.set_property("output-corrupt", false);
        }
    }
    if !name.starts_with("nv") {
        return;
    }
    // The kernels read rows, not blocks.
    if element.has_property("bl-output") {
        element.set_property("bl-output", false);
    }
    let (Some(gpu), Some(frames_out)) = (gpu(), frames_out) else { return };
    set_if_there(element, "gpu-id", gpu.device.into());
    // As many as are out at a time, or the element waits for one to come back: in the converter of JetPack and
    // DeepStream, in their decoder, in nvh264dec from GStreamer 1.24 on.
    let frames = i64::from(frames_out) + SPARE_SURFACES;
    set_if_there(element, "output-buffers", frames);
    set_if_there(element, "num-output-surfaces", frames);
    if !converts {
        set_if_there(element, "num-extra-surfaces", frames_out.into());
    }
    if memory == Memory::Cuda && is_video_decoder(element) {
        offer_cuda_memory(element);
    }
}

/// Sets a whole number where the element has the property, within its limits.
fn set_if_there(element: &gst::Element, property: &str, value: i64) {
    let Some(spec) = element.find_property(property) else { return };
    if let Some(spec) = spec.downcast_ref::<gst::glib::ParamSpecInt>() {
        let value = value.clamp(spec.minimum().into(), spec.maximum().into());
        element.set_property(property, value as i32);
    } else if let Some(spec) = spec.downcast_ref::<gst::glib::ParamSpecUInt>() {
        let value = value.clamp(spec.minimum().into(), spec.maximum().into());
        element.set_property(property, value as u32);
    }
}

/// A decoder of nvcodec asks what may follow it before `decodebin` has linked anything there, and then takes host
/// memory. This answers in the place of what will follow.
pub fn offer_cuda_memory(decoder: &gst::Element) {
    let Some(pad) = decoder.static_pad("src") else { return };
    let caps = gst::Caps::builder("video/x-raw").features(["memory:CUDAMemory"]).build();
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH, move |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Caps(query) = query.view_mut()
        {
            query.set_result(&caps);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pace;

    fn file() -> Source {
        Source::File { path: "clip.mp4".into(), pace: Pace::Fast, repeat: false }
    }

    fn csi() -> Source {
        Source::Csi { sensor: 0, size: (1920, 1080), fps: 30 }
    }

    /// What is chosen on a machine with these elements, whose libgstcuda is there.
    fn on(elements: &[&str], device: Option<i32>, decode: Decode, source: &Source) -> Result<Kind, String> {
        let kind = choose(decode, source, device, &|element| elements.contains(&element), &|| Ok(()));
        kind.map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_the_gpu_only_where_the_engine_and_the_elements_are_there() {
        let jetson = ["nvv4l2decoder", "nvvidconv", "nvarguscamerasrc"];
        let auto = |elements: &[&str], device, source: &Source| on(elements, device, Decode::Auto, source);
        assert_eq!(auto(&["nvh264dec"], None, &file()), Ok(Kind::Software));
        assert_eq!(auto(&["nvh264dec"], Some(0), &file()), Ok(Kind::Cuda));
        assert_eq!(auto(&["nvh264dec"], Some(1), &file()), Ok(Kind::Software), "the decoder is another GPU's");
        assert_eq!(auto(&["nvh264device1dec"], Some(1), &file()), Ok(Kind::Cuda));
        assert_eq!(auto(&[], Some(0), &file()), Ok(Kind::Software));
        assert_eq!(auto(&["nvv4l2decoder"], Some(0), &file()), Ok(Kind::Deepstream));
        assert_eq!(auto(&["nvh264dec", "nvv4l2decoder"], Some(0), &file()), Ok(Kind::Cuda));
        assert_eq!(auto(&jetson, Some(0), &file()), Ok(Kind::Jetson));
        assert_eq!(auto(&jetson, Some(0), &csi()), Ok(Kind::Jetson));
        assert_eq!(auto(&jetson, None, &csi()), Ok(Kind::Software));
        let test = Source::Test { size: (64, 64), fps: 5, pattern: "ball".to_owned() };
        assert_eq!(auto(&jetson, Some(0), &test), Ok(Kind::Software));
        let unshared = choose(Decode::Auto, &file(), Some(0), &|e| e == "nvh264dec", &|| {
            Err(CameraError::Setup(String::new()))
        });
        assert_eq!(unshared, Ok(Kind::Software));
    }

    #[test]
    fn a_decoder_that_cannot_be_had_is_refused_in_words() {
        for (elements, device, decode, text) in [
            (&["nvh264dec"][..], None, Decode::Cuda, "needs the engine on an NVIDIA GPU"),
            (&["nvv4l2decoder"], None, Decode::Jetson, "needs the engine on an NVIDIA GPU"),
            (&[], Some(0), Decode::Cuda, "GStreamer has no nvh264dec: install gstreamer1.0-plugins-bad 1.22"),
            (&["nvh264dec"], Some(2), Decode::Cuda, "GStreamer has no nvh264device2dec"),
            (&[], Some(0), Decode::Jetson, "GStreamer has no nvv4l2decoder"),
        ] {
            let error = on(elements, device, decode, &file()).unwrap_err();
            assert!(error.contains(text) && error.contains("decode = \"software\""), "{error}");
        }
        assert_eq!(on(&[], None, Decode::Software, &file()), Ok(Kind::Software));
        assert_eq!(on(&["nvv4l2decoder"], Some(0), Decode::Jetson, &file()), Ok(Kind::Deepstream));
    }

    #[test]
    fn a_camera_with_a_motion_gate_has_more_frames_out() {
        let gpu = GpuShare { context: 1, device: 0, frames: 4 };
        assert_eq!((most_out(gpu, false), most_out(gpu, true)), (4, 6));
    }

    #[test]
    fn elements_of_nvcodec_are_told_apart_by_their_device() {
        for (name, device) in
            [("nvh264dec", 0), ("nvh265sldec", 0), ("nvh264device1dec", 1), ("nvav1device12dec", 12)]
        {
            assert!((0..20).all(|n| is_nvcodec(name, n) == (n == device)), "{name}");
        }
        assert!(!is_nvcodec("nvv4l2decoder", 0) && !is_nvcodec("avdec_h264", 0));
    }

    #[test]
    fn frames_that_the_gpu_cannot_use_are_named() {
        gst::init().unwrap();
        let why = |caps: &str| unusable("nvh265dec", &caps.parse::<gst::Caps>().unwrap(), Memory::Cuda);
        let size = "width=64,height=64,framerate=25/1";
        assert_eq!(why(&format!("video/x-raw(memory:CUDAMemory),format=NV12,{size}")), None);
        let deep = why(&format!("video/x-raw(memory:CUDAMemory),format=P010_10LE,{size}")).unwrap();
        assert!(deep.starts_with("nvh265dec gives P010_10LE frames"), "{deep}");
        let elsewhere = why(&format!("video/x-raw,format=NV12,{size}")).unwrap();
        assert!(elsewhere.contains("gives frames in host memory where CUDA memory was promised"), "{elsewhere}");
    }
}
