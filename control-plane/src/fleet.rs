//! The relays that have dialled in, and where a meeting is placed.
//!
//! Invariants: of several stage documents of a meeting that wait for a relay only the newest is kept, so what waits
//! is bounded by the number of meetings; silence makes a relay suspected and nothing more (its meetings go on).
//! The media plane's own state is the relay's; here is only what it told.
//!
//! A meeting is placed on one relay. The leg of a site is at the nearest relay up the tree that is joined to that one by
//! its uplinks, else at that one itself: relays are named after their units. A relay with an uplink goes on with the legs
//! it has wherever the meeting is placed.

mod near;

use crate::bus::{Bus, Hint};
use crate::replicas;
use muster_domain::Tree;
use muster_proto::command::v1 as pb;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A relay that said nothing for this long is suspected.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// Where an endpoint is to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub relay: String,
    /// `http://HOST:PORT`.
    pub http_url: String,
    /// `HOST:PORT` of the worker for this site's link; empty if the relay has none.
    pub link: String,
}

/// How the command plane reaches the media plane.
pub trait Fleet: Send + Sync {
    /// The place of a site's leg, the same one each time while the relay lives. `None` while no relay is online.
    fn place(&self, site: &str) -> Option<Place>;
    /// The place of a site's leg in a meeting at this relay: there, or at a nearer one that is joined to it. `None` while
    /// none is online.
    fn place_at(&self, relay: &str, site: &str) -> Option<Place>;
    /// Whether the relay cannot be relied on: silent, or its stream is gone.
    fn is_suspected(&self, relay: &str) -> bool;
    /// Whether the relay has dialled in at this replica.
    fn is_here(&self, relay: &str) -> bool;
    /// The best relay that is online, but for this one.
    fn other_than(&self, relay: &str) -> Option<String>;
    /// Sends a stage to the relays of its meeting.
    fn push_stage(&self, document: &pb::StageDocument);
    fn states(&self) -> pb::FleetChanged;
    /// A relay that had legs before the start is away until it dials in.
    fn await_back(&self, relay: &str);
}

/// What waits to be sent to one relay.
#[derive(Default)]
pub struct Outbox {
    stages: Mutex<BTreeMap<String, pb::StageDocument>>,
    ready: Notify,
}

impl Outbox {
    fn put(&self, document: &pb::StageDocument) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = stages.entry(document.meeting.clone()).or_default();
        if slot.version <= document.version {
            *slot = document.clone();
        }
        drop(stages);
        self.ready.notify_one();
    }

    /// The next document, as soon as there is one.
    pub async fn next(&self) -> pb::StageDocument {
        loop {
            let ready = self.ready.notified();
            let first = self
                .stages
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_first();
            if let Some((_, document)) = first {
                return document;
            }
            ready.await;
        }
    }
}

struct Relay {
    connection: u64,
    http_url: String,
    link_addrs: Vec<String>,
    legs: u32,
    heard: Instant,
    suspected: bool,
    below: bool,
    uplink: String,
    outbox: Arc<Outbox>,
}

impl Relay {
    fn shown(&self, id: &str) -> replicas::Relay {
        replicas::Relay {
            id: id.to_owned(),
            http_url: self.http_url.clone(),
            link_addrs: self.link_addrs.clone(),
            legs: self.legs,
            suspected: self.suspected,
            below: self.below,
            uplink: self.uplink.clone(),
        }
    }
}

#[derive(Default)]
struct State {
    tree: Arc<Tree>,
    connections: u64,
    online: BTreeMap<String, Relay>,
    /// Those that have dialled in at other replicas, by the stream that stands for the replica.
    remote: BTreeMap<u64, BTreeMap<String, replicas::Relay>>,
    /// Other replicas have not been told of something.
    news: bool,
    /// Those that have gone, since when.
    gone: BTreeMap<String, Instant>,
    /// The worker of each site's link: given in turn, and kept, so that a warm link is the one that is used.
    workers: HashMap<String, usize>,
}

/// The relays of one control plane.
pub struct Relays {
    state: Mutex<State>,
    bus: Bus,
}

/// One connected relay; dropping it says that its stream is gone.
pub struct Registration {
    relays: Arc<Relays>,
    pub id: String,
    connection: u64,
    pub outbox: Arc<Outbox>,
}

impl Registration {
    /// Tells this stream from others of the same relay.
    pub fn connection(&self) -> u64 {
        self.connection
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.relays.leave(&self.id, self.connection);
    }
}

impl Relays {
    pub fn new(bus: Bus) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            bus,
        })
    }

    /// A relay has dialled in. A second stream of the same relay takes the place of the first.
    pub fn register(self: &Arc<Self>, id: &str, hello: &pb::RelayHello) -> Registration {
        let outbox = Arc::new(Outbox::default());
        let mut state = self.lock();
        state.connections += 1;
        let connection = state.connections;
        let relay = Relay {
            connection,
            http_url: hello.http_url.clone(),
            link_addrs: hello.link_addrs.clone(),
            legs: u32::try_from(hello.legs.len()).unwrap_or(u32::MAX),
            heard: Instant::now(),
            suspected: false,
            below: hello.has_uplink,
            uplink: String::new(),
            outbox: outbox.clone(),
        };
        state.online.insert(id.to_owned(), relay);
        state.gone.remove(id);
        drop(state);
        self.tell();
        Registration {
            relays: self.clone(),
            id: id.to_owned(),
            connection,
            outbox,
        }
    }

    fn leave(&self, id: &str, connection: u64) {
        let mut state = self.lock();
        if state
            .online
            .get(id)
            .is_none_or(|relay| relay.connection != connection)
        {
            return;
        }
        state.online.remove(id);
        state.mark_gone(std::iter::once(id.to_owned()));
        drop(state);
        self.tell();
    }

    /// Sites and units, by which the nearest relay is found.
    pub fn set_tree(&self, tree: Arc<Tree>) {
        self.lock().tree = tree;
    }

    /// Something came from the relay; a heartbeat says how many legs it has and what it is joined to.
    pub fn heard(&self, registration: &Registration, beat: Option<&pb::RelayHeartbeat>) {
        let mut state = self.lock();
        let Some(relay) = state.online.get_mut(&registration.id) else {
            return;
        };
        if relay.connection != registration.connection {
            return;
        }
        relay.heard = Instant::now();
        let news = |beat: &pb::RelayHeartbeat| beat.legs != relay.legs || beat.uplink != relay.uplink;
        let changed = relay.suspected || beat.is_some_and(news);
        relay.suspected = false;
        if let Some(beat) = beat {
            relay.legs = beat.legs;
            relay.uplink.clone_from(&beat.uplink);
        }
        drop(state);
        if changed {
            self.tell();
        }
    }

    /// Whether this registration is still the relay's newest stream.
    pub fn is_current(&self, registration: &Registration) -> bool {
        self.lock()
            .online
            .get(&registration.id)
            .is_some_and(|relay| relay.connection == registration.connection)
    }

    /// Marks relays that have been silent, and returns those that have been gone for `away`, once each.
    pub fn look(&self, away: Duration) -> Vec<String> {
        let mut state = self.lock();
        let mut changed = false;
        for (id, relay) in &mut state.online {
            if !relay.suspected && relay.heard.elapsed() > SUSPECT_AFTER {
                tracing::warn!(relay = id, "the relay is silent: suspected");
                relay.suspected = true;
                changed = true;
            }
        }
        let lost: Vec<String> = state
            .gone
            .iter()
            .filter(|(_, since)| since.elapsed() >= away)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &lost {
            state.gone.remove(id);
        }
        drop(state);
        if changed {
            self.tell();
        }
        lost
    }

    /// All that have dialled in here, for other replicas.
    pub(crate) fn local(&self) -> replicas::RelayList {
        let mut state = self.lock();
        state.news = false;
        state.shown()
    }

    /// The same, if something changed since this was asked last.
    pub(crate) fn take_local_news(&self) -> Option<replicas::RelayList> {
        let mut state = self.lock();
        std::mem::take(&mut state.news).then(|| state.shown())
    }

    /// Another replica says which relays it has.
    pub(crate) fn remote(&self, stream: u64, relays: &[replicas::Relay]) {
        let named: BTreeMap<_, _> = relays
            .iter()
            .map(|relay| (relay.id.clone(), relay.clone()))
            .collect();
        let mut state = self.lock();
        for id in named.keys() {
            state.gone.remove(id);
        }
        let before = state.remote.insert(stream, named).unwrap_or_default();
        state.mark_gone(before.into_keys());
        drop(state);
        self.tell_here();
    }

    /// Another replica has been away for too long.
    pub(crate) fn remote_gone(&self, stream: u64) {
        let mut state = self.lock();
        let before = state.remote.remove(&stream).unwrap_or_default();
        state.mark_gone(before.into_keys());
        drop(state);
        self.tell_here();
    }

    fn tell(&self) {
        self.lock().news = true;
        self.tell_here();
    }

    fn tell_here(&self) {
        self.bus.publish(Hint::Fleet(Arc::new(self.states())));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shown(&self) -> replicas::RelayList {
        let relays = self.online.iter().map(|(id, relay)| relay.shown(id)).collect();
        replicas::RelayList { relays }
    }

    /// Those of these that are online nowhere are gone from now on.
    fn mark_gone(&mut self, relays: impl Iterator<Item = String>) {
        for id in relays {
            let elsewhere = self.remote.values().any(|relays| relays.contains_key(&id));
            if !elsewhere && !self.online.contains_key(&id) {
                self.gone.entry(id).or_insert_with(Instant::now);
            }
        }
    }

    /// Every relay that is online somewhere, once; what is here counts for more.
    fn everywhere(&self) -> BTreeMap<String, replicas::Relay> {
        let mut all = BTreeMap::new();
        for (id, relay) in self.remote.values().flatten() {
            let known: &mut replicas::Relay = all.entry(id.clone()).or_insert_with(|| relay.clone());
            // Of two replicas that name it, the one that hears it is right.
            if known.suspected && !relay.suspected {
                *known = relay.clone();
            }
        }
        for (id, relay) in &self.online {
            all.insert(id.clone(), relay.shown(id));
        }
        all
    }

    fn place(&mut self, relay: replicas::Relay, site: &str) -> Place {
        let next = self.workers.len();
        let worker = if site.starts_with("desk:") {
            0
        } else {
            *self.workers.entry(site.to_owned()).or_insert(next)
        };
        Place {
            link: match relay.link_addrs.len() {
                0 => String::new(),
                workers => relay.link_addrs[worker % workers].clone(),
            },
            relay: relay.id,
            http_url: relay.http_url,
        }
    }
}

impl Fleet for Relays {
    fn place(&self, site: &str) -> Option<Place> {
        let mut state = self.lock();
        let all = state.everywhere();
        let first = all.values().min_by_key(|relay| (relay.suspected, relay.below))?;
        let near = near::nearest(&state.tree, &all, &first.id, site);
        let chosen = near.unwrap_or_else(|| first.clone());
        Some(state.place(chosen, site))
    }

    fn place_at(&self, relay: &str, site: &str) -> Option<Place> {
        let mut state = self.lock();
        let mut all = state.everywhere();
        let near = near::nearest(&state.tree, &all, relay, site);
        let chosen = near.or_else(|| all.remove(relay))?;
        Some(state.place(chosen, site))
    }

    fn is_here(&self, relay: &str) -> bool {
        self.lock().online.contains_key(relay)
    }

    fn is_suspected(&self, relay: &str) -> bool {
        let all = self.lock().everywhere();
        all.get(relay).is_none_or(|relay| relay.suspected)
    }

    fn other_than(&self, relay: &str) -> Option<String> {
        let all = self.lock().everywhere();
        let others = all
            .into_values()
            .filter(|other| other.id != relay && !other.suspected);
        // An uppermost one, with the fewest legs; of equals the first by name.
        others
            .min_by_key(|other| (other.below, other.legs))
            .map(|other| other.id)
    }

    fn push_stage(&self, document: &pb::StageDocument) {
        for (id, relay) in &self.lock().online {
            if relay.below && !document.relay.is_empty() {
                let own = pb::StageDocument {
                    relay: id.clone(),
                    ..document.clone()
                };
                relay.outbox.put(&own);
            } else {
                relay.outbox.put(document);
            }
        }
    }

    fn await_back(&self, relay: &str) {
        let mut state = self.lock();
        if !state.everywhere().contains_key(relay) {
            state.gone.entry(relay.to_owned()).or_insert_with(Instant::now);
        }
    }

    fn states(&self) -> pb::FleetChanged {
        let state = self.lock();
        let online = state.everywhere();
        let online = online.values().map(|relay| pb::RelayState {
            id: relay.id.clone(),
            online: !relay.suspected,
            legs: relay.legs,
        });
        let gone = state.gone.keys().map(|id| pb::RelayState {
            id: id.clone(),
            online: false,
            legs: 0,
        });
        let mut relays: Vec<_> = online.chain(gone).collect();
        relays.sort_by(|a, b| a.id.cmp(&b.id));
        pb::FleetChanged { relays }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(links: &[&str]) -> pb::RelayHello {
        pb::RelayHello {
            http_url: "http://127.0.0.1:1".into(),
            link_addrs: links.iter().map(|&link| link.to_owned()).collect(),
            ..Default::default()
        }
    }

    fn stage(version: u64) -> pb::StageDocument {
        pb::StageDocument {
            meeting: "m".into(),
            version,
            ..Default::default()
        }
    }

    #[test]
    fn sites_are_spread_over_the_workers_and_keep_theirs() {
        let relays = Relays::new(Bus::default());
        assert_eq!(relays.place("S1"), None);
        let _relay = relays.register("r1", &hello(&["a", "b"]));
        let link = |site: &str| relays.place(site).expect("a place").link;
        let first = link("S1");
        assert_ne!(first, link("S2"));
        assert_eq!(first, link("S1"));
    }

    #[tokio::test]
    async fn only_the_newest_stage_waits() {
        let relays = Relays::new(Bus::default());
        let relay = relays.register("r1", &hello(&[]));
        for version in [1, 3, 2] {
            relays.push_stage(&stage(version));
        }
        assert_eq!(relay.outbox.next().await.version, 3);
        let more = tokio::time::timeout(Duration::from_millis(20), relay.outbox.next()).await;
        assert!(more.is_err());
    }

    #[test]
    fn a_second_stream_of_a_relay_takes_over() {
        let relays = Relays::new(Bus::default());
        let first = relays.register("r1", &hello(&[]));
        let second = relays.register("r1", &hello(&[]));
        assert!(!relays.is_current(&first));
        drop(first);
        assert!(relays.place("S1").is_some());
        drop(second);
        assert!(relays.place("S1").is_none());
        assert_eq!(relays.look(Duration::ZERO), ["r1"]);
        assert!(relays.look(Duration::ZERO).is_empty(), "told once");
    }

    #[tokio::test]
    async fn a_relay_below_keeps_its_legs_wherever_the_meeting_is_placed() {
        let relays = Relays::new(Bus::default());
        let city = relays.register("C-1", &hello(&[]));
        let below = pb::RelayHello {
            has_uplink: true,
            ..hello(&[])
        };
        let district = relays.register("D-1", &below);
        relays.push_stage(&pb::StageDocument {
            relay: "C-2".into(),
            ..stage(1)
        });
        assert_eq!(city.outbox.next().await.relay, "C-2");
        assert_eq!(district.outbox.next().await.relay, "D-1");
    }
}
