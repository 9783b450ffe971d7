//! Who goes through a TLS handshake first when more connect at once than there is time for.
//!
//! A handshake costs most of what it costs to let somebody in, and only after it is it proved who they are: the line
//! goes by what a ClientHello asks for. Invariants: so many are under way at a time; of four turns one goes to whoever has
//! waited longest, so that nobody is passed over for ever by some who claim to be first; who goes away leaves no
//! gap. How many may wait is bounded by how many connections there may be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Handshakes under way at a time. Most of one is the way to the peer and back, so there are more than cores.
const AT_ONCE: usize = 64;
/// Of so many turns one goes by age alone.
const BY_AGE: u64 = 4;

/// Rank, 0 the first, and when it came.
type Place = (u8, u64);

#[derive(Default)]
struct State {
    under_way: usize,
    waiting: BTreeMap<Place, oneshot::Sender<Turn>>,
    came: u64,
    turns: u64,
}

/// The line of one port. Clones share it.
#[derive(Clone, Default)]
pub struct Line(Arc<Mutex<State>>);

/// The right to go on; dropping it gives the turn to the next.
pub struct Turn {
    line: Line,
    held: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.held {
            self.line.next();
        }
    }
}

/// Leaves the line when it is dropped.
struct Waiting<'a> {
    line: &'a Line,
    place: Place,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.lock().waiting.remove(&self.place);
    }
}

impl Line {
    /// Waits for the turn of this rank, 0 the first.
    pub async fn turn(&self, rank: u8) -> Turn {
        let (turn, waiting) = {
            let mut state = self.lock();
            if state.under_way < AT_ONCE {
                state.under_way += 1;
                return self.new_turn();
            }
            metrics::counter!("muster_handshakes_queued").increment(1);
            let (tell, turn) = oneshot::channel();
            state.came += 1;
            let place = (rank, state.came);
            state.waiting.insert(place, tell);
            (turn, Waiting { line: self, place })
        };
        let turn = turn.await;
        drop(waiting);
        match turn {
            Ok(turn) => turn,
            // Never dropped unused while somebody waits; if it were, going on is right, without the place of another.
            Err(_) => Turn {
                line: self.clone(),
                held: false,
            },
        }
    }

    fn new_turn(&self) -> Turn {
        Turn {
            line: self.clone(),
            held: true,
        }
    }

    fn next(&self) {
        loop {
            let first = {
                let mut state = self.lock();
                let Some(first) = state.pop() else {
                    state.under_way -= 1;
                    return;
                };
                first
            };
            match first.send(self.new_turn()) {
                Ok(()) => return,
                // It went away at this moment: the turn goes on to the next.
                Err(mut turn) => turn.held = false,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.turns += 1;
        if !self.turns.is_multiple_of(BY_AGE) {
            return self.waiting.pop_first().map(|(_, tell)| tell);
        }
        // The first of each rank is its oldest.
        let mut oldest: Option<Place> = None;
        let mut from = 0;
        while let Some((&(rank, came), _)) = self.waiting.range((from, 0)..).next() {
            if oldest.is_none_or(|(_, first)| came < first) {
                oldest = Some((rank, came));
            }
            let Some(next) = rank.checked_add(1) else {
                break;
            };
            from = next;
        }
        self.waiting.remove(&oldest?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::future::Future;
    use std::pin::Pin;

    type Coming<'a> = Pin<Box<dyn Future<Output = Turn> + 'a>>;

    fn full(line: &Line) -> Vec<Turn> {
        let turn = || line.turn(3).now_or_never().expect("room");
        (0..AT_ONCE).map(|_| turn()).collect()
    }

    fn wait(line: &Line, rank: u8) -> Coming<'_> {
        let mut coming: Coming<'_> = Box::pin(line.turn(rank));
        assert!(coming.as_mut().now_or_never().is_none(), "it does not wait");
        coming
    }

    #[test]
    fn the_first_in_rank_go_first_and_every_fourth_turn_goes_to_the_oldest() {
        let line = Line::default();
        let mut inside = full(&line);
        let ranks = [3, 2, 0, 0, 1, 0, 0, 0];
        let mut waiting: Vec<_> = ranks.iter().map(|&rank| Some(wait(&line, rank))).collect();
        let mut order = Vec::new();
        let mut turns = Vec::new();
        for _ in 0..ranks.len() {
            drop(inside.pop());
            for (number, coming) in waiting.iter_mut().enumerate() {
                if let Some(turn) = coming.as_mut().and_then(|coming| coming.now_or_never()) {
                    order.push(number);
                    turns.push(turn);
                    *coming = None;
                }
            }
        }
        assert_eq!(order, [2, 3, 5, 0, 6, 7, 4, 1]);
    }

    #[test]
    fn who_goes_away_leaves_no_gap() {
        let line = Line::default();
        let mut inside = full(&line);
        drop(wait(&line, 0));
        assert!(line.lock().waiting.is_empty());
        let unread = wait(&line, 0);
        let mut last = wait(&line, 3);
        drop(inside.pop());
        // Its turn was given, and never taken.
        drop(unread);
        let turn = last.as_mut().now_or_never().expect("its turn");
        drop((last, turn, inside));
        assert_eq!(line.lock().under_way, 0);
    }
}
