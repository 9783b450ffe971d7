//! Protected packets of a slot, kept for a NACK.
//!
//! A lost packet is sent again as the same bytes, so it is kept after encryption and nothing is
//! encrypted twice. The bytes lie one behind the other in a ring that is made with the first packet
//! and doubles while packets of the last second do not fit, up to a bound; then the oldest go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets per slot.
pub(crate) const MAX_KEPT: usize = 512;
const MAX_AGE: Duration = Duration::from_secs(1);
/// How often one packet is sent again, whatever the viewer asks for.
const MAX_REPEATS: u8 = 10;
const SHORTEST_REPEAT: Duration = Duration::from_millis(30);
/// Bytes of the ring at first: a second of a thumbnail.
const FIRST_BYTES: usize = 16 * 1024;
/// Bytes of the ring at most: a second of 4 Mbit/s.
const MAX_BYTES: usize = 512 * 1024;

struct Kept {
    seq: u16,
    length: u16,
    /// Where it begins in the ring; it never runs over the end.
    at: u32,
    sent: Instant,
    resent: Option<Instant>,
    repeats: u8,
}

#[derive(Default)]
pub(crate) struct Resend {
    /// Oldest first, and so are their bytes in the ring.
    kept: VecDeque<Kept>,
    ring: Vec<u8>,
    /// Where the next packet would begin.
    next: usize,
}

impl Resend {
    /// Keeps a packet; one longer than a datagram of ours is not.
    pub(crate) fn keep(&mut self, now: Instant, seq: u16, data: &[u8]) {
        let Ok(length) = u16::try_from(data.len()) else {
            return;
        };
        if data.len() > FIRST_BYTES {
            return;
        }
        while let Some(oldest) = self.kept.front() {
            let old = now.saturating_duration_since(oldest.sent) > MAX_AGE;
            if !old && self.kept.len() < MAX_KEPT {
                break;
            }
            self.kept.pop_front();
        }
        let at = self.room(data.len());
        self.ring[at..at + data.len()].copy_from_slice(data);
        self.next = at + data.len();
        self.kept.push_back(Kept {
            seq,
            length,
            at: at as u32, // below MAX_BYTES
            sent: now,
            resent: None,
            repeats: 0,
        });
    }

    /// Where `length` bytes fit. Makes the ring larger, or drops the oldest packets.
    fn room(&mut self, length: usize) -> usize {
        loop {
            if let Some(at) = self.free(length) {
                return at;
            }
            if self.ring.len() < MAX_BYTES {
                self.grow();
            } else {
                self.kept.pop_front();
            }
        }
    }

    /// A free place of `length` bytes behind the newest packet or, past the end, at the start.
    fn free(&self, length: usize) -> Option<usize> {
        let Some(oldest) = self.kept.front() else {
            return (length <= self.ring.len()).then_some(0);
        };
        let oldest = oldest.at as usize;
        if self.next > oldest {
            if self.next + length <= self.ring.len() {
                return Some(self.next);
            }
            return (length <= oldest).then_some(0);
        }
        (self.next + length <= oldest).then_some(self.next)
    }

    /// Doubles the ring and lays the packets out from its start.
    fn grow(&mut self) {
        let mut ring = vec![0; (2 * self.ring.len()).clamp(FIRST_BYTES, MAX_BYTES)];
        let mut next = 0;
        for kept in &mut self.kept {
            let (at, length) = (kept.at as usize, usize::from(kept.length));
            ring[next..next + length].copy_from_slice(&self.ring[at..at + length]);
            kept.at = next as u32;
            next += length;
        }
        self.ring = ring;
        self.next = next;
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
        let at = kept.at as usize;
        self.ring.get(at..at + usize::from(kept.length))
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;
    use proptest::prelude::*;

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
    fn it_is_bounded_by_number_by_bytes_and_by_age() {
        let (t, mut r) = (instant(), Resend::default());
        assert_eq!(r.ring.len(), 0, "nothing before the first packet");
        for seq in 0..2000u16 {
            r.keep(t, seq, &[1; 10]);
            assert!(r.len() <= MAX_KEPT);
        }
        assert_eq!(r.ring.len(), FIRST_BYTES);
        for seq in 0..2000u16 {
            r.keep(t, seq, &[1; 1400]);
            assert!(r.ring.len() <= MAX_BYTES);
        }
        assert_eq!(r.len(), MAX_BYTES / 1400);
        r.keep(t, 1, &vec![1; 70_000]);
        r.keep(t, 1, &vec![1; FIRST_BYTES + 1]);
        assert_eq!(r.len(), MAX_BYTES / 1400, "no datagram is so long");
        r.keep(t + 1500 * MS, 2000, b"x");
        assert_eq!(r.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_sent(
            packets in prop::collection::vec((0u64..20, 0usize..3000), 1..900),
        ) {
            let (start, mut r) = (instant(), Resend::default());
            let mut now = start;
            let bytes = |seq: usize, length: usize| vec![(seq * 7 % 251) as u8; length];
            for (seq, (wait, length)) in packets.iter().enumerate() {
                now += Duration::from_millis(*wait);
                r.keep(now, seq as u16, &bytes(seq, *length));
            }
            let (mut found, mut total) = (0, 0);
            for (seq, (_, length)) in packets.iter().enumerate().rev() {
                let Some(data) = r.take(now, seq as u16, MS) else {
                    break;
                };
                prop_assert_eq!(data, &bytes(seq, *length)[..]);
                found += 1;
                total += length;
            }
            // None was dropped before its time: of number, of bytes, or of age.
            let all = found == packets.len();
            let oldest: u64 = packets[packets.len() - found..].iter().map(|p| p.0).sum();
            prop_assert!(all || found == MAX_KEPT || total > MAX_BYTES - 6000 || oldest > 1000);
        }
    }
}
