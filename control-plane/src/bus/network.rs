//! What replicas use to tell each other things, at most once each and in order from one sender.
//!
//! Invariants: publishing never waits; every queue is bounded, and what finds it full is dropped and counted
//! (`muster_bus_dropped`). A message may be lost, so nothing may depend on one: receivers read the store again, and ask
//! anew for what only memory holds.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// Messages that a receiver, or the connection, may be behind.
pub(super) const QUEUE: usize = 8192;

/// What a message is about. Each has a subject of its own, so that one need not be read to get at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Something was stored: read it.
    Stored,
    /// What a replica has attached, and that it lives.
    Replicas,
}

impl Subject {
    pub(super) const ALL: [Self; 2] = [Self::Stored, Self::Replicas];

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "muster.stored",
            Self::Replicas => "muster.replicas",
        }
    }
}

/// A message of another replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub subject: Subject,
    pub payload: Bytes,
}

/// One replica's way to the others.
pub trait Network: Send + Sync {
    /// Tells all others, if they can be reached at this moment.
    fn publish(&self, subject: Subject, payload: Bytes);
    /// What others publish from now on.
    fn subscribe(&self) -> mpsc::Receiver<Message>;
    /// Whether it is connected, and when that changes.
    fn state(&self) -> watch::Receiver<bool>;
}

pub(super) fn dropped(why: &'static str) {
    metrics::counter!("muster_bus_dropped", "reason" => why).increment(1);
}
