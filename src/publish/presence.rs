//! Frigate's `available` says `offline` where this process is gone without a word. A connection has one last will, and ours is
//! `{base}/{node}/status`: so this is a second one, for its last will alone.

use std::convert::Infallible;
use std::time::Instant;

use tokio::time::{sleep, timeout};

use super::connection::{Endpoint, Happened, Verdict, Version};
use super::fault::{Complaints, Fault};
use super::worker;
use crate::config::{MqttConfig, MqttProtocol};
use crate::metrics::PublishMetrics;
use crate::worker::Backoff;

/// The connection that holds a last will.
pub struct Presence {
    topic: String,
    endpoint: Endpoint,
    version: Version,
    /// Of the publisher: where it is not connected either, it says why.
    metrics: PublishMetrics,
}

impl Presence {
    /// For the topic that is to say `offline`. Where the protocol is not given, it is 3.1.1: every broker speaks that.
    pub fn new(config: &MqttConfig, topic: String, metrics: PublishMetrics) -> Self {
        let client_id = format!("{}-available", config.client_id);
        let endpoint = Endpoint::new(&MqttConfig { client_id, ..config.clone() }, &topic);
        let version = if config.protocol == MqttProtocol::V5 { Version::V5 } else { Version::V4 };
        Self { topic, endpoint, version, metrics }
    }

    /// Connects again and again. When this is dropped, however that comes, the broker misses us and says `offline`.
    pub async fn hold(self) -> Infallible {
        let mut backoff = worker::backoff();
        let mut complaints = Complaints::default();
        loop {
            let Err(fault) = self.live(&mut backoff).await;
            if self.metrics.connected.get() == 1
                && let Some(line) = complaints.hear(&fault.text, Instant::now())
            {
                tracing::warn!("the connection that keeps {} true: {line}", self.topic);
            }
            sleep(worker::pause(&mut backoff, fault.kind)).await;
        }
    }

    async fn live(&self, backoff: &mut Backoff) -> Result<Infallible, Fault> {
        let (client, mut events) = self.endpoint.connect(self.version)?;
        loop {
            let next = timeout(events.patience(), events.next(&self.endpoint)).await;
            match next.unwrap_or_else(|_| Err(Fault::silent(&self.endpoint.name())))? {
                // Now that the will is known; the one of a connection before may have been carried out.
                Happened::Connected(_) => client.publish(&self.topic, true, b"online".to_vec())?,
                Happened::Settled(_, Verdict::Accepted) => backoff.reset(),
                Happened::Settled(_, Verdict::Later(reason) | Verdict::Refused(reason)) => {
                    tracing::warn!("the broker refused the retained message of {}: {reason}", self.topic);
                }
                _ => {}
            }
        }
    }
}
