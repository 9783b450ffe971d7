//! The command domain: who belongs where, who may do what, who is called into which meeting and how far they
//! have come, and what everyone is made to see.
//!
//! Pure values: `(state, command, now) -> events`. No clock, socket, lock, async runtime, randomness or serde:
//! time comes in as [`Millis`], ids are made by the shell, and events go out as plain types that the shell
//! encodes and stores. A command is either refused with a [`Refusal`] that has a stable code, or becomes
//! numbered events; replaying the events of a meeting gives exactly the state it had.
//!
//! It does not place meetings on relays, sign tokens, hash the log, or know the wire format.

pub mod attendance;
pub mod authority;
pub mod claims;
pub mod credentials;
pub mod floor;
pub mod ids;
pub mod import;
pub mod meeting;
pub mod places;
pub mod polling;
pub mod presence;
pub mod refusal;
pub mod roll_call;
pub mod selector;
pub mod stage;
pub mod summons;
pub mod tags;
pub mod terms;
pub mod tree;
pub mod unit;
pub mod words;

pub use attendance::{Attendance, Span, attendance};
pub use authority::{
    Action, Actor, Grant, Target, authorize, authorize_account, authorize_grant, authorize_import,
    leaves_a_commander, may_chair,
};
pub use claims::{Claims, Holder};
pub use credentials::{PasswordError, check_password};
pub use floor::{Floor, FloorRequest, FloorState};
pub use ids::{AccountName, IdError, MeetingId, Millis, PlanId, ReportId, SiteId, UnitId};
pub use import::{ImportError, ImportPlan, RawRow, plan_import};
pub use meeting::{Able, ChairCause, Command, Event, Meeting, Notice, PollingOrder, Until};
pub use places::Places;
pub use polling::Polling;
pub use presence::{Presence, PresenceBook, Reach};
pub use refusal::Refusal;
pub use roll_call::{RollCall, RollCallEntry, RollCallResult};
pub use selector::{Resolution, Selector};
pub use stage::{Layout, Placement, Seat, Stage, StageDocument};
pub use summons::{Caller, Invitee, LegEnd, Reason, Report, Summons, SummonsState, Timeouts};
pub use tags::{TagPool, Tags};
pub use terms::{Fallback, Media, Opening, Priority, Terms};
pub use tree::{Site, TierCounts, Tree, TreeError, Unit};
pub use unit::{
    Administration, Check, Drill, DrillResult, Order, Outcome, Preset, Record, Repeat, ReportKind, Schedule,
    SiteReport, UnitEvent,
};
pub use words::{Access, Answer, EndpointKind, Role, Tier, WordError};
