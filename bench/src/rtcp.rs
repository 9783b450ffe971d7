//! The little RTCP that peers read and write, in plain text.

/// Report blocks of one receiver report; more than 31 do not fit its count.
const MOST_BLOCKS: usize = 31;
const OWN_SSRC: u32 = 1;

/// The packets of a compound: first byte, type and all four-byte words after the first. One that is cut short ends it.
fn packets(compound: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        let (&[first, kind, high, low], body) = rest.split_first_chunk::<4>()?;
        let (body, next) = body.split_at_checked(4 * usize::from(u16::from_be_bytes([high, low])))?;
        rest = next;
        Some((first, kind, body))
    })
}

fn word(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(4 * at..4 * at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The SSRCs of which a key frame is asked for: PLI (RFC 4585) or FIR (RFC 5104).
pub fn key_frames_asked(compound: &[u8]) -> impl Iterator<Item = u32> {
    packets(compound).flat_map(|(first, kind, body)| match (kind, first & 0x1f) {
        (206, 1) => word(body, 1).into_iter().collect(),
        (206, 4) => (2..body.len() / 4)
            .step_by(2)
            .filter_map(|at| word(body, at))
            .collect(),
        _ => Vec::new(),
    })
}

/// SSRC and middle of the NTP time of each sender report (RFC 3550, 6.4.1).
pub fn sender_reports(compound: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    packets(compound)
        .filter(|(_, kind, _)| *kind == 200)
        .filter_map(|(_, _, body)| {
            let (high, low) = (word(body, 1)?, word(body, 2)?);
            Some((word(body, 0)?, high << 16 | low >> 16))
        })
}

/// Receiver reports with these blocks (RFC 3550, 6.4.2).
pub fn receiver_reports(blocks: &[[u32; 6]]) -> Vec<u8> {
    let report = |blocks: &[[u32; 6]]| {
        let count = blocks.len() as u32;
        let head = [0x80c9_0000 | count << 24 | (1 + 6 * count), OWN_SSRC];
        let words = head.into_iter().chain(blocks.concat());
        words.flat_map(u32::to_be_bytes).collect::<Vec<u8>>()
    };
    blocks.chunks(MOST_BLOCKS).flat_map(report).collect()
}

/// Asks for a key frame of `ssrc`.
pub fn pli(ssrc: u32) -> Vec<u8> {
    [0x81ce_0002, OWN_SSRC, ssrc]
        .into_iter()
        .flat_map(u32::to_be_bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(compound: &[u8]) -> Vec<u32> {
        key_frames_asked(compound).collect()
    }

    #[test]
    fn key_frames_are_asked_for_anywhere_in_a_compound() {
        let report = receiver_reports(&[[9; 6]]);
        assert_eq!(report[..8], [0x81, 201, 0, 7, 0, 0, 0, 1]);
        assert_eq!(asked(&pli(2)), [2]);
        assert_eq!(asked(&[&report[..], &pli(2), &pli(3)].concat()), [2, 3]);
        let fir = [
            0x84, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0,
        ];
        assert_eq!(asked(&fir), [7, 8]);
        assert!(asked(&report).is_empty());
        assert!(
            asked(&[0x8f, 206, 0, 2, 0, 0]).is_empty(),
            "a bandwidth estimate, cut short"
        );
        assert!(asked(&fir[..20]).is_empty());
    }

    #[test]
    fn sender_reports_give_the_time_that_is_sent_back() {
        let mut report = vec![0x80, 200, 0, 6, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8];
        report.extend([0; 12]);
        let twice = [&report[..], &pli(1), &report].concat();
        assert_eq!(sender_reports(&twice).collect::<Vec<_>>(), [(9, 0x0304_0506); 2]);
    }

    #[test]
    fn many_blocks_are_split_over_reports() {
        let blocks: Vec<[u32; 6]> = (0..40).map(|n| [n; 6]).collect();
        let reports = receiver_reports(&blocks);
        let counts: Vec<(u8, usize)> = packets(&reports)
            .map(|(first, _, body)| (first & 0x1f, body.len()))
            .collect();
        assert_eq!(counts, [(31, 4 + 31 * 24), (9, 4 + 9 * 24)]);
    }
}
