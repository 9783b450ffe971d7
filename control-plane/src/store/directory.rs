//! Units and sites as they were imported, how sites answer, and when each was last seen.

use super::Result;
use async_trait::async_trait;

/// A unit; `tier` is the number of the wire schema, an empty `parent` is the root.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitRow {
    pub id: String,
    pub tier: i32,
    pub parent: String,
    pub name_zh: String,
    pub name_en: String,
    pub lat: f64,
    pub lon: f64,
}

/// A site; `tier`, `access` and `answer` are the numbers of the wire schema.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteRow {
    pub id: String,
    pub unit: String,
    pub tier: i32,
    pub name_zh: String,
    pub name_en: String,
    pub lat: f64,
    pub lon: f64,
    pub access: i32,
    pub tags: Vec<String>,
    /// Set for a new site only: an import leaves the policy of one that is there alone.
    pub answer: i32,
}

/// When an endpoint of a site last came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRow {
    pub site: String,
    pub since_ms: i64,
    pub endpoint: String,
}

#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// All units, in the order of their import (parents before children).
    async fn units(&self) -> Result<Vec<UnitRow>>;
    /// Passes on all sites in the order of their import, one after the other: of many, never all are in memory as rows.
    ///
    /// # Errors
    /// Those of the store, and the first of `take`, which ends it.
    async fn each_site(&self, take: &mut (dyn FnMut(SiteRow) -> Result<()> + Send)) -> Result<()>;
    /// All units and sites.
    async fn directory(&self) -> Result<(Vec<UnitRow>, Vec<SiteRow>)> {
        let (units, mut sites) = (self.units().await?, Vec::new());
        let mut take = |row| {
            sites.push(row);
            Ok(())
        };
        self.each_site(&mut take).await?;
        Ok((units, sites))
    }
    /// Writes units and sites, new or changed, in one transaction. Parents come before their children, and new rows
    /// after those that are there.
    async fn put_directory(&self, units: &[UnitRow], sites: &[SiteRow]) -> Result<()>;
    async fn seen(&self) -> Result<Vec<SeenRow>>;
    /// Keeps when sites came or went, so that "offline since" outlives a restart. Rows of unknown sites are passed over.
    async fn put_seen(&self, rows: &[SeenRow]) -> Result<()>;
}
