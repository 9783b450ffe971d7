//! Who signs in, and for how long: passwords, the brake on guessing, and sessions.
//!
//! Invariants: an unknown account and a wrong password take the same time and get the same answer; an attempt is
//! counted before its password is checked, so that parallel guesses win nothing; only hashes of session tokens
//! are kept. What an account may do is decided by the domain, not here.

use crate::clock::now_ms;
use crate::counters::turned_away;
use crate::store::{AccountRow, Store, StoreError};
use crate::throttle::{Throttle, Verdict};
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use muster_domain::credentials::MAX_PASSWORD_BYTES;
use muster_domain::ids::MAX_ACCOUNT;
use muster_domain::{AccountName, check_password};
use muster_identity::{random_secret, sha256_text};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A session ends this long after its last use.
const SESSION_MS: i64 = 12 * 3600 * 1000;
/// The end is moved at most once in this time, so that reading calls seldom write.
const EXTEND_AFTER_MS: i64 = 10 * 60 * 1000;
/// Password checks at once: each takes 19 MiB and tens of milliseconds of a core.
const PARALLEL_CHECKS: usize = 2;
const CHECK_QUEUE: Duration = Duration::from_secs(5);

/// Why somebody is not signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    #[error("unknown account or wrong password")]
    Refused,
    #[error("too many failed attempts; try again in {0} s")]
    TooMany(u64),
    #[error("too many people are signing in at this moment; try again")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A session just opened. The token is the only copy.
pub struct Session {
    pub token: String,
    pub account: AccountRow,
    pub expires_ms: i64,
}

/// Local accounts and their sessions.
pub struct Accounts {
    store: Store,
    throttle: Mutex<Throttle>,
    checks: Arc<Semaphore>,
    /// Checked in place of the hash of an account that does not exist.
    decoy: String,
}

impl Accounts {
    pub async fn new(store: Store) -> anyhow::Result<Self> {
        let decoy = hash_password(random_secret()).await?;
        let checks = Arc::new(Semaphore::new(PARALLEL_CHECKS));
        Ok(Self {
            store,
            throttle: Mutex::default(),
            checks,
            decoy,
        })
    }

    pub async fn sign_in(&self, name: &str, password: String, from: IpAddr) -> Result<Session, SignInError> {
        if name.len() > MAX_ACCOUNT || password.len() > MAX_PASSWORD_BYTES {
            turned_away("sign_in", "wrong");
            return Err(SignInError::Refused);
        }
        match self.brake(|throttle, now| throttle.attempt(name, from, now)) {
            Verdict::Now => {}
            Verdict::After(ms) => tokio::time::sleep(Duration::from_millis(ms.unsigned_abs())).await,
            Verdict::Refused(seconds) => {
                turned_away("sign_in", "too_many");
                return Err(SignInError::TooMany(seconds));
            }
        }
        let known = self.store.password_hash(name).await?;
        let exists = known.is_some();
        let right = self
            .check(password, known.unwrap_or_else(|| self.decoy.clone()))
            .await?;
        let account = if exists && right {
            self.store.account(name).await?
        } else {
            None
        };
        let Some(account) = account else {
            turned_away("sign_in", "wrong");
            return Err(SignInError::Refused);
        };
        self.brake(|throttle, now| throttle.succeeded(name, from, now));
        let (token, now) = (random_secret(), now_ms());
        let expires_ms = now + SESSION_MS;
        self.store
            .add_session(&sha256_text(token.as_bytes()), name, now, expires_ms)
            .await?;
        Ok(Session {
            token,
            account,
            expires_ms,
        })
    }

    /// The account of a session token and when the session ends; `None` if there is no such session any more.
    pub async fn session(&self, token: &str) -> Result<Option<(AccountRow, i64)>, StoreError> {
        let (hash, now) = (sha256_text(token.as_bytes()), now_ms());
        let Some((name, mut expires_ms)) = self.store.session(&hash).await? else {
            turned_away("session", "unknown");
            return Ok(None);
        };
        if expires_ms <= now {
            turned_away("session", "expired");
            return Ok(None);
        }
        if now + SESSION_MS - expires_ms > EXTEND_AFTER_MS {
            match self.store.extend_session(&hash, now + SESSION_MS).await {
                Ok(()) => expires_ms = now + SESSION_MS,
                // A full disk must not keep anybody from looking: it holds as long as it did.
                Err(error) => tracing::warn!(%error, "cannot extend a session"),
            }
        }
        Ok(self
            .store
            .account(&name)
            .await?
            .map(|account| (account, expires_ms)))
    }

    pub async fn sign_out(&self, token: &str) -> Result<(), StoreError> {
        self.store.remove_session(&sha256_text(token.as_bytes())).await
    }

    /// Adds an account or replaces its password, name and grants.
    pub async fn put(&self, account: &AccountRow, password: String) -> anyhow::Result<()> {
        put_account(&self.store, account, password).await
    }

    /// Like [`Accounts::put`], but leaves an account that has this password and at least these grants alone, so that a
    /// restart with the same bootstrap account ends nobody's session and takes nothing away.
    pub async fn ensure(&self, account: &AccountRow, password: String) -> anyhow::Result<()> {
        if let Some(hash) = self.store.password_hash(&account.name).await?
            && let Some(known) = self.store.account(&account.name).await?
            && account.grants.iter().all(|grant| known.grants.contains(grant))
            && self.check(password.clone(), hash).await?
        {
            return Ok(());
        }
        self.put(account, password).await
    }

    /// The argon2 string of a new password, made when there is a processor for it.
    pub async fn hash(&self, password: String) -> Result<String, SignInError> {
        let slot = tokio::time::timeout(CHECK_QUEUE, self.checks.clone().acquire_owned()).await;
        let Ok(Ok(_slot)) = slot else {
            return Err(SignInError::Busy);
        };
        hash_password(password).await.map_err(|_| SignInError::Busy)
    }

    async fn check(&self, password: String, hash: String) -> Result<bool, SignInError> {
        let slot = tokio::time::timeout(CHECK_QUEUE, self.checks.clone().acquire_owned()).await;
        let Ok(Ok(slot)) = slot else {
            return Err(SignInError::Busy);
        };
        let checked = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            PasswordHash::new(&hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            })
        });
        checked.await.map_err(|_| SignInError::Busy)
    }

    fn brake<T>(&self, act: impl FnOnce(&mut Throttle, i64) -> T) -> T {
        act(
            &mut self.throttle.lock().unwrap_or_else(PoisonError::into_inner),
            now_ms(),
        )
    }
}

/// Stores an account without a running control plane (the `account add` command).
pub async fn put_account(store: &Store, account: &AccountRow, password: String) -> anyhow::Result<()> {
    let name = AccountName::new(&account.name)?;
    check_password(&name, &password)?;
    let hash = hash_password(password).await?;
    Ok(store.put_account(account, &hash, now_ms()).await?)
}

async fn hash_password(password: String) -> anyhow::Result<String> {
    let hashed = tokio::task::spawn_blocking(move || {
        Argon2::default()
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
    });
    hashed
        .await?
        .map_err(|error| anyhow::anyhow!("cannot hash a password: {error}"))
}
