//! What other relays have of the meetings here, by links of whichever worker.

use std::sync::Arc;
use std::time::Instant;

use muster_forward::{LegId, SourceSpec};

use super::{Directory, MAX_MEETINGS, MeetingRecord};

/// A source that comes from another relay.
#[derive(Debug, Clone)]
pub(crate) struct Relayed {
    pub spec: SourceSpec,
    /// The relay that has its leg.
    pub relay: Arc<str>,
}

/// What the relay at the other end of a link has of a meeting.
#[derive(Debug, Clone)]
pub(crate) struct RelayedMeeting {
    /// The worker that has the link.
    pub worker: usize,
    pub above: bool,
    pub sources: Arc<[Relayed]>,
}

impl Directory {
    /// All meetings that are known.
    pub fn meetings(&self) -> Vec<Arc<str>> {
        self.inner().meetings.keys().cloned().collect()
    }

    /// Notes what another relay has of a meeting; false if there are as many meetings as there may be.
    pub fn enter_relay(&self, meeting: &Arc<str>, id: LegId, relayed: RelayedMeeting) -> bool {
        let mut inner = self.inner();
        if !inner.meetings.contains_key(meeting) && inner.meetings.len() >= MAX_MEETINGS {
            return false;
        }
        let record = inner
            .meetings
            .entry(meeting.clone())
            .or_insert_with(MeetingRecord::new);
        record.relays.insert(id, relayed);
        self.mark(meeting);
        true
    }

    /// The other relay has no part in the meeting any more.
    pub fn leave_relay(&self, meeting: &Arc<str>, id: LegId) {
        let mut inner = self.inner();
        let Some(record) = inner.meetings.get_mut(meeting) else {
            return;
        };
        record.relays.remove(&id);
        if record.is_empty() {
            record.without_legs_since = Instant::now();
        }
        self.mark(meeting);
    }
}
