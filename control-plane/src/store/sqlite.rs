//! The embedded back end: one SQLite file in WAL mode, one writer connection, a few readers.
//!
//! Invariant: nobody but its owner can read the file, as it holds hashes of passwords. For one process only.

use super::{Result, StoreError};
use sql::Sql;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::path::Path;
use std::time::Duration;

mod driver {
    use crate::store::Result;
    use sqlx::{Pool, Sqlite, Transaction};

    pub type Db = Sqlite;
    pub type Row = sqlx::sqlite::SqliteRow;
    pub type Connection = sqlx::SqliteConnection;
    pub const KIND: &str = "sqlite";
    pub const BYTES: &str = "BLOB";

    pub async fn begin(pool: &Pool<Db>) -> Result<Transaction<'static, Db>> {
        Ok(pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// There is one writer anyway.
    #[expect(clippy::unused_async, reason = "the other driver asks its server")]
    pub async fn alone(_: &mut Connection, _: i64) -> Result<()> {
        Ok(())
    }
}

#[expect(clippy::duplicate_mod, reason = "the same SQL, compiled for each driver")]
#[path = "sql/mod.rs"]
mod sql;

/// Name of the database in the data folder.
const FILE_NAME: &str = "muster.sqlite";
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

/// The file holds hashes of passwords: only its owner may read it. SQLite gives its other files the same mode.
fn keep_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

pub(super) async fn open(data_dir: &Path) -> Result<Sql> {
    let path = data_dir.join(FILE_NAME);
    keep_private(&path).map_err(|error| StoreError::Unavailable(format!("{}: {error}", path.display())))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: what was acknowledged survives a power cut, not only a killed process.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(BUSY_TIMEOUT)
        // A full disk makes SQLite roll back by itself; the driver then believes for ever that a transaction is
        // open. Such a connection is closed, and the next command gets a fresh one.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options.clone())
        .await?;
    sql::schema::migrator()
        .run(&writer)
        .await
        .map_err(|e| StoreError::Unavailable(e.to_string()))?;
    let reader = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(BUSY_TIMEOUT)
        .connect_with(options.read_only(true))
        .await?;
    Ok(Sql { writer, reader })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Backend as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn a_disk_that_was_full_can_be_written_to_again() {
        let dir = tempfile::tempdir().expect("folder");
        let store = open(dir.path()).await.expect("opened");
        let statement = async |sql: &'static str| {
            let mut transaction = store.begin().await?;
            sqlx::query(sql).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(())
        };
        statement("CREATE TABLE filler (bytes BLOB)").await.expect("room");
        // Holds for this connection: no page more than there are.
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(&store.writer)
            .await
            .expect("a limit");
        let full = statement("INSERT INTO filler VALUES (zeroblob(10000000))")
            .await
            .expect_err("full");
        assert!(full.to_string().contains("full"), "{full}");
        statement("INSERT INTO filler VALUES (zeroblob(10))")
            .await
            .expect("there is room again");
        store.close().await;
    }

    #[tokio::test]
    async fn nobody_else_can_read_the_database() {
        let dir = tempfile::tempdir().expect("folder");
        let store = open(dir.path()).await.expect("opened");
        for entry in std::fs::read_dir(dir.path()).expect("folder") {
            let entry = entry.expect("entry");
            let mode = entry.metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
        }
        store.close().await;
    }
}
