//! H.264 put together again from RTP payloads (RFC 6184, single units, STAP-A and FU-A), as Matroska keeps it: each unit with
//! four bytes of length before it, parameter sets apart.
//!
//! Pictures come out whole or not at all; after one that was not whole none does until the next key frame. It decodes
//! nothing, and keeps one picture of [`MOST`] bytes at most.

/// Bytes of a picture, at most.
const MOST: usize = 4 * 1024 * 1024;
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// A picture that is whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    pub data: Vec<u8>,
    /// Of a key frame what a decoder needs before it (ISO 14496-15, `avcC`).
    pub private: Option<Vec<u8>>,
}

/// Puts pictures together.
#[derive(Debug, Default)]
pub struct Assembler {
    data: Vec<u8>,
    /// Where the length of the unit stands that comes in fragments.
    fragment: Option<usize>,
    timestamp: Option<u32>,
    next: Option<u16>,
    key: bool,
    broken: bool,
    /// A picture came since something was missing, or at all.
    runs: bool,
    sps: Vec<u8>,
    pps: Vec<u8>,
}

impl Assembler {
    /// Takes a packet in; the last of a picture gives the picture, if all of it is there and can be shown.
    pub fn push(&mut self, seq: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Option<Picture> {
        let gap = self.next.is_some_and(|next| next != seq);
        self.next = Some(seq.wrapping_add(1));
        if self.timestamp.replace(timestamp) != Some(timestamp) {
            self.runs &= self.data.is_empty() && self.fragment.is_none();
            self.clear();
        }
        self.broken |= gap;
        if self.data.len() + payload.len() > MOST || !self.take(payload) {
            self.broken = true;
        }
        if !marker {
            return None;
        }
        self.runs &= !self.broken;
        self.runs |= self.key && !self.broken;
        let whole = self.runs && self.fragment.is_none() && !self.data.is_empty();
        let picture = whole.then(|| Picture {
            data: std::mem::take(&mut self.data),
            private: self.key.then(|| self.private()).flatten(),
        });
        self.clear();
        picture
    }

    fn clear(&mut self) {
        self.data.clear();
        (self.fragment, self.key, self.broken) = (None, false, false);
    }

    /// Says whether the payload was understood.
    fn take(&mut self, payload: &[u8]) -> bool {
        let Some((&first, rest)) = payload.split_first() else {
            return false;
        };
        match first & 0x1f {
            STAP_A => {
                let mut rest = rest;
                while let Some((length, tail)) = rest.split_first_chunk::<2>() {
                    let Some((unit, tail)) = tail.split_at_checked(u16::from_be_bytes(*length).into()) else {
                        return false;
                    };
                    self.unit(unit);
                    rest = tail;
                }
                rest.is_empty()
            }
            FU_A => self.part(first, rest),
            1..STAP_A => {
                self.unit(payload);
                true
            }
            _ => false,
        }
    }

    fn part(&mut self, first: u8, rest: &[u8]) -> bool {
        let Some((&head, body)) = rest.split_first() else {
            return false;
        };
        if head & 0x80 != 0 {
            self.fragment = Some(self.data.len());
            self.data.extend_from_slice(&[0; 4]);
            self.data.push(first & 0xe0 | head & 0x1f);
            self.key |= head & 0x1f == IDR;
        }
        let Some(at) = self.fragment else { return false };
        self.data.extend_from_slice(body);
        if head & 0x40 != 0 {
            self.fragment = None;
            let length = u32::try_from(self.data.len() - at - 4).unwrap_or(0);
            self.data[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
        true
    }

    fn unit(&mut self, unit: &[u8]) {
        match unit.first().map_or(0, |first| first & 0x1f) {
            SPS => self.sps = unit.to_vec(),
            PPS => self.pps = unit.to_vec(),
            kind => {
                self.key |= kind == IDR;
                let length = u32::try_from(unit.len()).unwrap_or(0);
                self.data.extend_from_slice(&length.to_be_bytes());
                self.data.extend_from_slice(unit);
            }
        }
    }

    fn private(&self) -> Option<Vec<u8>> {
        let &[_, profile, compatible, level, ..] = &self.sps[..] else {
            return None;
        };
        let mut all = vec![1, profile, compatible, level, 0xff, 0xe1];
        all.extend_from_slice(&u16::try_from(self.sps.len()).ok()?.to_be_bytes());
        all.extend_from_slice(&self.sps);
        all.push(1);
        all.extend_from_slice(&u16::try_from(self.pps.len()).ok()?.to_be_bytes());
        all.extend_from_slice(&self.pps);
        (!self.pps.is_empty()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [&[u8]; 2] = [&[0x78, 0, 5, 0x67, 1, 2, 3, 4, 0, 2, 0x68, 9], &[0x65, 7, 7]];

    fn key(assembler: &mut Assembler, seq: u16, timestamp: u32) -> Option<Picture> {
        assert_eq!(assembler.push(seq, timestamp, false, KEY[0]), None);
        assembler.push(seq.wrapping_add(1), timestamp, true, KEY[1])
    }

    #[test]
    fn pictures_come_whole_and_from_a_key_frame_on() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(9, 1, true, &[0x41, 1]), None, "no key frame yet");
        let first = key(&mut assembler, 10, 2).expect("a picture");
        assert_eq!(first.data, [0, 0, 0, 3, 0x65, 7, 7]);
        let private = first.private.expect("parameter sets");
        assert_eq!(
            private,
            [1, 1, 2, 3, 0xff, 0xe1, 0, 5, 0x67, 1, 2, 3, 4, 1, 0, 2, 0x68, 9]
        );
        assert_eq!(assembler.push(12, 3, false, &[0x5c, 0x81, 1]), None);
        let second = assembler.push(13, 3, true, &[0x5c, 0x41, 2]).expect("a picture");
        assert_eq!(second.data, [0, 0, 0, 3, 0x41, 1, 2]);
        assert_eq!(second.private, None);
        assert_eq!(assembler.push(15, 4, true, &[0x41, 1]), None, "14 is missing");
        assert_eq!(
            assembler.push(16, 5, true, &[0x41, 1]),
            None,
            "it shows what was missing"
        );
        assert!(key(&mut assembler, 17, 6).is_some());
    }

    proptest! {
        #[test]
        fn any_packets_are_taken(packets in proptest::collection::vec(
            (any::<u16>(), 0u32..4, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..60,
        )) {
            let mut assembler = Assembler::default();
            for (seq, timestamp, marker, payload) in packets {
                assembler.push(seq, timestamp, marker, &payload);
                prop_assert!(assembler.data.len() <= MOST);
            }
        }
    }
}
