//! What time brings, and what follows for others when the state of a site changes.
//!
//! A site that is out loses the floor; one that is no longer on air cannot answer the roll call; one that comes on air
//! fills a free place of the polled page.

use std::collections::BTreeMap;

use super::speak::floor_event;
use super::{Event, Meeting};
use crate::ids::{Millis, SiteId};
use crate::roll_call::RollCall;
use crate::summons::{Summons, SummonsState};

impl Meeting {
    /// The end of it all; a roll call that goes on ends before.
    pub(super) fn end(&self, reason: String, now: Millis) -> Vec<Event> {
        let mut events = self.roll_call_over(now);
        let at = now.max(self.started().unwrap_or(now));
        events.push(Event::Ended { at, reason });
        events
    }

    pub(super) fn tick(&self, now: Millis) -> Vec<Event> {
        if !self.is_live() {
            return Vec::new();
        }
        if self.terms().ends_at.is_some_and(|ends| ends <= now) {
            return self.end("its time was over".to_owned(), now);
        }
        let mut events = self.each(now, |s| s.tick(&self.timeouts, self.terms().deadline, now));
        events.extend(floor_event(self.floor().ticked(now)));
        let roll_call = self
            .roll_call()
            .filter(|call| call.due().is_some_and(|due| due <= now));
        events.extend(
            roll_call
                .map(|call| self.entry_events(call, call.close(now), now))
                .unwrap_or_default(),
        );
        events.extend(self.page_over(now));
        events
    }

    fn page_over(&self, now: Millis) -> Option<Event> {
        let polling = self.stage().polling.as_ref()?;
        let roster = self.roster();
        polling.due(&roster).filter(|due| *due <= now)?;
        let mut stage = self.stage().clone();
        stage.polling = Some(polling.turned(true, &roster, now));
        Some(Event::StageChanged { stage })
    }

    /// Adds what follows from the summonses that changed.
    pub(super) fn add_sequels(&self, events: &mut Vec<Event>, now: Millis) {
        let summons_of = |event: &Event| match event {
            Event::SummonsChanged { summons } => Some((summons.site.clone(), summons.clone())),
            _ => None,
        };
        let concerned = !self.floor().0.is_empty()
            || self.roll_call().is_some_and(RollCall::is_on)
            || self.stage().polling.is_some();
        if !concerned || events.iter().any(|event| matches!(event, Event::Ended { .. })) {
            return;
        }
        let after: BTreeMap<SiteId, Summons> = events.iter().filter_map(summons_of).collect();
        if after.is_empty() {
            return;
        }
        let is_out = |site: &SiteId| after.get(site).is_some_and(|summons| !summons.holds_claim());
        let mut sequels = floor_event(self.floor().without(|request| is_out(&request.site)));
        sequels.extend(self.called_is_gone(&after, now));
        sequels.extend(self.page_filled(&after, events));
        events.extend(sequels);
    }

    fn called_is_gone(&self, after: &BTreeMap<SiteId, Summons>, now: Millis) -> Vec<Event> {
        let lost = self.roll_call().and_then(|roll_call| {
            let summons = after.get(&roll_call.called()?.site)?;
            let gone = summons.state != SummonsState::OnAir;
            gone.then(|| (roll_call, roll_call.lost(summons.reason, now)))
        });
        lost.map(|(roll_call, entry)| self.entry_events_among(roll_call, entry, after, now))
            .unwrap_or_default()
    }

    fn page_filled(&self, after: &BTreeMap<SiteId, Summons>, events: &[Event]) -> Option<Event> {
        let comes = |summons: &Summons| summons.state == SummonsState::OnAir;
        if !after.values().any(comes) {
            return None;
        }
        let on_air = |own: &Summons| comes(after.get(&own.site).unwrap_or(own));
        let roster: Vec<(&SiteId, bool)> = self.summonses().iter().map(|s| (&s.site, on_air(s))).collect();
        let decided = events.iter().rev().find_map(|event| match event {
            Event::StageChanged { stage } => Some(stage),
            _ => None,
        });
        let mut stage = decided.unwrap_or(self.stage()).clone();
        stage.polling = Some(stage.polling.as_ref()?.refilled(&roster)?);
        Some(Event::StageChanged { stage })
    }
}
