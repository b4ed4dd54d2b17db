//! One infer request on its own thread: tensor in, engine, head out.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};
use openvino::{ElementType, InferRequest, Tensor};

use super::super::planar::Writer;
use super::super::{BackendError, Batch, Lane};
use super::model::Layout;
use super::{Settings, unavailable, words};
use crate::engine::Thresholds;
use crate::frame::{CameraId, Frame, Image, SystemImage};
use crate::letterbox::{Fit, Letterbox};
use crate::mask::{RegionMask, Span};
use crate::thumbnail::{Blank, Shrink};
use crate::yolo::head::HeadError;
use crate::yolo::{TensorData, TensorView};

/// Frames to run.
pub struct Job {
    /// Its place in the order submitted.
    pub number: u64,
    /// The frames, at most a batch.
    pub frames: Vec<Frame>,
    /// By frame, where its thumbnail goes, if it is to have one.
    pub blanks: Vec<Option<Blank>>,
    /// Where the candidates go.
    pub batch: Batch,
    /// When it was handed over.
    pub submitted: Instant,
}

/// A job that has run.
pub struct Done {
    /// The job's number.
    pub number: u64,
    /// The candidates, where `outcome` is good.
    pub batch: Batch,
    /// What became of it.
    pub outcome: Result<(), BackendError>,
}

/// Masks remembered: one a camera, as long as its geometry stays.
const MASKS: usize = 256;

/// An infer request and all that its thread reuses.
pub struct Request {
    infer: InferRequest,
    layout: Arc<Layout>,
    fit: Fit,
    thresholds: Thresholds,
    writer: Writer,
    shrink: Shrink,
    masks: Vec<(Arc<RegionMask>, Letterbox, Vec<Span>)>,
    shapes: Vec<Vec<usize>>,
}

impl Request {
    /// Wraps a request of a compiled model.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unavailable`] where the runtime does not give its tensors.
    pub fn new(infer: InferRequest, settings: &Settings, layout: Arc<Layout>) -> Result<Self, BackendError> {
        if let Some(name) = &layout.size {
            feed_size(&infer, name, layout.input)?;
        }
        let manifest = &settings.manifest;
        let writer = Writer::new(manifest.input.clone(), layout.input, settings.lanes);
        Ok(Self {
            infer,
            fit: manifest.input.fit,
            thresholds: manifest.thresholds,
            writer,
            shrink: Shrink::default(),
            masks: Vec::new(),
            shapes: Vec::new(),
            layout,
        })
    }

    /// Runs one grey frame, so that the first real one meets a warm engine.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unavailable`] where the engine does not run.
    pub fn warm_up(&mut self) -> Result<(), BackendError> {
        let now = Instant::now();
        let frame = Frame::solid(&CameraId::new("warm-up"), self.layout.input, now);
        let mut job =
            Job { number: 0, frames: vec![frame], blanks: Vec::new(), batch: Batch::new(now), submitted: now };
        self.execute(&mut job).map_err(|e| match e {
            BackendError::Config(text) => BackendError::Config(text),
            other => BackendError::Unavailable(format!("the first run of the model fails: {other}")),
        })
    }

    /// The thread's loop; ends when the jobs do.
    pub fn run(mut self, jobs: &Receiver<Job>, finished: &Sender<Done>, wake: &Sender<()>) {
        for mut job in jobs {
            let outcome = self.execute(&mut job);
            if finished.send(Done { number: job.number, batch: job.batch, outcome }).is_err() {
                return;
            }
            let _ = wake.try_send(());
        }
    }

    /// Runs the engine over what the input tensor holds until `end`; how often.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unavailable`] where the engine does not run.
    pub fn infer_until(&mut self, end: Instant) -> Result<u64, BackendError> {
        let mut runs = 0;
        while Instant::now() < end {
            self.infer.infer().map_err(|e| unavailable("a run of the model", &e))?;
            runs += 1;
        }
        Ok(runs)
    }

    fn execute(&mut self, job: &mut Job) -> Result<(), BackendError> {
        let start = Instant::now();
        self.fill(job)?;
        let filled = Instant::now();
        if !job.batch.lanes.is_empty() {
            self.infer.infer().map_err(|e| BackendError::DropBatch(words(&e)))?;
        }
        let inferred = Instant::now();
        self.decode(&mut job.batch)?;
        let batch = &mut job.batch;
        batch.submitted = job.submitted;
        batch.finished = Instant::now();
        batch.preprocess = filled - start;
        batch.infer = inferred - filled;
        batch.decode = batch.finished - inferred;
        Ok(())
    }

    /// Writes the frames into the input tensor and gives their pixels back. Of those that cannot be read each is lost alone.
    fn fill(&mut self, job: &mut Job) -> Result<(), BackendError> {
        let fail = |e: openvino::InferenceError| BackendError::Reopen(words(&e));
        let mut tensor = self.infer.get_tensor(&self.layout.picture).map_err(fail)?;
        let data = tensor.get_data_mut::<f32>().map_err(fail)?;
        let Batch { lanes, lost, .. } = &mut job.batch;
        let blanks = job.blanks.drain(..).chain(std::iter::repeat_with(|| None));
        let mut filled = 0;
        lost.clear();
        for (frame, blank) in job.frames.drain(..).zip(blanks) {
            let image = match readable(&frame.image) {
                Ok(image) => image,
                Err(why) => {
                    lost.push((frame.info.camera, why));
                    continue;
                }
            };
            let letterbox = Letterbox::new((image.width, image.height), self.layout.input, self.fit);
            let at = frame.mask.as_ref().map(|mask| mask_index(&mut self.masks, mask, &letterbox));
            let spans = at.map_or(&[][..], |at| &self.masks[at].2);
            self.writer.write(image, &letterbox, spans, filled, data);
            let thumbnail =
                blank.map(|blank| Arc::new(blank.write(image, frame.mask.as_deref(), &mut self.shrink)));
            match lanes.get_mut(filled) {
                Some(old) => (old.frame, old.letterbox, old.thumbnail) = (frame.info, letterbox, thumbnail),
                None => {
                    let candidates = crate::yolo::Candidates::default();
                    lanes.push(Lane { frame: frame.info, letterbox, candidates, thumbnail });
                }
            }
            filled += 1;
        }
        lanes.truncate(filled);
        Ok(())
    }

    fn decode(&mut self, batch: &mut Batch) -> Result<(), BackendError> {
        let outputs = self.layout.outputs.len();
        let tensors: Vec<Tensor> = (0..outputs)
            .map(|i| self.infer.get_output_tensor_by_index(i))
            .collect::<Result<_, _>>()
            .map_err(|e| BackendError::Reopen(words(&e)))?;
        self.shapes.resize(outputs, Vec::new());
        for (shape, tensor) in self.shapes.iter_mut().zip(&tensors) {
            let dimensions = tensor.get_shape().map_err(|e| BackendError::Reopen(words(&e)))?;
            shape.clear();
            shape.extend(dimensions.get_dimensions().iter().map(|d| usize::try_from(*d).unwrap_or(0)));
        }
        let mut views = Vec::with_capacity(outputs);
        for ((tensor, shape), spec) in tensors.iter().zip(&self.shapes).zip(&self.layout.outputs) {
            views.push(TensorView { name: &spec.name, shape, data: data(tensor)? });
        }
        let (confidence, most) = (self.thresholds.confidence, self.thresholds.max_candidates);
        for (lane, out) in batch.lanes.iter_mut().enumerate() {
            self.layout.head.decode(&views, lane, &out.letterbox, confidence, most, &mut out.candidates).map_err(
                |e| match e {
                    // No batch will ever be right: better to say so and end than to drop them all.
                    HeadError::Manifest(text) => BackendError::Config(text),
                    HeadError::Tensor(text) => BackendError::DropBatch(text),
                },
            )?;
        }
        Ok(())
    }
}

/// A frame whose pixels are here, all of them, or why it is not.
fn readable(image: &Image) -> Result<&SystemImage, String> {
    let Image::System(system) = image else {
        let memory = image.memory();
        return Err(format!(
            "it lies in {memory}, which OpenVINO cannot read: set decode = \"software\" for this camera"
        ));
    };
    (0..3).try_for_each(|plane| system.plane(plane).map(drop))?;
    Ok(system)
}

/// The spans of a mask under a geometry, computed once.
fn mask_index(
    masks: &mut Vec<(Arc<RegionMask>, Letterbox, Vec<Span>)>,
    mask: &Arc<RegionMask>,
    letterbox: &Letterbox,
) -> usize {
    let known = masks.iter().position(|(m, l, _)| Arc::ptr_eq(m, mask) && l == letterbox);
    known.unwrap_or_else(|| {
        if masks.len() == MASKS {
            masks.remove(0);
        }
        masks.push((Arc::clone(mask), *letterbox, mask.spans(letterbox)));
        masks.len() - 1
    })
}

fn data(tensor: &Tensor) -> Result<TensorData<'_>, BackendError> {
    let fail = |e: openvino::InferenceError| BackendError::Reopen(words(&e));
    match tensor.get_element_type().map_err(fail)? {
        ElementType::F32 => Ok(TensorData::F32(tensor.get_data().map_err(fail)?)),
        ElementType::I32 => Ok(TensorData::I32(tensor.get_data().map_err(fail)?)),
        ElementType::I64 => Ok(TensorData::I64(tensor.get_data().map_err(fail)?)),
        other => Err(BackendError::Config(format!("an output tensor holds {other}: export it as float32"))),
    }
}

/// DETR exports scale their boxes by this input: fed the model's own size, boxes come in input pixels.
fn feed_size(infer: &InferRequest, name: &str, input: (u32, u32)) -> Result<(), BackendError> {
    let fail = |e: openvino::InferenceError| unavailable("the size input", &e);
    let mut tensor = infer.get_tensor(name).map_err(fail)?;
    match tensor.get_element_type().map_err(fail)? {
        ElementType::I64 => {
            for pair in tensor.get_data_mut::<i64>().map_err(fail)?.chunks_exact_mut(2) {
                pair.copy_from_slice(&[i64::from(input.0), i64::from(input.1)]);
            }
        }
        ElementType::I32 => {
            for pair in tensor.get_data_mut::<i32>().map_err(fail)?.chunks_exact_mut(2) {
                pair.copy_from_slice(&[input.0.cast_signed(), input.1.cast_signed()]);
            }
        }
        other => {
            return Err(BackendError::Config(format!("the size input holds {other}: export it as int64")));
        }
    }
    Ok(())
}
