//! Why a connection ended, named by what to do about it, in one sentence for people, and said no more often than
//! is useful.

use std::error::Error;
use std::time::{Duration, Instant};

use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};

use super::connection::{CONNECT_TIMEOUT, Endpoint, PACKET_BYTES_MAX, Version, explain_io};
use super::tls;

/// A fault that repeats is logged once in this time.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The broker does not speak this protocol version: try the other at once.
    Version,
    /// It closed the connection instead of answering: try the other version next.
    ClosedEarly,
    /// It does not let us in, or wants us gone: retry slowly.
    Unwelcome,
    /// It sent more than may come in.
    TooLarge,
    /// Anything else: retry with back-off.
    Network,
    /// Nothing went wrong: it is time to stop.
    Stopping,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// What to do about it.
    pub kind: Kind,
    /// One sentence.
    pub text: String,
}

impl Fault {
    /// A fault.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// More was handed to the client than it has room for.
    pub fn client_full() -> Self {
        Self::new(Kind::Network, "the MQTT client took no more messages; connecting anew")
    }

    /// It is time to stop.
    pub fn stopping() -> Self {
        Self::new(Kind::Stopping, "stopping")
    }

    /// Nothing happened for longer than a ping takes.
    pub fn silent(endpoint: &str) -> Self {
        Self::new(Kind::Network, format!("the broker {endpoint} has stopped taking data; connecting anew"))
    }

    /// Messages are in flight, and the broker acknowledges none.
    pub fn deaf(endpoint: &str, patience: Duration) -> Self {
        let seconds = patience.as_secs();
        let text = format!("the broker {endpoint} has acknowledged nothing for {seconds} s; connecting anew");
        Self::new(Kind::Network, text)
    }

    /// From the MQTT 3.1.1 client.
    pub fn from_v4(error: &rumqttc::ConnectionError, endpoint: &Endpoint) -> Self {
        use rumqttc::{ConnectReturnCode as Code, ConnectionError as E, StateError, mqttbytes};
        match error {
            E::ConnectionRefused(Code::BadUserNamePassword | Code::NotAuthorized) => unwelcome(endpoint),
            E::ConnectionRefused(Code::RefusedProtocolVersion) => no_version(endpoint, Version::V4),
            E::ConnectionRefused(code) => refused(endpoint, &format!("{code:?}")),
            E::NetworkTimeout => no_answer(endpoint),
            E::MqttState(StateError::ConnectionAborted) => closed(endpoint),
            E::MqttState(StateError::AwaitPingResp) => no_ping(endpoint),
            E::MqttState(StateError::Deserialization(mqttbytes::Error::Io(error)) | StateError::Io(error)) => {
                from_io(error, endpoint)
            }
            E::MqttState(StateError::Deserialization(mqttbytes::Error::PayloadSizeLimitExceeded(bytes))) => {
                too_large(endpoint, *bytes)
            }
            E::MqttState(StateError::Deserialization(_)) | E::NotConnAck(_) => {
                garbled(endpoint, Version::V4, error)
            }
            E::Io(error) => from_io(error, endpoint),
            E::Tls(rumqttc::TlsError::Io(error)) => from_handshake(error, endpoint),
            other => from_any(other, endpoint),
        }
    }

    /// From the MQTT 5 client.
    pub fn from_v5(error: &v5::ConnectionError, endpoint: &Endpoint) -> Self {
        use v5::mqttbytes::Error as Bytes;
        use v5::{ConnectionError as E, StateError};
        let version = Version::V5;
        match error {
            E::ConnectionRefused(code) => match code {
                ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
                    no_version(endpoint, version)
                }
                ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::BadAuthenticationMethod
                | ConnectReturnCode::Banned => unwelcome(endpoint),
                code => refused(endpoint, &format!("{code:?}")),
            },
            E::Timeout(_) => no_answer(endpoint),
            E::MqttState(StateError::ConnectionAborted) => closed(endpoint),
            E::MqttState(StateError::AwaitPingResp) => no_ping(endpoint),
            E::MqttState(StateError::Deserialization(Bytes::Io(error)) | StateError::Io(error)) => {
                from_io(error, endpoint)
            }
            E::MqttState(StateError::Deserialization(Bytes::PayloadSizeLimitExceeded { pkt_size, .. })) => {
                too_large(endpoint, *pkt_size)
            }
            E::MqttState(StateError::Deserialization(_)) | E::NotConnAck(_) => garbled(endpoint, version, error),
            E::MqttState(StateError::ServerDisconnect { reason_code, .. }) => sent_away(endpoint, *reason_code),
            E::Io(error) => from_io(error, endpoint),
            E::Tls(rumqttc::TlsError::Io(error)) => from_handshake(error, endpoint),
            other => from_any(other, endpoint),
        }
    }
}

fn unwelcome(endpoint: &Endpoint) -> Fault {
    let name = endpoint.name();
    let text = match endpoint.user() {
        Some(user) => format!("the broker {name} refused the user {user:?}: check mqtt.user and its password_file"),
        None => format!("the broker {name} asks for a user: give mqtt.user and its password_file"),
    };
    Fault::new(Kind::Unwelcome, text)
}

fn no_version(endpoint: &Endpoint, version: Version) -> Fault {
    let name = endpoint.name();
    Fault::new(Kind::Version, format!("the broker {name} does not speak {}: give mqtt.protocol", version.name()))
}

fn refused(endpoint: &Endpoint, code: &str) -> Fault {
    let name = endpoint.name();
    Fault::new(Kind::Network, format!("the broker {name} refused the connection: {code}"))
}

fn no_answer(endpoint: &Endpoint) -> Fault {
    let (name, seconds) = (endpoint.name(), CONNECT_TIMEOUT.as_secs());
    Fault::new(Kind::Network, format!("the broker {name} did not answer within {seconds} s: check its address"))
}

fn no_ping(endpoint: &Endpoint) -> Fault {
    let name = endpoint.name();
    Fault::new(Kind::Network, format!("the broker {name} has stopped answering; connecting anew"))
}

fn closed(endpoint: &Endpoint) -> Fault {
    let name = endpoint.name();
    Fault::new(Kind::ClosedEarly, format!("the broker {name} closed the connection"))
}

fn too_large(endpoint: &Endpoint, bytes: usize) -> Fault {
    let (name, most) = (endpoint.name(), PACKET_BYTES_MAX >> 20);
    let text = format!(
        "the broker {name} sent a message of {bytes} bytes, more than the {most} MiB that may come in; connecting anew"
    );
    Fault::new(Kind::TooLarge, text)
}

fn garbled(endpoint: &Endpoint, version: Version, error: &dyn Error) -> Fault {
    let (name, protocol) = (endpoint.name(), version.name());
    Fault::new(Kind::ClosedEarly, format!("the broker {name} answered, but not in {protocol} ({error})"))
}

fn sent_away(endpoint: &Endpoint, code: DisconnectReasonCode) -> Fault {
    let name = endpoint.name();
    match code {
        DisconnectReasonCode::SessionTakenOver => Fault::new(
            Kind::Unwelcome,
            format!("another client took our client id at {name}: give each box its own mqtt.client_id"),
        ),
        DisconnectReasonCode::NotAuthorized | DisconnectReasonCode::AdministrativeAction => {
            Fault::new(Kind::Unwelcome, format!("the broker {name} sent us away ({code:?}): ask who runs it"))
        }
        other => Fault::new(Kind::Network, format!("the broker {name} ended the connection: {other:?}")),
    }
}

fn from_io(error: &std::io::Error, endpoint: &Endpoint) -> Fault {
    if let Some(text) = tls::explain(error, endpoint.host()) {
        return Fault::new(Kind::Network, text);
    }
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let early = matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof);
    let kind = if early { Kind::ClosedEarly } else { Kind::Network };
    Fault::new(kind, explain_io(error, &endpoint.name()))
}

fn from_handshake(error: &std::io::Error, endpoint: &Endpoint) -> Fault {
    let name = endpoint.name();
    let text = tls::explain(error, endpoint.host());
    let plain =
        || format!("the broker {name} ended the TLS handshake ({error}): it may not speak TLS on this port");
    Fault::new(Kind::Network, text.unwrap_or_else(plain))
}

fn from_any(error: &(dyn Error + 'static), endpoint: &Endpoint) -> Fault {
    let name = endpoint.name();
    let text = tls::explain(error, endpoint.host());
    Fault::new(
        Kind::Network,
        text.unwrap_or_else(|| format!("the connection to the broker {name} failed: {error}")),
    )
}

/// Decides which faults are worth a line of the log: a new one, and an old one once a minute with its count.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Option<(String, Instant)>,
    unsaid: u32,
}

impl Complaints {
    /// What to log at `now` about a fault, if anything.
    pub fn hear(&mut self, text: &str, now: Instant) -> Option<String> {
        if let Some((last, said)) = &self.last
            && last == text
            && now.saturating_duration_since(*said) < SAY_EVERY
        {
            self.unsaid += 1;
            return None;
        }
        let repeated = self.last.as_ref().is_some_and(|(last, _)| last == text) && self.unsaid > 0;
        let line = if repeated { format!("{text} ({} times more since)", self.unsaid) } else { text.to_owned() };
        (self.last, self.unsaid) = (Some((text.to_owned(), now)), 0);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeating_fault_is_said_once_a_minute_with_its_count() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(complaints.hear("away", at(0)).as_deref(), Some("away"));
        assert_eq!(complaints.hear("away", at(1)), None);
        assert_eq!(complaints.hear("away", at(59)), None);
        assert_eq!(complaints.hear("away", at(60)).as_deref(), Some("away (2 times more since)"));
        assert_eq!(complaints.hear("other", at(61)).as_deref(), Some("other"));
    }
}
