//! The viewing side of a leg: slots, each with an SSRC of ours, and what the viewer reports of them.
//!
//! Invariant: one SSRC a slot for the leg's whole life; what changes is the payload type, when a
//! source of another codec is mapped in.

mod resend;

use std::time::{Duration, Instant};

use resend::Resend;

use crate::media::{Codec, OfferedSlot, OutgoingRtp};
use crate::negotiate::SlotPlan;
use crate::rtp::{Header, MAX_HEADER};
use crate::srtp::MAX_TAG;

/// Assumed before the first receiver report.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(60);

/// RFC 6464: the level of silence.
const SILENCE: u8 = 127;

struct Slot {
    plan: SlotPlan,
    ssrc: u32,
    /// Of its retransmissions; None where no coding of the slot has them.
    rtx_ssrc: Option<u32>,
    packets: u32,
    octets: u32,
    /// Packets at the last sender report.
    reported: u32,
    /// Timestamp, time and clock of the packet sent last.
    last: Option<(u32, Instant, u32)>,
    resend: Resend,
    /// Of 256, as the viewer last reported.
    fraction_lost: u8,
}

/// What a sender report says of a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SlotReport {
    pub ssrc: u32,
    pub rtp_time: u32,
    pub packets: u32,
    pub octets: u32,
}

#[derive(Default)]
pub(crate) struct SendTotals {
    pub packets: u64,
    pub bytes: u64,
    pub resent: u64,
}

pub(crate) struct Sender {
    slots: Vec<Slot>,
    totals: SendTotals,
}

impl Sender {
    pub(crate) fn new(plans: Vec<SlotPlan>, ssrcs: &[u32], rtx_ssrcs: &[u32]) -> Self {
        let slot = |(plan, (ssrc, rtx_ssrc)): (SlotPlan, (&u32, &u32))| Slot {
            ssrc: *ssrc,
            rtx_ssrc: plan.has_rtx().then_some(*rtx_ssrc),
            plan,
            packets: 0,
            octets: 0,
            reported: 0,
            last: None,
            resend: Resend::default(),
            fraction_lost: 0,
        };
        Self {
            slots: plans
                .into_iter()
                .zip(ssrcs.iter().zip(rtx_ssrcs))
                .map(slot)
                .collect(),
            totals: SendTotals::default(),
        }
    }

    pub(crate) fn offered(&self) -> impl Iterator<Item = &OfferedSlot> {
        self.slots.iter().map(|s| &s.plan.offered)
    }

    /// Appends the plain packet for a slot to `out`, with room for its tag; returns the header's
    /// length. None, and nothing appended: no such slot, or it takes no such codec.
    pub(crate) fn write(&self, slot: usize, packet: &OutgoingRtp<'_>, out: &mut Vec<u8>) -> Option<usize> {
        let slot = self.slots.get(slot)?;
        let plan = &slot.plan;
        let coding = plan.codings.iter().find(|c| c.codec == packet.codec)?;
        let level = [packet.audio_level.unwrap_or(SILENCE) & 0x7f];
        let level_extension = plan
            .level_extension
            .filter(|_| packet.codec == Codec::Opus && packet.audio_level.is_some());
        let start = out.len();
        out.reserve(MAX_HEADER + packet.payload.len() + MAX_TAG);
        Header {
            marker: packet.marker,
            pt: coding.pt,
            seq: packet.seq,
            timestamp: packet.timestamp,
            ssrc: slot.ssrc,
            extensions: [
                plan.mid_extension.map(|id| (id, plan.offered.mid.as_bytes())),
                level_extension.map(|id| (id, &level[..])),
                None,
            ],
        }
        .write(out);
        let payload = out.len();
        out.extend_from_slice(packet.payload);
        if let Some(patch) = packet.patch {
            patch.apply_to(packet.codec, &mut out[payload..]);
        }
        Some(payload - start)
    }

    /// Counts a packet that went out, and keeps its protected form if it is video.
    pub(crate) fn sent(&mut self, now: Instant, slot: usize, packet: &OutgoingRtp<'_>, protected: &[u8]) {
        let Some(slot) = self.slots.get_mut(slot) else {
            return;
        };
        slot.packets = slot.packets.wrapping_add(1);
        slot.octets = slot.octets.wrapping_add(packet.payload.len() as u32);
        slot.last = Some((packet.timestamp, now, packet.codec.clock_rate()));
        self.totals.packets += 1;
        self.totals.bytes += protected.len() as u64;
        if packet.codec != Codec::Opus {
            slot.resend.keep(now, packet.seq, protected);
        }
    }

    /// A protected packet to send again for a NACK.
    pub(crate) fn resend(
        &mut self,
        now: Instant,
        ssrc: u32,
        seq: u16,
        round_trip: Option<Duration>,
    ) -> Option<Vec<u8>> {
        let slot = self.slots.iter_mut().find(|s| s.ssrc == ssrc)?;
        let round_trip = round_trip.unwrap_or(DEFAULT_ROUND_TRIP);
        let data = slot.resend.take(now, seq, round_trip)?.to_vec();
        self.totals.resent += 1;
        Some(data)
    }

    /// The slot that has this SSRC, or repeats by it.
    pub(crate) fn slot_of(&self, ssrc: u32) -> Option<usize> {
        let has = |s: &Slot| s.ssrc == ssrc || s.rtx_ssrc == Some(ssrc);
        self.slots.iter().position(has)
    }

    /// The viewer's report of a slot.
    pub(crate) fn reported(&mut self, ssrc: u32, fraction_lost: u8) -> bool {
        let slot = self.slots.iter_mut().find(|s| s.ssrc == ssrc);
        slot.map(|s| s.fraction_lost = fraction_lost).is_some()
    }

    /// Reports for the slots that sent since the last call; timestamps extrapolated to `now`.
    pub(crate) fn reports(&mut self, now: Instant) -> Vec<SlotReport> {
        let mut reports = Vec::new();
        for slot in &mut self.slots {
            let Some((timestamp, at, clock)) = slot.last else {
                continue;
            };
            if slot.reported == slot.packets {
                slot.fraction_lost = 0; // an idle slot loses nothing
                continue;
            }
            slot.reported = slot.packets;
            let since = now.saturating_duration_since(at).as_micros();
            let ticks = since * u128::from(clock) / 1_000_000;
            reports.push(SlotReport {
                ssrc: slot.ssrc,
                rtp_time: timestamp.wrapping_add(ticks as u32),
                packets: slot.packets,
                octets: slot.octets,
            });
        }
        reports
    }

    /// The worst loss that the viewer reported, of 256.
    pub(crate) fn worst_loss(&self) -> u8 {
        self.slots.iter().map(|s| s.fraction_lost).max().unwrap_or(0)
    }

    pub(crate) fn totals(&self) -> &SendTotals {
        &self.totals
    }

    pub(crate) fn kept(&self) -> usize {
        self.slots.iter().map(|s| s.resend.len()).sum()
    }
}
