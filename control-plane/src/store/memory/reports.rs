//! Reports of sites, in memory.

use super::Memory;
use crate::store::{ReportPlace, ReportRow, ReportStore, Result};
use async_trait::async_trait;

#[async_trait]
impl ReportStore for Memory {
    async fn report(&self, site: &str, id: &str) -> Result<Option<ReportRow>> {
        let key = (site.to_owned(), id.to_owned());
        Ok(self.enter().await?.reports.get(&key).cloned())
    }

    async fn reports(
        &self,
        site: Option<&str>,
        after: Option<&ReportPlace>,
        limit: i64,
    ) -> Result<Vec<ReportRow>> {
        let state = self.enter().await?;
        let place = |row: &ReportRow| (row.received_ms, row.site.clone(), row.id.clone());
        let before = after.map(|after| (after.received_ms, after.site.clone(), after.id.clone()));
        let mut rows: Vec<_> = state
            .reports
            .values()
            .filter(|row| site.is_none_or(|site| row.site == site))
            .filter(|row| before.as_ref().is_none_or(|before| place(row) < *before))
            .cloned()
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(place(row)));
        rows.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(rows)
    }

    async fn reports_since(&self, site: &str, since_ms: i64) -> Result<i64> {
        let state = self.enter().await?;
        let since = |row: &&ReportRow| row.site == site && row.received_ms >= since_ms;
        Ok(i64::try_from(state.reports.values().filter(since).count()).unwrap_or(i64::MAX))
    }
}
