//! Who may open a leg: join tokens are checked alone, and each is taken once.
//!
//! A token that comes again with the same body gets the same answer (a lost reply costs nothing), with another body it is
//! refused. What was taken is remembered until the token would have expired anyway, and in bounded number; the answer
//! itself is kept with its leg (`Directory::keep_answer`), and is gone with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use muster_identity::{IdentityError, JoinClaims, TokenError, TokenVerifier};

use crate::refusal::Refusal;
use crate::watch::now_ms;

/// Tokens taken and not expired: 500 joins a second for as long as a token holds.
const MAX_TAKEN: usize = 65_536;

/// What a token was good for.
#[derive(Debug)]
pub(crate) struct Answered {
    /// SHA-256 of the body that came with it.
    pub body: String,
    pub leg: String,
    pub secret: String,
    pub etag: String,
    pub answer: String,
}

/// One token's place: empty until a join with it has succeeded. Held locked while one is under way.
pub(crate) type Place = Arc<tokio::sync::Mutex<Option<Weak<Answered>>>>;

/// A token that was shown here.
struct Taken {
    /// When it expires, in seconds.
    exp: i64,
    /// None: it was used, and its answer is gone.
    place: Option<Place>,
}

struct Key {
    pem: String,
    verifier: TokenVerifier,
}

/// SHA-256 of a token's id, in place of a small string each: tens of thousands of those, two minutes old, would keep the
/// allocator from giving anything back after a rush.
type TokenId = [u8; 32];

fn token_id(jti: &str) -> TokenId {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, jti.as_bytes());
    let mut id = TokenId::default();
    id.copy_from_slice(digest.as_ref());
    id
}

pub(crate) struct Admission {
    /// The relay's own id: a token for another one is not taken.
    relay: String,
    key: RwLock<Key>,
    taken: Mutex<HashMap<TokenId, Taken>>,
}

impl Admission {
    pub fn new(relay: &str, token_key_pem: &str) -> Result<Self, IdentityError> {
        let key = Key {
            pem: token_key_pem.to_owned(),
            verifier: TokenVerifier::from_pem(token_key_pem)?,
        };
        Ok(Self {
            relay: relay.to_owned(),
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
        if claims.relay.as_ref().is_some_and(|relay| *relay != self.relay) {
            return Err(Refusal::new(
                401,
                "wrong_relay",
                "the join token is for another relay; ask for a new one",
            ));
        }
        let place = self.place(&claims, now_s)?;
        Ok((claims, place))
    }

    fn place(&self, claims: &JoinClaims, now_s: i64) -> Result<Place, Refusal> {
        let id = token_id(&claims.jti);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = taken.get(&id) {
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
            place: Some(place.clone()),
        };
        taken.insert(id, known);
        Ok(place)
    }

    /// Forgets expired tokens, and the places of those whose answer is gone.
    pub fn forget(&self, now_s: i64) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, known| known.exp > now_s);
        for known in taken.values_mut() {
            let forget = known.place.as_ref().is_some_and(|place| {
                // Locked while a join is under way; one that failed leaves it empty, and the token good.
                let answered = place.try_lock();
                answered.is_ok_and(|a| a.as_ref().is_some_and(|a| a.strong_count() == 0))
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
pub(crate) fn is_name(text: &str) -> bool {
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

    fn answered() -> Arc<Answered> {
        Arc::new(Answered {
            body: "hash".into(),
            leg: "leg".into(),
            secret: "secret".into(),
            etag: "etag".into(),
            answer: "v=0".into(),
        })
    }

    #[test]
    fn a_token_is_remembered_until_it_expires_and_its_answer_while_somebody_keeps_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let authority = Authority::load_or_create(dir.path()).expect("authority");
        let admission = Admission::new("r1", &authority.token_key_pem()).expect("a key");
        let signer = authority.token_signer().expect("signer");
        let now_s = now_ms() / 1000;
        let token = |site: &str| {
            let claims = JoinClaims::new("m", site, false, true, now_s);
            signer.sign(&claims).expect("signed")
        };
        let (stays, leaves, failed) = (token("stays"), token("leaves"), token("failed"));
        let (kept, dropped) = (answered(), answered());
        for (token, answer) in [(&stays, Some(&kept)), (&leaves, Some(&dropped)), (&failed, None)] {
            let (_, place) = admission.admit(token).expect("good");
            *place.try_lock().expect("free") = answer.map(Arc::downgrade);
        }
        let code = |token: &str| {
            admission
                .admit(token)
                .map(|_| "")
                .unwrap_or_else(|refusal| refusal.code)
        };
        drop(dropped);
        admission.forget(now_s + 1);
        assert_eq!(
            [code(&stays), code(&leaves), code(&failed)],
            ["", "token_used", ""]
        );
        let (_, place) = admission.admit(&stays).expect("good");
        let found = place.try_lock().expect("free").as_ref().and_then(Weak::upgrade);
        assert_eq!(found.map(|found| found.answer.clone()), Some("v=0".to_owned()));
        drop(kept);
        admission.forget(now_s + 2);
        assert_eq!([code(&stays), code(&failed)], ["token_used", ""]);
        assert_eq!(admission.taken(), 3);
        admission.forget(now_s + 600);
        assert_eq!(admission.taken(), 0);
    }
}
