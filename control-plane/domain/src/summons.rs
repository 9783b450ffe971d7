//! One site's part of a convening: a state machine with a reason at every end.
//!
//! ```text
//! paged -> delivered -> ringing -> answered -> joining -> on air
//!    or an end: declined | unreachable | timed out | refused | left
//! ```
//! A later step implies the earlier ones. Reports never move a summons backwards; what does is defined: a leg
//! that was lost, a page anew (by a person, or because the endpoint attached again). An end is not the end of
//! hope: late facts from a relay win over what was believed, and a site that cannot be reached comes back by
//! itself. Every transition is a function that gives the new state, or none if nothing changes; so everything
//! is idempotent. Nothing here knows of the other sites of the meeting.

use std::fmt;

use crate::ids::{MeetingId, Millis, SiteId, cut};
use crate::presence::Reach;

/// How far a summons has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SummonsState {
    Paged,
    Delivered,
    Ringing,
    Answered,
    Joining,
    /// Media was seen at a relay, not only a connection.
    OnAir,
    Declined,
    Unreachable,
    TimedOut,
    Refused,
    /// Left in good order: the site hung up, or the meeting ended.
    Left,
}

impl SummonsState {
    /// All of them, in order.
    pub const ALL: [SummonsState; 11] = {
        use SummonsState::*;
        [
            Paged,
            Delivered,
            Ringing,
            Answered,
            Joining,
            OnAir,
            Declined,
            Unreachable,
            TimedOut,
            Refused,
            Left,
        ]
    };

    /// Under way: paged to joining.
    pub fn is_pending(self) -> bool {
        self < SummonsState::OnAir
    }

    /// One of the ends.
    pub fn is_end(self) -> bool {
        self > SummonsState::OnAir
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            SummonsState::Paged => "paged",
            SummonsState::Delivered => "delivered",
            SummonsState::Ringing => "ringing",
            SummonsState::Answered => "answered",
            SummonsState::Joining => "joining",
            SummonsState::OnAir => "on air",
            SummonsState::Declined => "declined",
            SummonsState::Unreachable => "unreachable",
            SummonsState::TimedOut => "timed out",
            SummonsState::Refused => "refused",
            SummonsState::Left => "left",
        }
    }
}

impl fmt::Display for SummonsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a summons is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    NeverSeen,
    Offline,
    NoAnswer,
    Declined,
    /// Joined, but no media was seen. On a summons that is on air: silent since `reason_since`.
    NoMedia,
    CameraBusy,
    CameraMissing,
    LinkLost,
    InOtherMeeting,
    NoRelay,
    JoinFailed,
    /// The endpoint seems attached, but did not confirm the page.
    NoDelivery,
    HungUp,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Reason; 13] = {
        use Reason::*;
        [
            NeverSeen,
            Offline,
            NoAnswer,
            Declined,
            NoMedia,
            CameraBusy,
            CameraMissing,
            LinkLost,
            InOtherMeeting,
            NoRelay,
            JoinFailed,
            NoDelivery,
            HungUp,
        ]
    };

    /// Whether an endpoint can know this of itself. Any other reason in its report is not believed.
    pub fn is_endpoints(self) -> bool {
        use Reason::*;
        matches!(
            self,
            NoAnswer | Declined | NoMedia | CameraBusy | CameraMissing | LinkLost | JoinFailed
        )
    }

    /// A stable word for programs and for translation.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NeverSeen => "never_seen",
            Reason::Offline => "offline",
            Reason::NoAnswer => "no_answer",
            Reason::Declined => "declined",
            Reason::NoMedia => "no_media",
            Reason::CameraBusy => "camera_busy",
            Reason::CameraMissing => "camera_missing",
            Reason::LinkLost => "link_lost",
            Reason::InOtherMeeting => "in_other_meeting",
            Reason::NoRelay => "no_relay",
            Reason::JoinFailed => "join_failed",
            Reason::NoDelivery => "no_delivery",
            Reason::HungUp => "hung_up",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NeverSeen => "no endpoint of the site was ever seen",
            Reason::Offline => "the endpoint is offline",
            Reason::NoAnswer => "nobody answered",
            Reason::Declined => "the site declined",
            Reason::NoMedia => "no picture or sound arrives",
            Reason::CameraBusy => "the camera is in use by another program",
            Reason::CameraMissing => "no camera was found",
            Reason::LinkLost => "the connection to the site was lost",
            Reason::InOtherMeeting => "the site is in another meeting",
            Reason::NoRelay => "no relay is online",
            Reason::JoinFailed => "the endpoint answered, but could not join",
            Reason::NoDelivery => "the endpoint did not confirm the call",
            Reason::HungUp => "the site hung up",
        })
    }
}

/// How long each step may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Paged to delivered.
    pub delivered_ms: i64,
    /// Delivered or ringing to answered.
    pub answered_ms: i64,
    /// Answered to joining, and joining to on air.
    pub joining_ms: i64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            delivered_ms: 3_000,
            answered_ms: 30_000,
            joining_ms: 10_000,
        }
    }
}

/// A site to be called, with what is known of it at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitee {
    pub site: SiteId,
    pub reach: Reach,
    /// The live meeting that the site belongs to, if any; see [`crate::claims`].
    pub claimed_by: Option<MeetingId>,
}

/// What an endpoint says of its summons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Delivered, ringing, answered, joining, declined or refused.
    pub state: SummonsState,
    pub reason: Option<Reason>,
    /// Free text; cut to [`MAX_DETAIL`] characters, control characters taken out.
    pub detail: String,
}

/// How a leg came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegEnd {
    /// The site left by itself.
    HungUp,
    /// It timed out or its connection broke.
    Lost,
    /// A newer leg of the same site took its place; the site is still there.
    Replaced,
}

impl LegEnd {
    /// From the relay's words "hung up", "left", "timed out", "replaced". A leg that only left (a page reloaded, an
    /// agent restarted) is a loss: its site is called again as soon as an endpoint of it is back.
    pub fn from_words(words: &str) -> LegEnd {
        match words {
            "hung up" => LegEnd::HungUp,
            "replaced" => LegEnd::Replaced,
            _ => LegEnd::Lost,
        }
    }
}

/// The longest detail kept of an endpoint's report, in characters.
pub const MAX_DETAIL: usize = 200;

/// One site's part of a convening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summons {
    pub site: SiteId,
    pub state: SummonsState,
    pub reason: Option<Reason>,
    /// When the state was entered.
    pub at: Millis,
    /// Since when the reason holds, where known.
    pub reason_since: Option<Millis>,
    /// When it was first paged.
    pub paged: Option<Millis>,
    /// When it was first on air.
    pub on_air: Option<Millis>,
    /// The other meeting, for [`Reason::InOtherMeeting`]; else the endpoint's own words.
    pub detail: String,
}

impl Summons {
    /// A page that is on its way.
    pub fn paged(site: SiteId, now: Millis) -> Summons {
        Summons {
            site,
            state: SummonsState::Paged,
            reason: None,
            at: now,
            reason_since: None,
            paged: Some(now),
            on_air: None,
            detail: String::new(),
        }
    }

    /// The first state of a convened site: paged, or at once an end with its reason. `own` is the meeting
    /// that calls.
    pub fn called(invitee: &Invitee, own: &MeetingId, now: Millis) -> Summons {
        let page = Summons::paged(invitee.site.clone(), now);
        let unpaged = Summons {
            paged: None,
            ..page.clone()
        };
        unpaged.call_outcome(invitee, own, now).unwrap_or(page)
    }

    /// The site is called again. A site that is on air or about to be is left alone.
    pub fn called_again(&self, invitee: &Invitee, own: &MeetingId, now: Millis) -> Option<Summons> {
        if matches!(
            self.state,
            SummonsState::Answered | SummonsState::Joining | SummonsState::OnAir
        ) {
            return None;
        }
        match self.call_outcome(invitee, own, now) {
            Some(end) => self.changed(end),
            // Twice in one instant is once.
            None if self.state == SummonsState::Paged && self.at >= now => None,
            None => Some(self.page_anew(now)),
        }
    }

    /// The endpoint attached: what had failed for want of it is called again.
    pub fn attached(&self, now: Millis) -> Option<Summons> {
        let returns = match self.state {
            SummonsState::Unreachable | SummonsState::TimedOut => true,
            SummonsState::Refused => self.reason != Some(Reason::InOtherMeeting),
            _ => false,
        };
        returns.then(|| self.page_anew(now))
    }

    /// The last endpoint of the site detached. Legs live on their own: one that is joining or on air stays.
    pub fn detached(&self, now: Millis) -> Option<Summons> {
        match self.state {
            SummonsState::Paged | SummonsState::Delivered | SummonsState::Ringing => {
                Some(self.end(SummonsState::Unreachable, Reason::Offline, Some(now), now))
            }
            SummonsState::Unreachable if self.reason != Some(Reason::Offline) => {
                Some(self.end(SummonsState::Unreachable, Reason::Offline, Some(now), now))
            }
            _ => None,
        }
    }

    /// The endpoint says how far it has come. States that only a relay or we know are ignored here; the
    /// meeting refuses them.
    pub fn reported(&self, report: &Report, now: Millis) -> Option<Summons> {
        if self.is_elsewhere() {
            return None;
        }
        let state = self.state;
        match report.state {
            SummonsState::Delivered
            | SummonsState::Ringing
            | SummonsState::Answered
            | SummonsState::Joining => {
                let forward = match state {
                    SummonsState::Unreachable | SummonsState::TimedOut | SummonsState::Refused => true,
                    SummonsState::Declined | SummonsState::Left => false,
                    _ => report.state > state,
                };
                forward.then(|| self.step(report.state, now))
            }
            SummonsState::Declined | SummonsState::Refused => {
                if state == SummonsState::Left {
                    return None;
                }
                if state == SummonsState::OnAir {
                    // A person who is in and declines leaves; a refusal then means nothing.
                    return (report.state == SummonsState::Declined)
                        .then(|| self.end(SummonsState::Left, Reason::HungUp, Some(now), now));
                }
                let fallback = if report.state == SummonsState::Declined {
                    Reason::Declined
                } else {
                    Reason::JoinFailed
                };
                let reason = report.reason.filter(|r| r.is_endpoints()).unwrap_or(fallback);
                let mut next = self.end(report.state, reason, Some(now), now);
                next.detail = clean(&report.detail);
                self.changed(next)
            }
            _ => None,
        }
    }

    /// A relay has a leg of the site that shows nothing yet.
    pub fn leg_joining(&self, now: Millis) -> Option<Summons> {
        let counts =
            !self.is_elsewhere() && !matches!(self.state, SummonsState::OnAir | SummonsState::Joining);
        counts.then(|| self.step(SummonsState::Joining, now))
    }

    /// A relay sees media of the site.
    pub fn leg_on_air(&self, now: Millis) -> Option<Summons> {
        if self.is_elsewhere() {
            return None;
        }
        if self.state == SummonsState::OnAir {
            let heard = Summons {
                reason: None,
                reason_since: None,
                ..self.clone()
            };
            return self.changed(heard);
        }
        let mut next = self.step(SummonsState::OnAir, now);
        next.on_air = next.on_air.or(Some(next.at));
        Some(next)
    }

    /// A relay hears nothing from the leg: a suspicion. The site stays on air, with a reason.
    pub fn leg_silent(&self, now: Millis) -> Option<Summons> {
        (self.state == SummonsState::OnAir && self.reason.is_none()).then(|| Summons {
            reason: Some(Reason::NoMedia),
            reason_since: Some(now.max(self.at)),
            ..self.clone()
        })
    }

    /// A relay no longer has the leg.
    pub fn leg_ended(&self, end: LegEnd, reach: Reach, now: Millis) -> Option<Summons> {
        if end == LegEnd::Replaced || !matches!(self.state, SummonsState::Joining | SummonsState::OnAir) {
            return None;
        }
        Some(match (end, reach) {
            (LegEnd::HungUp, _) => self.end(SummonsState::Left, Reason::HungUp, Some(now), now),
            (_, Reach::Offline { since }) => {
                self.end(SummonsState::Unreachable, Reason::Offline, Some(since), now)
            }
            _ => self.end(SummonsState::Unreachable, Reason::LinkLost, Some(now), now),
        })
    }

    /// There is no relay to send the site to.
    pub fn no_relay(&self, now: Millis) -> Option<Summons> {
        self.state
            .is_pending()
            .then(|| self.end(SummonsState::Unreachable, Reason::NoRelay, Some(now), now))
    }

    /// The meeting ended: what was on air or under way is over, in good order.
    pub fn meeting_ended(&self, now: Millis) -> Option<Summons> {
        (!self.state.is_end()).then(|| Summons {
            state: SummonsState::Left,
            reason: None,
            reason_since: None,
            at: now.max(self.at),
            ..self.clone()
        })
    }

    /// When this step has lasted too long; none where nothing is waited for.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Millis> {
        let ms = match self.state {
            SummonsState::Paged => timeouts.delivered_ms,
            SummonsState::Delivered | SummonsState::Ringing => timeouts.answered_ms,
            SummonsState::Answered | SummonsState::Joining => timeouts.joining_ms,
            _ => return None,
        };
        Some(self.at.plus(ms))
    }

    /// Ends a step that has lasted too long.
    pub fn tick(&self, timeouts: &Timeouts, now: Millis) -> Option<Summons> {
        if self.deadline(timeouts)? > now {
            return None;
        }
        let (state, reason) = match self.state {
            SummonsState::Paged => (SummonsState::Unreachable, Reason::NoDelivery),
            SummonsState::Answered => (SummonsState::TimedOut, Reason::JoinFailed),
            SummonsState::Joining => (SummonsState::TimedOut, Reason::NoMedia),
            _ => (SummonsState::TimedOut, Reason::NoAnswer),
        };
        Some(self.end(state, reason, Some(self.at), now))
    }

    /// Whether the site belongs to this meeting now, so that no other may take it: all but those that
    /// declined, left, or are in another one.
    pub fn holds_claim(&self) -> bool {
        !matches!(self.state, SummonsState::Declined | SummonsState::Left) && !self.is_elsewhere()
    }

    /// Refused because the site is in another meeting.
    pub fn is_elsewhere(&self) -> bool {
        self.state == SummonsState::Refused && self.reason == Some(Reason::InOtherMeeting)
    }

    /// The end that a call would come to at once, if it would.
    fn call_outcome(&self, invitee: &Invitee, own: &MeetingId, now: Millis) -> Option<Summons> {
        if let Some(other) = invitee.claimed_by.as_ref().filter(|m| *m != own) {
            let mut end = self.end(SummonsState::Refused, Reason::InOtherMeeting, None, now);
            end.detail = other.as_str().to_owned();
            return Some(end);
        }
        match invitee.reach {
            Reach::Online => None,
            Reach::NeverSeen => Some(self.end(SummonsState::Unreachable, Reason::NeverSeen, None, now)),
            Reach::Offline { since } => {
                Some(self.end(SummonsState::Unreachable, Reason::Offline, Some(since), now))
            }
        }
    }

    fn page_anew(&self, now: Millis) -> Summons {
        let mut next = self.step(SummonsState::Paged, now);
        next.paged = next.paged.or(Some(next.at));
        next
    }

    fn step(&self, state: SummonsState, now: Millis) -> Summons {
        Summons {
            state,
            reason: None,
            reason_since: None,
            detail: String::new(),
            at: now.max(self.at),
            ..self.clone()
        }
    }

    fn end(&self, state: SummonsState, reason: Reason, since: Option<Millis>, now: Millis) -> Summons {
        Summons {
            reason: Some(reason),
            reason_since: since,
            ..self.step(state, now)
        }
    }

    /// `next`, unless it only repeats what is known.
    fn changed(&self, next: Summons) -> Option<Summons> {
        let same = next.state == self.state && next.reason == self.reason && next.detail == self.detail;
        (!same).then_some(next)
    }
}

fn clean(detail: &str) -> String {
    let printable: String = detail
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_DETAIL + 1)
        .collect();
    cut(&printable, MAX_DETAIL)
}
