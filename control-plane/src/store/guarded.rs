//! Every call of a back end: its deadline, and what it says of the store's health.
//!
//! Invariants: no call passes by, so that a store that is away is known of with the first call that finds it so; of a
//! server that says nothing no call waits for longer than its deadline, and what is given up may have been carried out
//! all the same. Answers and errors are passed on as they are.

use super::{
    AccountRow, AccountStore, Append, AuditRow, Backend, ChainHead, Claim, DamagedMeeting, DirectoryStore,
    DrillRow, EnrolRow, Health, KeptMeeting, LiveHead, LogStore, PlanStore, PresetRow, ReportPlace,
    ReportRow, ReportStore, Result, ScheduleRow, SecretStore, SeenRow, SessionRow, SiteRow, StoreError,
    StoredEvent, UnitAppend, UnitRow,
};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for an answer, with that for a connection.
const USUAL: Duration = Duration::from_secs(3);
/// The same, where whole tables are read or written.
const LONG: Duration = Duration::from_secs(15);
/// An append may take so much longer for each row.
const EACH_ROW: Duration = Duration::from_millis(1);

pub(super) struct Guarded {
    pub inner: Arc<dyn Backend>,
    pub health: Health,
    /// Whether calls go to a server, which may be there and say nothing.
    pub is_server: bool,
}

impl Guarded {
    async fn call<T>(&self, most: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = if self.is_server {
            tokio::time::timeout(most, call).await.unwrap_or_else(|_| {
                metrics::counter!("muster_store_calls_given_up").increment(1);
                Err(StoreError::Unavailable("the database does not answer".into()))
            })
        } else {
            call.await
        };
        if let Err(StoreError::Unavailable(_)) = &answer {
            self.health.note(false);
        }
        answer
    }
}

fn sized(append: &Append) -> Duration {
    let rows = append.events.len() + append.claims.len() + append.released.len() + append.lost.len();
    USUAL + EACH_ROW * u32::try_from(rows).unwrap_or(u32::MAX)
}

/// Each call of a part of the store, with its deadline.
macro_rules! guarded {
    (@SIZED $append:ident) => {
        sized($append)
    };
    (@$most:ident $($arg:ident)*) => {
        $most
    };
    ($part:ident: $($most:ident $name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait::async_trait]
        impl $part for Guarded {
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$answer> {
                self.call(guarded!(@$most $($arg)*), self.inner.$name($($arg),*)).await
            })*
        }
    };
}

guarded! { AccountStore:
    USUAL password_hash(account: &str) -> Option<String>;
    USUAL account(name: &str) -> Option<AccountRow>;
    USUAL accounts() -> Vec<AccountRow>;
    USUAL add_session(token_hash: &str, account: &str, now_ms: i64, expires_ms: i64) -> ();
    USUAL session(token_hash: &str) -> Option<(String, i64)>;
    USUAL sessions(account: &str) -> Vec<SessionRow>;
    USUAL extend_session(token_hash: &str, expires_ms: i64) -> ();
    USUAL remove_session(token_hash: &str) -> ();
    USUAL audit(id: &str, row: &AuditRow) -> ();
    USUAL audit_rows(limit: i64) -> Vec<AuditRow>;
}

guarded! { DirectoryStore:
    LONG units() -> Vec<UnitRow>;
    LONG each_site(take: &mut (dyn FnMut(SiteRow) -> Result<()> + Send)) -> ();
    LONG put_directory(units: &[UnitRow], sites: &[SiteRow]) -> ();
    LONG seen() -> Vec<SeenRow>;
    LONG put_seen(rows: &[SeenRow]) -> ();
}

guarded! { LogStore:
    SIZED append(append: &Append) -> ChainHead;
    USUAL events_page(stream: &str, seq: u64, limit: i64) -> Vec<StoredEvent>;
    USUAL head(stream: &str) -> ChainHead;
    LONG streams() -> Vec<String>;
    USUAL kept_head(stream: &str) -> Option<ChainHead>;
    USUAL kept_meeting(meeting: &str) -> Option<KeptMeeting>;
    USUAL live_heads() -> Vec<LiveHead>;
    USUAL meetings_begun(after: u64, limit: i64) -> Vec<(u64, String)>;
    USUAL meeting_number(meeting: &str) -> Option<u64>;
    USUAL last_meeting() -> u64;
    USUAL quarantine(meeting: &str, reason: &str) -> ();
    USUAL damaged_meetings(limit: i64) -> Vec<DamagedMeeting>;
    USUAL ended_meetings(offset: i64, limit: i64) -> Vec<(String, Option<Vec<u8>>)>;
    USUAL final_state(meeting: &str) -> Option<Vec<u8>>;
    USUAL meeting_by_key(chair: &str, key: &str) -> Option<String>;
    USUAL claims() -> Vec<Claim>;
    USUAL claimed_by_others(meeting: &str, sites: &[String]) -> Vec<String>;
}

guarded! { PlanStore:
    LONG append_unit(append: &UnitAppend) -> ChainHead;
    USUAL presets() -> Vec<PresetRow>;
    USUAL preset(id: &str) -> Option<PresetRow>;
    USUAL schedules() -> Vec<ScheduleRow>;
    USUAL schedule(id: &str) -> Option<ScheduleRow>;
    USUAL due_schedules(now_ms: i64) -> Vec<ScheduleRow>;
    USUAL drills(limit: i64) -> Vec<DrillRow>;
    USUAL drill(id: &str) -> Option<DrillRow>;
}

guarded! { ReportStore:
    USUAL report(site: &str, id: &str) -> Option<ReportRow>;
    USUAL reports(site: Option<&str>, after: Option<&ReportPlace>, limit: i64) -> Vec<ReportRow>;
    USUAL reports_since(site: &str, since_ms: i64) -> i64;
}

guarded! { SecretStore:
    USUAL enrol_token(hash: &str) -> Option<EnrolRow>;
    USUAL use_enrol_token(hash: &str, fingerprint: &str, now_ms: i64) -> bool;
    USUAL site_link(hash: &str) -> Option<(String, i64)>;
}

#[async_trait::async_trait]
impl Backend for Guarded {
    async fn ping(&self) -> Result<()> {
        self.call(USUAL, self.inner.ping()).await
    }

    async fn close(&self) {
        if self.is_server {
            // Connections that hang are not waited for.
            let _ = tokio::time::timeout(LONG, self.inner.close()).await;
        } else {
            self.inner.close().await;
        }
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
}
