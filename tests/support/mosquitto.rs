//! A real Mosquitto on a free port, a relay whose connections can be cut, and a subscriber.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS, v5};
use tempfile::TempDir;
use watchpost::worker::spawn;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port of this machine that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Looks until `done`, for what has no event to wait for: a counter, a sentence.
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    within(PATIENCE, what, done);
}

/// The same with a limit of its own.
pub fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A broker process, killed when dropped.
pub struct Mosquitto {
    dir: TempDir,
    port: u16,
    lines: Vec<String>,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one on a free port and waits until it accepts. `lines` follow the listener's; without any, anybody
    /// may connect.
    pub fn start(lines: &[&str]) -> Self {
        let mut broker = Self::prepare(free_port());
        broker.configure(lines);
        broker.restart();
        broker
    }

    /// One that does not run yet: for its directory, or to start it later.
    pub fn prepare(port: u16) -> Self {
        let mut broker = Self { dir: TempDir::new().unwrap(), port, lines: Vec::new(), child: None };
        broker.configure(&[]);
        broker
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files may lie.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Other lines of configuration, from the next start on.
    pub fn configure(&mut self, lines: &[&str]) {
        self.lines = if lines.is_empty() {
            vec!["allow_anonymous true".to_owned()]
        } else {
            lines.iter().map(|line| (*line).to_owned()).collect()
        };
    }

    /// A password file for one user; its path.
    pub fn password_file(&self, user: &str, password: &str) -> String {
        let file = self.dir().join(format!("passwords-{password}"));
        let path = file.to_str().unwrap().to_owned();
        let done = Command::new("mosquitto_passwd").args(["-b", "-c", &path, user, password]).status().unwrap();
        assert!(done.success());
        path
    }

    /// Starts it, again if it ran.
    pub fn restart(&mut self) {
        self.kill();
        let config = self.dir().join("mosquitto.conf");
        let mut text = format!("user root\nlog_dest stderr\nlog_type all\nlistener {} 127.0.0.1\n", self.port);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        std::fs::write(&config, text).unwrap();
        let binary = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let mut child = Command::new(binary)
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        loop {
            let Some(Ok(line)) = log.next() else { panic!("mosquitto ended: {said:#?}") };
            if line.ends_with(" running") {
                break;
            }
            said.push(line);
        }
        // Somebody must read on, or the broker blocks on a full pipe.
        spawn("mosquitto-log", move || log.for_each(drop));
        self.child = Some(child);
    }

    /// Kills it with signal 9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it as the system does, and waits until it has written what it keeps.
    pub fn stop(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Sends it a signal by name (`STOP`, `CONT`, `HUP`).
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A TCP relay to a port of this machine; its connections can be cut as a bad network does.
pub struct Relay {
    port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// A relay to `target`.
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&streams);
        spawn("relay", move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                held.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                for (from, to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                    spawn("relay-pump", move || pump(from, to));
                }
            }
        });
        Self { port, streams }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A message that was delivered.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    pub body: Vec<u8>,
    /// To a [`Subscriber`]: the broker kept it from before. To a [`Witness`]: as it was published.
    pub retained: bool,
    /// At most that of the subscription: 0 to a [`Subscriber`].
    pub qos: u8,
    /// Seconds until it expires, over MQTT 5.
    pub expiry: Option<u32>,
    /// When it came, whenever the test looks at it.
    pub at: Instant,
}

impl Message {
    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A subscriber over MQTT 3.1.1 at QoS 0 that comes back after every failure; QoS 0, so that the broker hands
/// every message to the socket before it acknowledges it to the publisher.
pub struct Subscriber {
    pub messages: Receiver<Message>,
    /// One entry each time the broker confirmed the subscription.
    pub subscribed: Receiver<()>,
    client: Client,
}

impl Subscriber {
    /// Subscribes at a port of this machine, and waits until that is confirmed.
    pub fn start(port: u16, filter: &str, user: Option<(&str, &str)>) -> Self {
        let mut options = MqttOptions::new(format!("test-{}", fastrand::u64(..)), "127.0.0.1", port);
        options.set_max_packet_size(8 << 20, 8 << 20);
        if let Some((user, password)) = user {
            options.set_credentials(user, password);
        }
        let (client, connection) = Client::new(options, 64);
        let (messages_in, messages) = bounded(100_000);
        let (subscribed_in, subscribed) = bounded(1000);
        let asking = client.clone();
        let filter = filter.to_owned();
        spawn("subscriber", move || listen(connection, &asking, &filter, &messages_in, &subscribed_in));
        subscribed.recv_timeout(PATIENCE).expect("the subscription is confirmed");
        Self { messages, subscribed, client }
    }

    /// The next message.
    pub fn next(&self) -> Message {
        self.messages.recv_timeout(PATIENCE).expect("a message comes")
    }

    /// The next message of a topic; others are passed over.
    pub fn next_of(&self, topic: &str) -> Message {
        loop {
            let message = self.next();
            if message.topic == topic {
                return message;
            }
        }
    }

    /// Publishes any bytes at QoS 1.
    pub fn publish_bytes(&self, topic: &str, body: &[u8]) {
        self.client.publish(topic, QoS::AtLeastOnce, false, body).unwrap();
    }

    /// Publishes something at QoS 1.
    pub fn publish(&self, topic: &str, body: &str, retain: bool) {
        self.client.publish(topic, QoS::AtLeastOnce, retain, body).unwrap();
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.client.try_disconnect();
    }
}

fn listen(
    mut connection: rumqttc::Connection,
    client: &Client,
    filter: &str,
    messages: &Sender<Message>,
    subscribed: &Sender<()>,
) {
    for event in connection.iter() {
        match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => client.try_subscribe(filter, QoS::AtMostOnce).unwrap(),
            Ok(Event::Incoming(Packet::SubAck(_))) => subscribed.send(()).unwrap(),
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let body = publish.payload.to_vec();
                let (retained, qos, at) = (publish.retain, publish.qos as u8, Instant::now());
                let message = Message { topic: publish.topic, body, retained, qos, expiry: None, at };
                if messages.send(message).is_err() {
                    return;
                }
            }
            Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A subscriber over MQTT 5 at QoS 1 that hears every message as it was published. It does not come back after a failure.
pub struct Witness {
    pub messages: Receiver<Message>,
    client: v5::Client,
}

impl Witness {
    /// Subscribes at a port of this machine, and waits until that is confirmed.
    pub fn start(port: u16, filter: &str) -> Self {
        let mut options = v5::MqttOptions::new(format!("witness-{}", fastrand::u64(..)), "127.0.0.1", port);
        options.set_max_packet_size(Some(8 << 20));
        let (client, mut connection) = v5::Client::new(options, 64);
        let mut filter = v5::mqttbytes::v5::Filter::new(filter, v5::mqttbytes::QoS::AtLeastOnce);
        filter.preserve_retain = true;
        client.subscribe_many([filter]).unwrap();
        let (messages_in, messages) = bounded(100_000);
        let (subscribed_in, subscribed) = bounded(1);
        spawn("witness", move || {
            for event in connection.iter() {
                match event {
                    Ok(v5::Event::Incoming(v5::mqttbytes::v5::Packet::SubAck(_))) => {
                        subscribed_in.send(()).unwrap()
                    }
                    Ok(v5::Event::Incoming(v5::mqttbytes::v5::Packet::Publish(publish))) => {
                        if messages_in.send(witnessed(publish)).is_err() {
                            return;
                        }
                    }
                    Ok(v5::Event::Outgoing(rumqttc::Outgoing::Disconnect)) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        });
        subscribed.recv_timeout(PATIENCE).expect("the subscription is confirmed");
        Self { messages, client }
    }

    /// All that comes before a message to this topic.
    pub fn until(&self, topic: &str) -> Vec<Message> {
        let next = || self.messages.recv_timeout(PATIENCE).expect("a message comes");
        std::iter::repeat_with(next).take_while(|message| message.topic != topic).collect()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.client.try_disconnect();
    }
}

fn witnessed(publish: v5::mqttbytes::v5::Publish) -> Message {
    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
    let expiry = publish.properties.and_then(|properties| properties.message_expiry_interval);
    let (body, retained, qos) = (publish.payload.to_vec(), publish.retain, publish.qos as u8);
    Message { topic, body, retained, qos, expiry, at: Instant::now() }
}

/// A broker that speaks MQTT 3.1.1 only and acknowledges nothing but connections: the protocol levels it was
/// asked for.
pub fn old_broker() -> (SocketAddr, Receiver<u8>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, levels) = bounded(100);
    spawn("old-broker", move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Fixed header (1 + at least 1), "MQTT" with its length, the level.
            let mut start = [0; 9];
            stream.read_exact(&mut start).unwrap();
            let level = start[8];
            if asked.send(level).is_err() {
                return;
            }
            stream.write_all(&[0x20, 2, 0, u8::from(level != 4)]).unwrap();
            if level == 4 {
                held.push(stream);
            }
        }
    });
    (address, levels)
}
