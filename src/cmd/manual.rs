//! `manual`: man pages and shell completions, made of the command line's definition. The files in `man/` and
//! `completions/` are what this writes; packages are made of them.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, Code, Failure};

/// Writes `man/`, a page a command, and `completions/` below `folder`.
pub fn run(folder: &Path) -> Result<(), Failure> {
    write(folder).map_err(|error| {
        let text = format!("--out {}: {error}: give a folder that can be written", folder.display());
        Failure::new(Code::Config, text)
    })
}

fn write(folder: &Path) -> io::Result<()> {
    let [man, completions] = ["man", "completions"].map(|name| folder.join(name));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    // Not what depends on the build: commit, and versions of TensorRT.
    let definition = || Cli::command().long_version(None::<&str>);
    clap_mangen::generate_to(definition(), man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut definition(), "watchpost", &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// Files of a folder by name, each with its text.
    fn texts(folder: &Path) -> BTreeMap<String, String> {
        let file = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        };
        fs::read_dir(folder).unwrap().map(|entry| file(entry.unwrap().path())).collect()
    }

    #[test]
    fn committed_man_pages_and_completions_are_those_of_the_command_line() {
        let made = TempDir::new().unwrap();
        run(made.path()).unwrap();
        for folder in ["man", "completions"] {
            let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            assert!(
                texts(&made.path().join(folder)) == texts(&committed),
                "run `cargo run -- manual --out .`: {folder} is another"
            );
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = run(Path::new("/dev/null")).unwrap_err();
        assert!(error.text.contains("/dev/null") && error.text.contains("give a folder"), "{}", error.text);
    }
}
