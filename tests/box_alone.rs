//! A box with nothing around it: a test picture and a photograph, YOLOX-nano, the broker within the daemon, and a client of it.
//! It holds for programs that qemu runs, too, where one frame takes ten seconds and more.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::assets::find_assets;
use support::mosquitto::{Subscriber, free_port};
use support::program::{Daemon, Site, Written, run};
use watchpost::event::Detections;

const LIMIT: Duration = Duration::from_secs(900);

#[test]
fn what_the_model_sees_reaches_a_client_of_the_broker_within() {
    let Some(assets) = find_assets() else {
        eprintln!("skipped: no folder of models: set WATCHPOST_ASSETS");
        return;
    };
    let (site, port) = (Site::new(), free_port());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/engines/yolox-nano.toml");
    let model = assets.join("models/yolox_nano.onnx");
    let photograph = assets.join("coco-ccby/images/000000005001.jpg");
    let config = site.config(&Written {
        engine: &format!("manifest = {manifest:?}\nmodel = {model:?}\nopenvino.precision = \"f32\""),
        mqtt: &format!("broker = \"embedded\"\nembedded_listen = \"127.0.0.1:{port}\""),
        cameras: &format!(
            "[[camera]]\nid = \"test\"\nurl = \"test://?size=320x240&fps=1\"\n\
             [[camera]]\nid = \"photograph\"\nurl = {photograph:?}\npace = \"fast\"\nrepeat = true"
        ),
        ..Written::default()
    });
    let _daemon = Daemon::start(&mut run(&config));
    let client = Subscriber::start(port, "watchpost/box/cam/+/detections", None);

    let deadline = Instant::now() + LIMIT;
    let mut seen = BTreeMap::new();
    while seen.len() < 2 {
        let message = client.messages.recv_deadline(deadline).expect("both cameras' detections come");
        let detections: Detections = serde_json::from_slice(&message.body).unwrap();
        seen.insert(detections.camera.as_str().to_owned(), detections);
    }
    assert_eq!(seen["test"].size, [320, 240]);
    // As the reference decoder has them, by any processor's float32.
    let people: Vec<_> = seen["photograph"].objects.iter().filter(|object| &*object.label == "person").collect();
    assert_eq!(people.len(), 15, "{people:#?}");
    assert!((people[0].score - 0.767).abs() < 0.005, "{:?}", people[0]);
    for (at, wanted) in [0.0679, 0.1791, 0.2297, 0.7284].into_iter().enumerate() {
        assert!((people[0].rect[at] - wanted).abs() < 0.002, "{:?}", people[0]);
    }
}
