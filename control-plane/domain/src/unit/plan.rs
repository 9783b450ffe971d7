//! What is prepared in a unit: presets and scheduled meetings, each a plain value.
//!
//! A schedule's time of day holds in a zone without summer time (Asia/Shanghai): a day is always 24 hours, so that the
//! next time follows from the last one alone. What a preset's selector means is resolved when it is convened, with
//! the authority of who convenes.

use crate::ids::{AccountName, Millis, PlanId, SiteId};
use crate::selector::Selector;
use crate::stage::Layout;
use crate::terms::{Fallback, Opening, Priority};

/// A set of sites with a stage, under a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preset {
    pub name: String,
    pub selector: Selector,
    /// Of the meeting; empty: the name.
    pub title: String,
    pub priority: Priority,
    pub fallback: Fallback,
    /// Seconds for sites to come; 0: each step's own time alone.
    pub deadline_s: u32,
    /// Minutes after which the meeting ends by itself; 0: never.
    pub minutes: u32,
    pub layout: Option<Layout>,
    pub broadcast: Option<SiteId>,
    pub mute_all: bool,
    pub voice_switching: bool,
    /// Seconds between pages; 0: no polling.
    pub polling_s: u32,
}

impl Preset {
    /// The title that a meeting of it has.
    pub fn meeting_title(&self) -> &str {
        if self.title.is_empty() {
            &self.name
        } else {
            &self.title
        }
    }

    /// The stage that a meeting of it opens with.
    pub fn opening(&self) -> Opening {
        Opening {
            layout: self.layout,
            broadcast: self.broadcast.clone(),
            mute_all: self.mute_all,
            voice_switching: self.voice_switching,
            polling_ms: (self.polling_s > 0).then(|| i64::from(self.polling_s) * 1000),
        }
    }
}

/// How often a schedule comes round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repeat {
    Once,
    Daily,
    Weekly,
}

/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * 3600 * 1000;

impl Repeat {
    /// The first time after `now` of those that lie whole periods after `from`; none of `Once` that is past.
    pub fn next(self, from: Millis, now: Millis) -> Option<Millis> {
        if from > now {
            return Some(from);
        }
        let period = match self {
            Repeat::Once => return None,
            Repeat::Daily => DAY_MS,
            Repeat::Weekly => 7 * DAY_MS,
        };
        let periods = now.0.saturating_sub(from.0) / period + 1;
        Some(from.plus(periods.saturating_mul(period)))
    }
}

/// What came of a schedule's last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The id of the meeting, or of the drill.
    Done(String),
    /// The reason, in words.
    Refused(String),
}

/// A preset that is convened (or drilled) by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub preset: PlanId,
    /// None once it is over.
    pub next: Option<Millis>,
    pub repeat: Repeat,
    /// Who convenes: who saved it last. It is convened with what that account may do at that time.
    pub account: AccountName,
    /// A silent drill instead of a meeting.
    pub drill: bool,
    /// When it was last carried out, and what came of it.
    pub last: Option<(Millis, Outcome)>,
}
