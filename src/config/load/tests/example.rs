//! `config/example.toml` is valid, shows every setting with its default, and survives being garbled.

use std::fs;
use std::path::PathBuf;

use crate::config::file::{FileConfig, TestPicture};
use crate::config::{Source, parse};

const EXAMPLE: &str = include_str!("../../../../config/example.toml");

/// The example's folder beside an engine's manifest, as in the source tree.
fn example_folder() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("engines")).unwrap();
    fs::create_dir(root.path().join("config")).unwrap();
    fs::write(root.path().join("engines/yolox-nano.toml"), "").unwrap();
    let config = root.path().join("config");
    (root, config)
}

#[test]
fn example_is_valid() {
    let (_root, folder) = example_folder();
    let config = parse(&format!("node = \"edge07\"\n{EXAMPLE}"), &folder).unwrap();
    assert_eq!(config.cameras.len(), 1);
    let test = TestPicture::default();
    assert_eq!(config.cameras[0].source, Source::Test { size: test.size, fps: test.fps, pattern: test.pattern });
}

/// The settings of `example.toml` as (section, key, line without #, "default: …" comment, active).
fn example_settings() -> Vec<(String, String, String, bool, bool)> {
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.trim_start_matches('#').strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
            continue;
        }
        let (active, body) = (!line.starts_with('#'), line.trim_start_matches('#'));
        let Some((key, _)) = body.split_once(" = ") else { continue };
        if !body.starts_with(' ') && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            let noted = body.contains("# default: ");
            settings.push((section.clone(), key.to_owned(), body.to_owned(), noted, active));
        }
    }
    settings
}

/// Every section: its name as the example has it, and the tables in it, which are sections of their own.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "engine",
            "mqtt",
            "http",
            "tracking",
            "events",
            "snapshots",
            "motion",
            "homeassistant",
            "frigate",
            "deepstream",
            "onvif",
            "cloudevents",
            "schedule",
            "camera",
        ],
    ),
    ("engine", &["openvino", "tensorrt"]),
    ("engine.tensorrt", &[]),
    ("engine.openvino", &[]),
    ("mqtt", &[]),
    ("http", &[]),
    ("tracking", &[]),
    ("events", &[]),
    ("snapshots", &[]),
    ("motion", &[]),
    ("homeassistant", &[]),
    ("frigate", &[]),
    ("deepstream", &[]),
    ("onvif", &[]),
    ("cloudevents", &[]),
    ("schedule", &[]),
    ("camera", &["zone", "line", "filter", "ignore", "events", "motion"]),
    ("camera.zone", &[]),
    ("camera.line", &[]),
    ("camera.filter", &[]),
    ("camera.ignore", &[]),
    ("camera.events", &[]),
    ("camera.motion", &[]),
];

/// Lists of tables.
const LISTS: [&str; 6] = ["schedule", "camera", "camera.zone", "camera.line", "camera.filter", "camera.ignore"];
/// Settings whose default is a list that means nothing given, and whose example is not that.
const EMPTY_LISTS: [(&str, &str); 2] = [("camera", "mask"), ("schedule", "windows")];

fn text_of(section: &str, line: &str) -> String {
    let header = match section {
        "" => String::new(),
        list if LISTS.contains(&list) => format!("[[{list}]]\n"),
        table => format!("[{table}]\n"),
    };
    let camera = if section.starts_with("camera.") { "[[camera]]\n" } else { "" };
    format!("{camera}{header}{line}")
}

fn file_of(section: &str, line: &str) -> FileConfig {
    toml::from_str(&text_of(section, line)).unwrap_or_else(|e| panic!("{line}: {e}"))
}

#[test]
fn example_shows_every_setting_with_its_default() {
    let settings = example_settings();
    assert!(settings.iter().all(|setting| SECTIONS.iter().any(|(section, _)| *section == setting.0)));
    for (section, tables) in SECTIONS {
        let base = file_of(section, "");
        let of_section = || settings.iter().filter(|setting| setting.0 == *section);
        for (_, key, line, noted, active) in of_section() {
            let none = EMPTY_LISTS.contains(&(section, key.as_str())) || is_optional(section, key);
            let same = file_of(section, line) == base;
            let as_documented = *active || (!none && same && !noted) || (none && !same && *noted);
            assert!(as_documented, "[{section}] {line}: optional {none}, equal {same}, noted {noted}");
        }
        let error = toml::from_str::<FileConfig>(&text_of(section, "zzz = 1"));
        let message = error.unwrap_err().message().to_owned();
        let mut known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        known.retain(|key| !tables.contains(key));
        assert!(!known.is_empty() || section.is_empty(), "{message}");
        let mut shown: Vec<&str> = of_section().map(|s| s.1.as_str()).collect();
        known.sort_unstable();
        shown.sort_unstable();
        assert_eq!(shown, known, "[{section}]");
    }
}

/// The setting has no default: it is `None` where it is not given.
fn is_optional(section: &str, key: &str) -> bool {
    let file = file_of(section, "");
    let debug = match section {
        "" => format!("{file:?}"),
        "engine" => format!("{:?}", file.engine),
        "engine.tensorrt" => format!("{:?}", file.engine.tensorrt),
        "engine.openvino" => format!("{:?}", file.engine.openvino),
        "mqtt" => format!("{:?}", file.mqtt),
        "http" => format!("{:?}", file.http),
        "tracking" => format!("{:?}", file.tracking),
        "events" => format!("{:?}", file.events),
        "snapshots" => format!("{:?}", file.snapshots),
        "motion" => format!("{:?}", file.motion),
        "homeassistant" => format!("{:?}", file.homeassistant),
        "frigate" => format!("{:?}", file.frigate),
        "deepstream" => format!("{:?}", file.deepstream),
        "onvif" => format!("{:?}", file.onvif),
        "cloudevents" => format!("{:?}", file.cloudevents),
        "schedule" => format!("{:?}", file.schedule[0]),
        "camera.zone" => format!("{:?}", file.camera[0].zone[0]),
        "camera.line" => format!("{:?}", file.camera[0].line[0]),
        "camera.filter" => format!("{:?}", file.camera[0].filter[0]),
        "camera.ignore" => format!("{:?}", file.camera[0].ignore[0]),
        "camera.events" => format!("{:?}", file.camera[0].events),
        "camera.motion" => format!("{:?}", file.camera[0].motion),
        // Without the sections in it, which have settings of the same names.
        _ => format!("{:?}", file.camera[0]).split(" events: ").next().unwrap_or_default().to_owned(),
    };
    debug.contains(&format!(" {key}: None"))
}

#[test]
fn mutated_examples_never_panic() {
    let (_root, folder) = example_folder();
    let active: String = EXAMPLE
        .lines()
        .map(|l| format!("{}\n", l.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(l)))
        .collect();
    let pieces = [
        "[",
        "]",
        "[[camera]]\n",
        "\"",
        "=",
        "'",
        "\n",
        "{",
        "}",
        "1",
        "-",
        "nan",
        "://",
        "@",
        "%",
        ".",
        "é",
        "\0",
    ];
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = if seed % 2 == 0 { EXAMPLE.to_owned() } else { active.clone() };
        for _ in 0..random.usize(1..8) {
            let at = |random: &mut fastrand::Rng, text: &str| text.floor_char_boundary(random.usize(..=text.len()));
            let (a, b) = (at(&mut random, &text), at(&mut random, &text));
            match random.u8(..4) {
                0 => text.replace_range(a..text.ceil_char_boundary((a + random.usize(..40)).min(text.len())), ""),
                1 => text.insert_str(a, random.choice(pieces).unwrap_or_default()),
                2 => text.replace_range(
                    a..text.ceil_char_boundary((a + 1).min(text.len())),
                    random.choice(pieces).unwrap_or_default(),
                ),
                _ => {
                    let piece = text[b..text.ceil_char_boundary((b + 60).min(text.len()))].to_owned();
                    text.insert_str(a, &piece);
                }
            }
        }
        if let Err(problems) = parse(&text, &folder) {
            let lines = text.split('\n').count();
            assert!(!problems.0.is_empty(), "seed {seed}");
            assert!(
                problems.0.iter().all(|p| p.line.is_none_or(|line| (1..=lines).contains(&line))),
                "seed {seed}"
            );
        }
    }
}
