//! What one batch of commands and facts comes to, before and after it is stored.

use muster_domain::{Event, Millis, SiteId};
use muster_proto::command::v1 as pb;
use std::collections::BTreeSet;

/// Events that were decided and applied to the draft state, and what is to be done once they are stored.
pub(crate) struct Draft {
    pub now: Millis,
    pub events: Vec<Event>,
    pub wire: Vec<pb::MeetingEvent>,
    /// Endpoints to be called again, though nothing changed.
    pub recall: Vec<(SiteId, u64)>,
    /// Calls that one endpoint took, as the log names it.
    pub taken: Vec<(SiteId, String)>,
    /// Sites of which it counts what a relay shows: those that come, those that are not there as somebody believes, and
    /// those that are called again for a lost leg.
    pub legs_wanted: Vec<SiteId>,
    /// Sites whose summons changed.
    pub touched: BTreeSet<SiteId>,
    /// Others decided it, and it may be some time ago.
    pub by_others: bool,
}

impl Draft {
    /// What others have stored.
    pub fn read(now: Millis) -> Self {
        Self {
            by_others: true,
            ..Self::new(now)
        }
    }

    pub fn new(now: Millis) -> Self {
        Self {
            now,
            events: Vec::new(),
            wire: Vec::new(),
            recall: Vec::new(),
            taken: Vec::new(),
            legs_wanted: Vec::new(),
            touched: BTreeSet::new(),
            by_others: false,
        }
    }
}
