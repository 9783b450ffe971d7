//! The back end of tests in virtual time: maps behind one lock, with the same answers as SQL.
//!
//! Several replicas may share one. [`Faults`] say how long it takes and when it is away, also after it has committed:
//! then nobody knows. Nothing here outlives the process.

mod reports;

use super::accounts::AUDIT_ROWS;
use super::log::chained;
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

#[async_trait]
impl LogStore for Memory {
    async fn append(&self, append: &Append) -> Result<ChainHead> {
        let result = self.enter().await?.append(append);
        self.leave(result).await
    }

    async fn events_page(&self, stream: &str, seq: u64, limit: i64) -> Result<Vec<StoredEvent>> {
        let state = self.enter().await?;
        let events = state.streams.get(stream).into_iter().flatten();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(events
            .filter(|event| event.seq > seq)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn head(&self, stream: &str) -> Result<ChainHead> {
        Ok(self.enter().await?.head(stream))
    }

    async fn streams(&self) -> Result<Vec<String>> {
        let state = self.enter().await?;
        let names = state
            .streams
            .keys()
            .chain(state.heads.keys())
            .chain(state.meetings.keys());
        Ok(names.cloned().collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn kept_head(&self, stream: &str) -> Result<Option<ChainHead>> {
        Ok(self.enter().await?.heads.get(stream).copied())
    }

    async fn kept_meeting(&self, meeting: &str) -> Result<Option<KeptMeeting>> {
        let state = self.enter().await?;
        Ok(state.meetings.get(meeting).map(|kept| KeptMeeting {
            title: kept.row.title.clone(),
            unit: kept.row.unit.clone(),
            chair: kept.row.chair.clone(),
            started_ms: kept.row.started_ms,
            ended_ms: kept.ended.as_ref().map(|ended| ended.ended_ms),
            final_state: kept.ended.as_ref().map(|ended| ended.final_state.clone()),
            damaged: kept.damaged.clone(),
        }))
    }

    async fn meetings_begun(&self, after: u64, limit: i64) -> Result<Vec<(u64, String)>> {
        let state = self.enter().await?;
        let numbers = state.meetings.iter().map(|(id, kept)| (kept.number, id.clone()));
        let mut begun: Vec<_> = numbers.filter(|(number, _)| *number > after).collect();
        begun.sort();
        begun.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(begun)
    }

    async fn meeting_number(&self, meeting: &str) -> Result<Option<u64>> {
        Ok(self.enter().await?.meetings.get(meeting).map(|kept| kept.number))
    }

    async fn last_meeting(&self) -> Result<u64> {
        Ok(self.enter().await?.meetings.len() as u64)
    }

    async fn quarantine(&self, meeting: &str, reason: &str) -> Result<()> {
        let mut state = self.enter().await?;
        if let Some(kept) = state.meetings.get_mut(meeting) {
            kept.damaged.get_or_insert_with(|| reason.to_owned());
        }
        state.claims.retain(|_, (held_by, _)| held_by != meeting);
        Ok(())
    }

    async fn damaged_meetings(&self, limit: i64) -> Result<Vec<DamagedMeeting>> {
        let state = self.enter().await?;
        let damaged = |meeting: &Meeting| {
            Some(DamagedMeeting {
                id: meeting.row.id.clone(),
                title: meeting.row.title.clone(),
                unit: meeting.row.unit.clone(),
                chair: meeting.row.chair.clone(),
                started_ms: meeting.row.started_ms,
                reason: meeting.damaged.clone()?,
            })
        };
        let mut rows: Vec<_> = state.meetings.values().filter_map(damaged).collect();
        rows.sort_by(|a, b| (b.started_ms, &a.id).cmp(&(a.started_ms, &b.id)));
        rows.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(rows)
    }

    async fn live_heads(&self) -> Result<Vec<LiveHead>> {
        let state = self.enter().await?;
        let mut live: Vec<&Meeting> = state
            .meetings
            .values()
            .filter(|m| m.ended.is_none() && m.damaged.is_none())
            .collect();
        live.sort_by(|a, b| (a.row.started_ms, &a.row.id).cmp(&(b.row.started_ms, &b.row.id)));
        let heads = live.into_iter().map(|meeting| LiveHead {
            meeting: meeting.row.id.clone(),
            seq: state.head(&meeting.row.id).seq,
        });
        Ok(heads.collect())
    }

    async fn ended_meetings(&self, offset: i64, limit: i64) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        let state = self.enter().await?;
        let mut ended: Vec<(i64, &String, &EndedRow)> = state
            .meetings
            .values()
            .filter_map(|meeting| Some((-meeting.row.started_ms, &meeting.row.id, meeting.ended.as_ref()?)))
            .collect();
        ended.sort_by_key(|(started, id, _)| (*started, *id));
        let limit = usize::try_from(limit).unwrap_or_default();
        Ok(ended
            .into_iter()
            .skip(usize::try_from(offset).unwrap_or_default())
            .take(limit)
            .map(|(_, id, ended)| (id.clone(), Some(ended.final_state.clone())))
            .collect())
    }

    async fn final_state(&self, meeting: &str) -> Result<Option<Vec<u8>>> {
        let state = self.enter().await?;
        let ended = state
            .meetings
            .get(meeting)
            .and_then(|meeting| meeting.ended.as_ref());
        Ok(ended.map(|ended| ended.final_state.clone()))
    }

    async fn meeting_by_key(&self, chair: &str, key: &str) -> Result<Option<String>> {
        let state = self.enter().await?;
        let found = state.meetings.values().find(|meeting| {
            meeting.row.chair == chair && meeting.row.idempotency_key.as_deref() == Some(key)
        });
        Ok(found.map(|meeting| meeting.row.id.clone()))
    }

    async fn claims(&self) -> Result<Vec<Claim>> {
        let state = self.enter().await?;
        let claims = state.claims.iter().map(|(site, (meeting, priority))| Claim {
            site: site.clone(),
            meeting: meeting.clone(),
            priority: *priority,
        });
        Ok(claims.collect())
    }
}

#[async_trait]
impl PlanStore for Memory {
    async fn append_unit(&self, append: &UnitAppend) -> Result<ChainHead> {
        let result = {
            let mut state = self.enter().await?;
            let chained = state.chain(&append.stream, append.head, &append.events);
            let checked = append.effects.iter().try_for_each(|effect| state.check(effect));
            match (chained, checked) {
                (Ok((head, events)), Ok(())) => {
                    state.extend(&append.stream, events, head);
                    for (done, effect) in (1..).zip(append.effects.clone()) {
                        state.carry_out(effect);
                        if let Some(progress) = &append.progress {
                            progress.send_replace(done);
                        }
                    }
                    Ok(head)
                }
                (Err(error), _) | (_, Err(error)) => Err(error),
            }
        };
        self.leave(result).await
    }

    async fn presets(&self) -> Result<Vec<PresetRow>> {
        Ok(self.enter().await?.presets.values().cloned().collect())
    }

    async fn preset(&self, id: &str) -> Result<Option<PresetRow>> {
        Ok(self.enter().await?.presets.get(id).cloned())
    }

    async fn schedules(&self) -> Result<Vec<ScheduleRow>> {
        Ok(self.enter().await?.schedules.values().cloned().collect())
    }

    async fn schedule(&self, id: &str) -> Result<Option<ScheduleRow>> {
        Ok(self.enter().await?.schedules.get(id).cloned())
    }

    async fn due_schedules(&self, now_ms: i64) -> Result<Vec<ScheduleRow>> {
        let state = self.enter().await?;
        let due = |row: &&ScheduleRow| row.next_ms > 0 && row.next_ms <= now_ms;
        let mut rows: Vec<_> = state.schedules.values().filter(due).cloned().collect();
        rows.sort_by(|a, b| (a.next_ms, &a.id).cmp(&(b.next_ms, &b.id)));
        Ok(rows)
    }

    async fn drills(&self, limit: i64) -> Result<Vec<DrillRow>> {
        let mut rows: Vec<_> = self.enter().await?.drills.values().cloned().collect();
        rows.sort_by(|a, b| (b.started_ms, &a.id).cmp(&(a.started_ms, &b.id)));
        rows.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(rows)
    }

    async fn drill(&self, id: &str) -> Result<Option<DrillRow>> {
        Ok(self.enter().await?.drills.get(id).cloned())
    }
}

#[async_trait]
impl AccountStore for Memory {
    async fn password_hash(&self, account: &str) -> Result<Option<String>> {
        let state = self.enter().await?;
        Ok(state.accounts.get(account).map(|(_, hash)| hash.clone()))
    }

    async fn account(&self, name: &str) -> Result<Option<AccountRow>> {
        let state = self.enter().await?;
        Ok(state.accounts.get(name).map(|(row, _)| row.clone()))
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>> {
        let state = self.enter().await?;
        Ok(state.accounts.values().map(|(row, _)| row.clone()).collect())
    }

    async fn add_session(&self, token_hash: &str, account: &str, now_ms: i64, expires_ms: i64) -> Result<()> {
        let mut state = self.enter().await?;
        state.sessions.retain(|_, session| session.expires_ms > now_ms);
        let row = SessionRow {
            id: session_id(token_hash).into(),
            account: account.into(),
            created_ms: now_ms,
            expires_ms,
        };
        match state.sessions.insert(token_hash.into(), row) {
            None => Ok(()),
            Some(_) => conflict("there is such a session"),
        }
    }

    async fn session(&self, token_hash: &str) -> Result<Option<(String, i64)>> {
        let state = self.enter().await?;
        let session = state.sessions.get(token_hash);
        Ok(session.map(|session| (session.account.clone(), session.expires_ms)))
    }

    async fn sessions(&self, account: &str) -> Result<Vec<SessionRow>> {
        let state = self.enter().await?;
        let of = state.sessions.values().filter(|s| s.account == account);
        let mut rows: Vec<_> = of.cloned().collect();
        rows.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        Ok(rows)
    }

    async fn extend_session(&self, token_hash: &str, expires_ms: i64) -> Result<()> {
        if let Some(session) = self.enter().await?.sessions.get_mut(token_hash) {
            session.expires_ms = expires_ms;
        }
        Ok(())
    }

    async fn remove_session(&self, token_hash: &str) -> Result<()> {
        self.enter().await?.sessions.remove(token_hash);
        Ok(())
    }

    async fn audit(&self, id: &str, row: &AuditRow) -> Result<()> {
        let mut state = self.enter().await?;
        state.audit.push((id.into(), row.clone()));
        state
            .audit
            .sort_by(|(a, left), (b, right)| (right.at_ms, a).cmp(&(left.at_ms, b)));
        state
            .audit
            .truncate(usize::try_from(AUDIT_ROWS).unwrap_or_default());
        Ok(())
    }

    async fn audit_rows(&self, limit: i64) -> Result<Vec<AuditRow>> {
        let state = self.enter().await?;
        let limit = usize::try_from(limit).unwrap_or_default();
        Ok(state
            .audit
            .iter()
            .take(limit)
            .map(|(_, row)| row.clone())
            .collect())
    }
}

#[async_trait]
impl DirectoryStore for Memory {
    async fn units(&self) -> Result<Vec<UnitRow>> {
        Ok(self.enter().await?.units.clone())
    }

    async fn each_site(&self, take: &mut (dyn FnMut(SiteRow) -> Result<()> + Send)) -> Result<()> {
        self.enter().await?.sites.iter().cloned().try_for_each(take)
    }

    async fn put_directory(&self, units: &[UnitRow], sites: &[SiteRow]) -> Result<()> {
        self.enter().await?.put_directory(units, sites);
        Ok(())
    }

    async fn seen(&self) -> Result<Vec<SeenRow>> {
        Ok(self.enter().await?.seen.values().cloned().collect())
    }

    async fn put_seen(&self, rows: &[SeenRow]) -> Result<()> {
        let mut state = self.enter().await?;
        let known: BTreeSet<String> = state.sites.iter().map(|site| site.id.clone()).collect();
        for row in rows.iter().filter(|row| known.contains(&row.site)) {
            state.seen.insert(row.site.clone(), row.clone());
        }
        Ok(())
    }
}

#[async_trait]
impl SecretStore for Memory {
    async fn enrol_token(&self, hash: &str) -> Result<Option<EnrolRow>> {
        Ok(self.enter().await?.enrol.get(hash).cloned())
    }

    async fn use_enrol_token(&self, hash: &str, _fingerprint: &str, now_ms: i64) -> Result<bool> {
        let mut state = self.enter().await?;
        let token = state.enrol.get_mut(hash);
        let Some(token) = token.filter(|token| !token.used && token.expires_ms > now_ms) else {
            return Ok(false);
        };
        token.used = true;
        Ok(true)
    }

    async fn site_link(&self, hash: &str) -> Result<Option<(String, i64)>> {
        Ok(self.enter().await?.links.get(hash).cloned())
    }
}
