//! The event log: append-only streams, each a hash chain over the stored bytes.
//!
//! A meeting's stream is its id, a unit's is `unit:ID`. `UNIQUE(stream, seq)` makes an append optimistic; what spans
//! meetings (`site_claim`) changes in the same transaction. The hash of an event is SHA-256(hash before || payload);
//! the first has 32 zero bytes before it.

use super::{Result, StoreError};
use async_trait::async_trait;
use aws_lc_rs::digest;

/// Position and hash of the last event of a stream; the default of one that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainHead {
    pub seq: u64,
    pub hash: [u8; 32],
}

/// An event to be stored: `payload` is the encoded `MeetingEvent` or `UnitEvent`.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub seq: u64,
    pub at_ms: i64,
    pub actor: String,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    pub seq: u64,
    pub payload: Vec<u8>,
    pub hash: [u8; 32],
}

/// A stream and its last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHead {
    pub stream: String,
    pub head: ChainHead,
}

/// A live meeting and the number of its last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveHead {
    pub meeting: String,
    pub seq: u64,
}

/// The row of a meeting, written when it is convened.
#[derive(Debug, Clone)]
pub struct MeetingRow {
    pub id: String,
    pub title: String,
    pub unit: String,
    pub chair: String,
    pub idempotency_key: Option<String>,
    pub started_ms: i64,
}

/// How a meeting's row ends: `final_state` is the encoded `Meeting`.
#[derive(Debug, Clone)]
pub struct EndedRow {
    pub ended_ms: i64,
    pub final_state: Vec<u8>,
}

/// The live meeting that a site belongs to; a higher priority may take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub site: String,
    pub meeting: String,
    pub priority: i64,
}

/// Everything that one step of a meeting changes; stored whole or not at all.
#[derive(Debug, Default)]
pub struct Append {
    pub meeting: String,
    pub head: ChainHead,
    pub events: Vec<NewEvent>,
    pub convened: Option<MeetingRow>,
    pub ended: Option<EndedRow>,
    /// Sites taken for this meeting, with its priority: free ones, and those of meetings of lower priority. One that
    /// another meeting holds with the same or a higher priority is a conflict; one that is held already is none.
    pub claims: Vec<(String, i64)>,
    /// Sites given back; those held by others meanwhile stay theirs.
    pub released: Vec<String>,
}

/// The next hash of a chain.
pub fn chain_hash(before: &[u8; 32], payload: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(before);
    context.update(payload);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// An event and its hash.
pub(super) type Hashed<'a> = (&'a NewEvent, [u8; 32]);

/// The hashes of events that are to follow a head; a gap in their numbers is a conflict.
pub(super) fn chained(mut head: ChainHead, events: &[NewEvent]) -> Result<(ChainHead, Vec<Hashed<'_>>)> {
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        if event.seq != head.seq + 1 {
            let text = format!("event {} does not follow {}", event.seq, head.seq);
            return Err(StoreError::Conflict(text));
        }
        head = ChainHead {
            seq: event.seq,
            hash: chain_hash(&head.hash, &event.payload),
        };
        rows.push((event, head.hash));
    }
    Ok((head, rows))
}

#[async_trait]
pub trait LogStore: Send + Sync {
    /// Appends, in one transaction. `Conflict` if another writer was there first.
    async fn append(&self, append: &Append) -> Result<ChainHead>;
    /// Events of a stream after `seq`, in order.
    async fn events_after(&self, stream: &str, seq: u64) -> Result<Vec<StoredEvent>> {
        self.events_page(stream, seq, i64::MAX).await
    }
    /// At most `limit` events of a stream after `seq`, in order.
    async fn events_page(&self, stream: &str, seq: u64, limit: i64) -> Result<Vec<StoredEvent>>;
    /// The last event of a stream; the default if there is no such stream.
    async fn head(&self, stream: &str) -> Result<ChainHead>;
    /// All streams by name.
    async fn streams(&self) -> Result<Vec<StreamHead>>;
    /// Meetings that have not ended, oldest first.
    async fn live_heads(&self) -> Result<Vec<LiveHead>>;
    /// Encoded final states of ended meetings, newest first.
    async fn ended_meetings(&self, offset: i64, limit: i64) -> Result<Vec<Vec<u8>>>;
    /// The encoded final state of one meeting, if it has ended.
    async fn final_state(&self, meeting: &str) -> Result<Option<Vec<u8>>>;
    /// The meeting that an account convened under an idempotency key.
    async fn meeting_by_key(&self, chair: &str, key: &str) -> Result<Option<String>>;
    /// All claims, by site.
    async fn claims(&self) -> Result<Vec<Claim>>;
}
