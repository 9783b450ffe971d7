//! One direction of a link: what becomes of each packet that is put in.
//!
//! In this order: a packet is dropped if the link is down; if the chain of losses says so; or if it would wait longer
//! before the bottleneck than the queue allows. What is left is sent at the rate of the profile, then takes the delay and
//! jitter in force when it leaves the bottleneck. Packets that are lost or fall on a down link do not take room at the
//! bottleneck; packets taken in before the link goes down are still delivered. Packets keep their order: a jitter or a
//! drop of the delay never lets one overtake another.
//!
//! Three numbers are drawn for each packet whatever becomes of it (the chain's step, the loss, the jitter), so where the
//! row does not change, whether packet *n* is lost depends on the seed and *n* alone.
//!
//! Rates change under queued packets: the bottleneck's work is the exact integral of the rate over time
//! ([`Profile::carried`]), so the queue drains at the rate in force at each moment.

use crate::{
    profile::{Profile, Row},
    random::{Random, happens, split_mix, up_to},
};
use std::sync::Arc;

/// Bytes that IPv4 (20) and UDP (8) add to a payload. Rates and queues count IP packets, as an access network does; the
/// same number is used over IPv6, so that a profile is the same link for both.
pub const IP_UDP_OVERHEAD: usize = 28;

/// A bit in the unit of [`Profile::carried`].
const THOUSANDTHS: u128 = 1000;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From who opened the link (an agent) to who serves it (a relay).
    Up,
    /// Back.
    Down,
}

impl Direction {
    /// Both, `Up` first.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// The seed of this direction's shaper, from the seed of the link: each direction has a random stream of its own.
    pub fn seed(self, link: u64) -> u64 {
        let mut state = link;
        let up = split_mix(&mut state);
        match self {
            Self::Up => up,
            Self::Down => split_mix(&mut state),
        }
    }
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The chain of losses took it.
    Loss,
    /// It would have waited before the bottleneck for longer than the queue allows.
    Queue,
    /// The link was down.
    Down,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrives then, microseconds on the clock of [`Shaper::offer`]. Never earlier than the packet before.
    Deliver { at_us: u64 },
    /// It never arrives.
    Drop(Cause),
}

/// Packets and the bytes of them, IP and UDP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

/// What a shaper did. `offered` is the sum of the other four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub offered: Tally,
    pub delivered: Tally,
    pub lost: Tally,
    pub overflowed: Tally,
    pub down: Tally,
    /// The longest that a delivered packet waited before the bottleneck, microseconds; its own sending time not counted.
    pub max_queue_us: u64,
}

/// One direction of a link. See the head of this file for what it does in which order.
#[derive(Clone, Debug)]
pub struct Shaper {
    profile: Arc<Profile>,
    clock: Clock,
    random: Random,
    /// Jitter while held, so that the packets before the profile begins do not move what comes after.
    held_random: Random,
    bad: bool,
    /// When the bottleneck has sent all it took in: an amount of [`Profile::carried`] in the present clock.
    busy_until: u128,
    now_us: u64,
    last_at_us: u64,
    counters: Counters,
}

/// How the caller's time is the profile's.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// The first row holds, without loss and up.
    Held,
    /// The profile began then.
    Since(u64),
}

impl Shaper {
    /// One direction of a link, whose profile begins at 0 on the clock of [`Shaper::offer`]. For a link of two, give each
    /// direction [`Direction::seed`] of the link's seed, as [`crate::Network`] and [`crate::Relay`] do.
    pub fn new(profile: Arc<Profile>, seed: u64) -> Self {
        let mut state = seed;
        let held_random = Random::new(split_mix(&mut state));
        Self {
            profile,
            clock: Clock::Since(0),
            random: Random::new(seed),
            held_random,
            bad: false,
            busy_until: 0,
            now_us: 0,
            last_at_us: 0,
            counters: Counters::default(),
        }
    }

    /// From now until [`Shaper::release`], the first row of the profile holds, but the link is up and loses nothing: for
    /// a handshake that is not part of what is tested. The queue still has its bound.
    pub fn hold(&mut self, now_us: u64) {
        self.set_clock(now_us, Clock::Held);
    }

    /// The profile begins now, at its first row, held before or not. Packets on their way are not touched.
    pub fn release(&mut self, now_us: u64) {
        self.set_clock(now_us, Clock::Since(now_us.max(self.now_us)));
    }

    fn set_clock(&mut self, now_us: u64, clock: Clock) {
        let now_us = self.forward(now_us);
        let backlog = self.busy_until.saturating_sub(self.carried(now_us));
        self.clock = clock;
        self.busy_until = self.carried(now_us) + backlog;
    }

    /// Puts in a packet of `bytes`, IP and UDP headers included (a UDP payload and [`IP_UDP_OVERHEAD`]). Time does not
    /// run backwards: a `now_us` before the one of the last call counts as that.
    pub fn offer(&mut self, now_us: u64, bytes: usize) -> Verdict {
        let now_us = self.forward(now_us);
        let (row, jitter, dropped) = self.draw(now_us);
        let verdict = match dropped {
            Some(cause) => Verdict::Drop(cause),
            None => self.queue(now_us, bytes, &row, jitter),
        };
        let counters = &mut self.counters;
        counters.offered.add(bytes);
        match verdict {
            Verdict::Deliver { .. } => counters.delivered.add(bytes),
            Verdict::Drop(Cause::Loss) => counters.lost.add(bytes),
            Verdict::Drop(Cause::Queue) => counters.overflowed.add(bytes),
            Verdict::Drop(Cause::Down) => counters.down.add(bytes),
        }
        verdict
    }

    /// The row in force, the draw for the jitter, and why the packet does not come as far as the bottleneck.
    fn draw(&mut self, now_us: u64) -> (Row, u64, Option<Cause>) {
        let Clock::Since(origin) = self.clock else {
            return (held(&self.profile), self.held_random.next(), None);
        };
        let row = *self.profile.at(now_us - origin);
        let (step, loss, jitter) = (self.random.next(), self.random.next(), self.random.next());
        self.bad = if self.bad {
            !happens(step, row.p_bg)
        } else {
            happens(step, row.p_gb)
        };
        let lost = happens(loss, if self.bad { row.loss_bad } else { row.loss_good });
        let dropped = if !row.up {
            Some(Cause::Down)
        } else {
            lost.then_some(Cause::Loss)
        };
        (row, jitter, dropped)
    }

    /// The bottleneck and what is behind it.
    fn queue(&mut self, now_us: u64, bytes: usize, row: &Row, jitter: u64) -> Verdict {
        let now = self.carried(now_us);
        let starts = self.busy_until.max(now);
        // A rate in kbit/s is thousandths of a bit in a microsecond.
        if starts - now > u128::from(row.queue_ms) * 1000 * u128::from(row.rate_kbps) {
            return Verdict::Drop(Cause::Queue);
        }
        self.busy_until = starts + bytes as u128 * 8 * THOUSANDTHS;
        if starts > now {
            let waited = self.carried_by(starts).saturating_sub(now_us);
            self.counters.max_queue_us = self.counters.max_queue_us.max(waited);
        }
        let leaves = self.carried_by(self.busy_until);
        let behind = match self.clock {
            Clock::Held => *row,
            Clock::Since(origin) => *self.profile.at(leaves.saturating_sub(origin)),
        };
        let travel = behind.delay_us - behind.jitter_us + up_to(jitter, 2 * behind.jitter_us);
        let at_us = leaves.saturating_add(travel).max(self.last_at_us);
        self.last_at_us = at_us;
        Verdict::Deliver { at_us }
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The profile that it follows.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    fn forward(&mut self, now_us: u64) -> u64 {
        self.now_us = self.now_us.max(now_us);
        self.now_us
    }

    /// What the bottleneck can carry until then, thousandths of a bit; the zero depends on the clock.
    fn carried(&self, now_us: u64) -> u128 {
        match self.clock {
            Clock::Held => u128::from(now_us) * u128::from(held(&self.profile).rate_kbps),
            Clock::Since(origin) => self.profile.carried(now_us.saturating_sub(origin)),
        }
    }

    /// The inverse of [`Shaper::carried`], rounded up.
    fn carried_by(&self, amount: u128) -> u64 {
        match self.clock {
            Clock::Held => {
                let us = amount.div_ceil(u128::from(held(&self.profile).rate_kbps));
                u64::try_from(us).unwrap_or(u64::MAX)
            }
            Clock::Since(origin) => self.profile.carried_by(amount).saturating_add(origin),
        }
    }
}

/// The conditions while a shaper is held.
fn held(profile: &Profile) -> Row {
    Row {
        loss_good: 0.0,
        loss_bad: 0.0,
        up: true,
        ..*profile.at(0)
    }
}
