//! Enrolment tokens, certificates and site links, in SQL.

use super::{Connection, Sql};
use crate::store::{EnrolRow, Result, SecretStore};
use async_trait::async_trait;
use sqlx::Row as _;

pub(super) async fn add_enrol_token(
    tx: &mut Connection,
    hash: &str,
    identity: &str,
    by: &str,
    expires_ms: i64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO enrol_tokens (secret_hash, identity, created_by, expires_ms) VALUES ($1, $2, $3, $4)",
    )
    .bind(hash)
    .bind(identity)
    .bind(by)
    .bind(expires_ms)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn add_site_link(
    tx: &mut Connection,
    hash: &str,
    site: &str,
    by: &str,
    now_ms: i64,
    expires_ms: i64,
) -> Result<()> {
    sqlx::query("DELETE FROM site_links WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO site_links (secret_hash, site, created_by, expires_ms) VALUES ($1, $2, $3, $4)")
        .bind(hash)
        .bind(site)
        .bind(by)
        .bind(expires_ms)
        .execute(tx)
        .await?;
    Ok(())
}

#[async_trait]
impl SecretStore for Sql {
    async fn enrol_token(&self, hash: &str) -> Result<Option<EnrolRow>> {
        sqlx::query("SELECT identity, expires_ms, used_ms FROM enrol_tokens WHERE secret_hash = $1")
            .bind(hash)
            .fetch_optional(&self.reader)
            .await?
            .map(|row| {
                Ok(EnrolRow {
                    identity: row.try_get(0)?,
                    expires_ms: row.try_get(1)?,
                    used: row.try_get::<Option<i64>, _>(2)?.is_some(),
                })
            })
            .transpose()
    }

    async fn use_enrol_token(&self, hash: &str, fingerprint: &str, now_ms: i64) -> Result<bool> {
        let mut tx = self.begin().await?;
        let taken = sqlx::query(
            "UPDATE enrol_tokens SET used_ms = $2 WHERE secret_hash = $1 AND used_ms IS NULL AND expires_ms > $2",
        )
        .bind(hash)
        .bind(now_ms)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if taken != 1 {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO certificates (fingerprint, identity, issued_ms)
             SELECT $2, identity, $3 FROM enrol_tokens WHERE secret_hash = $1",
        )
        .bind(hash)
        .bind(fingerprint)
        .bind(now_ms)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn site_link(&self, hash: &str) -> Result<Option<(String, i64)>> {
        Ok(
            sqlx::query_as("SELECT site, expires_ms FROM site_links WHERE secret_hash = $1")
                .bind(hash)
                .fetch_optional(&self.reader)
                .await?,
        )
    }
}
