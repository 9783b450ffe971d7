//! Which packets of a video stream are missing, and when to ask for them (RFC 4585, generic NACK).
//!
//! A missing packet is asked for after a small tolerance for reordering, again every round trip,
//! at most `MAX_TRIES` times within a second. The list is bounded; a hole too large to repair is
//! reported so that a key frame can be asked for instead.

use std::time::{Duration, Instant};

/// Missing packets per stream.
pub(crate) const MAX_MISSING: usize = 256;
/// The largest hole that is repaired, in packets.
const MAX_HOLE: u16 = 128;
const TOLERANCE: Duration = Duration::from_millis(10);
const LIFETIME: Duration = Duration::from_secs(1);
const SHORTEST_RETRY: Duration = Duration::from_millis(30);
const MAX_TRIES: u8 = 10;

struct Missing {
    seq: u16,
    since: Instant,
    next: Instant,
    tries: u8,
}

#[derive(Default)]
pub(crate) struct Nack {
    highest: Option<u16>,
    missing: Vec<Missing>,
}

/// What a packet meant for the stream's continuity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Next in order, or filling a hole.
    Fine,
    /// It opened a hole.
    Hole,
    /// It opened a hole too large to repair.
    TooLargeHole,
}

impl Nack {
    pub(crate) fn received(&mut self, now: Instant, seq: u16) -> Arrival {
        let Some(highest) = self.highest else {
            self.highest = Some(seq);
            return Arrival::Fine;
        };
        let ahead = seq.wrapping_sub(highest);
        if ahead == 0 || ahead >= 0x8000 {
            self.missing.retain(|m| m.seq != seq);
            return Arrival::Fine;
        }
        self.highest = Some(seq);
        if ahead == 1 {
            return Arrival::Fine;
        }
        if ahead > MAX_HOLE {
            self.missing.clear();
            return Arrival::TooLargeHole;
        }
        for n in 1..ahead {
            self.missing.push(Missing {
                seq: highest.wrapping_add(n),
                since: now,
                next: now + TOLERANCE,
                tries: 0,
            });
        }
        if self.missing.len() > MAX_MISSING {
            let excess = self.missing.len() - MAX_MISSING;
            self.missing.drain(..excess);
        }
        Arrival::Hole
    }

    /// Sequence numbers to ask for now.
    pub(crate) fn due(&mut self, now: Instant, round_trip: Duration) -> Vec<u16> {
        self.missing
            .retain(|m| m.tries < MAX_TRIES && now.saturating_duration_since(m.since) < LIFETIME);
        let retry = round_trip.max(SHORTEST_RETRY);
        let mut due = Vec::new();
        for m in self.missing.iter_mut().filter(|m| m.next <= now) {
            m.tries += 1;
            m.next = now + retry;
            due.push(m.seq);
        }
        due
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.missing.iter().map(|m| m.next).min()
    }

    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RTT: Duration = Duration::from_millis(50);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_reordered_packet_is_not_asked_for() {
        let (t, mut nack) = (crate::test_support::instant(), Nack::default());
        nack.received(t, 65_534);
        assert_eq!(nack.received(t, 0), Arrival::Hole);
        assert_eq!(nack.received(t + 5 * MS, 65_535), Arrival::Fine);
        assert!(nack.due(t + 10 * MS, RTT).is_empty());
        assert_eq!(nack.next(), None);
    }

    #[test]
    fn a_lost_packet_is_asked_for_every_round_trip_and_given_up() {
        let (t, mut nack) = (crate::test_support::instant(), Nack::default());
        nack.received(t, 1);
        nack.received(t, 3);
        let mut asked = vec![];
        for ms in 0..3000 {
            if !nack.due(t + ms * MS, RTT).is_empty() {
                asked.push(ms);
            }
        }
        assert_eq!(asked, [10, 60, 110, 160, 210, 260, 310, 360, 410, 460]);
        assert_eq!(nack.missing(), 0);
    }

    #[test]
    fn too_large_a_hole_is_not_repaired() {
        let (t, mut nack) = (crate::test_support::instant(), Nack::default());
        nack.received(t, 1);
        assert_eq!(nack.received(t, 1000), Arrival::TooLargeHole);
        assert_eq!(nack.missing(), 0);
        assert_eq!(nack.received(t, 1001), Arrival::Fine);
    }

    proptest! {
        #[test]
        fn the_list_is_bounded(seqs in prop::collection::vec(any::<u16>(), 0..400)) {
            let (t, mut nack) = (crate::test_support::instant(), Nack::default());
            for seq in seqs {
                nack.received(t, seq);
                prop_assert!(nack.missing() <= MAX_MISSING);
            }
        }
    }
}
