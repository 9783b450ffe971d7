//! Join tokens: Ed25519 JWTs of 120 s, bound to meeting, site, role, relay and what the leg may publish and view. The
//! control plane signs them, a relay checks them alone and takes each `jti` once.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::IdentityError;

/// How long a join token holds, in seconds.
pub const TOKEN_VALID_S: i64 = 120;
const AUDIENCE: &str = "muster-relay";

/// As what somebody joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Site,
    /// The console of a dispatcher.
    Desk,
    /// The desk of the meeting's chair.
    Chair,
}

/// A kind of track that may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    Audio,
    Camera,
    Content,
}

impl Track {
    pub const ALL: [Self; 3] = [Self::Audio, Self::Camera, Self::Content];
}

/// Which pictures the leg may ask for. Sound is that of whoever speaks, for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// Of any site of the meeting.
    All,
    /// What everyone is made to see: the large picture, and whom the stage names.
    Stage,
}

/// What a join token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinClaims {
    aud: String,
    /// Id of the one relay that takes it; `None`: any that knows the key.
    #[serde(rename = "rly", default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    #[serde(rename = "mtg")]
    pub meeting: String,
    /// Site id, or `desk:ACCOUNT`.
    #[serde(rename = "sub")]
    pub site: String,
    pub role: Role,
    #[serde(rename = "pub")]
    pub publish: Vec<Track>,
    pub view: View,
    pub jti: String,
    /// Seconds since the Unix epoch.
    pub exp: i64,
}

impl JoinClaims {
    /// Claims with a fresh `jti`, good for [`TOKEN_VALID_S`] from `now_s`, at any relay; they may publish all or nothing, and
    /// view all.
    pub fn new(meeting: &str, site: &str, chair: bool, may_publish: bool, now_s: i64) -> Self {
        let role = match (site.starts_with("desk:"), chair) {
            (_, true) => Role::Chair,
            (true, false) => Role::Desk,
            (false, false) => Role::Site,
        };
        Self {
            aud: AUDIENCE.to_owned(),
            relay: None,
            meeting: meeting.to_owned(),
            site: site.to_owned(),
            role,
            publish: if may_publish {
                Track::ALL.to_vec()
            } else {
                Vec::new()
            },
            view: View::All,
            jti: format!("{:032x}", rand::random::<u128>()),
            exp: now_s + TOKEN_VALID_S,
        }
    }

    /// Good at this relay alone.
    #[must_use]
    pub fn at_relay(mut self, relay: &str) -> Self {
        self.relay = Some(relay.to_owned());
        self
    }

    /// May publish these kinds alone.
    #[must_use]
    pub fn publishing(mut self, tracks: &[Track]) -> Self {
        self.publish = tracks.to_vec();
        self
    }

    /// May view this.
    #[must_use]
    pub fn viewing(mut self, view: View) -> Self {
        self.view = view;
        self
    }

    pub fn may_publish(&self, track: Track) -> bool {
        self.publish.contains(&track)
    }

    /// Whether name and role fit: a desk is `desk:ACCOUNT`, a site is not.
    fn is_whole(&self) -> bool {
        self.site.starts_with("desk:") == (self.role != Role::Site) && self.publish.len() <= Track::ALL.len()
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
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        // Time comes in, so that tests need no clock.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<JoinClaims>(token, &self.0, &validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        if claims.exp <= now_s {
            return Err(TokenError::Expired);
        }
        if !claims.is_whole() {
            return Err(TokenError::Invalid);
        }
        Ok(claims)
    }
}
