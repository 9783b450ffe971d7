//! Legs by the time of their next turn, be it a timeout or that the pacer lets more go, so that nobody looks through all
//! of them each millisecond.
//!
//! An entry is a hint: a leg knows the time of its turn itself, and entries of other times are passed over. A leg enters
//! anew only for an earlier time, so there are few of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

#[derive(Default)]
pub(crate) struct Backlog(BinaryHeap<Reverse<(Instant, usize)>>);

impl Backlog {
    /// The leg of this index has its turn at `at`.
    pub fn enter(&mut self, at: Instant, index: usize) {
        self.0.push(Reverse((at, index)));
    }

    /// When the next turn is.
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// A leg whose turn has come, and when it was to be.
    pub fn due(&mut self, now: Instant) -> Option<(Instant, usize)> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop().map(|Reverse(turn)| turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn turns_come_in_order_and_not_before_their_time() {
        let (t, ms) = (Instant::now(), Duration::from_millis(1));
        let mut backlog = Backlog::default();
        backlog.enter(t + 2 * ms, 1);
        backlog.enter(t + ms, 2);
        backlog.enter(t + 3 * ms, 3);
        assert_eq!(backlog.next(), Some(t + ms));
        assert_eq!(backlog.due(t), None);
        assert_eq!(backlog.due(t + 2 * ms), Some((t + ms, 2)));
        assert_eq!(backlog.due(t + 2 * ms), Some((t + 2 * ms, 1)));
        assert_eq!(backlog.due(t + 2 * ms), None);
        assert_eq!(backlog.next(), Some(t + 3 * ms));
    }
}
