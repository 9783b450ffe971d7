//! The warm link to a relay: made, kept, and made again with backoff after a loss.
//!
//! One task a link pumps what comes in to the agent's queue, waiting where the queue is full (QUIC's own bounded
//! buffer drops the oldest datagrams then). Each link has a number, so that late words of an old one are known as such.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_identity::Credentials;
use muster_link::{Dial, EdgeLink, EdgeSender, Ways};
use muster_proto::media::v1::{LinkDown, LinkUp, link_up};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::{Input, epoch_ms};
use crate::backoff::Backoff;

/// A link that lasted this long was a good one: after its loss the first wait is short again.
const GOOD_AFTER: Duration = Duration::from_secs(2);

/// Between two tries to warm an interface.
const STANDBY_AGAIN: Duration = Duration::from_secs(3);

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
    preference: Preference,
    /// Keeps the ways over the other interfaces warm.
    standby: Option<JoinHandle<()>>,
    /// Of them, those over which the relay answers.
    warm: Arc<AtomicUsize>,
}

impl Uplink {
    pub fn new(credentials: Arc<Credentials>, inputs: mpsc::Sender<Input>, interfaces: Vec<String>) -> Self {
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
            preference: Preference {
                interfaces,
                failed: 0,
            },
            standby: None,
            warm: Arc::default(),
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
        self.preference.failed = 0;
        self.restart(Duration::ZERO);
    }

    /// Whether an event is of the present link.
    pub fn is_current(&self, number: u64) -> bool {
        self.number == number
    }

    /// The present link is up.
    pub fn handle_up(&mut self, sender: EdgeSender, now: Instant) {
        self.preference.failed = 0;
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
        if self.live.is_none() {
            self.preference.failed += 1;
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

    /// Other interfaces over which the relay answers now.
    pub fn warm(&self) -> usize {
        self.warm.load(Ordering::Relaxed)
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
        if let Some(standby) = self.standby.take() {
            standby.abort();
        }
        self.warm.store(0, Ordering::Relaxed);
    }

    fn restart(&mut self, wait: Duration) {
        self.close("the link is made again");
        let Some(address) = self.wanted.clone() else {
            return;
        };
        self.number += 1;
        self.try_at_ms = epoch_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let interfaces = self.preference.order();
        if let [_, others @ ..] = &interfaces[..]
            && !others.is_empty()
        {
            let standby = keep_warm(
                address.clone(),
                self.credentials.clone(),
                others.to_vec(),
                self.warm.clone(),
            );
            self.standby = Some(tokio::spawn(standby));
        }
        let way = Way {
            address,
            credentials: self.credentials.clone(),
            interfaces,
        };
        self.task = Some(tokio::spawn(pump(self.number, way, wait, self.inputs.clone())));
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.close("the agent ends");
    }
}

/// Which interface an attempt begins with.
#[derive(Debug)]
struct Preference {
    /// In the order of preference; none: the system's routes decide.
    interfaces: Vec<String>,
    /// Attempts in a row that came to no link. A link that was up and is lost is none of them.
    failed: usize,
}

impl Preference {
    /// The interfaces as the next attempt takes them: in the order of preference, and after each failed attempt from the
    /// next one on, as the first may be dead. The link begins with the first; the others are to be kept warm.
    fn order(&self) -> Vec<String> {
        let mut order = self.interfaces.clone();
        if !order.is_empty() {
            order.rotate_left(self.failed % self.interfaces.len());
        }
        order
    }
}

/// How a link is made.
struct Way {
    address: String,
    credentials: Arc<Credentials>,
    interfaces: Vec<String>,
}

/// Holds an idle link over each of these interfaces, so that the way over it is known to work, and its radio and the
/// address translation on it are awake, when the link needs it. Counts those that are up.
async fn keep_warm(
    address: String,
    credentials: Arc<Credentials>,
    interfaces: Vec<String>,
    warm: Arc<AtomicUsize>,
) {
    let each = interfaces.into_iter().map(|interface| {
        let (address, credentials, warm) = (&address, &credentials, &warm);
        async move {
            // A spare way is one that the link can move to: by UDP.
            let dial = Dial {
                ways: Ways::UdpAlone,
                interfaces: vec![interface.clone()],
                ..Dial::default()
            };
            loop {
                match EdgeLink::dial(address, credentials, dial.clone()).await {
                    Ok(link) => {
                        warm.fetch_add(1, Ordering::Relaxed);
                        tracing::info!(interface, "standby is warm");
                        let ended = link.sender.closed().await;
                        warm.fetch_sub(1, Ordering::Relaxed);
                        tracing::warn!(interface, %ended, "standby lost");
                    }
                    Err(error) => {
                        tracing::debug!(interface, %error, "standby does not answer");
                    }
                }
                tokio::time::sleep(STANDBY_AGAIN).await;
            }
        }
    });
    futures_util::future::join_all(each).await;
}

async fn pump(number: u64, way: Way, wait: Duration, inputs: mpsc::Sender<Input>) {
    tokio::time::sleep(wait).await;
    let dial = Dial {
        interfaces: way.interfaces,
        ..Dial::default()
    };
    let link = EdgeLink::dial(&way.address, &way.credentials, dial).await;
    let mut link = match link {
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

#[cfg(test)]
mod tests {
    use muster_identity::{Authority, Identity};

    use super::*;

    fn order(interfaces: &[&str], failed: usize) -> String {
        let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
        Preference { interfaces, failed }.order().join(" ")
    }

    #[test]
    fn each_failed_attempt_in_a_row_moves_on_by_one_interface() {
        let three = ["eth0", "wwan0", "wlan0"];
        assert_eq!(order(&three, 0), "eth0 wwan0 wlan0");
        assert_eq!(order(&three, 1), "wwan0 wlan0 eth0");
        assert_eq!(order(&three, 2), "wlan0 eth0 wwan0");
        assert_eq!(order(&three, 3), "eth0 wwan0 wlan0");
        assert_eq!(order(&["eth0"], 7), "eth0");
        assert_eq!(order(&[], 7), "");
    }

    #[tokio::test]
    async fn another_relay_is_dialled_by_the_preferred_interface() {
        let authority = Authority::in_memory().expect("an authority");
        let credentials = authority.credentials(Identity::Agent("s1".into()));
        let (inputs, _queue) = mpsc::channel(1);
        let interfaces = vec!["eth0".to_owned(), "wwan0".to_owned()];
        let mut uplink = Uplink::new(Arc::new(credentials.expect("credentials")), inputs, interfaces);
        let first = |uplink: &Uplink| uplink.preference.order().swap_remove(0);
        // Neither is ever dialled: this test does not wait.
        for relay in ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"] {
            uplink.want(relay);
            assert_eq!(first(&uplink), "eth0", "{relay}");
        }
        assert_eq!(uplink.number, 3);
        uplink.handle_lost(Instant::now());
        assert_eq!(first(&uplink), "wwan0", "eth0 may be dead");
        uplink.want("127.0.0.1:3");
        assert_eq!(first(&uplink), "wwan0", "the same relay is nothing new");
        uplink.handle_lost(Instant::now());
        assert_eq!(first(&uplink), "eth0");
        uplink.handle_lost(Instant::now());
        uplink.want("127.0.0.1:4");
        assert_eq!(first(&uplink), "eth0", "a new relay, from the first again");
    }
}
