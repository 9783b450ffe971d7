//! Who may open a leg: join tokens are checked alone, and each is taken once.
//!
//! A token that comes again with the same body gets the same answer (a lost reply costs nothing), with another body it is
//! refused. What was taken is remembered until the token would have expired anyway, and in bounded number; the answer
//! itself only while its leg is there and one who missed it may still ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use muster_identity::{IdentityError, JoinClaims, TokenError, TokenVerifier};

use crate::refusal::Refusal;
use crate::watch::now_ms;

/// Tokens taken and not expired: 500 joins a second for as long as a token holds.
const MAX_TAKEN: usize = 65_536;
/// How long an answer is kept for one who asks again, in seconds: longer than a leg waits for its first check.
const KEEP_ANSWER_S: i64 = 15;

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

/// A token that was shown here.
struct Taken {
    /// When it expires, and when it was shown first; seconds.
    exp: i64,
    since: i64,
    /// None: it was used, and its answer is forgotten.
    place: Option<Place>,
}

struct Key {
    pem: String,
    verifier: TokenVerifier,
}

pub(crate) struct Admission {
    key: RwLock<Key>,
    taken: Mutex<HashMap<String, Taken>>,
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
        if let Some(known) = taken.get(&claims.jti) {
            return known.place.clone().ok_or_else(token_used);
        }
        if taken.len() >= MAX_TAKEN {
            taken.retain(|_, known| known.exp > now_s);
        }
        if taken.len() >= MAX_TAKEN {
            return Err(Refusal::full(
                "too many joins within two minutes; try again in a moment",
            ));
        }
        let place = Place::default();
        let known = Taken {
            exp: claims.exp,
            since: now_s,
            place: Some(place.clone()),
        };
        taken.insert(claims.jti.clone(), known);
        Ok(place)
    }

    /// Forgets expired tokens, and the answers that are of no use any more: old ones, and those of legs that are gone.
    pub fn forget(&self, now_s: i64, has_leg: impl Fn(&str) -> bool) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, known| known.exp > now_s);
        for known in taken.values_mut() {
            let old = now_s - known.since > KEEP_ANSWER_S;
            let forget = known.place.as_ref().is_some_and(|place| {
                // Locked while a join is under way; one that failed leaves it empty, and the token good.
                let answered = place.try_lock();
                answered.is_ok_and(|a| a.as_ref().is_some_and(|a| old || !has_leg(&a.leg)))
            });
            if forget {
                known.place = None;
            }
        }
    }

    /// Tokens that are remembered.
    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).len()
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

#[cfg(test)]
mod tests {
    use muster_identity::Authority;

    use super::*;

    fn answered(leg: &str) -> Answered {
        Answered {
            body: "hash".into(),
            leg: leg.into(),
            secret: "secret".into(),
            etag: "etag".into(),
            answer: "v=0".into(),
        }
    }

    #[test]
    fn an_answer_is_kept_while_its_leg_is_there_and_a_used_token_until_it_expires() {
        let dir = tempfile::tempdir().expect("temp dir");
        let authority = Authority::load_or_create(dir.path()).expect("authority");
        let admission = Admission::new(&authority.token_key_pem()).expect("a key");
        let signer = authority.token_signer().expect("signer");
        let now_s = now_ms() / 1000;
        let token = |site: &str| {
            let claims = JoinClaims::new("m", site, false, true, now_s);
            signer.sign(&claims).expect("signed")
        };
        let (stays, leaves, failed) = (token("stays"), token("leaves"), token("failed"));
        for (token, leg) in [(&stays, Some("leg-1")), (&leaves, Some("leg-2")), (&failed, None)] {
            let (_, place) = admission.admit(token).expect("good");
            *place.try_lock().expect("free") = leg.map(answered);
        }
        let code = |token: &str| {
            admission
                .admit(token)
                .map(|_| "")
                .unwrap_or_else(|refusal| refusal.code)
        };
        let has_leg = |leg: &str| leg == "leg-1";
        admission.forget(now_s + 1, has_leg);
        assert_eq!(
            [code(&stays), code(&leaves), code(&failed)],
            ["", "token_used", ""]
        );
        admission.forget(now_s + KEEP_ANSWER_S + 1, has_leg);
        assert_eq!([code(&stays), code(&failed)], ["token_used", ""]);
        assert_eq!(admission.taken(), 3);
        admission.forget(now_s + 600, has_leg);
        assert_eq!(admission.taken(), 0);
    }
}
