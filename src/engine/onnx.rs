//! Whether a file is a whole ONNX model: the outermost fields of its protobuf are walked, nothing inside them is read.
//!
//! The runtime's own words about a download that broke off, or a page saved under a model's name, help nobody.

pub mod fields;
pub mod graph;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Fields of `ModelProto`, see onnx.proto: version, producer (4), model version, doc, graph, opset, metadata, training
/// info, functions, configuration.
const FIELDS: [u64; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26];
/// The graph: without it there is no model.
const GRAPH: u64 = 7;
/// Longest varint.
const VARINT_BYTES: u32 = 10;

/// Why a file is no ONNX model.
#[derive(Debug, thiserror::Error)]
pub enum OnnxFault {
    /// The system refuses to read it.
    #[error("{0}: put the model there, or give another path")]
    Read(#[from] io::Error),
    /// Nothing in it.
    #[error("it is empty: get the file again")]
    Empty,
    /// It ends too early.
    #[error("it is cut off after {0} bytes: get the file again")]
    Truncated(u64),
    /// Something else.
    #[error("it is not an ONNX model: export the model to ONNX, or give another file")]
    Other,
}

/// Walks the file at `path`.
///
/// # Errors
///
/// Why it cannot be a model. That it can be read does not mean that a runtime takes it.
pub fn check(path: &Path) -> Result<(), OnnxFault> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(OnnxFault::Read(io::ErrorKind::IsADirectory.into()));
    }
    walk(BufReader::new(file), metadata.len(), |reader, bytes| reader.seek_relative(bytes))
}

/// `skip` moves a reader forward. Pure but for the reader.
fn walk<R: Read>(
    mut reader: R,
    length: u64,
    mut skip: impl FnMut(&mut R, i64) -> io::Result<()>,
) -> Result<(), OnnxFault> {
    if length == 0 {
        return Err(OnnxFault::Empty);
    }
    let (mut at, mut graph) = (0, false);
    while at < length {
        let tag = varint(&mut reader, &mut at, length)?;
        let (field, kind) = (tag >> 3, tag & 7);
        if !FIELDS.contains(&field) {
            return Err(OnnxFault::Other);
        }
        match kind {
            0 => drop(varint(&mut reader, &mut at, length)?),
            2 => {
                let bytes = varint(&mut reader, &mut at, length)?;
                if bytes > length - at {
                    return Err(OnnxFault::Truncated(length));
                }
                graph |= field == GRAPH;
                // A file is never longer than that.
                skip(&mut reader, i64::try_from(bytes).map_err(|_| OnnxFault::Other)?)?;
                at += bytes;
            }
            _ => return Err(OnnxFault::Other),
        }
    }
    if graph { Ok(()) } else { Err(OnnxFault::Truncated(length)) }
}

fn varint(reader: &mut impl Read, at: &mut u64, length: u64) -> Result<u64, OnnxFault> {
    let mut value = 0;
    for index in 0..VARINT_BYTES {
        if *at == length {
            return Err(OnnxFault::Truncated(length));
        }
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        *at += 1;
        value |= u64::from(byte[0] & 0x7f).checked_shl(7 * index).unwrap_or(0);
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(OnnxFault::Other)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn of(bytes: &[u8]) -> Result<(), OnnxFault> {
        let length = bytes.len() as u64;
        walk(Cursor::new(bytes), length, |cursor, bytes| {
            cursor.set_position(cursor.position() + bytes as u64);
            Ok(())
        })
    }

    #[test]
    fn every_cut_of_a_model_is_seen_and_nothing_else_is_a_model() {
        // Version 8, producer "me", a graph of 3 bytes, an opset.
        let model = [0x08, 8, 0x12, 2, b'm', b'e', 0x3a, 3, 1, 2, 3, 0x42, 2, 16, 13];
        assert!(of(&model).is_ok());
        let graph_ends = 11;
        for end in 1..graph_ends {
            assert!(matches!(of(&model[..end]), Err(OnnxFault::Truncated(_))), "{end}");
        }
        for end in graph_ends + 1..model.len() {
            assert!(matches!(of(&model[..end]), Err(OnnxFault::Truncated(_))), "{end}");
        }
        assert!(matches!(of(&[]), Err(OnnxFault::Empty)));
        let texts = ["hello", "<html>", "version https://git-lfs", "{}", "PK\u{3}\u{4}", "\0\0\0\0"];
        for text in texts {
            assert!(matches!(of(text.as_bytes()), Err(OnnxFault::Other)), "{text}");
        }
        let endless = [0xff; 30];
        assert!(matches!(of(&endless), Err(OnnxFault::Other)));
        let huge = [0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert!(matches!(of(&huge), Err(OnnxFault::Truncated(11))));
    }
}
