//! Closing the holes that padding-only packets leave.
//!
//! Browsers probe for bandwidth with packets that hold only padding. They are not forwarded, so
//! their numbers are taken out; else every viewer would ask again for packets that never come.

use std::collections::VecDeque;

/// How many late packets' worth of history is kept.
const RECENT: usize = 32;

#[derive(Default)]
pub(crate) struct Padding {
    dropped: u16,
    recent: VecDeque<u16>,
}

impl Padding {
    /// A padding-only packet came. A late one is left as a hole: later numbers are in use already.
    pub(crate) fn dropped(&mut self, seq: u16, newest: bool) {
        if !newest {
            return;
        }
        self.dropped = self.dropped.wrapping_add(1);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(seq);
    }

    /// The number of a packet as if the padding before it had not been sent.
    pub(crate) fn renumber(&self, seq: u16) -> u16 {
        let is_after = |p: &&u16| p.wrapping_sub(seq) < 0x8000;
        let after = self.recent.iter().rev().take_while(is_after).count();
        seq.wrapping_sub(self.dropped).wrapping_add(after as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_run_on_over_padding_and_late_packets_keep_theirs() {
        let mut p = Padding::default();
        assert_eq!(p.renumber(65_534), 65_534);
        p.dropped(65_535, true);
        p.dropped(0, true);
        assert_eq!(p.renumber(1), 65_535);
        assert_eq!(p.renumber(65_533), 65_533, "older than the padding");
        p.dropped(65_532, false);
        assert_eq!(p.renumber(2), 0);
    }
}
