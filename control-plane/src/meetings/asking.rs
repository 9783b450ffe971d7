//! What people, endpoints and desks ask of a meeting, decided in its step; the answers go out when that is stored.

use super::actor::{MeetingActor, pages};
use super::ask::{Pending, answer};
use super::draft::Draft;
use super::{Ask, invitee};
use crate::endpoints::Proof;
use crate::status::Failure;
use muster_domain::{Claims, Command, Refusal, SiteId, SummonsState};

impl MeetingActor {
    pub(super) fn asked(&mut self, ask: Ask, claims: &Claims, draft: &mut Draft) -> Pending {
        match ask {
            Ask::Do { command, by, reply } => {
                let command = self.fresh(command, claims);
                answer(reply, self.decide(command, &by, draft).map_err(Failure::from))
            }
            Ask::CallUnconnected { sites, by, reply } => answer(
                reply,
                self.call_unconnected(sites, &by, claims, draft)
                    .map_err(Failure::from),
            ),
            Ask::Report {
                site,
                report,
                proof,
                reply,
            } => {
                let result = self.free_for(&site, &proof).and_then(|()| {
                    let by = format!("site:{site}");
                    Ok(self.decide(Command::Report { site, report }, &by, draft)?)
                });
                answer(reply, result)
            }
            Ask::RelayNamedLost {
                relay,
                epoch,
                by,
                reply,
            } => {
                let result = self.relay_named_lost(&relay, epoch, &by, draft);
                answer(reply, result.map_err(Failure::from))
            }
            Ask::Ticket { site, proof, reply } => {
                let result = self.free_for(&site, &proof).and_then(|()| {
                    self.meeting.may_join(&site, claims.holder(&site))?;
                    let placement = self.meeting.placement();
                    self.shared
                        .tickets
                        .issue(self.meeting.id(), placement, &site, false)
                });
                answer(reply, result)
            }
            // Facts have no answer.
            Ask::Fact(fact) => {
                self.fact(&fact, claims, draft);
                Box::new(|_| ())
            }
        }
    }

    /// Whether no other endpoint of the site has the call.
    pub(super) fn free_for(&self, site: &SiteId, proof: &Proof) -> Result<(), Failure> {
        let summons = self
            .meeting
            .summons(site)
            .ok_or_else(|| Refusal::NotInMeeting(site.clone()))?;
        let busy = matches!(
            summons.state,
            SummonsState::Answered | SummonsState::Joining | SummonsState::OnAir
        );
        let by = &summons.answered_by;
        let other = !by.is_empty() && *by != proof.shown();
        // What answered and is gone since keeps nobody else of the site from it.
        match busy && other && self.shared.endpoints.may_be_there(site, by) {
            true => Err(Failure::Taken),
            false => Ok(()),
        }
    }

    fn call_unconnected(
        &mut self,
        sites: Vec<SiteId>,
        by: &str,
        claims: &Claims,
        draft: &mut Draft,
    ) -> Result<u32, Refusal> {
        let sites = if sites.is_empty() {
            self.meeting.unconnected().cloned().collect()
        } else {
            sites
        };
        let invitees = sites
            .into_iter()
            .map(|site| invitee(&self.shared.endpoints, site, claims))
            .collect();
        let before = draft.events.len();
        self.decide(Command::CallUnconnected { sites: invitees }, by, draft)?;
        let paged = draft.events[before..].iter().filter(|event| pages(event));
        Ok(u32::try_from(paged.count()).unwrap_or(u32::MAX))
    }
}
