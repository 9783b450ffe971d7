//! What a tab is told whatever the store does: that its replica lives, and whether the parts of the control plane reach
//! each other.
//!
//! Invariants: while a step of the watcher waits for anything, both go on; nothing is told before the snapshot. Such a
//! message has the position up to which all was told when it was sent, never one that a step has only read of.

use super::{put, stopping};
use crate::core::Core;
use muster_proto::command::v1 as pb;
use pb::watch_response::Event;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tonic::Status;

/// Who hears nothing for some of these goes to another replica.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The store is looked at with every so many heartbeats.
const LOOK: u32 = 5;

pub(super) struct Pulse {
    core: Arc<Core>,
    queue: mpsc::Sender<pb::WatchResponse>,
    /// The position of what was told last.
    told: Arc<AtomicU64>,
    service: watch::Receiver<pb::ServiceState>,
    heartbeat: Interval,
    beats: u32,
    opened: bool,
    /// It is time to look at the store.
    look: bool,
    /// There was a beat or a change since what is owed was last tried.
    moved: bool,
}

/// What is to be told.
#[derive(Clone, Copy)]
pub(super) enum Due {
    Heartbeat,
    Service,
}

impl Pulse {
    pub(super) fn new(core: Arc<Core>, queue: mpsc::Sender<pb::WatchResponse>, told: Arc<AtomicU64>) -> Self {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            service: core.replicas.follow_service(),
            core,
            queue,
            told,
            heartbeat,
            beats: 0,
            opened: false,
            look: false,
            moved: false,
        }
    }

    /// The snapshot is sent: from now on it beats.
    pub(super) fn open(&mut self) {
        self.opened = true;
    }

    /// Waits for what is to be told next. Who gives up waiting loses nothing.
    pub(super) async fn due(&mut self) -> Due {
        if !self.opened {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            biased;
            Ok(()) = self.service.changed() => Due::Service,
            _ = self.heartbeat.tick() => Due::Heartbeat,
        }
    }

    pub(super) async fn tell(&mut self, due: Due) -> Result<(), Status> {
        self.moved = true;
        let event = match due {
            Due::Service => Event::Service(self.service.borrow_and_update().clone()),
            Due::Heartbeat => {
                self.look |= self.beats.is_multiple_of(LOOK);
                self.beats = self.beats.wrapping_add(1);
                Event::Heartbeat(pb::WatchHeartbeat {
                    server_time_ms: self.core.clock.now_ms(),
                })
            }
        };
        put(&self.queue, event, self.told.load(Ordering::Relaxed)).await
    }

    /// Whether to look at the store: with every fifth heartbeat, and sooner where something is owed.
    pub(super) fn is_time_to_look(&mut self, owed: bool) -> bool {
        let moved = std::mem::take(&mut self.moved);
        std::mem::take(&mut self.look) || (owed && moved)
    }

    /// Carries out a step, and goes on telling what is due meanwhile.
    ///
    /// # Errors
    /// Those of the step; that the tab has gone, takes nothing, or that the control plane stops.
    pub(super) async fn beside<T>(
        &mut self,
        step: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut step = pin!(step);
        let (queue, shutdown) = (self.queue.clone(), self.core.shutdown.clone());
        loop {
            tokio::select! {
                biased;
                done = &mut step => return done,
                () = shutdown.cancelled() => return Err(stopping()),
                // Nobody is there to read the reason.
                () = queue.closed() => return Err(Status::cancelled("the watcher has gone")),
                due = self.due() => self.tell(due).await?,
            }
        }
    }
}
