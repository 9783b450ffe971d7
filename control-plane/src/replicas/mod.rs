//! The replicas of one control plane: what each has attached, told to all, and who is away.
//!
//! Invariants: a replica speaks for what is attached to it; it tells all of it on joining and when asked, then changes,
//! then that it lives ([`BEAT`]). One that is silent for [`AWAY_AFTER`] is away; what it had counts for [`GRACE`] more,
//! since that attaches elsewhere by itself. A lost message is noticed by its number at the next beat, and asked for.
//! What is stored is never told here but as a hint. A control plane of one replica has no network and tells nothing.

mod message;

use crate::bus::{Bus, Hint, Message, Network, Subject};
use crate::clock::Clock;
use crate::endpoints::Endpoints;
use crate::fleet::Relays;
use crate::quality::Qualities;
use crate::store::Health;
use bytes::Bytes;
use message::{Ask, Beat, Changed, Said, State, Stored, What};
use muster_domain::Millis;
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use message::{Relay, Relays as RelayList};

/// Each replica says this often that it lives.
pub const BEAT: Duration = Duration::from_millis(500);
/// One that was silent for this long is away.
pub const AWAY_AFTER: Duration = Duration::from_secs(3);
/// What a replica had that is away counts for this long.
pub const GRACE: Duration = Duration::from_secs(5);
/// Changes within this time are told together.
const COALESCE: Duration = Duration::from_millis(50);
/// Sites or qualities in one message: far below what a bus takes.
const PART: usize = 1000;
/// Replicas that are followed; of more nothing is known.
const MOST: usize = 64;

/// What others want to know at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A meeting has an event of this number.
    Stored { meeting: String, seq: u64 },
    /// The tree, or how sites answer.
    Directory,
}

struct Other {
    /// Tells its attachments from those of others in the registers.
    stream: u64,
    heard: Instant,
    away: bool,
    /// Number of its last state that was taken in.
    number: u64,
    asked: Option<Instant>,
    /// It was away for so long that its endpoints count as cut off.
    cut_off: bool,
    /// Parts of a whole state so far.
    whole: Option<State>,
}

#[derive(Default)]
struct Known {
    others: BTreeMap<String, Other>,
    streams: u64,
    number: u64,
}

/// This replica among the others. Cloning is sharing.
pub struct Replicas {
    id: String,
    network: Option<Arc<dyn Network>>,
    known: Mutex<Known>,
    /// Since when the bus has been connected.
    connected: Mutex<Option<Instant>>,
    /// What watchers were told last.
    service: watch::Sender<pb::ServiceState>,
    parts: Parts,
}

/// What replicas tell each other about.
#[derive(Clone)]
pub struct Parts {
    pub bus: Bus,
    pub clock: Clock,
    pub endpoints: Arc<Endpoints>,
    pub relays: Arc<Relays>,
    pub qualities: Arc<Qualities>,
    pub store: Health,
}

impl Replicas {
    /// `id` must differ from that of every other process, also of one before.
    pub fn new(id: String, network: Option<Arc<dyn Network>>, parts: Parts) -> Arc<Self> {
        if network.is_some() {
            parts.qualities.keep_news();
        }
        let this = Arc::new(Self {
            id,
            network,
            known: Mutex::default(),
            connected: Mutex::new(Some(Instant::now())),
            service: watch::Sender::default(),
            parts,
        });
        this.tell_service();
        this
    }

    /// Whether there may be others.
    pub fn are_several(&self) -> bool {
        self.network.is_some()
    }

    /// Tells the others of an event; also a meeting's first.
    pub fn stored(&self, meeting: &str, seq: u64) {
        let stored = Stored {
            meeting: meeting.to_owned(),
            seq,
        };
        self.say(Subject::Stored, What::Stored(stored));
    }

    /// Tells the others what watchers here were told.
    fn pass_on(&self, hint: Hint) {
        let mut changed = Changed::default();
        match hint {
            Hint::Directory => changed.directory = true,
            Hint::Plans => changed.plans = true,
            Hint::Account(account) => changed.account = account.to_string(),
            Hint::DrillStarted(started) => changed.drill_started = Some(pb::DrillStarted::clone(&started)),
            Hint::DrillReported(report) => {
                changed.drill_reported = Some(pb::ReportDrillRequest::clone(&report));
            }
            Hint::Report(report) => changed.report = Some(Box::new(pb::Report::clone(&report))),
            _ => return,
        }
        self.say(Subject::Stored, What::Changed(changed));
    }

    /// Tells those here what another replica told.
    fn take_hint(&self, changed: Changed) {
        let bus = &self.parts.bus;
        if changed.plans {
            bus.publish_here(Hint::Plans);
        }
        if !changed.account.is_empty() {
            bus.publish_here(Hint::Account(changed.account.as_str().into()));
        }
        if let Some(started) = changed.drill_started {
            bus.publish_here(Hint::DrillStarted(Arc::new(started)));
        }
        if let Some(report) = changed.drill_reported {
            bus.publish_here(Hint::DrillReported(Arc::new(report)));
        }
        if let Some(report) = changed.report {
            bus.publish_here(Hint::Report(Arc::new(*report)));
        }
    }

    /// This replica's place among those that live, from 0: who is later waits for those before.
    pub fn rank(&self) -> usize {
        let known = self.lock();
        known
            .others
            .iter()
            .filter(|(id, other)| !other.away && **id < self.id)
            .count()
    }

    /// Tells watchers when the store goes away or comes back, until `shutdown`.
    pub async fn watch_store(self: Arc<Self>, shutdown: CancellationToken) {
        let mut store = self.parts.store.follow();
        loop {
            self.tell_service();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = store.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Tells of each change of [`Self::service`] from now on; of several at once the last.
    pub fn follow_service(&self) -> watch::Receiver<pb::ServiceState> {
        self.service.subscribe()
    }

    /// Whether the parts of the control plane reach each other.
    pub fn service(&self) -> pb::ServiceState {
        let here = self.lock().others.values().filter(|other| !other.away).count();
        let bus_ok = self
            .network
            .as_ref()
            .is_none_or(|network| *network.state().borrow());
        pb::ServiceState {
            store_ok: self.parts.store.is_ok(),
            bus_ok,
            replica: self.id.clone(),
            replicas: u32::try_from(here + 1).unwrap_or(u32::MAX),
        }
    }

    /// Follows the others until `shutdown`, and tells them what is here. What is new for meetings goes to `news`.
    pub async fn run(self: Arc<Self>, news: mpsc::Sender<News>, shutdown: CancellationToken) {
        let Some(network) = self.network.clone() else {
            return;
        };
        let Some(mut outgoing) = self.parts.bus.outgoing() else {
            return;
        };
        let (mut messages, mut state) = (network.subscribe(), network.state());
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tell = tokio::time::interval(COALESCE);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.join();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = beat.tick() => {
                    self.say_numbered(What::Beat(Beat::default()), false);
                    self.look();
                }
                _ = tell.tick() => self.tell_news(),
                changed = state.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.reconnected(&mut state);
                }
                Some(hint) = outgoing.recv() => self.pass_on(hint),
                message = messages.recv() => match message {
                    Some(message) => self.hear(&message, &news),
                    None => break,
                },
            }
        }
        self.say_numbered(What::Beat(Beat { leaving: true }), false);
    }

    fn join(&self) {
        self.say(Subject::Replicas, What::Ask(Ask::default()));
        self.tell_all();
    }

    fn reconnected(&self, state: &mut watch::Receiver<bool>) {
        let connected = *state.borrow_and_update();
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = connected.then(Instant::now);
        if connected {
            self.join();
        }
        self.tell_service();
    }

    fn tell_service(&self) {
        // Found out under the lock of what is told: what is told last is what was found last.
        self.service.send_if_modified(|told| {
            let now = self.service();
            let is_new = *told != now;
            *told = now;
            is_new
        });
    }

    /// Everything that is here, in parts.
    fn tell_all(&self) {
        let presence = self.parts.endpoints.local();
        let quality = self.parts.qualities.local();
        let parts = presence.len().max(quality.len()).div_ceil(PART).max(1);
        for part in 0..parts {
            let of = |len: usize| (part * PART).min(len)..((part + 1) * PART).min(len);
            let state = State {
                first: part == 0,
                last: part + 1 == parts,
                presence: presence[of(presence.len())].to_vec(),
                relays: (part == 0).then(|| self.parts.relays.local()),
                quality: quality[of(quality.len())].to_vec(),
            };
            self.say_numbered(What::State(state), true);
        }
    }

    fn tell_news(&self) {
        let mut presence = self.parts.endpoints.take_local_news();
        let mut quality = self.parts.qualities.take_local_news();
        let mut relays = self.parts.relays.take_local_news();
        while !presence.is_empty() || !quality.is_empty() || relays.is_some() {
            let state = State {
                presence: presence.split_off(presence.len().saturating_sub(PART)),
                quality: quality.split_off(quality.len().saturating_sub(PART)),
                relays: relays.take(),
                ..State::default()
            };
            self.say_numbered(What::State(state), true);
        }
    }

    fn say(&self, subject: Subject, what: What) {
        self.publish(subject, what, 0);
    }

    fn say_numbered(&self, what: What, next: bool) {
        let number = {
            let mut known = self.lock();
            known.number += u64::from(next);
            known.number
        };
        self.publish(Subject::Replicas, what, number);
    }

    fn publish(&self, subject: Subject, what: What, number: u64) {
        let Some(network) = &self.network else {
            return;
        };
        let said = Said {
            replica: self.id.clone(),
            number,
            what: Some(what),
        };
        network.publish(subject, Bytes::from(said.encode_to_vec()));
    }

    fn hear(&self, message: &Message, news: &mpsc::Sender<News>) {
        let Ok(said) = Said::decode(message.payload.clone()) else {
            metrics::counter!("muster_bus_dropped", "reason" => "unreadable").increment(1);
            return;
        };
        let item = match said.what {
            None => return,
            Some(What::Stored(stored)) => News::Stored {
                meeting: stored.meeting,
                seq: stored.seq,
            },
            Some(What::Changed(changed)) if changed.directory => News::Directory,
            Some(What::Changed(changed)) => return self.take_hint(changed),
            Some(what) => return self.hear_replica(&said.replica, said.number, what),
        };
        if news.try_send(item).is_err() {
            // The poll of the store makes up for it.
            metrics::counter!("muster_bus_dropped", "reason" => "engine_behind").increment(1);
        }
    }

    fn hear_replica(&self, id: &str, number: u64, what: What) {
        let mut known = self.lock();
        let is_new = !known.others.contains_key(id);
        if is_new && (known.others.len() >= MOST || id.is_empty() || id == self.id) {
            return;
        }
        known.streams += u64::from(is_new);
        let stream = (1 << 63) | known.streams;
        let other = known.others.entry(id.to_owned()).or_insert_with(|| Other {
            stream,
            heard: Instant::now(),
            away: false,
            number: 0,
            asked: None,
            cut_off: false,
            whole: None,
        });
        other.heard = Instant::now();
        let returned = std::mem::take(&mut other.away);
        // What was dropped of it is asked for.
        let mut ask = std::mem::take(&mut other.cut_off);
        let mut tell_all = false;
        match what {
            What::State(state) => self.take_state(other, number, state),
            What::Beat(beat) if beat.leaving => {
                let gone = known.others.remove(id);
                drop(known);
                if let Some(gone) = gone {
                    self.forget(gone.stream);
                }
                return self.tell_service();
            }
            What::Beat(_) => {
                let lately = other.asked.is_some_and(|asked| asked.elapsed() < 2 * BEAT);
                ask |= other.number != number && !lately;
            }
            What::Ask(asked) => tell_all = asked.of.is_empty() || asked.of == self.id,
            What::Stored(_) | What::Changed(_) => {}
        }
        if ask {
            other.asked = Some(Instant::now());
        }
        drop(known);
        if ask {
            self.say(Subject::Replicas, What::Ask(Ask { of: id.to_owned() }));
        }
        if tell_all {
            self.tell_all();
        }
        if is_new || returned {
            tracing::info!(replica = id, "a replica of the control plane is there");
            self.tell_service();
        }
    }

    fn take_state(&self, other: &mut Other, number: u64, state: State) {
        if number <= other.number {
            // Said twice, or late.
            return;
        }
        if state.first {
            other.whole = Some(State::default());
        } else if number != other.number + 1 {
            // One was lost: the next beat tells, and then all is asked for.
            other.whole = None;
            return;
        }
        other.number = number;
        let stream = other.stream;
        let Some(whole) = &mut other.whole else {
            self.apply(stream, &state);
            return;
        };
        whole.presence.extend(state.presence);
        whole.quality.extend(state.quality);
        if state.relays.is_some() {
            whole.relays = state.relays;
        }
        if state.last {
            let whole = std::mem::take(whole);
            other.whole = None;
            self.parts
                .endpoints
                .remote_all(stream, &whole.presence, self.parts.clock.now());
            self.parts.qualities.relay_gone(stream);
            self.apply(
                stream,
                &State {
                    presence: Vec::new(),
                    ..whole
                },
            );
        }
    }

    fn apply(&self, stream: u64, state: &State) {
        self.parts
            .endpoints
            .remote(stream, &state.presence, self.parts.clock.now());
        if let Some(relays) = &state.relays {
            self.parts.relays.remote(stream, &relays.relays);
        }
        self.parts.qualities.take_remote(stream, &state.quality);
    }

    /// Looks at who is silent. Without the bus all are, and nobody can say that a relay is gone with its replica.
    fn look(&self) {
        let since = *self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let can_tell = since.is_some_and(|since| since.elapsed() > AWAY_AFTER + GRACE);
        let (mut cut_off, mut gone, mut changed) = (Vec::new(), Vec::new(), false);
        self.lock().others.retain(|id, other| {
            let silent = other.heard.elapsed();
            if silent > AWAY_AFTER && !other.away {
                tracing::warn!(replica = id, "a replica of the control plane is silent: away");
                other.away = true;
                changed = true;
            }
            if silent <= AWAY_AFTER + GRACE {
                return true;
            }
            if !std::mem::replace(&mut other.cut_off, true) {
                cut_off.push(other.stream);
            }
            if can_tell {
                gone.push(other.stream);
            }
            !can_tell
        });
        for stream in cut_off {
            self.parts.endpoints.remote_gone(stream, self.parts.clock.now());
            self.parts.qualities.relay_gone(stream);
        }
        for stream in gone {
            self.forget(stream);
        }
        if changed {
            self.tell_service();
        }
    }

    fn forget(&self, stream: u64) {
        let now: Millis = self.parts.clock.now();
        self.parts.endpoints.remote_gone(stream, now);
        self.parts.relays.remote_gone(stream);
        self.parts.qualities.relay_gone(stream);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
