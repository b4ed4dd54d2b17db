//! Packets of MQTT 3.1.1 as a broker reads and writes them. Pure; whatever the bytes are, nothing here panics.

/// Packet types with the flags that the protocol asks for.
const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const PUBREL: u8 = 0x62;
const SUBSCRIBE: u8 = 0x82;
const UNSUBSCRIBE: u8 = 0xa2;
const PINGREQ: u8 = 0xc0;
const DISCONNECT: u8 = 0xe0;

/// PINGRESP.
pub const PINGRESP: [u8; 2] = [0xd0, 0];
/// Most bytes of a topic or filter.
pub const TOPIC_BYTES_MAX: usize = 1024;
/// Most filters in one packet.
const FILTERS_MAX: usize = 1024;

/// A packet from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// The first.
    Connect(Connect),
    /// A message.
    Publish(Publish),
    /// The third part of a QoS 2 message, by packet id.
    PubRel(u16),
    /// Packet id and at least one filter, not looked at.
    Subscribe(u16, Vec<String>),
    /// As with SUBSCRIBE.
    Unsubscribe(u16, Vec<String>),
    /// Still there.
    PingReq,
    /// Good-bye.
    Disconnect,
}

/// CONNECT. Not `Debug`-printed anywhere: it holds a password.
#[derive(PartialEq, Eq)]
pub struct Connect {
    /// May be empty.
    pub client_id: String,
    /// Nothing of an earlier connection is wanted.
    pub clean_session: bool,
    /// Seconds; 0 = none.
    pub keep_alive: u16,
    /// Last will.
    pub will: Option<Will>,
    /// User name.
    pub user: Option<String>,
    /// Password: any bytes.
    pub password: Option<Vec<u8>>,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// What to publish for a client that goes without a word.
#[derive(Debug, PartialEq, Eq)]
pub struct Will {
    /// A topic without wildcards.
    pub topic: String,
    /// Any bytes.
    pub body: Vec<u8>,
    /// To be kept.
    pub retain: bool,
}

/// PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish {
    /// A topic without wildcards.
    pub topic: String,
    /// Any bytes.
    pub body: Vec<u8>,
    /// To be kept.
    pub retain: bool,
    /// How it is to be answered.
    pub qos: Qos,
}

/// Quality of service, with the packet id to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Not at all.
    Zero,
    /// PUBACK.
    One(u16),
    /// PUBREC, then PUBCOMP for its PUBREL.
    Two(u16),
}

/// Why the bytes are no packet that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// In words.
    Malformed(&'static str),
    /// CONNECT of another protocol version, by its level.
    Version(u8),
}

/// The first packet of `bytes` and its length; `None` where more bytes are needed. A packet that says it is longer
/// than `max` bytes is refused before it is there.
///
/// # Errors
///
/// The connection is to be closed: see [`Broken`].
pub fn decode(bytes: &[u8], max: usize) -> Result<Option<(Packet, usize)>, Broken> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    // Now, not when the length that it claims is there.
    if !matches!(first, CONNECT | PUBREL | SUBSCRIBE | UNSUBSCRIBE | PINGREQ | DISCONNECT)
        && first & 0xf0 != PUBLISH
    {
        return Err(Broken::Malformed("a packet that no client sends here"));
    }
    let mut length = 0;
    for (index, &byte) in rest.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let start = index + 2;
            if length > max {
                return Err(Broken::Malformed("a packet over the limit"));
            }
            let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
            return packet(first, Reader(body)).map(|packet| Some((packet, start + length)));
        }
    }
    if rest.len() < 4 { Ok(None) } else { Err(Broken::Malformed("a length of more than 4 bytes")) }
}

fn packet(first: u8, mut body: Reader<'_>) -> Result<Packet, Broken> {
    let packet = match first {
        CONNECT => Packet::Connect(connect(&mut body)?),
        PUBREL => Packet::PubRel(body.id()?),
        SUBSCRIBE => Packet::Subscribe(body.id()?, filters(&mut body, true)?),
        UNSUBSCRIBE => Packet::Unsubscribe(body.id()?, filters(&mut body, false)?),
        PINGREQ => Packet::PingReq,
        DISCONNECT => Packet::Disconnect,
        _ => return publish(first, body).map(Packet::Publish),
    };
    if body.0.is_empty() { Ok(packet) } else { Err(Broken::Malformed("bytes after the end of a packet")) }
}

fn connect(body: &mut Reader<'_>) -> Result<Connect, Broken> {
    let name = body.bytes()?;
    let level = body.byte()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Broken::Malformed("another protocol than MQTT"));
    }
    if name != b"MQTT" || level != 4 {
        return Err(Broken::Version(level));
    }
    let flags = body.byte()?;
    let keep_alive = body.number()?;
    let client_id = body.text()?;
    let has = |bit: u8| flags & bit != 0;
    let will = match has(0x04) {
        true => Some(Will { topic: topic(body)?, body: body.bytes()?.to_vec(), retain: has(0x20) }),
        false => None,
    };
    let user = if has(0x80) { Some(body.text()?) } else { None };
    let password = if has(0x40) { Some(body.bytes()?.to_vec()) } else { None };
    if has(0x01) || flags & 0x18 == 0x18 || will.is_none() && flags & 0x38 != 0 {
        return Err(Broken::Malformed("connect flags that do not go together"));
    }
    Ok(Connect { client_id, clean_session: has(0x02), keep_alive, will, user, password })
}

fn publish(first: u8, mut body: Reader<'_>) -> Result<Publish, Broken> {
    let topic = topic(&mut body)?;
    let qos = match first >> 1 & 3 {
        0 => Qos::Zero,
        1 => Qos::One(body.id()?),
        2 => Qos::Two(body.id()?),
        _ => return Err(Broken::Malformed("QoS 3")),
    };
    Ok(Publish { topic, body: body.0.to_vec(), retain: first & 1 != 0, qos })
}

fn topic(body: &mut Reader<'_>) -> Result<String, Broken> {
    let topic = body.text()?;
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || topic.contains(['+', '#']) {
        return Err(Broken::Malformed("a topic that cannot be published to"));
    }
    Ok(topic)
}

/// At least one filter, with a QoS behind each in SUBSCRIBE. Whether they are filters at all is not looked at.
fn filters(body: &mut Reader<'_>, with_qos: bool) -> Result<Vec<String>, Broken> {
    let mut filters = Vec::new();
    loop {
        filters.push(body.text()?);
        if with_qos && body.byte()? > 2 {
            return Err(Broken::Malformed("a subscription of another QoS than 0, 1 or 2"));
        }
        if body.0.is_empty() {
            return Ok(filters);
        }
        if filters.len() == FILTERS_MAX {
            return Err(Broken::Malformed("too many filters"));
        }
    }
}

/// What is left of a packet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Broken::Malformed("a packet cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Result<u16, Broken> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn id(&mut self) -> Result<u16, Broken> {
        match self.number()? {
            0 => Err(Broken::Malformed("packet id 0")),
            id => Ok(id),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    fn text(&mut self) -> Result<String, Broken> {
        match std::str::from_utf8(self.bytes()?) {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => Err(Broken::Malformed("a text that is not UTF-8, or holds NUL")),
        }
    }
}

/// CONNACK's return code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Let in.
    Accepted = 0,
    /// No id, but a session.
    BadClientId = 2,
    /// Wrong user or password.
    BadLogin = 4,
}

/// CONNACK; never with a session.
pub fn connack(answer: Answer) -> [u8; 4] {
    [0x20, 2, 0, answer as u8]
}

/// CONNACK that refuses a protocol version, in words that a client of that version reads.
pub fn wrong_version(level: u8) -> &'static [u8] {
    if level == 5 { &[0x20, 3, 0, 0x84, 0] } else { &[0x20, 2, 0, 1] }
}

/// An answer that is a packet id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// PUBACK.
    Pub = 0x40,
    /// PUBREC.
    PubRec = 0x50,
    /// PUBCOMP.
    PubComp = 0x70,
    /// UNSUBACK.
    Unsub = 0xb0,
}

/// PUBACK and the like.
pub fn ack(ack: Ack, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [ack as u8, 2, high, low]
}

/// SUBACK: QoS 0 for each filter that was taken, a failure for the others.
pub fn suback(id: u16, taken: &[bool]) -> Vec<u8> {
    let mut packet = vec![0x90];
    push_length(&mut packet, 2 + taken.len());
    packet.extend(id.to_be_bytes());
    packet.extend(taken.iter().map(|taken| if *taken { 0 } else { 0x80 }));
    packet
}

/// PUBLISH at QoS 0. The topic is one that was decoded, so no longer than its length field can say.
pub fn encode_publish(topic: &str, body: &[u8], retained: bool) -> Vec<u8> {
    let mut packet = Vec::with_capacity(7 + topic.len() + body.len());
    packet.push(PUBLISH | u8::from(retained));
    push_length(&mut packet, 2 + topic.len() + body.len());
    packet.extend((topic.len() as u16).to_be_bytes());
    packet.extend(topic.as_bytes());
    packet.extend(body);
    packet
}

fn push_length(packet: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        packet.push(length as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn framed(first: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        push_length(&mut bytes, body.len());
        [bytes, body.to_vec()].concat()
    }

    fn decoded(bytes: &[u8]) -> Result<Packet, Broken> {
        decode(bytes, 1 << 20).map(|some| {
            let (packet, length) = some.expect("complete");
            assert_eq!(length, bytes.len());
            packet
        })
    }

    fn full_connect() -> Vec<u8> {
        let fields = ["id", "box/status", "offline", "user", "s3cret"].map(text).concat();
        framed(CONNECT, &[&text("MQTT")[..], &[4, 0xe6, 0, 30], &fields].concat())
    }

    #[test]
    fn a_connect_with_everything_is_read_and_its_password_not_shown() {
        let Ok(Packet::Connect(connect)) = decoded(&full_connect()) else { panic!("not read") };
        let will = Will { topic: "box/status".to_owned(), body: b"offline".to_vec(), retain: true };
        assert_eq!((connect.will.as_ref(), connect.keep_alive, connect.clean_session), (Some(&will), 30, true));
        assert_eq!((connect.user.as_deref(), connect.password.as_deref()), (Some("user"), Some(&b"s3cret"[..])));
        assert!(!format!("{connect:?}").contains("s3cret"));
    }

    #[test]
    fn publishes_are_read_as_they_are_written() {
        for length in [0, 1, 100, 127, 128, 16_383, 16_384, 200_000] {
            for retain in [false, true] {
                let body = vec![7; length];
                let bytes = encode_publish("a/ü", &body, retain);
                let publish = Publish { topic: "a/ü".to_owned(), body, retain, qos: Qos::Zero };
                assert_eq!(decoded(&bytes), Ok(Packet::Publish(publish)));
                for cut in [0, 1, 2, bytes.len() / 2, bytes.len() - 1] {
                    assert_eq!(decode(&bytes[..cut], 1 << 20), Ok(None));
                }
            }
        }
        let long = framed(0x34, &[&text("a")[..], &[1, 2], b"x"].concat());
        let Ok(Packet::Publish(publish)) = decoded(&long) else { panic!("not read") };
        assert_eq!((publish.qos, &publish.body[..]), (Qos::Two(0x0102), &b"x"[..]));
    }

    #[test]
    fn other_versions_are_told_apart_from_garbage() {
        let asks =
            |name: &str, level: u8| decoded(&framed(CONNECT, &[&text(name)[..], &[level, 2, 0, 0]].concat()));
        assert_eq!(asks("MQTT", 5), Err(Broken::Version(5)));
        assert_eq!(asks("MQIsdp", 3), Err(Broken::Version(3)));
        assert!(matches!(asks("HTTP", 4), Err(Broken::Malformed(_))));
    }

    #[test]
    fn what_the_protocol_forbids_is_refused() {
        let connect = |flags: u8| framed(CONNECT, &[&text("MQTT")[..], &[4, flags, 0, 0], &text("id")].concat());
        let wrong = [
            vec![0xff; 9],
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            connect(0x03),
            connect(0x0a),
            connect(0x82),
            framed(CONNECT, &[&connect(2)[2..], &[0]].concat()),
            framed(PUBLISH, &text("")),
            framed(PUBLISH, &text("a/#")),
            framed(PUBLISH, &text("a\0")),
            framed(PUBLISH, &text(&"a".repeat(TOPIC_BYTES_MAX + 1))),
            framed(PUBLISH, &[0, 2, 0xc3, 0x28]),
            framed(0x36, &[&text("a")[..], &[0, 1]].concat()),
            framed(0x32, &[&text("a")[..], &[0, 0]].concat()),
            framed(SUBSCRIBE, &[0, 1]),
            framed(SUBSCRIBE, &[&[0, 1][..], &text("a"), &[3]].concat()),
            framed(0x80, &[&[0, 1][..], &text("a"), &[0]].concat()),
            framed(0x40, &[0, 1]),
            framed(PINGREQ, &[0]),
        ];
        for bytes in wrong {
            assert!(matches!(decode(&bytes, 1 << 20), Err(Broken::Malformed(_))), "{bytes:02x?}");
        }
        assert!(decode(&[PUBLISH, 0xff, 0xff, 0x7f], 1 << 20).is_err(), "before it is there");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        let subscribe = framed(SUBSCRIBE, &[&[0, 1][..], &text("a/+"), &[1], &text("#"), &[0]].concat());
        let good = [full_connect(), encode_publish("a/b", b"body", true), subscribe, framed(PUBREL, &[0, 1])];
        for _ in 0..50_000 {
            let mut bytes = good[random.usize(..good.len())].clone();
            for _ in 0..random.usize(..5) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            if let Ok(Some((_, length))) = decode(&bytes, 1 << 20) {
                assert!(length <= bytes.len());
            }
        }
    }
}
