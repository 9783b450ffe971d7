//! Who is heard: muting, the floor, the roll call.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::check_number;
use super::{Event, Meeting};
use crate::floor::Floor;
use crate::ids::{AccountName, Millis, SiteId};
use crate::refusal::Refusal;
use crate::roll_call::{MAX_ANSWER_S, MIN_ANSWER_S, RollCall, RollCallEntry};
use crate::summons::{Summons, SummonsState};

/// The longest time for which the floor is granted, in seconds.
const MAX_FLOOR_S: i64 = 86_400;

impl Meeting {
    pub(super) fn mute(&self, sites: &[SiteId], muted: bool) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        for site in sites {
            self.member(site)?;
        }
        let named: BTreeSet<SiteId> = if sites.is_empty() {
            self.summonses().iter().map(|s| s.site.clone()).collect()
        } else {
            sites.iter().cloned().collect()
        };
        self.restage(|stage| {
            if muted {
                stage.muted.extend(named);
            } else {
                stage.muted.retain(|site| !named.contains(site));
            }
        })
    }

    pub(super) fn request_floor(
        &self,
        site: &SiteId,
        withdraw: bool,
        now: Millis,
    ) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        let summons = self.member(site)?;
        if withdraw {
            return Ok(floor_event(self.floor().without(|r| r.site == *site)));
        }
        if summons.state != SummonsState::OnAir {
            return Err(Refusal::NotOnAir(site.clone()));
        }
        Ok(floor_event(self.floor().requested(site, now)))
    }

    pub(super) fn grant_floor(
        &self,
        site: &SiteId,
        seconds: u32,
        now: Millis,
    ) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        check_number("seconds", i64::from(seconds), 0..=MAX_FLOOR_S)?;
        if self.member(site)?.state != SummonsState::OnAir {
            return Err(Refusal::NotOnAir(site.clone()));
        }
        let until = (seconds > 0).then(|| now.plus(i64::from(seconds) * 1_000));
        Ok(floor_event(self.floor().granted(site, until, now)))
    }

    pub(super) fn take_floor(&self, site: &SiteId) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        self.member(site)?;
        Ok(floor_event(self.floor().without(|r| r.site == *site)))
    }

    pub(super) fn start_roll_call(
        &self,
        by: AccountName,
        answer_s: u32,
        sites: &[SiteId],
        now: Millis,
    ) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if answer_s != 0 {
            let bounds = i64::from(MIN_ANSWER_S)..=i64::from(MAX_ANSWER_S);
            check_number("answer_s", i64::from(answer_s), bounds)?;
        }
        if self.roll_call().is_some_and(RollCall::is_on) {
            return Err(Refusal::RollCallGoesOn);
        }
        for site in sites {
            self.member(site)?;
        }
        let named: BTreeSet<&SiteId> = sites.iter().collect();
        // In calling order, whatever the order in which they are named.
        let roster = self.summonses().iter().map(|s| &s.site);
        let roster = roster.filter(|site| named.is_empty() || named.contains(site));
        let number = self.roll_call().map_or(0, |last| last.number).saturating_add(1);
        let roll_call = RollCall::new(number, by, roster.cloned().collect(), answer_s, now);
        let called = self.call_next(&roll_call, None, None, &BTreeMap::new(), now);
        let started = Event::RollCallStarted { roll_call };
        Ok(std::iter::once(started).chain(called).collect())
    }

    pub(super) fn next_roll_call(&self, site: Option<&SiteId>, now: Millis) -> Result<Vec<Event>, Refusal> {
        let roll_call = self.require_roll_call()?;
        if let Some(site) = site.filter(|site| roll_call.entry(site).is_none()) {
            return Err(Refusal::NotInRollCall(site.clone()));
        }
        let done = roll_call.close(now);
        Ok(self.call_next(roll_call, done, site, &BTreeMap::new(), now))
    }

    pub(super) fn acknowledge(
        &self,
        site: &SiteId,
        by: Option<AccountName>,
        now: Millis,
    ) -> Result<Vec<Event>, Refusal> {
        let roll_call = self.require_roll_call()?;
        self.member(site)?;
        if roll_call.called().is_none_or(|called| called.site != *site) {
            // A second press, when the first one was enough.
            let answered = roll_call
                .entry(site)
                .is_some_and(|e| !e.acknowledged_by.is_empty());
            return match answered {
                true => Ok(Vec::new()),
                false => Err(Refusal::NotCalled(site.clone())),
            };
        }
        let by = by.map_or_else(|| format!("site:{site}"), |account| account.to_string());
        let entry = roll_call.acknowledged(site, by, now);
        Ok(self.entry_events(roll_call, entry, now))
    }

    pub(super) fn evidence(&self, site: &SiteId, up: bool, down: bool, now: Millis) -> Vec<Event> {
        let going_on = self.roll_call().filter(|_| self.is_live());
        going_on.map_or_else(Vec::new, |roll_call| {
            self.entry_events(roll_call, roll_call.evidence(site, up, down, now), now)
        })
    }

    pub(super) fn end_roll_call(&self, now: Millis) -> Result<Vec<Event>, Refusal> {
        self.require_roll_call()?;
        Ok(self.roll_call_over(now))
    }

    /// The end of the roll call that goes on, if one does: the called one is done, as what is known of it says.
    pub(super) fn roll_call_over(&self, now: Millis) -> Vec<Event> {
        let Some(roll_call) = self.roll_call().filter(|roll_call| roll_call.is_on()) else {
            return Vec::new();
        };
        let closed = roll_call.close(now);
        let entry = closed.map(|entry| Event::RollCallEntryChanged { entry });
        let over = Event::RollCallEnded {
            at: now.max(roll_call.started),
            number: roll_call.number,
        };
        entry.into_iter().chain([over]).collect()
    }

    /// A changed entry; once it has its result the next site is called.
    pub(super) fn entry_events(
        &self,
        roll_call: &RollCall,
        entry: Option<RollCallEntry>,
        now: Millis,
    ) -> Vec<Event> {
        self.entry_events_among(roll_call, entry, &BTreeMap::new(), now)
    }

    /// The same, where these summonses are about to change.
    pub(super) fn entry_events_among(
        &self,
        roll_call: &RollCall,
        entry: Option<RollCallEntry>,
        changed: &BTreeMap<SiteId, Summons>,
        now: Millis,
    ) -> Vec<Event> {
        match entry {
            Some(entry) if entry.answered.is_none() => vec![Event::RollCallEntryChanged { entry }],
            Some(done) => self.call_next(roll_call, Some(done), None, changed, now),
            None => Vec::new(),
        }
    }

    fn call_next(
        &self,
        roll_call: &RollCall,
        done: Option<RollCallEntry>,
        site: Option<&SiteId>,
        changed: &BTreeMap<SiteId, Summons>,
        now: Millis,
    ) -> Vec<Event> {
        let mut after = roll_call.clone();
        let mut entries = Vec::new();
        if let Some(done) = done {
            after.apply(&done);
            entries.push(done);
        }
        let can_be_called = |site: &SiteId| match changed.get(site).or(self.summons(site)) {
            Some(summons) if summons.state == SummonsState::OnAir => Ok(()),
            summons => Err(summons.and_then(|summons| summons.reason)),
        };
        for entry in after.call(site, &can_be_called, now) {
            after.apply(&entry);
            entries.push(entry);
        }
        let over = after.called().is_none().then(|| Event::RollCallEnded {
            at: now.max(roll_call.started),
            number: roll_call.number,
        });
        let entries = entries.into_iter();
        entries
            .map(|entry| Event::RollCallEntryChanged { entry })
            .chain(over)
            .collect()
    }

    fn require_roll_call(&self) -> Result<&RollCall, Refusal> {
        self.require_live()?;
        let roll_call = self.roll_call().filter(|roll_call| roll_call.is_on());
        roll_call.ok_or(Refusal::NoRollCall)
    }
}

pub(super) fn floor_event(floor: Option<Floor>) -> Vec<Event> {
    floor
        .map(|floor| Event::FloorChanged { floor })
        .into_iter()
        .collect()
}
