//! What relays say of the legs of a meeting's sites, and which relay each site is on.
//!
//! Invariants: a relay speaks for its own legs only, and one that the meeting was moved away from only for sites that
//! have not come to the next. What is known of legs is the same at every replica and outlives a restart, as the stored
//! events name the relay: also of a leg that moves while its site is on air. What a summons makes of it is the domain's.

use super::LegFact;
use super::actor::{MeetingActor, SYSTEM};
use super::draft::Draft;
use muster_domain::{Claims, Command, Event, LegEnd, Reach, Reason, SiteId, SummonsState};
use muster_proto::command::v1 as pb;
use std::collections::{HashMap, HashSet};

/// Where a site's leg is, as far as relays told.
struct Leg {
    relay: String,
    /// `None` of a leg that another replica, or the time before the start, knows by name: events do not hold it.
    id: Option<String>,
    /// The relay that the log names; empty: none yet.
    logged: String,
}

/// The legs of a meeting's sites.
#[derive(Default)]
pub(crate) struct Legs {
    of: HashMap<SiteId, Leg>,
    /// Relays that the meeting was placed on before: what they say counts for sites that never came to the next.
    left: HashSet<String>,
    /// Legs with media as the relays that dial in here told last, whatever a meeting made of it.
    shown: HashMap<SiteId, (String, LegFact)>,
}

impl Legs {
    /// Takes from a stored event which relay a site is on.
    pub fn follow(&mut self, actor: &str, event: &Event) {
        if let Event::Placed { placement, before } = event {
            self.left.remove(&placement.relay);
            if !before.is_empty() && *before != placement.relay {
                self.left.insert(before.clone());
            }
        }
        let Event::SummonsChanged { summons } = event else {
            return;
        };
        match actor.strip_prefix("relay:") {
            Some(relay) if matches!(summons.state, SummonsState::Joining | SummonsState::OnAir) => {
                let known = self.of.remove(&summons.site).filter(|leg| leg.relay == relay);
                let leg = Leg {
                    relay: relay.to_owned(),
                    id: known.and_then(|leg| leg.id),
                    logged: relay.to_owned(),
                };
                self.of.insert(summons.site.clone(), leg);
            }
            // Still there, as far as others can say.
            None if summons.state == SummonsState::OnAir => {}
            _ => {
                self.of.remove(&summons.site);
            }
        }
    }

    /// Takes in what was stored here; legs that were told meanwhile keep their names.
    pub fn follow_own(&mut self, draft: &Draft) {
        let touched = draft.touched.iter();
        let named: Vec<(SiteId, String, Option<String>)> = touched
            .filter_map(|site| {
                let leg = self.of.get(site)?;
                Some((site.clone(), leg.relay.clone(), leg.id.clone()))
            })
            .collect();
        for (wire, event) in draft.wire.iter().zip(&draft.events) {
            self.follow(&wire.actor, event);
        }
        for (site, relay, id) in named {
            if let Some(leg) = self.of.get_mut(&site).filter(|leg| leg.relay == relay) {
                leg.id = id;
            }
        }
    }

    /// A relay has no legs any more.
    pub fn forget(&mut self, relay: &str) {
        self.shown.retain(|_, (by, _)| by != relay);
    }

    /// The relays that have legs.
    pub fn relays(&self) -> impl Iterator<Item = &str> {
        self.of.values().map(|leg| leg.relay.as_str())
    }

    fn relay_of(&self, site: &SiteId) -> Option<&str> {
        self.of.get(site).map(|leg| leg.relay.as_str())
    }

    /// Whether the relay is one that the meeting has left, and the site too.
    fn is_over(&self, relay: &str, site: &SiteId) -> bool {
        self.left.contains(relay) && self.relay_of(site) != Some(relay)
    }

    /// Keeps in mind what a relay shows.
    fn note(&mut self, relay: &str, fact: &LegFact) {
        match fact.state {
            pb::LegState::OnAir => {
                let shown = (relay.to_owned(), fact.clone());
                self.shown.insert(fact.site.clone(), shown);
            }
            pb::LegState::Left => {
                let same = |(by, known): &(String, LegFact)| by == relay && known.leg == fact.leg;
                if self.shown.get(&fact.site).is_some_and(same) {
                    self.shown.remove(&fact.site);
                }
            }
            _ => {}
        }
    }

    /// Of these sites those that a relay of the meeting shows with media all the same.
    pub fn still_there(&self, sites: &[SiteId]) -> Vec<(String, LegFact)> {
        let shown = sites.iter().filter_map(|site| self.shown.get(site));
        shown
            .filter(|(relay, _)| !self.left.contains(relay))
            .cloned()
            .collect()
    }
}

impl MeetingActor {
    pub(super) fn leg(&mut self, relay: &str, fact: &LegFact, claims: &Claims, draft: &mut Draft) {
        // Also of a site that is another meeting's, as far as is known here: it may be this one's already.
        self.legs.note(relay, fact);
        let elsewhere = claims.holder(&fact.site);
        if elsewhere.is_some_and(|holder| holder != self.meeting.id()) {
            return;
        }
        let Some(summons) = self.meeting.summons(&fact.site) else {
            return;
        };
        let is_in = matches!(summons.state, SummonsState::Joining | SummonsState::OnAir);
        if self.legs.is_over(relay, &fact.site) {
            return;
        }
        let (site, by) = (fact.site.clone(), format!("relay:{relay}"));
        if matches!(fact.state, pb::LegState::Joining | pb::LegState::OnAir) {
            let logged = self
                .legs
                .of
                .remove(&site)
                .map(|leg| leg.logged)
                .unwrap_or_default();
            let moved = !logged.is_empty() && logged != relay;
            let leg = Leg {
                relay: relay.to_owned(),
                id: Some(fact.leg.clone()),
                logged,
            };
            self.legs.of.insert(site.clone(), leg);
            if moved && is_in {
                self.by(Command::LegMoved { site: site.clone() }, &by, draft);
            }
        }
        match fact.state {
            pb::LegState::Joining => self.by(Command::LegJoining { site }, &by, draft),
            pb::LegState::OnAir => self.by(Command::LegOnAir { site }, &by, draft),
            pb::LegState::Silent => self.by(Command::LegSilent { site }, &by, draft),
            pb::LegState::Left => {
                // The end of a leg that another one has replaced already says nothing.
                let known = self.legs.of.get(&site).and_then(|leg| leg.id.as_ref());
                if known.is_none_or(|id| *id == fact.leg) {
                    self.leg_ended(site, LegEnd::from_words(&fact.reason), &by, draft);
                }
            }
            pb::LegState::Unspecified => {}
        }
    }

    pub(super) fn leg_ended(&mut self, site: SiteId, end: LegEnd, by: &str, draft: &mut Draft) {
        let reach = self.shared.endpoints.reach(&site);
        self.by(Command::LegEnded { site, end, reach }, by, draft);
    }

    pub(super) fn relay_back(&mut self, relay: &str, legs: &[LegFact], claims: &Claims, draft: &mut Draft) {
        for leg in legs {
            self.leg(relay, leg, claims, draft);
        }
        self.legs
            .shown
            .retain(|site, (by, _)| by != relay || legs.iter().any(|leg| leg.site == *site));
        for site in self.sites_with_leg(|leg| leg == Some(relay)) {
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

    /// Sites on air, and those joining whose leg a relay has shown, of which the leg is at a relay as asked.
    pub(super) fn sites_with_leg(&self, of: impl Fn(Option<&str>) -> bool) -> Vec<SiteId> {
        let has_leg = |summons: &&muster_domain::Summons| {
            let leg = self.legs.relay_of(&summons.site);
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
