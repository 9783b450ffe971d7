//! Which site belongs to which live meeting, so that no site is in two.
//!
//! A fold over the meetings' events. A summons claims its site until the site declines, leaves or is found in
//! another meeting, or the meeting ends; the first claim stands. The shell stores the same as rows in the
//! transaction of the events; this is what it asks before it convenes, and what tests check it against.

use std::collections::BTreeMap;

use crate::ids::{MeetingId, SiteId};
use crate::meeting::{Event, Meeting};

/// The live claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    holders: BTreeMap<SiteId, MeetingId>,
}

impl Claims {
    /// No site is claimed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The claims of meetings as they stand; earlier ones in the list win.
    pub fn of<'a>(meetings: impl IntoIterator<Item = &'a Meeting>) -> Self {
        let mut claims = Self::new();
        for meeting in meetings.into_iter().filter(|m| m.is_live()) {
            for summons in meeting.summonses() {
                claims.set(meeting.id(), &summons.site, summons.holds_claim());
            }
        }
        claims
    }

    /// The meeting that a site belongs to.
    pub fn holder(&self, site: &str) -> Option<&MeetingId> {
        self.holders.get(site)
    }

    /// Takes in one event of a meeting.
    pub fn follow(&mut self, meeting: &MeetingId, event: &Event) {
        match event {
            Event::SummonsChanged { summons } => self.set(meeting, &summons.site, summons.holds_claim()),
            Event::Ended { .. } => self.holders.retain(|_, holder| holder != meeting),
            Event::Convened { .. } | Event::StageChanged { .. } => {}
        }
    }

    /// How many sites are claimed.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether no site is claimed.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    fn set(&mut self, meeting: &MeetingId, site: &SiteId, holds: bool) {
        if holds {
            self.holders
                .entry(site.clone())
                .or_insert_with(|| meeting.clone());
        } else if self.holders.get(site) == Some(meeting) {
            self.holders.remove(site);
        }
    }
}
