//! The leg: one peer's connection, joined from its parts.
//!
//! `ice_lite` says who the peer is, `dtls` gives the keys, `srtp` uses them, `receive` and `send`
//! know the media. What is here: the order in which a datagram passes through them, the timers, and
//! the two bounded queues that the shell drains.

mod feedback;
mod flow;
#[cfg(any(test, feature = "fuzzing"))]
mod keyed;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use flow::Flow;
use flow::RoundTrip;
pub use sending::LegTurn;

use crate::answer::{self, Ours};
use crate::certificate::Certificate;
use crate::dtls::{Dtls, Progress};
use crate::event::{CloseReason, Ignored, LegEvent, TableSizes, Transmit};
use crate::ice_lite::IceLite;
use crate::media::{OfferedSlot, OfferedSource, ReceivedRtp};
use crate::negotiate::negotiate;
use crate::offer::{self, OfferError};
use crate::receive::Receiver;
use crate::rtcp;
use crate::rtp::Rtp;
use crate::seed::Seed;
use crate::send::Sender;
use crate::srtp::{Profile, Srtp};

/// Datagrams waiting in `poll_transmit`; later ones are dropped and counted.
const MAX_TRANSMITS: usize = 1024;
/// Events waiting in `poll_event`; later ones are dropped, but never `Closed`.
const MAX_EVENTS: usize = 512;
/// Keys must be agreed within this.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// What a leg needs from its shell.
#[derive(Clone)]
pub struct LegConfig {
    /// The first host candidate of the answer: the worker's UDP address as the peer reaches it.
    pub candidate: SocketAddr,
    /// Where the shell takes TCP connections for this leg (RFC 6544), named after the UDP address.
    pub tcp_candidate: Option<SocketAddr>,
    /// The relay's certificate.
    pub certificate: Arc<Certificate>,
    /// Fresh randomness: ICE credentials and SSRCs are drawn from it. Secret.
    pub seed: [u8; 32],
    /// REMB told to publishers, bits per second a video source.
    pub video_bps: u64,
    /// The offerer only views: an m-line that it would send and receive in is answered as one it receives in.
    pub views_only: bool,
}

impl LegConfig {
    /// With the usual 4 Mbit/s a video source.
    pub fn new(candidate: SocketAddr, certificate: Arc<Certificate>, seed: [u8; 32]) -> Self {
        Self {
            candidate,
            tcp_candidate: None,
            certificate,
            seed,
            video_bps: 4_000_000,
            views_only: false,
        }
    }
}

/// A username fragment and password of ICE.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`; secret.
    pub pwd: String,
}

impl IceCredentials {
    fn draw(seed: &mut Seed) -> Self {
        Self {
            ufrag: seed.text(16),
            pwd: seed.text(24),
        }
    }
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials")
            .field("ufrag", &self.ufrag)
            .field("pwd", &"(redacted)")
            .finish()
    }
}

/// One peer's connection. See the crate's page for how to drive it.
pub struct Leg {
    started: Instant,
    seed: Seed,
    /// The sender of all our RTCP.
    ssrc: u32,
    cname: String,
    video_bps: u64,
    sources: Vec<OfferedSource>,
    slots: Vec<OfferedSlot>,
    ice: IceLite,
    dtls: Dtls,
    srtp: Option<Box<Srtp>>,
    receiver: Receiver,
    sender: Sender,
    flow: Flow,
    round_trip: RoundTrip,
    next_report: Option<Instant>,
    /// (received packets, bytes; sent packets, bytes, resent) at the last Quality.
    counted: [u64; 5],
    transmits: VecDeque<Transmit>,
    transmits_dropped: u64,
    events: VecDeque<LegEvent>,
    closed: bool,
}

impl Leg {
    /// Reads an offer (at most 256 KiB, 256 m-lines) and makes the leg and its answer.
    pub fn accept(now: Instant, offer: &str, config: &LegConfig) -> Result<(Leg, String), OfferError> {
        let mut offer = offer::read(offer)?;
        if config.views_only {
            offer.send_nothing();
        }
        let plan = negotiate(&offer)?;
        let mut seed = Seed::new(config.seed);
        let ice = IceCredentials::draw(&mut seed);
        let cname = seed.text(16);
        let session_id = u64::from(seed.number());
        let ssrc = seed.number();
        let slot_ssrcs: Vec<u32> = plan.slots.iter().map(|_| seed.number()).collect();
        let slot_rtx_ssrcs: Vec<u32> = plan.slots.iter().map(|_| seed.number()).collect();
        let answer = answer::write(
            &offer,
            &plan,
            &Ours {
                candidate: config.candidate,
                tcp_candidate: config.tcp_candidate,
                fingerprint: config.certificate.fingerprint(),
                ice: &ice,
                session_id,
                cname: &cname,
                slot_ssrcs: &slot_ssrcs,
                slot_rtx_ssrcs: &slot_rtx_ssrcs,
            },
        );
        let receiver = Receiver::new(now, &offer.media, &plan.roles, plan.sources);
        let flow = Flow::new(now, &plan.slots);
        let sender = Sender::new(now, plan.slots, &slot_ssrcs, &slot_rtx_ssrcs);
        let leg = Leg {
            started: now,
            seed,
            ssrc,
            cname,
            video_bps: config.video_bps,
            sources: receiver.offered().cloned().collect(),
            slots: sender.offered().cloned().collect(),
            ice: IceLite::new(now, ice, offer.ufrag),
            dtls: Dtls::new(
                config.certificate.clone(),
                offer.fingerprints,
                offer.peer_is_passive,
            ),
            srtp: None,
            receiver,
            sender,
            flow,
            round_trip: RoundTrip::default(),
            next_report: None,
            counted: [0; 5],
            transmits: VecDeque::new(),
            transmits_dropped: 0,
            events: VecDeque::new(),
            closed: false,
        };
        Ok((leg, answer))
    }

    /// The newest username fragment; the shell finds the leg of a first STUN request by it.
    pub fn local_ufrag(&self) -> &str {
        &self.ice.local().ufrag
    }

    /// The newest username fragment of the peer.
    pub fn remote_ufrag(&self) -> &str {
        self.ice.remote_ufrag()
    }

    /// The SRTP profile that was agreed; None before the keys are.
    pub fn srtp_profile(&self) -> Option<Profile> {
        self.dtls.profile()
    }

    /// The published m-lines that were accepted, in the offer's order.
    pub fn sources(&self) -> &[OfferedSource] {
        &self.sources
    }

    /// The receiving m-lines that were accepted, in the offer's order.
    pub fn slots(&self) -> &[OfferedSlot] {
        &self.slots
    }

    /// The keys are agreed and the leg is not closed.
    pub fn is_connected(&self) -> bool {
        self.srtp.is_some() && !self.closed
    }

    /// The peer's address that media is sent to; None before a connectivity check passed.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.ice.selected()
    }

    /// Datagrams of [`Leg::poll_transmit`] that were dropped since the start, its queue being full.
    pub fn transmits_dropped(&self) -> u64 {
        self.transmits_dropped
    }

    /// How full the tables are.
    pub fn tables(&self) -> TableSizes {
        TableSizes {
            ssrcs: self.receiver.streams() + self.srtp.as_ref().map_or(0, |s| s.ssrcs()),
            addresses: self.ice.addresses(),
            transmits: self.transmits.len(),
            transmits_dropped: self.transmits_dropped,
            events: self.events.len(),
            missing: self.receiver.missing(),
            kept_packets: self.sender.kept(),
            waiting: self.sender.waiting(),
            media_dropped: self.sender.dropped(),
            dtls_bytes: self.dtls.taken(),
        }
    }

    /// Takes one UDP payload. RTP is decrypted in place; the packet borrows `datagram` only.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'a mut [u8],
    ) -> Result<Option<ReceivedRtp<'a>>, Ignored> {
        if self.closed {
            return Err(Ignored::Closed);
        }
        let (first, second) = match *datagram {
            [first, second, ..] => (first, second),
            _ => return Err(Ignored::UnknownProtocol),
        };
        // RFC 7983: who is meant is seen by the first byte.
        match first {
            0..=3 => {
                let data = self.ice.handle(now, from, datagram)?;
                self.transmit(from, data);
                if self.ice.selected().is_some() && !self.dtls.start(now) {
                    self.finish(CloseReason::HandshakeFailed);
                }
                self.drain_dtls(now);
                return Ok(None);
            }
            20..=63 | 128..=191 if !self.ice.knows(from) => return Err(Ignored::UnknownAddress),
            20..=63 => return self.handle_dtls(now, datagram).map(|()| None),
            128..=191 => {}
            _ => return Err(Ignored::UnknownProtocol),
        }
        let srtp = self.srtp.as_mut().ok_or(Ignored::NoKeysYet)?;
        if (192..=223).contains(&second) {
            let length = srtp.unprotect_rtcp(datagram)?;
            self.ice.heard(now);
            self.handle_feedback(now, &datagram[..length]);
            return Ok(None);
        }
        let header = Rtp::header(datagram).ok_or(Ignored::RtpMalformed)?;
        let length = srtp.unprotect_rtp(datagram, header.payload.start)?;
        self.ice.heard(now);
        let plain = &datagram[..length];
        let rtp = header.opened(plain).ok_or(Ignored::RtpMalformed)?;
        let accepted = self.receiver.handle(now, &rtp, plain)?;
        Ok(accepted.map(|accepted| {
            if let Some(ssrc) = accepted.ask_key_frame {
                self.send_pli(ssrc);
            }
            ReceivedRtp {
                source: accepted.source,
                layer: accepted.layer,
                seq: accepted.seq,
                timestamp: rtp.timestamp,
                marker: rtp.marker,
                payload: &plain[accepted.payload],
                descriptor: &plain[accepted.descriptor],
                redundancy: accepted.redundancy,
                age_us: accepted.age_us,
                audio_level: accepted.audio_level,
            }
        }))
    }

    fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Ignored> {
        if self.srtp.is_none() {
            self.round_trip.answered(now);
        }
        let progress = self.dtls.handle(now, datagram)?;
        self.drain_dtls(now);
        match progress {
            Progress::Nothing => {}
            Progress::Keys(srtp) => {
                self.srtp = Some(srtp);
                self.next_report = Some(now + rtcp::INTERVAL);
                self.event(LegEvent::Connected);
                self.tell_estimate(now);
            }
            Progress::PeerClosed => self.finish(CloseReason::HungUp),
            Progress::Failed => self.finish(CloseReason::HandshakeFailed),
        }
        Ok(())
    }

    fn drain_dtls(&mut self, now: Instant) {
        while let Some(data) = self.dtls.poll_transmit() {
            if let Some(to) = self.ice.selected() {
                self.round_trip.flight(now);
                self.transmit(to, data);
            }
        }
    }

    /// Asks the publisher for a key frame (PLI), at most every 500 ms a layer; remembered until it
    /// may be asked for, and until the layer's SSRC is known.
    pub fn request_key_frame(&mut self, now: Instant, source: usize, layer: usize) {
        if let Some(ssrc) = self.receiver.request_key_frame(now, source, layer) {
            self.send_pli(ssrc);
        }
    }

    /// ICE restart: takes the offerer's new username fragment, returns our new credentials. The
    /// old ones stay valid until the new are used. (An ICE-lite end needs no remote password.)
    pub fn restart_ice(&mut self, remote_ufrag: &str) -> IceCredentials {
        let local = IceCredentials::draw(&mut self.seed);
        self.ice.restart(local.clone(), remote_ufrag);
        local
    }

    /// Ends the leg: queues close_notify and `Closed { ClosedHere }`.
    pub fn close(&mut self, now: Instant) {
        if !self.closed {
            self.dtls.close(now);
            self.drain_dtls(now);
            self.finish(CloseReason::ClosedHere);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        if now >= self.ice.expires() {
            return self.finish(CloseReason::TimedOut);
        }
        let in_time = self.srtp.is_some() || now < self.started + HANDSHAKE;
        let alive = self.dtls.handle_timeout(now);
        self.drain_dtls(now);
        if !in_time || !alive {
            return self.finish(CloseReason::HandshakeFailed);
        }
        self.send_requests(now);
        self.flow.side.handle_timeout(now);
        self.tell_estimate(now);
        if self.next_report.is_some_and(|next| now >= next) {
            self.next_report = Some(now + rtcp::INTERVAL);
            self.send_reports(now);
        }
    }

    /// When [`Leg::handle_timeout`] is due next; None when closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let handshake = self.srtp.is_none().then(|| self.started + HANDSHAKE);
        [
            Some(self.ice.expires()),
            handshake,
            self.dtls.poll_timeout(),
            self.receiver.next_request(),
            self.next_report,
            self.flow.side.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        self.events.pop_front()
    }

    fn transmit(&mut self, to: SocketAddr, data: Vec<u8>) {
        if self.transmits.len() >= MAX_TRANSMITS {
            self.transmits_dropped += 1;
            return;
        }
        self.transmits.push_back(Transmit { to, data });
    }

    fn event(&mut self, event: LegEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    fn finish(&mut self, reason: CloseReason) {
        self.closed = true;
        self.events.push_back(LegEvent::Closed { reason });
    }
}
