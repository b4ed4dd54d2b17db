//! One connection of a client, from its CONNECT to its end.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::hub::{End, Hub, Outbox};
use super::packet::{self, Ack, Answer, Broken, Connect, Packet, Publish, Qos, Will};
use crate::config::Secret;
use crate::publish::connection::PACKET_BYTES_MAX;

/// Longest wait for CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of CONNECT: whoever sends it is not known yet.
const CONNECT_BYTES_MAX: usize = 128 << 10;
/// A client that takes nothing for so long is left.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not close after us is left after so long.
const LINGER: Duration = Duration::from_secs(1);
/// Most QoS 2 messages whose second half is missing.
const HALVES_MAX: usize = 1024;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// Who may connect: the digest of user and password; none = everybody.
#[derive(Clone, Copy)]
pub struct Door(Option<[u8; 32]>);

impl Door {
    /// Open to one user, or to all.
    pub fn new(user: Option<&str>, password: Option<&Secret>) -> Self {
        let password = password.map_or("", Secret::expose).as_bytes();
        Self(user.map(|user| digest(user, password)))
    }

    /// Digests are compared, so that the time taken says nothing of the password.
    fn opens_to(&self, connect: &Connect) -> bool {
        let password = connect.password.as_deref().unwrap_or_default();
        self.0
            .is_none_or(|digest_of| connect.user.as_deref().is_some_and(|user| digest(user, password) == digest_of))
    }
}

fn digest(user: &str, password: &[u8]) -> [u8; 32] {
    let length = (user.len() as u64).to_be_bytes();
    Sha256::new().chain_update(length).chain_update(user).chain_update(password).finalize().into()
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Broken(&'static str),
    #[error("it speaks protocol level {0}")]
    Version(u8),
    #[error("{0:?}")]
    Ended(End),
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Malformed(what) => Fault::Broken(what),
            Broken::Version(level) => Fault::Version(level),
        }
    }
}

/// Bytes in and out.
struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Link {
    /// Waits for bytes; dropped half-way, none are lost.
    async fn read(&mut self) -> Result<(), Fault> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk).await? {
            0 => Err(Fault::Broken("it is gone")),
            length => {
                self.buffer.extend_from_slice(&chunk[..length]);
                Ok(())
            }
        }
    }

    /// The next packet of what was read.
    fn next(&mut self, max: usize) -> Result<Option<Packet>, Fault> {
        let Some((packet, length)) = packet::decode(&self.buffer, max)? else { return Ok(None) };
        self.buffer.drain(..length);
        Ok(Some(packet))
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let written = timeout(WRITE_TIMEOUT, self.stream.write_all(bytes)).await;
        Ok(written.map_err(|_| Fault::Broken("it takes nothing"))??)
    }
}

/// A place in the hub, given back however the connection ends.
struct Place {
    hub: Rc<RefCell<Hub>>,
    key: u64,
    outbox: Rc<Outbox>,
    /// Published unless the client says good-bye.
    will: Option<Will>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hub = self.hub.borrow_mut();
        hub.leave(self.key);
        if let Some(will) = self.will.take() {
            hub.publish(&will.topic, &will.body, will.retain);
        }
    }
}

/// Serves one client until it ends.
pub async fn serve(stream: TcpStream, hub: Rc<RefCell<Hub>>, door: Door) {
    let mut link = Link { stream, buffer: Vec::new() };
    match admit_and_serve(&mut link, hub, door).await {
        Ok(()) => tracing::debug!("a client left"),
        Err(fault) => tracing::debug!("a client's connection ended: {fault}"),
    }
    // Sends what was written before the close; a client that is gone does not mind.
    let _ = timeout(WRITE_TIMEOUT, link.stream.shutdown()).await;
    // A close with something unread resets the connection, and the client may never see what was sent: it closes first.
    let unread = async {
        let mut chunk = [0; CHUNK];
        while let Ok(1..) = link.stream.read(&mut chunk).await {}
    };
    let _ = timeout(LINGER, unread).await;
}

async fn admit_and_serve(link: &mut Link, hub: Rc<RefCell<Hub>>, door: Door) -> Result<(), Fault> {
    let greeted = timeout(CONNECT_TIMEOUT, greeting(link)).await;
    let connect = match greeted.unwrap_or(Err(Fault::Broken("no CONNECT in time"))) {
        Err(Fault::Version(level)) => {
            link.write(packet::wrong_version(level)).await?;
            return Err(Fault::Version(level));
        }
        other => other?,
    };
    let refusal = match () {
        () if !door.opens_to(&connect) => Some(Answer::BadLogin),
        () if connect.client_id.is_empty() && !connect.clean_session => Some(Answer::BadClientId),
        () => None,
    };
    if let Some(answer) = refusal {
        link.write(&packet::connack(answer)).await?;
        return Err(Fault::Broken("not let in"));
    }
    let id = match connect.client_id.is_empty() {
        true => format!("anonymous-{:016x}", fastrand::u64(..)),
        false => connect.client_id,
    };
    let (key, outbox) = hub.borrow_mut().join(id);
    let mut place = Place { hub, key, outbox, will: connect.will };
    link.write(&packet::connack(Answer::Accepted)).await?;
    attend(link, &mut place, Duration::from_secs(connect.keep_alive.into())).await?;
    place.will = None;
    Ok(())
}

async fn greeting(link: &mut Link) -> Result<Connect, Fault> {
    loop {
        link.read().await?;
        match link.next(CONNECT_BYTES_MAX)? {
            None => {}
            Some(Packet::Connect(connect)) => return Ok(connect),
            Some(_) => return Err(Fault::Broken("something before CONNECT")),
        }
    }
}

/// Until the good-bye.
async fn attend(link: &mut Link, place: &mut Place, keep_alive: Duration) -> Result<(), Fault> {
    let mut halves = HashSet::new();
    let mut heard = Instant::now();
    loop {
        while let Some(packet) = link.next(PACKET_BYTES_MAX as usize)? {
            if let Packet::Disconnect = packet {
                return Ok(());
            }
            answer(link, place, &mut halves, packet).await?;
        }
        while let Some(message) = place.outbox.take() {
            link.write(&message).await?;
        }
        if let Some(end) = place.outbox.end() {
            return Err(Fault::Ended(end));
        }
        tokio::select! {
            read = link.read() => {
                read?;
                heard = Instant::now();
            }
            () = place.outbox.changed.notified() => {}
            () = sleep_until(heard + keep_alive * 3 / 2), if !keep_alive.is_zero() => {
                return Err(Fault::Broken("it has been silent for too long"));
            }
        }
    }
}

async fn answer(link: &mut Link, place: &Place, halves: &mut HashSet<u16>, packet: Packet) -> Result<(), Fault> {
    match packet {
        Packet::Publish(Publish { topic, body, retain, qos }) => {
            // The second copy of a QoS 2 message is answered only.
            let is_new = match qos {
                Qos::Zero | Qos::One(_) => true,
                Qos::Two(_) if halves.len() == HALVES_MAX => {
                    return Err(Fault::Broken("too many QoS 2 messages at once"));
                }
                Qos::Two(id) => halves.insert(id),
            };
            if is_new {
                place.hub.borrow_mut().publish(&topic, &body, retain);
            }
            match qos {
                Qos::Zero => Ok(()),
                Qos::One(id) => link.write(&packet::ack(Ack::Pub, id)).await,
                Qos::Two(id) => link.write(&packet::ack(Ack::PubRec, id)).await,
            }
        }
        Packet::PubRel(id) => {
            halves.remove(&id);
            link.write(&packet::ack(Ack::PubComp, id)).await
        }
        Packet::Subscribe(id, filters) => {
            let found: Vec<_> = {
                let mut hub = place.hub.borrow_mut();
                filters.into_iter().map(|filter| hub.subscribe(place.key, filter)).collect()
            };
            let taken: Vec<_> = found.iter().map(Option::is_some).collect();
            link.write(&packet::suback(id, &taken)).await?;
            for message in found.into_iter().flatten().flatten() {
                link.write(&message).await?;
            }
            Ok(())
        }
        Packet::Unsubscribe(id, filters) => {
            for filter in filters {
                place.hub.borrow_mut().unsubscribe(place.key, &filter);
            }
            link.write(&packet::ack(Ack::Unsub, id)).await
        }
        Packet::PingReq => link.write(&packet::PINGRESP).await,
        Packet::Connect(_) => Err(Fault::Broken("a second CONNECT")),
        // Seen by the caller.
        Packet::Disconnect => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{JoinSet, LocalSet};

    use super::*;
    use crate::publish::embedded::expendable;

    #[test]
    fn a_panic_gives_the_place_back_publishes_the_will_and_harms_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let hub = Rc::new(RefCell::new(Hub::default()));
            let (key, outbox) = hub.borrow_mut().join("other".to_owned());
            hub.borrow_mut().subscribe(key, "will".to_owned()).unwrap();
            let place = |id: &str| {
                let (key, outbox) = hub.borrow_mut().join(id.to_owned());
                let will = Some(Will { topic: "will".to_owned(), body: b"gone".to_vec(), retain: false });
                Place { hub: Rc::clone(&hub), key, outbox, will }
            };
            let unlucky = place("unlucky");
            let mut clients = JoinSet::new();
            clients.spawn_local(expendable(async move {
                let _held = unlucky.hub.borrow_mut();
                panic!("a bug that a packet met");
            }));
            assert!(clients.join_next().await.unwrap().unwrap_err().is_panic());
            assert_eq!(outbox.take(), Some(packet::encode_publish("will", b"gone", false).into()));
            assert_eq!(hub.borrow_mut().subscribe(1, "a".to_owned()), None, "its place is free");
        });
    }

    #[test]
    fn a_door_opens_to_its_user_only() {
        let connect = |user: Option<&str>, password: &str| Connect {
            client_id: "id".to_owned(),
            clean_session: true,
            keep_alive: 0,
            will: None,
            user: user.map(str::to_owned),
            password: Some(password.as_bytes().to_vec()),
        };
        let locked = Door::new(Some("box"), Some(&Secret::new("word".to_owned())));
        assert!(locked.opens_to(&connect(Some("box"), "word")));
        for (user, password) in [(Some("box"), "wor"), (Some("bo"), "xword"), (Some(""), "boxword"), (None, "word")]
        {
            assert!(!locked.opens_to(&connect(user, password)));
        }
        assert!(Door::new(None, None).opens_to(&connect(None, "")));
    }
}
