//! What outlives the process: the tree, accounts, sessions, secrets (only their hashes) and the event log.
//!
//! Invariant: a method that returns `Ok` has its rows on disk. One writer connection serialises all changes;
//! readers see committed state only. It decides nothing: that a command is permitted is settled before.
//! The SQL is the subset shared with PostgreSQL, so that a second back end can stand behind these methods.

mod accounts;
mod directory;
mod log;
mod schema;
mod secrets;

pub use accounts::AccountRow;
pub use directory::{SeenRow, SiteRow, UnitRow};
pub use log::{Append, ChainHead, Claim, EndedRow, MeetingRow, NewEvent, StoredEvent, chain_hash};
pub use secrets::EnrolRow;

use sqlx::Connection as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::path::Path;
use std::time::Duration;

/// Name of the database in the data folder.
const FILE_NAME: &str = "muster.sqlite";
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, the file is away, or the database is busy for too long: the caller may try again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A row with the same key is there already.
    #[error("conflict: {0}")]
    Conflict(String),
    /// What was read does not make sense: never overwrite it.
    #[error("the store holds something unexpected: {0}")]
    Corrupt(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => {
                Self::Conflict(database.message().into())
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The embedded store: one SQLite file in WAL mode. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
}

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

impl Store {
    /// Opens (or creates) the database in `data_dir` and brings its tables up to date.
    pub async fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE_NAME);
        keep_private(&path)
            .map_err(|error| StoreError::Unavailable(format!("{}: {error}", path.display())))?;
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
        schema::migrator()
            .run(&writer)
            .await
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { writer, reader })
    }

    /// Waits for running statements and closes the file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn a_disk_that_was_full_can_be_written_to_again() {
        let dir = tempfile::tempdir().expect("folder");
        let store = Store::open(dir.path()).await.expect("opened");
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
        let store = Store::open(dir.path()).await.expect("opened");
        for entry in std::fs::read_dir(dir.path()).expect("folder") {
            let entry = entry.expect("entry");
            let mode = entry.metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
        }
        store.close().await;
    }
}
