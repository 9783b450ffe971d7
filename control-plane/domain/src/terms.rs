//! Under which terms a meeting is convened: how urgent it is, until when sites may come, when it ends by itself, what
//! to do where no picture comes, and the stage that it opens with.
//!
//! Plain values; what follows from them is the meeting's. Times are absolute: the shell adds to its clock.

use crate::ids::{Millis, SiteId};
use crate::stage::Layout;

/// How urgent a meeting is. A higher one takes sites out of a lower one, and gives them back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    #[default]
    Routine,
    Urgent,
    Emergency,
}

impl Priority {
    /// All of them, from the lowest up.
    pub const ALL: [Priority; 3] = [Priority::Routine, Priority::Urgent, Priority::Emergency];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Routine => "routine",
            Priority::Urgent => "urgent",
            Priority::Emergency => "emergency",
        }
    }
}

/// What a site is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Media {
    #[default]
    Video,
    /// Sound alone.
    Audio,
}

/// What to do when a site answers and no picture comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fallback {
    /// It ends with its reason.
    #[default]
    None,
    /// It is called again at once, for sound alone.
    Audio,
}

/// The terms of a convening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub priority: Priority,
    /// What was called before this time and is still under way then comes to its end.
    pub deadline: Option<Millis>,
    /// When the meeting ends by itself.
    pub ends_at: Option<Millis>,
    pub fallback: Fallback,
    /// Ids of the preset and the schedule that it was convened from; empty if from neither.
    pub preset: String,
    pub schedule: String,
}

/// The stage that a meeting opens with, where it is not the plain one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    pub layout: Option<Layout>,
    /// Passed over if it is not among the called.
    pub broadcast: Option<SiteId>,
    pub mute_all: bool,
    pub voice_switching: bool,
    /// Interval of the polling in milliseconds; none: no polling.
    pub polling_ms: Option<i64>,
}
