//! Units' streams with their effects, presets, schedules and drills, in SQL.

use super::directory::put_directory;
use super::log::insert_events;
use super::reports::add_report;
use super::secrets::{add_enrol_token, add_site_link};
use super::{Connection, Db, ROWS, Row, Sql};
use crate::store::{
    ChainHead, DrillRow, GrantRow, PlanStore, PresetRow, Result, ScheduleRow, StoreError, UnitAppend,
    UnitEffect,
};
use async_trait::async_trait;
use sqlx::{QueryBuilder, Row as _};

fn preset(row: &Row) -> Result<PresetRow> {
    Ok(PresetRow {
        id: row.try_get(0)?,
        unit: row.try_get(1)?,
        body: row.try_get(2)?,
    })
}

fn schedule(row: &Row) -> Result<ScheduleRow> {
    Ok(ScheduleRow {
        id: row.try_get(0)?,
        unit: row.try_get(1)?,
        next_ms: row.try_get(2)?,
        body: row.try_get(3)?,
    })
}

fn drill(row: &Row) -> Result<DrillRow> {
    Ok(DrillRow {
        id: row.try_get(0)?,
        unit: row.try_get(1)?,
        started_ms: row.try_get(2)?,
        body: row.try_get(3)?,
    })
}

#[async_trait]
impl PlanStore for Sql {
    async fn append_unit(&self, append: &UnitAppend) -> Result<ChainHead> {
        let mut tx = self.begin().await?;
        let head = insert_events(&mut tx, &append.stream, append.head, &append.events).await?;
        for (done, effect) in (1..).zip(&append.effects) {
            carry_out(&mut tx, effect).await?;
            if let Some(progress) = &append.progress {
                progress.send_replace(done);
            }
        }
        tx.commit().await?;
        Ok(head)
    }

    async fn presets(&self) -> Result<Vec<PresetRow>> {
        let rows = sqlx::query("SELECT id, unit, body FROM presets ORDER BY id")
            .fetch_all(&self.reader)
            .await?;
        rows.iter().map(preset).collect()
    }

    async fn preset(&self, id: &str) -> Result<Option<PresetRow>> {
        let row = sqlx::query("SELECT id, unit, body FROM presets WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(preset).transpose()
    }

    async fn schedules(&self) -> Result<Vec<ScheduleRow>> {
        let rows = sqlx::query("SELECT id, unit, next_ms, body FROM schedules ORDER BY id")
            .fetch_all(&self.reader)
            .await?;
        rows.iter().map(schedule).collect()
    }

    async fn schedule(&self, id: &str) -> Result<Option<ScheduleRow>> {
        let row = sqlx::query("SELECT id, unit, next_ms, body FROM schedules WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(schedule).transpose()
    }

    async fn due_schedules(&self, now_ms: i64) -> Result<Vec<ScheduleRow>> {
        let rows = sqlx::query(
            "SELECT id, unit, next_ms, body FROM schedules WHERE next_ms > 0 AND next_ms <= $1 ORDER BY next_ms, id",
        )
        .bind(now_ms)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(schedule).collect()
    }

    async fn drills(&self, limit: i64) -> Result<Vec<DrillRow>> {
        let rows = sqlx::query(
            "SELECT id, unit, started_ms, body FROM drills ORDER BY started_ms DESC, id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(drill).collect()
    }

    async fn drill(&self, id: &str) -> Result<Option<DrillRow>> {
        let row = sqlx::query("SELECT id, unit, started_ms, body FROM drills WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(drill).transpose()
    }
}

async fn carry_out(tx: &mut Connection, effect: &UnitEffect) -> Result<()> {
    match effect {
        UnitEffect::PutPreset(row) => put_preset(tx, row).await,
        UnitEffect::DeletePreset(id) => {
            sqlx::query("DELETE FROM presets WHERE id = $1")
                .bind(id)
                .execute(tx)
                .await?;
            Ok(())
        }
        UnitEffect::PutSchedule(row) => put_schedule(tx, row).await,
        UnitEffect::MoveSchedule { row, from_ms } => move_schedule(tx, row, *from_ms).await,
        UnitEffect::DeleteSchedule(id) => {
            sqlx::query("DELETE FROM schedules WHERE id = $1")
                .bind(id)
                .execute(tx)
                .await?;
            Ok(())
        }
        UnitEffect::PutDrill(row) => put_drill(tx, row).await,
        UnitEffect::AddReport(row) => add_report(tx, row).await,
        UnitEffect::DeleteDrill(id) => {
            sqlx::query("DELETE FROM drills WHERE id = $1")
                .bind(id)
                .execute(tx)
                .await?;
            Ok(())
        }
        UnitEffect::PutAccount {
            name,
            display_name,
            password_hash,
            now_ms,
        } => put_account(tx, name, display_name, password_hash.as_deref(), *now_ms).await,
        UnitEffect::PutGrant { account, grant } => put_grant(tx, account, grant).await,
        UnitEffect::DeleteGrant { account, role, unit } => {
            sqlx::query("DELETE FROM grants WHERE account = $1 AND role = $2 AND unit = $3")
                .bind(account)
                .bind(i64::from(*role))
                .bind(unit)
                .execute(tx)
                .await?;
            Ok(())
        }
        UnitEffect::RevokeSessions { account, only, keep } => {
            revoke(tx, account, only.as_deref(), keep.as_deref()).await
        }
        UnitEffect::AddEnrolToken {
            hash,
            identity,
            by,
            expires_ms,
        } => add_enrol_token(tx, hash, identity, by, *expires_ms).await,
        UnitEffect::AddSiteLink {
            hash,
            site,
            by,
            now_ms,
            expires_ms,
        } => add_site_link(tx, hash, site, by, *now_ms, *expires_ms).await,
        UnitEffect::PutDirectory { units, sites } => put_directory(tx, units, sites).await,
        UnitEffect::SetAnswer { sites, answer } => set_answer(tx, sites, *answer).await,
    }
}

async fn put_preset(tx: &mut Connection, row: &PresetRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO presets (id, unit, body) VALUES ($1, $2, $3)
         ON CONFLICT (id) DO UPDATE SET unit = excluded.unit, body = excluded.body",
    )
    .bind(&row.id)
    .bind(&row.unit)
    .bind(&row.body)
    .execute(tx)
    .await?;
    Ok(())
}

async fn put_schedule(tx: &mut Connection, row: &ScheduleRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO schedules (id, unit, next_ms, body) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO UPDATE SET unit = excluded.unit, next_ms = excluded.next_ms, body = excluded.body",
    )
    .bind(&row.id)
    .bind(&row.unit)
    .bind(row.next_ms)
    .bind(&row.body)
    .execute(tx)
    .await?;
    Ok(())
}

async fn move_schedule(tx: &mut Connection, row: &ScheduleRow, from_ms: i64) -> Result<()> {
    let moved =
        sqlx::query("UPDATE schedules SET unit = $2, next_ms = $3, body = $4 WHERE id = $1 AND next_ms = $5")
            .bind(&row.id)
            .bind(&row.unit)
            .bind(row.next_ms)
            .bind(&row.body)
            .bind(from_ms)
            .execute(tx)
            .await?
            .rows_affected();
    match moved {
        1 => Ok(()),
        _ => Err(StoreError::Conflict("the schedule was changed meanwhile".into())),
    }
}

async fn put_drill(tx: &mut Connection, row: &DrillRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO drills (id, unit, started_ms, body) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO UPDATE SET unit = excluded.unit, started_ms = excluded.started_ms, body = excluded.body",
    )
    .bind(&row.id)
    .bind(&row.unit)
    .bind(row.started_ms)
    .bind(&row.body)
    .execute(tx)
    .await?;
    Ok(())
}

async fn put_account(
    tx: &mut Connection,
    name: &str,
    display_name: &str,
    password_hash: Option<&str>,
    now_ms: i64,
) -> Result<()> {
    if let Some(hash) = password_hash {
        sqlx::query(
            "INSERT INTO accounts (name, display_name, password_hash, created_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE SET display_name = excluded.display_name, password_hash = excluded.password_hash",
        )
        .bind(name)
        .bind(display_name)
        .bind(hash)
        .bind(now_ms)
        .execute(&mut *tx)
        .await?;
        return revoke(tx, name, None, None).await;
    }
    let changed = sqlx::query("UPDATE accounts SET display_name = $2 WHERE name = $1")
        .bind(name)
        .bind(display_name)
        .execute(tx)
        .await?
        .rows_affected();
    match changed {
        1 => Ok(()),
        _ => Err(StoreError::Conflict(format!("there is no account {name:?}"))),
    }
}

async fn put_grant(tx: &mut Connection, account: &str, grant: &GrantRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO grants (account, role, unit, expires_ms, granted_by, granted_ms) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (account, role, unit) DO UPDATE SET expires_ms = excluded.expires_ms,
         granted_by = excluded.granted_by, granted_ms = excluded.granted_ms",
    )
    .bind(account)
    .bind(i64::from(grant.role))
    .bind(&grant.unit)
    .bind(grant.expires_ms)
    .bind(&grant.granted_by)
    .bind(grant.granted_ms)
    .execute(tx)
    .await?;
    Ok(())
}

async fn revoke(tx: &mut Connection, account: &str, only: Option<&str>, keep: Option<&str>) -> Result<()> {
    let mut query: QueryBuilder<Db> = QueryBuilder::new("DELETE FROM sessions WHERE account = ");
    query.push_bind(account);
    if let Some(only) = only {
        query.push(" AND id = ").push_bind(only);
    }
    if let Some(keep) = keep {
        query.push(" AND id <> ").push_bind(keep);
    }
    query.build().execute(tx).await?;
    Ok(())
}

async fn set_answer(tx: &mut Connection, sites: &[String], answer: i32) -> Result<()> {
    let mut sorted: Vec<&String> = sites.iter().collect();
    sorted.sort();
    for chunk in sorted.chunks(ROWS) {
        let mut query: QueryBuilder<Db> = QueryBuilder::new("UPDATE sites SET answer = ");
        query.push_bind(i64::from(answer)).push(" WHERE id IN (");
        let mut ids = query.separated(", ");
        for site in chunk {
            ids.push_bind(*site);
        }
        query.push(")");
        query.build().execute(&mut *tx).await?;
    }
    Ok(())
}
