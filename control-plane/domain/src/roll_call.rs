//! The roll call (点名): one site at a time, in calling order, with evidence for what is found.
//!
//! ```text
//! waiting -> called -> present      a person answered, and media was seen both ways
//!                   -> absent       media was seen both ways, and nobody answered in time
//!                   -> broken       on air, and media fails in one direction at least
//!         -> unreachable            not on air when its turn came, or no longer
//! ```
//! Invariant: at most one site is called at any time, and its microphone alone is open then (see
//! [`crate::Meeting::is_muted`]). A value with its transitions: each gives the entries that change. Who is on air, and
//! what was seen, is told from outside.

use std::collections::BTreeMap;

use crate::ids::{AccountName, Millis, SiteId};
use crate::meeting::Event;
use crate::summons::Reason;

/// The shortest and the longest time to answer, in seconds; 0 is without end.
pub const MIN_ANSWER_S: u32 = 3;
pub const MAX_ANSWER_S: u32 = 120;

/// What is known of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RollCallResult {
    /// Its turn has not come.
    Waiting,
    Called,
    Present,
    Absent,
    Unreachable,
    Broken,
}

impl RollCallResult {
    /// All of them, in order.
    pub const ALL: [RollCallResult; 6] = {
        use RollCallResult::*;
        [Waiting, Called, Present, Absent, Unreachable, Broken]
    };

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            RollCallResult::Waiting => "waiting",
            RollCallResult::Called => "called",
            RollCallResult::Present => "present",
            RollCallResult::Absent => "absent",
            RollCallResult::Unreachable => "unreachable",
            RollCallResult::Broken => "broken",
        }
    }
}

/// What a roll call found of one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollCallEntry {
    pub site: SiteId,
    pub result: RollCallResult,
    /// Media of the site was seen at the relay while it was called.
    pub seen_up: bool,
    /// The site received media while it was called.
    pub seen_down: bool,
    /// Who confirmed that a person was there: `site:ID`, or the account that heard them; empty if nobody did.
    pub acknowledged_by: String,
    pub called: Option<Millis>,
    /// When the result was found.
    pub answered: Option<Millis>,
    /// Why it is unreachable, where known.
    pub reason: Option<Reason>,
}

impl RollCallEntry {
    /// Its turn has not come.
    pub fn waiting(site: SiteId) -> Self {
        RollCallEntry {
            site,
            result: RollCallResult::Waiting,
            seen_up: false,
            seen_down: false,
            acknowledged_by: String::new(),
            called: None,
            answered: None,
            reason: None,
        }
    }

    fn seen_both(&self) -> bool {
        self.seen_up && self.seen_down
    }

    fn found(&self, result: RollCallResult, now: Millis) -> Self {
        RollCallEntry {
            result,
            answered: Some(now.max(self.called.unwrap_or(now))),
            ..self.clone()
        }
    }

    /// Time is over, or the caller goes on.
    fn closed(&self, now: Millis) -> Self {
        let result = match (self.seen_both(), self.acknowledged_by.is_empty()) {
            (false, _) => RollCallResult::Broken,
            (true, true) => RollCallResult::Absent,
            (true, false) => RollCallResult::Present,
        };
        self.found(result, now)
    }

    /// What is known so far may be all that is needed.
    fn settled(self, now: Millis) -> Self {
        if self.seen_both() && !self.acknowledged_by.is_empty() {
            self.found(RollCallResult::Present, now)
        } else {
            self
        }
    }
}

/// Whether a site can be called when its turn comes; if not, why.
pub type OnAir<'a> = &'a dyn Fn(&SiteId) -> Result<(), Option<Reason>>;

/// A roll call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollCall {
    /// Counts the roll calls of the meeting from 1.
    pub number: u32,
    pub by: AccountName,
    pub started: Millis,
    /// None while it goes on.
    pub ended: Option<Millis>,
    /// Seconds that each site has to answer; 0: until the caller goes on.
    pub answer_s: u32,
    /// In calling order.
    pub entries: Vec<RollCallEntry>,
}

impl RollCall {
    /// Of these sites, before the first is called.
    pub fn new(number: u32, by: AccountName, sites: Vec<SiteId>, answer_s: u32, now: Millis) -> Self {
        RollCall {
            number,
            by,
            started: now,
            ended: None,
            answer_s,
            entries: sites.into_iter().map(RollCallEntry::waiting).collect(),
        }
    }

    /// Whether it goes on.
    pub fn is_on(&self) -> bool {
        self.ended.is_none()
    }

    pub fn entry(&self, site: &str) -> Option<&RollCallEntry> {
        self.entries.iter().find(|entry| entry.site.as_str() == site)
    }

    /// The one that is called now.
    pub fn called(&self) -> Option<&RollCallEntry> {
        let mut entries = self.entries.iter().filter(|_| self.is_on());
        entries.find(|entry| entry.result == RollCallResult::Called)
    }

    /// When the called one's time is over.
    pub fn due(&self) -> Option<Millis> {
        let called = self.called()?.called?;
        (self.answer_s > 0).then(|| called.plus(i64::from(self.answer_s) * 1_000))
    }

    /// Calls the named site, or the next that waits; those that are not on air are unreachable at once, and the one
    /// after them is called. The last entry given is the one called; none of them is if nobody is left.
    pub fn call(&self, site: Option<&SiteId>, on_air: OnAir<'_>, now: Millis) -> Vec<RollCallEntry> {
        let waits = |entry: &&RollCallEntry| {
            entry.result == RollCallResult::Waiting && site.is_none_or(|named| *named != entry.site)
        };
        let named = site.and_then(|site| self.entry(site));
        let mut changed = Vec::new();
        for entry in named.into_iter().chain(self.entries.iter().filter(waits)) {
            let fresh = RollCallEntry {
                called: Some(now.max(self.started)),
                ..RollCallEntry::waiting(entry.site.clone())
            };
            match on_air(&entry.site) {
                Ok(()) => {
                    changed.push(RollCallEntry {
                        result: RollCallResult::Called,
                        ..fresh
                    });
                    return changed;
                }
                Err(reason) => changed.push(RollCallEntry {
                    reason,
                    ..fresh.found(RollCallResult::Unreachable, now)
                }),
            }
        }
        changed
    }

    /// The called one is done, as what is known of it says.
    pub fn close(&self, now: Millis) -> Option<RollCallEntry> {
        Some(self.called()?.closed(now))
    }

    /// The called one is no longer on air.
    pub fn lost(&self, reason: Option<Reason>, now: Millis) -> Option<RollCallEntry> {
        let lost = self.called()?.found(RollCallResult::Unreachable, now);
        Some(RollCallEntry { reason, ..lost })
    }

    /// Media was seen of the called site; none if that is known, or another one is called.
    pub fn evidence(&self, site: &SiteId, up: bool, down: bool, now: Millis) -> Option<RollCallEntry> {
        let called = self.called().filter(|entry| entry.site == *site)?;
        let seen = RollCallEntry {
            seen_up: called.seen_up || up,
            seen_down: called.seen_down || down,
            ..called.clone()
        };
        (seen != *called).then(|| seen.settled(now))
    }

    /// A person is there, says `by`; none if that is known, or another site is called.
    pub fn acknowledged(&self, site: &SiteId, by: String, now: Millis) -> Option<RollCallEntry> {
        let called = self.called().filter(|entry| entry.site == *site)?;
        if !called.acknowledged_by.is_empty() {
            return None;
        }
        let acknowledged = RollCallEntry {
            acknowledged_by: by,
            ..called.clone()
        };
        Some(acknowledged.settled(now))
    }

    /// Takes in a changed entry; one of a site that is not in it changes nothing.
    pub fn apply(&mut self, entry: &RollCallEntry) {
        if let Some(own) = self.entries.iter_mut().find(|own| own.site == entry.site) {
            *own = entry.clone();
        }
    }

    /// How many have each result.
    pub fn counts(&self) -> BTreeMap<RollCallResult, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            *counts.entry(entry.result).or_insert(0) += 1;
        }
        counts
    }

    /// All roll calls of a meeting, from its events in order.
    pub fn history<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<RollCall> {
        let mut calls: Vec<RollCall> = Vec::new();
        for event in events {
            match (event, calls.last_mut()) {
                (Event::RollCallStarted { roll_call }, _) => calls.push(roll_call.clone()),
                (Event::RollCallEntryChanged { entry }, Some(last)) => last.apply(entry),
                (Event::RollCallEnded { at, .. }, Some(last)) => last.ended = Some(*at),
                _ => {}
            }
        }
        calls
    }
}
