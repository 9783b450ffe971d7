//! A busy machine: a process that gets no processor for a while, and messages that are held up. Seeded; in
//! milliseconds.

use std::collections::VecDeque;
use std::ops::Range;

use crate::link::Random;

/// Awake and asleep by turns. It never sleeps by default.
#[derive(Default)]
pub struct Sleeper {
    random: Option<Random>,
    awake: Range<u64>,
    asleep: Range<u64>,
    /// When the present sleep begins and ends.
    sleep: Range<u64>,
    woke_us: u64,
}

impl Sleeper {
    /// Turns as long as these say.
    pub fn new(seed: u64, awake: Range<u64>, asleep: Range<u64>) -> Self {
        Self {
            random: Some(Random::new(seed)),
            awake,
            asleep,
            ..Self::default()
        }
    }

    pub fn is_awake(&mut self, ms: u64) -> bool {
        let Some(random) = &mut self.random else {
            return true;
        };
        let mut within =
            |range: &Range<u64>| range.start + (random.next() * (range.end - range.start) as f64) as u64;
        while ms >= self.sleep.end {
            let from = self.sleep.end + within(&self.awake);
            self.woke_us = self.sleep.end * 1000;
            self.sleep = from..from + within(&self.asleep).max(1);
        }
        !self.sleep.contains(&ms)
    }

    /// When what came at a time is read.
    pub fn read_at(&self, came_us: u64) -> u64 {
        came_us.max(self.woke_us)
    }
}

/// Holds each message up by as much as it is told, and keeps their order.
pub struct Late<T> {
    random: Option<(Random, u64)>,
    held: VecDeque<(u64, T)>,
}

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self {
            random: None,
            held: VecDeque::new(),
        }
    }
}

impl<T> Late<T> {
    /// Up to `most`.
    pub fn new(seed: u64, most: u64) -> Self {
        Self {
            random: Some((Random::new(seed), most)),
            ..Self::default()
        }
    }

    pub fn hold(&mut self, ms: u64, message: T) {
        let by = self
            .random
            .as_mut()
            .map_or(0, |(random, most)| (random.next() * *most as f64) as u64);
        let after = self.held.back().map_or(0, |(due, _)| *due);
        self.held.push_back(((ms + by).max(after), message));
    }

    pub fn release(&mut self, ms: u64) -> Option<T> {
        let due = self.held.front().is_some_and(|(due, _)| *due <= ms);
        due.then(|| self.held.pop_front())
            .flatten()
            .map(|(_, message)| message)
    }
}

#[test]
fn it_sleeps_its_share_and_what_is_held_up_keeps_its_order() {
    let mut sleeper = Sleeper::new(1, 50..350, 20..200);
    let asleep = (0..100_000).filter(|&ms| !sleeper.is_awake(ms)).count();
    assert!((30_000..40_000).contains(&asleep), "{asleep} ms of 100 s");
    let mut late = Late::new(1, 1000);
    (0..100).for_each(|n| late.hold(n * 100, n));
    let (mut out, mut longest) = (Vec::new(), 0);
    for ms in 0..12_000 {
        while let Some(n) = late.release(ms) {
            longest = longest.max(ms - n * 100);
            out.push(n);
        }
    }
    assert!(out.is_sorted() && out.len() == 100);
    assert!((900..=1000).contains(&longest), "{longest}");
}
