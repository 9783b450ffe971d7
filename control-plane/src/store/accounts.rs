//! Accounts, their grants and sessions. Passwords come in as argon2id strings, session tokens as hashes.

use super::{Result, Store};
use sqlx::Row;

/// One account with its grants as (role number of the wire schema, unit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    pub name: String,
    pub display_name: String,
    pub grants: Vec<(i32, String)>,
}

/// Rows kept in the audit table; older ones go.
const AUDIT_ROWS: i64 = 10_000;

impl Store {
    /// Adds an account or replaces its name, password and grants.
    pub async fn put_account(&self, account: &AccountRow, password_hash: &str, now_ms: i64) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO accounts (name, display_name, password_hash, created_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE SET display_name = excluded.display_name, password_hash = excluded.password_hash",
        )
        .bind(&account.name)
        .bind(&account.display_name)
        .bind(password_hash)
        .bind(now_ms)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM grants WHERE account = $1")
            .bind(&account.name)
            .execute(&mut *tx)
            .await?;
        for (role, unit) in &account.grants {
            sqlx::query("INSERT INTO grants (account, role, unit) VALUES ($1, $2, $3)")
                .bind(&account.name)
                .bind(i64::from(*role))
                .bind(unit)
                .execute(&mut *tx)
                .await?;
        }
        // A new password ends the sessions that the old one opened.
        sqlx::query("DELETE FROM sessions WHERE account = $1")
            .bind(&account.name)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The argon2 string of an account's password, or `None` for an unknown account.
    pub async fn password_hash(&self, account: &str) -> Result<Option<String>> {
        Ok(
            sqlx::query_scalar("SELECT password_hash FROM accounts WHERE name = $1")
                .bind(account)
                .fetch_optional(&self.reader)
                .await?,
        )
    }

    pub async fn account(&self, name: &str) -> Result<Option<AccountRow>> {
        let Some(row) = sqlx::query("SELECT name, display_name FROM accounts WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.reader)
            .await?
        else {
            return Ok(None);
        };
        let grants = sqlx::query("SELECT role, unit FROM grants WHERE account = $1 ORDER BY role, unit")
            .bind(name)
            .fetch_all(&self.reader)
            .await?
            .iter()
            .map(|row| {
                Ok((
                    i32::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default(),
                    row.try_get(1)?,
                ))
            })
            .collect::<Result<_>>()?;
        Ok(Some(AccountRow {
            name: row.try_get(0)?,
            display_name: row.try_get(1)?,
            grants,
        }))
    }

    pub async fn add_session(
        &self,
        token_hash: &str,
        account: &str,
        now_ms: i64,
        expires_ms: i64,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE expires_ms <= $1")
            .bind(now_ms)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO sessions (token_hash, account, created_ms, expires_ms) VALUES ($1, $2, $3, $4)",
        )
        .bind(token_hash)
        .bind(account)
        .bind(now_ms)
        .bind(expires_ms)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Account and end of a session, if it exists; the caller compares the end with its clock.
    pub async fn session(&self, token_hash: &str) -> Result<Option<(String, i64)>> {
        Ok(
            sqlx::query_as("SELECT account, expires_ms FROM sessions WHERE token_hash = $1")
                .bind(token_hash)
                .fetch_optional(&self.reader)
                .await?,
        )
    }

    pub async fn extend_session(&self, token_hash: &str, expires_ms: i64) -> Result<()> {
        sqlx::query("UPDATE sessions SET expires_ms = $2 WHERE token_hash = $1")
            .bind(token_hash)
            .bind(expires_ms)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    pub async fn remove_session(&self, token_hash: &str) -> Result<()> {
        sqlx::query("DELETE FROM sessions WHERE token_hash = $1")
            .bind(token_hash)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Records that somebody who is signed in was refused; keeps the newest 10,000 rows.
    pub async fn audit(&self, id: &str, at_ms: i64, actor: &str, action: &str, reason: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO audit (id, at_ms, actor, action, reason) VALUES ($1, $2, $3, $4, $5)")
            .bind(id)
            .bind(at_ms)
            .bind(actor)
            .bind(action)
            .bind(reason)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY at_ms DESC, id LIMIT $2 OFFSET $1)",
        )
        .bind(AUDIT_ROWS)
        .bind(AUDIT_ROWS)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// (actor, action, reason) of recorded refusals, newest first.
    pub async fn audit_rows(&self, limit: i64) -> Result<Vec<(String, String, String)>> {
        Ok(
            sqlx::query_as("SELECT actor, action, reason FROM audit ORDER BY at_ms DESC, id LIMIT $1")
                .bind(limit)
                .fetch_all(&self.reader)
                .await?,
        )
    }
}
