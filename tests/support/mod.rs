//! What several test binaries need: real brokers and the like. Each uses its own part.
#![allow(dead_code)]

pub mod assets;
pub mod certificates;
pub mod clips;
pub mod cores;
pub mod daemon;
pub mod hold;
pub mod library;
pub mod link;
pub mod mosquitto;
pub mod onnx;
pub mod program;
pub mod publisher;
pub mod rig;
pub mod rtsp;
pub mod schemas;
pub mod tap;
