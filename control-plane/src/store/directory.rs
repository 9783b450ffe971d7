//! Units and sites as they were imported, and when each site was last seen.

use super::{Result, Store};
use sqlx::Row;

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

/// A site; `tier` and `access` are the numbers of the wire schema.
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
}

/// When an endpoint of a site last came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRow {
    pub site: String,
    pub since_ms: i64,
    pub endpoint: String,
}

fn small(value: i64) -> i32 {
    i32::try_from(value).unwrap_or_default()
}

impl Store {
    /// All units and sites, each in the order of their import (parents before children).
    pub async fn directory(&self) -> Result<(Vec<UnitRow>, Vec<SiteRow>)> {
        let units =
            sqlx::query("SELECT id, tier, parent, name_zh, name_en, lat, lon FROM units ORDER BY position")
                .fetch_all(&self.reader)
                .await?
                .iter()
                .map(|row| {
                    Ok(UnitRow {
                        id: row.try_get(0)?,
                        tier: small(row.try_get(1)?),
                        parent: row.try_get::<Option<String>, _>(2)?.unwrap_or_default(),
                        name_zh: row.try_get(3)?,
                        name_en: row.try_get(4)?,
                        lat: row.try_get(5)?,
                        lon: row.try_get(6)?,
                    })
                })
                .collect::<Result<_>>()?;
        let sites = sqlx::query(
            "SELECT id, unit, tier, name_zh, name_en, lat, lon, access, tags FROM sites ORDER BY position",
        )
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| {
            let tags: String = row.try_get(8)?;
            Ok(SiteRow {
                id: row.try_get(0)?,
                unit: row.try_get(1)?,
                tier: small(row.try_get(2)?),
                name_zh: row.try_get(3)?,
                name_en: row.try_get(4)?,
                lat: row.try_get(5)?,
                lon: row.try_get(6)?,
                access: small(row.try_get(7)?),
                tags: tags
                    .split(',')
                    .filter(|t| !t.is_empty())
                    .map(str::to_owned)
                    .collect(),
            })
        })
        .collect::<Result<_>>()?;
        Ok((units, sites))
    }

    /// Writes units and sites, new or changed, in one transaction. Parents come before their children.
    /// `position` numbers new rows after those that are there.
    pub async fn put_directory(&self, units: &[UnitRow], sites: &[SiteRow]) -> Result<()> {
        let mut tx = self.begin().await?;
        let mut position: i64 = sqlx::query_scalar(
            "SELECT COALESCE(MAX(position), 0) FROM (SELECT position FROM units UNION ALL SELECT position FROM sites) AS p",
        )
        .fetch_one(&mut *tx)
        .await?;
        for unit in units {
            position += 1;
            sqlx::query(
                "INSERT INTO units (id, position, tier, parent, name_zh, name_en, lat, lon)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (id) DO UPDATE SET tier = excluded.tier, parent = excluded.parent,
                 name_zh = excluded.name_zh, name_en = excluded.name_en, lat = excluded.lat, lon = excluded.lon",
            )
            .bind(&unit.id)
            .bind(position)
            .bind(i64::from(unit.tier))
            .bind((!unit.parent.is_empty()).then_some(&unit.parent))
            .bind(&unit.name_zh)
            .bind(&unit.name_en)
            .bind(unit.lat)
            .bind(unit.lon)
            .execute(&mut *tx)
            .await?;
        }
        for site in sites {
            position += 1;
            sqlx::query(
                "INSERT INTO sites (id, position, unit, tier, name_zh, name_en, lat, lon, access, tags)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT (id) DO UPDATE SET unit = excluded.unit, tier = excluded.tier,
                 name_zh = excluded.name_zh, name_en = excluded.name_en, lat = excluded.lat, lon = excluded.lon,
                 access = excluded.access, tags = excluded.tags",
            )
            .bind(&site.id)
            .bind(position)
            .bind(&site.unit)
            .bind(i64::from(site.tier))
            .bind(&site.name_zh)
            .bind(&site.name_en)
            .bind(site.lat)
            .bind(site.lon)
            .bind(i64::from(site.access))
            .bind(site.tags.join(","))
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    pub async fn seen(&self) -> Result<Vec<SeenRow>> {
        sqlx::query("SELECT site, since_ms, endpoint FROM site_seen")
            .fetch_all(&self.reader)
            .await?
            .iter()
            .map(|row| {
                Ok(SeenRow {
                    site: row.try_get(0)?,
                    since_ms: row.try_get(1)?,
                    endpoint: row.try_get(2)?,
                })
            })
            .collect()
    }

    /// Keeps when sites came or went, so that "offline since" outlives a restart.
    pub async fn put_seen(&self, rows: &[SeenRow]) -> Result<()> {
        let mut tx = self.begin().await?;
        for row in rows {
            sqlx::query(
                "INSERT INTO site_seen (site, since_ms, endpoint) VALUES ($1, $2, $3)
                 ON CONFLICT (site) DO UPDATE SET since_ms = excluded.since_ms, endpoint = excluded.endpoint",
            )
            .bind(&row.site)
            .bind(row.since_ms)
            .bind(&row.endpoint)
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }
}
