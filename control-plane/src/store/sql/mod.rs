//! The SQL of both drivers: this folder is compiled once for SQLite and once for PostgreSQL.
//!
//! `super::driver` names the driver's types, and the few things that differ. The SQL is the subset that both know:
//! text ids, 64-bit integers, `$1` placeholders, no triggers. Sites are changed in the order of their names, so that
//! two transactions do not wait for each other.

mod accounts;
mod directory;
mod log;
mod plans;
mod reports;
pub(super) mod schema;
mod secrets;

use super::driver::{self, Connection, Db, Row};
use crate::store::{Backend, Result};
use sqlx::{Pool, Transaction};

/// Rows in one statement: SQLite takes 32,766 variables.
const ROWS: usize = 1000;

/// One database behind the traits of the store.
pub struct Sql {
    /// One connection for SQLite; the same pool as `reader` for PostgreSQL.
    pub(super) writer: Pool<Db>,
    pub(super) reader: Pool<Db>,
}

impl Sql {
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Db>> {
        driver::begin(&self.writer).await
    }
}

#[async_trait::async_trait]
impl Backend for Sql {
    async fn ping(&self) -> Result<()> {
        let _: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM site_claim WHERE site = ''")
            .fetch_one(&self.reader)
            .await?;
        Ok(())
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    fn kind(&self) -> &'static str {
        driver::KIND
    }
}

fn small(value: i64) -> i32 {
    i32::try_from(value).unwrap_or_default()
}
