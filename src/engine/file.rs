//! The manifest as it is written, and its way to [`Manifest`]: every problem at once, with its line.
//!
//! The format is told in the head of `engines/yolox-nano.toml`.

mod tensorrt;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use toml::Spanned;

use super::coco::COCO80;
use super::manifest::{Channels, HeadChoice, InputSpec, Manifest, OutputSpec, Range, Thresholds};
use crate::config::{Problem, Problems};
use crate::letterbox::Fit;
use crate::yolo::head::HeadKind;
use tensorrt::TensorrtFile;

/// Sides an input may have, in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 32..=8192;
/// Boxes a frame that NMS may be asked to handle.
const CANDIDATES: std::ops::RangeInclusive<usize> = 1..=30_000;
/// Boxes a frame that may be published.
const DETECTIONS: std::ops::RangeInclusive<usize> = 1..=1000;
/// Characters of a name or label.
const NAME_CHARACTERS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    name: Option<Spanned<String>>,
    model: Option<Spanned<PathBuf>>,
    sha256: Option<Spanned<String>>,
    labels: Option<Spanned<Labels>>,
    labels_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    input: InputFile,
    #[serde(default)]
    output: OutputFile,
    #[serde(default)]
    thresholds: ThresholdsFile,
    #[serde(default)]
    tensorrt: TensorrtFile,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct InputFile {
    size: Option<Spanned<(u32, u32)>>,
    range: Option<Range>,
    channels: Option<Channels>,
    letterbox: Option<Letterboxing>,
    pad: Option<u8>,
    mean: Option<Spanned<[f32; 3]>>,
    std: Option<Spanned<[f32; 3]>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Letterboxing {
    Centre,
    TopLeft,
    Stretch,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct OutputFile {
    head: Option<Spanned<String>>,
    logits: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct ThresholdsFile {
    confidence: Option<Spanned<f32>>,
    nms: Option<Spanned<f32>>,
    max_candidates: Option<Spanned<usize>>,
    max_detections: Option<Spanned<usize>>,
}

/// `labels`: the name of a built-in list, or a list. By hand, as the errors of untagged enums say nothing.
enum Labels {
    BuiltIn(String),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;
        impl<'de> Visitor<'de> for LabelsVisitor {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"coco80\" or a list of class names")
            }

            fn visit_str<E>(self, name: &str) -> Result<Labels, E> {
                Ok(Labels::BuiltIn(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Labels, A::Error> {
                let mut list = Vec::new();
                while let Some(name) = names.next_element()? {
                    list.push(name);
                }
                Ok(Labels::List(list))
            }
        }
        deserializer.deserialize_any(LabelsVisitor)
    }
}

/// Checks a manifest given as text. Paths in it are resolved against `folder`; `read` reads the `labels_file`.
pub(super) fn parse(
    text: &str,
    folder: &Path,
    read: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Manifest, Problems> {
    let file: ManifestFile = toml::from_str(text).map_err(|error| Problems(vec![syntax(text, &error)]))?;
    let mut check = Check { text, problems: Vec::new() };
    let name = check.name(file.name);
    let model = check.model(file.model, folder);
    let sha256 = check.sha256(file.sha256);
    let labels = check.labels(file.labels, file.labels_file, folder, read);
    let input = check.input(file.input);
    let output = check.output(file.output);
    let thresholds = check.thresholds(&file.thresholds);
    let tensorrt = check.tensorrt(file.tensorrt, folder);
    if !check.problems.is_empty() {
        return Err(Problems(check.problems));
    }
    Ok(Manifest { name, model, sha256, labels: Arc::new(labels), input, output, thresholds, tensorrt })
}

/// An error of the TOML reader, with its line and what stands left of the equals sign there.
fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let line = error.span().map(|span| line_of(text, span.start));
    let written = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
    let key = written.split('=').next().unwrap_or_default().trim();
    Problem {
        line,
        path: key.chars().take(NAME_CHARACTERS).collect(),
        text: format!(
            "{}: correct it, engines/yolox-nano.toml shows the format",
            error.message().replace('\n', " ")
        ),
    }
}

/// The line, from 1, of a byte of the text.
fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|b| *b == b'\n').count()
}

/// Turns what was written into what is meant and gathers what is wrong.
struct Check<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Notes a problem of a setting, at its line where it was written.
    fn wrong<T>(&mut self, path: &str, written: Option<&Spanned<T>>, text: String) {
        let line = written.map(|value| line_of(self.text, value.span().start));
        self.problems.push(Problem { line, path: path.to_owned(), text });
    }

    fn name(&mut self, written: Option<Spanned<String>>) -> String {
        match &written {
            None => self.wrong("name", written.as_ref(), "is missing: give the name to publish".to_owned()),
            Some(name) => {
                if let Some(fault) = fault_of_name(name.get_ref()) {
                    self.wrong("name", written.as_ref(), format!("{fault}: give the name to publish"));
                }
            }
        }
        written.map(Spanned::into_inner).unwrap_or_default()
    }

    fn model(&mut self, written: Option<Spanned<PathBuf>>, folder: &Path) -> PathBuf {
        if written.as_ref().is_none_or(|path| path.get_ref().as_os_str().is_empty()) {
            self.wrong("model", written.as_ref(), "is missing: give the ONNX file's path".to_owned());
        }
        folder.join(written.map(Spanned::into_inner).unwrap_or_default())
    }

    fn sha256(&mut self, written: Option<Spanned<String>>) -> Option<String> {
        let digest = written.as_ref().map(|digest| digest.get_ref().to_ascii_lowercase())?;
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            let text = "is not a SHA-256: give its 64 hex digits, as `sha256sum` prints them, or leave it out";
            self.wrong("sha256", written.as_ref(), text.to_owned());
        }
        Some(digest)
    }

    fn labels(
        &mut self,
        labels: Option<Spanned<Labels>>,
        file: Option<Spanned<PathBuf>>,
        folder: &Path,
        read: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Vec<String> {
        let (path, line, list) = match (&labels, file) {
            (Some(_), Some(file)) => {
                self.wrong("labels_file", Some(&file), "stands beside `labels`: give one of the two".to_owned());
                return Vec::new();
            }
            (None, None) => {
                let text = "is missing: give \"coco80\", a list of class names, or `labels_file`";
                self.wrong::<()>("labels", None, text.to_owned());
                return Vec::new();
            }
            (None, Some(file)) => match read(&folder.join(file.get_ref())) {
                Ok(text) => ("labels_file", file.span(), text.trim_end().lines().map(str::to_owned).collect()),
                Err(error) => {
                    let text = format!("{} cannot be read ({error}): give a text file", file.get_ref().display());
                    self.wrong("labels_file", Some(&file), text);
                    return Vec::new();
                }
            },
            (Some(labels), None) => match labels.get_ref() {
                Labels::List(list) => ("labels", labels.span(), list.clone()),
                Labels::BuiltIn(name) if name == "coco80" => {
                    ("labels", labels.span(), COCO80.map(|(name, _)| name.to_owned()).to_vec())
                }
                Labels::BuiltIn(name) => {
                    let text = format!("{name:?} is no built-in list: give \"coco80\" or a list of class names");
                    self.wrong("labels", Some(labels), text);
                    return Vec::new();
                }
            },
        };
        self.label_names(path, &Spanned::new(line, ()), &list);
        list
    }

    fn label_names(&mut self, path: &str, written: &Spanned<()>, list: &[String]) {
        if list.is_empty() {
            self.wrong(path, Some(written), "is empty: give one name a class, in the model's order".to_owned());
        }
        let mut faults = list.iter().enumerate().filter_map(|(class, label)| Some((class, fault_of_name(label)?)));
        // The first of them will do: a list may be long.
        if let Some((class, fault)) = faults.next() {
            self.wrong(path, Some(written), format!("the name of class {class} {fault}: give every class a name"));
        }
    }

    fn input(&mut self, file: InputFile) -> InputSpec {
        let InputFile { size, range, channels, letterbox, pad, mean, std } = file;
        let size_fits = |size: &Spanned<(u32, u32)>| {
            let (width, height) = *size.get_ref();
            SIDES.contains(&width) && SIDES.contains(&height)
        };
        if size.as_ref().is_some_and(|size| !size_fits(size)) {
            let text = format!("is out of range: give [width, height] from {} to {}", SIDES.start(), SIDES.end());
            self.wrong("input.size", size.as_ref(), text);
        }
        if mean.as_ref().is_some_and(|mean| !mean.get_ref().iter().all(|v| v.is_finite())) {
            self.wrong("input.mean", mean.as_ref(), "is not finite: give three numbers".to_owned());
        }
        if std.as_ref().is_some_and(|std| !std.get_ref().iter().all(|v| v.is_finite() && *v > 0.0)) {
            self.wrong("input.std", std.as_ref(), "divides: give three numbers above 0".to_owned());
        }
        InputSpec {
            size: size.map(Spanned::into_inner),
            range: range.unwrap_or(Range::Unit),
            channels: channels.unwrap_or(Channels::Rgb),
            fit: match letterbox {
                None | Some(Letterboxing::Centre) => Fit::Centre,
                Some(Letterboxing::TopLeft) => Fit::TopLeft,
                Some(Letterboxing::Stretch) => Fit::Stretch,
            },
            pad: pad.unwrap_or(114),
            mean: mean.map_or([0.0; 3], Spanned::into_inner),
            std: std.map_or([1.0; 3], Spanned::into_inner),
        }
    }

    fn output(&mut self, file: OutputFile) -> OutputSpec {
        let OutputFile { head, logits } = file;
        let written = head.as_ref().map_or("auto", |head| head.get_ref());
        let choice = match HeadKind::from_name(written) {
            Some(kind) => HeadChoice::Named(kind),
            None if written == "auto" => HeadChoice::Auto,
            None => {
                let names = HeadKind::ALL.map(HeadKind::name).join(", ");
                let text = format!("{written:?} is no head: give one of auto, {names}");
                self.wrong("output.head", head.as_ref(), text);
                HeadChoice::Auto
            }
        };
        OutputSpec { head: choice, logits: logits.unwrap_or(false) }
    }

    fn thresholds(&mut self, file: &ThresholdsFile) -> Thresholds {
        let ThresholdsFile { confidence, nms, max_candidates, max_detections } = file;
        Thresholds {
            confidence: self.within("thresholds.confidence", confidence.as_ref(), 0.0..=1.0, 0.3),
            nms: self.within("thresholds.nms", nms.as_ref(), 0.0..=1.0, 0.45),
            max_candidates: self.within("thresholds.max_candidates", max_candidates.as_ref(), CANDIDATES, 1000),
            max_detections: self.within("thresholds.max_detections", max_detections.as_ref(), DETECTIONS, 300),
        }
    }

    /// A number as written if it is within `range`, else the default.
    fn within<T: PartialOrd + Copy + fmt::Display>(
        &mut self,
        path: &str,
        written: Option<&Spanned<T>>,
        range: std::ops::RangeInclusive<T>,
        default: T,
    ) -> T {
        let value = written.map_or(default, |value| *value.get_ref());
        if !range.contains(&value) {
            let text = format!("{value} is out of range: give {} to {}", range.start(), range.end());
            self.wrong(path, written, text);
        }
        value
    }
}

/// What is wrong with a name that will be published.
fn fault_of_name(name: &str) -> Option<String> {
    if name.trim().is_empty() {
        Some("is empty".to_owned())
    } else if name.chars().any(char::is_control) {
        Some("holds a control character".to_owned())
    } else if name.chars().count() > NAME_CHARACTERS {
        Some(format!("is longer than {NAME_CHARACTERS} characters"))
    } else {
        None
    }
}
