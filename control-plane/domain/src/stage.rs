//! What everyone is made to see, and who may be heard.
//!
//! [`Stage`] is what a chair sets, and what late joiners and reconnecting ones find. [`StageDocument`] is what relays
//! obey, also while the control plane is away: it has the *effective* muted set, in which a roll call and the floor are
//! worked in already. How a relay carries it out is not known here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::ids::{AccountName, IdError, MeetingId, SiteId};
use crate::polling::Polling;

/// How many pictures a wall shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    One,
    /// One large and seven small.
    OneAndSeven,
    Four,
    Nine,
    Sixteen,
    TwentyFive,
    ThirtySix,
    FortyNine,
}

impl Layout {
    /// All of them, in order.
    pub const ALL: [Layout; 8] = {
        use Layout::*;
        [
            One,
            OneAndSeven,
            Four,
            Nine,
            Sixteen,
            TwentyFive,
            ThirtySix,
            FortyNine,
        ]
    };

    /// Pictures at once.
    pub fn pictures(self) -> usize {
        match self {
            Layout::One => 1,
            Layout::OneAndSeven => 8,
            Layout::Four => 4,
            Layout::Nine => 9,
            Layout::Sixteen => 16,
            Layout::TwentyFive => 25,
            Layout::ThirtySix => 36,
            Layout::FortyNine => 49,
        }
    }
}

/// Who can be shown: a site, or somebody's own console.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seat {
    Site(SiteId),
    Desk(AccountName),
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seat::Site(site) => f.write_str(site),
            Seat::Desk(account) => f.write_str(&account.desk()),
        }
    }
}

impl FromStr for Seat {
    type Err = IdError;

    /// From a site id or `desk:ACCOUNT`.
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix("desk:") {
            Some(account) => AccountName::new(account).map(Seat::Desk),
            None => SiteId::new(text).map(Seat::Site),
        }
    }
}

/// What the chair has set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// On the large picture for all; none: the chair's desk.
    pub broadcast: Option<SiteId>,
    /// As the chair muted them; a roll call and the floor come on top, see [`crate::Meeting::is_muted`].
    pub muted: BTreeSet<SiteId>,
    /// Of every wall; none: each as it likes.
    pub layout: Option<Layout>,
    pub polling: Option<Polling>,
    /// The large picture follows who speaks, where no site is broadcast.
    pub voice_switching: bool,
    /// Who shows content in its own place.
    pub content: Option<Seat>,
    /// On the large picture of the chair's own desk; none: as everybody's.
    pub watched: Option<SiteId>,
}

/// The relay of a meeting. Of two placements the higher epoch counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub relay: String,
    pub epoch: u64,
}

/// What relays obey; the higher version wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageDocument {
    pub meeting: MeetingId,
    /// Seq of the last event that changed anything in this document.
    pub version: u64,
    pub ended: bool,
    pub broadcast: Option<SiteId>,
    /// The effective set: during a roll call everyone but the called one; else what is muted, without the floor.
    pub muted: Vec<SiteId>,
    /// The chair's desk: `desk:ACCOUNT`.
    pub chair: String,
    /// Sites that belong to another meeting or were hung up: a leg of theirs must go.
    pub expelled: Vec<SiteId>,
    pub placement: Option<Placement>,
    pub voice_switching: bool,
    pub content: Option<Seat>,
    /// No desk comes in but the chair's and these.
    pub locked: bool,
    pub desks: Vec<AccountName>,
}
