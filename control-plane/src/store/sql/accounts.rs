//! Accounts, grants, sessions and the audit table, in SQL.

use super::{Row, Sql, small};
use crate::store::accounts::AUDIT_ROWS;
use crate::store::{AccountRow, AccountStore, AuditRow, GrantRow, Result, SessionRow, session_id};
use async_trait::async_trait;
use sqlx::Row as _;

fn grant(row: &Row) -> Result<GrantRow> {
    Ok(GrantRow {
        role: small(row.try_get(0)?),
        unit: row.try_get(1)?,
        expires_ms: row.try_get(2)?,
        granted_by: row.try_get(3)?,
        granted_ms: row.try_get(4)?,
    })
}

#[async_trait]
impl AccountStore for Sql {
    async fn password_hash(&self, account: &str) -> Result<Option<String>> {
        Ok(
            sqlx::query_scalar("SELECT password_hash FROM accounts WHERE name = $1")
                .bind(account)
                .fetch_optional(&self.reader)
                .await?,
        )
    }

    async fn account(&self, name: &str) -> Result<Option<AccountRow>> {
        let Some(row) = sqlx::query("SELECT name, display_name FROM accounts WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.reader)
            .await?
        else {
            return Ok(None);
        };
        let grants = sqlx::query(
            "SELECT role, unit, expires_ms, granted_by, granted_ms FROM grants WHERE account = $1 ORDER BY role, unit",
        )
        .bind(name)
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(grant)
        .collect::<Result<_>>()?;
        Ok(Some(AccountRow {
            name: row.try_get(0)?,
            display_name: row.try_get(1)?,
            grants,
        }))
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>> {
        let mut accounts = std::collections::BTreeMap::new();
        for row in sqlx::query("SELECT name, display_name FROM accounts")
            .fetch_all(&self.reader)
            .await?
        {
            let account = AccountRow {
                name: row.try_get(0)?,
                display_name: row.try_get(1)?,
                grants: Vec::new(),
            };
            accounts.insert(account.name.clone(), account);
        }
        let grants = sqlx::query(
            "SELECT role, unit, expires_ms, granted_by, granted_ms, account FROM grants ORDER BY role, unit",
        )
        .fetch_all(&self.reader)
        .await?;
        for row in &grants {
            let name: String = row.try_get(5)?;
            if let Some(account) = accounts.get_mut(&name) {
                account.grants.push(grant(row)?);
            }
        }
        Ok(accounts.into_values().collect())
    }

    async fn add_session(&self, token_hash: &str, account: &str, now_ms: i64, expires_ms: i64) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE expires_ms <= $1")
            .bind(now_ms)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO sessions (token_hash, account, created_ms, expires_ms, id) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(token_hash)
        .bind(account)
        .bind(now_ms)
        .bind(expires_ms)
        .bind(session_id(token_hash))
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    async fn session(&self, token_hash: &str) -> Result<Option<(String, i64)>> {
        Ok(
            sqlx::query_as("SELECT account, expires_ms FROM sessions WHERE token_hash = $1")
                .bind(token_hash)
                .fetch_optional(&self.reader)
                .await?,
        )
    }

    async fn sessions(&self, account: &str) -> Result<Vec<SessionRow>> {
        sqlx::query(
            "SELECT id, account, created_ms, expires_ms FROM sessions WHERE account = $1 ORDER BY created_ms, id",
        )
        .bind(account)
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| {
            Ok(SessionRow {
                id: row.try_get(0)?,
                account: row.try_get(1)?,
                created_ms: row.try_get(2)?,
                expires_ms: row.try_get(3)?,
            })
        })
        .collect()
    }

    async fn extend_session(&self, token_hash: &str, expires_ms: i64) -> Result<()> {
        sqlx::query("UPDATE sessions SET expires_ms = $2 WHERE token_hash = $1")
            .bind(token_hash)
            .bind(expires_ms)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn remove_session(&self, token_hash: &str) -> Result<()> {
        sqlx::query("DELETE FROM sessions WHERE token_hash = $1")
            .bind(token_hash)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn audit(&self, id: &str, row: &AuditRow) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO audit (id, at_ms, actor, action, reason) VALUES ($1, $2, $3, $4, $5)")
            .bind(id)
            .bind(row.at_ms)
            .bind(&row.actor)
            .bind(&row.action)
            .bind(&row.reason)
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

    async fn audit_rows(&self, limit: i64) -> Result<Vec<AuditRow>> {
        sqlx::query("SELECT at_ms, actor, action, reason FROM audit ORDER BY at_ms DESC, id LIMIT $1")
            .bind(limit)
            .fetch_all(&self.reader)
            .await?
            .iter()
            .map(|row| {
                Ok(AuditRow {
                    at_ms: row.try_get(0)?,
                    actor: row.try_get(1)?,
                    action: row.try_get(2)?,
                    reason: row.try_get(3)?,
                })
            })
            .collect()
    }
}
