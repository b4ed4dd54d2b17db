//! Engines on disk: names, whole or not at all, and every way in which one is refused.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::Mode;
use rustix::process::umask;

use super::*;
use crate::engine::stamp::tests::stamp;

#[test]
fn names_hold_what_an_engine_depends_on() {
    let name = Name {
        model: "my yolo/8",
        batch: 16,
        precision: Precision::Fp16,
        sm: Some((9, 0)),
        gpu: Some("NVIDIA H200".to_owned()),
        tensorrt: "8.5.3.1",
    };
    let folder = folder(Path::new("/var/lib/watchpost"));
    let engine = name.engine(&folder);
    assert_eq!(engine, Path::new("/var/lib/watchpost/engines/my_yolo_8-b16-fp16-sm90-trt8.5.3.1.engine"));
    assert_eq!(stamp_path(&engine), engine.with_extension("engine.toml"));
    let timing = name.timing_cache(&folder);
    assert_eq!(timing, Path::new("/var/lib/watchpost/engines/timing-sm90-nvidia-h200-trt8.5.3.1.cache"));
    let any = Name { sm: None, gpu: None, ..name };
    assert_eq!(any.timing_cache(&folder), folder.join("timing-any-trt8.5.3.1.cache"));
    assert!(any.engine(&folder).ends_with("my_yolo_8-b16-fp16-any-trt8.5.3.1.engine"));
}

#[test]
fn what_was_written_is_read_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = dir.path().join("engines/m.engine");
    let mut written = stamp();
    write(&engine, b"plan", &mut written).expect("written");
    assert_eq!(stamp_path(&engine).file_name().and_then(|n| n.to_str()), Some("m.engine.toml"));
    let read = super::stamp(&engine).expect("a stamp");
    assert_eq!(read, written);
    assert_eq!(load(&engine, &read).expect("the engine"), b"plan");
    // Again, over itself.
    write(&engine, b"plan 2", &mut written).expect("written");
    let read = super::stamp(&engine).expect("a stamp");
    assert_eq!(load(&engine, &read).expect("the engine"), b"plan 2");
    let files = fs::read_dir(engine.parent().expect("a folder")).expect("a folder").count();
    assert_eq!(files, 2);
}

#[test]
fn engines_are_refused_in_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = dir.path().join("m.engine");
    let said = |error: BuiltError| error.to_string();
    assert!(
        said(super::stamp(&engine).unwrap_err())
            .ends_with("m.engine: there is no such file: run `watchpost engine build`, or give another path")
    );
    fs::write(&engine, "plan").unwrap();
    assert!(said(super::stamp(&engine).unwrap_err()).contains("it has no stamp"));
    let mut written = stamp();
    write(&engine, b"plan", &mut written).unwrap();
    // Cut off, changed, and gone after its stamp was read.
    for bytes in [&b"pla"[..], b"plan!", b""] {
        fs::write(&engine, bytes).unwrap();
        let error = load(&engine, &written).unwrap_err();
        assert!(matches!(&error, BuiltError::Digest { .. }) && said(error).contains("cut off or changed"));
    }
    fs::remove_file(&engine).unwrap();
    assert!(matches!(load(&engine, &written), Err(BuiltError::Missing(_))));
    fs::write(&engine, "plan").unwrap();
    for (text, words) in [
        ("", "missing field"),
        ("schema = 3", "expected a string"),
        ("\u{0}", "stamp cannot be read"),
        (
            &toml::to_string(&Stamp { schema: "watchpost.engine/9".to_owned(), ..stamp() }).unwrap(),
            "another watchpost",
        ),
    ] {
        fs::write(stamp_path(&engine), text).unwrap();
        let text = said(super::stamp(&engine).unwrap_err());
        assert!(
            text.contains(words) && text.ends_with("`watchpost engine build`") && text.lines().count() == 1,
            "{text}"
        );
    }
    fs::write(stamp_path(&engine), vec![b'#'; STAMP_BYTES_MAX as usize + 1]).unwrap();
    assert!(said(super::stamp(&engine).unwrap_err()).contains("more than 65536 bytes"));
}

#[test]
fn what_is_built_by_hand_is_not_for_everyone_to_change_whatever_the_umask() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = dir.path().join("m.engine");
    let before = umask(Mode::empty());
    let written = write(&engine, b"plan", &mut stamp());
    umask(before);
    written.expect("written");
    super::stamp(&engine).and_then(|stamp| load(&engine, &stamp)).expect("it is taken");
}

#[test]
fn what_everyone_may_change_is_no_engine() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = dir.path().join("m.engine");
    write(&engine, b"plan", &mut stamp()).expect("written");
    for path in [engine.clone(), stamp_path(&engine)] {
        fs::set_permissions(&path, Permissions::from_mode(0o646)).expect("a mode");
        let error = super::stamp(&engine).expect_err("it is refused");
        assert_eq!(
            error.to_string(),
            format!("{}: everyone may change this file: chmod o-w it, or build the engine again", path.display())
        );
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode");
    }
    assert!(super::stamp(&engine).is_ok());
}

#[test]
fn a_write_that_fails_leaves_the_old_engine() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = dir.path().join("m.engine");
    fs::create_dir_all(stamp_path(&engine)).unwrap();
    let mut written = stamp();
    // The stamp's place is taken by a folder: the engine has no stamp, and so is refused.
    assert!(matches!(write(&engine, b"plan", &mut written), Err(BuiltError::File { .. })));
    assert!(matches!(super::stamp(&engine), Err(BuiltError::Stamp { .. })));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = write_whole(&file.join("x.cache"), b"x").unwrap_err().to_string();
    assert!(error.contains("give a path that this user may use"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no part is left");
}

#[test]
fn other_engines_of_a_model_are_found_the_newest_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let wanted = dir.path().join("m-b16-int8-sm90-trt8.engine");
    assert!(beside_it(&wanted, "m").is_empty());
    for (file, model, built) in [
        ("m-b16-fp16-sm90-trt8.engine", "m", "2026-01-01T10:00:00.000Z"),
        ("m-b16-fp32-any-trt8.engine", "m", "2026-03-01T10:00:00.000Z"),
        ("n-b16-fp16-sm90-trt8.engine", "n", "2026-02-01T10:00:00.000Z"),
        ("m-b16-int8-sm90-trt8.engine", "m", "2026-04-01T10:00:00.000Z"),
    ] {
        let mut stamp = Stamp { built: built.to_owned(), ..stamp() };
        stamp.model.name = model.to_owned();
        write(&dir.path().join(file), b"plan", &mut stamp).expect("written");
    }
    fs::write(dir.path().join("unstamped.engine"), b"plan").unwrap();
    fs::write(dir.path().join("timing.cache"), b"times").unwrap();
    let found: Vec<String> = beside_it(&wanted, "m").iter().map(|(path, _)| path.display().to_string()).collect();
    let at = |file: &str| dir.path().join(file).display().to_string();
    assert_eq!(found, [at("m-b16-fp32-any-trt8.engine"), at("m-b16-fp16-sm90-trt8.engine")]);
}

#[test]
fn what_a_process_that_is_no_more_left_half_written_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("m.engine");
    // No process has a number that large; the first one lives as long as the machine.
    for part in
        ["m.engine.4999999.part", "m.engine.1.part", "n.engine.4999999.part", "m.engine.x.part", "m.engine.toml"]
    {
        let file = File::create(dir.path().join(part)).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * PART_LASTS).unwrap();
    }
    // Another container's, perhaps.
    fs::write(dir.path().join("m.engine.4999998.part"), "").unwrap();
    write_whole(&path, b"plan").unwrap();
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            "m.engine",
            "m.engine.1.part",
            "m.engine.4999998.part",
            "m.engine.toml",
            "m.engine.x.part",
            "n.engine.4999999.part"
        ]
    );
}

#[test]
fn caches_may_be_missing() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("timing.cache");
    assert_eq!(read_cache(&path).unwrap(), None);
    write_whole(&path, b"times").unwrap();
    assert_eq!(read_cache(&path).unwrap(), Some(b"times".to_vec()));
    assert!(read_cache(dir.path()).is_err());
}

#[test]
fn progress_lines_are_json() {
    let line = ProgressLine { pct: 41, text: "Building: \"x\"".to_owned() };
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(text, r#"{"pct":41,"text":"Building: \"x\""}"#);
    assert_eq!(serde_json::from_str::<ProgressLine>(&text).unwrap(), line);
}
