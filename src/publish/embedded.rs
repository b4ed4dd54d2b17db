//! A broker in this process (rumqttd), for a single box without one of its own.
//!
//! Its limits, so that nobody takes it for more:
//!
//! * one listener a protocol version: MQTT 3.1.1 and MQTT 5 each on its own address, no TLS;
//! * at most [`CONNECTIONS_MAX`] connections; payloads up to 4 MiB;
//! * nothing is kept over a restart of the process: retained messages come again from the spool's own map, but a
//!   subscriber that was away has missed what was sent meanwhile; a new subscriber gets at most about 100 retained
//!   messages a filter;
//! * it cannot be stopped: it lives as long as the process;
//! * it closes the connection where the password is wrong, without saying so;
//! * everybody who may connect may publish everything.
//!
//! It keeps the last 8 MiB a subscribed filter in memory. The promise that no event is lost is made, and tested,
//! with a broker of its own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

use super::connection::PACKET_BYTES_MAX;
use crate::config::Secret;
use crate::worker;

/// Most connections at once, ours included.
pub const CONNECTIONS_MAX: usize = 64;
/// The broker keeps this many segments of [`SEGMENT_BYTES`] a filter.
const SEGMENTS: usize = 4;
const SEGMENT_BYTES: usize = 2 << 20;
/// Longest wait for both listeners.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at whether a listener is there: the broker has no event for it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Starts the broker and waits until both listeners accept. With a user, only that user may connect.
///
/// # Errors
///
/// One sentence: an address that cannot be listened on, or a broker that does not come up.
pub fn start(v4: SocketAddr, v5: SocketAddr, user: Option<&str>, password: Option<&Secret>) -> Result<(), String> {
    for address in [v4, v5] {
        // The broker only logs such a failure.
        TcpListener::bind(address).map_err(|error| {
            format!("the embedded broker cannot listen on {address} ({error}): give another address in mqtt")
        })?;
    }
    let auth = user.map(|user| {
        let password = password.map_or("", Secret::expose);
        HashMap::from([(user.to_owned(), password.to_owned())])
    });
    let server = |name: &str, listen| {
        let connections = ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: PACKET_BYTES_MAX as usize,
            max_inflight_count: 1000,
            auth: auth.clone(),
            external_auth: None,
            dynamic_filters: true,
        };
        let name = name.to_owned();
        let settings =
            ServerSettings { name: name.clone(), listen, tls: None, next_connection_delay_ms: 1, connections };
        Some(HashMap::from([(name, settings)]))
    };
    let config = Config {
        router: RouterConfig {
            max_connections: CONNECTIONS_MAX,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        },
        v4: server("broker-v4", v4),
        v5: server("broker-v5", v5),
        ..Config::default()
    };
    worker::spawn("broker", move || {
        if let Err(error) = Broker::new(config).start() {
            tracing::error!("the embedded broker ended: {error}");
        }
    });
    let deadline = Instant::now() + START_TIMEOUT;
    for address in [v4, v5] {
        wait_for(address, deadline)
            .map_err(|error| format!("the embedded broker does not answer on {address}: {error}"))?;
    }
    Ok(())
}

/// Host and port under which this process reaches its own listener.
pub fn own_address(listen: SocketAddr) -> (String, u16) {
    let address = reachable(listen);
    let host = match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    (host, address.port())
}

fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn wait_for(listen: SocketAddr, deadline: Instant) -> io::Result<()> {
    loop {
        match TcpStream::connect_timeout(&reachable(listen), START_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
