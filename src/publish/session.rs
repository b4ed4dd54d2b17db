//! One accepted connection: what was sent on it and what the broker said to that. Everything here ends with it.
//!
//! Order after the CONNACK: subscription, `online`, the whole retained map, then the spool from its cursor.
//! Later changes of the retained map overtake the spool; `detections` and `health` go beside both.

use std::time::{Duration, Instant};

use super::commands::{self, Acknowledgement, Judgement, Request};
use super::connection::{Client, Happened, Incoming, Limits, Verdict};
use super::fault::{Fault, Kind};
use super::notice::{is_dead_letter_notice, replayed};
use super::record::{Record, logical_bytes};
use super::spool::Batch;
use super::store::SpoolError;
use super::window::Window;
use super::{Answer, Shared};
use crate::event::NoticeKind;

/// QoS 1 messages in flight.
const IN_FLIGHT: usize = 16;
/// QoS 0 messages inside the client: with those in flight, the subscription and the good-bye, fewer than its
/// queue holds, so that the client is never full.
const LIVE_IN_CLIENT: usize = 32;
/// What a packet has beside topic and body, at most.
const PACKET_OVERHEAD: usize = 32;

/// A QoS 1 message in flight.
#[derive(Debug)]
enum Item {
    /// `online` at the start, `offline` at the end.
    Status,
    /// A retained message.
    Retained { topic: String, version: u64 },
    /// A spooled one.
    Spooled { offset: u64, bytes: u64 },
    /// What came of a command.
    Answer { topic: String },
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// At work.
    Open,
    /// `offline` was sent; only its acknowledgement is waited for.
    Leaving,
    /// Good-bye was said.
    Closing,
}

/// An accepted connection.
pub struct Session<'a> {
    shared: &'a Shared,
    client: &'a Client,
    limits: Limits,
    window: Window<Item>,
    /// Version of the retained map up to which everything was sent.
    retained_sent: u64,
    /// Messages before this offset are older than the connection.
    first_live: u64,
    live_in_client: usize,
    phase: Phase,
    proven: bool,
    /// Since when messages are in flight and none of them was answered.
    unanswered: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Greets the broker; asks for commands and for what other consumers say where it `hears`.
    ///
    /// # Errors
    ///
    /// The client takes no message.
    pub fn open(shared: &'a Shared, client: &'a Client, limits: Limits, hears: bool) -> Result<Self, Fault> {
        let mut session = Self {
            shared,
            client,
            limits,
            window: Window::new(IN_FLIGHT.min(limits.in_flight)),
            retained_sent: 0,
            first_live: shared.spool.next(),
            live_in_client: 0,
            phase: Phase::Open,
            proven: false,
            unanswered: None,
        };
        if hears {
            client.subscribe(&shared.topics.command_filters(), true)?;
            if let Some(birth) = shared.consumers.birth_topic() {
                client.subscribe(&[birth], false)?;
            }
        }
        session.publish(shared.topics.status().as_str(), true, b"online".to_vec(), Item::Status)?;
        shared.live.open();
        Ok(session)
    }

    /// Whether the broker has acknowledged anything: only then was the connection worth something.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether the broker has answered for nothing in so long a time, though something is in flight: one that still
    /// answers pings would hold up the spool for ever.
    pub fn is_deaf(&mut self, now: Instant, patience: Duration) -> bool {
        if self.window.is_empty() {
            self.unanswered = None;
            return false;
        }
        now.duration_since(*self.unanswered.get_or_insert(now)) > patience
    }

    /// Hands over as much as may be in flight.
    ///
    /// # Errors
    ///
    /// The connection is to be given up.
    pub fn fill(&mut self) -> Result<(), Fault> {
        if self.phase != Phase::Open {
            return Ok(());
        }
        while self.window.has_room() && (self.send_answer()? || self.send_retained()? || self.send_spooled()?) {}
        self.release();
        while self.live_in_client < LIVE_IN_CLIENT
            && let Some(message) = self.shared.live.pop(Instant::now())
        {
            if !self.fits(message.topic.as_str(), &message.body) {
                self.shared.live.count_dropped(message.kind);
                continue;
            }
            self.client.publish_live(message.topic.as_str(), message.body)?;
            self.shared.metrics.published.inc();
            self.live_in_client += 1;
        }
        Ok(())
    }

    /// Whether all that was to be sent has been sent and acknowledged.
    pub fn is_drained(&self) -> bool {
        self.window.is_empty()
            && self.live_in_client == 0
            && self.shared.live.is_empty()
            && self.shared.answers().is_empty()
            && self.shared.spool.pending() == 0
            && self.shared.spool.retained_after(self.retained_sent).is_none()
    }

    /// Takes leave: `offline`, and good-bye once that is acknowledged.
    ///
    /// # Errors
    ///
    /// The client takes no message.
    pub fn leave(&mut self) -> Result<(), Fault> {
        if self.phase == Phase::Open {
            self.phase = Phase::Leaving;
            self.shared.live.close();
            self.publish(self.shared.topics.status().as_str(), true, b"offline".to_vec(), Item::Status)?;
        }
        Ok(())
    }

    /// Takes in what happened. `true`: good-bye is said, the connection is over.
    ///
    /// # Errors
    ///
    /// The connection is to be given up.
    pub fn happened(
        &mut self,
        happened: Happened,
        commands: &crossbeam::channel::Sender<Request>,
    ) -> Result<bool, Fault> {
        match happened {
            Happened::Sent(0) => self.live_in_client = self.live_in_client.saturating_sub(1),
            Happened::Sent(pkid) => self.window.sent(pkid).map_err(|error| confused(&error))?,
            Happened::Settled(pkid, verdict) => self.settled(pkid, verdict)?,
            Happened::Incoming(message) => self.incoming(&message, commands),
            Happened::SubscriptionRefused(reason) => {
                let mut filters = self.shared.topics.command_filters().to_vec();
                filters.extend(self.shared.consumers.birth_topic());
                let filters = filters.join(" or ");
                tracing::warn!(
                    "the broker refused to deliver {filters} ({reason}): not everything sent there is heard"
                );
            }
            Happened::Disconnected => return Ok(true),
            Happened::Connected(_) | Happened::Nothing => {}
        }
        Ok(false)
    }

    /// It is lost with the connection: whoever asked waits only so long.
    fn send_answer(&mut self) -> Result<bool, Fault> {
        let Some(Answer { reply, body }) = self.shared.answers().pop_front() else { return Ok(false) };
        let correlation = reply.correlation.as_ref().map_or(0, Vec::len);
        if self.fits(&reply.topic, &body) && body.len() + correlation <= self.limits.packet_bytes as usize {
            self.client.acknowledge(&reply.topic, reply.correlation, body)?;
            self.window.handed(Item::Answer { topic: reply.topic });
            self.shared.metrics.published.inc();
        } else {
            tracing::warn!("what came of {} is larger than the broker's limit: it is not told", reply.name);
        }
        Ok(true)
    }

    fn send_retained(&mut self) -> Result<bool, Fault> {
        let Some(message) = self.shared.spool.retained_after(self.retained_sent) else { return Ok(false) };
        self.retained_sent = message.version;
        let body = message.body.as_deref().unwrap_or_default();
        if self.fits(&message.topic, body) {
            let body = body.to_vec();
            let topic = message.topic.clone();
            let item = Item::Retained { topic: message.topic, version: message.version };
            self.publish(&topic, true, body, item)?;
        } else {
            self.refused_retained(&message.topic, "larger than the broker's limit");
        }
        Ok(true)
    }

    fn send_spooled(&mut self) -> Result<bool, Fault> {
        let Some(record) = self.shared.spool.claim().map_err(|error| unreadable(&error))? else { return Ok(false) };
        let item = Item::Spooled { offset: record.offset, bytes: logical_bytes(&record.topic, &record.body) };
        if !self.fits(&record.topic, &record.body) {
            self.dead_letter(&record, "larger than the broker's limit")?;
            self.window.skipped(item);
            return Ok(true);
        }
        let body = if record.offset < self.first_live { replayed(&record.body) } else { record.body };
        self.publish(&record.topic, false, body, item)?;
        Ok(true)
    }

    fn publish(&mut self, topic: &str, retain: bool, body: Vec<u8>, item: Item) -> Result<(), Fault> {
        self.client.publish(topic, retain, body)?;
        self.window.handed(item);
        self.shared.metrics.published.inc();
        Ok(())
    }

    fn fits(&self, topic: &str, body: &[u8]) -> bool {
        topic.len() + body.len() + PACKET_OVERHEAD <= self.limits.packet_bytes as usize
    }

    fn settled(&mut self, pkid: u16, verdict: Verdict) -> Result<(), Fault> {
        self.unanswered = None;
        let item = self.window.settled(pkid).map_err(|error| confused(&error))?;
        match (verdict, item) {
            (Verdict::Accepted, _) => self.proven = true,
            // Given up and tried again from the cursor: later messages must not overtake this one for ever.
            (Verdict::Later(reason), _) => {
                return Err(Fault::new(
                    Kind::Unwelcome,
                    format!("the broker takes no more messages for now ({reason}); trying again later"),
                ));
            }
            (Verdict::Refused(reason), Item::Spooled { offset, .. }) => {
                let record = self.shared.spool.in_flight(*offset).map_err(|error| unreadable(&error))?;
                if let Some(record) = record {
                    self.dead_letter(&record, &reason)?;
                }
            }
            (Verdict::Refused(reason), Item::Retained { topic, .. }) => {
                let topic = topic.clone();
                self.refused_retained(&topic, &reason);
            }
            (Verdict::Refused(reason), Item::Answer { topic }) => {
                tracing::warn!("the broker refused what came of a command, to {topic}: {reason}");
            }
            (Verdict::Refused(reason), Item::Status) => {
                let topic = self.shared.topics.status();
                self.refused_retained(topic.as_str(), &reason);
            }
        }
        self.release();
        Ok(())
    }

    /// Lets go of what is settled at the front: the cursor advances over a contiguous prefix only.
    fn release(&mut self) {
        while let Some(item) = self.window.pop_settled() {
            match item {
                Item::Spooled { offset, bytes } => self.shared.spool.acknowledge(offset, bytes),
                Item::Retained { topic, version } => self.shared.spool.retained_acknowledged(&topic, version),
                Item::Status | Item::Answer { .. } => {}
            }
        }
        if self.phase == Phase::Leaving && self.window.is_empty() && self.client.disconnect().is_ok() {
            self.phase = Phase::Closing;
        }
    }

    fn dead_letter(&self, record: &Record, reason: &str) -> Result<(), Fault> {
        self.shared.spool.bury(record, reason).map_err(|error| unreadable(&error))?;
        self.shared.metrics.dead_letters.inc();
        let topic = &record.topic;
        tracing::warn!("the broker refused a message to {topic} for good: {reason}");
        if !is_dead_letter_notice(&record.body) {
            self.notice(format!("The broker refused a message to {topic} for good: {reason}."))?;
        }
        Ok(())
    }

    /// A retained message that is refused is tried again on the next connection, and told of once a topic.
    fn refused_retained(&self, topic: &str, reason: &str) {
        self.shared.metrics.dead_letters.inc();
        if !self.shared.first_refusal(topic) {
            return;
        }
        tracing::warn!("the broker refused the retained message of {topic}: {reason}");
        let text = format!("The broker refused the retained message of {topic}: {reason}.");
        if let Err(fault) = self.notice(text) {
            tracing::error!("{fault}");
        }
    }

    fn notice(&self, text: String) -> Result<(), Fault> {
        let messages = vec![self.shared.notices.draft(NoticeKind::DeadLetter, None, text)];
        let written = self.shared.spool.commit(&Batch { messages, ..Batch::default() });
        written.map_err(|error| unreadable(&error))
    }

    fn incoming(&self, message: &Incoming, commands: &crossbeam::channel::Sender<Request>) {
        if self.shared.consumers.birth_topic().as_ref() == Some(&message.topic) {
            // One that was kept is from before this connection, on which every device is told of anyway.
            if message.body == b"online" && !message.retained {
                self.shared.spool.renew_retained(|topic| self.shared.consumers.is_device(topic));
            }
            return;
        }
        let refusal = match commands::judge(&self.shared.topics, message) {
            Judgement::Obey(request) => match commands::hand_on(commands, request) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
            Judgement::Ignore(text) => {
                tracing::warn!("{text}");
                return;
            }
            Judgement::Refuse(refusal) => refusal,
        };
        let commands::Refusal { camera, reply, text } = refusal;
        let of = camera.as_ref().map(|camera| format!(" for camera {camera}")).unwrap_or_default();
        tracing::warn!("command{of} refused: {text}");
        let messages = vec![self.shared.notices.draft(NoticeKind::CommandRefused, camera.as_ref(), text.clone())];
        if let Err(error) = self.shared.spool.commit(&Batch { messages, ..Batch::default() }) {
            tracing::error!("the spool cannot be written: {error}");
        }
        if let Some(reply) = reply {
            let acknowledgement = Acknowledgement::refused(&reply.name, text, &[]);
            self.shared.answer(reply, &acknowledgement);
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.shared.live.close();
        self.shared.spool.rewind();
    }
}

fn confused(error: &super::window::WindowError) -> Fault {
    Fault::new(Kind::Network, format!("the broker's answers make no sense ({error}); connecting anew"))
}

fn unreadable(error: &SpoolError) -> Fault {
    Fault::new(Kind::Network, format!("the spool cannot be read or written: {error}"))
}
