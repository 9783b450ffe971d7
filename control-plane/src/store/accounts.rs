//! Accounts, their grants and sessions, and the audit table. Passwords come in as argon2id strings, session tokens as
//! hashes; what a grant permits, and whether it still counts, is decided elsewhere. Accounts and grants change with a line
//! in a unit's log: [`super::UnitEffect`].

use super::Result;
use async_trait::async_trait;

/// Rows kept in the audit table; older ones go.
pub(super) const AUDIT_ROWS: i64 = 10_000;

/// One account with its grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    pub name: String,
    pub display_name: String,
    /// By role and unit.
    pub grants: Vec<GrantRow>,
}

/// A role on a unit; `role` is the number of the wire schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantRow {
    pub role: i32,
    pub unit: String,
    /// 0: without end.
    pub expires_ms: i64,
    /// Empty of one made at start.
    pub granted_by: String,
    pub granted_ms: i64,
}

impl GrantRow {
    /// A grant without end that nobody in particular gave.
    pub fn lasting(role: i32, unit: impl Into<String>) -> Self {
        Self {
            role,
            unit: unit.into(),
            ..Self::default()
        }
    }
}

/// A session that has not been removed; it may have run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    pub id: String,
    pub account: String,
    pub created_ms: i64,
    pub expires_ms: i64,
}

/// A recorded refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub at_ms: i64,
    pub actor: String,
    pub action: String,
    pub reason: String,
}

/// What tells a session from others: the beginning of its token's hash, which opens nothing.
pub fn session_id(token_hash: &str) -> &str {
    token_hash.get(..16).unwrap_or(token_hash)
}

#[async_trait]
pub trait AccountStore: Send + Sync {
    /// The argon2 string of an account's password, or `None` for an unknown account.
    async fn password_hash(&self, account: &str) -> Result<Option<String>>;
    async fn account(&self, name: &str) -> Result<Option<AccountRow>>;
    /// All accounts by name.
    async fn accounts(&self) -> Result<Vec<AccountRow>>;
    /// Opens a session, and removes those that have run out.
    async fn add_session(&self, token_hash: &str, account: &str, now_ms: i64, expires_ms: i64) -> Result<()>;
    /// Account and end of a session, if it exists; the caller compares the end with its clock.
    async fn session(&self, token_hash: &str) -> Result<Option<(String, i64)>>;
    /// Sessions of an account, oldest first.
    async fn sessions(&self, account: &str) -> Result<Vec<SessionRow>>;
    async fn extend_session(&self, token_hash: &str, expires_ms: i64) -> Result<()>;
    async fn remove_session(&self, token_hash: &str) -> Result<()>;
    /// Records that somebody who is signed in was refused; keeps the newest 10,000 rows.
    async fn audit(&self, id: &str, row: &AuditRow) -> Result<()>;
    /// Recorded refusals, newest first.
    async fn audit_rows(&self, limit: i64) -> Result<Vec<AuditRow>>;
}
