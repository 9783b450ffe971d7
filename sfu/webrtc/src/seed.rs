//! Names and numbers drawn from the seed that the shell gives: ICE credentials and SSRCs.
//!
//! SHA-256 over (seed, counter): unpredictable without the seed, the same again with it. It draws
//! no randomness of its own.

/// A stream of values from one secret seed.
pub(crate) struct Seed {
    seed: [u8; 32],
    counter: u64,
}

/// The characters that ICE allows in credentials (RFC 8445, ice-char); 64 of them.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Seed {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    fn block(&mut self) -> [u8; 32] {
        let mut input = [0u8; 40];
        input[..32].copy_from_slice(&self.seed);
        input[32..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter += 1;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &input);
        let mut out = [0u8; 32];
        out.copy_from_slice(digest.as_ref());
        out
    }

    /// A number that is not 0.
    pub(crate) fn number(&mut self) -> u32 {
        let b = self.block();
        u32::from_be_bytes([b[0], b[1], b[2], b[3]]).max(1)
    }

    /// `length` ICE characters, 6 bits each; at most 32.
    pub(crate) fn text(&mut self, length: usize) -> String {
        self.block()
            .iter()
            .take(length)
            .map(|b| char::from(ICE_CHARS[usize::from(b & 63)]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_repeat_with_the_seed_and_differ_within_it() {
        let (mut a, mut b) = (Seed::new([7; 32]), Seed::new([7; 32]));
        let (first, second) = (a.text(24), a.text(24));
        assert_eq!(first.len(), 24);
        assert_ne!(first, second);
        assert_eq!((b.text(24), b.text(24)), (first, second));
        assert_ne!(Seed::new([8; 32]).number(), Seed::new([7; 32]).number());
    }
}
