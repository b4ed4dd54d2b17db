//! Entrances for fuzzing of what is read from files: models, stamps of engines, calibration frames.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use super::calibration::{self, Calibration, Frames, HEADER_BYTES, Header};
use super::onnx::graph;
use super::stamp::{Machine, Wanted, refusal};
use super::{Manifest, built};

/// Longest a sentence may be: it may name a file, a version and a model.
const SENTENCE_BYTES_MAX: usize = 4000;
/// Most bytes of frames that are written.
const FRAMES_BYTES_MAX: usize = 1 << 16;

/// A folder of one call's own.
struct Folder(PathBuf);

impl Folder {
    #[expect(clippy::unwrap_used, reason = "a folder of our own")]
    fn new() -> Self {
        static RUN: AtomicU32 = AtomicU32::new(0);
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("watchpost-engine-{}-{run}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    #[expect(clippy::unwrap_used, reason = "a folder of our own")]
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn is_sentence(text: &str) {
    assert!(!text.is_empty() && text.len() < SENTENCE_BYTES_MAX && !text.contains('\n'), "{text}");
}

/// An ONNX file.
pub fn onnx(bytes: &[u8]) {
    let folder = Folder::new();
    match graph::read(&folder.write("m.onnx", bytes)) {
        Ok(graph) => assert!(graph.inputs.iter().flat_map(|i| &i.shape).flatten().all(|side| *side > 0)),
        Err(error) => is_sentence(&error.to_string()),
    }
}

/// An engine's stamp: what it says is held against a machine, and its digest against the engine.
pub fn stamp(bytes: &[u8]) {
    let folder = Folder::new();
    let engine = folder.write("m.engine", b"plan");
    fs::write(built::stamp_path(&engine), bytes).unwrap_or_default();
    match built::stamp(&engine) {
        Ok(stamp) => {
            let machine = Machine { tensorrt: stamp.tensorrt.clone(), gpu: None };
            let wanted = Wanted { model_sha256: Some("ab".repeat(32)), options: stamp.options.clone() };
            is_sentence(&refusal(Path::new("m.engine"), &stamp.mismatch(&machine, &wanted)).replace('\n', " "));
            let error = built::load(&engine, &stamp).map(drop).err().map(|error| error.to_string());
            is_sentence(&error.unwrap_or_else(|| "it fits".to_owned()).replace('\n', " "));
        }
        Err(error) => is_sentence(&error.to_string()),
    }
}

/// A calibration: as it is or, after a first byte that is odd, the header of frames that fit it.
pub fn frames(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let file = if kind % 2 == 0 { rest.to_vec() } else { whole(rest) };
    let folder = Folder::new();
    match calibration::open(&folder.write("m.frames", &file)) {
        Ok(Calibration::Frames(frames)) => read(frames),
        Ok(Calibration::Table(table)) => assert_eq!(table, file),
        Err(error) => is_sentence(&error.to_string()),
    }
}

/// The file that this header would begin, where it is one and the file is small.
fn whole(header: &[u8]) -> Vec<u8> {
    let Ok(mut header) = serde_json::from_slice::<Header>(header) else { return header.to_vec() };
    let (width, height) = header.size;
    let bytes = (width as usize).saturating_mul(height as usize).saturating_mul(3).saturating_mul(header.frames);
    let frames = vec![7; bytes.min(FRAMES_BYTES_MAX)];
    header.sha256 = format!("{:x}", Sha256::digest(&frames));
    let mut file = serde_json::to_vec(&header).unwrap_or_default();
    file.resize(HEADER_BYTES, b' ');
    file.extend(frames);
    file
}

/// Every frame, and whether a model may have them.
fn read(mut frames: Frames) {
    const MANIFEST: &str = "name = \"m\"\nmodel = \"m.onnx\"\nlabels = [\"a\"]\n";
    if let Ok(manifest) = Manifest::parse(MANIFEST, Path::new(""), |_| Ok(String::new()))
        && let Err(error) = frames.check(&manifest.input, (64, 64))
    {
        is_sentence(&error.to_string());
    }
    let (width, height) = frames.header.size;
    let mut tensor = vec![0.0; 3 * width as usize * height as usize];
    for index in 0..frames.header.frames {
        assert!(frames.read(index, &mut tensor).is_ok(), "frame {index} of {}", frames.header.frames);
    }
}
