//! One meeting's task: takes what is queued, decides, stores all of it in one transaction, then answers and tells.
//!
//! Invariants: nobody is answered, paged or told before the events are on disk; if they cannot be stored, the state
//! is as before, who asked is refused with the reason, and facts are kept and tried again. A step that another replica
//! or meeting was faster than is decided anew on what that one stored.

use super::ask::Pending;
use super::draft::Draft;
use super::legs::Legs;
use super::notices::{Notices, withdrawn};
use super::{Ask, Fact, LegFact, Shared, View};
use crate::bus::Hint;
use crate::convert;
use crate::endpoints::To;
use crate::store::{Append, ChainHead, StoreError};
use muster_domain::{
    Claims, Command, Event, LegEnd, Meeting, MeetingId, Reach, Reason, Refusal, SiteId, SummonsState,
};
use muster_proto::command::v1 as pb;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
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
    pub(super) meeting: Meeting,
    pub(super) head: ChainHead,
    /// Others may have appended what was not read yet.
    pub(super) behind: bool,
    view: View,
    pub(super) chair_shown: String,
    pub(super) notices: Notices,
    pub(super) legs: Legs,
    /// Facts that could not be stored yet.
    kept: VecDeque<Fact>,
    /// Sites that were to be paged while another meeting had them, as far as is known here; all their endpoints or one.
    pub(super) held_back: BTreeMap<SiteId, Option<u64>>,
    /// Those of them that the store gives to another.
    pub(super) doubted: BTreeSet<SiteId>,
    /// Facts that follow from what was just applied.
    next: Vec<Fact>,
    /// What is stored, and nobody has been told of.
    pub(super) untold: Vec<Draft>,
    stage_sent: u64,
}

impl MeetingActor {
    pub fn new(shared: Arc<Shared>, meeting: Meeting, head: ChainHead, chair_shown: String) -> Self {
        let view = View::new(&meeting);
        Self {
            shared,
            meeting,
            head,
            behind: false,
            view,
            chair_shown,
            notices: Notices::default(),
            legs: Legs::default(),
            kept: VecDeque::new(),
            held_back: BTreeMap::new(),
            doubted: BTreeSet::new(),
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

    /// Tells what is stored already, then runs until the meeting has ended or the control plane stops.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        self.tell_all().await;
        let sites = self.came_meanwhile();
        if !sites.is_empty() {
            self.next.push(Fact::Came { sites });
        }
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

    /// Decides a batch and stores what follows, again after each race that another won.
    async fn decide_and_store(&mut self, batch: &[Ask]) -> (Result<(), StoreError>, Vec<Pending>) {
        self.behind |= batch.iter().any(|ask| self.is_news(ask));
        let mut lost = 0;
        loop {
            if self.behind
                && let Err(error) = self.catch_up().await
            {
                self.behind = true;
                return (Err(error), self.refusals(batch));
            }
            let (draft, append, replies) = self.decide_all(batch);
            match self.store(&draft, &append).await {
                Ok(()) => {
                    self.untold.push(draft);
                    return (Ok(()), replies);
                }
                Err(StoreError::Conflict(what)) if lost < TRIES => {
                    metrics::counter!("muster_races_lost").increment(1);
                    tracing::debug!(meeting = %self.meeting.id(), what, "another was first");
                    self.behind = true;
                    lost += 1;
                    if lost > 1 {
                        // Not this stream alone: somebody holds a site and nobody here knows of it yet.
                        self.shared.read_all_again();
                        tokio::time::sleep(Duration::from_millis(u64::from(lost) * 10)).await;
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

    /// Decides a batch on what is known of claims at this moment.
    fn decide_all(&mut self, batch: &[Ask]) -> (Draft, Append, Vec<Pending>) {
        let shared = self.shared.clone();
        let claims = shared.claims.lock();
        let mut draft = Draft::new(shared.clock.now());
        let mut replies = Vec::new();
        for ask in batch {
            match ask {
                Ask::Fact(fact) => self.fact(fact, &claims, &mut draft),
                asked => replies.push(self.asked(asked.clone(), &claims, &mut draft)),
            }
        }
        self.mark_without_relay(&mut draft);
        let append = self.append_of(&draft, &claims);
        (draft, append, replies)
    }

    /// Tells what was stored here or read, in order; other meetings look at the claims before.
    async fn tell_all(&mut self) {
        for draft in std::mem::take(&mut self.untold) {
            if self.shared.exchange(self.meeting.id(), &draft).await {
                self.next.push(Fact::Claims { _done: None });
            }
            self.know_chair(&draft.events).await;
            self.doubt_pages(&draft).await;
            self.tell(draft);
        }
    }

    /// Whether others must have appended something: a hint, or a word of a site that is not known here.
    fn is_news(&self, ask: &Ask) -> bool {
        let unknown = |site: &SiteId| self.meeting.summons(site).is_none();
        match ask {
            Ask::Fact(Fact::Behind | Fact::RelayBack { .. } | Fact::RelayLost { .. }) => true,
            Ask::Fact(Fact::Legs { legs, .. }) => legs
                .iter()
                .any(|leg| leg.state != pb::LegState::Left && unknown(&leg.site)),
            Ask::Report { site, .. } | Ask::Ticket { site, .. } => unknown(site),
            _ => false,
        }
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
        let was_lost = before.is_some_and(|before| before.reason == Some(Reason::LinkLost));
        let is_lost = summons.state == SummonsState::Unreachable;
        // A relay may have told of the leg before this was known here.
        let comes = matches!(summons.state, SummonsState::Answered | SummonsState::Joining);
        if is_lost || comes || (was_lost && summons.state == SummonsState::Paged) {
            draft.legs_wanted.push(summons.site.clone());
        }
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

    pub(super) fn fact(&mut self, fact: &Fact, claims: &Claims, draft: &mut Draft) {
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
                for site in self.sites_with_leg(|leg| leg == relay.as_deref()) {
                    self.leg_ended(site, LegEnd::Lost, SYSTEM, draft);
                }
                if let Some(relay) = relay {
                    self.legs.forget(relay);
                }
            }
            Fact::Came { sites } => {
                for site in sites {
                    self.system(Command::EndpointAttached { site: site.clone() }, draft);
                }
            }
        }
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
        for (relay, leg) in self.legs.still_there(&draft.legs_wanted) {
            // A replica that is cut off may have given up a relay that dials in here.
            if !self.shared.fleet.is_here(&relay) {
                continue;
            }
            let legs: Vec<LegFact> = vec![leg];
            self.next.push(Fact::Legs { relay, legs });
        }
        for event in draft.wire {
            self.shared.bus.publish(Hint::Meeting(Arc::new(event)));
        }
    }
}

pub(super) fn pages(event: &Event) -> bool {
    matches!(event, Event::SummonsChanged { summons } if summons.state == SummonsState::Paged)
}

fn site_of(event: &Event) -> Option<SiteId> {
    match event {
        Event::SummonsChanged { summons } => Some(summons.site.clone()),
        _ => None,
    }
}
