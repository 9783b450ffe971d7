//! Reports of sites, in SQL.

use super::{Connection, Row, Sql};
use crate::store::{ReportPlace, ReportRow, ReportStore, Result};
use async_trait::async_trait;
use sqlx::Row as _;

fn report(row: &Row) -> Result<ReportRow> {
    Ok(ReportRow {
        site: row.try_get(0)?,
        id: row.try_get(1)?,
        received_ms: row.try_get(2)?,
        body: row.try_get(3)?,
    })
}

#[async_trait]
impl ReportStore for Sql {
    async fn report(&self, site: &str, id: &str) -> Result<Option<ReportRow>> {
        let row = sqlx::query("SELECT site, id, received_ms, body FROM reports WHERE site = $1 AND id = $2")
            .bind(site)
            .bind(id)
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(report).transpose()
    }

    async fn reports(
        &self,
        site: Option<&str>,
        after: Option<&ReportPlace>,
        limit: i64,
    ) -> Result<Vec<ReportRow>> {
        let newest = ReportPlace {
            received_ms: i64::MAX,
            site: String::new(),
            id: String::new(),
        };
        let after = after.unwrap_or(&newest);
        let rows = sqlx::query(
            "SELECT site, id, received_ms, body FROM reports
             WHERE (received_ms < $1 OR (received_ms = $1 AND (site < $2 OR (site = $2 AND id < $3))))
             AND ($4 = '' OR site = $4) ORDER BY received_ms DESC, site DESC, id DESC LIMIT $5",
        )
        .bind(after.received_ms)
        .bind(&after.site)
        .bind(&after.id)
        .bind(site.unwrap_or_default())
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(report).collect()
    }

    async fn reports_since(&self, site: &str, since_ms: i64) -> Result<i64> {
        Ok(
            sqlx::query_scalar("SELECT COUNT(*) FROM reports WHERE site = $1 AND received_ms >= $2")
                .bind(site)
                .bind(since_ms)
                .fetch_one(&self.reader)
                .await?,
        )
    }
}

pub(super) async fn add_report(tx: &mut Connection, row: &ReportRow) -> Result<()> {
    sqlx::query("INSERT INTO reports (site, id, received_ms, body) VALUES ($1, $2, $3, $4)")
        .bind(&row.site)
        .bind(&row.id)
        .bind(row.received_ms)
        .bind(&row.body)
        .execute(tx)
        .await?;
    Ok(())
}
