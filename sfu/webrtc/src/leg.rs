//! The leg: one peer's connection, joined from its parts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::certificate::Certificate;
use crate::event::{Ignored, LegEvent, TableSizes, Transmit};
use crate::media::{OfferedSlot, OfferedSource, OutgoingRtp, ReceivedRtp};
use crate::offer::OfferError;

/// What a leg needs from its shell.
#[derive(Clone)]
pub struct LegConfig {
    /// The one host candidate of the answer: the worker's UDP address as the peer reaches it.
    pub candidate: SocketAddr,
    /// The relay's certificate.
    pub certificate: Arc<Certificate>,
    /// Fresh randomness: ICE credentials and SSRCs are drawn from it. Secret.
    pub seed: [u8; 32],
    /// REMB told to publishers, bits per second a video source.
    pub video_bps: u64,
}

impl LegConfig {
    /// With the usual 4 Mbit/s a video source.
    pub fn new(candidate: SocketAddr, certificate: Arc<Certificate>, seed: [u8; 32]) -> Self {
        Self {
            candidate,
            certificate,
            seed,
            video_bps: 4_000_000,
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
    ufrag: String,
    sources: Vec<OfferedSource>,
    slots: Vec<OfferedSlot>,
}

impl Leg {
    /// Reads an offer (at most 256 KiB, 256 m-lines) and makes the leg and its answer.
    pub fn accept(_now: Instant, _offer: &str, _config: &LegConfig) -> Result<(Leg, String), OfferError> {
        Err(OfferError {
            line: 0,
            expected: String::new(),
        })
    }

    /// The newest username fragment; the shell finds the leg of a first STUN request by it.
    pub fn local_ufrag(&self) -> &str {
        &self.ufrag
    }

    /// The published m-lines that were accepted, in the offer's order.
    pub fn sources(&self) -> &[OfferedSource] {
        &self.sources
    }

    /// The receiving m-lines that were accepted, in the offer's order.
    pub fn slots(&self) -> &[OfferedSlot] {
        &self.slots
    }

    /// Connected and not closed.
    pub fn is_connected(&self) -> bool {
        false
    }

    /// How full the tables are.
    pub fn tables(&self) -> TableSizes {
        TableSizes::default()
    }

    /// Takes one UDP payload. RTP is decrypted in place; the packet borrows `datagram` only.
    pub fn handle_datagram<'a>(
        &mut self,
        _now: Instant,
        _from: SocketAddr,
        _datagram: &'a mut [u8],
    ) -> Result<Option<ReceivedRtp<'a>>, Ignored> {
        Err(Ignored::Closed)
    }

    /// Appends one protected datagram for `slot` to `out` and says where it goes. None: not sent
    /// (not connected, no such slot, a codec that the slot does not take, too long).
    pub fn send_rtp(
        &mut self,
        _now: Instant,
        _slot: usize,
        _packet: &OutgoingRtp<'_>,
        _out: &mut Vec<u8>,
    ) -> Option<SocketAddr> {
        None
    }

    /// Asks the publisher for a key frame (PLI); remembered until the layer's SSRC is known.
    pub fn request_key_frame(&mut self, _now: Instant, _source: usize, _layer: usize) {}

    /// ICE restart: takes the offerer's new credentials, returns ours. The old ones stay valid
    /// until the new are used.
    pub fn restart_ice(&mut self, _remote_ufrag: &str, _remote_pwd: &str) -> IceCredentials {
        IceCredentials {
            ufrag: String::new(),
            pwd: String::new(),
        }
    }

    /// Ends the leg: queues close_notify and `Closed { ClosedHere }`.
    pub fn close(&mut self, _now: Instant) {}

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When [`Leg::handle_timeout`] is due next; None when closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        None
    }
}

/// The local username fragment that a STUN binding request is for, to find its leg by.
///
/// Nothing is authenticated here. None for anything that is not a binding request with USERNAME.
pub fn stun_ufrag(_datagram: &[u8]) -> Option<&str> {
    None
}
