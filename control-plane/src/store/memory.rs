//! The back end of tests in virtual time: maps behind one lock, with the same answers as SQL.
//!
//! Several replicas may share one. [`Faults`] say how long it takes and when it is away, also after it has committed:
//! then nobody knows. Nothing here outlives the process.

mod accounts;
mod directory;
mod log;
mod plans;
mod reports;
mod secrets;

use super::log::{OWN, chained};
use super::*;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong. The default: nothing.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Time that each call takes, before it is carried out and before it answers.
    pub latency: Duration,
    /// Every call fails.
    pub away: bool,
    /// So many of the next appends are carried out and then fail.
    pub lost_answers: u32,
    /// No call is answered any more, nor begun: whoever has this connection is dead.
    pub dead: bool,
}

struct Meeting {
    row: MeetingRow,
    ended: Option<EndedRow>,
    damaged: Option<String>,
    /// Of the meetings in the order of their beginnings, from 1.
    number: u64,
}

#[derive(Default)]
struct State {
    units: Vec<UnitRow>,
    sites: Vec<SiteRow>,
    seen: BTreeMap<String, SeenRow>,
    accounts: BTreeMap<String, (AccountRow, String)>,
    sessions: BTreeMap<String, SessionRow>,
    audit: Vec<(String, AuditRow)>,
    enrol: BTreeMap<String, EnrolRow>,
    links: BTreeMap<String, (String, i64)>,
    meetings: BTreeMap<String, Meeting>,
    streams: BTreeMap<String, Vec<StoredEvent>>,
    heads: BTreeMap<String, ChainHead>,
    claims: BTreeMap<String, (String, i64)>,
    presets: BTreeMap<String, PresetRow>,
    schedules: BTreeMap<String, ScheduleRow>,
    drills: BTreeMap<String, DrillRow>,
    reports: BTreeMap<(String, String), ReportRow>,
    /// The stream and the last number of each append, in the order of their commits.
    appended: Vec<(String, u64)>,
}

/// A database in memory, or one of several connections to it.
#[derive(Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    faults: Mutex<Faults>,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Another connection to the same database, with faults of its own: so far none.
    pub fn connect(&self) -> Arc<Self> {
        Arc::new(Self {
            state: self.state.clone(),
            faults: Mutex::default(),
        })
    }

    pub fn set_faults(&self, faults: Faults) {
        *self.faults() = faults;
    }

    /// The stream and the last number of each append to a meeting, in the order of their commits.
    pub fn appended(&self) -> Vec<(String, u64)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.appended.clone()
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the time of the way to the database, or back.
    async fn travel(&self) {
        let latency = self.faults().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if self.faults().dead {
            std::future::pending::<()>().await;
        }
    }

    async fn enter(&self) -> Result<MutexGuard<'_, State>> {
        self.travel().await;
        if self.faults().away {
            return Err(StoreError::Unavailable("it is told to be away".into()));
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn leave<T>(&self, result: Result<T>) -> Result<T> {
        let lost = {
            let mut faults = self.faults();
            let lost = faults.lost_answers > 0;
            faults.lost_answers = faults.lost_answers.saturating_sub(1);
            lost
        };
        self.travel().await;
        if lost {
            return Err(StoreError::Unavailable("the answer is told to be lost".into()));
        }
        result
    }
}

fn conflict<T>(what: impl Into<String>) -> Result<T> {
    Err(StoreError::Conflict(what.into()))
}

impl State {
    fn head(&self, stream: &str) -> ChainHead {
        let last = self.streams.get(stream).and_then(|events| events.last());
        last.map_or_else(ChainHead::default, |event| ChainHead {
            seq: event.seq,
            hash: event.hash,
        })
    }

    /// Events that may follow, and the head after them.
    fn chain(
        &self,
        stream: &str,
        head: ChainHead,
        events: &[NewEvent],
    ) -> Result<(ChainHead, Vec<StoredEvent>)> {
        let (after, rows) = chained(head, events)?;
        if !events.is_empty() && self.head(stream) != head {
            return conflict("another event has this number");
        }
        let stored = rows.into_iter().map(|(event, hash)| StoredEvent {
            seq: event.seq,
            payload: event.payload.clone(),
            hash,
        });
        Ok((after, stored.collect()))
    }

    fn extend(&mut self, stream: &str, events: Vec<StoredEvent>, head: ChainHead) {
        if !events.is_empty() {
            self.streams.entry(stream.to_owned()).or_default().extend(events);
            self.heads.insert(stream.to_owned(), head);
            self.appended.push((stream.to_owned(), head.seq));
        }
    }

    fn append(&mut self, append: &Append) -> Result<ChainHead> {
        let (head, events) = self.chain(&append.meeting, append.head, &append.events)?;
        if let Some(row) = &append.convened {
            let same_key = |other: &Meeting| {
                row.idempotency_key.is_some()
                    && (&other.row.chair, &other.row.idempotency_key) == (&row.chair, &row.idempotency_key)
            };
            if self.meetings.contains_key(&row.id) || self.meetings.values().any(same_key) {
                return conflict("a meeting of this key is there");
            }
        }
        let released: BTreeSet<&String> = append.released.iter().collect();
        for (site, priority) in &append.claims {
            let held = self.claims.get(site);
            let free = held.is_none_or(|(meeting, held)| *meeting == append.meeting || held < priority);
            if !free {
                return conflict("a site belongs to another meeting");
            }
        }
        let own = |site: &String| self.claims.get(site).is_some_and(|(by, _)| *by == append.meeting);
        if append.lost.iter().any(own) {
            return conflict(OWN);
        }
        if let Some(row) = &append.convened {
            let meeting = Meeting {
                row: row.clone(),
                ended: None,
                damaged: None,
                number: self.meetings.len() as u64 + 1,
            };
            self.meetings.insert(row.id.clone(), meeting);
        }
        self.claims
            .retain(|site, (meeting, _)| *meeting != append.meeting || !released.contains(site));
        for (site, priority) in &append.claims {
            self.claims
                .insert(site.clone(), (append.meeting.clone(), *priority));
        }
        self.extend(&append.meeting, events, head);
        if let (Some(ended), Some(meeting)) = (&append.ended, self.meetings.get_mut(&append.meeting)) {
            meeting.ended = Some(ended.clone());
        }
        Ok(head)
    }

    fn check(&self, effect: &UnitEffect) -> Result<()> {
        match effect {
            UnitEffect::MoveSchedule { row, from_ms } => match self.schedules.get(&row.id) {
                Some(found) if found.next_ms == *from_ms => Ok(()),
                _ => conflict("the schedule was changed meanwhile"),
            },
            UnitEffect::PutAccount {
                name,
                password_hash: None,
                ..
            } if !self.accounts.contains_key(name) => conflict(format!("there is no account {name:?}")),
            UnitEffect::AddEnrolToken { hash, .. } if self.enrol.contains_key(hash) => {
                conflict("there is such a token")
            }
            UnitEffect::AddReport(row) if self.reports.contains_key(&(row.site.clone(), row.id.clone())) => {
                conflict("there is such a report")
            }
            _ => Ok(()),
        }
    }

    fn carry_out(&mut self, effect: UnitEffect) {
        match effect {
            UnitEffect::PutPreset(row) => drop(self.presets.insert(row.id.clone(), row)),
            UnitEffect::DeletePreset(id) => drop(self.presets.remove(&id)),
            UnitEffect::PutSchedule(row) | UnitEffect::MoveSchedule { row, .. } => {
                self.schedules.insert(row.id.clone(), row);
            }
            UnitEffect::DeleteSchedule(id) => drop(self.schedules.remove(&id)),
            UnitEffect::PutDrill(row) => drop(self.drills.insert(row.id.clone(), row)),
            UnitEffect::DeleteDrill(id) => drop(self.drills.remove(&id)),
            UnitEffect::AddReport(row) => {
                self.reports.insert((row.site.clone(), row.id.clone()), row);
            }
            UnitEffect::PutAccount {
                name,
                display_name,
                password_hash,
                ..
            } => self.change_account(name, display_name, password_hash),
            UnitEffect::PutGrant { account, grant } => {
                if let Some((row, _)) = self.accounts.get_mut(&account) {
                    row.grants
                        .retain(|old| (old.role, &old.unit) != (grant.role, &grant.unit));
                    row.grants.push(grant);
                    row.grants
                        .sort_by(|a, b| (a.role, &a.unit).cmp(&(b.role, &b.unit)));
                }
            }
            UnitEffect::DeleteGrant { account, role, unit } => {
                if let Some((row, _)) = self.accounts.get_mut(&account) {
                    row.grants.retain(|old| (old.role, &old.unit) != (role, &unit));
                }
            }
            UnitEffect::RevokeSessions { account, only, keep } => self.sessions.retain(|_, session| {
                session.account != account
                    || only.as_ref().is_some_and(|only| *only != session.id)
                    || keep.as_ref() == Some(&session.id)
            }),
            UnitEffect::AddEnrolToken {
                hash,
                identity,
                expires_ms,
                ..
            } => {
                let row = EnrolRow {
                    identity,
                    expires_ms,
                    used: false,
                };
                self.enrol.insert(hash, row);
            }
            UnitEffect::AddSiteLink {
                hash,
                site,
                now_ms,
                expires_ms,
                ..
            } => {
                self.links.retain(|_, (_, expires_ms)| *expires_ms > now_ms);
                self.links.insert(hash, (site, expires_ms));
            }
            UnitEffect::PutDirectory { units, sites } => self.put_directory(&units, &sites),
            UnitEffect::SetAnswer { sites, answer } => {
                let named: BTreeSet<String> = sites.into_iter().collect();
                for site in self.sites.iter_mut().filter(|site| named.contains(&site.id)) {
                    site.answer = answer;
                }
            }
        }
    }

    fn put_directory(&mut self, units: &[UnitRow], sites: &[SiteRow]) {
        for unit in units {
            match self.units.iter_mut().find(|old| old.id == unit.id) {
                Some(old) => *old = unit.clone(),
                None => self.units.push(unit.clone()),
            }
        }
        for site in sites {
            match self.sites.iter_mut().find(|old| old.id == site.id) {
                Some(old) => {
                    *old = SiteRow {
                        answer: old.answer,
                        ..site.clone()
                    };
                }
                None => self.sites.push(site.clone()),
            }
        }
    }

    fn change_account(&mut self, name: String, display_name: String, password_hash: Option<String>) {
        if let Some(hash) = password_hash {
            self.sessions.retain(|_, session| session.account != name);
            let row = AccountRow {
                name: name.clone(),
                display_name: display_name.clone(),
                grants: Vec::new(),
            };
            self.accounts
                .entry(name.clone())
                .or_insert((row, String::new()))
                .1 = hash;
        }
        if let Some((row, _)) = self.accounts.get_mut(&name) {
            row.display_name = display_name;
        }
    }
}

#[async_trait]
impl Backend for Memory {
    async fn ping(&self) -> Result<()> {
        self.enter().await.map(|_| ())
    }

    async fn close(&self) {}

    fn kind(&self) -> &'static str {
        "memory"
    }
}
