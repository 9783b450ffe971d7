//! Who may do what where, and until when. Every way in asks [`authorize`], and nothing else decides.
//!
//! A role is granted on a unit and holds for its subtree, never above or beside it, and only while its grant has not
//! run out: a delegation ends by itself, for everybody who asks after its time. [`permits`] is the whole table of roles
//! and actions. What concerns a meeting also depends on how the actor stands to it: the chair runs it, commanders of
//! its unit or above may, a unit above takes it over. The meeting's unit has all of its sites within it. Who has the
//! chair may also hold roles that together cover every site; a chair whose roles do so no more is chair in name only.
//!
//! Who the actor is was proved before: this module checks no password and no session. Whether a meeting's state allows
//! a verb (ended, locked) is the meeting's to say.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::ids::{AccountName, Millis, SiteId, UnitId};
use crate::import::ImportPlan;
use crate::refusal::Refusal;
use crate::tree::Tree;
use crate::words::Role;

/// A role on a unit and all below. The unit need not exist yet: so the first import has somebody to do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub role: Role,
    pub unit: UnitId,
    /// From this time on it counts for nothing; none: it lasts.
    pub expires: Option<Millis>,
}

impl Grant {
    /// One without end.
    pub fn lasting(role: Role, unit: UnitId) -> Grant {
        Grant {
            role,
            unit,
            expires: None,
        }
    }

    /// Whether it has not run out.
    pub fn counts(&self, now: Millis) -> bool {
        self.expires.is_none_or(|end| now < end)
    }

    /// Whether it lasts as long as something that ends then (none: never).
    fn lasts_until(&self, end: Option<Millis>) -> bool {
        match (self.expires, end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(end)) => end <= own,
        }
    }
}

/// A person who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub account: AccountName,
    /// Also those that have run out: who asks says what time it is.
    pub grants: Vec<Grant>,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident, $word:literal, $words:literal;)+) => {
        /// What can be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action { $($(#[$doc])* $variant),+ }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Action] = &[$(Action::$variant),+];

            /// The stable word for programs: what permissions are told in.
            pub fn as_str(self) -> &'static str {
                match self { $(Action::$variant => $word),+ }
            }
        }

        /// What one is told that one may not do: "take the meeting over".
        impl fmt::Display for Action {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Action::$variant => $words),+ })
            }
        }
    };
}

actions! {
    /// See units, sites, presence and meetings.
    View, "view", "see sites and meetings";
    /// Preview and convene.
    Convene, "convene", "convene";
    CallUnconnected, "call_unconnected", "call the unconnected";
    AddSites, "add_sites", "add sites";
    HangUp, "hang_up", "hang up";
    Mute, "mute", "mute sites";
    Broadcast, "broadcast", "broadcast a site";
    /// Layout, polling, voice switching, content.
    SetStage, "set_stage", "set the stage";
    WatchSite, "watch_site", "watch a site";
    RollCall, "roll_call", "call the roll";
    /// Give and take the floor.
    Floor, "floor", "give the floor";
    Lock, "lock", "lock the meeting";
    Extend, "extend", "extend the meeting";
    EndMeeting, "end_meeting", "end the meeting";
    RequestChair, "request_chair", "request the chair";
    /// Also: give it to one who requested it, or refuse.
    ReleaseChair, "release_chair", "release the chair";
    TakeOver, "take_over", "take the meeting over";
    HandBack, "hand_back", "hand the meeting back";
    /// Take part from one's own console.
    JoinAsDesk, "join_as_desk", "join from the console";
    ManagePresets, "manage_presets", "manage presets";
    Schedule, "schedule", "schedule meetings";
    Drill, "drill", "hold a drill";
    SetAnswerPolicy, "set_answer_policy", "set how sites answer";
    ImportSites, "import_sites", "import sites";
    /// Make a token with which an agent or a relay enrols.
    Enrol, "enrol", "enrol endpoints and relays";
    /// Make a link that opens a site's join page.
    CreateSiteLink, "create_site_link", "make a link for a site";
    ManageAccounts, "manage_accounts", "manage accounts";
    ReadLog, "read_log", "read the log";
}

impl Action {
    /// Whether it runs a meeting: for its chair, and for commanders of its unit or above.
    pub fn runs_meeting(self) -> bool {
        use Action::*;
        matches!(
            self,
            CallUnconnected
                | AddSites
                | HangUp
                | Mute
                | Broadcast
                | SetStage
                | WatchSite
                | RollCall
                | Floor
                | Lock
                | Extend
                | EndMeeting
        )
    }

    /// Whether it is done in a meeting, so that it is told as a permission there.
    pub fn in_meeting(self) -> bool {
        use Action::*;
        self.runs_meeting()
            || matches!(
                self,
                View | RequestChair | ReleaseChair | TakeOver | HandBack | JoinAsDesk | ReadLog
            )
    }
}

/// What it is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Unit(UnitId),
    Site(SiteId),
    /// A meeting: the unit that it was convened over, and who has its chair.
    Meeting {
        unit: UnitId,
        chair: AccountName,
        /// From whom the chair was taken over, until it is handed back.
        taken_from: Option<AccountName>,
        /// All of its sites.
        sites: Arc<[SiteId]>,
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
        Role::DutyOfficer => !matches!(
            action,
            SetAnswerPolicy | ImportSites | Enrol | ManageAccounts | ReadLog
        ),
        Role::Engineer => matches!(
            action,
            View | Drill | SetAnswerPolicy | ImportSites | Enrol | CreateSiteLink
        ),
        Role::Auditor => matches!(action, View | ReadLog),
    }
}

impl Actor {
    /// The units on which the actor may do this now (each with its subtree), for selectors and views. By id,
    /// each once, none of them below another.
    pub fn units_for(&self, action: Action, tree: &Tree, now: Millis) -> Vec<UnitId> {
        let granted: BTreeSet<&UnitId> = self.granted(action, now).map(|g| &g.unit).collect();
        let covered = |unit: &UnitId| granted.iter().any(|above| tree.is_ancestor(above, unit));
        granted
            .iter()
            .filter(|unit| !covered(unit))
            .map(|unit| (*unit).clone())
            .collect()
    }

    /// The unit over whose subtree a meeting of these sites is convened: the lowest of the actor's units that has all
    /// of them; where none has, the lowest unit at all that does, be it the actor's or not, so that whoever has only
    /// some of the sites never runs it.
    pub fn convening_unit(&self, sites: &[SiteId], tree: &Tree, now: Millis) -> Result<UnitId, Refusal> {
        let action = Action::Convene;
        if self.granted(action, now).next().is_none() {
            return Err(self.without_role(action, now));
        }
        self.lowest_over(action, sites, tree, now)
            .or_else(|| {
                tree.common_unit(
                    sites
                        .iter()
                        .filter_map(|site| tree.site(site))
                        .map(|site| &site.unit),
                )
            })
            .ok_or(Refusal::NoCommonUnit)
    }

    /// Under which of the actor's units something is written that is done to several sites at once: the lowest that
    /// has all of them, else the first.
    pub fn unit_over(&self, action: Action, sites: &[SiteId], tree: &Tree, now: Millis) -> Option<UnitId> {
        self.lowest_over(action, sites, tree, now)
            .or_else(|| self.units_for(action, tree, now).into_iter().next())
    }

    /// Why none of the roles permits it: one that did has run out, or there never was one.
    pub fn without_role(&self, action: Action, now: Millis) -> Refusal {
        self.ran_out(action, now, &|_| true)
            .unwrap_or(Refusal::NoRole { action })
    }

    fn ran_out(&self, action: Action, now: Millis, there: &dyn Fn(&Grant) -> bool) -> Option<Refusal> {
        let over = self
            .grants
            .iter()
            .filter(|grant| !grant.counts(now) && permits(grant.role, action) && there(grant));
        let at = over.filter_map(|grant| grant.expires).max()?;
        Some(Refusal::RoleRanOut { action, at })
    }

    fn lowest_over(&self, action: Action, sites: &[SiteId], tree: &Tree, now: Millis) -> Option<UnitId> {
        let has_all = |unit: &UnitId| {
            sites.iter().all(|site| {
                tree.site(site)
                    .is_some_and(|site| tree.is_within(&site.unit, unit))
            })
        };
        let depth = |unit: &UnitId| tree.path(unit).len();
        let mut units: Vec<&UnitId> = self.granted(action, now).map(|g| &g.unit).collect();
        units.sort_by_key(|unit| (std::cmp::Reverse(depth(unit)), *unit));
        units.into_iter().find(|unit| has_all(unit)).cloned()
    }

    /// The actions that may be done to this now. In a meeting only those that are done in meetings.
    pub fn permitted(&self, target: &Target, tree: &Tree, now: Millis) -> Vec<Action> {
        let in_meeting = matches!(target, Target::Meeting { .. });
        let may = |action: &Action| {
            (!in_meeting || action.in_meeting()) && authorize(self, *action, target, tree, now).is_ok()
        };
        Action::ALL.iter().copied().filter(may).collect()
    }

    /// The actions that may be done now to anything at all.
    pub fn permitted_anywhere(&self, now: Millis) -> Vec<Action> {
        let may = |action: &Action| self.granted(*action, now).next().is_some();
        Action::ALL.iter().copied().filter(may).collect()
    }

    /// When the next of the grants that count now runs out.
    pub fn next_expiry(&self, now: Millis) -> Option<Millis> {
        let counting = self.grants.iter().filter(|grant| grant.counts(now));
        counting.filter_map(|grant| grant.expires).min()
    }

    fn granted(&self, action: Action, now: Millis) -> impl Iterator<Item = &Grant> {
        self.grants
            .iter()
            .filter(move |g| g.counts(now) && permits(g.role, action))
    }
}

fn covers(grant: &Grant, unit: &UnitId, tree: &Tree) -> bool {
    &grant.unit == unit || tree.is_within(unit, &grant.unit)
}

/// Whether the actor may do this to that now. The refusal says whether it is for want of a role, of the place, or of
/// the chair.
pub fn authorize(
    actor: &Actor,
    action: Action,
    target: &Target,
    tree: &Tree,
    now: Millis,
) -> Result<(), Refusal> {
    if actor.granted(action, now).next().is_none() {
        return Err(actor.without_role(action, now));
    }
    let covering = |unit: &UnitId, how: &dyn Fn(&Grant) -> bool| {
        let mut grants = actor
            .granted(action, now)
            .filter(|grant| covers(grant, unit, tree));
        grants.any(how)
    };
    let within = match target {
        Target::Unit(unit) => covering(unit, &|_| true),
        Target::Meeting {
            unit,
            chair,
            taken_from,
            sites,
        } => {
            let is_party = chair == &actor.account || taken_from.as_ref() == Some(&actor.account);
            covering(unit, &|_| true) || is_party && covers_each(actor, action, sites, tree, now)
        }
        Target::Site(site) => match tree.site(site) {
            None => return Err(Refusal::UnknownSite(site.to_string())),
            Some(site) => covering(&site.unit, &|_| true),
        },
    };
    match target {
        Target::Unit(unit) if !within && tree.unit(unit).is_none() => {
            Err(Refusal::UnknownUnit(unit.to_string()))
        }
        _ if !within => {
            let there = |grant: &Grant| match target {
                Target::Unit(unit) | Target::Meeting { unit, .. } => covers(grant, unit, tree),
                Target::Site(site) => tree
                    .site(site)
                    .is_some_and(|site| covers(grant, &site.unit, tree)),
            };
            let outside = || Refusal::OutsideAuthority {
                action,
                target: target.to_string(),
            };
            Err(actor.ran_out(action, now, &there).unwrap_or_else(outside))
        }
        Target::Meeting {
            unit,
            chair,
            taken_from,
            ..
        } => {
            let standing = Standing {
                is_chair: chair == &actor.account,
                is_commander: covering(unit, &|grant| grant.role == Role::Commander),
                is_above: covering(unit, &|grant| tree.is_ancestor(&grant.unit, unit)),
                is_taken: taken_from.is_some(),
            };
            standing.may(action, unit)
        }
        _ => Ok(()),
    }
}

/// Whether roles that permit this cover the sites one by one; never of no sites.
fn covers_each(actor: &Actor, action: Action, sites: &[SiteId], tree: &Tree, now: Millis) -> bool {
    let covered = |id: &SiteId| {
        tree.site(id).is_some_and(|site| {
            actor
                .granted(action, now)
                .any(|grant| covers(grant, &site.unit, tree))
        })
    };
    !sites.is_empty() && sites.iter().all(covered)
}

/// Whether the actor's roles cover a meeting of this unit and these sites, so that the chair may be theirs.
pub fn may_chair(actor: &Actor, unit: &UnitId, sites: &Arc<[SiteId]>, tree: &Tree, now: Millis) -> bool {
    let as_chair = Target::Meeting {
        unit: unit.clone(),
        chair: actor.account.clone(),
        taken_from: None,
        sites: sites.clone(),
    };
    authorize(actor, Action::ReleaseChair, &as_chair, tree, now).is_ok()
}

/// Refuses to take away this grant of an account, or to put `after` in its place, where nobody else commands that tree as
/// long. All accounts are told with their grants.
pub fn leaves_a_commander(
    grant: &Grant,
    of: &AccountName,
    after: Option<&Grant>,
    all: &[Actor],
    tree: &Tree,
    now: Millis,
) -> Result<(), Refusal> {
    let is_top = tree.unit(&grant.unit).is_none_or(|unit| unit.parent.is_none());
    let shortens = after.is_none_or(|after| !after.lasts_until(grant.expires));
    if grant.role != Role::Commander || !is_top || !shortens || !grant.counts(now) {
        return Ok(());
    }
    let commands = |other: &Grant| {
        other.role == Role::Commander && other.unit == grant.unit && other.lasts_until(grant.expires)
    };
    let mut others = all.iter().filter(|actor| &actor.account != of);
    match others.any(|actor| actor.grants.iter().any(commands)) {
        true => Ok(()),
        false => Err(Refusal::LastCommander {
            unit: grant.unit.clone(),
        }),
    }
}

/// How somebody whose role covers a meeting's unit stands to the meeting.
struct Standing {
    is_chair: bool,
    is_commander: bool,
    /// A unit strictly above the meeting's.
    is_above: bool,
    is_taken: bool,
}

impl Standing {
    fn may(&self, action: Action, unit: &UnitId) -> Result<(), Refusal> {
        let unless = |allowed: bool, refusal: Refusal| if allowed { Ok(()) } else { Err(refusal) };
        let not_the_chair = Refusal::NotTheChair { action };
        match action {
            Action::ReleaseChair => unless(self.is_chair, not_the_chair),
            Action::HandBack => {
                unless(self.is_chair, not_the_chair)?;
                unless(self.is_taken, Refusal::NotTakenOver)
            }
            Action::RequestChair => unless(!self.is_chair, Refusal::IsTheChair),
            Action::TakeOver => {
                unless(!self.is_chair, Refusal::IsTheChair)?;
                let may = self.is_commander || self.is_above;
                unless(may, Refusal::NotAbove { unit: unit.clone() })
            }
            _ if action.runs_meeting() => unless(self.is_chair || self.is_commander, not_the_chair),
            _ => Ok(()),
        }
    }
}

/// Whether the actor may carry out an import: everything it adds or changes must be in the actor's subtrees,
/// both where it is and where it goes.
pub fn authorize_import(
    actor: &Actor,
    plan: &ImportPlan,
    current: &Tree,
    now: Millis,
) -> Result<(), Refusal> {
    let action = Action::ImportSites;
    for unit in &plan.units {
        let target = Target::Unit(unit.id.clone());
        if current.unit(&unit.id).is_some() {
            authorize(actor, action, &target, current, now)?;
        }
        authorize(actor, action, &target, &plan.tree, now)?;
    }
    for site in &plan.sites {
        let target = Target::Site(site.id.clone());
        if current.site(&site.id).is_some() {
            authorize(actor, action, &target, current, now)?;
        }
        authorize(actor, action, &target, &plan.tree, now)?;
    }
    Ok(())
}

/// Whether the actor may give this, or take it away: within own units, and not beyond the end of what they hold
/// there themselves. A grant that has run out is nobody's any more, so its end does not matter.
pub fn authorize_grant(actor: &Actor, grant: &Grant, tree: &Tree, now: Millis) -> Result<(), Refusal> {
    let action = Action::ManageAccounts;
    authorize(actor, action, &Target::Unit(grant.unit.clone()), tree, now)?;
    let end = if grant.counts(now) {
        grant.expires
    } else {
        Some(now)
    };
    let own = || {
        actor
            .granted(action, now)
            .filter(|own| covers(own, &grant.unit, tree))
    };
    if own().any(|own| own.lasts_until(end)) {
        return Ok(());
    }
    let until = own().filter_map(|own| own.expires).max().unwrap_or(now);
    Err(Refusal::BeyondOwnEnd { until })
}

/// Whether the actor may give an account with these grants a new password or name, or end its sessions: only who could
/// have given all that it may do. An account without grants may be managed by everybody who manages accounts.
pub fn authorize_account(actor: &Actor, grants: &[Grant], tree: &Tree, now: Millis) -> Result<(), Refusal> {
    let action = Action::ManageAccounts;
    if actor.granted(action, now).next().is_none() {
        return Err(actor.without_role(action, now));
    }
    grants
        .iter()
        .try_for_each(|grant| authorize_grant(actor, grant, tree, now))
}
