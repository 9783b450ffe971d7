//! Redundant audio (RED, RFC 2198): earlier encodings in front of the primary one in each packet.
//!
//! A viewer that takes RED gets the packet as it came, the blocks named by its own payload type for
//! Opus; any other gets the primary block alone. Nothing is decoded, and nothing lost on the way to
//! us is rebuilt from the redundancy.

/// F bit: another block's header follows.
const MORE: u8 = 0x80;
/// A redundant block's header: F, payload type, timestamp offset (14 bits), length (10 bits).
const HEADER: usize = 4;

/// How many bytes lie in front of the primary block: all headers and redundant blocks. Never 0.
///
/// None: malformed, a block of another payload type than `pt`, or an empty primary block.
pub(crate) fn redundancy(payload: &[u8], pt: u8) -> Option<u16> {
    let (mut at, mut blocks) = (0, 0);
    loop {
        let first = *payload.get(at)?;
        if first & !MORE != pt {
            return None;
        }
        if first & MORE == 0 {
            let before = at + 1 + blocks;
            return u16::try_from(before).ok().filter(|_| before < payload.len());
        }
        let header = payload.get(at..)?.first_chunk::<HEADER>()?;
        blocks += usize::from(header[2] & 0x03) << 8 | usize::from(header[3]);
        at += HEADER;
    }
}

/// Names every block by another payload type. The payload is one that [`redundancy`] accepted.
pub(crate) fn rename(payload: &mut [u8], pt: u8) {
    let mut at = 0;
    while let Some(first) = payload.get_mut(at) {
        let more = *first & MORE;
        *first = more | pt;
        if more == 0 {
            return;
        }
        at += HEADER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two earlier encodings of 3 and 258 bytes, 960 and 1920 ticks old, then the primary of 2.
    fn packet() -> Vec<u8> {
        let mut p = vec![0x80 | 111, 0x1e, 0x00, 3]; // 1920 << 2 = 0x1e00
        p.extend([0x80 | 111, 0x0f, 0x01, 2]); // 960 << 2 | 258 >> 8
        p.push(111);
        p.extend([1; 3]);
        p.extend([2; 258]);
        p.extend([0xfc, 0xee]);
        p
    }

    #[test]
    fn the_primary_block_is_found_behind_the_redundant_ones() {
        let p = packet();
        let before = redundancy(&p, 111).expect("well-formed");
        assert_eq!(usize::from(before), 4 + 4 + 1 + 3 + 258);
        assert_eq!(p[usize::from(before)..], [0xfc, 0xee]);
        assert_eq!(redundancy(&[111, 0xfc], 111), Some(1), "no redundancy yet");
    }

    #[test]
    fn an_empty_redundant_block_is_fine_and_an_empty_primary_is_not() {
        assert_eq!(redundancy(&[0x80 | 111, 0, 0, 0, 111, 9], 111), Some(5));
        assert_eq!(redundancy(&[111], 111), None);
        assert_eq!(redundancy(&[0x80 | 111, 0, 0, 1, 111, 9], 111), None);
    }

    #[test]
    fn what_is_cut_or_of_another_type_is_refused() {
        let p = packet();
        for length in 0..p.len() - 1 {
            assert_eq!(redundancy(&p[..length], 111), None, "{length}");
        }
        assert_eq!(redundancy(&p, 110), None);
        let mut other = p.clone();
        other[4] = 0x80 | 13; // comfort noise among the blocks
        assert_eq!(redundancy(&other, 111), None);
        // Headers without end.
        assert_eq!(redundancy(&[0xff; 1400], 127), None);
    }

    #[test]
    fn only_the_types_of_the_blocks_are_renamed() {
        let mut p = packet();
        rename(&mut p, 96);
        let mut expected = packet();
        expected[0] = 0x80 | 96;
        expected[4] = 0x80 | 96;
        expected[8] = 96;
        assert_eq!(p, expected);
        assert_eq!(redundancy(&p, 96), redundancy(&packet(), 111));
    }

    proptest! {
        #[test]
        fn junk_never_panics(mut junk in prop::collection::vec(any::<u8>(), 0..60), pt in 0u8..128) {
            if let Some(first) = junk.first_mut() {
                *first = *first & MORE | pt;
            }
            let found = redundancy(&junk, pt);
            if let Some(before) = found {
                prop_assert!(before > 0 && usize::from(before) < junk.len());
                rename(&mut junk, 1);
                prop_assert_eq!(redundancy(&junk, 1), found);
            }
        }
    }
}
