//! Enrolment: a one-time token is traded for a certificate. The token carries the fingerprint of the CA, so the
//! first connection already knows whom it speaks to; there is no trust on first use.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use muster_proto::command::v1::EnrolRequest;
use muster_proto::command::v1::enrol_service_client::EnrolServiceClient;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use tonic::transport::Channel;

use crate::tls::{channel, connect, provider};
use crate::{Credentials, EnrolError, IdentityError, random_secret, sha256_text};

/// A one-time enrolment token, as text `met1.SECRET.FINGERPRINT`.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolToken {
    pub secret: String,
    /// SHA-256 of the CA's certificate (DER), base64url.
    pub ca_fingerprint: String,
}

impl EnrolToken {
    /// A token with a fresh secret.
    pub fn new(ca_fingerprint: String) -> Self {
        Self {
            secret: random_secret(),
            ca_fingerprint,
        }
    }
}

impl fmt::Debug for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolToken(redacted)")
    }
}

impl fmt::Display for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "met1.{}.{}", self.secret, self.ca_fingerprint)
    }
}

impl FromStr for EnrolToken {
    type Err = EnrolError;

    fn from_str(text: &str) -> Result<Self, EnrolError> {
        let mut parts = text.trim().split('.');
        let (Some("met1"), Some(secret), Some(fingerprint), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(EnrolError::TokenMalformed);
        };
        if secret.len() != 43 || fingerprint.len() != 43 {
            return Err(EnrolError::TokenMalformed);
        }
        Ok(Self {
            secret: secret.to_owned(),
            ca_fingerprint: fingerprint.to_owned(),
        })
    }
}

/// Enrols at the control plane's port for agents (`HOST:PORT`). The key never leaves the caller.
///
/// # Errors
/// [`EnrolError`]: nobody there, somebody else there, or a token that is refused.
pub async fn enrol(authority: &str, token: &EnrolToken) -> Result<Credentials, EnrolError> {
    enrol_as(authority, token, &[]).await
}

/// As [`enrol`]; a relay asks for these DNS names and addresses, by which browsers will call it.
///
/// # Errors
/// As there; the control plane refuses names that are its own.
pub async fn enrol_as(
    authority: &str,
    token: &EnrolToken,
    names: &[String],
) -> Result<Credentials, EnrolError> {
    let (key, request) = request_for(names)?;
    let verifier = Arc::new(PinnedCa {
        fingerprint: token.ca_fingerprint.clone(),
    });
    let mut tls = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| IdentityError::malformed("TLS versions", e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let client = EnrolServiceClient::new(channel(authority, tls, crate::Rank::default())?);
    ask(client, authority, token.to_string(), key, request).await
}

/// A relay's certificate made anew, for these names: it shows the one that it has in place of a token.
///
/// # Errors
/// As [`enrol_as`].
pub async fn renew(
    authority: &str,
    credentials: &Credentials,
    names: &[String],
) -> Result<Credentials, EnrolError> {
    let (key, request) = request_for(names)?;
    let client = EnrolServiceClient::new(connect(authority, credentials).await?);
    ask(client, authority, String::new(), key, request).await
}

fn request_for(names: &[String]) -> Result<(KeyPair, String), IdentityError> {
    let failed = |e| IdentityError::malformed("certificate request", e);
    let key = KeyPair::generate().map_err(failed)?;
    let request = CertificateParams::new(names)
        .and_then(|params| params.serialize_request(&key))
        .and_then(|csr| csr.pem())
        .map_err(failed)?;
    Ok((key, request))
}

async fn ask(
    mut client: EnrolServiceClient<Channel>,
    authority: &str,
    token: String,
    key: KeyPair,
    csr_pem: String,
) -> Result<Credentials, EnrolError> {
    let answer = client
        .enrol(EnrolRequest { token, csr_pem })
        .await
        .map_err(|status| refusal(authority, &status))?
        .into_inner();
    Ok(Credentials::from_pem(
        answer.certificate_pem,
        key.serialize_pem(),
        answer.ca_pem,
        answer.token_key_pem,
    )?)
}

fn refusal(authority: &str, status: &tonic::Status) -> EnrolError {
    let mut detail = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        detail = error.to_string();
        cause = error.source();
    }
    if status.code() == tonic::Code::InvalidArgument {
        return EnrolError::RequestRefused(status.message().to_owned());
    }
    if status.code() != tonic::Code::Unavailable && status.code() != tonic::Code::Unknown {
        return EnrolError::Refused(status.message().to_owned());
    }
    let authority = authority.to_owned();
    if detail.contains("UnknownIssuer") {
        return EnrolError::WrongServer { authority };
    }
    EnrolError::Unreachable { authority, detail }
}

/// Takes a server whose chain holds the CA with the pinned fingerprint and whose certificate that CA signed.
#[derive(Debug)]
struct PinnedCa {
    fingerprint: String,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|cert| sha256_text(cert) == self.fingerprint)
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
