//! One meeting as a stream of numbered events.
//!
//! [`Meeting::decide`] (in `meeting/decide.rs` and its neighbours) looks at the state, a command and the time, and gives
//! the events that follow or a refusal; it changes nothing. [`Meeting::apply`] takes one event in; it alone
//! changes the state, so [`Meeting::replay`] of the stored events gives exactly the same. The first event of a
//! stream is `Convened` with seq 1, each further one counts up by one, and nothing follows `Ended`.
//!
//! Who said so, hashes, storage, relays and tokens are the shell's; who may is authority's.

mod apply;
mod call;
mod chair;
mod decide;
mod message;
mod sequel;
mod show;
mod speak;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::claims::Holder;
use crate::floor::{Floor, FloorState};
use crate::ids::{AccountName, MeetingId, Millis, SiteId, UnitId};
use crate::refusal::Refusal;
use crate::roll_call::RollCall;
use crate::stage::{Placement, Stage, StageDocument};
use crate::summons::{Caller, Summons, SummonsState, Timeouts};
use crate::terms::Terms;
pub use message::{Able, ChairCause, Command, Event, PollingOrder};

/// The most sites in one meeting.
pub const MAX_SITES: usize = 10_000;
/// The longest title or reason, in characters.
pub const MAX_TEXT: usize = 200;
/// The most accounts that may have requested the chair at once.
pub const MAX_CHAIR_REQUESTS: usize = 64;

/// The state of one meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    id: MeetingId,
    timeouts: Timeouts,
    seq: u64,
    head: Option<Head>,
    terms: Terms,
    /// In calling order.
    summonses: Vec<Summons>,
    index: BTreeMap<SiteId, usize>,
    /// The sites of `summonses`.
    sites: Arc<[SiteId]>,
    stage: Stage,
    stage_version: u64,
    /// First come first.
    chair_requests: Vec<AccountName>,
    /// From whom the chair was taken over, the last one last.
    taken_from: Vec<AccountName>,
    /// While it is locked: the consoles that were in then.
    locked: Option<Vec<AccountName>>,
    floor: Floor,
    /// The one that goes on, or the last one.
    roll_call: Option<RollCall>,
    placement: Option<Placement>,
    ended: Option<(Millis, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    title: String,
    chair: AccountName,
    convened_by: AccountName,
    unit: UnitId,
    started: Millis,
    idempotency_key: String,
}

/// How far a replay goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The last event at or before this time.
    Time(Millis),
    /// This event.
    Seq(u64),
}

/// What a person at a site must know of the meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The site is called in a roll call.
    pub roll_called: bool,
    /// Until then; none: until the caller goes on.
    pub answer_by: Option<Millis>,
    pub floor: Option<FloorState>,
    /// Place in the queue from 1 while it waits, else 0.
    pub floor_place: usize,
    pub floor_until: Option<Millis>,
    /// In effect: see [`Meeting::is_muted`].
    pub muted: bool,
    pub locked: bool,
    pub chair: AccountName,
    pub ends_at: Option<Millis>,
}

impl Meeting {
    /// A meeting without events, ready to be convened.
    pub fn new(id: MeetingId, timeouts: Timeouts) -> Self {
        Meeting {
            id,
            timeouts,
            seq: 0,
            head: None,
            terms: Terms::default(),
            summonses: Vec::new(),
            index: BTreeMap::new(),
            sites: Arc::default(),
            stage: Stage::default(),
            stage_version: 0,
            chair_requests: Vec::new(),
            taken_from: Vec::new(),
            locked: None,
            floor: Floor::default(),
            roll_call: None,
            placement: None,
            ended: None,
        }
    }

    /// The state after these events, from the first.
    pub fn replay<'a>(
        id: MeetingId,
        timeouts: Timeouts,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Self {
        let mut meeting = Meeting::new(id, timeouts);
        for event in events {
            meeting.apply(event);
        }
        meeting
    }

    /// The state as it was: after the events, each with its time, that the limit takes in.
    pub fn replay_until<'a>(
        id: MeetingId,
        timeouts: Timeouts,
        events: impl IntoIterator<Item = (Millis, &'a Event)>,
        until: Until,
    ) -> Self {
        let mut meeting = Meeting::new(id, timeouts);
        for (at, event) in events {
            let over = match until {
                Until::Time(time) => at > time,
                Until::Seq(seq) => meeting.seq >= seq,
            };
            if over {
                break;
            }
            meeting.apply(event);
        }
        meeting
    }

    pub fn id(&self) -> &MeetingId {
        &self.id
    }

    /// Number of the last event that went into this state; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Convened and not ended.
    pub fn is_live(&self) -> bool {
        self.head.is_some() && self.ended.is_none()
    }

    /// Empty before it is convened.
    pub fn title(&self) -> &str {
        self.head.as_ref().map_or("", |h| &h.title)
    }

    /// Who has the chair now; none before it is convened, as the next four.
    pub fn chair(&self) -> Option<&AccountName> {
        self.head.as_ref().map(|h| &h.chair)
    }

    pub fn convened_by(&self) -> Option<&AccountName> {
        self.head.as_ref().map(|h| &h.convened_by)
    }

    pub fn unit(&self) -> Option<&UnitId> {
        self.head.as_ref().map(|h| &h.unit)
    }

    pub fn started(&self) -> Option<Millis> {
        self.head.as_ref().map(|h| h.started)
    }

    pub fn idempotency_key(&self) -> Option<&str> {
        self.head.as_ref().map(|h| h.idempotency_key.as_str())
    }

    /// As convened; `ends_at` is kept up.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Who has requested the chair, first come first.
    pub fn chair_requests(&self) -> &[AccountName] {
        &self.chair_requests
    }

    /// All who could come to the chair, or have it: each once.
    pub fn chairs(&self) -> BTreeSet<&AccountName> {
        let known = self.chair().into_iter().chain(self.convened_by());
        known
            .chain(&self.chair_requests)
            .chain(&self.taken_from)
            .collect()
    }

    /// From whom the chair was taken over last, until it is handed back.
    pub fn taken_from(&self) -> Option<&AccountName> {
        self.taken_from.last()
    }

    pub fn is_locked(&self) -> bool {
        self.locked.is_some()
    }

    pub fn floor(&self) -> &Floor {
        &self.floor
    }

    /// The roll call that goes on, or the last one.
    pub fn roll_call(&self) -> Option<&RollCall> {
        self.roll_call.as_ref()
    }

    /// The relay that carries the meeting.
    pub fn placement(&self) -> Option<&Placement> {
        self.placement.as_ref()
    }

    /// When it ended, and why; none while it lasts.
    pub fn ended(&self) -> Option<(Millis, &str)> {
        self.ended.as_ref().map(|(at, reason)| (*at, reason.as_str()))
    }

    /// In calling order.
    pub fn summonses(&self) -> &[Summons] {
        &self.summonses
    }

    /// All sites, in calling order.
    pub fn sites(&self) -> &Arc<[SiteId]> {
        &self.sites
    }

    pub fn summons(&self, site: &str) -> Option<&Summons> {
        self.index.get(site).and_then(|at| self.summonses.get(*at))
    }

    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// As others see it that want one of its sites.
    pub fn holder(&self) -> Holder {
        Holder {
            meeting: self.id.clone(),
            title: self.title().to_owned(),
            priority: self.terms.priority,
        }
    }

    /// How many sites are on air.
    pub fn on_air(&self) -> usize {
        self.summonses
            .iter()
            .filter(|s| s.state == SummonsState::OnAir)
            .count()
    }

    /// The sites that "call the unconnected" means: all that are not on air.
    pub fn unconnected(&self) -> impl Iterator<Item = &SiteId> {
        self.summonses
            .iter()
            .filter(|s| s.state != SummonsState::OnAir)
            .map(|s| &s.site)
    }

    /// When [`Command::Tick`] is next due; none if nothing is waited for.
    pub fn next_deadline(&self) -> Option<Millis> {
        if !self.is_live() {
            return None;
        }
        let steps = self
            .summonses
            .iter()
            .filter_map(|s| s.deadline(&self.timeouts, self.terms.deadline))
            .min();
        let polling = self.stage.polling.as_ref();
        let page = polling.and_then(|polling| polling.due(&self.roster()));
        let answer = self.roll_call.as_ref().and_then(RollCall::due);
        [steps, page, answer, self.floor.due(), self.terms.ends_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the site's microphone is closed in effect: during a roll call every one but the called one's; else as
    /// the chair muted it, unless it has the floor.
    pub fn is_muted(&self, site: &str) -> bool {
        match self.roll_call.as_ref().filter(|roll_call| roll_call.is_on()) {
            Some(roll_call) => roll_call
                .called()
                .is_none_or(|called| called.site.as_str() != site),
            None => self.stage.muted.contains(site) && !self.floor.has(site),
        }
    }

    /// What relays are to obey now.
    pub fn stage_document(&self) -> StageDocument {
        let called = self.roll_call.as_ref().filter(|roll_call| roll_call.is_on());
        let muted: BTreeSet<&SiteId> = match called.map(RollCall::called) {
            Some(called) => {
                let called = called.map(|entry| &entry.site);
                let others = self.summonses.iter().map(|s| &s.site);
                others.filter(|site| Some(*site) != called).collect()
            }
            None => {
                let muted = self.stage.muted.iter();
                muted.filter(|site| !self.floor.has(site)).collect()
            }
        };
        StageDocument {
            meeting: self.id.clone(),
            version: self.stage_version,
            ended: self.ended.is_some(),
            broadcast: self.stage.broadcast.clone(),
            muted: muted.into_iter().cloned().collect(),
            chair: self.chair().map(AccountName::desk).unwrap_or_default(),
            expelled: self
                .summonses
                .iter()
                .filter(|s| s.is_out())
                .map(|s| s.site.clone())
                .collect(),
            placement: self.placement.clone(),
            voice_switching: self.stage.voice_switching,
            content: self.stage.content.clone(),
            locked: self.locked.is_some(),
            desks: self.locked.clone().unwrap_or_default(),
        }
    }

    /// What a person at the site must know; none if the site is not in the meeting now, or the meeting not live.
    pub fn notice(&self, site: &str) -> Option<Notice> {
        let summons = self.summons(site).filter(|_| self.is_live())?;
        if !summons.holds_claim() {
            return None;
        }
        let roll_call = self.roll_call.as_ref();
        let called = roll_call.and_then(RollCall::called);
        let called = called.filter(|entry| entry.site.as_str() == site && entry.acknowledged_by.is_empty());
        let request = self.floor.of(site);
        Some(Notice {
            roll_called: called.is_some(),
            answer_by: called.and(roll_call).and_then(RollCall::due),
            floor: request.map(|request| request.state),
            floor_place: self.floor.place(site).unwrap_or(0),
            floor_until: request.and_then(|request| request.until),
            muted: self.is_muted(site),
            locked: self.is_locked(),
            chair: self.chair()?.clone(),
            ends_at: self.terms.ends_at,
        })
    }

    /// Whether the site may be given a ticket. `claimed_by` is the live meeting that has the site now, if any.
    /// A site that declined or hung up may come back by itself; one that the chair took out may not.
    pub fn may_join(&self, site: &SiteId, claimed_by: Option<&MeetingId>) -> Result<(), Refusal> {
        self.require_live()?;
        let summons = self.member(site)?;
        let other = claimed_by.filter(|m| *m != &self.id);
        let believed = summons.other.as_ref().map(|other| &other.meeting);
        if let Some(other) = other.or(believed) {
            return Err(Refusal::InOtherMeeting {
                site: site.clone(),
                meeting: other.clone(),
            });
        }
        if summons.is_out() {
            return Err(Refusal::HungUp(site.clone()));
        }
        Ok(())
    }

    /// Whether a person's own console may be given a ticket: while the meeting is locked the chair's, and those that
    /// were in.
    pub fn may_join_as_desk(&self, account: &AccountName) -> Result<(), Refusal> {
        self.require_live()?;
        let desks = self.locked.as_ref();
        let shut = desks.is_some_and(|desks| !desks.contains(account));
        if shut && self.chair() != Some(account) {
            return Err(Refusal::Locked);
        }
        Ok(())
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            meeting: &self.id,
            priority: self.terms.priority,
        }
    }

    fn roster(&self) -> Vec<(&SiteId, bool)> {
        let member = |s: &'_ Summons| s.state == SummonsState::OnAir;
        self.summonses.iter().map(|s| (&s.site, member(s))).collect()
    }

    fn member(&self, site: &SiteId) -> Result<&Summons, Refusal> {
        self.summons(site)
            .ok_or_else(|| Refusal::NotInMeeting(site.clone()))
    }

    fn require_live(&self) -> Result<(), Refusal> {
        match (&self.head, &self.ended) {
            (None, _) => Err(Refusal::NotConvened),
            (_, Some(_)) => Err(Refusal::MeetingEnded),
            _ => Ok(()),
        }
    }
}
