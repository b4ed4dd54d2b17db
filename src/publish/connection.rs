//! One connection to the broker, over MQTT 5 or 3.1.1, so that the rest need not care which.
//!
//! [`Client`] hands messages over and never blocks; [`Events`] drives the connection. A connection is made once and
//! dropped on its first error: rumqttc's own reconnection forgets what was not acknowledged.

use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use rumqttc::{QoS, TlsConfiguration, Transport, v5};

use super::fault::{Fault, Kind};
use super::tls;
use crate::config::{Broker, KEEP_ALIVE_MIN, MqttConfig, Secret, TlsConfig};
use crate::formats::cloudevents;

/// Requests that may wait inside the client.
pub const CLIENT_QUEUE: usize = 64;
/// Most bytes of a packet, in and out: snapshots are JPEG files.
pub const PACKET_BYTES_MAX: u32 = 4 << 20;
/// Longest wait for TCP, TLS and CONNACK together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Packet ids the client may use: more than the window, so that an id is free when its turn comes again.
const PACKET_IDS: u16 = 64;
/// Mosquitto looks only every 5 s at who has been silent for 1.5 keep-alives, so it is told of a keep-alive that is shorter by
/// this: a box that falls silent is `offline` within 1.5 times the configured one all the same, where that is 9 s or more.
const BROKER_IS_LATE: Duration = Duration::from_secs(4);
/// How long the broker keeps a message of QoS 0 for a subscriber, seconds.
pub const LIVE_EXPIRY_S: u32 = 5;

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V4,
}

impl Version {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Version::V5 => "MQTT 5",
            Version::V4 => "MQTT 3.1.1",
        }
    }
}

/// Where the broker is and how to greet it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: Option<TlsConfig>,
    client_id: String,
    user: Option<String>,
    password: Option<Secret>,
    keep_alive: Duration,
    will_topic: String,
}

impl Endpoint {
    /// The endpoint of a configuration; the last will is `offline` on `will_topic`.
    pub fn new(config: &MqttConfig, will_topic: &str) -> Self {
        let ((host, port), tls) = match &config.broker {
            Broker::Remote { host, port, tls } => {
                // rumqttc puts a colon and the port behind it; TLS wants the bare address.
                let bare = *tls || host.parse::<Ipv6Addr>().is_err();
                let host = if bare { host.clone() } else { format!("[{host}]") };
                ((host, *port), tls.then(|| config.tls.clone()))
            }
            Broker::Embedded { listen } => (super::embedded::own_address(*listen), None),
        };
        Self {
            host,
            port,
            tls,
            client_id: config.client_id.clone(),
            user: config.user.clone(),
            password: config.password.clone(),
            keep_alive: config.keep_alive.saturating_sub(BROKER_IS_LATE).max(KEEP_ALIVE_MIN),
            will_topic: will_topic.to_owned(),
        }
    }

    /// `host:port` for people.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The user, for people.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn transport(&self) -> Result<Transport, Fault> {
        let Some(settings) = &self.tls else { return Ok(Transport::Tcp) };
        let config = tls::client_config(settings).map_err(|text| Fault::new(Kind::Network, text))?;
        Ok(Transport::tls_with_config(TlsConfiguration::Rustls(config)))
    }

    fn credentials(&self) -> Option<(&str, &str)> {
        let password = self.password.as_ref().map_or("", Secret::expose);
        self.user.as_deref().map(|user| (user, password))
    }

    /// A new connection; nothing is sent before [`Events::next`] is first awaited.
    ///
    /// # Errors
    ///
    /// The TLS files cannot be used.
    pub fn connect(&self, version: Version) -> Result<(Client, Events), Fault> {
        let (host, port) = (&self.host, self.port);
        let transport = self.transport()?;
        Ok(match version {
            Version::V4 => {
                let mut options = rumqttc::MqttOptions::new(&self.client_id, host, port);
                options.set_transport(transport).set_keep_alive(self.keep_alive).set_clean_session(true);
                options.set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
                options.set_inflight(PACKET_IDS);
                options.set_last_will(rumqttc::LastWill::new(&self.will_topic, "offline", QoS::AtLeastOnce, true));
                if let Some((user, password)) = self.credentials() {
                    options.set_credentials(user, password);
                }
                let (client, mut events) = rumqttc::AsyncClient::new(options, CLIENT_QUEUE);
                let mut network = events.network_options();
                network.set_connection_timeout(CONNECT_TIMEOUT.as_secs()).set_tcp_nodelay(true);
                events.set_network_options(network);
                (Client::V4(client), Events::V4(Box::new(events)))
            }
            Version::V5 => {
                let mut options = v5::MqttOptions::new(&self.client_id, host, port);
                options.set_transport(transport).set_keep_alive(self.keep_alive).set_clean_start(true);
                options.set_max_packet_size(Some(PACKET_BYTES_MAX));
                options.set_outgoing_inflight_upper_limit(PACKET_IDS);
                options.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
                let mut network = options.network_options();
                network.set_tcp_nodelay(true);
                options.set_network_options(network);
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                options.set_last_will(v5::mqttbytes::v5::LastWill::new(
                    &self.will_topic,
                    "offline",
                    qos,
                    true,
                    None,
                ));
                if let Some((user, password)) = self.credentials() {
                    options.set_credentials(user, password);
                }
                let (client, events) = v5::AsyncClient::new(options, CLIENT_QUEUE);
                (Client::V5(client), Events::V5(Box::new(events)))
            }
        })
    }
}

/// Hands messages to the connection.
pub enum Client {
    /// Over MQTT 3.1.1.
    V4(rumqttc::AsyncClient),
    /// Over MQTT 5.
    V5(v5::AsyncClient),
}

impl Client {
    /// A message at QoS 1.
    ///
    /// # Errors
    ///
    /// The client's queue is full: the caller hands over more than its share.
    pub fn publish(&self, topic: &str, retain: bool, body: Vec<u8>) -> Result<(), Fault> {
        match self {
            Client::V4(client) => {
                client.try_publish(topic, QoS::AtLeastOnce, retain, body).map_err(|_| Fault::client_full())
            }
            Client::V5(client) => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                // The protocol has a place for what stands around the event; 3.1.1 has none.
                if topic.ends_with("/cloudevents")
                    && let Some(event) = cloudevents::binary(&body)
                {
                    let properties = v5::mqttbytes::v5::PublishProperties {
                        user_properties: event.properties,
                        content_type: Some(event.content_type),
                        ..Default::default()
                    };
                    let sent = client.try_publish_with_properties(topic, qos, retain, event.payload, properties);
                    return sent.map_err(|_| Fault::client_full());
                }
                client.try_publish(topic, qos, retain, body).map_err(|_| Fault::client_full())
            }
        }
    }

    /// A message at QoS 0 that expires.
    ///
    /// # Errors
    ///
    /// As [`Client::publish`].
    pub fn publish_live(&self, topic: &str, body: Vec<u8>) -> Result<(), Fault> {
        match self {
            Client::V4(client) => {
                client.try_publish(topic, QoS::AtMostOnce, false, body).map_err(|_| Fault::client_full())
            }
            Client::V5(client) => {
                let expiry = v5::mqttbytes::v5::PublishProperties {
                    message_expiry_interval: Some(LIVE_EXPIRY_S),
                    ..Default::default()
                };
                let qos = v5::mqttbytes::QoS::AtMostOnce;
                let sent = client.try_publish_with_properties(topic, qos, false, body, expiry);
                sent.map_err(|_| Fault::client_full())
            }
        }
    }

    /// What came of a command, at QoS 1; `correlation` goes with it where the protocol can.
    ///
    /// # Errors
    ///
    /// As [`Client::publish`].
    pub fn acknowledge(&self, topic: &str, correlation: Option<Vec<u8>>, body: Vec<u8>) -> Result<(), Fault> {
        match self {
            Client::V4(_) => self.publish(topic, false, body),
            Client::V5(client) => {
                let properties = v5::mqttbytes::v5::PublishProperties {
                    correlation_data: correlation.map(Into::into),
                    content_type: Some("application/json".to_owned()),
                    ..Default::default()
                };
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                let sent = client.try_publish_with_properties(topic, qos, false, body, properties);
                sent.map_err(|_| Fault::client_full())
            }
        }
    }

    /// Asks for the messages of the filters, where the protocol can and `as_published` says so with the retain flag as it was
    /// published; else the flag is set on those alone that were kept from before.
    ///
    /// # Errors
    ///
    /// As [`Client::publish`].
    pub fn subscribe(&self, filters: &[String], as_published: bool) -> Result<(), Fault> {
        match self {
            Client::V4(client) => {
                let filters = filters.iter().map(|f| rumqttc::SubscribeFilter::new(f.clone(), QoS::AtLeastOnce));
                client.try_subscribe_many(filters).map_err(|_| Fault::client_full())
            }
            Client::V5(client) => {
                let filters = filters.iter().map(|filter| {
                    let mut filter =
                        v5::mqttbytes::v5::Filter::new(filter.clone(), v5::mqttbytes::QoS::AtLeastOnce);
                    filter.preserve_retain = as_published;
                    filter
                });
                client.try_subscribe_many(filters).map_err(|_| Fault::client_full())
            }
        }
    }

    /// Says good-bye; the broker then forgets the last will.
    ///
    /// # Errors
    ///
    /// As [`Client::publish`].
    pub fn disconnect(&self) -> Result<(), Fault> {
        match self {
            Client::V4(client) => client.try_disconnect().map_err(|_| Fault::client_full()),
            Client::V5(client) => client.try_disconnect().map_err(|_| Fault::client_full()),
        }
    }
}

/// What the broker allows on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a packet.
    pub packet_bytes: u32,
    /// Most QoS 1 messages in flight.
    pub in_flight: usize,
}

/// The broker's answer to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has it.
    Accepted,
    /// Not now: a quota.
    Later(String),
    /// Never: the reason.
    Refused(String),
}

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its topic.
    pub topic: String,
    /// Its body.
    pub body: Vec<u8>,
    /// It was kept by the broker, not sent just now.
    pub retained: bool,
    /// Where the sender wants an answer (MQTT 5).
    pub response: Option<String>,
    /// What the answer is to carry for the sender to know it by.
    pub correlation: Option<Vec<u8>>,
}

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The broker accepted us.
    Connected(Limits),
    /// A message was written; its packet id, 0 for QoS 0. In the order of handing over.
    Sent(u16),
    /// The broker answered for a packet id.
    Settled(u16, Verdict),
    /// A message came in.
    Incoming(Incoming),
    /// The broker refused the subscription: why.
    SubscriptionRefused(String),
    /// Our good-bye was written.
    Disconnected,
    /// Pings and the like.
    Nothing,
}

/// Drives the connection.
pub enum Events {
    /// Over MQTT 3.1.1.
    V4(Box<rumqttc::EventLoop>),
    /// Over MQTT 5.
    V5(Box<v5::EventLoop>),
}

impl Events {
    /// How long the connection may say nothing at all. A ping is due every keep-alive, so silence this long means
    /// that a write hangs: rumqttc waits for one without end over MQTT 5.
    pub fn patience(&self) -> Duration {
        let keep_alive = match self {
            Events::V4(events) => events.mqtt_options.keep_alive(),
            Events::V5(events) => events.options.keep_alive(),
        };
        keep_alive * 3 / 2 + CONNECT_TIMEOUT
    }

    /// The next thing that happens. Must be awaited to its end: dropped half-way, a connection that is being made
    /// starts from the beginning.
    ///
    /// # Errors
    ///
    /// The connection is over.
    pub async fn next(&mut self, endpoint: &Endpoint) -> Result<Happened, Fault> {
        match self {
            Events::V4(events) => match events.poll().await {
                Ok(event) => Ok(happened_v4(event)),
                Err(error) => Err(Fault::from_v4(&error, endpoint)),
            },
            Events::V5(events) => match events.poll().await {
                Ok(event) => Ok(happened_v5(event)),
                Err(error) => Err(Fault::from_v5(&error, endpoint)),
            },
        }
    }
}

fn happened_v4(event: rumqttc::Event) -> Happened {
    use rumqttc::{Event, Outgoing, Packet, SubscribeReasonCode};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => {
            Happened::Connected(Limits { packet_bytes: PACKET_BYTES_MAX, in_flight: usize::MAX })
        }
        Event::Outgoing(Outgoing::Publish(pkid)) => Happened::Sent(pkid),
        Event::Outgoing(Outgoing::Disconnect) => Happened::Disconnected,
        Event::Incoming(Packet::PubAck(ack)) => Happened::Settled(ack.pkid, Verdict::Accepted),
        Event::Incoming(Packet::Publish(publish)) => Happened::Incoming(Incoming {
            topic: publish.topic,
            body: publish.payload.to_vec(),
            retained: publish.retain,
            response: None,
            correlation: None,
        }),
        Event::Incoming(Packet::SubAck(ack)) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
            Happened::SubscriptionRefused("no reason given".to_owned())
        }
        _ => Happened::Nothing,
    }
}

fn happened_v5(event: v5::Event) -> Happened {
    use rumqttc::Outgoing;
    use v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => {
            let limits = ack.properties.as_ref();
            let packet_bytes = limits.and_then(|limits| limits.max_packet_size).unwrap_or(PACKET_BYTES_MAX);
            let in_flight = limits.and_then(|limits| limits.receive_max).map_or(usize::MAX, usize::from);
            Happened::Connected(Limits { packet_bytes: packet_bytes.min(PACKET_BYTES_MAX), in_flight })
        }
        v5::Event::Outgoing(Outgoing::Publish(pkid)) => Happened::Sent(pkid),
        v5::Event::Outgoing(Outgoing::Disconnect) => Happened::Disconnected,
        v5::Event::Incoming(Packet::PubAck(ack)) => {
            let reason = format!("{:?}", ack.reason);
            let verdict = match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Verdict::Accepted,
                PubAckReason::QuotaExceeded | PubAckReason::PacketIdentifierInUse => Verdict::Later(reason),
                PubAckReason::UnspecifiedError
                | PubAckReason::ImplementationSpecificError
                | PubAckReason::NotAuthorized
                | PubAckReason::TopicNameInvalid
                | PubAckReason::PayloadFormatInvalid => Verdict::Refused(reason),
            };
            Happened::Settled(ack.pkid, verdict)
        }
        v5::Event::Incoming(Packet::Publish(publish)) => {
            let properties = publish.properties.unwrap_or_default();
            Happened::Incoming(Incoming {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                body: publish.payload.to_vec(),
                retained: publish.retain,
                response: properties.response_topic,
                correlation: properties.correlation_data.map(|data| data.to_vec()),
            })
        }
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            let refused = ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            refused.map_or(Happened::Nothing, |code| Happened::SubscriptionRefused(format!("{code:?}")))
        }
        _ => Happened::Nothing,
    }
}

/// A refused or failed system call, for people.
pub fn explain_io(error: &io::Error, endpoint: &str) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {endpoint} (connection refused): start the broker, or give its address")
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            format!("the broker {endpoint} closed the connection")
        }
        _ => format!("the broker {endpoint} cannot be reached: {error}"),
    }
}
