//! The relay's self-signed DTLS certificate; peers know it by its fingerprint in the answer.

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
        let fingerprint = fingerprint_of(der.as_ref());
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

/// SHA-256 of a DER certificate as SDP writes it.
pub(crate) fn fingerprint_of(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let hex: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    hex.join(":")
}
