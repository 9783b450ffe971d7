//! Every call of a back end, and what it says of the store's health.
//!
//! Invariant: no call passes by, so that a store that is away is known of with the first call that finds it so.
//! Answers and errors are passed on as they are.

use super::{
    AccountRow, AccountStore, Append, AuditRow, Backend, ChainHead, Claim, DamagedMeeting, DirectoryStore,
    DrillRow, EnrolRow, Health, KeptMeeting, LiveHead, LogStore, PlanStore, PresetRow, ReportPlace,
    ReportRow, ReportStore, Result, ScheduleRow, SecretStore, SeenRow, SessionRow, SiteRow, StoreError,
    StoredEvent, UnitAppend, UnitRow,
};
use std::sync::Arc;

pub(super) struct Guarded {
    pub inner: Arc<dyn Backend>,
    pub health: Health,
}

impl Guarded {
    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = call.await;
        if let Err(StoreError::Unavailable(_)) = &answer {
            self.health.note(false);
        }
        answer
    }
}

/// Each call of a part of the store.
macro_rules! guarded {
    ($part:ident: $($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait::async_trait]
        impl $part for Guarded {
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$answer> {
                self.call(self.inner.$name($($arg),*)).await
            })*
        }
    };
}

guarded! { AccountStore:
    password_hash(account: &str) -> Option<String>;
    account(name: &str) -> Option<AccountRow>;
    accounts() -> Vec<AccountRow>;
    add_session(token_hash: &str, account: &str, now_ms: i64, expires_ms: i64) -> ();
    session(token_hash: &str) -> Option<(String, i64)>;
    sessions(account: &str) -> Vec<SessionRow>;
    extend_session(token_hash: &str, expires_ms: i64) -> ();
    remove_session(token_hash: &str) -> ();
    audit(id: &str, row: &AuditRow) -> ();
    audit_rows(limit: i64) -> Vec<AuditRow>;
}

guarded! { DirectoryStore:
    units() -> Vec<UnitRow>;
    each_site(take: &mut (dyn FnMut(SiteRow) -> Result<()> + Send)) -> ();
    put_directory(units: &[UnitRow], sites: &[SiteRow]) -> ();
    seen() -> Vec<SeenRow>;
    put_seen(rows: &[SeenRow]) -> ();
}

guarded! { LogStore:
    append(append: &Append) -> ChainHead;
    events_page(stream: &str, seq: u64, limit: i64) -> Vec<StoredEvent>;
    head(stream: &str) -> ChainHead;
    streams() -> Vec<String>;
    kept_head(stream: &str) -> Option<ChainHead>;
    kept_meeting(meeting: &str) -> Option<KeptMeeting>;
    live_heads() -> Vec<LiveHead>;
    meetings_begun(after: u64, limit: i64) -> Vec<(u64, String)>;
    meeting_number(meeting: &str) -> Option<u64>;
    last_meeting() -> u64;
    quarantine(meeting: &str, reason: &str) -> ();
    damaged_meetings(limit: i64) -> Vec<DamagedMeeting>;
    ended_meetings(offset: i64, limit: i64) -> Vec<(String, Option<Vec<u8>>)>;
    final_state(meeting: &str) -> Option<Vec<u8>>;
    meeting_by_key(chair: &str, key: &str) -> Option<String>;
    claims() -> Vec<Claim>;
}

guarded! { PlanStore:
    append_unit(append: &UnitAppend) -> ChainHead;
    presets() -> Vec<PresetRow>;
    preset(id: &str) -> Option<PresetRow>;
    schedules() -> Vec<ScheduleRow>;
    schedule(id: &str) -> Option<ScheduleRow>;
    due_schedules(now_ms: i64) -> Vec<ScheduleRow>;
    drills(limit: i64) -> Vec<DrillRow>;
    drill(id: &str) -> Option<DrillRow>;
}

guarded! { ReportStore:
    report(site: &str, id: &str) -> Option<ReportRow>;
    reports(site: Option<&str>, after: Option<&ReportPlace>, limit: i64) -> Vec<ReportRow>;
    reports_since(site: &str, since_ms: i64) -> i64;
}

guarded! { SecretStore:
    enrol_token(hash: &str) -> Option<EnrolRow>;
    use_enrol_token(hash: &str, fingerprint: &str, now_ms: i64) -> bool;
    site_link(hash: &str) -> Option<(String, i64)>;
}

#[async_trait::async_trait]
impl Backend for Guarded {
    async fn ping(&self) -> Result<()> {
        self.call(self.inner.ping()).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
}
