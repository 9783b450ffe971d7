//! What a viewer notes of the stream in its slot: packets by sequence number, and of a sample the content.

use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::keys::Srtp;
use crate::picture::Stamp;
use crate::stats::Sample;
use crate::twcc::Feedback;

/// Sequence numbers beyond 16 bits, each counted once.
#[derive(Default)]
struct Sequence {
    highest: Option<u64>,
    /// Bit n: `highest - n` came.
    seen: u128,
}

impl Sequence {
    /// The number without its wraps, if it is new. One that is more than 127 late passes for a repeat.
    fn take(&mut self, seq: u16) -> Option<u64> {
        let Some(highest) = self.highest else {
            let first = 1 << 32 | u64::from(seq);
            (self.highest, self.seen) = (Some(first), 1);
            return Some(first);
        };
        let step = seq.wrapping_sub(highest as u16).cast_signed();
        let full = highest.wrapping_add_signed(step.into());
        if step > 0 {
            self.seen = self.seen.checked_shl(u32::from(step.unsigned_abs())).unwrap_or(0) | 1;
            self.highest = Some(full);
            return Some(full);
        }
        let bit = 1u128.checked_shl(u32::from(step.unsigned_abs())).unwrap_or(0);
        let new = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        new.then_some(full)
    }
}

pub struct Viewer {
    /// One packet of so many is decrypted.
    sample: u64,
    feedback: Option<Feedback>,
    sequence: Sequence,
    /// Packets, without repeats.
    pub received: u64,
    pub repeated: u64,
    /// Microseconds from send to receive, of the sampled packets.
    pub latencies: Sample,
    pub first_media: Option<Instant>,
    ssrc: u32,
    /// Sequence number minus the publisher's index: the same as long as nothing goes wrong.
    offset: Option<u64>,
    /// The middle of the last sender report's NTP time, and when it came.
    sender_report: Option<(u32, Instant)>,
}

impl Viewer {
    /// One that decrypts one packet of `sample`, which is not 0, and gives `feedback` if the relay numbers its packets.
    pub fn new(sample: u64, feedback: Option<Feedback>) -> Self {
        Self {
            feedback,
            sample,
            sequence: Sequence::default(),
            received: 0,
            repeated: 0,
            latencies: Sample::default(),
            first_media: None,
            ssrc: 0,
            offset: None,
            sender_report: None,
        }
    }

    /// A new window: the latencies of before are forgotten.
    pub fn start(&mut self) {
        self.latencies = Sample::default();
    }

    /// Takes an SRTP packet that came at `now`, `now_us` by the publisher's clock.
    pub fn take(
        &mut self,
        now: Instant,
        now_us: u64,
        datagram: &[u8],
        srtp: &mut Srtp,
    ) -> anyhow::Result<()> {
        if let Some(feedback) = &mut self.feedback {
            feedback.take(now_us, datagram);
        }
        let (header, _) = datagram.split_first_chunk::<12>().context("RTP cut short")?;
        let Some(seq) = self.sequence.take(u16::from_be_bytes([header[2], header[3]])) else {
            self.repeated += 1;
            return Ok(());
        };
        self.received += 1;
        if self.first_media.is_none() {
            self.first_media = Some(now);
            self.ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        }
        if (self.received - 1).is_multiple_of(self.sample) {
            self.look_into(seq, now_us, datagram, srtp)?;
        }
        Ok(())
    }

    fn look_into(&mut self, seq: u64, now_us: u64, datagram: &[u8], srtp: &mut Srtp) -> anyhow::Result<()> {
        let plain = srtp.inbound.decrypt_rtp(datagram)?;
        let stamp = Stamp::read(&plain).context("a packet without the publisher's stamp")?;
        let offset = seq - u64::from(stamp.index);
        let expected = *self.offset.get_or_insert(offset);
        ensure!(
            offset == expected,
            "sequence number {seq} carries the publisher's packet {}, expected {}",
            stamp.index,
            seq - expected
        );
        self.latencies.add(now_us.saturating_sub(stamp.sent_us));
        Ok(())
    }

    /// Takes plain RTCP: sender reports are answered by the next receiver report.
    pub fn take_rtcp(&mut self, now: Instant, compound: &[u8]) {
        if let Some([0x80..=0x9f, 200, _, _, _, _, _, _, _, _, a, b, c, d, ..]) = compound.get(..16) {
            self.sender_report = Some((u32::from_be_bytes([*a, *b, *c, *d]), now));
        }
    }

    /// Plain transport-wide feedback, if it is due.
    pub fn feedback(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.feedback.as_mut()?.poll(now, self.ssrc)
    }

    /// A plain receiver report (RFC 3550, 6.4.2); None before the first packet.
    pub fn report(&self, now: Instant) -> Option<Vec<u8>> {
        let highest = self.sequence.highest.filter(|_| self.first_media.is_some())?;
        let (last, delay) = self.sender_report.map_or((0, 0), |(last, at)| {
            let units = now.saturating_duration_since(at).as_micros() * 65_536 / 1_000_000;
            (last, units as u32)
        });
        let words = [0x81c9_0007, 1, self.ssrc, 0, highest as u32, 0, last, delay];
        Some(words.iter().flat_map(|word: &u32| word.to_be_bytes()).collect())
    }
}

/// Whether plain RTCP asks for a key frame: PLI (RFC 4585) or FIR (RFC 5104).
pub fn asks_key_frame(compound: &[u8]) -> bool {
    let mut rest = compound;
    while let Some((&[first, kind, high, low], _)) = rest.split_first_chunk::<4>() {
        if kind == 206 && matches!(first & 0x1f, 1 | 4) {
            return true;
        }
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let Some(next) = rest.get(length..) else { break };
        rest = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sequence_number_counts_once_across_the_wrap() {
        let mut sequence = Sequence::default();
        let base = 1 << 32 | 65_533;
        let steps: [(u16, Option<u64>); 9] = [
            (65_533, Some(0)),
            (65_535, Some(2)),
            (65_535, None),
            (65_534, Some(1)),
            (65_534, None),
            (1, Some(4)),
            (0, Some(3)),
            (500, Some(503)),
            (2, None), // too late to be told from a repeat
        ];
        for (seq, expect) in steps {
            assert_eq!(sequence.take(seq), expect.map(|n| base + n), "{seq}");
        }
    }

    #[test]
    fn a_report_names_the_highest_and_the_sender_report() {
        let now = Instant::now();
        let mut viewer = Viewer::new(64, None);
        assert_eq!(viewer.report(now), None);
        viewer.first_media = Some(now);
        viewer.ssrc = 7;
        viewer.sequence.take(9);
        let mut sender_report = vec![0x80, 200, 0, 6, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
        sender_report.extend([0; 12]);
        viewer.take_rtcp(now, &sender_report);
        let report = viewer
            .report(now + std::time::Duration::from_millis(500))
            .expect("media came");
        assert_eq!(report[..4], [0x81, 201, 0, 7]);
        assert_eq!(report.len(), 32);
        assert_eq!(report[8..12], [0, 0, 0, 7]);
        assert_eq!(report[16..20], [0, 0, 0, 9], "the wraps begin at none");
        assert_eq!(report[24..], [3, 4, 5, 6, 0, 0, 0x80, 0]);
    }

    #[test]
    fn key_frames_are_asked_for_anywhere_in_a_compound() {
        let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        assert!(asks_key_frame(&pli));
        assert!(asks_key_frame(&[&report[..], &pli].concat()));
        assert!(!asks_key_frame(&report));
        assert!(
            !asks_key_frame(&[0x8f, 206, 0, 2, 0, 0]),
            "a bandwidth estimate, cut short"
        );
    }
}
