//! A TCP link to a server whose condition is in the test's hands: slow, silent, cut, or in the way of MQTT itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use watchpost::worker::spawn;

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Everything passes.
    Good,
    /// Whoever connects is hung up on.
    Away,
    /// Connections are made and stay, and not a byte passes.
    Hole,
    /// A thousand bytes a second, each way.
    Slow,
    /// CONNECT is answered: the server is unavailable.
    Refusing,
    /// What is published passes, and no PUBACK comes back.
    Deaf,
}

struct State {
    condition: Mutex<Condition>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
    /// MQTT in the clear, which is looked into.
    clear: bool,
}

/// A relay on a free port.
pub struct Link {
    port: u16,
    state: Arc<State>,
}

impl Link {
    /// To `target`, a port of this machine where MQTT is spoken.
    pub fn mqtt(target: u16) -> Self {
        Self::start(target, true)
    }

    /// The same, [`Condition::Away`] so far: until somebody listens to what comes by it.
    pub fn away(target: u16) -> Self {
        let link = Self::mqtt(target);
        link.set(Condition::Away);
        link
    }

    /// To `target`, a port of this machine; [`Condition::Refusing`] and [`Condition::Deaf`] are as good as good.
    pub fn opaque(target: u16) -> Self {
        Self::start(target, false)
    }

    fn start(target: u16, clear: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let condition = Mutex::new(Condition::Good);
        let state = Arc::new(State { condition, changed: Condvar::new(), streams: Mutex::default(), clear });
        let shared = Arc::clone(&state);
        spawn("link", move || {
            for client in listener.incoming() {
                shared.connected(client.unwrap(), target);
            }
        });
        Self { port, state }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it is so; connections stay.
    pub fn set(&self, condition: Condition) {
        *self.state.condition.lock().unwrap() = condition;
        self.state.changed.notify_all();
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for stream in self.state.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.state.changed.notify_all();
    }
}

impl State {
    fn condition(&self) -> Condition {
        *self.condition.lock().unwrap()
    }

    fn connected(self: &Arc<Self>, client: TcpStream, target: u16) {
        match self.condition() {
            Condition::Away => return,
            Condition::Refusing if self.clear => {
                spawn("link-refuse", move || refuse(client));
                return;
            }
            _ => {}
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
        self.streams.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        spawn("link-up", move || up.pump(from, to, false));
        let framed = self.clear;
        spawn("link-down", move || down.pump(server, client, framed));
    }

    /// Until one side has ended. `framed`: packet by packet.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, framed: bool) {
        let mut buffer = [0; 1024];
        let mut held = Vec::new();
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            self.through_the_hole();
            if !framed {
                held.extend_from_slice(&buffer[..n]);
                if self.pass(&held, &mut to).is_err() {
                    break;
                }
                held.clear();
                continue;
            }
            held.extend_from_slice(&buffer[..n]);
            let mut failed = false;
            while let Some(length) = packet(&held) {
                let packet: Vec<u8> = held.drain(..length).collect();
                const PUBACK: u8 = 4;
                if packet[0] >> 4 == PUBACK && self.condition() == Condition::Deaf {
                    continue;
                }
                failed |= self.pass(&packet, &mut to).is_err();
            }
            if failed {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    fn through_the_hole(&self) {
        let mut condition = self.condition.lock().unwrap();
        while *condition == Condition::Hole {
            condition = self.changed.wait(condition).unwrap();
        }
    }

    fn pass(&self, bytes: &[u8], to: &mut TcpStream) -> std::io::Result<()> {
        for part in bytes.chunks(50) {
            if self.condition() == Condition::Slow {
                std::thread::sleep(Duration::from_millis(50)); // the rate itself
            }
            to.write_all(part)?;
        }
        Ok(())
    }
}

/// Length of the first MQTT packet, where it is whole.
fn packet(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let whole = 2 + at + length;
            return (bytes.len() >= whole).then_some(whole);
        }
    }
    None
}

fn refuse(mut client: TcpStream) {
    let mut connect = [0; 1024];
    let Ok(n) = client.read(&mut connect) else { return };
    let Some(name) = connect[..n].windows(4).position(|bytes| bytes == b"MQTT") else { return };
    // Server unavailable, in the protocol that was spoken.
    let answer: &[u8] = if connect[name + 4] == 5 { &[0x20, 3, 0, 0x88, 0] } else { &[0x20, 2, 0, 3] };
    let _ = client.write_all(answer);
    // Until the client has gone: to close at once could overtake the answer.
    let _ = client.read(&mut connect);
}
