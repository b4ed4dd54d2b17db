//! Commands that come in by MQTT. What they say is checked here; what comes of them is the caller's to judge.
//!
//! A command is answered where it says: at its response topic with its correlation data (MQTT 5), else at
//! `cmd/{name}/result`, for `enabled/set` at `cmd/enabled/result`.

use crossbeam::channel::{Sender, TrySendError};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::connection::Incoming;
use super::topic::{self, Topics};
use crate::config::{self, CameraEdit, Problem};
use crate::frame::CameraId;

/// Most bytes of a command.
pub const COMMAND_BYTES_MAX: usize = 64 << 10;
/// Most bytes of correlation data.
const CORRELATION_BYTES_MAX: usize = 1 << 10;
/// Version of the acknowledgement.
pub const ACK_SCHEMA: &str = "watchpost.ack/1";

/// A command from the broker.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Switch a camera on or off until the next start.
    SetEnabled {
        /// The camera; not checked against the configuration.
        camera: CameraId,
        /// On or off.
        on: bool,
    },
    /// Read the configuration again.
    Reload,
    /// Add, change or remove a camera until the next start or reload.
    Camera(CameraEdit),
    /// Make a picture of what a camera sees now.
    Snapshot {
        /// The camera; not checked against the configuration.
        camera: CameraId,
    },
}

/// A command and who is told what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is to be done.
    pub command: Command,
    /// Where that is acknowledged; `None`: nowhere.
    pub reply: Option<Reply>,
}

/// Where a command is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The command's name.
    pub name: String,
    pub(super) topic: String,
    pub(super) correlation: Option<Vec<u8>>,
}

/// `cmd/reload`: no body, or this.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadCommand {}

/// `cmd/camera`: holds until the next start or reload; the file stays as it is.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CameraCommand {
    /// What is to be done.
    pub action: CameraAction,
    /// The camera, as in the file's `[[camera]]` section: all of it, since what is left out is at its default. To remove one
    /// its `id` is enough.
    #[schemars(schema_with = "config::camera_schema")]
    pub camera: Map<String, Value>,
}

/// What is to be done with a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CameraAction {
    /// A camera of this name is to be there.
    Add,
    /// The camera of this name is to be like this.
    Change,
    /// The camera of this name is to go.
    Remove,
}

/// `cmd/snapshot`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCommand {
    /// Name of the camera.
    pub camera: String,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledgement {
    /// [`ACK_SCHEMA`].
    pub schema: String,
    /// Name of the command, as its topic ends: `reload`, `enabled/set`.
    pub command: String,
    /// It was carried out. Otherwise nothing was changed.
    pub ok: bool,
    /// What was done, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why nothing was done, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Everything that is wrong with it, one by one.
    pub problems: Vec<AckProblem>,
}

/// One thing wrong with a command, or with the file that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AckProblem {
    /// Line in the file, from 1, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Path of the setting, such as `camera[gate].fps_max`.
    pub path: String,
    /// What is wrong and what to do, one sentence.
    pub text: String,
}

impl Acknowledgement {
    /// The command `name` was carried out.
    pub fn done(name: &str, text: String) -> Self {
        let (schema, command) = (ACK_SCHEMA.to_owned(), name.to_owned());
        Self { schema, command, ok: true, text: Some(text), error: None, problems: Vec::new() }
    }

    /// The command `name` was not.
    pub fn refused(name: &str, error: String, problems: &[Problem]) -> Self {
        let problem = |p: &Problem| AckProblem { line: p.line, path: p.path.clone(), text: p.text.clone() };
        let (schema, command) = (ACK_SCHEMA.to_owned(), name.to_owned());
        let problems = problems.iter().map(problem).collect();
        Self { schema, command, ok: false, text: None, error: Some(error), problems }
    }
}

/// What becomes of a message that came in.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// A command to carry out.
    Obey(Request),
    /// Only worth a line of the log.
    Ignore(String),
    /// Whoever sent it should know.
    Refuse(Refusal),
}

/// A command that is not carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The camera that it is about, where its topic says so.
    pub camera: Option<CameraId>,
    /// Where that is told.
    pub reply: Option<Reply>,
    /// Why, one sentence.
    pub text: String,
}

/// Reads a message. A retained command is ignored: it is from some earlier day, and would switch cameras off at
/// each start. Over MQTT 3.1.1 only those from before the connection are known to be retained: a broker hands one that
/// is published meanwhile to a subscriber like any other, and it is obeyed.
pub fn judge(topics: &Topics, message: &Incoming) -> Judgement {
    let topic = &message.topic;
    let (camera, name, result) = match (topics.camera_of_enabled_set(topic), topics.command_of(topic)) {
        (Some(camera), _) => (Some(camera), "enabled/set", "enabled"),
        (None, Some(name)) => (None, name, name),
        (None, None) => return Judgement::Ignore(format!("{topic}: not a command that is known")),
    };
    if message.retained {
        return Judgement::Ignore(format!("{topic}: a retained command is ignored: publish it without retain"));
    }
    let result = || topics.command_result(result).as_str().to_owned();
    let at = |topic: String, correlation| Some(Reply { name: name.to_owned(), topic, correlation });
    // The result topic of `enabled/set` is that of all cameras.
    let said = camera.as_ref().map_or_else(|| name.to_owned(), |camera| format!("{name} of {camera}"));
    let refused =
        |camera, reply, text: &str| Judgement::Refuse(Refusal { camera, reply, text: format!("{said}: {text}.") });
    let reply = match reply_topic(topics, message) {
        Ok(topic) => at(topic.unwrap_or_else(result), message.correlation.clone()),
        Err(text) => return refused(camera, at(result(), None), text),
    };
    match command(camera.as_ref(), name, &message.body) {
        Ok(command) => Judgement::Obey(Request { command, reply }),
        Err(text) => refused(camera, reply, &text),
    }
}

/// Where the sender wants the answer: anywhere that is a plain topic, but not where this box says other things, nor among
/// the broker's own.
fn reply_topic(topics: &Topics, message: &Incoming) -> Result<Option<String>, &'static str> {
    if message.correlation.as_ref().is_some_and(|data| data.len() > CORRELATION_BYTES_MAX) {
        return Err("the correlation data is larger than 1 KiB");
    }
    let Some(topic) = &message.response else { return Ok(None) };
    if !topic::is_plain(topic) {
        return Err(
            "the response topic is none to publish to: give one without +, # and control characters, no $ in \
                    front, at most 1 KiB",
        );
    }
    if topic.starts_with(topics.prefix()) && !topics.is_command_result(topic) {
        return Err("the response topic is one of this box's own: give another");
    }
    Ok(Some(topic.clone()))
}

fn command(camera: Option<&CameraId>, name: &str, body: &[u8]) -> Result<Command, String> {
    if body.len() > COMMAND_BYTES_MAX {
        return Err(format!("it has {} bytes: a command has at most {} KiB", body.len(), COMMAND_BYTES_MAX >> 10));
    }
    if let Some(camera) = camera {
        return set_enabled(camera, body);
    }
    match name {
        "reload" if body.is_empty() => Ok(Command::Reload),
        "reload" => read(body, "nothing, or {}").map(|ReloadCommand {}| Command::Reload),
        "camera" => {
            let wanted =
                "{\"action\": \"add\", \"change\" or \"remove\", \"camera\": {\"id\": …}} and nothing else";
            read(body, wanted).and_then(camera_edit).map(Command::Camera)
        }
        "snapshot" => {
            let command: SnapshotCommand = read(body, "{\"camera\": \"its id\"} and nothing else")?;
            Ok(Command::Snapshot { camera: CameraId::new(&command.camera) })
        }
        _ => Err("there is no such command: there are reload, camera and snapshot".to_owned()),
    }
}

fn set_enabled(camera: &CameraId, body: &[u8]) -> Result<Command, String> {
    let on = match body {
        b"ON" => true,
        b"OFF" => false,
        other => {
            let start = String::from_utf8_lossy(&other[..other.len().min(32)]).into_owned();
            return Err(format!("give ON or OFF, not {start:?}"));
        }
    };
    Ok(Command::SetEnabled { camera: camera.clone(), on })
}

fn camera_edit(CameraCommand { action, camera }: CameraCommand) -> Result<CameraEdit, String> {
    Ok(match action {
        CameraAction::Add => CameraEdit::Add(camera),
        CameraAction::Change => CameraEdit::Change(camera),
        CameraAction::Remove => match (camera.get("id").and_then(Value::as_str), camera.len()) {
            (Some(id), 1) => CameraEdit::Remove(CameraId::new(id)),
            _ => return Err("to remove a camera give its id and nothing else".to_owned()),
        },
    })
}

/// The parser's own words may repeat a password in a wrong place.
fn read<T: DeserializeOwned>(body: &[u8], wanted: &str) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => format!("it says something else than it may: give {wanted}"),
        _ => format!("it is not JSON (line {}, column {}): give {wanted}", error.line(), error.column()),
    })
}

/// Hands a command on without waiting; the refusal where that fails.
pub fn hand_on(commands: &Sender<Request>, request: Request) -> Result<(), Refusal> {
    let (request, text) = match commands.try_send(request) {
        Ok(()) => return Ok(()),
        Err(TrySendError::Full(request)) => (request, "Too many commands at once: send it again."),
        Err(TrySendError::Disconnected(request)) => (request, "The daemon is stopping."),
    };
    let camera = match request.command {
        Command::SetEnabled { camera, .. } => Some(camera),
        Command::Reload | Command::Camera(_) | Command::Snapshot { .. } => None,
    };
    Err(Refusal { camera, reply: request.reply, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Topics {
        Topics::new("w", "n").unwrap()
    }

    fn message(topic: &str, body: &[u8]) -> Incoming {
        let (topic, body) = (format!("w/n/{topic}"), body.to_vec());
        Incoming { topic, body, retained: false, response: None, correlation: None }
    }

    #[test]
    fn only_a_fresh_on_or_off_is_obeyed() {
        let gate = CameraId::new("gate");
        let judge = |body: &[u8], retained| {
            judge(&topics(), &Incoming { retained, ..message("cam/gate/enabled/set", body) })
        };
        let obey = |on| {
            let command = Command::SetEnabled { camera: gate.clone(), on };
            let (name, topic) = ("enabled/set".to_owned(), "w/n/cmd/enabled/result".to_owned());
            Judgement::Obey(Request { command, reply: Some(Reply { name, topic, correlation: None }) })
        };
        assert_eq!(judge(b"ON", false), obey(true));
        assert_eq!(judge(b"OFF", false), obey(false));
        assert!(matches!(judge(b"OFF", true), Judgement::Ignore(_)));
        for body in [&b"on"[..], b"", b"ON\n", b"\xff\xfe"] {
            let Judgement::Refuse(refusal) = judge(body, false) else { panic!("{body:?}") };
            assert_eq!(
                (refusal.camera, refusal.reply.unwrap().topic.as_str()),
                (Some(gate.clone()), "w/n/cmd/enabled/result")
            );
            assert!(refusal.text.starts_with("enabled/set of gate: give ON or OFF"), "{}", refusal.text);
        }
        assert!(matches!(super::judge(&topics(), &message("status", b"ON")), Judgement::Ignore(_)));
    }

    #[test]
    fn commands_are_held_against_their_schema() {
        let obeyed =
            |name: &str, body: &str| match judge(&topics(), &message(&format!("cmd/{name}"), body.as_bytes())) {
                Judgement::Obey(request) => {
                    assert_eq!(request.reply.unwrap().topic, format!("w/n/cmd/{name}/result"));
                    Some(request.command)
                }
                Judgement::Refuse(refusal) => {
                    assert!(refusal.reply.is_some() && !refusal.text.contains("secret"), "{refusal:?}");
                    None
                }
                Judgement::Ignore(text) => panic!("{text}"),
            };
        assert_eq!(obeyed("reload", ""), Some(Command::Reload));
        assert_eq!(obeyed("reload", "{}"), Some(Command::Reload));
        let gate = CameraId::new("gate");
        assert_eq!(obeyed("snapshot", "{\"camera\":\"gate\"}"), Some(Command::Snapshot { camera: gate.clone() }));
        let remove = obeyed("camera", "{\"action\":\"remove\",\"camera\":{\"id\":\"gate\"}}");
        assert_eq!(remove, Some(Command::Camera(CameraEdit::Remove(gate))));
        let add = obeyed("camera", "{\"action\":\"add\",\"camera\":{\"id\":\"gate\",\"url\":\"test://\"}}");
        assert!(matches!(add, Some(Command::Camera(CameraEdit::Add(section))) if section.len() == 2));
        for (name, body) in [
            ("reload", "now"),
            ("reload", "{\"force\":true}"),
            ("snapshot", "gate"),
            ("snapshot", "{\"camera\":7}"),
            ("camera", "{"),
            ("camera", "{\"action\":\"add\"}"),
            ("camera", "{\"action\":\"add\",\"camera\":\"rtsp://u:secret@h/\"}"),
            ("camera", "{\"action\":\"secret\",\"camera\":{}}"),
            ("camera", "{\"action\":\"remove\",\"camera\":{\"id\":\"gate\",\"url\":\"x\"}}"),
            ("camera", "{\"action\":\"add\",\"camera\":{},\"secret\":1}"),
            ("reboot", ""),
        ] {
            assert_eq!(obeyed(name, body), None, "{name} {body}");
        }
    }

    #[test]
    fn large_binary_and_retained_commands_change_nothing() {
        for body in [vec![b' '; COMMAND_BYTES_MAX + 1], vec![0xff; 100], vec![b'['; 1000]] {
            assert!(matches!(judge(&topics(), &message("cmd/camera", &body)), Judgement::Refuse(_)));
        }
        let retained = Incoming { retained: true, ..message("cmd/reload", b"") };
        assert!(matches!(judge(&topics(), &retained), Judgement::Ignore(text) if text.contains("retained")));
    }

    #[test]
    fn answers_go_where_the_sender_says_within_limits() {
        let asked = |response: &str, correlation: &[u8]| {
            let (response, correlation) = (Some(response.to_owned()), Some(correlation.to_vec()));
            judge(&topics(), &Incoming { response, correlation, ..message("cmd/reload", b"") })
        };
        for topic in ["answers/7", "w/n/cmd/reload/result", "w/other/x"] {
            let Judgement::Obey(Request { reply: Some(reply), .. }) = asked(topic, b"\x00id") else {
                panic!("{topic}")
            };
            assert_eq!((reply.topic.as_str(), reply.correlation.as_deref()), (topic, Some(&b"\x00id"[..])));
        }
        let long = "x".repeat(2000);
        for topic in ["", "a/+", "#", "$SYS/x", "a\u{0}b", "w/n/status", "w/n/cmd/reload", long.as_str()] {
            let Judgement::Refuse(refusal) = asked(topic, b"1") else { panic!("{topic}") };
            assert_eq!(refusal.reply.unwrap().topic, "w/n/cmd/reload/result");
        }
        assert!(matches!(asked("a", &[0; 2000]), Judgement::Refuse(_)));
    }
}
