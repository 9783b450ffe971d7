//! The administration of one unit as a stream of numbered events: what is prepared there, who may do what, how its
//! sites answer, which drills were held, and which files, accounts and secrets were put in place.
//!
//! [`Administration::decide`] gives the events that follow from an order or a refusal, and changes nothing;
//! [`Administration::apply`] takes one event in, and replay of a stream gives exactly the state it had. Who may order
//! what is settled before, by [`crate::authority`]. Passwords and secrets never come here.

mod decide;
mod drill;
mod plan;
mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::authority::Grant;
use crate::ids::{AccountName, Millis, PlanId, SiteId, UnitId};
use crate::words::{Answer, Role};

pub use decide::{LATE_MS, MAX_PLANS};
pub use drill::{Check, DRILL_MS, Drill, DrillResult};
pub use plan::{DAY_MS, Outcome, Preset, Repeat, Schedule};
pub use report::{MAX_REPORT, ReportKind, SiteReport};

/// Drills of a unit that are kept; the oldest goes when another begins.
pub const MAX_DRILLS: usize = 200;

/// What can be asked of a unit's administration, or has been done there.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Adds a preset (`is_new`), or changes the one of this id.
    SavePreset {
        id: PlanId,
        is_new: bool,
        preset: Preset,
    },
    DeletePreset {
        id: PlanId,
    },
    /// Adds a schedule (`is_new`), or changes the one of this id; what came of its last time stays.
    SaveSchedule {
        id: PlanId,
        is_new: bool,
        schedule: Schedule,
    },
    DeleteSchedule {
        id: PlanId,
    },
    /// The schedule's time `due` was carried out: it moves on to the next one.
    Carried {
        id: PlanId,
        due: Millis,
        outcome: Outcome,
    },
    StartDrill {
        id: PlanId,
        sites: Vec<SiteId>,
    },
    EndDrill {
        id: PlanId,
        drill: Drill,
    },
    SetAnswer {
        sites: Vec<SiteId>,
        answer: Answer,
    },
    Grant {
        account: AccountName,
        grant: Grant,
    },
    Revoke {
        account: AccountName,
        role: Role,
    },
    /// Something that was done and is only recorded.
    Record(Record),
}

/// What has been done: the stream of a unit is made of these.
#[derive(Clone, Debug, PartialEq)]
pub enum UnitEvent {
    PresetSaved { id: PlanId, preset: Preset },
    PresetDeleted { id: PlanId },
    ScheduleSaved { id: PlanId, schedule: Schedule },
    ScheduleDeleted { id: PlanId },
    DrillStarted { id: PlanId, sites: Vec<SiteId> },
    DrillEnded { id: PlanId, drill: Drill },
    AnswerSet { sites: Vec<SiteId>, answer: Answer },
    Granted { account: AccountName, grant: Grant },
    Revoked { account: AccountName, role: Role },
    Recorded(Record),
}

/// What is kept for the log alone: it changes nothing that is decided here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Imported {
        units_added: usize,
        units_changed: usize,
        sites_added: usize,
        sites_changed: usize,
        /// SHA-256 of the file, hexadecimal.
        sha256: String,
    },
    AccountPut {
        account: AccountName,
        new_password: bool,
    },
    SessionsRevoked {
        account: AccountName,
        sessions: usize,
    },
    /// `agent:SITE`, `relay:UNIT` or `site_link:SITE`.
    SecretMade {
        identity: String,
        expires: Millis,
    },
    SecretUsed {
        identity: String,
    },
    /// A site of the unit reports something (上报).
    Reported(SiteReport),
}

/// The state of one unit's administration.
#[derive(Clone, Debug, PartialEq)]
pub struct Administration {
    unit: UnitId,
    seq: u64,
    presets: BTreeMap<PlanId, Preset>,
    schedules: BTreeMap<PlanId, Schedule>,
    /// Oldest first; the sites of those that have not ended.
    drills: VecDeque<(PlanId, Option<Vec<SiteId>>)>,
    /// Of sites for which one was set.
    answers: BTreeMap<SiteId, Answer>,
    grants: BTreeMap<(AccountName, Role), Grant>,
    /// Links that were given out and not used yet, by identity.
    fresh_links: BTreeSet<String>,
}

/// The beginning of the identity of a site link.
pub const LINK: &str = "site_link:";

fn is_link(identity: &str) -> bool {
    identity.starts_with(LINK)
}

impl Administration {
    /// One in which nothing was done yet.
    pub fn new(unit: UnitId) -> Self {
        Administration {
            unit,
            seq: 0,
            presets: BTreeMap::new(),
            schedules: BTreeMap::new(),
            drills: VecDeque::new(),
            answers: BTreeMap::new(),
            grants: BTreeMap::new(),
            fresh_links: BTreeSet::new(),
        }
    }

    /// The state after these events, from the first.
    pub fn replay<'a>(unit: UnitId, events: impl IntoIterator<Item = &'a UnitEvent>) -> Self {
        let mut state = Administration::new(unit);
        for event in events {
            state.apply(event);
        }
        state
    }

    /// Takes in the next event of the stream; its number is [`Administration::seq`] afterwards.
    pub fn apply(&mut self, event: &UnitEvent) {
        self.seq += 1;
        match event {
            UnitEvent::PresetSaved { id, preset } => {
                self.presets.insert(id.clone(), preset.clone());
            }
            UnitEvent::PresetDeleted { id } => {
                self.presets.remove(id);
            }
            UnitEvent::ScheduleSaved { id, schedule } => {
                self.schedules.insert(id.clone(), schedule.clone());
            }
            UnitEvent::ScheduleDeleted { id } => {
                self.schedules.remove(id);
            }
            UnitEvent::DrillStarted { id, sites } => {
                self.drills.push_back((id.clone(), Some(sites.clone())));
                while self.drills.len() > MAX_DRILLS {
                    self.drills.pop_front();
                }
            }
            UnitEvent::DrillEnded { id, .. } => {
                if let Some((_, sites)) = self.drills.iter_mut().find(|(known, _)| known == id) {
                    *sites = None;
                }
            }
            UnitEvent::AnswerSet { sites, answer } => {
                for site in sites {
                    self.answers.insert(site.clone(), *answer);
                }
            }
            UnitEvent::Granted { account, grant } => {
                self.grants.insert((account.clone(), grant.role), grant.clone());
            }
            UnitEvent::Revoked { account, role } => {
                self.grants.remove(&(account.clone(), *role));
            }
            UnitEvent::Recorded(Record::SecretMade { identity, .. }) if is_link(identity) => {
                self.fresh_links.insert(identity.clone());
            }
            UnitEvent::Recorded(Record::SecretUsed { identity }) => {
                self.fresh_links.remove(identity);
            }
            UnitEvent::Recorded(_) => {}
        }
    }

    pub fn unit(&self) -> &UnitId {
        &self.unit
    }

    /// Number of the last event that went into this state; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    pub fn presets(&self) -> impl Iterator<Item = (&PlanId, &Preset)> {
        self.presets.iter()
    }

    pub fn preset(&self, id: &str) -> Option<&Preset> {
        self.presets.get(id)
    }

    pub fn schedules(&self) -> impl Iterator<Item = (&PlanId, &Schedule)> {
        self.schedules.iter()
    }

    pub fn schedule(&self, id: &str) -> Option<&Schedule> {
        self.schedules.get(id)
    }

    /// How the sites answer for which that was set here.
    pub fn answers(&self) -> impl Iterator<Item = (&SiteId, Answer)> {
        self.answers.iter().map(|(site, answer)| (site, *answer))
    }

    /// The roles that were given here and not taken away; some may have run out.
    pub fn grants(&self) -> impl Iterator<Item = (&AccountName, &Grant)> {
        self.grants.iter().map(|((account, _), grant)| (account, grant))
    }

    /// Whether the drill began here, and if so whether it has ended.
    pub fn drill(&self, id: &str) -> Option<bool> {
        let found = self.drills.iter().find(|(known, _)| known.as_str() == id);
        found.map(|(_, sites)| sites.is_none())
    }

    /// The sites of a drill that has not ended.
    pub fn drill_sites(&self, id: &str) -> Option<&[SiteId]> {
        let found = self.drills.iter().find(|(known, _)| known.as_str() == id);
        found.and_then(|(_, sites)| sites.as_deref())
    }

    /// The drill that is forgotten when another begins.
    pub fn outdated_drill(&self) -> Option<&PlanId> {
        let is_full = self.drills.len() >= MAX_DRILLS;
        self.drills.front().filter(|_| is_full).map(|(id, _)| id)
    }
}
