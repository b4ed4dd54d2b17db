//! `schema`: the messages' JSON Schemas and the AsyncAPI document, generated from their types.
//!
//! JSON Schema is of draft 7, the one that the tools of AsyncAPI read. The files in `schemas/` are what this prints.

mod asyncapi;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::Path;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::cli::{Code, Failure};
use crate::event::{CameraState, Detections, Event, Health, Info, Notice};
use crate::formats::{cloudevents, deepstream, frigate, homeassistant, onvif};

/// Every file, by name: a schema a message, and the document of all topics.
pub fn files() -> Vec<(String, Value)> {
    let schema = |(name, schema): (&str, Value)| (format!("{name}.schema.json"), schema);
    schemas().into_iter().map(schema).chain([("asyncapi.json".to_owned(), asyncapi::document())]).collect()
}

/// Every message's schema, by name.
fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("detections", of::<Detections>()),
        ("events", of::<Event>()),
        ("notice", of::<Notice>()),
        ("info", of::<Info>()),
        ("health", of::<Health>()),
        ("state", of::<CameraState>()),
        ("frigate-events", of::<frigate::Change>()),
        ("deepstream-minimal", of::<deepstream::Minimal>()),
        ("deepstream-full", of::<deepstream::Full>()),
        ("onvif-metadata", of::<onvif::Metadata>()),
        ("onvif-event", of::<onvif::RuleEvent>()),
        ("cloudevents", of::<cloudevents::Structured>()),
        ("homeassistant-device", of::<homeassistant::Discovery>()),
    ]
}

/// As a message is written, not as it is read: what is never left out is required.
fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().for_serialize();
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Prints them, or writes them into `out`.
pub fn run(out: Option<&Path>) -> Result<(), Failure> {
    let fail = |path: &Path, e: io::Error| {
        Failure::new(Code::Config, format!("--out {}: {e}: give a folder", path.display()))
    };
    if let Some(folder) = out {
        std::fs::create_dir_all(folder).map_err(|e| fail(folder, e))?;
    }
    for (name, value) in files() {
        let text = text(&value)?;
        match out {
            None => match io::stdout().write_all(text.as_bytes()) {
                // `| head` has seen enough.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(|e| Failure::new(Code::Internal, format!("standard output: {e}")))?,
            },
            Some(folder) => {
                let path = folder.join(name);
                std::fs::write(&path, text).map_err(|e| fail(&path, e))?;
            }
        }
    }
    Ok(())
}

fn text(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| Failure::new(Code::Internal, e))
}
