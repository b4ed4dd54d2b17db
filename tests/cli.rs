//! Bad input at the command line: each gets one clear sentence and the right exit code, with nothing half-started.
//!
//! The real program over real files, libraries and brokers. The OpenVINO library is found as the program finds it.

mod support;

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use support::mosquitto::{Message, Mosquitto, Subscriber, free_port};
use support::onnx;
use support::program::{Daemon, Ended, Site, Written, ended, program};

/// Exit codes.
const INTERNAL: i32 = 1;
const UNAVAILABLE: i32 = 69;
const SPOOL: i32 = 74;
const CONFIG: i32 = 78;

/// Stops as it should within this; the limit of the stop itself is 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(9);

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn arguments(list: &[&str]) -> Ended {
    ended(program().args(list))
}

#[test]
fn version_help_and_wrong_arguments() {
    let version = arguments(&["--version"]);
    assert_eq!((version.code, version.out.starts_with("watchpost ")), (Some(0), true), "{version:?}");
    let help = arguments(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in ["run", "check", "probe", "detect", "engine", "bench", "schema"] {
        assert!(help.out.contains(command), "{command}: {help:?}");
        assert_eq!(arguments(&[command, "--help"]).code, Some(0), "{command}");
    }
    // The convention of command lines, as clap has it.
    for wrong in [&["fly"][..], &[], &["probe"], &["bench", "x.toml", "--seconds", "0"]] {
        let said = arguments(wrong);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{wrong:?}: {said:?}");
    }
    arguments(&["--log", "watchpost=loud", "schema"])
        .says_in_one_line(CONFIG, &["\"watchpost=loud\"", "give --log"]);
}

#[test]
fn schemas_are_json_for_each_message() {
    let site = Site::new();
    let printed = arguments(&["schema"]);
    let folder = site.path("schemas");
    assert_eq!(arguments(&["schema", "--out", folder.to_str().unwrap()]).code, Some(0));
    let files: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .inspect(|text| assert!(printed.out.contains(text.as_str()), "not printed: {text}"))
        .collect();
    for name in ["detections", "events", "notice", "info", "health", "state"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.schema.json"))).unwrap();
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["type"], "object", "{name}");
    }
    let document: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("asyncapi.json")).unwrap()).unwrap();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(files.iter().map(String::len).sum::<usize>(), printed.out.len(), "all that is printed is written");
    let file = site.write("file", "");
    arguments(&["schema", "--out", file.to_str().unwrap()]).says_in_one_line(CONFIG, &["--out", "give a folder"]);
}

#[test]
fn a_sound_configuration_is_good() {
    let site = Site::new();
    let said = site.check(&Written::default());
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.out.contains("good: node box, 1 camera(s), model tiny"), "{said:?}");
    assert!(!site.path("state").exists(), "a check leaves nothing behind");
}

#[test]
fn every_problem_of_a_configuration_is_told_at_once_with_its_line() {
    let site = Site::new();
    site.write("tiny.toml", "name = \"\"\nmodel = \"none.onnx\"\nlabels = [\"a\"]\ninput.size = [9, 9]\n");
    let cameras = "[[camera]]\nid = \"gate\"\nurl = \"foo://x\"\n[[camera]]\nid = \"gate\"\nurl = \"none.mp4\"\n\
        [[camera]]\nid = \"yard\"\nurl = \"test://\"\npipeline = \"none.gst\"\npriority = \"high\"";
    let written = Written {
        top: "colour = \"red\"",
        engine: "manifest = \"tiny.toml\"\nbatch = \"two\"\nopenvino.device = \"cpu\"",
        cameras,
        ..Written::default()
    };
    let in_config = [
        "config.toml: line 3: colour: there is no such setting",
        "config.toml: line 6: engine.batch: give a whole number, not a text in quotes",
        "config.toml: line 7: engine.openvino.device: give CPU, GPU, NPU or AUTO",
        "config.toml: line 14: camera[gate].url: give rtsp://",
        "config.toml: line 16: camera[gate].id: another camera on line 13 has this id",
        "config.toml: line 21: camera[yard].pipeline: there is no such file",
        "config.toml: line 22: camera[yard].priority: give a whole number, not a text in quotes",
    ];
    let checked = site.check(&written);
    checked.says(CONFIG, &in_config);
    let beside = [
        "config.toml: camera[gate]: file ",
        "none.mp4: No such file or directory",
        "tiny.toml: line 1: name: is empty",
        "tiny.toml: line 4: input.size: is out of range",
    ];
    checked.says(CONFIG, &beside);
    assert_eq!(checked.err.lines().count(), in_config.len() + 3, "{checked:#?}");
    let ran = ended(&mut site.run(&written));
    ran.says(CONFIG, &in_config);
    assert_eq!(ran.err.lines().count(), in_config.len(), "{ran:#?}");
    assert!(!site.path("state").exists(), "nothing was started");
}

#[test]
fn labels_that_the_model_has_not_are_told_with_their_lines() {
    let site = Site::new();
    let cameras = "[[camera]]\nid = \"gate\"\nurl = \"test://\"\n[[camera.zone]]\nname = \"drive\"\n\
        polygon = [[0, 0], [1, 0], [1, 1]]\nlabels = [\"a\", \"person\"]\n[camera.events]\nlabels = [\"B\"]";
    let written = Written { cameras, ..Written::default() };
    let told = [
        "config.toml: line 16: camera[gate].zone[drive].labels: the model has no label \"person\": give one of",
        "config.toml: line 18: camera[gate].events.labels: the model has no label \"B\": did you mean \"b\"?",
    ];
    for said in [site.check(&written), ended(&mut site.run(&written))] {
        said.says(CONFIG, &told);
        assert_eq!(said.err.matches("the model has no label").count(), told.len(), "{said:#?}");
    }
}

#[test]
fn what_the_machine_lacks_is_told_together_with_what_is_wrong() {
    let site = Site::new();
    site.write("tiny.toml", "name = \"tiny\"\nmodel = \"none.onnx\"\nlabels = [\"a\"]\n");
    let written = |top| Written {
        top,
        engine: "manifest = \"tiny.toml\"\nopenvino.library = \"none.so\"",
        cameras: "[[camera]]\nid = \"gate\"\nurl = \"none.mp4\"\n[[camera]]\nid = \"usb\"\nurl = \"v4l2:///dev/none\"\n\
            [[camera]]\nid = \"net\"\nurl = \"rtsps://127.0.0.1/x\"",
        ..Written::default()
    };
    // No plug-in can be found.
    let check = |written: &Written<'_>| {
        let mut command = program();
        command.env("GST_PLUGIN_SYSTEM_PATH_1_0", site.path("plugins")).env_remove("GST_PLUGIN_PATH");
        command.env_remove("GST_PLUGIN_PATH_1_0").env_remove("GST_PLUGIN_SYSTEM_PATH");
        ended(command.env("GST_REGISTRY_1_0", site.path("registry")).arg("check").arg(site.config(written)))
    };
    let missing = [
        "camera[gate]: pipeline description `file`: GStreamer elements are missing (filesrc,",
        "camera[gate]: GStreamer elements are missing (qtdemux, h264parse, avdec_h264): install \
         gstreamer1.0-libav, gstreamer1.0-plugins-bad, gstreamer1.0-plugins-good",
        "camera[usb]: device /dev/none: No such file",
        "camera[net]: pipeline description `rtsp`: GStreamer elements are missing (rtspsrc,",
        "rtph265depay, h264parse, h265parse, avdec_h264, avdec_h265): install",
        "engine: the OpenVINO library cannot be opened",
        "none.so: No such file or directory (os error 2)): run scripts/get-openvino",
        "none.onnx: No such file or directory",
    ];
    check(&written("")).says(UNAVAILABLE, &missing);
    let both = check(&written("colour = \"red\""));
    both.says(CONFIG, &missing);
    both.says(CONFIG, &["line 3: colour: there is no such setting"]);
}

#[test]
fn a_machine_without_authorities_is_told_of_their_package() {
    let site = Site::new();
    let written = Written { mqtt: "broker = \"mqtts://broker.lan\"", ..Written::default() };
    let mut command = program();
    command.env("SSL_CERT_FILE", site.write("none.pem", "")).env_remove("SSL_CERT_DIR");
    let words = "config.toml: mqtt: the system's certificate store holds no usable certificate authority: install ca-certificates";
    ended(command.arg("check").arg(site.config(&written))).says_in_one_line(CONFIG, &[words]);
}

#[test]
fn files_of_a_configuration() {
    let site = Site::new();
    let none = site.path("none.toml").to_str().unwrap().to_owned();
    for command in ["check", "run"] {
        let said = arguments(&[command, &none]);
        said.says_in_one_line(CONFIG, &["none.toml: there is no such file: give the path of a configuration file"]);
        let folder = site.0.path().to_str().unwrap();
        arguments(&[command, folder]).says_in_one_line(CONFIG, &["not a regular file: give the path"]);
        let text = site.write("broken.toml", "node = \n");
        arguments(&[command, text.to_str().unwrap()]).says_in_one_line(CONFIG, &["line 1: this is not TOML"]);
        let bytes = site.write("latin1.toml", b"# \xe9\n");
        arguments(&[command, bytes.to_str().unwrap()])
            .says_in_one_line(CONFIG, &["line 1: this line is not UTF-8"]);
        let config = site.config(&Written::default());
        set_mode(&config, 0o666);
        arguments(&[command, config.to_str().unwrap()])
            .says_in_one_line(CONFIG, &["config.toml: everyone may change this file: chmod o-w it"]);
        set_mode(&config, 0o644);
    }
    let mqtt = "broker = \"mqtt://127.0.0.1:1\"\nuser = \"u\"\npassword_file = \"secret\"";
    let written = Written { mqtt, ..Written::default() };
    site.check(&written).says_in_one_line(CONFIG, &["line 9: mqtt.password_file: there is no such file"]);
    let secret = site.write("secret", "hunter2-s3cret\n");
    set_mode(&secret, 0o644);
    site.check(&written).says_in_one_line(CONFIG, &["line 9: mqtt.password_file: others may read", "chmod 600"]);
    set_mode(&secret, 0o200);
    // The superuser reads whatever the mode says.
    if std::fs::File::open(&secret).is_err() {
        site.check(&written).says_in_one_line(CONFIG, &["mqtt.password_file: this user may not read the file"]);
    }
    set_mode(&secret, 0o600);
    assert_eq!(site.check(&written).code, Some(0));
}

#[test]
fn manifests() {
    let site = Site::new();
    let of = |text: &str| {
        site.write("tiny.toml", text);
        site.check(&Written::default())
    };
    let base = "name = \"tiny\"\nmodel = \"tiny.onnx\"\n";
    let two = format!("{base}labels = [\"a\", \"b\"]\n");
    let several = of("model = 1\nname = \"x\"\n");
    several.says_in_one_line(CONFIG, &["tiny.toml: line 1: model:"]);
    of(&format!("{two}colour = 1\n")).says_in_one_line(CONFIG, &["tiny.toml: line 4: colour: unknown field"]);
    let wrong = of("name = \"\"\nsha256 = \"12\"\nlabels = []\noutput.head = \"yolov99\"\nthresholds.nms = 2.0\n");
    wrong.says(
        CONFIG,
        &["line 1: name:", "model: is missing", "line 2: sha256:", "line 3: labels:", "line 4: output.head"],
    );
    assert_eq!(wrong.err.lines().count(), 6, "{wrong:#?}");
    of(&format!("{base}labels_file = \"none.txt\"\n")).says_in_one_line(CONFIG, &["line 3: labels_file: none.txt"]);
    // What only the model tells.
    of(&format!("{base}labels = [\"a\"]\n"))
        .says_in_one_line(CONFIG, &["tiny.onnx: no head fits", "`output` has 2 classes, give that many labels"]);
    of(&format!("{two}output.head = \"yolox\"\n"))
        .says_in_one_line(CONFIG, &["`head = \"yolox\"`", "`head = \"auto\"` finds yolov8"]);
    of(&format!("{two}input.size = [64, 64]\n"))
        .says_in_one_line(CONFIG, &["its input is 32x32, the manifest says 64x64: correct input.size"]);
    of(&format!("{two}sha256 = \"{}\"\n", "0".repeat(64))).says_in_one_line(CONFIG, &["SHA-256", "correct sha256"]);
    std::fs::remove_file(site.path("tiny.toml")).unwrap();
    site.check(&Written::default())
        .says_in_one_line(CONFIG, &["line 5: engine.manifest: there is no such file", "tiny.toml"]);
}

#[test]
fn models() {
    let site = Site::new();
    let whole = onnx::yolov8();
    let cases: [(&[u8], i32, &str); 6] = [
        (b"", UNAVAILABLE, "tiny.onnx: it is empty: get the file again"),
        (&whole[..whole.len() / 2], UNAVAILABLE, "tiny.onnx: it is cut off after"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            UNAVAILABLE,
            "tiny.onnx: it is not an ONNX model: export",
        ),
        (&[0xa7; 5000], UNAVAILABLE, "tiny.onnx: it is not an ONNX model: export"),
        (&onnx::picture("NoSuchOperator"), UNAVAILABLE, "tiny.onnx: OpenVINO cannot read it"),
        (&onnx::picture("Relu"), CONFIG, "tiny.onnx: no head fits the model's outputs `output` 1x3x32x32"),
    ];
    for (bytes, code, words) in cases {
        site.write("tiny.onnx", bytes);
        site.check(&Written::default()).says_in_one_line(code, &["config.toml: engine: model", words]);
    }
    // Whole outside, broken inside: OpenVINO lets every format it knows complain.
    site.write("tiny.onnx", [0x08, 8, 0x3a, 3, 0xff, 0xff, 0xff]);
    let said = site.check(&Written::default());
    assert!(said.code == Some(UNAVAILABLE) && said.err.contains("OpenVINO cannot read it"), "{said:#?}");
    std::fs::remove_file(site.path("tiny.onnx")).unwrap();
    for said in [site.check(&Written::default()), ended(&mut site.run(&Written::default()))] {
        said.says_in_one_line(UNAVAILABLE, &["tiny.onnx: No such file or directory", "put the model there"]);
    }
    std::fs::create_dir(site.path("tiny.onnx")).unwrap();
    site.check(&Written::default()).says_in_one_line(UNAVAILABLE, &["tiny.onnx: is a directory"]);
    assert!(!site.path("state").exists(), "nothing was started");
    site.write("other.onnx", onnx::yolov8());
    let engine = "manifest = \"tiny.toml\"\nmodel = \"other.onnx\"\nbatch = 3";
    let written = Written { engine, ..Written::default() };
    site.check(&written).says_in_one_line(CONFIG, &["cannot take a batch of 3: set engine.batch = 1"]);
}

#[test]
fn libraries_and_devices() {
    let site = Site::new();
    site.write("text.so", "ov_core_create, but no library");
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        maps.lines().find_map(|line| line.split_whitespace().last().filter(|path| path.contains("/libc"))).unwrap();
    let cases = [
        (
            "library = \"none.so\"".to_owned(),
            "none.so: No such file or directory (os error 2)): run scripts/get-openvino",
        ),
        ("library = \"text.so\"".to_owned(), "text.so: file too short"),
        (format!("library = {libc:?}"), "is not OpenVINO's C library): run scripts/get-openvino"),
        ("device = \"NPU\"".to_owned(), "OpenVINO has no device NPU on this machine, only CPU"),
        ("device = \"GPU.7\"".to_owned(), "OpenVINO has no device GPU.7 on this machine"),
    ];
    for (setting, words) in cases {
        let engine = format!("manifest = \"tiny.toml\"\nopenvino.{setting}");
        let written = Written { engine: &engine, ..Written::default() };
        site.check(&written).says_in_one_line(UNAVAILABLE, &["config.toml: engine: ", words]);
    }
    let engine = "manifest = \"tiny.toml\"\nopenvino.library = \"none.so\"";
    let written = Written { engine, ..Written::default() };
    ended(&mut site.run(&written)).says_in_one_line(UNAVAILABLE, &["set engine.openvino.library"]);
    assert!(!site.path("state").exists(), "nothing was started");
}

#[test]
fn pipeline_descriptions() {
    let site = Site::new();
    let cases: [(&[u8], i32, &str); 10] = [
        (
            b"nosuch name=src ! h264parse2 ! appsink name=frames",
            UNAVAILABLE,
            "missing (nosuch, h264parse2): install the",
        ),
        (b"videotestsrc ! appsink name=frames", CONFIG, "no element has name=src"),
        (b"videotestsrc name=src ! fakesink name=frames", CONFIG, "no appsink has name=frames"),
        (b"videotestsrc name=src", CONFIG, "it holds a single element"),
        (b"videotestsrc name=src !! appsink", CONFIG, "syntax error"),
        (b"# nothing\n", CONFIG, "own.gst`: empty pipeline"),
        (b"videotestsrc name=src colour=1 ! appsink name=frames", CONFIG, "own.gst`: no property \"colour\""),
        (b"videotestsrc name=src ! h264parse ! appsink name=frames", CONFIG, "own.gst`: could not link"),
        (b"videotestsrc name=src ! appsink name=frames", CONFIG, "no capsfilter name=size"),
        (b"\xff\xfe", CONFIG, "own.gst`: stream did not contain valid UTF-8: give a text file, or one of rtsp"),
    ];
    let cameras = "[[camera]]\nid = \"gate\"\nurl = \"test://\"\npipeline = \"own.gst\"";
    let written = Written { cameras, ..Written::default() };
    for (text, code, words) in cases {
        site.write("own.gst", text);
        site.check(&written).says_in_one_line(code, &["config.toml: camera[gate]: ", words]);
    }
    site.write("own.gst", "filesrc name=src ! appsink name=frames");
    site.check(&written).says_in_one_line(CONFIG, &["`src` is filesrc, which has no `pattern`"]);
    // In a running daemon it is that camera's state, and tried again.
    let mut daemon = Daemon::start(&mut site.run(&written));
    let line = daemon.wait_for("which has no `pattern`");
    assert!(line.contains("next attempt in") && line.contains("camera=gate"), "{line}");
    daemon.wait_for("ready after");
    daemon.terminate();
    assert_eq!(daemon.finish().0, Some(0));
}

/// Passwords that must not be seen again.
const SECRETS: [&str; 3] = ["hunter2-camera", "hunter2-broker", "hunter2-token"];

#[track_caller]
fn tells_no_secret(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

/// What a run says at the most talkative level, from its start over `until` to its end.
fn told_by_run(command: &mut std::process::Command, until: &[&str]) -> String {
    let mut daemon = Daemon::start(command.args(["--log", "trace"]));
    for words in until {
        daemon.wait_for(words);
    }
    daemon.terminate();
    let (code, text, _) = daemon.finish();
    assert_eq!(code, Some(0), "{text}");
    text
}

#[test]
fn passwords_are_never_shown() {
    let site = Site::new();
    let token = site.write("token", SECRETS[2]);
    set_mode(&token, 0o600);
    let dead = format!("rtsp://admin:{}@127.0.0.1:{}/x", SECRETS[0], free_port());
    let cameras = format!("[[camera]]\nid = \"gate\"\nurl = \"{dead}\"");
    let broker = format!("broker = \"mqtt://user:{}@127.0.0.1:{}\"", SECRETS[1], free_port());
    let http = "listen = \"127.0.0.1:0\"\ntoken_file = \"token\"";
    let written = Written { mqtt: &broker, http, cameras: &cameras, ..Written::default() };
    let config = site.config(&written);
    for trace in [&[][..], &["--log", "trace"]] {
        let said = ended(program().arg("check").arg(&config).args(trace));
        assert_eq!(said.code, Some(0), "{said:?}");
        tells_no_secret(&format!("{said:?}"));
        let said = ended(program().args(["probe", &dead]).args(trace));
        assert_eq!(said.code, Some(UNAVAILABLE), "{said:?}");
        tells_no_secret(&format!("{said:?}"));
    }
    tells_no_secret(&told_by_run(&mut site.run(&written), &["camera=gate", "nothing listens at", "ready after"]));
    // In the wrong places, and in an address that cannot be read.
    for setting in [
        "password = \"hunter2-broker\"",
        "password_file = \"hunter2-broker\"",
        "broker = \"mqtt://user:hunter2-broker@\"",
        "broker = \"mqtt://user:hunter2-broker/@x\"",
        "protocol = \"hunter2-broker\"",
    ] {
        let said = site.check(&Written { mqtt: &format!("user = \"u\"\n{setting}"), ..Written::default() });
        assert_eq!(said.code, Some(CONFIG), "{said:?}");
        tells_no_secret(&said.err);
    }
    let said = arguments(&["probe", "rtsp://admin:hunter2-camera@:x/y"]);
    said.says_in_one_line(CONFIG, &["the address: "]);
    tells_no_secret(&said.err);
    // A broker that lets us in, at its own most talkative level.
    let mut broker = Mosquitto::prepare(free_port());
    let file = broker.password_file("user", SECRETS[1]);
    broker.configure(&["allow_anonymous false", &format!("password_file {file}")]);
    broker.restart();
    let mqtt = format!("broker = \"mqtt://user:{}@127.0.0.1:{}\"", SECRETS[1], broker.port());
    let written = Written { mqtt: &mqtt, http, cameras: &cameras, ..Written::default() };
    tells_no_secret(&told_by_run(&mut site.run(&written), &["connected to the broker", "ready after"]));
}

#[test]
fn ports_and_folders_that_are_taken() {
    let site = Site::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let http = format!("listen = \"{address}\"");
    ended(&mut site.run(&Written { http: &http, ..Written::default() })).says_in_one_line(
        UNAVAILABLE,
        &[&format!("cannot listen on {address}"), "give http.listen another address"],
    );
    assert!(!site.path("state").exists(), "nothing was started");
    let mqtt = format!("broker = \"embedded\"\nembedded_listen = \"{address}\"");
    ended(&mut site.run(&Written { mqtt: &mqtt, ..Written::default() })).says_in_one_line(
        UNAVAILABLE,
        &[&format!("the embedded broker cannot listen on {address}"), "give another"],
    );
    site.write("file", "");
    for top in ["state_dir = \"file\"", "state_dir = \"file/below\""] {
        let written = Written { top, ..Written::default() };
        ended(&mut site.run(&written))
            .says_in_one_line(SPOOL, &["state_dir ", "set state_dir to a writable folder"]);
        site.check(&written).says_in_one_line(SPOOL, &["state_dir: ", "file is not a folder: give another path"]);
    }
    let mut first = Daemon::start(&mut site.run(&Written::default()));
    first.wait_for("started");
    ended(&mut site.run(&Written::default()))
        .says_in_one_line(SPOOL, &["the spool ", "cannot be opened", "run one watchpost in it"]);
    first.wait_for("ready after");
    first.terminate();
    assert_eq!(first.finish().0, Some(0));
}

#[test]
fn the_broker_is_waited_for() {
    let site = Site::new();
    let mut broker = Mosquitto::prepare(free_port());
    let file = broker.password_file("user", "right");
    broker.configure(&["allow_anonymous false", &format!("password_file {file}")]);
    let mqtt = format!("broker = \"mqtt://user:wrong@127.0.0.1:{}\"", broker.port());
    let written = Written { mqtt: &mqtt, ..Written::default() };
    // Nobody there.
    let mut daemon = Daemon::start(&mut site.run(&written));
    daemon.wait_for("connection refused): start the broker, or give its address");
    daemon.wait_for("ready after");
    daemon.terminate();
    let (code, text, time) = daemon.finish();
    assert!(code == Some(0) && time < STOP_LIMIT, "{code:?} after {time:?}: {text}");
    // There, and the password is wrong.
    broker.restart();
    let mut daemon = Daemon::start(&mut site.run(&written));
    let line = daemon.wait_for("WARN watchpost::publish");
    assert!(line.contains("password"), "{line}");
    daemon.wait_for("ready after");
    daemon.terminate();
    let (code, text, time) = daemon.finish();
    assert!(code == Some(0) && time < STOP_LIMIT, "{code:?} after {time:?}: {text}");
}

#[test]
fn a_second_termination_ends_at_once() {
    let site = Site::new();
    // Takes connections and never answers: the stop would wait for it.
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mqtt = format!("broker = \"mqtt://{}\"", deaf.local_addr().unwrap());
    let written = Written { top: "stop_deadline = \"5m\"", mqtt: &mqtt, ..Written::default() };
    let mut daemon = Daemon::start(&mut site.run(&written));
    daemon.wait_for("ready after");
    daemon.terminate();
    daemon.wait_for("stopping");
    daemon.terminate();
    let (code, text, time) = daemon.finish();
    assert!(code == Some(INTERNAL) && time < STOP_LIMIT, "{code:?} after {time:?}: {text}");
}

#[test]
fn an_engine_that_cannot_be_opened_ends_a_run_in_order() {
    let broker = Mosquitto::start(&[]);
    let mqtt = format!("broker = \"mqtt://127.0.0.1:{}\"", broker.port());
    for (model, code, words) in [
        (onnx::picture("Relu"), CONFIG, "no head fits"),
        (onnx::picture("NoSuchOperator"), UNAVAILABLE, "OpenVINO cannot read it"),
    ] {
        let site = Site::new();
        site.write("tiny.onnx", model);
        let subscriber = Subscriber::start(broker.port(), "watchpost/box/#", None);
        let mut daemon = Daemon::start(&mut site.run(&Written { mqtt: &mqtt, ..Written::default() }));
        daemon.wait_for(words);
        let (ended, text, time) = daemon.finish();
        assert!(ended == Some(code) && time < STOP_LIMIT, "{ended:?} after {time:?}: {text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("watchpost: model ") && last.contains(words), "{text}");
        let mut messages = Vec::new();
        let is_last = |m: &Message| !m.retained && m.topic == "watchpost/box/status" && m.text() == "offline";
        while !messages.last().is_some_and(is_last) {
            messages.push(subscriber.next());
        }
        messages.retain(|message| !message.retained);
        let of = |topic: &str| messages.iter().rfind(|m| m.topic == topic).map(|m| m.text()).unwrap_or_default();
        assert!(of("watchpost/box/notice").contains(words), "{messages:#?}");
        assert_eq!(of("watchpost/box/cam/gate/status"), "offline", "{messages:#?}");
    }
}

#[test]
fn a_missing_video_file_is_waited_for() {
    let site = Site::new();
    let cameras = "[[camera]]\nid = \"gate\"\nurl = \"none.mp4\"";
    let written = Written { cameras, ..Written::default() };
    site.check(&written).says_in_one_line(UNAVAILABLE, &["camera[gate]: file ", "none.mp4: No such file"]);
    let mut daemon = Daemon::start(&mut site.run(&written));
    let line = daemon.wait_for("none.mp4: No such file");
    assert!(line.contains("next attempt in"), "{line}");
    daemon.wait_for("ready after");
    daemon.terminate();
    assert_eq!(daemon.finish().0, Some(0));
}

#[test]
fn pictures() {
    let site = Site::new();
    let manifest = site.path("tiny.toml");
    let detect = |more: &[&Path]| ended(program().args(["detect", "--engine"]).arg(&manifest).args(more));
    detect(&[&site.path("none.jpg")])
        .says_in_one_line(CONFIG, &["none.jpg: No such file", "give a picture, or a folder of them"]);
    let empty = site.path("empty");
    std::fs::create_dir(&empty).unwrap();
    detect(&[&empty])
        .says_in_one_line(CONFIG, &["empty: no pictures in it: give a folder with jpg, jpeg, png, bmp"]);
    for (name, body) in [("text.jpg", "just words\n".repeat(100)), ("zeros.jpg", "\0".repeat(100_000))] {
        let said = detect(&[&site.write(name, body)]);
        let last = said.err.lines().last().unwrap_or_default().to_owned();
        Ended { err: last, ..said }
            .says_in_one_line(CONFIG, &[name, ": it is no video or picture that GStreamer knows"]);
    }
    let named = site.write("cat.jpg", "");
    let results = site.path("results.json");
    let coco = |results: &Path, picture: &Path| detect(&[Path::new("--coco"), results, picture]);
    coco(&results, &named).says_in_one_line(CONFIG, &["cat.jpg: its name has no COCO image id: name it like"]);
    coco(&site.path("none/results.json"), &named).says_in_one_line(CONFIG, &["--coco", "give a file in a folder"]);
    let with = |option: &str, value: &str| detect(&[Path::new(option), Path::new(value), &named]);
    with("--confidence", "7").says_in_one_line(CONFIG, &["--confidence 7: give a number from 0 to 1"]);
    with("--precision", "f64").says_in_one_line(CONFIG, &["--precision f64: give auto, f32, f16 or bf16"]);
    with("--device", "TPU").says_in_one_line(UNAVAILABLE, &["OpenVINO has no device TPU", "(--device)"]);
    with("--openvino", "none.so")
        .says_in_one_line(UNAVAILABLE, &["the OpenVINO library cannot be opened (none.so"]);
    with("--model", "none.onnx").says_in_one_line(UNAVAILABLE, &["model none.onnx: No such file"]);
    let none = site.path("none.toml");
    ended(program().args(["detect", "--engine"]).arg(none).arg(&named))
        .says_in_one_line(CONFIG, &["none.toml cannot be read", "give the path of a file"]);
}

#[test]
fn addresses_to_probe() {
    let site = Site::new();
    let jpeg = site.path("probe.jpg");
    let probe = |url: &str| ended(program().args(["probe", url, "--duration", "1s", "--jpeg"]).arg(&jpeg));
    let dead = format!("rtsp://127.0.0.1:{}/x", free_port());
    probe(&dead).says_in_one_line(UNAVAILABLE, &[&dead, "Failed to connect", "check the address"]);
    probe("foo://x").says_in_one_line(CONFIG, &["the address: give rtsp://, rtsps://, file:///"]);
    probe("none.mp4").says_in_one_line(UNAVAILABLE, &["none.mp4: No such file", "give the path of a video"]);
    let text = site.write("text.mp4", "just words\n".repeat(1000));
    let text = text.to_str().unwrap();
    probe(text).says_in_one_line(UNAVAILABLE, &[text, "it is no video or picture that GStreamer knows"]);
    probe("v4l2:///dev/none").says_in_one_line(UNAVAILABLE, &["v4l2:///dev/none: ", "/dev/none"]);
    assert!(!jpeg.exists());
    let said = probe("test://?size=64x48");
    assert!(said.code == Some(0) && said.out.contains("video/x-raw") && jpeg.exists(), "{said:?}");
    // A codec that nothing here decodes.
    let clips = std::env::var("WATCHPOST_ASSETS").unwrap_or("../shared/assets".to_owned());
    let clip = Path::new(&clips).join("videos/intel_one-by-one-person-detection.mp4");
    if clip.exists() {
        let mut command = program();
        command.env("GST_PLUGIN_FEATURE_RANK", "avdec_h264:NONE,openh264dec:NONE").arg("probe").arg(clip);
        ended(command.arg("--jpeg").arg(&jpeg))
            .says_in_one_line(UNAVAILABLE, &["GStreamer has no decoder: H.264 (Main Profile): install"]);
    } else {
        eprintln!("skipped in part: no clips in {clips}");
    }
    let folder = site.0.path();
    ended(program().args(["probe", "test://", "--jpeg"]).arg(folder))
        .says_in_one_line(UNAVAILABLE, &["test://: picture", "give another with --jpeg"]);
}
