//! H.264 in RTP payloads (RFC 6184, packetization mode 1): one access unit in, payloads out.
//!
//! Parameter sets go first and once, so that a key frame begins with what a late decoder needs; access unit delimiters
//! and filler are left out, everything else passes unchanged. Small NAL units share a packet (STAP-A), large ones are
//! split within a byte (FU-A). It decodes nothing, and reads only the first byte of a NAL unit.

use muster_link::rtp::MAX_PAYLOAD;

const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const END_OF_STREAM: u8 = 11;
const FILLER: u8 = 12;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// More NAL units than this in a picture are an attack, not a picture.
const MOST_NALS: usize = 512;

/// The NAL units of an access unit whose parts each have four bytes of length before them (as in MP4 and FLV). Ends at
/// what does not fit.
pub fn nals(unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = unit;
    std::iter::from_fn(move || {
        loop {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (nal, tail) = tail.split_at_checked(length)?;
            rest = tail;
            if !nal.is_empty() {
                return Some(nal);
            }
        }
    })
    .take(MOST_NALS)
}

/// What kind of NAL unit it is (H.264 table 7-1).
fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |first| first & 0x1F)
}

/// Whether a decoder can begin with this access unit.
pub fn is_key(unit: &[u8]) -> bool {
    nals(unit).any(|nal| kind(nal) == IDR)
}

/// Calls `send(payload, marker)` for each payload of an access unit, first to last. The payload is only good for the
/// call. One without NAL units makes none.
pub fn packetize(unit: &[u8], mut send: impl FnMut(&[u8], bool)) {
    let ordered = in_order(unit);
    let mut rest = ordered.as_slice();
    let mut payload = Vec::with_capacity(MAX_PAYLOAD);
    while let Some(first) = rest.first() {
        let together = fitting(rest);
        let last = together == rest.len();
        if first.len() > MAX_PAYLOAD {
            fragment(first, last, &mut payload, &mut send);
        } else if together == 1 {
            send(first, last);
        } else {
            aggregate(&rest[..together], &mut payload);
            send(&payload, last);
        }
        rest = &rest[together..];
    }
}

/// Parameter sets first, each once; without what only a byte stream needs.
fn in_order(unit: &[u8]) -> Vec<&[u8]> {
    let mut ordered: Vec<&[u8]> = Vec::new();
    for wanted in [SPS, PPS] {
        for nal in nals(unit).filter(|nal| kind(nal) == wanted) {
            if !ordered.contains(&nal) {
                ordered.push(nal);
            }
        }
    }
    let others = |nal: &&[u8]| !matches!(kind(nal), SPS | PPS | DELIMITER..=END_OF_STREAM | FILLER);
    ordered.extend(nals(unit).filter(others));
    ordered
}

/// How many NAL units from the first go into one payload; at least one.
fn fitting(nals: &[&[u8]]) -> usize {
    let mut size = 1;
    let fits = |nal: &&&[u8]| {
        size += 2 + nal.len();
        size <= MAX_PAYLOAD
    };
    nals.iter().take_while(fits).count().max(1)
}

fn aggregate(nals: &[&[u8]], payload: &mut Vec<u8>) {
    let first_bytes = || nals.iter().filter_map(|nal| nal.first());
    let importance = first_bytes().map(|byte| byte & 0x60).max().unwrap_or(0);
    let forbidden = first_bytes().fold(0, |all, byte| all | byte & 0x80);
    payload.clear();
    payload.push(forbidden | importance | STAP_A);
    for nal in nals {
        // At most `MAX_PAYLOAD`.
        payload.extend_from_slice(&(nal.len() as u16).to_be_bytes());
        payload.extend_from_slice(nal);
    }
}

fn fragment(nal: &[u8], last: bool, payload: &mut Vec<u8>, send: &mut impl FnMut(&[u8], bool)) {
    let Some((&header, body)) = nal.split_first() else {
        return;
    };
    let count = body.len().div_ceil(MAX_PAYLOAD - 2);
    let (size, longer) = (body.len() / count, body.len() % count);
    let mut rest = body;
    for index in 0..count {
        let (part, tail) = rest.split_at(size + usize::from(index < longer));
        rest = tail;
        let (starts, ends) = (index == 0, index + 1 == count);
        payload.clear();
        payload.push(header & 0xE0 | FU_A);
        payload.push(u8::from(starts) << 7 | u8::from(ends) << 6 | header & 0x1F);
        payload.extend_from_slice(part);
        send(payload, last && ends);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(nals: &[Vec<u8>]) -> Vec<u8> {
        let mut unit = Vec::new();
        for nal in nals {
            unit.extend((nal.len() as u32).to_be_bytes());
            unit.extend(nal);
        }
        unit
    }

    fn payloads(nals: &[Vec<u8>]) -> Vec<(Vec<u8>, bool)> {
        let mut all = Vec::new();
        packetize(&unit(nals), |payload, marker| {
            all.push((payload.to_vec(), marker))
        });
        all
    }

    /// What a receiver makes of the payloads.
    fn put_together(payloads: &[(Vec<u8>, bool)]) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for (payload, _) in payloads {
            match payload[0] & 0x1F {
                STAP_A => {
                    let mut rest = &payload[1..];
                    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
                        let (nal, tail) = tail.split_at(u16::from_be_bytes(*length).into());
                        nals.push(nal.to_vec());
                        rest = tail;
                    }
                }
                FU_A => {
                    if payload[1] & 0x80 != 0 {
                        nals.push(vec![payload[0] & 0xE0 | payload[1] & 0x1F]);
                    }
                    nals.last_mut().expect("begun").extend(&payload[2..]);
                }
                _ => nals.push(payload.clone()),
            }
        }
        nals
    }

    fn nal(kind: u8, length: usize) -> Vec<u8> {
        let mut nal = vec![0xA5; length.max(1)];
        nal[0] = 0x60 | kind;
        nal
    }

    #[test]
    fn a_key_frame_begins_with_its_parameter_sets() {
        let (sps, pps, idr) = (nal(SPS, 30), nal(PPS, 8), nal(IDR, 5000));
        // As some cameras send them: delimiter first, the sets twice, filler behind.
        let camera = [
            nal(DELIMITER, 2),
            idr.clone(),
            sps.clone(),
            pps.clone(),
            sps.clone(),
            nal(FILLER, 90),
        ];
        assert!(is_key(&unit(&camera)));
        let parts = payloads(&camera);
        assert_eq!(parts[0].0[0] & 0x1F, STAP_A);
        assert_eq!(put_together(&parts), [sps, pps, idr]);
        let markers: Vec<_> = parts.iter().map(|(_, marker)| *marker).collect();
        assert_eq!(markers, [false, false, false, false, false, true]);
    }

    #[test]
    fn a_small_picture_is_one_packet() {
        let parts = payloads(&[nal(1, 500)]);
        assert_eq!(parts, [(nal(1, 500), true)]);
        assert!(!is_key(&unit(&[nal(1, 500)])));
        assert!(payloads(&[nal(DELIMITER, 2)]).is_empty());
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_small_packets(sizes in proptest::collection::vec((1_u8..=6, 1_usize..5000), 1..9)) {
            let nals: Vec<_> = sizes.into_iter().map(|(kind, length)| nal(kind, length)).collect();
            let parts = payloads(&nals);
            prop_assert!(parts.iter().all(|(payload, _)| payload.len() <= MAX_PAYLOAD));
            let markers = parts.iter().filter(|(_, marker)| *marker).count();
            prop_assert!(markers == 1 && parts.last().is_some_and(|(_, marker)| *marker));
            prop_assert_eq!(put_together(&parts), nals);
        }

        #[test]
        fn noise_never_panics(unit in proptest::collection::vec(any::<u8>(), 0..3000)) {
            packetize(&unit, |payload, _| assert!(payload.len() <= MAX_PAYLOAD));
        }
    }
}
