//! Retransmissions by RTX (RFC 4588): the original packet behind its own number, on an SSRC apart.

use std::ops::Range;

use crate::rtp::Rtp;

/// The original's sequence number and payload. None: nothing is repeated, as in a probe for
/// bandwidth, which holds only padding.
pub(super) fn original(rtp: &Rtp, data: &[u8]) -> Option<(u16, Range<usize>)> {
    let payload = data.get(rtp.payload.clone())?;
    let (number, original) = payload.split_first_chunk::<2>()?;
    let start = rtp.payload.start + number.len();
    (!original.is_empty()).then(|| (u16::from_be_bytes(*number), start..rtp.payload.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_lies_behind_its_number() {
        let mut data = vec![0x80, 97, 0, 9, 0, 0, 0, 7, 0, 0, 0, 3];
        data.extend([0xff, 0xfe, 0x10, 1, 2]);
        let rtp = Rtp::parse(&data).expect("well-formed");
        assert_eq!(original(&rtp, &data), Some((0xfffe, 14..17)));
    }

    #[test]
    fn a_probe_repeats_nothing() {
        let head = [0xa0, 97, 0, 9, 0, 0, 0, 7, 0, 0, 0, 3];
        for body in [&[0, 0, 3][..], &[1, 2, 0, 2], &[5, 1], &[1]] {
            let data = [&head, body].concat();
            let rtp = Rtp::parse(&data).expect("well-formed");
            assert_eq!(original(&rtp, &data), None, "{body:?}");
        }
    }
}
