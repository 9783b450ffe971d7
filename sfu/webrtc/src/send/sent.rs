//! What a slot has sent of late, in a few words each, so that it can be sent again.
//!
//! The payloads are in the [`crate::PacketStore`]. A record lies at its sequence number's place in a ring, which is made
//! with the first packet and doubles, up to a bound, while a record would be written over before it is a second old.

use std::time::Duration;

use crate::media::QueuedRtp;

/// Records of a slot at first.
const FIRST: usize = 64;
/// Records of a slot at most: a second of 10 Mbit/s.
pub(crate) const MAX_KEPT: usize = 1024;
/// Milliseconds. What is older is of no use to a viewer.
const MAX_AGE: u32 = 1000;
/// How often one packet is sent again, whatever the viewer asks for.
const MAX_REPEATS: u8 = 10;
const SHORTEST_REPEAT: Duration = Duration::from_millis(30);

/// A packet as it was sent. One cache line: it is written once a copy, to memory that is cold.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Record {
    pub rtp: QueuedRtp,
    /// SRTP index.
    pub index: u64,
    /// Transport-wide sequence number.
    pub number: u16,
    repeats: u8,
    /// Milliseconds since the leg began; so is `resent`.
    sent: u32,
    resent: u32,
}

#[derive(Default)]
pub(super) struct Sent {
    /// Empty, or a power of two long.
    ring: Vec<Option<Record>>,
    /// Where the newest key frame began.
    key_frame: Option<u16>,
}

impl Sent {
    /// Keeps a packet that was sent at `now`, in milliseconds since the leg began.
    pub(super) fn keep(&mut self, now: u32, rtp: &QueuedRtp, index: u64, number: u16) {
        if self.ring.is_empty() {
            self.ring = vec![None; FIRST];
        }
        while self.ring.len() < MAX_KEPT && self.would_lose(now, rtp.seq) {
            self.grow();
        }
        if rtp.starts_key_frame {
            self.key_frame = Some(rtp.seq);
        }
        // Once it is long ago, all that is kept is after it.
        self.key_frame = self
            .key_frame
            .filter(|key| usize::from(rtp.seq.wrapping_sub(*key)) < MAX_KEPT);
        let at = self.at(rtp.seq);
        self.ring[at] = Some(Record {
            rtp: *rtp,
            index,
            number,
            repeats: 0,
            sent: now,
            resent: 0,
        });
    }

    fn at(&self, seq: u16) -> usize {
        usize::from(seq) & (self.ring.len() - 1)
    }

    fn would_lose(&self, now: u32, seq: u16) -> bool {
        self.ring[self.at(seq)].is_some_and(|old| now.saturating_sub(old.sent) <= MAX_AGE)
    }

    fn grow(&mut self) {
        let records = std::mem::take(&mut self.ring);
        self.ring = vec![None; 2 * records.len()];
        for record in records.into_iter().flatten() {
            let at = self.at(record.rtp.seq);
            self.ring[at] = Some(record);
        }
    }

    pub(super) fn get(&self, seq: u16) -> Option<&Record> {
        self.ring
            .get(usize::from(seq) & self.ring.len().wrapping_sub(1))?
            .as_ref()
            .filter(|record| record.rtp.seq == seq)
    }

    /// Notes that the viewer asks for a packet again. False if it is gone or old, before the newest key frame, or was sent again within a round trip
    /// or often enough.
    pub(super) fn ask(&mut self, now: u32, seq: u16, round_trip: Duration) -> bool {
        let at = usize::from(seq) & self.ring.len().wrapping_sub(1);
        let of_no_use = self
            .key_frame
            .is_some_and(|key| (seq.wrapping_sub(key) as i16) < 0);
        if of_no_use {
            return false;
        }
        let Some(Some(record)) = self.ring.get_mut(at) else {
            return false;
        };
        let pause = round_trip.max(SHORTEST_REPEAT).as_millis() as u32;
        let too_soon = record.repeats > 0 && now.saturating_sub(record.resent) < pause;
        let too_old = now.saturating_sub(record.sent) > MAX_AGE;
        if record.rtp.seq != seq || too_old || too_soon || record.repeats >= MAX_REPEATS {
            return false;
        }
        record.repeats += 1;
        record.resent = now;
        true
    }

    pub(super) fn len(&self) -> usize {
        self.ring.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Codec;
    use crate::store::Place;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_record_is_one_cache_line() {
        assert_eq!(size_of::<Option<Record>>(), 64);
    }

    fn rtp(seq: u16) -> QueuedRtp {
        QueuedRtp {
            place: Place::from_numbers((seq.into(), 1)),
            codec: Codec::Vp8,
            descriptor: 0,
            redundancy: 0,
            age_us: 0,
            seq,
            timestamp: 0,
            marker: false,
            audio_level: None,
            patch: None,
            starts_key_frame: false,
        }
    }

    #[test]
    fn a_packet_is_sent_again_at_most_once_a_round_trip() {
        let mut sent = Sent::default();
        assert!(!sent.ask(5, 7, MS) && sent.get(7).is_none(), "nothing yet");
        sent.keep(5, &rtp(7), 7, 1);
        assert!(sent.ask(5, 7, 50 * MS));
        assert!(!sent.ask(54, 7, 50 * MS));
        assert!(sent.ask(55, 7, 50 * MS));
        assert!(!sent.ask(75, 7, MS), "never within 30 ms");
        assert!(!sent.ask(75, 8, MS));
        assert!(!sent.ask(75, 7 + FIRST as u16, MS), "another packet at its place");
        assert!(!sent.ask(1006, 7, MS), "too old");
    }

    #[test]
    fn what_is_before_a_key_frame_is_not_sent_again() {
        let mut sent = Sent::default();
        let key = QueuedRtp {
            starts_key_frame: true,
            ..rtp(3)
        };
        for seq in [65_534, 65_535, 1, 2] {
            sent.keep(0, &rtp(seq), u64::from(seq), 0);
        }
        assert!(sent.ask(1, 65_535, MS));
        sent.keep(1, &key, 3, 0);
        sent.keep(1, &rtp(4), 4, 0);
        assert!([65_534, 65_535, 1, 2].iter().all(|seq| !sent.ask(100, *seq, MS)));
        assert!(sent.ask(100, 3, MS) && sent.ask(100, 4, MS));
        // And half of all numbers later it says nothing of what came since.
        for seq in 5..40_000 {
            sent.keep(200, &rtp(seq), u64::from(seq), 0);
        }
        assert!(sent.ask(300, 39_999, MS));
    }

    #[test]
    fn a_viewer_that_asks_for_ever_gets_a_packet_ten_times() {
        let mut sent = Sent::default();
        sent.keep(0, &rtp(7), 7, 1);
        assert_eq!((0..1000).filter(|ms| sent.ask(*ms, 7, MS)).count(), 10);
    }

    proptest! {
        #[test]
        fn a_second_is_kept_up_to_the_bound(
            first in any::<u16>(),
            packets in prop::collection::vec((0u32..20, 1u16..4), 1..3000),
        ) {
            let (mut sent, mut now, mut seq) = (Sent::default(), 0, first);
            let mut all = Vec::new();
            for (n, (wait, step)) in packets.iter().enumerate() {
                now += wait;
                seq = seq.wrapping_add(*step);
                sent.keep(now, &rtp(seq), n as u64, n as u16);
                all.push((now, seq, n as u64));
                prop_assert!(sent.ring.len() <= MAX_KEPT);
            }
            for (at, old, index) in all {
                match sent.get(old) {
                    Some(record) => prop_assert_eq!(record.index, index),
                    None => prop_assert!(now - at > MAX_AGE || seq.wrapping_sub(old) >= MAX_KEPT as u16),
                }
            }
            prop_assert!(sent.len() <= MAX_KEPT);
        }
    }
}
