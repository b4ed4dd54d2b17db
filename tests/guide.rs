//! What docs/ tells operators is true: its commands are those of the command line, its configurations are sound, what it
//! quotes exists. Its blocks are run by `scripts/tools/try-package`, which follows docs/guide.md in a Debian of its own.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;
use support::certificates::certificates;
use tempfile::TempDir;
use watchpost::cli::{Cli, Code};
use watchpost::config;

const CONFIG: &str = "/etc/watchpost/watchpost.toml";
/// How a line begins that says why the next block is not run.
const NOT_RUN: &str = "*Not run: ";
/// Where what is quoted must be found.
const PRODUCT: &[&str] = &["src", "config", "engines", "systemd", "debian", "scripts", "pipelines", "schemas"];
/// Most that `…` stands for.
const BETWEEN_MAX: usize = 200;
/// What is quoted of others.
const OTHERS: &[&str] = &["/home", "/root", "DNS:", "IP:", "libcuda", "[Service]"];
/// Programs of others.
const PROGRAMS: &[&str] =
    &["apt-get", "chown", "mosquitto_pub", "mosquitto_sub", "nvidia-smi", "sudo", "systemctl", "journalctl"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fenced block.
struct Block {
    language: String,
    text: String,
    /// A line before it says that it is not run.
    is_left_out: bool,
}

struct Document {
    name: String,
    /// Without its blocks.
    prose: String,
    blocks: Vec<Block>,
}

/// All of docs/.
fn documents() -> Vec<Document> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| document(path)).collect()
}

fn document(path: &Path) -> Document {
    let (mut prose, mut blocks, mut block) = (String::new(), Vec::new(), None::<Block>);
    let mut said = "";
    let text = fs::read_to_string(path).unwrap();
    for line in text.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(language)) => {
                block = Some(Block {
                    language: language.to_owned(),
                    text: String::new(),
                    is_left_out: said.starts_with(NOT_RUN) && said.ends_with('*'),
                });
            }
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, None) => prose += &format!("{line}\n"),
        }
        if !line.is_empty() {
            said = line;
        }
    }
    assert!(block.is_none(), "{}: a block has no end", path.display());
    Document { name: path.file_name().unwrap().to_str().unwrap().to_owned(), prose, blocks }
}

/// What stands in backticks.
fn quoted(prose: &str) -> Vec<String> {
    prose.split('`').skip(1).step_by(2).map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The words of a line of shell, quotes taken off.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The arguments, where the line runs watchpost.
fn watchpost_arguments(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    let mut rest = &words[..];
    if let [sudo, more @ ..] = rest
        && sudo == "sudo"
    {
        rest = more;
        if let [flag, _, more @ ..] = rest
            && flag == "-u"
        {
            rest = more;
        }
    }
    let (program, arguments) = rest.split_first()?;
    let ends = |word: &&String| !["|", "||", "&&", ";"].contains(&word.as_str());
    let is_ours = program == "watchpost" || program.ends_with("/watchpost");
    is_ours.then(|| arguments.iter().take_while(ends).filter(|word| *word != "…").cloned().collect())
}

#[test]
fn blocks_are_followed_or_say_why_not() {
    let script = fs::read_to_string(root().join("scripts/tools/try-package")).unwrap();
    let mut run = 0;
    for document in documents() {
        let is_followed = script.contains(&format!("follow-guide docs/{} ", document.name));
        for block in &document.blocks {
            let name = &document.name;
            assert!(["sh", "toml"].contains(&block.language.as_str()), "{name}: what is {}?", block.language);
            assert!(block.is_left_out || is_followed, "{name}: nobody runs this:\n{}", block.text);
            run += usize::from(!block.is_left_out);
        }
    }
    assert!(run > 15, "{run} blocks");
}

#[test]
fn commands_are_those_of_the_command_line() {
    let mut parsed = 0;
    for document in documents() {
        let blocks = document.blocks.iter().filter(|block| block.language == "sh");
        let texts: Vec<String> = blocks.map(|block| block.text.replace("\\\n", " ")).collect();
        let lines = texts.iter().flat_map(|text| text.lines()).map(|line| (line.to_owned(), true));
        let all = lines.chain(quoted(&document.prose).into_iter().map(|span| (span, false)));
        for (line, is_whole) in all {
            let Some(arguments) = watchpost_arguments(&line) else { continue };
            parsed += 1;
            if arguments.is_empty() {
                continue;
            }
            match Cli::try_parse_from([vec!["watchpost".to_owned()], arguments].concat()) {
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::DisplayVersion | ErrorKind::DisplayHelp => {}
                    ErrorKind::MissingRequiredArgument if !is_whole => {}
                    _ => panic!("{}: {line}: {error}", document.name),
                },
            }
        }
    }
    assert!(parsed > 20, "{parsed} commands");
}

/// As `scripts/tools/follow-guide` does it.
fn spliced(config: &str, block: &str) -> String {
    if block.starts_with(&format!("# {CONFIG}\n")) {
        return block.to_owned();
    }
    let sections = |text: &str| {
        let mut parts = vec![String::new()];
        for line in text.lines() {
            if line.starts_with('[') {
                parts.push(String::new());
            }
            *parts.last_mut().unwrap() += &format!("{line}\n");
        }
        parts
    };
    let header = |part: &str| part.split(']').next().unwrap_or_default().to_owned();
    let replaced: Vec<String> = sections(block).iter().map(|part| header(part)).collect();
    let stays =
        |part: &String| part.starts_with("[[") || !part.starts_with('[') || !replaced.contains(&header(part));
    let kept: String = sections(config).into_iter().filter(stays).collect();
    format!("{}\n\n{block}", kept.trim_end_matches('\n'))
}

#[test]
fn configurations_are_sound() {
    let folder = TempDir::new().unwrap();
    certificates(folder.path(), "Cameras", "DNS:broker.lan");
    for secret in ["gate.password", "mqtt.password"] {
        let path = folder.path().join(secret);
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let here = |text: &str| {
        let engines = format!("{}/engines", root().display());
        text.replace("/etc/watchpost", folder.path().to_str().unwrap())
            .replace("/usr/share/watchpost/engines", &engines)
    };
    let path = folder.path().join("watchpost.toml");
    for document in documents() {
        let mut config = fs::read_to_string(root().join("debian/watchpost.toml")).unwrap();
        for block in document.blocks.iter().filter(|block| block.language == "toml") {
            let next = spliced(&config, &block.text);
            fs::write(&path, here(&next)).unwrap();
            if let Err(problems) = config::open(&path) {
                panic!("{}: {problems} in\n{next}", document.name);
            }
            if !block.is_left_out {
                config = next;
            }
        }
    }
}

/// Everything that is quoted must be in here: the product's texts, in which a sentence has no line ends and no escapes,
/// and what the documents' own blocks make.
fn product(documents: &[Document]) -> String {
    let mut folders: Vec<PathBuf> = PRODUCT.iter().map(|name| root().join(name)).collect();
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(file) = fs::read_to_string(&path) {
                text += &format!("{}\n{file}\n", path.strip_prefix(root()).unwrap().display());
            }
        }
    }
    let mut lines = text.split("\\\n");
    let mut joined = lines.next().unwrap_or_default().to_owned();
    lines.for_each(|line| joined += line.trim_start());
    let blocks: String = documents.iter().flat_map(|document| &document.blocks).map(|block| &*block.text).collect();
    joined.replace("\\\"", "\"") + &blocks
}

/// Whether the text has the span, in which `…`, `{node}` and `#` stand for something else.
fn occurs(product: &str, span: &str) -> bool {
    // A setting by its path, as in `mqtt.spool`.
    if let Some((section, key)) = span.rsplit_once('.')
        && product.contains(&format!("\n[{section}]\n"))
        && ["\n#", "\n# ", "\n"].iter().any(|before| product.contains(&format!("{before}{key} = ")))
    {
        return true;
    }
    let parts: Vec<&str> =
        span.split("…").flat_map(|part| part.split("{node}")).flat_map(|part| part.split('#')).collect();
    let parts: Vec<&str> = parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect();
    let Some((first, rest)) = parts.split_first() else { return true };
    product.match_indices(first).any(|(at, _)| {
        let mut after = &product[at + first.len()..];
        rest.iter().all(|part| {
            let found = after.find(part).filter(|at| *at < BETWEEN_MAX);
            found.inspect(|at| after = &after[at + part.len()..]).is_some()
        })
    })
}

#[test]
fn what_is_quoted_exists() {
    let documents = documents();
    let product = product(&documents);
    let mut missing = Vec::new();
    for document in &documents {
        for span in quoted(&document.prose) {
            let first = span.split_whitespace().next().unwrap_or_default();
            if PROGRAMS.contains(&first) || OTHERS.contains(&span.as_str()) || watchpost_arguments(&span).is_some()
            {
                continue;
            }
            if !occurs(&product, &span) {
                missing.push(format!("{}: `{span}`", document.name));
            }
        }
    }
    assert!(missing.is_empty(), "quoted, but not there:\n{}", missing.join("\n"));
}

#[test]
fn exit_codes_and_links_are_there() {
    for document in documents() {
        if document.name == "troubleshooting.md" {
            for code in [Code::Internal, Code::Unavailable, Code::Spool, Code::Config] {
                assert!(document.prose.contains(&format!("\n| {} | ", code as i32)), "{code:?}");
            }
        }
        for link in document.prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(root().join("docs").join(link).exists(), "{}: {link}", document.name);
        }
    }
}
