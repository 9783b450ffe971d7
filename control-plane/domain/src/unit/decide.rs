//! From an order to events, or to a refusal. Reads the administration, never changes it.

use std::collections::BTreeSet;

use super::{Administration, Order, Outcome, Preset, Record, Repeat, Schedule, UnitEvent, is_link};
use crate::authority::Grant;
use crate::ids::{AccountName, Millis, PlanId, SiteId, cut};
use crate::refusal::Refusal;
use crate::words::{Answer, Role};

/// Presets, and schedules, of one unit at most.
pub const MAX_PLANS: usize = 200;
/// A scheduled time that is further past than this (milliseconds) is not carried out any more: nobody expects a
/// meeting an hour late.
pub const LATE_MS: i64 = 15 * 60 * 1000;
/// The furthest time for which something is scheduled, in milliseconds from now: a year.
const FAR_MS: i64 = 366 * 24 * 3600 * 1000;
/// Names in the selector of a preset.
const MAX_NAMES: usize = 10_000;
const MAX_NAME: usize = 80;
const MAX_TITLE: usize = 200;
/// The longest reason kept of a scheduled time, in characters.
const MAX_REASON: usize = 300;
/// The most seconds to the deadline, and minutes to the end: a week.
const MAX_DEADLINE_S: u32 = 24 * 3600;
const MAX_MINUTES: u32 = 7 * 24 * 60;

impl Administration {
    /// The events that follow from an order at this time: to be stored and applied in this order. None, if it only
    /// repeats what is so.
    pub fn decide(&self, order: Order, now: Millis) -> Result<Vec<UnitEvent>, Refusal> {
        match order {
            Order::SavePreset { id, is_new, preset } => self.save_preset(id, is_new, preset),
            Order::DeletePreset { id } => self.delete_preset(id),
            Order::SaveSchedule { id, is_new, schedule } => self.save_schedule(id, is_new, schedule, now),
            Order::DeleteSchedule { id } => {
                self.known_schedule(&id)?;
                Ok(vec![UnitEvent::ScheduleDeleted { id }])
            }
            Order::Carried { id, due, outcome } => self.carried(id, due, outcome, now),
            Order::StartDrill { id, sites } => {
                if sites.is_empty() {
                    return Err(Refusal::NoSites);
                }
                unless(self.drill(&id).is_none(), Refusal::AlreadyDone)?;
                Ok(vec![UnitEvent::DrillStarted { id, sites }])
            }
            Order::EndDrill { id, mut drill } => match self.drill(&id) {
                None => Err(unknown("drill", &id)),
                Some(true) => Err(Refusal::AlreadyDone),
                Some(false) => {
                    drill.end(now);
                    Ok(vec![UnitEvent::DrillEnded { id, drill }])
                }
            },
            Order::SetAnswer { sites, answer } => self.set_answer(sites, answer),
            Order::Grant { account, grant } => self.grant(account, grant, now),
            Order::Revoke { account, role } => Ok(self.revoke(account, role)),
            Order::Record(record) => self.record(record),
        }
    }

    fn save_preset(&self, id: PlanId, is_new: bool, preset: Preset) -> Result<Vec<UnitEvent>, Refusal> {
        match (is_new, self.preset(&id)) {
            (true, Some(_)) => return Err(Refusal::AlreadyDone),
            (false, None) => return Err(unknown("preset", &id)),
            (false, Some(known)) if known == &preset => return Ok(Vec::new()),
            _ => {}
        }
        let is_full = is_new && self.presets.len() >= MAX_PLANS;
        unless(!is_full, too_many("presets", MAX_PLANS))?;
        check_preset(&preset)?;
        let name = preset.name.trim();
        let another = |(other, known): (&PlanId, &Preset)| *other != id && known.name.trim() == name;
        if self.presets().any(another) {
            let name = name.to_owned();
            return Err(Refusal::NameTaken { name });
        }
        Ok(vec![UnitEvent::PresetSaved { id, preset }])
    }

    fn delete_preset(&self, id: PlanId) -> Result<Vec<UnitEvent>, Refusal> {
        self.preset(&id).ok_or_else(|| unknown("preset", &id))?;
        let user = self
            .schedules()
            .find(|(_, schedule)| schedule.preset == id && schedule.next.is_some());
        match user {
            Some((schedule, _)) => Err(Refusal::PresetInUse {
                schedule: schedule.to_string(),
            }),
            None => Ok(vec![UnitEvent::PresetDeleted { id }]),
        }
    }

    fn known_schedule(&self, id: &PlanId) -> Result<&Schedule, Refusal> {
        self.schedule(id).ok_or_else(|| unknown("schedule", id))
    }

    fn save_schedule(
        &self,
        id: PlanId,
        is_new: bool,
        mut schedule: Schedule,
        now: Millis,
    ) -> Result<Vec<UnitEvent>, Refusal> {
        let known = self.schedule(&id);
        match (is_new, known) {
            (true, Some(_)) => return Err(Refusal::AlreadyDone),
            (false, None) => return Err(unknown("schedule", &id)),
            _ => {}
        }
        let is_full = is_new && self.schedules.len() >= MAX_PLANS;
        unless(!is_full, too_many("schedules", MAX_PLANS))?;
        let first = schedule.next.ok_or(Refusal::PastTime { field: "next_ms" })?;
        // A first time in the past is fine where it comes round: the next one is meant.
        let next = schedule.repeat.next(first, now);
        let next = next.ok_or(Refusal::PastTime { field: "next_ms" })?;
        unless(
            next <= now.plus(FAR_MS),
            Refusal::BadText {
                field: "next_ms",
                expected: "a time within a year from now",
            },
        )?;
        schedule.next = Some(next);
        schedule.last = known.and_then(|known| known.last.clone());
        if known == Some(&schedule) {
            return Ok(Vec::new());
        }
        Ok(vec![UnitEvent::ScheduleSaved { id, schedule }])
    }

    fn carried(
        &self,
        id: PlanId,
        due: Millis,
        outcome: Outcome,
        now: Millis,
    ) -> Result<Vec<UnitEvent>, Refusal> {
        let mut schedule = self.known_schedule(&id)?.clone();
        // Whoever is second has nothing to do.
        unless(schedule.next == Some(due), Refusal::AlreadyDone)?;
        schedule.next = match schedule.repeat {
            Repeat::Once => None,
            repeat => repeat.next(due, now.max(due)),
        };
        let outcome = match outcome {
            Outcome::Refused(reason) => Outcome::Refused(cut(&reason, MAX_REASON)),
            done => done,
        };
        schedule.last = Some((due, outcome));
        Ok(vec![UnitEvent::ScheduleSaved { id, schedule }])
    }

    fn set_answer(&self, sites: Vec<SiteId>, answer: Answer) -> Result<Vec<UnitEvent>, Refusal> {
        unless(!sites.is_empty(), Refusal::NoSites)?;
        let mut seen = BTreeSet::new();
        let sites = sites
            .into_iter()
            .filter(|site| seen.insert(site.clone()))
            .collect();
        // Also where it was set here before: a unit above may have set another since.
        Ok(vec![UnitEvent::AnswerSet { sites, answer }])
    }

    fn grant(&self, account: AccountName, grant: Grant, now: Millis) -> Result<Vec<UnitEvent>, Refusal> {
        unless(grant.counts(now), Refusal::PastTime { field: "expires_ms" })?;
        Ok(vec![UnitEvent::Granted { account, grant }])
    }

    /// Only the first use of a link is an event: it opens the page again with every reload.
    fn record(&self, record: Record) -> Result<Vec<UnitEvent>, Refusal> {
        match &record {
            Record::SecretUsed { identity } if is_link(identity) && !self.fresh_links.contains(identity) => {
                return Ok(Vec::new());
            }
            Record::Reported(report) => report.check()?,
            _ => {}
        }
        Ok(vec![UnitEvent::Recorded(record)])
    }

    /// Also of a role that was given at start and so is not known here.
    fn revoke(&self, account: AccountName, role: Role) -> Vec<UnitEvent> {
        vec![UnitEvent::Revoked { account, role }]
    }
}

fn unless(allowed: bool, refusal: Refusal) -> Result<(), Refusal> {
    if allowed { Ok(()) } else { Err(refusal) }
}

fn unknown(what: &'static str, id: &PlanId) -> Refusal {
    Refusal::UnknownPlan {
        what,
        id: id.to_string(),
    }
}

fn too_many(what: &'static str, limit: usize) -> Refusal {
    Refusal::TooManyPlans { what, limit }
}

fn check_preset(preset: &Preset) -> Result<(), Refusal> {
    let text = |field, text: &str, most: usize, may_be_empty: bool, expected| {
        let fits = text.chars().count() <= most && !text.chars().any(char::is_control);
        let fits = fits && (may_be_empty || !text.trim().is_empty());
        unless(fits, Refusal::BadText { field, expected })
    };
    let (name, title) = (
        "1 to 80 characters, no control characters",
        "200 characters at most, no control characters",
    );
    text("name", &preset.name, MAX_NAME, false, name)?;
    text("title", &preset.title, MAX_TITLE, true, title)?;
    let selector = &preset.selector;
    let lists = [
        &selector.subtrees,
        &selector.sites,
        &selector.tags,
        &selector.exclude_subtrees,
        &selector.exclude_sites,
    ];
    let names: usize = lists.iter().map(|list| list.len()).sum();
    unless(names + selector.tiers.len() > 0, Refusal::NoSites)?;
    unless(names <= MAX_NAMES, too_many("names in the selector", MAX_NAMES))?;
    let long = lists
        .iter()
        .flat_map(|list| list.iter())
        .any(|name| name.len() > MAX_TITLE);
    let fits = |field, fits, expected| unless(fits, Refusal::BadText { field, expected });
    fits("selector", !long, "names of 200 bytes at most")?;
    fits("deadline_s", preset.deadline_s <= MAX_DEADLINE_S, "86400 at most")?;
    fits("minutes", preset.minutes <= MAX_MINUTES, "10080 at most")?;
    let polls = preset.polling_s == 0 || (5..=600).contains(&preset.polling_s);
    fits("polling_s", polls, "0, or 5 to 600")
}
