//! Records in a file: how they are written one after the other, and read again after a power cut at any byte.
//!
//! A record is a mark of four bytes, the length of its body (u32, little endian), the CRC-32 of both, and the body. What
//! does not fit its sum is passed over up to the next record that does; where none follows it is a torn tail. Pure: bytes
//! in, bytes out.

use std::ops::Range;

/// At the start of each record; the last byte is the version of the format.
const MARK: [u8; 4] = [0xa7, b'O', b'B', 1];
const HEAD: usize = MARK.len() + 8;
/// Bytes of a body, at most.
pub const MAX_BODY: usize = 16 * 1024;
/// What one write that was torn can leave behind, at most.
pub const MAX_RECORD: usize = HEAD + MAX_BODY;

/// CRC-32 (IEEE 802.3) of the bytes.
pub fn crc32<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.into_iter().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Appends a record. A body that is too long is none: `false`.
pub fn append(body: &[u8], to: &mut Vec<u8>) -> bool {
    let Some(length) = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BODY) else {
        return false;
    };
    let length = length.to_le_bytes();
    to.extend_from_slice(&MARK);
    to.extend_from_slice(&length);
    to.extend_from_slice(&crc32([&length[..], body]).to_le_bytes());
    to.extend_from_slice(body);
    true
}

/// What is in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    pub bodies: Vec<&'a [u8]>,
    /// Between whole records, and of no use.
    pub damaged: Vec<Range<usize>>,
    /// Where the last whole record ends; what follows is a torn tail.
    pub end: usize,
}

/// Reads all whole records.
pub fn read(bytes: &[u8]) -> Found<'_> {
    let mut found = Found::default();
    let mut at = 0;
    while let Some((start, body)) = next(bytes, at) {
        if start > at {
            found.damaged.push(at..start);
        }
        at = start + HEAD + body.len();
        found.bodies.push(body);
    }
    found.end = at;
    found
}

/// The first whole record at or after `at`, and where it starts.
fn next(bytes: &[u8], at: usize) -> Option<(usize, &[u8])> {
    let last = bytes.len().checked_sub(HEAD)?;
    (at..=last)
        .filter(|start| bytes[*start..].starts_with(&MARK))
        .find_map(|start| Some((start, body_at(bytes, start)?)))
}

fn body_at(bytes: &[u8], start: usize) -> Option<&[u8]> {
    let length: [u8; 4] = bytes.get(start + 4..start + 8)?.try_into().ok()?;
    let sum: [u8; 4] = bytes.get(start + 8..start + HEAD)?.try_into().ok()?;
    let count = usize::try_from(u32::from_le_bytes(length)).ok()?;
    if count > MAX_BODY {
        return None;
    }
    let body = bytes.get(start + HEAD..start + HEAD + count)?;
    (crc32([&length[..], body]) == u32::from_le_bytes(sum)).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bodies: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for body in bodies {
            assert!(append(body, &mut bytes));
        }
        bytes
    }

    const BODIES: [&[u8]; 3] = [b"one", b"", "水漫进地下室".as_bytes()];

    #[test]
    fn the_sum_is_that_of_everybody() {
        assert_eq!(crc32([&b"123456789"[..]]), 0xcbf4_3926);
        assert_eq!(crc32([&b"1234"[..], b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn a_file_cut_at_any_byte_has_all_records_before_the_cut() {
        let bytes = file(&BODIES);
        let ends: Vec<usize> = (0..=BODIES.len())
            .map(|count| file(&BODIES[..count]).len())
            .collect();
        for cut in 0..=bytes.len() {
            let found = read(&bytes[..cut]);
            let whole = ends.iter().filter(|end| **end > 0 && **end <= cut).count();
            assert_eq!(found.bodies, BODIES[..whole], "cut at {cut}");
            assert_eq!(found.end, ends[whole]);
            assert!(found.damaged.is_empty());
        }
    }

    #[test]
    fn a_flipped_bit_costs_its_own_record_alone() {
        let bytes = file(&BODIES);
        let ends: Vec<usize> = (1..=BODIES.len())
            .map(|count| file(&BODIES[..count]).len())
            .collect();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().position(|end| bit / 8 < *end).expect("in a record");
            let mut left = BODIES.to_vec();
            left.remove(hit);
            let found = read(&flipped);
            assert_eq!(found.bodies, left, "bit {bit}");
            assert_eq!(found.damaged.is_empty(), hit == BODIES.len() - 1, "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_record_is_none_and_a_body_too_long_is_not_written() {
        for noise in [&[][..], &MARK, &[0; 64], &[0xff; 4096]] {
            assert_eq!(read(noise), Found::default());
        }
        let mut huge = MARK.to_vec();
        huge.extend_from_slice(&u32::MAX.to_le_bytes());
        huge.extend_from_slice(&[0; 32]);
        assert_eq!(read(&huge).bodies, Vec::<&[u8]>::new());
        let mut bytes = Vec::new();
        assert!(!append(&vec![0; MAX_BODY + 1], &mut bytes));
        assert!(bytes.is_empty());
    }
}
