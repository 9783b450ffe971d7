//! What is put to a meeting: asks that wait for an answer, and facts, which have none.

use crate::endpoints::Proof;
use crate::status::Failure;
use crate::store::StoreError;
use muster_domain::{Command, Report, SiteId};
use muster_proto::command::v1 as pb;
use std::sync::{Arc, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// What a relay said about a leg of a site.
#[derive(Debug, Clone)]
pub struct LegFact {
    pub site: SiteId,
    pub leg: String,
    pub state: pb::LegState,
    pub reason: String,
}

/// Something that happened, whether or not anyone likes it. Kept and tried again while the store is away.
#[derive(Debug, Clone)]
pub(crate) enum Fact {
    /// An endpoint of the site attached: the one of this number, with this proof.
    Attached {
        site: SiteId,
        endpoint: u64,
        proof: Proof,
    },
    Detached {
        site: SiteId,
    },
    Legs {
        relay: String,
        legs: Vec<LegFact>,
    },
    /// A relay dialled in, and these are all its legs of this meeting.
    RelayBack {
        relay: String,
        legs: Vec<LegFact>,
    },
    /// A relay has been away for too long; none: what no relay has claimed since the start.
    RelayLost {
        relay: Option<String>,
    },
    /// What was missing when these sites were called came before the meeting was known.
    Came {
        sites: Vec<SiteId>,
    },
    /// Others took sites of this meeting, or let go of sites that it waits for; `_done` is dropped once that is said.
    Claims {
        _done: Option<mpsc::Sender<()>>,
    },
    /// Others appended events.
    Behind,
    Tick,
}

type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// Where an answer goes; the first one counts.
pub(crate) struct Reply<T>(Arc<std::sync::Mutex<Option<Answer<T>>>>);

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Reply<T> {
    pub(super) fn new(sender: oneshot::Sender<Result<T, Failure>>) -> Self {
        Self(Arc::new(std::sync::Mutex::new(Some(sender))))
    }

    /// Whoever asked may have gone.
    pub(crate) fn send(&self, result: Result<T, Failure>) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let _ = sender.send(result);
        }
    }
}

/// What somebody asks of a meeting, and waits for. Cloned for another try where another replica was first.
#[derive(Clone)]
pub(crate) enum Ask {
    Do {
        command: Command,
        by: String,
        reply: Reply<()>,
    },
    /// Empty: all that are not on air. Answers how many are called.
    CallUnconnected {
        sites: Vec<SiteId>,
        by: String,
        reply: Reply<u32>,
    },
    Report {
        site: SiteId,
        report: Report,
        proof: Proof,
        reply: Reply<()>,
    },
    /// An endpoint or a desk gets nothing from this relay.
    RelayNamedLost {
        relay: String,
        epoch: u64,
        by: String,
        reply: Reply<()>,
    },
    Ticket {
        site: SiteId,
        proof: Proof,
        reply: Reply<pb::JoinTicket>,
    },
    Fact(Fact),
}

/// An answer that waits for the transaction.
pub(super) type Pending = Box<dyn FnOnce(Option<&StoreError>) + Send>;

/// Sends the answer `result` if the events are stored, the store's error if not.
pub(super) fn answer<T: Send + 'static>(reply: Reply<T>, result: Result<T, Failure>) -> Pending {
    Box::new(move |error| {
        let result = match (result, error) {
            (Ok(_), Some(error)) => Err(Failure::Store(error.clone())),
            (result, _) => result,
        };
        // Whoever asked may have gone; the command is stored all the same.
        reply.send(result);
    })
}

fn refuse<T: Send + 'static>(reply: Reply<T>) -> Pending {
    Box::new(move |error| {
        if let Some(error) = error {
            reply.send(Err(Failure::Store(error.clone())));
        }
    })
}

impl Ask {
    /// Sends the store's error and nothing else.
    pub(super) fn refusal(self) -> Pending {
        match self {
            Self::Do { reply, .. } | Self::Report { reply, .. } | Self::RelayNamedLost { reply, .. } => {
                refuse(reply)
            }
            Self::CallUnconnected { reply, .. } => refuse(reply),
            Self::Ticket { reply, .. } => refuse(reply),
            Self::Fact(_) => Box::new(|_| ()),
        }
    }
}
