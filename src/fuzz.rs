//! Entrances for fuzzing: every parser of what comes from outside takes any bytes, and none may panic, hang or say what it
//! must not. `fuzz/` feeds them at random; what it found lies in `fuzz/corpus/` and is fed again by the test here.

use std::path::Path;
use std::sync::OnceLock;

use crate::config::{self, Config, Draft, Source};
use crate::engine::{self, HeadChoice, Manifest};
use crate::letterbox::{Fit, Letterbox};
use crate::publish;
use crate::yolo::head::{Head, HeadKind};
use crate::yolo::{Candidates, TensorData, TensorSpec, TensorView};

/// Where relative paths of a configuration start: `../engines/yolox-nano.toml` is there.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
/// Longest a sentence may be.
const SENTENCE_BYTES_MAX: usize = 1000;
/// Size of the model's input: 42 cells.
const INPUT: (u32, u32) = (64, 32);
/// Most boxes of a frame.
const BOXES_MAX: usize = 20;
/// Most elements of a tensor.
const ELEMENTS_MAX: usize = 1 << 14;

/// A target: its name, and its entrance.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by its name in `fuzz/`.
pub const TARGETS: [Target; 10] = [
    ("config", config),
    ("manifest", manifest),
    ("address", address),
    ("command", command),
    ("head", head),
    ("spool", publish::fuzz::spool),
    ("packet", publish::fuzz::packets),
    ("onnx", engine::fuzz::onnx),
    ("stamp", engine::fuzz::stamp),
    ("frames", engine::fuzz::frames),
];

pub use engine::fuzz::{frames, onnx, stamp};
pub use publish::fuzz::{packets as packet, spool};

/// The text of a configuration.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problems) = config::parse(text, Path::new(FOLDER)) {
        are_sentences(&problems);
    }
}

fn are_sentences(problems: &config::Problems) {
    assert!(!problems.0.is_empty(), "refused without a word");
    for problem in &problems.0 {
        assert!(problem.path.len() + problem.text.len() < SENTENCE_BYTES_MAX, "{problem:?}");
    }
}

/// The text of an engine's manifest.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problems) = Manifest::parse(text, Path::new(FOLDER), |_| Ok("a\nb\n".to_owned())) {
        are_sentences(&problems);
    }
}

/// The address of a camera: no user and no password is left in what is shown of it.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match config::parse_source(text, Path::new(FOLDER)) {
        Ok((_, Source::Rtsp(source))) => {
            let place = source.url.split_once("://").map_or("", |(_, rest)| rest);
            let place = place.split(['/', '?', '#']).next().unwrap_or_default();
            assert!(!place.contains('@'), "a login is left in {place}");
        }
        Ok(_) => {}
        Err(sentence) => assert!(!sentence.is_empty() && sentence.len() < SENTENCE_BYTES_MAX, "{sentence}"),
    }
}

/// A command by MQTT, and what it makes of a configuration.
pub fn command(bytes: &[u8]) {
    static SOUND: OnceLock<Option<(Config, Draft)>> = OnceLock::new();
    let Some(edit) = publish::fuzz::command(bytes) else { return };
    let sound = SOUND.get_or_init(|| config::open(&Path::new(FOLDER).join("example.toml")).ok());
    let Some((config, draft)) = sound else { panic!("config/example.toml is not sound") };
    if let Err(problems) = draft.edited(config, &edit) {
        are_sentences(&problems);
    }
}

/// Takes bytes from the front; zeros where there are none left.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }
}

/// A tensor with its own memory.
struct Tensor {
    name: &'static str,
    shape: Vec<usize>,
    floats: Vec<f32>,
    ints: Vec<i32>,
    longs: Vec<i64>,
    kind: usize,
}

impl Tensor {
    /// Name, kind of number and shape by the bytes, elements from what is left of them, over and over.
    fn take(bytes: &mut Bytes<'_>) -> Self {
        const NAMES: [&str; 8] =
            ["output", "num_dets", "det_boxes", "det_scores", "det_classes", "labels", "boxes", "scores"];
        const DIMENSIONS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 10, 42, 84, 126, 0];
        let (name, kind) = (NAMES[bytes.below(NAMES.len())], bytes.below(3));
        let rank = bytes.below(5);
        let shape: Vec<usize> = (0..rank).map(|_| DIMENSIONS[bytes.below(DIMENSIONS.len())]).collect();
        Self { name, shape, kind, floats: Vec::new(), ints: Vec::new(), longs: Vec::new() }
    }

    fn fill(&mut self, bytes: &[u8]) {
        let count = self.shape.iter().product::<usize>().min(ELEMENTS_MAX);
        let byte = |at: usize| if bytes.is_empty() { 0 } else { bytes[at % bytes.len()] };
        let word = |n: usize| u32::from_le_bytes([byte(4 * n), byte(4 * n + 1), byte(4 * n + 2), byte(4 * n + 3)]);
        match self.kind {
            0 => self.floats = (0..count).map(|n| f32::from_bits(word(n))).collect(),
            1 => self.ints = (0..count).map(|n| word(n) as i32).collect(),
            _ => self.longs = (0..count).map(|n| i64::from(word(n) as i32) << (word(n) % 32)).collect(),
        }
    }

    fn spec(&self) -> TensorSpec {
        let shape = self.shape.iter().copied().map(Some).collect();
        TensorSpec { name: self.name.to_owned(), shape, integer: self.kind != 0 }
    }

    fn view(&self) -> TensorView<'_> {
        let data = match self.kind {
            0 => TensorData::F32(&self.floats),
            1 => TensorData::I32(&self.ints),
            _ => TensorData::I64(&self.longs),
        };
        TensorView { name: self.name, shape: &self.shape, data }
    }
}

/// A model's outputs: recognised as any head, then read, also with other outputs than were promised.
pub fn head(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let kinds = HeadKind::ALL;
    let choice = match bytes.below(kinds.len() + 1) {
        0 => HeadChoice::Auto,
        n => HeadChoice::Named(kinds[n - 1]),
    };
    let (logits, labels) = (bytes.below(2) == 1, bytes.below(90));
    let confidence = f32::from(bytes.byte()) / 255.0;
    let count = bytes.below(5);
    let mut outputs: Vec<Tensor> = (0..count).map(|_| Tensor::take(&mut bytes)).collect();
    let mut others: Vec<Tensor> = (0..bytes.below(5)).map(|_| Tensor::take(&mut bytes)).collect();
    let sizes = TensorSpec { name: "orig_target_sizes".to_owned(), shape: vec![None, Some(2)], integer: true };
    let specs: Vec<TensorSpec> = outputs.iter().map(Tensor::spec).collect();
    let Ok(head) = Head::resolve(choice, logits, &[sizes], &specs, INPUT, labels) else { return };
    let letterbox = Letterbox::new((640, 320), INPUT, Fit::Centre);
    for tensors in [&mut outputs, &mut others] {
        tensors.iter_mut().for_each(|tensor| tensor.fill(bytes.0));
        let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
        for lane in 0..3 {
            let mut out = Candidates::default();
            let read = head.decode(&views, lane, &letterbox, confidence, BOXES_MAX, &mut out);
            assert!(out.boxes.len() <= BOXES_MAX && (read.is_ok() || out.boxes.is_empty()));
            for found in &out.boxes {
                let sound = found.rect.iter().all(|edge| edge.is_finite())
                    && (confidence..=1.0).contains(&found.score)
                    && (found.class as usize) < labels;
                assert!(sound, "{found:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_is_answered() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let mut fed = 0;
            for entry in std::fs::read_dir(folder.join(name)).expect(name) {
                let path = entry.expect("an entry").path();
                println!("{}", path.display());
                target(&std::fs::read(&path).expect("a file"));
                fed += 1;
            }
            assert!(fed > 0, "no seed of {name}");
        }
    }
}
