//! Reading an SDP offer (RFC 8866, as JSEP narrows it), line by line.
//!
//! A reader of its own and not rtc-sdp's, since an error must name the line and say what was
//! expected. It keeps what a leg can use and skips what it does not know. It decides nothing:
//! `negotiate` chooses what to accept.

mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::certificate::Fingerprint;

pub(crate) use lines::read;

/// The longest offer, in bytes.
pub const MAX_OFFER: usize = 256 * 1024;
/// The most m-lines in an offer.
pub const MAX_MEDIA: usize = 256;

/// What is wrong with an offer: the line (1-based; 0 for the whole), and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offer line {line}: expected {expected}")]
pub struct OfferError {
    /// 1-based line of the offer; 0 where the offer as a whole is meant.
    pub line: usize,
    /// What was expected there.
    pub expected: String,
}

impl OfferError {
    pub(crate) fn new(line: usize, expected: impl Into<String>) -> Self {
        Self {
            line,
            expected: expected.into(),
        }
    }
}

/// An offer as read. The peer's ICE password is not kept: an ICE-lite end never sends checks.
pub(crate) struct Offer {
    pub ufrag: String,
    /// Of the peer's certificate, any of them; not empty.
    pub fingerprints: Vec<Fingerprint>,
    /// The peer waits for our ClientHello (`a=setup:passive`).
    pub peer_is_passive: bool,
    /// There is a BUNDLE group; without one the only m-line of sound or pictures is the transport's.
    pub has_bundle: bool,
    /// Given for the session, and so for every m-line.
    pub extmap_allow_mixed: bool,
    pub media: Vec<Media>,
}

impl Offer {
    /// Reads it as of one who receives at most, in every m-line.
    pub(crate) fn send_nothing(&mut self) {
        for media in &mut self.media {
            if media.direction == Direction::SendRecv {
                media.direction = Direction::RecvOnly;
            }
        }
    }
}

/// What an m-line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaKind {
    Audio,
    Video,
    Other,
}

/// The direction attribute, from the offerer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// One m-line.
#[derive(Clone, Debug)]
pub(crate) struct Media {
    /// 1-based line of the `m=`.
    pub line: usize,
    /// The words of the `m=` line, to mirror in a rejection.
    pub name: String,
    pub proto: String,
    pub formats: Vec<String>,
    pub kind: MediaKind,
    /// Port 0 without bundle-only: the offerer itself disabled it.
    pub disabled: bool,
    pub mid: String,
    /// The offer has that mid; else it is ours, for the only m-line.
    pub has_mid: bool,
    pub bundled: bool,
    pub direction: Direction,
    pub rtcp_mux: bool,
    pub rtcp_rsize: bool,
    pub slides: bool,
    /// `a=extmap-allow-mixed` in this m-line (RFC 8285, section 6).
    pub extmap_allow_mixed: bool,
    /// By payload type.
    pub payloads: BTreeMap<u8, Payload>,
    /// (id, URI)
    pub extensions: Vec<(u8, String)>,
    /// The kinds of `a=rtcp-fb:*`.
    pub feedback: FeedbackKinds,
    /// rids of the simulcast line in the order listed; empty without simulcast.
    pub simulcast: Vec<String>,
    /// Primary SSRCs (those of retransmission and FEC left out), in order.
    pub ssrcs: Vec<u32>,
    /// `a=ssrc-group:FID`: a primary SSRC and the one that repeats it.
    pub repairs: Vec<(u32, u32)>,
}

/// The kinds of feedback that a leg sends or understands.
const FEEDBACK: [&str; 5] = ["goog-remb", TRANSPORT_CC, "ccm fir", "nack", "nack pli"];
/// draft-holmer-rmcat-transport-wide-cc-extensions-01.
pub(crate) const TRANSPORT_CC: &str = "transport-cc";

/// A set of kinds of feedback, a bit for each of `FEEDBACK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FeedbackKinds(u8);

impl FeedbackKinds {
    /// Adds a kind that we have; others are skipped.
    fn add(&mut self, kind: &str) {
        if let Some(bit) = FEEDBACK.iter().position(|known| *known == kind) {
            self.0 |= 1 << bit;
        }
    }
}

impl Media {
    /// The kinds of feedback to answer for a payload type: never one that was not offered (RFC 4585, 4.2).
    pub(crate) fn feedback(&self, pt: u8) -> impl Iterator<Item = &'static str> {
        let of = self.payloads.get(&pt).map_or(0, |p| p.feedback.0);
        let kinds = of | self.feedback.0;
        let offered = move |(bit, kind): (usize, &'static str)| (kinds & 1 << bit != 0).then_some(kind);
        FEEDBACK.into_iter().enumerate().filter_map(offered)
    }

    /// The payload types of the m-line in its order, each once, that an `a=rtpmap` describes.
    pub(crate) fn listed(&self) -> Vec<&Payload> {
        let mut seen = 0u128;
        let types = self.formats.iter().filter_map(|f| f.parse::<u8>().ok());
        types
            .filter(|pt| *pt < 128)
            .filter(|pt| {
                let first = seen & 1 << pt == 0;
                seen |= 1 << pt;
                first
            })
            .filter_map(|pt| self.payloads.get(&pt))
            .collect()
    }
}

/// One payload type of an m-line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload {
    pub pt: u8,
    /// Upper-case encoding name.
    pub name: String,
    pub clock: u32,
    pub channels: u8,
    pub fmtp: String,
    pub feedback: FeedbackKinds,
}

impl Payload {
    /// A format parameter's value, by name without regard to case.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.split(';').find_map(|p| {
            let (key, value) = p.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}
