//! Commands that come in by MQTT. What they say is checked here; whether the camera exists is the caller's to
//! judge.

use crossbeam::channel::{Sender, TrySendError};

use super::connection::Incoming;
use super::topic::Topics;
use crate::frame::CameraId;

/// A command from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Switch a camera on or off until the next start.
    SetEnabled {
        /// The camera; not checked against the configuration.
        camera: CameraId,
        /// On or off.
        on: bool,
    },
}

/// What becomes of a message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// A command to carry out.
    Obey(Command),
    /// Only worth a line of the log.
    Ignore(String),
    /// Whoever sent it should know.
    Refuse(CameraId, String),
}

/// Reads a message. A retained command is ignored: it is from some earlier day, and would switch cameras off at
/// each start. Over MQTT 3.1.1 only those from before the connection are known to be retained: a broker hands one that
/// is published meanwhile to a subscriber like any other, and it is obeyed.
pub fn judge(topics: &Topics, message: &Incoming) -> Judgement {
    let topic = &message.topic;
    let Some(camera) = topics.camera_of_enabled_set(topic) else {
        return Judgement::Ignore(format!("{topic}: not a command that is known"));
    };
    if message.retained {
        return Judgement::Ignore(format!("{topic}: a retained command is ignored: publish it without retain"));
    }
    let on = match &message.body[..] {
        b"ON" => true,
        b"OFF" => false,
        other => {
            let start = String::from_utf8_lossy(&other[..other.len().min(32)]).into_owned();
            return Judgement::Refuse(camera, format!("enabled/set takes ON or OFF, not {start:?}."));
        }
    };
    Judgement::Obey(Command::SetEnabled { camera, on })
}

/// Hands a command on without waiting; the reason where that fails.
pub fn hand_on(commands: &Sender<Command>, command: Command) -> Result<(), (CameraId, String)> {
    match commands.try_send(command) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(Command::SetEnabled { camera, .. })) => {
            Err((camera, "Too many commands at once: send it again.".to_owned()))
        }
        Err(TrySendError::Disconnected(Command::SetEnabled { camera, .. })) => {
            Err((camera, "The daemon is stopping.".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_on_or_off_is_obeyed() {
        let topics = Topics::new("w", "n").unwrap();
        let gate = CameraId::new("gate");
        let message = |body: &[u8], retained| Incoming {
            topic: "w/n/cam/gate/enabled/set".to_owned(),
            body: body.to_vec(),
            retained,
        };
        let obey = |on| Judgement::Obey(Command::SetEnabled { camera: gate.clone(), on });
        assert_eq!(judge(&topics, &message(b"ON", false)), obey(true));
        assert_eq!(judge(&topics, &message(b"OFF", false)), obey(false));
        assert!(matches!(judge(&topics, &message(b"OFF", true)), Judgement::Ignore(_)));
        for body in [&b"on"[..], b"", b"ON\n", b"\xff\xfe"] {
            assert!(
                matches!(judge(&topics, &message(body, false)), Judgement::Refuse(camera, _) if camera == gate)
            );
        }
        let elsewhere = Incoming { topic: "w/n/status".to_owned(), ..message(b"ON", false) };
        assert!(matches!(judge(&topics, &elsewhere), Judgement::Ignore(_)));
    }
}
