//! A link in memory, both directions, for tests in virtual time.
//!
//! The caller owns the clock: [`Network::send`] puts a packet in at a time, [`Network::next_at`] says when the next one
//! arrives, [`Network::pop`] takes out what has arrived by then. Nothing happens in between.
//!
//! It cannot grow without bound: what waits in a direction is at most what the bottleneck's queue takes and what is on
//! its way behind it, [`Profile::most_in_flight`] bytes with headers, as long as what has arrived is taken out.

use crate::{
    profile::Profile,
    shaper::{Counters, Direction, IP_UDP_OVERHEAD, Shaper, Verdict},
};
use bytes::Bytes;
use std::{collections::VecDeque, sync::Arc};

/// One direction: a shaper and the packets that it lets through, in the order in which they arrive.
#[derive(Clone, Debug)]
pub struct Line<T> {
    shaper: Shaper,
    waiting: VecDeque<(u64, T)>,
}

impl<T> Line<T> {
    pub fn new(shaper: Shaper) -> Self {
        Self {
            shaper,
            waiting: VecDeque::new(),
        }
    }

    /// Puts in a packet with a UDP payload of `payload_bytes`. What is dropped is gone, and counted.
    pub fn send(&mut self, now_us: u64, payload_bytes: usize, packet: T) -> Verdict {
        let verdict = self
            .shaper
            .offer(now_us, payload_bytes.saturating_add(IP_UDP_OVERHEAD));
        if let Verdict::Deliver { at_us } = verdict {
            self.waiting.push_back((at_us, packet));
        }
        verdict
    }

    /// When the next packet arrives, microseconds; `None` while there is none on its way.
    pub fn next_at(&self) -> Option<u64> {
        self.waiting.front().map(|(at_us, _)| *at_us)
    }

    /// The next packet that has arrived by `now_us`, and when it arrived.
    pub fn pop(&mut self, now_us: u64) -> Option<(u64, T)> {
        self.next_at().filter(|at_us| *at_us <= now_us)?;
        self.waiting.pop_front()
    }

    pub fn shaper(&self) -> &Shaper {
        &self.shaper
    }

    pub fn shaper_mut(&mut self) -> &mut Shaper {
        &mut self.shaper
    }
}

/// A link in memory. Both directions follow the same profile, each with a random stream of its own.
#[derive(Clone, Debug)]
pub struct Network {
    up: Line<Bytes>,
    down: Line<Bytes>,
}

impl Network {
    /// A link whose profile begins at 0 on the caller's clock.
    pub fn new(profile: Arc<Profile>, seed: u64) -> Self {
        let line = |direction: Direction| Line::new(Shaper::new(Arc::clone(&profile), direction.seed(seed)));
        Self {
            up: line(Direction::Up),
            down: line(Direction::Down),
        }
    }

    /// Puts in a UDP payload; its headers are added where rate and queue are counted.
    pub fn send(&mut self, now_us: u64, direction: Direction, payload: impl Into<Bytes>) -> Verdict {
        let payload = payload.into();
        self.line_mut(direction).send(now_us, payload.len(), payload)
    }

    /// When the next packet arrives at either end, microseconds; `None` while there is none on its way.
    pub fn next_at(&self) -> Option<u64> {
        [self.up.next_at(), self.down.next_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next packet that has arrived by `now_us`, the earlier first, `Up` first among equals.
    pub fn pop(&mut self, now_us: u64) -> Option<(Direction, Bytes)> {
        let [up, down] = [&self.up, &self.down].map(|line| line.next_at().unwrap_or(u64::MAX));
        let direction = if up <= down {
            Direction::Up
        } else {
            Direction::Down
        };
        let (_, payload) = self.line_mut(direction).pop(now_us)?;
        Some((direction, payload))
    }

    /// Holds both directions, see [`Shaper::hold`].
    pub fn hold(&mut self, now_us: u64) {
        for direction in Direction::BOTH {
            self.line_mut(direction).shaper.hold(now_us);
        }
    }

    /// Begins the profile for both directions, see [`Shaper::release`].
    pub fn release(&mut self, now_us: u64) {
        for direction in Direction::BOTH {
            self.line_mut(direction).shaper.release(now_us);
        }
    }

    /// What a direction did so far.
    pub fn counters(&self, direction: Direction) -> Counters {
        match direction {
            Direction::Up => self.up.shaper.counters(),
            Direction::Down => self.down.shaper.counters(),
        }
    }

    fn line_mut(&mut self, direction: Direction) -> &mut Line<Bytes> {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}
