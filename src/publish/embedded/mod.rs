//! A broker in this process, for a single box without one of its own. MQTT 3.1.1 only.
//!
//! Our own, and not a library's, because a client must not be able to take the daemon down: rumqttd 0.20 panics where
//! an MQTT 5 message with properties goes to a 3.1.1 subscriber, where a topic begins with a letter beyond ASCII, and
//! where a client of a shared subscription leaves; and it serves nobody any more once a client with a `/` in its id
//! has connected twice. What a single box needs is small enough to be bounded and tested as a whole.
//!
//! Its limits, so that nobody takes it for more:
//!
//! * MQTT 3.1.1, one listener, no TLS; a client of another version is refused in its own words;
//! * messages come in at QoS 0, 1 and 2 and go out at QoS 0, which SUBACK says; `detections` do not expire;
//! * no sessions: a subscriber that was away has missed what was sent meanwhile, but for the retained messages.
//!   Nothing is kept over a restart of the process; our own retained messages then come again from the spool;
//! * at most [`CONNECTIONS_MAX`] connections, [`hub::FILTERS_MAX`] filters a client, [`hub::RETAINED_MAX`] retained
//!   messages of [`hub::RETAINED_BYTES_MAX`] together, 4 MiB a message; a subscriber with more than
//!   [`hub::OUTBOX_BYTES_MAX`] waiting for it is cut off;
//! * everybody who may connect may publish everything, and take another's client id.
//!
//! The promise that no event is lost is made, and tested, with a broker of its own.
//!
//! One thread, `broker`, with a task a connection: [`client`]; what they share is the [`hub`]; [`packet`] is the
//! protocol. A panic in a client's task, which would be a bug, ends that client's connection only.

mod client;
mod hub;
pub(super) mod packet;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::config::Secret;
use crate::worker;
use client::Door;
use hub::Hub;

/// Most connections at once, ours included.
pub const CONNECTIONS_MAX: usize = 64;
/// Wait after a failed accept: the process may have no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long clients may take what waits for them when the broker stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The running broker; stops when dropped.
pub struct Embedded {
    stop: Option<oneshot::Sender<()>>,
    ended: Receiver<()>,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.ended.recv_timeout(STOP_TIMEOUT * 2);
    }
}

/// Starts the broker. With a user, only that user may connect.
///
/// # Errors
///
/// One sentence: the address cannot be listened on, or the system has no room for the network loop.
pub fn start(listen: SocketAddr, user: Option<&str>, password: Option<&Secret>) -> Result<Embedded, String> {
    let listener = std::net::TcpListener::bind(listen)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| {
            format!("the embedded broker cannot listen on {listen} ({error}): give another mqtt.embedded_listen")
        })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the embedded broker cannot start: {error}"))?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener).map_err(|error| format!("the embedded broker cannot start: {error}"))?
    };
    let door = Door::new(user, password);
    let (stop, stopped) = oneshot::channel();
    let (alive, ended) = bounded::<()>(1);
    worker::spawn("broker", move || {
        let _alive = alive;
        LocalSet::new().block_on(&runtime, accept(listener, door, stopped));
    });
    Ok(Embedded { stop: Some(stop), ended })
}

/// Accepts until told to stop.
async fn accept(listener: TcpListener, door: Door, mut stopped: oneshot::Receiver<()>) {
    let hub = Rc::new(RefCell::new(Hub::default()));
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(_) if clients.len() >= CONNECTIONS_MAX => {
                    tracing::debug!("a client came that there is no room for");
                }
                Ok((stream, _)) => {
                    // Without it a small message may wait for the acknowledgement of the one before.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!("TCP_NODELAY: {error}");
                    }
                    clients.spawn_local(expendable(client::serve(stream, Rc::clone(&hub), door)));
                }
                Err(error) => {
                    tracing::debug!("a client could not be accepted: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    hub.borrow_mut().stop();
    let _ = timeout(STOP_TIMEOUT, async { while clients.join_next().await.is_some() {} }).await;
}

/// A panic in the future ends its task only.
async fn expendable(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    poll_fn(|context| worker::expendable(|| future.as_mut().poll(context))).await;
}

/// Host and port under which this process reaches its own listener.
pub fn own_address(listen: SocketAddr) -> (String, u16) {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let host = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    (host, listen.port())
}
