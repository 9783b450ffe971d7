//! One meeting's task: takes what is queued, decides, stores all of it in one transaction, then answers and tells.
//!
//! Invariants: nobody is answered, paged or told before the events are on disk; if they cannot be stored, the state
//! is as before, who asked is refused with the reason, and facts are kept and tried again.

use super::draft::Draft;
use super::exchange::Concerned;
use super::legs::Leg;
use super::notices::{Notices, withdrawn};
use super::{Ask, Fact, Reply, Shared, View, invitee};
use crate::bus::Hint;
use crate::convert;
use crate::endpoints::{Proof, To};
use crate::status::Failure;
use crate::store::{Append, ChainHead, EndedRow, MeetingRow, NewEvent, StoreError};
use muster_domain::{
    Claims, Command, Event, LegEnd, Meeting, MeetingId, Reach, Reason, Refusal, SiteId, SummonsState,
};
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::time::Instant;

/// Commands and facts stored in one transaction.
const BATCH: usize = 256;
/// Facts kept while the store is away; beyond it the oldest go and are counted.
const MAX_KEPT: usize = 8192;
const RETRY: Duration = Duration::from_millis(500);
/// Races with other replicas that one step may lose before it is given up.
const TRIES: u32 = 12;
/// Each replica leaves those before it this much time to say that something took too long.
const TURN: Duration = Duration::from_millis(250);
pub(super) const SYSTEM: &str = "system";

pub(crate) struct MeetingActor {
    pub(super) shared: Arc<Shared>,
    claims: Arc<Mutex<Claims>>,
    pub(super) meeting: Meeting,
    pub(super) head: ChainHead,
    /// Others may have appended what was not read yet.
    pub(super) behind: bool,
    view: View,
    pub(super) chair_shown: String,
    pub(super) notices: Notices,
    pub(super) legs: HashMap<SiteId, Leg>,
    /// Facts that could not be stored yet.
    kept: VecDeque<Fact>,
    /// Facts that follow from what was just applied.
    next: Vec<Fact>,
    /// What is stored, and nobody has been told of.
    pub(super) untold: Vec<(Draft, Concerned)>,
    stage_sent: u64,
}

/// An answer that waits for the transaction.
type Pending = Box<dyn FnOnce(Option<&StoreError>) + Send>;

/// Sends the answer `result` if the events are stored, the store's error if not.
fn answer<T: Send + 'static>(reply: Reply<T>, result: Result<T, Failure>) -> Pending {
    Box::new(move |error| {
        let result = match (result, error) {
            (Ok(_), Some(error)) => Err(Failure::Store(error.clone())),
            (result, _) => result,
        };
        // Whoever asked may have gone; the command is stored all the same.
        reply.send(result);
    })
}

fn refuse<T: Send + 'static>(reply: Reply<T>) -> Pending {
    Box::new(move |error| {
        if let Some(error) = error {
            reply.send(Err(Failure::Store(error.clone())));
        }
    })
}

impl Ask {
    /// Sends the store's error and nothing else.
    fn refusal(self) -> Pending {
        match self {
            Self::Do { reply, .. } | Self::Report { reply, .. } | Self::RelayNamedLost { reply, .. } => {
                refuse(reply)
            }
            Self::CallUnconnected { reply, .. } => refuse(reply),
            Self::Ticket { reply, .. } => refuse(reply),
            Self::Fact(_) => Box::new(|_| ()),
        }
    }
}

impl MeetingActor {
    pub fn new(
        shared: Arc<Shared>,
        claims: Arc<Mutex<Claims>>,
        meeting: Meeting,
        head: ChainHead,
        chair_shown: String,
    ) -> Self {
        let view = View::new(&meeting);
        Self {
            shared,
            claims,
            meeting,
            head,
            behind: false,
            view,
            chair_shown,
            notices: Notices::default(),
            legs: HashMap::new(),
            kept: VecDeque::new(),
            next: Vec::new(),
            untold: Vec::new(),
            stage_sent: 0,
        }
    }

    /// Sites that could not be reached when they were called, and now can.
    pub fn came_meanwhile(&self) -> Vec<SiteId> {
        let missing = [Reason::NeverSeen, Reason::Offline, Reason::NoRelay];
        self.meeting
            .summonses()
            .iter()
            .filter(|summons| {
                summons.state == SummonsState::Unreachable
                    && summons.reason.is_some_and(|reason| missing.contains(&reason))
                    && self.shared.endpoints.reach(&summons.site) == Reach::Online
            })
            .filter(|summons| self.shared.fleet.place(&summons.site).is_some())
            .map(|summons| summons.site.clone())
            .collect()
    }

    pub fn view(&self) -> View {
        self.view.clone()
    }

    pub fn id(&self) -> &MeetingId {
        self.meeting.id()
    }

    /// Runs until the meeting has ended or the control plane stops.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        while self.meeting.is_live() {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return,
                taken = asks.recv_many(&mut batch, BATCH) => if taken == 0 { return },
                () = tokio::time::sleep(self.until_next()) => batch.push(Ask::Fact(Fact::Tick)),
            }
            let kept: Vec<Fact> = self.kept.drain(..).chain(self.next.drain(..)).collect();
            let all = kept.into_iter().map(Ask::Fact).chain(batch).collect();
            self.step(all).await;
        }
        self.shared.remove(self.meeting.id());
        tracing::info!(meeting = %self.meeting.id(), "meeting ended");
    }

    fn until_next(&self) -> Duration {
        if !self.next.is_empty() {
            return Duration::ZERO;
        }
        if !self.kept.is_empty() {
            return RETRY;
        }
        let Some(deadline) = self.meeting.next_deadline() else {
            return Duration::from_secs(3600);
        };
        let quiet = self.shared.quiet_until.saturating_duration_since(Instant::now());
        let left = u64::try_from(deadline.0 - self.shared.clock.now_ms()).unwrap_or(0);
        let rank = u32::try_from(self.shared.replicas.rank()).unwrap_or_default();
        Duration::from_millis(left.max(1)).max(quiet) + TURN.saturating_mul(rank)
    }

    async fn step(&mut self, batch: Vec<Ask>) {
        let (stored, replies) = self.decide_and_store(&batch).await;
        if let Err(error) = &stored {
            tracing::error!(meeting = %self.meeting.id(), %error, "cannot store events");
            self.keep(batch);
        }
        self.tell_all().await;
        for reply in replies {
            reply(stored.as_ref().err());
        }
    }

    /// Decides a batch and stores what follows, again after each race that another replica won.
    async fn decide_and_store(&mut self, batch: &[Ask]) -> (Result<(), StoreError>, Vec<Pending>) {
        let all_claims = self.claims.clone();
        let mut claims = all_claims.lock().await;
        self.behind |= batch.iter().any(|ask| self.is_news(ask));
        let mut lost = 0;
        loop {
            if self.behind
                && let Err(error) = self.catch_up(&mut claims).await
            {
                self.behind = true;
                return (Err(error), self.refusals(batch));
            }
            let mut draft = Draft::new(self.shared.clock.now());
            let mut replies = Vec::new();
            for ask in batch {
                match ask {
                    Ask::Fact(fact) => self.fact(fact, &claims, &mut draft),
                    asked => replies.push(self.asked(asked.clone(), &claims, &mut draft)),
                }
            }
            self.mark_without_relay(&mut draft);
            let concerned = Concerned::of(self.meeting.id(), &draft.events, &claims);
            match self.store(&draft, &mut claims).await {
                Ok(()) => {
                    self.untold.push((draft, concerned));
                    return (Ok(()), replies);
                }
                Err(StoreError::Conflict(what)) if lost < TRIES => {
                    metrics::counter!("muster_races_lost").increment(1);
                    tracing::debug!(meeting = %self.meeting.id(), what, "another replica was first");
                    self.behind = true;
                    lost += 1;
                    if lost > 1 {
                        // Not this stream alone: somebody holds a site and nobody here knows of it yet.
                        claims = self.wait_for_others(claims, &all_claims, lost).await;
                    }
                }
                Err(error) => {
                    // Nobody knows whether it is there: it is read before anything else is appended.
                    self.behind = true;
                    return (Err(error), replies);
                }
            }
        }
    }

    /// Tells what was stored here or read, in order. Nobody must hold the claims: other meetings look at them first.
    async fn tell_all(&mut self) {
        for (draft, concerned) in std::mem::take(&mut self.untold) {
            self.shared.exchange(self.meeting.id(), concerned).await;
            self.know_chair(&draft.events).await;
            self.tell(draft);
        }
    }

    /// Whether others must have appended something: a hint, or a word of a site that is not known here.
    fn is_news(&self, ask: &Ask) -> bool {
        let unknown = |site: &SiteId| self.meeting.summons(site).is_none();
        match ask {
            Ask::Fact(Fact::Behind) => true,
            Ask::Fact(Fact::Legs { legs, .. }) => legs
                .iter()
                .any(|leg| leg.state != pb::LegState::Left && unknown(&leg.site)),
            Ask::Report { site, .. } | Ask::Ticket { site, .. } => unknown(site),
            _ => false,
        }
    }

    /// Lets the other meetings read what is stored, and takes the claims anew.
    async fn wait_for_others<'a>(
        &self,
        claims: MutexGuard<'_, Claims>,
        all: &'a Mutex<Claims>,
        lost: u32,
    ) -> MutexGuard<'a, Claims> {
        drop(claims);
        self.shared.nudge_all();
        tokio::time::sleep(Duration::from_millis(u64::from(lost) * 10)).await;
        let mut claims = all.lock().await;
        self.shared.recount(&mut claims);
        claims
    }

    /// For each that waits for an answer: the store's error.
    fn refusals(&self, batch: &[Ask]) -> Vec<Pending> {
        let asks = batch.iter().filter(|ask| !matches!(ask, Ask::Fact(_)));
        asks.map(|ask| ask.clone().refusal()).collect()
    }

    /// Keeps the facts of a batch that could not be stored.
    fn keep(&mut self, batch: Vec<Ask>) {
        let facts = batch.into_iter().filter_map(|ask| match ask {
            Ask::Fact(Fact::Tick | Fact::Behind) => None,
            Ask::Fact(fact) => Some(fact),
            _ => None,
        });
        self.kept.extend(facts);
        let over = self.kept.len().saturating_sub(MAX_KEPT);
        metrics::counter!("muster_meeting_facts_dropped").increment(over as u64);
        self.kept.drain(..over);
        if self.kept.is_empty() {
            // A tick alone failed: come back to it after a while.
            self.kept.push_back(Fact::Tick);
        }
    }

    fn asked(&mut self, ask: Ask, claims: &Claims, draft: &mut Draft) -> Pending {
        match ask {
            Ask::Do { command, by, reply } => {
                let command = self.fresh(command, claims);
                answer(reply, self.decide(command, &by, draft).map_err(Failure::from))
            }
            Ask::CallUnconnected { sites, by, reply } => answer(
                reply,
                self.call_unconnected(sites, &by, claims, draft)
                    .map_err(Failure::from),
            ),
            Ask::Report {
                site,
                report,
                proof,
                reply,
            } => {
                let result = self.free_for(&site, &proof).and_then(|()| {
                    let by = format!("site:{site}");
                    Ok(self.decide(Command::Report { site, report }, &by, draft)?)
                });
                answer(reply, result)
            }
            Ask::RelayNamedLost {
                relay,
                epoch,
                by,
                reply,
            } => {
                let result = self.relay_named_lost(&relay, epoch, &by, draft);
                answer(reply, result.map_err(Failure::from))
            }
            Ask::Ticket { site, proof, reply } => {
                let result = self.free_for(&site, &proof).and_then(|()| {
                    self.meeting.may_join(&site, claims.holder(&site))?;
                    let placement = self.meeting.placement();
                    self.shared
                        .tickets
                        .issue(self.meeting.id(), placement, &site, false)
                });
                answer(reply, result)
            }
            // Facts have no answer.
            Ask::Fact(fact) => {
                self.fact(&fact, claims, draft);
                Box::new(|_| ())
            }
        }
    }

    /// Whether no other endpoint of the site has the call.
    fn free_for(&self, site: &SiteId, proof: &Proof) -> Result<(), Failure> {
        let summons = self
            .meeting
            .summons(site)
            .ok_or_else(|| Refusal::NotInMeeting(site.clone()))?;
        let busy = matches!(
            summons.state,
            SummonsState::Answered | SummonsState::Joining | SummonsState::OnAir
        );
        let by = &summons.answered_by;
        let other = !by.is_empty() && *by != proof.shown();
        // What answered and is gone since keeps nobody else of the site from it.
        match busy && other && self.shared.endpoints.may_be_there(site, by) {
            true => Err(Failure::Taken),
            false => Ok(()),
        }
    }

    fn call_unconnected(
        &mut self,
        sites: Vec<SiteId>,
        by: &str,
        claims: &Claims,
        draft: &mut Draft,
    ) -> Result<u32, Refusal> {
        let sites = if sites.is_empty() {
            self.meeting.unconnected().cloned().collect()
        } else {
            sites
        };
        let invitees = sites
            .into_iter()
            .map(|site| invitee(&self.shared.endpoints, site, claims))
            .collect();
        let before = draft.events.len();
        self.decide(Command::CallUnconnected { sites: invitees }, by, draft)?;
        let paged = draft.events[before..].iter().filter(|event| pages(event));
        Ok(u32::try_from(paged.count()).unwrap_or(u32::MAX))
    }

    /// Decides a command and applies what follows to the draft state.
    pub fn decide(&mut self, command: Command, by: &str, draft: &mut Draft) -> Result<(), Refusal> {
        let cause = command.cause();
        for event in self.meeting.decide(command, draft.now)? {
            self.apply(&event, draft);
            let wire = convert::event_to_wire(
                self.meeting.id(),
                self.meeting.seq(),
                draft.now,
                by,
                cause,
                &event,
            );
            draft.wire.push(wire);
            draft.events.push(event);
        }
        Ok(())
    }

    /// Takes in one event, decided here or by others, and notes what is to be done for it.
    pub(super) fn apply(&mut self, event: &Event, draft: &mut Draft) {
        let Event::SummonsChanged { summons } = event else {
            return self.meeting.apply(event);
        };
        let before = self.meeting.summons(&summons.site);
        let known = before.is_some_and(|before| before.answered_by == summons.answered_by);
        self.meeting.apply(event);
        draft.touched.insert(summons.site.clone());
        if !known && !summons.answered_by.is_empty() {
            draft
                .taken
                .push((summons.site.clone(), summons.answered_by.clone()));
        }
    }

    /// Shows others the state as it is now.
    pub(super) fn publish_view(&self) {
        self.view.set(&self.meeting);
    }

    /// Sites that are to be paged while there is no relay to send them to come to that end at once.
    pub fn mark_without_relay(&mut self, draft: &mut Draft) {
        let paged: Vec<SiteId> = draft
            .events
            .iter()
            .filter(|event| pages(event))
            .filter_map(site_of)
            .collect();
        if !paged.is_empty() {
            self.place_before_paging(draft);
        }
        if !paged.is_empty() && self.shared.fleet.place(&paged[0]).is_none() {
            self.system(Command::NoRelay { sites: paged }, draft);
        }
    }

    pub(super) fn system(&mut self, command: Command, draft: &mut Draft) {
        self.by(command, SYSTEM, draft);
    }

    pub(super) fn by(&mut self, command: Command, by: &str, draft: &mut Draft) {
        if let Err(refusal) = self.decide(command, by, draft) {
            tracing::debug!(meeting = %self.meeting.id(), %refusal, "a fact is passed over");
        }
    }

    fn fact(&mut self, fact: &Fact, claims: &Claims, draft: &mut Draft) {
        match fact {
            Fact::Tick => self.system(Command::Tick, draft),
            Fact::Claims { .. } => self.look_at_claims(claims, draft),
            // What there was has been read before.
            Fact::Behind => {}
            Fact::Detached { site } => {
                // It may have come back in the meantime.
                if self.shared.endpoints.reach(site) != Reach::Online {
                    self.system(Command::EndpointDetached { site: site.clone() }, draft);
                }
            }
            Fact::Attached {
                site,
                endpoint,
                proof,
            } => {
                let before = draft.events.len();
                self.system(Command::EndpointAttached { site: site.clone() }, draft);
                let paged = draft.events.len() > before;
                let holds = self
                    .meeting
                    .summons(site)
                    .is_some_and(|summons| summons.holds_claim());
                if !paged && holds && self.free_for(site, proof).is_ok() {
                    draft.recall.push((site.clone(), *endpoint));
                }
            }
            Fact::Legs { relay, legs } => {
                for leg in legs {
                    self.leg(relay, leg, claims, draft);
                }
            }
            Fact::RelayBack { relay, legs } => self.relay_back(relay, legs, claims, draft),
            Fact::RelayLost { relay } => {
                let gone = |leg: Option<&Leg>| leg.map(|leg| &leg.relay) == relay.as_ref();
                for site in self.sites_with_leg(gone) {
                    self.leg_ended(site, LegEnd::Lost, SYSTEM, draft);
                }
            }
            Fact::Came { sites } => {
                for site in sites {
                    self.system(Command::EndpointAttached { site: site.clone() }, draft);
                }
            }
        }
    }

    /// Stores the draft in one transaction. If that fails, the state is what it was.
    pub async fn store(&mut self, draft: &Draft, claims: &mut Claims) -> Result<(), StoreError> {
        if draft.events.is_empty() {
            return Ok(());
        }
        let append = self.append_of(draft, claims);
        match self.shared.store.append(&append).await {
            Ok(head) => {
                self.head = head;
                for event in &draft.events {
                    claims.follow(self.meeting.id(), event);
                }
                self.publish_view();
                self.shared.replicas.stored(self.meeting.id(), head.seq);
                Ok(())
            }
            Err(error) => {
                self.meeting = Meeting::clone(&self.view.get());
                Err(error)
            }
        }
    }

    fn append_of(&self, draft: &Draft, claims: &Claims) -> Append {
        let own = self.meeting.id();
        let mut append = Append {
            meeting: own.to_string(),
            head: self.head,
            ..Append::default()
        };
        for event in &draft.wire {
            append.events.push(NewEvent {
                seq: event.seq,
                at_ms: event.at_ms,
                actor: event.actor.clone(),
                payload: event.encode_to_vec(),
            });
        }
        for event in &draft.events {
            match event {
                Event::Convened {
                    at,
                    title,
                    chair,
                    unit,
                    idempotency_key,
                    ..
                } => {
                    append.convened = Some(MeetingRow {
                        id: own.to_string(),
                        title: title.clone(),
                        unit: unit.to_string(),
                        chair: chair.to_string(),
                        idempotency_key: (!idempotency_key.is_empty()).then(|| idempotency_key.clone()),
                        started_ms: at.0,
                    });
                }
                Event::Ended { at, .. } => {
                    let final_state = convert::meeting_to_wire(&self.meeting).encode_to_vec();
                    append.ended = Some(EndedRow {
                        ended_ms: at.0,
                        final_state,
                    });
                }
                _ => {}
            }
        }
        let over = append.ended.is_some();
        let priority = self.meeting.terms().priority as i64;
        let sites = self
            .meeting
            .summonses()
            .iter()
            .filter(|s| over || draft.touched.contains(&s.site));
        for summons in sites {
            let site = summons.site.to_string();
            if over || !summons.holds_claim() {
                // Whatever is believed here of who holds it: a row that is left behind would keep the site for ever.
                append.released.push(site);
            } else if claims.holder(&summons.site) != Some(own) {
                append.claims.push((site, priority));
            }
        }
        append
    }

    /// Tells everybody concerned what was stored.
    pub fn tell(&mut self, draft: Draft) {
        let document = self.meeting.stage_document();
        if document.version != self.stage_sent {
            self.stage_sent = document.version;
            self.shared
                .fleet
                .push_stage(&convert::stage_document_to_wire(&document));
        }
        for (site, by) in &draft.taken {
            let others = withdrawn(self.meeting.id(), "taken by another endpoint");
            self.shared
                .endpoints
                .push(site, To::Others(by), |_| others.clone());
        }
        self.tell_endpoints(&draft);
        let came = self.reachable_here(draft.touched.iter());
        if !came.is_empty() {
            self.next.push(Fact::Came { sites: came });
        }
        for event in draft.wire {
            self.shared.bus.publish(Hint::Meeting(Arc::new(event)));
        }
    }
}

fn pages(event: &Event) -> bool {
    matches!(event, Event::SummonsChanged { summons } if summons.state == SummonsState::Paged)
}

fn site_of(event: &Event) -> Option<SiteId> {
    match event {
        Event::SummonsChanged { summons } => Some(summons.site.clone()),
        _ => None,
    }
}
