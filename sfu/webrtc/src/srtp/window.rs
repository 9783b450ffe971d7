//! Which packet indices of one SSRC have been used: rollover (RFC 3711, 3.3.1) and replay (3.3.2).
//!
//! Invariant: an index is marked only once its packet is authentic (inbound) or about to be
//! encrypted (outbound), so nobody without the keys moves the window. The same window keeps the
//! sending side from encrypting two packets under one index, which would lay GCM's key open.

/// How far behind the highest index a packet may come, in packets.
pub(super) const SIZE: u64 = 1024;
const WORDS: usize = SIZE as usize / 64;

/// The highest index and the ones below it. An index is 48 bits for RTP (rollover counter and
/// sequence number), 31 bits for RTCP.
pub(super) struct Window {
    highest: u64,
    /// Bit `index % SIZE` of each index within the window.
    used: [u64; WORDS],
    /// The count of all marks when it was marked last.
    marked: u64,
}

impl Window {
    /// With its first index used.
    pub(super) fn starting_at(index: u64) -> Self {
        let mut window = Self {
            highest: index,
            used: [0; WORDS],
            marked: 0,
        };
        window.set(index);
        window
    }

    /// The index that a sequence number most likely stands for (RFC 3711, appendix A). None if the
    /// rollover counter's 32 bits are exhausted.
    pub(super) fn index_of(&self, seq: u16) -> Option<u64> {
        const HALF: i32 = 0x8000;
        let (rollovers, last) = (self.highest >> 16, i32::from(self.highest as u16));
        let new = i32::from(seq);
        let rollovers = if last < HALF {
            // Nothing is before the first round.
            rollovers.saturating_sub(u64::from(new - last > HALF))
        } else {
            rollovers + u64::from(last - HALF > new)
        };
        (rollovers <= u64::from(u32::MAX)).then_some(rollovers << 16 | u64::from(seq))
    }

    /// Neither used nor too old to tell.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        let (word, bit) = place(index);
        index > self.highest || (self.highest - index < SIZE && self.used[word] & bit == 0)
    }

    /// Marks an index that is fresh.
    pub(super) fn mark(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= SIZE {
                self.used = [0; WORDS];
            } else {
                for passed in self.highest + 1..index {
                    let (word, bit) = place(passed);
                    self.used[word] &= !bit;
                }
            }
            self.highest = index;
        }
        self.set(index);
    }

    fn set(&mut self, index: u64) {
        let (word, bit) = place(index);
        self.used[word] |= bit;
    }
}

/// Word and bit of an index.
fn place(index: u64) -> (usize, u64) {
    ((index % SIZE) as usize / 64, 1 << (index % 64))
}

/// The windows of the SSRCs of one direction, at most `limit`.
///
/// What was sent must never be forgotten; of what was received the SSRC unused for longest may be.
pub(super) struct Windows {
    /// Sorted.
    ssrcs: Vec<u32>,
    /// In the order of `ssrcs`.
    windows: Vec<Window>,
    limit: usize,
    forgets: bool,
    marks: u64,
}

/// Where an SSRC is, or where it belongs.
pub(super) type Place = Result<usize, usize>;

impl Windows {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            ssrcs: Vec::new(),
            windows: Vec::new(),
            limit,
            forgets: false,
            marks: 0,
        }
    }

    /// A new SSRC takes the place of the one unused for longest when there is no room.
    pub(super) fn forgetting(limit: usize) -> Self {
        Self {
            forgets: true,
            ..Self::new(limit)
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ssrcs.len()
    }

    /// None: not known, and there is no room for it.
    pub(super) fn find(&self, ssrc: u32) -> Option<Place> {
        let place = self.ssrcs.binary_search(&ssrc);
        let room = self.forgets || self.ssrcs.len() < self.limit;
        (place.is_ok() || room).then_some(place)
    }

    pub(super) fn get(&self, place: Place) -> Option<&Window> {
        place.ok().and_then(|at| self.windows.get(at))
    }

    /// Marks an index that is fresh, at the place that `find` gave for the SSRC.
    pub(super) fn mark(&mut self, ssrc: u32, place: Place, index: u64) {
        self.marks += 1;
        let at = match place {
            Ok(at) => {
                self.windows[at].mark(index);
                at
            }
            Err(at) => {
                let at = at - usize::from(self.make_room().is_some_and(|gone| gone < at));
                self.ssrcs.insert(at, ssrc);
                self.windows.insert(at, Window::starting_at(index));
                at
            }
        };
        self.windows[at].marked = self.marks;
    }

    /// Where the SSRC was that had to go.
    fn make_room(&mut self) -> Option<usize> {
        if self.ssrcs.len() < self.limit {
            return None;
        }
        let windows = self.windows.iter().enumerate();
        let (oldest, _) = windows.min_by_key(|(_, window)| window.marked)?;
        self.ssrcs.remove(oldest);
        self.windows.remove(oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn sequence_numbers_are_extended_to_the_nearest_index() {
        let check = |highest: u64, seq: u16, index: u64| {
            let window = Window::starting_at(highest);
            assert_eq!(window.index_of(seq), Some(index), "{highest:#x} {seq:#x}");
        };
        check(5, 6, 6);
        check(5, 4, 4);
        check(5, 0xffff, 0xffff); // not before the first round
        check(0xffff, 0, 0x1_0000);
        check(0x1_0000, 0xffff, 0xffff);
        check(0x1_0000, 0x8000, 0x1_8000);
        check(0x1_8001, 0, 0x2_0000);
        check(0x1_8000, 0, 0x1_0000);
    }

    #[test]
    fn the_rollover_counter_never_starts_again() {
        let last = Window::starting_at((1 << 48) - 1);
        assert_eq!(last.index_of(0), None);
        assert_eq!(last.index_of(0xfffe), Some((1 << 48) - 2));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_indices(
            steps in prop::collection::vec(prop_oneof![-1100i64..1100, -3i64..4, 2000i64..3000], 1..400),
        ) {
            let mut index = 5000u64;
            let mut window = Window::starting_at(index);
            let mut all = BTreeSet::from([index]);
            for step in steps {
                index = index.saturating_add_signed(step);
                let highest = all.last().copied().unwrap_or_default();
                let fresh = !all.contains(&index) && index + SIZE > highest;
                prop_assert_eq!(window.is_fresh(index), fresh);
                if fresh {
                    window.mark(index);
                    all.insert(index);
                }
            }
        }
    }
}
