//! Who is let in first when more endpoints attach at once than can be served: command seats before communities.
//!
//! Invariants: so many are let in at a time, so many wait, ordered by tier and then by their coming; where there is no room
//! the lowest tier is told to come again, and when, spread so that they do not all come at the same moment. Who goes away
//! while waiting gives the place to the next. Handshakes come before this: who somebody is, is known only after one.

use muster_domain::Tier;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Endpoints that are being attached at a time.
const AT_ONCE: usize = 16;
/// Endpoints that wait for it.
const MOST_WAITING: usize = 256;
/// The shortest wait that is told, by tier from the city down.
const WAITS_MS: [u64; 4] = [100, 300, 700, 1500];
/// Waits of one tier are spread over so many steps.
const STEPS: u64 = 16;
const STEP_MS: u64 = 60;

type Answer = Result<Pass, Duration>;

#[derive(Default)]
struct State {
    under_way: usize,
    /// By rank, then by their coming.
    waiting: BTreeMap<(usize, u64), oneshot::Sender<Answer>>,
    came: u64,
    turned_away: u64,
}

/// The door. Cloning shares it.
#[derive(Clone, Default)]
pub struct Admission(Arc<Mutex<State>>);

/// The right to attach now; dropping it lets the next one in.
pub struct Pass {
    door: Admission,
    held: bool,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.held {
            self.door.next();
        }
    }
}

fn rank(tier: Tier) -> usize {
    match tier {
        Tier::City => 0,
        Tier::District => 1,
        Tier::Street => 2,
        Tier::Community => 3,
    }
}

impl Admission {
    /// Waits for its turn.
    ///
    /// # Errors
    /// How long to stay away before the next try.
    pub async fn enter(&self, tier: Tier) -> Answer {
        let rank = rank(tier);
        let turn = {
            let mut state = self.lock();
            if state.under_way < AT_ONCE {
                state.under_way += 1;
                return Ok(self.pass());
            }
            if state.waiting.len() >= MOST_WAITING {
                let lowest = state.waiting.last_key_value().map(|(&(rank, _), _)| rank);
                let wait = state.wait_of(lowest.unwrap_or(rank).max(rank));
                if lowest.is_none_or(|lowest| lowest <= rank) {
                    return Err(wait);
                }
                if let Some((_, lowest)) = state.waiting.pop_last() {
                    // Who has gone meanwhile need not be told.
                    let _ = lowest.send(Err(wait));
                }
            }
            let (tell, turn) = oneshot::channel();
            state.came += 1;
            let place = (rank, state.came);
            state.waiting.insert(place, tell);
            turn
        };
        // The sender is never dropped unused; if it were, coming again is right.
        turn.await.unwrap_or(Err(Duration::from_millis(WAITS_MS[rank])))
    }

    fn pass(&self) -> Pass {
        Pass {
            door: self.clone(),
            held: true,
        }
    }

    /// One who was under way is done: the first who waits takes the place.
    fn next(&self) {
        loop {
            let first = {
                let mut state = self.lock();
                match state.waiting.pop_first() {
                    Some((_, first)) => first,
                    None => {
                        state.under_way -= 1;
                        return;
                    }
                }
            };
            match first.send(Ok(self.pass())) {
                Ok(()) => return,
                // It went away while it waited: the place is not given back twice.
                Err(Ok(mut pass)) => pass.held = false,
                Err(Err(_)) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait_of(&mut self, rank: usize) -> Duration {
        self.turned_away += 1;
        metrics::counter!("muster_endpoints_told_to_wait").increment(1);
        let step = self.turned_away % STEPS * STEP_MS;
        Duration::from_millis(WAITS_MS[rank.min(WAITS_MS.len() - 1)] + step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::future::Future;
    use std::pin::Pin;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Answer> + 'a>>;

    fn wait(door: &Admission, tier: Tier) -> Waiting<'_> {
        let mut waiting: Waiting<'_> = Box::pin(door.enter(tier));
        assert!(
            waiting.as_mut().now_or_never().is_none(),
            "{tier:?} does not wait"
        );
        waiting
    }

    fn now(door: &Admission, tier: Tier) -> Answer {
        door.enter(tier).now_or_never().expect("an answer at once")
    }

    /// All that may be under way at a time.
    fn full(door: &Admission) -> Vec<Pass> {
        (0..AT_ONCE)
            .map(|_| now(door, Tier::Community).expect("room"))
            .collect()
    }

    #[test]
    fn command_seats_go_first_and_then_who_came_first() {
        let door = Admission::default();
        let mut inside = full(&door);
        let mut community = wait(&door, Tier::Community);
        let mut second = wait(&door, Tier::City);
        let mut third = wait(&door, Tier::City);
        drop(inside.pop());
        let pass = second.as_mut().now_or_never().expect("its turn").expect("in");
        assert!(third.as_mut().now_or_never().is_none());
        drop(pass);
        let pass = third.as_mut().now_or_never().expect("its turn").expect("in");
        assert!(community.as_mut().now_or_never().is_none());
        drop(pass);
        assert!(community.as_mut().now_or_never().expect("its turn").is_ok());
    }

    #[test]
    fn who_finds_no_room_is_told_when_to_come_and_a_command_seat_takes_a_community_s_place() {
        let door = Admission::default();
        let _inside = full(&door);
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| wait(&door, Tier::Community)).collect();
        let told = now(&door, Tier::Community).err().expect("no room");
        assert!(
            told >= Duration::from_millis(1500) && told < Duration::from_millis(2500),
            "{told:?}"
        );
        let _seat = wait(&door, Tier::City);
        let last = waiting.last_mut().expect("waiting").as_mut().now_or_never();
        assert!(
            matches!(last, Some(Err(_))),
            "the last of the lowest tier makes room"
        );
        assert_eq!(door.lock().waiting.len(), MOST_WAITING);
    }

    #[test]
    fn who_goes_away_while_waiting_or_with_a_pass_leaves_no_gap() {
        let door = Admission::default();
        let inside = full(&door);
        drop(wait(&door, Tier::City));
        let unread = wait(&door, Tier::Street);
        let mut last = wait(&door, Tier::Community);
        let mut inside = inside.into_iter();
        // To the one who has gone, on to the next.
        drop(inside.next());
        // Given a pass and gone before it was read.
        drop(unread);
        assert!(last.as_mut().now_or_never().expect("its turn").is_ok());
        drop(last);
        drop(inside);
        let state = door.lock();
        assert_eq!((state.under_way, state.waiting.len()), (0, 0));
    }
}
