//! Meetings of which something stored was altered or cannot be read.
//!
//! Invariant: such a meeting is never led and never told as if it were whole, and it keeps no other from going on: it
//! is taken out of service with the reason, its sites are given back, and it is listed as damaged. Nothing that is
//! stored of it is changed. Whoever has put it right removes the mark (`meetings.damaged`) and starts anew.

use super::{ENDED_PAGE, Meetings, Replayed, decode_final, replay};
use crate::core::target_of_wire;
use crate::status::Failure;
use crate::store::{DamagedMeeting, Store, StoreError};
use muster_domain::MeetingId;
use muster_proto::command::v1 as pb;

/// Damaged meetings that are told at once.
const MOST: i64 = 100;

/// A live meeting by replay, compared with the head that was noted of it; none if it is not live any more.
/// `Corrupt` if it was altered.
pub(super) async fn read_live(store: &Store, id: &str) -> Result<Option<Replayed>, StoreError> {
    let corrupt = |what: &str| Err(StoreError::Corrupt(format!("meeting {id}: {what}")));
    // Read before the events: of those there may be more, never fewer.
    let kept = store.kept_head(id).await?;
    let replayed = replay(store, id).await?;
    if replayed.head.seq == 0 {
        return corrupt("none of its events is there");
    }
    match kept {
        None => return corrupt("the head that was noted of it is gone"),
        Some(kept) if kept.seq > replayed.head.seq => {
            let what = format!("event {} is not there: it was cut off", replayed.head.seq + 1);
            return corrupt(&what);
        }
        Some(kept) if kept.seq == replayed.head.seq && kept.hash != replayed.head.hash => {
            return corrupt(
                "its events were written anew: the hash of the last is not the one that was noted",
            );
        }
        Some(_) => {}
    }
    Ok(Some(replayed).filter(|replayed| replayed.meeting.is_live()))
}

/// Takes it out of service.
pub(super) async fn quarantine(store: &Store, meeting: &str, reason: &str) -> Result<(), StoreError> {
    tracing::error!(
        meeting,
        reason,
        "the meeting is damaged and taken out of service: verify the log"
    );
    metrics::counter!("muster_meetings_damaged").increment(1);
    store.quarantine(meeting, reason).await
}

impl Meetings {
    /// Those that were taken out of service, newest first.
    pub async fn damaged(&self) -> Result<Vec<DamagedMeeting>, StoreError> {
        self.shared.store.damaged_meetings(MOST).await
    }

    pub(super) async fn is_damaged(&self, meeting: &str) -> bool {
        let row = self.shared.store.kept_meeting(meeting).await;
        row.is_ok_and(|row| row.is_some_and(|row| row.damaged.is_some()))
    }

    /// Why there is no such meeting.
    pub(super) async fn missing(&self, meeting: &str) -> Failure {
        match self.shared.store.kept_meeting(meeting).await {
            Ok(Some(row)) => match row.damaged {
                Some(reason) => {
                    StoreError::Corrupt(format!("the meeting is out of service: {reason}")).into()
                }
                None => Failure::NoMeeting(meeting.to_owned()),
            },
            Ok(None) => Failure::NoMeeting(meeting.to_owned()),
            Err(error) => error.into(),
        }
    }

    /// The newest ended meetings of which `wanted` says so, newest first; so many of the newest are looked through. And
    /// those of them of which the final state cannot be read, or is not theirs.
    pub async fn ended(
        &self,
        looked: i64,
        limit: usize,
        wanted: impl Fn(&pb::Meeting) -> bool,
    ) -> Result<(Vec<pb::Meeting>, Vec<DamagedMeeting>), StoreError> {
        let (mut ended, mut damaged) = (Vec::new(), Vec::new());
        let mut offset = 0;
        while offset < looked && ended.len() < limit {
            let page = self.shared.store.ended_meetings(offset, ENDED_PAGE).await?;
            let is_last = (page.len() as i64) < ENDED_PAGE;
            for (id, state) in page {
                match readable(&id, state.as_deref()) {
                    Ok(meeting) if ended.len() < limit && wanted(&meeting) => ended.push(meeting),
                    Ok(_) => {}
                    Err(reason) => damaged.extend(self.unreadable(id, reason).await),
                }
            }
            if is_last {
                break;
            }
            offset += ENDED_PAGE;
        }
        Ok((ended, damaged))
    }

    /// What is told of an ended meeting that cannot be shown.
    async fn unreadable(&self, id: String, reason: String) -> Option<DamagedMeeting> {
        tracing::error!(meeting = %id, reason, "an ended meeting cannot be told: verify the log");
        let row = self.shared.store.kept_meeting(&id).await.ok()??;
        Some(DamagedMeeting {
            id,
            title: row.title,
            unit: row.unit,
            chair: row.chair,
            started_ms: row.started_ms,
            reason,
        })
    }

    /// Stops what another replica has found to be damaged.
    pub(super) async fn stop_damaged(&self) -> Result<(), StoreError> {
        let damaged = self.damaged().await?;
        let mut stopped = false;
        for meeting in damaged {
            if self.handle(&meeting.id).is_none() {
                continue;
            }
            tracing::error!(meeting = %meeting.id, reason = %meeting.reason, "the meeting is damaged: it ends here");
            self.shared.remove(&meeting.id);
            if let Ok(id) = meeting.id.parse::<MeetingId>() {
                self.shared.claims.lock().forget(&id);
            }
            stopped = true;
        }
        if stopped {
            self.look_at_all_claims();
        }
        Ok(())
    }
}

/// The final state of a meeting, or why it cannot be told.
fn readable(id: &str, state: Option<&[u8]>) -> Result<pb::Meeting, String> {
    let state = state.ok_or_else(|| "its final state is gone".to_owned())?;
    let meeting = decode_final(state).map_err(|error| error.to_string())?;
    if meeting.id != id || target_of_wire(&meeting).is_err() {
        return Err("its final state is not that of this meeting".to_owned());
    }
    Ok(meeting)
}
