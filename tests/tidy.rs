//! House rules that a compiler does not hold: lengths of files and functions, who may use what, where `unsafe` may
//! stand, and that the documents name only files that exist.
//!
//! The table of who may use what is the one of ARCHITECTURE.md. It is read off `use` trees and paths in the text,
//! with comments, literals and `#[cfg(test)]` modules taken out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Files and folders in which `unsafe` may stand.
const UNSAFE_HOMES: &[&str] = &[
    "src/gpu/",
    "src/gpu.rs",
    "src/camera/memory.rs",
    "src/camera/memory/",
    "tests/gpu_cameras.rs",
    "tensorrt-sys/",
];

/// Crates that only some modules know.
const CRATE_HOMES: &[(&str, &[&str])] = &[
    ("gstreamer", &["camera"]),
    ("gstreamer_app", &["camera"]),
    ("gstreamer_video", &["camera"]),
    ("cudarc", &["gpu"]),
    ("tensorrt_sys", &["gpu"]),
    ("libloading", &["camera", "gpu"]),
    ("openvino", &["backend"]),
    ("openvino_sys", &["backend"]),
    ("rumqttc", &["publish"]),
    ("redb", &["publish"]),
    ("axum", &["http"]),
    ("jiff", &["config", "track"]),
    ("jpeg_encoder", &["snapshot"]),
    ("tokio", &["http", "publish"]),
    ("clap", &["cli", "cmd", "main"]),
    ("anyhow", &["cmd", "main"]),
    ("indicatif", &["cmd", "logging"]),
];

/// What a pure module does without: threads, channels, clocks, sockets, processes.
const EFFECTS: &[&str] = &[
    "std::thread",
    "std::sync::mpsc",
    "crossbeam",
    "Instant::now",
    "SystemTime::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::process",
    "crate::worker",
];

/// Files, as a pure module does without them.
const FILES: &[&str] = &["std::fs", "File::open", "File::create"];

const UPSTREAM_OF_EVENT: &[&str] = &[
    "crate::analyze",
    "crate::backend",
    "crate::batch",
    "crate::camera",
    "crate::daemon",
    "crate::frame::Frame",
    "crate::frame::Image",
    "crate::frame::SystemImage",
    "crate::gpu",
    "crate::http",
    "crate::infer",
    "crate::letterbox",
    "crate::mask",
    "crate::slot",
    "crate::thumbnail",
    "crate::track",
    "crate::yolo",
];

const AROUND_THE_MODEL: &[&str] =
    &["crate::analyze", "crate::camera", "crate::daemon", "crate::http", "crate::publish", "crate::track"];

/// Modules, what they may not use, and the exceptions among their submodules.
struct Row {
    modules: &'static [&'static str],
    banned: &'static [&'static [&'static str]],
    except: &'static [&'static str],
}

const TABLE: &[Row] = &[
    Row {
        modules: &[
            "yolo",
            "track",
            "batch",
            "letterbox",
            "mask",
            "motion",
            "health",
            "publish::window",
            "snapshot::best",
            "snapshot::picture",
            "engine::stamp",
            "engine::shapes",
            "engine::progress",
            "formats",
        ],
        banned: &[EFFECTS, FILES],
        except: &[],
    },
    // Somebody must read what was written: `load` the configuration, `manifest` its own file.
    Row { modules: &["config", "engine::manifest"], banned: &[EFFECTS], except: &[] },
    Row { modules: &["config"], banned: &[FILES], except: &["config::load"] },
    Row {
        modules: &["camera"],
        banned: &[&[
            "crate::analyze",
            "crate::backend",
            "crate::daemon",
            "crate::gpu",
            "crate::http",
            "crate::infer",
            "crate::publish",
            "crate::track",
            "crate::yolo",
        ]],
        except: &[],
    },
    Row { modules: &["backend", "infer"], banned: &[AROUND_THE_MODEL], except: &[] },
    Row { modules: &["gpu"], banned: &[AROUND_THE_MODEL, &["crate::batch", "crate::slot"]], except: &[] },
    Row {
        modules: &["analyze"],
        banned: &[&[
            "crate::camera",
            "crate::daemon",
            "crate::frame::Frame",
            "crate::frame::Image",
            "crate::frame::Planes",
            "crate::frame::SystemImage",
            "crate::gpu",
            "crate::http",
            "crate::slot",
        ]],
        except: &[],
    },
    Row {
        modules: &["snapshot", "thumbnail"],
        banned: &[AROUND_THE_MODEL, &["crate::backend", "crate::gpu", "crate::infer", "crate::slot"]],
        except: &[],
    },
    Row { modules: &["formats"], banned: &[UPSTREAM_OF_EVENT, &["crate::config", "crate::publish"]], except: &[] },
    Row { modules: &["publish"], banned: &[UPSTREAM_OF_EVENT], except: &[] },
    Row { modules: &["http"], banned: &[UPSTREAM_OF_EVENT, &["crate::publish"]], except: &[] },
];

#[test]
fn files_are_short() {
    let long: Vec<String> = rust_files()
        .iter()
        .map(|file| (file, read(file).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(file, lines)| format!("{file}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "longer than {FILE_LINES_MAX} lines: split by noun\n{}", long.join("\n"));
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for file in rust_files() {
        for (line, name, lines) in functions(&code(&read(&file))) {
            if lines > FUNCTION_LINES_MAX {
                long.push(format!("{file}:{line}: fn {name}: {lines} lines"));
            }
        }
    }
    assert!(long.is_empty(), "longer than {FUNCTION_LINES_MAX} lines\n{}", long.join("\n"));
}

#[test]
fn modules_use_only_what_they_may() {
    let mut wrong = BTreeSet::new();
    for file in rust_files().iter().filter(|file| file.starts_with("src/") && !is_test_file(file)) {
        let module = module_path(file);
        let paths = paths(&without_test_modules(&code(&read(file))), &module);
        for path in &paths {
            for ban in bans(&module.join("::"), path) {
                wrong.insert(format!("{file}: {} (may not use {ban})", path.join("::")));
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "see the table in ARCHITECTURE.md\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_behind_its_fence() {
    let mut wrong = Vec::new();
    for file in rust_files() {
        if !UNSAFE_HOMES.iter().any(|home| file.starts_with(home))
            && words(&code(&read(&file))).any(|w| w == "unsafe")
        {
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "unsafe outside {UNSAFE_HOMES:?}: {wrong:?}");
}

#[test]
fn no_notes_to_self_and_no_private_paths() {
    // Put together here so that this file does not find itself.
    let banned = [["TO", "DO"], ["FIX", "ME"], ["/wo", "rk/"], ["/tmp/se", "tup"]].map(|w| w.concat());
    let mut wrong = Vec::new();
    for file in text_files() {
        for (number, line) in read(&file).lines().enumerate() {
            if banned.iter().any(|word| line.contains(word.as_str())) {
                wrong.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn documents_name_files_that_exist() {
    // Made by the scripts, or by others, and not in the repository.
    let made = ["engines/built", "target/", ".cross", ".demo", ".models", ".nvrtc", ".openvino", ".tensorrt-rtx"];
    let tops = [
        "src/",
        "tests/",
        "scripts/",
        "engines/",
        "pipelines/",
        "benches/",
        "config/",
        "systemd/",
        "schemas/",
        "cross/",
        "docs/",
        ".ci/",
    ];
    let mut wrong = Vec::new();
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "SPECIFICATION.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "benches/peers/README.md",
        "docs/guide.md",
        "docs/troubleshooting.md",
    ] {
        if !Path::new(document).exists() {
            continue;
        }
        for named in quoted(&read(document)) {
            let path = named.strip_prefix("./").unwrap_or(&named);
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            let root = !path.contains('/')
                && [".md", ".toml"].iter().any(|end| path.ends_with(end))
                && path.starts_with(char::is_uppercase);
            if plain
                && (root || tops.iter().any(|top| path.starts_with(top)))
                && !made.iter().any(|m| path.starts_with(m))
                && !Path::new(path).exists()
            {
                wrong.push(format!("{document}: `{named}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "named, but not there:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_paths_sees_trees_aliases_and_inline_paths() {
    let module = ["camera".to_owned(), "sink".to_owned()];
    let text = r#"
        use crate::{frame::{Frame, Image as Picture}, slot}; // use crate::publish;
        use super::pipeline::{self, Pipeline};
        fn f<'a>(x: &'a str) -> char { let _ = "use crate::http;"; crate::worker::spawn(); pipeline::go(); 'x' }
        #[cfg(test)]
        mod tests { use crate::daemon::Graph; }
    "#;
    let found: BTreeSet<String> =
        paths(&without_test_modules(&code(text)), &module).iter().map(|path| path.join("::")).collect();
    let wanted = [
        "crate::camera::pipeline",
        "crate::camera::pipeline::Pipeline",
        "crate::camera::pipeline::go",
        "crate::frame::Frame",
        "crate::frame::Image",
        "crate::slot",
        "crate::worker::spawn",
    ];
    assert_eq!(found, wanted.map(str::to_owned).into());
    assert_eq!(
        functions(&code("fn a() {\n  if x { y }\n  z\n}\ntrait T { fn b(&self); }")),
        [(1, "a".to_owned(), 2)]
    );
}

/// The rules that a path breaks in a module.
fn bans(module: &str, path: &[String]) -> Vec<String> {
    let within =
        |homes: &[&str]| homes.iter().any(|home| module == *home || module.starts_with(&format!("{home}::")));
    let mut broken = Vec::new();
    for (name, homes) in CRATE_HOMES {
        if path[0] == *name && !within(homes) {
            broken.push((*name).to_owned());
        }
    }
    for row in TABLE.iter().filter(|row| within(row.modules) && !within(row.except)) {
        for ban in row.banned.iter().flat_map(|bans| bans.iter()) {
            let ban: Vec<&str> = ban.split("::").collect();
            let own = ban.len() == 2 && ban[0] == "crate" && within(&[ban[1]]);
            if !own && path.windows(ban.len()).any(|part| part == ban) {
                broken.push(ban.join("::"));
            }
        }
    }
    broken
}

/// `src/camera/sink.rs` is `camera::sink`.
fn module_path(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

fn is_test_file(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/")
}

/// All paths of a text without comments and literals: those of `use` trees, and those with `::` in the code. `super`,
/// `self` and this crate's own name are resolved to `crate`.
fn paths(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut inline = String::new();
    while let Some(at) = find_use(rest) {
        inline.push_str(&rest[..at]);
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        expand(rest[at + 3..end].trim(), &[], &mut found);
        rest = &rest[end..];
    }
    inline.push_str(rest);
    let imports = found.len();
    for path in inline.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        let parts: Vec<String> = path.split("::").map(str::to_owned).collect();
        if parts.len() > 1 && parts.iter().all(|part| !part.is_empty() && !part.contains(':')) {
            // `openvino::open` after `use crate::backend::openvino` is that module's, not the crate's.
            let import = found[..imports].iter().find(|import| import.last() == Some(&parts[0]));
            found.push(
                import
                    .cloned()
                    .unwrap_or_else(|| parts[..1].to_vec())
                    .into_iter()
                    .chain(parts[1..].to_vec())
                    .collect(),
            );
        }
    }
    found.iter().map(|path| resolve(path, module)).collect()
}

/// Where a `use` declaration begins (not `+ use<'a>`).
fn find_use(text: &str) -> Option<usize> {
    text.match_indices("use").map(|(at, _)| at).find(|at| {
        let before = text[..*at].chars().next_back().is_none_or(|c| c.is_whitespace() || ";{}".contains(c));
        before && text[at + 3..].starts_with(char::is_whitespace)
    })
}

/// `a::{b, c::d as e}` is `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = prefix.to_vec();
    let mut rest = tree.trim();
    while let Some((head, tail)) = rest.split_once("::").filter(|(head, _)| !head.contains('{')) {
        path.push(head.trim().to_owned());
        rest = tail.trim();
    }
    let Some(inner) = rest.strip_prefix('{') else {
        let name = rest.split_whitespace().next().unwrap_or_default();
        if name != "self" {
            path.push(name.to_owned());
        }
        found.push(path);
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    expand(&inner[start..at], &path, found);
                }
                start = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
}

fn resolve(path: &[String], module: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let base: Vec<String> = match path[0].as_str() {
        "super" => module[..module.len().saturating_sub(ups)].to_vec(),
        "self" => module.to_vec(),
        "watchpost" => Vec::new(),
        _ => return path.to_vec(),
    };
    let skip = ups.max(1);
    std::iter::once("crate".to_owned()).chain(base).chain(path[skip..].iter().cloned()).collect()
}

/// Functions with a body: line, name, and how many lines stand between its braces.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("fn ") {
        if text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name: String = text[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) =
            text[at..].find(['{', ';']).map(|open| at + open).filter(|open| text[*open..].starts_with('{'))
        else {
            continue;
        };
        if name.is_empty() {
            continue;
        }
        let lines = text[open..closing(text, open)].matches('\n').count().saturating_sub(1);
        found.push((text[..at].matches('\n').count() + 1, name, lines));
    }
    found
}

/// Where the brace that opens at `open` closes.
fn closing(text: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in text[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at;
        }
    }
    text.len()
}

fn without_test_modules(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let end = rest[at..].find(['{', ';']).map_or(rest.len(), |end| at + end);
        rest = if rest[end..].starts_with('{') { &rest[closing(rest, end)..] } else { &rest[end..] };
    }
    kept + rest
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

/// The text with comments, strings and characters blanked; lines stay where they are.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = literal(rest, out.chars().next_back()).unwrap_or(0);
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

/// Bytes of the comment, string or character that begins here.
fn literal(rest: &str, before: Option<char>) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if let Some(raw) = rest.strip_prefix("r").filter(|_| !in_word || before == Some('b')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let open = 1 + hashes + 1;
            return Some(rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len()));
        }
    }
    if rest.starts_with('"') {
        return Some(quoted_end(rest, '"').unwrap_or(rest.len()));
    }
    if let Some(after) = rest.strip_prefix('\'') {
        // A lifetime has no closing quote one character (or escape) on.
        let second = after.chars().next()?;
        let closed = second == '\\' || after[second.len_utf8()..].starts_with('\'');
        return if closed { quoted_end(rest, '\'') } else { None };
    }
    None
}

fn quoted_end(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// What stands between single backticks, and the targets of links.
fn quoted(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            found.extend(line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
        }
    }
    found
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn rust_files() -> Vec<String> {
    text_files().into_iter().filter(|file| file.ends_with(".rs")).collect()
}

/// The project's own texts, relative to its root, sorted.
fn text_files() -> Vec<String> {
    let endings = ["rs", "toml", "md", "gst", "py", "html", "css", "js", "service", "cu", "cpp", "h", "txt"];
    let script = |path: &Path| ["./scripts", "./cross"].iter().any(|folder| path.starts_with(folder));
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(".")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                let own = !name.starts_with('.') || name == ".ci";
                if own && name != "target" && name != "built" && name != "__pycache__" {
                    folders.push(path);
                }
            } else if path.extension().map_or(script(&path), |e| endings.iter().any(|x| e == *x)) {
                found.push(path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
