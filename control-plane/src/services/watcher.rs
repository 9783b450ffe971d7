//! What one tab is told, and in which order.
//!
//! Invariants: of each meeting's stream every event after the cursor (or the snapshot) is sent exactly once and in
//! order, whatever the bus loses or repeats, because gaps are read from the store (with every fifth heartbeat at the
//! latest); only what the caller may see is sent, and of that what they follow; the session is looked at again with
//! every fifth heartbeat. A meeting that once counted is told to its end. A store that is away ends nothing: what it did
//! not say is owed, and told when it is back; `pulse` goes on meanwhile.

mod begun;
mod pulse;
#[cfg(test)]
mod tests;

use super::permissions::{Told, changes_permissions};
use super::scope::{Scope, Visible};
use crate::bus::{Hint, PresenceNews};
use crate::convert::meeting_to_wire;
use crate::core::{Caller, Core, target_of};
use crate::fleet::Fleet as _;
use crate::status::unauthenticated;
use crate::store::{StoreError, StoredEvent};
use muster_domain::unit::DAY_MS;
use muster_domain::{Action, Meeting, Millis, Target, Tree, UnitId, authorize};
use muster_proto::command::v1 as pb;
use pb::watch_response::Event;
use prost::Message as _;
use pulse::Pulse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tonic::{Code, Status};

/// Who came when the store went away has no snapshot yet: it is tried again this often.
const OPEN_AGAIN: Duration = Duration::from_millis(250);
/// A tab that takes nothing for this long is dropped.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Watcher {
    core: Arc<Core>,
    caller: Caller,
    hints: broadcast::Receiver<Hint>,
    queue: mpsc::Sender<pb::WatchResponse>,
    /// The units that are followed with what is below them; none: all that may be seen.
    only: Vec<UnitId>,
    /// The part of `tree` that is seen and followed.
    scope: Scope,
    tree: Arc<Tree>,
    /// The last event sent of each meeting that may be seen; `None` for one that may not.
    sent: HashMap<String, Option<u64>>,
    /// Every meeting up to this number was told, or is none to be told.
    position: u64,
    /// The position of what was sent last.
    position_sent: Arc<AtomicU64>,
    /// The store did not say what is to be told.
    owed: bool,
    /// The meetings of the cursor, until all that it missed is told.
    resumed: HashSet<String>,
    told: Told,
    /// When the next of the caller's grants runs out.
    expires: Option<Millis>,
}

fn stopping() -> Status {
    Status::unavailable("the control plane is stopping")
}

/// Hands one message on.
async fn put(queue: &mpsc::Sender<pb::WatchResponse>, event: Event, position: u64) -> Result<(), Status> {
    let message = pb::WatchResponse {
        event: Some(event),
        position,
    };
    match queue.send_timeout(message, PATIENCE).await {
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(too_slow()),
        // A tab that went away is seen by the loop.
        Ok(()) | Err(mpsc::error::SendTimeoutError::Closed(_)) => Ok(()),
    }
}

fn too_slow() -> Status {
    metrics::counter!("muster_watchers_dropped").increment(1);
    Status::resource_exhausted("the watcher fell behind: resume with its cursor")
}

impl Watcher {
    /// For these units, which the caller may see; for none: for all that they may see.
    pub fn new(
        core: Arc<Core>,
        caller: Caller,
        only: Vec<UnitId>,
        queue: mpsc::Sender<pb::WatchResponse>,
    ) -> Self {
        let hints = core.bus.subscribe();
        let now = core.clock.now();
        let expires = caller.actor.next_expiry(now);
        let tree = core.tree();
        Self {
            scope: Scope::of(&caller.actor, &tree, &only, now),
            core,
            caller,
            hints,
            queue,
            only,
            tree,
            sent: HashMap::new(),
            position: 0,
            position_sent: Arc::default(),
            owed: false,
            resumed: HashSet::new(),
            told: Told::default(),
            expires,
        }
    }

    /// Runs until the tab goes away (`Ok`) or there is a reason to drop it.
    pub async fn run(mut self, cursor: Vec<pb::Position>, position: Option<u64>) -> Result<(), Status> {
        let mut pulse = Pulse::new(self.core.clone(), self.queue.clone(), self.position_sent.clone());
        let resumed = pulse.beside(self.open(&cursor, position)).await?;
        self.snapshot(resumed).await?;
        pulse.open();
        pulse.beside(self.begin(&cursor, resumed)).await?;
        let (queue, shutdown) = (self.queue.clone(), self.core.shutdown.clone());
        loop {
            self.all_is_sent();
            if pulse.is_time_to_look(self.owed) {
                pulse.beside(self.look()).await?;
                continue;
            }
            let expiry = self.until_expiry();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(stopping()),
                () = queue.closed() => return Ok(()),
                due = pulse.due() => pulse.tell(due).await?,
                () = tokio::time::sleep(expiry) => pulse.beside(self.look_at_expiry()).await?,
                hint = self.hints.recv() => match hint {
                    Ok(hint) => pulse.beside(self.hint(hint)).await?,
                    Err(RecvError::Lagged(_)) => return Err(too_slow()),
                    Err(RecvError::Closed) => return Ok(()),
                },
            }
        }
    }

    /// Whether the cursor is resumed; finds out from where on meetings are to be told.
    async fn open(&mut self, cursor: &[pb::Position], position: Option<u64>) -> Result<bool, Status> {
        loop {
            match self.try_open(cursor, position).await {
                Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(OPEN_AGAIN).await,
                done => return done,
            }
        }
    }

    async fn try_open(&mut self, cursor: &[pb::Position], position: Option<u64>) -> Result<bool, Status> {
        self.ask_store()?;
        let resumed = self.resumable(cursor, position).await?;
        self.position = match resumed {
            Some(position) => position,
            None => self.core.store.last_meeting().await?,
        };
        Ok(resumed.is_some())
    }

    /// What comes right after the snapshot.
    async fn begin(&mut self, cursor: &[pb::Position], resumed: bool) -> Result<(), Status> {
        let told = if resumed {
            self.catch_up(cursor).await
        } else {
            self.begun_and_live().await
        };
        self.owe(told)?;
        self.tell_permissions().await
    }

    /// Looks at what hints may have missed: who the caller is, and what is stored.
    async fn look(&mut self) -> Result<(), Status> {
        let owed = std::mem::take(&mut self.owed);
        self.look_at_caller().await?;
        let made_up = self.make_up().await;
        self.owe(made_up)?;
        if owed && !self.owed {
            self.tell_permissions().await?;
        }
        Ok(())
    }

    /// Until the next of the caller's grants runs out; a day where none does.
    fn until_expiry(&self) -> Duration {
        let left = self
            .expires
            .map_or(DAY_MS, |end| end.0.saturating_sub(self.core.clock.now().0));
        Duration::from_millis(left.clamp(0, DAY_MS).unsigned_abs())
    }

    /// Reads anew who the caller is. While the store is away a session holds as long as it was known to.
    async fn look_at_caller(&mut self) -> Result<(), Status> {
        let found = match self.ask_store() {
            Ok(()) => self.core.caller_of(&self.caller.token).await,
            away => away.map(|()| self.caller.clone()),
        };
        let before = match found {
            Ok(caller) => std::mem::replace(&mut self.caller, caller).actor.grants,
            Err(status) if status.code() != Code::Unavailable => return Err(status),
            Err(_) if self.caller.expires_ms <= self.core.clock.now_ms() => {
                return Err(unauthenticated("the session has run out: sign in again"));
            }
            Err(_) => {
                self.owed = true;
                return Ok(());
            }
        };
        if before == self.caller.actor.grants {
            return Ok(());
        }
        self.send(Event::Directory(pb::DirectoryChanged {})).await?;
        self.look_at_authority().await
    }

    /// What may not be seen any more is told no longer; what may be seen now is told from its beginning.
    async fn look_at_authority(&mut self) -> Result<(), Status> {
        self.expires = self.caller.actor.next_expiry(self.core.clock.now());
        self.look_at_tree();
        for view in self.core.meetings.views() {
            let (id, seen) = (view.id().to_string(), self.follows(view.id().as_str()));
            let sees = self.may_see(&view) && (seen || self.counts(&view));
            if sees && self.sent.get(&id) == Some(&None) {
                self.sent.insert(id.clone(), Some(0));
                let told = self.send_stored(&id).await;
                self.owe(told)?;
            } else if !sees {
                self.sent.insert(id, None);
            }
        }
        let made_up = self.make_up().await;
        self.owe(made_up)?;
        self.tell_permissions().await
    }

    /// What a grant allowed is over the moment that it ends, whatever waits to be told.
    async fn look_at_expiry(&mut self) -> Result<(), Status> {
        if self.expires.is_some_and(|end| self.core.clock.now() >= end) {
            self.send(Event::Directory(pb::DirectoryChanged {})).await?;
            self.look_at_authority().await?;
        }
        Ok(())
    }

    async fn tell_permissions(&mut self) -> Result<(), Status> {
        let mut views = self.core.meetings.views();
        views.retain(|view| self.follows(view.id().as_str()) && self.may_see(view));
        let news = self.told.news(
            &self.caller.actor,
            &views,
            &self.core.tree(),
            self.core.clock.now(),
        );
        for permissions in news {
            self.send(Event::Permissions(permissions)).await?;
        }
        Ok(())
    }

    async fn send(&self, event: Event) -> Result<(), Status> {
        put(&self.queue, event, self.position).await?;
        self.all_is_sent();
        Ok(())
    }

    /// What the position says is on its way, or there was nothing to send.
    fn all_is_sent(&self) {
        self.position_sent.store(self.position, Ordering::Relaxed);
    }

    /// What the store could not say is owed; every other error ends the stream.
    fn owe(&mut self, done: Result<(), Status>) -> Result<(), Status> {
        match done {
            Err(status) if status.code() == Code::Unavailable => {
                self.owed = true;
                Ok(())
            }
            done => done,
        }
    }

    /// Nothing is asked of a store that is known to be away: that would only hold up what can be told.
    fn ask_store(&self) -> Result<(), Status> {
        match self.core.store.health().is_ok() {
            true => Ok(()),
            false => Err(Status::unavailable("the store is away")),
        }
    }

    /// What is seen and followed of the tree as it is now.
    fn look_at_tree(&mut self) {
        self.tree = self.core.tree();
        self.scope = Scope::of(&self.caller.actor, &self.tree, &self.only, self.core.clock.now());
    }

    /// Whether the meeting's events are sent.
    fn follows(&self, meeting: &str) -> bool {
        matches!(self.sent.get(meeting), Some(Some(_)))
    }

    /// Whether a meeting that may be seen is one of those that are followed.
    fn counts(&self, meeting: &Meeting) -> bool {
        self.only.is_empty() || self.scope.touches(&self.tree, meeting)
    }

    fn shows(&self, meeting: &Meeting) -> bool {
        self.may_see(meeting) && self.counts(meeting)
    }

    fn may_see(&self, meeting: &Meeting) -> bool {
        target_of(meeting).is_ok_and(|target| self.permits(&target))
    }

    fn permits(&self, target: &Target) -> bool {
        authorize(
            &self.caller.actor,
            Action::View,
            target,
            &self.core.tree(),
            self.core.clock.now(),
        )
        .is_ok()
    }

    async fn snapshot(&mut self, resumed: bool) -> Result<(), Status> {
        self.look_at_tree();
        let Visible { units, sites } = self.scope.visible(&self.tree);
        let presence = self
            .core
            .endpoints
            .presences(sites.iter().map(|site| site.id.as_str()));
        let (mut meetings, mut quality) = (Vec::new(), Vec::new());
        for view in self.core.meetings.views() {
            let seen = self.shows(&view);
            if seen {
                let known = self.core.qualities.of(view.id().as_str());
                quality.extend(
                    known
                        .into_iter()
                        .filter(|quality| self.counts_site(&quality.site)),
                );
            }
            if !resumed {
                self.sent
                    .insert(view.id().to_string(), seen.then_some(view.seq()));
                if seen {
                    meetings.push(meeting_to_wire(&view));
                }
            }
        }
        let fleet = Some(self.core.relays.states());
        let server_time_ms = self.core.clock.now_ms();
        let snapshot = pb::WatchSnapshot {
            units,
            sites,
            presence,
            meetings,
            fleet,
            server_time_ms,
            resumed,
            quality,
        };
        self.send(Event::Snapshot(snapshot)).await?;
        self.send(Event::Service(self.core.replicas.service())).await
    }

    /// Sends what came after the cursor: of its streams, of meetings that began since, and of live ones that may be seen
    /// now.
    async fn catch_up(&mut self, cursor: &[pb::Position]) -> Result<(), Status> {
        self.resumed = cursor.iter().map(|position| position.stream.clone()).collect();
        let known = |position: &pb::Position| (position.stream.clone(), Some(position.seq));
        self.sent.extend(cursor.iter().map(known));
        for position in cursor {
            self.send_stored(&position.stream).await?;
        }
        self.begun_and_live().await?;
        self.resumed.clear();
        Ok(())
    }

    /// Sends the stored events of a stream after the last one sent.
    async fn send_stored(&mut self, meeting: &str) -> Result<(), Status> {
        let Some(Some(after)) = self.sent.get(meeting).copied() else {
            return Ok(());
        };
        self.ask_store()?;
        let stored = self.core.store.events_after(meeting, after).await?;
        self.send_all(meeting, stored).await
    }

    async fn send_all(&mut self, meeting: &str, events: Vec<StoredEvent>) -> Result<(), Status> {
        for stored in events {
            let event = pb::MeetingEvent::decode(stored.payload.as_slice()).map_err(|error| {
                StoreError::Corrupt(format!("event {} of {meeting}: {error}", stored.seq))
            })?;
            // Nothing follows its end: what is remembered stays bounded by the meetings that are live.
            match event.event {
                Some(pb::meeting_event::Event::Ended(_)) => self.sent.remove(meeting),
                _ => self.sent.insert(meeting.to_owned(), Some(stored.seq)),
            };
            self.send(Event::MeetingEvent(event)).await?;
        }
        Ok(())
    }

    async fn hint(&mut self, hint: Hint) -> Result<(), Status> {
        self.look_at_expiry().await?;
        let told = self.tell(hint).await;
        self.owe(told)
    }

    async fn tell(&mut self, hint: Hint) -> Result<(), Status> {
        match hint {
            Hint::Meeting(event) => self.meeting_event(&event).await,
            Hint::Presence(news) => self.presence(&news).await,
            Hint::Directory => {
                self.send(Event::Directory(pb::DirectoryChanged {})).await?;
                // Where a unit hangs decides who may do what in it.
                self.look_at_authority().await
            }
            Hint::Quality(changed) => {
                let seen = |quality: &&pb::SiteQuality| {
                    self.follows(&quality.meeting) && self.counts_site(&quality.site)
                };
                let sites: Vec<_> = changed.iter().filter(seen).cloned().collect();
                if sites.is_empty() {
                    return Ok(());
                }
                self.send(Event::Quality(pb::QualityChanged { sites })).await
            }
            Hint::Account(account) if *account == *self.caller.account.name => self.look_at_caller().await,
            Hint::Plans => self.send(Event::Plans(pb::PlansChanged {})).await,
            Hint::Report(report) if self.scope.has_site(&self.tree, &report.site) => {
                self.send(Event::Report(pb::Report::clone(&report))).await
            }
            Hint::Account(_) | Hint::DrillStarted(_) | Hint::DrillReported(_) | Hint::Report(_) => Ok(()),
            Hint::Fleet(fleet) => self.send(Event::Fleet(pb::FleetChanged::clone(&fleet))).await,
        }
    }

    async fn presence(&self, news: &PresenceNews) -> Result<(), Status> {
        let presence = if Arc::ptr_eq(news.tree(), &self.tree) {
            news.at(self.scope.sites())
        } else {
            // The tree has changed in between: places are those of the news.
            news.at(Scope::of(&self.caller.actor, news.tree(), &self.only, self.core.clock.now()).sites())
        };
        if presence.is_empty() {
            return Ok(());
        }
        self.send(Event::Presence(pb::PresenceChanged { presence })).await
    }

    /// Whether what is told of a site or a desk in a meeting that is followed is for this tab.
    fn counts_site(&self, site: &str) -> bool {
        self.only.is_empty() || self.scope.has_site(&self.tree, site)
    }

    async fn meeting_event(&mut self, event: &pb::MeetingEvent) -> Result<(), Status> {
        self.follow(event).await?;
        if matches!(event.event, Some(pb::meeting_event::Event::Ended(_))) {
            self.sent.remove(&event.meeting);
        }
        if changes_permissions(event) {
            self.tell_permissions().await?;
        }
        Ok(())
    }

    async fn follow(&mut self, event: &pb::MeetingEvent) -> Result<(), Status> {
        let known = self.sent.get(&event.meeting);
        if known.is_none() {
            // It is one that began, or one that has ended and was told to its end.
            self.begun().await?;
        } else if known == Some(&None) && !self.only.is_empty() && brings_sites(event) {
            // Until it is known whether it is seen, it is one that is not known of.
            self.sent.remove(&event.meeting);
            let seen = self.sees(&event.meeting).await?;
            self.sent.insert(event.meeting.clone(), seen.then_some(0));
        }
        let Some(Some(last)) = self.sent.get(&event.meeting).copied() else {
            return Ok(());
        };
        if event.seq <= last {
            return Ok(());
        }
        if event.seq != last + 1 {
            return self.send_stored(&event.meeting).await;
        }
        self.sent.insert(event.meeting.clone(), Some(event.seq));
        self.send(Event::MeetingEvent(event.clone())).await
    }
}

/// Whether a meeting may count for somebody for whom it did not before.
fn brings_sites(event: &pb::MeetingEvent) -> bool {
    use pb::meeting_event::Event;
    matches!(event.event, Some(Event::Convened(_) | Event::SitesAdded(_)))
}
