//! No password in our logs, at the most talkative level of everything: connecting, being refused, and TLS.

mod support;

use std::net::Ipv4Addr;

use support::certificates::certificates;
use support::mosquitto::{Mosquitto, Subscriber, free_port};
use support::publisher::{Box, config, tls};
use tempfile::{NamedTempFile, TempDir};
use tracing_subscriber::util::SubscriberInitExt;
use watchpost::config::{Broker, MqttConfig, MqttProtocol, Secret};

const PLANTED: &str = "pl4nted-s3cret";

/// Of its own test program: the log is the process's.
#[test]
fn a_planted_password_is_in_no_line_at_trace_level() {
    let log = NamedTempFile::new().unwrap();
    let builder = tracing_subscriber::fmt().with_env_filter("trace").with_ansi(false);
    // With what libraries say through the `log` crate, as the program has it.
    builder.with_writer(log.reopen().unwrap()).finish().try_init().unwrap();
    let user = |config: MqttConfig, protocol| MqttConfig {
        user: Some("box".to_owned()),
        password: Some(Secret::new(PLANTED.to_owned())),
        protocol,
        ..config
    };
    let mut broker = Mosquitto::prepare(free_port());
    let dir = broker.dir().to_owned();
    certificates(&dir, "ours", "IP:127.0.0.1");
    let wrong = format!("password_file {}", broker.password_file("box", "other"));
    let right = format!("password_file {}", broker.password_file("box", PLANTED));
    let file = |option: &str, name: &str| format!("{option} {}", dir.join(name).display());
    let (cert, key) = (file("certfile", "server.pem"), file("keyfile", "server.key"));
    for protocol in [MqttProtocol::V5, MqttProtocol::V4] {
        let state = TempDir::new().unwrap();
        for lines in [&["allow_anonymous false", &right][..], &["allow_anonymous false", &right, &cert, &key]] {
            broker.configure(lines);
            broker.restart();
            let plain = lines.len() == 2;
            let config = if plain { config(broker.port()) } else { tls(broker.port(), &dir, None) };
            let tested = Box::start(&user(config, protocol), state.path());
            tested.notices(0..1);
            tested.wait_connected();
            tested.finish();
        }
        // TLS to a broker that does not speak it, and a password that it does not know.
        broker.configure(&["allow_anonymous false", &wrong]);
        broker.restart();
        let tested = Box::start(&user(tls(broker.port(), &dir, None), protocol), state.path());
        tested.wait_problem("speak TLS");
        tested.finish();
        let tested = Box::start(&user(config(broker.port()), protocol), state.path());
        tested.wait_problem("refused the user");
        tested.finish();
    }
    let (port, state) = (free_port(), TempDir::new().unwrap());
    let listen = (Ipv4Addr::LOCALHOST, port).into();
    let embedded = MqttConfig { broker: Broker::Embedded { listen }, ..config(0) };
    let tested = Box::start(&user(embedded, MqttProtocol::Auto), state.path());
    tested.wait_connected();
    Subscriber::start(port, "watchpost/box/status", Some(("box", PLANTED))).next();
    tested.finish();

    let log = std::fs::read_to_string(log.path()).unwrap();
    for said in ["DEBUG rumqttc", "DEBUG watchpost", "connected to the broker", "refused the user", "TLS handshake"]
    {
        assert!(log.contains(said), "{said:?} is not in the log: {log}");
    }
    let told: Vec<_> = log.lines().filter(|line| line.contains(PLANTED)).collect();
    assert!(told.is_empty(), "{told:#?}");
}
