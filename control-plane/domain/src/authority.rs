//! Who may do what where. Every way in asks [`authorize`], and nothing else decides.
//!
//! A role is granted on a unit and holds for its subtree, never above or beside it. [`permits`] is the whole
//! table of roles and actions. The chair of a meeting may run it also where its sites reach across several
//! granted units, as long as a role of theirs permits the action at all.
//!
//! Who the actor is was proved before: this module checks no password and no session.

use std::collections::BTreeSet;
use std::fmt;

use crate::ids::{AccountName, SiteId, UnitId};
use crate::import::ImportPlan;
use crate::refusal::Refusal;
use crate::tree::Tree;
use crate::words::Role;

/// A role on a unit and all below. The unit need not exist yet: so the first import has somebody to do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub role: Role,
    pub unit: UnitId,
}

/// A person who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub account: AccountName,
    pub grants: Vec<Grant>,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// See units, sites, presence and meetings.
    View,
    /// Preview and convene.
    Convene,
    CallUnconnected,
    EndMeeting,
    Broadcast,
    Mute,
    /// Take part from one's own console.
    JoinAsDesk,
    ImportSites,
    /// Make a token with which an agent or a relay enrols.
    Enrol,
    /// Make a link that opens a site's join page.
    CreateSiteLink,
    ReadLog,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 11] = {
        use Action::*;
        [
            View,
            Convene,
            CallUnconnected,
            EndMeeting,
            Broadcast,
            Mute,
            JoinAsDesk,
            ImportSites,
            Enrol,
            CreateSiteLink,
            ReadLog,
        ]
    };
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::View => "see sites and meetings",
            Action::Convene => "convene",
            Action::CallUnconnected => "call the unconnected",
            Action::EndMeeting => "end the meeting",
            Action::Broadcast => "broadcast a site",
            Action::Mute => "mute sites",
            Action::JoinAsDesk => "join from the console",
            Action::ImportSites => "import sites",
            Action::Enrol => "enrol endpoints and relays",
            Action::CreateSiteLink => "make a link for a site",
            Action::ReadLog => "read the log",
        })
    }
}

/// What it is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Unit(UnitId),
    Site(SiteId),
    /// A meeting, by the unit that it was convened over and its chair.
    Meeting {
        unit: UnitId,
        chair: AccountName,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unit(unit) => write!(f, "unit {unit}"),
            Target::Site(site) => write!(f, "site {site}"),
            Target::Meeting { unit, .. } => write!(f, "a meeting of unit {unit}"),
        }
    }
}

/// Whether a role permits an action on its unit and below: the whole table.
pub fn permits(role: Role, action: Action) -> bool {
    use Action::*;
    match role {
        Role::Commander => true,
        Role::DutyOfficer => matches!(
            action,
            View | Convene | CallUnconnected | EndMeeting | Broadcast | Mute | JoinAsDesk | CreateSiteLink
        ),
        Role::Engineer => matches!(action, View | ImportSites | Enrol | CreateSiteLink),
        Role::Auditor => matches!(action, View | ReadLog),
    }
}

impl Actor {
    /// The units on which the actor may do this (each with its subtree), for selectors and views. By id,
    /// each once, none of them below another.
    pub fn units_for(&self, action: Action, tree: &Tree) -> Vec<UnitId> {
        let granted: BTreeSet<&UnitId> = self.granted(action).collect();
        let covered = |unit: &UnitId| granted.iter().any(|above| tree.is_ancestor(above, unit));
        granted
            .iter()
            .filter(|unit| !covered(unit))
            .map(|unit| (*unit).clone())
            .collect()
    }

    /// The unit over whose subtree a meeting of these sites is convened: the lowest of the actor's units that
    /// has all of them, else the first of them. None if the actor may not convene at all.
    pub fn convening_unit(&self, sites: &[SiteId], tree: &Tree) -> Option<UnitId> {
        let has_all = |unit: &UnitId| {
            sites.iter().all(|site| {
                tree.site(site)
                    .is_some_and(|site| tree.is_within(&site.unit, unit))
            })
        };
        let depth = |unit: &UnitId| tree.path(unit).len();
        let mut units: Vec<&UnitId> = self.granted(Action::Convene).collect();
        units.sort_by_key(|unit| (std::cmp::Reverse(depth(unit)), *unit));
        let lowest = units.iter().find(|unit| has_all(unit));
        lowest
            .copied()
            .cloned()
            .or_else(|| self.units_for(Action::Convene, tree).into_iter().next())
    }

    fn granted(&self, action: Action) -> impl Iterator<Item = &UnitId> {
        self.grants
            .iter()
            .filter(move |g| permits(g.role, action))
            .map(|g| &g.unit)
    }
}

/// Whether the actor may do this to that. The refusal says whether it is for want of a role, or of the place.
pub fn authorize(actor: &Actor, action: Action, target: &Target, tree: &Tree) -> Result<(), Refusal> {
    if actor.granted(action).next().is_none() {
        return Err(Refusal::NoRole { action });
    }
    let outside = || Refusal::OutsideAuthority {
        action,
        target: target.to_string(),
    };
    let covered = |unit: &UnitId| {
        actor
            .granted(action)
            .any(|granted| granted == unit || tree.is_within(unit, granted))
    };
    let allowed = match target {
        Target::Unit(unit) if !covered(unit) && tree.unit(unit).is_none() => {
            return Err(Refusal::UnknownUnit(unit.to_string()));
        }
        Target::Unit(unit) => covered(unit),
        Target::Site(site) => match tree.site(site) {
            None => return Err(Refusal::UnknownSite(site.to_string())),
            Some(site) => covered(&site.unit),
        },
        Target::Meeting { unit, chair } => chair == &actor.account || covered(unit),
    };
    if allowed { Ok(()) } else { Err(outside()) }
}

/// Whether the actor may carry out an import: everything it adds or changes must be in the actor's subtrees,
/// both where it is and where it goes.
pub fn authorize_import(actor: &Actor, plan: &ImportPlan, current: &Tree) -> Result<(), Refusal> {
    for unit in &plan.units {
        let target = Target::Unit(unit.id.clone());
        if current.unit(&unit.id).is_some() {
            authorize(actor, Action::ImportSites, &target, current)?;
        }
        authorize(actor, Action::ImportSites, &target, &plan.tree)?;
    }
    for site in &plan.sites {
        let target = Target::Site(site.id.clone());
        if current.site(&site.id).is_some() {
            authorize(actor, Action::ImportSites, &target, current)?;
        }
        authorize(actor, Action::ImportSites, &target, &plan.tree)?;
    }
    Ok(())
}
