//! `schema`: the messages' JSON Schemas, generated from their types.

use std::io::{self, Write};
use std::path::Path;

use schemars::{Schema, schema_for};

use crate::cli::{Code, Failure};
use crate::event::{CameraState, Detections, Health, Info, Notice};

/// Every message's schema, by name.
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("detections", schema_for!(Detections)),
        ("notice", schema_for!(Notice)),
        ("info", schema_for!(Info)),
        ("health", schema_for!(Health)),
        ("state", schema_for!(CameraState)),
    ]
}

/// Prints them, or writes one file a message into `out`.
pub fn run(out: Option<&Path>) -> Result<(), Failure> {
    let fail = |path: &Path, e: io::Error| {
        Failure::new(Code::Config, format!("--out {}: {e}: give a folder", path.display()))
    };
    if let Some(folder) = out {
        std::fs::create_dir_all(folder).map_err(|e| fail(folder, e))?;
    }
    for (name, schema) in schemas() {
        let text = serde_json::to_string_pretty(&schema).map_err(|e| Failure::new(Code::Internal, e))?;
        match out {
            None => match writeln!(io::stdout(), "{text}") {
                // `| head` has seen enough.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(|e| Failure::new(Code::Internal, format!("standard output: {e}")))?,
            },
            Some(folder) => {
                let path = folder.join(format!("{name}.schema.json"));
                std::fs::write(&path, text + "\n").map_err(|e| fail(&path, e))?;
            }
        }
    }
    Ok(())
}
