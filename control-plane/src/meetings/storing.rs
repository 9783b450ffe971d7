//! A meeting's step in the store: what it appends, and what became of it where nobody answered.
//!
//! Invariants: the state, the view and the claims follow only what is stored; an append whose answer was lost is read
//! back before anything is said of it. No lock is held over a call of the store.

use super::actor::MeetingActor;
use super::draft::Draft;
use crate::convert;
use crate::store::{Append, ChainHead, EndedRow, MeetingRow, NewEvent, StoreError};
use muster_domain::{Claims, Event, Meeting};
use prost::Message as _;
use std::time::Duration;

/// Who asks has waited for the append already: longest wait for what became of it.
const READ_BACK: Duration = Duration::from_millis(500);

impl MeetingActor {
    /// Stores the draft in one transaction. If that fails, the state is what it was.
    pub async fn store(&mut self, draft: &Draft, append: &Append) -> Result<(), StoreError> {
        if draft.events.is_empty() {
            return Ok(());
        }
        let stored = match self.shared.store.append(append).await {
            Err(StoreError::Unavailable(why)) => self.read_back(append, why).await,
            known => known,
        };
        match stored {
            Ok(head) => {
                self.head = head;
                self.legs.follow_own(draft);
                let mut claims = self.shared.claims.lock();
                for event in &draft.events {
                    claims.follow(self.meeting.id(), event);
                }
                let claimed = append.claims.iter().map(|(site, _)| site.as_str());
                claims.confirm(self.meeting.id(), claimed);
                drop(claims);
                self.publish_view();
                self.shared.replicas.stored(self.meeting.id(), head.seq);
                Ok(())
            }
            Err(error) => {
                self.meeting = Meeting::clone(&self.view().get());
                Err(error)
            }
        }
    }

    /// Nobody said whether the append was stored: the stream does.
    async fn read_back(&self, append: &Append, why: String) -> Result<ChainHead, StoreError> {
        let unknown = StoreError::Unavailable(why);
        let read = self.shared.store.events_after(&append.meeting, append.head.seq);
        let Ok(Ok(found)) = tokio::time::timeout(READ_BACK, read).await else {
            return Err(unknown);
        };
        let same = |(found, own): (&crate::store::StoredEvent, &NewEvent)| {
            found.seq == own.seq && found.payload == own.payload
        };
        match found.get(append.events.len().wrapping_sub(1)) {
            Some(last) if found.iter().zip(&append.events).all(same) => {
                metrics::counter!("muster_appends_read_back").increment(1);
                Ok(ChainHead {
                    seq: last.seq,
                    hash: last.hash,
                })
            }
            _ if found.is_empty() => Err(unknown),
            _ => Err(StoreError::Conflict("others appended meanwhile".into())),
        }
    }

    /// What the draft comes to in the store.
    pub fn append_of(&self, draft: &Draft, claims: &Claims) -> Append {
        let own = self.meeting.id();
        let mut append = Append {
            meeting: own.to_string(),
            head: self.head,
            ..Append::default()
        };
        for event in &draft.wire {
            append.events.push(NewEvent {
                seq: event.seq,
                at_ms: event.at_ms,
                actor: event.actor.clone(),
                payload: event.encode_to_vec(),
            });
        }
        for event in &draft.events {
            self.add_rows(event, &mut append);
        }
        let over = append.ended.is_some();
        let priority = self.meeting.terms().priority as i64;
        let sites = self
            .meeting
            .summonses()
            .iter()
            .filter(|s| over || draft.touched.contains(&s.site));
        for summons in sites {
            if !over && summons.is_elsewhere() {
                append.lost.push(summons.site.to_string());
            } else if over || !summons.holds_claim() {
                // Whatever is believed here of who holds it: a row that is left behind would keep the site for ever.
                append.released.push(summons.site.to_string());
            } else if !claims.is_stored(&summons.site, own) {
                append.claims.push((summons.site.to_string(), priority));
            }
        }
        append
    }

    fn add_rows(&self, event: &Event, append: &mut Append) {
        match event {
            Event::Convened {
                at,
                title,
                chair,
                unit,
                idempotency_key,
                ..
            } => {
                append.convened = Some(MeetingRow {
                    id: append.meeting.clone(),
                    title: title.clone(),
                    unit: unit.to_string(),
                    chair: chair.to_string(),
                    idempotency_key: (!idempotency_key.is_empty()).then(|| idempotency_key.clone()),
                    started_ms: at.0,
                });
            }
            Event::Ended { at, .. } => {
                let final_state = convert::meeting_to_wire(&self.meeting).encode_to_vec();
                append.ended = Some(EndedRow {
                    ended_ms: at.0,
                    final_state,
                });
            }
            _ => {}
        }
    }
}
