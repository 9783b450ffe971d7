//! The meetings that a tab has not been told of: those that began since, whether or not a hint of them came.
//!
//! Meetings are numbered in the order in which their beginnings were stored. Invariant: with each message goes a number
//! up to which every meeting was told from its beginning, or is none that the caller may see; so what began and ended
//! while a tab was away is told when it comes back, and a hint that is repeated after the end changes nothing, without
//! any memory of what has ended.

use super::Watcher;
use crate::core::target_of_wire;
use crate::status::Failure;
use crate::store::StoreError;
use muster_proto::command::v1 as pb;
use tonic::Status;

/// Meetings asked for at once.
const PAGE: i64 = 100;
/// Meetings that may have begun while a tab was away; after more it gets a fresh snapshot.
const MOST_BEGUN: i64 = 1000;

impl Watcher {
    /// Tells the meetings that began after the last that was told.
    pub(super) async fn begun(&mut self) -> Result<(), Status> {
        self.ask_store()?;
        loop {
            let begun = self.core.store.meetings_begun(self.position, PAGE).await?;
            if begun.is_empty() {
                return Ok(());
            }
            for (number, id) in begun {
                if self.sent.contains_key(&id) || self.resumed.contains(&id) {
                    self.position = number;
                    continue;
                }
                let seen = self.sees(&id).await?;
                let events = if seen {
                    self.core.store.events_after(&id, 0).await?
                } else {
                    Vec::new()
                };
                // From here on: what goes out says that it was told.
                self.position = number;
                self.sent.insert(id.clone(), seen.then_some(0));
                self.send_all(&id, events).await?;
            }
        }
    }

    /// Tells the live meetings that are not known of here, though they began before the last that was told: this replica had
    /// not heard of them when they were asked for, or they may be seen only now. What has ended is not among them, so
    /// nothing is told twice.
    pub(super) async fn live(&mut self) -> Result<(), Status> {
        self.ask_store()?;
        let store = self.core.store.clone();
        for head in store.live_heads().await? {
            let id = head.meeting;
            if self.sent.contains_key(&id) || self.resumed.contains(&id) {
                continue;
            }
            if store
                .meeting_number(&id)
                .await?
                .is_none_or(|number| number > self.position)
            {
                continue;
            }
            let seen = self.sees(&id).await?;
            self.sent.insert(id.clone(), seen.then_some(0));
            self.send_stored(&id).await?;
        }
        Ok(())
    }

    /// Tells the meetings that are to be told and are not known of here.
    pub(super) async fn begun_and_live(&mut self) -> Result<(), Status> {
        self.begun().await?;
        self.live().await
    }

    /// Makes up for hints that were lost, and for what a store that was away did not say.
    pub(super) async fn make_up(&mut self) -> Result<(), Status> {
        self.begun_and_live().await?;
        let meetings = &self.core.meetings;
        self.sent
            .retain(|id, last| last.is_some() || meetings.view(id).is_some());
        let is_behind = |id: &str, last: u64| meetings.view(id).is_none_or(|view| view.seq() > last);
        let behind = self
            .sent
            .iter()
            .filter(|(id, last)| last.is_some_and(|last| is_behind(id, last)));
        let behind: Vec<String> = behind.map(|(id, _)| id.clone()).collect();
        for id in behind {
            self.send_stored(&id).await?;
        }
        // Of those of the cursor all is told, at the latest now.
        self.resumed.clear();
        Ok(())
    }

    /// Whether the caller may see a meeting, live or ended, and follows it.
    pub(super) async fn sees(&self, meeting: &str) -> Result<bool, Status> {
        if let Some(view) = self.core.meetings.view(meeting) {
            return Ok(self.shows(&view));
        }
        match self.core.meetings.find(meeting).await {
            Ok(meeting) => Ok(target_of_wire(&meeting).is_ok_and(|target| self.permits(&target))
                && (self.only.is_empty() || self.scope.touches_wire(&self.tree, &meeting))),
            Err(Failure::Store(StoreError::Unavailable(text))) => Err(StoreError::Unavailable(text).into()),
            Err(_) => Ok(false),
        }
    }

    /// The number from which a cursor can be resumed; none if it cannot: a position is not known or may not be seen, or
    /// too much has begun since.
    pub(super) async fn resumable(
        &self,
        cursor: &[pb::Position],
        told: Option<u64>,
    ) -> Result<Option<u64>, Status> {
        let store = &self.core.store;
        let mut newest = None;
        for position in cursor {
            let last = store.head(&position.stream).await?.seq;
            if last == 0 || last < position.seq || !self.sees(&position.stream).await? {
                return Ok(None);
            }
            newest = newest.max(store.meeting_number(&position.stream).await?);
        }
        // Who does not say it has been told all before the newest that it names.
        let Some(from) = told.or(newest) else {
            return Ok(None);
        };
        let begun = store.meetings_begun(from, MOST_BEGUN + 1).await?.len();
        let fits = i64::try_from(begun).is_ok_and(|begun| begun <= MOST_BEGUN)
            && from <= store.last_meeting().await?;
        Ok(fits.then_some(from))
    }
}
