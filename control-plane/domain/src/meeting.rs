//! One meeting as a stream of numbered events.
//!
//! [`Meeting::decide`] (in `meeting/decide.rs`) looks at the state, a command and the time, and gives the
//! events that follow or a refusal; it changes nothing. [`Meeting::apply`] takes one event in; it alone
//! changes the state, so [`Meeting::replay`] of the stored events gives exactly the same. The first event of a
//! stream is `Convened` with seq 1, each further one counts up by one, and nothing follows `Ended`.
//!
//! Who said so, hashes, storage, relays and tokens are the shell's.

mod decide;

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{AccountName, MeetingId, Millis, SiteId, UnitId};
use crate::presence::Reach;
use crate::refusal::Refusal;
use crate::summons::{Invitee, LegEnd, Report, Summons, SummonsState, Timeouts};

/// The most sites in one meeting.
pub const MAX_SITES: usize = 10_000;
/// The longest title or reason, in characters.
pub const MAX_TEXT: usize = 200;

/// What can be asked of a meeting, or happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens the meeting and calls the sites. First command of all, and once.
    Convene {
        title: String,
        chair: AccountName,
        /// The unit over whose subtree it is convened.
        unit: UnitId,
        sites: Vec<Invitee>,
        idempotency_key: String,
    },
    /// Calls again those of these that are neither on air nor about to be. For all: [`Meeting::unconnected`].
    CallUnconnected { sites: Vec<Invitee> },
    /// Brings a site to the large picture for all, or (none) the chair's desk.
    Broadcast { site: Option<SiteId> },
    /// Mutes or unmutes sites; an empty list means all.
    Mute { sites: Vec<SiteId>, muted: bool },
    /// Ends the meeting, for everyone and for good.
    End { reason: String },
    /// An endpoint says how far it has come.
    Report { site: SiteId, report: Report },
    /// An endpoint of the site attached to the control plane.
    EndpointAttached { site: SiteId },
    /// The last endpoint of the site detached.
    EndpointDetached { site: SiteId },
    /// A relay has a leg of the site, without media so far.
    LegJoining { site: SiteId },
    /// A relay sees media of the site.
    LegOnAir { site: SiteId },
    /// A relay has received nothing of the site for over a second.
    LegSilent { site: SiteId },
    /// A relay no longer has the leg; `reach` is whether the endpoint is attached.
    LegEnded { site: SiteId, end: LegEnd, reach: Reach },
    /// There is no relay to send these sites to; an empty list means all that are under way.
    NoRelay { sites: Vec<SiteId> },
    /// Time has passed: steps that lasted too long come to their end.
    Tick,
}

/// What happened: the stream of a meeting is made of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Convened {
        at: Millis,
        title: String,
        chair: AccountName,
        unit: UnitId,
        /// In calling order; each has a `SummonsChanged` of its own after this.
        sites: Vec<SiteId>,
        idempotency_key: String,
    },
    /// The whole new state of one site's summons.
    SummonsChanged { summons: Summons },
    /// The whole new stage.
    StageChanged { stage: Stage },
    /// Nothing follows. Sites on air or under way are `Left` by this.
    Ended { at: Millis, reason: String },
}

/// What everyone is made to see, and who may be heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// On the large picture for all; none: the chair's desk.
    pub broadcast: Option<SiteId>,
    pub muted: BTreeSet<SiteId>,
}

/// What relays obey; the higher version wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageDocument {
    pub meeting: MeetingId,
    /// Seq of the last event that changed anything in this document.
    pub version: u64,
    pub ended: bool,
    pub broadcast: Option<SiteId>,
    pub muted: Vec<SiteId>,
    /// The chair's desk: `desk:ACCOUNT`.
    pub chair: String,
    /// Sites that belong to another meeting: a leg of theirs must go.
    pub expelled: Vec<SiteId>,
}

/// The state of one meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    id: MeetingId,
    timeouts: Timeouts,
    seq: u64,
    head: Option<Head>,
    /// In calling order.
    summonses: Vec<Summons>,
    index: BTreeMap<SiteId, usize>,
    stage: Stage,
    stage_version: u64,
    ended: Option<(Millis, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    title: String,
    chair: AccountName,
    unit: UnitId,
    started: Millis,
    idempotency_key: String,
}

impl Meeting {
    /// A meeting without events, ready to be convened.
    pub fn new(id: MeetingId, timeouts: Timeouts) -> Self {
        Meeting {
            id,
            timeouts,
            seq: 0,
            head: None,
            summonses: Vec::new(),
            index: BTreeMap::new(),
            stage: Stage::default(),
            stage_version: 0,
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

    /// Takes in the next event of the stream; its number is [`Meeting::seq`] afterwards. An event that cannot
    /// stand where it does (a site that is not in the meeting, anything after the end) is counted and
    /// otherwise ignored.
    pub fn apply(&mut self, event: &Event) {
        self.seq += 1;
        if self.ended.is_some() {
            return;
        }
        match event {
            Event::Convened {
                at,
                title,
                chair,
                unit,
                sites,
                idempotency_key,
            } => {
                if self.head.is_some() {
                    return;
                }
                self.head = Some(Head {
                    title: title.clone(),
                    chair: chair.clone(),
                    unit: unit.clone(),
                    started: *at,
                    idempotency_key: idempotency_key.clone(),
                });
                self.summonses = sites
                    .iter()
                    .map(|site| Summons::paged(site.clone(), *at))
                    .collect();
                self.index = sites
                    .iter()
                    .cloned()
                    .enumerate()
                    .map(|(at, site)| (site, at))
                    .collect();
                self.stage_version = self.seq;
            }
            Event::SummonsChanged { summons } => {
                let Some(entry) = self
                    .index
                    .get(&summons.site)
                    .and_then(|at| self.summonses.get_mut(*at))
                else {
                    return;
                };
                if entry.is_elsewhere() != summons.is_elsewhere() {
                    self.stage_version = self.seq;
                }
                *entry = summons.clone();
            }
            Event::StageChanged { stage } => {
                if self.head.is_none() {
                    return;
                }
                self.stage = stage.clone();
                self.stage_version = self.seq;
            }
            Event::Ended { at, reason } => {
                for summons in &mut self.summonses {
                    if let Some(over) = summons.meeting_ended(*at) {
                        *summons = over;
                    }
                }
                self.ended = Some((*at, reason.clone()));
                self.stage_version = self.seq;
            }
        }
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

    /// None before it is convened, as the next three.
    pub fn chair(&self) -> Option<&AccountName> {
        self.head.as_ref().map(|h| &h.chair)
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

    /// When it ended, and why; none while it lasts.
    pub fn ended(&self) -> Option<(Millis, &str)> {
        self.ended.as_ref().map(|(at, reason)| (*at, reason.as_str()))
    }

    /// In calling order.
    pub fn summonses(&self) -> &[Summons] {
        &self.summonses
    }

    pub fn summons(&self, site: &str) -> Option<&Summons> {
        self.index.get(site).and_then(|at| self.summonses.get(*at))
    }

    pub fn stage(&self) -> &Stage {
        &self.stage
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
        self.summonses
            .iter()
            .filter_map(|s| s.deadline(&self.timeouts))
            .min()
    }

    /// What relays are to obey now.
    pub fn stage_document(&self) -> StageDocument {
        StageDocument {
            meeting: self.id.clone(),
            version: self.stage_version,
            ended: self.ended.is_some(),
            broadcast: self.stage.broadcast.clone(),
            muted: self.stage.muted.iter().cloned().collect(),
            chair: self.chair().map(AccountName::desk).unwrap_or_default(),
            expelled: self
                .summonses
                .iter()
                .filter(|s| s.is_elsewhere())
                .map(|s| s.site.clone())
                .collect(),
        }
    }

    /// Whether the site may be given a ticket. `claimed_by` is the live meeting that has the site now, if any.
    /// A site that declined or hung up may come back by itself.
    pub fn may_join(&self, site: &SiteId, claimed_by: Option<&MeetingId>) -> Result<(), Refusal> {
        self.require_live()?;
        let summons = self
            .summons(site)
            .ok_or_else(|| Refusal::NotInMeeting(site.clone()))?;
        match claimed_by.filter(|m| *m != &self.id) {
            Some(other) => Err(Refusal::InOtherMeeting {
                site: site.clone(),
                meeting: other.clone(),
            }),
            None if summons.is_elsewhere() => match MeetingId::new(&summons.detail) {
                Ok(meeting) => Err(Refusal::InOtherMeeting {
                    site: site.clone(),
                    meeting,
                }),
                Err(_) => Err(Refusal::NotInMeeting(site.clone())),
            },
            None => Ok(()),
        }
    }

    fn require_live(&self) -> Result<(), Refusal> {
        match (&self.head, &self.ended) {
            (None, _) => Err(Refusal::NotConvened),
            (_, Some(_)) => Err(Refusal::MeetingEnded),
            _ => Ok(()),
        }
    }
}
