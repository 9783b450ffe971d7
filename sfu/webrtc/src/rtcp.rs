//! RTCP packets, read and written through rtc-rtcp but for the congestion feedback.
//!
//! Each packet of a compound is read for itself, so that one of a kind that we do not know spoils
//! nothing. Every compound that we write begins with a receiver report from the same SSRC of ours.

use std::time::{Duration, Instant};

use rtc_rtcp::packet::Packet;
use rtc_rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc_rtcp::receiver_report::ReceiverReport;
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtcp::sender_report::SenderReport;
use rtc_rtcp::source_description::{
    SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem,
};
use rtc_rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};

use crate::receive::StreamReport;
use crate::send::SlotReport;

/// Reports go out this often.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// Sequence numbers taken from one NACK packet.
const MAX_NACKED: usize = 512;
/// Feedback taken from one datagram.
const MAX_FEEDBACK: usize = 64;
/// Report blocks in one report, a limit of the format (5 bits).
const MAX_BLOCKS: usize = 31;
/// Sender reports in one datagram, so that it stays below 1200 bytes.
const MAX_SENDERS: usize = 16;

/// What a peer said that a leg acts on.
#[derive(Debug, PartialEq)]
pub(crate) enum Feedback {
    /// A publisher's sender report: wall-clock time, and the RTP timestamp of that time.
    SenderReport {
        ssrc: u32,
        ntp: u64,
        timestamp: u32,
    },
    /// A viewer's report of one of our SSRCs.
    Reception {
        ssrc: u32,
        fraction_lost: u8,
        last_report: u32,
        delay: u32,
    },
    Nack {
        ssrc: u32,
        seqs: Vec<u16>,
    },
    /// PLI or FIR.
    KeyFrame {
        ssrc: u32,
    },
    /// The FCI of transport-wide feedback, for [`crate::congestion`] to read.
    TransportWide {
        fci: Vec<u8>,
    },
    /// REMB: bits per second that the peer thinks can come.
    Limit {
        bps: u64,
    },
}

/// Reads a decrypted compound packet.
pub(crate) fn read(mut data: &[u8]) -> Vec<Feedback> {
    let mut feedback = Vec::new();
    while let Some(header) = data.get(..4) {
        let length = 4 + 4 * usize::from(u16::from_be_bytes([header[2], header[3]]));
        let Some((mut packet, rest)) = data.split_at_checked(length) else {
            break;
        };
        data = rest;
        if let Some(known) = by_hand(packet) {
            feedback.push(known);
            continue;
        }
        for packet in rtc_rtcp::packet::unmarshal(&mut packet).unwrap_or_default() {
            one(packet.as_ref(), &mut feedback);
        }
        if feedback.len() >= MAX_FEEDBACK {
            break;
        }
    }
    feedback
}

/// What is read without rtc-rtcp: transport-wide feedback, which comes ten times a second and is
/// checked by its reader, and REMB (draft-alvestrand-rmcat-remb-03, 2.2).
fn by_hand(packet: &[u8]) -> Option<Feedback> {
    const FORMAT_15: u8 = 15;
    let (header, body) = packet.split_at_checked(12)?;
    if header[0] & 0x1f != FORMAT_15 {
        return None;
    }
    match header[1] {
        205 => {
            let padded = header[0] & 0x20 != 0;
            let padding = body.last().filter(|_| padded).map_or(0, |n| usize::from(*n));
            let fci = body[..body.len().saturating_sub(padding)].to_vec();
            Some(Feedback::TransportWide { fci })
        }
        206 => {
            let (name, rest) = body.split_first_chunk::<4>()?;
            let (bps, _) = rest.split_first_chunk::<4>()?;
            let exponent = u32::from(bps[1] >> 2);
            let mantissa = u64::from(u32::from_be_bytes([0, bps[1] & 3, bps[2], bps[3]]));
            let bps = mantissa.saturating_mul(1u64.checked_shl(exponent).unwrap_or(u64::MAX));
            (name == b"REMB").then_some(Feedback::Limit { bps })
        }
        _ => None,
    }
}

fn one(packet: &dyn Packet, out: &mut Vec<Feedback>) {
    let any = packet.as_any();
    let reception = |r: &ReceptionReport| Feedback::Reception {
        ssrc: r.ssrc,
        fraction_lost: r.fraction_lost,
        last_report: r.last_sender_report,
        delay: r.delay,
    };
    if let Some(sr) = any.downcast_ref::<SenderReport>() {
        out.push(Feedback::SenderReport {
            ssrc: sr.ssrc,
            ntp: sr.ntp_time,
            timestamp: sr.rtp_time,
        });
        out.extend(sr.reports.iter().map(reception));
    } else if let Some(rr) = any.downcast_ref::<ReceiverReport>() {
        out.extend(rr.reports.iter().map(reception));
    } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
        let pairs = nack.nacks.iter();
        out.push(Feedback::Nack {
            ssrc: nack.media_ssrc,
            seqs: pairs.flat_map(|p| p.packet_list()).take(MAX_NACKED).collect(),
        });
    } else if let Some(pli) = any.downcast_ref::<PictureLossIndication>() {
        out.push(Feedback::KeyFrame { ssrc: pli.media_ssrc });
    } else if let Some(fir) = any.downcast_ref::<FullIntraRequest>() {
        let entries = fir.fir.iter().take(MAX_FEEDBACK);
        out.extend(entries.map(|e| Feedback::KeyFrame { ssrc: e.ssrc }));
    }
}

/// NTP-like time since the leg's start, 32.32 fixed point. Only differences mean anything: no
/// wall clock comes in, and slots are never tied together in time.
pub(crate) fn ntp(since_start: Duration) -> u64 {
    // An arbitrary day, so that no viewer takes 0 for "no report yet".
    const BASE: u64 = 0xe900_0000;
    let fraction = (u64::from(since_start.subsec_nanos()) << 32) / 1_000_000_000;
    ((BASE + since_start.as_secs()) << 32) | fraction
}

/// Round trip from a reception report: now - delay - last report (RFC 3550, 6.4.1), if sensible.
pub(crate) fn round_trip(now: u64, last_report: u32, delay: u32) -> Option<Duration> {
    if last_report == 0 {
        return None;
    }
    let units = ((now >> 16) as u32).wrapping_sub(last_report).wrapping_sub(delay);
    // In 1/65536 s; a clock that runs a little fast makes it negative.
    let sensible = units < 10 << 16;
    sensible.then(|| Duration::from_micros(u64::from(units) * 1_000_000 / 65_536))
}

pub(crate) fn pli(ours: u32, media_ssrc: u32) -> Option<Vec<u8>> {
    compound(&[&PictureLossIndication {
        sender_ssrc: ours,
        media_ssrc,
    }])
}

pub(crate) fn nack(ours: u32, media_ssrc: u32, seqs: &[u16]) -> Option<Vec<u8>> {
    compound(&[&TransportLayerNack {
        sender_ssrc: ours,
        media_ssrc,
        nacks: nack_pairs_from_sequence_numbers(seqs),
    }])
}

/// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1) around its FCI.
pub(crate) fn transport_feedback(ours: u32, media_ssrc: u32, fci: &[u8]) -> Vec<u8> {
    const FMT_AND_TYPE: [u8; 2] = [0x80 | 15, 205];
    const PADDED: u8 = 0x20;
    let padding = fci.len().wrapping_neg() % 4;
    let words = 2 + (fci.len() + padding) / 4; // an FCI is at most 1100 bytes
    let mut out = FMT_AND_TYPE.to_vec();
    out.extend((words as u16).to_be_bytes());
    out.extend(ours.to_be_bytes());
    out.extend(media_ssrc.to_be_bytes());
    out.extend_from_slice(fci);
    if padding > 0 {
        out[0] |= PADDED;
        out.resize(out.len() + padding - 1, 0);
        out.push(padding as u8);
    }
    out
}

/// What the periodic reports are made of.
pub(crate) struct Periodic<'a> {
    pub now: Instant,
    pub ntp: u64,
    pub ours: u32,
    pub cname: &'a str,
    pub streams: &'a [StreamReport],
    pub slots: &'a [SlotReport],
    /// Bits per second, and the SSRCs that it is for.
    pub estimate: Option<(u64, Vec<u32>)>,
}

/// Receiver reports, sender reports and REMB, in datagrams below 1200 bytes.
pub(crate) fn reports(p: &Periodic<'_>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let receiver = |blocks: &[StreamReport]| ReceiverReport {
        ssrc: p.ours,
        reports: blocks.iter().map(|s| block(p.now, s)).collect(),
        ..ReceiverReport::default()
    };
    let description = |ssrcs: &[u32]| SourceDescription {
        chunks: ssrcs.iter().map(|s| chunk(*s, p.cname)).collect(),
    };
    let own_description = description(&[p.ours]);
    for blocks in p.streams.chunks(MAX_BLOCKS) {
        out.extend(compound(&[&receiver(blocks), &own_description]));
    }
    if let Some((bps, ssrcs)) = &p.estimate {
        let remb = ReceiverEstimatedMaximumBitrate {
            sender_ssrc: p.ours,
            bitrate: *bps as f32,
            ssrcs: ssrcs.clone(),
        };
        out.extend(compound(&[&receiver(&[]), &remb]));
    }
    for slots in p.slots.chunks(MAX_SENDERS) {
        let empty = receiver(&[]);
        let senders: Vec<SenderReport> = slots.iter().map(|s| sender(p.ntp, s)).collect();
        let ssrcs: Vec<u32> = slots.iter().map(|s| s.ssrc).collect();
        let described = description(&ssrcs);
        let mut packets: Vec<&dyn Marshaled> = vec![&empty];
        packets.extend(senders.iter().map(|s| s as &dyn Marshaled));
        packets.push(&described);
        out.extend(compound(&packets));
    }
    out
}

fn block(now: Instant, s: &StreamReport) -> ReceptionReport {
    let since = |at: Instant| {
        let units = now.saturating_duration_since(at).as_micros() * 65_536 / 1_000_000;
        u32::try_from(units).unwrap_or(u32::MAX)
    };
    ReceptionReport {
        ssrc: s.ssrc,
        fraction_lost: s.figures.fraction_lost,
        total_lost: s.figures.total_lost,
        last_sequence_number: s.figures.highest,
        jitter: s.figures.jitter,
        last_sender_report: s.last_report.map_or(0, |(ntp, _)| ntp),
        delay: s.last_report.map_or(0, |(_, at)| since(at)),
    }
}

fn sender(ntp: u64, s: &SlotReport) -> SenderReport {
    SenderReport {
        ssrc: s.ssrc,
        ntp_time: ntp,
        rtp_time: s.rtp_time,
        packet_count: s.packets,
        octet_count: s.octets,
        ..SenderReport::default()
    }
}

fn chunk(ssrc: u32, cname: &str) -> SourceDescriptionChunk {
    SourceDescriptionChunk {
        source: ssrc,
        items: vec![SourceDescriptionItem {
            sdes_type: SdesType::SdesCname,
            text: cname.to_owned().into(),
        }],
    }
}

/// rtc-rtcp's packets, as far as writing them goes; its own trait cannot be borrowed as an object.
trait Marshaled {
    fn bytes(&self) -> Option<bytes::BytesMut>;
}

impl<P: rtc_shared::marshal::Marshal> Marshaled for P {
    fn bytes(&self) -> Option<bytes::BytesMut> {
        self.marshal().ok()
    }
}

fn compound(packets: &[&dyn Marshaled]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for packet in packets {
        out.extend_from_slice(&packet.bytes()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests;
