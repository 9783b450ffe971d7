//! The event log: append-only streams, each a hash chain over the stored bytes.
//!
//! `UNIQUE(stream, seq)` makes an append optimistic; what spans meetings (`site_claim`) changes in the same
//! transaction. The hash of an event is SHA-256(hash before || payload); the first has 32 zero bytes before it.

use super::{Result, Store, StoreError};
use aws_lc_rs::digest;
use sqlx::{QueryBuilder, Row, Sqlite};

/// Position and hash of the last event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainHead {
    pub seq: u64,
    pub hash: [u8; 32],
}

/// An event to be stored: `payload` is the encoded `MeetingEvent`.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub seq: u64,
    pub at_ms: i64,
    pub actor: String,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct StoredEvent {
    pub seq: u64,
    pub payload: Vec<u8>,
    pub hash: [u8; 32],
}

/// The row of a meeting, written when it is convened.
#[derive(Debug, Clone)]
pub struct MeetingRow {
    pub id: String,
    pub title: String,
    pub unit: String,
    pub chair: String,
    pub idempotency_key: Option<String>,
    pub started_ms: i64,
}

/// How a meeting's row ends: `final_state` is the encoded `Meeting`.
#[derive(Debug, Clone)]
pub struct EndedRow {
    pub ended_ms: i64,
    pub final_state: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub site: String,
    pub meeting: String,
    pub priority: i64,
}

/// Everything that one step of a meeting changes; stored whole or not at all.
#[derive(Debug, Default)]
pub struct Append {
    pub meeting: String,
    pub head: ChainHead,
    pub events: Vec<NewEvent>,
    pub convened: Option<MeetingRow>,
    pub ended: Option<EndedRow>,
    /// Sites taken for this meeting, with the meeting's priority; one held by another meeting is a conflict.
    pub claims: Vec<(String, i64)>,
    /// Sites given back.
    pub released: Vec<String>,
}

/// The next hash of a chain.
pub fn chain_hash(before: &[u8; 32], payload: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(before);
    context.update(payload);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn to_db(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn stored_event(row: &sqlx::sqlite::SqliteRow) -> Result<StoredEvent> {
    let hash: Vec<u8> = row.try_get(2)?;
    Ok(StoredEvent {
        seq: row
            .try_get::<i64, _>(0)?
            .try_into()
            .map_err(|_| StoreError::Corrupt("an event's seq is negative".into()))?,
        payload: row.try_get(1)?,
        hash: hash
            .try_into()
            .map_err(|_| StoreError::Corrupt("an event's hash is not of 32 bytes".into()))?,
    })
}

impl Store {
    /// Appends, in one transaction. `Conflict` if another writer was there first.
    pub async fn append(&self, append: &Append) -> Result<ChainHead> {
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
        let head = insert_events(&mut tx, append).await?;
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

    /// Events of a stream after `seq`, in order.
    pub async fn events_after(&self, stream: &str, seq: u64) -> Result<Vec<StoredEvent>> {
        sqlx::query("SELECT seq, payload, hash FROM events WHERE stream = $1 AND seq > $2 ORDER BY seq")
            .bind(stream)
            .bind(to_db(seq))
            .fetch_all(&self.reader)
            .await?
            .iter()
            .map(stored_event)
            .collect()
    }

    /// The last sequence number of a stream; `None` if there is no such stream.
    pub async fn last_seq(&self, stream: &str) -> Result<Option<u64>> {
        let last: Option<i64> = sqlx::query_scalar("SELECT MAX(seq) FROM events WHERE stream = $1")
            .bind(stream)
            .fetch_one(&self.reader)
            .await?;
        Ok(last.and_then(|seq| seq.try_into().ok()))
    }

    /// Ids of the meetings that have not ended, oldest first.
    pub async fn live_meetings(&self) -> Result<Vec<String>> {
        Ok(
            sqlx::query_scalar("SELECT id FROM meetings WHERE ended_ms IS NULL ORDER BY started_ms, id")
                .fetch_all(&self.reader)
                .await?,
        )
    }

    /// Encoded final states of ended meetings, newest first.
    pub async fn ended_meetings(&self, limit: i64) -> Result<Vec<Vec<u8>>> {
        Ok(sqlx::query_scalar(
            "SELECT final_state FROM meetings WHERE final_state IS NOT NULL ORDER BY started_ms DESC, id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.reader)
        .await?)
    }

    /// The encoded final state of one meeting, if it has ended.
    pub async fn final_state(&self, meeting: &str) -> Result<Option<Vec<u8>>> {
        Ok(
            sqlx::query_scalar("SELECT final_state FROM meetings WHERE id = $1 AND final_state IS NOT NULL")
                .bind(meeting)
                .fetch_optional(&self.reader)
                .await?,
        )
    }

    /// The meeting that an account convened under an idempotency key.
    pub async fn meeting_by_key(&self, chair: &str, key: &str) -> Result<Option<String>> {
        Ok(
            sqlx::query_scalar("SELECT id FROM meetings WHERE chair = $1 AND idempotency_key = $2")
                .bind(chair)
                .bind(key)
                .fetch_optional(&self.reader)
                .await?,
        )
    }

    pub async fn claims(&self) -> Result<Vec<Claim>> {
        sqlx::query("SELECT site, meeting, priority FROM site_claim")
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

async fn insert_events(tx: &mut sqlx::SqliteConnection, append: &Append) -> Result<ChainHead> {
    let mut head = append.head;
    // SQLite takes 32766 variables a statement; six a row.
    for chunk in append.events.chunks(1000) {
        let mut rows = Vec::with_capacity(chunk.len());
        for event in chunk {
            if event.seq != head.seq + 1 {
                return Err(StoreError::Conflict(format!(
                    "event {} does not follow {}",
                    event.seq, head.seq
                )));
            }
            head = ChainHead {
                seq: event.seq,
                hash: chain_hash(&head.hash, &event.payload),
            };
            rows.push((event, head.hash));
        }
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("INSERT INTO events (stream, seq, at_ms, actor, payload, hash) ");
        query.push_values(rows, |mut row, (event, hash)| {
            row.push_bind(&append.meeting)
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

async fn change_claims(tx: &mut sqlx::SqliteConnection, append: &Append) -> Result<()> {
    for chunk in append.released.chunks(1000) {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("DELETE FROM site_claim WHERE meeting = ");
        query.push_bind(&append.meeting).push(" AND site IN (");
        let mut sites = query.separated(", ");
        for site in chunk {
            sites.push_bind(site);
        }
        query.push(")");
        query.build().execute(&mut *tx).await?;
    }
    for chunk in append.claims.chunks(1000) {
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("INSERT INTO site_claim (site, meeting, priority) ");
        query.push_values(chunk, |mut row, (site, priority)| {
            row.push_bind(site)
                .push_bind(&append.meeting)
                .push_bind(*priority);
        });
        query.build().execute(&mut *tx).await?;
    }
    Ok(())
}
