//! The bit rate of one layer, step by step, as its packets come.
//!
//! The *steps* of a stream are what can be left out of it, from the top: first the temporal layers of its base, then
//! its spatial layers, where it has such. A simulcast layer of VP8 has temporal ones only.
//!
//! A window of a second in steps of 100 ms, smoothed at each step so that a key frame does not pass for a change. A
//! packet costs O(1). While a layer is silent its last rate stands, since that is the best guess of what it will cost.

use crate::types::Micros;

/// Temporal layers that are told apart (RFC 7741 has two bits for them): the first steps.
pub(crate) const TEMPORAL: usize = 4;
/// All steps: four spatial layers above the base.
pub(crate) const STEPS: usize = TEMPORAL + 4;
/// Bytes that a packet costs beside its payload: RTP header and extensions, SRTP tag, UDP and IP.
pub(crate) const OVERHEAD: u32 = 64;

const SLICE_US: u64 = 100_000;
const SLICES: usize = 10;
/// Nothing is said of a run shorter than this, in microseconds.
const ENOUGH_US: u64 = 300_000;
/// How much of the difference one step makes up: an eighth, so about 0.8 s.
const SMOOTH: i64 = 8;

#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// Bytes of each of the last slices of time, the present one among them.
    slices: [[u32; STEPS]; SLICES],
    /// Their sums.
    totals: [u32; STEPS],
    /// Number of the present slice since the epoch.
    slice: u64,
    /// When the present run of packets began; `None` before the first and after a second of silence.
    since: Option<Micros>,
    /// Bits a second of each step alone.
    smooth: Option<[u32; STEPS]>,
    /// A bit for each step that ever came.
    seen: u8,
}

impl Rate {
    /// Takes one packet of this step.
    pub fn count(&mut self, now: Micros, step: u8, bytes: usize) {
        let slice = now.0 / SLICE_US;
        if slice != self.slice {
            self.turn(now, slice);
        }
        self.since.get_or_insert(now);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(OVERHEAD);
        let step = usize::from(step).min(STEPS - 1);
        self.seen |= 1 << step;
        let here = (self.slice % SLICES as u64) as usize;
        self.slices[here][step] = self.slices[here][step].saturating_add(bytes);
        self.totals[step] = self.totals[step].saturating_add(bytes);
    }

    /// Bits a second of the steps up to this one; `None` while nothing was measured.
    pub fn bps(&self, step: u8) -> Option<u64> {
        let smooth = self.smooth?;
        let upto = usize::from(step).min(STEPS - 1);
        Some(smooth[..=upto].iter().map(|&bps| u64::from(bps)).sum())
    }

    /// The highest step that carries anything.
    pub fn top(&self) -> u8 {
        let carries = |smooth: &[u32; STEPS]| smooth.iter().rposition(|&bps| bps > 0);
        self.smooth.as_ref().and_then(carries).unwrap_or(0) as u8
    }

    /// The highest step that ever came.
    pub fn highest(&self) -> u8 {
        self.seen.checked_ilog2().unwrap_or(0) as u8 // below 8
    }

    /// The steps below the highest that carry anything.
    pub fn below_top(&self) -> impl DoubleEndedIterator<Item = u8> + '_ {
        let carries = |step: &u8| self.smooth.is_some_and(|smooth| smooth[usize::from(*step)] > 0);
        (0..self.top()).filter(carries)
    }

    /// The highest step that ever came below this one, and whether none came above it.
    pub fn around(&self, step: u8) -> (u8, bool) {
        let step = u32::from(step).min(STEPS as u32 - 1);
        let below = self.seen & ((1 << step) - 1);
        let above = u32::from(self.seen) >> (step + 1);
        (below.checked_ilog2().unwrap_or(0) as u8, above == 0)
    }

    fn turn(&mut self, now: Micros, slice: u64) {
        let passed = slice.saturating_sub(self.slice);
        if passed >= SLICES as u64 {
            // Silent for a second: what comes now is a new run.
            self.slices = Default::default();
            self.totals = Default::default();
            self.since = None;
            self.slice = slice;
            return;
        }
        self.measure(now);
        for next in self.slice + 1..=slice {
            let oldest = &mut self.slices[(next % SLICES as u64) as usize];
            for (total, old) in self.totals.iter_mut().zip(std::mem::take(oldest)) {
                *total = total.saturating_sub(old);
            }
        }
        self.slice = slice;
    }

    fn measure(&mut self, now: Micros) {
        // The window ends with the slice that is over, and begins at most nine whole slices before it.
        let window = SLICES as u64 * SLICE_US;
        let end = Micros((self.slice + 1) * SLICE_US).0.min(now.0);
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
            let change = (i64::from(new) - i64::from(*old)) / SMOOTH;
            *old = (i64::from(*old) + change).max(0) as u32;
            // The last few bits of a step that has ended are none.
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
