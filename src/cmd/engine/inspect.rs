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
        let of_output = |key: &str| output.and_then(|output| output.get(key));
        let numbers = of_output("Dimensions").and_then(Value::as_array).cloned().unwrap_or_default();
        let numbers: Vec<String> = numbers.iter().map(Value::to_string).collect();
        let kind = text(value.get("LayerType"));
        Layer {
            name: text(value.get("Name")),
            // What a kernel is for says more than that it is one.
            kind: text(value.get("ParameterType").filter(|_| kind.is_empty())) + &kind,
            format: text(of_output("Format/Datatype")),
            shape: numbers.join("x"),
        }
    };
    Ok(list.iter().map(layer).collect())
}

fn print_layers(layers: &[Layer], times: &BTreeMap<String, f32>) {
    let whole: f32 = times.values().sum();
    println!("{} layers after fusion, {whole:.3} ms a batch one after the other", layers.len());
    println!("{:>9}  {:<20} {:<28} {:<18} layer", "ms", "kind", "output", "shape");
    for layer in layers {
        let time = times.get(&layer.name).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.4}"));
        let format = precision(&layer.format);
        println!("{time:>9}  {:<20} {format:<28} {:<18} {}", layer.kind, layer.shape, layer.name);
    }
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in layers {
        *formats.entry(precision(&layer.format)).or_default() += 1;
    }
    let list: Vec<String> = formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
    println!("outputs: {}", list.join(", "));
}

/// The part of a format's name that tells the precision.
fn precision(format: &str) -> &str {
    let known = ["FP32", "FP16", "BF16", "Int8", "INT8", "FP8", "Int32", "Int64", "Bool"];
    known.into_iter().find(|known| format.contains(known)).unwrap_or(if format.is_empty() { "?" } else { format })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_with_and_without_detail() {
        let json = r#"{"Layers": [
            {"Name": "conv1 + relu", "LayerType": "CaskConvolution",
             "Inputs": [{"Name": "x", "Dimensions": [1, 3, 4, 4], "Format/Datatype": "Row major linear FP32"}],
             "Outputs": [{"Name": "y", "Dimensions": [1, 8, 4, 4],
                          "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]},
            {"Name": "odd"}, "plain"], "Bindings": ["x", "y"]}"#;
        let read = layers(json).expect("layers");
        let conv = &read[0];
        assert_eq!((conv.name.as_str(), conv.kind.as_str()), ("conv1 + relu", "CaskConvolution"));
        assert_eq!((precision(&conv.format), conv.shape.as_str()), ("FP16", "1x8x4x4"));
        assert_eq!((read[1].name.as_str(), precision(&read[1].format)), ("odd", "?"));
        assert_eq!((read[2].name.as_str(), read.len()), ("plain", 3));
        for broken in ["", "{}", "[]", "{\"Layers\": 3}"] {
            assert!(layers(broken).is_err(), "{broken}");
        }
    }
}
