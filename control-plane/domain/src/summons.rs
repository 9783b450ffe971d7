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

mod words;

use std::sync::Arc;

pub use words::{Reason, SummonsState};

use crate::claims::Holder;
use crate::ids::{MeetingId, Millis, SiteId, cut};
use crate::presence::Reach;
use crate::terms::{Media, Priority};

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
    pub claimed_by: Option<Arc<Holder>>,
}

/// What an endpoint says of its summons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Delivered, ringing, answered, joining, declined or refused.
    pub state: SummonsState,
    pub reason: Option<Reason>,
    /// Free text; cut to [`MAX_DETAIL`] characters, control characters taken out.
    pub detail: String,
    /// Which endpoint says so: "agent", or "browser:" and eight characters that tell it from others.
    pub endpoint: String,
}

/// The meeting that calls, as far as a summons must know it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub meeting: &'a MeetingId,
    pub priority: Priority,
}

impl Caller<'_> {
    /// Whether the site is in another meeting from which this one may not take it.
    fn yields_to<'h>(&self, invitee: &'h Invitee) -> Option<&'h Arc<Holder>> {
        let other = invitee.claimed_by.as_ref();
        other.filter(|other| other.meeting != *self.meeting && other.priority >= self.priority)
    }
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
    /// The endpoint's own words.
    pub detail: String,
    pub media: Media,
    /// Which endpoint answered, as in [`Report::endpoint`]; empty until one has.
    pub answered_by: String,
    /// The other meeting, for [`Reason::InOtherMeeting`].
    pub other: Option<Arc<Holder>>,
    /// How often the site was paged in this meeting.
    pub pages: u32,
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
            media: Media::Video,
            answered_by: String::new(),
            other: None,
            pages: 1,
        }
    }

    /// The first state of a convened site: paged, or at once an end with its reason.
    pub fn called(invitee: &Invitee, own: Caller<'_>, now: Millis) -> Summons {
        let page = Summons::paged(invitee.site.clone(), now);
        let unpaged = Summons {
            paged: None,
            pages: 0,
            ..page.clone()
        };
        unpaged.call_outcome(invitee, own, now).unwrap_or(page)
    }

    /// The site is called again, for a picture as at first. A site that is on air or about to be is left alone.
    pub fn called_again(&self, invitee: &Invitee, own: Caller<'_>, now: Millis) -> Option<Summons> {
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
            None => Some(Summons {
                media: Media::Video,
                ..self.page_anew(now)
            }),
        }
    }

    /// A meeting of higher priority has taken the site; none if that is known.
    pub fn taken(&self, by: &Arc<Holder>, now: Millis) -> Option<Summons> {
        // One that was hung up has not been lost, and does not return.
        if self.is_hung_up() {
            return None;
        }
        self.changed(self.elsewhere(by, now))
    }

    /// The meeting that had the site let it go: it is called again, or found in a third one.
    pub fn returned(&self, invitee: &Invitee, own: Caller<'_>, now: Millis) -> Option<Summons> {
        self.is_elsewhere()
            .then(|| self.called_again(invitee, own, now))
            .flatten()
    }

    /// The chair takes the site out, also one that another meeting has. It is paged no more, and comes back only when
    /// it is called again.
    pub fn hung_up(&self, now: Millis) -> Option<Summons> {
        self.changed(self.end(SummonsState::Left, Reason::HungUpByChair, Some(now), now))
    }

    /// Having ended for want of a picture, it is called again at once for sound alone; none if it was already.
    pub fn fallen_back(&self, now: Millis) -> Option<Summons> {
        let wanted = self.state.is_end() && self.reason.is_some_and(Reason::wants_picture);
        (wanted && self.media == Media::Video).then(|| Summons {
            media: Media::Audio,
            ..self.page_anew(now)
        })
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
        if self.is_out() || self.is_echo(report) {
            return None;
        }
        let state = self.state;
        match report.state {
            SummonsState::Answered if state == SummonsState::OnAir => self.camera_told(report.reason, now),
            SummonsState::Delivered
            | SummonsState::Ringing
            | SummonsState::Answered
            | SummonsState::Joining => {
                let forward = match state {
                    SummonsState::Unreachable | SummonsState::TimedOut | SummonsState::Refused => true,
                    SummonsState::Declined | SummonsState::Left => false,
                    _ => report.state > state,
                };
                let answers = matches!(report.state, SummonsState::Answered | SummonsState::Joining);
                forward.then(|| {
                    let next = self.step(report.state, now);
                    match answers {
                        true => Summons {
                            answered_by: clean(&report.endpoint),
                            ..next
                        },
                        false => next,
                    }
                })
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

    /// The endpoint of a site that is on air tells how its camera is: the site stays on air, with the reason or without.
    fn camera_told(&self, reason: Option<Reason>, now: Millis) -> Option<Summons> {
        let reason = reason.filter(|reason| reason.is_cameras());
        if reason.is_none() && !self.reason.is_some_and(Reason::is_cameras) {
            return None;
        }
        self.changed(Summons {
            reason,
            reason_since: reason.map(|_| now.max(self.at)),
            ..self.clone()
        })
    }

    /// A relay has a leg of the site that shows nothing yet.
    pub fn leg_joining(&self, now: Millis) -> Option<Summons> {
        let counts = !self.is_out() && !matches!(self.state, SummonsState::OnAir | SummonsState::Joining);
        counts.then(|| self.step(SummonsState::Joining, now))
    }

    /// A relay sees media of the site.
    pub fn leg_on_air(&self, now: Millis) -> Option<Summons> {
        if self.is_out() {
            return None;
        }
        if self.state == SummonsState::OnAir {
            // Sound may come while the camera is away: that is for the endpoint to take back.
            if self.reason.is_some_and(Reason::is_cameras) {
                return None;
            }
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

    /// The leg is at another relay than before; nothing else changes.
    pub fn leg_moved(&self) -> Option<Summons> {
        matches!(self.state, SummonsState::Joining | SummonsState::OnAir).then(|| self.clone())
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
            (_, Reach::Offline { since } | Reach::CutOff { since }) => {
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

    /// When this step has lasted too long, or the convening's deadline passes; none where nothing is waited for. What
    /// came into its state after the deadline has its own time alone.
    pub fn deadline(&self, timeouts: &Timeouts, convening: Option<Millis>) -> Option<Millis> {
        let ms = match self.state {
            SummonsState::Paged => timeouts.delivered_ms,
            SummonsState::Delivered | SummonsState::Ringing => timeouts.answered_ms,
            SummonsState::Answered | SummonsState::Joining => timeouts.joining_ms,
            _ => return None,
        };
        let own = self.at.plus(ms);
        let common = convening.filter(|deadline| self.at < *deadline);
        Some(common.map_or(own, |common| common.min(own)))
    }

    /// Ends a step that has lasted too long.
    pub fn tick(&self, timeouts: &Timeouts, convening: Option<Millis>, now: Millis) -> Option<Summons> {
        let own = self.deadline(timeouts, None)?;
        let due = self.deadline(timeouts, convening)?;
        if due > now {
            return None;
        }
        let (state, reason) = match self.state {
            _ if due < own => (SummonsState::TimedOut, Reason::Deadline),
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

    /// Taken out: in another meeting, or hung up by the chair. A leg of it must go, and nothing that an endpoint or a
    /// relay says brings it back.
    pub fn is_out(&self) -> bool {
        self.is_elsewhere() || self.is_hung_up()
    }

    /// Taken out by the chair, until it is called again.
    pub fn is_hung_up(&self) -> bool {
        self.state == SummonsState::Left && self.reason == Some(Reason::HungUpByChair)
    }

    /// A refusal of the call for a picture, told again when the call for sound alone is on its way already.
    fn is_echo(&self, report: &Report) -> bool {
        self.media == Media::Audio
            && self.state == SummonsState::Paged
            && report.state == SummonsState::Refused
            && report.reason.is_some_and(Reason::wants_picture)
    }

    fn elsewhere(&self, other: &Arc<Holder>, now: Millis) -> Summons {
        Summons {
            other: Some(other.clone()),
            ..self.end(SummonsState::Refused, Reason::InOtherMeeting, None, now)
        }
    }

    /// The end that a call would come to at once, if it would.
    fn call_outcome(&self, invitee: &Invitee, own: Caller<'_>, now: Millis) -> Option<Summons> {
        if let Some(other) = own.yields_to(invitee) {
            return Some(self.elsewhere(other, now));
        }
        match invitee.reach {
            Reach::Online => None,
            Reach::NeverSeen => Some(self.end(SummonsState::Unreachable, Reason::NeverSeen, None, now)),
            Reach::Offline { since } => {
                Some(self.end(SummonsState::Unreachable, Reason::Offline, Some(since), now))
            }
            Reach::CutOff { since } => {
                Some(self.end(SummonsState::Unreachable, Reason::ReplicaAway, Some(since), now))
            }
        }
    }

    fn page_anew(&self, now: Millis) -> Summons {
        let mut next = self.step(SummonsState::Paged, now);
        next.paged = next.paged.or(Some(next.at));
        next.pages = next.pages.saturating_add(1);
        next.answered_by = String::new();
        next
    }

    fn step(&self, state: SummonsState, now: Millis) -> Summons {
        Summons {
            state,
            reason: None,
            reason_since: None,
            detail: String::new(),
            other: None,
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
        let same = next.state == self.state
            && next.reason == self.reason
            && next.detail == self.detail
            && next.other == self.other;
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
