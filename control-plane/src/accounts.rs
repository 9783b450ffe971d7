//! Who signs in, and for how long: passwords, the brake on guessing, and sessions.
//!
//! Invariants: an unknown account and a wrong password take the same time and get the same answer; an attempt is
//! counted before its password is checked, so that parallel guesses win nothing; only hashes of session tokens
//! are kept. What an account may do is decided by the domain, not here.

use crate::bus::Bus;
use crate::clock::Clock;
use crate::convert::{role_from_wire, role_to_wire};
use crate::counters::turned_away;
use crate::devices::Devices;
use crate::store::{AccountRow, GrantRow, Store, StoreError, UnitEffect};
use crate::throttle::{Throttle, Verdict};
use crate::turnstile::{Rank, Turnstile};
use crate::units::{By, Units};
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use muster_domain::credentials::MAX_PASSWORD_BYTES;
use muster_domain::ids::MAX_ACCOUNT;
use muster_domain::{AccountName, Grant, Order, Record, Role, UnitId, check_password};
use muster_identity::{random_secret, sha256_text};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Who does what is done on the machine itself, without signing in. No account can have this name.
const HOST: &str = "host:control-plane";
/// A session ends this long after its last use.
const SESSION_MS: i64 = 12 * 3600 * 1000;
/// The end is moved at most once in this time, so that reading calls seldom write.
const EXTEND_AFTER_MS: i64 = 10 * 60 * 1000;
/// Password checks at once: each takes 19 MiB and tens of milliseconds of a core.
const PARALLEL_CHECKS: usize = 2;
const CHECK_QUEUE: Duration = Duration::from_secs(5);
/// Made once a process: it takes as long as a check.
static DECOY: OnceCell<String> = OnceCell::const_new();
/// Checks that wait: those of known devices and addresses first, then who has tried least.
const MOST_WAITING: usize = 64;
/// Strangers at an account that is being guessed at are checked this often, and wait this long.
const PACE: Duration = Duration::from_secs(1);
const LONGEST_TURN: Duration = Duration::from_secs(20);
/// For whom there was no room.
const TRY_AGAIN_S: u64 = 2;
/// Somebody signed in changes a password, or the control plane starts.
const OURS: Rank = Rank {
    stranger: false,
    tries: 0,
};

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
    /// What the device shows when it signs in again.
    pub device: String,
}

/// Local accounts and their sessions.
pub struct Accounts {
    store: Store,
    clock: Clock,
    throttle: Mutex<Throttle>,
    checks: Turnstile,
    devices: Devices,
    /// Checked in place of the hash of an account that does not exist.
    decoy: String,
}

impl Accounts {
    pub async fn new(store: Store, devices: Devices, clock: Clock) -> anyhow::Result<Self> {
        let decoy = DECOY.get_or_try_init(|| hash_password(random_secret())).await?;
        let checks = Turnstile::new(PARALLEL_CHECKS, MOST_WAITING);
        Ok(Self {
            store,
            clock,
            throttle: Mutex::default(),
            checks,
            devices,
            decoy: decoy.clone(),
        })
    }

    /// Opens a session. `device` is what this device was given when it signed in before; it may be empty.
    pub async fn sign_in(
        &self,
        name: &str,
        password: String,
        from: IpAddr,
        device: &str,
    ) -> Result<Session, SignInError> {
        if name.len() > MAX_ACCOUNT || password.len() > MAX_PASSWORD_BYTES {
            turned_away("sign_in", "wrong");
            return Err(SignInError::Refused);
        }
        let device = self.devices.check(name, device, self.clock.now_ms());
        let rank = self.turn(name, from, device.as_deref()).await?;
        let known = self.store.password_hash(name).await?;
        let exists = known.is_some();
        let hash = known.unwrap_or_else(|| self.decoy.clone());
        let checked = self.check(password, hash, rank).await;
        if matches!(checked, Err(SignInError::Busy)) {
            turned_away("sign_in", "busy");
            self.brake(|throttle, _| throttle.not_checked(name, from, device.as_deref()));
        }
        let right = checked?;
        let account = if exists && right {
            self.store.account(name).await?
        } else {
            None
        };
        let Some(account) = account else {
            turned_away("sign_in", "wrong");
            return Err(SignInError::Refused);
        };
        self.brake(|throttle, now| throttle.succeeded(name, from, device.as_deref(), now));
        let (token, now) = (random_secret(), self.clock.now_ms());
        let expires_ms = now + SESSION_MS;
        self.store
            .add_session(&sha256_text(token.as_bytes()), name, now, expires_ms)
            .await?;
        Ok(Session {
            token,
            account,
            expires_ms,
            device: self.devices.issue(name, device.as_deref(), now),
        })
    }

    /// Waits until the attempt may be checked.
    async fn turn(&self, name: &str, from: IpAddr, device: Option<&str>) -> Result<Rank, SignInError> {
        match self.brake(|throttle, now| throttle.attempt(name, from, device, now)) {
            Verdict::Now(rank) => Ok(rank),
            Verdict::InTurn(way, rank) => {
                let Ok(turn) = way.enter(rank, LONGEST_TURN).await else {
                    turned_away("sign_in", "crowded");
                    self.brake(|throttle, _| throttle.not_checked(name, from, device));
                    return Err(SignInError::TooMany(TRY_AGAIN_S));
                };
                turn.keep_for(PACE);
                Ok(rank)
            }
            Verdict::Refused(seconds) => {
                turned_away("sign_in", "too_many");
                Err(SignInError::TooMany(seconds))
            }
        }
    }

    /// The account of a session token and when the session ends; `None` if there is no such session any more.
    pub async fn session(&self, token: &str) -> Result<Option<(AccountRow, i64)>, StoreError> {
        let (hash, now) = (sha256_text(token.as_bytes()), self.clock.now_ms());
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

    /// Adds the bootstrap account, or gives it this password and role; its sessions end. One that has both already is left
    /// alone, so that a restart takes nothing away and writes nothing.
    pub async fn ensure(&self, units: &Units, account: &NewAccount, password: String) -> anyhow::Result<()> {
        if let Some(hash) = self.store.password_hash(&account.name).await?
            && let Some(known) = self.store.account(&account.name).await?
            && known.grants.iter().any(|grant| account.is(grant))
            && self.check(password.clone(), hash, OURS).await?
        {
            return Ok(());
        }
        put_account(&self.store, units, account, password, "bootstrap_account").await
    }

    /// The argon2 string of a new password, made when there is a processor for it.
    pub async fn hash(&self, password: String) -> Result<String, SignInError> {
        let turn = self.checks.enter(OURS, CHECK_QUEUE).await;
        let _turn = turn.map_err(|_| SignInError::Busy)?;
        hash_password(password).await.map_err(|_| SignInError::Busy)
    }

    async fn check(&self, password: String, hash: String, rank: Rank) -> Result<bool, SignInError> {
        let turn = self.checks.enter(rank, CHECK_QUEUE).await;
        let turn = turn.map_err(|_| SignInError::Busy)?;
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
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
            self.clock.now_ms(),
        )
    }
}

/// An account with one role without end, as it is made on the machine itself.
#[derive(Debug, Clone)]
pub struct NewAccount {
    pub name: AccountName,
    pub display_name: String,
    pub role: Role,
    pub unit: UnitId,
}

impl NewAccount {
    /// Refused is what is no name, no unit or no role that is known here.
    pub fn new(name: &str, display_name: &str, role: i32, unit: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: AccountName::new(name)?,
            display_name: display_name.to_owned(),
            role: role_from_wire(role).ok_or_else(|| anyhow::anyhow!("there is no role {role}"))?,
            unit: UnitId::new(unit)?,
        })
    }

    /// Whether this is the role that the account is to have.
    fn is(&self, grant: &GrantRow) -> bool {
        grant.role == i32::from(role_to_wire(self.role))
            && grant.unit == self.unit.as_str()
            && grant.expires_ms == 0
    }
}

/// Adds an account where no control plane runs (the `account add` command), as [`Accounts::ensure`] does, always.
pub async fn add_account(store: &Store, account: &NewAccount, password: String) -> anyhow::Result<()> {
    let (units, _) = Units::new(store.clone(), Bus::default(), Clock::Wall);
    put_account(store, &units, account, password, "account_add").await
}

/// Account and role are in the log of the role's unit; roles that it had besides are taken away, each in its unit's log.
async fn put_account(
    store: &Store,
    units: &Units,
    account: &NewAccount,
    password: String,
    cause: &'static str,
) -> anyhow::Result<()> {
    let NewAccount { name, role, unit, .. } = account.clone();
    check_password(&name, &password)?;
    let put = UnitEffect::PutAccount {
        name: name.to_string(),
        display_name: account.display_name.clone(),
        password_hash: Some(hash_password(password).await?),
        now_ms: units.clock().now_ms(),
    };
    let made = Record::AccountPut {
        account: name.clone(),
        new_password: true,
    };
    let grant = Grant {
        role,
        unit: unit.clone(),
        expires: None,
    };
    let given = Order::Grant {
        account: name.clone(),
        grant,
    };
    let by = By { actor: HOST, cause };
    units
        .act_all(&unit, by, vec![Order::Record(made), given], vec![put])
        .await?;
    let stored = store
        .account(&name)
        .await?
        .map(|row| row.grants)
        .unwrap_or_default();
    for other in stored.iter().filter(|grant| !account.is(grant)) {
        let role = role_from_wire(other.role)
            .ok_or_else(|| anyhow::anyhow!("account {name} has a role {} of a newer version", other.role))?;
        let account = name.clone();
        let taken = Order::Revoke { account, role };
        units
            .act(&UnitId::new(&other.unit)?, by, taken, Vec::new())
            .await?;
    }
    Ok(())
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
