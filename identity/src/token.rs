//! Join tokens: Ed25519 JWTs of 120 s, bound to meeting, site and what the leg may do. The control plane signs
//! them, a relay checks them alone and takes each `jti` once.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::IdentityError;

/// How long a join token holds, in seconds.
pub const TOKEN_VALID_S: i64 = 120;

/// What a join token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinClaims {
    aud: String,
    #[serde(rename = "mtg")]
    pub meeting: String,
    /// Site id, or `desk:ACCOUNT`.
    #[serde(rename = "sub")]
    pub site: String,
    /// The desk of the meeting's chair.
    pub chair: bool,
    #[serde(rename = "pub")]
    pub may_publish: bool,
    pub jti: String,
    /// Seconds since the Unix epoch.
    pub exp: i64,
}

impl JoinClaims {
    /// Claims with a fresh `jti`, good for [`TOKEN_VALID_S`] from `now_s`.
    pub fn new(meeting: &str, site: &str, chair: bool, may_publish: bool, now_s: i64) -> Self {
        Self {
            aud: "muster-relay".to_owned(),
            meeting: meeting.to_owned(),
            site: site.to_owned(),
            chair,
            may_publish,
            jti: format!("{:032x}", rand::random::<u128>()),
            exp: now_s + TOKEN_VALID_S,
        }
    }
}

/// Signs join tokens.
#[derive(Clone)]
pub struct TokenSigner(EncodingKey);

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSigner(redacted)")
    }
}

impl TokenSigner {
    pub(crate) fn from_pkcs8_der(der: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self(EncodingKey::from_ed_der(der)))
    }

    /// The token's text.
    pub fn sign(&self, claims: &JoinClaims) -> Result<String, IdentityError> {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &self.0)
            .map_err(|e| IdentityError::malformed("join token", e))
    }
}

/// Why a join token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the join token has expired; ask for a new one")]
    Expired,
    #[error("the join token is not valid here")]
    Invalid,
}

/// Checks join tokens with the public key alone.
#[derive(Clone)]
pub struct TokenVerifier(DecodingKey);

impl TokenVerifier {
    /// From the SubjectPublicKeyInfo in PEM that enrolment gave.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        DecodingKey::from_ed_pem(pem.as_bytes())
            .map(Self)
            .map_err(|e| IdentityError::malformed("token key", e))
    }

    /// Checks signature, audience and time; the caller checks that the `jti` is new.
    pub fn verify(&self, token: &str, now_s: i64) -> Result<JoinClaims, TokenError> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["muster-relay"]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        // Time comes in, so that tests need no clock.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<JoinClaims>(token, &self.0, &validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        if claims.exp <= now_s {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}
