//! The warm link to a relay: made, kept, and made again with backoff after a loss.
//!
//! One task a link pumps what comes in to the agent's queue, waiting where the queue is full (QUIC's own bounded
//! buffer drops the oldest datagrams then). Each link has a number, so that late words of an old one are known as such.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_identity::Credentials;
use muster_link::{EdgeLink, EdgeSender};
use muster_proto::media::v1::{LinkDown, LinkUp, link_up};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::{Input, epoch_ms};
use crate::backoff::Backoff;

/// A link that lasted this long was a good one: after its loss the first wait is short again.
const GOOD_AFTER: Duration = Duration::from_secs(2);

/// What a link says.
#[derive(Debug)]
pub enum LinkEvent {
    Up(EdgeSender),
    Control(LinkDown),
    Media(u64, Bytes),
    Lost(String),
}

/// The link of an agent.
#[derive(Debug)]
pub struct Uplink {
    credentials: Arc<Credentials>,
    inputs: mpsc::Sender<Input>,
    wanted: Option<String>,
    number: u64,
    task: Option<JoinHandle<()>>,
    live: Option<(EdgeSender, Instant)>,
    backoff: Backoff,
    try_at_ms: i64,
}

impl Uplink {
    pub fn new(credentials: Arc<Credentials>, inputs: mpsc::Sender<Input>) -> Self {
        let backoff = Backoff::default();
        Self {
            credentials,
            inputs,
            wanted: None,
            number: 0,
            task: None,
            live: None,
            backoff,
            try_at_ms: 0,
        }
    }

    /// Wants a link to this address and to no other.
    pub fn want(&mut self, address: &str) {
        if address.is_empty() || self.wanted.as_deref() == Some(address) {
            return;
        }
        tracing::info!(relay = address, "connecting the link");
        self.wanted = Some(address.to_owned());
        self.backoff.reset();
        self.restart(Duration::ZERO);
    }

    /// Whether an event is of the present link.
    pub fn is_current(&self, number: u64) -> bool {
        self.number == number
    }

    /// The present link is up.
    pub fn handle_up(&mut self, sender: EdgeSender, now: Instant) {
        self.live = Some((sender, now));
    }

    /// The present link is lost: make it again, a little later.
    pub fn handle_lost(&mut self, now: Instant) {
        if self
            .live
            .as_ref()
            .is_some_and(|(_, since)| now.duration_since(*since) >= GOOD_AFTER)
        {
            self.backoff.reset();
        }
        let wait = self.backoff.next(rand::random());
        self.restart(wait);
    }

    /// Address that the link is up to.
    pub fn address(&self) -> Option<&str> {
        self.live.as_ref().and(self.wanted.as_deref())
    }

    /// When it was, or will be, tried last, milliseconds since the Unix epoch.
    pub fn try_at_ms(&self) -> i64 {
        self.try_at_ms
    }

    /// Address that the link leads to, up or not.
    pub fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    pub fn sender(&self) -> Option<&EdgeSender> {
        self.live.as_ref().map(|(sender, _)| sender)
    }

    /// Sends a control message if the link is up; a relay that does not read loses its link.
    pub fn send(&self, message: link_up::Message) {
        let Some(sender) = self.sender() else { return };
        if let Err(error) = sender.try_send_control(&LinkUp {
            message: Some(message),
        }) {
            tracing::warn!(%error, "closing the link");
            sender.close("control stream stuck");
        }
    }

    /// Closes the link for good.
    pub fn close(&mut self, reason: &str) {
        if let Some((sender, _)) = self.live.take() {
            sender.close(reason);
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    fn restart(&mut self, wait: Duration) {
        self.close("the link is made again");
        let Some(address) = self.wanted.clone() else {
            return;
        };
        self.number += 1;
        self.try_at_ms = epoch_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let (credentials, inputs) = (self.credentials.clone(), self.inputs.clone());
        self.task = Some(tokio::spawn(pump(
            self.number,
            address,
            credentials,
            wait,
            inputs,
        )));
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.close("the agent ends");
    }
}

async fn pump(
    number: u64,
    address: String,
    credentials: Arc<Credentials>,
    wait: Duration,
    inputs: mpsc::Sender<Input>,
) {
    tokio::time::sleep(wait).await;
    let mut link = match EdgeLink::connect(&address, &credentials).await {
        Ok(link) => link,
        Err(error) => {
            let _ = inputs
                .send(Input::Link(number, LinkEvent::Lost(error.to_string())))
                .await;
            return;
        }
    };
    if inputs
        .send(Input::Link(number, LinkEvent::Up(link.sender)))
        .await
        .is_err()
    {
        return;
    }
    loop {
        let event = tokio::select! {
            message = link.control.recv() => message.map(LinkEvent::Control),
            datagram = link.media.recv() => datagram.map(|(flow, packet)| LinkEvent::Media(flow, packet)),
        };
        let event = event.unwrap_or_else(|error| LinkEvent::Lost(error.to_string()));
        let lost = matches!(event, LinkEvent::Lost(_));
        if inputs.send(Input::Link(number, event)).await.is_err() || lost {
            return;
        }
    }
}
