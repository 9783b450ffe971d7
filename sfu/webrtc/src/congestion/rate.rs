//! The estimate itself: up a little at a time, down at once (draft-ietf-rmcat-gcc-02, 5.5).
//!
//! Down goes to a share of what arrived. Up is multiplicative while the path's capacity is unknown,
//! and a packet a round trip near it; never beyond what was proved by sending, so that an idle
//! leg's estimate stays where it was. Times in microseconds, rates in bits per second.

use super::Bounds;

/// Down to this share of what arrived, or to the second once the queue is long.
const SHARE: f64 = 0.85;
const SHARE_LONG_QUEUE: f64 = 0.7;
const QUEUE_SHORT: f64 = 50_000.0;
const QUEUE_LONG: f64 = 200_000.0;
/// Growth in a second while the capacity is unknown; and back to a capacity seen before.
const GROWTH: f64 = 1.08;
const RETURN: f64 = 1.5;
/// Growth where nothing but media can show that there is room.
const TRIAL: f64 = 1.25;
/// A capacity seen is believed for this long as something to return to.
const RETURN_WITHIN: u64 = 10_000_000;
/// Decreases this close together are one fall.
const ONE_FALL: u64 = 2_000_000;
/// Of an average packet, in bits, and added to the round trip for its answer.
const PACKET: f64 = 1200.0 * 8.0;
const ANSWER: f64 = 0.1;
/// Without more being sent, an estimate grows no further than this over what arrives.
const PROVED: f64 = 1.5;
const PROVED_MORE: f64 = 10_000.0;

/// The capacity as seen at decreases: mean and relative deviation.
#[derive(Clone, Copy)]
struct Capacity {
    mean: f64,
    deviation: f64,
    seen: u64,
}

/// What allows an estimate to grow.
pub(crate) struct Room {
    /// What arrives, the path's own loss made good.
    pub arrived: f64,
    pub round_trip: f64,
    /// Where only media can prove room: what is wanted.
    pub trial: Option<f64>,
}

pub(crate) struct Rate {
    bounds: Bounds,
    estimate: f64,
    capacity: Option<Capacity>,
    changed: u64,
    decreased: Option<u64>,
    /// The estimate before it fell, and when it fell last.
    before_fall: Option<(f64, u64)>,
}

impl Rate {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            estimate: bounds.start as f64,
            capacity: None,
            changed: 0,
            decreased: None,
            before_fall: None,
        }
    }

    pub(crate) fn bps(&self) -> u64 {
        self.estimate as u64
    }

    /// Less than `ago` has passed since the last decrease.
    pub(crate) fn decreased_within(&self, now: u64, ago: u64) -> bool {
        self.decreased.is_some_and(|at| now - at < ago)
    }

    /// It was decreased, and not before `then`.
    pub(crate) fn decreased_since(&self, then: u64) -> bool {
        self.decreased.is_some_and(|at| at > then)
    }

    /// The rate before the last fall, once; for a probe whether it is there again.
    pub(crate) fn take_before_fall(&mut self) -> Option<(u64, u64)> {
        self.before_fall.take().map(|(bps, at)| (bps as u64, at))
    }

    /// The path takes `arrived`, and more was sent (`full`), or the leg sent less than its
    /// estimate and there is a queue all the same. `queue` in microseconds. `doubt`: it may be no queue;
    /// what arrives then stays.
    pub(crate) fn decrease(&mut self, now: u64, arrived: f64, queue: u64, full: bool, doubt: bool) {
        let long = ((queue as f64 - QUEUE_SHORT) / (QUEUE_LONG - QUEUE_SHORT)).clamp(0.0, 1.0);
        let share = if doubt {
            1.0
        } else {
            SHARE + (SHARE_LONG_QUEUE - SHARE) * long
        };
        let lowest = if full { 0.0 } else { self.estimate * SHARE };
        let to = (arrived * share).max(lowest);
        if full {
            self.saw_capacity(now, arrived);
        }
        self.fall(now, to);
    }

    /// Loss says that `excess` of what was sent is too much, though no queue says so.
    pub(crate) fn decrease_by_loss(&mut self, now: u64, arrived: f64, excess: f64) {
        let to = self.estimate * (1.0 - 0.5 * excess);
        self.fall(now, to.max(arrived * SHARE).min(self.estimate * 0.95));
    }

    fn fall(&mut self, now: u64, to: f64) {
        self.decreased = Some(now);
        self.changed = now;
        if to >= self.estimate {
            return;
        }
        // Steps that follow each other are one fall.
        let before = match self.before_fall {
            Some((before, at)) if now - at < ONE_FALL => before,
            _ => self.estimate,
        };
        self.before_fall = Some((before, now));
        self.set(to);
    }

    fn saw_capacity(&mut self, now: u64, arrived: f64) {
        let capacity = self.capacity.filter(|c| (arrived - c.mean).abs() <= c.spread());
        self.capacity = Some(match capacity {
            None => Capacity {
                mean: arrived,
                deviation: 0.05,
                seen: now,
            },
            Some(c) => {
                let mean = c.mean + 0.05 * (arrived - c.mean);
                let off = ((arrived - mean) / mean).abs();
                Capacity {
                    mean,
                    deviation: (c.deviation + 0.05 * (off - c.deviation)).clamp(0.02, 0.12),
                    seen: now,
                }
            }
        });
    }

    /// Nothing speaks against more; `passed` since the last time is bounded here.
    pub(crate) fn increase(&mut self, now: u64, room: &Room) {
        let passed = (now.saturating_sub(self.changed) as f64 / 1e6).min(1.0);
        self.changed = now;
        if self.capacity.is_some_and(|c| room.arrived > c.mean + c.spread()) {
            self.capacity = None;
        }
        let multiplied = |by: f64| self.estimate * (by.powf(passed) - 1.0);
        let more = match self.capacity {
            Some(c) if self.estimate < c.mean * SHARE && now - c.seen < RETURN_WITHIN => multiplied(RETURN),
            Some(c) if (self.estimate - c.mean).abs() <= c.spread() => {
                (PACKET / (room.round_trip + ANSWER)).max(4_000.0) * passed
            }
            _ if room.trial.is_some_and(|wanted| self.estimate < wanted) => multiplied(TRIAL),
            _ => multiplied(GROWTH).max(1_000.0 * passed),
        };
        let proved = room.arrived * PROVED + PROVED_MORE;
        let limit = room.trial.map_or(proved, |wanted| proved.max(wanted));
        let to = (self.estimate + more).min(limit);
        if to > self.estimate {
            self.set(to);
        }
    }

    /// The estimate stays, and the time passed allows no growth later.
    pub(crate) fn hold(&mut self, now: u64) {
        self.changed = now;
    }

    /// A probe or the peer proved it.
    pub(crate) fn set(&mut self, bps: f64) {
        self.estimate = bps.clamp(self.bounds.floor as f64, self.bounds.ceiling as f64);
    }

    /// A probe proved that the path takes this: what was known of its capacity no longer holds.
    pub(crate) fn raise(&mut self, now: u64, bps: u64) {
        let bps = bps as f64;
        if bps > self.estimate {
            self.capacity = self.capacity.filter(|c| bps <= c.mean + c.spread());
            self.changed = now;
            self.set(bps);
        }
    }
}

impl Capacity {
    fn spread(&self) -> f64 {
        3.0 * self.deviation * self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(arrived: f64) -> Room {
        Room {
            arrived,
            round_trip: 0.05,
            trial: None,
        }
    }

    fn rate(start: u64) -> Rate {
        Rate::new(Bounds {
            start,
            ..Bounds::default()
        })
    }

    #[test]
    fn it_grows_by_a_twelfth_a_second_no_further_than_proved() {
        let mut rate = rate(1_000_000);
        for n in 1..=10 {
            rate.increase(n * 100_000, &room(1_000_000.0));
        }
        assert!((1_070_000..1_090_000).contains(&rate.bps()), "{}", rate.bps());
        for n in 11..=1000 {
            rate.increase(n * 100_000, &room(1_000_000.0));
        }
        assert_eq!(rate.bps(), 1_510_000);
        // What arrives is less now: the estimate stays.
        rate.increase(200_000_000, &room(50_000.0));
        assert_eq!(rate.bps(), 1_510_000);
    }

    #[test]
    fn it_falls_to_what_arrived_and_comes_back_slowly_near_the_capacity() {
        let mut rate = rate(4_000_000);
        rate.decrease(1_000_000, 350_000.0, 0, true, false);
        assert_eq!(rate.bps(), 297_500);
        assert_eq!(rate.take_before_fall(), Some((4_000_000, 1_000_000)));
        rate.increase(2_000_000, &room(300_000.0));
        let additive = rate.bps() - 297_500;
        assert!((60_000..70_000).contains(&additive), "{additive} in a second");
        rate.decrease(3_000_000, 350_000.0, 300_000, true, false);
        assert!(rate.bps().abs_diff(245_000) < 2, "lower, to drain the queue");
    }

    #[test]
    fn a_leg_that_sends_little_falls_by_steps_only() {
        let mut rate = rate(4_000_000);
        rate.decrease(1_000_000, 50_000.0, 0, false, false);
        assert_eq!(rate.bps(), 3_400_000);
    }

    #[test]
    fn where_only_media_can_prove_it_goes_as_far_as_is_wanted() {
        let mut rate = rate(300_000);
        let mut seconds = 0;
        while rate.bps() < 2_000_000 && seconds < 100 {
            seconds += 1;
            let trial = Room {
                trial: Some(2_000_000.0),
                ..room(200_000.0)
            };
            rate.increase(seconds * 1_000_000, &trial);
        }
        assert!(seconds < 12, "{seconds} s");
    }
}
