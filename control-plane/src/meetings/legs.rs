//! What relays say of the legs of a meeting's sites, and which relay each site is on.
//!
//! Invariant: a relay speaks for its own legs only. What is known of them outlives a restart, as the stored events
//! name the relay. What a summons makes of it is the domain's.

use super::LegFact;
use super::actor::{MeetingActor, SYSTEM};
use super::draft::Draft;
use muster_domain::{Claims, Command, Event, LegEnd, Reach, Reason, SiteId, SummonsState};
use muster_proto::command::v1 as pb;
use std::collections::HashMap;

/// Where a site's leg is, as far as relays told.
pub(crate) struct Leg {
    pub relay: String,
    /// `None` of a leg from before the start: events do not hold its name.
    pub id: Option<String>,
}

/// Takes from a stored event which relay a site is on.
pub(crate) fn follow_leg(legs: &mut HashMap<SiteId, Leg>, actor: &str, event: &Event) {
    let Event::SummonsChanged { summons } = event else {
        return;
    };
    match actor.strip_prefix("relay:") {
        Some(relay) if matches!(summons.state, SummonsState::Joining | SummonsState::OnAir) => {
            let relay = relay.to_owned();
            legs.insert(summons.site.clone(), Leg { relay, id: None });
        }
        // Still there, as far as others can say.
        None if summons.state == SummonsState::OnAir => {}
        _ => {
            legs.remove(&summons.site);
        }
    }
}

impl MeetingActor {
    /// The legs that sites had before the start.
    pub fn resume_legs(&mut self, legs: HashMap<SiteId, Leg>) {
        self.legs = legs;
    }

    pub(super) fn leg(&mut self, relay: &str, fact: &LegFact, claims: &Claims, draft: &mut Draft) {
        let elsewhere = claims.holder(&fact.site);
        if elsewhere.is_some_and(|holder| holder != self.meeting.id())
            || self.meeting.summons(&fact.site).is_none()
        {
            return;
        }
        let (site, by) = (fact.site.clone(), format!("relay:{relay}"));
        if matches!(fact.state, pb::LegState::Joining | pb::LegState::OnAir) {
            self.legs.insert(
                site.clone(),
                Leg {
                    relay: relay.to_owned(),
                    id: Some(fact.leg.clone()),
                },
            );
        }
        match fact.state {
            pb::LegState::Joining => self.by(Command::LegJoining { site }, &by, draft),
            pb::LegState::OnAir => self.by(Command::LegOnAir { site }, &by, draft),
            pb::LegState::Silent => self.by(Command::LegSilent { site }, &by, draft),
            pb::LegState::Left => {
                // The end of a leg that another one has replaced already says nothing.
                let known = self.legs.get(&site).and_then(|leg| leg.id.as_ref());
                if known.is_none_or(|id| *id == fact.leg) {
                    self.leg_ended(site, LegEnd::from_words(&fact.reason), &by, draft);
                }
            }
            pb::LegState::Unspecified => {}
        }
    }

    pub(super) fn leg_ended(&mut self, site: SiteId, end: LegEnd, by: &str, draft: &mut Draft) {
        self.legs.remove(&site);
        let reach = self.shared.endpoints.reach(&site);
        self.by(Command::LegEnded { site, end, reach }, by, draft);
    }

    pub(super) fn relay_back(&mut self, relay: &str, legs: &[LegFact], claims: &Claims, draft: &mut Draft) {
        for leg in legs {
            self.leg(relay, leg, claims, draft);
        }
        let there = |leg: Option<&Leg>| leg.is_some_and(|leg| leg.relay == relay);
        for site in self.sites_with_leg(there) {
            if !legs.iter().any(|leg| leg.site == site) {
                self.leg_ended(site, LegEnd::Lost, SYSTEM, draft);
            }
        }
        // Those that could not be sent anywhere are called again.
        let stranded = |summons: &&muster_domain::Summons| summons.reason == Some(Reason::NoRelay);
        let sites: Vec<SiteId> = self
            .meeting
            .summonses()
            .iter()
            .filter(stranded)
            .map(|summons| summons.site.clone())
            .collect();
        for site in sites {
            if self.shared.endpoints.reach(&site) == Reach::Online {
                self.system(Command::EndpointAttached { site }, draft);
            }
        }
    }

    /// Sites on air, and those joining whose leg a relay has shown, of which the leg is as asked.
    pub(super) fn sites_with_leg(&self, of: impl Fn(Option<&Leg>) -> bool) -> Vec<SiteId> {
        let has_leg = |summons: &&muster_domain::Summons| {
            let leg = self.legs.get(&summons.site);
            match summons.state {
                SummonsState::OnAir => of(leg),
                SummonsState::Joining => leg.is_some() && of(leg),
                _ => false,
            }
        };
        self.meeting
            .summonses()
            .iter()
            .filter(has_leg)
            .map(|summons| summons.site.clone())
            .collect()
    }
}
