//! One slot as it is sent: its SSRCs, its packets written down, its counts for sender reports.

use std::time::Instant;

use super::sent::{Record, Sent};
use crate::media::{Codec, QueuedRtp};
use crate::negotiate::SlotPlan;
use crate::rtp::{Header, MAX_HEADER};
use crate::srtp::MAX_TAG;
use crate::store::PacketStore;

pub(super) struct Slot {
    pub plan: SlotPlan,
    pub ssrc: u32,
    pub rtx: Option<Rtx>,
    packets: u32,
    octets: u32,
    /// Packets at the last sender report.
    reported: u32,
    /// Payload bytes since they were last taken.
    pub recent_bytes: u64,
    /// Timestamp, time and clock of the packet sent last.
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

/// What is written in front of a payload beyond what the packet itself says.
struct Front {
    pt: u8,
    seq: u16,
    ssrc: u32,
    /// Transport-wide sequence number.
    number: [u8; 2],
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
        let front = Front {
            pt: self.plan.codings.iter().find(|c| c.codec == rtp.codec)?.pt,
            seq: rtp.seq,
            ssrc: self.ssrc,
            number: [0; 2],
        };
        self.write_as(front, &[], rtp, store, out, number)
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
        let coding = self.plan.codings.iter().find(|c| c.codec == rtp.codec)?;
        let (pt, rtx) = (coding.rtx_pt?, self.rtx?);
        let front = Front {
            pt,
            seq: rtx.seq,
            ssrc: rtx.ssrc,
            number: [0; 2],
        };
        let header = self.write_as(front, &seq.to_be_bytes(), rtp, store, out, number)?;
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
        let coding = self.plan.codings.iter().find(|c| c.codec == rtp.codec)?;
        let (pt, rtx) = (coding.rtx_pt?, self.rtx?);
        let rtp = QueuedRtp {
            marker: false,
            ..*rtp
        };
        let mut front = Front {
            pt,
            seq: rtx.seq,
            ssrc: rtx.ssrc,
            number: [0; 2],
        };
        let padding = bytes.clamp(1, 255);
        front.number = number(self.header(&front, &rtp).length() + padding).to_be_bytes();
        let start = out.len();
        self.header(&front, &rtp).write(out);
        out[start] |= 0x20;
        let header = out.len() - start;
        out.resize(out.len() + padding - 1, 0);
        out.push(padding as u8); // at most 255
        self.next_rtx();
        Some(header)
    }

    /// The number of the stream of retransmissions is used.
    fn next_rtx(&mut self) {
        if let Some(rtx) = &mut self.rtx {
            rtx.seq = rtx.seq.wrapping_add(1);
        }
    }

    fn write_as(
        &self,
        mut front: Front,
        before: &[u8],
        rtp: &QueuedRtp,
        store: &PacketStore,
        out: &mut Vec<u8>,
        number: impl FnOnce(usize) -> u16,
    ) -> Option<usize> {
        let plain = store.get(rtp.place)?;
        let rest = before.len() + plain.len();
        front.number = number(self.header(&front, rtp).length() + rest).to_be_bytes();
        let start = out.len();
        out.reserve(MAX_HEADER + rest + MAX_TAG);
        self.header(&front, rtp).write(out);
        let header = out.len() - start;
        out.extend_from_slice(before);
        let payload = out.len();
        out.extend_from_slice(plain);
        if let Some(patch) = rtp.patch {
            patch.apply_to(rtp.codec, &mut out[payload..]);
        }
        Some(header)
    }

    fn header<'a>(&'a self, front: &'a Front, rtp: &'a QueuedRtp) -> Header<'a> {
        let plan = &self.plan;
        let level = rtp.audio_level.as_ref().filter(|_| rtp.codec == Codec::Opus);
        Header {
            marker: rtp.marker,
            pt: front.pt,
            seq: front.seq,
            timestamp: rtp.timestamp,
            ssrc: front.ssrc,
            extensions: [
                plan.mid_extension.map(|id| (id, plan.offered.mid.as_bytes())),
                plan.twcc_extension.map(|id| (id, &front.number[..])),
                plan.level_extension
                    .zip(level)
                    .map(|(id, level)| (id, std::slice::from_ref(level))),
            ],
        }
    }

    /// Counts a packet that was sent, and keeps a record of it if it is video. `millis` since the leg began.
    pub(super) fn count(&mut self, now: Instant, millis: u32, rtp: &QueuedRtp, index: u64, number: u16) {
        let payload = rtp.place.len();
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload as u32);
        self.recent_bytes += payload as u64;
        self.last = Some((rtp.timestamp, now, rtp.codec.clock_rate()));
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
