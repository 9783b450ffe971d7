//! What was sent and is not told of yet: eight bytes a packet in a ring.
//!
//! Invariant: at most [`MOST`] packets; a packet is told as arrived once at most, whatever the
//! feedback repeats. The ring starts small and doubles while packets younger than a second and a half
//! would be overwritten.

/// Packets in the ring at first, and at most; powers of two.
const FIRST: usize = 256;
const MOST: usize = 8192;
/// A ring that turns faster than this grows, in microseconds: feedback may be late by more than a second.
const YOUNG: u32 = 1_500_000;

#[derive(Clone, Copy, Default)]
struct Record {
    /// Microseconds, modulo 2^32 (71 minutes; no packet is waited for that long).
    sent: u32,
    bytes: u16,
    /// Which probe it belongs to, 0 for none.
    probe: u8,
    fate: Fate,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Unknown,
    Lost,
    Arrived,
}

/// What feedback changed for one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It arrived.
    Arrived(Sent),
    /// It arrived, having been told lost.
    LateArrival(Sent),
    /// It is told lost, for the first time.
    Lost(Sent),
}

/// A packet as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Microseconds since the leg's start.
    pub at: u64,
    pub bytes: u32,
    /// Which probe it belongs to, 0 for none.
    pub probe: u8,
}

#[derive(Default)]
pub(crate) struct History {
    ring: Box<[Record]>,
    /// The number of the next packet; the low 16 bits travel.
    next: u64,
}

impl History {
    /// Numbers a packet of `bytes` that leaves at `at`, microseconds since the start.
    pub(crate) fn push(&mut self, at: u64, bytes: usize, probe: u8) -> u16 {
        let index = self.next as usize & self.ring.len().wrapping_sub(1);
        let turned = |r: &Record| r.bytes != 0 && (at as u32).wrapping_sub(r.sent) < YOUNG;
        let full = self.ring.get(index).is_none_or(turned);
        let index = if full { self.grow() } else { index };
        self.ring[index] = Record {
            sent: at as u32,
            bytes: u16::try_from(bytes).unwrap_or(u16::MAX),
            probe,
            fate: Fate::Unknown,
        };
        let seq = self.next as u16;
        self.next += 1;
        seq
    }

    /// Doubles the ring, up to its limit; the place of the next packet.
    #[cold]
    fn grow(&mut self) -> usize {
        let (old, from) = (self.ring.len(), self.next.saturating_sub(self.ring.len() as u64));
        if old < MOST {
            let length = (old * 2).max(FIRST);
            let mut ring = vec![Record::default(); length].into_boxed_slice();
            for n in from..self.next {
                ring[n as usize & (length - 1)] = self.ring[n as usize & (old - 1)];
            }
            self.ring = ring;
        }
        self.next as usize & (self.ring.len() - 1)
    }

    /// The whole number of the packet that travels as `seq`: the newest such that was sent, within
    /// half of all numbers; the ring may have lost it. None: no such was sent.
    pub(crate) fn unwrap(&self, seq: u16) -> Option<u64> {
        let newest = self.next.checked_sub(1)?;
        let back = (newest as u16).wrapping_sub(seq);
        (back < 0x8000)
            .then(|| newest.checked_sub(u64::from(back)))
            .flatten()
    }

    /// The number of the next packet.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Takes what feedback says of packet `number`; None where that is no news, or forgotten.
    pub(crate) fn told(&mut self, now: u64, number: u64, arrived: bool) -> Option<News> {
        if number >= self.next || self.next - number > self.ring.len() as u64 {
            return None;
        }
        let record = &mut self.ring[number as usize & (self.ring.len() - 1)];
        let before = record.fate;
        if before == Fate::Arrived || before == Fate::Lost && !arrived {
            return None;
        }
        record.fate = if arrived { Fate::Arrived } else { Fate::Lost };
        let sent = Sent {
            at: now - u64::from((now as u32).wrapping_sub(record.sent)).min(now),
            bytes: u32::from(record.bytes),
            probe: record.probe,
        };
        Some(match (arrived, before) {
            (false, _) => News::Lost(sent),
            (true, Fate::Lost) => News::LateArrival(sent),
            (true, _) => News::Arrived(sent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_eight_bytes() {
        assert_eq!(size_of::<Record>(), 8);
    }

    #[test]
    fn each_packet_is_news_once_and_may_arrive_late() {
        let mut history = History::default();
        for n in 0..3 {
            assert_eq!(history.push(n * 1000, 100 + n as usize, 7), n as u16);
        }
        let sent = |n: u64| Sent {
            at: n * 1000,
            bytes: 100 + n as u32,
            probe: 7,
        };
        assert_eq!(history.told(9000, 0, true), Some(News::Arrived(sent(0))));
        assert_eq!(history.told(9000, 0, true), None);
        assert_eq!(history.told(9000, 1, false), Some(News::Lost(sent(1))));
        assert_eq!(history.told(9000, 1, false), None);
        assert_eq!(history.told(9000, 1, true), Some(News::LateArrival(sent(1))));
        assert_eq!(history.told(9000, 3, true), None, "never sent");
        assert_eq!(history.unwrap(3), None);
    }

    #[test]
    fn the_ring_grows_to_hold_late_feedback_and_no_further_than_its_limit() {
        let mut history = History::default();
        for n in 0..3000u64 {
            history.push(n * 1000, 100, 0);
        }
        assert_eq!(history.ring.len(), 2048);
        assert!(matches!(history.told(3_000_000, 1000, true), Some(News::Arrived(s)) if s.at == 1_000_000));
        assert_eq!(history.told(3_000_000, 900, true), None, "forgotten");
        for n in 0..100_000u64 {
            history.push(3_000_000 + n, 100, 0);
        }
        assert_eq!(history.ring.len(), MOST);
        assert_eq!(history.unwrap(history.next() as u16), None);
        let newest = history.next() - 1;
        assert_eq!(history.unwrap(newest as u16), Some(newest));
    }

    #[test]
    fn a_slow_leg_keeps_its_small_ring() {
        let mut history = History::default();
        for n in 0..5000u64 {
            history.push(n * 20_000, 100, 0);
        }
        assert_eq!(history.ring.len(), FIRST);
    }
}
