//! Whether a voice that tells no levels sounds, guessed from the sizes of its packets.
//!
//! Opus that has nothing to say sends packets of three bytes at most (RFC 6716, 2.1.9 and an all-silent frame). Of an
//! encoder with a varying bit rate, speech is clearly larger than the voice's own pauses. One with a steady bit rate
//! gives nothing away: that it sends is all that is known. A packet costs O(1).

use crate::types::Micros;

/// Packets up to this size are silence.
const SILENCE_BYTES: usize = 3;
/// Sizes are kept in parts of a byte.
const UNIT: u64 = 1024;
/// How much of the difference a packet makes up in the mean: an eighth.
const SMOOTH: i64 = 8;
/// How much of itself the floor rises with each packet: a twentieth a second with packets of 20 ms.
const RISE: u64 = 1024;
/// Between the words of who speaks.
const PAUSE_US: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sounding {
    Silent,
    /// It sends, and never much more than this.
    Steady,
    /// It sends clearly more than in its pauses.
    Lively,
}

#[derive(Debug, Default)]
pub(crate) struct PacketSizes {
    mean: u64,
    /// The least that the mean was, rising slowly; 0 before the first packet.
    floor: u64,
    lively_at: Option<Micros>,
}

impl PacketSizes {
    /// Takes the payload's size of one packet.
    pub fn take(&mut self, now: Micros, bytes: usize) -> Sounding {
        let size = (bytes.clamp(1, 0xffff) as u64) * UNIT;
        if self.floor == 0 {
            (self.mean, self.floor) = (size, size);
        }
        let step = (size.cast_signed() - self.mean.cast_signed()) / SMOOTH;
        self.mean = self.mean.saturating_add_signed(step);
        self.floor = (self.floor + self.floor / RISE).min(self.mean).max(1);
        if bytes <= SILENCE_BYTES {
            return Sounding::Silent;
        }
        if self.mean * 2 > self.floor * 3 {
            self.lively_at = Some(now);
        }
        let lively = self.lively_at.is_some_and(|at| now.since(at) < PAUSE_US);
        if lively {
            Sounding::Lively
        } else {
            Sounding::Steady
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sizes: &mut PacketSizes, from: u64, packets: u64, bytes: usize) -> Sounding {
        let at = |n| Micros((from + n) * 20_000);
        (0..packets)
            .map(|n| sizes.take(at(n), bytes))
            .last()
            .expect("a packet")
    }

    #[test]
    fn speech_is_told_from_pauses_by_the_sizes() {
        let mut sizes = PacketSizes::default();
        assert_eq!(
            run(&mut sizes, 0, 200, 80),
            Sounding::Steady,
            "nothing to compare with"
        );
        assert_eq!(run(&mut sizes, 200, 100, 30), Sounding::Steady);
        assert_eq!(run(&mut sizes, 300, 100, 80), Sounding::Lively);
        assert_eq!(
            run(&mut sizes, 400, 25, 30),
            Sounding::Lively,
            "between two words"
        );
        assert_eq!(run(&mut sizes, 425, 100, 30), Sounding::Steady);
    }

    #[test]
    fn silence_is_three_bytes_and_what_comes_after_it_is_lively() {
        let mut sizes = PacketSizes::default();
        assert_eq!(run(&mut sizes, 0, 100, 3), Sounding::Silent);
        assert_eq!(run(&mut sizes, 100, 5, 60), Sounding::Lively);
        assert_eq!(run(&mut sizes, 105, 1, 1), Sounding::Silent);
    }

    #[test]
    fn any_size_can_be_taken() {
        let mut sizes = PacketSizes::default();
        for (n, bytes) in [0, usize::MAX, 0, 65_535, 1, 1500].into_iter().enumerate() {
            sizes.take(Micros(n as u64), bytes);
        }
        assert_eq!(run(&mut sizes, 10, 20_000, 160), Sounding::Steady);
    }
}
