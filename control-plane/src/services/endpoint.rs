//! Endpoints: agents by their certificate, browsers by a site link. The same calls on both ports.

use super::Answers;
use crate::clock::now_ms;
use crate::convert::{reason_from_wire, site_to_wire, state_from_wire};
use crate::core::Core;
use crate::endpoints::{Attachment, Proof};
use crate::fleet::Fleet as _;
use crate::status::Failure;
use futures_util::stream;
use muster_domain::{EndpointKind, Millis, Refusal, Report};
use muster_proto::command::v1 as pb;
use pb::attach_response::Event;
use pb::endpoint_service_server::EndpointService;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

const HEARTBEAT: Duration = Duration::from_secs(2);

pub struct EndpointCalls(pub Arc<Core>);

/// An endpoint's stream: what is pushed to it, and heartbeats in between.
struct Attached {
    greeting: Option<pb::Attached>,
    attachment: Attachment,
    heartbeat: Interval,
    shutdown: CancellationToken,
    closed: bool,
}

impl Attached {
    async fn next(mut self) -> Option<(Result<pb::AttachResponse, Status>, Self)> {
        if self.closed {
            return None;
        }
        let event = if let Some(greeting) = self.greeting.take() {
            Event::Attached(greeting)
        } else {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.closed = true;
                    return Some((Err(Status::unavailable("the control plane is stopping")), self));
                }
                pushed = self.attachment.queue.recv() => match pushed {
                    Some(message) => return Some((Ok(message), self)),
                    None => {
                        self.closed = true;
                        let text = "the endpoint did not read what it was told: attach again";
                        return Some((Err(Status::resource_exhausted(text)), self));
                    }
                },
                _ = self.heartbeat.tick() => {
                    Event::Heartbeat(pb::AttachHeartbeat { server_time_ms: now_ms() })
                }
            }
        };
        Some((Ok(pb::AttachResponse { event: Some(event) }), self))
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
        // Agents keep a warm link where their tickets will lead; browsers have none.
        let place = if proof == Proof::Certificate {
            core.relays.place(&site)
        } else {
            None
        };
        let greeting = pb::Attached {
            site: Some(site_to_wire(known)),
            relay_link: place.map(|place| place.link).unwrap_or_default(),
            server_time_ms: now_ms(),
        };
        let now = Millis(now_ms());
        let attachment = core
            .endpoints
            .attach(site.clone(), kind, proof.clone(), now)
            .map_err(Failure::from)?;
        core.meetings.attached(&site, attachment.id, &proof).await;
        let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shutdown = core.shutdown.clone();
        let state = Attached {
            greeting: Some(greeting),
            attachment,
            heartbeat,
            shutdown,
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
        let ticket = self
            .0
            .meetings
            .ticket(&request.into_inner().meeting, site, proof)
            .await?;
        Ok(Response::new(pb::GetTicketResponse { ticket: Some(ticket) }))
    }

    async fn request_floor(
        &self,
        _: Request<pb::RequestFloorRequest>,
    ) -> Result<Response<pb::RequestFloorResponse>, Status> {
        Err(Status::unimplemented("not built yet"))
    }

    async fn answer_roll_call(
        &self,
        _: Request<pb::AnswerRollCallRequest>,
    ) -> Result<Response<pb::AnswerRollCallResponse>, Status> {
        Err(Status::unimplemented("not built yet"))
    }

    async fn report_drill(
        &self,
        _: Request<pb::ReportDrillRequest>,
    ) -> Result<Response<pb::ReportDrillResponse>, Status> {
        Err(Status::unimplemented("not built yet"))
    }
}
