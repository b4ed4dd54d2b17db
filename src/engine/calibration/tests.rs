//! Frames files: what was put is read, and whatever is no frames file is refused.

use super::*;

fn spec() -> InputSpec {
    InputSpec {
        size: None,
        range: Range::Unit,
        channels: Channels::Bgr,
        fit: Fit::TopLeft,
        pad: 114,
        mean: [0.5, 0.25, 0.0],
        std: [0.5, 0.5, 1.0],
    }
}

/// A file of three frames of 4 x 2; the first was replaced.
fn written(path: &Path) -> Header {
    let mut recording = Recording::create(path, &spec(), (4, 2)).unwrap();
    for (index, grey) in [(0, 9), (1, 51), (2, 255), (0, 0)] {
        recording.put(index, &[grey; 24]).unwrap();
    }
    assert_eq!(recording.frames(), 3);
    let sources =
        vec![Source { name: "gate".to_owned(), frames: 2 }, Source { name: "yard".to_owned(), frames: 1 }];
    recording.finish(sources).unwrap()
}

fn frames(path: &Path) -> Frames {
    match open(path).unwrap() {
        Calibration::Frames(frames) => frames,
        Calibration::Table(_) => panic!("a table"),
    }
}

#[test]
fn what_was_put_is_read_as_the_model_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/m.frames");
    let header = written(&path);
    assert_eq!((header.frames, header.size, header.sources.len()), (3, (4, 2), 2));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no part is left");
    let first = fs::read(&path).unwrap();
    let line = std::str::from_utf8(first.split(|b| *b == b'\n').next().unwrap()).unwrap().trim_end();
    assert!(line.starts_with(r#"{"schema":"watchpost.frames/1","frames":3,"size":[4,2],"#), "{line}");
    assert_eq!(identity(&path).unwrap(), header.sha256);
    let table = dir.path().join("own.table");
    fs::write(&table, "TRT-8503-EntropyCalibration2\n").unwrap();
    assert_eq!(identity(&table).unwrap(), digest(&table).unwrap());
    let mut read = frames(&path);
    assert_eq!(read.header, header);
    read.check(&spec(), (4, 2)).unwrap();
    let mut out = [0.0; 24];
    for (index, unit) in [(0, 0.0), (1, 0.2), (2, 1.0)] {
        read.read(index, &mut out).unwrap();
        for (plane, expected) in [(unit - 0.5) / 0.5, (unit - 0.25) / 0.5, unit].into_iter().enumerate() {
            assert!(out[plane * 8..][..8].iter().all(|v| (v - expected).abs() < 1e-6), "{index} {plane} {out:?}");
        }
    }
}

#[test]
fn frames_of_another_model_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.frames");
    written(&path);
    let read = frames(&path);
    let said = |spec: &InputSpec, size| read.check(spec, size).unwrap_err().to_string();
    assert!(
        said(&spec(), (8, 2)).contains("its frames are 4x2, the model takes 8x2: run `watchpost engine calibrate`")
    );
    assert!(said(&InputSpec { pad: 0, ..spec() }, (4, 2)).contains("another [input] than the manifest's"));
}

#[test]
fn whatever_is_no_frames_file_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.frames");
    let said = || match open(&path) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was taken"),
    };
    assert!(said().contains("m.frames: No such file"), "{}", said());
    written(&path);
    let whole = fs::read(&path).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut broken = whole.clone();
    broken[40] = b'}';
    let other = [whole.as_slice(), b"x"].concat();
    let none = {
        let empty = dir.path().join("none");
        Recording::create(&empty, &spec(), (4, 2)).unwrap().finish(Vec::new()).unwrap();
        fs::read(&empty).unwrap()
    };
    for (bytes, words) in [
        (&whole[..whole.len() - 1], "cut off"),
        (&other, "longer than its header says"),
        (&changed, "not those that were written"),
        (&whole[..1000], "neither frames nor a table"),
        (b"", "neither frames nor a table"),
        (&[0xa7; HEADER_BYTES + 9], "neither frames nor a table"),
        (&broken, "its header is broken"),
        (&none, "it holds no frames"),
    ] {
        fs::write(&path, bytes).unwrap();
        let text = said();
        assert!(text.contains(words) && text.lines().count() == 1, "{words}: {text}");
    }
    let huge = String::from_utf8(whole[..HEADER_BYTES].to_vec()).unwrap();
    let huge = huge.replacen("\"frames\":3,\"size\":[4,2]", "\"frames\":4096,\"size\":[4294967295,4294967295]", 1);
    fs::write(&path, &huge.as_bytes()[..HEADER_BYTES]).unwrap();
    assert!(said().contains("cut off"), "{}", said());
}

#[test]
fn a_recording_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.frames");
    let mut recording = Recording::create(&path, &spec(), (4, 2)).unwrap();
    recording.put(0, &[1; 24]).unwrap();
    drop(recording);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_table_serves_only_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = table_path(&dir.path().join("m.frames"));
    let key = TableKey { frames: "f".into(), model: "m".into(), tensorrt: "8.5.3.1".into() };
    assert_eq!(read_table(&path, &key).unwrap(), None);
    let table = b"TRT-8503-EntropyCalibration2\nimages: 3c010a14\n";
    write_table(&path, &key, table).unwrap();
    assert_eq!(read_table(&path, &key).unwrap().as_deref(), Some(&table[..]));
    for other in [
        TableKey { frames: "g".into(), ..key.clone() },
        TableKey { model: "n".into(), ..key.clone() },
        TableKey { tensorrt: "8.6".into(), ..key.clone() },
    ] {
        assert_eq!(read_table(&path, &other).unwrap(), None);
    }
    // One from elsewhere, named in the manifest.
    fs::write(&path, table).unwrap();
    assert!(matches!(open(&path).unwrap(), Calibration::Table(bytes) if bytes == table));
}
