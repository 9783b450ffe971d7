//! What endpoints are told of a meeting: that they are called, that it is over for them, and what a person there must
//! know of it in between.
//!
//! Invariants: a notice is sent when it differs from the one before, to sites that have answered; who attaches again is
//! told anew. What was told is forgotten with the site's part in the meeting, so that it stays bounded by the roster.

use super::actor::MeetingActor;
use super::draft::Draft;
use crate::convert::{notice_to_wire, priority_to_wire};
use crate::endpoints::{Proof, To};
use muster_domain::{Event, Media, MeetingId, Reason, SiteId, Summons, SummonsState};
use muster_proto::command::v1 as pb;
use pb::attach_response::Event as Pushed;
use std::collections::HashMap;

/// What each site was last told.
#[derive(Default)]
pub(super) struct Notices(HashMap<SiteId, pb::EndpointNotice>);

fn pushed(event: Pushed) -> pb::AttachResponse {
    pb::AttachResponse { event: Some(event) }
}

pub(super) fn withdrawn(meeting: &MeetingId, reason: &str) -> pb::AttachResponse {
    pushed(Pushed::Withdrawn(pb::SummonsWithdrawn {
        meeting: meeting.to_string(),
        reason: reason.to_owned(),
    }))
}

/// Whether an event may change what people at every site must know.
fn concerns_all(event: &Event) -> bool {
    matches!(
        event,
        Event::StageChanged { .. }
            | Event::ChairChanged { .. }
            | Event::LockChanged { .. }
            | Event::EndSet { .. }
            | Event::FloorChanged { .. }
            | Event::RollCallStarted { .. }
            | Event::RollCallEntryChanged { .. }
            | Event::RollCallEnded { .. }
    )
}

fn has_answered(summons: &Summons) -> bool {
    matches!(
        summons.state,
        SummonsState::Answered | SummonsState::Joining | SummonsState::OnAir
    )
}

impl MeetingActor {
    /// Looks up how the chair is shown, if somebody else has it now.
    pub(super) async fn know_chair(&mut self, events: &[Event]) {
        let changed = |event: &Event| matches!(event, Event::ChairChanged { .. });
        let Some(chair) = self.meeting.chair().filter(|_| events.iter().any(changed)) else {
            return;
        };
        let account = self.shared.store.account(chair).await;
        let shown = account.ok().flatten().map(|account| account.display_name);
        self.chair_shown = shown.unwrap_or_else(|| chair.to_string());
    }

    /// Calls, withdraws and notifies, as the summonses that changed have it.
    pub(super) fn tell_endpoints(&mut self, draft: &Draft) {
        self.page_held_back();
        for (site, endpoint) in &draft.recall {
            self.page(site, Some(*endpoint));
        }
        for site in &draft.touched {
            let Some(summons) = self.meeting.summons(site) else {
                continue;
            };
            match (summons.state, summons.reason) {
                (SummonsState::Paged, _) => self.page(site, None),
                (SummonsState::TimedOut, _) => self.withdraw(site, "timed out"),
                (SummonsState::Left, Some(Reason::HungUpByChair)) => self.withdraw(site, "hung up"),
                (SummonsState::Refused, Some(Reason::InOtherMeeting)) if summons.pages > 0 => {
                    self.withdraw(site, "called away");
                }
                _ => {}
            }
        }
        if self.meeting.ended().is_some() {
            for summons in self
                .meeting
                .summonses()
                .iter()
                .filter(|summons| !summons.is_out())
            {
                self.withdraw(&summons.site, "ended");
            }
        }
        self.notify(draft);
    }

    fn notify(&mut self, draft: &Draft) {
        for (site, _) in &draft.recall {
            self.notices.0.remove(site);
        }
        let mut due: Vec<SiteId> = if draft.events.iter().any(concerns_all) {
            self.meeting.summonses().iter().map(|s| s.site.clone()).collect()
        } else {
            draft.touched.iter().cloned().collect()
        };
        due.extend(draft.recall.iter().map(|(site, _)| site.clone()));
        for site in due {
            let answered = self.meeting.summons(&site).is_some_and(has_answered);
            let notice = self.meeting.notice(&site).filter(|_| answered);
            let Some(notice) = notice else {
                self.notices.0.remove(&site);
                continue;
            };
            let wire = notice_to_wire(&self.meeting, &notice, &self.chair_shown);
            if self.notices.0.get(&site) != Some(&wire) {
                let message = pushed(Pushed::Notice(wire.clone()));
                self.shared.endpoints.push(&site, To::All, |_| message.clone());
                self.notices.0.insert(site, wire);
            }
        }
    }

    fn withdraw(&self, site: &SiteId, reason: &str) {
        let message = withdrawn(self.meeting.id(), reason);
        self.shared.endpoints.push(site, To::All, |_| message.clone());
    }

    /// Asks the store of pages that others decided, and of those held back: since then another meeting may have had the
    /// site and let it go, of which one stream or both were not read here.
    pub(super) async fn doubt_pages(&mut self, draft: &Draft) {
        let read = draft.touched.iter().filter(|_| draft.by_others);
        let is_paged = |site: &&SiteId| {
            let summons = self.meeting.summons(site);
            summons.is_some_and(|summons| summons.state == SummonsState::Paged)
        };
        let paged = read.filter(is_paged).chain(self.held_back.keys());
        let here: Vec<String> = paged
            .filter(|site| self.shared.endpoints.is_here(site))
            .map(ToString::to_string)
            .collect();
        self.doubted.clear();
        if here.is_empty() {
            return;
        }
        let others = self
            .shared
            .store
            .claimed_by_others(self.meeting.id(), &here)
            .await;
        // Where the store does not answer, what was read must do.
        let others = others.unwrap_or_default().into_iter();
        self.doubted = others.filter_map(|site| SiteId::new(site).ok()).collect();
        if self.doubted.iter().any(|site| !self.held_back.contains_key(site)) {
            self.shared.read_all_again();
        }
    }

    /// Pages whom another meeting had, as far as was known here, if that is over and they are still to be paged.
    fn page_held_back(&mut self) {
        for (site, endpoint) in std::mem::take(&mut self.held_back) {
            let stands = |summons: &Summons| match endpoint {
                // Nobody is called to what another endpoint of the site answered meanwhile.
                Some(_) => summons.holds_claim() && !has_answered(summons),
                None => summons.state == SummonsState::Paged,
            };
            if self.meeting.is_live() && self.meeting.summons(&site).is_some_and(stands) {
                self.page(&site, endpoint);
            }
        }
    }

    /// Pages all endpoints of a site, or the one of this number.
    fn page(&mut self, site: &SiteId, endpoint: Option<u64>) {
        if !self.holds(site) || self.doubted.contains(site) {
            // Another meeting has it by now, and this one will say so; or the other has let it go, and that is not known
            // here: then this one is told to look when it is.
            let held = self.held_back.entry(site.clone()).or_insert(endpoint);
            if *held != endpoint {
                *held = None;
            }
            return;
        }
        let to = endpoint.map_or(To::All, To::One);
        let audio = self
            .meeting
            .summons(site)
            .is_some_and(|s| s.media == Media::Audio);
        self.shared.endpoints.push(site, to, |proof| {
            pushed(Pushed::Summons(pb::SummonsCall {
                meeting: self.meeting.id().to_string(),
                title: self.meeting.title().to_owned(),
                from: self.chair_shown.clone(),
                // Without a relay at this moment the endpoint asks for its ticket once it has answered.
                ticket: self
                    .shared
                    .tickets
                    .issue(self.meeting.id(), self.meeting.placement(), site, false)
                    .ok(),
                // A box answers by itself, a person presses once; the site's policy is put in on the way out.
                auto_answer: *proof == Proof::Certificate,
                audio_only: audio,
                priority: priority_to_wire(self.meeting.terms().priority).into(),
            }))
        });
    }
}
