//! What can be asked of a meeting, and what happened in it: the two closed sets that everything else speaks of.
//!
//! A command's [`Command::cause`] goes with every event that follows from it, next to who gave it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::claims::Holder;
use crate::floor::Floor;
use crate::ids::{AccountName, Millis, SiteId, UnitId};
use crate::presence::Reach;
use crate::roll_call::{RollCall, RollCallEntry};
use crate::stage::{Layout, Placement, Seat, Stage};
use crate::summons::{Invitee, LegEnd, Report, Summons};
use crate::terms::{Opening, Terms};

/// What can be asked of a meeting, or happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens the meeting and calls the sites. First command of all, and once.
    Convene {
        title: String,
        chair: AccountName,
        /// The unit over whose subtree it is convened.
        unit: UnitId,
        sites: Vec<Invitee>,
        idempotency_key: String,
        terms: Terms,
        opening: Opening,
    },
    /// Calls again those of these that are neither on air nor about to be. For all: [`crate::Meeting::unconnected`].
    CallUnconnected {
        sites: Vec<Invitee>,
    },
    /// Calls further sites; those that are in the meeting already are passed over.
    AddSites {
        sites: Vec<Invitee>,
        /// Where the meeting's unit does not have them all: what it is believed to be, and the lowest that does.
        over: Option<(UnitId, UnitId)>,
    },
    /// Takes sites out (挂断); they may be called again.
    HangUp {
        sites: Vec<SiteId>,
    },
    /// Brings a site to the large picture for all, or (none) the chair's desk.
    Broadcast {
        site: Option<SiteId>,
    },
    /// Mutes or unmutes sites; an empty list means all.
    Mute {
        sites: Vec<SiteId>,
        muted: bool,
    },
    /// Nobody new comes in. Of consoles, these are in at this moment and may come back.
    Lock {
        locked: bool,
        desks: Vec<AccountName>,
    },
    /// The meeting ends by itself so many minutes after now, or after the end that is set if that is later.
    Extend {
        minutes: u32,
    },
    /// Somebody wants the chair (申请主席), or does no longer.
    RequestChair {
        by: AccountName,
        withdraw: bool,
        /// Whether who has the chair may still have it; if not, it goes to who requests it.
        held: bool,
    },
    /// The chair gives the chair to who requested it, or refuses.
    AnswerChairRequest {
        account: AccountName,
        granted: bool,
        able: Able,
    },
    /// The chair gives the chair up (释放主席): to the first who requested it, else to who had it by right.
    ReleaseChair {
        by: AccountName,
        able: Able,
    },
    /// A unit above takes the meeting over; whether it may is authority's.
    TakeOver {
        by: AccountName,
    },
    /// Gives back what was taken over.
    HandBack {
        by: AccountName,
        able: Able,
    },
    SetLayout {
        layout: Option<Layout>,
    },
    /// 轮巡: none stops it.
    SetPolling {
        polling: Option<PollingOrder>,
    },
    /// Turns the page at once, forwards or backwards.
    TurnPage {
        forward: bool,
    },
    SetVoiceSwitching {
        on: bool,
    },
    /// 观看会场: onto the large picture of the chair's own desk.
    WatchSite {
        site: Option<SiteId>,
    },
    SetContent {
        seat: Option<Seat>,
    },
    /// 点名. No sites: the whole roster.
    StartRollCall {
        by: AccountName,
        answer_s: u32,
        sites: Vec<SiteId>,
    },
    /// Goes on to the next site that waits, or to the named one.
    NextRollCall {
        site: Option<SiteId>,
    },
    /// Somebody is there: `by` is the account that heard them, none if they pressed the key at the site themselves.
    Acknowledge {
        site: SiteId,
        by: Option<AccountName>,
    },
    /// Media of the site was seen at the relay, or by the site.
    Evidence {
        site: SiteId,
        up: bool,
        down: bool,
    },
    EndRollCall,
    /// The site requests the floor (申请发言), or takes its request or the floor back.
    RequestFloor {
        site: SiteId,
        withdraw: bool,
    },
    /// Opens a site's microphone for so many seconds; 0: without limit.
    GrantFloor {
        site: SiteId,
        seconds: u32,
    },
    /// Takes the floor from a site, or refuses its request.
    TakeFloor {
        site: SiteId,
    },
    /// Ends the meeting, for everyone and for good.
    End {
        reason: String,
    },
    /// A meeting of higher priority has taken the site.
    SiteTaken {
        site: SiteId,
        by: Arc<Holder>,
    },
    /// The meeting that had the site has let it go.
    SiteReturned {
        site: Invitee,
    },
    /// The meeting is on this relay now; of an epoch that is not higher it is refused.
    Place {
        relay: String,
        epoch: u64,
    },
    /// An endpoint says how far it has come.
    Report {
        site: SiteId,
        report: Report,
    },
    /// An endpoint of the site attached to the control plane.
    EndpointAttached {
        site: SiteId,
    },
    /// The last endpoint of the site detached.
    EndpointDetached {
        site: SiteId,
    },
    /// A relay has a leg of the site, without media so far.
    LegJoining {
        site: SiteId,
    },
    /// A relay sees media of the site.
    LegOnAir {
        site: SiteId,
    },
    /// The leg is at another relay now; an event although the state stays, so that all know whose word counts.
    LegMoved {
        site: SiteId,
    },
    /// A relay has received nothing of the site for over a second.
    LegSilent {
        site: SiteId,
    },
    /// A relay no longer has the leg; `reach` is whether the endpoint is attached.
    LegEnded {
        site: SiteId,
        end: LegEnd,
        reach: Reach,
    },
    /// There is no relay to send these sites to; an empty list means all that are under way.
    NoRelay {
        sites: Vec<SiteId>,
    },
    /// Time has passed: steps that lasted too long come to their end.
    Tick,
}

/// The accounts that may have the chair as their roles are now, of all that could come to it.
pub type Able = BTreeSet<AccountName>;

/// How a wall is to go round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollingOrder {
    /// 5,000 to 600,000; 0: 10,000.
    pub interval_ms: i64,
    /// Pictures of a page, 49 at most; 0: of the layout.
    pub per_page: usize,
    pub paused: bool,
}

impl Command {
    /// The verb or the fact, as it stands with each event that follows.
    pub fn cause(&self) -> &'static str {
        match self {
            Command::Convene { .. } => "convene",
            Command::CallUnconnected { .. } => "call_unconnected",
            Command::AddSites { .. } => "add_sites",
            Command::HangUp { .. } => "hang_up",
            Command::Broadcast { .. } => "broadcast",
            Command::Mute { muted: true, .. } => "mute",
            Command::Mute { muted: false, .. } => "unmute",
            Command::Lock { locked: true, .. } => "lock",
            Command::Lock { locked: false, .. } => "unlock",
            Command::Extend { .. } => "extend",
            Command::RequestChair { .. } => "request_chair",
            Command::AnswerChairRequest { .. } => "answer_chair_request",
            Command::ReleaseChair { .. } => "release_chair",
            Command::TakeOver { .. } => "take_over",
            Command::HandBack { .. } => "hand_back",
            Command::SetLayout { .. } => "set_layout",
            Command::SetPolling { .. } => "set_polling",
            Command::TurnPage { .. } => "turn_page",
            Command::SetVoiceSwitching { .. } => "set_voice_switching",
            Command::WatchSite { .. } => "watch_site",
            Command::SetContent { .. } => "set_content",
            Command::StartRollCall { .. } => "start_roll_call",
            Command::NextRollCall { .. } => "next_roll_call",
            Command::Acknowledge { by: Some(_), .. } => "acknowledge_roll_call",
            Command::Acknowledge { by: None, .. } => "answer_roll_call",
            Command::Evidence { .. } => "quality",
            Command::EndRollCall => "end_roll_call",
            Command::RequestFloor { .. } => "request_floor",
            Command::GrantFloor { .. } => "grant_floor",
            Command::TakeFloor { .. } => "take_floor",
            Command::End { .. } => "end_meeting",
            Command::SiteTaken { .. } => "site_taken",
            Command::SiteReturned { .. } => "site_returned",
            Command::Place { .. } => "placed",
            Command::Report { .. } => "report",
            Command::EndpointAttached { .. } => "attached",
            Command::EndpointDetached { .. } => "detached",
            Command::LegJoining { .. }
            | Command::LegOnAir { .. }
            | Command::LegMoved { .. }
            | Command::LegSilent { .. }
            | Command::LegEnded { .. } => "leg",
            Command::NoRelay { .. } => "no_relay",
            Command::Tick => "tick",
        }
    }
}

/// How the chair came to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChairCause {
    Granted,
    Released,
    TakenOver,
    HandedBack,
}

/// What happened: the stream of a meeting is made of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Convened {
        at: Millis,
        title: String,
        chair: AccountName,
        unit: UnitId,
        /// In calling order; each has a `SummonsChanged` of its own after this.
        sites: Vec<SiteId>,
        idempotency_key: String,
        terms: Terms,
    },
    /// After the others in calling order; each has a `SummonsChanged` of its own after this.
    SitesAdded {
        at: Millis,
        sites: Vec<SiteId>,
        /// The meeting's unit from now on; none: as before.
        unit: Option<UnitId>,
    },
    /// The whole new state of one site's summons.
    SummonsChanged {
        summons: Summons,
    },
    /// The whole new stage.
    StageChanged {
        stage: Stage,
    },
    ChairChanged {
        chair: AccountName,
        before: AccountName,
        cause: ChairCause,
    },
    ChairRequested {
        account: AccountName,
        /// Taken back, or refused by the chair.
        withdrawn: bool,
    },
    LockChanged {
        locked: bool,
        /// Consoles that were in when it was locked.
        desks: Vec<AccountName>,
    },
    EndSet {
        ends_at: Millis,
    },
    /// The whole new queue.
    FloorChanged {
        floor: Floor,
    },
    RollCallStarted {
        roll_call: RollCall,
    },
    RollCallEntryChanged {
        entry: RollCallEntry,
    },
    RollCallEnded {
        at: Millis,
        number: u32,
    },
    Placed {
        placement: Placement,
        /// Empty at first.
        before: String,
    },
    /// Nothing follows. Sites on air or under way are `Left` by this.
    Ended {
        at: Millis,
        reason: String,
    },
}
