//! The relay's self-signed DTLS certificate, and the fingerprints by which each side knows the
//! other's.

use aws_lc_rs::digest;

/// A self-signed ECDSA P-256 certificate with its key. One serves all legs of a relay.
#[derive(Clone)]
pub struct Certificate {
    pub(crate) dtls: rtc_dtls::crypto::Certificate,
    fingerprint: String,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a DTLS certificate: {0}")]
pub struct CertificateError(String);

impl Certificate {
    /// Makes a new one; draws randomness inside the crypto crate, so the shell does it at start.
    pub fn generate() -> Result<Self, CertificateError> {
        let dtls = rtc_dtls::crypto::Certificate::generate_self_signed(
            vec!["muster".to_owned()],
            crate::crypto::provider().crypto(),
        )
        .map_err(|e| CertificateError(e.to_string()))?;
        let der = dtls
            .certificate
            .first()
            .ok_or_else(|| CertificateError("the chain is empty".to_owned()))?;
        let fingerprint = Hash::Sha256.of(der.as_ref());
        Ok(Self { dtls, fingerprint })
    }

    /// SHA-256 in the form of SDP: `AB:CD:...`, 32 bytes in upper-case hex (RFC 8122).
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// A hash function of `a=fingerprint` that is strong enough (RFC 8122, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// By its name in SDP, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "sha-256" => Some(Hash::Sha256),
            "sha-384" => Some(Hash::Sha384),
            "sha-512" => Some(Hash::Sha512),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        }
    }

    /// Bytes of its values.
    pub(crate) fn length(self) -> usize {
        self.algorithm().output_len()
    }

    /// Of a DER certificate, as SDP writes it.
    fn of(self, der: &[u8]) -> String {
        let digest = digest::digest(self.algorithm(), der);
        let hex: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        hex.join(":")
    }
}

/// What an offer says of its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub hash: Hash,
    /// `AB:CD:...`, upper case.
    pub hex: String,
}

impl Fingerprint {
    /// It is of this DER certificate.
    pub(crate) fn is_of(&self, der: &[u8]) -> bool {
        self.hash.of(der) == self.hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_known_by_any_of_the_hashes() {
        let certificate = Certificate::generate().expect("a certificate");
        let der = certificate.dtls.certificate[0].as_ref();
        for (name, length) in [("SHA-256", 32), ("sha-384", 48), ("Sha-512", 64)] {
            let hash = Hash::named(name).expect("known");
            assert_eq!(hash.length(), length);
            let hex = hash.of(der);
            assert_eq!(hex.split(':').count(), length);
            let fingerprint = Fingerprint { hash, hex };
            assert!(fingerprint.is_of(der));
            assert!(!fingerprint.is_of(&der[1..]));
        }
        assert_eq!(Hash::Sha256.of(b"abc")[..11], *"BA:78:16:BF");
        assert_eq!(Hash::named("sha-1"), None);
    }
}
