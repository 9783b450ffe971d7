//! Whether a queue grows on the path, from when packets left and when they came.
//!
//! Packets that left within 5 ms are one group; a line is laid through the smoothed sums of how
//! much later than its predecessor each group came than it left, and its slope is held against a
//! threshold that adapts to the path's own unrest (draft-ietf-rmcat-gcc-02, 5.2 to 5.5; the line
//! instead of a Kalman filter, and the constants, as libwebrtc has them). Beside it the queue's
//! length itself, over the least delay of the last half minute: a queue that stands has no slope.
//! All times in microseconds. It knows nothing of rates.

/// Packets that left this close together are one group.
const GROUP: u64 = 5_000;
/// Clocks that step, or a path that was down: start afresh.
const JUMP: i64 = 3_000_000;
/// Points of the line.
const POINTS: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
const MOST_DELTAS: f64 = 60.0;
/// The threshold, in milliseconds: at first, and its bounds.
const THRESHOLD: f64 = 12.5;
const THRESHOLDS: std::ops::RangeInclusive<f64> = 6.0..=600.0;
/// What is this far beyond the threshold does not move it.
const FAR: f64 = 15.0;
const K_UP: f64 = 0.0087;
const K_DOWN: f64 = 0.039;
/// Over the threshold for this long, and twice, is an overuse.
const PATIENCE: f64 = 10.0;
/// The least delay is that of the last one to two of these.
const BASE_EPOCH: u64 = 15_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Usage {
    #[default]
    Normal,
    /// The queue gets shorter.
    Under,
    /// The queue gets longer.
    Over,
}

#[derive(Clone, Copy)]
struct Group {
    first_sent: u64,
    last_sent: u64,
    last_arrival: i64,
}

/// The detector of one leg.
#[derive(Default)]
pub(crate) struct Delay {
    group: Option<Group>,
    before: Option<Group>,
    line: Line,
    threshold: Threshold,
    usage: Usage,
    base: Base,
    /// The least delay of the feedback being read.
    least: Option<i64>,
    queue: u64,
}

impl Delay {
    /// A packet that left at `sent` came at `arrival` of the peer's clock. In order of sending.
    pub(crate) fn arrived(&mut self, now: u64, sent: u64, arrival: i64) {
        let delay = arrival - sent as i64;
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
        let Some(group) = &mut self.group else {
            self.group = Some(Group::of(sent, arrival));
            return;
        };
        if sent < group.first_sent {
            return; // came late, in a message after its own
        }
        if sent - group.first_sent <= GROUP {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrival = group.last_arrival.max(arrival);
            return;
        }
        let whole = std::mem::replace(group, Group::of(sent, arrival));
        if let Some(before) = self.before.replace(whole) {
            self.between(now, before, whole);
        }
    }

    fn between(&mut self, now: u64, before: Group, group: Group) {
        let sent = group.last_sent.saturating_sub(before.last_sent) as i64;
        let arrived = group.last_arrival - before.last_arrival;
        if (arrived - sent).abs() > JUMP {
            self.line = Line::default();
            self.before = None;
            self.base = Base::default();
            return;
        }
        let Some(trend) = self
            .line
            .add(group.last_arrival, (arrived - sent) as f64 / 1000.0)
        else {
            return;
        };
        let scaled = self.line.deltas.min(MOST_DELTAS) * trend * GAIN;
        self.usage = self.threshold.judge(now, scaled, sent as f64 / 1000.0);
    }

    /// A feedback message has been read to its end.
    pub(crate) fn end_of_feedback(&mut self, now: u64) {
        if let Some(least) = self.least.take() {
            let over = least - self.base.update(now, least);
            self.queue = over.max(0) as u64;
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// How long a packet waits in the path's queue: the least of the last feedback's delays, over
    /// the least of all.
    pub(crate) fn queue(&self) -> u64 {
        self.queue
    }
}

impl Group {
    fn of(sent: u64, arrival: i64) -> Self {
        Self {
            first_sent: sent,
            last_sent: sent,
            last_arrival: arrival,
        }
    }
}

/// Least squares over the last points.
#[derive(Default)]
struct Line {
    /// Milliseconds since the first arrival, and the smoothed delay there.
    points: [(f64, f64); POINTS],
    count: usize,
    next: usize,
    first: Option<i64>,
    sum: f64,
    smoothed: f64,
    deltas: f64,
}

impl Line {
    /// The slope, once there are enough points.
    fn add(&mut self, arrival: i64, delta: f64) -> Option<f64> {
        let first = *self.first.get_or_insert(arrival);
        self.deltas = (self.deltas + 1.0).min(1000.0);
        self.sum += delta;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.sum;
        self.points[self.next] = ((arrival - first) as f64 / 1000.0, self.smoothed);
        self.next = (self.next + 1) % POINTS;
        self.count = (self.count + 1).min(POINTS);
        if self.count < POINTS {
            return None;
        }
        let n = POINTS as f64;
        let mean_x = self.points.iter().map(|p| p.0).sum::<f64>() / n;
        let mean_y = self.points.iter().map(|p| p.1).sum::<f64>() / n;
        let (mut above, mut below) = (0.0, 0.0);
        for (x, y) in self.points {
            above += (x - mean_x) * (y - mean_y);
            below += (x - mean_x) * (x - mean_x);
        }
        (below > 0.0).then(|| above / below)
    }
}

struct Threshold {
    value: f64,
    updated: u64,
    over_for: f64,
    times: u32,
    trend: f64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self {
            value: THRESHOLD,
            updated: 0,
            over_for: 0.0,
            times: 0,
            trend: 0.0,
        }
    }
}

impl Threshold {
    /// `trend` as scaled; `step` in milliseconds is what passed since the last.
    fn judge(&mut self, now: u64, trend: f64, step: f64) -> Usage {
        let usage = if trend > self.value {
            self.over_for += if self.times == 0 { step / 2.0 } else { step };
            self.times += 1;
            if self.over_for > PATIENCE && self.times > 1 && trend >= self.trend {
                self.over_for = 0.0;
                self.times = 0;
                Usage::Over
            } else {
                Usage::Normal
            }
        } else {
            self.over_for = 0.0;
            self.times = 0;
            if trend < -self.value {
                Usage::Under
            } else {
                Usage::Normal
            }
        };
        self.trend = trend;
        self.adapt(now, trend.abs());
        usage
    }

    fn adapt(&mut self, now: u64, size: f64) {
        let passed = (now.saturating_sub(self.updated) as f64 / 1000.0).min(100.0);
        self.updated = now;
        if size <= self.value + FAR {
            let k = if size < self.value { K_DOWN } else { K_UP };
            let moved = self.value + k * (size - self.value) * passed;
            self.value = moved.clamp(*THRESHOLDS.start(), *THRESHOLDS.end());
        }
    }
}

/// The least delay of the last one to two epochs.
#[derive(Default)]
struct Base {
    epoch: Option<(u64, i64)>,
    before: Option<i64>,
}

impl Base {
    fn update(&mut self, now: u64, delay: i64) -> i64 {
        let (since, least) = self.epoch.unwrap_or((now, delay));
        let least = least.min(delay);
        if now.saturating_sub(since) >= BASE_EPOCH {
            self.before = Some(least);
            self.epoch = Some((now, delay));
        } else {
            self.epoch = Some((since, least));
        }
        self.before.map_or(least, |before| before.min(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds groups 10 ms apart with `delay(n)` microseconds; what usage came, and the queue.
    fn feed(delay: &mut Delay, groups: std::ops::Range<u64>, late: impl Fn(u64) -> i64) -> (Vec<Usage>, u64) {
        let mut usages = Vec::new();
        for n in groups {
            let sent = n * 10_000;
            let arrival = 77_000_000 + sent as i64 + late(n);
            delay.arrived(sent + 50_000, sent, arrival);
            if n % 10 == 9 {
                delay.end_of_feedback(sent + 50_000);
            }
            usages.push(delay.usage());
        }
        (usages, delay.queue())
    }

    #[test]
    fn a_growing_queue_is_overuse_a_draining_one_underuse_and_jitter_neither() {
        let mut delay = Delay::default();
        let jitter = |n: u64| ((n * 7919) % 13) as i64 * 500;
        let (usages, queue) = feed(&mut delay, 0..300, jitter);
        assert!(!usages.contains(&Usage::Over));
        assert!(queue < 3000, "{queue}");
        // 2 ms later each 10 ms.
        let (usages, queue) = feed(&mut delay, 300..360, |n| jitter(n) + (n as i64 - 300) * 2000);
        let seen = usages.iter().position(|u| *u == Usage::Over).expect("overuse");
        assert!(seen < 30, "after {seen} groups");
        assert!((95_000..125_000).contains(&queue), "{queue}");
        let (usages, _) = feed(&mut delay, 360..420, |n| {
            jitter(n) + 120_000 - (n as i64 - 360) * 2000
        });
        assert!(usages.contains(&Usage::Under));
    }

    #[test]
    fn a_standing_queue_is_seen_and_a_longer_path_is_forgotten_as_one_in_time() {
        let mut delay = Delay::default();
        feed(&mut delay, 0..100, |_| 0);
        let (_, queue) = feed(&mut delay, 100..200, |_| 80_000);
        assert_eq!(queue, 80_000);
        let (_, queue) = feed(&mut delay, 200..3300, |_| 80_000);
        assert_eq!(queue, 0, "after half a minute it is the path's own");
    }

    #[test]
    fn a_step_of_the_clock_starts_afresh() {
        let mut delay = Delay::default();
        feed(&mut delay, 0..100, |_| 0);
        let (usages, queue) = feed(&mut delay, 100..200, |_| 900_000_000);
        assert!(!usages.contains(&Usage::Over));
        assert_eq!(queue, 0);
    }
}
