//! How long to wait before trying again: doubling from 0.2 s to 5 s, each with jitter, so that 140 agents that lost the
//! same relay do not come back in step. Randomness comes in.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// The waits after failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `random` is in `0.0..1.0` and takes up to half of the wait away.
    pub fn next(&mut self, random: f64) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// It worked: the next failure starts at the shortest wait again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds_and_start_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(backoff.next(1.0).as_millis(), 2500);
        backoff.reset();
        assert_eq!(backoff.next(0.5).as_millis(), 150);
    }

    #[test]
    fn years_of_failures_do_not_overflow() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next(0.0), LONGEST);
    }
}
