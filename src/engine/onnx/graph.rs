//! What of an ONNX graph must be known before a builder sees it: its inputs, and the precision it is written in.
//!
//! As much protobuf as that takes, by the field numbers of onnx.proto. Any bytes are answered, none panics.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::OnnxFault;
use super::fields::{Broken, Field, Fields};
use crate::engine::stamp::Precision;

/// Protobuf itself has no larger messages.
const MODEL_BYTES_MAX: u64 = 2 << 30;
/// ONNX's numbers of element types.
const FLOAT16: u64 = 10;
const INTEGERS: [u64; 9] = [2, 3, 4, 5, 6, 7, 9, 12, 13];

/// An input of the graph that is not one of its own weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Dimensions, the batch first; `None` where the model leaves one open.
    pub shape: Vec<Option<usize>>,
    /// Elements are integers or booleans, else floating point.
    pub integer: bool,
}

/// What was read of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Its inputs, in the model's order.
    pub inputs: Vec<Input>,
    /// What its weights and operators say: int8 where it quantizes, fp16 where it has a float16 weight, else fp32.
    pub precision: Precision,
}

/// Reads the model at `path`.
///
/// # Errors
///
/// Why it cannot be read as a model.
pub fn read(path: &Path) -> Result<Graph, OnnxFault> {
    super::check(path)?;
    let mut bytes = Vec::new();
    File::open(path)?.take(MODEL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MODEL_BYTES_MAX {
        return Err(OnnxFault::Read(io::Error::new(io::ErrorKind::FileTooLarge, "more than 2 GiB")));
    }
    parse(&bytes).ok_or(OnnxFault::Other)
}

fn parse(model: &[u8]) -> Option<Graph> {
    let graph = Fields(model).filter_map(|field| field.ok()?.bytes(7)).last()?;
    let (mut inputs, mut weights) = (Vec::new(), BTreeSet::new());
    let (mut quantizes, mut half) = (false, false);
    for field in Fields(graph) {
        let field = field.ok()?;
        if let Some(node) = field.bytes(1) {
            let operator = Fields(node).find_map(|field| field.ok()?.bytes(4));
            quantizes |= operator == Some(b"QuantizeLinear");
        } else if let Some(tensor) = field.bytes(5) {
            half |= Fields(tensor).any(|field| field.is_ok_and(|field| field.number(2) == Some(FLOAT16)));
            weights.extend(Fields(tensor).find_map(|field| field.ok()?.text(8)));
        } else if let Some(value) = field.bytes(11) {
            inputs.push(input(value)?);
        }
    }
    // Before IR version 4 a graph's weights were inputs too.
    inputs.retain(|input| !weights.contains(&input.name));
    let precision = match (quantizes, half) {
        (true, _) => Precision::Int8,
        (false, true) => Precision::Fp16,
        (false, false) => Precision::Fp32,
    };
    Some(Graph { inputs, precision })
}

fn input(value: &[u8]) -> Option<Input> {
    let name = Fields(value).find_map(|field| field.ok()?.text(1))?;
    let kind = Fields(value).find_map(|field| field.ok()?.bytes(2));
    let tensor = kind.and_then(|kind| Fields(kind).find_map(|field| field.ok()?.bytes(1))).unwrap_or_default();
    let element = Fields(tensor).find_map(|field| field.ok()?.number(1)).unwrap_or_default();
    let shape = Fields(tensor).find_map(|field| field.ok()?.bytes(2)).unwrap_or_default();
    let dimension = |field: Result<Field<'_>, Broken>| {
        let dimension = field.ok()?.bytes(1)?;
        let size = Fields(dimension).find_map(|field| field.ok()?.number(1));
        // A name in its place, nothing at all, or a number below 1 leaves it open.
        Some(
            size.and_then(|size| i64::try_from(size).ok()).filter(|size| *size > 0).and_then(|s| s.try_into().ok()),
        )
    };
    Some(Input { name, shape: Fields(shape).filter_map(dimension).collect(), integer: INTEGERS.contains(&element) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(field: u8, body: &[u8]) -> Vec<u8> {
        assert!(body.len() < 0x80, "one byte is enough here");
        [&[field << 3 | 2, body.len() as u8], body].concat()
    }

    /// A value of `name` and element type `element`; a dimension of 0 is written as a name.
    fn value(name: &str, element: u8, dimensions: &[u8]) -> Vec<u8> {
        let dimension = |d: &u8| bytes(1, &if *d == 0 { bytes(2, b"batch") } else { vec![1 << 3, *d] });
        let shape: Vec<u8> = dimensions.iter().flat_map(dimension).collect();
        let tensor = [vec![1 << 3, element], bytes(2, &shape)].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    }

    fn model(graph: &[Vec<u8>]) -> Vec<u8> {
        [vec![1 << 3, 8], bytes(7, &graph.concat())].concat()
    }

    fn weight(name: &str, element: u8) -> Vec<u8> {
        bytes(5, &[vec![2 << 3, element], bytes(8, name.as_bytes())].concat())
    }

    #[test]
    fn inputs_are_read_and_weights_are_none() {
        let graph = [
            bytes(11, &value("images", 1, &[0, 3, 32, 64])),
            bytes(11, &value("w", 1, &[2])),
            bytes(11, &value("sizes", 7, &[1, 2])),
            weight("w", 1),
        ];
        let read = parse(&model(&graph)).expect("a graph");
        let input = |name: &str, shape: &[Option<usize>], integer| Input {
            name: name.to_owned(),
            shape: shape.to_vec(),
            integer,
        };
        let picture = input("images", &[None, Some(3), Some(32), Some(64)], false);
        assert_eq!(read.inputs, [picture, input("sizes", &[Some(1), Some(2)], true)]);
        assert_eq!(read.precision, Precision::Fp32);
    }

    #[test]
    fn precision_is_what_weights_and_operators_say() {
        let of = |graph: &[Vec<u8>]| parse(&model(graph)).expect("a graph").precision;
        let node = |operator: &[u8]| bytes(1, &[bytes(1, b"x"), bytes(4, operator)].concat());
        assert_eq!(of(&[node(b"Conv"), weight("w", 1)]), Precision::Fp32);
        assert_eq!(of(&[node(b"Conv"), weight("w", 10)]), Precision::Fp16);
        assert_eq!(of(&[weight("w", 10), node(b"QuantizeLinear")]), Precision::Int8);
    }

    #[test]
    fn any_bytes_are_answered() {
        let whole = model(&[bytes(11, &value("images", 1, &[0, 3, 32, 64])), weight("w", 1)]);
        for end in 0..whole.len() {
            let _ = parse(&whole[..end]);
        }
        let mut random = fastrand::Rng::with_seed(17);
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = parse(&bytes);
        }
        assert!(parse(&[0xff; 30]).is_none() && parse(b"").is_none());
    }
}
