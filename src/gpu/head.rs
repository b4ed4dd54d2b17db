//! Head decoding on the GPU: a model's outputs → candidates, of which alone the host learns.
//!
//! The rules are those of [`Head::decode`], which runs on the CPU; `head.cu` has them.

use super::element::Element;
use super::error::GpuError;
use super::kernels::{Kernels, Launch};
use super::letterbox::LaneEntry;
use super::memory::{DeviceBuffer, Pinned};
use super::stream::Stream;
use crate::yolo::head::{Head, HeadKind, Layout, STRIDES, grid_boxes};
use crate::yolo::{Candidate, Candidates, Scores, TensorSpec, unlabelled};

/// Candidates of a lane that lie beside the counts; the rest goes to the overflow. As in `head.cu`.
pub const HEAD_BOXES: usize = 256;
/// Threads of a block; as in `head.cu`.
const THREADS: u32 = 256;
/// Numbers before the boxes, a lane: its count, and its highest class without a label.
const HEADER_NUMBERS: usize = 2;

/// A candidate as the GPU writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuBox {
    /// x1, y1, x2, y2 in input pixels.
    pub rect: [f32; 4],
    /// Score, 0..1.
    pub score: f32,
    /// Class number.
    pub class: u32,
}

/// The argument of the kernels; `head.cu` has the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadArgs {
    lanes: u64,
    tensors: [u64; 4],
    counts: u64,
    unlabelled: u64,
    found: u64,
    overflow: u64,
    elements: [u32; 4],
    boxes: u32,
    classes: u32,
    logits: u32,
    raw_grid: u32,
    confidence: f32,
    floor: f32,
    width: f32,
    height: f32,
    grid_widths: [u32; 3],
    grid_cells: [u32; 3],
}

/// A tensor that a kernel reads.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// Its number among the outputs.
    output: usize,
    /// Elements a lane.
    len: usize,
    element: Element,
}

/// How the outputs of one engine are read.
///
/// `found` of [`Kernels::decode`] is [`HeadPlan::header_bytes`] of `u32`: the count of each lane, then of each lane the
/// highest class that has no label, and 1 (0: none; such a lane is an error, as on the CPU). Then follow
/// [`HEAD_BOXES`] × [`GpuBox`] a lane. A lane's boxes beyond those are in `overflow`, which has
/// [`HeadPlan::overflow_bytes`] of one lane for each. [`HeadPlan::read`] reads both.
#[derive(Clone, Debug)]
pub struct HeadPlan {
    kernel: &'static str,
    sources: Vec<Source>,
    /// Lanes that the outputs have.
    lanes: usize,
    boxes: usize,
    labels: usize,
    final_boxes: bool,
    /// Without the addresses.
    args: HeadArgs,
}

impl HeadPlan {
    /// `outputs` are those that `head` was resolved from, now with every dimension known; `elements` are their types,
    /// `confidence` (0..1) the least score of a candidate.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where an output is not of the shape that the head was found in, or of a type that no
    /// kernel reads.
    pub fn new(
        head: &Head,
        outputs: &[TensorSpec],
        elements: &[Element],
        confidence: f32,
    ) -> Result<Self, GpuError> {
        let model = Outputs { kind: head.kind(), outputs, elements };
        let (kernel, sources, boxes) = model.sources(head)?;
        let lanes = sources.iter().map(|source| model.lanes(source.output)).min().unwrap_or(0);
        let scores = Scores::new(head.reads_logits(), confidence);
        let mut args = HeadArgs {
            boxes: u32::try_from(boxes).map_err(|_| model.refuse(sources[0].output))?,
            classes: u32::try_from(head.classes).map_err(|_| model.refuse(sources[0].output))?,
            logits: u32::from(scores.logits),
            raw_grid: u32::from(head.kind() == HeadKind::Yolox),
            confidence: scores.confidence,
            floor: scores.floor,
            width: head.input.0 as f32,
            height: head.input.1 as f32,
            ..HeadArgs::default()
        };
        for (level, stride) in STRIDES.into_iter().enumerate() {
            args.grid_widths[level] = head.input.0.div_ceil(stride);
            args.grid_cells[level] = head.input.0.div_ceil(stride) * head.input.1.div_ceil(stride);
        }
        for (role, source) in sources.iter().enumerate() {
            args.elements[role] = number(source.element);
        }
        let (labels, final_boxes) = (head.classes, head.final_boxes());
        Ok(Self { kernel, sources, lanes, boxes, labels, final_boxes, args })
    }

    /// The most candidates that a lane can have.
    pub fn boxes(&self) -> usize {
        self.boxes
    }

    /// Bytes of counts before the boxes of `lanes` lanes.
    pub fn header_bytes(&self, lanes: usize) -> usize {
        (lanes * HEADER_NUMBERS * size_of::<u32>()).next_multiple_of(16)
    }

    /// Bytes of `found` for `lanes` lanes.
    pub fn found_bytes(&self, lanes: usize) -> usize {
        self.header_bytes(lanes) + lanes * HEAD_BOXES * size_of::<GpuBox>()
    }

    /// Bytes of `overflow` for `lanes` lanes, perhaps 0.
    pub fn overflow_bytes(&self, lanes: usize) -> usize {
        lanes * self.boxes.saturating_sub(HEAD_BOXES) * size_of::<GpuBox>()
    }

    /// How many boxes of a lane are in the overflow, from its beginning; `found` is as downloaded.
    pub fn overflowed(&self, found: &Pinned, lanes: usize, lane: usize) -> usize {
        self.overflowed_in(found.bytes(), lanes, lane)
    }

    /// Reads one lane's candidates, as [`Head::decode`] does, at most `max_candidates` of them.
    ///
    /// `found` is as downloaded; `overflow` begins with the [`HeadPlan::overflowed`] boxes of this lane, where there
    /// are any.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where the model reports a class without a label, [`GpuError::Failed`] where `found` or
    /// `overflow` is too short. `out` is empty then.
    pub fn read(
        &self,
        found: &Pinned,
        overflow: Option<&Pinned>,
        lanes: usize,
        lane: usize,
        max_candidates: usize,
        out: &mut Candidates,
    ) -> Result<(), GpuError> {
        self.read_bytes(found.bytes(), overflow.map_or(&[], Pinned::bytes), lanes, lane, max_candidates, out)
    }

    pub(super) fn overflowed_in(&self, found: &[u8], lanes: usize, lane: usize) -> usize {
        (number_at(found, lane.min(lanes)) as usize).min(self.boxes).saturating_sub(HEAD_BOXES)
    }

    pub(super) fn read_bytes(
        &self,
        found: &[u8],
        overflow: &[u8],
        lanes: usize,
        lane: usize,
        max_candidates: usize,
        out: &mut Candidates,
    ) -> Result<(), GpuError> {
        out.boxes.clear();
        out.dropped = 0;
        out.final_boxes = self.final_boxes;
        let beyond = number_at(found, lanes + lane);
        if beyond > 0 {
            return Err(GpuError::Config(unlabelled(f64::from(beyond - 1), self.labels).to_string()));
        }
        let more = self.overflowed_in(found, lanes, lane);
        let near = (number_at(found, lane) as usize).min(self.boxes) - more;
        let first = self.header_bytes(lanes) + lane * HEAD_BOXES * size_of::<GpuBox>();
        let near = found.get(first..first + near * size_of::<GpuBox>());
        let far = overflow.get(..more * size_of::<GpuBox>());
        let (Some(near), Some(far)) = (near, far) else {
            return Err(GpuError::Failed(format!(
                "lane {lane} has {more} boxes beyond the first {HEAD_BOXES} that were not fetched: open the engine anew"
            )));
        };
        out.boxes.extend(near.chunks_exact(size_of::<GpuBox>()).map(candidate));
        out.boxes.extend(far.chunks_exact(size_of::<GpuBox>()).map(candidate));
        out.keep_best(max_candidates);
        Ok(())
    }

    /// The kernel's name and argument. `address` gives the address of an output, by its number.
    pub(super) fn args(
        &self,
        lanes: usize,
        table: u64,
        address: impl Fn(usize) -> u64,
        found: u64,
        overflow: u64,
    ) -> (&'static str, HeadArgs) {
        let mut args = self.args;
        for (role, source) in self.sources.iter().enumerate() {
            args.tensors[role] = address(source.output);
        }
        (args.lanes, args.counts) = (table, found);
        args.unlabelled = found + (lanes * size_of::<u32>()) as u64;
        args.found = found + self.header_bytes(lanes) as u64;
        args.overflow = overflow;
        (self.kernel, args)
    }
}

impl Kernels {
    /// Reads the outputs of `lanes` lanes into `found` and `overflow`, whose layout [`HeadPlan`] tells; `found`'s
    /// counts are cleared first. `outputs` are all of the model's, in the order that the plan was made with. Lanes of
    /// `table` without a frame have no boxes. May be part of a graph.
    ///
    /// # Errors
    ///
    /// [`GpuError::Config`] where a buffer is too small, else as the driver says.
    #[expect(clippy::too_many_arguments, reason = "a launch has as many buffers")]
    pub fn decode(
        &self,
        stream: &Stream,
        plan: &HeadPlan,
        table: &DeviceBuffer,
        lanes: usize,
        outputs: &[&DeviceBuffer],
        found: &DeviceBuffer,
        overflow: &DeviceBuffer,
    ) -> Result<(), GpuError> {
        for source in &plan.sources {
            let Some(output) = outputs.get(source.output) else {
                return Err(GpuError::Config(format!(
                    "output {} is missing, there are {}: build the engine anew",
                    source.output,
                    outputs.len()
                )));
            };
            let bytes = source.len.saturating_mul(source.element.bytes()).saturating_mul(lanes);
            output.range(0, bytes)?;
        }
        if lanes > plan.lanes {
            return Err(GpuError::Config(format!(
                "{lanes} lanes are to be read of outputs for {}: build the engine for that batch",
                plan.lanes
            )));
        }
        let entries = table.range(0, lanes.saturating_mul(size_of::<LaneEntry>()))?;
        let found_address = found.range(0, plan.found_bytes(lanes))?;
        let overflow = overflow.range(0, plan.overflow_bytes(lanes))?;
        let address = |output: usize| outputs[output].address();
        let (name, args) = plan.args(lanes, entries, address, found_address, overflow);
        stream.clear(found, 0, plan.header_bytes(lanes))?;
        let grid = [args.boxes.div_ceil(THREADS), lanes as u32, 1];
        self.launch(stream, &Launch { name, grid, threads: THREADS }, &args)
    }
}

/// A model's outputs while a plan is made.
struct Outputs<'a> {
    kind: HeadKind,
    outputs: &'a [TensorSpec],
    elements: &'a [Element],
}

impl Outputs<'_> {
    /// The kernel, its tensors in its order, and the boxes of a lane.
    fn sources(&self, head: &Head) -> Result<(&'static str, Vec<Source>, usize), GpuError> {
        let (classes, real) = (head.classes, |output, len| self.source(output, len, false));
        match head.layout {
            Layout::Yolov5(output) | Layout::Yolox(output) => {
                let raw_grid = head.kind() == HeadKind::Yolox;
                let [boxes, columns] = self.lane_shape(output)?;
                if columns != classes.saturating_add(5) || raw_grid && boxes != grid_boxes(head.input) {
                    return Err(self.refuse(output));
                }
                Ok(("head_rows", vec![real(output, boxes.saturating_mul(columns))?], boxes))
            }
            Layout::Yolov8(output) => {
                let [channels, boxes] = self.lane_shape(output)?;
                let source = real(output, channels.saturating_mul(boxes))?;
                if channels != classes.saturating_add(4) {
                    return Err(self.refuse(output));
                }
                let half = source.element == Element::F16;
                Ok((if half { "head_planes_f16" } else { "head_planes_f32" }, vec![source], boxes))
            }
            Layout::EndToEnd(output) => {
                let [boxes, columns] = self.lane_shape(output)?;
                if columns != 6 {
                    return Err(self.refuse(output));
                }
                Ok(("head_end_to_end", vec![real(output, boxes.saturating_mul(6))?], boxes))
            }
            Layout::EfficientNms { count, boxes, scores, classes } => {
                let (mut sources, most) = self.selected(boxes, scores, classes)?;
                sources.push(self.source(count, 1, true)?);
                Ok(("head_selected", sources, most))
            }
            Layout::DetrDeployed { classes, boxes, scores } => {
                let (sources, most) = self.selected(boxes, scores, classes)?;
                Ok(("head_selected", sources, most))
            }
            Layout::DetrRaw { logits, boxes } => {
                let [queries, columns] = self.lane_shape(logits)?;
                if columns != classes {
                    return Err(self.refuse(logits));
                }
                let logits = real(logits, queries.saturating_mul(columns))?;
                Ok(("head_queries", vec![logits, real(boxes, queries.saturating_mul(4))?], queries))
            }
        }
    }

    /// Boxes, scores and classes in tensors of their own, and how many there are a lane.
    fn selected(&self, boxes: usize, scores: usize, classes: usize) -> Result<(Vec<Source>, usize), GpuError> {
        let most = self.lane_len(scores)?;
        let sources = vec![
            self.source(boxes, most.saturating_mul(4), false)?,
            self.source(scores, most, false)?,
            self.source(classes, most, true)?,
        ];
        Ok((sources, most))
    }

    /// Output `output`, which must have `len` elements a lane: floating-point numbers, or where `integers` are taken
    /// too, those.
    fn source(&self, output: usize, len: usize, integers: bool) -> Result<Source, GpuError> {
        if self.lane_len(output)? != len {
            return Err(self.refuse(output));
        }
        let element = self.elements.get(output).copied().unwrap_or(Element::Other);
        match element {
            Element::F32 | Element::F16 => {}
            Element::I32 | Element::I64 if integers => {}
            _ => {
                return Err(GpuError::Config(format!(
                    "output {} is of a type ({element:?}) that the {} head is not read from: export it as float32",
                    self.outputs[output], self.kind
                )));
            }
        }
        Ok(Source { output, len, element })
    }

    fn lanes(&self, output: usize) -> usize {
        self.outputs[output].shape.first().copied().flatten().unwrap_or(0)
    }

    fn lane_len(&self, output: usize) -> Result<usize, GpuError> {
        Ok(self.lane_dimensions(output)?.iter().fold(1, |product: usize, d| product.saturating_mul(*d)))
    }

    fn lane_shape<const N: usize>(&self, output: usize) -> Result<[usize; N], GpuError> {
        self.lane_dimensions(output)?.try_into().map_err(|_| self.refuse(output))
    }

    /// The dimensions after the batch.
    fn lane_dimensions(&self, output: usize) -> Result<Vec<usize>, GpuError> {
        let Some(spec) = self.outputs.get(output) else {
            return Err(GpuError::Config(format!(
                "output {output} is missing, there are {}: build the engine anew",
                self.outputs.len()
            )));
        };
        let inner = spec.shape.get(1..).and_then(|inner| inner.iter().copied().collect::<Option<Vec<usize>>>());
        inner.ok_or_else(|| {
            GpuError::Config(format!("output {spec} has an open dimension: build the engine for a fixed shape"))
        })
    }

    fn refuse(&self, output: usize) -> GpuError {
        GpuError::Config(format!(
            "output {} is not what the {} head was found in: build the engine anew from this model and manifest",
            self.outputs[output], self.kind
        ))
    }
}

/// The kernels' number of a type.
fn number(element: Element) -> u32 {
    match element {
        Element::F16 => 1,
        Element::I32 => 2,
        Element::I64 => 3,
        _ => 0,
    }
}

/// Number `index` of a header, 0 beyond its end.
fn number_at(header: &[u8], index: usize) -> u32 {
    let bytes = header.chunks_exact(size_of::<u32>()).nth(index);
    bytes.map_or(0, |bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// A [`GpuBox`] in bytes.
fn candidate(bytes: &[u8]) -> Candidate {
    let side = |at| f32::from_bits(number_at(bytes, at));
    Candidate { rect: [side(0), side(1), side(2), side(3)], score: side(4), class: number_at(bytes, 5) }
}

#[cfg(test)]
mod tests;
