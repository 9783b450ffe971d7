//! The part of the tree that somebody sees, or watches of what they see.
//!
//! It is runs of places in one tree, so that it costs the same whether a street or the whole city is in it. After a
//! change of the tree or of grants it is made anew.

use crate::convert::{site_to_wire, unit_to_wire};
use muster_domain::{Action, Actor, Meeting, Millis, Places, Tree, UnitId};
use muster_proto::command::v1 as pb;

/// Units and sites that somebody may see.
pub struct Visible {
    pub units: Vec<pb::Unit>,
    pub sites: Vec<pb::Site>,
}

/// Places of units and of sites in one tree.
#[derive(Debug, Default)]
pub struct Scope {
    units: Places,
    sites: Places,
}

impl Scope {
    /// What the actor may see at this time of these units and of what is below them; of no units: of the whole tree.
    pub fn of(actor: &Actor, tree: &Tree, only: &[UnitId], now: Millis) -> Self {
        let seen = actor.units_for(Action::View, tree, now);
        let (units, sites) = (Places::of_units(tree, &seen), Places::of_sites(tree, &seen));
        if only.is_empty() {
            return Self { units, sites };
        }
        Self {
            units: units.common(&Places::of_units(tree, only)),
            sites: sites.common(&Places::of_sites(tree, only)),
        }
    }

    /// Places of the sites.
    pub fn sites(&self) -> &Places {
        &self.sites
    }

    pub fn has_site(&self, tree: &Tree, site: &str) -> bool {
        tree.site_place(site)
            .is_some_and(|place| self.sites.contains(place))
    }

    fn has_unit(&self, tree: &Tree, unit: &str) -> bool {
        tree.unit_place(unit)
            .is_some_and(|place| self.units.contains(place))
    }

    /// Whether the meeting is of a unit of it, or one of its sites was called to it.
    pub fn touches(&self, tree: &Tree, meeting: &Meeting) -> bool {
        meeting.unit().is_some_and(|unit| self.has_unit(tree, unit))
            || meeting
                .summonses()
                .iter()
                .any(|summons| self.has_site(tree, &summons.site))
    }

    /// The same of a meeting as it is told.
    pub fn touches_wire(&self, tree: &Tree, meeting: &pb::Meeting) -> bool {
        self.has_unit(tree, &meeting.unit)
            || meeting
                .summonses
                .iter()
                .any(|summons| self.has_site(tree, &summons.site))
    }

    /// Its units and sites, in tree order.
    pub fn visible(&self, tree: &Tree) -> Visible {
        let ids = self
            .units
            .runs()
            .iter()
            .filter_map(|run| tree.unit_ids().get(run.clone()));
        let units = ids.flatten().filter_map(|id| tree.unit(id)).map(unit_to_wire);
        let sites = self
            .sites
            .runs()
            .iter()
            .flat_map(|run| tree.sites_at(run.clone()));
        Visible {
            units: units.collect(),
            sites: sites.map(site_to_wire).collect(),
        }
    }
}
