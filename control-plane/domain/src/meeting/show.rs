//! What is seen: broadcast, layout, polling, voice switching, the watched site, content.
//!
//! Each change is a whole new stage, so that late joiners and those who reconnect find it as it is.

use super::decide::check_number;
use super::{Event, Meeting, PollingOrder};
use crate::ids::{Millis, SiteId};
use crate::polling::{
    DEFAULT_INTERVAL_MS, DEFAULT_PER_PAGE, MAX_INTERVAL_MS, MAX_PER_PAGE, MIN_INTERVAL_MS, Polling,
};
use crate::refusal::Refusal;
use crate::stage::{Layout, Seat, Stage};

/// An interval within its bounds; 0 is that of nobody's choice.
pub(super) fn interval(ms: i64) -> i64 {
    match ms {
        0 => DEFAULT_INTERVAL_MS,
        ms => ms.clamp(MIN_INTERVAL_MS, MAX_INTERVAL_MS),
    }
}

impl Meeting {
    pub(super) fn broadcast(&self, site: Option<SiteId>) -> Result<Vec<Event>, Refusal> {
        self.require_member(site.as_ref())?;
        self.restage(|stage| stage.broadcast = site)
    }

    pub(super) fn watch_site(&self, site: Option<SiteId>) -> Result<Vec<Event>, Refusal> {
        self.require_member(site.as_ref())?;
        self.restage(|stage| stage.watched = site)
    }

    pub(super) fn set_content(&self, seat: Option<Seat>) -> Result<Vec<Event>, Refusal> {
        self.require_member(match &seat {
            Some(Seat::Site(site)) => Some(site),
            _ => None,
        })?;
        self.restage(|stage| stage.content = seat)
    }

    pub(super) fn set_polling(
        &self,
        order: Option<PollingOrder>,
        now: Millis,
    ) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        let Some(order) = order else {
            return self.restage(|stage| stage.polling = None);
        };
        if order.interval_ms != 0 {
            check_number(
                "interval_ms",
                order.interval_ms,
                MIN_INTERVAL_MS..=MAX_INTERVAL_MS,
            )?;
        }
        let asked = i64::try_from(order.per_page).unwrap_or(i64::MAX);
        check_number("per_page", asked, 0..=MAX_PER_PAGE as i64)?;
        let per_page = match order.per_page {
            0 => self.stage().layout.map_or(DEFAULT_PER_PAGE, Layout::pictures),
            asked => asked,
        };
        let interval_ms = interval(order.interval_ms);
        let known = self.stage().polling.as_ref();
        let begun = match known.filter(|known| known.per_page == per_page) {
            Some(known) => known.clone(),
            None => Polling::start(interval_ms, per_page, &self.roster(), now),
        };
        // Who goes on after a pause waits a whole interval.
        let resumed = begun.paused && !order.paused;
        let polling = Polling {
            interval_ms,
            paused: order.paused,
            turned: if resumed {
                now.max(begun.turned)
            } else {
                begun.turned
            },
            ..begun
        };
        self.restage(|stage| stage.polling = Some(polling))
    }

    pub(super) fn turn_page(&self, forward: bool, now: Millis) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        let polling = self.stage().polling.as_ref().ok_or(Refusal::NotPolling)?;
        let turned = polling.turned(forward, &self.roster(), now);
        self.restage(|stage| stage.polling = Some(turned))
    }

    /// The stage with a change, if it is one.
    pub(super) fn restage(&self, change: impl FnOnce(&mut Stage)) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        let mut stage = self.stage().clone();
        change(&mut stage);
        if stage == *self.stage() {
            return Ok(Vec::new());
        }
        Ok(vec![Event::StageChanged { stage }])
    }

    /// A site that is to be shown must be in the meeting now, or on its way: none that was taken out.
    fn require_member(&self, site: Option<&SiteId>) -> Result<(), Refusal> {
        self.require_live()?;
        let Some(site) = site else { return Ok(()) };
        let summons = self.member(site)?;
        match &summons.other {
            _ if summons.is_hung_up() => Err(Refusal::HungUp(site.clone())),
            Some(other) if summons.is_elsewhere() => Err(Refusal::InOtherMeeting {
                site: site.clone(),
                meeting: other.meeting.clone(),
            }),
            _ => Ok(()),
        }
    }
}
