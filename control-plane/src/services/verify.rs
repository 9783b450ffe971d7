//! What proves that a stream is whole: its hash chain, the head that was noted with each append, and, of a meeting,
//! the row and the final state against a replay of its events.
//!
//! Invariants: whatever cannot be read is a verdict about that stream, never a reason to leave it out or to stop; an
//! error is only that the store is away. Memory stays bounded by a page and the state of one meeting. What this cannot
//! find: events, hashes, head and row that were all written anew; heads that were noted elsewhere find that.

use crate::convert::{event_from_wire, meeting_to_wire};
use crate::store::{ChainHead, KeptMeeting, Store, StoreError, StoredEvent, chain_hash};
use muster_domain::{Meeting, MeetingId, Timeouts};
use muster_proto::command::v1 as pb;
use prost::Message as _;

/// Events read at once.
const PAGE: i64 = 500;
/// Times that a stream may grow while it is looked at.
const TRIES: u32 = 100;

enum Fault {
    /// The first event that does not fit, and what is wrong.
    Broken(u64, String),
    Away(StoreError),
}

fn broken<T>(at: u64, found: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Broken(at, found.into()))
}

/// What cannot be read is damage at this event.
fn at(seq: u64) -> impl Fn(StoreError) -> Fault {
    move |error| match error {
        StoreError::Corrupt(text) => Fault::Broken(seq, text),
        other => Fault::Away(other),
    }
}

/// A stream as far as it was walked.
struct Walk<'a> {
    store: &'a Store,
    stream: &'a str,
    head: ChainHead,
    /// The state of a meeting; none for a unit.
    meeting: Option<Meeting>,
}

/// Looks at one stream from its beginning to its end. `Unavailable` is the only error.
pub async fn verify(store: &Store, stream: String) -> Result<pb::VerifyLogResponse, StoreError> {
    let mut walk = Walk {
        store,
        stream: &stream,
        head: ChainHead::default(),
        meeting: None,
    };
    let verdict = walk.whole().await;
    let mut line = pb::VerifyLogResponse {
        events: walk.head.seq,
        head: walk.head.hash.to_vec(),
        ..Default::default()
    };
    line.stream = stream;
    match verdict {
        Ok(()) => {}
        Err(Fault::Broken(seq, found)) => (line.broken_at, line.found) = (seq.max(1), found),
        Err(Fault::Away(error)) => return Err(error),
    }
    Ok(line)
}

impl Walk<'_> {
    async fn whole(&mut self) -> Result<(), Fault> {
        if self.stream.starts_with("unit:") {
            return self.chain().await;
        }
        let id = MeetingId::new(self.stream);
        let id = id.map_err(|error| Fault::Broken(1, format!("no stream has such a name: {error}")))?;
        self.meeting = Some(Meeting::new(id, Timeouts::default()));
        let row = self.row().await?;
        self.chain().await?;
        self.against_row(row).await
    }

    async fn row(&self) -> Result<Option<KeptMeeting>, Fault> {
        self.store.kept_meeting(self.stream).await.map_err(at(1))
    }

    async fn kept(&self) -> Result<Option<ChainHead>, Fault> {
        let kept = self.store.kept_head(self.stream).await;
        kept.map_err(at(self.head.seq))
    }

    /// The chain from the first event to the head that was noted. The head is read before the events, and both are
    /// stored together: so events may be more than it says, and never fewer.
    async fn chain(&mut self) -> Result<(), Fault> {
        let mut kept = self.kept().await?;
        for _ in 0..TRIES {
            self.walk(kept).await?;
            match kept {
                Some(head) if head.seq == self.head.seq => return Ok(()),
                Some(head) if head.seq > self.head.seq => {
                    let text = format!(
                        "it is not there: the last that was appended is event {}",
                        head.seq
                    );
                    return broken(self.head.seq + 1, text);
                }
                _ => {}
            }
            // It has grown meanwhile, or what is there was not appended by a control plane.
            let again = self.kept().await?;
            if again == kept {
                return match kept {
                    Some(head) => broken(head.seq + 1, "it follows the last event that was appended"),
                    None if self.head.seq > 0 => broken(1, "the head that was noted of the stream is gone"),
                    None => broken(1, "none of its events is there"),
                };
            }
            kept = again;
        }
        Ok(())
    }

    /// To the last event that is there.
    async fn walk(&mut self, kept: Option<ChainHead>) -> Result<(), Fault> {
        self.compare(kept)?;
        let mut limit = PAGE;
        loop {
            let page = match self.store.events_page(self.stream, self.head.seq, limit).await {
                // One of them cannot be read: which?
                Err(StoreError::Corrupt(_)) if limit > 1 => {
                    limit = 1;
                    continue;
                }
                page => page.map_err(at(self.head.seq + 1))?,
            };
            if page.is_empty() {
                return Ok(());
            }
            for stored in &page {
                self.take(stored)?;
                self.compare(kept)?;
            }
        }
    }

    fn compare(&self, kept: Option<ChainHead>) -> Result<(), Fault> {
        match kept {
            Some(head) if head.seq == self.head.seq && head.hash != self.head.hash => broken(
                head.seq,
                "its hash is not the one that was noted when it was appended",
            ),
            _ => Ok(()),
        }
    }

    fn take(&mut self, stored: &StoredEvent) -> Result<(), Fault> {
        let seq = self.head.seq + 1;
        if stored.seq != seq {
            return broken(seq, format!("the next event there is has number {}", stored.seq));
        }
        let hash = chain_hash(&self.head.hash, &stored.payload);
        if stored.hash != hash {
            return broken(seq, "its hash does not fit what is stored");
        }
        self.read(stored)?;
        self.head = ChainHead { seq, hash };
        Ok(())
    }

    /// Reads the event, which must say of itself what it is stored as.
    fn read(&mut self, stored: &StoredEvent) -> Result<(), Fault> {
        let seq = stored.seq;
        let unreadable =
            |error: &dyn std::fmt::Display| Fault::Broken(seq, format!("it cannot be read: {error}"));
        let payload = stored.payload.as_slice();
        let place = match &mut self.meeting {
            Some(meeting) => {
                let wire = pb::MeetingEvent::decode(payload).map_err(|error| unreadable(&error))?;
                let place = (wire.meeting.clone(), wire.seq);
                meeting.apply(&event_from_wire(wire).map_err(|error| unreadable(&error))?);
                place
            }
            None => {
                let wire = pb::UnitEvent::decode(payload).map_err(|error| unreadable(&error))?;
                (format!("unit:{}", wire.unit), wire.seq)
            }
        };
        if (place.0.as_str(), place.1) != (self.stream, seq) {
            return broken(
                seq,
                format!("it says of itself that it is event {} of {}", place.1, place.0),
            );
        }
        Ok(())
    }

    /// What is kept of a meeting beside its events.
    async fn against_row(&self, before: Option<KeptMeeting>) -> Result<(), Fault> {
        let Some(state) = &self.meeting else {
            return Ok(());
        };
        let (seq, replayed) = (self.head.seq, meeting_to_wire(state));
        let mut row = before;
        if row.as_ref().is_none_or(|row| row.ended_ms.is_none()) {
            // It may have begun or ended meanwhile.
            row = self.row().await?;
        }
        let Some(row) = row else {
            return broken(seq, "the row of the meeting is gone");
        };
        if let Some(reason) = row.damaged {
            return broken(seq, format!("the meeting was taken out of service: {reason}"));
        }
        for (what, same) in [
            ("title", row.title == replayed.title),
            ("unit", row.unit == replayed.unit),
            ("convener", row.chair == replayed.convened_by),
            ("beginning", row.started_ms == replayed.started_ms),
            ("end", row.ended_ms.unwrap_or_default() == replayed.ended_ms),
        ] {
            if !same {
                return broken(
                    seq,
                    format!("the {what} in the row of the meeting is not what its events say"),
                );
            }
        }
        match (row.ended_ms, row.final_state) {
            (None, None) => Ok(()),
            (None, Some(_)) => broken(seq, "the meeting has a final state and has not ended"),
            (Some(_), None) => broken(seq, "the final state of the meeting is gone"),
            (Some(_), Some(bytes)) => match pb::Meeting::decode(bytes.as_slice()) {
                Ok(kept) if kept == replayed => Ok(()),
                Ok(kept) => {
                    let what = differing(&kept, &replayed);
                    broken(
                        seq,
                        format!("the final state of the meeting is not what its events give: {what}"),
                    )
                }
                Err(error) => broken(
                    seq,
                    format!("the final state of the meeting cannot be read: {error}"),
                ),
            },
        }
    }
}

/// What of two states is not the same.
fn differing(kept: &pb::Meeting, replayed: &pb::Meeting) -> String {
    let parts = [
        ("id", kept.id == replayed.id),
        ("title", kept.title == replayed.title),
        ("chair", kept.chair == replayed.chair),
        ("unit", kept.unit == replayed.unit),
        (
            "times",
            (kept.started_ms, kept.ended_ms) == (replayed.started_ms, replayed.ended_ms),
        ),
        ("sites", kept.summonses == replayed.summonses),
        ("stage", kept.stage == replayed.stage),
        ("floor", kept.floor == replayed.floor),
        ("roll call", kept.roll_call == replayed.roll_call),
    ];
    let names: Vec<_> = parts
        .iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| *name)
        .collect();
    match names.as_slice() {
        [] => "another part".to_owned(),
        names => names.join(", "),
    }
}
