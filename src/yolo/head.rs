//! Heads: which layout a model's output tensors have. Recognised once from names and shapes, then
//! [`Head::decode`] reads every batch.

use std::fmt;

use super::tensor::TensorSpec;
use crate::engine::HeadChoice;

/// A family of output layouts. `B` is the batch, scores are 0..1 unless the manifest says `logits = true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// `B x boxes x (5 + classes)`: centre, size in input pixels, objectness, class scores (YOLOv5, YOLOv7, and
    /// YOLOX exported with its decoding inside).
    Yolov5,
    /// `B x (4 + classes) x boxes`: centre, size in input pixels, class scores (YOLOv8/9/11/12).
    Yolov8,
    /// `B x cells x (5 + classes)` on a raw grid of strides 8, 16, 32 (YOLOX).
    Yolox,
    /// `B x boxes x 6`: x1, y1, x2, y2 in input pixels, score, class; NMS inside (YOLOv10, YOLO26).
    EndToEnd,
    /// `num_dets` B x 1, `det_boxes` B x boxes x 4 (x1, y1, x2, y2 in input pixels), `det_scores` and
    /// `det_classes` B x boxes of TensorRT's EfficientNMS.
    EfficientNms,
    /// `labels` and `scores` B x boxes, `boxes` B x boxes x 4 with an `orig_target_sizes` input (RT-DETR, D-FINE
    /// deployed; that input is fed the *model's* width and height, so that boxes come in input pixels), or
    /// `logits` B x boxes x classes (always read as logits) and `pred_boxes` B x boxes x 4 (0..1 centre and size).
    Detr,
}

impl HeadKind {
    /// Every head.
    pub const ALL: [Self; 6] =
        [Self::Yolov5, Self::Yolov8, Self::Yolox, Self::EndToEnd, Self::EfficientNms, Self::Detr];

    /// Its name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yolov5 => "yolov5",
            Self::Yolov8 => "yolov8",
            Self::Yolox => "yolox",
            Self::EndToEnd => "end-to-end",
            Self::EfficientNms => "efficient-nms",
            Self::Detr => "detr",
        }
    }

    /// The head of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for HeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a model's outputs cannot be read, by what the caller may do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The manifest and the model contradict each other: no batch will work until one is changed.
    #[error("{0}")]
    Manifest(String),
    /// A tensor is not what the model promised: this batch is lost.
    #[error("{0}")]
    Tensor(String),
}

/// Strides of the grid of an anchor-free head, in input pixels.
pub(crate) const STRIDES: [u32; 3] = [8, 16, 32];
/// Stride that the "P6" models add.
const STRIDE_P6: u32 = 64;
/// Boxes a cell of an anchor-based head (YOLOv5, YOLOv7).
const ANCHORS: usize = 3;
/// Input of a deployed DETR that scales its boxes.
const SIZE_INPUT: &str = "orig_target_sizes";

/// How a model's outputs are read: resolved once, then the same for every batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub(crate) layout: Layout,
    /// Class scores (and objectness) are logits, as the manifest says; see [`Head::reads_logits`].
    pub(super) logits: bool,
    /// Classes, as many as labels.
    pub(crate) classes: usize,
    /// Width and height of the input in pixels.
    pub(crate) input: (u32, u32),
    size_input: Option<usize>,
}

/// The layout and the outputs (by their number) that carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One tensor: [`HeadKind::Yolov5`], [`HeadKind::Yolov8`], [`HeadKind::Yolox`] or [`HeadKind::EndToEnd`].
    Yolov5(usize),
    Yolov8(usize),
    Yolox(usize),
    EndToEnd(usize),
    /// [`HeadKind::EfficientNms`].
    EfficientNms {
        count: usize,
        boxes: usize,
        scores: usize,
        classes: usize,
    },
    /// [`HeadKind::Detr`] with its own selection inside.
    DetrDeployed {
        classes: usize,
        boxes: usize,
        scores: usize,
    },
    /// [`HeadKind::Detr`] as trained.
    DetrRaw {
        logits: usize,
        boxes: usize,
    },
}

impl Layout {
    fn kind(self) -> HeadKind {
        match self {
            Self::Yolov5(_) => HeadKind::Yolov5,
            Self::Yolov8(_) => HeadKind::Yolov8,
            Self::Yolox(_) => HeadKind::Yolox,
            Self::EndToEnd(_) => HeadKind::EndToEnd,
            Self::EfficientNms { .. } => HeadKind::EfficientNms,
            Self::DetrDeployed { .. } | Self::DetrRaw { .. } => HeadKind::Detr,
        }
    }
}

impl Head {
    /// Finds the head from the model's inputs and outputs, in the order in which [`Head::decode`] will get the
    /// outputs. `logits` is the manifest's, `input_size` the width and height in pixels the model runs at,
    /// `labels` the number of the manifest's labels.
    ///
    /// A `B x cells x (5 + classes)` tensor with one box a grid cell may be a raw YOLOX grid or a decoded export
    /// of it; `Auto` takes it for the raw grid, the other is named `yolov5` in the manifest.
    ///
    /// # Errors
    ///
    /// [`HeadError::Manifest`]: what the outputs are, what was tried and what to put in the manifest.
    pub fn resolve(
        choice: HeadChoice,
        logits: bool,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        input_size: (u32, u32),
        labels: usize,
    ) -> Result<Self, HeadError> {
        let size_input = size_input(inputs)?;
        let model = Model { outputs, size_input, labels, input: input_size };
        let layout = match choice {
            HeadChoice::Auto => model.recognise()?,
            HeadChoice::Named(kind) => model.layout(kind, false).ok_or_else(|| model.refuse_named(kind))?,
        };
        Ok(Self { layout, logits, classes: labels, input: input_size, size_input })
    }

    /// The family.
    pub fn kind(&self) -> HeadKind {
        self.layout.kind()
    }

    /// Number of the input (among those given to [`Head::resolve`]) that must be fed the model's input width and
    /// height in pixels, an integer pair a lane; `None` where the picture is the only input.
    pub fn size_input(&self) -> Option<usize> {
        self.size_input
    }

    /// Whether raw scores are logits: a DETR as trained has nothing else.
    pub(crate) fn reads_logits(&self) -> bool {
        self.logits || matches!(self.layout, Layout::DetrRaw { .. })
    }

    /// Whether the model has suppressed duplicates itself.
    pub(crate) fn final_boxes(&self) -> bool {
        !matches!(self.layout, Layout::Yolov5(_) | Layout::Yolov8(_) | Layout::Yolox(_))
    }

    /// The grid cell (x, y) and stride of box `index` of a raw grid; `None` beyond the last.
    pub(super) fn cell(&self, index: usize) -> Option<(f32, f32, f32)> {
        let mut index = index;
        for stride in STRIDES {
            let (width, cells) = (self.input.0.div_ceil(stride) as usize, cells(self.input, stride));
            if index < cells {
                return Some(((index % width) as f32, (index / width) as f32, stride as f32));
            }
            index -= cells;
        }
        None
    }
}

/// Cells of a grid of one stride over the input.
fn cells(input: (u32, u32), stride: u32) -> usize {
    (input.0.div_ceil(stride) as usize).saturating_mul(input.1.div_ceil(stride) as usize)
}

/// Boxes of an anchor-free head: one a cell.
pub(crate) fn grid_boxes(input: (u32, u32)) -> usize {
    STRIDES.iter().fold(0, |sum: usize, stride| sum.saturating_add(cells(input, *stride)))
}

/// The input to be fed with the size, if there is one.
fn size_input(inputs: &[TensorSpec]) -> Result<Option<usize>, HeadError> {
    let odd = inputs.iter().find(|spec| spec.shape.len() != 4 && spec.name != SIZE_INPUT);
    match odd {
        Some(spec) => Err(HeadError::Manifest(format!(
            "input {spec} is not one that can be fed: export the model with a picture (B x 3 x height x width) \
             and at most `{SIZE_INPUT}`"
        ))),
        None => Ok(inputs.iter().position(|spec| spec.name == SIZE_INPUT)),
    }
}

/// What is known of a model while its head is looked for.
struct Model<'a> {
    outputs: &'a [TensorSpec],
    size_input: Option<usize>,
    labels: usize,
    input: (u32, u32),
}

impl Model<'_> {
    /// The one layout that fits. Names decide before shapes: they are never a coincidence.
    fn recognise(&self) -> Result<Layout, HeadError> {
        let named = [HeadKind::EfficientNms, HeadKind::Detr];
        if let Some(layout) = named.into_iter().find_map(|kind| self.layout(kind, true)) {
            return Ok(layout);
        }
        let mut fitting = Vec::new();
        for kind in [HeadKind::Yolov8, HeadKind::Yolox, HeadKind::Yolov5, HeadKind::EndToEnd] {
            fitting.extend(self.layout(kind, true));
        }
        match fitting[..] {
            [layout] => Ok(layout),
            [] => Err(self.refuse_all()),
            _ => Err(self.refuse_ambiguous(&fitting)),
        }
    }

    /// The layout of `kind`, if the outputs have it. `strict`: unknown dimensions and shapes that another head
    /// has too do not count.
    fn layout(&self, kind: HeadKind, strict: bool) -> Option<Layout> {
        if self.labels == 0 {
            return None;
        }
        let tensor = || self.outputs.iter().position(|spec| self.fits(kind, spec, strict));
        match kind {
            HeadKind::Yolov5 => tensor().map(Layout::Yolov5),
            HeadKind::Yolov8 => tensor().map(Layout::Yolov8),
            HeadKind::Yolox => tensor().map(Layout::Yolox),
            HeadKind::EndToEnd => tensor().map(Layout::EndToEnd),
            HeadKind::EfficientNms => Some(Layout::EfficientNms {
                count: self.find("num_dets", &[])?,
                boxes: self.find("det_boxes", &[None, Some(4)])?,
                scores: self.find("det_scores", &[None])?,
                classes: self.find("det_classes", &[None])?,
            }),
            HeadKind::Detr => self.detr_deployed().or_else(|| self.detr_raw()),
        }
    }

    fn detr_deployed(&self) -> Option<Layout> {
        self.size_input?;
        Some(Layout::DetrDeployed {
            classes: self.find("labels", &[None])?,
            boxes: self.find("boxes", &[None, Some(4)])?,
            scores: self.find("scores", &[None])?,
        })
    }

    fn detr_raw(&self) -> Option<Layout> {
        Some(Layout::DetrRaw {
            logits: self.find("logits", &[None, Some(self.labels)])?,
            boxes: self.find("pred_boxes", &[None, Some(4)])?,
        })
    }

    /// The output of that name, if its dimensions after the batch are `lane` (`None` = any). Trailing dimensions
    /// of 1 are let pass: `num_dets` is B or B x 1.
    fn find(&self, name: &str, lane: &[Option<usize>]) -> Option<usize> {
        let index = self.outputs.iter().position(|spec| spec.name == name)?;
        let inner = self.outputs[index].shape.get(1..)?;
        let (known, rest) = inner.split_at_checked(lane.len())?;
        let agrees = known.iter().zip(lane).all(|(is, want)| is.is_none() || want.is_none() || is == want);
        (agrees && rest.iter().all(|d| *d == Some(1))).then_some(index)
    }

    /// Whether one `B x rows x columns` tensor has the layout of `kind`.
    fn fits(&self, kind: HeadKind, spec: &TensorSpec, strict: bool) -> bool {
        let [_, rows, columns] = spec.shape[..] else { return false };
        if spec.integer {
            return false;
        }
        let is = |dimension: Option<usize>, want| dimension.map_or(!strict, |d| d == want);
        let grid = grid_boxes(self.input);
        let anchored = grid.saturating_mul(ANCHORS);
        let anchored_p6 = grid.saturating_add(cells(self.input, STRIDE_P6)).saturating_mul(ANCHORS);
        // With one class, 5 + classes = 6 is as wide as an end-to-end row: there the number of boxes decides.
        let one_class = self.labels == 1;
        let on_a_grid = rows.is_none_or(|n| [grid, anchored, anchored_p6].contains(&n));
        match kind {
            HeadKind::Yolov8 => is(rows, self.labels.saturating_add(4)),
            HeadKind::Yolox => is(columns, self.labels.saturating_add(5)) && is(rows, grid),
            HeadKind::Yolov5 => {
                let other = rows.is_none_or(|n| n == grid) || one_class && !on_a_grid;
                is(columns, self.labels.saturating_add(5)) && !(strict && other)
            }
            HeadKind::EndToEnd => is(columns, 6) && !(strict && one_class && on_a_grid),
            HeadKind::EfficientNms | HeadKind::Detr => false,
        }
    }

    fn refuse_named(&self, kind: HeadKind) -> HeadError {
        let found = self.recognise().map(|layout| format!("; `head = \"auto\"` finds {}", layout.kind()));
        HeadError::Manifest(format!(
            "`head = \"{kind}\"` with {} labels reads {}, but the model has {}: {}{}",
            self.labels,
            self.wants(kind),
            self.described(),
            self.advice(),
            found.unwrap_or_default()
        ))
    }

    fn refuse_all(&self) -> HeadError {
        let tried: Vec<String> =
            HeadKind::ALL.iter().map(|kind| format!("{kind} ({})", self.wants(*kind))).collect();
        HeadError::Manifest(format!(
            "no head fits the model's {} with {} labels; tried {}: {}",
            self.described(),
            self.labels,
            tried.join(", "),
            self.advice()
        ))
    }

    fn refuse_ambiguous(&self, fitting: &[Layout]) -> HeadError {
        let names: Vec<&str> = fitting.iter().map(|layout| layout.kind().name()).collect();
        HeadError::Manifest(format!(
            "the model's {} may be read by the heads {}: name one with `head = \"{}\"` under `[output]` of the manifest",
            self.described(),
            names.join(" and "),
            names[0]
        ))
    }

    fn described(&self) -> String {
        let outputs: Vec<String> = self.outputs.iter().map(TensorSpec::to_string).collect();
        if outputs.is_empty() { "no outputs".to_owned() } else { format!("outputs {}", outputs.join(", ")) }
    }

    /// The tensors of `kind` for this many labels.
    fn wants(&self, kind: HeadKind) -> String {
        let labels = self.labels;
        match kind {
            HeadKind::Yolov5 => format!("B x boxes x {}", labels.saturating_add(5)),
            HeadKind::Yolov8 => format!("B x {} x boxes", labels.saturating_add(4)),
            HeadKind::Yolox => format!("B x {} x {}", grid_boxes(self.input), labels.saturating_add(5)),
            HeadKind::EndToEnd => "B x boxes x 6".to_owned(),
            HeadKind::EfficientNms => "`num_dets`, `det_boxes`, `det_scores`, `det_classes`".to_owned(),
            HeadKind::Detr => format!(
                "`labels`, `boxes`, `scores` with an input `{SIZE_INPUT}`, or `logits` B x boxes x {labels} and \
                 `pred_boxes`"
            ),
        }
    }

    /// What to put in the manifest: as far as a shape tells, the number of labels is what is wrong.
    fn advice(&self) -> String {
        for spec in self.outputs {
            match spec.shape[..] {
                [_, Some(rows), Some(columns)] if rows > 4 && rows < columns && rows - 4 != self.labels => {
                    let (name, classes) = (&spec.name, rows - 4);
                    return format!("as a yolov8 head `{name}` has {classes} classes, give that many labels");
                }
                [_, Some(rows), Some(columns)] if columns > 6 && columns < rows && columns - 5 != self.labels => {
                    let (name, classes) = (&spec.name, columns - 5);
                    return format!(
                        "as a yolov5 or yolox head `{name}` has {classes} classes, give that many labels"
                    );
                }
                _ => {}
            }
        }
        "give one label a class, and name the head with `head` under `[output]` of the manifest".to_owned()
    }
}

#[cfg(test)]
mod tests;
