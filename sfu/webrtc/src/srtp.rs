//! SRTP and SRTCP, both ways, by rtc-srtp.
//!
//! Behind this small surface so that the fan-out can later protect packets in place. rtc-srtp
//! keeps a state for every SSRC it is shown, authentic or not; here a packet of an unknown SSRC is
//! tried in a throw-away context first, so that only authentic SSRCs enter, and at most `MAX_SSRCS`.

use rtc_srtp::config::{Config, SessionKeys};
use rtc_srtp::context::Context;
use rtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc_srtp::protection_profile::ProtectionProfile;

use crate::crypto::provider;
use crate::event::Ignored;

/// Remote SSRCs of a leg, RTP and RTCP each.
pub(crate) const MAX_SSRCS: usize = 64;
/// Packets that may come late by (RTP sequence numbers; RTCP indices).
const REPLAY_WINDOW: usize = 1024;
/// Packets of unknown SSRCs after which the throw-away context is made anew.
const MAX_TRIALS: u8 = 32;

/// A protection profile that we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    AeadAes128Gcm,
    Aes128CmHmacSha1_80,
}

impl Profile {
    /// Its number in use_srtp (RFC 5764, RFC 7714).
    pub(crate) const fn number(self) -> u16 {
        match self {
            Profile::AeadAes128Gcm => 7,
            Profile::Aes128CmHmacSha1_80 => 1,
        }
    }

    const fn rtc(self) -> ProtectionProfile {
        match self {
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        }
    }

    /// How many bytes of keying material DTLS must export.
    pub(crate) fn keying_length(self) -> usize {
        let config = Config {
            profile: self.rtc(),
            ..Config::default()
        };
        config.keying_material_len()
    }
}

struct Inbound {
    context: Context,
    trial: Option<(Context, u8)>,
    rtp_ssrcs: Vec<u32>,
    rtcp_ssrcs: Vec<u32>,
    profile: Profile,
    key: Vec<u8>,
    salt: Vec<u8>,
}

/// The keys of one leg. No Debug: it is all secret.
pub(crate) struct Srtp {
    outbound: Context,
    inbound: Inbound,
}

impl Srtp {
    /// From the DTLS exporter's bytes, as the server; None if their length is wrong.
    pub(crate) fn from_keying_material(profile: Profile, material: &[u8]) -> Option<Self> {
        let mut config = Config {
            profile: profile.rtc(),
            ..Config::default()
        };
        config
            .set_session_keys_from_keying_material(material, false)
            .ok()?;
        Self::from_keys(profile, config.keys)
    }

    fn from_keys(profile: Profile, keys: SessionKeys) -> Option<Self> {
        let outbound = Context::new(
            &keys.local_master_key,
            &keys.local_master_salt,
            profile.rtc(),
            None,
            None,
            provider().crypto(),
        )
        .ok()?;
        let context = inbound_context(profile, &keys.remote_master_key, &keys.remote_master_salt)?;
        Some(Self {
            outbound,
            inbound: Inbound {
                context,
                trial: None,
                rtp_ssrcs: Vec::new(),
                rtcp_ssrcs: Vec::new(),
                profile,
                key: keys.remote_master_key,
                salt: keys.remote_master_salt,
            },
        })
    }

    /// Remote SSRCs with a state.
    pub(crate) fn ssrcs(&self) -> usize {
        self.inbound.rtp_ssrcs.len() + self.inbound.rtcp_ssrcs.len()
    }

    /// Appends the protected form of a whole RTP packet to `out`.
    pub(crate) fn protect_rtp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> bool {
        let protected = self.outbound.encrypt_rtp(packet);
        protected.map(|p| out.extend_from_slice(&p)).is_ok()
    }

    /// The protected form of a compound RTCP packet.
    pub(crate) fn protect_rtcp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.outbound.encrypt_rtcp(packet).ok().map(|p| p.to_vec())
    }

    /// Decrypts RTP in place; returns the plain packet's length.
    pub(crate) fn unprotect_rtp(&mut self, ssrc: u32, data: &mut [u8]) -> Result<usize, Ignored> {
        let plain = self.inbound.open(Kind::Rtp, ssrc, data)?;
        data[..plain.len()].copy_from_slice(&plain);
        Ok(plain.len())
    }

    /// Decrypts a compound RTCP packet.
    pub(crate) fn unprotect_rtcp(&mut self, data: &[u8]) -> Result<bytes::BytesMut, Ignored> {
        let ssrc = data.get(4..8).ok_or(Ignored::RtpMalformed)?;
        let ssrc = u32::from_be_bytes([ssrc[0], ssrc[1], ssrc[2], ssrc[3]]);
        self.inbound.open(Kind::Rtcp, ssrc, data)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Rtp,
    Rtcp,
}

impl Inbound {
    fn open(&mut self, kind: Kind, ssrc: u32, data: &[u8]) -> Result<bytes::BytesMut, Ignored> {
        if matches!(kind, Kind::Rtcp) && !is_encrypted(self.profile, data) {
            return Err(Ignored::NotAuthentic);
        }
        let known = match kind {
            Kind::Rtp => &self.rtp_ssrcs,
            Kind::Rtcp => &self.rtcp_ssrcs,
        };
        if !known.contains(&ssrc) {
            if known.len() >= MAX_SSRCS {
                return Err(Ignored::TooManySsrcs);
            }
            self.try_open(kind, data)?;
            match kind {
                Kind::Rtp => self.rtp_ssrcs.push(ssrc),
                Kind::Rtcp => self.rtcp_ssrcs.push(ssrc),
            }
        }
        decrypt(&mut self.context, kind, data)
    }

    /// Only to learn whether the packet is authentic.
    fn try_open(&mut self, kind: Kind, data: &[u8]) -> Result<(), Ignored> {
        let (mut trial, used) = match self.trial.take() {
            Some(trial) => trial,
            None => {
                let new = trial_context(self.profile, &self.key, &self.salt);
                (new.ok_or(Ignored::NotAuthentic)?, 0)
            }
        };
        let result = decrypt(&mut trial, kind, data);
        if used + 1 < MAX_TRIALS {
            self.trial = Some((trial, used + 1));
        }
        result.map(|_| ())
    }
}

/// The E bit of SRTCP (RFC 3711, 3.4). rtc-srtp hands out an AES-CM packet without it as it came,
/// its tag unchecked, so anyone could speak for the peer; no peer of ours leaves it out.
fn is_encrypted(profile: Profile, data: &[u8]) -> bool {
    let from_end = match profile {
        Profile::AeadAes128Gcm => 4,
        Profile::Aes128CmHmacSha1_80 => 4 + 10,
    };
    data.len()
        .checked_sub(from_end)
        .is_some_and(|at| data[at] & 0x80 != 0)
}

/// The context that lasts: it sees authentic SSRCs only.
fn inbound_context(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Context> {
    let window = (
        srtp_replay_protection(REPLAY_WINDOW),
        srtcp_replay_protection(REPLAY_WINDOW),
    );
    let (rtp, rtcp) = (Some(window.0), Some(window.1));
    Context::new(key, salt, profile.rtc(), rtp, rtcp, provider().crypto()).ok()
}

/// The throw-away context. Without a replay window: rtc-srtp places the window by the first packet
/// that it is shown, so a forged one would shut out the genuine.
fn trial_context(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Context> {
    Context::new(key, salt, profile.rtc(), None, None, provider().crypto()).ok()
}

fn decrypt(context: &mut Context, kind: Kind, data: &[u8]) -> Result<bytes::BytesMut, Ignored> {
    use rtc_shared::error::Error;
    let plain = match kind {
        Kind::Rtp => context.decrypt_rtp(data),
        Kind::Rtcp => context.decrypt_rtcp(data),
    };
    plain.map_err(|e| match e {
        Error::SrtpSsrcDuplicated(..) | Error::SrtcpSsrcDuplicated(..) => Ignored::Replayed,
        Error::ErrTooShortRtp | Error::ErrTooShortRtcp => Ignored::RtpMalformed,
        _ => Ignored::NotAuthentic,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The other end of a leg's keys.
    pub(crate) fn client(profile: Profile, material: &[u8]) -> Srtp {
        let mut config = Config {
            profile: profile.rtc(),
            ..Config::default()
        };
        config
            .set_session_keys_from_keying_material(material, true)
            .expect("the length is right");
        Srtp::from_keys(profile, config.keys).expect("keys")
    }

    /// Two ends with each other's keys.
    fn pair(profile: Profile) -> (Srtp, Srtp) {
        let material: Vec<u8> = (0..profile.keying_length()).map(|n| n as u8).collect();
        let server = Srtp::from_keying_material(profile, &material).expect("keys");
        (client(profile, &material), server)
    }

    fn rtp(ssrc: u32, seq: u16) -> Vec<u8> {
        let mut p = vec![0x80, 96];
        p.extend(seq.to_be_bytes());
        p.extend([0; 4]);
        p.extend(ssrc.to_be_bytes());
        p.extend([seq as u8; 40]);
        p
    }

    const PROFILES: [Profile; 2] = [Profile::AeadAes128Gcm, Profile::Aes128CmHmacSha1_80];

    #[test]
    fn what_one_end_protects_the_other_opens_across_the_wrap() {
        for profile in PROFILES {
            let (mut a, mut b) = pair(profile);
            for seq in (65_000..=65_535).chain(0..500) {
                let mut wire = Vec::new();
                assert!(a.protect_rtp(&rtp(9, seq), &mut wire));
                let length = b.unprotect_rtp(9, &mut wire).expect("authentic");
                assert_eq!(wire[..length], rtp(9, seq));
            }
        }
    }

    #[test]
    fn replayed_truncated_changed_and_foreign_packets_are_refused() {
        for profile in PROFILES {
            let (mut a, mut b) = pair(profile);
            let mut wire = Vec::new();
            a.protect_rtp(&rtp(9, 1), &mut wire);
            assert!(b.unprotect_rtp(9, &mut wire.clone()).is_ok());
            assert_eq!(b.unprotect_rtp(9, &mut wire.clone()), Err(Ignored::Replayed));
            let mut next = Vec::new();
            a.protect_rtp(&rtp(9, 2), &mut next);
            for length in 0..next.len() {
                assert!(b.unprotect_rtp(9, &mut next[..length].to_vec()).is_err());
            }
            for bit in 0..next.len() * 8 {
                let mut changed = next.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(b.unprotect_rtp(9, &mut changed).is_err(), "bit {bit}");
            }
            // None of these attempts spoilt the genuine packet.
            assert!(b.unprotect_rtp(9, &mut next).is_ok());
        }
    }

    #[test]
    fn a_forged_first_packet_does_not_shut_out_the_genuine() {
        for profile in PROFILES {
            let (mut a, mut b) = pair(profile);
            let mut wire = Vec::new();
            a.protect_rtp(&rtp(9, 5), &mut wire);
            let mut forged = wire.clone();
            forged[2..4].copy_from_slice(&20_000u16.to_be_bytes());
            assert_eq!(b.unprotect_rtp(9, &mut forged), Err(Ignored::NotAuthentic));
            assert!(b.unprotect_rtp(9, &mut wire).is_ok());
        }
    }

    #[test]
    fn plain_rtcp_in_the_guise_of_srtcp_is_refused() {
        for profile in PROFILES {
            let (_, mut b) = pair(profile);
            let mut forged = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]; // a PLI
            forged.extend([0, 0, 0, 1]); // index without the E bit
            forged.extend([0; 10]);
            assert_eq!(b.unprotect_rtcp(&forged), Err(Ignored::NotAuthentic));
            assert_eq!(b.ssrcs(), 0);
        }
    }

    #[test]
    fn unauthentic_ssrcs_leave_no_state_behind() {
        let (_, mut b) = pair(Profile::AeadAes128Gcm);
        for ssrc in 0..10_000 {
            let mut junk = rtp(ssrc, 5);
            assert_eq!(b.unprotect_rtp(ssrc, &mut junk), Err(Ignored::NotAuthentic));
        }
        assert_eq!(b.ssrcs(), 0);
    }

    #[test]
    fn authentic_ssrcs_are_bounded() {
        let (mut a, mut b) = pair(Profile::Aes128CmHmacSha1_80);
        for ssrc in 0..200 {
            let mut wire = Vec::new();
            a.protect_rtp(&rtp(ssrc, 1), &mut wire);
            let result = b.unprotect_rtp(ssrc, &mut wire);
            assert_eq!(result.is_ok(), ssrc < 64, "{ssrc}");
        }
        assert_eq!(b.ssrcs(), MAX_SSRCS);
    }

    proptest! {
        #[test]
        fn junk_never_panics(mut junk in prop::collection::vec(any::<u8>(), 0..200)) {
            for profile in PROFILES {
                let (_, mut b) = pair(profile);
                prop_assert!(b.unprotect_rtcp(&junk).is_err());
                prop_assert!(b.unprotect_rtp(1, &mut junk).is_err());
            }
        }
    }
}
