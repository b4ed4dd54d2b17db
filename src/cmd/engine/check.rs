//! `engine check`: what of a model TensorRT will not take, and whether an engine fits manifest and machine.

use super::{Configured, Host, Subject};
use crate::cli::engine::EngineCheckArgs;
use crate::cli::{Code, Failure};
use crate::engine::built;
use crate::engine::order;
use crate::gpu::trt::{self, Refused};

/// What often stands in the way, and what to do about it.
const SUGGESTIONS: [(&[&str], &str); 9] = [
    (&["NonMaxSuppression"], "export the model without NMS (Ultralytics: nms=False), as watchpost does it itself"),
    (&["If", "Loop", "Scan"], "export it with fixed shapes and simplify it (onnxsim): the branch then goes away"),
    (
        &["NonZero", "Unique", "Compress"],
        "export it without the post-processing that picks a varying number of boxes: watchpost reads the raw head",
    ),
    (
        &["QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"],
        "quantize it in the QDQ form (scripts/quantize-onnx, watchpost-quantize-onnx)",
    ),
    (
        &["DeformConv", "GridSample", "RoiAlign", "MaxRoiPool"],
        "use a newer TensorRT, or give a plug-in library that has it as tensorrt.plugins",
    ),
    (&["EfficientNMS_TRT", "BatchedNMS_TRT"], "give libnvinfer_plugin as tensorrt.plugins"),
    (
        &["FusedConv", "FusedMatMul", "BiasGelu", "SkipLayerNormalization", "QuickGelu"],
        "it was rewritten for ONNX Runtime: export it again without that optimisation",
    ),
    (
        &["LayerNormalization", "GroupNormalization", "Mish", "HardSwish"],
        "export it with an older opset, such as 13",
    ),
    (&["TopK"], "export it with a constant k of at most 3840, or without the post-processing"),
];
/// For anything else.
const OTHERWISE: &str = "simplify the model (onnxsim), export it with another opset, use a newer TensorRT, or give a plug-in \
                         library that has it as tensorrt.plugins";

/// Prints what is good; the rest is the failure.
pub fn run(args: &EngineCheckArgs) -> Result<(), Failure> {
    let Subject { manifest, .. } = Subject::of_manifest(&args.manifest)?;
    // Needs neither library nor GPU, so it is first.
    let stamp = args.engine.as_deref().map(|engine| {
        let stamp = built::stamp(engine)?;
        built::load(engine, &stamp).map(|_| (engine, stamp))
    });
    let stamp = stamp.transpose()?;
    let batch = args.batch.map(usize::from).or(stamp.as_ref().map(|(_, stamp)| stamp.options.batch));
    let order = order::of(&manifest, batch)?;
    let host = Host::open(&args.machine, &Configured::default())?;
    let mut lines = Vec::new();
    if let Some((engine, stamp)) = &stamp {
        match host.check(engine, stamp, Some(&order.wanted)) {
            Ok(()) => println!("{}: good for this machine and manifest", engine.display()),
            Err(failure) => lines.push(failure.text),
        }
    }
    for plugins in &manifest.tensorrt.plugins {
        host.library.load_plugins(plugins)?;
    }
    let refused = trt::unsupported(&host.library, &manifest.model)?;
    let model = manifest.model.display();
    if refused.is_empty() {
        println!("{model}: {} takes every operator", host.library.name());
    }
    lines.extend(refused.iter().map(|refused| format!("model {model}: {}", sentence(refused))));
    if lines.is_empty() { Ok(()) } else { Err(Failure::new(Code::Unavailable, lines.join("\n"))) }
}

fn sentence(refused: &Refused) -> String {
    // TensorRT's words may have several lines, and end in a full stop.
    let text = refused.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{}: {}", text.trim_end_matches('.'), suggestion(&refused.op))
}

fn suggestion(operator: &str) -> &'static str {
    let known = SUGGESTIONS.iter().find(|(operators, _)| operators.contains(&operator));
    known.map_or(OTHERWISE, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refused_node_is_one_sentence_with_a_suggestion() {
        let refused = |op: &str| Refused {
            node: "/model.22/x".to_owned(),
            op: op.to_owned(),
            reason: "Assertion failed:\n  no importer.".to_owned(),
        };
        assert_eq!(
            sentence(&refused("NonMaxSuppression")),
            "node \"/model.22/x\" (NonMaxSuppression): Assertion failed: no importer: export the model without NMS \
             (Ultralytics: nms=False), as watchpost does it itself"
        );
        assert!(sentence(&refused("MyOperator")).ends_with("tensorrt.plugins"));
        let mut all: Vec<&str> = SUGGESTIONS.iter().flat_map(|(operators, _)| operators.iter().copied()).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count, "each operator once");
    }
}
