//! A way that so many may go at a time, where who has tried least goes first.
//!
//! Invariants: so many wait; where there is no room, who has tried most gives way, and of equals one by lot, so that a crowd
//! gains nothing by being early. Those that are known go before strangers and never give way to them. Who goes away leaves no gap.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// A place in the order: the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Neither the device nor the address has signed in before.
    pub stranger: bool,
    /// What was tried from there lately.
    pub tries: u32,
}

type Place = (Rank, u64);

#[derive(Default)]
struct State {
    under_way: usize,
    waiting: BTreeMap<Place, oneshot::Sender<Turn>>,
}

/// The way. Cloning shares it.
#[derive(Clone)]
pub struct Turnstile {
    at_once: usize,
    most_waiting: usize,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Turnstile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turnstile({} at once)", self.at_once)
    }
}

/// The right to go; dropping it lets the next one go.
pub struct Turn {
    of: Turnstile,
    held: bool,
}

/// There was no room, or it took too long.
#[derive(Debug, PartialEq, Eq)]
pub struct Crowded;

struct Waiting<'a> {
    at: &'a Turnstile,
    place: Place,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.at.lock().waiting.remove(&self.place);
    }
}

impl Turnstile {
    pub fn new(at_once: usize, most_waiting: usize) -> Self {
        Self {
            at_once,
            most_waiting,
            state: Arc::default(),
        }
    }

    /// Waits for a turn, so long at most.
    pub async fn enter(&self, rank: Rank, longest: Duration) -> Result<Turn, Crowded> {
        let (turn, waiting) = {
            let mut state = self.lock();
            if state.under_way < self.at_once {
                state.under_way += 1;
                return Ok(self.turn());
            }
            let place = (rank, rand::random());
            if state.waiting.len() >= self.most_waiting {
                match state.waiting.last_entry() {
                    // Its wait ends at this.
                    Some(last) if place < *last.key() => drop(last.remove()),
                    _ => return Err(Crowded),
                }
            }
            let (tell, turn) = oneshot::channel();
            state.waiting.insert(place, tell);
            (turn, Waiting { at: self, place })
        };
        let turn = tokio::time::timeout(longest, turn).await;
        drop(waiting);
        turn.ok().and_then(Result::ok).ok_or(Crowded)
    }

    fn turn(&self) -> Turn {
        Turn {
            of: self.clone(),
            held: true,
        }
    }

    fn next(&self) {
        loop {
            let first = {
                let mut state = self.lock();
                let Some((_, first)) = state.waiting.pop_first() else {
                    state.under_way -= 1;
                    return;
                };
                first
            };
            match first.send(self.turn()) {
                Ok(()) => return,
                Err(mut turn) => turn.held = false,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Keeps the next one waiting for so long.
    pub fn keep_for(self, pace: Duration) {
        tokio::spawn(async move {
            tokio::time::sleep(pace).await;
            drop(self);
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.held {
            self.of.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const LONG: Duration = Duration::from_secs(30);

    fn rank(stranger: bool, tries: u32) -> Rank {
        Rank { stranger, tries }
    }

    #[tokio::test]
    async fn the_known_go_first_then_who_has_tried_least_and_the_greediest_gives_way() {
        let way = Turnstile::new(1, 3);
        let inside = way.enter(rank(true, 9), LONG).await.expect("room");
        let mut waiting: Vec<_> = [(true, 5), (true, 7), (false, 9)]
            .map(|(stranger, tries)| Box::pin(way.enter(rank(stranger, tries), LONG)))
            .into_iter()
            .collect();
        for coming in &mut waiting {
            assert!(coming.as_mut().now_or_never().is_none(), "it does not wait");
        }
        assert!(way.enter(rank(true, 8), LONG).await.is_err(), "no room");
        let mut fresh = Box::pin(way.enter(rank(true, 0), LONG));
        assert!(fresh.as_mut().now_or_never().is_none());
        let gone = waiting[1].as_mut().now_or_never().expect("told");
        assert!(gone.is_err(), "who has tried most gives way");
        drop(inside);
        let known = waiting[2].as_mut().now_or_never().expect("its turn");
        assert!(fresh.as_mut().now_or_never().is_none());
        drop(known);
        let turn = fresh.as_mut().now_or_never().expect("its turn");
        drop((turn, fresh, waiting));
        assert_eq!(way.lock().under_way, 0);
    }

    #[tokio::test]
    async fn a_wait_is_bounded_and_leaves_nothing() {
        let way = Turnstile::new(1, 3);
        let inside = way.enter(rank(true, 0), LONG).await.expect("room");
        let wait = way.enter(rank(true, 0), Duration::from_millis(10)).await;
        assert!(wait.is_err());
        assert!(way.lock().waiting.is_empty());
        inside.keep_for(Duration::from_millis(10));
        assert!(way.enter(rank(true, 0), LONG).await.is_ok());
    }
}
