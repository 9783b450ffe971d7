//! The bit rate of one layer, by temporal layer, as its packets come.
//!
//! A window of a second in steps of 100 ms, smoothed at each step so that a key frame does not pass for a change. A
//! packet costs O(1). While a layer is silent its last rate stands, since that is the best guess of what it will cost.

use crate::types::Micros;

/// Temporal layers that are told apart (RFC 7741 has two bits for them).
pub(crate) const TEMPORAL: usize = 4;
/// Bytes that a packet costs beside its payload: RTP header and extensions, SRTP tag, UDP and IP.
pub(crate) const OVERHEAD: u32 = 64;

const STEP_US: u64 = 100_000;
const STEPS: usize = 10;
/// Nothing is said of a run shorter than this, in microseconds.
const ENOUGH_US: u64 = 300_000;
/// How much of the difference one step makes up: an eighth, so about 0.8 s.
const SMOOTH: i64 = 8;

#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// Bytes of each of the last steps, the present one among them.
    steps: [[u32; TEMPORAL]; STEPS],
    /// Their sums.
    totals: [u32; TEMPORAL],
    /// Number of the present step since the epoch.
    step: u64,
    /// When the present run of packets began; `None` before the first and after a second of silence.
    since: Option<Micros>,
    /// Bits a second of each temporal layer alone.
    smooth: Option<[u32; TEMPORAL]>,
    /// The highest temporal layer of any packet so far.
    pub highest: u8,
}

impl Rate {
    /// Takes one packet of this temporal layer.
    pub fn count(&mut self, now: Micros, tid: u8, bytes: usize) {
        self.highest = self.highest.max(tid);
        let step = now.0 / STEP_US;
        if step != self.step {
            self.turn(now, step);
        }
        self.since.get_or_insert(now);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(OVERHEAD);
        let tid = usize::from(tid).min(TEMPORAL - 1);
        let here = (self.step % STEPS as u64) as usize;
        self.steps[here][tid] = self.steps[here][tid].saturating_add(bytes);
        self.totals[tid] = self.totals[tid].saturating_add(bytes);
    }

    /// Bits a second of the temporal layers up to this one; `None` while nothing was measured.
    pub fn bps(&self, tid: u8) -> Option<u64> {
        let smooth = self.smooth?;
        let upto = usize::from(tid).min(TEMPORAL - 1);
        Some(smooth[..=upto].iter().map(|&bps| u64::from(bps)).sum())
    }

    /// The highest temporal layer that carries anything.
    pub fn top(&self) -> u8 {
        let carries = |smooth: &[u32; TEMPORAL]| smooth.iter().rposition(|&bps| bps > 0);
        self.smooth.as_ref().and_then(carries).unwrap_or(0) as u8
    }

    fn turn(&mut self, now: Micros, step: u64) {
        let passed = step.saturating_sub(self.step);
        if passed >= STEPS as u64 {
            // Silent for a second: what comes now is a new run.
            self.steps = Default::default();
            self.totals = Default::default();
            self.since = None;
            self.step = step;
            return;
        }
        self.measure(now);
        for next in self.step + 1..=step {
            let oldest = &mut self.steps[(next % STEPS as u64) as usize];
            for (total, old) in self.totals.iter_mut().zip(std::mem::take(oldest)) {
                *total = total.saturating_sub(old);
            }
        }
        self.step = step;
    }

    fn measure(&mut self, now: Micros) {
        // The window ends with the step that is over, and begins at most nine whole steps before it.
        let window = STEPS as u64 * STEP_US;
        let end = Micros((self.step + 1) * STEP_US).0.min(now.0);
        let Some(since) = self.since else { return };
        let span = Micros(end).since(since).min(window);
        if span < ENOUGH_US {
            return;
        }
        let bps = self
            .totals
            .map(|bytes| u32::try_from(u64::from(bytes) * 8_000_000 / span).unwrap_or(u32::MAX));
        let smooth = self.smooth.get_or_insert(bps);
        for (old, new) in smooth.iter_mut().zip(bps) {
            let step = (i64::from(new) - i64::from(*old)) / SMOOTH;
            *old = (i64::from(*old) + step).max(0) as u32;
            // The last few bits of a temporal layer that has ended are none.
            if new == 0 && *old < 1000 {
                *old = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 bits of wire a packet, one every `gap_us`, of these temporal layers in turn.
    fn run(rate: &mut Rate, from: u64, until: u64, gap_us: u64, tids: &[u8]) {
        for (n, at) in (from..until).step_by(gap_us as usize).enumerate() {
            rate.count(Micros(at), tids[n % tids.len()], 125 - OVERHEAD as usize);
        }
    }

    fn near(value: Option<u64>, expected: u64) -> bool {
        value.is_some_and(|value| value.abs_diff(expected) * 20 <= expected)
    }

    #[test]
    fn nothing_is_said_at_first_and_then_what_comes() {
        let mut rate = Rate::default();
        run(&mut rate, 5_000_000, 5_200_000, 1000, &[0]);
        assert_eq!(rate.bps(3), None);
        run(&mut rate, 5_200_000, 7_000_000, 1000, &[0]);
        assert!(near(rate.bps(3), 1_000_000), "{:?}", rate.bps(3));
        assert_eq!(rate.top(), 0);
    }

    #[test]
    fn temporal_layers_add_up() {
        let mut rate = Rate::default();
        run(&mut rate, 0, 3_000_000, 1000, &[0, 2, 1, 2]);
        let bps: Vec<_> = (0..4).map(|tid| rate.bps(tid)).collect();
        assert!(
            near(bps[0], 250_000) && near(bps[1], 500_000) && near(bps[2], 1_000_000),
            "{bps:?}"
        );
        assert_eq!((bps[3], rate.top()), (bps[2], 2));
    }

    #[test]
    fn it_follows_within_three_seconds_and_outlives_silence() {
        let mut rate = Rate::default();
        run(&mut rate, 0, 3_000_000, 1000, &[0]);
        run(&mut rate, 3_000_000, 6_000_000, 4000, &[0]);
        let slow = rate.bps(0).expect("measured");
        assert!((250_000..330_000).contains(&slow), "{slow}");
        run(&mut rate, 60_000_000, 60_100_000, 4000, &[0]);
        assert_eq!(rate.bps(0), Some(slow), "a new run says nothing yet");
        run(&mut rate, 60_100_000, 63_000_000, 2000, &[0]);
        assert!((450_000..=520_000).contains(&rate.bps(0).expect("measured")));
    }

    #[test]
    fn a_key_frame_moves_it_by_little() {
        let mut rate = Rate::default();
        run(&mut rate, 0, 3_000_000, 1000, &[0]);
        run(&mut rate, 3_000_000, 3_001_000, 10, &[0]);
        run(&mut rate, 3_001_000, 4_500_000, 1000, &[0]);
        assert!((1_000_000..1_120_000).contains(&rate.bps(0).expect("measured")));
    }
}
