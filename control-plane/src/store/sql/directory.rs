//! Units, sites and when they were seen, in SQL.

use super::{Connection, Db, ROWS, Sql, driver, small};
use crate::store::{DirectoryStore, Result, SeenRow, SiteRow, UnitRow};
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::{QueryBuilder, Row as _};

/// Tells imports from other things that one replica alone may do at a time.
const IMPORT_LOCK: i64 = 1;

async fn put_units(tx: &mut Connection, units: &[UnitRow], position: &mut i64) -> Result<()> {
    for chunk in units.chunks(ROWS) {
        let mut query: QueryBuilder<Db> =
            QueryBuilder::new("INSERT INTO units (id, position, tier, parent, name_zh, name_en, lat, lon) ");
        query.push_values(chunk, |mut row, unit| {
            *position += 1;
            row.push_bind(&unit.id)
                .push_bind(*position)
                .push_bind(i64::from(unit.tier))
                .push_bind((!unit.parent.is_empty()).then_some(&unit.parent))
                .push_bind(&unit.name_zh)
                .push_bind(&unit.name_en)
                .push_bind(unit.lat)
                .push_bind(unit.lon);
        });
        query.push(
            " ON CONFLICT (id) DO UPDATE SET tier = excluded.tier, parent = excluded.parent,
             name_zh = excluded.name_zh, name_en = excluded.name_en, lat = excluded.lat, lon = excluded.lon",
        );
        query.build().execute(&mut *tx).await?;
    }
    Ok(())
}

async fn put_sites(tx: &mut Connection, sites: &[SiteRow], position: &mut i64) -> Result<()> {
    for chunk in sites.chunks(ROWS) {
        let mut query: QueryBuilder<Db> = QueryBuilder::new(
            "INSERT INTO sites (id, position, unit, tier, name_zh, name_en, lat, lon, access, tags, answer) ",
        );
        query.push_values(chunk, |mut row, site| {
            *position += 1;
            row.push_bind(&site.id)
                .push_bind(*position)
                .push_bind(&site.unit)
                .push_bind(i64::from(site.tier))
                .push_bind(&site.name_zh)
                .push_bind(&site.name_en)
                .push_bind(site.lat)
                .push_bind(site.lon)
                .push_bind(i64::from(site.access))
                .push_bind(site.tags.join(","))
                .push_bind(i64::from(site.answer));
        });
        query.push(
            " ON CONFLICT (id) DO UPDATE SET unit = excluded.unit, tier = excluded.tier,
             name_zh = excluded.name_zh, name_en = excluded.name_en, lat = excluded.lat, lon = excluded.lon,
             access = excluded.access, tags = excluded.tags",
        );
        query.build().execute(&mut *tx).await?;
    }
    Ok(())
}

pub(super) async fn put_directory(tx: &mut Connection, units: &[UnitRow], sites: &[SiteRow]) -> Result<()> {
    driver::alone(tx, IMPORT_LOCK).await?;
    let mut position: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(position), 0) FROM (SELECT position FROM units UNION ALL SELECT position FROM sites) AS p",
    )
    .fetch_one(&mut *tx)
    .await?;
    put_units(tx, units, &mut position).await?;
    put_sites(tx, sites, &mut position).await
}

#[async_trait]
impl DirectoryStore for Sql {
    async fn units(&self) -> Result<Vec<UnitRow>> {
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
            .collect()
    }

    async fn each_site(&self, take: &mut (dyn FnMut(SiteRow) -> Result<()> + Send)) -> Result<()> {
        let mut rows = sqlx::query(
            "SELECT id, unit, tier, name_zh, name_en, lat, lon, access, tags, answer FROM sites ORDER BY position",
        )
        .fetch(&self.reader);
        while let Some(row) = rows.try_next().await? {
            let tags: String = row.try_get(8)?;
            take(SiteRow {
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
                answer: small(row.try_get(9)?),
            })?;
        }
        Ok(())
    }

    async fn put_directory(&self, units: &[UnitRow], sites: &[SiteRow]) -> Result<()> {
        let mut tx = self.begin().await?;
        put_directory(&mut tx, units, sites).await?;
        Ok(tx.commit().await?)
    }

    async fn seen(&self) -> Result<Vec<SeenRow>> {
        let mut rows = sqlx::query("SELECT site, since_ms, endpoint FROM site_seen").fetch(&self.reader);
        let mut seen = Vec::new();
        while let Some(row) = rows.try_next().await? {
            seen.push(SeenRow {
                site: row.try_get(0)?,
                since_ms: row.try_get(1)?,
                endpoint: row.try_get(2)?,
            });
        }
        Ok(seen)
    }

    async fn put_seen(&self, rows: &[SeenRow]) -> Result<()> {
        let mut sorted: Vec<&SeenRow> = rows.iter().collect();
        sorted.sort_by(|a, b| a.site.cmp(&b.site));
        let mut tx = self.begin().await?;
        for chunk in sorted.chunks(ROWS) {
            let mut query: QueryBuilder<Db> = QueryBuilder::new("WITH news (site, since_ms, endpoint) AS (");
            query.push_values(chunk, |mut values, row| {
                values
                    .push_bind(&row.site)
                    .push_bind(row.since_ms)
                    .push_bind(&row.endpoint);
            });
            // `WHERE true` tells SQLite that ON belongs to the INSERT.
            query.push(
                ") INSERT INTO site_seen (site, since_ms, endpoint)
                 SELECT news.site, news.since_ms, news.endpoint FROM news JOIN sites ON sites.id = news.site WHERE true
                 ON CONFLICT (site) DO UPDATE SET since_ms = excluded.since_ms, endpoint = excluded.endpoint",
            );
            query.build().execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}
