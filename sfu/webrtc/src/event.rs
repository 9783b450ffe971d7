//! What a leg tells its shell: events, the reasons for ignoring a datagram, and its table sizes.

use std::net::SocketAddr;
use std::time::Duration;

/// A datagram to send: STUN, DTLS or RTCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// The whole UDP payload.
    pub data: Vec<u8>,
}

/// What happened on a leg.
#[derive(Clone, Debug, PartialEq)]
pub enum LegEvent {
    /// Keys are agreed: media flows both ways from now on.
    Connected,
    /// The viewer wants a key frame in a slot (PLI or FIR); index into [`crate::Leg::slots`].
    KeyFrameRequested {
        /// The slot.
        slot: usize,
    },
    /// What the path takes of media has changed by more than 5 %; at most every 100 ms.
    Estimate {
        /// Bits per second, with all headers, and without what lost packets sent again will take.
        /// None: nothing limits, as far as is known.
        bps: Option<u64>,
    },
    /// How the last second went; once a second while connected.
    Quality(Quality),
    /// The leg is over, for good. The last event.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// Why a leg ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Neither a valid connectivity check nor authentic media for 10 s.
    TimedOut,
    /// The peer sent close_notify.
    HungUp,
    /// DTLS failed, or the peer offered no SRTP profile that we have.
    HandshakeFailed,
    /// [`crate::Leg::close`] was called.
    ClosedHere,
}

impl CloseReason {
    /// For logs and for people: "timed out", "left", ...
    pub const fn as_str(self) -> &'static str {
        match self {
            CloseReason::TimedOut => "timed out",
            CloseReason::HungUp => "left",
            CloseReason::HandshakeFailed => "handshake failed",
            CloseReason::ClosedHere => "closed here",
        }
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Counts over the last second (about), and the latest round trip.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    /// From the peer's receiver reports, else its transport-wide feedback (with up to 20 ms of its wait), else, for
    /// 10 s, from the handshake. None where nothing of these is there.
    pub round_trip: Option<Duration>,
    /// RTP packets taken from the peer.
    pub received_packets: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Packets that should have come and did not (may be negative-clamped to 0 by late ones).
    pub received_lost: u64,
    /// Worst interarrival jitter of the peer's streams.
    pub jitter: Duration,
    /// RTP packets sent into slots.
    pub sent_packets: u64,
    /// Their datagram bytes.
    pub sent_bytes: u64,
    /// Packets sent again for a NACK.
    pub resent_packets: u64,
    /// Worst loss that the peer reported for a slot, 0.0 to 1.0.
    pub sent_loss: f32,
}

/// Why a datagram was dropped. For counting, not for showing to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ignored {
    /// The leg is closed.
    Closed,
    /// Neither STUN nor DTLS nor RTP by its first byte (RFC 7983), or empty.
    UnknownProtocol,
    /// Not STUN, from an address that has not proved itself by a connectivity check.
    UnknownAddress,
    /// Not a well-formed STUN binding request, or its fingerprint is wrong.
    StunMalformed,
    /// STUN for another username, or with a wrong MESSAGE-INTEGRITY.
    StunWrongCredentials,
    /// A valid check that has come before from another address.
    StunReplayed,
    /// DTLS that cannot be part of this handshake.
    DtlsMalformed,
    /// More DTLS than a handshake needs; dropped to bound memory.
    DtlsTooMuch,
    /// Media before the keys are agreed.
    NoKeysYet,
    /// RTP or RTCP that is too short or malformed.
    RtpMalformed,
    /// Already seen, or older than the replay window.
    Replayed,
    /// The authentication tag is wrong.
    NotAuthentic,
    /// More SSRCs than a leg may have.
    TooManySsrcs,
    /// Authentic RTP that belongs to no accepted m-line.
    UnknownSource,
    /// Authentic RTP with a payload type that the answer did not accept.
    UnknownPayloadType,
}

impl Ignored {
    /// A metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ignored::Closed => "closed",
            Ignored::UnknownProtocol => "unknown_protocol",
            Ignored::UnknownAddress => "unknown_address",
            Ignored::StunMalformed => "stun_malformed",
            Ignored::StunWrongCredentials => "stun_wrong_credentials",
            Ignored::StunReplayed => "stun_replayed",
            Ignored::DtlsMalformed => "dtls_malformed",
            Ignored::DtlsTooMuch => "dtls_too_much",
            Ignored::NoKeysYet => "no_keys_yet",
            Ignored::RtpMalformed => "rtp_malformed",
            Ignored::Replayed => "replayed",
            Ignored::NotAuthentic => "not_authentic",
            Ignored::TooManySsrcs => "too_many_ssrcs",
            Ignored::UnknownSource => "unknown_source",
            Ignored::UnknownPayloadType => "unknown_payload_type",
        }
    }
}

impl std::fmt::Display for Ignored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How full a leg's tables are. Each has a bound; tests and metrics read them here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSizes {
    /// Remote SSRCs known.
    pub ssrcs: usize,
    /// Remote addresses that passed a check.
    pub addresses: usize,
    /// Datagrams waiting in `poll_transmit`.
    pub transmits: usize,
    /// Datagrams dropped because that queue was full, since the start.
    pub transmits_dropped: u64,
    /// Events waiting in `poll_event`.
    pub events: usize,
    /// Sequence numbers that are missing and asked for again.
    pub missing: usize,
    /// Packets that can be sent again.
    pub kept_packets: usize,
    /// Packets that wait for [`crate::Leg::poll_media`].
    pub waiting: usize,
    /// Packets for slots that were dropped since the start: their queue was full, or their payload gone.
    pub media_dropped: u64,
    /// DTLS bytes taken since the start.
    pub dtls_bytes: usize,
}
