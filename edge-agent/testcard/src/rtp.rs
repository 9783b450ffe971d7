//! VP8 in RTP payloads (RFC 7741): cutting frames into payloads and putting them together again.
//!
//! The descriptor is always the four-byte form with a 15-bit picture id and no layer indices. Putting together takes
//! packets in order: after a gap the frame in hand is dropped, and so is everything until the next key frame, since a
//! decoder would show what follows in pieces. Memory is bounded by [`LARGEST_FRAME`].

use crate::vp8;

/// The largest RTP payload that the packetiser makes, descriptor included.
pub const LARGEST_PAYLOAD: usize = 1100;
/// A frame that grows beyond this many bytes is dropped.
pub const LARGEST_FRAME: usize = 1 << 20;

const DESCRIPTOR: usize = 4;
/// After so many late packets in a row the sequence numbers are taken to have started over.
const MOST_LATE: u16 = 50;

/// Cuts frames into payloads. Picture ids count up from a seed.
#[derive(Clone, Debug)]
pub struct Packetizer {
    picture_id: u16,
}

impl Packetizer {
    /// `seed` is the first picture id; its upper bit is not used.
    pub fn new(seed: u16) -> Self {
        Self {
            picture_id: seed & 0x7FFF,
        }
    }

    /// Calls `send(payload, marker)` for each payload of a frame, first to last; sizes differ by one byte at most.
    /// The payload is only good for the call. An empty frame makes none.
    pub fn packetize(&mut self, frame: &[u8], mut send: impl FnMut(&[u8], bool)) {
        if frame.is_empty() {
            return;
        }
        let count = frame.len().div_ceil(LARGEST_PAYLOAD - DESCRIPTOR);
        let (size, longer) = (frame.len() / count, frame.len() % count);
        let id = self.picture_id.to_be_bytes();
        let mut payload = Vec::with_capacity(size + 1 + DESCRIPTOR);
        let mut rest = frame;
        for index in 0..count {
            let (part, tail) = rest.split_at(size + usize::from(index < longer));
            rest = tail;
            payload.clear();
            // X; S at the start of the first partition (PID 0).
            payload.extend_from_slice(&[if index == 0 { 0x90 } else { 0x80 }, 0x80, 0x80 | id[0], id[1]]);
            payload.extend_from_slice(part);
            send(&payload, index + 1 == count);
        }
        self.picture_id = (self.picture_id + 1) & 0x7FFF;
    }
}

/// A VP8 payload, its descriptor taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Payload<'a> {
    /// Start of the frame: S is set and the partition is 0.
    pub starts: bool,
    pub picture_id: Option<u16>,
    pub data: &'a [u8],
}

/// Reads a descriptor (RFC 7741 section 4.2). `None`: cut short, or nothing behind it.
pub fn parse(payload: &[u8]) -> Option<Vp8Payload<'_>> {
    let (&first, mut rest) = payload.split_first()?;
    let mut picture_id = None;
    if first & 0x80 != 0 {
        let (&extension, tail) = rest.split_first()?;
        rest = tail;
        if extension & 0x80 != 0 {
            let (&high, tail) = rest.split_first()?;
            rest = tail;
            let mut id = u16::from(high & 0x7F);
            if high & 0x80 != 0 {
                let (&low, tail) = rest.split_first()?;
                rest = tail;
                id = id << 8 | u16::from(low);
            }
            picture_id = Some(id);
        }
        // TL0PICIDX, and TID/KEYIDX, which share a byte.
        let skip = usize::from(extension & 0x40 != 0) + usize::from(extension & 0x30 != 0);
        rest = rest.get(skip..)?;
    }
    if rest.is_empty() {
        return None;
    }
    Some(Vp8Payload {
        starts: first & 0x17 == 0x10,
        picture_id,
        data: rest,
    })
}

/// Puts frames together from packets that come in order.
#[derive(Debug)]
pub struct Depacketizer {
    frame: Vec<u8>,
    timestamp: u32,
    next_seq: Option<u16>,
    /// Late packets in a row.
    late: u16,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Something was lost: only a key frame helps.
    NeedKeyFrame,
    /// Between frames.
    Ready,
    /// A frame is in hand.
    InFrame,
}

impl Default for Depacketizer {
    fn default() -> Self {
        Self {
            frame: Vec::new(),
            timestamp: 0,
            next_seq: None,
            late: 0,
            state: State::NeedKeyFrame,
        }
    }
}

impl Depacketizer {
    /// Whether nothing will come out before a key frame does; the caller may want to ask for one.
    pub fn needs_key_frame(&self) -> bool {
        self.state == State::NeedKeyFrame
    }

    /// Takes a packet; a frame that it completes is returned and good until the next call. A late or repeated packet
    /// is ignored.
    pub fn push(&mut self, seq: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Option<&[u8]> {
        let expected = self.next_seq.unwrap_or(seq);
        let ahead = seq.wrapping_sub(expected);
        if ahead >= 0x8000 {
            self.late += 1;
            if self.late > MOST_LATE {
                // The sender has started over.
                (self.next_seq, self.late) = (None, 0);
                self.lose();
            }
            return None;
        }
        self.late = 0;
        self.next_seq = Some(seq.wrapping_add(1));
        if ahead > 0 {
            self.lose();
        }
        let Some(part) = parse(payload) else {
            self.lose();
            return None;
        };
        if part.starts {
            let in_hand = self.state == State::InFrame;
            if in_hand || self.state == State::NeedKeyFrame {
                // An unfinished frame (its marker never came) is as good as lost.
                if !vp8::is_key_frame(part.data) {
                    self.lose();
                    return None;
                }
            }
            self.frame.clear();
            self.timestamp = timestamp;
            self.state = State::InFrame;
        } else if self.state != State::InFrame || timestamp != self.timestamp {
            self.lose();
            return None;
        }
        if self.frame.len() + part.data.len() > LARGEST_FRAME {
            self.lose();
            return None;
        }
        self.frame.extend_from_slice(part.data);
        if !marker {
            return None;
        }
        self.state = State::Ready;
        Some(&self.frame)
    }

    fn lose(&mut self) {
        self.frame.clear();
        self.state = State::NeedKeyFrame;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(key: bool, length: usize) -> Vec<u8> {
        let mut data = vec![0xA5; length.max(10)];
        data[0] = u8::from(!key);
        data[3..6].copy_from_slice(&[0x9D, 0x01, 0x2A]);
        data[6..10].copy_from_slice(&[64, 1, 180, 0]);
        data
    }

    fn payloads(packetizer: &mut Packetizer, frame: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut all = Vec::new();
        packetizer.packetize(frame, |payload, marker| all.push((payload.to_vec(), marker)));
        all
    }

    #[test]
    fn segments_are_even_and_small_enough() {
        let mut packetizer = Packetizer::new(0x7FFF);
        let parts = payloads(&mut packetizer, &frame(true, 2500));
        let sizes: Vec<_> = parts.iter().map(|(payload, _)| payload.len()).collect();
        assert_eq!(sizes, [838, 837, 837]);
        assert_eq!(parse(&parts[0].0).and_then(|part| part.picture_id), Some(0x7FFF));
        let next = payloads(&mut packetizer, &frame(false, 20));
        assert_eq!(parse(&next[0].0).and_then(|part| part.picture_id), Some(0));
    }

    #[test]
    fn a_loss_waits_for_a_key_frame() {
        let mut packetizer = Packetizer::new(1);
        let mut depacketizer = Depacketizer::default();
        let mut seq = 65_534_u16;
        let mut complete = Vec::new();
        for (index, key) in [true, false, false, true, false].into_iter().enumerate() {
            for (part, (payload, marker)) in payloads(&mut packetizer, &frame(key, 2500))
                .into_iter()
                .enumerate()
            {
                let lost = index == 1 && part == 1;
                if !lost && depacketizer.push(seq, index as u32, marker, &payload).is_some() {
                    complete.push(index);
                }
                seq = seq.wrapping_add(1);
            }
        }
        assert_eq!(complete, [0, 3, 4]);
    }

    #[test]
    fn numbers_that_start_over_are_followed_in_the_end() {
        let mut depacketizer = Depacketizer::default();
        let mut packetizer = Packetizer::new(1);
        let (payload, _) = payloads(&mut packetizer, &frame(true, 50)).remove(0);
        assert!(depacketizer.push(10_000, 0, true, &payload).is_some());
        let shown = (0..100)
            .filter(|seq| depacketizer.push(*seq, 0, true, &payload).is_some())
            .count();
        assert_eq!(shown, 100 - 1 - usize::from(MOST_LATE));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(length in 10_usize..20_000, seq: u16, seed: u16) {
            let data = frame(true, length);
            let mut packetizer = Packetizer::new(seed);
            let mut depacketizer = Depacketizer::default();
            let parts = payloads(&mut packetizer, &data);
            let last = parts.len() - 1;
            for (index, (payload, marker)) in parts.into_iter().enumerate() {
                prop_assert!(payload.len() <= LARGEST_PAYLOAD);
                let out = depacketizer.push(seq.wrapping_add(index as u16), 9, marker, &payload);
                prop_assert_eq!(out, (index == last).then_some(&data[..]));
            }
        }

        #[test]
        fn noise_never_panics_nor_grows(packets in proptest::collection::vec(
            (any::<u16>(), any::<u32>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..60,
        )) {
            let mut depacketizer = Depacketizer::default();
            for (seq, timestamp, marker, payload) in packets {
                depacketizer.push(seq, timestamp, marker, &payload);
            }
            prop_assert!(depacketizer.frame.len() <= LARGEST_FRAME);
        }
    }
}
