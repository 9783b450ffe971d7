//! The estimate of a leg whose peer sends no transport-wide feedback (old gear): its REMB where it
//! sends one, else what the loss in its receiver reports leaves of what is sent.
//!
//! Nothing limits until something speaks against it. Loss with no longer round trip is the path's
//! own up to 40 %, as in `loss`; what is more, or comes with a longer one, is congestion. Reports
//! come once a second and say little: an estimate made of them has a ceiling. Microseconds.

use std::time::Duration;

use super::Bounds;

/// The estimate that reports alone can reach, bits per second.
const CEILING: u64 = 8_000_000;
/// Excess loss, as in `loss`.
const FINE: f64 = 0.02;
const TOO_MUCH: f64 = 0.10;
const MOST_OWN: f64 = 0.4;
/// A round trip longer than the shortest by this is a queue.
const QUEUE: Duration = Duration::from_millis(50);
/// Reports of several SSRCs within this are one.
const LOOK: u64 = 500_000;

pub(crate) struct Fallback {
    bounds: Bounds,
    limit: Option<u64>,
    estimate: Option<f64>,
    shortest: Option<Duration>,
    latest: Option<Duration>,
    loss: f64,
    worst: f64,
    bytes: u64,
    looked: u64,
}

impl Fallback {
    /// The pacing rate while nothing limits, bits per second.
    pub(crate) const UNLIMITED: u64 = 250_000_000;

    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: None,
            estimate: None,
            shortest: None,
            latest: None,
            loss: 0.0,
            worst: 0.0,
            bytes: 0,
            looked: 0,
        }
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(crate) fn reported_limit(&mut self, bps: u64) {
        self.limit = Some(bps.clamp(self.bounds.floor, self.bounds.ceiling));
    }

    pub(crate) fn reported_round_trip(&mut self, round_trip: Duration) {
        self.latest = Some(round_trip);
        // An eighth of a millisecond a report up, so that a longer path is believed in minutes.
        let shortest = self.shortest.map(|s| s + Duration::from_micros(125));
        self.shortest = shortest.map_or(Some(round_trip), |s| Some(s.min(round_trip)));
    }

    pub(crate) fn reported_loss(&mut self, now: u64, fraction: f64, wanted: Option<u64>) {
        self.worst = self.worst.max(fraction.clamp(0.0, 1.0));
        let passed = now.saturating_sub(self.looked);
        if passed < LOOK {
            return;
        }
        let sent = (self.bytes * 8_000_000 / passed) as f64;
        let worst = std::mem::take(&mut self.worst);
        (self.bytes, self.looked) = (0, now);
        self.loss += (worst - self.loss) * 0.5;
        let queued = match (self.latest, self.shortest) {
            (Some(latest), Some(shortest)) => latest > shortest + QUEUE,
            _ => false,
        };
        let excess = if queued {
            worst
        } else {
            ((worst - MOST_OWN) / (1.0 - MOST_OWN)).max(0.0)
        };
        if excess > TOO_MUCH {
            let from = self.estimate.unwrap_or(sent).min(sent.max(1.0));
            self.set(from * (1.0 - 0.7 * excess));
        } else if excess <= FINE
            && let Some(estimate) = self.estimate
        {
            // Half more than is sent, or as far as is wanted.
            let most = (sent * 1.5).max(wanted.unwrap_or(0) as f64);
            self.set((estimate * 1.08).min(most).max(estimate));
        }
    }

    fn set(&mut self, bps: f64) {
        let ceiling = self.bounds.ceiling.min(CEILING);
        self.estimate = Some(bps.clamp(self.bounds.floor as f64, ceiling as f64));
    }

    /// None while nothing limits.
    pub(crate) fn estimate(&self) -> Option<u64> {
        let by_loss = self.estimate.map(|bps| bps as u64);
        self.limit.into_iter().chain(by_loss).min()
    }

    pub(crate) fn loss(&self) -> f64 {
        self.loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const MS: Duration = Duration::from_millis(1);

    /// A second of sending 1 Mbit/s, then a report.
    fn report(fallback: &mut Fallback, second: u64, loss: f64, round_trip: u32) {
        fallback.sent(125_000);
        fallback.reported_round_trip(MS * round_trip);
        fallback.reported_loss(second * SECOND, loss, None);
    }

    #[test]
    fn nothing_limits_until_something_speaks_against_it() {
        let mut fallback = Fallback::new(Bounds::default());
        for second in 1..20 {
            report(&mut fallback, second, 0.2, 50);
        }
        assert_eq!(fallback.estimate(), None, "a fifth lost, and no queue");
        report(&mut fallback, 20, 0.3, 300);
        let estimate = fallback.estimate().expect("a limit");
        assert!((780_000..=800_000).contains(&estimate), "{estimate}");
        for second in 21..60 {
            report(&mut fallback, second, 0.0, 50);
        }
        assert_eq!(fallback.estimate(), Some(1_500_000), "half more than is sent");
    }

    #[test]
    fn heavy_loss_limits_without_a_queue_and_the_peers_word_does_at_once() {
        let mut fallback = Fallback::new(Bounds::default());
        report(&mut fallback, 1, 0.9, 50);
        assert!(fallback.estimate().expect("a limit") < 450_000);
        fallback.reported_limit(300_000);
        assert_eq!(fallback.estimate(), Some(300_000));
        fallback.reported_limit(1);
        assert_eq!(fallback.estimate(), Some(Bounds::default().floor));
    }
}
