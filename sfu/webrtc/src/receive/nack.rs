//! Which packets of a video stream have come, which are missing, and when to ask for them
//! (RFC 4585, generic NACK).
//!
//! A missing packet is asked for after a small tolerance for reordering, again every round trip,
//! at most `MAX_TRIES` times within a second. What cannot be repaired, because the hole is too
//! large or the tries are used up, is reported once, so that a key frame can be asked for instead.
//! Invariants: the list is bounded, and a number counts as arrived once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Missing packets per stream.
pub(crate) const MAX_MISSING: usize = 256;
/// The largest hole that is repaired, in packets.
const MAX_HOLE: u64 = 128;
const TOLERANCE: Duration = Duration::from_millis(10);
const LIFETIME: Duration = Duration::from_secs(1);
const SHORTEST_RETRY: Duration = Duration::from_millis(30);
const MAX_TRIES: u8 = 10;
/// How far behind the newest a packet may come and still be told from a duplicate, in packets.
const WINDOW: u64 = 1024;

struct Missing {
    since: Instant,
    next: Instant,
    tries: u8,
}

#[derive(Default)]
pub(crate) struct Nack {
    /// The newest number, extended; the first is in the second round, so that none is below 0.
    highest: Option<u64>,
    /// Bit `number % WINDOW` of each that has come.
    seen: [u64; (WINDOW / 64) as usize],
    /// By extended number.
    missing: BTreeMap<u64, Missing>,
    /// Not after any of them is due.
    next: Option<Instant>,
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
    /// It came before, or is too old to tell.
    Duplicate,
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Sequence numbers to ask for.
    pub seqs: Vec<u16>,
    /// A packet was asked for in vain and is given up.
    pub given_up: bool,
}

impl Nack {
    pub(crate) fn received(&mut self, now: Instant, seq: u16) -> Arrival {
        let Some(highest) = self.highest else {
            let first = 0x1_0000 | u64::from(seq);
            self.highest = Some(first);
            self.mark(first);
            return Arrival::Fine;
        };
        let ahead = seq.wrapping_sub(highest as u16);
        if ahead == 0 || ahead >= 0x8000 {
            return self.late(highest.saturating_sub(u64::from(ahead.wrapping_neg())), highest);
        }
        let number = highest + u64::from(ahead);
        self.advance(highest, number);
        if ahead == 1 {
            return Arrival::Fine;
        }
        if number - highest > MAX_HOLE {
            self.missing.clear();
            return Arrival::TooLargeHole;
        }
        let next = now + TOLERANCE;
        for skipped in highest + 1..number {
            let missing = Missing {
                since: now,
                next,
                tries: 0,
            };
            self.missing.insert(skipped, missing);
        }
        self.next = self.next.into_iter().chain([next]).min();
        if self.missing.len() <= MAX_MISSING {
            return Arrival::Hole;
        }
        while self.missing.len() > MAX_MISSING {
            self.missing.pop_first();
        }
        Arrival::TooLargeHole
    }

    fn late(&mut self, number: u64, highest: u64) -> Arrival {
        let (word, bit) = place(number);
        if highest - number >= WINDOW || self.seen[word] & bit != 0 {
            return Arrival::Duplicate;
        }
        self.seen[word] |= bit;
        self.missing.remove(&number);
        Arrival::Fine
    }

    fn advance(&mut self, from: u64, to: u64) {
        if to - from >= WINDOW {
            self.seen = Default::default();
        } else {
            for passed in from + 1..to {
                let (word, bit) = place(passed);
                self.seen[word] &= !bit;
            }
        }
        self.mark(to);
        self.highest = Some(to);
    }

    fn mark(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] |= bit;
    }

    /// A packet of this number may be repeated now: it is not far ahead of all that has come.
    pub(crate) fn may_repeat(&self, seq: u16) -> bool {
        self.highest.is_none_or(|highest| {
            let ahead = seq.wrapping_sub(highest as u16);
            ahead >= 0x8000 || u64::from(ahead) <= MAX_HOLE
        })
    }

    /// The packet is asked for, or will be.
    pub(crate) fn misses(&self, seq: u16) -> bool {
        self.highest.is_some_and(|highest| {
            let behind = (highest as u16).wrapping_sub(seq);
            self.missing
                .contains_key(&highest.saturating_sub(u64::from(behind)))
        })
    }

    /// What to ask for now.
    pub(crate) fn due(&mut self, now: Instant, round_trip: Duration) -> Due {
        let mut out = Due::default();
        if self.next.is_none_or(|next| now < next) {
            return out;
        }
        let retry = round_trip.max(SHORTEST_RETRY);
        let before = self.missing.len();
        self.missing.retain(|_, m| {
            let tried = m.tries >= MAX_TRIES && m.next <= now;
            !tried && now.saturating_duration_since(m.since) < LIFETIME
        });
        out.given_up = self.missing.len() < before;
        for (number, m) in self.missing.iter_mut().filter(|(_, m)| m.next <= now) {
            m.tries += 1;
            m.next = (now + retry).min(m.since + LIFETIME);
            out.seqs.push(*number as u16);
        }
        self.next = self.missing.values().map(|m| m.next).min();
        out
    }

    /// When [`Nack::due`] is due; at the latest, and never while nothing is missing.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next.filter(|_| !self.missing.is_empty())
    }

    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }
}

/// Word and bit of a number.
fn place(number: u64) -> (usize, u64) {
    ((number % WINDOW) as usize / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const RTT: Duration = Duration::from_millis(50);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_reordered_packet_is_not_asked_for() {
        let (t, mut nack) = (crate::test_support::instant(), Nack::default());
        nack.received(t, 65_534);
        assert_eq!(nack.received(t, 0), Arrival::Hole);
        assert!(nack.misses(65_535) && !nack.misses(0) && !nack.misses(1));
        assert_eq!(nack.received(t + 5 * MS, 65_535), Arrival::Fine);
        assert!(!nack.misses(65_535));
        assert_eq!(nack.due(t + 10 * MS, RTT), Due::default());
        assert_eq!(nack.next(), None);
    }

    #[test]
    fn a_lost_packet_is_asked_for_every_round_trip_and_given_up() {
        let (t, mut nack) = (crate::test_support::instant(), Nack::default());
        nack.received(t, 1);
        nack.received(t, 3);
        let (mut asked, mut given_up) = (vec![], vec![]);
        for ms in 0..3000 {
            let due = nack.due(t + ms * MS, RTT);
            if !due.seqs.is_empty() {
                asked.push(ms);
            }
            if due.given_up {
                given_up.push(ms);
            }
        }
        assert_eq!(asked, [10, 60, 110, 160, 210, 260, 310, 360, 410, 460]);
        assert_eq!(given_up, [510], "once, when the tenth has had its time");
        assert_eq!(nack.missing(), 0);
    }

    #[test]
    fn a_packet_is_given_up_after_a_second_however_long_the_round_trip() {
        let (t, mut nack) = (crate::test_support::instant(), Nack::default());
        nack.received(t, 1);
        nack.received(t, 3);
        let given_up = (0..3000).find(|ms| nack.due(t + *ms * MS, 400 * MS).given_up);
        assert_eq!(given_up, Some(1000), "asked for at 10, 410 and 810");
    }

    #[test]
    fn too_large_a_hole_is_not_repaired() {
        let (t, mut nack) = (crate::test_support::instant(), Nack::default());
        nack.received(t, 1);
        assert_eq!(nack.received(t, 1000), Arrival::TooLargeHole);
        assert_eq!(nack.missing(), 0);
        assert_eq!(nack.received(t, 1001), Arrival::Fine);
        // Many small holes are as bad as a large one.
        for n in 1..=MAX_MISSING as u16 {
            assert_eq!(nack.received(t, 1001 + 2 * n), Arrival::Hole);
        }
        let next = 1001 + 2 * (MAX_MISSING as u16 + 1);
        assert_eq!(nack.received(t, next), Arrival::TooLargeHole);
    }

    #[test]
    fn the_first_packets_may_come_out_of_order() {
        let (t, mut nack) = (crate::test_support::instant(), Nack::default());
        assert_eq!(nack.received(t, 0), Arrival::Fine);
        assert_eq!(nack.received(t, 65_535), Arrival::Fine);
        assert_eq!(nack.received(t, 65_535), Arrival::Duplicate);
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

        #[test]
        fn a_number_arrives_once(
            steps in prop::collection::vec(prop_oneof![-1100i64..1100, -3i64..4, 2000i64..3000], 1..400),
        ) {
            let (t, mut nack) = (crate::test_support::instant(), Nack::default());
            let mut number = 100_000i64;
            let mut all = BTreeSet::new();
            for step in steps {
                number += step;
                let highest = all.last().copied().unwrap_or(number);
                let fresh = !all.contains(&number) && highest - number < WINDOW as i64;
                let arrival = nack.received(t, number as u16);
                prop_assert_eq!(arrival != Arrival::Duplicate, fresh);
                if fresh {
                    all.insert(number);
                }
                prop_assert!(!nack.misses(number as u16) || !fresh);
            }
        }
    }
}
