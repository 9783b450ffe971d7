//! What is left to chance: numbers that follow from a seed.

use std::time::Duration;

/// xorshift64*: plain, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Close seeds shall not be alike: splitmix64.
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    /// Dice of somebody else, which do not depend on who throws first.
    pub fn fork(&self, number: u64) -> Self {
        Self::new(self.0 ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % (end.max(1) as u64)).unwrap_or_default()
    }

    pub fn percent(&mut self, of_a_hundred: usize) -> bool {
        self.below(100) < of_a_hundred
    }

    /// Milliseconds from `least` to below `end`.
    pub fn ms(&mut self, least: u64, end: u64) -> Duration {
        Duration::from_millis(least + self.draw() % (end - least).max(1))
    }

    /// Some of these, in their order; at least one.
    pub fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        let always = self.below(of.len());
        let mut chosen = Vec::new();
        for (n, one) in of.iter().enumerate() {
            if self.percent(50) || n == always {
                chosen.push(one.clone());
            }
        }
        chosen
    }
}
