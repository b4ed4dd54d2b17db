//! What is said to other consumers in their own forms, each by a switch of the configuration. The forms themselves are
//! in [`crate::formats`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::open::OpenTracks;
use super::topic::Topics;
use crate::config::DeepstreamSchema;
use crate::event::{Counter, Detections, Direction, Event, rfc3339};
use crate::formats::{Message, cloudevents, deepstream, frigate, homeassistant, onvif};
use crate::frame::CameraId;

/// Which consumers there are.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// First topic level(s) of Home Assistant's discovery.
    pub homeassistant: Option<String>,
    /// First topic level(s) of what Frigate would say.
    pub frigate: Option<String>,
    /// DeepStream's form, and the topic of all of it where it is one.
    pub deepstream: Option<(DeepstreamSchema, Option<String>)>,
    /// ONVIF Profile M below `{base}/{node}`.
    pub onvif: bool,
    /// Events as CloudEvents on `cam/{cam}/cloudevents`.
    pub cloudevents: bool,
    /// The cameras.
    pub cameras: BTreeMap<CameraId, Card>,
}

/// What Home Assistant is told of a camera.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// Labels that are counted: those of the configuration, and those that were.
    pub labels: BTreeSet<String>,
    /// The same by zone.
    pub zones: BTreeMap<String, BTreeSet<String>>,
    /// The same by line.
    pub lines: BTreeMap<String, BTreeSet<String>>,
    /// It has events.
    pub events: bool,
    /// It has snapshots.
    pub snapshots: bool,
}

/// The consumers and what they must be told of later.
pub struct Consumers {
    wanted: Wanted,
    node: String,
    topics: Topics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cards: BTreeMap<CameraId, Card>,
    /// Frigate adds up zones of one name: by zone and label, each camera's count.
    sums: BTreeMap<(String, String), BTreeMap<CameraId, u64>>,
}

impl Consumers {
    /// For the box `node`.
    pub fn new(wanted: Wanted, node: &str, topics: &Topics) -> Self {
        let state = Mutex::new(State { cards: wanted.cameras.clone(), ..State::default() });
        Self { wanted, node: node.to_owned(), topics: topics.clone(), state }
    }

    /// What follows of an event, after that of its track `before`, given the tracks that are open then. It is made inside the
    /// spool's transaction, which may fail and be tried again: so it is made of these alone.
    pub fn event(&self, open: &OpenTracks, before: Option<&Event>, event: &Event) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some(prefix) = &self.wanted.frigate {
            messages.push(frigate::event(prefix, before, event));
        }
        if self.wanted.cloudevents {
            let topic = self.topics.cloudevents(&CameraId::new(&event.camera));
            messages.push(cloudevents::structured(topic.as_str(), event));
        }
        if self.wanted.onvif {
            let rules = onvif::rules(self.prefix(), before, event, open.of(&event.camera));
            // That a track is out of a zone that a reload took away is no state any more.
            messages.extend(rules.into_iter().filter(|message| !message.retain || self.keeps(&message.topic)));
        }
        messages
    }

    /// What follows of a frame's detections.
    pub fn detections(&self, camera: &CameraId, detections: &Detections) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some((schema, topic)) = &self.wanted.deepstream {
            let topic = topic.clone().unwrap_or_else(|| self.topics.deepstream(camera).as_str().to_owned());
            match schema {
                DeepstreamSchema::Minimal => messages.push(deepstream::minimal(&topic, detections)),
                DeepstreamSchema::Full => messages.extend(deepstream::full(&topic, detections)),
            }
        }
        if self.wanted.onvif {
            messages.push(onvif::metadata(self.prefix(), detections));
        }
        messages
    }

    /// What follows of a count, all of it retained. `latest` is what a topic holds.
    pub fn count(
        &self,
        camera: &CameraId,
        counter: &Counter,
        value: u64,
        latest: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut state = self.lock();
        if let Some(prefix) = &self.wanted.frigate {
            match counter {
                Counter::Label(label) => messages.push(frigate::count(prefix, camera.as_str(), label, value)),
                Counter::Zone(zone, label) => {
                    let sums = state.sums.entry((zone.clone(), label.clone())).or_default();
                    sums.insert(camera.clone(), value);
                    messages.push(frigate::zone_count(prefix, zone, label, sums.values().sum()));
                }
                Counter::Line(..) => {}
            }
        }
        if self.wanted.homeassistant.is_some()
            && let Some(card) = state.cards.get_mut(camera)
            && card.learn(counter)
        {
            let card = card.clone();
            drop(state);
            messages.extend(self.card(camera, &card, latest));
        }
        messages
    }

    /// What is counted for certain.
    pub fn counters(&self) -> Vec<(CameraId, Counter)> {
        let cards = &self.lock().cards;
        cards
            .iter()
            .flat_map(|(id, card)| card.counters().into_iter().map(|counter| (id.clone(), counter)))
            .collect()
    }

    /// What is said at the start, all of it retained.
    pub fn greeting(&self, latest: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<Message> {
        let mut messages: Vec<Message> = self.wanted.frigate.iter().map(|p| frigate::available(p, true)).collect();
        if let Some(prefix) = &self.wanted.homeassistant {
            let previous = latest(&homeassistant::node_removal(prefix, &self.node).topic);
            messages.push(homeassistant::node(&self.site(prefix), previous.as_deref()));
            let cards = self.lock().cards.clone();
            messages.extend(cards.iter().filter_map(|(camera, card)| self.card(camera, card, &latest)));
        }
        messages
    }

    /// That nobody is in the camera's zones, for those of which nothing is known: whoever comes finds a state.
    pub fn vacancies(&self, camera: &CameraId) -> Vec<Message> {
        let cards = &self.lock().cards;
        let card = cards.get(camera).filter(|card| self.wanted.onvif && card.events);
        let now = rfc3339(SystemTime::now());
        let vacant = |zone: &String| onvif::vacant(self.prefix(), camera.as_str(), zone, &now);
        card.iter().flat_map(|card| card.zones.keys()).map(vacant).collect()
    }

    /// The cameras there are.
    pub fn cameras(&self) -> Vec<CameraId> {
        self.lock().cards.keys().cloned().collect()
    }

    /// What is said of a camera that is new or has changed, all of it retained. What was counted of zones that it has not
    /// is added up no more.
    pub fn set_camera(
        &self,
        camera: &CameraId,
        card: Card,
        latest: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Vec<Message> {
        let mut state = self.lock();
        let mut messages = self.forget_sums(&mut state, camera, |zone| card.zones.contains_key(zone));
        state.cards.insert(camera.clone(), card.clone());
        drop(state);
        messages.extend(self.card(camera, &card, latest));
        messages
    }

    /// What is said of a camera that is no more, all of it retained.
    pub fn remove_camera(&self, camera: &CameraId, latest: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<Message> {
        let mut state = self.lock();
        let mut messages = self.forget_sums(&mut state, camera, |_| false);
        state.cards.remove(camera);
        drop(state);
        if let Some(prefix) = &self.wanted.homeassistant {
            let removal = homeassistant::camera_removal(prefix, &self.node, camera.as_str());
            messages.extend(latest(&removal.topic).map(|_| removal));
        }
        messages
    }

    fn forget_sums(&self, state: &mut State, camera: &CameraId, keep: impl Fn(&str) -> bool) -> Vec<Message> {
        let Some(prefix) = &self.wanted.frigate else { return Vec::new() };
        let mut messages = Vec::new();
        for ((zone, label), sums) in state.sums.iter_mut().filter(|((zone, _), _)| !keep(zone)) {
            if sums.remove(camera).is_some() {
                messages.push(frigate::zone_count(prefix, zone, label, sums.values().sum()));
            }
        }
        state.sums.retain(|_, sums| !sums.is_empty());
        messages
    }

    /// Whether a retained topic is a count of ours of this camera for Frigate.
    pub fn is_count_of(&self, camera: &CameraId, topic: &str) -> bool {
        let prefix = self.wanted.frigate.as_ref();
        prefix.is_some_and(|prefix| is_below(&format!("{}/{camera}", prefix.trim_end_matches('/')), topic))
    }

    /// The topic that is to say `offline` where this process is gone without a word.
    pub fn availability(&self) -> Option<String> {
        self.wanted.frigate.as_ref().map(|prefix| frigate::available(prefix, false).topic)
    }

    /// Where Home Assistant says that it has started, if it is told of this box.
    pub fn birth_topic(&self) -> Option<String> {
        self.wanted.homeassistant.as_deref().map(homeassistant::birth_topic)
    }

    /// Whether a retained topic of ours is a device of Home Assistant.
    pub fn is_device(&self, topic: &str) -> bool {
        let prefix = self.wanted.homeassistant.as_ref();
        prefix.is_some_and(|prefix| is_below(&homeassistant::devices(prefix), topic))
    }

    /// What is said at the end, all of it retained.
    pub fn farewell(&self) -> Vec<Message> {
        self.wanted.frigate.iter().map(|prefix| frigate::available(prefix, false)).collect()
    }

    /// Whether a retained topic is to stay: one of ours, of a zone or line that there is, and that of a consumer that there is.
    pub fn keeps(&self, topic: &str) -> bool {
        if topic.starts_with(self.topics.prefix()) {
            return self.has_place(topic);
        }
        let frigate = self.wanted.frigate.as_ref().is_some_and(|prefix| is_below(prefix, topic));
        let cards = self.lock();
        let homeassistant = self.wanted.homeassistant.as_ref().is_some_and(|prefix| {
            let ours = homeassistant::node_removal(prefix, &self.node).topic == topic;
            let camera =
                |camera: &CameraId| homeassistant::camera_removal(prefix, &self.node, camera.as_str()).topic;
            ours || cards.cards.keys().any(|id| camera(id) == topic)
        });
        frigate || homeassistant
    }

    /// Whether there is the zone or line that one of our topics is about; true of all other topics.
    fn has_place(&self, topic: &str) -> bool {
        let Some(camera) = self.topics.camera_of(topic) else { return true };
        let Some((kind, name)) = self.topics.place_of(&camera, topic) else { return true };
        let cards = &self.lock().cards;
        let Some(card) = cards.get(&camera) else { return false };
        let is_told = onvif::place(self.topics.prefix(), topic).is_none() || (self.wanted.onvif && card.events);
        is_told && (if kind == "zone" { &card.zones } else { &card.lines }).contains_key(name)
    }

    /// Whether a retained topic is a count of ours for Frigate.
    pub fn is_count(&self, topic: &str) -> bool {
        let prefix = self.wanted.frigate.as_ref();
        prefix.is_some_and(|prefix| is_below(prefix, topic) && *topic != frigate::available(prefix, true).topic)
    }

    fn card(&self, camera: &CameraId, card: &Card, latest: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Message> {
        let prefix = self.wanted.homeassistant.as_ref()?;
        let labels: Vec<String> = card.labels.iter().cloned().collect();
        let listed = |places: &BTreeMap<String, BTreeSet<String>>| -> Vec<(String, Vec<String>)> {
            places.iter().map(|(name, labels)| (name.clone(), labels.iter().cloned().collect())).collect()
        };
        let camera = homeassistant::Camera {
            id: camera.as_str(),
            labels: &labels,
            zones: &listed(&card.zones),
            lines: &listed(&card.lines),
            events: card.events,
            snapshots: card.snapshots,
        };
        let previous = latest(&homeassistant::camera_removal(prefix, &self.node, camera.id).topic);
        Some(homeassistant::camera(&self.site(prefix), &camera, previous.as_deref()))
    }

    fn site<'a>(&'a self, discovery: &'a str) -> homeassistant::Site<'a> {
        let (topics, version) = (self.prefix(), env!("CARGO_PKG_VERSION"));
        homeassistant::Site { discovery, topics, node: &self.node, version }
    }

    fn prefix(&self) -> &str {
        self.topics.prefix().trim_end_matches('/')
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Card {
    /// What is counted for certain.
    pub fn counters(&self) -> Vec<Counter> {
        if !self.events {
            return Vec::new();
        }
        let mut counters: Vec<Counter> = self.labels.iter().cloned().map(Counter::Label).collect();
        for (zone, labels) in &self.zones {
            counters.extend(labels.iter().map(|label| Counter::Zone(zone.clone(), label.clone())));
        }
        for (line, labels) in &self.lines {
            let both = |label: &String| {
                [Direction::In, Direction::Out].map(|way| Counter::Line(line.clone(), way, label.clone()))
            };
            counters.extend(labels.iter().flat_map(both));
        }
        counters
    }

    /// Adds what is counted; whether it was new.
    fn learn(&mut self, counter: &Counter) -> bool {
        match counter {
            Counter::Label(label) => self.labels.insert(label.clone()),
            Counter::Zone(zone, label) => self.zones.entry(zone.clone()).or_default().insert(label.clone()),
            Counter::Line(line, _, label) => self.lines.entry(line.clone()).or_default().insert(label.clone()),
        }
    }
}

fn is_below(prefix: &str, topic: &str) -> bool {
    topic.strip_prefix(prefix.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::samples;

    /// A track that was in it ends, or has left it, only after the reload.
    #[test]
    fn nothing_is_retained_any_more_of_a_zone_that_is_not_there() {
        let (gate, topics) = (CameraId::new("gate"), Topics::new("w", "n").unwrap());
        let card =
            |events| Card { zones: [("drive".to_owned(), BTreeSet::new())].into(), events, ..Card::default() };
        let wanted = Wanted { onvif: true, cameras: [(gate.clone(), card(true))].into(), ..Wanted::default() };
        let consumers = Consumers::new(wanted, "n", &topics);
        let (before, end) = (samples::update(), samples::end());
        let told = || consumers.event(&OpenTracks::default(), Some(&before), &end);
        let zone = consumers.vacancies(&gate)[0].topic.clone();
        let count = topics.count(&gate, &Counter::Zone("drive".to_owned(), "person".to_owned()));
        let kept = || [zone.as_str(), count.as_str()].map(|topic| consumers.keeps(topic));
        assert_eq!(told().iter().map(|message| &message.topic).collect::<Vec<_>>(), [&zone]);
        assert_eq!(kept(), [true, true]);
        let exchange = |card| {
            consumers.set_camera(&gate, card, |_| None);
            (told().len(), kept(), consumers.vacancies(&gate).len())
        };
        assert_eq!(exchange(Card { events: true, ..Card::default() }), (0, [false, false], 0));
        assert_eq!(exchange(card(true)), (1, [true, true], 1));
        assert_eq!(exchange(card(false)), (0, [false, true], 0), "without events nobody would ever say more");
        consumers.remove_camera(&gate, |_| None);
        assert_eq!((told().len(), kept()), (0, [false, false]));
        assert!(consumers.keeps(topics.info().as_str()) && !consumers.keeps("elsewhere"));
    }
}
