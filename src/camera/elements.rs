//! Elements: which are installed, which are missing, and where those come from.

use gstreamer as gst;

use super::decode::{self, Kind};
use crate::config::Source;

/// What `decodebin` and `rtspsrc` will look for themselves, with descriptions of this set.
pub fn missing_decoders(source: &Source, kind: Kind) -> Vec<String> {
    let (elements, media): (&[&str], &[&str]) = match source {
        Source::Rtsp(_) => {
            (&["rtpbin", "udpsrc", "rtph264depay", "rtph265depay", "h264parse", "h265parse"], &["h264", "h265"])
        }
        Source::File { .. } => (&["qtdemux", "h264parse"], &["h264"]),
        Source::V4l2 { .. } => (&["jpegdec"], &[]),
        Source::Csi { .. } | Source::Test { .. } => (&[], &[]),
    };
    let needed = elements.iter().map(|element| (*element).to_owned());
    let mut missing: Vec<String> = needed.filter(|element| !is_installed(element)).collect();
    // Any decoder of the set will do, the one named is the one that every distribution has.
    missing.extend(media.iter().filter(|media| !is_decoded(media, kind)).map(|media| kind.decoder(media)));
    missing
}

/// Whether GStreamer has an element of this name.
pub fn is_installed(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

fn is_decoded(media: &str, kind: Kind) -> bool {
    let caps = gst::Caps::new_empty_simple(format!("video/x-{media}"));
    let decoders = gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DECODER, gst::Rank::MARGINAL);
    decoders.iter().any(|decoder| decode::fits(decoder, kind) && decoder.can_sink_any_caps(&caps))
}

/// The sentence that tells how to get missing elements.
pub fn install(missing: &[impl AsRef<str>]) -> String {
    let missing: Vec<&str> = missing.iter().map(AsRef::as_ref).collect();
    let mut packages: Vec<&str> = missing.iter().filter_map(|element| package(element)).collect();
    packages.sort_unstable();
    packages.dedup();
    let all_known = missing.iter().all(|element| package(element).is_some());
    let other = "the GStreamer plug-in package that has them, or correct their names";
    let what = match (packages.join(", "), all_known) {
        (packages, true) => packages,
        (packages, false) if packages.is_empty() => other.to_owned(),
        (packages, false) => format!("{packages} and {other}"),
    };
    format!("GStreamer elements are missing ({}): install {what}", missing.join(", "))
}

/// The Debian and Ubuntu package of the elements that descriptions for this program are likely to name.
fn package(element: &str) -> Option<&'static str> {
    match element {
        "filesrc" | "fakesink" | "queue" | "tee" | "identity" | "capsfilter" | "typefind" => {
            Some("libgstreamer1.0-0")
        }
        "appsink" | "decodebin" | "decodebin3" | "uridecodebin" | "parsebin" | "videoconvert" | "videoscale"
        | "videorate" | "videotestsrc" | "giosrc" | "rawvideoparse" => Some("gstreamer1.0-plugins-base"),
        "rtspsrc" | "rtpbin" | "udpsrc" | "rtph264depay" | "rtph265depay" | "rtpjpegdepay" | "rtpvp8depay"
        | "qtdemux" | "matroskademux" | "avidemux" | "flvdemux" | "multipartdemux" | "souphttpsrc" | "v4l2src"
        | "jpegdec" | "jpegenc" | "vp8dec" | "vp9dec" | "deinterlace" | "videocrop" | "videoflip"
        | "videobalance" => Some("gstreamer1.0-plugins-good"),
        "h264parse" | "h265parse" | "vp9parse" | "av1parse" | "jpegparse" | "mpegvideoparse"
        | "mpeg4videoparse" | "tsdemux" | "hlsdemux" | "srtsrc" | "openh264dec" | "av1dec" | "vah264dec"
        | "vah265dec" => Some("gstreamer1.0-plugins-bad"),
        // Their plug-in is there on every machine, they are only where it finds a GPU.
        "nvh264dec" | "nvh265dec" | "cudaconvert" | "cudascale" | "cudaupload" | "cudadownload" => {
            Some("gstreamer1.0-plugins-bad 1.22 or newer, with NVIDIA's driver and its libnvcuvid")
        }
        "nvv4l2decoder" | "nvvidconv" | "nvarguscamerasrc" | "nvjpegdec" => Some("nvidia-l4t-gstreamer (JetPack)"),
        "nvvideoconvert" => Some("DeepStream"),
        _ if element.starts_with("avdec_") => Some("gstreamer1.0-libav"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;

    use gst::prelude::*;

    use super::*;

    /// Held against dpkg, for whatever this machine has.
    #[test]
    fn packages_are_those_that_brought_the_elements() {
        gst::init().unwrap();
        let mut named: BTreeMap<String, Vec<(String, &str)>> = BTreeMap::new();
        for factory in gst::ElementFactory::factories_with_type(gst::ElementFactoryType::ANY, gst::Rank::NONE) {
            let name = factory.name().to_string();
            let Some(package) = package(&name).filter(|_| !name.starts_with("nv")) else { continue };
            let file = factory.plugin().and_then(|plugin| plugin.filename()).unwrap();
            let pattern = format!("*/{}", file.file_name().unwrap().to_str().unwrap());
            named.entry(pattern).or_default().push((name, package));
        }
        assert!(named.len() > 10, "{named:?}");
        let Ok(said) = Command::new("dpkg").arg("-S").args(named.keys()).output() else {
            eprintln!("skipped: no dpkg here");
            return;
        };
        let owners = String::from_utf8(said.stdout).unwrap();
        for (pattern, elements) in &named {
            let line = owners.lines().find(|line| line.ends_with(&pattern[1..])).unwrap_or_default();
            for (name, package) in elements {
                assert_eq!(line.split(':').next(), Some(*package), "{name}: {line:?}");
            }
        }
    }

    #[test]
    fn missing_elements_are_told_with_their_packages_each_once() {
        let said = install(&["rtspsrc", "avdec_h264", "avdec_h265", "qtdemux"]);
        assert!(said.ends_with(": install gstreamer1.0-libav, gstreamer1.0-plugins-good"), "{said}");
        let said = install(&["nvv4l2decoder", "myfilter"]);
        let words = "install nvidia-l4t-gstreamer (JetPack) and the GStreamer plug-in package that has them";
        assert!(said.contains(words), "{said}");
    }
}
