//! Meetings that are being made known here, so that each is once: by who convenes it, or by who reads it after a hint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// A turn for each id; others are not waited for.
#[derive(Default)]
pub(super) struct Arriving(Mutex<HashMap<String, Turn>>);

impl Arriving {
    /// Waits until nobody else is at this meeting.
    pub async fn enter(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody is at are forgotten.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(id.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}
