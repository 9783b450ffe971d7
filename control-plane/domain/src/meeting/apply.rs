//! Taking in events: the only way in which a meeting changes.
//!
//! What an event says is believed: it was decided once. One that cannot stand where it does (a site that is not in the
//! meeting, anything after the end) is counted and otherwise ignored, so that any stored bytes replay without harm.

use super::message::{ChairCause, Event};
use super::{Head, Meeting};
use crate::ids::{AccountName, Millis, SiteId};
use crate::stage::StageDocument;
use crate::summons::Summons;

/// Chairs that may be handed back to, at most; older ones are forgotten.
const MAX_TAKEN: usize = 16;

impl Meeting {
    /// Takes in the next event of the stream; its number is [`Meeting::seq`] afterwards. An event that cannot
    /// stand where it does (a site that is not in the meeting, anything after the end) is counted and
    /// otherwise ignored.
    pub fn apply(&mut self, event: &Event) {
        self.seq += 1;
        if self.ended.is_some() || self.head.is_some() == matches!(event, Event::Convened { .. }) {
            return;
        }
        let before = self.may_change_document(event).then(|| self.stage_document());
        self.take(event);
        let changed = |document: StageDocument| document != self.stage_document();
        if matches!(event, Event::Convened { .. }) || before.is_some_and(changed) {
            self.stage_version = self.seq;
        }
    }

    /// Most events cannot; of the others the documents are compared, which takes time.
    fn may_change_document(&self, event: &Event) -> bool {
        match event {
            Event::SummonsChanged { summons } => self
                .summons(&summons.site)
                .is_some_and(|known| known.is_out() != summons.is_out()),
            Event::ChairRequested { .. } | Event::EndSet { .. } | Event::Convened { .. } => false,
            Event::SitesAdded { .. }
            | Event::StageChanged { .. }
            | Event::ChairChanged { .. }
            | Event::LockChanged { .. }
            | Event::FloorChanged { .. }
            | Event::RollCallStarted { .. }
            | Event::RollCallEntryChanged { .. }
            | Event::RollCallEnded { .. }
            | Event::Placed { .. }
            | Event::Ended { .. } => true,
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Convened {
                at,
                title,
                chair,
                unit,
                sites,
                idempotency_key,
                terms,
            } => {
                self.head = Some(Head {
                    title: title.clone(),
                    chair: chair.clone(),
                    convened_by: chair.clone(),
                    unit: unit.clone(),
                    started: *at,
                    idempotency_key: idempotency_key.clone(),
                });
                self.terms = terms.clone();
                self.add(sites, *at);
            }
            Event::SitesAdded { at, sites, unit } => {
                if let (Some(head), Some(unit)) = (&mut self.head, unit) {
                    head.unit = unit.clone();
                }
                self.add(sites, *at);
            }
            Event::SummonsChanged { summons } => {
                let at = self.index.get(&summons.site);
                if let Some(entry) = at.and_then(|at| self.summonses.get_mut(*at)) {
                    *entry = summons.clone();
                }
            }
            Event::StageChanged { stage } => self.stage = stage.clone(),
            Event::ChairChanged { chair, before, cause } => self.take_chair(chair, before, *cause),
            Event::ChairRequested { account, withdrawn } => {
                self.chair_requests.retain(|other| other != account);
                if !withdrawn {
                    self.chair_requests.push(account.clone());
                }
            }
            Event::LockChanged { locked, desks } => {
                self.locked = locked.then(|| desks.clone());
            }
            Event::EndSet { ends_at } => self.terms.ends_at = Some(*ends_at),
            Event::FloorChanged { floor } => self.floor = floor.clone(),
            Event::RollCallStarted { roll_call } => self.roll_call = Some(roll_call.clone()),
            Event::RollCallEntryChanged { entry } => {
                self.roll_call.iter_mut().for_each(|own| own.apply(entry));
            }
            Event::RollCallEnded { at, number } => {
                let own = self.roll_call.as_mut().filter(|own| own.number == *number);
                own.into_iter().for_each(|own| own.ended = Some(*at));
            }
            Event::Placed { placement, .. } => self.placement = Some(placement.clone()),
            Event::Ended { at, reason } => self.close(*at, reason),
        }
    }

    fn close(&mut self, at: Millis, reason: &str) {
        for summons in &mut self.summonses {
            if let Some(over) = summons.meeting_ended(at) {
                *summons = over;
            }
        }
        self.ended = Some((at, reason.to_owned()));
    }

    fn add(&mut self, sites: &[SiteId], at: Millis) {
        for site in sites {
            if !self.index.contains_key(site) {
                self.index.insert(site.clone(), self.summonses.len());
                self.summonses.push(Summons::paged(site.clone(), at));
            }
        }
        self.sites = self
            .summonses
            .iter()
            .map(|summons| summons.site.clone())
            .collect();
    }

    fn take_chair(&mut self, chair: &AccountName, before: &AccountName, cause: ChairCause) {
        let Some(head) = &mut self.head else {
            return;
        };
        head.chair = chair.clone();
        self.chair_requests.retain(|other| other != chair);
        match cause {
            ChairCause::TakenOver => {
                self.taken_from.retain(|other| other != chair && other != before);
                self.taken_from.push(before.clone());
                let over = self.taken_from.len().saturating_sub(MAX_TAKEN);
                self.taken_from.drain(..over);
            }
            ChairCause::HandedBack => {
                // Those who came after, and may have it no more, are passed over.
                let back = self.taken_from.iter().rposition(|other| other == chair);
                self.taken_from.truncate(back.unwrap_or_default());
            }
            ChairCause::Granted | ChairCause::Released => self.taken_from.clear(),
        }
    }
}
