//! What outlives the process: the tree, accounts, sessions, secrets (only their hashes), plans and the event log.
//!
//! One trait ([`Backend`]), three back ends: SQLite (the default, one process), PostgreSQL (several replicas) and memory
//! (tests in virtual time). The SQL is written once, in `sql/`, and compiled for both drivers. Invariants: a method
//! that returns `Ok` has its rows committed; an append is whole or not at all, and refused with `Conflict` where
//! another was first. After `Unavailable` an append may or may not be there: read the stream again before going on.
//! Nothing is decided here: that a command is permitted is settled before.

mod accounts;
mod directory;
mod guarded;
mod health;
mod log;
mod memory;
mod plans;
mod postgres;
mod reports;
mod secrets;
mod sqlite;

pub use accounts::{AccountRow, AccountStore, AuditRow, GrantRow, SessionRow, session_id};
pub use directory::{DirectoryStore, SeenRow, SiteRow, UnitRow};
pub use health::Health;
pub use log::{
    Append, ChainHead, Claim, DamagedMeeting, EndedRow, KeptMeeting, LiveHead, LogStore, MeetingRow,
    NewEvent, StoredEvent, chain_hash,
};
pub use memory::{Faults, Memory};
pub use plans::{DrillRow, PlanStore, PresetRow, ScheduleRow, UnitAppend, UnitEffect};
pub use reports::{ReportPlace, ReportRow, ReportStore};
pub use secrets::{EnrolRow, SecretStore};

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, the file or the server is away, or it is busy for too long: the caller may try again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A row with the same key is there already, or another change was first.
    #[error("conflict: {0}")]
    Conflict(String),
    /// What was read does not make sense: never overwrite it.
    #[error("the store holds something unexpected: {0}")]
    Corrupt(String),
}

/// PostgreSQL found two transactions in each other's way; nothing was stored.
const SERIALISATION: [&str; 2] = ["40001", "40P01"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database)
                if database.is_unique_violation()
                    || database
                        .code()
                        .is_some_and(|code| SERIALISATION.contains(&code.as_ref())) =>
            {
                Self::Conflict(database.message().into())
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// All that a back end does; the parts are in the modules of the same names.
#[async_trait::async_trait]
pub trait Backend: AccountStore + DirectoryStore + LogStore + PlanStore + ReportStore + SecretStore {
    /// Whether it can be read at this moment.
    async fn ping(&self) -> Result<()>;
    /// Waits for running statements and closes what is open.
    async fn close(&self);
    /// `sqlite`, `postgres` or `memory`.
    fn kind(&self) -> &'static str;
}

/// A store behind whichever back end. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    health: Health,
}

impl Store {
    /// Opens (or creates) the SQLite database in `data_dir` and brings its tables up to date.
    pub async fn open(data_dir: &Path) -> Result<Self> {
        Ok(Self::guarded(Arc::new(sqlite::open(data_dir).await?), false))
    }

    /// Connects to PostgreSQL (`postgres://…`) and brings its tables up to date. The address is never told in errors; a
    /// server that says nothing is `Unavailable` after 3 s, for whole tables after 15 s.
    pub async fn connect(url: &str) -> Result<Self> {
        Ok(Self::guarded(Arc::new(postgres::connect(url).await?), true))
    }

    /// A store in memory that others may share.
    pub fn memory(memory: Arc<Memory>) -> Self {
        Self::guarded(memory, false)
    }

    fn guarded(inner: Arc<dyn Backend>, is_server: bool) -> Self {
        let health = Health::default();
        let guarded = guarded::Guarded {
            inner,
            health: health.clone(),
            is_server,
        };
        Self {
            backend: Arc::new(guarded),
            health,
        }
    }

    /// What its calls say of it.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl Deref for Store {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.backend
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.kind()).finish()
    }
}
