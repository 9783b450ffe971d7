//! From a command to events, or to a refusal. Reads the meeting, never changes it.
//!
//! Commands of people and reports of endpoints are refused on a meeting that has ended; facts that trail in
//! from relays and endpoints then are no error and change nothing. What one subject decides is in its own file beside
//! this one; what follows from it for others is added in `sequel.rs`.

use super::{Command, Event, MAX_TEXT, Meeting};
use crate::ids::{Millis, SiteId};
use crate::refusal::Refusal;
use crate::stage::Placement;
use crate::summons::Summons;

impl Meeting {
    /// The events that follow from a command at this time: to be stored and applied in this order. None, if it
    /// only repeats what is so.
    pub fn decide(&self, command: Command, now: Millis) -> Result<Vec<Event>, Refusal> {
        let mut events = self.of_command(command, now)?;
        self.add_sequels(&mut events, now);
        Ok(events)
    }

    fn of_command(&self, command: Command, now: Millis) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Convene { .. } => self.convene(command, now),
            Command::CallUnconnected { sites } => self.call_unconnected(&sites, now),
            Command::AddSites { sites, over } => self.add_sites(sites, over, now),
            Command::HangUp { sites } => self.hang_up(&sites, now),
            Command::Broadcast { site } => self.broadcast(site),
            Command::Mute { sites, muted } => self.mute(&sites, muted),
            Command::Lock { locked, desks } => self.lock(locked, desks),
            Command::Extend { minutes } => self.extend(minutes, now),
            Command::RequestChair { by, withdraw, held } => self.request_chair(by, withdraw, held),
            Command::AnswerChairRequest {
                account,
                granted,
                able,
            } => self.answer_chair_request(account, granted, &able),
            Command::ReleaseChair { by, able } => self.release_chair(&by, &able),
            Command::TakeOver { by } => self.take_over(by),
            Command::HandBack { by, able } => self.hand_back(&by, &able),
            Command::SetLayout { layout } => self.restage(|stage| stage.layout = layout),
            Command::SetPolling { polling } => self.set_polling(polling, now),
            Command::TurnPage { forward } => self.turn_page(forward, now),
            Command::SetVoiceSwitching { on } => self.restage(|stage| stage.voice_switching = on),
            Command::WatchSite { site } => self.watch_site(site),
            Command::SetContent { seat } => self.set_content(seat),
            Command::StartRollCall { by, answer_s, sites } => self.start_roll_call(by, answer_s, &sites, now),
            Command::NextRollCall { site } => self.next_roll_call(site.as_ref(), now),
            Command::Acknowledge { site, by } => self.acknowledge(&site, by, now),
            Command::Evidence { site, up, down } => Ok(self.evidence(&site, up, down, now)),
            Command::EndRollCall => self.end_roll_call(now),
            Command::RequestFloor { site, withdraw } => self.request_floor(&site, withdraw, now),
            Command::GrantFloor { site, seconds } => self.grant_floor(&site, seconds, now),
            Command::TakeFloor { site } => self.take_floor(&site),
            Command::End { reason } => {
                self.require_live()?;
                check_text("reason", &reason, true)?;
                Ok(self.end(reason, now))
            }
            Command::Place { relay, epoch } => self.place(relay, epoch),
            Command::Tick => Ok(self.tick(now)),
            fact => self.of_fact(fact, now),
        }
    }

    fn of_fact(&self, fact: Command, now: Millis) -> Result<Vec<Event>, Refusal> {
        match fact {
            Command::Report { site, report } => self.report(&site, &report, now),
            Command::SiteTaken { site, by } => self.fact(&site, now, |s| s.taken(&by, now)),
            Command::SiteReturned { site } => {
                self.fact(&site.site, now, |s| s.returned(&site, self.caller(), now))
            }
            Command::EndpointAttached { site } => self.fact(&site, now, |s| s.attached(now)),
            Command::EndpointDetached { site } => self.fact(&site, now, |s| s.detached(now)),
            Command::LegJoining { site } => self.fact(&site, now, |s| s.leg_joining(now)),
            Command::LegOnAir { site } => self.fact(&site, now, |s| s.leg_on_air(now)),
            Command::LegMoved { site } => self.fact(&site, now, Summons::leg_moved),
            Command::LegSilent { site } => self.fact(&site, now, |s| s.leg_silent(now)),
            Command::LegEnded { site, end, reach } => self.fact(&site, now, |s| s.leg_ended(end, reach, now)),
            Command::NoRelay { sites } => self.no_relay(&sites, now),
            _ => Ok(Vec::new()),
        }
    }

    fn place(&self, relay: String, epoch: u64) -> Result<Vec<Event>, Refusal> {
        self.require_live()?;
        check_text("relay", &relay, false)?;
        let placement = Placement { relay, epoch };
        let before = match self.placement() {
            Some(known) if *known == placement => return Ok(Vec::new()),
            Some(known) if known.epoch >= epoch => {
                return Err(Refusal::OldEpoch {
                    found: epoch,
                    current: known.epoch,
                });
            }
            known => known.map(|known| known.relay.clone()).unwrap_or_default(),
        };
        Ok(vec![Event::Placed { placement, before }])
    }

    /// Something that happened whether or not anyone likes it: late for an ended meeting is no error.
    pub(super) fn fact(
        &self,
        site: &SiteId,
        now: Millis,
        change: impl Fn(&Summons) -> Option<Summons>,
    ) -> Result<Vec<Event>, Refusal> {
        match self.require_live() {
            Err(Refusal::MeetingEnded) => return Ok(Vec::new()),
            other => other?,
        }
        let changed = change(self.member(site)?);
        Ok(self.summons_events(changed, now))
    }
}

pub(super) fn changed(summons: Summons) -> Event {
    Event::SummonsChanged { summons }
}

pub(super) fn check_text(field: &'static str, text: &str, may_be_empty: bool) -> Result<(), Refusal> {
    let fits = text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control);
    if fits && (may_be_empty || !text.trim().is_empty()) {
        return Ok(());
    }
    let expected = if may_be_empty {
        "200 characters at most, no control characters"
    } else {
        "1 to 200 characters, no control characters"
    };
    Err(Refusal::BadText { field, expected })
}

/// Refuses a number that is out of its bounds.
pub(super) fn check_number(
    field: &'static str,
    found: i64,
    bounds: std::ops::RangeInclusive<i64>,
) -> Result<(), Refusal> {
    if bounds.contains(&found) {
        return Ok(());
    }
    Err(Refusal::BadNumber {
        field,
        found,
        least: *bounds.start(),
        most: *bounds.end(),
    })
}
