//! Reports of sites (上报). Each is an event of its unit's stream; its row changes with it and is what is searched by.

use super::Result;
use async_trait::async_trait;

/// `body` is an encoded `Report`. Site and id together are the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    pub site: String,
    pub id: String,
    pub received_ms: i64,
    pub body: Vec<u8>,
}

/// Where a report stands in the order in which they are listed: newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportPlace {
    pub received_ms: i64,
    pub site: String,
    pub id: String,
}

#[async_trait]
pub trait ReportStore: Send + Sync {
    async fn report(&self, site: &str, id: &str) -> Result<Option<ReportRow>>;
    /// At most `limit`, newest first: those after this place, or from the newest; of one site, or of all.
    async fn reports(
        &self,
        site: Option<&str>,
        after: Option<&ReportPlace>,
        limit: i64,
    ) -> Result<Vec<ReportRow>>;
    /// How many of a site were received at or after this time.
    async fn reports_since(&self, site: &str, since_ms: i64) -> Result<i64>;
}
