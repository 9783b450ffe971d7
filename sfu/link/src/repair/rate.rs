//! Congestion control of the link: delay first, loss hardly at all.
//!
//! The rate rises while the queue's delay stays small, the faster the longer it did, and falls below what is delivered when it
//! does not, the further the longer the queue is. Random loss does not lower it: a queue that overflows shows its delay before.
//! What is delivered bounds the rate from above when the source sends less than it might, so that an estimate is never far
//! from what was seen. At first little is sent, and the rate doubles quickly until a queue is seen.

use std::collections::VecDeque;

use super::Micros;

/// Delay in queues that is aimed at, at most, µs; more where one packet takes long, or delays wander by themselves.
const TARGET_QUEUE: Micros = 14_000;
/// Bits of a packet.
const PACKET: f64 = 9_600.0;
/// A queue a packet's time over what is aimed at, at most so much, is not that of one frame, µs.
const FAR_OVER: Micros = 60_000;
/// A packet that takes longer is not believed to, µs.
const MOST_TAKEN: Micros = 100_000;
/// A wait that is more than chance before jitter is known, µs.
const SEEN_AT_FIRST: Micros = 10_000;
/// Window of the delivered rate, µs, and arrivals that are wanted for it.
const WINDOW: Micros = 200_000;
const FEWEST: usize = 16;
const MOST_SAMPLES: usize = 4096;
/// A queue is drained in so long and a round trip, µs.
const DRAIN: f64 = 300_000.0;
/// Rise of the logarithm in a second: at first, below the last limit, at most above it, and just after a queue was seen.
const AT_FIRST: f64 = 2.8;
const BELOW: f64 = 1.4;
const MOST: f64 = 1.4;
const CAREFUL: f64 = 0.1;
/// And at first, where exploring found no more.
const DOUBTFUL: f64 = 0.5;
/// Less is not believed of a path by exploring alone, bits a second.
const LEAST_TOLD: f64 = 100_000.0;
/// Most paths take so much, bits a second: above it the first rise is slower where it takes long to see what it does.
const ORDINARY: f64 = 1e6;
/// More is not believed by exploring alone, bits a second.
const EXPLORED: f64 = 6e6;
/// In a round trip the rate falls to so much of what it was, at least.
const MOST_FALL: f64 = 0.3;
/// A round trip that is shorter is no time to see it, µs.
const LEAST_ROUND: Micros = 150_000;
/// Below it, bits a second, a picture takes as long as what is aimed at.
const NARROW: f64 = 300_000.0;
/// Fall of the logarithm in a second where less is sent than the rate allows.
const FADE: f64 = 0.1;
/// The careful rise doubles in so long without a queue and twenty packets' times, or three round trips, µs.
const BOLDER: f64 = 500_000.0;

/// Bits a second.
pub type Bps = u64;

/// Bounds of the rate.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub start: Bps,
    pub least: Bps,
    pub most: Bps,
}

/// What hardly any path is too narrow for.
const FEW: Bps = 250_000;

impl Default for Bounds {
    fn default() -> Self {
        Self {
            start: FEW,
            least: 64_000,
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
    /// What was delivered when a queue was last too long; `None` before.
    ceiling: Option<f64>,
    calm_since: Micros,
    /// More was found by exploring than is tried at first.
    explored: bool,
    /// No more was: what it told, bits a second.
    told: Option<f64>,
    slowed: Micros,
    /// When it began to fall, and from what, bits a second.
    fell: (Micros, f64),
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
            ceiling: None,
            calm_since: 0,
            explored: false,
            told: None,
            slowed: 0,
            fell: (0, 0.0),
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
        while self.arrivals.len() > MOST_SAMPLES
            || self.arrivals.len() > FEWEST
                && self
                    .arrivals
                    .front()
                    .is_some_and(|&(first, _)| first + WINDOW < at)
        {
            if let Some((_, bytes)) = self.arrivals.pop_front() {
                self.arrived -= bytes;
            }
        }
    }

    /// How long a packet of so many bytes takes at the bottleneck, as far as one was seen, µs.
    pub fn takes(&self, bytes: usize) -> Micros {
        self.ceiling
            .map_or(0, |ceiling| (bytes as f64 * 8e6 / ceiling) as Micros)
            .min(MOST_TAKEN)
    }

    /// When the rate was last found too high, µs; 0 for never.
    pub fn slowed(&self) -> Micros {
        self.slowed
    }

    /// What was delivered lately, bits a second.
    pub fn delivered(&self) -> f64 {
        let (Some(&(first, size)), Some(&(last, _))) = (self.arrivals.front(), self.arrivals.back()) else {
            return 0.0;
        };
        let span = last.saturating_sub(first).max(WINDOW / 5);
        (self.arrived - size) as f64 * 8e6 / span as f64
    }

    /// What the first arrivals say: where the path took less than was sent and kept it waiting so long (µs), it takes no more.
    pub fn begin(&mut self, waited: Micros, jitter: Micros, rtt: Micros, loss: f64) {
        if self.explored || self.told.is_some() {
            // What is sent now is far less.
            return;
        }
        let through = self.delivered() / (1.0 - loss.min(0.9));
        if waited > SEEN_AT_FIRST + 3 * jitter + rtt / 10 && through < 0.75 * self.rate {
            self.ceiling = Some(through.max(1.0));
            self.rate = (through * 0.8).max(self.bounds.least as f64);
        }
    }

    /// The path was seen to take so much, at least; less than is tried at first where it is narrow.
    pub fn explored(&mut self, bps: f64) {
        self.explored |= bps > self.rate;
        if !self.explored {
            // It is begun with until more gets through.
            self.told = Some(bps);
            self.rate = (bps * 1.2).max(LEAST_TOLD).min(self.rate);
            return;
        }
        self.told = None;
        self.rate = self.rate.max(bps.min(EXPLORED));
        self.bounds.start = self.rate as Bps;
        // A burst is no measure of what gets through for long.
        self.arrivals.clear();
        self.arrived = 0;
    }

    /// After a long silence the path may be another: half of the rate is tried.
    pub fn resume(&mut self) {
        self.rate = (self.rate / 2.0).max((self.bounds.start as f64).min(self.rate));
        self.arrivals.clear();
        self.arrived = 0;
    }

    /// Decides anew after a feedback. `queue`, `jitter` and `rtt` in µs; `loss` is the share that is lost now.
    pub fn update(&mut self, now: Micros, queue: Micros, jitter: Micros, rtt: Micros, loss: f64) {
        let passed = self.updated.map_or(0, |at| now.saturating_sub(at)).min(100_000);
        self.updated = Some(now);
        // A longer path's delay wanders more without any queue of ours.
        let packet = (PACKET * 1e6 / self.rate.max(1.0)) as Micros;
        // Where a frame is a packet or two, more of the wait is its own.
        let own = if self.rate < NARROW {
            packet / 3 + 12_000
        } else {
            packet / 6
        }
        .min(52_000);
        let target = TARGET_QUEUE + jitter.min(15_000) + (rtt / 5).min(106_000) + own;
        if queue < target * 7 / 10 {
            self.random = loss;
        } else {
            self.calm_since = now;
        }
        // What the sender must put in for so much to come out.
        let through = self.delivered() / (1.0 - self.random.min(0.9));
        if queue > target {
            self.slow(now, queue, target, through, rtt, packet);
        } else {
            let calm = now.saturating_sub(self.calm_since) as f64
                / (BOLDER + 20.0 * packet as f64).max(3.0 * rtt as f64);
            let room = 1.0 - queue as f64 / target as f64;
            self.rise(passed as f64 / 1e6, calm, through, rtt, room);
        }
        self.rate = self.rate.clamp(self.bounds.least as f64, self.bounds.most as f64);
    }

    fn slow(
        &mut self,
        now: Micros,
        queue: Micros,
        target: Micros,
        through: f64,
        rtt: Micros,
        packet: Micros,
    ) {
        let over = (queue - target / 2) as f64 / (DRAIN + rtt as f64);
        if now >= self.fell.0 + rtt.max(LEAST_ROUND) {
            self.fell = (now, self.rate);
        }
        // What was delivered just before may be little because little was sent, or because a busy machine read nothing for a
        // moment: a round trip shows what the first fall does.
        let slower = (through * (1.0 - over).max(0.3)).max(self.fell.1 * MOST_FALL);
        if queue > target + packet.min(FAR_OVER) {
            self.slowed = now;
            self.ceiling = Some(through.max(slower).max(1.0));
            self.rate = slower.min(self.rate);
        } else if now >= self.slowed + rtt.max(100_000) {
            // A short queue may be that of one frame after a pause, and what was delivered in the pause says little.
            self.slowed = now;
            let slower = slower.max(self.rate * 0.85);
            self.ceiling = Some(through.max(slower));
            self.rate = slower.min(self.rate);
        }
    }

    fn rise(&mut self, seconds: f64, calm: f64, through: f64, rtt: Micros, room: f64) {
        // The longer it takes to see what a rise does, the slower it goes.
        let pace = (150_000.0 / rtt.max(1) as f64).min(1.0);
        let (factor, reach) = match self.ceiling {
            None if self.told.is_some_and(|told| self.rate < told * 2.0) => (DOUBTFUL, 0.1),
            None if self.rate < ORDINARY => (BELOW + (AT_FIRST - BELOW) * pace, 1.2),
            None => (BELOW * pace.sqrt() + (AT_FIRST - BELOW) * pace * pace, 1.2),
            Some(ceiling) if self.rate < ceiling * 0.85 => (BELOW, 0.1),
            Some(_) => ((CAREFUL * calm.exp2()).min(MOST), 0.1),
        };
        let risen = self.rate * (factor * pace * room * seconds).exp();
        // Not further from what is seen to get through than this.
        let known = if self.ceiling.is_none() {
            self.bounds.start
        } else {
            self.bounds.start.min(FEW)
        };
        let bound = (through * (1.2 + reach * pace)).max(known as f64);
        self.rate = if self.rate < bound {
            risen.min(bound)
        } else {
            // What was seen long ago is believed less and less.
            (self.rate * (-FADE * seconds).exp()).max(bound)
        };
    }
}
