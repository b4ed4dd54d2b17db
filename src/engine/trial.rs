//! A note on disk that an engine is being opened. One that ends the process ends it before a word is said, at this start and
//! at each that follows; the note outlives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::built;

/// Processes in a row that may end while the engine is being opened. One may have been killed, and a box may lose its power.
const ENDED_MAX: u32 = 3;
/// A refused engine is tried again after so long: what was at fault may have been mended, and nobody may be there to say so.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// An engine is being opened. The note of it goes with this.
#[derive(Debug)]
pub struct Trial(Option<PathBuf>);

impl Trial {
    /// Notes in the daemon's `state_dir` that the engine with this digest is being opened. Without a folder, and where it cannot
    /// be written, nothing is noted.
    ///
    /// # Errors
    ///
    /// In words, that it has ended [`ENDED_MAX`] processes, the last of them within [`REFUSED_FOR`].
    pub fn begin(state_dir: Option<&Path>, digest: &str) -> Result<Self, String> {
        let Some(state_dir) = state_dir else { return Ok(Self(None)) };
        let note = built::folder(state_dir).join("opening");
        let ended = fs::read_to_string(&note).ok().and_then(|text| ended(&text, digest)).unwrap_or(0);
        if ended >= ENDED_MAX && is_recent(&note) {
            return Err(format!(
                "{ENDED_MAX} processes in a row ended while it was being opened, so it is not tried for an hour: build it \
                 again with `watchpost engine build`, or remove {} to have it tried now",
                note.display()
            ));
        }
        match built::write_whole(&note, format!("{digest} {}\n", ended + 1).as_bytes()) {
            Ok(()) => Ok(Self(Some(note))),
            Err(error) => {
                tracing::warn!("that an engine is being opened is not noted: {error}");
                Ok(Self(None))
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(note) = &self.0
            && let Err(error) = fs::remove_file(note)
        {
            tracing::warn!("{}: {error}: remove it, or a good engine may be refused", note.display());
        }
    }
}

/// Whether the note was written a while ago, and not longer ago than that by any clock.
fn is_recent(note: &Path) -> bool {
    let written = fs::metadata(note).and_then(|metadata| metadata.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < REFUSED_FOR))
}

/// How many processes the engine with this digest has ended, by the note.
fn ended(text: &str, digest: &str) -> Option<u32> {
    let (noted, count) = text.trim_end().split_once(' ')?;
    if noted == digest { count.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_engine_that_ended_three_processes_is_refused_until_it_is_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let begin = |digest| Trial::begin(Some(dir.path()), digest);
        let end_the_process = |digest| std::mem::forget(begin(digest).expect("it is tried"));
        for _ in 0..2 {
            end_the_process("abc");
        }
        drop(begin("abc").expect("it is tried"));
        // It was opened: what was before is over.
        for _ in 0..3 {
            end_the_process("abc");
        }
        let refused = begin("abc").expect_err("it is refused");
        assert!(
            refused.starts_with("3 processes in a row ended") && refused.contains("/engines/opening"),
            "{refused}"
        );
        assert!(begin("abc").is_err(), "again");
        let note =
            fs::File::options().write(true).open(built::folder(dir.path()).join("opening")).expect("the note");
        note.set_modified(SystemTime::now() - REFUSED_FOR).expect("a time");
        end_the_process("abc");
        assert!(begin("abc").is_err(), "it was tried once, and no better");
        drop(begin("def").expect("another is tried"));
        drop(begin("abc").expect("and this one after it"));
        assert_eq!(fs::read_dir(built::folder(dir.path())).expect("a folder").count(), 0);
    }

    #[test]
    fn a_note_of_another_hand_and_a_folder_that_takes_nothing_refuse_no_engine() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = built::folder(dir.path());
        fs::create_dir_all(&folder).expect("a folder");
        for text in ["", "abc", "abc ", "abc many\n", "abc -1", "\u{0}"] {
            fs::write(folder.join("opening"), text).expect("written");
            drop(Trial::begin(Some(dir.path()), "abc").expect("it is tried"));
        }
        fs::remove_dir(&folder).expect("it is empty");
        fs::write(&folder, "no folder").expect("written");
        assert!(Trial::begin(Some(dir.path()), "abc").is_ok());
        assert!(Trial::begin(None, "abc").is_ok());
    }
}
