//! Calling sites: convening, calling again, adding, hanging up, and what endpoints report.

use std::collections::BTreeSet;

use super::decide::{changed, check_text};
use super::{Command, Event, MAX_SITES, Meeting};
use crate::ids::{Millis, SiteId, UnitId};
use crate::polling::{DEFAULT_PER_PAGE, Polling};
use crate::refusal::Refusal;
use crate::stage::{Layout, Stage};
use crate::summons::{Caller, Invitee, Report, Summons, SummonsState};
use crate::terms::{Fallback, Opening};

impl Meeting {
    pub(super) fn convene(&self, command: Command, now: Millis) -> Result<Vec<Event>, Refusal> {
        let Command::Convene {
            title,
            chair,
            unit,
            sites,
            idempotency_key,
            terms,
            opening,
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
        let own = Caller {
            meeting: self.id(),
            priority: terms.priority,
        };
        let named: Vec<SiteId> = sites.iter().map(|i| i.site.clone()).collect();
        let mut events = Vec::with_capacity(sites.len() + 2);
        let stage = opening_stage(&opening, &named, now);
        events.push(Event::Convened {
            at: now,
            title,
            chair,
            unit,
            sites: named,
            idempotency_key,
            terms,
        });
        events.extend(sites.iter().map(|i| changed(Summons::called(i, own, now))));
        events.extend(stage.map(|stage| Event::StageChanged { stage }));
        Ok(events)
    }

    pub(super) fn call_unconnected(&self, sites: &[Invitee], now: Millis) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        check_invitees(sites)?;
        let mut events = Vec::new();
        for invitee in sites {
            let summons = self.member(&invitee.site)?;
            events.extend(summons.called_again(invitee, self.caller(), now).map(changed));
        }
        Ok(events)
    }

    pub(super) fn add_sites(
        &self,
        mut sites: Vec<Invitee>,
        over: Option<(UnitId, UnitId)>,
        now: Millis,
    ) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if self.is_locked() {
            return Err(Refusal::Locked);
        }
        check_invitees(&sites)?;
        sites.retain(|invitee| self.summons(&invitee.site).is_none());
        let found = self.summonses().len() + sites.len();
        if found > MAX_SITES {
            let limit = MAX_SITES;
            return Err(Refusal::TooManySites { found, limit });
        }
        if sites.is_empty() {
            return Ok(Vec::new());
        }
        if over
            .as_ref()
            .is_some_and(|(believed, _)| self.unit() != Some(believed))
        {
            return Err(Refusal::UnitMoved);
        }
        let named: Vec<SiteId> = sites.iter().map(|i| i.site.clone()).collect();
        let added = named.clone();
        let mut events = vec![Event::SitesAdded {
            at: now,
            sites: named,
            unit: over.map(|(_, unit)| unit),
        }];
        events.extend(
            sites
                .iter()
                .map(|i| changed(Summons::called(i, self.caller(), now))),
        );
        // Where all are muted, so is who comes after.
        let muted = &self.stage().muted;
        if self.summonses().iter().all(|s| muted.contains(&s.site)) {
            events.extend(self.restage(|stage| stage.muted.extend(added))?);
        }
        Ok(events)
    }

    pub(super) fn hang_up(&self, sites: &[SiteId], now: Millis) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        if sites.is_empty() {
            return Err(Refusal::NoSites);
        }
        let named: BTreeSet<&SiteId> = sites.iter().collect();
        let mut events = Vec::new();
        for site in &named {
            events.extend(self.member(site)?.hung_up(now).map(changed));
        }
        // A picture that is taken out leaves the large one.
        let is_out = |site: &SiteId| named.contains(site);
        events.extend(self.restage(|stage| {
            stage.broadcast.take_if(|site| is_out(site));
            stage.watched.take_if(|site| is_out(site));
            stage.content.take_if(|seat| match seat {
                crate::stage::Seat::Site(site) => is_out(site),
                crate::stage::Seat::Desk(_) => false,
            });
        })?);
        Ok(events)
    }

    pub(super) fn report(&self, site: &SiteId, report: &Report, now: Millis) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        let summons = self.member(site)?;
        match report.state {
            SummonsState::Paged
            | SummonsState::OnAir
            | SummonsState::Unreachable
            | SummonsState::TimedOut
            | SummonsState::Left => Err(Refusal::NotAReport(report.state)),
            _ => Ok(self.summons_events(summons.reported(report, now), now)),
        }
    }

    pub(super) fn no_relay(&self, sites: &[SiteId], now: Millis) -> Result<Vec<Event>, Refusal> {
        if sites.is_empty() {
            return Ok(self.each(now, |s| s.no_relay(now)));
        }
        let mut events = Vec::new();
        for site in sites {
            events.extend(self.fact(site, now, |s| s.no_relay(now))?);
        }
        Ok(events)
    }

    pub(super) fn each(&self, now: Millis, change: impl Fn(&Summons) -> Option<Summons>) -> Vec<Event> {
        if !self.is_live() {
            return Vec::new();
        }
        let changes = self.summonses().iter().map(change);
        changes
            .flat_map(|summons| self.summons_events(summons, now))
            .collect()
    }

    /// A summons that changed, and its call for sound alone where that is what it falls back on.
    pub(super) fn summons_events(&self, summons: Option<Summons>, now: Millis) -> Vec<Event> {
        let Some(summons) = summons else {
            return Vec::new();
        };
        let known = self.summons(&summons.site);
        let was_coming =
            known.is_some_and(|known| matches!(known.state, SummonsState::Answered | SummonsState::Joining));
        let audio = summons
            .fallen_back(now)
            .filter(|_| was_coming && self.terms().fallback == Fallback::Audio);
        std::iter::once(summons).chain(audio).map(changed).collect()
    }
}

/// The stage to begin with; none where it is the plain one.
fn opening_stage(opening: &Opening, sites: &[SiteId], now: Millis) -> Option<Stage> {
    let per_page = opening.layout.map_or(DEFAULT_PER_PAGE, Layout::pictures);
    let roster: Vec<(&SiteId, bool)> = sites.iter().map(|site| (site, false)).collect();
    let stage = Stage {
        broadcast: opening.broadcast.clone().filter(|site| sites.contains(site)),
        muted: sites.iter().filter(|_| opening.mute_all).cloned().collect(),
        layout: opening.layout,
        polling: opening
            .polling_ms
            .map(|interval| Polling::start(super::show::interval(interval), per_page, &roster, now)),
        voice_switching: opening.voice_switching,
        ..Stage::default()
    };
    (stage != Stage::default()).then_some(stage)
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
