//! A note on disk that an engine is being opened. One that ends the process ends it before a word is said, at this start and
//! at each that follows; the note outlives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::built;
use super::stamp::Stamp;

/// Processes in a row that may end while the engine is being opened. One may have been killed, and a box may lose its power.
const ENDED_MAX: u32 = 3;
/// Likewise, whatever was opened: an engine that was built anew after the first ones, and fares no better.
const ENDED_IN_ALL_MAX: u32 = 2 * ENDED_MAX;
/// A refused engine is tried again after so long: what was at fault may have been mended, and nobody may be there to say so.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// An engine is being opened. The note of it goes with this.
#[derive(Debug)]
pub struct Trial(Option<PathBuf>);

/// Why an engine is not opened.
#[derive(Debug)]
pub struct Refused {
    /// In words, with what can be done.
    pub text: String,
    /// One that is built anew may fare better: none was yet.
    pub may_be_rebuilt: bool,
}

impl Trial {
    /// Notes in the daemon's `state_dir` that the engine with this stamp is being opened. Without a folder, and where it cannot
    /// be written, nothing is noted.
    ///
    /// # Errors
    ///
    /// It has ended [`ENDED_MAX`] processes, the last of them within [`REFUSED_FOR`].
    pub fn begin(state_dir: Option<&Path>, stamp: &Stamp) -> Result<Self, Refused> {
        let Some(state_dir) = state_dir else { return Ok(Self(None)) };
        let note = built::folder(state_dir).join("opening");
        // The same file may be built twice, and is another then: it was built to be tried.
        let build = format!("{} {}", stamp.sha256, stamp.built);
        let ended = fs::read_to_string(&note).ok().and_then(|text| Ended::read(&text, &build)).unwrap_or_default();
        if ended.this >= ENDED_MAX && is_recent(&note) {
            return Err(ended.refusal(&note));
        }
        match built::write_whole(&note, format!("{build} {} {}\n", ended.this + 1, ended.in_all + 1).as_bytes()) {
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

/// Processes in a row that ended while an engine was being opened, by the note.
#[derive(Default)]
struct Ended {
    /// The engine that is to be opened.
    this: u32,
    /// Any.
    in_all: u32,
}

impl Ended {
    fn read(text: &str, build: &str) -> Option<Self> {
        let mut words = text.trim_end().rsplitn(3, ' ');
        let [in_all, this] = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
        Some(Self { this: if words.next()? == build { this } else { 0 }, in_all })
    }

    fn refusal(&self, note: &Path) -> Refused {
        let may_be_rebuilt = self.in_all < ENDED_IN_ALL_MAX;
        let (count, other) = if may_be_rebuilt {
            (ENDED_MAX, "build it again with `watchpost engine build`")
        } else {
            (ENDED_IN_ALL_MAX, "it was built anew in between, so look to TensorRT, the driver and the GPU")
        };
        let note = note.display();
        let text = format!(
            "{count} processes in a row ended while it was being opened, so it is not tried for an hour: {other}, or remove \
             {note} to have it tried now"
        );
        Refused { text, may_be_rebuilt }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::engine::stamp::tests::stamp;

    /// What TensorRT built twice has the same digest.
    fn engine(digest: &str, built: &str) -> Stamp {
        Stamp { sha256: digest.into(), built: built.into(), ..stamp() }
    }

    #[test]
    fn an_engine_that_ended_three_processes_is_refused_until_it_is_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let (old, new) = (engine("abc", "2026-11-30T10:00:00Z"), engine("abc", "2026-11-30T10:05:00Z"));
        let begin = |engine| Trial::begin(Some(dir.path()), engine);
        let end_the_process = |engine| std::mem::forget(begin(engine).expect("it is tried"));
        for _ in 0..2 {
            end_the_process(&old);
        }
        drop(begin(&old).expect("it is tried"));
        // It was opened: what was before is over.
        for _ in 0..3 {
            end_the_process(&old);
        }
        let refused = begin(&old).expect_err("it is refused");
        let (note, text) = (built::folder(dir.path()).join("opening"), refused.text);
        assert!(refused.may_be_rebuilt && text.starts_with("3 processes in a row ended"), "{text}");
        assert!(text.contains("engine build") && text.contains(note.to_str().expect("a name")), "{text}");
        assert!(begin(&old).is_err(), "again");
        drop(begin(&new).expect("another is tried"));
        drop(begin(&old).expect("and this one after it"));
        assert_eq!(fs::read_dir(built::folder(dir.path())).expect("a folder").count(), 0);
    }

    #[test]
    fn one_that_was_built_anew_is_refused_in_the_end_and_tried_again_after_an_hour() {
        let dir = tempfile::tempdir().expect("a folder");
        let engines = [engine("abc", "first"), engine("abc", "second")];
        let begin = |engine| Trial::begin(Some(dir.path()), engine);
        for engine in &engines {
            for _ in 0..3 {
                std::mem::forget(begin(engine).expect("it is tried"));
            }
        }
        let refused = begin(&engines[1]).expect_err("it is refused");
        assert!(!refused.may_be_rebuilt && refused.text.starts_with("6 processes in a row ended"), "{refused:?}");
        let note = built::folder(dir.path()).join("opening");
        let note = fs::File::options().write(true).open(note).expect("the note");
        note.set_modified(SystemTime::now() - REFUSED_FOR).expect("a time");
        std::mem::forget(begin(&engines[1]).expect("it is tried"));
        assert!(begin(&engines[1]).is_err(), "it was tried once, and no better");
    }

    #[test]
    fn a_note_of_another_hand_and_a_folder_that_takes_nothing_refuse_no_engine() {
        let dir = tempfile::tempdir().expect("a folder");
        let (folder, engine) = (built::folder(dir.path()), engine("abc", "now"));
        fs::create_dir_all(&folder).expect("a folder");
        for text in ["", "abc", "abc ", "abc now many 9\n", "abc now -1 9", "9 9", "abc now 9", "\u{0}"] {
            fs::write(folder.join("opening"), text).expect("written");
            drop(Trial::begin(Some(dir.path()), &engine).expect("it is tried"));
        }
        fs::remove_dir(&folder).expect("it is empty");
        fs::write(&folder, "no folder").expect("written");
        assert!(Trial::begin(Some(dir.path()), &engine).is_ok());
        assert!(Trial::begin(None, &engine).is_ok());
    }
}
