//! From a command to events, or to a refusal. Reads the meeting, never changes it.
//!
//! Commands of people and reports of endpoints are refused on a meeting that has ended; facts that trail in
//! from relays and endpoints then are no error and change nothing.

use std::collections::BTreeSet;

use super::{Command, Event, MAX_SITES, MAX_TEXT, Meeting, Stage};
use crate::ids::{Millis, SiteId};
use crate::refusal::Refusal;
use crate::summons::{Invitee, Report, Summons, SummonsState};

impl Meeting {
    /// The events that follow from a command at this time: to be stored and applied in this order. None, if it
    /// only repeats what is so.
    pub fn decide(&self, command: Command, now: Millis) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Convene { .. } => self.convene(command, now),
            Command::CallUnconnected { sites } => self.call_unconnected(&sites, now),
            Command::Broadcast { site } => self.broadcast(site),
            Command::Mute { sites, muted } => self.mute(&sites, muted),
            Command::End { reason } => {
                self.require_live()?;
                check_text("reason", &reason, true)?;
                Ok(vec![Event::Ended {
                    at: now.max(self.started().unwrap_or(now)),
                    reason,
                }])
            }
            Command::Report { site, report } => self.report(&site, &report, now),
            Command::EndpointAttached { site } => self.fact(&site, |s| s.attached(now)),
            Command::EndpointDetached { site } => self.fact(&site, |s| s.detached(now)),
            Command::LegJoining { site } => self.fact(&site, |s| s.leg_joining(now)),
            Command::LegOnAir { site } => self.fact(&site, |s| s.leg_on_air(now)),
            Command::LegSilent { site } => self.fact(&site, |s| s.leg_silent(now)),
            Command::LegEnded { site, end, reach } => self.fact(&site, |s| s.leg_ended(end, reach, now)),
            Command::NoRelay { sites } => self.no_relay(&sites, now),
            Command::Tick => Ok(self.tick(now)),
        }
    }

    fn convene(&self, command: Command, now: Millis) -> Result<Vec<Event>, Refusal> {
        let Command::Convene {
            title,
            chair,
            unit,
            sites,
            idempotency_key,
        } = command
        else {
            return Ok(Vec::new());
        };
        if self.ended().is_some() {
            return Err(Refusal::MeetingEnded);
        }
        if self.seq() > 0 {
            return Err(Refusal::AlreadyConvened);
        }
        check_text("title", &title, false)?;
        check_text("idempotency_key", &idempotency_key, true)?;
        if sites.is_empty() {
            return Err(Refusal::NoSites);
        }
        check_invitees(&sites)?;
        let mut events = Vec::with_capacity(sites.len() + 1);
        events.push(Event::Convened {
            at: now,
            title,
            chair,
            unit,
            sites: sites.iter().map(|i| i.site.clone()).collect(),
            idempotency_key,
        });
        events.extend(sites.iter().map(|i| changed(Summons::called(i, self.id(), now))));
        Ok(events)
    }

    fn call_unconnected(&self, sites: &[Invitee], now: Millis) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        check_invitees(sites)?;
        let mut events = Vec::new();
        for invitee in sites {
            let summons = self.member(&invitee.site)?;
            events.extend(summons.called_again(invitee, self.id(), now).map(changed));
        }
        Ok(events)
    }

    fn broadcast(&self, site: Option<SiteId>) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if let Some(site) = &site {
            self.member(site)?;
        }
        Ok(self.stage_event(Stage {
            broadcast: site,
            muted: self.stage().muted.clone(),
        }))
    }

    fn mute(&self, sites: &[SiteId], muted: bool) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        for site in sites {
            self.member(site)?;
        }
        let all = || {
            self.summonses()
                .iter()
                .map(|s| s.site.clone())
                .collect::<BTreeSet<_>>()
        };
        let named = if sites.is_empty() {
            all()
        } else {
            sites.iter().cloned().collect()
        };
        let before = &self.stage().muted;
        let after = if muted {
            before.union(&named).cloned().collect()
        } else {
            before.difference(&named).cloned().collect()
        };
        Ok(self.stage_event(Stage {
            broadcast: self.stage().broadcast.clone(),
            muted: after,
        }))
    }

    fn report(&self, site: &SiteId, report: &Report, now: Millis) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        let summons = self.member(site)?;
        match report.state {
            SummonsState::Paged
            | SummonsState::OnAir
            | SummonsState::Unreachable
            | SummonsState::TimedOut
            | SummonsState::Left => Err(Refusal::NotAReport(report.state)),
            _ => Ok(summons.reported(report, now).map(changed).into_iter().collect()),
        }
    }

    fn no_relay(&self, sites: &[SiteId], now: Millis) -> Result<Vec<Event>, Refusal> {
        if sites.is_empty() {
            return Ok(self.each(|s| s.no_relay(now)));
        }
        let mut events = Vec::new();
        for site in sites {
            events.extend(self.fact(site, |s| s.no_relay(now))?);
        }
        Ok(events)
    }

    fn tick(&self, now: Millis) -> Vec<Event> {
        self.each(|s| s.tick(&self.timeouts, now))
    }

    fn each(&self, change: impl Fn(&Summons) -> Option<Summons>) -> Vec<Event> {
        if !self.is_live() {
            return Vec::new();
        }
        self.summonses().iter().filter_map(change).map(changed).collect()
    }

    /// Something that happened whether or not anyone likes it: late for an ended meeting is no error.
    fn fact(
        &self,
        site: &SiteId,
        change: impl Fn(&Summons) -> Option<Summons>,
    ) -> Result<Vec<Event>, Refusal> {
        match self.require_live() {
            Err(Refusal::MeetingEnded) => return Ok(Vec::new()),
            other => other?,
        }
        Ok(change(self.member(site)?).map(changed).into_iter().collect())
    }

    fn member(&self, site: &SiteId) -> Result<&Summons, Refusal> {
        self.summons(site)
            .ok_or_else(|| Refusal::NotInMeeting(site.clone()))
    }

    fn stage_event(&self, stage: Stage) -> Vec<Event> {
        if &stage == self.stage() {
            Vec::new()
        } else {
            vec![Event::StageChanged { stage }]
        }
    }
}

fn changed(summons: Summons) -> Event {
    Event::SummonsChanged { summons }
}

fn check_invitees(sites: &[Invitee]) -> Result<(), Refusal> {
    if sites.len() > MAX_SITES {
        return Err(Refusal::TooManySites {
            found: sites.len(),
            limit: MAX_SITES,
        });
    }
    let mut seen = BTreeSet::new();
    match sites.iter().find(|i| !seen.insert(&i.site)) {
        Some(twice) => Err(Refusal::SiteTwice(twice.site.clone())),
        None => Ok(()),
    }
}

fn check_text(field: &'static str, text: &str, may_be_empty: bool) -> Result<(), Refusal> {
    let fits = text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control);
    if fits && (may_be_empty || !text.trim().is_empty()) {
        return Ok(());
    }
    let expected = if may_be_empty {
        "200 characters at most, no control characters"
    } else {
        "1 to 200 characters, no control characters"
    };
    Err(Refusal::BadText { field, expected })
}
