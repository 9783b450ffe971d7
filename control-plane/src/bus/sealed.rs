//! A network of replicas on which nobody else can speak: each message carries a tag of a key that only replicas have, since
//! they share the authority's folder.
//!
//! Invariants: what is not sealed, was sealed too long ago, or was heard before is dropped and counted, and never looked into.
//! The clocks of replicas may differ by [`SKEW`]. It hides nothing: who may listen is the matter of the bus, with TLS and accounts.

use super::network::{Message, Network, QUEUE, Subject, dropped};
use aws_lc_rs::hmac;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Between the clocks of two replicas, with the way of a message.
const SKEW: Duration = Duration::from_secs(30);
const TAG: usize = 32;
/// Sender, number and time.
const HEAD: usize = 24;
/// Senders whose numbers are remembered.
const MOST_SENDERS: usize = 256;

struct Sealed {
    inner: Arc<dyn Network>,
    key: Arc<hmac::Key>,
    sender: u64,
    number: AtomicU64,
}

/// The same network, for those alone who have the key.
pub fn sealed(inner: Arc<dyn Network>, key: &[u8; 32]) -> Arc<dyn Network> {
    Arc::new(Sealed {
        inner,
        key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)),
        sender: rand::random(),
        number: AtomicU64::new(0),
    })
}

fn now_ms() -> u64 {
    u64::try_from(crate::clock::Clock::Wall.now_ms()).unwrap_or_default()
}

fn tag(key: &hmac::Key, subject: Subject, rest: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(subject.as_str().as_bytes());
    context.update(&[0]);
    context.update(rest);
    context.sign()
}

impl Network for Sealed {
    fn publish(&self, subject: Subject, payload: Bytes) {
        let mut rest = BytesMut::with_capacity(TAG + HEAD + payload.len());
        rest.put_bytes(0, TAG);
        rest.put_u64(self.sender);
        rest.put_u64(self.number.fetch_add(1, Ordering::Relaxed) + 1);
        rest.put_u64(now_ms());
        rest.put(payload);
        let tag = tag(&self.key, subject, &rest[TAG..]);
        rest[..TAG].copy_from_slice(tag.as_ref());
        self.inner.publish(subject, rest.freeze());
    }

    fn subscribe(&self) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (mut messages, key) = (self.inner.subscribe(), self.key.clone());
        tokio::spawn(async move {
            let mut heard = Heard::default();
            while let Some(message) = messages.recv().await {
                match heard.open(&key, message, now_ms()) {
                    Ok(message) => {
                        if sender.send(message).await.is_err() {
                            return;
                        }
                    }
                    Err(why) => dropped(why),
                }
            }
        });
        receiver
    }

    fn state(&self) -> watch::Receiver<bool> {
        self.inner.state()
    }
}

/// The newest number of each sender and subject, and when it was heard.
#[derive(Default)]
struct Heard(HashMap<(u64, &'static str), (u64, u64)>);

impl Heard {
    fn open(&mut self, key: &hmac::Key, message: Message, now_ms: u64) -> Result<Message, &'static str> {
        let Message { subject, mut payload } = message;
        if payload.len() < TAG + HEAD {
            return Err("unsealed");
        }
        let shown = payload.split_to(TAG);
        let right = tag(key, subject, &payload);
        aws_lc_rs::constant_time::verify_slices_are_equal(right.as_ref(), &shown).map_err(|_| "unsealed")?;
        let (sender, number, at_ms) = (payload.get_u64(), payload.get_u64(), payload.get_u64());
        let skew = u64::try_from(SKEW.as_millis()).unwrap_or(u64::MAX);
        if at_ms.abs_diff(now_ms) > skew {
            return Err("old");
        }
        let known = self.0.get(&(sender, subject.as_str()));
        if known.is_some_and(|(newest, _)| number <= *newest) {
            return Err("repeated");
        }
        if known.is_none() && self.0.len() >= MOST_SENDERS {
            // What was sealed so long ago is too old by now.
            self.0
                .retain(|_, (_, heard_ms)| now_ms.abs_diff(*heard_ms) <= 2 * skew);
            if self.0.len() >= MOST_SENDERS {
                return Err("senders");
            }
        }
        self.0.insert((sender, subject.as_str()), (number, now_ms));
        Ok(Message { subject, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Hub;

    const KEY: [u8; 32] = [7; 32];

    async fn next(from: &mut mpsc::Receiver<Message>) -> Bytes {
        let message = tokio::time::timeout(Duration::from_secs(5), from.recv()).await;
        message.expect("in time").expect("a message").payload
    }

    #[tokio::test]
    async fn replicas_hear_each_other_and_nobody_else() {
        let hub = Hub::new(1);
        let (one, two) = (sealed(hub.join(), &KEY), sealed(hub.join(), &KEY));
        let (stranger, other) = (hub.join(), sealed(hub.join(), &[8; 32]));
        let mut wire = stranger.subscribe();
        let mut heard = two.subscribe();
        one.publish(Subject::Replicas, Bytes::from_static(b"first"));
        assert_eq!(next(&mut heard).await, "first");
        let seen = next(&mut wire).await;
        // A forgery, another installation, the same again, and the same about something else.
        stranger.publish(
            Subject::Replicas,
            Bytes::from_static(b"I am a relay: come to 192.0.2.66"),
        );
        other.publish(Subject::Replicas, Bytes::from_static(b"other"));
        stranger.publish(Subject::Replicas, seen.clone());
        stranger.publish(Subject::Stored, seen.clone());
        let mut bent = seen.to_vec();
        bent[TAG + HEAD] ^= 1;
        stranger.publish(Subject::Replicas, bent.into());
        one.publish(Subject::Replicas, Bytes::from_static(b"second"));
        assert_eq!(next(&mut heard).await, "second", "and nothing between");
    }

    #[test]
    fn what_was_sealed_long_ago_is_not_heard() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &KEY);
        let mut rest = BytesMut::new();
        for part in [1, 1, 100_000] {
            rest.put_u64(part);
        }
        let tag = tag(&key, Subject::Stored, &rest);
        let payload = Bytes::from([tag.as_ref(), &rest].concat());
        let message = Message {
            subject: Subject::Stored,
            payload,
        };
        let open = |now_ms| Heard::default().open(&key, message.clone(), now_ms).map(|_| ());
        assert_eq!(open(100_000 + 30_000), Ok(()));
        assert_eq!(open(100_000 + 30_001), Err("old"));
        assert_eq!(open(100_000 - 30_001), Err("old"));
    }
}
