//! The wall that goes round the sites by itself (轮巡): a page at a time, of those on air, in calling order.
//!
//! A page is what is shown now. The next one begins after its last site in calling order, whoever came or went in
//! between: so no site that is on air is left out, and the dead are skipped. Which sites are on air, and when time is
//! over, is told from outside.

use crate::ids::{Millis, SiteId};

/// The shortest and the longest interval, in milliseconds, and that of nobody's choice.
pub const MIN_INTERVAL_MS: i64 = 5_000;
pub const MAX_INTERVAL_MS: i64 = 600_000;
pub const DEFAULT_INTERVAL_MS: i64 = 10_000;
/// The most pictures of a page, and the number of nobody's choice.
pub const MAX_PER_PAGE: usize = 49;
pub const DEFAULT_PER_PAGE: usize = 9;

/// How a wall goes round, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polling {
    pub interval_ms: i64,
    pub per_page: usize,
    /// From 0, of `pages`; as it was when the page was turned.
    pub page: usize,
    pub pages: usize,
    /// The sites of this page, and of the next one, which a wall may load ahead; empty if there is no other.
    pub sites: Vec<SiteId>,
    pub next: Vec<SiteId>,
    /// When this page was turned to.
    pub turned: Millis,
    /// Held at this page.
    pub paused: bool,
}

/// The sites of a meeting in calling order, each with whether it is on air.
pub type Roster<'a> = &'a [(&'a SiteId, bool)];

impl Polling {
    /// At the first page.
    pub fn start(interval_ms: i64, per_page: usize, roster: Roster<'_>, now: Millis) -> Polling {
        let empty = Polling {
            interval_ms,
            per_page,
            page: 0,
            pages: 0,
            sites: Vec::new(),
            next: Vec::new(),
            turned: now,
            paused: false,
        };
        empty.at(0, roster, now)
    }

    /// The next page (or the one before), past the end the first again. Pages are those of who is on air now.
    pub fn turned(&self, forward: bool, roster: Roster<'_>, now: Millis) -> Polling {
        let alive = alive(roster);
        let start = if forward {
            self.next_start(&alive, roster)
        } else {
            self.start_before(&alive, roster)
        };
        self.at(start, roster, now.max(self.turned))
    }

    /// The same page with who has come on air since taken into its free places; none if nothing changes.
    pub fn refilled(&self, roster: Roster<'_>) -> Option<Polling> {
        if self.sites.len() >= self.per_page {
            return None;
        }
        let alive = alive(roster);
        let first = place(self.sites.first(), roster).unwrap_or(0);
        let start = alive.partition_point(|(place, _)| *place < first);
        let refilled = self.at(start, roster, self.turned);
        (refilled != *self).then_some(refilled)
    }

    /// When the page is to be turned; none while it is held, or where turning changes nothing.
    pub fn due(&self, roster: Roster<'_>) -> Option<Millis> {
        let due = self.turned.plus(self.interval_ms);
        let after = self.turned(true, roster, self.turned);
        (!self.paused && after != *self).then_some(due)
    }

    fn at(&self, start: usize, roster: Roster<'_>, turned: Millis) -> Polling {
        let alive = alive(roster);
        let per_page = self.per_page.max(1);
        let page_at = |start: usize| -> Vec<SiteId> {
            let page = alive.iter().skip(start).take(per_page);
            page.map(|(_, site)| (*site).clone()).collect()
        };
        let shown = Polling {
            page: start / per_page,
            pages: alive.len().div_ceil(per_page),
            sites: page_at(start),
            next: Vec::new(),
            turned,
            ..self.clone()
        };
        let next = if alive.len() > per_page {
            page_at(shown.next_start(&alive, roster))
        } else {
            Vec::new()
        };
        Polling { next, ..shown }
    }

    /// Where the page after this one begins among those on air.
    fn next_start(&self, alive: &[(usize, &SiteId)], roster: Roster<'_>) -> usize {
        let Some(last) = place(self.sites.last(), roster) else {
            return 0;
        };
        let start = alive.partition_point(|(place, _)| *place <= last);
        if start >= alive.len() { 0 } else { start }
    }

    fn start_before(&self, alive: &[(usize, &SiteId)], roster: Roster<'_>) -> usize {
        let first = place(self.sites.first(), roster).unwrap_or(0);
        let before = alive.partition_point(|(place, _)| *place < first);
        let per_page = self.per_page.max(1);
        if before == 0 {
            // From the first page to the last one.
            alive.len().saturating_sub(1) / per_page * per_page
        } else {
            before.saturating_sub(per_page)
        }
    }
}

/// The place of a site in calling order, on air or not: so a page whose sites have all gone is still somewhere.
fn place(site: Option<&SiteId>, roster: Roster<'_>) -> Option<usize> {
    let site = site?;
    roster.iter().position(|(member, _)| *member == site)
}

fn alive<'a>(roster: Roster<'a>) -> Vec<(usize, &'a SiteId)> {
    let on_air = roster.iter().enumerate().filter(|(_, (_, on_air))| *on_air);
    on_air.map(|(place, (site, _))| (place, *site)).collect()
}
