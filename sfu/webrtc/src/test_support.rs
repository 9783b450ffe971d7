//! For tests: where virtual time starts.

use std::time::Instant;

/// Some instant; tests count from it and never wait.
#[allow(clippy::disallowed_methods)]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
