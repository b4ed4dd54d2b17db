//! The folder of pictures: `{camera}/{track}.jpg`, held to bytes, age and number, the oldest first.
//!
//! What is there is known from one look at the start and from what was written since. Files of other names are left alone.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How pictures' names end.
pub(super) const SUFFIX: &str = ".jpg";
/// How the name of a file ends that is being written.
const UNFINISHED: &str = ".new";
/// Most pictures, whatever the bytes: each is remembered in some hundred bytes.
const FILES_MAX: usize = 200_000;
/// Owner and group may look: a picture shows people.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// A file: the camera's name, a slash, its own.
type Name = Arc<str>;

/// What is in the folder.
pub(super) struct Folder {
    root: PathBuf,
    max_bytes: u64,
    max_age: Duration,
    files_max: usize,
    by_name: HashMap<Name, (SystemTime, u64)>,
    by_age: BTreeSet<(SystemTime, Name)>,
    bytes: u64,
}

/// Makes a folder and those above it.
pub(super) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

/// Whether this can be the name of a camera or a track: one level of a path, and no way out of it.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Folder {
    /// Looks at what is there, and deletes what is too much at `now`.
    pub(super) fn scan(root: &Path, max_bytes: u64, max_age: Duration, now: SystemTime) -> Self {
        let mut folder = Self {
            root: root.to_path_buf(),
            max_bytes,
            max_age,
            files_max: FILES_MAX,
            by_name: HashMap::new(),
            by_age: BTreeSet::new(),
            bytes: 0,
        };
        for camera in names(root).into_iter().filter(|name| is_name(name)) {
            for file in names(&root.join(&camera)) {
                folder.find(&camera, &file);
            }
        }
        folder.tidy(now);
        folder
    }

    fn find(&mut self, camera: &str, file: &str) {
        let path = self.root.join(camera).join(file);
        let is_picture = |end: &str| file.strip_suffix(end).is_some_and(is_name);
        if is_picture(UNFINISHED) {
            let _ = fs::remove_file(path);
        } else if is_picture(SUFFIX)
            && let Ok(meta) = fs::symlink_metadata(&path)
            && meta.is_file()
        {
            let written = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            self.add(format!("{camera}/{file}").into(), written, meta.len());
        }
    }

    /// Writes a picture, in the place of an older one of the track. A reader sees all of it or the one before.
    pub(super) fn keep(&mut self, camera: &str, track: &str, jpeg: &[u8], now: SystemTime) -> io::Result<()> {
        if !is_name(camera) || !is_name(track) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name that no file may have"));
        }
        let folder = self.root.join(camera);
        let (file, beside) = (folder.join(format!("{track}{SUFFIX}")), folder.join(format!("{track}{UNFINISHED}")));
        make(&folder)?;
        let written = File::options().write(true).create(true).truncate(true).mode(FILE_MODE).open(&beside);
        let written = written.and_then(|mut out| out.write_all(jpeg)).and_then(|()| fs::rename(&beside, &file));
        if let Err(error) = written {
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        self.add(format!("{camera}/{track}{SUFFIX}").into(), now, jpeg.len() as u64);
        self.tidy(now);
        Ok(())
    }

    /// Deletes the oldest until the rest is young, small and few enough.
    pub(super) fn tidy(&mut self, now: SystemTime) {
        while let Some((written, name)) = self.by_age.first() {
            let is_old = now.duration_since(*written).is_ok_and(|age| age > self.max_age);
            if !is_old && self.bytes <= self.max_bytes && self.by_name.len() <= self.files_max {
                return;
            }
            let name = Arc::clone(name);
            // One that somebody else has deleted is gone all the same; one that cannot be is no longer ours.
            let _ = fs::remove_file(self.root.join(&*name));
            self.forget(&name);
            if let Some((camera, _)) = name.split_once('/') {
                // Of a camera that is gone. Not empty: it stays.
                let _ = fs::remove_dir(self.root.join(camera));
            }
        }
    }

    /// Bytes of all pictures.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pictures.
    pub(super) fn files(&self) -> u64 {
        self.by_name.len() as u64
    }

    fn add(&mut self, name: Name, written: SystemTime, bytes: u64) {
        self.forget(&name);
        self.by_age.insert((written, Arc::clone(&name)));
        self.by_name.insert(name, (written, bytes));
        self.bytes += bytes;
    }

    fn forget(&mut self, name: &Name) {
        if let Some((written, bytes)) = self.by_name.remove(name) {
            self.by_age.remove(&(written, Arc::clone(name)));
            self.bytes -= bytes;
        }
    }
}

/// The names in a folder; none where it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const AGE: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::now() + Duration::from_secs(seconds)
    }

    fn kept(root: &Path) -> Vec<String> {
        let mut all: Vec<String> = names(root)
            .into_iter()
            .flat_map(|camera| names(&root.join(&camera)).into_iter().map(move |file| format!("{camera}/{file}")))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::scan(root.path(), 1000, AGE, at(0));
        for n in 0..5 {
            folder.keep("gate", &format!("gate-1-{n}"), &[0; 300], at(n)).unwrap();
        }
        assert_eq!(kept(root.path()), ["gate/gate-1-2.jpg", "gate/gate-1-3.jpg", "gate/gate-1-4.jpg"]);
        folder.keep("gate", "gate-1-2", &[0; 350], at(9)).unwrap();
        assert_eq!((folder.bytes(), folder.files()), (950, 3), "a picture takes the place of its track's");
        folder.keep("yard", "yard-1-0", &[0; 300], at(10)).unwrap();
        assert_eq!(kept(root.path()), ["gate/gate-1-2.jpg", "gate/gate-1-4.jpg", "yard/yard-1-0.jpg"]);
        let mode = fs::metadata(root.path().join("gate/gate-1-2.jpg")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !FILE_MODE, 0, "not for everybody: {mode:o}");
    }

    #[test]
    fn old_ones_go_and_so_does_a_camera_that_has_none() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::scan(root.path(), 1 << 20, AGE, at(0));
        folder.keep("gone", "gone-1-0", b"old", at(0)).unwrap();
        folder.keep("gate", "gate-1-0", b"young", at(1000)).unwrap();
        folder.tidy(at(3700));
        assert_eq!(kept(root.path()), ["gate/gate-1-0.jpg"]);
        assert!(!root.path().join("gone").exists());
        assert_eq!((folder.bytes(), folder.files()), (5, 1));
    }

    #[test]
    fn a_start_finds_what_is_there_and_touches_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: usize| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        };
        for name in ["gate/a.jpg", "gate/b.jpg", "gate/half.new", "gate/notes.txt", "my pictures/c.jpg", "d.jpg"] {
            put(name, 100);
        }
        let folder = Folder::scan(root.path(), 150, AGE, at(0));
        assert_eq!((folder.bytes(), folder.files()), (100, 1));
        let left = ["gate/notes.txt", "my pictures/c.jpg", "d.jpg"];
        assert!(left.iter().all(|name| root.path().join(name).exists()));
        assert!(!root.path().join("gate/half.new").exists(), "left by a crash");
        let folder = Folder::scan(root.path(), 1000, AGE, at(4000));
        assert_eq!(folder.files(), 0, "too old by now");
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::scan(root.path(), 1000, AGE, at(0));
        for (camera, track) in
            [("..", "x"), ("gate", "../../x"), ("", "x"), ("gate", ""), ("a/b", "x"), ("gate", ".x")]
        {
            assert!(folder.keep(camera, track, b"x", at(0)).is_err(), "{camera} {track}");
        }
        let is_refused = |camera: &str, file: &str| crate::snapshot::file(root.path(), camera, file).is_none();
        for (camera, file) in [
            ("..", "x.jpg"),
            ("gate", "../../etc/passwd"),
            ("gate", "..%2fx.jpg"),
            ("gate", "x.png"),
            ("gate", ".jpg"),
            ("gate", "x.jpg\0.jpg"),
            ("/etc", "x.jpg"),
        ] {
            assert!(is_refused(camera, file), "{camera}/{file}");
        }
        assert_eq!(
            crate::snapshot::file(root.path(), "gate", "gate-1-0.jpg"),
            Some(root.path().join("gate/gate-1-0.jpg"))
        );
    }
}
