//! Protected packets of a slot, kept for a NACK.
//!
//! A lost packet is sent again as the same bytes, so it is kept after encryption and nothing is
//! encrypted twice. Bounded by number and by age; buffers are used again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets per slot.
pub(crate) const MAX_KEPT: usize = 512;
const MAX_AGE: Duration = Duration::from_secs(1);
/// How often one packet is sent again, whatever the viewer asks for.
const MAX_REPEATS: u8 = 10;
const SHORTEST_REPEAT: Duration = Duration::from_millis(30);
/// Empty buffers kept for use again.
const MAX_SPARE: usize = 64;

struct Kept {
    seq: u16,
    sent: Instant,
    resent: Option<Instant>,
    repeats: u8,
    data: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Resend {
    kept: VecDeque<Kept>,
    spare: Vec<Vec<u8>>,
}

impl Resend {
    pub(crate) fn keep(&mut self, now: Instant, seq: u16, data: &[u8]) {
        while let Some(oldest) = self.kept.front() {
            let old = now.saturating_duration_since(oldest.sent) > MAX_AGE;
            if !old && self.kept.len() < MAX_KEPT {
                break;
            }
            if let Some(kept) = self.kept.pop_front()
                && self.spare.len() < MAX_SPARE
            {
                self.spare.push(kept.data);
            }
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(data);
        self.kept.push_back(Kept {
            seq,
            sent: now,
            resent: None,
            repeats: 0,
            data: buffer,
        });
    }

    /// The packet to send again; None if it is gone or was sent again within a round trip.
    pub(crate) fn take(&mut self, now: Instant, seq: u16, round_trip: Duration) -> Option<&[u8]> {
        let kept = self.kept.iter_mut().rev().find(|k| k.seq == seq)?;
        let pause = round_trip.max(SHORTEST_REPEAT);
        let too_soon = |last| now.saturating_duration_since(last) < pause;
        let too_old = now.saturating_duration_since(kept.sent) > MAX_AGE;
        if too_old || kept.repeats >= MAX_REPEATS || kept.resent.is_some_and(too_soon) {
            return None;
        }
        kept.repeats += 1;
        kept.resent = Some(now);
        Some(&kept.data)
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_packet_is_sent_again_at_most_once_a_round_trip() {
        let (t, mut r) = (instant(), Resend::default());
        r.keep(t, 7, b"seven");
        assert_eq!(r.take(t, 7, 50 * MS), Some(&b"seven"[..]));
        assert_eq!(r.take(t + 49 * MS, 7, 50 * MS), None);
        assert!(r.take(t + 50 * MS, 7, 50 * MS).is_some());
        assert_eq!(r.take(t + 70 * MS, 7, MS), None, "never within 30 ms");
        assert_eq!(r.take(t, 8, MS), None);
        assert_eq!(r.take(t + 1001 * MS, 7, MS), None, "too old");
    }

    #[test]
    fn a_viewer_that_asks_for_ever_gets_a_packet_ten_times() {
        let (t, mut r) = (instant(), Resend::default());
        r.keep(t, 7, b"seven");
        let got = (0..1000).filter(|ms| r.take(t + *ms * MS, 7, MS).is_some());
        assert_eq!(got.count(), 10);
    }

    #[test]
    fn it_is_bounded_by_number_and_by_age() {
        let (t, mut r) = (instant(), Resend::default());
        for seq in 0..2000u16 {
            r.keep(t, seq, b"x");
            assert!(r.len() <= MAX_KEPT);
        }
        r.keep(t + 1500 * MS, 2000, b"x");
        assert_eq!(r.len(), 1);
    }
}
