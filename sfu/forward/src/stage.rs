//! The stage as the packet path needs it: whose camera everyone is shown, and who is muted.
//!
//! The highest version wins, whatever the order of arrival. Who may set a stage is not decided here.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::types::Stage;

#[derive(Debug, Default)]
pub(crate) struct StageState {
    version: Option<u64>,
    showing: Option<Arc<str>>,
    muted: BTreeSet<Arc<str>>,
}

impl StageState {
    /// False if the document is not newer than what is known.
    pub fn set(&mut self, stage: Stage) -> bool {
        if self.version.is_some_and(|known| stage.version <= known) {
            return false;
        }
        self.version = Some(stage.version);
        let broadcast = stage.broadcast.filter(|site| !site.is_empty());
        self.showing = broadcast.or_else(|| Some(stage.chair).filter(|site| !site.is_empty()));
        self.muted = stage.muted.into_iter().collect();
        true
    }

    /// The site in the large picture.
    pub fn showing(&self) -> Option<&Arc<str>> {
        self.showing.as_ref()
    }

    pub fn is_muted(&self, site: &str) -> bool {
        self.muted.contains(site)
    }
}
