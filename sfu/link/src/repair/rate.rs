//! Congestion control of the link: delay first, loss hardly at all.
//!
//! The rate rises while the queue's delay stays small, and falls to what is delivered when it does not. Random loss does not
//! lower it: a queue that overflows shows its delay before. What is delivered bounds the rate from above when the source
//! sends less than it might, so that an estimate is never far from what was seen.

use std::collections::VecDeque;

use super::Micros;

/// Delay in queues that is aimed at, at most, µs.
const TARGET_QUEUE: Micros = 40_000;
/// Window of the delivered rate, µs.
const WINDOW: Micros = 400_000;
const MOST_SAMPLES: usize = 4096;
/// Between two decisions to slow down at least this, µs.
const HOLD: Micros = 80_000;

/// Bits a second.
pub type Bps = u64;

/// Bounds of the rate.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub start: Bps,
    pub least: Bps,
    pub most: Bps,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            start: 1_000_000,
            least: 40_000,
            most: 100_000_000,
        }
    }
}

/// The rate of one direction.
#[derive(Debug, Clone)]
pub struct Rate {
    bounds: Bounds,
    rate: f64,
    /// When, and bytes that arrived.
    arrivals: VecDeque<(Micros, usize)>,
    arrived: usize,
    /// Loss while queues were short: what is random.
    random: f64,
    updated: Option<Micros>,
    slowed: Micros,
    /// The rate at the last slowing down: near it, it rises slower.
    ceiling: f64,
    calm_since: Micros,
}

impl Rate {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            rate: bounds.start as f64,
            arrivals: VecDeque::new(),
            arrived: 0,
            random: 0.0,
            updated: None,
            slowed: 0,
            ceiling: f64::INFINITY,
            calm_since: 0,
        }
    }

    /// Bits a second that may be sent, all headers included.
    pub fn get(&self) -> Bps {
        self.rate as Bps
    }

    /// So many bytes were told to have arrived at `at` (any clock that runs as ours).
    pub fn arrived(&mut self, at: Micros, bytes: usize) {
        self.arrivals.push_back((at, bytes));
        self.arrived += bytes;
        let newest = at;
        while self.arrivals.len() > MOST_SAMPLES
            || self
                .arrivals
                .front()
                .is_some_and(|&(first, _)| first + WINDOW < newest)
        {
            if let Some((_, bytes)) = self.arrivals.pop_front() {
                self.arrived -= bytes;
            }
        }
    }

    /// When the rate was last found too high, µs; 0 for never.
    pub fn slowed(&self) -> Micros {
        self.slowed
    }

    /// What was delivered lately, bits a second.
    pub fn delivered(&self) -> f64 {
        let (Some(&(first, _)), Some(&(last, _))) = (self.arrivals.front(), self.arrivals.back()) else {
            return 0.0;
        };
        let span = last.saturating_sub(first).max(100_000);
        self.arrived as f64 * 8e6 / span as f64
    }

    /// Decides anew after a feedback. `queue`, `jitter` and `rtt` in µs; `loss` is the share that is lost now.
    pub fn update(&mut self, now: Micros, queue: Micros, jitter: Micros, rtt: Micros, loss: f64) {
        // A longer path's delay wanders more without any queue of ours.
        let passed = self.updated.map_or(0, |at| now.saturating_sub(at)).min(100_000);
        self.updated = Some(now);
        let target = TARGET_QUEUE + jitter.min(30_000) + (rtt / 10).min(50_000);
        if queue < target / 2 {
            self.random += (loss - self.random) * (passed as f64 / 2e6).min(1.0);
        }
        // What the sender must put in for so much to come out.
        let through = self.delivered() / (1.0 - self.random.min(0.9));
        if queue > target {
            self.calm_since = now;
            if now >= self.slowed + HOLD.max(rtt) {
                self.slowed = now;
                self.ceiling = through.max(1.0);
                // The longer the queue, the more is left to drain it.
                let over = (queue - target) as f64 / 400_000.0;
                let factor = (0.92 - over).clamp(0.5, 0.92);
                self.rate = (through * factor).min(self.rate);
            }
        } else if queue < target / 2 || now >= self.calm_since + 200_000 {
            self.rise(now, passed, through, rtt);
        }
        self.rate = self.rate.clamp(self.bounds.least as f64, self.bounds.most as f64);
    }

    fn rise(&mut self, now: Micros, passed: Micros, through: f64, rtt: Micros) {
        let seconds = passed as f64 / 1e6;
        // The longer it takes to see what a rise does, the slower it goes.
        let pace = (150_000.0 / rtt.max(1) as f64).min(1.0);
        let near = self.rate > self.ceiling * 0.85 && self.rate < self.ceiling * 1.1;
        // Near the last limit 12 % a second; elsewhere it doubles in half a second.
        let factor = if near && now < self.slowed + 6_000_000 {
            0.12
        } else {
            1.4
        };
        let risen = self.rate * (factor * pace * seconds).exp();
        // Not further from what is seen to get through than this.
        let bound = (through * (1.2 + 0.4 * pace)).max(self.bounds.start as f64);
        self.rate = risen.min(bound.max(self.rate));
    }
}
