//! Streams of events, meetings and claims, in SQL.

use super::{Connection, Db, ROWS, Row, Sql, driver};
use crate::store::log::{OWN, chained};
use crate::store::{
    Append, ChainHead, Claim, DamagedMeeting, KeptMeeting, LiveHead, LogStore, MeetingRow, NewEvent, Result,
    StoreError, StoredEvent,
};
use async_trait::async_trait;
use sqlx::{QueryBuilder, Row as _};

/// Tells the beginnings of meetings from other things that one replica alone may do at a time: their numbers are
/// given in the order of the commits.
const BEGIN_LOCK: i64 = 2;

fn to_db(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn seq_of(row: &Row, column: usize) -> Result<u64> {
    row.try_get::<i64, _>(column)?
        .try_into()
        .map_err(|_| StoreError::Corrupt("an event's seq is negative".into()))
}

fn hash_of(row: &Row, column: usize) -> Result<[u8; 32]> {
    row.try_get::<Vec<u8>, _>(column)?
        .try_into()
        .map_err(|_| StoreError::Corrupt("an event's hash is not of 32 bytes".into()))
}

#[async_trait]
impl LogStore for Sql {
    async fn append(&self, append: &Append) -> Result<ChainHead> {
        let mut tx = self.begin().await?;
        if let Some(row) = &append.convened {
            convene(&mut tx, row).await?;
        }
        let head = insert_events(&mut tx, &append.meeting, append.head, &append.events).await?;
        change_claims(&mut tx, append).await?;
        if let Some(ended) = &append.ended {
            sqlx::query("UPDATE meetings SET ended_ms = $2, final_state = $3 WHERE id = $1")
                .bind(&append.meeting)
                .bind(ended.ended_ms)
                .bind(&ended.final_state)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(head)
    }

    async fn events_page(&self, stream: &str, seq: u64, limit: i64) -> Result<Vec<StoredEvent>> {
        sqlx::query(
            "SELECT seq, payload, hash FROM events WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(stream)
        .bind(to_db(seq))
        .bind(limit)
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| {
            Ok(StoredEvent {
                seq: seq_of(row, 0)?,
                payload: row.try_get(1)?,
                hash: hash_of(row, 2)?,
            })
        })
        .collect()
    }

    async fn head(&self, stream: &str) -> Result<ChainHead> {
        let row = sqlx::query("SELECT seq, hash FROM events WHERE stream = $1 ORDER BY seq DESC LIMIT 1")
            .bind(stream)
            .fetch_optional(&self.reader)
            .await?;
        match row {
            Some(row) => Ok(ChainHead {
                seq: seq_of(&row, 0)?,
                hash: hash_of(&row, 1)?,
            }),
            None => Ok(ChainHead::default()),
        }
    }

    async fn streams(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(
            "SELECT stream FROM events UNION SELECT stream FROM heads UNION SELECT id FROM meetings ORDER BY 1",
        )
        .fetch_all(&self.reader)
        .await?)
    }

    async fn kept_head(&self, stream: &str) -> Result<Option<ChainHead>> {
        let row = sqlx::query("SELECT seq, hash FROM heads WHERE stream = $1")
            .bind(stream)
            .fetch_optional(&self.reader)
            .await?;
        row.map(|row| {
            Ok(ChainHead {
                seq: seq_of(&row, 0)?,
                hash: hash_of(&row, 1)?,
            })
        })
        .transpose()
    }

    async fn kept_meeting(&self, meeting: &str) -> Result<Option<KeptMeeting>> {
        let row = sqlx::query(
            "SELECT title, unit, chair, started_ms, ended_ms, final_state, damaged FROM meetings WHERE id = $1",
        )
        .bind(meeting)
        .fetch_optional(&self.reader)
        .await?;
        row.map(|row| {
            Ok(KeptMeeting {
                title: row.try_get(0)?,
                unit: row.try_get(1)?,
                chair: row.try_get(2)?,
                started_ms: row.try_get(3)?,
                ended_ms: row.try_get(4)?,
                final_state: row.try_get(5)?,
                damaged: row.try_get(6)?,
            })
        })
        .transpose()
    }

    async fn meetings_begun(&self, after: u64, limit: i64) -> Result<Vec<(u64, String)>> {
        sqlx::query("SELECT number, id FROM meetings WHERE number > $1 ORDER BY number LIMIT $2")
            .bind(to_db(after))
            .bind(limit)
            .fetch_all(&self.reader)
            .await?
            .iter()
            .map(|row| Ok((seq_of(row, 0)?, row.try_get(1)?)))
            .collect()
    }

    async fn meeting_number(&self, meeting: &str) -> Result<Option<u64>> {
        let row = sqlx::query("SELECT number FROM meetings WHERE id = $1 AND number IS NOT NULL")
            .bind(meeting)
            .fetch_optional(&self.reader)
            .await?;
        row.map(|row| seq_of(&row, 0)).transpose()
    }

    async fn last_meeting(&self) -> Result<u64> {
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) FROM meetings")
            .fetch_one(&self.reader)
            .await?;
        seq_of(&row, 0)
    }

    async fn quarantine(&self, meeting: &str, reason: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE meetings SET damaged = $2 WHERE id = $1 AND damaged IS NULL")
            .bind(meeting)
            .bind(reason)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM site_claim WHERE meeting = $1")
            .bind(meeting)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    async fn damaged_meetings(&self, limit: i64) -> Result<Vec<DamagedMeeting>> {
        sqlx::query(
            "SELECT id, title, unit, chair, started_ms, damaged FROM meetings WHERE damaged IS NOT NULL
             ORDER BY started_ms DESC, id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| {
            Ok(DamagedMeeting {
                id: row.try_get(0)?,
                title: row.try_get(1)?,
                unit: row.try_get(2)?,
                chair: row.try_get(3)?,
                started_ms: row.try_get(4)?,
                reason: row.try_get(5)?,
            })
        })
        .collect()
    }

    async fn live_heads(&self) -> Result<Vec<LiveHead>> {
        sqlx::query(
            "SELECT id, COALESCE((SELECT MAX(seq) FROM events WHERE stream = meetings.id), 0) FROM meetings
             WHERE ended_ms IS NULL AND damaged IS NULL ORDER BY started_ms, id",
        )
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| {
            Ok(LiveHead {
                meeting: row.try_get(0)?,
                // A number that is none is that meeting's damage, and no reason to find no meeting.
                seq: seq_of(row, 1).unwrap_or_default(),
            })
        })
        .collect()
    }

    async fn ended_meetings(&self, offset: i64, limit: i64) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        sqlx::query(
            "SELECT id, final_state FROM meetings WHERE ended_ms IS NOT NULL ORDER BY started_ms DESC, id LIMIT $1 OFFSET $2",
        )
        .bind(limit)
        .bind(offset)
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1).ok().flatten())))
        .collect()
    }

    async fn final_state(&self, meeting: &str) -> Result<Option<Vec<u8>>> {
        Ok(
            sqlx::query_scalar("SELECT final_state FROM meetings WHERE id = $1 AND final_state IS NOT NULL")
                .bind(meeting)
                .fetch_optional(&self.reader)
                .await?,
        )
    }

    async fn meeting_by_key(&self, chair: &str, key: &str) -> Result<Option<String>> {
        Ok(
            sqlx::query_scalar("SELECT id FROM meetings WHERE chair = $1 AND idempotency_key = $2")
                .bind(chair)
                .bind(key)
                .fetch_optional(&self.reader)
                .await?,
        )
    }

    async fn claims(&self) -> Result<Vec<Claim>> {
        sqlx::query("SELECT site, meeting, priority FROM site_claim ORDER BY site")
            .fetch_all(&self.reader)
            .await?
            .iter()
            .map(|row| {
                Ok(Claim {
                    site: row.try_get(0)?,
                    meeting: row.try_get(1)?,
                    priority: row.try_get(2)?,
                })
            })
            .collect()
    }

    async fn claimed_by_others(&self, meeting: &str, sites: &[String]) -> Result<Vec<String>> {
        let mut others = Vec::new();
        for chunk in sites.chunks(ROWS) {
            let found = claims_among(meeting, "<>", chunk)
                .build_query_scalar::<String>()
                .fetch_all(&self.reader)
                .await?;
            others.extend(found);
        }
        Ok(others)
    }
}

/// Asks which of these sites belong to the meeting ("="), or to another ("<>").
fn claims_among(meeting: &str, is: &'static str, sites: &[String]) -> QueryBuilder<Db> {
    let mut query = QueryBuilder::new("SELECT site FROM site_claim WHERE meeting ");
    query.push(is).push(" ").push_bind(meeting).push(" AND site IN (");
    let mut list = query.separated(", ");
    for site in sites {
        list.push_bind(site);
    }
    query.push(")");
    query
}

pub(super) async fn insert_events(
    tx: &mut Connection,
    stream: &str,
    head: ChainHead,
    events: &[NewEvent],
) -> Result<ChainHead> {
    let (before, (head, rows)) = (head, chained(head, events)?);
    for chunk in rows.chunks(ROWS) {
        let mut query: QueryBuilder<Db> =
            QueryBuilder::new("INSERT INTO events (stream, seq, at_ms, actor, payload, hash) ");
        query.push_values(chunk, |mut row, (event, hash)| {
            row.push_bind(stream)
                .push_bind(to_db(event.seq))
                .push_bind(event.at_ms)
                .push_bind(&event.actor)
                .push_bind(&event.payload)
                .push_bind(hash.to_vec());
        });
        query.build().execute(&mut *tx).await?;
    }
    if head.seq > before.seq {
        keep_head(tx, stream, before, head).await?;
    }
    Ok(head)
}

async fn convene(tx: &mut Connection, row: &MeetingRow) -> Result<()> {
    driver::alone(tx, BEGIN_LOCK).await?;
    sqlx::query(
        "INSERT INTO meetings (id, title, unit, chair, idempotency_key, started_ms, number)
         SELECT $1, $2, $3, $4, $5, $6, COALESCE(MAX(number), 0) + 1 FROM meetings",
    )
    .bind(&row.id)
    .bind(&row.title)
    .bind(&row.unit)
    .bind(&row.chair)
    .bind(&row.idempotency_key)
    .bind(row.started_ms)
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes the head beside the events. One that does not fit what was read stays: somebody altered one or the other.
async fn keep_head(tx: &mut Connection, stream: &str, before: ChainHead, after: ChainHead) -> Result<()> {
    let changed = if before.seq == 0 {
        sqlx::query(
            "INSERT INTO heads (stream, seq, hash) VALUES ($1, $2, $3) ON CONFLICT (stream) DO NOTHING",
        )
        .bind(stream)
        .bind(to_db(after.seq))
        .bind(after.hash.to_vec())
        .execute(tx)
        .await?
    } else {
        sqlx::query("UPDATE heads SET seq = $2, hash = $3 WHERE stream = $1 AND seq = $4 AND hash = $5")
            .bind(stream)
            .bind(to_db(after.seq))
            .bind(after.hash.to_vec())
            .bind(to_db(before.seq))
            .bind(before.hash.to_vec())
            .execute(tx)
            .await?
    };
    if changed.rows_affected() != 1 {
        metrics::counter!("muster_log_heads_unfit").increment(1);
        tracing::error!(
            stream,
            seq = before.seq,
            "the kept head of a stream does not fit its events: verify the log"
        );
    }
    Ok(())
}

async fn change_claims(tx: &mut Connection, append: &Append) -> Result<()> {
    for chunk in append.lost.chunks(ROWS) {
        let mut own = claims_among(&append.meeting, "=", chunk);
        if own.build().fetch_optional(&mut *tx).await?.is_some() {
            return Err(StoreError::Conflict(OWN.into()));
        }
    }
    let mut released: Vec<&String> = append.released.iter().collect();
    released.sort();
    for chunk in released.chunks(ROWS) {
        let mut query: QueryBuilder<Db> = QueryBuilder::new("DELETE FROM site_claim WHERE meeting = ");
        query.push_bind(&append.meeting).push(" AND site IN (");
        let mut sites = query.separated(", ");
        for site in chunk {
            sites.push_bind(*site);
        }
        query.push(")");
        query.build().execute(&mut *tx).await?;
    }
    let mut claims: Vec<&(String, i64)> = append.claims.iter().collect();
    claims.sort();
    for chunk in claims.chunks(ROWS) {
        let mut query: QueryBuilder<Db> =
            QueryBuilder::new("INSERT INTO site_claim (site, meeting, priority) ");
        query.push_values(chunk, |mut row, (site, priority)| {
            row.push_bind(site)
                .push_bind(&append.meeting)
                .push_bind(*priority);
        });
        query.push(
            " ON CONFLICT (site) DO UPDATE SET meeting = excluded.meeting, priority = excluded.priority
             WHERE site_claim.priority < excluded.priority OR site_claim.meeting = excluded.meeting",
        );
        let taken = query.build().execute(&mut *tx).await?.rows_affected();
        if taken != chunk.len() as u64 {
            return Err(StoreError::Conflict("a site belongs to another meeting".into()));
        }
    }
    Ok(())
}
