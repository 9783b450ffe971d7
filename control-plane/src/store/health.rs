//! Whether the store answers, as far as this process knows.
//!
//! Invariant: it counts as away from the first call that found it so ([`super::StoreError::Unavailable`]), whoever made
//! that, and as back when the look for it, once a second, says so. It is knowledge, not a gate: no call is kept from it.

use tokio::sync::watch;

/// What is known of a store. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Health(watch::Sender<bool>);

impl Default for Health {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Health {
    /// Whether it answered when it was last looked at.
    pub fn is_ok(&self) -> bool {
        *self.0.borrow()
    }

    /// Notes that it answered, or did not; tells those who follow it where that is new.
    pub fn note(&self, ok: bool) {
        self.0
            .send_if_modified(|known| std::mem::replace(known, ok) != ok);
    }

    /// Tells of each change from now on; of several at once the last.
    pub fn follow(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}
