//! The network of replicas over a NATS server.
//!
//! Invariants: a server that is away keeps nobody waiting, neither at the start nor later: it is dialled again by itself,
//! and what is published meanwhile is dropped, not kept, since it is old by then. Passwords are never told.

use super::network::{Message, Network, QUEUE, Subject, dropped};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A server that does not answer for this long twice over is away.
const PING: Duration = Duration::from_secs(1);
const DIAL: Duration = Duration::from_secs(2);
/// Longest wait between two attempts to dial.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

type Receivers = Arc<Mutex<Vec<mpsc::Sender<Message>>>>;

struct Nats {
    outgoing: mpsc::Sender<Message>,
    receivers: Receivers,
    state: watch::Receiver<bool>,
}

/// Connects to `nats://[USER:PASSWORD@]HOST:PORT`, now or as soon as it is there; with `tls://` over TLS, trusting the
/// system's authorities, and those in the PEM file `ca`.
///
/// # Errors
/// An address that makes no sense; it is not repeated in the error.
pub async fn connect(url: &str, name: &str, ca: Option<&Path>) -> anyhow::Result<Arc<dyn Network>> {
    let senseless = || anyhow::anyhow!("the bus address: expected nats://HOST:PORT or tls://HOST:PORT");
    let address: ServerAddr = url.parse().map_err(|_| senseless())?;
    let (connected, state) = watch::channel(false);
    let connected = Arc::new(connected);
    let told = connected.clone();
    let mut options = ConnectOptions::new()
        .name(name)
        .no_echo()
        .retry_on_initial_connect()
        .ping_interval(PING)
        .connection_timeout(DIAL)
        .subscription_capacity(QUEUE)
        .reconnect_delay_callback(|attempts| {
            let wait = Duration::from_millis(50).saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));
            wait.min(LONGEST_WAIT)
        })
        .event_callback(move |event| {
            let told = told.clone();
            async move { follow(&told, &event) }
        });
    // The library does not look for them in the address.
    if let Some(user) = address.username() {
        let password = address.password().unwrap_or_default();
        options = options.user_and_password(decoded(user), decoded(password));
    }
    if let Some(ca) = ca {
        options = options.add_root_certificates(ca.to_owned());
    }
    let client = options.connect(address).await.map_err(|_| senseless())?;
    let receivers = Receivers::default();
    for subject in Subject::ALL {
        let subscriber = client.subscribe(subject.as_str()).await?;
        tokio::spawn(receive(subscriber, subject, receivers.clone()));
    }
    let (outgoing, queue) = mpsc::channel(QUEUE);
    tokio::spawn(send(client, queue, state.clone()));
    Ok(Arc::new(Nats {
        outgoing,
        receivers,
        state,
    }))
}

/// Without percent-encoding, which a password in an address needs for some characters.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn follow(connected: &watch::Sender<bool>, event: &Event) {
    match event {
        Event::Connected => {
            tracing::info!("the bus is connected");
            connected.send_replace(true);
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!("the bus is away: other replicas cannot be told");
            connected.send_replace(false);
        }
        Event::SlowConsumer(_) => dropped("receiver_behind"),
        other => tracing::debug!(%other, "bus"),
    }
}

async fn receive(mut subscriber: async_nats::Subscriber, subject: Subject, receivers: Receivers) {
    while let Some(message) = subscriber.next().await {
        let mut receivers = receivers.lock().unwrap_or_else(PoisonError::into_inner);
        receivers.retain(|receiver| {
            let message = Message {
                subject,
                payload: message.payload.clone(),
            };
            match receiver.try_send(message) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    dropped("receiver_behind");
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }
}

async fn send(client: Client, mut queue: mpsc::Receiver<Message>, state: watch::Receiver<bool>) {
    while let Some(message) = queue.recv().await {
        if !*state.borrow() {
            dropped("away");
            continue;
        }
        if client
            .publish(message.subject.as_str(), message.payload)
            .await
            .is_err()
        {
            dropped("refused");
        }
    }
}

impl Network for Nats {
    fn publish(&self, subject: Subject, payload: Bytes) {
        if self.outgoing.try_send(Message { subject, payload }).is_err() {
            dropped("sender_behind");
        }
    }

    fn subscribe(&self) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        receivers.push(sender);
        receiver
    }

    fn state(&self) -> watch::Receiver<bool> {
        self.state.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_have_any_characters() {
        assert_eq!(decoded("plain"), "plain");
        assert_eq!(decoded("p%40ss%3Aw%C3%B6rd"), "p@ss:wörd");
        assert_eq!(decoded("100%"), "100%");
    }
}
