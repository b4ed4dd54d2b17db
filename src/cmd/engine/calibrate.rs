//! `engine calibrate`: frames for INT8, letterboxed as the model will see them, spread over time and cameras.

mod cameras;
mod files;

use crate::backend::planar::Writer;
use crate::cli::engine::EngineCalibrateArgs;
use crate::cli::{Code, Failure};
use crate::engine::calibration::{CalibrationError, FRAMES_MAX, Header, Recording, Source};
use crate::engine::onnx::graph;
use crate::engine::{InputSpec, Manifest, Range, shapes};
use crate::frame::{Frame, Image};
use crate::letterbox::Letterbox;
use crate::logging::Console;

/// Fewer than this make a poor table.
const FRAMES_FEW: usize = 50;

/// Gathers frames and writes them.
pub fn run(args: &EngineCalibrateArgs, console: &Console) -> Result<(), Failure> {
    super::super::start_gstreamer()?;
    super::spares(&args.out, args.images.iter().chain(&args.manifest).chain(&args.config))?;
    let frames = usize::from(args.frames).min(FRAMES_MAX);
    let header = match &args.config {
        Some(path) => {
            let (config, mut manifest) = super::super::load(path)?;
            if let Some(path) = &args.manifest {
                manifest = super::super::manifest(path)?;
            }
            let mut album = Album::new(&manifest, &args.out)?;
            cameras::gather(&config, frames, args.seconds, &mut album, console)?;
            album.finish()?
        }
        None => {
            // Held by the command line: without a configuration there is a manifest.
            let path = args.manifest.as_deref().unwrap_or(std::path::Path::new(""));
            let manifest = super::super::manifest(path)?;
            let mut album = Album::new(&manifest, &args.out)?;
            files::gather(&args.images, frames, &mut album, console)?;
            album.finish()?
        }
    };
    tell(&header, frames, args);
    Ok(())
}

fn tell(header: &Header, wanted: usize, args: &EngineCalibrateArgs) {
    let (width, height) = header.size;
    println!("{} frames of {width}x{height} written to {}", header.frames, args.out.display());
    for source in &header.sources {
        println!("  {:<24} {}", source.name, source.frames);
    }
    if header.frames < FRAMES_FEW.min(wanted) {
        tracing::warn!("{} frames make a poor INT8 table: some hundreds are better", header.frames);
    }
}

/// The frames gathered so far.
struct Album {
    recording: Recording,
    spec: InputSpec,
    size: (u32, u32),
    writer: Writer,
    tensor: Vec<f32>,
    pixels: Vec<u8>,
    /// By source, in the order of their first frames.
    sources: Vec<Source>,
}

impl Album {
    fn new(manifest: &Manifest, out: &std::path::Path) -> Result<Self, Failure> {
        super::spares(out, [&manifest.model])?;
        let size = input_size(manifest)?;
        // The letterbox without range, mean and deviation: what it writes are grey levels.
        let spec = InputSpec { range: Range::Byte, mean: [0.0; 3], std: [1.0; 3], ..manifest.input.clone() };
        let elements = 3 * size.0 as usize * size.1 as usize;
        Ok(Self {
            recording: Recording::create(out, &manifest.input, size)?,
            writer: Writer::new(spec.clone(), size, 1),
            spec,
            size,
            tensor: vec![0.0; elements],
            pixels: vec![0; elements],
            sources: Vec::new(),
        })
    }

    /// Frames so far.
    fn frames(&self) -> usize {
        self.recording.frames()
    }

    /// Writes a frame to a place: the next, or an earlier one's of the same source.
    fn put(&mut self, index: usize, source: &str, frame: &Frame) -> Result<(), Failure> {
        let Image::System(image) = &frame.image else {
            let text =
                format!("{source}: its frames are in {}: decode in software to calibrate", frame.image.memory());
            return Err(Failure::new(Code::Config, text));
        };
        let letterbox = Letterbox::new((image.width, image.height), self.size, self.spec.fit);
        let spans = frame.mask.as_ref().map(|mask| mask.spans(&letterbox)).unwrap_or_default();
        self.writer.write(image, &letterbox, &spans, 0, &mut self.tensor);
        self.pixels.iter_mut().zip(&self.tensor).for_each(|(to, from)| *to = from.round().clamp(0.0, 255.0) as u8);
        let is_new = index == self.frames();
        self.recording.put(index, &self.pixels)?;
        if is_new {
            match self.sources.iter_mut().find(|known| known.name == source) {
                Some(known) => known.frames += 1,
                None => self.sources.push(Source { name: source.to_owned(), frames: 1 }),
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Header, Failure> {
        Ok(self.recording.finish(self.sources)?)
    }
}

/// Width and height of the model's input: the manifest's, else the model's own.
fn input_size(manifest: &Manifest) -> Result<(u32, u32), Failure> {
    let path = &manifest.model;
    let graph = match (graph::read(path), manifest.input.size) {
        (Ok(graph), _) => graph,
        // Frames can be gathered where the model is not.
        (Err(_), Some(size)) => return Ok(size),
        (Err(error), None) => {
            let text = format!("model {}: {error}", path.display());
            return Err(Failure::new(Code::Unavailable, text));
        }
    };
    let size = shapes::picture(&graph.inputs, manifest).map(|(_, size)| size);
    size.map_err(|e| Failure::new(Code::Config, format!("model {}: {e}", path.display())))
}

impl From<CalibrationError> for Failure {
    fn from(error: CalibrationError) -> Self {
        let code = match error {
            CalibrationError::File { .. } => Code::Config,
            CalibrationError::Broken { .. } => Code::Unavailable,
        };
        Self::new(code, error)
    }
}
