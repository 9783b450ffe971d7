//! Certificate, DTLS configuration and SRTP keys of the peers.
//!
//! All peers share one certificate; what it costs to make one is the peers' affair, not the relay's.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context as _;
use rtc_dtls::config::{ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto_provider::RTCCryptoProvider;
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::error::Error;
use rtc_srtp::config::Config;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

const PROFILE: ProtectionProfile = ProtectionProfile::AeadAes128Gcm;

static PROVIDER: LazyLock<Arc<dyn RTCCryptoProvider>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "fails only when no back end is compiled in")]
    rtc_dtls::crypto_provider::default_provider().expect("aws-lc-rs is compiled in")
});

pub fn provider() -> &'static Arc<dyn RTCCryptoProvider> {
    &PROVIDER
}

/// The certificate of all peers.
pub struct Certificate {
    dtls: rtc_dtls::crypto::Certificate,
    pub fingerprint: String,
}

impl Certificate {
    pub fn generate() -> anyhow::Result<Self> {
        let dtls = rtc_dtls::crypto::Certificate::generate_self_signed(
            vec!["muster-bench".to_owned()],
            provider().crypto(),
        )?;
        let fingerprint = fingerprint_of(dtls.certificate.first().context("no certificate")?.as_ref());
        Ok(Self { dtls, fingerprint })
    }

    /// For a client of the relay whose certificate has the fingerprint `theirs`.
    pub fn handshake(&self, theirs: &str) -> anyhow::Result<HandshakeConfig> {
        let theirs = theirs.to_owned();
        Ok(ConfigBuilder::default()
            .with_crypto_provider(provider().clone())
            .with_certificates(vec![self.dtls.clone()])
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
            .with_insecure_skip_verify(true) // of a CA chain; the fingerprint is what counts
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_flight_interval(Duration::from_secs(1))
            .with_verify_peer_certificate(Some(Arc::new(move |chain, _| match chain.first() {
                Some(leaf) if fingerprint_of(leaf) == theirs => Ok(()),
                _ => Err(Error::ErrNoMatchingCertificateFingerprint),
            })))
            .build(true, None)?)
    }
}

fn fingerprint_of(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let hex: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    hex.join(":")
}

/// SRTP and SRTCP both ways.
pub struct Srtp {
    pub outbound: Context,
    pub inbound: Context,
}

impl Srtp {
    /// From a DTLS client whose handshake is complete.
    pub fn of(dtls: &rtc_dtls::state::State) -> anyhow::Result<Self> {
        let mut config = Config {
            profile: PROFILE,
            ..Config::default()
        };
        let label = rtc_srtp::config::LABEL_EXTRACTOR_DTLS_SRTP;
        let material = dtls.export_keying_material(label, &[], config.keying_material_len())?;
        config.set_session_keys_from_keying_material(material.as_ref(), true)?;
        let keys = &config.keys;
        let context =
            |key: &[u8], salt: &[u8]| Context::new(key, salt, PROFILE, None, None, provider().crypto());
        Ok(Self {
            outbound: context(&keys.local_master_key, &keys.local_master_salt)?,
            inbound: context(&keys.remote_master_key, &keys.remote_master_salt)?,
        })
    }
}
