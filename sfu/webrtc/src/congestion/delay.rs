//! Whether a queue grows on the path, from when packets left and when they came.
//!
//! Packets that left within 5 ms are one group; a line is laid through the smoothed sums of how
//! much later than its predecessor each group came than it left, and its slope is held against a
//! threshold that adapts to the path's own unrest (draft-ietf-rmcat-gcc-02, 5.2 to 5.5; the line
//! instead of a Kalman filter, and the constants, as libwebrtc has them). Beside it the queue's
//! length itself, over the least delay of the last half minute: a queue that stands has no slope.
//!
//! A peer that gets no processor reads a heap of packets at once. Its delay is back at the least with
//! the heap's last packet; that of a queue is not. So a heap is one group, dated by its last, and a queue
//! is what even the least delayed packet of several messages in a row has waited. All times in
//! microseconds. It knows nothing of rates.

use super::least::Least;

/// Packets that left this close together are one group.
const GROUP: u64 = 5_000;
/// So are those that came within this of each other although they left further apart, up to a
/// heap that takes this long to come.
const HEAP_GAP: i64 = 5_000;
const LONGEST_HEAP: i64 = 100_000;
/// So many came in no time after a silence, and left over some time: the peer slept. It is held to be
/// sleepy for a while.
const HEAP: u32 = 5;
const HEAP_AT_ONCE: i64 = 2_000;
const SILENCE: i64 = 20_000;
const LEFT_OVER: u64 = 8_000;
const SLEEPY: i64 = 2_000_000;
/// A queue that lasts: over so much of what came; over more where the peer is sleepy.
const LASTS: i64 = 90_000;
const LASTS_SLEEPY: i64 = 300_000;
/// Messages remembered for that.
const LOOKS: usize = 8;
/// An overuse counts for so long, unless it is answered.
const OVERUSE: i64 = 200_000;
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
    first_arrival: i64,
    last_arrival: i64,
}

/// The queue as one message shows it.
#[derive(Clone, Copy)]
struct Look {
    from: i64,
    to: i64,
    queue: u64,
}

/// The detector of one leg.
pub(crate) struct Delay {
    heap: Option<Heap>,
    group: Option<Group>,
    before: Option<Group>,
    line: Line,
    threshold: Threshold,
    usage: Usage,
    base: Least<i64>,
    /// The least delay of the feedback being read.
    least: Option<i64>,
    /// The newest arrival of all, and when it was overuse and a sleep last; of the peer's clock.
    newest: Option<i64>,
    over_at: Option<i64>,
    slept_at: Option<i64>,
    looks: [Option<Look>; LOOKS],
    next_look: usize,
    queue: u64,
}

impl Default for Delay {
    fn default() -> Self {
        Self {
            heap: None,
            group: None,
            before: None,
            line: Line::default(),
            threshold: Threshold::default(),
            usage: Usage::Normal,
            base: Least::new(BASE_EPOCH),
            least: None,
            newest: None,
            over_at: None,
            slept_at: None,
            looks: [None; LOOKS],
            next_look: 0,
            queue: 0,
        }
    }
}

impl Delay {
    /// A packet that left at `sent` came at `arrival` of the peer's clock. In order of sending.
    pub(crate) fn arrived(&mut self, now: u64, sent: u64, arrival: i64) {
        let delay = arrival - sent as i64;
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
        self.newest = Some(self.newest.map_or(arrival, |newest| newest.max(arrival)));
        let heap = self.heap.get_or_insert(Heap::of(sent, arrival, 0));
        if heap.take(sent, arrival) {
            self.slept_at = Some(arrival);
        }
        let Some(group) = &mut self.group else {
            self.group = Some(Group::of(sent, arrival));
            return;
        };
        if sent < group.first_sent {
            return; // came late, in a message after its own
        }
        if sent - group.first_sent <= GROUP || group.is_heap_with(sent, arrival) {
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
            self.base = Least::new(BASE_EPOCH);
            self.looks = Default::default();
            self.heap = None;
            (self.newest, self.over_at, self.slept_at) = (Some(group.last_arrival), None, None);
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
        if self.usage == Usage::Over {
            self.over_at = Some(group.last_arrival);
        }
    }

    /// A feedback message has been read to its end.
    pub(crate) fn end_of_feedback(&mut self, now: u64) {
        let (Some(least), Some(to)) = (self.least.take(), self.newest) else {
            return;
        };
        let over = least - self.base.update(now, least);
        let before = self.looks[(self.next_look + LOOKS - 1) % LOOKS];
        self.looks[self.next_look] = Some(Look {
            from: before.map_or(to, |before| before.to),
            to,
            queue: over.max(0) as u64,
        });
        self.next_look = (self.next_look + 1) % LOOKS;
        self.queue = self.least_over(if self.is_sleepy() { LASTS_SLEEPY } else { LASTS });
    }

    /// The least queue of the newest messages that span at least `span`; 0 where they do not.
    fn least_over(&self, span: i64) -> u64 {
        let Some(newest) = self.newest else { return 0 };
        let mut least = u64::MAX;
        for back in 1..=LOOKS {
            let Some(look) = self.looks[(self.next_look + LOOKS - back) % LOOKS] else {
                break;
            };
            least = least.min(look.queue);
            if newest - look.from >= span {
                return least;
            }
        }
        // As many as are remembered are enough, however short they are.
        if self.looks.iter().all(Option::is_some) {
            least
        } else {
            0
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// The queue began to get longer a moment ago, and that is not answered yet.
    pub(crate) fn is_overused(&self) -> bool {
        let since = |at: i64| self.newest.is_some_and(|newest| newest - at <= OVERUSE);
        self.over_at.is_some_and(since)
    }

    /// Less is sent: what was seen is answered.
    pub(crate) fn answered(&mut self) {
        self.over_at = None;
    }

    /// The peer read heaps of packets at once lately: what one packet waited says little.
    pub(crate) fn is_sleepy(&self) -> bool {
        let since = |at: i64| self.newest.is_some_and(|newest| newest - at <= SLEEPY);
        self.slept_at.is_some_and(since)
    }

    /// How long a packet waits in the path's queue: the least delay of several messages, over the
    /// least of all.
    pub(crate) fn queue(&self) -> u64 {
        self.queue
    }
}

impl Group {
    fn of(sent: u64, arrival: i64) -> Self {
        Self {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
        }
    }

    /// A packet came with this group, having left later.
    fn is_heap_with(&self, sent: u64, arrival: i64) -> bool {
        let (came, left) = (
            arrival - self.last_arrival,
            sent.saturating_sub(self.last_sent) as i64,
        );
        came <= HEAP_GAP && came < left && arrival - self.first_arrival < LONGEST_HEAP
    }
}

/// Packets that came at once, after a silence.
#[derive(Clone, Copy)]
struct Heap {
    first_sent: u64,
    first_arrival: i64,
    silence: i64,
    packets: u32,
    last_arrival: i64,
}

impl Heap {
    fn of(sent: u64, arrival: i64, silence: i64) -> Self {
        Self {
            first_sent: sent,
            first_arrival: arrival,
            silence,
            packets: 1,
            last_arrival: arrival,
        }
    }

    /// Takes the next packet; whether the peer has slept. It has where many came in no time after a silence as
    /// long as it took to send them. A full queue knows no silence.
    fn take(&mut self, sent: u64, arrival: i64) -> bool {
        if arrival - self.first_arrival > HEAP_AT_ONCE {
            *self = Heap::of(sent, arrival, arrival - self.last_arrival);
            return false;
        }
        self.packets += 1;
        self.last_arrival = self.last_arrival.max(arrival);
        let left = sent.saturating_sub(self.first_sent);
        self.packets >= HEAP && left >= LEFT_OVER && self.silence >= SILENCE.max(left as i64)
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
        assert!((75_000..125_000).contains(&queue), "{queue}");
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

    /// Packets 5 ms apart, read at `read(arrival)`; a message each 100 ms. The most queue seen, and whether
    /// there was overuse.
    fn read(delay: &mut Delay, read: impl Fn(i64) -> i64) -> (u64, bool) {
        let (mut most, mut over) = (0, false);
        for n in 0..2_000u64 {
            let sent = n * 5_000;
            delay.arrived(sent + 50_000, sent, read(sent as i64 + 20_000));
            if n % 20 == 19 {
                delay.end_of_feedback(sent + 50_000);
                most = most.max(delay.queue());
                over |= delay.is_overused() && delay.queue() > 8_000;
            }
        }
        (most, over)
    }

    #[test]
    fn a_peer_that_sleeps_has_no_queue() {
        let mut delay = Delay::default();
        // Of each 170 ms it sleeps 120.
        let (most, over) = read(&mut delay, |at| {
            let (turn, into) = (at / 170_000 * 170_000, at % 170_000);
            turn + if into < 120_000 { 120_000 } else { into }
        });
        assert!(delay.is_sleepy());
        assert!(most < 8_000 && !over, "{most}");
    }

    #[test]
    fn jitter_and_a_queue_are_no_sleep() {
        let mut delay = Delay::default();
        // 10 ms later each 100 ms, with as much as 12 ms of jitter that keeps the order.
        let (most, over) = read(&mut delay, |at| at + at / 10 + (at / 5_000 * 7919 % 5) * 3_000);
        assert!(!delay.is_sleepy());
        assert!(most > 100_000 && over, "{most}");
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
