//! watchpost: many cameras in, batched detections out on MQTT.
//!
//! The code is the data path. Read it in this order:
//!
//! 1. [`camera`] decodes a stream into [`frame`]s,
//! 2. a [`slot`] holds the newest one; where nothing moves, the [`motion`] gate leaves it out,
//! 3. [`batch`] decides which of them go together,
//! 4. a [`backend`] runs the [`engine`] over them (driven by [`infer`]; geometry in [`letterbox`] and [`mask`];
//!    NVIDIA's libraries behind [`gpu`]),
//! 5. [`yolo`] reads the head and suppresses duplicates,
//! 6. [`track`] knows what is where: zones, lines, what is filtered out, and at which hours,
//! 7. [`analyze`] makes [`event`]s of what is left,
//! 8. [`formats`] puts them into the forms in which others read them,
//! 9. [`publish`] spools and sends them.
//!
//! Beside it, a [`thumbnail`] of a frame goes with its detections; of a track's best one [`snapshot`] makes a picture.
//!
//! Around it: [`config`] says what is true, [`daemon`] wires, [`metrics`], [`health`] and [`http`] tell, [`worker`], [`rate`],
//! [`signal`], [`systemd`], [`process`] and [`logging`] hold the process, [`cli`] and [`cmd`] are the commands.

pub mod analyze;
pub mod backend;
pub mod batch;
pub mod camera;
pub mod engine;
pub mod event;
pub mod formats;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gpu;
pub mod infer;
pub mod letterbox;
pub mod mask;
pub mod motion;
pub mod publish;
pub mod slot;
pub mod snapshot;
pub mod thumbnail;
pub mod track;
pub mod yolo;

pub mod cli;
pub mod cmd;
pub mod config;
pub mod daemon;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod rate;
pub mod scene;
pub mod signal;
pub mod systemd;
pub mod worker;
