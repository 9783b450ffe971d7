//! The network of replicas in one process: what tests use, also in virtual time with trouble on the way.
//!
//! Invariant: of the same seed and the same order of calls the same messages are lost, doubled and delayed.

use super::network::{Message, Network, QUEUE, Subject, dropped};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What happens to messages on their way, of a thousand each.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    pub lost: u32,
    pub doubled: u32,
    pub delayed: u32,
    /// The longest delay.
    pub delay: Duration,
}

#[derive(Default)]
struct State {
    receivers: Vec<(usize, mpsc::Sender<Message>)>,
    /// One for each place that was taken.
    connected: Vec<watch::Sender<bool>>,
    away: BTreeSet<usize>,
    trouble: Trouble,
    seed: u64,
}

impl State {
    /// xorshift64*: plain, and the same everywhere.
    fn draw(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below.max(1)
    }

    fn happens(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.draw(1000) < u64::from(of_a_thousand)
    }
}

/// A network that places can be taken in.
#[derive(Default)]
pub struct Hub(Mutex<State>);

/// One replica's place in a hub.
struct Place {
    hub: Arc<Hub>,
    number: usize,
}

impl Hub {
    pub fn new(seed: u64) -> Arc<Self> {
        let state = State {
            seed: seed | 1,
            ..State::default()
        };
        Arc::new(Self(Mutex::new(state)))
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        self.lock().trouble = trouble;
    }

    /// Connects one replica more.
    pub fn join(self: &Arc<Self>) -> Arc<dyn Network> {
        let mut state = self.lock();
        state.connected.push(watch::Sender::new(true));
        let number = state.connected.len() - 1;
        drop(state);
        Arc::new(Place {
            hub: self.clone(),
            number,
        })
    }

    /// Cuts everybody off, or (`false`) connects them again.
    pub fn set_away(&self, away: bool) {
        let mut state = self.lock();
        let all = 0..state.connected.len();
        state.away = if away { all.collect() } else { BTreeSet::new() };
        for sender in &state.connected {
            sender.send_replace(!away);
        }
    }

    /// Cuts one replica off, by the order of joining from 0, or (`false`) connects it again.
    pub fn set_place_away(&self, number: usize, away: bool) {
        let mut state = self.lock();
        let changed = if away {
            state.away.insert(number)
        } else {
            state.away.remove(&number)
        };
        if let Some(sender) = state.connected.get(number).filter(|_| changed) {
            sender.send_replace(!away);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver(to: &mpsc::Sender<Message>, message: Message) {
    if let Err(mpsc::error::TrySendError::Full(_)) = to.try_send(message) {
        dropped("receiver_behind");
    }
}

impl Network for Place {
    fn publish(&self, subject: Subject, payload: Bytes) {
        let mut state = self.hub.lock();
        if state.away.contains(&self.number) {
            dropped("away");
            return;
        }
        state.receivers.retain(|(_, receiver)| !receiver.is_closed());
        let others: Vec<mpsc::Sender<Message>> = state
            .receivers
            .iter()
            .filter(|(number, _)| *number != self.number && !state.away.contains(number))
            .map(|(_, receiver)| receiver.clone())
            .collect();
        for to in others {
            let trouble = state.trouble.clone();
            if state.happens(trouble.lost) {
                dropped("lost");
                continue;
            }
            let times = 1 + u32::from(state.happens(trouble.doubled));
            for _ in 0..times {
                let message = Message {
                    subject,
                    payload: payload.clone(),
                };
                if !state.happens(trouble.delayed) {
                    deliver(&to, message);
                    continue;
                }
                let delay = state.draw(u64::try_from(trouble.delay.as_millis()).unwrap_or(u64::MAX));
                let to = to.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                    deliver(&to, message);
                });
            }
        }
    }

    fn subscribe(&self) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.hub.lock().receivers.push((self.number, sender));
        receiver
    }

    fn state(&self) -> watch::Receiver<bool> {
        self.hub.lock().connected[self.number].subscribe()
    }
}
