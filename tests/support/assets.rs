//! Models and clips: where they are, and clips in the codec that a test wants.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of models, clips and images: `WATCHPOST_ASSETS`, else `../shared/assets`. It is not part of the project.
pub fn assets() -> PathBuf {
    find_assets().expect("no assets: set WATCHPOST_ASSETS to the folder of models and clips")
}

/// The same, for a test that does without where there are none and says so.
pub fn find_assets() -> Option<PathBuf> {
    let given = std::env::var_os("WATCHPOST_ASSETS").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| root().join("../shared/assets"));
    fs::canonicalize(folder).ok().filter(|folder| folder.is_dir())
}

/// The default model, as `scripts/get-yolo12n` leaves it.
pub fn yolo12n() -> PathBuf {
    fetched(".models/yolov12n.onnx", "scripts/get-yolo12n")
}

/// The OpenVINO runtime's C library: `WATCHPOST_OPENVINO`, else as `scripts/get-openvino` leaves it.
pub fn openvino_library() -> PathBuf {
    let given = std::env::var_os("WATCHPOST_OPENVINO").map(PathBuf::from);
    given.unwrap_or_else(|| fetched(".openvino/libopenvino_c.so", "scripts/get-openvino"))
}

/// An H.264 clip without B-frames, a key frame every 20 frames. `walk`: pedestrians, 768x576, 10 fps, 795 frames.
/// Any other name: `videos/NAME.mp4` of the assets. Made once, kept in the target folder.
pub fn clip_h264(name: &str) -> PathBuf {
    clip(name, "h264", &["x264enc", "speed-preset=veryfast", "bitrate=1500", "bframes=0", "key-int-max=20"])
}

/// The same in H.265.
pub fn clip_h265(name: &str) -> PathBuf {
    let options =
        ["x265enc", "speed-preset=ultrafast", "bitrate=1500", "key-int-max=20", "option-string=bframes=0"];
    clip(name, "h265", &options)
}

fn clip(name: &str, codec: &str, encoder: &[&str]) -> PathBuf {
    let source = match name {
        "walk" => fetched(".demo/vtest.avi", "scripts/get-walk"),
        _ => assets().join("videos").join(name).with_extension("mp4"),
    };
    let folder = target().join("test-clips");
    fs::create_dir_all(&folder).unwrap();
    let clip = folder.join(format!("{name}-{codec}.mp4"));
    // Test binaries run at the same time: the first makes it, the others wait.
    let lock = File::create(folder.join(format!("{name}-{codec}.lock"))).unwrap();
    lock.lock().unwrap();
    if !clip.exists() {
        let part = clip.with_extension("part");
        let (from, parse) = (format!("location={}", source.display()), format!("{codec}parse"));
        let to = format!("location={}", part.display());
        let mut line = vec!["-q", "filesrc", &from, "!", "decodebin", "!", "videoconvert", "!"];
        line.extend(["video/x-raw,format=I420", "!"]);
        line.extend(encoder);
        line.extend(["!", &parse, "!", "mp4mux", "!", "filesink", &to]);
        let done =
            Command::new("gst-launch-1.0").args(line).output().expect("no gst-launch-1.0: run scripts/setup");
        assert!(done.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&done.stderr));
        fs::rename(&part, &clip).unwrap();
    }
    clip
}

fn fetched(path: &str, script: &str) -> PathBuf {
    let path = root().join(path);
    assert!(path.exists(), "no {}: run {script}", path.display());
    path
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder that cargo builds in: the test binary is `TARGET/PROFILE/deps/NAME`.
fn target() -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    binary.ancestors().nth(3).unwrap().to_owned()
}
