//! A relay that keeps what clients say to a server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use watchpost::worker::spawn;

/// A TCP relay that keeps what clients say.
pub struct Tap {
    port: u16,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// A relay to `target`, a port of this machine.
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&said);
        spawn("tap", move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let kept = Arc::clone(&kept);
                spawn("tap-up", move || pump(from, to, Some(&kept)));
                spawn("tap-down", move || pump(server, client, None));
            }
        });
        Self { port, said }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything that clients said so far, as text.
    pub fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The requests so far of one method, such as `DESCRIBE`.
    pub fn requests(&self, method: &str) -> usize {
        self.said().lines().filter(|line| line.starts_with(&format!("{method} rtsp"))).count()
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, kept: Option<&Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if let Some(kept) = kept {
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
