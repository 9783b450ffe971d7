//! The back end for several replicas: a PostgreSQL server.
//!
//! Invariants: a server that is away is an error within [`PATIENCE`], and a connection that broke is replaced by itself; one
//! that hangs is closed as soon as the call that had it is given up, and keeps no place. The address, and with it the
//! password, is never part of an error.

use super::{Result, StoreError};
use sql::Sql;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};
use std::str::FromStr as _;
use std::time::Duration;

mod driver {
    use crate::store::Result;
    use sqlx::{Pool, Postgres, Transaction};

    pub type Db = Postgres;
    pub type Row = sqlx::postgres::PgRow;
    pub type Connection = sqlx::PgConnection;
    pub const KIND: &str = "postgres";
    pub const BYTES: &str = "BYTEA";

    pub async fn begin(pool: &Pool<Db>) -> Result<Transaction<'static, Db>> {
        Ok(pool.begin().await?)
    }

    /// Waits until no other transaction holds the lock of this number; held to the end of the transaction.
    pub async fn alone(connection: &mut Connection, lock: i64) -> Result<()> {
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(lock)
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[expect(clippy::duplicate_mod, reason = "the same SQL, compiled for each driver")]
#[path = "sql/mod.rs"]
mod sql;

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(2);
const CONNECTIONS: u32 = 12;

/// A call was given up, or is done: whether its connection can be used again. An error closes it without a word.
async fn still_answers(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let answer = tokio::time::timeout(PATIENCE, connection.ping()).await;
    answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
}

pub(super) async fn connect(url: &str) -> Result<Sql> {
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        StoreError::Unavailable(
            "the database address: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE".into(),
        )
    })?;
    let options = options
        .application_name("muster-control-plane")
        // A statement that hangs is an error, and a transaction whose replica died gives its locks back.
        .options([
            ("statement_timeout", "10s"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "5s"),
        ]);
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(PATIENCE)
        .after_release(|connection, _| Box::pin(still_answers(connection)))
        .connect_with(options)
        .await?;
    sql::schema::migrator()
        .run(&pool)
        .await
        .map_err(|e| StoreError::Unavailable(e.to_string()))?;
    Ok(Sql {
        writer: pool.clone(),
        reader: pool,
    })
}
