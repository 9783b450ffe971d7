//! How a meeting is followed that any replica may change: its stream is read again after a hint, after a lost race and
//! once a second, and what others appended is applied here with its effects on what is attached here.
//!
//! Invariants: events are applied in order and once, and the hash chain is checked on the way; a meeting that another
//! replica convened is known here before anything is asked of it. What has been read is never appended again.

use super::actor::MeetingActor;
use super::damage::read_live;
use super::draft::Draft;
use super::{Ask, Fact, Meetings};
use crate::convert;
use crate::replicas::News;
use crate::store::{ChainHead, LiveHead, StoreError, chain_hash};
use muster_domain::{Event, Meeting, Reach, Reason, SiteId, SummonsState};
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// The store is asked this often what hints may have missed, and with it whether it is back.
const POLL: Duration = Duration::from_secs(1);
/// Longest wait for the meetings here to have read what is stored.
const CAUGHT_UP: Duration = Duration::from_secs(1);

impl Meetings {
    /// Reads what others store, as they hint and once a second, until the control plane stops. What is not about
    /// meetings goes to `rest`.
    pub async fn follow_others(
        self: Arc<Self>,
        mut news: mpsc::Receiver<News>,
        rest: impl Fn(News) + Send + Sync,
    ) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return,
                _ = poll.tick() => self.poll_and_reconcile().await,
                () = self.shared.read_again.notified() => self.poll_and_reconcile().await,
                Some(item) = news.recv() => match item {
                    News::Stored { meeting, seq } => self.hinted(&meeting, seq).await,
                    other => rest(other),
                },
            }
        }
    }

    async fn poll_and_reconcile(&self) {
        let polled = match self.poll().await {
            Ok(_) => self.reconcile().await,
            Err(error) => Err(error),
        };
        if let Err(error) = polled {
            tracing::debug!(%error, "cannot ask the store what is new");
        }
    }

    async fn hinted(&self, meeting: &str, seq: u64) {
        match self.handle(meeting) {
            Some(handle) => {
                if handle.view.get().seq() < seq {
                    handle.nudge();
                }
            }
            None => {
                if let Err(error) = self.adopt(meeting).await {
                    tracing::warn!(meeting, %error, "cannot read a meeting of another replica");
                }
            }
        }
    }

    /// Asks the store what there is; each meeting that is behind reads on by itself.
    async fn poll(&self) -> Result<Vec<LiveHead>, StoreError> {
        let heads = self.shared.store.live_heads().await?;
        self.shared.store.health().note(true);
        let mut listed = HashSet::new();
        for head in &heads {
            listed.insert(head.meeting.as_str());
            self.hinted(&head.meeting, head.seq).await;
        }
        let unlisted = self.handles(|meeting| !listed.contains(meeting.id().as_str()));
        if unlisted.iter().any(|handle| handle.view.get().is_live()) {
            self.stop_damaged().await?;
        }
        for handle in unlisted {
            // It has ended, or was convened after the store was asked.
            handle.nudge();
        }
        Ok(heads)
    }

    /// Makes sure that what is known of claims is what is stored: after a race for a site was lost.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        let heads = self.poll().await?;
        let caught_up = async {
            for head in heads {
                while self
                    .view(&head.meeting)
                    .is_some_and(|view| view.is_live() && view.seq() < head.seq)
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        if tokio::time::timeout(CAUGHT_UP, caught_up).await.is_err() {
            tracing::debug!("not all meetings have read what is stored");
        }
        self.reconcile().await
    }

    /// Takes in a meeting that another replica convened. Nothing if it is known or has ended.
    pub(super) async fn adopt(&self, id: &str) -> Result<(), StoreError> {
        let _one_at_a_time = self.arriving.enter(id).await;
        if self.handle(id).is_some() {
            return Ok(());
        }
        let row = self.shared.store.kept_meeting(id).await?;
        if row.is_none_or(|row| row.damaged.is_some()) {
            return Ok(());
        }
        let Some(replayed) = read_live(&self.shared.store, id).await? else {
            return Ok(());
        };
        if self.shared.shutdown.is_cancelled() {
            return Ok(());
        }
        tracing::info!(
            meeting = id,
            seq = replayed.meeting.seq(),
            "meeting of another replica"
        );
        let shown = self.chair_shown(&replayed.meeting).await?;
        let mut draft = Draft::read(self.shared.clock.now());
        draft.events = replayed.events;
        draft.wire = replayed.wire;
        for event in &draft.events {
            if let Event::SummonsChanged { summons } = event {
                draft.touched.insert(summons.site.clone());
            }
        }
        let mut actor = MeetingActor::new(self.shared.clone(), replayed.meeting, replayed.head, shown);
        actor.legs = replayed.legs;
        actor.untold.push(draft);
        self.start(actor);
        Ok(())
    }

    pub(super) async fn chair_shown(&self, meeting: &Meeting) -> Result<String, StoreError> {
        let chair = meeting.chair().map(ToString::to_string).unwrap_or_default();
        let account = self.shared.store.account(&chair).await?;
        Ok(account.map_or(chair, |account| account.display_name))
    }
}

impl super::Handle {
    /// There is something to read. A queue that is full has other reasons to look.
    pub(super) fn nudge(&self) {
        if self.queue.try_send(Ask::Fact(Fact::Behind)).is_err() {
            metrics::counter!("muster_meeting_queue_full").increment(1);
        }
    }
}

/// An event of a stream, checked and read.
pub(super) struct Read {
    pub wire: pb::MeetingEvent,
    pub event: Event,
}

/// Checks that a stored event follows `head`, moves it on, and reads the event.
pub(super) fn read_on(
    id: &str,
    head: &mut ChainHead,
    stored: &crate::store::StoredEvent,
) -> Result<Read, StoreError> {
    let corrupt = |what: String| StoreError::Corrupt(format!("meeting {id}: {what}"));
    let hash = chain_hash(&head.hash, &stored.payload);
    if stored.seq != head.seq + 1 || stored.hash != hash {
        return Err(corrupt(format!(
            "event {} does not fit the chain: it was altered",
            stored.seq
        )));
    }
    *head = ChainHead {
        seq: stored.seq,
        hash,
    };
    let wire = pb::MeetingEvent::decode(stored.payload.as_slice())
        .map_err(|error| corrupt(format!("event {}: {error}", stored.seq)))?;
    let event = convert::event_from_wire(wire.clone())?;
    Ok(Read { wire, event })
}

impl MeetingActor {
    /// Reads and applies what others have appended; it is told at the end of the step.
    pub(super) async fn catch_up(&mut self) -> Result<(), StoreError> {
        let id = self.id().clone();
        let stored = self.shared.store.events_after(&id, self.head.seq).await?;
        self.behind = false;
        if stored.is_empty() {
            return Ok(());
        }
        let mut head = self.head;
        let read: Vec<Read> = stored
            .iter()
            .map(|stored| read_on(&id, &mut head, stored))
            .collect::<Result<_, _>>()?;
        let mut draft = Draft::read(self.shared.clock.now());
        for Read { wire, event } in read {
            self.legs.follow(&wire.actor, &event);
            self.apply(&event, &mut draft);
            draft.wire.push(wire);
            draft.events.push(event);
        }
        self.head = head;
        let mut claims = self.shared.claims.lock();
        for event in &draft.events {
            claims.follow(&id, event);
        }
        drop(claims);
        self.publish_view();
        self.untold.push(draft);
        Ok(())
    }

    /// Sites of these that were said not to be reachable, and whose endpoint is attached here.
    pub(super) fn reachable_here<'a>(&self, sites: impl Iterator<Item = &'a SiteId>) -> Vec<SiteId> {
        let missing = [Reason::NeverSeen, Reason::Offline, Reason::ReplicaAway];
        let is_missing = |site: &&SiteId| {
            self.meeting.summons(site).is_some_and(|summons| {
                summons.state == SummonsState::Unreachable
                    && summons.reason.is_some_and(|reason| missing.contains(&reason))
            })
        };
        sites
            .filter(is_missing)
            .filter(|site| {
                self.shared.endpoints.is_here(site) && self.shared.endpoints.reach(site) == Reach::Online
            })
            .cloned()
            .collect()
    }
}
