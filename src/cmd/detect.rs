//! `detect`: pictures through the very same decoder, letterbox, engine, head and NMS as a camera's frames.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crossbeam::channel::bounded;

use super::coco;
use super::status_line::Progress;
use super::track;
use crate::backend::{self, Backend, Batch, Settings, openvino, tensorrt};
use crate::camera::probe;
use crate::cli::{Code, DetectArgs, Failure};
use crate::config::{OpenvinoConfig, Precision, TensorrtConfig};
use crate::engine::Manifest;
use crate::logging::Console;
use crate::track::TrackerSettings;
use crate::yolo::{Detection, nms};

/// Thresholds of COCO evaluation.
const COCO_CONFIDENCE: f32 = 0.01;
const COCO_NMS: f32 = 0.65;
/// At low thresholds a picture has many candidates.
const COCO_CANDIDATES: usize = 3000;
/// What folders are searched for.
const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "bmp"];

/// Prints what was found in each picture, or writes COCO results.
pub fn run(args: &DetectArgs, console: &Console) -> Result<(), Failure> {
    super::start_gstreamer()?;
    let manifest = manifest(args)?;
    let settings = settings(args, &manifest)?;
    if args.track {
        return track::run(args, &manifest, &settings);
    }
    let pictures = pictures(&args.images)?;
    if let Some(path) = &args.coco {
        check_output(path)?;
        // Here and not when their turn comes: the work would be for nothing.
        pictures.iter().try_for_each(|picture| image_id(picture).map(drop))?;
    }
    let (wake, woken) = bounded(1);
    let mut backend = settings.open(wake, &backend::nothing_is_built())?;
    tracing::info!("{} over {} picture(s)", backend.spec().runtime, pictures.len());
    let mut progress = Progress::new(console, "pictures", pictures.len() as u64, Instant::now());
    let mut report = Report { manifest: &manifest, results: args.coco.as_ref().map(|_| Vec::new()) };
    let mut waiting: VecDeque<&Path> = VecDeque::new();
    let mut batch = Batch::new(Instant::now());
    let mut collect = |backend: &mut dyn Backend, waiting: &mut VecDeque<&Path>| -> Result<bool, Failure> {
        if !backend.try_collect(&mut batch)? {
            return Ok(false);
        }
        if let Some((_, why)) = batch.lost.first() {
            let picture = waiting.front().map_or_else(String::new, |path| path.display().to_string());
            return Err(Failure::new(Code::Config, format!("picture {picture}: {why}")));
        }
        for lane in &mut batch.lanes {
            let mut found = Vec::new();
            let limits = manifest.thresholds;
            nms::detections(&mut lane.candidates, &lane.letterbox, limits.nms, limits.max_detections, &mut found);
            if let Some(path) = waiting.pop_front() {
                report.picture(path, lane.frame.size, &found)?;
            }
        }
        progress.advance(Instant::now(), batch.lanes.len() as u64);
        Ok(true)
    };
    for path in &pictures {
        let frame = probe::still(path).map_err(|e| Failure::new(Code::Config, e))?;
        while waiting.len() == backend.spec().in_flight {
            if !collect(&mut *backend, &mut waiting)? {
                let _ = woken.recv();
            }
        }
        waiting.push_back(path);
        backend.submit(vec![frame])?;
    }
    while !waiting.is_empty() {
        if !collect(&mut *backend, &mut waiting)? {
            let _ = woken.recv();
        }
    }
    drop(progress);
    report.write(args.coco.as_deref())
}

/// What is known of the pictures so far.
struct Report<'a> {
    manifest: &'a Manifest,
    results: Option<Vec<coco::CocoResult>>,
}

impl Report<'_> {
    fn picture(&mut self, path: &Path, size: (u32, u32), found: &[Detection]) -> Result<(), Failure> {
        let labels = &self.manifest.labels;
        if let Some(results) = &mut self.results {
            results.extend(coco::results(image_id(path)?, size, found, labels));
            return Ok(());
        }
        println!("{} {}x{}", path.display(), size.0, size.1);
        for detection in found {
            let label = labels.get(detection.class as usize).map_or("?", String::as_str);
            let [x1, y1, x2, y2] = detection.rect;
            println!("  {label:<16} {:.3}  [{x1:.4}, {y1:.4}, {x2:.4}, {y2:.4}]", detection.score);
        }
        Ok(())
    }

    fn write(&self, path: Option<&Path>) -> Result<(), Failure> {
        let Some((path, results)) = path.zip(self.results.as_ref()) else { return Ok(()) };
        let text = serde_json::to_string(results).map_err(|e| Failure::new(Code::Internal, e))?;
        std::fs::write(path, text).map_err(|e| {
            Failure::new(Code::Config, format!("--coco {}: {e}: give another file", path.display()))
        })?;
        println!("{} detections written to {}", results.len(), path.display());
        Ok(())
    }
}

/// The COCO image id in a picture's name.
fn image_id(path: &Path) -> Result<u64, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    coco::image_id(&name).ok_or_else(|| {
        let text = format!("{}: its name has no COCO image id: name it like 000000397133.jpg", path.display());
        Failure::new(Code::Config, text)
    })
}

/// The folder of the results is there.
fn check_output(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() && !path.is_dir() {
        return Ok(());
    }
    let text = format!("--coco {}: give a file in a folder that is there", path.display());
    Err(Failure::new(Code::Config, text))
}

/// The manifest with what the command line says in its place.
fn manifest(args: &DetectArgs) -> Result<Manifest, Failure> {
    let mut manifest = super::manifest(&args.engine)?;
    if let Some(model) = &args.model {
        manifest.take_model(model);
    }
    let limits = &mut manifest.thresholds;
    if args.coco.is_some() {
        (limits.confidence, limits.nms, limits.max_candidates) = (COCO_CONFIDENCE, COCO_NMS, COCO_CANDIDATES);
    }
    if args.track {
        limits.confidence = TrackerSettings::default().low;
    }
    for (option, given, limit) in
        [("confidence", args.confidence, &mut limits.confidence), ("nms", args.nms, &mut limits.nms)]
    {
        *limit = given.unwrap_or(*limit);
        if !(0.0..=1.0).contains(limit) {
            return Err(Failure::new(Code::Config, format!("--{option} {limit}: give a number from 0 to 1")));
        }
    }
    Ok(manifest)
}

/// TensorRT where a built engine is given, else OpenVINO.
fn settings(args: &DetectArgs, manifest: &Manifest) -> Result<Settings, Failure> {
    if let Some(engine) = &args.built {
        let config = TensorrtConfig {
            library: args.tensorrt.clone(),
            engine: Some(engine.clone()),
            device: 0,
            contexts: 2,
            build: false,
        };
        return Ok(Settings::TensorRt(tensorrt::Settings::of_engine(&config, manifest)?));
    }
    let precision = match args.precision.as_str() {
        "auto" => Precision::Auto,
        "f32" => Precision::F32,
        "f16" => Precision::F16,
        "bf16" => Precision::Bf16,
        other => {
            let text = format!("--precision {other}: give auto, f32, f16 or bf16");
            return Err(Failure::new(Code::Config, text));
        }
    };
    let openvino = OpenvinoConfig {
        library: args.openvino.clone(),
        device: args.device.clone(),
        precision,
        requests: 2,
        streams: 0,
        threads: 0,
    };
    let manifest = manifest.clone();
    Ok(Settings::OpenVino(openvino::Settings { manifest, lanes: 1, openvino, cache_dir: None }))
}

/// The pictures named, and those in the folders named, in the order of their names.
fn pictures(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut pictures = Vec::new();
    for path in named {
        let fail = |e: std::io::Error| {
            Failure::new(Code::Config, format!("{}: {e}: give a picture, or a folder of them", path.display()))
        };
        if !std::fs::metadata(path).map_err(fail)?.is_dir() {
            pictures.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(fail)? {
            let file = entry.map_err(fail)?.path();
            let ending = file.extension().map(|e| e.to_string_lossy().to_lowercase());
            if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
                inside.push(file);
            }
        }
        inside.sort();
        pictures.append(&mut inside);
    }
    if pictures.is_empty() {
        let folders: Vec<String> = named.iter().map(|path| path.display().to_string()).collect();
        let text = format!("{}: no pictures in it: give a folder with {}", folders.join(", "), ENDINGS.join(", "));
        return Err(Failure::new(Code::Config, text));
    }
    Ok(pictures)
}
