//! The live meetings: one task each, found here by id.
//!
//! Invariants: a meeting is known here before anyone is told of it, and comes to be known once. That no site is given to
//! two is the matter of `claiming`; what a meeting does with a command is the domain's.

mod actor;
mod arriving;
mod ask;
mod asking;
mod claiming;
mod damage;
mod draft;
mod follow;
mod legs;
mod notices;
mod placing;
mod storing;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::convert;
use crate::endpoints::{Endpoints, Proof};
use crate::fleet::Fleet;
use crate::replicas::Replicas;
use crate::status::Failure;
use crate::store::{ChainHead, Store, StoreError};
use crate::tickets::Tickets;
use actor::MeetingActor;
use arriving::Arriving;
pub use ask::LegFact;
use ask::{Ask, Fact, Reply};
use claiming::Book;
use draft::Draft;
use follow::{Read, read_on};
use legs::Legs;
use muster_domain::{
    AccountName, Claims, Command, Event, Invitee, Meeting, MeetingId, Opening, Report, SiteId, Terms,
    Timeouts, UnitId,
};
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Commands and facts that may wait for one meeting.
const QUEUE: usize = 4096;
/// After a start nothing times out for this long: relays and endpoints are dialling in again.
pub const GRACE: Duration = Duration::from_secs(5);
/// Ended meetings that are read at once.
const ENDED_PAGE: i64 = 100;
/// Races with other replicas that a convening may lose before it is given up.
const OPEN_TRIES: u32 = 8;

/// What all meetings share.
pub(crate) struct Shared {
    pub store: Store,
    pub bus: Bus,
    pub endpoints: Arc<Endpoints>,
    pub fleet: Arc<dyn Fleet>,
    pub tickets: Tickets,
    pub shutdown: CancellationToken,
    pub replicas: Arc<Replicas>,
    pub clock: Clock,
    /// Nothing times out before this; not a time of the wall clock, which may be set back.
    pub quiet_until: Instant,
    pub claims: Book,
    /// The store is to be asked at once what there is.
    read_again: Notify,
    live: RwLock<BTreeMap<String, Handle>>,
}

impl Shared {
    /// All meetings here read what is stored, and those that are not known here are looked for.
    pub(crate) fn read_all_again(&self) {
        self.read_again.notify_one();
        for handle in self.live.read().unwrap_or_else(PoisonError::into_inner).values() {
            handle.nudge();
        }
    }

    pub(crate) fn remove(&self, meeting: &str) {
        self.live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(meeting);
    }
}

#[derive(Clone)]
struct Handle {
    queue: mpsc::Sender<Ask>,
    view: View,
}

/// The newest committed state of a meeting.
#[derive(Clone)]
pub(crate) struct View(Arc<RwLock<Arc<Meeting>>>);

impl View {
    fn new(meeting: &Meeting) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(meeting.clone()))))
    }

    pub(crate) fn get(&self) -> Arc<Meeting> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, meeting: &Meeting) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(meeting.clone());
    }
}

/// What a person asks for when convening: everything is checked and resolved already.
#[derive(Clone)]
pub struct Convening {
    pub title: String,
    pub chair: AccountName,
    /// Shown to those who are called.
    pub chair_shown: String,
    pub unit: UnitId,
    pub sites: Vec<SiteId>,
    pub idempotency_key: String,
    pub terms: Terms,
    pub opening: Opening,
}

/// Tells the ids of meetings of one millisecond apart.
pub type Lot = Arc<dyn Fn() -> u32 + Send + Sync>;

/// The registry of live meetings.
pub struct Meetings {
    shared: Arc<Shared>,
    lot: Lot,
    arriving: Arriving,
}

/// The parts that meetings work with.
pub struct Parts {
    pub store: Store,
    pub bus: Bus,
    pub endpoints: Arc<Endpoints>,
    pub fleet: Arc<dyn Fleet>,
    pub tickets: Tickets,
    pub shutdown: CancellationToken,
    pub replicas: Arc<Replicas>,
    pub clock: Clock,
    pub lot: Lot,
}

impl Meetings {
    /// Loads every meeting that has not ended, by replay of its events, and starts its task. One that was altered is
    /// taken out of service, and the others go on.
    pub async fn load(parts: Parts) -> Result<Arc<Self>, StoreError> {
        let Parts {
            store,
            bus,
            endpoints,
            fleet,
            tickets,
            shutdown,
            replicas,
            clock,
            lot,
        } = parts;
        let quiet_until = Instant::now() + GRACE;
        let live = RwLock::default();
        let shared = Arc::new(Shared {
            store,
            bus,
            endpoints,
            fleet,
            tickets,
            shutdown,
            replicas,
            clock,
            quiet_until,
            claims: Book::default(),
            read_again: Notify::new(),
            live,
        });
        let mut loaded = Vec::new();
        for live in shared.store.live_heads().await? {
            match damage::read_live(&shared.store, &live.meeting).await {
                Ok(found) => loaded.extend(found),
                Err(StoreError::Corrupt(reason)) => {
                    damage::quarantine(&shared.store, &live.meeting, &reason).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let arriving = Arriving::default();
        let this = Arc::new(Self {
            shared,
            lot,
            arriving,
        });
        for Replayed {
            meeting, head, legs, ..
        } in loaded
        {
            for relay in legs.relays() {
                this.shared.fleet.await_back(relay);
            }
            let shown = this.chair_shown(&meeting).await?;
            tracing::info!(meeting = %meeting.id(), seq = meeting.seq(), "meeting resumed");
            let mut actor = MeetingActor::new(this.shared.clone(), meeting, head, shown);
            actor.legs = legs;
            this.start(actor);
        }
        this.look_at_all_claims();
        Ok(this)
    }

    /// Makes the meeting known and runs it. Those who look at the claims find it before it has any.
    fn start(&self, actor: MeetingActor) {
        let (queue, asks) = mpsc::channel(QUEUE);
        let view = actor.view();
        let meeting = view.get();
        let handle = Handle { queue, view };
        self.shared
            .live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(meeting.id().to_string(), handle);
        self.shared.claims.lock().take_in(&meeting);
        tokio::spawn(actor.run(asks));
    }

    /// Opens a meeting and calls its sites; the same key of the same chair again gives the same meeting.
    pub async fn convene(self: &Arc<Self>, convening: Convening) -> Result<pb::Meeting, Failure> {
        // A task of its own: a caller that goes away must not leave a meeting that is stored and does not run.
        let this = self.clone();
        let opened = tokio::spawn(async move { this.open(convening).await });
        opened.await.map_err(|_| Failure::Busy)?
    }

    async fn open(&self, convening: Convening) -> Result<pb::Meeting, Failure> {
        let mut lost = 0;
        loop {
            match self.try_open(&convening).await {
                Err(Failure::Store(StoreError::Conflict(what))) if lost < OPEN_TRIES => {
                    // Another replica has the key, or one of the sites.
                    metrics::counter!("muster_races_lost").increment(1);
                    tracing::debug!(what, "another replica was first");
                    lost += 1;
                    self.refresh().await?;
                }
                done => return done,
            }
        }
    }

    async fn try_open(&self, convening: &Convening) -> Result<pb::Meeting, Failure> {
        let Convening {
            title,
            chair,
            chair_shown,
            unit,
            sites,
            idempotency_key,
            terms,
            opening,
        } = convening.clone();
        if !idempotency_key.is_empty()
            && let Some(id) = self.shared.store.meeting_by_key(&chair, &idempotency_key).await?
        {
            self.adopt(&id).await?;
            return self.find(&id).await;
        }
        let now = self.shared.clock.now();
        let id = MeetingId::new(format!("m{:011x}{:08x}", now.0, (self.lot)()))?;
        // The hint of it may come back by another way before it is known here.
        let _one_at_a_time = self.arriving.enter(id.as_str()).await;
        let invitees = self.invitees(&sites);
        let by = chair.to_string();
        let command = Command::Convene {
            title,
            chair,
            unit,
            sites: invitees,
            idempotency_key,
            terms,
            opening,
        };
        let meeting = Meeting::new(id, Timeouts::default());
        let head = ChainHead::default();
        let mut actor = MeetingActor::new(self.shared.clone(), meeting, head, chair_shown);
        let mut draft = Draft::new(now);
        actor.decide(command, &by, &mut draft)?;
        actor.mark_without_relay(&mut draft);
        let append = actor.append_of(&draft, &self.shared.claims.lock());
        actor.store(&draft, &append).await?;
        let answer = convert::meeting_to_wire(&actor.view().get());
        actor.untold.push(draft);
        self.start(actor);
        Ok(answer)
    }

    /// Each of these sites as it would be called now.
    pub fn invitees(&self, sites: &[SiteId]) -> Vec<Invitee> {
        let claims = self.shared.claims.lock();
        let sites = sites.iter().cloned();
        sites
            .map(|site| invitee(&self.shared.endpoints, site, &claims))
            .collect()
    }

    /// The newest state of a live meeting.
    pub fn view(&self, meeting: &str) -> Option<Arc<Meeting>> {
        self.handle(meeting).map(|handle| handle.view.get())
    }

    /// All that have not ended, oldest first.
    pub fn views(&self) -> Vec<Arc<Meeting>> {
        let live = self.shared.live.read().unwrap_or_else(PoisonError::into_inner);
        let mut views: Vec<_> = live
            .values()
            .map(|handle| handle.view.get())
            .filter(|m| m.is_live())
            .collect();
        views.sort_by_key(|meeting| meeting.started());
        views
    }

    /// A meeting, live or ended.
    pub async fn find(&self, id: &str) -> Result<pb::Meeting, Failure> {
        if let Some(view) = self.view(id) {
            return Ok(convert::meeting_to_wire(&view));
        }
        match self.shared.store.final_state(id).await? {
            Some(bytes) => return decode_final(&bytes).map_err(Failure::Store),
            None => self.adopt(id).await?,
        }
        match self.view(id) {
            Some(view) => Ok(convert::meeting_to_wire(&view)),
            None => Err(self.missing(id).await),
        }
    }

    /// Carries out a command of a person. Done when it is stored.
    pub async fn command(&self, meeting: &str, command: Command, by: String) -> Result<(), Failure> {
        self.ask(meeting, |reply| Ask::Do { command, by, reply }).await
    }

    pub async fn call_unconnected(
        &self,
        meeting: &str,
        sites: Vec<SiteId>,
        by: String,
    ) -> Result<u32, Failure> {
        self.ask(meeting, |reply| Ask::CallUnconnected { sites, by, reply })
            .await
    }

    pub async fn report(
        &self,
        meeting: &str,
        site: SiteId,
        report: Report,
        proof: Proof,
    ) -> Result<(), Failure> {
        self.ask(meeting, |reply| Ask::Report {
            site,
            report,
            proof,
            reply,
        })
        .await
    }

    /// An endpoint or a desk gets nothing from a relay, under the placement of this epoch.
    pub async fn relay_named_lost(
        &self,
        meeting: &str,
        relay: String,
        epoch: u64,
        by: String,
    ) -> Result<(), Failure> {
        self.ask(meeting, |reply| Ask::RelayNamedLost {
            relay,
            epoch,
            by,
            reply,
        })
        .await
    }

    /// A ticket for a site of the meeting, by the endpoint with this proof.
    pub async fn ticket(&self, meeting: &str, site: SiteId, proof: Proof) -> Result<pb::JoinTicket, Failure> {
        self.ask(meeting, |reply| Ask::Ticket { site, proof, reply })
            .await
    }

    /// Whether the endpoint may have a ticket at all, be there a relay or not.
    pub async fn ticket_or_no_relay(&self, meeting: &str, site: SiteId, proof: Proof) -> Result<(), Failure> {
        match self.ticket(meeting, site, proof).await {
            Ok(_) | Err(Failure::NoRelay) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn ask<T>(&self, meeting: &str, make: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Failure> {
        let mut handle = self.handle(meeting);
        if handle.is_none() {
            self.adopt(meeting).await?;
            handle = self.handle(meeting);
        }
        let Some(handle) = handle else {
            return Err(match self.shared.store.final_state(meeting).await? {
                Some(_) => muster_domain::Refusal::MeetingEnded.into(),
                None => self.missing(meeting).await,
            });
        };
        let (reply, answer) = oneshot::channel();
        handle.queue.try_send(make(Reply::new(reply))).map_err(|_| {
            metrics::counter!("muster_meeting_queue_full").increment(1);
            Failure::Busy
        })?;
        answer.await.map_err(|_| Failure::Busy)?
    }

    fn handle(&self, meeting: &str) -> Option<Handle> {
        self.shared
            .live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(meeting)
            .cloned()
    }

    fn handles(&self, of: impl Fn(&Meeting) -> bool) -> Vec<Handle> {
        let live = self.shared.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values()
            .filter(|handle| of(&handle.view.get()))
            .cloned()
            .collect()
    }

    /// Tells all meetings of the site that an endpoint attached.
    pub async fn attached(&self, site: &SiteId, endpoint: u64, proof: &Proof) {
        for handle in self.handles(|meeting| meeting.summons(site).is_some()) {
            let fact = Fact::Attached {
                site: site.clone(),
                endpoint,
                proof: proof.clone(),
            };
            let _ = handle.queue.send(Ask::Fact(fact)).await;
        }
    }

    /// Tells all meetings of the site that its last endpoint is gone.
    pub async fn detached(&self, site: &SiteId) {
        for handle in self.handles(|meeting| meeting.summons(site).is_some()) {
            let _ = handle
                .queue
                .send(Ask::Fact(Fact::Detached { site: site.clone() }))
                .await;
        }
    }

    /// What a relay reports of legs, by meeting.
    pub async fn legs(&self, relay: &str, by_meeting: BTreeMap<String, Vec<LegFact>>) {
        for (meeting, legs) in by_meeting {
            if self.handle(&meeting).is_none()
                && let Err(error) = self.adopt(&meeting).await
            {
                tracing::warn!(meeting, %error, "cannot read the meeting of a leg");
            }
            match self.handle(&meeting) {
                Some(handle) => {
                    let fact = Fact::Legs {
                        relay: relay.to_owned(),
                        legs,
                    };
                    let _ = handle.queue.send(Ask::Fact(fact)).await;
                }
                None => tracing::debug!(meeting, "a relay reports legs of a meeting that is not live"),
            }
        }
    }

    /// A relay dialled in and told all its legs: every live meeting learns what it missed, and the relay the stages.
    pub async fn relay_back(&self, relay: &str, mut by_meeting: BTreeMap<String, Vec<LegFact>>) {
        for handle in self.handles(|_| true) {
            let view = handle.view.get();
            self.shared
                .fleet
                .push_stage(&convert::stage_document_to_wire(&view.stage_document()));
            let legs = by_meeting.remove(view.id().as_str()).unwrap_or_default();
            let fact = Fact::RelayBack {
                relay: relay.to_owned(),
                legs,
            };
            let _ = handle.queue.send(Ask::Fact(fact)).await;
        }
        for meeting in by_meeting.into_keys() {
            match self.find(&meeting).await {
                Ok(ended) if ended.ended_ms != 0 => self.shared.fleet.push_stage(&ended_document(&ended)),
                Ok(_) => {}
                Err(_) if self.is_damaged(&meeting).await => {
                    // Nothing here can lead it any more, and its sites are free: it ends at the relay too.
                    let ended = pb::Meeting {
                        id: meeting,
                        seq: u64::MAX,
                        ..Default::default()
                    };
                    self.shared.fleet.push_stage(&ended_document(&ended));
                }
                // An island may know more than this control plane: it is left alone.
                Err(error) => {
                    tracing::warn!(meeting, relay, %error, "a relay has legs of an unknown meeting")
                }
            }
        }
    }

    /// A relay has been away for too long; `None`: what no relay has claimed since the start.
    pub async fn relay_lost(&self, relay: Option<&str>) {
        for handle in self.handles(|_| true) {
            let fact = Fact::RelayLost {
                relay: relay.map(str::to_owned),
            };
            let _ = handle.queue.send(Ask::Fact(fact)).await;
        }
    }
}

/// A site as it would be called now.
pub(crate) fn invitee(endpoints: &Endpoints, site: SiteId, claims: &Claims) -> Invitee {
    Invitee {
        reach: endpoints.reach(&site),
        claimed_by: claims.claim(&site),
        site,
    }
}

fn ended_document(ended: &pb::Meeting) -> pb::StageDocument {
    pb::StageDocument {
        meeting: ended.id.clone(),
        version: ended.seq,
        ended: true,
        ..Default::default()
    }
}

fn decode_final(bytes: &[u8]) -> Result<pb::Meeting, StoreError> {
    pb::Meeting::decode(bytes)
        .map_err(|error| StoreError::Corrupt(format!("the state of an ended meeting: {error}")))
}

/// A meeting as its stored events leave it.
struct Replayed {
    meeting: Meeting,
    head: ChainHead,
    legs: Legs,
    events: Vec<Event>,
    wire: Vec<pb::MeetingEvent>,
}

/// The state of a meeting from its stored events; the hash chain is checked on the way.
async fn replay(store: &Store, id: &str) -> Result<Replayed, StoreError> {
    let meeting_id =
        MeetingId::new(id).map_err(|error| StoreError::Corrupt(format!("meeting {id}: {error}")))?;
    let mut replayed = Replayed {
        meeting: Meeting::new(meeting_id, Timeouts::default()),
        head: ChainHead::default(),
        legs: Legs::default(),
        events: Vec::new(),
        wire: Vec::new(),
    };
    for stored in store.events_after(id, 0).await? {
        let Read { wire, event } = read_on(id, &mut replayed.head, &stored)?;
        replayed.legs.follow(&wire.actor, &event);
        replayed.meeting.apply(&event);
        replayed.events.push(event);
        replayed.wire.push(wire);
    }
    Ok(replayed)
}
