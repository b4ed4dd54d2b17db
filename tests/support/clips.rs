//! Short clips of the pedestrians, for tests that look at every frame.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// 10 frames a second, a key frame each second; people walk in every frame.
#[derive(Clone, Copy, Debug)]
pub enum Clip {
    /// H.264 with B-frames, 768x576.
    H264,
    /// H.265, 768x576.
    H265,
    /// H.264, 384x288.
    Small,
}

/// Frames of every clip.
pub const CLIP_FRAMES: u64 = 100;

/// Frames of [`still_and_walking`] in which nobody is there, then people walk, then nobody is there again.
pub const STILL_AND_WALKING: [u64; 3] = [40, 60, 100];

/// A clip's path, made on first use; `None`, with a word about it, where the footage is not at hand.
pub fn clip(clip: Clip) -> Option<PathBuf> {
    let (name, encode) = match clip {
        Clip::H264 => ("short-h264", "x264enc speed-preset=veryfast bframes=2 key-int-max=10 ! h264parse"),
        Clip::H265 => ("short-h265", "x265enc speed-preset=ultrafast key-int-max=10 ! h265parse"),
        Clip::Small => (
            "short-small",
            "videoscale ! video/x-raw,width=384,height=288 ! x264enc speed-preset=veryfast key-int-max=10 ! h264parse",
        ),
    };
    made(name, encode, |_| {})
}

/// The place of the pedestrians before anybody comes, with them, and after they have gone.
pub fn still_and_walking() -> Option<PathBuf> {
    let encode = "x264enc speed-preset=veryfast bframes=2 key-int-max=10 ! h264parse";
    made("still-and-walking", encode, |raw| {
        let frames = fs::read(raw).unwrap();
        let frames: Vec<&[u8]> = frames.chunks_exact(frames.len() / CLIP_FRAMES as usize).collect();
        // Each pixel as it is in most of the frames: people walk on.
        let median = |at: usize| {
            let mut values: Vec<u8> = frames.iter().step_by(7).map(|frame| frame[at]).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        let still: Vec<u8> = (0..frames[0].len()).map(median).collect();
        let [before, walking, after] = STILL_AND_WALKING.map(|count| count as usize);
        let parts = [vec![&*still; before], frames[..walking].to_vec(), vec![&*still; after]];
        fs::write(raw, parts.concat().concat()).unwrap();
    })
}

/// The first frames of the footage, as `change` makes them, encoded.
fn made(name: &str, encode: &str, change: impl FnOnce(&Path)) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{name}.mp4"));
    // One makes it, the others wait, also where tests are processes.
    let making = File::create(folder.join("clips.lock")).unwrap();
    making.lock().unwrap();
    if path.exists() {
        return Some(path);
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".demo/vtest.avi");
    let sources = [fetched, "/usr/share/doc/opencv-doc/examples/data/vtest.avi".into()];
    let Some(source) = sources.iter().find(|path| path.exists()) else {
        eprintln!("skipped: no footage of pedestrians: run scripts/get-walk");
        return None;
    };
    let raw = folder.join("part.i420");
    raw_frames(source, &raw);
    change(&raw);
    let part = folder.join("part.mp4");
    launch(&format!(
        "filesrc location={} ! rawvideoparse width=768 height=576 format=i420 framerate=10/1 ! {encode} ! \
         mp4mux faststart=true ! filesink location={}",
        raw.display(),
        part.display()
    ));
    fs::remove_file(&raw).unwrap();
    fs::rename(&part, &path).unwrap();
    Some(path)
}

/// The first frames of the footage. By way of a file: an encoder whose input is cut off loses frames now and then.
fn raw_frames(source: &Path, raw: &Path) {
    launch(&format!(
        "filesrc location={} ! decodebin ! identity eos-after={} ! videoconvert ! video/x-raw,format=I420 ! \
         filesink location={}",
        source.display(),
        CLIP_FRAMES + 2,
        raw.display()
    ));
    let bytes = CLIP_FRAMES * 768 * 576 * 3 / 2;
    assert!(fs::metadata(raw).unwrap().len() >= bytes, "{} is too short", source.display());
    File::options().write(true).open(raw).unwrap().set_len(bytes).unwrap();
}

fn launch(line: &str) {
    let done = Command::new("gst-launch-1.0").arg("-q").args(line.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
