//! From an ONNX file to a model of one fixed shape whose tensors we can read and write.

use std::path::Path;

use openvino::prepostprocess::Pipeline;
use openvino::{Core, ElementType, Model, Node, PartialShape, Shape, Tensor};

use super::super::BackendError;
use super::{Settings, unavailable, words};
use crate::engine::{manifest, onnx};
use crate::yolo::TensorSpec;
use crate::yolo::head::Head;

/// A model ready to compile.
pub struct Loaded {
    /// The model, reshaped.
    pub model: Model,
    /// How its tensors are read and written.
    pub layout: Layout,
}

/// How a compiled model's tensors are read and written.
pub struct Layout {
    /// Width and height of the input in pixels.
    pub input: (u32, u32),
    /// Name of the picture input.
    pub picture: String,
    /// Name of the input to be fed the input's width and height, where there is one.
    pub size: Option<String>,
    /// The outputs, in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// The head.
    pub head: Head,
    /// First 12 hex digits of the model file's SHA-256.
    pub digest: String,
}

/// Reads the model file, gives it its fixed shape and finds its head.
///
/// # Errors
///
/// [`BackendError::Unavailable`] where the file cannot be read, [`BackendError::Config`] where manifest and model
/// disagree.
pub fn load(core: &mut Core, settings: &Settings) -> Result<Loaded, BackendError> {
    let manifest = &settings.manifest;
    let path = &manifest.model;
    check_file(path)?;
    let digest = manifest::digest(path)
        .map_err(|e| BackendError::Unavailable(format!("model {}: {e}: get the file again", path.display())))?;
    if let Some(expected) = manifest.sha256.as_ref().filter(|expected| **expected != digest) {
        return Err(BackendError::Config(format!(
            "model {}: its SHA-256 is {digest}, the manifest wants {expected}: get the right file, or correct sha256",
            path.display()
        )));
    }
    let mut model = core.read_model_from_file(&path.to_string_lossy(), "").map_err(|e| {
        let reason = words(&e);
        BackendError::Unavailable(format!(
            "model {}: OpenVINO cannot read it ({reason}): export it again with operators that OpenVINO has",
            path.display()
        ))
    })?;
    let inputs = specs(&inputs(&model)?)?;
    let (picture, input) = picture_input(&inputs, settings)?;
    reshape(&mut model, &inputs, picture, input, settings)?;
    let model = widen(model)?;
    let outputs = specs(&outputs(&model)?)?;
    refuse_folded_batch(&outputs, settings)?;
    let labels = manifest.labels.len();
    let head = Head::resolve(manifest.output.head, manifest.output.logits, &inputs, &outputs, input, labels)
        .map_err(|e| BackendError::Config(format!("model {}: {e}", path.display())))?;
    let size = head.size_input().map(|index| inputs[index].name.clone());
    let picture = inputs[picture].name.clone();
    let digest = digest.get(..12).unwrap_or_default().to_owned();
    Ok(Loaded { model, layout: Layout { input, picture, size, outputs, head, digest } })
}

/// There is a whole ONNX file at `path`.
///
/// # Errors
///
/// [`BackendError::Unavailable`] where there is none.
pub fn check_file(path: &Path) -> Result<(), BackendError> {
    onnx::check(path).map_err(|e| BackendError::Unavailable(format!("model {}: {e}", path.display())))
}

fn inputs(model: &Model) -> Result<Vec<Node>, BackendError> {
    let count = model.get_inputs_len().map_err(|e| unavailable("the model's inputs", &e))?;
    (0..count).map(|i| model.get_input_by_index(i).map_err(|e| unavailable("the model's inputs", &e))).collect()
}

fn outputs(model: &Model) -> Result<Vec<Node>, BackendError> {
    let count = model.get_outputs_len().map_err(|e| unavailable("the model's outputs", &e))?;
    (0..count).map(|i| model.get_output_by_index(i).map_err(|e| unavailable("the model's outputs", &e))).collect()
}

fn specs(nodes: &[Node]) -> Result<Vec<TensorSpec>, BackendError> {
    let read = |node: &Node| -> Result<TensorSpec, openvino::InferenceError> {
        let shape = node.get_partial_shape()?;
        let dimension = |d: &openvino::Dimension| {
            let fixed = (!d.is_dynamic()).then(|| d.get_min());
            fixed.and_then(|d| usize::try_from(d).ok())
        };
        Ok(TensorSpec {
            name: node.get_name()?,
            shape: shape.get_dimensions().iter().map(dimension).collect(),
            integer: is_integer(node.get_element_type()?),
        })
    };
    nodes.iter().map(|node| read(node).map_err(|e| unavailable("the model's tensors", &e))).collect()
}

fn is_integer(element: ElementType) -> bool {
    matches!(element, ElementType::I64 | ElementType::I32 | ElementType::I16 | ElementType::I8 | ElementType::U8)
}

/// The picture input's number, and its width and height in pixels.
fn picture_input(inputs: &[TensorSpec], settings: &Settings) -> Result<(usize, (u32, u32)), BackendError> {
    let file = settings.manifest.model.display();
    let list: Vec<String> = inputs.iter().map(ToString::to_string).collect();
    let found = inputs.iter().position(|i| i.shape.len() == 4 && matches!(i.shape[1], Some(3) | None));
    let Some(index) = found else {
        let list = list.join(", ");
        return Err(BackendError::Config(format!(
            "model {file}: no input is a picture (N x 3 x height x width) among {list}: export it with an NCHW input"
        )));
    };
    let side = |d: Option<usize>| d.and_then(|d| u32::try_from(d).ok()).filter(|d| (1..=8192).contains(d));
    match (side(inputs[index].shape[3]), side(inputs[index].shape[2]), settings.manifest.input.size) {
        (Some(width), Some(height), Some(wanted)) if (width, height) != wanted => {
            Err(BackendError::Config(format!(
                "model {file}: its input is {width}x{height}, the manifest says {}x{}: correct input.size",
                wanted.0, wanted.1
            )))
        }
        (Some(width), Some(height), _) => Ok((index, (width, height))),
        (_, _, Some(wanted)) => Ok((index, wanted)),
        _ => Err(BackendError::Config(format!(
            "model {file}: its input size is open: set input.size = [width, height] in the manifest"
        ))),
    }
}

/// Fixes every input's shape: the batch to `lanes`, the picture to `input`.
fn reshape(
    model: &mut Model,
    inputs: &[TensorSpec],
    picture: usize,
    input: (u32, u32),
    settings: &Settings,
) -> Result<(), BackendError> {
    let lanes = settings.lanes;
    let wanted = |(index, spec): (usize, &TensorSpec)| -> Vec<usize> {
        if index == picture {
            return vec![lanes, 3, input.1 as usize, input.0 as usize];
        }
        let rest = spec.shape.iter().skip(1).map(|d| d.unwrap_or(2));
        std::iter::once(lanes).chain(rest).collect()
    };
    let shapes: Vec<Vec<usize>> = inputs.iter().enumerate().map(wanted).collect();
    let fixed =
        inputs.iter().zip(&shapes).all(|(spec, shape)| spec.shape.iter().zip(shape).all(|(a, b)| *a == Some(*b)));
    if fixed {
        return Ok(());
    }
    let refuse = |e: &openvino::InferenceError| {
        BackendError::Config(format!(
            "model {}: it cannot take a batch of {lanes}: set engine.batch = 1, or export it with a dynamic batch ({})",
            settings.manifest.model.display(),
            words(e)
        ))
    };
    let partial = |shape: &Vec<usize>| {
        let dimensions: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
        PartialShape::new_static(dimensions.len() as i64, &dimensions)
    };
    let shapes: Vec<PartialShape> = shapes.iter().map(partial).collect::<Result<_, _>>().map_err(|e| refuse(&e))?;
    let named: Vec<(&str, &PartialShape)> = inputs.iter().map(|i| i.name.as_str()).zip(&shapes).collect();
    model.reshape(&named).map_err(|e| refuse(&e))
}

/// A model exported for one picture may take a batch and fold its lanes into one: its outputs would be misread.
fn refuse_folded_batch(outputs: &[TensorSpec], settings: &Settings) -> Result<(), BackendError> {
    let lanes = settings.lanes;
    let Some(folded) = outputs.iter().find(|o| o.shape.first().is_none_or(|d| d.is_some_and(|d| d != lanes)))
    else {
        return Ok(());
    };
    Err(BackendError::Config(format!(
        "model {}: with a batch of {lanes} its output {folded} is not one of {lanes} lanes: set engine.batch = 1, or \
         export it with a dynamic batch",
        settings.manifest.model.display()
    )))
}

/// Half-precision tensors at the model's edge become float32: OpenVINO converts inside.
fn widen(model: Model) -> Result<Model, BackendError> {
    let fail = |e: openvino::InferenceError| unavailable("the model's tensor types", &e);
    let narrow = |node: &Node| node.get_element_type().map(|t| matches!(t, ElementType::F16 | ElementType::Bf16));
    let (inputs, outputs) = (inputs(&model)?, outputs(&model)?);
    let narrow_inputs: Vec<bool> = inputs.iter().map(narrow).collect::<Result<_, _>>().map_err(fail)?;
    let narrow_outputs: Vec<bool> = outputs.iter().map(narrow).collect::<Result<_, _>>().map_err(fail)?;
    if !narrow_inputs.iter().chain(&narrow_outputs).any(|narrow| *narrow) {
        return Ok(model);
    }
    let pipeline = Pipeline::new(&model).map_err(fail)?;
    for (index, node) in inputs.iter().enumerate().filter(|(i, _)| narrow_inputs[*i]) {
        let shape: Shape = node.get_shape().map_err(fail)?;
        let like = Tensor::new(ElementType::F32, &shape).map_err(fail)?;
        let info = pipeline.get_input_info_by_index(index).map_err(fail)?;
        info.get_tensor_info().and_then(|mut tensor| tensor.set_from(&like)).map_err(fail)?;
    }
    for index in (0..outputs.len()).filter(|i| narrow_outputs[*i]) {
        let info = pipeline.get_output_info_by_index(index).map_err(fail)?;
        info.get_tensor_info().and_then(|mut tensor| tensor.set_element_type(ElementType::F32)).map_err(fail)?;
    }
    pipeline.build_new_model().map_err(fail)
}
