//! Which site belongs to which live meeting, so that no site is in two.
//!
//! A fold over the meetings' events. A summons claims its site until the site declines, leaves or is found in
//! another meeting, or the meeting ends. Of two claims that of higher priority stands, of equals the first. The shell
//! stores the same as rows in the transaction of the events; this is what it asks before it convenes, and what tests
//! check it against. Who is to be told of a site that moved is said by [`Claims::moved`] and [`returning`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{MeetingId, SiteId};
use crate::meeting::{Event, Meeting};
use crate::summons::Summons;
use crate::terms::Priority;

/// A live meeting as others see it that want one of its sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub meeting: MeetingId,
    pub title: String,
    pub priority: Priority,
}

/// The live claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    meetings: BTreeMap<MeetingId, Arc<Holder>>,
    holders: BTreeMap<SiteId, Arc<Holder>>,
}

impl Claims {
    /// No site is claimed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The claims of meetings as they stand; of equals earlier ones in the list win.
    pub fn of<'a>(meetings: impl IntoIterator<Item = &'a Meeting>) -> Self {
        let mut claims = Self::new();
        for meeting in meetings.into_iter().filter(|m| m.is_live()) {
            claims.know(meeting.holder());
            for summons in meeting.summonses() {
                claims.set(meeting.id(), summons);
            }
        }
        claims
    }

    /// The meeting that a site belongs to.
    pub fn holder(&self, site: &str) -> Option<&MeetingId> {
        self.holders.get(site).map(|holder| &holder.meeting)
    }

    /// The same, with its title and priority.
    pub fn claim(&self, site: &str) -> Option<Arc<Holder>> {
        self.holders.get(site).cloned()
    }

    /// Takes in one event of a meeting.
    pub fn follow(&mut self, meeting: &MeetingId, event: &Event) {
        match event {
            Event::Convened { title, terms, .. } => self.know(Holder {
                meeting: meeting.clone(),
                title: title.clone(),
                priority: terms.priority,
            }),
            Event::SummonsChanged { summons } => self.set(meeting, summons),
            Event::Ended { .. } => {
                self.meetings.remove(meeting);
                self.holders.retain(|_, holder| holder.meeting != *meeting);
            }
            _ => {}
        }
    }

    /// The sites that these events of a meeting take from others, by the meeting that loses them; told before the
    /// events are followed.
    pub fn moved(&self, meeting: &MeetingId, events: &[Event]) -> BTreeMap<MeetingId, Vec<SiteId>> {
        let mut moved: BTreeMap<MeetingId, Vec<SiteId>> = BTreeMap::new();
        for event in events {
            let Event::SummonsChanged { summons } = event else {
                continue;
            };
            let other = self.holders.get(&summons.site);
            let Some(other) = other.filter(|other| other.meeting != *meeting && summons.holds_claim()) else {
                continue;
            };
            let lost = moved.entry(other.meeting.clone()).or_default();
            if !lost.contains(&summons.site) {
                lost.push(summons.site.clone());
            }
        }
        moved
    }

    /// How many sites are claimed.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether no site is claimed.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    fn know(&mut self, holder: Holder) {
        self.meetings.insert(holder.meeting.clone(), Arc::new(holder));
    }

    fn set(&mut self, meeting: &MeetingId, summons: &Summons) {
        let Some(own) = self.meetings.get(meeting) else {
            return;
        };
        let held = self.holders.get(&summons.site);
        if summons.holds_claim() {
            if held.is_none_or(|other| other.priority < own.priority) {
                self.holders.insert(summons.site.clone(), own.clone());
            }
        } else if held.is_some_and(|held| held.meeting == *meeting) {
            self.holders.remove(&summons.site);
        }
    }
}

/// The sites that a meeting waits for and that their meeting no longer holds: to be called back with
/// [`crate::Command::SiteReturned`]. It waits for those that were taken from it, and for those that one of higher
/// priority had when they were called; for one of its own rank a person calls again.
pub fn returning<'a>(waiting: &'a Meeting, claims: &'a Claims) -> impl Iterator<Item = &'a SiteId> {
    let waits = waiting
        .summonses()
        .iter()
        .filter(|summons| waiting.is_live() && summons.is_elsewhere());
    let own = waiting.terms().priority;
    waits
        .filter(move |summons| {
            let other = summons.other.as_ref();
            let yields = summons.pages > 0 || other.is_some_and(|other| other.priority > own);
            yields && claims.holder(&summons.site) != other.map(|other| &other.meeting)
        })
        .map(|summons| &summons.site)
}

/// The sites of a meeting that a meeting of higher priority has, and that it does not know of yet: for
/// [`crate::Command::SiteTaken`].
pub fn taken<'a>(losing: &'a Meeting, claims: &'a Claims) -> impl Iterator<Item = (&'a SiteId, Arc<Holder>)> {
    let believed = losing
        .summonses()
        .iter()
        .filter(|summons| losing.is_live() && summons.holds_claim());
    believed.filter_map(|summons| {
        let holder = claims.claim(&summons.site)?;
        (holder.meeting != *losing.id()).then_some((&summons.site, holder))
    })
}
