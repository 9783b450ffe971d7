//! Endpoints: agents by their certificate, browsers by a site link. The same calls on both ports.

use super::{Answers, report};
use crate::convert::{reason_from_wire, site_to_wire, state_from_wire};
use crate::core::Core;
use crate::drills;
use crate::endpoints::{Attachment, Proof};
use crate::fleet::Fleet as _;
use crate::status::Failure;
use futures_util::stream;
use muster_domain::{Command, EndpointKind, Refusal, Report, SiteId};
use muster_proto::command::v1 as pb;
use pb::attach_response::Event;
use pb::endpoint_service_server::EndpointService;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Interval;
use tonic::{Request, Response, Status};

/// Who hears nothing for some of these goes to another replica.
const HEARTBEAT: Duration = Duration::from_secs(1);

pub struct EndpointCalls(pub Arc<Core>);

/// An endpoint's stream: what is pushed to it, and heartbeats in between.
struct Attached {
    greeting: Option<pb::Attached>,
    attachment: Attachment,
    heartbeat: Interval,
    core: Arc<Core>,
    closed: bool,
}

/// Whether an endpoint of the site answers without a person: as its policy says, else boxes do.
fn answers_by_itself(policy: pb::AnswerPolicy, by_default: bool) -> bool {
    match policy {
        pb::AnswerPolicy::Auto => true,
        pb::AnswerPolicy::Ring => false,
        pb::AnswerPolicy::Unspecified => by_default,
    }
}

impl Attached {
    /// What is pushed, with how the site answers at this moment.
    fn with_policy(&self, mut message: pb::AttachResponse) -> pb::AttachResponse {
        if let Some(Event::Summons(call)) = &mut message.event {
            let tree = self.core.tree();
            let policy = tree
                .site(&self.attachment.site)
                .map(|site| site_to_wire(site).answer());
            call.auto_answer = answers_by_itself(policy.unwrap_or_default(), call.auto_answer);
        }
        message
    }

    async fn next(mut self) -> Option<(Result<pb::AttachResponse, Status>, Self)> {
        if self.closed {
            return None;
        }
        let event = if let Some(greeting) = self.greeting.take() {
            Event::Attached(greeting)
        } else {
            tokio::select! {
                biased;
                () = self.core.shutdown.cancelled() => {
                    self.closed = true;
                    return Some((Err(Status::unavailable("the control plane is stopping")), self));
                }
                pushed = self.attachment.queue.recv() => match pushed {
                    Some(message) => return Some((Ok(self.with_policy(message)), self)),
                    None => {
                        self.closed = true;
                        let text = "the endpoint did not read what it was told: attach again";
                        return Some((Err(Status::resource_exhausted(text)), self));
                    }
                },
                _ = self.heartbeat.tick() => {
                    Event::Heartbeat(pb::AttachHeartbeat { server_time_ms: self.core.clock.now_ms() })
                }
            }
        };
        Some((Ok(pb::AttachResponse { event: Some(event) }), self))
    }
}

/// Many attach at once: this one shall come again after a while, in milliseconds in the metadata.
fn come_again(wait: Duration) -> Status {
    let text = format!(
        "many attach at this moment: come again in {} ms",
        wait.as_millis()
    );
    let mut status = Status::resource_exhausted(text);
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    status.metadata_mut().insert("retry-after-ms", wait.into());
    status
}

impl EndpointCalls {
    /// Carries out what a person at the site asks for, by the endpoint that has the call.
    async fn by_person_at(
        &self,
        meeting: &str,
        site: &SiteId,
        proof: &Proof,
        command: Command,
    ) -> Result<(), Failure> {
        let answered = self.0.meetings.view(meeting).and_then(|view| {
            let summons = view.summons(site)?;
            Some(summons.answered_by.clone())
        });
        if answered.is_some_and(|by| !by.is_empty() && by != proof.shown()) {
            return Err(Failure::Taken);
        }
        let by = format!("site:{site}");
        self.0.meetings.command(meeting, command, by).await
    }
}

#[tonic::async_trait]
impl EndpointService for EndpointCalls {
    type AttachStream = Answers<pb::AttachResponse>;

    async fn attach(
        &self,
        request: Request<pb::AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let core = &self.0;
        let (site, proof) = core.endpoint(&request).await?;
        let kind: EndpointKind = request.into_inner().endpoint.parse().map_err(Failure::from)?;
        let tree = core.tree();
        let known = tree
            .site(&site)
            .ok_or_else(|| Failure::from(Refusal::UnknownSite(site.to_string())))?;
        let _admitted = core.door.enter(known.tier).await.map_err(come_again)?;
        // Agents keep a warm link where their tickets will lead; browsers have none.
        let place = if proof == Proof::Certificate {
            core.relays.place(&site)
        } else {
            None
        };
        let greeting = pb::Attached {
            site: Some(site_to_wire(known)),
            relay_link: place.map(|place| place.link).unwrap_or_default(),
            server_time_ms: core.clock.now_ms(),
        };
        let now = core.clock.now();
        let attachment = core
            .endpoints
            .attach(site.clone(), kind, proof.clone(), now)
            .map_err(Failure::from)?;
        core.meetings.attached(&site, attachment.id, &proof).await;
        if proof != Proof::Certificate {
            core.units.link_used(&site);
        }
        let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let state = Attached {
            greeting: Some(greeting),
            attachment,
            heartbeat,
            core: core.clone(),
            closed: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(state, Attached::next))))
    }

    async fn report_summons(
        &self,
        request: Request<pb::ReportSummonsRequest>,
    ) -> Result<Response<pb::ReportSummonsResponse>, Status> {
        let (site, proof) = self.0.endpoint(&request).await?;
        let pb::ReportSummonsRequest {
            meeting,
            state,
            reason,
            detail,
        } = request.into_inner();
        let state = state_from_wire(state).ok_or_else(|| {
            Failure::BadRequest(format!("state: found {state}, expected a state of a summons"))
        })?;
        let report = Report {
            state,
            reason: reason_from_wire(reason),
            detail,
            endpoint: proof.shown(),
        };
        self.0.meetings.report(&meeting, site, report, proof).await?;
        Ok(Response::new(pb::ReportSummonsResponse {}))
    }

    async fn get_ticket(
        &self,
        request: Request<pb::GetTicketRequest>,
    ) -> Result<Response<pb::GetTicketResponse>, Status> {
        let (site, proof) = self.0.endpoint(&request).await?;
        let pb::GetTicketRequest {
            meeting,
            lost_relay,
            lost_epoch,
        } = request.into_inner();
        let meetings = &self.0.meetings;
        if !lost_relay.is_empty() {
            // Only who may join may say so.
            meetings
                .ticket_or_no_relay(&meeting, site.clone(), proof.clone())
                .await?;
            let by = format!("site:{site}");
            meetings
                .relay_named_lost(&meeting, lost_relay, lost_epoch, by)
                .await?;
        }
        let ticket = meetings.ticket(&meeting, site, proof).await?;
        Ok(Response::new(pb::GetTicketResponse { ticket: Some(ticket) }))
    }

    async fn request_floor(
        &self,
        request: Request<pb::RequestFloorRequest>,
    ) -> Result<Response<pb::RequestFloorResponse>, Status> {
        let (site, proof) = self.0.endpoint(&request).await?;
        let pb::RequestFloorRequest { meeting, withdraw } = request.into_inner();
        let command = Command::RequestFloor {
            site: site.clone(),
            withdraw,
        };
        self.by_person_at(&meeting, &site, &proof, command).await?;
        Ok(Response::new(pb::RequestFloorResponse {}))
    }

    async fn answer_roll_call(
        &self,
        request: Request<pb::AnswerRollCallRequest>,
    ) -> Result<Response<pb::AnswerRollCallResponse>, Status> {
        let (site, proof) = self.0.endpoint(&request).await?;
        let command = Command::Acknowledge {
            site: site.clone(),
            by: None,
        };
        self.by_person_at(&request.into_inner().meeting, &site, &proof, command)
            .await?;
        Ok(Response::new(pb::AnswerRollCallResponse {}))
    }

    async fn report_drill(
        &self,
        request: Request<pb::ReportDrillRequest>,
    ) -> Result<Response<pb::ReportDrillResponse>, Status> {
        let (site, _) = self.0.endpoint(&request).await?;
        let pb::ReportDrillRequest { drill, result } = request.into_inner();
        drills::report(&self.0, site, &drill, &result.unwrap_or_default())?;
        Ok(Response::new(pb::ReportDrillResponse {}))
    }

    async fn hand_in_report(
        &self,
        request: Request<pb::HandInReportRequest>,
    ) -> Result<Response<pb::HandInReportResponse>, Status> {
        let (site, proof) = self.0.endpoint(&request).await?;
        let report = report::checked(site.clone(), request.into_inner())?;
        let kind = report.kind.clone();
        let stored = report::take(&self.0, report).await?;
        if report::is_to_present_roll_call(&self.0, &kind) {
            let command = Command::Acknowledge {
                site: site.clone(),
                by: None,
            };
            match self.by_person_at(&stored.meeting, &site, &proof, command).await {
                // Its turn is over, or it was marked present meanwhile: what is stored says when it answered.
                Ok(()) | Err(Failure::Refused(_) | Failure::NoMeeting(_) | Failure::Taken) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let received_ms = stored.received_ms;
        Ok(Response::new(pb::HandInReportResponse { received_ms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sites_policy_says_who_answers_and_without_one_boxes_do() {
        use pb::AnswerPolicy::{Auto, Ring, Unspecified};
        for (policy, agent, browser) in [
            (Auto, true, true),
            (Ring, false, false),
            (Unspecified, true, false),
        ] {
            assert_eq!(answers_by_itself(policy, true), agent);
            assert_eq!(answers_by_itself(policy, false), browser);
        }
    }
}
