//! The one place that reads the wall clock; the domain gets its times from here. Whoever needs the time is handed a
//! [`Clock`], so that all of a control plane can go by a time that a test holds.

use muster_domain::Millis;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// What tells the time.
#[derive(Debug, Clone, Copy, Default)]
pub enum Clock {
    #[default]
    Wall,
    /// Goes with the runtime's time, which a test may hold.
    Virtual { epoch: Instant },
}

impl Clock {
    /// Milliseconds since the Unix epoch; of a virtual clock since a day in 2020.
    pub fn now_ms(self) -> i64 {
        match self {
            Self::Wall => wall_ms(),
            Self::Virtual { epoch } => {
                1_580_000_000_000 + i64::try_from(epoch.elapsed().as_millis()).unwrap_or_default()
            }
        }
    }

    pub fn now(self) -> Millis {
        Millis(self.now_ms())
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
