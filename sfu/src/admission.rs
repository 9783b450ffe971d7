//! Who may open a leg: join tokens are checked alone, and each is taken once.
//!
//! A token that comes again with the same body gets the same answer (a lost reply costs nothing), with another body it is
//! refused. What was taken is remembered until the token would have expired anyway, and in bounded number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use muster_identity::{IdentityError, JoinClaims, TokenError, TokenVerifier};

use crate::refusal::Refusal;
use crate::watch::now_ms;

/// Tokens taken in the last two minutes.
const MAX_TAKEN: usize = 8192;

/// What a token was good for.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    /// SHA-256 of the body that came with it.
    pub body: String,
    pub leg: String,
    pub secret: String,
    pub etag: String,
    pub answer: String,
}

/// One token's place: empty until a join with it has succeeded. Held locked while one is under way.
pub(crate) type Place = Arc<tokio::sync::Mutex<Option<Answered>>>;

struct Key {
    pem: String,
    verifier: TokenVerifier,
}

pub(crate) struct Admission {
    key: RwLock<Key>,
    taken: Mutex<HashMap<String, (i64, Place)>>,
}

impl Admission {
    pub fn new(token_key_pem: &str) -> Result<Self, IdentityError> {
        let key = Key {
            pem: token_key_pem.to_owned(),
            verifier: TokenVerifier::from_pem(token_key_pem)?,
        };
        Ok(Self {
            key: RwLock::new(key),
            taken: Mutex::default(),
        })
    }

    /// Takes a new public key from the control plane; keeps the old one if it is none.
    pub fn set_key(&self, token_key_pem: &str) {
        let mut key = self.key.write().unwrap_or_else(PoisonError::into_inner);
        if token_key_pem.is_empty() || key.pem == token_key_pem {
            return;
        }
        match TokenVerifier::from_pem(token_key_pem) {
            Ok(verifier) => {
                *key = Key {
                    pem: token_key_pem.to_owned(),
                    verifier,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the control plane sent a token key that is none; keeping the old one")
            }
        }
    }

    /// The claims of a token that holds now, and the token's place.
    pub fn admit(&self, token: &str) -> Result<(JoinClaims, Place), Refusal> {
        let now_s = now_ms() / 1000;
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner);
        let claims = key.verifier.verify(token, now_s).map_err(|error| match error {
            TokenError::Expired => Refusal::new(401, "token_expired", error.to_string()),
            TokenError::Invalid => Refusal::new(401, "token_invalid", error.to_string()),
        })?;
        drop(key);
        if !is_name(&claims.meeting) || !is_name(&claims.site) {
            return Err(Refusal::new(
                401,
                "token_invalid",
                "the token names no meeting and site",
            ));
        }
        let place = self.place(&claims, now_s)?;
        Ok((claims, place))
    }

    fn place(&self, claims: &JoinClaims, now_s: i64) -> Result<Place, Refusal> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = taken.get(&claims.jti) {
            return Ok(place.clone());
        }
        if taken.len() >= MAX_TAKEN {
            taken.retain(|_, (exp, _)| *exp > now_s);
        }
        if taken.len() >= MAX_TAKEN {
            return Err(Refusal::full(
                "too many joins within two minutes; try again in a moment",
            ));
        }
        let place = Place::default();
        taken.insert(claims.jti.clone(), (claims.exp, place.clone()));
        Ok(place)
    }
}

/// Ids of meetings and sites, and `desk:ACCOUNT`: what may stand in a log or a label.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.chars().all(|c| !c.is_control())
}

pub(crate) fn token_used() -> Refusal {
    Refusal::new(
        409,
        "token_used",
        "the join token was used already; ask for a new one",
    )
}
