//! The random numbers of a link: xoshiro256++ 1.0, seeded by SplitMix64.
//!
//! Both are written out here, after the reference implementations in the public domain by David Blackman and Sebastiano
//! Vigna (<https://prng.di.unimi.it/>), so that a seed means the same link in every version of this crate and its
//! dependencies. Not for cryptography.

/// A stream of random numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
}

/// One step of SplitMix64: advances `state` and returns the next number.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    pub(crate) fn new(mut seed: u64) -> Self {
        Self {
            state: std::array::from_fn(|_| split_mix(&mut seed)),
        }
    }

    /// The next 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

/// Whether a draw says yes to something of probability `p`: never for 0, always for 1.
pub(crate) fn happens(draw: u64, p: f64) -> bool {
    // 53 bits are what an f64 holds exactly, so this is uniform over [0, 1).
    ((draw >> 11) as f64) * (1.0 / (1u64 << 53) as f64) < p
}

/// A draw as a whole number from 0 to `limit`, both included.
pub(crate) fn up_to(draw: u64, limit: u64) -> u64 {
    // The high half of the product; its bias is below limit / 2^64.
    ((u128::from(draw) * (u128::from(limit) + 1)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_gives_the_reference_numbers() {
        let mut state = 1_234_567;
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| split_mix(&mut state)), expected);
    }

    #[test]
    fn xoshiro_gives_the_reference_numbers() {
        let mut random = Random { state: [1, 2, 3, 4] };
        let expected = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
            9_228_616_714_210_784_205,
            9_973_669_472_204_895_162,
            14_011_001_112_246_962_877,
            12_406_186_145_184_390_807,
            15_849_039_046_786_891_736,
            10_450_023_813_501_588_000,
        ];
        assert_eq!(expected.map(|_| random.next()), expected);
    }

    #[test]
    fn the_ends_of_the_ranges_are_exact() {
        assert!(!happens(0, 0.0) && !happens(u64::MAX, 0.0));
        assert!(happens(0, 1.0) && happens(u64::MAX, 1.0));
        assert_eq!(
            (up_to(0, 7), up_to(u64::MAX, 7), up_to(u64::MAX, u64::MAX)),
            (0, 7, u64::MAX)
        );
    }
}
