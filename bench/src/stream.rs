//! What a viewer notes of the stream in one slot: packets by sequence number, and of a sample the content.

use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::keys::Srtp;
use crate::picture::{SourceId, Stamp};
use crate::stats::Sample;

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

/// A slot's stream.
pub struct Stream {
    pub ssrc: u32,
    sequence: Sequence,
    /// Packets, without repeats and padding.
    pub received: u64,
    pub repeated: u64,
    /// Packets of nothing but padding.
    pub padding: u64,
    /// Microseconds from send to receive, of the sampled packets.
    pub latencies: Sample,
    /// What the last sampled packet was of.
    pub source: Option<SourceId>,
    /// Changes of layer, seen in the sample.
    pub switches: u64,
    /// Times that the distance between the publisher's numbers and ours changed though the layer stayed.
    pub renumbered: u64,
    distance: u64,
    /// The middle of the last sender report's NTP time, and when it came.
    sender_report: Option<(u32, Instant)>,
}

impl Stream {
    pub fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            sequence: Sequence::default(),
            received: 0,
            repeated: 0,
            padding: 0,
            latencies: Sample::default(),
            source: None,
            switches: 0,
            renumbered: 0,
            distance: 0,
            sender_report: None,
        }
    }

    /// A new window: what was noted of the sample before is forgotten.
    pub fn start(&mut self) {
        self.latencies = Sample::default();
        (self.switches, self.renumbered) = (0, 0);
    }

    /// Takes an SRTP packet that came at `now_us` by the publisher's clock, and decrypts one of `sample`, which is not 0.
    pub fn take(&mut self, now_us: u64, datagram: &[u8], sample: u64, srtp: &mut Srtp) -> anyhow::Result<()> {
        let (header, _) = datagram.split_first_chunk::<12>().context("RTP cut short")?;
        let Some(seq) = self.sequence.take(u16::from_be_bytes([header[2], header[3]])) else {
            self.repeated += 1;
            return Ok(());
        };
        if header[0] & 0x20 != 0 {
            self.padding += 1;
            return Ok(());
        }
        self.received += 1;
        if (self.received - 1).is_multiple_of(sample) {
            let plain = srtp.inbound.decrypt_rtp(datagram)?;
            let stamp = Stamp::read(&plain).context("a packet without the publisher's stamp")?;
            self.look_at(seq, now_us, stamp)?;
        }
        Ok(())
    }

    fn look_at(&mut self, seq: u64, now_us: u64, stamp: Stamp) -> anyhow::Result<()> {
        let distance = seq.wrapping_sub(stamp.index.into());
        let same_site = |before: SourceId| before.publisher() == stamp.source.publisher();
        ensure!(
            self.source.is_none_or(same_site),
            "the slot's picture is another's: {:?}, then {:?}",
            self.source,
            stamp.source
        );
        match self.source.replace(stamp.source) {
            Some(before) if before != stamp.source => self.switches += 1,
            Some(_) => self.renumbered += u64::from(distance != self.distance),
            None => {}
        }
        self.distance = distance;
        self.latencies.add(now_us.saturating_sub(stamp.sent_us));
        Ok(())
    }

    /// Notes a sender report.
    pub fn take_report(&mut self, now: Instant, ntp_middle: u32) {
        self.sender_report = Some((ntp_middle, now));
    }

    /// A report block (RFC 3550, 6.4.1).
    pub fn report(&self, now: Instant) -> [u32; 6] {
        let (last, delay) = self.sender_report.map_or((0, 0), |(last, at)| {
            let units = now.saturating_duration_since(at).as_micros() * 65_536 / 1_000_000;
            (last, units as u32)
        });
        let highest = self.sequence.highest.unwrap_or(0) as u32;
        [self.ssrc, 0, highest, 0, last, delay]
    }
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
        let mut stream = Stream::new(7);
        stream.sequence.take(9);
        stream.take_report(now, 0x0304_0506);
        let report = stream.report(now + std::time::Duration::from_millis(500));
        assert_eq!(
            report,
            [7, 0, 9, 0, 0x0304_0506, 0x8000],
            "the wraps begin at none"
        );
    }

    #[test]
    fn a_change_of_layer_is_counted_and_one_of_site_is_an_error() {
        let mut stream = Stream::new(7);
        let stamp = |publisher, layer, index| Stamp {
            sent_us: 100,
            index,
            source: SourceId::new(publisher, layer),
        };
        stream.look_at(1000, 350, stamp(2, 0, 0)).expect("the first");
        stream.look_at(1064, 350, stamp(2, 0, 64)).expect("the same");
        assert_eq!((stream.switches, stream.renumbered), (0, 0));
        stream.look_at(1128, 350, stamp(2, 0, 129)).expect("one left out");
        stream.look_at(1192, 350, stamp(2, 1, 9)).expect("another layer");
        assert_eq!((stream.switches, stream.renumbered), (1, 1));
        assert_eq!(stream.latencies.percentile(50), Some(250));
        assert!(stream.look_at(1256, 350, stamp(3, 1, 9)).is_err());
    }
}
