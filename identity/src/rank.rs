//! Where in line somebody asks to stand when many connect at once, said before the costly part of the handshake.
//!
//! It is a second word in the ALPN of the ClientHello, beside `h2`. Who says it has proved nothing: it decides who is
//! served first and nothing else. Who says none stands last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The last place in line.
pub const LAST_RANK: u8 = 3;
const WORDS: [&[u8]; 4] = [
    b"muster-rank/0",
    b"muster-rank/1",
    b"muster-rank/2",
    b"muster-rank/3",
];

/// The place in line of a channel's next connections, 0 the first. Clones share it.
#[derive(Debug, Clone)]
pub struct Rank(Arc<AtomicU8>);

impl Default for Rank {
    /// The last.
    fn default() -> Self {
        Self::of(LAST_RANK)
    }
}

impl Rank {
    /// Greater numbers than there are stand last.
    pub fn of(rank: u8) -> Self {
        Self(Arc::new(AtomicU8::new(rank.min(LAST_RANK))))
    }

    /// From the next connection on.
    pub fn set(&self, rank: u8) {
        self.0.store(rank.min(LAST_RANK), Ordering::Relaxed);
    }

    pub fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// What says so.
    pub(crate) fn word(&self) -> &'static [u8] {
        WORDS[usize::from(self.get().min(LAST_RANK))]
    }
}

/// The rank among the words of a hello; without one the last.
pub(crate) fn rank_among<'a>(mut said: impl Iterator<Item = &'a [u8]>) -> u8 {
    let rank = said.find_map(|word| WORDS.iter().position(|known| *known == word));
    rank.and_then(|rank| u8::try_from(rank).ok()).unwrap_or(LAST_RANK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_anything_else_stands_last() {
        let rank = Rank::default();
        assert_eq!(rank.get(), LAST_RANK);
        for number in [0, 1, 2, 3] {
            rank.clone().set(number);
            assert_eq!(rank_among([b"h2".as_slice(), rank.word()].into_iter()), number);
        }
        assert_eq!(Rank::of(200).get(), LAST_RANK);
        for other in [b"muster-rank/4".as_slice(), b"muster-rank/", b"h2", b""] {
            assert_eq!(rank_among([other].into_iter()), LAST_RANK);
        }
        assert_eq!(rank_among(std::iter::empty()), LAST_RANK);
    }
}
