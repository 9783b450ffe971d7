//! What has happened, told to everybody in this process who watches.
//!
//! Messages are hints: whoever falls behind loses them and reads the store again. What goes between the replicas of
//! a control plane is a [`Network`]: in process, or a NATS server. Nothing here is acknowledged or stored.

mod hub;
mod nats;
mod network;
mod news;
mod sealed;

pub use hub::{Hub, Trouble};
pub use nats::connect;
pub use network::{Message, Network, Subject};
pub use news::PresenceNews;
pub use sealed::sealed;

use muster_proto::command::v1 as pb;
use std::sync::{Arc, OnceLock};
use tokio::sync::{broadcast, mpsc};

/// Hints that a slow receiver may be behind before it loses some.
const CAPACITY: usize = 16_384;
/// Hints that wait to go to other replicas.
const OUTGOING: usize = 1024;

/// Something that a watcher may want to know.
#[derive(Debug, Clone)]
pub enum Hint {
    /// A stored event of a meeting.
    Meeting(Arc<pb::MeetingEvent>),
    /// The newest state of sites whose presence changed.
    Presence(Arc<PresenceNews>),
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
    /// A site has handed in a report.
    Report(Arc<pb::Report>),
}

impl Hint {
    /// Whether other replicas are to hear of it as it is. Events and states have ways of their own.
    fn is_for_all(&self) -> bool {
        matches!(
            self,
            Self::Directory
                | Self::Plans
                | Self::Account(_)
                | Self::DrillStarted(_)
                | Self::DrillReported(_)
                | Self::Report(_)
        )
    }
}

/// Sends hints to all subscribers. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Bus {
    here: broadcast::Sender<Hint>,
    /// What goes on to other replicas, where there are any.
    outgoing: Arc<OnceLock<mpsc::Sender<Hint>>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            here: broadcast::Sender::new(CAPACITY),
            outgoing: Arc::default(),
        }
    }
}

impl Bus {
    /// Tells everybody, in other replicas too where it is for them.
    pub fn publish(&self, hint: Hint) {
        if let Some(outgoing) = self.outgoing.get()
            && hint.is_for_all()
            && outgoing.try_send(hint.clone()).is_err()
        {
            network::dropped("sender_behind");
        }
        self.publish_here(hint);
    }

    /// Tells those in this process.
    pub fn publish_here(&self, hint: Hint) {
        // No receiver is no error: nobody watches.
        let _ = self.here.send(hint);
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Hint> {
        self.here.subscribe()
    }

    /// What other replicas are to hear; given out once.
    pub(crate) fn outgoing(&self) -> Option<mpsc::Receiver<Hint>> {
        let (sender, receiver) = mpsc::channel(OUTGOING);
        self.outgoing.set(sender).ok().map(|()| receiver)
    }
}
