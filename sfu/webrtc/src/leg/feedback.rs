//! RTCP of a leg: what it hears from the peer, and what it tells it each second.

use std::time::Instant;

use super::Leg;
use crate::event::{LegEvent, Quality};
use crate::media::Codec;
use crate::rtcp::{self, Feedback, Periodic};

impl Leg {
    /// Takes a decrypted compound packet.
    pub(super) fn handle_feedback(&mut self, now: Instant, plain: &[u8]) {
        for feedback in rtcp::read(plain) {
            match feedback {
                Feedback::SenderReport { ssrc, ntp, timestamp } => {
                    self.receiver.sender_report(now, ssrc, ntp, timestamp);
                }
                Feedback::Reception {
                    ssrc,
                    fraction_lost,
                    last_report,
                    delay,
                } => {
                    if self.sender.reported(ssrc, fraction_lost) {
                        let heard = rtcp::round_trip(self.ntp(now), last_report, delay);
                        if let Some(heard) = heard {
                            self.round_trip.reported(now, heard);
                        }
                        self.flow.reported(now, fraction_lost, heard);
                    }
                }
                Feedback::TransportWide { fci } => {
                    self.flow.feedback(now, &fci);
                    if let Some(round_trip) = self.flow.side.round_trip() {
                        self.round_trip.fed_back(now, round_trip);
                    }
                }
                Feedback::Limit { bps } => self.flow.side.reported_limit(bps),
                Feedback::Nack { ssrc, seqs } => {
                    for seq in seqs {
                        self.sender.ask_again(now, ssrc, seq, self.round_trip.get(now));
                    }
                }
                Feedback::KeyFrame { ssrc } => {
                    if let Some(slot) = self.sender.slot_of(ssrc) {
                        self.wants_key_frame(slot);
                    }
                }
            }
        }
        self.tell_estimate(now);
    }

    /// Tells the shell what the path takes, where that has changed.
    pub(super) fn tell_estimate(&mut self, now: Instant) {
        if self.flow.side.estimate_changed(now) {
            let bps = self.flow.side.media_bps();
            self.events.retain(|e| !matches!(e, LegEvent::Estimate { .. }));
            self.event(LegEvent::Estimate { bps });
        }
    }

    pub(super) fn send_pli(&mut self, media_ssrc: u32) {
        let pli = rtcp::pli(self.ssrc, media_ssrc);
        self.send_rtcp(pli);
    }

    /// What is due to be asked of the publisher, and told of the arrival of its packets.
    pub(super) fn send_requests(&mut self, now: Instant) {
        while let Some((media_ssrc, fci)) = self.receiver.transport_feedback(now) {
            let feedback = rtcp::transport_feedback(self.ssrc, media_ssrc, &fci);
            self.send_rtcp(Some(feedback));
        }
        let requests = self.receiver.requests(now, self.round_trip.get(now));
        for (media_ssrc, seqs) in requests.nacks {
            let nack = rtcp::nack(self.ssrc, media_ssrc, &seqs);
            self.send_rtcp(nack);
        }
        for media_ssrc in requests.key_frames {
            self.send_pli(media_ssrc);
        }
    }

    /// Receiver and sender reports, REMB, and the Quality event.
    pub(super) fn send_reports(&mut self, now: Instant) {
        let streams = self.receiver.reports();
        let slots = self.sender.reports(now);
        let (video, video_sources) = self.receiver.video(now);
        let bps = self.video_bps.saturating_mul(video_sources as u64);
        let datagrams = rtcp::reports(&Periodic {
            now,
            ntp: self.ntp(now),
            ours: self.ssrc,
            cname: &self.cname,
            streams: &streams,
            slots: &slots,
            estimate: (!video.is_empty()).then_some((bps, video)),
        });
        for datagram in datagrams {
            self.send_rtcp(Some(datagram));
        }
        let jitter =
            |codec: Codec, ticks: u32| std::time::Duration::from_secs(1) * ticks / codec.clock_rate();
        let (received_packets, received_bytes) = self.receiver.totals();
        let sent = self.sender.totals();
        let totals = [
            received_packets,
            received_bytes,
            sent.packets,
            sent.bytes,
            sent.resent,
        ];
        let before = std::mem::replace(&mut self.counted, totals);
        let since = |n: usize| totals[n] - before[n];
        let quality = Quality {
            round_trip: self.round_trip.get(now),
            received_packets: since(0),
            received_bytes: since(1),
            received_lost: streams
                .iter()
                .filter(|s| !s.repeats)
                .map(|s| u64::from(s.figures.lost))
                .sum(),
            jitter: streams
                .iter()
                .filter(|s| !s.repeats)
                .map(|s| jitter(s.codec, s.figures.jitter))
                .max()
                .unwrap_or_default(),
            sent_packets: since(2),
            sent_bytes: since(3),
            resent_packets: since(4),
            sent_loss: (f32::from(self.sender.worst_loss()) / 256.0).max(self.flow.side.loss() as f32),
        };
        self.event(LegEvent::Quality(quality));
    }

    fn send_rtcp(&mut self, packet: Option<Vec<u8>>) {
        let (Some(packet), Some(srtp), Some(to)) = (packet, self.srtp.as_mut(), self.ice.selected()) else {
            return;
        };
        if let Some(data) = srtp.protect_rtcp(packet) {
            self.transmit(to, data);
        }
    }

    fn ntp(&self, now: Instant) -> u64 {
        rtcp::ntp(now.saturating_duration_since(self.started))
    }
}
