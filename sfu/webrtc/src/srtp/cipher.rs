//! The session keys of one direction, for RTP or for RTCP, and the two transforms on them.
//!
//! In place and without allocation. It knows neither rollover nor replay: whoever calls it chooses
//! the packet index, and must never encrypt twice under the same SSRC and index.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::Profile;

pub(super) const KEY: usize = 16;
/// Of AES-CM; AES-GCM's are two bytes shorter.
pub(super) const MAX_SALT: usize = 14;
const AUTH_KEY: usize = 20;

/// What a packet's keys are for; their labels follow it (RFC 3711, 4.3.1 and 4.3.2).
#[derive(Clone, Copy)]
pub(super) enum Use {
    Rtp = 0,
    Rtcp = 3,
}

/// Derived keys.
pub(super) struct SessionKeys {
    pub key: [u8; KEY],
    pub auth: [u8; AUTH_KEY],
    /// Filled up with zeros on the right.
    pub salt: [u8; MAX_SALT],
}

impl SessionKeys {
    /// Key derivation with a rate of zero (RFC 3711, 4.3; RFC 7714, 11). None if the lengths are
    /// not the profile's.
    pub(super) fn derive(profile: Profile, to: Use, key: &[u8], salt: &[u8]) -> Option<Self> {
        let salt_length = profile.salt_length();
        if key.len() != KEY || salt.len() != salt_length {
            return None;
        }
        let prf = counter_mode(key)?;
        let generate = |label: u8, out: &mut [u8]| -> Option<()> {
            let mut iv = [0; 16];
            iv[..salt_length].copy_from_slice(salt);
            iv[7] ^= to as u8 + label;
            apply(&prf, iv, out)
        };
        let mut keys = Self {
            key: [0; KEY],
            auth: [0; AUTH_KEY],
            salt: [0; MAX_SALT],
        };
        generate(0, &mut keys.key)?;
        generate(1, &mut keys.auth)?;
        generate(2, &mut keys.salt[..salt_length])?;
        Some(keys)
    }
}

/// The keys, ready for use.
pub(super) enum Cipher {
    /// AEAD_AES_128_GCM (RFC 7714).
    Gcm { key: LessSafeKey, salt: u128 },
    /// AES128_CM_HMAC_SHA1_80 (RFC 3711).
    Cm(Box<CounterMode>),
}

/// Boxed: some 1,700 bytes, which a leg with GCM need not have.
pub(super) struct CounterMode {
    key: EncryptingKey,
    auth: hmac::Key,
    salt: u128,
}

impl CounterMode {
    /// Encrypts or decrypts.
    fn apply(&self, ssrc: u32, index: u64, data: &mut [u8]) -> Result<(), Refused> {
        // RFC 3711, 4.1.1.
        let iv = self.salt ^ u128::from(ssrc) << 64 ^ u128::from(index) << 16;
        apply(&self.key, iv.to_be_bytes(), data).ok_or(Refused)
    }

    /// The tag of a packet with what follows it: RTP's rollover counter.
    fn tag(&self, packet: &[u8], rollovers: &[u8]) -> [u8; CM_TAG] {
        let mut context = hmac::Context::with_key(&self.auth);
        context.update(packet);
        context.update(rollovers);
        let mut tag = [0; CM_TAG];
        tag.copy_from_slice(&context.sign().as_ref()[..CM_TAG]);
        tag
    }

    /// The packet without its tag, if that is right.
    fn authentic<'a>(&self, data: &'a mut [u8], rollovers: &[u8]) -> Result<&'a mut [u8], Refused> {
        let (packet, given) = data.split_last_chunk_mut::<CM_TAG>().ok_or(Refused)?;
        let tag = self.tag(packet, rollovers);
        verify_slices_are_equal(&tag, given).map_err(|_| Refused)?;
        Ok(packet)
    }
}

/// Wrong tag, or the back end failed.
#[derive(Debug)]
pub(super) struct Refused;

impl Cipher {
    pub(super) fn new(profile: Profile, keys: &SessionKeys) -> Option<Self> {
        let mut salt = [0; 16];
        salt[..MAX_SALT].copy_from_slice(&keys.salt);
        let salt = u128::from_be_bytes(salt);
        Some(match profile {
            Profile::AeadAes128Gcm => Cipher::Gcm {
                key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &keys.key).ok()?),
                salt: salt >> 32,
            },
            Profile::Aes128CmHmacSha1_80 => Cipher::Cm(Box::new(CounterMode {
                key: counter_mode(&keys.key)?,
                auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &keys.auth),
                salt,
            })),
        })
    }

    /// Encrypts the packet at `out[start..]` but for its first `clear` bytes, and appends the tag.
    pub(super) fn seal_rtp(
        &self,
        ssrc: u32,
        index: u64,
        out: &mut Vec<u8>,
        start: usize,
        clear: usize,
    ) -> Result<(), Refused> {
        match self {
            Cipher::Gcm { key, salt } => {
                let (header, payload) = out[start..].split_at_mut(clear);
                let nonce = nonce(*salt, ssrc, index);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
                out.extend_from_slice(tag.map_err(|_| Refused)?.as_ref());
            }
            Cipher::Cm(cm) => {
                cm.apply(ssrc, index, &mut out[start + clear..])?;
                let tag = cm.tag(&out[start..], &rollovers(index));
                out.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Decrypts in place. Returns the plain packet's length; `data` is spoilt if it is refused.
    pub(super) fn open_rtp(
        &self,
        ssrc: u32,
        index: u64,
        data: &mut [u8],
        clear: usize,
    ) -> Result<usize, Refused> {
        match self {
            Cipher::Gcm { key, salt } => {
                let (header, payload) = data.split_at_mut_checked(clear).ok_or(Refused)?;
                let nonce = nonce(*salt, ssrc, index);
                let plain = key.open_in_place(nonce, Aad::from(&*header), payload);
                Ok(clear + plain.map_err(|_| Refused)?.len())
            }
            Cipher::Cm(cm) => {
                let packet = cm.authentic(data, &rollovers(index))?;
                let payload = packet.get_mut(clear..).ok_or(Refused)?;
                cm.apply(ssrc, index, payload)?;
                Ok(packet.len())
            }
        }
    }

    /// Encrypts a compound RTCP packet but for its first 8 bytes, and appends index and tag.
    pub(super) fn seal_rtcp(&self, ssrc: u32, index: u32, packet: &mut Vec<u8>) -> Result<(), Refused> {
        let word = (index | E_BIT).to_be_bytes();
        match self {
            Cipher::Gcm { key, salt } => {
                let (header, body) = packet.split_first_chunk_mut::<RTCP_CLEAR>().ok_or(Refused)?;
                let nonce = nonce(*salt, ssrc, index.into());
                let aad = Aad::from(rtcp_aad(header, word));
                let tag = key.seal_in_place_separate_tag(nonce, aad, body);
                packet.extend_from_slice(tag.map_err(|_| Refused)?.as_ref());
                packet.extend_from_slice(&word);
            }
            Cipher::Cm(cm) => {
                let body = packet.get_mut(RTCP_CLEAR..).ok_or(Refused)?;
                cm.apply(ssrc, index.into(), body)?;
                packet.extend_from_slice(&word);
                let tag = cm.tag(packet, &[]);
                packet.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Decrypts in place; the index is the one that [`Cipher::rtcp_index`] read. Returns the plain
    /// compound's length; `data` is spoilt if it is refused.
    pub(super) fn open_rtcp(&self, ssrc: u32, index: u32, data: &mut [u8]) -> Result<usize, Refused> {
        match self {
            Cipher::Gcm { key, salt } => {
                let (data, word) = data.split_last_chunk_mut::<4>().ok_or(Refused)?;
                let (header, body) = data.split_first_chunk_mut::<RTCP_CLEAR>().ok_or(Refused)?;
                let nonce = nonce(*salt, ssrc, index.into());
                let plain = key.open_in_place(nonce, Aad::from(rtcp_aad(header, *word)), body);
                Ok(RTCP_CLEAR + plain.map_err(|_| Refused)?.len())
            }
            Cipher::Cm(cm) => {
                let packet = cm.authentic(data, &[])?;
                let end = packet.len().checked_sub(4).ok_or(Refused)?;
                let body = packet.get_mut(RTCP_CLEAR..end).ok_or(Refused)?;
                cm.apply(ssrc, index.into(), body)?;
                Ok(end)
            }
        }
    }

    /// Bytes of an RTP packet's tag.
    pub(super) const fn tag_length(&self) -> usize {
        match self {
            Cipher::Gcm { .. } => GCM_TAG,
            Cipher::Cm(_) => CM_TAG,
        }
    }

    /// The E bit and the index of a protected RTCP packet; None if it is too short for one.
    pub(super) fn rtcp_index(&self, data: &[u8]) -> Option<(bool, u32)> {
        if data.len() < RTCP_CLEAR + 4 + self.tag_length() {
            return None;
        }
        let word = match self {
            Cipher::Gcm { .. } => data.last_chunk::<4>()?,
            Cipher::Cm(_) => data[..data.len() - CM_TAG].last_chunk::<4>()?,
        };
        let word = u32::from_be_bytes(*word);
        Some((word & E_BIT != 0, word & !E_BIT))
    }
}

const GCM_TAG: usize = 16;
const CM_TAG: usize = 10;
/// RTCP's header and SSRC stay readable.
const RTCP_CLEAR: usize = 8;
/// "Encrypted", before the 31 bits of the index (RFC 3711, 3.4).
const E_BIT: u32 = 1 << 31;

/// RFC 7714, 8.1 and 9.1.
fn nonce(salt: u128, ssrc: u32, index: u64) -> Nonce {
    let value = salt ^ (u128::from(ssrc) << 48 | u128::from(index));
    let bytes = value.to_be_bytes();
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&bytes[4..]);
    Nonce::assume_unique_for_key(nonce)
}

fn rollovers(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// RFC 7714, 9.2.
fn rtcp_aad(header: &[u8; RTCP_CLEAR], word: [u8; 4]) -> [u8; RTCP_CLEAR + 4] {
    let mut aad = [0; RTCP_CLEAR + 4];
    aad[..RTCP_CLEAR].copy_from_slice(header);
    aad[RTCP_CLEAR..].copy_from_slice(&word);
    aad
}

fn counter_mode(key: &[u8]) -> Option<EncryptingKey> {
    EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key).ok()?).ok()
}

/// The key stream, over `data`.
fn apply(key: &EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Option<()> {
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    key.less_safe_encrypt(data, context).ok().map(|_| ())
}
