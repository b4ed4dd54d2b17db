//! The texts of pipelines: those that come with the program, and files.

use super::decode::Kind;
use super::pipeline::CameraError;

/// A description that comes with the program: its set, its name, its text.
const BUILT_IN: [(Kind, &str, &str); 13] = [
    (Kind::Software, "rtsp", include_str!("../../pipelines/software/rtsp.gst")),
    (Kind::Software, "file", include_str!("../../pipelines/software/file.gst")),
    (Kind::Software, "v4l2", include_str!("../../pipelines/software/v4l2.gst")),
    (Kind::Software, "csi", include_str!("../../pipelines/software/csi.gst")),
    (Kind::Software, "test", include_str!("../../pipelines/software/test.gst")),
    (Kind::Cuda, "rtsp", include_str!("../../pipelines/cuda/rtsp.gst")),
    (Kind::Cuda, "file", include_str!("../../pipelines/cuda/file.gst")),
    (Kind::Jetson, "rtsp", include_str!("../../pipelines/jetson/rtsp.gst")),
    (Kind::Jetson, "file", include_str!("../../pipelines/jetson/file.gst")),
    (Kind::Jetson, "v4l2", include_str!("../../pipelines/jetson/v4l2.gst")),
    (Kind::Jetson, "csi", include_str!("../../pipelines/jetson/csi.gst")),
    (Kind::Deepstream, "rtsp", include_str!("../../pipelines/deepstream/rtsp.gst")),
    (Kind::Deepstream, "file", include_str!("../../pipelines/deepstream/file.gst")),
];

/// The built-in descriptions, each with its set.
pub fn built_in() -> impl Iterator<Item = (Kind, &'static str)> {
    BUILT_IN.iter().map(|(kind, name, _)| (*kind, *name))
}

/// Whether a description of this name comes with the program; else it is a path.
pub fn is_built_in(name: &str) -> bool {
    built_in().any(|(_, known)| known == name)
}

/// The text of a description: a built-in name with its set, or a path, for which the set means nothing.
///
/// # Errors
///
/// A sentence naming the description.
pub fn text(name: &str, kind: Kind) -> Result<String, CameraError> {
    let of_kind = BUILT_IN.iter().find(|(set, known, _)| (*set, *known) == (kind, name));
    let text = match of_kind {
        Some((_, _, text)) => (*text).to_owned(),
        None => std::fs::read_to_string(name).map_err(|e| {
            let known: Vec<_> =
                built_in().filter(|(set, _)| *set == Kind::Software).map(|(_, name)| name).collect();
            let known = known.join(", ");
            let text = format!("pipeline description `{name}`: {e}: give a text file, or one of {known}");
            CameraError::Description(text)
        })?,
    };
    let structure = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    Ok(structure.collect::<Vec<_>>().join("\n"))
}
