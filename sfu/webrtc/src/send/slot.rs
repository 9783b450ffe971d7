//! One slot as it is sent: its SSRCs, its packets written down, its counts for sender reports.

use std::time::Instant;

use super::front::{Fill, Fronts};
use super::sent::{Record, Sent};
use crate::dependency::Value;
use crate::media::{Codec, QueuedRtp};
use crate::negotiate::SlotPlan;
use crate::red;
use crate::srtp::MAX_TAG;
use crate::store::PacketStore;

pub(super) struct Slot {
    pub plan: SlotPlan,
    pub fronts: Fronts,
    pub ssrc: u32,
    pub rtx: Option<Rtx>,
    packets: u32,
    octets: u32,
    /// Packets at the last sender report.
    reported: u32,
    /// Payload bytes since they were last taken.
    pub recent_bytes: u64,
    /// By the packet sent last: a time, the timestamp of what was sampled then, and the clock.
    last: Option<(u32, Instant, u32)>,
    pub sent: Sent,
    /// Its packets were dropped: nothing more until a key frame begins.
    pub cut: bool,
    /// Of 256, as the viewer last reported.
    pub fraction_lost: u8,
}

/// The stream of a slot's retransmissions (RFC 4588).
#[derive(Clone, Copy)]
pub(super) struct Rtx {
    pub ssrc: u32,
    /// The next sequence number.
    pub seq: u16,
}

/// What a sender report says of a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SlotReport {
    pub ssrc: u32,
    pub rtp_time: u32,
    pub packets: u32,
    pub octets: u32,
}

impl Slot {
    pub(super) fn new(plan: SlotPlan, ssrc: u32, rtx_ssrc: u32) -> Self {
        let rtx = Rtx {
            ssrc: rtx_ssrc,
            // The lower half leaves a receiver no doubt about the rollover counter (RFC 3711, 3.3.1).
            seq: rtx_ssrc as u16 & 0x7fff,
        };
        Self {
            rtx: plan.has_rtx().then_some(rtx),
            fronts: Fronts::new(&plan),
            plan,
            ssrc,
            packets: 0,
            octets: 0,
            reported: 0,
            recent_bytes: 0,
            last: None,
            sent: Sent::default(),
            cut: false,
            fraction_lost: 0,
        }
    }

    /// Appends the plain packet to `out`, with room for its tag; returns the header's length. `number` gives the
    /// transport-wide sequence number for a plain packet of this length. What is written depends on nothing but the packet,
    /// the number and the plan, which never changes. None: its payload is gone, or the slot has no such codec.
    pub(super) fn write(
        &self,
        rtp: &QueuedRtp,
        store: &PacketStore,
        out: &mut Vec<u8>,
        number: impl FnOnce(usize) -> u16,
    ) -> Option<usize> {
        let types = self.fronts.types(rtp.codec)?;
        let red = types.red.filter(|_| rtp.redundancy > 0);
        let fill = Fill {
            marker: rtp.marker,
            payload_type: red.unwrap_or(types.plain),
            seq: rtp.seq,
            timestamp: rtp.timestamp,
            ssrc: self.ssrc,
            level: rtp.audio_level.filter(|_| rtp.codec == Codec::Opus),
            descriptor: &[],
        };
        let payload = out.len();
        let header = self.write_as(&fill, &[], rtp, store, out, number)?;
        if red.is_some() {
            red::rename(&mut out[payload + header..], types.plain);
        }
        Some(header)
    }

    /// As [`Slot::write`], the same packet as a retransmission of its own stream and number. None: there is no such stream.
    pub(super) fn write_rtx(
        &mut self,
        seq: u16,
        store: &PacketStore,
        out: &mut Vec<u8>,
        number: impl FnOnce(usize) -> u16,
    ) -> Option<usize> {
        let Record { rtp, .. } = self.sent.get(seq)?;
        let fill = self.rtx_fill(rtp)?;
        let header = self.write_as(&fill, &seq.to_be_bytes(), rtp, store, out, number)?;
        self.next_rtx();
        Some(header)
    }

    /// Appends a packet of the retransmissions' stream that is nothing but padding (RFC 3550, 5.1), for a probe of about
    /// `bytes`; its timestamp is that of packet `seq`.
    pub(super) fn write_padding(
        &mut self,
        seq: u16,
        bytes: usize,
        out: &mut Vec<u8>,
        number: impl FnOnce(usize) -> u16,
    ) -> Option<usize> {
        let Record { rtp, .. } = self.sent.get(seq)?;
        let fill = Fill {
            marker: false,
            ..self.rtx_fill(rtp)?
        };
        let padding = bytes.clamp(1, 255);
        let number = number(self.fronts.length(&fill) + padding);
        let start = out.len();
        self.fronts.write(&fill, number, out);
        out[start] |= 0x20;
        let header = out.len() - start;
        out.resize(out.len() + padding - 1, 0);
        out.push(padding as u8); // at most 255
        self.next_rtx();
        Some(header)
    }

    /// The header of a packet's retransmission; None: there is no stream for it.
    fn rtx_fill(&self, rtp: &QueuedRtp) -> Option<Fill<'static>> {
        let rtx = self.rtx?;
        Some(Fill {
            marker: rtp.marker,
            payload_type: self.fronts.types(rtp.codec)?.rtx?,
            seq: rtx.seq,
            timestamp: rtp.timestamp,
            ssrc: rtx.ssrc,
            level: None,
            descriptor: &[],
        })
    }

    /// The number of the stream of retransmissions is used.
    fn next_rtx(&mut self) {
        if let Some(rtx) = &mut self.rtx {
            rtx.seq = rtx.seq.wrapping_add(1);
        }
    }

    /// The dependency descriptor as this slot is sent it.
    fn described(&self, rtp: &QueuedRtp, kept: &[u8]) -> Option<Value> {
        self.plan.dependency_extension.filter(|_| rtp.descriptor > 0)?;
        Some(Value::new(kept.get(..rtp.descriptor.into())?, rtp.patch))
    }

    fn write_as(
        &self,
        fill: &Fill<'_>,
        before: &[u8],
        rtp: &QueuedRtp,
        store: &PacketStore,
        out: &mut Vec<u8>,
        number: impl FnOnce(usize) -> u16,
    ) -> Option<usize> {
        let kept = store.get(rtp.place)?;
        let plain = kept.get(self.left_out(rtp)..)?;
        let described = self.described(rtp, kept);
        let fill = &Fill {
            descriptor: described.as_ref().map_or(&[], Value::get),
            ..*fill
        };
        let header = self.fronts.length(fill);
        let length = header + before.len() + plain.len();
        out.reserve(length + MAX_TAG);
        self.fronts.write(fill, number(length), out);
        out.extend_from_slice(before);
        let payload = out.len();
        out.extend_from_slice(plain);
        if let Some(patch) = rtp.patch {
            patch.apply_to(rtp.codec, &mut out[payload..]);
        }
        Some(header)
    }

    /// Bytes at the start of what is kept that are not sent as payload: the dependency descriptor, or redundancy that the
    /// viewer has not agreed to.
    fn left_out(&self, rtp: &QueuedRtp) -> usize {
        let takes_red = self
            .fronts
            .types(rtp.codec)
            .is_some_and(|types| types.red.is_some());
        let redundancy = if takes_red { 0 } else { rtp.redundancy };
        usize::from(rtp.descriptor) + usize::from(redundancy)
    }

    /// Counts a packet that was sent, and keeps a record of it if it is video. `millis` since the leg began.
    /// `at` is when it was queued.
    pub(super) fn count(&mut self, at: Instant, millis: u32, rtp: &QueuedRtp, index: u64, number: u16) {
        let payload = rtp.place.len().saturating_sub(self.left_out(rtp));
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload as u32);
        self.recent_bytes += payload as u64;
        let clock = rtp.codec.clock_rate();
        // Of the time when it was queued; it was sampled before.
        let ticks = i64::from(rtp.age_us) * i64::from(clock) / 1_000_000;
        self.last = Some((rtp.timestamp.wrapping_add(ticks as u32), at, clock));
        if rtp.codec != Codec::Opus {
            self.sent.keep(millis, rtp, index, number);
        }
    }

    /// If it has sent since the last call; the timestamp extrapolated to `now`.
    pub(super) fn report(&mut self, now: Instant) -> Option<SlotReport> {
        let (timestamp, at, clock) = self.last?;
        if self.reported == self.packets {
            self.fraction_lost = 0; // an idle slot loses nothing
            return None;
        }
        self.reported = self.packets;
        let since = now.saturating_duration_since(at).as_micros();
        let ticks = since * u128::from(clock) / 1_000_000;
        Some(SlotReport {
            ssrc: self.ssrc,
            rtp_time: timestamp.wrapping_add(ticks as u32),
            packets: self.packets,
            octets: self.octets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiate::negotiate;
    use crate::offer;
    use crate::test_support::instant;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    /// An audio slot of a viewer with these formats; SSRC 7.
    fn slot(formats: &str, red: &str) -> Slot {
        let text = format!(
            "v=0\na=group:BUNDLE 0\na=ice-ufrag:abcd\na=ice-pwd:{}\na=fingerprint:sha-256 {}\n\
             m=audio 9 UDP/TLS/RTP/SAVPF {formats}\na=mid:0\na=recvonly\na=rtcp-mux\n\
             a=rtpmap:96 opus/48000/2\n{red}",
            "x".repeat(22),
            ["AB"; 32].join(":"),
        );
        let offer = offer::read(&text).expect("a good offer");
        let mut plan = negotiate(&offer).expect("acceptable");
        Slot::new(plan.slots.remove(0), 7, 8)
    }

    fn audio(store: &mut PacketStore, payload: &[u8], redundancy: u16) -> QueuedRtp {
        QueuedRtp {
            place: store.push(instant(), payload).expect("kept"),
            codec: Codec::Opus,
            seq: 0x0102,
            timestamp: 0x0304_0506,
            marker: false,
            starts_key_frame: false,
            audio_level: None,
            patch: None,
            descriptor: 0,
            redundancy,
            age_us: 0,
        }
    }

    const HEADER: [u8; 12] = [0x80, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 7];

    fn written(slot: &Slot, rtp: &QueuedRtp, store: &PacketStore) -> Vec<u8> {
        let (mut out, mut length) = (Vec::new(), 0);
        let number = |plain| {
            length = plain;
            0
        };
        assert_eq!(slot.write(rtp, store, &mut out, number), Some(HEADER.len()));
        assert_eq!(length, out.len(), "as was told beforehand");
        out
    }

    fn expected(pt: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = HEADER.to_vec();
        out[1] = pt;
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn red_goes_on_to_who_takes_it_under_the_viewers_types() {
        let mut store = PacketStore::new();
        // The publisher names Opus 111; two earlier bytes, then the primary encoding.
        let red = [0x80 | 111, 0x0f, 0, 2, 111, 1, 2, b'n', b'e', b'w'];
        let with = audio(&mut store, &red, 7);
        let plain = audio(&mut store, b"opus", 0);
        let takes = slot("63 96", "a=rtpmap:63 red/48000/2\na=fmtp:63 96/96\n");
        let renamed = [0x80 | 96, 0x0f, 0, 2, 96, 1, 2, b'n', b'e', b'w'];
        assert_eq!(written(&takes, &with, &store), expected(63, &renamed));
        assert_eq!(written(&takes, &plain, &store), expected(96, b"opus"));
        let takes_none = slot("96", "");
        assert_eq!(written(&takes_none, &with, &store), expected(96, b"new"));
        assert_eq!(written(&takes_none, &plain, &store), expected(96, b"opus"));
        // RED of something else is no RED of Opus.
        let of_another = slot("63 96", "a=rtpmap:63 red/48000/2\na=fmtp:63 96/97\n");
        assert_eq!(written(&of_another, &with, &store), expected(96, b"new"));
        assert_eq!(store.get(with.place), Some(&red[..]), "for the next viewer");
    }

    #[test]
    fn reports_count_what_was_sent_and_go_by_when_it_was_sampled() {
        let mut store = PacketStore::new();
        let now = instant();
        let mut slots = [slot("96", ""), slot("96", "")];
        // Both sampled at the same time, queued 70 ms apart, one of them late by as much.
        let early = audio(&mut store, &[9; 100], 40);
        let late = QueuedRtp {
            age_us: 70_000,
            ..audio(&mut store, &[9; 100], 0)
        };
        slots[0].count(now, 0, &early, 0, 0);
        slots[1].count(now + 70 * MS, 70, &late, 0, 0);
        let reports = slots
            .each_mut()
            .map(|s| s.report(now + 1000 * MS).expect("it sent"));
        assert_eq!(reports[0].rtp_time, 0x0304_0506 + 48_000);
        assert_eq!(reports[1].rtp_time, reports[0].rtp_time);
        assert_eq!((reports[0].octets, reports[1].octets), (60, 100));
        assert_eq!(slots[0].report(now + 2000 * MS), None, "nothing since");
    }
}
