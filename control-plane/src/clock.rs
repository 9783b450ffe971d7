//! The one place that reads the wall clock; the domain gets its times from here.

use muster_domain::Millis;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The same, for the domain.
pub fn now() -> Millis {
    Millis(now_ms())
}
