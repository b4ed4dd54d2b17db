use std::sync::Mutex;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use super::*;
use crate::frame::SystemImage;
use crate::metrics::ThumbnailMetrics;
use crate::thumbnail::{Pool, Shrink};

/// Longest wait for pictures.
const LIMIT: Duration = Duration::from_secs(20);
/// Red, green and blue of a colour as full-range BT.601.
const BLUE: [u8; 3] = [29, 255, 107];

fn snapshot(track: &str) -> Snapshot {
    let blank = Pool::new(1, ThumbnailMetrics::default()).take().unwrap();
    let thumbnail = blank.write(&SystemImage::solid(1280, 720, BLUE), None, &mut Shrink::default());
    Snapshot {
        camera: CameraId::new("gate"),
        track: track.to_owned(),
        label: "person".to_owned(),
        score: 0.9,
        rect: [0.25, 0.25, 0.5, 0.75],
        thumbnail: Arc::new(thumbnail),
    }
}

fn config(folder: &Path, draw_box: bool) -> SnapshotsConfig {
    SnapshotsConfig {
        folder: folder.to_path_buf(),
        max_bytes: 1 << 20,
        max_age: Duration::from_secs(3600),
        quality: 85,
        draw_box,
        publish: true,
    }
}

/// Width, height and the pixels.
fn decode(jpeg: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut decoder = JpegDecoder::new(ZCursor::new(jpeg));
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    (width, height, pixels)
}

fn is_near(pixel: &[u8], colour: [u8; 3], by: u8) -> bool {
    pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= by)
}

#[test]
fn a_picture_decodes_again_and_has_the_box_at_its_place() {
    let made = snapshot("gate-1-0");
    for draw in [false, true] {
        let rects = [made.rect];
        let rgb = picture::drawn(&made.thumbnail, if draw { &rects } else { &[][..] });
        let jpeg = picture::jpeg(&rgb, (640, 360), 85).unwrap();
        let (width, height, pixels) = decode(&jpeg);
        assert_eq!((width, height), (640, 360));
        let at = |x: usize, y: usize| &pixels[3 * (y * width + x)..][..3];
        for (x, y) in [(10, 10), (240, 180), (150, 180), (330, 180), (240, 80), (240, 280)] {
            assert!(is_near(at(x, y), [0, 0, 255], 8), "{x},{y}: {:?}", at(x, y));
        }
        // 640 × 0.25, 640 × 0.5, 360 × 0.25, 360 × 0.75.
        for (x, y) in [(160, 180), (319, 180), (240, 90), (240, 269)] {
            let pixel = at(x, y);
            // The colour of thin lines runs into what is beside them.
            let is_green = pixel[1] > 180 && pixel[0].max(pixel[2]) < 120;
            let is_right = if draw { is_green } else { is_near(pixel, [0, 0, 255], 8) };
            assert!(is_right, "{x},{y}: {pixel:?}");
        }
    }
}

#[test]
fn boxes_beyond_the_picture_are_cut_off() {
    let made = snapshot("gate-1-0");
    for rect in [[-0.5, -0.5, 1.5, 1.5], [0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1], [0.999, 0.999, 1.0, 1.0]] {
        assert!(picture::jpeg(&picture::drawn(&made.thumbnail, &[rect]), (640, 360), 1).is_ok());
    }
}

#[test]
fn an_encoder_that_fails_is_asked_no_more_and_no_picture_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let (metrics, asked) = (SnapshotMetrics::default(), Arc::new(Mutex::new(Vec::new())));
    let sizes = Arc::clone(&asked);
    let encode: Encode = Box::new(move |rgb, size, quality| {
        let mut asked = sizes.lock().unwrap();
        asked.push((rgb.len(), size, quality));
        if asked.len() == 1 { Ok(b"theirs".to_vec()) } else { Err("it is gone".to_owned()) }
    });
    let (heard, pictures) = bounded(8);
    let publish: Publish = Box::new(move |picture| {
        if let Picture::OfTrack(_, jpeg) = picture {
            heard.send(jpeg.to_vec()).unwrap();
        }
    });
    let (snapshots, making) = start(&config(root.path(), false), metrics.clone(), Some(encode), publish).unwrap();
    for track in ["gate-1-0", "gate-1-1", "gate-1-2"] {
        snapshots.give(snapshot(track));
    }
    drop(snapshots);
    making.finish(LIMIT);
    let pictures: Vec<Vec<u8>> = pictures.try_iter().collect();
    assert_eq!(pictures[0], b"theirs");
    assert!(pictures[1..].iter().all(|jpeg| decode(jpeg).0 == 640) && pictures.len() == 3);
    assert_eq!(*asked.lock().unwrap(), [(3 * 640 * 360, (640, 360), 85); 2]);
    assert_eq!((metrics.written.get(), metrics.dropped.get()), (3, 0));
}

#[test]
fn what_is_given_is_written_published_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("deep/snapshots");
    let metrics = SnapshotMetrics::default();
    let said = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&said);
    let publish: Publish = Box::new(move |picture| {
        sink.lock().unwrap().push(match picture {
            Picture::OfTrack(snapshot, jpeg) => (snapshot.track.clone(), jpeg.to_vec()),
            Picture::Latest(camera, jpeg) => (camera.to_string(), jpeg.to_vec()),
            Picture::Answer(..) => panic!("nobody asked"),
        });
    });
    let (snapshots, making) = start(&config(&folder, false), metrics.clone(), None, publish).unwrap();
    for n in 0..3 {
        snapshots.give(snapshot(&format!("gate-1-{n}")));
    }
    drop(snapshots);
    making.finish(LIMIT);
    let said = said.lock().unwrap();
    let names: Vec<&str> = said.iter().map(|(name, _)| name.as_str()).collect();
    let of_tracks: Vec<&str> = names.iter().copied().filter(|name| *name != "gate").collect();
    assert_eq!(of_tracks, ["gate-1-0", "gate-1-1", "gate-1-2"]);
    // How often is `Latest`'s to say: here the machine may be slow.
    assert_eq!(
        (names[1], names.last()),
        ("gate", Some(&"gate")),
        "the first and the last are the latest of the camera"
    );
    let written = std::fs::read(file(&folder, "gate", "gate-1-2.jpg").unwrap()).unwrap();
    assert_eq!(Some(&written), said.last().map(|(_, jpeg)| jpeg));
    assert_eq!((metrics.written.get(), metrics.dropped.get(), metrics.files.get()), (3, 0, 3));
    assert_eq!(
        metrics.bytes.get(),
        said.iter().filter(|(n, _)| n != "gate").map(|(_, b)| b.len() as i64).sum::<i64>()
    );
}

#[test]
fn a_folder_that_takes_nothing_costs_pictures_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let metrics = SnapshotMetrics::default();
    // A file where the camera's folder should be.
    std::fs::write(root.path().join("gate"), b"in the way").unwrap();
    let (snapshots, making) = start(&config(root.path(), true), metrics.clone(), None, Box::new(|_| {})).unwrap();
    snapshots.give(snapshot("gate-1-0"));
    drop(snapshots);
    making.finish(LIMIT);
    assert_eq!((metrics.written.get(), metrics.dropped.get()), (0, 1));
}

#[test]
fn who_asks_is_told_what_became_of_the_picture() {
    let root = tempfile::tempdir().unwrap();
    let ask = |folder: &Path, publish: bool| {
        let said = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let sink = Arc::clone(&said);
        let heard: Publish = Box::new(move |picture| match picture {
            Picture::Answer(camera, made) => sink.lock().unwrap().1.push((camera.to_string(), made)),
            Picture::Latest(_, jpeg) => sink.lock().unwrap().0.push(jpeg.to_vec()),
            Picture::OfTrack(..) => panic!("no track was seen"),
        });
        let config = SnapshotsConfig { publish, ..config(folder, true) };
        let (snapshots, making) = start(&config, SnapshotMetrics::default(), None, heard).unwrap();
        let Snapshot { camera, thumbnail, .. } = snapshot("none");
        let captured = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567);
        let rects = vec![[0.25, 0.25, 0.5, 0.75], [0.6, 0.1, 0.9, 0.4]];
        snapshots.give_on_demand(OnDemand { camera, captured, rects, thumbnail });
        drop(snapshots);
        making.finish(LIMIT);
        let (published, mut answers) = std::mem::take(&mut *said.lock().unwrap());
        assert_eq!((answers.len(), answers[0].0.as_str()), (1, "gate"));
        (published, answers.remove(0).1)
    };
    let name = "gate-1970-01-01T00-20-34-567Z.jpg";
    let (published, told) = ask(root.path(), true);
    let kept = std::fs::read(file(root.path(), "gate", name).unwrap()).unwrap();
    assert_eq!(published, std::slice::from_ref(&kept));
    let when = "what camera gate saw at 1970-01-01T00:20:34.567Z is";
    assert_eq!(told, Ok(format!("{when} published, and kept as gate/{name}")));
    let (width, _, pixels) = decode(&kept);
    // 640 × 0.25 and 640 × 0.6.
    for x in [160, 384] {
        let pixel = &pixels[3 * (100 * width + x)..][..3];
        assert!(pixel[1] > 180 && pixel[0].max(pixel[2]) < 120, "every box is drawn: {x} {pixel:?}");
    }
    let (published, told) = ask(root.path(), false);
    assert!(published.is_empty() && told.unwrap().ends_with("snapshots.publish is off"));
    let full = tempfile::tempdir().unwrap();
    std::fs::write(full.path().join("gate"), b"in the way").unwrap();
    let (published, told) = ask(full.path(), true);
    assert!(published.len() == 1 && told.is_ok_and(|text| text.contains("not kept: ")));
    let (published, told) = ask(full.path(), false);
    assert!(published.is_empty() && told.is_err_and(|why| why.contains("make room")));
}

/// Whoever publishes the first picture says so, and waits until the sender is dropped.
fn held_up(root: &Path, metrics: &SnapshotMetrics) -> (Snapshots, Making, Receiver<()>, Sender<()>) {
    let ((begins, begun), (go, wait)) = (bounded(1), bounded::<()>(0));
    let publish: Publish = Box::new(move |_| {
        let _ = begins.try_send(());
        let _ = wait.recv();
    });
    let (snapshots, making) = start(&config(root, false), metrics.clone(), None, publish).unwrap();
    (snapshots, making, begun, go)
}

#[test]
fn more_than_may_wait_are_dropped_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let metrics = SnapshotMetrics::default();
    let (snapshots, making, _, go) = held_up(root.path(), &metrics);
    let one = snapshot("gate-1-0");
    // One is being published, as many as may wait do.
    for _ in 0..WAITING + 6 {
        snapshots.give(one.clone());
    }
    assert!((5..=6).contains(&metrics.dropped.get()), "{}", metrics.dropped.get());
    drop((go, snapshots));
    making.finish(LIMIT);
    assert_eq!(metrics.written.get() + metrics.dropped.get(), WAITING as u64 + 6);
}

#[test]
fn a_stop_waits_for_no_more_pictures_than_it_has_time_for() {
    let root = tempfile::tempdir().unwrap();
    let metrics = SnapshotMetrics::default();
    let (snapshots, making, publishes, go) = held_up(root.path(), &metrics);
    for n in 0..4 {
        snapshots.give(snapshot(&format!("gate-1-{n}")));
    }
    drop(snapshots);
    publishes.recv_timeout(LIMIT).unwrap();
    let (begun, ended) = (Instant::now(), making.ended.clone());
    making.finish(Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_secs(5), "the picture at hand was waited for: {:?}", begun.elapsed());
    drop(go);
    assert_eq!(ended.recv_timeout(LIMIT), Err(RecvTimeoutError::Disconnected));
    assert_eq!((metrics.written.get(), metrics.dropped.get()), (1, 3));
}
