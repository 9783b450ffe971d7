//! What has happened, told to everybody in this process who watches.
//!
//! Messages are hints: whoever falls behind loses them and reads the store again. In one process this is a bounded
//! broadcast; with several replicas another implementation carries the same hints.

use muster_proto::command::v1 as pb;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Hints that a slow receiver may be behind before it loses some.
const CAPACITY: usize = 16_384;

/// Something that a watcher may want to know.
#[derive(Debug, Clone)]
pub enum Hint {
    /// A stored event of a meeting.
    Meeting(Arc<pb::MeetingEvent>),
    /// The newest state of sites whose presence changed.
    Presence(Arc<Vec<pb::Presence>>),
    /// The tree was imported anew.
    Directory,
    Fleet(Arc<pb::FleetChanged>),
    /// The newest quality of sites of which something changed.
    Quality(Arc<Vec<pb::SiteQuality>>),
    /// Presets, schedules or drills changed.
    Plans,
    /// The grants, the password or the sessions of this account changed.
    Account(Arc<str>),
    /// A drill began: who has endpoints of these sites pushes to them.
    DrillStarted(Arc<pb::DrillStarted>),
    /// What an endpoint found in a drill, for whoever runs it; the result names its site.
    DrillReported(Arc<pb::ReportDrillRequest>),
}

/// Sends hints to all subscribers. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Bus(broadcast::Sender<Hint>);

impl Default for Bus {
    fn default() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }
}

impl Bus {
    pub fn publish(&self, hint: Hint) {
        // No receiver is no error: nobody watches.
        let _ = self.0.send(hint);
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Hint> {
        self.0.subscribe()
    }
}
