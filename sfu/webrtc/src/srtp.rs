//! SRTP and SRTCP, both ways: AEAD_AES_128_GCM (RFC 7714) and AES128_CM_HMAC_SHA1_80 (RFC 3711).
//!
//! Packets are protected and opened where they lie, without allocation once an SSRC is known.
//! Invariants: only authentic packets make or move a state; states are bounded in number; no two
//! packets that differ are ever encrypted under one SSRC and index. There is no re-keying, no key derivation
//! rate and no MKI, which DTLS-SRTP has no use for.

mod cipher;
#[cfg(test)]
pub(crate) mod tests;
mod window;

use cipher::{Cipher, KEY, SessionKeys, Use};
use window::Windows;

use crate::event::Ignored;

/// Remote SSRCs of a leg that carry media at the same time.
pub(crate) const MAX_SSRCS: usize = 64;
/// Remote SSRCs whose use is remembered, RTP and RTCP each, so that a peer may begin its tracks anew
/// for as long as the leg lives. The one unused for longest is forgotten for a new one; what it sent
/// could then be replayed by whoever recorded it, after a thousand later SSRCs.
pub(crate) const MAX_REMEMBERED: usize = 1024;
/// Our own SSRCs, twice as many as an offer can have m-lines.
const MAX_OWN_SSRCS: usize = 512;
/// Bytes that protecting RTP appends, at most.
pub(crate) const MAX_TAG: usize = 16;
/// The SRTCP index has 31 bits.
const MAX_RTCP_INDEX: u32 = (1 << 31) - 1;

/// A protection profile that we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 7714, 16-byte tags.
    AeadAes128Gcm,
    /// RFC 3711, 10-byte tags.
    Aes128CmHmacSha1_80,
}

impl Profile {
    /// Its name in the IANA registry of DTLS-SRTP protection profiles.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Profile::Aes128CmHmacSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
        }
    }

    /// Its number in use_srtp (RFC 5764, RFC 7714).
    pub(crate) const fn number(self) -> u16 {
        match self {
            Profile::AeadAes128Gcm => 7,
            Profile::Aes128CmHmacSha1_80 => 1,
        }
    }

    const fn salt_length(self) -> usize {
        match self {
            Profile::AeadAes128Gcm => 12,
            Profile::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// How many bytes of keying material DTLS must export.
    pub const fn keying_length(self) -> usize {
        2 * (KEY + self.salt_length())
    }
}

/// One direction's keys.
struct Keys {
    rtp: Cipher,
    rtcp: Cipher,
}

impl Keys {
    fn derive(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Self> {
        let cipher = |to| Cipher::new(profile, &SessionKeys::derive(profile, to, key, salt)?);
        Some(Self {
            rtp: cipher(Use::Rtp)?,
            rtcp: cipher(Use::Rtcp)?,
        })
    }
}

struct Outbound {
    keys: Keys,
    rtp: Windows,
    /// The index of the last RTCP packet, one count for all our SSRCs.
    rtcp_index: u32,
}

struct Inbound {
    keys: Keys,
    rtp: Windows,
    rtcp: Windows,
}

/// The keys of one leg and what was sent and received under them. No Debug: it is all secret.
pub struct Srtp {
    outbound: Outbound,
    inbound: Inbound,
}

impl Srtp {
    /// From the DTLS exporter's bytes, as the server; None if their length is wrong.
    pub fn from_keying_material(profile: Profile, material: &[u8]) -> Option<Self> {
        Self::from_material(profile, material, false)
    }

    /// RFC 5764, 4.2: both keys, then both salts, the client's first.
    pub(crate) fn from_material(profile: Profile, material: &[u8], client: bool) -> Option<Self> {
        if material.len() != profile.keying_length() {
            return None;
        }
        let (keys, salts) = material.split_at(2 * KEY);
        let (keys, salts) = (keys.split_at(KEY), salts.split_at(profile.salt_length()));
        let of_client = Keys::derive(profile, keys.0, salts.0)?;
        let of_server = Keys::derive(profile, keys.1, salts.1)?;
        let (ours, theirs) = if client {
            (of_client, of_server)
        } else {
            (of_server, of_client)
        };
        Some(Self {
            outbound: Outbound {
                keys: ours,
                rtp: Windows::new(MAX_OWN_SSRCS),
                rtcp_index: 0,
            },
            inbound: Inbound {
                keys: theirs,
                rtp: Windows::forgetting(MAX_REMEMBERED),
                rtcp: Windows::forgetting(MAX_REMEMBERED),
            },
        })
    }

    /// Remote SSRCs with a state.
    pub(crate) fn ssrcs(&self) -> usize {
        self.inbound.rtp.len() + self.inbound.rtcp.len()
    }

    /// Protects the RTP packet at `out[start..]`, whose header is `header` bytes, and appends the
    /// tag. False, and `out` cut back to `start`: malformed, too many SSRCs, or a sequence number
    /// that was used already or is 1024 behind.
    pub fn protect_rtp(&mut self, out: &mut Vec<u8>, start: usize, header: usize) -> bool {
        let done = self.seal_rtp(out, start, header).is_some();
        if !done {
            out.truncate(start);
        }
        done
    }

    /// Bytes that protecting RTP appends.
    pub(crate) fn tag_length(&self) -> usize {
        self.outbound.keys.rtp.tag_length()
    }

    /// As [`Srtp::protect_rtp`], but tells the packet's index, and leaves `out` as it is on a refusal.
    pub(crate) fn seal_rtp(&mut self, out: &mut Vec<u8>, start: usize, header: usize) -> Option<u64> {
        self.outbound.seal(out, start, header)
    }

    /// Protects a packet that [`Srtp::seal_rtp`] gave this index to. It must be the same to the last byte: another one
    /// under the same index would lay the key open. None for an index that was never used.
    pub(crate) fn seal_same_again(
        &self,
        out: &mut Vec<u8>,
        start: usize,
        header: usize,
        index: u64,
    ) -> Option<()> {
        let packet = out.get(start..).filter(|p| p.len() >= header)?;
        let (ssrc, seq) = names(packet)?;
        let windows = &self.outbound.rtp;
        let used = windows.find(ssrc).and_then(|place| windows.get(place))?;
        if seq != index as u16 || used.is_fresh(index) {
            return None;
        }
        self.outbound
            .keys
            .rtp
            .seal_rtp(ssrc, index, out, start, header)
            .ok()
    }

    /// Protects a compound RTCP packet; None if it is too short, or 2^31 were sent.
    pub fn protect_rtcp(&mut self, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        let ssrc = word_at(&packet, 4)?;
        let outbound = &mut self.outbound;
        if outbound.rtcp_index == MAX_RTCP_INDEX {
            return None;
        }
        outbound.rtcp_index += 1;
        let sealed = outbound
            .keys
            .rtcp
            .seal_rtcp(ssrc, outbound.rtcp_index, &mut packet);
        sealed.ok().map(|()| packet)
    }

    /// Opens RTP in place, its header being `header` bytes; returns the plain packet's length. What
    /// is refused may be left spoilt.
    pub fn unprotect_rtp(&mut self, data: &mut [u8], header: usize) -> Result<usize, Ignored> {
        let inbound = &mut self.inbound;
        if data.len() < header + inbound.keys.rtp.tag_length() {
            return Err(Ignored::RtpMalformed);
        }
        let (ssrc, seq) = names(data).ok_or(Ignored::RtpMalformed)?;
        let place = inbound.rtp.find(ssrc).ok_or(Ignored::TooManySsrcs)?;
        let index = match inbound.rtp.get(place) {
            None => u64::from(seq),
            Some(window) => {
                let index = window.index_of(seq).ok_or(Ignored::NotAuthentic)?;
                if !window.is_fresh(index) {
                    return Err(Ignored::Replayed);
                }
                index
            }
        };
        let opened = inbound.keys.rtp.open_rtp(ssrc, index, data, header);
        let length = opened.map_err(|_| Ignored::NotAuthentic)?;
        inbound.rtp.mark(ssrc, place, index);
        Ok(length)
    }

    /// Opens a compound RTCP packet in place; returns its plain length. One whose E bit says that
    /// it is not encrypted is refused: no peer of ours sends it.
    pub fn unprotect_rtcp(&mut self, data: &mut [u8]) -> Result<usize, Ignored> {
        let inbound = &mut self.inbound;
        let ssrc = word_at(data, 4).ok_or(Ignored::RtpMalformed)?;
        let (encrypted, index) = inbound.keys.rtcp.rtcp_index(data).ok_or(Ignored::RtpMalformed)?;
        if !encrypted {
            return Err(Ignored::NotAuthentic);
        }
        let place = inbound.rtcp.find(ssrc).ok_or(Ignored::TooManySsrcs)?;
        let known = inbound.rtcp.get(place);
        if known.is_some_and(|window| !window.is_fresh(index.into())) {
            return Err(Ignored::Replayed);
        }
        let opened = inbound.keys.rtcp.open_rtcp(ssrc, index, data);
        let length = opened.map_err(|_| Ignored::NotAuthentic)?;
        inbound.rtcp.mark(ssrc, place, index.into());
        Ok(length)
    }
}

impl Outbound {
    fn seal(&mut self, out: &mut Vec<u8>, start: usize, header: usize) -> Option<u64> {
        let packet = out.get(start..).filter(|p| p.len() >= header)?;
        let (ssrc, seq) = names(packet)?;
        let place = self.rtp.find(ssrc)?;
        let index = match self.rtp.get(place) {
            None => u64::from(seq),
            Some(window) => window.index_of(seq).filter(|i| window.is_fresh(*i))?,
        };
        self.rtp.mark(ssrc, place, index);
        self.keys.rtp.seal_rtp(ssrc, index, out, start, header).ok()?;
        Some(index)
    }
}

/// SSRC and sequence number of an RTP packet.
fn names(packet: &[u8]) -> Option<(u32, u16)> {
    let seq = packet.get(2..4)?;
    Some((word_at(packet, 8)?, u16::from_be_bytes([seq[0], seq[1]])))
}

fn word_at(packet: &[u8], at: usize) -> Option<u32> {
    let word = packet.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}
