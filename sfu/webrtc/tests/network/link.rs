//! A model of one direction of a link: a rate, a queue that drops what is too long for it, delay,
//! jitter that keeps the order, and loss in two states (Gilbert and Elliott). Seeded.

use std::collections::VecDeque;

/// A small generator (xorshift64*): the same numbers from the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// In 0.0..1.0.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.next() < p
    }
}

/// What a link is like at a time; the columns of a profile.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    pub rate_kbps: u64,
    pub queue_ms: u64,
    pub delay_ms: u64,
    pub jitter_ms: u64,
    pub loss_good: f64,
    pub loss_bad: f64,
    pub good_to_bad: f64,
    pub bad_to_good: f64,
    pub up: bool,
}

impl Conditions {
    /// No loss, a queue of 200 ms, 25 ms each way, a little jitter.
    pub fn rate(rate_kbps: u64) -> Self {
        Self {
            rate_kbps,
            queue_ms: 200,
            delay_ms: 25,
            jitter_ms: 2,
            loss_good: 0.0,
            loss_bad: 0.0,
            good_to_bad: 0.0,
            bad_to_good: 1.0,
            up: true,
        }
    }

    /// Drops this share at random.
    pub fn losing(self, share: f64) -> Self {
        Self {
            loss_good: share,
            loss_bad: share,
            ..self
        }
    }

    pub fn queue(self, queue_ms: u64) -> Self {
        Self { queue_ms, ..self }
    }
}

/// Packets `T` on their way. Times in microseconds.
pub struct Link<T> {
    pub conditions: Conditions,
    random: Random,
    bad: bool,
    /// When the last bit in the queue has left.
    free: u64,
    last_arrival: u64,
    flying: VecDeque<(u64, T)>,
    pub dropped: u64,
    pub carried_bytes: u64,
}

impl<T> Link<T> {
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            conditions,
            random: Random::new(seed),
            bad: false,
            free: 0,
            last_arrival: 0,
            flying: VecDeque::new(),
            dropped: 0,
            carried_bytes: 0,
        }
    }

    /// How long a packet that comes now waits for those before it.
    pub fn queue(&self, now: u64) -> u64 {
        self.free.saturating_sub(now)
    }

    pub fn send(&mut self, now: u64, bytes: usize, packet: T) {
        let c = self.conditions;
        let turn = if self.bad { c.bad_to_good } else { c.good_to_bad };
        if self.random.chance(turn) {
            self.bad = !self.bad;
        }
        let loss = if self.bad { c.loss_bad } else { c.loss_good };
        let own = (bytes + 28) as u64 * 8_000 / c.rate_kbps.max(1);
        // The packet on the wire waits for nobody, so a short queue holds one at least.
        if !c.up || self.queue(now) > (c.queue_ms * 1000).max(own) {
            self.dropped += 1;
            return;
        }
        self.free = self.free.max(now) + own;
        if self.random.chance(loss) {
            self.dropped += 1;
            return;
        }
        self.carried_bytes += bytes as u64 + 28;
        let jitter = (self.random.next() * (c.jitter_ms * 1000) as f64) as u64;
        let arrival = (self.free + c.delay_ms * 1000 + jitter).max(self.last_arrival);
        self.last_arrival = arrival;
        self.flying.push_back((arrival, packet));
    }

    /// The next packet that has come by now, and when.
    pub fn receive(&mut self, now: u64) -> Option<(u64, T)> {
        let due = self.flying.front().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.flying.pop_front()).flatten()
    }
}

#[test]
fn the_link_carries_its_rate_holds_its_queue_and_loses_its_share() {
    let mut link = Link::new(1, Conditions::rate(1000).losing(0.1).queue(100));
    let (mut came, mut longest) = (0, 0);
    for ms in 0..20_000u64 {
        // 972 + 28 bytes each 4 ms: twice the rate.
        if ms % 4 == 0 {
            link.send(ms * 1000, 972, ());
        }
        longest = longest.max(link.queue(ms * 1000));
        while link.receive(ms * 1000).is_some() {
            came += 1;
        }
    }
    assert!(
        (2150..2350).contains(&came),
        "{came} of 2500 that the rate carries"
    );
    assert!((100_000..=108_000).contains(&longest), "{longest}");
}
