//! Streams of events, meetings and claims, in SQL.

use super::{Connection, Db, ROWS, Row, Sql};
use crate::store::log::chained;
use crate::store::{
    Append, ChainHead, Claim, LiveHead, LogStore, NewEvent, Result, StoreError, StoredEvent, StreamHead,
};
use async_trait::async_trait;
use sqlx::{QueryBuilder, Row as _};

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
            sqlx::query(
                "INSERT INTO meetings (id, title, unit, chair, idempotency_key, started_ms) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(&row.id)
            .bind(&row.title)
            .bind(&row.unit)
            .bind(&row.chair)
            .bind(&row.idempotency_key)
            .bind(row.started_ms)
            .execute(&mut *tx)
            .await?;
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

    async fn streams(&self) -> Result<Vec<StreamHead>> {
        sqlx::query(
            "SELECT e.stream, e.seq, e.hash FROM events e
             JOIN (SELECT stream, MAX(seq) AS seq FROM events GROUP BY stream) last
             ON last.stream = e.stream AND last.seq = e.seq ORDER BY e.stream",
        )
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| {
            Ok(StreamHead {
                stream: row.try_get(0)?,
                head: ChainHead {
                    seq: seq_of(row, 1)?,
                    hash: hash_of(row, 2)?,
                },
            })
        })
        .collect()
    }

    async fn live_heads(&self) -> Result<Vec<LiveHead>> {
        sqlx::query(
            "SELECT id, COALESCE((SELECT MAX(seq) FROM events WHERE stream = meetings.id), 0) FROM meetings
             WHERE ended_ms IS NULL ORDER BY started_ms, id",
        )
        .fetch_all(&self.reader)
        .await?
        .iter()
        .map(|row| {
            Ok(LiveHead {
                meeting: row.try_get(0)?,
                seq: seq_of(row, 1)?,
            })
        })
        .collect()
    }

    async fn ended_meetings(&self, offset: i64, limit: i64) -> Result<Vec<Vec<u8>>> {
        Ok(sqlx::query_scalar(
            "SELECT final_state FROM meetings WHERE final_state IS NOT NULL ORDER BY started_ms DESC, id LIMIT $1 OFFSET $2",
        )
        .bind(limit)
        .bind(offset)
        .fetch_all(&self.reader)
        .await?)
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
}

pub(super) async fn insert_events(
    tx: &mut Connection,
    stream: &str,
    head: ChainHead,
    events: &[NewEvent],
) -> Result<ChainHead> {
    let (head, rows) = chained(head, events)?;
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
    Ok(head)
}

async fn change_claims(tx: &mut Connection, append: &Append) -> Result<()> {
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
