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

/// The row of a meeting as it is stored: what its events must agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMeeting {
    pub title: String,
    pub unit: String,
    /// Who convened it.
    pub chair: String,
    pub started_ms: i64,
    pub ended_ms: Option<i64>,
    pub final_state: Option<Vec<u8>>,
    /// Why it was taken out of service.
    pub damaged: Option<String>,
}

/// A meeting of which something stored cannot be read or was altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedMeeting {
    pub id: String,
    pub title: String,
    pub unit: String,
    pub chair: String,
    pub started_ms: i64,
    pub reason: String,
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
    /// Sites believed to be another meeting's: one that this meeting holds is a conflict, as whoever believed it has not
    /// read that the other let it go.
    pub lost: Vec<String>,
}

/// Why what is lost was not.
pub(super) const OWN: &str = "a site that is said to be lost belongs to the meeting";

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
    /// The names of all streams of which anything is stored: events, a kept head, or the row of a meeting.
    async fn streams(&self) -> Result<Vec<String>>;
    /// The head as each append noted it beside the events; none if nothing was appended, or it was removed.
    /// Appends go on where it does not fit the events, and leave it as it is: it is evidence, not a lock.
    async fn kept_head(&self, stream: &str) -> Result<Option<ChainHead>>;
    /// The row of a meeting.
    async fn kept_meeting(&self, meeting: &str) -> Result<Option<KeptMeeting>>;
    /// Meetings that have not ended and are not taken out of service, oldest first.
    async fn live_heads(&self) -> Result<Vec<LiveHead>>;
    /// Meetings that began after this number, with theirs, in order; they are numbered from 1 without a gap, in the order
    /// in which their beginnings were committed.
    async fn meetings_begun(&self, after: u64, limit: i64) -> Result<Vec<(u64, String)>>;
    /// The number of a meeting.
    async fn meeting_number(&self, meeting: &str) -> Result<Option<u64>>;
    /// The number of the newest meeting; 0 if there is none.
    async fn last_meeting(&self) -> Result<u64>;
    /// Takes a meeting out of service for this reason, and gives its sites back. One that is out stays so.
    async fn quarantine(&self, meeting: &str, reason: &str) -> Result<()>;
    /// Those that were taken out of service, newest first.
    async fn damaged_meetings(&self, limit: i64) -> Result<Vec<DamagedMeeting>>;
    /// Ended meetings, newest first: ids and encoded final states, none where there is none.
    async fn ended_meetings(&self, offset: i64, limit: i64) -> Result<Vec<(String, Option<Vec<u8>>)>>;
    /// The encoded final state of one meeting, if it has ended.
    async fn final_state(&self, meeting: &str) -> Result<Option<Vec<u8>>>;
    /// The meeting that an account convened under an idempotency key.
    async fn meeting_by_key(&self, chair: &str, key: &str) -> Result<Option<String>>;
    /// All claims, by site.
    async fn claims(&self) -> Result<Vec<Claim>>;
    /// Those of these sites that belong to another meeting.
    async fn claimed_by_others(&self, meeting: &str, sites: &[String]) -> Result<Vec<String>>;
}
