//! Which site belongs to which live meeting, so that no site is in two.
//!
//! A fold over the meetings' events. A summons claims its site until the site declines, leaves or is found in
//! another meeting, or the meeting ends. Of two claims that of higher priority stands, of equals the one that the store
//! names. Invariant: what is known does not depend on the order in which the streams of several meetings were read, as
//! each changes its own claims only; so a meeting that was heard of late is beaten, and beats, as if it had been heard
//! of in time. The shell stores the same as rows in the transaction of the events; this is what it asks before it
//! convenes, and [`Claims::settle`] brings the rows back in where events alone do not tell. Who must look at its sites
//! again is said by [`Claims::beaten`] and [`returning`].

use std::collections::{BTreeMap, BTreeSet};
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

/// Those whose events claim one site, of the highest priority first; never empty.
#[derive(Clone, Debug)]
struct Claimants {
    list: Vec<Arc<Holder>>,
    /// The store says that the first of equals has it.
    settled: bool,
    /// One that had beaten the first has let the site go: whether the store has a row of the first is not known.
    unsure: bool,
}

impl Claimants {
    /// Whether two of the same rank claim the site, and the store was not asked who has it.
    fn is_open(&self) -> bool {
        let equals = match self.list.as_slice() {
            [first, second, ..] => first.priority == second.priority,
            _ => false,
        };
        self.unsure || (equals && !self.settled)
    }

    /// Those that have lost the site for certain.
    fn losers(&self) -> impl Iterator<Item = &Arc<Holder>> {
        let first = self.list.first();
        let lost = move |other: &&Arc<Holder>| {
            first.is_some_and(|first| other.priority < first.priority || self.settled)
        };
        self.list.iter().skip(1).filter(lost)
    }
}

/// The live claims. Equal, if the same meetings have the same sites.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    meetings: BTreeMap<MeetingId, Arc<Holder>>,
    sites: BTreeMap<SiteId, Claimants>,
}

impl PartialEq for Claims {
    fn eq(&self, other: &Self) -> bool {
        let holders = |claims: &Self| -> Vec<(SiteId, Option<Arc<Holder>>)> {
            let of = |(site, all): (&SiteId, &Claimants)| (site.clone(), all.list.first().cloned());
            claims.sites.iter().map(of).collect()
        };
        self.meetings == other.meetings && holders(self) == holders(other)
    }
}

impl Eq for Claims {}

impl Claims {
    /// No site is claimed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The claims of meetings as they stand; of equals earlier ones in the list win.
    pub fn of<'a>(meetings: impl IntoIterator<Item = &'a Meeting>) -> Self {
        let mut claims = Self::new();
        for meeting in meetings {
            claims.take_in(meeting);
        }
        claims
    }

    /// A meeting that was not known until now, as it stands.
    pub fn take_in(&mut self, meeting: &Meeting) {
        if !meeting.is_live() {
            return;
        }
        self.know(meeting.holder());
        for summons in meeting.summonses() {
            self.set(meeting.id(), summons);
        }
    }

    /// The meeting that a site belongs to.
    pub fn holder(&self, site: &str) -> Option<&MeetingId> {
        self.first(site).map(|holder| &holder.meeting)
    }

    /// The same, with its title and priority.
    pub fn claim(&self, site: &str) -> Option<Arc<Holder>> {
        self.first(site).cloned()
    }

    /// Whether the site belongs to this meeting, and the store is known to say so.
    pub fn is_stored(&self, site: &str, meeting: &MeetingId) -> bool {
        self.holder(site) == Some(meeting) && self.sites.get(site).is_some_and(|all| !all.unsure)
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
            Event::Ended { .. } => self.forget(meeting),
            _ => {}
        }
    }

    /// A meeting is over, or out of service: its claims are.
    pub fn forget(&mut self, meeting: &MeetingId) {
        self.meetings.remove(meeting);
        let held: Vec<SiteId> = self
            .sites
            .iter()
            .filter(|(_, all)| all.list.iter().any(|holder| holder.meeting == *meeting))
            .map(|(site, _)| site.clone())
            .collect();
        for site in held {
            self.drop_claim(meeting, &site);
        }
    }

    /// The store has taken these claims of the meeting.
    pub fn confirm<'a>(&mut self, meeting: &MeetingId, sites: impl IntoIterator<Item = &'a str>) {
        for site in sites {
            if let Some(all) = self.sites.get_mut(site)
                && all.list.first().is_some_and(|first| first.meeting == *meeting)
            {
                all.unsure = false;
            }
        }
    }

    /// The meetings that have lost one of these sites to a claim that stands, as far as events tell: those must look.
    pub fn beaten<'a>(&self, sites: impl IntoIterator<Item = &'a SiteId>) -> BTreeSet<MeetingId> {
        let all = sites.into_iter().filter_map(|site| self.sites.get(site.as_str()));
        all.flat_map(Claimants::losers)
            .map(|holder| holder.meeting.clone())
            .collect()
    }

    /// The same, of all sites.
    pub fn all_beaten(&self) -> BTreeSet<MeetingId> {
        self.beaten(self.sites.keys())
    }

    /// Whether the events do not tell who has a site, so that the store is to be asked.
    pub fn is_open(&self) -> bool {
        self.sites.values().any(Claimants::is_open)
    }

    /// Takes in what the store says of a site, where the events do not tell.
    pub fn settle(&mut self, site: &str, meeting: &str) {
        let Some(all) = self.sites.get_mut(site).filter(|all| all.is_open()) else {
            return;
        };
        let highest = all.list.first().map(|first| first.priority);
        let named =
            |holder: &Arc<Holder>| holder.meeting.as_str() == meeting && Some(holder.priority) == highest;
        // One that is not known yet will be.
        if let Some(at) = all.list.iter().position(named) {
            let holder = all.list.remove(at);
            all.list.insert(0, holder);
            all.settled = true;
            all.unsure = false;
        }
    }

    /// How many sites are claimed.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether no site is claimed.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    fn first(&self, site: &str) -> Option<&Arc<Holder>> {
        self.sites.get(site).and_then(|all| all.list.first())
    }

    fn know(&mut self, holder: Holder) {
        self.meetings.insert(holder.meeting.clone(), Arc::new(holder));
    }

    fn set(&mut self, meeting: &MeetingId, summons: &Summons) {
        let Some(own) = self.meetings.get(meeting) else {
            return;
        };
        if !summons.holds_claim() {
            let site = summons.site.clone();
            return self.drop_claim(meeting, &site);
        }
        let all = self.sites.entry(summons.site.clone()).or_insert(Claimants {
            list: Vec::with_capacity(1),
            settled: false,
            unsure: false,
        });
        if all.list.iter().any(|holder| holder.meeting == *meeting) {
            return;
        }
        let after = all.list.partition_point(|other| other.priority >= own.priority);
        all.list.insert(after, own.clone());
        all.settled = false;
        // Who comes in front has a row, or it would not have been stored.
        all.unsure &= after > 0;
    }

    fn drop_claim(&mut self, meeting: &MeetingId, site: &SiteId) {
        let Some(all) = self.sites.get_mut(site) else {
            return;
        };
        let Some(at) = all.list.iter().position(|holder| holder.meeting == *meeting) else {
            return;
        };
        all.list.remove(at);
        all.settled = false;
        all.unsure |= at == 0;
        if all.list.is_empty() {
            self.sites.remove(site);
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

/// The sites of a meeting that another has, of higher priority or because the store says so, and that it does not know
/// of yet: for [`crate::Command::SiteTaken`].
pub fn taken<'a>(losing: &'a Meeting, claims: &'a Claims) -> impl Iterator<Item = (&'a SiteId, Arc<Holder>)> {
    let believed = losing
        .summonses()
        .iter()
        .filter(|summons| losing.is_live() && summons.holds_claim());
    let own = losing.terms().priority;
    believed.filter_map(move |summons| {
        let all = claims.sites.get(&summons.site)?;
        let first = all.list.first()?;
        let lost = first.meeting != *losing.id() && (first.priority > own || all.settled);
        lost.then(|| (&summons.site, first.clone()))
    })
}
