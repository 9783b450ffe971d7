//! The tables, as a numbered list of migrations. A migration that was released is never edited: add one.
//! The SQL is the subset that SQLite and PostgreSQL share: text ids, integer milliseconds, no triggers.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

const INITIAL: &str = "
CREATE TABLE units (
    id TEXT PRIMARY KEY NOT NULL,
    position BIGINT NOT NULL,
    tier BIGINT NOT NULL,
    parent TEXT REFERENCES units (id),
    name_zh TEXT NOT NULL,
    name_en TEXT NOT NULL,
    lat DOUBLE PRECISION NOT NULL,
    lon DOUBLE PRECISION NOT NULL
);
CREATE TABLE sites (
    id TEXT PRIMARY KEY NOT NULL,
    position BIGINT NOT NULL,
    unit TEXT NOT NULL REFERENCES units (id),
    tier BIGINT NOT NULL,
    name_zh TEXT NOT NULL,
    name_en TEXT NOT NULL,
    lat DOUBLE PRECISION NOT NULL,
    lon DOUBLE PRECISION NOT NULL,
    access BIGINT NOT NULL,
    tags TEXT NOT NULL
);
CREATE TABLE site_seen (
    site TEXT PRIMARY KEY NOT NULL REFERENCES sites (id),
    since_ms BIGINT NOT NULL,
    endpoint TEXT NOT NULL
);
CREATE TABLE accounts (
    name TEXT PRIMARY KEY NOT NULL,
    display_name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);
CREATE TABLE grants (
    account TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    role BIGINT NOT NULL,
    unit TEXT NOT NULL,
    PRIMARY KEY (account, role, unit)
);
CREATE TABLE sessions (
    token_hash TEXT PRIMARY KEY NOT NULL,
    account TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE TABLE site_links (
    secret_hash TEXT PRIMARY KEY NOT NULL,
    site TEXT NOT NULL REFERENCES sites (id),
    created_by TEXT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE TABLE enrol_tokens (
    secret_hash TEXT PRIMARY KEY NOT NULL,
    identity TEXT NOT NULL,
    created_by TEXT NOT NULL,
    expires_ms BIGINT NOT NULL,
    used_ms BIGINT
);
CREATE TABLE certificates (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    identity TEXT NOT NULL,
    issued_ms BIGINT NOT NULL
);
CREATE TABLE meetings (
    id TEXT PRIMARY KEY NOT NULL,
    title TEXT NOT NULL,
    unit TEXT NOT NULL,
    chair TEXT NOT NULL,
    idempotency_key TEXT,
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    final_state BLOB,
    UNIQUE (chair, idempotency_key)
);
CREATE INDEX meetings_started ON meetings (started_ms);
CREATE TABLE events (
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    payload BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (stream, seq)
);
CREATE TABLE site_claim (
    site TEXT PRIMARY KEY NOT NULL,
    meeting TEXT NOT NULL REFERENCES meetings (id),
    priority BIGINT NOT NULL
);
CREATE INDEX site_claim_meeting ON site_claim (meeting);
CREATE TABLE audit (
    id TEXT PRIMARY KEY NOT NULL,
    at_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX audit_at ON audit (at_ms);
";

const COMMAND: &str = "
ALTER TABLE grants ADD COLUMN expires_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN granted_by TEXT NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN granted_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sites ADD COLUMN answer BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN id TEXT NOT NULL DEFAULT '';
UPDATE sessions SET id = substr(token_hash, 1, 16);
CREATE INDEX sessions_account ON sessions (account);
CREATE TABLE presets (
    id TEXT PRIMARY KEY NOT NULL,
    unit TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE schedules (
    id TEXT PRIMARY KEY NOT NULL,
    unit TEXT NOT NULL,
    next_ms BIGINT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX schedules_next ON schedules (next_ms);
CREATE TABLE drills (
    id TEXT PRIMARY KEY NOT NULL,
    unit TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX drills_started ON drills (started_ms);
CREATE INDEX meetings_live ON meetings (ended_ms);
";

/// What is stored already is taken for whole: a head is noted of each stream as it stands.
const HEADS: &str = "
CREATE TABLE heads (
    stream TEXT PRIMARY KEY NOT NULL,
    seq BIGINT NOT NULL,
    hash BLOB NOT NULL
);
INSERT INTO heads (stream, seq, hash)
    SELECT e.stream, e.seq, e.hash FROM events e
    JOIN (SELECT stream, MAX(seq) AS seq FROM events GROUP BY stream) last
    ON last.stream = e.stream AND last.seq = e.seq;
ALTER TABLE meetings ADD COLUMN damaged TEXT;
ALTER TABLE meetings ADD COLUMN number BIGINT;
UPDATE meetings SET number = ranked.number
    FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY started_ms, id) AS number FROM meetings) AS ranked
    WHERE ranked.id = meetings.id;
CREATE UNIQUE INDEX meetings_number ON meetings (number);
";

const REPORTS: &str = "
CREATE TABLE reports (
    site TEXT NOT NULL,
    id TEXT NOT NULL,
    received_ms BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (site, id)
);
CREATE INDEX reports_received ON reports (received_ms, site, id);
CREATE INDEX reports_site ON reports (site, received_ms);
";

/// The migrations in order, with the driver's word for bytes.
pub(in crate::store) fn migrator() -> Migrator {
    let of = |version, name: &'static str, sql: &str| {
        let sql = sqlx::AssertSqlSafe(sql.replace("BLOB", super::driver::BYTES));
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations(vec![
        of(1, "initial", INITIAL),
        of(2, "command", COMMAND),
        of(3, "heads", HEADS),
        of(4, "reports", REPORTS),
    ])
}
