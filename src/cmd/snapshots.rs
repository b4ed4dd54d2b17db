//! Snapshots as `run` has them: made, kept, published.

use crossbeam::channel::Sender;

use crate::backend::Settings;
use crate::cli::{Code, Failure};
use crate::config::Config;
use crate::daemon::Surroundings;
use crate::frame::CameraId;
use crate::gpu::nvjpeg::Encoder;
use crate::publish::Publisher;
use crate::snapshot::{self, Encode, Making, Picture, Publish, Snapshots};

/// What came of a picture that somebody asked for: of which camera, and what was done or why not, one sentence.
pub type Answer = (CameraId, Result<String, String>);

/// Starts making pictures, where that is configured. The thread ends when the [`Snapshots`] are dropped; what it has to
/// publish must be given before the publisher ends. `answers` hears of those that somebody asked for. Cameras without pictures have none on the broker.
///
/// # Errors
///
/// Where their folder cannot be made.
pub fn start(
    config: &Config,
    settings: &Settings,
    around: &Surroundings,
    publisher: &Publisher,
    answers: Sender<Answer>,
) -> Result<Option<(Snapshots, Making)>, Failure> {
    let kept = config.snapshots.as_ref();
    let publishes = |events: bool| events && kept.is_some_and(|kept| kept.publish);
    for camera in config.cameras.iter().filter(|camera| !publishes(camera.events.is_some())) {
        publisher.forget_snapshot(&camera.id);
    }
    let Some(kept) = kept else { return Ok(None) };
    let publisher = publisher.clone();
    let publish: Publish = Box::new(move |picture| match picture {
        Picture::OfTrack(of, jpeg) => publisher.snapshot(&of.camera, &of.track, jpeg),
        Picture::Latest(camera, jpeg) => publisher.latest_snapshot(camera, jpeg),
        Picture::Answer(camera, made) => {
            // Full: whoever asked hears that there is none in time.
            let _ = answers.try_send((camera.clone(), made));
        }
    });
    let started =
        snapshot::start(kept, around.metrics.snapshots.clone(), encoder(settings), publish).map_err(|error| {
            let text = format!(
                "snapshots.folder {}: {error}: set it to a folder that this user may write to",
                kept.folder.display()
            );
            Failure::new(Code::Spool, text)
        })?;
    Ok(Some(started))
}

/// nvJPEG on the GPU that runs the model, opened for the first picture.
fn encoder(settings: &Settings) -> Option<Encode> {
    let device = settings.device()?.clone();
    let mut opened = None;
    Some(Box::new(move |rgb, (width, height), quality| {
        let encoder: &mut Encoder = match &mut opened {
            Some(encoder) => encoder,
            none => none.insert(Encoder::open(&device).map_err(|error| error.to_string())?),
        };
        encoder.encode(rgb, width, height, quality).map_err(|error| error.to_string())
    }))
}
