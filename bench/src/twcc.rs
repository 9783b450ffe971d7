//! A receiver's transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01): without it a sender that
//! estimates bandwidth would take our silence for loss.

use std::time::{Duration, Instant};

/// As often as browsers send it at a few Mbit/s.
const EVERY: Duration = Duration::from_millis(100);
/// Arrivals that wait for the next feedback; more are left out, as if they were lost.
const MOST: usize = 4000;
/// Statuses of one feedback, so that it fits a datagram with two bytes for each delta.
const STATUSES: usize = 500;
/// Statuses in one chunk, two bits each.
const CHUNK: usize = 7;
/// Microseconds of a delta's unit and of the reference time's.
const DELTA_US: u64 = 250;
const REFERENCE_US: u64 = 64_000;

/// What came since the last feedback.
pub struct Feedback {
    extension: u8,
    /// Sequence number and microseconds.
    arrivals: Vec<(u16, u64)>,
    /// The number after the last of the feedback before.
    expected: Option<u16>,
    count: u8,
    next: Instant,
}

impl Feedback {
    /// `extension` is the id that was agreed for the sequence number.
    pub fn new(extension: u8, now: Instant) -> Self {
        Self {
            extension,
            arrivals: Vec::new(),
            expected: None,
            count: 0,
            next: now + EVERY,
        }
    }

    /// Notes an SRTP packet; its header is not encrypted.
    pub fn take(&mut self, now_us: u64, packet: &[u8]) {
        if self.arrivals.len() < MOST
            && let Some(&[high, low]) = extension(packet, self.extension)
        {
            self.arrivals.push((u16::from_be_bytes([high, low]), now_us));
        }
    }

    /// The plain feedback packets, if they are due and something came.
    pub fn poll(&mut self, now: Instant, media_ssrc: u32) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        if now < self.next || self.arrivals.is_empty() {
            return packets;
        }
        self.next = now + EVERY;
        let first = self.expected.unwrap_or(self.arrivals[0].0);
        let place = |seq: u16| seq.wrapping_sub(first).cast_signed();
        self.arrivals.sort_by_key(|(seq, _)| place(*seq));
        // Late ones were reported as lost.
        let late = self.arrivals.partition_point(|(seq, _)| place(*seq) < 0);
        let mut rest = &self.arrivals[late..];
        let mut base = first;
        while let Some(&(next, _)) = rest.first() {
            if usize::from(next.wrapping_sub(base)) >= STATUSES {
                base = next;
            }
            let fits = |seq: u16| usize::from(seq.wrapping_sub(base)) < STATUSES;
            let (these, others) = rest.split_at(rest.partition_point(|(seq, _)| fits(*seq)));
            packets.push(write(base, these, self.count, media_ssrc));
            self.count = self.count.wrapping_add(1);
            base = these.last().map_or(base, |(last, _)| last.wrapping_add(1));
            rest = others;
        }
        self.expected = Some(base);
        self.arrivals.clear();
        packets
    }
}

/// A one-byte header extension (RFC 8285, 4.2).
pub fn extension(packet: &[u8], id: u8) -> Option<&[u8]> {
    let first = packet.first()?;
    let at = 12 + 4 * usize::from(first & 0x0f);
    let (&[0xbe, 0xde, high, low], rest) = packet.get(at..)?.split_first_chunk::<4>()? else {
        return None;
    };
    let mut rest = rest.get(..4 * usize::from(u16::from_be_bytes([high, low])))?;
    while let Some((&head, body)) = rest.split_first().filter(|_| first & 0x10 != 0) {
        // A zero is padding of one byte.
        let length = if head == 0 {
            0
        } else {
            usize::from(head & 0x0f) + 1
        };
        let (value, next) = body.split_at_checked(length)?;
        if head >> 4 == id && head != 0 {
            return Some(value);
        }
        rest = next;
    }
    None
}

/// Of at least one arrival, in the order of their numbers, which are less than 2^15 from `base` on.
fn write(base: u16, arrivals: &[(u16, u64)], count: u8, media_ssrc: u32) -> Vec<u8> {
    let reference = arrivals.first().map_or(0, |(_, at)| *at) / REFERENCE_US;
    let mut statuses: Vec<u16> = Vec::new();
    let mut deltas: Vec<u8> = Vec::new();
    let mut before = reference * REFERENCE_US / DELTA_US;
    for &(seq, at) in arrivals {
        let place = usize::from(seq.wrapping_sub(base));
        if place < statuses.len() {
            continue; // a repeat
        }
        statuses.resize(place, 0);
        let delta = (at / DELTA_US).wrapping_sub(before).cast_signed();
        before = at / DELTA_US;
        if let Ok(small) = u8::try_from(delta) {
            statuses.push(1);
            deltas.push(small);
        } else {
            statuses.push(2);
            let large = delta.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
            deltas.extend(large.to_be_bytes());
        }
    }
    let mut out = vec![0x8f, 205, 0, 0, 0, 0, 0, 1];
    out.extend(media_ssrc.to_be_bytes());
    out.extend(base.to_be_bytes());
    out.extend((statuses.len() as u16).to_be_bytes());
    out.extend(&(reference as u32).to_be_bytes()[1..]);
    out.push(count);
    for chunk in statuses.chunks(CHUNK) {
        let symbols = chunk.iter().enumerate();
        let bits = symbols.fold(0xc000, |bits, (place, status)| bits | status << (12 - 2 * place));
        out.extend(bits.to_be_bytes());
    }
    out.extend(deltas);
    // RFC 3550, 6.4.1: the padding says its own length.
    let padding = out.len().next_multiple_of(4) - out.len();
    if padding > 0 {
        out[0] |= 0x20;
        out.resize(out.len() + padding, 0);
        out.pop();
        out.push(padding as u8);
    }
    let words = (out.len() / 4 - 1) as u16;
    out[2..4].copy_from_slice(&words.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
    };
    use rtc_shared::marshal::Unmarshal as _;

    use super::*;

    fn read(packet: &[u8]) -> TransportLayerCc {
        TransportLayerCc::unmarshal(&mut bytes::Bytes::copy_from_slice(packet)).expect("well-formed")
    }

    #[test]
    fn another_reader_finds_what_came_and_when() {
        let start = 640_000;
        let arrivals = [
            (65_535u16, start + 1_000),
            (1, start + 100_000), // 65,535 + 2; the one between is lost
            (2, start + 99_000),
            (2, start + 99_500),
            (9, start + 99_250),
        ];
        let feedback = read(&write(65_535, &arrivals, 3, 77));
        assert_eq!((feedback.media_ssrc, feedback.fb_pkt_count), (77, 3));
        assert_eq!(
            (feedback.base_sequence_number, feedback.packet_status_count),
            (65_535, 11)
        );
        assert_eq!(feedback.reference_time, 10);
        let symbols: Vec<SymbolTypeTcc> = feedback
            .packet_chunks
            .iter()
            .flat_map(|chunk| match chunk {
                PacketStatusChunk::StatusVectorChunk(chunk) => chunk.symbol_list.clone(),
                PacketStatusChunk::RunLengthChunk(_) => panic!("not of ours"),
            })
            .collect();
        use SymbolTypeTcc::{
            PacketNotReceived as Lost, PacketReceivedLargeDelta as Large, PacketReceivedSmallDelta as Small,
        };
        assert_eq!(
            symbols[..11],
            [
                Small, Lost, Large, Large, Lost, Lost, Lost, Lost, Lost, Lost, Small
            ]
        );
        let deltas: Vec<i64> = feedback.recv_deltas.iter().map(|delta| delta.delta).collect();
        assert_eq!(deltas, [1_000, 99_000, -1_000, 250]);
    }

    #[test]
    fn feedback_comes_when_due_and_only_of_what_has_a_number() {
        let now = Instant::now();
        let mut feedback = Feedback::new(3, now);
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 2];
        packet.extend([0x40, b'0', 0, 0x31, 0x12, 0x34, 0, 0]);
        feedback.take(64_000, &packet);
        feedback.take(64_000, &packet[..19]);
        feedback.take(64_000, &[0x80; 40]);
        assert!(feedback.poll(now, 7).is_empty(), "too soon");
        let sent = feedback.poll(now + EVERY, 7);
        let numbers = |packet: &[u8]| {
            (
                read(packet).base_sequence_number,
                read(packet).packet_status_count,
            )
        };
        assert_eq!(
            sent.iter().map(|packet| numbers(packet)).collect::<Vec<_>>(),
            [(0x1234, 1)]
        );
        assert!(feedback.poll(now + EVERY * 2, 7).is_empty(), "nothing came");

        // One lost at the seam, and more than fits one.
        feedback.arrivals = (0x1236..0x1236 + 700).map(|seq| (seq, 70_000)).collect();
        let sent = feedback.poll(now + EVERY * 3, 7);
        let expect = [(0x1235, 500), (0x1235 + 500, 201)];
        assert_eq!(
            sent.iter().map(|packet| numbers(packet)).collect::<Vec<_>>(),
            expect
        );
        assert!(sent.iter().all(|packet| packet.len() < 1200));
    }
}
