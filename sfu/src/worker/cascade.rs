//! The tasks of links between relays: the one that dials the relay above and keeps doing so, and the conversation that
//! both ends of such a link have.
//!
//! A link that is silent for 12 s is over (QUIC's idle time); after less it goes on as it was. The relay serves its own legs on as if nothing had been: an
//! island. What came by the link is stale after a second and gone with it; when it is back all is said anew. What is said
//! is in `neighbours`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use muster_identity::{Credentials, Identity};
use muster_link::{ControlReceiver, EdgeLink, LinkError, MediaReceiver, RelayLink};
use muster_proto::media::v1::{LinkDown, LinkUp, RelayMessage, link_down, link_up};
use tokio::sync::Notify;

use super::neighbours::{At, Sender};
use super::state::Worker;

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MOST: Duration = Duration::from_secs(1);
/// Datagrams taken in one turn.
const MAX_BATCH: usize = 64;

type Shared = Rc<RefCell<Worker>>;

/// Keeps a link to the relay above for as long as the worker runs.
pub(super) async fn keep_uplink(worker: Shared, address: String, credentials: Credentials) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        match EdgeLink::connect(&address, &credentials).await {
            Ok(link) => {
                backoff = BACKOFF_FIRST;
                // `connect` takes nobody else.
                let Identity::Relay(name) = &link.peer else {
                    continue;
                };
                let sender = Sender::Above(link.sender);
                converse(&worker, name, sender, link.control, link.media).await;
            }
            Err(error) => tracing::info!(%error, %address, "no relay above"),
        }
        tokio::time::sleep(backoff.mul_f32(0.75 + rand::random::<f32>() / 2.0)).await;
        backoff = (backoff * 2).min(BACKOFF_MOST);
    }
}

/// Serves the link of a relay that has dialled this one, until it is gone.
pub(super) async fn serve_below(worker: &Shared, name: &str, link: RelayLink) {
    let sender = Sender::Below(link.sender);
    converse(worker, name, sender, link.control, link.media).await;
}

/// A message of either direction that may hold one between relays.
trait Heard {
    fn relay(self) -> Option<RelayMessage>;
}

impl Heard for LinkUp {
    fn relay(self) -> Option<RelayMessage> {
        match self.message {
            Some(link_up::Message::Relay(message)) => Some(message),
            _ => None,
        }
    }
}

impl Heard for LinkDown {
    fn relay(self) -> Option<RelayMessage> {
        match self.message {
            Some(link_down::Message::Relay(message)) => Some(message),
            _ => None,
        }
    }
}

async fn converse<In: Heard + prost::Message + Default>(
    worker: &Shared,
    name: &str,
    sender: Sender,
    control: ControlReceiver<In>,
    media: MediaReceiver,
) {
    let wake = Rc::new(Notify::new());
    let entered = worker
        .borrow_mut()
        .add_neighbour(name, sender.clone(), wake.clone());
    let at = match entered {
        Ok(at) => at,
        Err(code) => {
            worker.borrow().shared.metrics.refused(code);
            tracing::warn!(relay = %name, code, "link to another relay refused");
            sender.close(code);
            return;
        }
    };
    tracing::info!(relay = %name, "link to another relay stands");
    let error = tokio::select! {
        error = tell(worker, at, &sender, &wake) => error,
        error = listen(worker, at, control, media) => error,
    };
    tracing::info!(relay = %name, %error, "link to another relay is gone");
    sender.close("over");
    worker.borrow_mut().remove_neighbour(at);
}

/// Tells what there is to tell, as it stands when there is room.
async fn tell(worker: &Shared, at: At, sender: &Sender, wake: &Notify) -> LinkError {
    loop {
        let Some(messages) = worker.borrow_mut().take_pending(at) else {
            return LinkError::ControlEnded;
        };
        if messages.is_empty() {
            wake.notified().await;
        }
        for message in messages {
            if let Err(error) = sender.tell(message).await {
                return error;
            }
        }
    }
}

async fn listen<In: Heard + prost::Message + Default>(
    worker: &Shared,
    at: At,
    mut control: ControlReceiver<In>,
    mut media: MediaReceiver,
) -> LinkError {
    loop {
        tokio::select! {
            message = control.recv() => match message {
                Ok(message) => {
                    if let Some(message) = message.relay() {
                        let now = Instant::now();
                        let mut worker = worker.borrow_mut();
                        worker.hear(now, at, message);
                        worker.flush(now);
                    }
                }
                Err(error) => return error,
            },
            datagram = media.recv() => match datagram {
                Ok(datagram) => take_media(worker, at, datagram, &mut media),
                Err(error) => return error,
            },
        }
    }
}

/// What has arrived so far, in one batch.
fn take_media(worker: &Shared, at: At, first: (u64, bytes::Bytes), media: &mut MediaReceiver) {
    let now = Instant::now();
    let mut worker = worker.borrow_mut();
    let mut next = Some(first);
    let mut taken = 0;
    while let Some((flow, bytes)) = next {
        worker.take_neighbour_datagram(now, at, flow, &bytes);
        taken += 1;
        next = if taken < MAX_BATCH {
            media.recv().now_or_never().and_then(Result::ok)
        } else {
            None
        };
    }
    worker.flush(now);
}
