//! Why a command was not accepted: one closed set for the whole domain.
//!
//! `code()` is stable and what the console translates; `Display` is the English sentence. A refusal changes
//! nothing.

use std::fmt;

use crate::authority::Action;
use crate::ids::{AccountName, MeetingId, Millis, SiteId, UnitId};
use crate::summons::SummonsState;

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No role of the account permits this at all.
    NoRole {
        action: Action,
    },
    /// A role that permitted it there has run out.
    RoleRanOut {
        action: Action,
        at: Millis,
    },
    /// A role permits it, but not on this unit, site or meeting.
    OutsideAuthority {
        action: Action,
        target: String,
    },
    /// It is for the chair of the meeting, or for a commander of its unit or above.
    NotTheChair {
        action: Action,
    },
    /// The account has no role any more, or never had one, that covers the whole meeting.
    MayNotChair(AccountName),
    /// Sites without a unit above them all make no meeting.
    NoCommonUnit,
    /// The meeting got sites of further units since this was asked.
    UnitMoved,
    /// Somebody must command the top unit.
    LastCommander {
        unit: UnitId,
    },
    /// Names in a selector that do not exist, or that the account may not know of.
    UnknownNames(String),
    /// No account that could take part.
    UnknownDesk(AccountName),
    /// Another preset of the unit is called so.
    NameTaken {
        name: String,
    },
    /// The meeting lasts until it is ended.
    NoEnd,
    /// Who has the chair can neither request it nor take it over.
    IsTheChair,
    /// Only a unit above the meeting's, or a commander of it, takes a meeting over.
    NotAbove {
        unit: UnitId,
    },
    /// The chair was not taken over, so there is nothing to hand back.
    NotTakenOver,
    /// A role cannot be given or taken for longer than the giver's own.
    BeyondOwnEnd {
        until: Millis,
    },
    /// There is no such preset, schedule or drill.
    UnknownPlan {
        what: &'static str,
        id: String,
    },
    TooManyPlans {
        what: &'static str,
        limit: usize,
    },
    /// A schedule needs the preset.
    PresetInUse {
        schedule: String,
    },
    /// A time must be in the future.
    PastTime {
        field: &'static str,
    },
    /// It was done already, by this or another.
    AlreadyDone,
    UnknownUnit(String),
    UnknownSite(String),
    /// The meeting has no events yet.
    NotConvened,
    AlreadyConvened,
    MeetingEnded,
    NoSites,
    TooManySites {
        found: usize,
        limit: usize,
    },
    SiteTwice(SiteId),
    NotInMeeting(SiteId),
    /// A text field is empty, too long or holds control characters.
    BadText {
        field: &'static str,
        expected: &'static str,
    },
    /// An endpoint may not report this state by itself.
    NotAReport(SummonsState),
    /// The site belongs to another live meeting.
    InOtherMeeting {
        site: SiteId,
        meeting: MeetingId,
    },
    TooManyEndpoints {
        site: SiteId,
        limit: usize,
    },
    /// A number is out of its bounds.
    BadNumber {
        field: &'static str,
        found: i64,
        least: i64,
        most: i64,
    },
    /// Nobody new comes in.
    Locked,
    /// The chair took the site out; it comes back when it is called again.
    HungUp(SiteId),
    NotOnAir(SiteId),
    /// The account has not requested the chair.
    NotRequested(AccountName),
    TooManyChairRequests,
    /// The chair cannot be given up: nobody has requested it, and it was not got from anybody.
    NobodyToChair,
    NotPolling,
    RollCallGoesOn,
    NoRollCall,
    NotInRollCall(SiteId),
    /// Another site is called.
    NotCalled(SiteId),
    /// The meeting was placed anew since.
    OldEpoch {
        found: u64,
        current: u64,
    },
}

impl Refusal {
    /// A stable word for programs and for translation.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::NoRole { .. } => "no_role",
            Refusal::RoleRanOut { .. } => "role_ran_out",
            Refusal::MayNotChair(_) => "may_not_chair",
            Refusal::NoCommonUnit => "no_common_unit",
            Refusal::UnitMoved => "unit_moved",
            Refusal::LastCommander { .. } => "last_commander",
            Refusal::UnknownNames(_) => "unknown_names",
            Refusal::UnknownDesk(_) => "unknown_desk",
            Refusal::NameTaken { .. } => "name_taken",
            Refusal::NoEnd => "no_end",
            Refusal::OutsideAuthority { .. } => "outside_authority",
            Refusal::NotTheChair { .. } => "not_the_chair",
            Refusal::IsTheChair => "is_the_chair",
            Refusal::NotAbove { .. } => "not_above",
            Refusal::NotTakenOver => "not_taken_over",
            Refusal::BeyondOwnEnd { .. } => "beyond_own_end",
            Refusal::UnknownPlan { .. } => "unknown_plan",
            Refusal::TooManyPlans { .. } => "too_many_plans",
            Refusal::PresetInUse { .. } => "preset_in_use",
            Refusal::PastTime { .. } => "past_time",
            Refusal::AlreadyDone => "already_done",
            Refusal::UnknownUnit(_) => "unknown_unit",
            Refusal::UnknownSite(_) => "unknown_site",
            Refusal::NotConvened => "not_convened",
            Refusal::AlreadyConvened => "already_convened",
            Refusal::MeetingEnded => "meeting_ended",
            Refusal::NoSites => "no_sites",
            Refusal::TooManySites { .. } => "too_many_sites",
            Refusal::SiteTwice(_) => "site_twice",
            Refusal::NotInMeeting(_) => "not_in_meeting",
            Refusal::BadText { .. } => "bad_text",
            Refusal::NotAReport(_) => "not_a_report",
            Refusal::InOtherMeeting { .. } => "in_other_meeting",
            Refusal::TooManyEndpoints { .. } => "too_many_endpoints",
            Refusal::BadNumber { .. } => "bad_number",
            Refusal::Locked => "locked",
            Refusal::HungUp(_) => "hung_up",
            Refusal::NotOnAir(_) => "not_on_air",
            Refusal::NotRequested(_) => "not_requested",
            Refusal::TooManyChairRequests => "too_many_chair_requests",
            Refusal::NobodyToChair => "nobody_to_chair",
            Refusal::NotPolling => "not_polling",
            Refusal::RollCallGoesOn => "roll_call_goes_on",
            Refusal::NoRollCall => "no_roll_call",
            Refusal::NotInRollCall(_) => "not_in_roll_call",
            Refusal::NotCalled(_) => "not_called",
            Refusal::OldEpoch { .. } => "old_epoch",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoRole { action } => write!(f, "none of your roles permits you to {action}"),
            Refusal::OutsideAuthority { action, target } => {
                write!(
                    f,
                    "you may not {action} for {target}: it is outside the units that you are responsible for"
                )
            }
            Refusal::RoleRanOut { action, at } => write!(
                f,
                "the role that permitted you to {action} there ran out at {}: ask for it anew",
                at.utc()
            ),
            Refusal::NotTheChair { action } if !action.runs_meeting() => write!(
                f,
                "to {action} is for the chair of the meeting alone: a commander of its unit or above takes the meeting over first"
            ),
            Refusal::NotTheChair { action } => write!(
                f,
                "to {action} is for the chair of the meeting, or for a commander of its unit or above: request the chair"
            ),
            Refusal::IsTheChair => f.write_str("you have the chair of the meeting already"),
            Refusal::NotAbove { unit } => write!(
                f,
                "a meeting of unit {unit} is taken over by a unit above it or by a commander of it: request the chair"
            ),
            Refusal::NotTakenOver => {
                f.write_str("the meeting was not taken over: there is nothing to hand back")
            }
            Refusal::BeyondOwnEnd { until } => write!(
                f,
                "your own role there ends at {}: you can neither give nor take a role that lasts longer",
                until.utc()
            ),
            Refusal::LastCommander { unit } => write!(
                f,
                "nobody else commands {unit}, and somebody must: make another account its commander first"
            ),
            Refusal::UnknownNames(names) => {
                write!(f, "selector: {names} does not exist or is outside your authority")
            }
            Refusal::NameTaken { name } => {
                write!(
                    f,
                    "the unit has another preset called {name:?}: change that one, or choose another name"
                )
            }
            Refusal::UnknownPlan { what, id } => write!(f, "there is no {what} {id:?}"),
            Refusal::TooManyPlans { what, limit } => write!(f, "too many {what}: expected {limit} at most"),
            Refusal::PresetInUse { schedule } => {
                write!(
                    f,
                    "schedule {schedule} convenes this preset: delete the schedule first"
                )
            }
            Refusal::PastTime { field } => write!(f, "{field}: expected a time in the future"),
            Refusal::AlreadyDone => f.write_str("it was done already"),
            Refusal::UnknownUnit(id) => write!(f, "there is no unit {id:?}"),
            Refusal::UnknownSite(id) => write!(f, "there is no site {id:?}"),
            Refusal::NotConvened => f.write_str("the meeting has not been convened"),
            Refusal::AlreadyConvened => f.write_str("the meeting has been convened already"),
            Refusal::MeetingEnded => f.write_str("the meeting has ended"),
            Refusal::NoSites => f.write_str("no site is chosen: a meeting needs one at least"),
            Refusal::TooManySites { found, limit } => {
                write!(f, "{found} sites are chosen: a meeting takes {limit} at most")
            }
            Refusal::SiteTwice(site) => write!(f, "site {site} is named twice"),
            Refusal::NotInMeeting(site) => write!(f, "site {site} is not in this meeting"),
            Refusal::BadText { field, expected } => write!(f, "{field}: expected {expected}"),
            Refusal::NotAReport(state) => {
                write!(
                    f,
                    "an endpoint cannot report {state}: expected delivered, ringing, answered, joining, declined or refused"
                )
            }
            Refusal::InOtherMeeting { site, meeting } => write!(f, "site {site} is in meeting {meeting}"),
            Refusal::TooManyEndpoints { site, limit } => {
                write!(
                    f,
                    "site {site} has {limit} endpoints attached already, which is the most"
                )
            }
            verb => verb.tell_verb(f),
        }
    }
}

impl Refusal {
    /// Those of the verbs of a meeting.
    fn tell_verb(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::BadNumber {
                field,
                found,
                least,
                most,
            } => write!(f, "{field}: found {found}, expected {least} to {most}"),
            Refusal::Locked => f.write_str("the meeting is locked: nobody new comes in"),
            Refusal::HungUp(site) => {
                write!(
                    f,
                    "the chair took site {site} out: it comes back when it is called again"
                )
            }
            Refusal::NotOnAir(site) => write!(f, "site {site} is not on air"),
            Refusal::NotRequested(account) => write!(f, "{account} has not requested the chair"),
            Refusal::TooManyChairRequests => f.write_str("too many have requested the chair already"),
            Refusal::NobodyToChair => f.write_str(
                "nobody who may have the chair has requested it: a meeting needs one, so end it or wait for a request",
            ),
            Refusal::MayNotChair(account) => write!(
                f,
                "{account} may not have the chair: no role of that account covers the whole meeting at this time"
            ),
            Refusal::NoCommonUnit => {
                f.write_str("the sites have no unit in common: convene a meeting for each of their trees")
            }
            Refusal::UnitMoved => {
                f.write_str("sites of another unit came in at the same moment: try again")
            }
            Refusal::UnknownDesk(account) => {
                write!(f, "{account} is nobody who can take part in this meeting from a console")
            }
            Refusal::NoEnd => {
                f.write_str("the meeting has no end that could be put off: it lasts until it is ended")
            }
            Refusal::NotPolling => f.write_str("there is no polling"),
            Refusal::RollCallGoesOn => f.write_str("a roll call goes on already"),
            Refusal::NoRollCall => f.write_str("no roll call goes on"),
            Refusal::NotInRollCall(site) => write!(f, "site {site} is not in this roll call"),
            Refusal::NotCalled(site) => write!(f, "site {site} is not the one that is called"),
            Refusal::OldEpoch { found, current } => {
                write!(
                    f,
                    "placement {found} is older than placement {current}, which counts"
                )
            }
            other => f.write_str(other.code()),
        }
    }
}

impl std::error::Error for Refusal {}
