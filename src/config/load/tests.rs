//! Every way a configuration can be wrong, and that each is said on its line.

mod example;
mod scene;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::*;

const GOOD: &str = r#"node = "edge07"
[engine]
manifest = "m.toml"
[mqtt]
broker = "mqtt://broker.lan"
[[camera]]
id = "gate"
url = "rtsp://10.0.0.5/stream1"
[[camera]]
id = "yard"
url = "test://"
"#;

const PASSWORD: &str = "hunter2-s3cret";

/// A folder with every file that the texts here name.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let cert = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
        for (name, mode, text) in [
            ("m.toml", 0o644, ""),
            ("own.pipeline", 0o644, ""),
            ("good", 0o600, PASSWORD),
            ("line", 0o640, "hunter2-s3cret\r\n"),
            ("open", 0o604, PASSWORD),
            ("loose", 0o620, PASSWORD),
            ("empty", 0o600, "\n"),
            ("lines", 0o600, "hunter2-s3cret\nmore\n"),
            ("ca.pem", 0o644, cert),
            ("key.pem", 0o600, key),
            ("open-key.pem", 0o644, key),
            ("free-ca.pem", 0o646, cert),
        ] {
            folder.write(name, mode, text);
        }
        fs::create_dir(folder.path("credentials")).unwrap();
        folder.write("credentials/mqtt", 0o444, PASSWORD);
        folder
    }

    fn write(&self, name: &str, mode: u32, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn parse(&self, text: &str) -> Result<Config, Problems> {
        let credentials = self.path("credentials").display().to_string();
        let env = |name: &str| match name {
            "CREDENTIALS_DIRECTORY" => Some(credentials.clone()),
            "CAMERA_PASSWORD" => Some(PASSWORD.to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let host = Host { env: &env, name: Some("box.example.org".to_owned()) };
        inspect_on(text, self.0.path(), &host).into_config()
    }

    /// The problems of `text`, one line each.
    fn problems(&self, text: &str) -> Vec<String> {
        let Err(problems) = self.parse(text) else { return Vec::new() };
        assert!(!problems.0.is_empty());
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
        problems.to_string().lines().map(str::to_owned).collect()
    }
}

/// `GOOD` with one piece replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

/// `GOOD` with `lines` added to the first camera (RTSP), or after `[section]`.
fn in_section(section: &str, lines: &str) -> String {
    match section {
        "" => format!("{lines}\n{GOOD}"),
        "camera" => with("url = \"rtsp", &format!("{lines}\nurl = \"rtsp")),
        "test" => with("url = \"test", &format!("{lines}\nurl = \"test")),
        "engine" | "mqtt" => with(&format!("[{section}]\n"), &format!("[{section}]\n{lines}\n")),
        other => format!("[{other}]\n{lines}\n{}", GOOD.replacen("node", "\n#", 1)),
    }
}

#[test]
fn minimal_config_has_the_documented_defaults() {
    let folder = Folder::new();
    let config = folder.parse(GOOD).unwrap();
    assert_eq!(config.node, "edge07");
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/watchpost"));
    assert_eq!(config.stop_deadline, Duration::from_secs(10));
    assert_eq!(config.engine.manifest, folder.path("m.toml"));
    assert_eq!((config.engine.batch, config.engine.batch_deadline), (1, Duration::from_millis(40)));
    assert_eq!(config.mqtt.broker, Broker::Remote { host: "broker.lan".to_owned(), port: 1883, tls: false });
    assert_eq!(config.mqtt.client_id, "watchpost-edge07");
    assert_eq!(config.mqtt.spool_bytes, 256 << 20);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:9400");
    let [gate, yard] = config.cameras.as_slice() else { panic!("two cameras") };
    let Source::Rtsp(rtsp) = &gate.source else { panic!("{:?}", gate.source) };
    assert_eq!((rtsp.url.as_str(), rtsp.transport), ("rtsp://10.0.0.5/stream1", Transport::Tcp));
    assert_eq!((rtsp.latency, rtsp.verify, &rtsp.password), (Duration::from_millis(200), true, &None));
    assert_eq!((gate.id.as_str(), gate.pipeline.as_str(), gate.priority), ("gate", "rtsp", 5));
    assert_eq!(yard.source, Source::Test { size: (640, 480), fps: 10, pattern: "ball".to_owned() });
    assert_eq!(config.hash, hash(GOOD));
    assert_eq!(hash(""), "e3b0c44298fc");
}

const EVERYTHING: &str = r#"
state_dir = "state"
[engine]
manifest = "m.toml"
model = "m.toml"
confidence = 0
nms = 1
openvino = { device = "GPU.1", precision = "bf16", requests = 4 }
[mqtt]
broker = "MQTTS://u%40x@[::1]:1/"
protocol = "3.1.1"
base = "site/west"
password_credential = "mqtt"
ca_file = "ca.pem"
cert_file = "ca.pem"
key_file = "key.pem"
[http]
listen = "0.0.0.0:80"
token_file = "line"
[[camera]]
id = "a"
url = "rtsps://u:p%2Fw@cam:322/x?y=1"
ca_file = "ca.pem"
transport = "udp"
fps_max = 5
mask = [[[0,0],[1,0],[1,1],[0,0]]]
detections = "change"
pipeline = "own.pipeline"
[[camera]]
id = "b"
url = "file:///srv/a%20b.mp4"
pace = "fast"
repeat = true
[[camera]]
id = "c"
url = "clips/x.mp4"
[[camera]]
id = "d"
url = "v4l2:///dev/video0"
[[camera]]
id = "e"
url = "rtsp://cam"
user = "u"
password_env = "CAMERA_PASSWORD"
decode = "cuda"
[[camera]]
id = "f"
url = "csi://1?fps=15"
decode = "jetson"
"#;

#[test]
fn everything_that_can_be_given_is_taken() {
    let folder = Folder::new();
    let config = folder.parse(EVERYTHING).unwrap();
    assert_eq!(config.node, "box");
    assert_eq!(config.state_dir, folder.path("state"));
    assert_eq!(config.engine.openvino.precision, Precision::Bf16);
    assert_eq!(config.mqtt.broker, Broker::Remote { host: "::1".to_owned(), port: 1, tls: true });
    assert_eq!(config.mqtt.protocol, MqttProtocol::V4);
    assert_eq!(config.mqtt.user.as_deref(), Some("u@x"));
    assert_eq!(config.mqtt.password.as_ref().map(Secret::expose), Some(PASSWORD));
    assert_eq!(config.http.token.as_ref().map(Secret::expose), Some(PASSWORD));
    let sources: Vec<&Source> = config.cameras.iter().map(|camera| &camera.source).collect();
    let Source::Rtsp(a) = sources[0] else { panic!("{:?}", sources[0]) };
    assert_eq!(a.url, "rtsps://cam:322/x?y=1");
    assert_eq!((a.user.as_deref(), a.password.as_ref().map(Secret::expose)), (Some("u"), Some("p/w")));
    assert_eq!(config.cameras[0].pipeline, folder.path("own.pipeline").display().to_string());
    assert!(config.cameras[0].mask.is_some());
    let file = |path: PathBuf, pace, repeat| Source::File { path, pace, repeat };
    assert_eq!(*sources[1], file(PathBuf::from("/srv/a b.mp4"), Pace::Fast, true));
    assert_eq!(*sources[2], file(folder.path("clips/x.mp4"), Pace::Realtime, false));
    assert_eq!(*sources[3], Source::V4l2 { device: PathBuf::from("/dev/video0") });
    assert_eq!(*sources[5], Source::Csi { sensor: 1, size: (1920, 1080), fps: 15 });
    let decode: Vec<Decode> = config.cameras.iter().map(|camera| camera.decode).collect();
    assert_eq!(decode[3..], [Decode::Auto, Decode::Cuda, Decode::Jetson]);
    let debug = format!("{config:?}");
    assert!(!debug.contains("hunter2") && !debug.contains("p/w") && !debug.contains("p%2F"), "{debug}");
}

#[test]
fn embedded_broker_is_open_to_others_only_with_a_password() {
    let folder = Folder::new();
    let embedded = "embedded\"\nembedded_listen = \"0.0.0.0:1883\"\nuser = \"u\"\npassword_file = \"good\"";
    let config = folder.parse(&with("mqtt://broker.lan\"", embedded)).unwrap();
    assert_eq!(config.mqtt.broker, Broker::Embedded { listen: "0.0.0.0:1883".parse().unwrap() });
    let no_password = embedded.rsplit_once('\n').unwrap().0;
    let problems = folder.problems(&with("mqtt://broker.lan\"", no_password));
    assert_eq!(problems.len(), 1, "{problems:?}");
}

/// Section, lines added to it, line of the problem, path, and a piece of its text. Exactly one problem each.
#[rustfmt::skip]
const WRONG: &[(&str, &str, usize, &str, &str)] = &[
    ("", "stop_deadline = \"10\"", 1, "stop_deadline", "with a unit"),
    ("", "stop_deadline = 10", 1, "stop_deadline", "with a unit in quotes, such as \"200ms\" or \"10s\", not a whole number"),
    ("", "stop_deadline = \"0s\"", 1, "stop_deadline", "from 1s to 5m"),
    ("", "stop_dedline = \"9s\"", 1, "stop_dedline", "did you mean `stop_deadline`?"),
    ("", "xyz = 1", 1, "xyz", "no such setting: remove it"),
    ("", "\"http://u:hunter2-s3cret@h\" = 1", 1, "\"…\"", "no such setting"),
    ("", "state_dir = [1]", 1, "state_dir", "give a path in quotes, not a list"),
    ("", "http = 1", 1, "http", "give a table, not a whole number"),
    ("engine", "batch = 0", 3, "engine.batch", "from 1 to 64"),
    ("engine", "batch = 1.5", 3, "engine.batch", "give a whole number, not a number with a fraction"),
    ("engine", "batch = 99999999999999999999", 3, "engine.batch", "give a whole number"),
    ("engine", "batch_deadline = \"2s\"", 3, "engine.batch_deadline", "from 0s to 1s"),
    ("engine", "confidence = 1.1", 3, "engine.confidence", "from 0 to 1"),
    ("engine", "nms = nan", 3, "engine.nms", "from 0 to 1"),
    ("engine", "nms = \"hunter2-s3cret\"", 3, "engine.nms", "give a number, not a text in quotes"),
    ("engine", "openvino.requests = 17", 3, "engine.openvino.requests", "from 1 to 16"),
    ("engine", "openvino.streams = -1", 3, "engine.openvino.streams", "from 0 to 64"),
    ("engine", "openvino.threads = 9999", 3, "engine.openvino.threads", "from 0 to 1024"),
    ("engine", "openvino.device = \"cpu\"", 3, "engine.openvino.device", "CPU, GPU, NPU or AUTO"),
    ("engine", "openvino.precision = \"f64\"", 3, "engine.openvino.precision", "give one of \"auto\", \"f32\", \"f16\", \"bf16\""),
    ("engine.openvino", "requets = 2", 2, "engine.openvino.requets", "did you mean `requests`?"),
    ("mqtt", "password = \"hunter2-s3cret\"", 5, "mqtt.password", "not written here: give password_file or password_env or password_credential"),
    ("mqtt", "protocol = 5", 5, "mqtt.protocol", "give a text in quotes, not a whole number"),
    ("mqtt", "protocol = \"4\"", 5, "mqtt.protocol", "give one of \"auto\", \"5\", \"3.1.1\""),
    ("mqtt", "base = \"/x\"", 5, "mqtt.base", "no / at either end"),
    ("mqtt", "base = \"a/+\"", 5, "mqtt.base", "no + #"),
    ("mqtt", "client_id = \"\"", 5, "mqtt.client_id", "1 to 128 bytes"),
    ("mqtt", "keep_alive = \"4s\"", 5, "mqtt.keep_alive", "from 5s to"),
    ("mqtt", "keep_alive = \"5500ms\"", 5, "mqtt.keep_alive", "whole seconds"),
    ("mqtt", "spool = 5", 5, "mqtt.spool", "a size with a unit"),
    ("mqtt", "spool = \"1KiB\"", 5, "mqtt.spool", "from 1MiB to 1TiB"),
    ("mqtt", "ca_file = \"ca.pem\"", 5, "mqtt.ca_file", "mqtts://"),
    ("mqtt", "embedded_listen = \"127.0.0.1:1\"", 5, "mqtt.embedded_listen", "broker = \"embedded\""),
    ("mqtt", "user = \"\"", 5, "mqtt.user", "empty"),
    ("mqtt", "user = \"u\"\npassword_env = \"EMPTY\"", 6, "mqtt.password_env", "empty"),
    ("mqtt", "user = \"u\"\npassword_env = \"hunter2-s3cret\"", 6, "mqtt.password_env", "no such variable"),
    ("mqtt", "user = \"u\"\npassword_file = \"hunter2-s3cret\"", 6, "mqtt.password_file", "no such file"),
    ("mqtt", "user = \"u\"\npassword_file = \"good\"\npassword_env = \"CAMERA_PASSWORD\"", 7, "mqtt.password_env", "only one"),
    ("mqtt", "user = \"u\"\npassword_credential = \"../good\"", 6, "mqtt.password_credential", "not a path"),
    ("mqtt", "user = \"u\"\npassword_credential = \"other\"", 6, "mqtt.password_credential", "LoadCredential="),
    ("mqtt", "password_file = \"good\"", 4, "mqtt.user", "no user"),
    ("http", "listen = \"localhost:1\"", 2, "http.listen", "give an IP address and a port"),
    ("http", "listen = \"0.0.0.0:80\"", 2, "http.listen", "token_file or token_credential"),
    ("http", "token = \"hunter2-s3cret\"", 2, "http.token", "not written here: give token_file or token_credential"),
    ("http", "token_file = \"open\"", 2, "http.token_file", "chmod 600"),
    ("http", "enabled = 1", 2, "http.enabled", "give true or false, not a whole number"),
    ("camera", "fps = 5", 8, "camera[gate].fps", "did you mean `fps_max`?"),
    ("camera", "fps_max = 0", 8, "camera[gate].fps_max", "above 0, at most 1000"),
    ("camera", "fps_max = inf", 8, "camera[gate].fps_max", "above 0"),
    ("camera", "detections_hz_max = -1", 8, "camera[gate].detections_hz_max", "above 0"),
    ("camera", "priority = 11", 8, "camera[gate].priority", "from 1 to 10"),
    ("camera", "stall_timeout = \"0s\"", 8, "camera[gate].stall_timeout", "from 1s to 10m"),
    ("camera", "latency = \"11s\"", 8, "camera[gate].latency", "from 0s to 10s"),
    ("camera", "transport = \"hunter2-s3cret\"", 8, "camera[gate].transport", "give \"tcp\" or \"udp\""),
    ("camera", "password = 5", 8, "camera[gate].password", "not written here"),
    ("camera", "user = \"u\"\npassword_file = \"open\"", 9, "camera[gate].password_file", "chmod 600"),
    ("camera", "user = \"u\"\npassword_file = \"loose\"", 9, "camera[gate].password_file", "chmod 600"),
    ("camera", "user = \"u\"\npassword_file = \"empty\"", 9, "camera[gate].password_file", "empty"),
    ("camera", "user = \"u\"\npassword_file = \"lines\"", 9, "camera[gate].password_file", "more than one line"),
    ("camera", "user = \"u\"\npassword_file = \".\"", 9, "camera[gate].password_file", "not a regular file"),
    ("camera", "ca_file = \"ca.pem\"", 8, "camera[gate].ca_file", "this is for rtsps:// cameras, not for rtsp:// cameras"),
    ("camera", "pace = \"fast\"", 8, "camera[gate].pace", "this is for files, not for rtsp:// cameras"),
    ("camera", "repeat = true", 8, "camera[gate].repeat", "this is for files"),
    ("camera", "pipeline = \"file\"", 8, "camera[gate].pipeline", "give \"rtsp\" or remove it"),
    ("camera", "pipeline = \"none\"", 8, "camera[gate].pipeline", "no such file"),
    ("camera", "detections = \"some\"", 8, "camera[gate].detections", "give one of \"all\", \"nonempty\", \"change\", \"off\""),
    ("camera", "mask = [[[0,0],[1,1]]]", 8, "camera[gate].mask", "polygon 1: give at least three points"),
    ("camera", "mask = [[[0,0],[1,1],[1,0],[0,1]]]", 8, "camera[gate].mask", "cross"),
    ("camera", "mask = [[[0,0],[1,1],\n[1,2,3]]]", 8, "camera[gate].mask", "[x, y]"),
    ("camera", "mask = [[0,0],[1,1],[1,0]]", 8, "camera[gate].mask", "polygons"),
    ("camera", "mask = [[{x=1}]]", 8, "camera[gate].mask", "polygons"),
    ("test", "transport = \"udp\"", 11, "camera[yard].transport", "not for test:// cameras"),
    ("camera", "decode = \"gpu\"", 8, "camera[gate].decode", "\"cuda\""),
    ("camera", "decode = \"cuda\"\npipeline = \"own.pipeline\"", 8, "camera[gate].decode", "remove one of the two"),
    ("camera", "pipeline = \"csi\"", 8, "camera[gate].pipeline", "not for rtsp:// cameras"),
    ("test", "decode = \"cuda\"", 11, "camera[yard].decode", "test:// cameras cannot be decoded that way"),
    ("test", "decode = \"jetson\"", 11, "camera[yard].decode", "give \"software\""),
    ("test", "user = \"u\"", 11, "camera[yard].user", "this is for rtsp:// cameras and rtsps:// cameras"),
];

#[test]
fn each_wrong_setting_is_one_problem_with_its_line_and_path() {
    let folder = Folder::new();
    for (section, lines, line, path, text) in WRONG {
        let problems = folder.problems(&in_section(section, lines));
        assert_eq!(problems.len(), 1, "{lines}: {problems:#?}");
        assert!(problems[0].starts_with(&format!("line {line}: {path}: ")), "{lines}: {problems:?}");
        assert!(problems[0].contains(text), "{lines}: {problems:?}");
    }
}

/// A piece of `GOOD`, what takes its place, the line and path of the one problem, and a piece of its text.
#[rustfmt::skip]
const REPLACED: &[(&str, &str, usize, &str, &str)] = &[
    ("edge07", "a/b", 1, "node", "1 to 64"),
    ("manifest = \"m.toml\"", "", 2, "engine.manifest", "give the path of an engine manifest"),
    ("m.toml", "n.toml", 3, "engine.manifest", "no such file"),
    ("\"m.toml\"", "m.toml", 3, "(file)", "this is not TOML"),
    ("manifest", "node = 1\nnode", 4, "(file)", "duplicate key"),
    ("mqtt://broker.lan", "broker.lan", 5, "mqtt.broker", "\"mqtt://host\""),
    ("broker.lan", "broker.lan/x", 5, "mqtt.broker", "ends after host and port"),
    ("broker.lan", "u:hunter2-s3cret/@broker", 5, "mqtt.broker", "%2F"),
    ("broker.lan", "broker.lan:99999", 5, "mqtt.broker", "port"),
    ("broker.lan", ":hunter2-s3cret@broker", 4, "mqtt.user", "no user"),
    ("broker.lan\"", "u@broker\"\nuser = \"u\"", 6, "mqtt.user", "only one"),
    ("broker.lan\"", "u:hunter2-s3cret@b\"\npassword_file = \"good\"", 6, "mqtt.password_file", "only one"),
    ("mqtt://broker.lan\"", "mqtts://b\"\ncert_file = \"ca.pem\"", 6, "mqtt.cert_file", "give key_file too"),
    ("mqtt://broker.lan\"", "mqtts://b\"\nca_file = \"free-ca.pem\"", 6, "mqtt.ca_file", "everyone may change this file"),
    ("mqtt://broker.lan\"", "mqtts://b\"\nca_file = \"m.toml\"", 6, "mqtt.ca_file", "no PEM certificate"),
    ("mqtt://broker.lan\"", "mqtts://b\"\ncert_file = \"ca.pem\"\nkey_file = \"open-key.pem\"", 7, "mqtt.key_file", "chmod 600"),
    ("mqtt://broker.lan\"", "mqtts://b\"\ncert_file = \"ca.pem\"\nkey_file = \"nil\"", 7, "mqtt.key_file", "no such file"),
    ("mqtt://broker.lan\"", "embedded\"\nembedded_listen = \"0.0.0.0:1883\"", 6, "mqtt.embedded_listen", "give user and password_file"),
    ("mqtt://broker.lan\"", "embedded\"\nprotocol = \"5\"", 6, "mqtt.protocol", "speaks MQTT 3.1.1 only"),
    ("\"gate\"", "\"yard\"", 10, "camera[yard].id", "another camera on line 7"),
    ("id = \"gate\"", "", 6, "camera[#1].id", "give an id"),
    ("\"yard\"", "\"the yard\"", 10, "camera[#2].id", "topic"),
    ("\"yard\"", "7", 10, "camera[#2].id", "give a text in quotes"),
    ("url = \"test://\"", "", 9, "camera[yard].url", "give a url"),
    ("test://", "", 11, "camera[yard].url", "give rtsp://"),
    ("test://", "http://u:hunter2-s3cret@h/x", 11, "camera[yard].url", "give rtsp://"),
    ("test://", "rtsp:/u:hunter2-s3cret@h", 11, "camera[yard].url", "write ://"),
    ("test://", "rtsp://u:hunter2-s3cret@", 11, "camera[yard].url", "give a host name"),
    ("test://", "rtsp://u:hunter2-s3cret@h:x", 11, "camera[yard].url", "port"),
    ("test://", "rtsp://u:1/hunter2-s3cret@h/x", 11, "camera[yard].url", "%2F"),
    ("test://", "rtsp://:hunter2-s3cret@h", 9, "camera[yard].user", "give user"),
    ("test://\"", "rtsps://h\"\nca_file=\"ca.pem\"\ntls_verify=false", 12, "camera[yard].ca_file", "accepts any certificate"),
    ("test://", "test://x", 11, "camera[yard].url", "write test://?size"),
    ("test://", "test://?size=9x9", 11, "camera[yard].url", "16 to 8192 pixels"),
    ("test://", "test://?fps=0", 11, "camera[yard].url", "from 1 to 240"),
    ("test://", "test://?pattern=cube", 11, "camera[yard].url", "smpte"),
    ("test://", "test://?rate=5", 11, "camera[yard].url", "write test://?size"),
    ("test://", "csi://front", 11, "camera[yard].url", "write csi://0?size"),
    ("test://", "csi://16", 11, "camera[yard].url", "write csi://0?size"),
    ("test://", "csi://0?size=9x9", 11, "camera[yard].url", "16 to 8192 pixels"),
    ("test://", "csi://?fps=0", 11, "camera[yard].url", "from 1 to 240"),
    ("test://\"", "csi://0\"\ndecode = \"cuda\"", 12, "camera[yard].decode", "csi:// cameras cannot be decoded that way"),
    ("test://", "v4l2://video0", 11, "camera[yard].url", "v4l2:///dev/video0"),
    ("test://", "file://x.mp4", 11, "camera[yard].url", "file:///srv/video.mp4"),
];

#[test]
fn each_wrong_replacement_is_one_problem_with_its_line_and_path() {
    let folder = Folder::new();
    for (from, to, line, path, text) in REPLACED {
        let problems = folder.problems(&with(from, to));
        assert_eq!(problems.len(), 1, "{to}: {problems:#?}");
        assert!(problems[0].starts_with(&format!("line {line}: {path}: ")), "{to}: {problems:?}");
        assert!(problems[0].contains(text), "{to}: {problems:?}");
    }
}

#[test]
fn all_problems_at_once_in_the_order_of_their_lines() {
    let folder = Folder::new();
    let text = r#"nod = "x"
[engine]
batch = "many"
confidence = 3
[mqtt]
broker = 7
keep_alive = "1s"
[http]
listen = "0.0.0.0:1"
[[camera]]
id = "a"
url = "test://"
fps_max = -1
latency = "1s"
[[camera]]
mask = 1
[[camera]]
id = "a"
url = "x.mp4"
prio = 1
"#;
    let found: Vec<String> =
        folder.problems(text).iter().map(|p| p.splitn(3, ": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "line 1 nod",
        "line 2 engine.manifest",
        "line 3 engine.batch",
        "line 4 engine.confidence",
        "line 6 mqtt.broker",
        "line 7 mqtt.keep_alive",
        "line 9 http.listen",
        "line 13 camera[a].fps_max",
        "line 14 camera[a].latency",
        "line 15 camera[#2].id",
        "line 15 camera[#2].url",
        "line 16 camera[#2].mask",
        "line 18 camera[a].id",
        "line 20 camera[a].prio",
    ];
    assert_eq!(found, expected);
}

#[test]
fn no_camera_and_no_model_are_problems_without_a_line() {
    let problems = Folder::new().problems("");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("engine.manifest: no model"), "{problems:?}");
    assert_eq!(problems[1], "camera: no camera: add a [[camera]] section");
}

#[test]
fn unread_sections_bring_no_further_problems() {
    let folder = Folder::new();
    for text in ["engine = 1\ncamera = 2", "engine = []\ncamera = [1, {}]", "engine = 1\n[camera]\nid = \"a\""] {
        let problems = folder.problems(text);
        assert_eq!(problems.len(), 2, "{text}: {problems:?}");
    }
}

#[test]
fn files_that_are_no_configuration() {
    let folder = Folder::new();
    let load = |name: &str| super::load(&folder.path(name)).unwrap_err().to_string();
    assert_eq!(load("absent.toml"), "(file): there is no such file: give the path of a configuration file");
    assert!(load(".").contains("not a regular file"));
    folder.write("latin.toml", 0o644, b"node = \"x\"\n# \xe9\n");
    assert!(load("latin.toml").starts_with("line 2: "));
    folder.write("large.toml", 0o644, vec![b'#'; files::CONFIG_BYTES_MAX + 1]);
    assert!(load("large.toml").contains("larger than 1024 KiB"));
    folder.write("free.toml", 0o646, GOOD);
    assert_eq!(load("free.toml"), "(file): everyone may change this file: chmod o-w it");
    folder.write("free.toml", 0o646, with("edge07", "a/b"));
    assert_eq!(load("free.toml").lines().count(), 2);
    folder.write("good.toml", 0o644, GOOD);
    assert_eq!(super::load(&folder.path("good.toml")), folder.parse(GOOD));
}

#[test]
fn hostile_texts_are_problems() {
    let folder = Folder::new();
    let nest = |open: &str, close: &str, n: usize| format!("a = {}{}", open.repeat(n), close.repeat(n));
    let points = "[0.5,0.5],".repeat(50_000);
    for text in [
        nest("[", "]", 100_000),
        nest("{a=", "}", 100_000),
        format!("{}a = 1", "a.".repeat(300_000)),
        format!("[{}a]", "a.".repeat(70)),
        format!("[[{}a]]", "a.".repeat(70)),
        format!("{GOOD}mask = [[{points}]]"),
        format!("{GOOD}mask = [{}]", "[],".repeat(50_000)),
        format!("{GOOD}id2 = {}", "9".repeat(100_000)),
        format!("\"{}\" = 1", "k".repeat(500_000)),
        "[[camera]]\n".repeat(20_000),
        "[[camera]]\nx = 1\n".repeat(5_000),
        "x = 1\n".repeat(3),
        (0..300).map(|n| format!("x{n} = 1\n")).collect(),
        "\u{0}\u{1}\u{7f}\u{feff}".to_owned(),
        "\"\\u0000\" = 1".to_owned(),
        " ".repeat(files::CONFIG_BYTES_MAX + 1),
    ] {
        let Err(problems) = folder.parse(&text) else { panic!("{:?}", &text[..40]) };
        assert!(!problems.0.is_empty() && problems.0.len() <= 1000, "{:?}", &text[..text.len().min(40)]);
        assert!(problems.0.iter().all(|p| p.path.len() + p.text.len() < 1000), "{problems}");
    }
}
