//! Administration of units: their streams (`unit:ID`) with the rows that change in the same transaction, and what is
//! prepared there (presets, schedules, drills). Bodies are encoded wire messages; the columns are what is searched by.

use super::log::{ChainHead, NewEvent};
use super::{GrantRow, ReportRow, Result, SiteRow, UnitRow};
use async_trait::async_trait;
use tokio::sync::watch;

/// `body` is an encoded `Preset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresetRow {
    pub id: String,
    pub unit: String,
    pub body: Vec<u8>,
}

/// `body` is an encoded `Schedule`; `next_ms` is 0 once it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    pub id: String,
    pub unit: String,
    pub next_ms: i64,
    pub body: Vec<u8>,
}

/// `body` is an encoded `Drill`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillRow {
    pub id: String,
    pub unit: String,
    pub started_ms: i64,
    pub body: Vec<u8>,
}

/// A row that changes together with a unit's events.
#[derive(Debug, Clone)]
pub enum UnitEffect {
    PutPreset(PresetRow),
    DeletePreset(String),
    PutSchedule(ScheduleRow),
    /// Like `PutSchedule`, but a conflict unless `next_ms` is still this: so that one replica alone convenes.
    MoveSchedule {
        row: ScheduleRow,
        from_ms: i64,
    },
    DeleteSchedule(String),
    PutDrill(DrillRow),
    /// Takes a report in. One of this site with this id that is there already is a conflict.
    AddReport(ReportRow),
    DeleteDrill(String),
    /// Adds an account, or changes its display name and (if given) its argon2 string; a new password ends its sessions.
    /// A new account without a password is a conflict.
    PutAccount {
        name: String,
        display_name: String,
        password_hash: Option<String>,
        now_ms: i64,
    },
    PutGrant {
        account: String,
        grant: GrantRow,
    },
    DeleteGrant {
        account: String,
        role: i32,
        unit: String,
    },
    /// Ends sessions of an account: the one of this id, or all but that of `keep`.
    RevokeSessions {
        account: String,
        only: Option<String>,
        keep: Option<String>,
    },
    /// Gives an enrolment token out. One of this hash that is there already is a conflict.
    AddEnrolToken {
        hash: String,
        identity: String,
        by: String,
        expires_ms: i64,
    },
    /// Gives a site link out, and removes those that have run out.
    AddSiteLink {
        hash: String,
        site: String,
        by: String,
        now_ms: i64,
        expires_ms: i64,
    },
    /// Units and sites, new or changed, as [`super::DirectoryStore::put_directory`] writes them.
    PutDirectory {
        units: Vec<UnitRow>,
        sites: Vec<SiteRow>,
    },
    /// How these sites answer; the number of the wire schema.
    SetAnswer {
        sites: Vec<String>,
        answer: i32,
    },
}

/// One step of a unit's administration; stored whole or not at all.
#[derive(Debug, Default)]
pub struct UnitAppend {
    /// `unit:ID`.
    pub stream: String,
    pub head: ChainHead,
    pub events: Vec<NewEvent>,
    pub effects: Vec<UnitEffect>,
    /// Told how many effects are carried out, while they are not committed yet.
    pub progress: Option<watch::Sender<usize>>,
}

#[async_trait]
pub trait PlanStore: Send + Sync {
    /// Appends with its effects, in one transaction. `Conflict` if another writer was there first.
    async fn append_unit(&self, append: &UnitAppend) -> Result<ChainHead>;
    /// By id.
    async fn presets(&self) -> Result<Vec<PresetRow>>;
    async fn preset(&self, id: &str) -> Result<Option<PresetRow>>;
    /// By id.
    async fn schedules(&self) -> Result<Vec<ScheduleRow>>;
    async fn schedule(&self, id: &str) -> Result<Option<ScheduleRow>>;
    /// Those with a `next_ms` that is not 0 and not after this, oldest first.
    async fn due_schedules(&self, now_ms: i64) -> Result<Vec<ScheduleRow>>;
    /// Newest first.
    async fn drills(&self, limit: i64) -> Result<Vec<DrillRow>>;
    async fn drill(&self, id: &str) -> Result<Option<DrillRow>>;
}
