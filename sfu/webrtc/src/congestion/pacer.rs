//! The pacer: how many bytes of a leg may leave now, and when it is worth asking again.
//!
//! A bucket that fills at the pacing rate. An ordinary frame passes in one burst of ten packets, so
//! that GSO has equal segments to join; a key frame of a hundred does not fall into a village link
//! at once. Audio is never held back: it is counted, and video waits for it. O(1), no allocation.
//! It holds no packet; the queue is the leg's.

use std::time::{Duration, Instant};

/// Bytes that may leave in one burst: ten packets.
pub const QUANTUM: usize = 10 * 1250;
/// The bucket holds at least what the rate gives in this time, since a worker looks every 10 ms.
const BUCKET: Duration = Duration::from_millis(12);
/// A burst takes no longer than this at the pacing rate: on a thin path it would be a queue that
/// audio waits in.
const LONGEST_BURST: Duration = Duration::from_millis(20);
/// Nor is it less than a packet, in bytes.
const PACKET: i64 = 1250;
/// Worth a wake-up: less is waited for, though never longer than this.
const PATIENCE: Duration = Duration::from_millis(10);
/// How far audio may overdraw the bucket, as time at the pacing rate.
const DEBT: Duration = Duration::from_millis(250);

/// No leg is paced beyond this, bits per second.
const HIGHEST: u64 = 4_000_000_000;

/// Paces one leg. Bytes are those of UDP payloads.
#[derive(Clone, Debug)]
pub struct Pacer {
    bps: u64,
    /// Bytes that may leave; below 0 after audio or the last packet of a burst.
    bucket: i64,
    filled: Instant,
    /// Nanosecond-bits not yet made a byte.
    rest: u64,
}

impl Pacer {
    /// A full bucket that fills at `bps` bits per second.
    pub fn new(now: Instant, bps: u64) -> Self {
        let mut pacer = Self {
            bps: bps.clamp(1, HIGHEST),
            bucket: 0,
            filled: now,
            rest: 0,
        };
        pacer.bucket = pacer.depth();
        pacer
    }

    /// The rate from now on, bits per second: 2.5 times the estimate, more while a probe runs.
    pub fn set_rate(&mut self, now: Instant, bps: u64) {
        self.fill(now);
        self.bps = bps.clamp(1, HIGHEST);
    }

    /// The rate, bits per second.
    pub const fn rate(&self) -> u64 {
        self.bps
    }

    /// Bytes of video that may leave now. A packet may leave if this is above 0, so that one packet
    /// may overdraw it.
    pub fn allowance(&mut self, now: Instant) -> usize {
        self.fill(now);
        self.bucket.max(0) as usize
    }

    /// Whether video may leave, as of the last time that was told.
    pub(crate) const fn may_send(&self) -> bool {
        self.bucket > 0
    }

    /// `bytes` left: video within the allowance, or audio whatever it is.
    pub fn sent(&mut self, bytes: usize) {
        let debt = self.bytes_in(DEBT).max(PACKET);
        self.bucket = (self.bucket - bytes as i64).max(-debt);
    }

    /// When to ask again with `queued` bytes waiting: once they fit or a quantum does, and within
    /// 10 ms as soon as anything fits.
    pub fn wake(&self, queued: usize) -> Instant {
        let wanted = (queued.max(1) as i64).min(self.depth());
        let comfortable = self.time_for(wanted - self.bucket);
        let at_least = self.time_for(1 - self.bucket);
        self.filled + comfortable.min(at_least.max(PATIENCE))
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        if passed.is_zero() {
            return;
        }
        self.filled = now;
        // Four seconds pay any debt, and the product stays within 64 bits.
        let nanos = passed.as_nanos().min(4_000_000_000) as u64;
        let earned = nanos * self.bps + self.rest;
        self.rest = earned % 8_000_000_000;
        let bytes = (earned / 8_000_000_000) as i64;
        self.bucket = self.bucket.saturating_add(bytes).min(self.depth());
    }

    fn depth(&self) -> i64 {
        let quantum = self.bytes_in(LONGEST_BURST).clamp(PACKET, QUANTUM as i64);
        self.bytes_in(BUCKET).max(quantum)
    }

    fn bytes_in(&self, time: Duration) -> i64 {
        (self.bps * time.as_millis() as u64 / 8000) as i64
    }

    fn time_for(&self, bytes: i64) -> Duration {
        let bytes = bytes.max(0) as u64;
        Duration::from_nanos(bytes.saturating_mul(8_000_000_000).div_ceil(self.bps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    const MS: Duration = Duration::from_millis(1);

    /// Sends what may leave of `queued` packets of 1200 bytes; how many left.
    fn drain(pacer: &mut Pacer, now: Instant, queued: usize) -> usize {
        (0..queued)
            .take_while(|_| {
                let may = pacer.allowance(now) > 0;
                if may {
                    pacer.sent(1200);
                }
                may
            })
            .count()
    }

    #[test]
    fn an_ordinary_frame_leaves_at_once_and_a_key_frame_is_spread() {
        let t0 = instant();
        let mut pacer = Pacer::new(t0, 6_000_000); // 1200 bytes in 1.6 ms
        assert_eq!(drain(&mut pacer, t0, 10), 10);
        let mut now = t0 + MS * 1000;
        let mut bursts = Vec::new();
        let mut left = 100;
        while left > 0 {
            let sent = drain(&mut pacer, now, left);
            bursts.push(sent);
            left -= sent;
            now = pacer.wake(left * 1200);
        }
        assert_eq!(bursts[0], 11, "the bucket and one packet over it: {bursts:?}");
        assert!(bursts[1..].iter().all(|b| *b <= 11), "{bursts:?}");
        let took = now - (t0 + MS * 1000);
        assert!((MS * 140..MS * 150).contains(&took), "{took:?} for 100 packets");
    }

    #[test]
    fn the_rate_is_kept_whatever_the_steps() {
        let t0 = instant();
        for step_us in [100u64, 333, 1000, 10_000] {
            let mut pacer = Pacer::new(t0, 10_000_000);
            let mut sent = 0;
            for n in 0..(2_000_000 / step_us) {
                sent += drain(&mut pacer, t0 + Duration::from_micros(n * step_us), 1000) * 1200;
            }
            let expected = 2_500_000;
            assert!(
                sent.abs_diff(expected) < 2 * QUANTUM,
                "{sent} bytes in steps of {step_us} us"
            );
        }
    }

    #[test]
    fn audio_overdraws_and_video_waits_for_it_but_not_for_ever() {
        let t0 = instant();
        let mut pacer = Pacer::new(t0, 100_000);
        pacer.sent(1_000_000);
        assert_eq!(pacer.allowance(t0), 0);
        let wake = pacer.wake(1200);
        assert!((MS * 240..MS * 270).contains(&(wake - t0)), "{:?}", wake - t0);
        assert!(pacer.allowance(wake) > 0);
    }

    #[test]
    fn a_wake_up_is_worth_its_while_and_soon_enough() {
        let t0 = instant();
        let mut pacer = Pacer::new(t0, 1_000_000); // 125 bytes a millisecond
        pacer.sent(2500); // all of a burst of 20 ms
        assert_eq!(pacer.wake(125), t0 + MS);
        assert_eq!(pacer.wake(100_000), t0 + PATIENCE);
        assert_eq!(pacer.wake(0), t0 + Duration::from_micros(8));
    }
}
