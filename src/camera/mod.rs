//! Cameras: the only module that knows GStreamer.
//!
//! One thread a camera ([`worker`]) builds its pipeline from a description ([`pipeline`]), watches its bus and
//! builds it anew when it fails. [`decode`] settles what decodes and where frames lie. GStreamer's own threads hand frames to the slot ([`sink`]), stamped with
//! their capture time ([`clock`]). Pixels stay in the decoder's memory ([`memory`]).

use std::sync::Once;

pub mod clock;
mod crowd;
mod decode;
mod description;
mod elements;
mod log;
mod memory;
pub mod pipeline;
pub mod probe;
mod sink;
mod worker;

pub use decode::{Kind, use_gpu};
pub use memory::cuda::decoders_wait_for_copies;
pub use pipeline::CameraError;
pub use worker::{ABANDONED_MAX, Camera, Control, start};

/// Starts GStreamer. Once a process, before anything else here.
///
/// # Errors
///
/// A sentence where GStreamer cannot start.
pub fn init() -> Result<(), CameraError> {
    gstreamer::init().map_err(|e| CameraError::Setup(format!("GStreamer cannot start: {e}")))?;
    static LOG: Once = Once::new();
    LOG.call_once(log::hide_logins);
    Ok(())
}

/// GStreamer's version, for people.
pub fn version() -> String {
    gstreamer::version_string().to_string()
}
