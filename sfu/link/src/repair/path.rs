//! What feedback tells of the path: round trip, one-way delay over its least, and jitter.
//!
//! The receiver's clock is a stranger: only differences of one-way delay count. The least one-way delay is that of the last
//! ten to twenty seconds, so that a changed route, or clocks that drift, are forgotten. The round trip is of our clock alone:
//! a queue that it does not show is not believed.

use super::Micros;

/// How long a least delay is believed, at least, µs.
const EPOCH: Micros = 10_000_000;
/// The queue's delay is the least of the samples of this long, µs: jitter adds to a delay and takes nothing away.
const WINDOW: Micros = 50_000;
/// And of no fewer than so many, as long as they are not stale.
const FEWEST: usize = 1;
/// A queue that was not seen for so long may be gone, µs.
const STALE: Micros = 400_000;
/// So much of a queue is believed although the round trip does not show it, µs: ages are coarse.
const UNSEEN: Micros = 10_000;
/// Samples kept for it.
const MOST: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Recent {
    at: Micros,
    delay: i64,
    rtt: Micros,
}

/// Estimates of one direction of a path.
#[derive(Debug, Clone, Default)]
pub struct Path {
    /// Smoothed round trip without the receiver's waiting, µs.
    rtt: Option<Micros>,
    /// The least of the last epoch, and of this one, µs.
    least_rtt: Option<(Micros, Micros)>,
    /// Receiver's clock less ours at arrival: signed, µs.
    least: Option<(i64, i64)>,
    epoch: Micros,
    recent: std::collections::VecDeque<Recent>,
    /// Smoothed difference of neighbouring delays, µs.
    jitter: Micros,
    last: Option<i64>,
    /// Smoothed delay that is neither the least nor our own doing, and its deviation, µs.
    residual: i64,
    deviation: i64,
}

impl Path {
    /// One arrival that was told: sent at `sent` of our clock, arrived at `arrived` of the receiver's; told now, the receiver
    /// having waited `age`. `takes`: how long itself takes at the bottleneck; `ahead`: how long our own sending kept it waiting at the bottleneck, as far as is known, µs.
    pub fn sample(
        &mut self,
        now: Micros,
        sent: Micros,
        arrived: Micros,
        age: Micros,
        takes: Micros,
        ahead: Micros,
    ) {
        let rtt = now.saturating_sub(sent).saturating_sub(age);
        self.rtt = Some(self.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
        let delay = arrived
            .cast_signed()
            .wrapping_sub(sent.cast_signed())
            .wrapping_sub(takes.cast_signed());
        if let Some(last) = self.last.replace(delay) {
            let moved = delay.abs_diff(last);
            self.jitter = (self.jitter * 15 + moved.min(200_000)) / 16;
        }
        if now >= self.epoch + EPOCH {
            self.epoch = now;
            self.least = self.least.map(|(_, current)| (current, i64::MAX));
            self.least_rtt = self.least_rtt.map(|(_, current)| (current, Micros::MAX));
        }
        let (before, current) = self.least_rtt.unwrap_or((Micros::MAX, Micros::MAX));
        self.least_rtt = Some((before, current.min(rtt)));
        let (old, current) = self.least.unwrap_or((i64::MAX, i64::MAX));
        self.least = Some((old, current.min(delay)));
        let least = old.min(current).min(delay);
        let residual = (delay - least - ahead.saturating_sub(takes).cast_signed()).clamp(0, 500_000);
        self.deviation += (residual.abs_diff(self.residual).cast_signed() - self.deviation) / 16;
        self.residual += (residual - self.residual) / 8;
        self.recent.push_back(Recent { at: now, delay, rtt });
        while self.recent.len() > MOST
            || self.recent.len() > FEWEST && self.recent.front().is_some_and(|first| first.at + WINDOW < now)
        {
            self.recent.pop_front();
        }
    }

    /// Forgets a queue that was seen long ago: without samples nothing is known of it.
    pub fn settle(&mut self, now: Micros) {
        if self.recent.back().is_some_and(|last| last.at + STALE < now) {
            self.recent.clear();
        }
    }

    /// Smoothed round trip, µs; a guess before the first sample.
    pub fn rtt(&self) -> Micros {
        self.rtt.unwrap_or(100_000)
    }

    /// The least round trip of the last ten to twenty seconds, µs; 0 before the first sample.
    pub fn least_rtt(&self) -> Micros {
        self.least_rtt.map_or(0, |(old, current)| old.min(current))
    }

    /// Smoothed difference of neighbouring one-way delays, µs.
    pub fn jitter(&self) -> Micros {
        self.jitter
    }

    /// Deviation of delays that is not our own doing, µs.
    pub fn deviation(&self) -> Micros {
        self.deviation.unsigned_abs()
    }

    fn least(&self) -> Option<i64> {
        self.least.map(|(old, current)| old.min(current))
    }

    /// The delay in queues now: of the last samples the least, over the least of all, µs.
    pub fn queue(&self) -> Micros {
        let Some(least) = self.least() else { return 0 };
        let delay = self.recent.iter().map(|recent| recent.delay).min();
        let rtt = self.recent.iter().map(|recent| recent.rtt).min();
        let (Some(delay), Some(rtt)) = (delay, rtt) else {
            return 0;
        };
        let one_way = delay.saturating_sub(least).max(0).unsigned_abs();
        one_way.min(rtt.saturating_sub(self.least_rtt()) + UNSEEN)
    }

    /// How much longer than the least the newest took, µs.
    pub fn waited(&self) -> Micros {
        let (Some(least), Some(last)) = (self.least(), self.last) else {
            return 0;
        };
        last.saturating_sub(least).max(0).unsigned_abs()
    }

    /// By when a datagram sent at `sent`, with `ahead` of our own before it, has arrived, by the receiver's clock, if it is
    /// not lost: a deviation over what is expected. `None` before the first sample.
    pub fn arrival(&self, sent: Micros, ahead: Micros) -> Option<Micros> {
        let delay = self.least()? + self.residual + self.deviation;
        Some(sent.saturating_add_signed(delay) + ahead)
    }

    /// One way, µs: half of the least round trip, and the queue.
    pub fn one_way(&self) -> Micros {
        if self.rtt.is_none() {
            return 50_000;
        }
        self.least_rtt() / 2 + self.queue()
    }
}
