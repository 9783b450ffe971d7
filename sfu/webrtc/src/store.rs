//! What was received lately, plain, once for all who are sent it: copies are made from it, and sent again.
//!
//! A ring of payloads that is made with the first packet and doubles, whenever it comes to its end, while it was filled
//! in less than [`HOLD`], up to [`MAX_BYTES`]. Invariant: a [`Place`] yields the very bytes that it was given for, or nothing: places are
//! never given twice, so that what is encrypted again under an index is what was encrypted before. It knows neither
//! streams nor sequence numbers.

use std::time::{Duration, Instant};

/// Bytes of the ring at first.
const FIRST_BYTES: usize = 64 * 1024;
/// Bytes of the ring at most: a second of 268 Mbit/s.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// A round that takes less makes the ring larger. Twice a second, so that a second is held although the rate doubles.
const HOLD: Duration = Duration::from_secs(2);

/// Where a payload lies in the [`PacketStore`] that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes pushed before it, those skipped at the ring's end included.
    at: u64,
    length: u16,
}

impl Place {
    /// As two numbers, for those who hand it on without knowing what it is: position and length in bytes.
    pub const fn numbers(self) -> (u64, u16) {
        (self.at, self.length)
    }

    /// The reverse of [`Place::numbers`]. Numbers that no place had yield nothing from a store, or another payload of it.
    pub const fn from_numbers((at, length): (u64, u16)) -> Self {
        Self { at, length }
    }

    /// The payload's length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no container")]
    pub const fn len(self) -> usize {
        self.length as usize
    }
}

/// The payloads received lately by one worker.
#[derive(Default)]
pub struct PacketStore {
    /// Empty, or a power of two long.
    ring: Vec<u8>,
    /// Where the next payload begins, as in [`Place::at`].
    next: u64,
    /// What lies before is gone, although the ring is long enough.
    oldest: u64,
    /// When the present round began.
    round_began: Option<Instant>,
}

impl PacketStore {
    /// Without memory, until something is pushed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a payload. None for one longer than 65,535 bytes, which no datagram holds.
    pub fn push(&mut self, now: Instant, payload: &[u8]) -> Option<Place> {
        self.push_behind(now, &[], payload)
    }

    /// As [`PacketStore::push`], with something in front of it in the same place.
    pub fn push_behind(&mut self, now: Instant, front: &[u8], payload: &[u8]) -> Option<Place> {
        let length = u16::try_from(front.len() + payload.len()).ok()?;
        if self.ring.is_empty() {
            self.ring = vec![0; FIRST_BYTES];
            self.round_began = Some(now);
        }
        let mut start = self.index(self.next);
        if start + usize::from(length) > self.ring.len() {
            self.next += (self.ring.len() - start) as u64;
            self.begin_round(now);
            start = self.index(self.next);
        }
        let behind = start + front.len();
        self.ring[start..behind].copy_from_slice(front);
        self.ring[behind..behind + payload.len()].copy_from_slice(payload);
        let place = Place {
            at: self.next,
            length,
        };
        self.next += u64::from(length);
        Some(place)
    }

    /// The payload; None once it was written over.
    pub fn get(&self, place: Place) -> Option<&[u8]> {
        let end = place.at.checked_add(place.length.into())?;
        let kept = place.at >= self.oldest && end <= self.next && !self.ring.is_empty();
        if !kept || self.next - place.at > self.ring.len() as u64 {
            return None;
        }
        let start = self.index(place.at);
        self.ring.get(start..start + place.len())
    }

    /// Bytes of memory.
    pub fn capacity(&self) -> usize {
        self.ring.len()
    }

    fn index(&self, at: u64) -> usize {
        at as usize & (self.ring.len() - 1)
    }

    /// `next` is where the ring begins again.
    fn begin_round(&mut self, now: Instant) {
        let began = self.round_began.replace(now);
        let quick = began.is_some_and(|began| now.saturating_duration_since(began) < HOLD);
        if quick && self.ring.len() < MAX_BYTES {
            self.grow();
        }
    }

    /// Doubles the ring; what it held lies in the half that is not written to next. No payload lies across the old
    /// ring's end, so none lies across the new one's.
    fn grow(&mut self) {
        let length = self.ring.len();
        let mut ring = vec![0; 2 * length];
        let next = self.next as usize & (2 * length - 1);
        let other = next ^ length;
        ring[other..other + length].copy_from_slice(&self.ring);
        self.oldest = self.oldest.max(self.next.saturating_sub(length as u64));
        self.ring = ring;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{allocations, instant};
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_second_of_any_rate_is_held_and_memory_has_an_end() {
        for (every, bound) in [(10 * MS, 1 << 19), (MS / 4, 1 << 25), (MS / 100, MAX_BYTES)] {
            let (mut store, mut now) = (PacketStore::new(), instant());
            assert_eq!(store.capacity(), 0);
            let mut places = std::collections::VecDeque::new();
            let warm = now + 6000 * MS;
            while now < warm + 3000 * MS {
                now += every;
                places.push_back((now, store.push(now, &[1; 1200]).expect("short")));
                while places.front().is_some_and(|(at, _)| now - *at > 1000 * MS) {
                    places.pop_front();
                }
                if now > warm && store.capacity() < MAX_BYTES {
                    let oldest = places.front().expect("one").1;
                    assert!(store.get(oldest).is_some(), "{every:?}");
                }
            }
            assert!(store.capacity() <= bound, "{every:?} {}", store.capacity());
        }
    }

    #[test]
    fn what_is_no_place_yields_nothing() {
        let mut store = PacketStore::new();
        assert_eq!(store.get(Place::from_numbers((0, 0))), None);
        let place = store.push(instant(), b"here").expect("short");
        assert_eq!(store.get(place), Some(&b"here"[..]));
        assert_eq!(store.get(Place::from_numbers((1, 4))), None);
        assert_eq!(store.get(Place::from_numbers((u64::MAX, 4))), None);
        assert_eq!(store.push(instant(), &vec![0; 65_536]), None);
        let longest = store.push(instant(), &vec![7; 65_535]).expect("fits");
        assert_eq!(store.get(longest).map(<[u8]>::len), Some(65_535));
        assert_eq!(Place::from_numbers(longest.numbers()), longest);
    }

    #[test]
    fn nothing_is_allocated_for_a_packet() {
        let (mut store, now) = (PacketStore::new(), instant());
        let push = |store: &mut PacketStore, from: u32| {
            for n in from..from + 5000 {
                store.push(now + n * MS, &[1; 1000]);
            }
        };
        push(&mut store, 0);
        assert_eq!(allocations(|| push(&mut store, 5000)), 0);
    }

    proptest! {
        #[test]
        fn a_place_yields_its_own_bytes_or_nothing(
            packets in prop::collection::vec((0u64..300, 0usize..20_000), 1..400),
        ) {
            let (mut store, mut now) = (PacketStore::new(), instant());
            let mut all = Vec::new();
            for (n, (wait, length)) in packets.iter().enumerate() {
                now += Duration::from_millis(*wait);
                let bytes = vec![(n % 251) as u8; *length];
                let place = store.push(now, &bytes).expect("short");
                all.push((place, bytes));
                let mut behind = 0;
                for (place, bytes) in all.iter().rev() {
                    behind += bytes.len();
                    match store.get(*place) {
                        Some(found) => prop_assert_eq!(found, &bytes[..]),
                        // At the end of a round less than the longest packet is left empty.
                        None => {
                            prop_assert!(behind + 2 * 20_000 > store.capacity() / 2);
                            break;
                        }
                    }
                }
            }
        }
    }
}
