//! `engine inspect`: the stamp, the tensors, and the layers that are left after fusion, each with its precision and time.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{Configured, Host};
use crate::cli::engine::EngineFileArgs;
use crate::cli::{Code, Failure};
use crate::engine::built;
use crate::engine::stamp::{Stamp, short};
use crate::gpu::alone::Running;
use crate::gpu::trt::{Engine, Layout};

/// Prints it. What needs no GPU is printed first.
pub fn run(args: &EngineFileArgs) -> Result<(), Failure> {
    let path = &args.engine;
    let stamp = built::stamp(path)?;
    let bytes = built::load(path, &stamp)?;
    if !args.json {
        print_stamp(path, bytes.len(), &stamp);
    }
    let host = Host::open(&args.machine, &Configured::default())?;
    host.check(path, &stamp, None)?;
    let device = host.device()?;
    let engine = host.load(path, &bytes, &stamp, &args.plugins)?;
    let json = engine.layers()?;
    if args.json {
        println!("{json}");
        return Ok(());
    }
    print_tensors(&engine);
    let mut running = Running::new(&engine, stamp.options.batch, device)?;
    let times: BTreeMap<String, f32> = running.layer_times()?.into_iter().collect();
    print_layers(&layers(&json)?, &times);
    Ok(())
}

fn print_stamp(path: &Path, bytes: usize, stamp: &Stamp) {
    let options = &stamp.options;
    let [least, best, most] = options.batches;
    println!("{}: {:.1} MiB", path.display(), bytes as f64 / f64::from(1 << 20));
    let model = &stamp.model;
    println!("  model      {} (SHA-256 {}…), written in {}", model.name, short(&model.sha256), model.precision);
    println!(
        "  built      {} in {} s by {}, watchpost {}",
        stamp.built, stamp.seconds, stamp.tensorrt, stamp.watchpost
    );
    match &stamp.gpu {
        Some(gpu) => println!("  for        {} (SM {}), driver of CUDA {}", gpu.name, gpu.sm, gpu.cuda),
        None => println!("  for        any GPU that {} takes", stamp.tensorrt),
    }
    let (width, height) = options.input;
    let batches = if least == most { format!("{best}") } else { format!("{least} to {most}, best {best}") };
    println!("  asked for  {}, input {width}x{height}, batch {batches}", options.precision);
}

fn print_tensors(engine: &Engine) {
    println!("tensors, {} MiB of GPU memory a context", engine.device_memory() >> 20);
    for tensor in engine.tensors() {
        let side = if tensor.input { "input" } else { "output" };
        let dimension = |d: &Option<usize>| d.map_or_else(|| "?".to_owned(), |d| d.to_string());
        let shape: Vec<String> = tensor.shape.iter().map(dimension).collect();
        let layout = match tensor.layout {
            Layout::Linear => "",
            Layout::Packed => ", packed in fours",
            Layout::Other => ", in an order that cannot be run here",
        };
        println!("  {side:<7} {:<24} {:?} {}{layout}", tensor.name, tensor.element, shape.join("x"));
    }
}

/// A layer as the inspector tells it.
#[derive(Debug, Default, PartialEq)]
struct Layer {
    name: String,
    kind: String,
    /// Type of its weights, else type and format of its first input: what it computes in.
    computes: String,
    /// Type and format of its first output.
    format: String,
    shape: String,
}

/// The layers in the inspector's JSON. Engines built without detail hold only names.
fn layers(json: &str) -> Result<Vec<Layer>, Failure> {
    let broken =
        || Failure::new(Code::Unavailable, "the engine's inspector does not say its layers in JSON: use --json");
    let whole: Value = serde_json::from_str(json).map_err(|_| broken())?;
    let list = whole.get("Layers").and_then(Value::as_array).ok_or_else(broken)?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let layer = |value: &Value| {
        if let Some(name) = value.as_str() {
            return Layer { name: name.to_owned(), ..Layer::default() };
        }
        let output = value.get("Outputs").and_then(|outputs| outputs.get(0));
        let weights = value.get("Weights").and_then(|weights| weights.get("Type"));
        let input = value.get("Inputs").and_then(|inputs| inputs.get(0)?.get("Format/Datatype"));
        let of_output = |key: &str| output.and_then(|output| output.get(key));
        let numbers = of_output("Dimensions").and_then(Value::as_array).cloned().unwrap_or_default();
        let numbers: Vec<String> = numbers.iter().map(Value::to_string).collect();
        let kind = text(value.get("LayerType"));
        Layer {
            name: text(value.get("Name")),
            // What a kernel is for says more than that it is one.
            kind: text(value.get("ParameterType").filter(|_| kind.is_empty())) + &kind,
            computes: text(weights.or(input)),
            format: text(of_output("Format/Datatype")),
            shape: numbers.join("x"),
        }
    };
    Ok(list.iter().map(layer).collect())
}

fn print_layers(layers: &[Layer], times: &BTreeMap<String, f32>) {
    let whole: f32 = times.values().sum();
    println!("{} layers after fusion, {whole:.3} ms a batch one after the other", layers.len());
    println!("{:>9}  {:<20} {:<9} {:<9} {:<18} layer", "ms", "kind", "computes", "output", "shape");
    for layer in layers {
        let time = times.get(&layer.name).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.4}"));
        let (computes, format) = (precision(&layer.computes), precision(&layer.format));
        println!("{time:>9}  {:<20} {computes:<9} {format:<9} {:<18} {}", layer.kind, layer.shape, layer.name);
    }
    println!("computes: {}", counted(layers.iter().map(|layer| precision(&layer.computes))));
    println!("outputs: {}", counted(layers.iter().map(|layer| precision(&layer.format))));
}

/// How many there are of each.
fn counted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let list: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    list.join(", ")
}

/// The precision in a format's name, or in that of a weight's type.
fn precision(format: &str) -> &str {
    let known = [
        ("FP32", "FP32"),
        ("Float", "FP32"),
        ("FP16", "FP16"),
        ("Half", "FP16"),
        ("BF16", "BF16"),
        ("BFloat16", "BF16"),
        ("Int8", "INT8"),
        ("INT8", "INT8"),
        ("FP8", "FP8"),
        ("Int32", "Int32"),
        ("Int64", "Int64"),
        ("Bool", "Bool"),
    ];
    let of = known.into_iter().filter(|(word, _)| format.contains(word)).max_by_key(|(word, _)| word.len());
    of.map_or(if format.is_empty() { "?" } else { format }, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_with_and_without_detail() {
        let json = r#"{"Layers": [
            {"Name": "conv1 + relu", "LayerType": "CaskConvolution",
             "Inputs": [{"Name": "x", "Dimensions": [1, 3, 4, 4], "Format/Datatype": "Row major linear FP32"}],
             "Weights": {"Type": "Int8", "Count": 216},
             "Outputs": [{"Name": "y", "Dimensions": [1, 8, 4, 4],
                          "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]},
            {"Name": "cast", "LayerType": "Reformat",
             "Inputs": [{"Name": "y", "Dimensions": [1, 8, 4, 4], "Format/Datatype": "Row major linear FP32"}],
             "Outputs": [{"Name": "z", "Dimensions": [1, 8, 4, 4], "Format/Datatype": "Row major Int8 format"}]},
            {"Name": "odd"}, "plain"], "Bindings": ["x", "y"]}"#;
        let read = layers(json).expect("layers");
        let conv = &read[0];
        assert_eq!((conv.name.as_str(), conv.kind.as_str()), ("conv1 + relu", "CaskConvolution"));
        assert_eq!((precision(&conv.format), conv.shape.as_str()), ("FP16", "1x8x4x4"));
        assert_eq!((read[2].name.as_str(), precision(&read[2].format)), ("odd", "?"));
        assert_eq!((read[3].name.as_str(), read.len()), ("plain", 4));
        // What a layer gives need not be what it computes in.
        let computed: Vec<&str> = read.iter().map(|layer| precision(&layer.computes)).collect();
        assert_eq!(computed, ["INT8", "FP32", "?", "?"]);
        assert_eq!(counted(computed.into_iter()), "2 ?, 1 FP32, 1 INT8");
        for (word, name) in [("Float", "FP32"), ("Half", "FP16"), ("BFloat16", "BF16"), ("E4M3", "E4M3")] {
            assert_eq!(precision(word), name);
        }
        for broken in ["", "{}", "[]", "{\"Layers\": 3}"] {
            assert!(layers(broken).is_err(), "{broken}");
        }
    }
}
