//! Sequence numbers of one incoming layer: unwrapped, each let through once (RFC 3550 appendix A.1).
//!
//! Invariant: an extended number is accepted at most once, and is congruent to the packet's own modulo 2^16. A
//! publisher that starts its numbers anew is followed after two packets in a row; slots then wait for a key frame.
//! It does not reorder and does not ask for what is missing.

/// How far back a late packet may be, in packets.
const WINDOW: i64 = 1024;
/// How far ahead a packet may be and still be of the same run (MAX_DROPOUT of RFC 3550).
const MAX_DROPOUT: i64 = 3000;

#[derive(Debug, Default)]
pub(crate) struct Sequence {
    newest: Option<i64>,
    seen: [u64; (WINDOW / 64) as usize],
    /// The number that would prove that the publisher has started anew.
    restart_if: Option<u16>,
    /// First number of the present run; numbers below are of an earlier one.
    run_start: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub number: i64,
    /// Nothing later has come before it.
    pub newest: bool,
}

impl Sequence {
    /// `None` for a duplicate, a packet that is too late to know whether it is one, and a stray.
    pub fn accept(&mut self, seq: u16) -> Option<Accepted> {
        let Some(newest) = self.newest else {
            return Some(self.start(i64::from(seq)));
        };
        let step = i64::from(seq.wrapping_sub(newest as u16) as i16);
        if step <= -WINDOW || step > MAX_DROPOUT {
            if self.restart_if == Some(seq) {
                return Some(self.start((newest | 0xffff) + 1 + i64::from(seq)));
            }
            self.restart_if = Some(seq.wrapping_add(1));
            return None;
        }
        self.restart_if = None;
        let number = newest + step;
        if step > 0 {
            self.advance(newest, number);
            return Some(Accepted { number, newest: true });
        }
        if number < self.run_start - WINDOW || self.test_and_set(number) {
            return None;
        }
        Some(Accepted {
            number,
            newest: false,
        })
    }

    pub fn run_start(&self) -> i64 {
        self.run_start
    }

    fn start(&mut self, number: i64) -> Accepted {
        self.newest = Some(number);
        self.run_start = number;
        self.restart_if = None;
        self.seen = Default::default();
        self.test_and_set(number);
        Accepted { number, newest: true }
    }

    fn advance(&mut self, from: i64, to: i64) {
        if to - from >= WINDOW {
            self.seen = Default::default();
        } else {
            for skipped in from + 1..to {
                let (word, bit) = place(skipped);
                self.seen[word] &= !bit;
            }
            let (word, bit) = place(to);
            self.seen[word] &= !bit;
        }
        self.test_and_set(to);
        self.newest = Some(to);
    }

    fn test_and_set(&mut self, number: i64) -> bool {
        let (word, bit) = place(number);
        let was = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        was
    }
}

fn place(number: i64) -> (usize, u64) {
    let index = number.rem_euclid(WINDOW) as usize;
    (index / 64, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(seqs: &[u16]) -> Vec<Option<i64>> {
        let mut sequence = Sequence::default();
        seqs.iter()
            .map(|&seq| sequence.accept(seq).map(|a| a.number))
            .collect()
    }

    #[test]
    fn wraps_and_takes_late_packets_once() {
        assert_eq!(
            numbers(&[65534, 0, 65535, 0, 65535, 1]),
            [Some(65534), Some(65536), Some(65535), None, None, Some(65537)]
        );
    }

    #[test]
    fn a_stray_is_dropped_and_a_new_run_is_followed() {
        assert_eq!(
            numbers(&[100, 40000, 101, 40000, 40001]),
            [Some(100), None, Some(101), None, Some(65536 + 40001)]
        );
    }

    #[test]
    fn a_packet_older_than_the_window_is_dropped() {
        assert_eq!(
            numbers(&[5000, 5000 - 1023, 5000 - 1024]),
            [Some(5000), Some(3977), None]
        );
    }
}
