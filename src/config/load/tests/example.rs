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
        if let Some(name) = line.strip_prefix('[') {
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

fn file_of(section: &str, line: &str) -> FileConfig {
    let text = match section {
        "" => line.to_owned(),
        "camera" => format!("[[camera]]\n{line}"),
        other => format!("[{other}]\n{line}"),
    };
    toml::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}"))
}

#[test]
fn example_shows_every_setting_with_its_default() {
    let settings = example_settings();
    for section in ["", "engine", "engine.tensorrt", "engine.openvino", "mqtt", "http", "camera"] {
        let base = match section {
            "camera" => file_of("camera", ""),
            _ => FileConfig::default(),
        };
        let debug = match section {
            "" => format!("{base:?}"),
            "engine" => format!("{:?}", base.engine),
            "engine.tensorrt" => format!("{:?}", base.engine.tensorrt),
            "engine.openvino" => format!("{:?}", base.engine.openvino),
            "mqtt" => format!("{:?}", base.mqtt),
            "http" => format!("{:?}", base.http),
            _ => format!("{:?}", base.camera[0]),
        };
        for (_, key, line, noted, active) in settings.iter().filter(|s| s.0 == section) {
            let has_default = !debug.contains(&format!(" {key}: None")) && key != "mask";
            let same = file_of(section, line) == base;
            let as_documented = *active || (has_default && same && !noted) || (!has_default && !same && *noted);
            assert!(as_documented, "[{section}] {line}: has a default {has_default}, equal {same}, noted {noted}");
        }
        let error = toml::from_str::<FileConfig>(&match section {
            "" => "zzz = 1".to_owned(),
            "camera" => "[[camera]]\nzzz = 1".to_owned(),
            other => format!("[{other}]\nzzz = 1"),
        });
        let message = error.unwrap_err().message().to_owned();
        let mut known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        let tables: &[&str] = match section {
            "" => &["engine", "mqtt", "http", "camera"],
            "engine" => &["openvino", "tensorrt"],
            _ => &[],
        };
        known.retain(|key| !tables.contains(key));
        assert!(!known.is_empty(), "{message}");
        let mut shown: Vec<&str> = settings.iter().filter(|s| s.0 == section).map(|s| s.1.as_str()).collect();
        known.sort_unstable();
        shown.sort_unstable();
        assert_eq!(shown, known, "[{section}]");
    }
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
