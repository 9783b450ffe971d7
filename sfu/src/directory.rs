//! What all workers of a relay know of its meetings: who has which leg where, what it publishes, and the stage.
//!
//! It is state, not a stream of messages: a worker that is told that a meeting changed reads it and does what the
//! difference asks for ([`Directory::look`]), so nothing queues up and nothing is lost. It is locked at the rate of joins,
//! leaves and stage changes, never for a packet. It is also where reports to the control plane are made.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use muster_forward::{LegId, SourceSpec};
use muster_identity::JoinClaims;
use muster_proto::command::v1::{LegReport, LegState, StageDocument};
use tokio::sync::Notify;

use crate::admission::Answered;
use crate::qualities::Qualities;
use crate::refusal::Refusal;
use crate::reports::Reports;
use crate::watch::now_ms;

pub(crate) use lookup::Found;
pub(crate) use relays::{Relayed, RelayedMeeting};

/// A meeting without legs and without stage is forgotten after this time.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// One that has ended, when every token for it has expired.
const FORGET_ENDED_AFTER: Duration = Duration::from_secs(180);
/// One with a stage that nobody ended: the control plane was lost, or lost its mind.
const FORGET_STAGED_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How long an answer is kept for one who asks again: longer than a leg waits for its first check.
const KEEP_ANSWER: Duration = Duration::from_secs(15);
/// Meetings that a relay knows of at once.
const MAX_MEETINGS: usize = 10_000;
/// Guests of a meeting that are remembered for a lock.
const MAX_BEEN: usize = 20_000;

/// Wakes a worker, and says for which meetings.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    wake: Notify,
    changed: Mutex<HashSet<Arc<str>>>,
}

impl Signal {
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub fn take_changed(&self) -> HashSet<Arc<str>> {
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mark(&self, meeting: &Arc<str>) {
        self.changed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(meeting.clone());
        self.wake();
    }
}

/// A leg that is to be entered.
pub(crate) struct NewLeg {
    pub id: LegId,
    /// How it is called outside: random.
    pub name: Arc<str>,
    pub meeting: Arc<str>,
    pub site: Arc<str>,
    pub worker: usize,
    /// SHA-256 of the leg's secret; empty for a link, which has its certificate.
    pub secret: String,
    pub sources: Vec<SourceSpec>,
}

struct LegRecord {
    name: Arc<str>,
    site: Arc<str>,
    worker: usize,
    secret: String,
    sources: Arc<[SourceSpec]>,
    state: LegState,
    since_ms: i64,
    ordered_out: Option<&'static str>,
    /// What its POST came to, and since when it is kept.
    answer: Option<(Instant, Arc<Answered>)>,
}

struct MeetingRecord {
    stage: Option<Arc<StageDocument>>,
    legs: HashMap<LegId, LegRecord>,
    /// By the id that stands for the other relay in this meeting.
    relays: HashMap<LegId, RelayedMeeting>,
    /// Everybody who has been in, while that is known: a relay that comes to a locked meeting does not know it, and
    /// lets in whom the control plane gives a ticket.
    been: Been,
    /// The meeting is placed at another relay.
    moved: bool,
    /// Whom the workers show where the stage follows the voice.
    speaker: Option<Arc<str>>,
    without_legs_since: Instant,
}

/// Who was in a meeting before it was locked.
enum Been {
    Open(HashSet<Arc<str>>),
    /// It was locked when this relay heard of it first, or has had too many guests to know them.
    Unknown,
}

#[derive(Default)]
struct Inner {
    meetings: HashMap<Arc<str>, MeetingRecord>,
    /// Leg name to its id, meeting.
    names: HashMap<Arc<str>, (LegId, Arc<str>)>,
    /// SHA-256 of the secret to the leg's name.
    secrets: HashMap<String, Arc<str>>,
}

pub(crate) struct Directory {
    inner: Mutex<Inner>,
    signals: Vec<Arc<Signal>>,
    legs: Vec<AtomicUsize>,
    /// Workers that run no more.
    ended: Vec<AtomicBool>,
    turn: AtomicUsize,
    next_id: AtomicU64,
    max_legs: usize,
    /// The relay's own id, as stage documents name it.
    relay: Arc<str>,
    pub reports: Reports,
    pub qualities: Qualities,
}

/// Of two stage documents of a meeting the greater counts: that of the later placement, and within one the later version.
pub(crate) fn order(stage: &StageDocument) -> (u64, u64) {
    (stage.epoch, stage.version)
}

impl Directory {
    pub fn new(signals: Vec<Arc<Signal>>, max_legs: usize, relay: String, reports: Reports) -> Self {
        let legs = signals.iter().map(|_| AtomicUsize::new(0)).collect();
        let ended = signals.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            inner: Mutex::default(),
            signals,
            legs,
            ended,
            turn: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            max_legs,
            relay: relay.into(),
            reports,
            qualities: Qualities::default(),
        }
    }

    /// The relay's own id.
    pub fn relay(&self) -> &Arc<str> {
        &self.relay
    }

    /// An id for a leg, source or slot, unique in the relay.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running worker with the fewest legs; among equals in turn.
    pub fn least_loaded(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let workers = self.legs.len();
        (0..workers)
            .map(|offset| (turn + offset) % workers)
            .filter(|&worker| !self.ended[worker].load(Ordering::Relaxed))
            .min_by_key(|&worker| self.legs[worker].load(Ordering::Relaxed))
            .unwrap_or(0)
    }

    /// A worker runs no more: nothing is placed on it, and the legs that it still had are reported as lost.
    pub fn worker_ended(&self, worker: usize) {
        self.ended[worker].store(true, Ordering::Relaxed);
        let mut lost: Vec<(Arc<str>, LegId)> = Vec::new();
        for (meeting, record) in &self.inner().meetings {
            let here = record.legs.iter().filter(|(_, leg)| leg.worker == worker);
            lost.extend(here.map(|(&id, _)| (meeting.clone(), id)));
        }
        if !lost.is_empty() {
            tracing::error!(worker, legs = lost.len(), "a worker ended and left legs behind");
        }
        for (meeting, id) in lost {
            self.leave(&meeting, id, "timed out");
        }
    }

    /// Workers that run no more.
    pub fn ended_workers(&self) -> usize {
        let ended = |worker: &&AtomicBool| worker.load(Ordering::Relaxed);
        self.ended.iter().filter(ended).count()
    }

    /// Meetings, legs and secrets that are known.
    pub fn sizes(&self) -> [(&'static str, usize); 3] {
        let inner = self.inner();
        [
            ("known_meetings", inner.meetings.len()),
            ("known_legs", inner.names.len()),
            ("secrets", inner.secrets.len()),
        ]
    }

    pub fn leg_count(&self) -> usize {
        self.legs.iter().map(|legs| legs.load(Ordering::Relaxed)).sum()
    }

    /// Whether claims may join now: the relay has room, the meeting goes on, the site was not taken out.
    pub fn may_join(&self, claims: &JoinClaims) -> Result<(), Refusal> {
        self.check(&self.inner(), &claims.meeting, &claims.site)
    }

    fn check(&self, inner: &Inner, meeting: &str, site: &str) -> Result<(), Refusal> {
        if self.leg_count() >= self.max_legs {
            return Err(Refusal::full("the relay has as many legs as it may"));
        }
        let Some(record) = inner.meetings.get(meeting) else {
            let room = inner.meetings.len() < MAX_MEETINGS;
            return if room {
                Ok(())
            } else {
                Err(Refusal::full("the relay has as many meetings as it may"))
            };
        };
        let Some(stage) = &record.stage else { return Ok(()) };
        if stage.ended {
            return Err(Refusal::new(410, "ended", "the meeting has ended"));
        }
        if record.moved {
            return Err(Refusal::new(
                409,
                "moved",
                "the meeting is at another relay now; ask for a new ticket",
            ));
        }
        if stage.expelled_sites.iter().any(|expelled| expelled == site) {
            return Err(Refusal::new(
                403,
                "expelled",
                "the site was taken out of the meeting",
            ));
        }
        if stage.locked && !record.has_been(site) {
            return Err(Refusal::new(
                403,
                "locked",
                "the meeting is locked, and the site was not in it before",
            ));
        }
        Ok(())
    }

    /// Enters a leg. An older leg of the same site is ordered out, and reported as replaced.
    pub fn enter(&self, leg: NewLeg) -> Result<(), Refusal> {
        let mut inner = self.inner();
        self.check(&inner, &leg.meeting, &leg.site)?;
        inner
            .names
            .insert(leg.name.clone(), (leg.id, leg.meeting.clone()));
        if !leg.secret.is_empty() {
            inner.secrets.insert(leg.secret.clone(), leg.name.clone());
        }
        let meeting = inner
            .meetings
            .entry(leg.meeting.clone())
            .or_insert_with(MeetingRecord::new);
        for old in meeting.legs.values_mut() {
            if old.site == leg.site && old.ordered_out.is_none() {
                old.ordered_out = Some("replaced");
                self.reports
                    .push(old.report(&leg.meeting, LegState::Left, "replaced"));
            }
        }
        let record = LegRecord {
            name: leg.name,
            site: leg.site,
            worker: leg.worker,
            secret: leg.secret,
            sources: leg.sources.into(),
            state: LegState::Joining,
            since_ms: now_ms(),
            ordered_out: None,
            answer: None,
        };
        self.reports
            .push(record.report(&leg.meeting, LegState::Joining, ""));
        meeting.note_guest(&record.site);
        meeting.legs.insert(leg.id, record);
        self.legs[leg.worker].fetch_add(1, Ordering::Relaxed);
        self.mark(&leg.meeting);
        Ok(())
    }

    /// Keeps the answer to a leg's POST for one who missed it and asks again: no longer than the leg is there.
    pub fn keep_answer(&self, answer: Arc<Answered>) {
        let mut inner = self.inner();
        let Inner { meetings, names, .. } = &mut *inner;
        let record = names
            .get(&*answer.leg)
            .and_then(|(id, meeting)| meetings.get_mut(meeting)?.legs.get_mut(id));
        if let Some(leg) = record {
            leg.answer = Some((Instant::now(), answer));
        }
    }

    /// Takes a leg out; `reason` as in `LegReport.reason`.
    pub fn leave(&self, meeting: &Arc<str>, id: LegId, reason: &str) {
        let mut inner = self.inner();
        let Some(record) = inner.meetings.get_mut(meeting) else {
            return;
        };
        let Some(leg) = record.legs.remove(&id) else {
            return;
        };
        if record.is_empty() {
            record.without_legs_since = Instant::now();
        }
        let told = leg.state == LegState::Left && reason == "timed out" && leg.ordered_out.is_none();
        if leg.ordered_out != Some("replaced") && !told {
            self.reports
                .push(leg.report(meeting, LegState::Left, leg.ordered_out.unwrap_or(reason)));
        }
        self.qualities.remove(id);
        inner.names.remove(&leg.name);
        inner.secrets.remove(&leg.secret);
        self.legs[leg.worker].fetch_sub(1, Ordering::Relaxed);
        self.mark(meeting);
    }

    /// Notes and reports what became of a leg.
    pub fn set_state(&self, meeting: &Arc<str>, id: LegId, state: LegState) {
        let mut inner = self.inner();
        let leg = inner
            .meetings
            .get_mut(meeting)
            .and_then(|record| record.legs.get_mut(&id));
        if let Some(leg) = leg
            && leg.state != state
            && leg.ordered_out.is_none()
        {
            leg.state = state;
            leg.since_ms = now_ms();
            // Of a link that is away its leg is kept for its return; for everybody else it is lost.
            let reason = if state == LegState::Left { "timed out" } else { "" };
            self.reports.push(leg.report(meeting, state, reason));
        }
    }

    /// Takes a stage document if it is newer than the one that is known. One that names another relay under a later
    /// placement takes the meeting away from here.
    pub fn set_stage(&self, stage: StageDocument) {
        let mut inner = self.inner();
        let name: Arc<str> = stage.meeting.as_str().into();
        if !inner.meetings.contains_key(&name) && inner.meetings.len() >= MAX_MEETINGS {
            tracing::warn!(meeting = %name, "stage dropped: the relay has as many meetings as it may");
            return;
        }
        let meeting = inner
            .meetings
            .entry(name.clone())
            .or_insert_with(MeetingRecord::new);
        if meeting
            .stage
            .as_ref()
            .is_some_and(|old| order(old) >= order(&stage))
        {
            return;
        }
        meeting.moved = !stage.relay.is_empty() && *stage.relay != *self.relay;
        if meeting.moved && !meeting.legs.is_empty() {
            tracing::warn!(meeting = %name, relay = stage.relay, epoch = stage.epoch, "the meeting has moved");
        }
        if meeting.stage.is_none() && stage.locked && meeting.legs.is_empty() {
            meeting.been = Been::Unknown;
        }
        for leg in meeting.legs.values_mut() {
            if stage.expelled_sites.iter().any(|site| **site == *leg.site) {
                leg.ordered_out.get_or_insert("expelled");
            }
        }
        meeting.stage = Some(Arc::new(stage));
        self.mark(&name);
    }

    /// Notes whom a worker shows since the stage follows the voice: who comes to another worker is shown the same.
    pub fn set_speaker(&self, meeting: &str, site: Option<Arc<str>>) {
        if let Some(record) = self.inner().meetings.get_mut(meeting) {
            record.speaker = site;
        }
    }

    /// Forgets meetings that nobody needs, and answers that nobody will ask for.
    pub fn forget_idle(&self, now: Instant) {
        self.inner().meetings.retain(|name, record| {
            for leg in record.legs.values_mut() {
                leg.answer
                    .take_if(|(since, _)| now.saturating_duration_since(*since) > KEEP_ANSWER);
            }
            let idle = now.saturating_duration_since(record.without_legs_since);
            let limit = match &record.stage {
                None => FORGET_AFTER,
                Some(stage) if stage.ended || record.moved => FORGET_ENDED_AFTER,
                Some(_) => FORGET_STAGED_AFTER,
            };
            let keep = !record.is_empty() || idle < limit;
            if !keep {
                tracing::info!(meeting = %name, "meeting closed");
            }
            keep
        });
    }

    fn mark(&self, meeting: &Arc<str>) {
        for signal in &self.signals {
            signal.mark(meeting);
        }
    }
}

impl MeetingRecord {
    fn new() -> Self {
        Self {
            stage: None,
            legs: HashMap::new(),
            relays: HashMap::new(),
            been: Been::Open(HashSet::new()),
            moved: false,
            speaker: None,
            without_legs_since: Instant::now(),
        }
    }

    /// Nobody is in it, here or at another relay.
    fn is_empty(&self) -> bool {
        self.legs.is_empty() && self.relays.is_empty()
    }

    fn note_guest(&mut self, site: &Arc<str>) {
        let Been::Open(sites) = &mut self.been else { return };
        sites.insert(site.clone());
        if sites.len() > MAX_BEEN {
            self.been = Been::Unknown;
        }
    }

    /// Whether the site may come into the locked meeting, having been there.
    fn has_been(&self, site: &str) -> bool {
        match &self.been {
            Been::Open(sites) => sites.contains(site),
            Been::Unknown => true,
        }
    }
}

impl LegRecord {
    fn report(&self, meeting: &Arc<str>, state: LegState, reason: &str) -> LegReport {
        let at_ms = if state == LegState::Left {
            now_ms()
        } else {
            self.since_ms
        };
        LegReport {
            meeting: meeting.to_string(),
            site: self.site.to_string(),
            leg: self.name.to_string(),
            state: state.into(),
            at_ms,
            reason: reason.to_owned(),
        }
    }
}

mod lookup;
mod relays;
#[cfg(test)]
mod tests;
