//! Commands of dispatchers: preview, convene, call again, broadcast, mute, end.

use super::{convening, resolve_for};
use crate::convert::{meeting_to_wire, priority_from_wire, summons_to_wire};
use crate::core::{Caller, Core, target_of, target_of_wire};
use crate::status::Failure;
use crate::store::DamagedMeeting;
use muster_domain::{
    Action, Caller as Calling, Command, MeetingId, Priority, Resolution, SiteId, Summons, Target, authorize,
};
use muster_proto::command::v1 as pb;
use pb::meeting_service_server::MeetingService;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Ended meetings in one answer.
const MAX_ENDED: usize = 100;
/// Ended meetings that are looked through for those that the caller may see.
const MAX_LOOKED: i64 = 10_000;

pub struct MeetingCalls(pub Arc<Core>);

pub(super) fn sites(names: Vec<String>) -> Result<Vec<SiteId>, Failure> {
    names
        .into_iter()
        .map(|name| SiteId::new(name).map_err(Failure::from))
        .collect()
}

impl MeetingCalls {
    /// What would become of each site that is not expected to come, and of each that another meeting would lose.
    async fn foreseen(
        &self,
        sites: &[SiteId],
        priority: Priority,
    ) -> Result<(Vec<pb::Summons>, Vec<pb::Summons>), Failure> {
        // No meeting has this id: every claim is one of another meeting.
        let preview = MeetingId::new("preview")?;
        let own = Calling {
            meeting: &preview,
            priority,
        };
        let now = self.0.clock.now();
        let invitees = self.0.meetings.invitees(sites);
        let (mut doubtful, mut taken) = (Vec::new(), Vec::new());
        for invitee in &invitees {
            let called = Summons::called(invitee, own, now);
            let holder = invitee.claimed_by.clone().filter(|_| !called.is_elsewhere());
            if called.state.is_end() {
                doubtful.push(summons_to_wire(&called));
            }
            if let Some(holder) = holder {
                let other = Some(holder);
                taken.push(summons_to_wire(&Summons { other, ..called }));
            }
        }
        Ok((doubtful, taken))
    }

    async fn command(
        &self,
        caller: &Caller,
        meeting: &str,
        action: Action,
        command: Command,
    ) -> Result<(), Status> {
        self.0.meeting_for(caller, meeting, action).await?;
        Ok(self
            .0
            .meetings
            .command(meeting, command, caller.account.name.clone())
            .await?)
    }
}

fn damaged_to_wire(meeting: DamagedMeeting) -> pb::DamagedMeeting {
    let DamagedMeeting {
        id,
        title,
        unit,
        chair,
        started_ms,
        reason,
    } = meeting;
    pb::DamagedMeeting {
        id,
        title,
        unit,
        chair,
        started_ms,
        reason,
    }
}

#[tonic::async_trait]
impl MeetingService for MeetingCalls {
    async fn preview_convene(
        &self,
        request: Request<pb::PreviewConveneRequest>,
    ) -> Result<Response<pb::PreviewConveneResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::PreviewConveneRequest {
            selector,
            priority,
            preset,
        } = request.into_inner();
        let mut asked = pb::ConveneRequest {
            selector,
            priority,
            preset,
            ..pb::ConveneRequest::default()
        };
        if !asked.preset.is_empty() {
            convening::fill_in(&self.0, &caller, &mut asked).await?;
        }
        let Resolution { sites, unknown } = resolve_for(&self.0, &caller, Action::Convene, asked.selector)?;
        let priority = priority_from_wire(asked.priority).unwrap_or_default();
        let (doubtful, taken) = self.foreseen(&sites, priority).await?;
        let sites = sites.iter().map(ToString::to_string).collect();
        Ok(Response::new(pb::PreviewConveneResponse {
            sites,
            doubtful,
            unknown,
            taken,
        }))
    }

    async fn convene(
        &self,
        request: Request<pb::ConveneRequest>,
    ) -> Result<Response<pb::ConveneResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let meeting = convening::convene(&self.0, &caller, request.into_inner(), "").await?;
        Ok(Response::new(pb::ConveneResponse {
            meeting: Some(meeting),
        }))
    }

    async fn call_unconnected(
        &self,
        request: Request<pb::CallUnconnectedRequest>,
    ) -> Result<Response<pb::CallUnconnectedResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::CallUnconnectedRequest {
            meeting,
            sites: names,
        } = request.into_inner();
        self.0
            .meeting_for(&caller, &meeting, Action::CallUnconnected)
            .await?;
        let by = caller.account.name.clone();
        let called = self
            .0
            .meetings
            .call_unconnected(&meeting, sites(names)?, by)
            .await?;
        Ok(Response::new(pb::CallUnconnectedResponse { called }))
    }

    async fn end_meeting(
        &self,
        request: Request<pb::EndMeetingRequest>,
    ) -> Result<Response<pb::EndMeetingResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let meeting = request.into_inner().meeting;
        let command = Command::End {
            reason: String::new(),
        };
        self.command(&caller, &meeting, Action::EndMeeting, command)
            .await?;
        Ok(Response::new(pb::EndMeetingResponse {}))
    }

    async fn broadcast_site(
        &self,
        request: Request<pb::BroadcastSiteRequest>,
    ) -> Result<Response<pb::BroadcastSiteResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::BroadcastSiteRequest { meeting, site } = request.into_inner();
        let site = if site.is_empty() {
            None
        } else {
            Some(SiteId::new(site).map_err(Failure::from)?)
        };
        self.command(&caller, &meeting, Action::Broadcast, Command::Broadcast { site })
            .await?;
        Ok(Response::new(pb::BroadcastSiteResponse {}))
    }

    async fn mute_sites(
        &self,
        request: Request<pb::MuteSitesRequest>,
    ) -> Result<Response<pb::MuteSitesResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::MuteSitesRequest {
            meeting,
            sites: names,
            muted,
        } = request.into_inner();
        let command = Command::Mute {
            sites: sites(names)?,
            muted,
        };
        self.command(&caller, &meeting, Action::Mute, command).await?;
        Ok(Response::new(pb::MuteSitesResponse {}))
    }

    async fn list_meetings(
        &self,
        request: Request<pb::ListMeetingsRequest>,
    ) -> Result<Response<pb::ListMeetingsResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let tree = self.0.tree();
        let mut meetings = Vec::new();
        for meeting in self.0.meetings.views().iter().rev() {
            if authorize(
                &caller.actor,
                Action::View,
                &target_of(meeting)?,
                &tree,
                self.0.clock.now(),
            )
            .is_ok()
            {
                meetings.push(meeting_to_wire(meeting));
            }
        }
        let sees = |target: &Target| {
            authorize(&caller.actor, Action::View, target, &tree, self.0.clock.now()).is_ok()
        };
        let mut damaged = self.0.meetings.damaged().await?;
        if request.into_inner().include_ended {
            let wanted = |meeting: &pb::Meeting| target_of_wire(meeting).is_ok_and(|target| sees(&target));
            let (ended, unreadable) = self.0.meetings.ended(MAX_LOOKED, MAX_ENDED, wanted).await?;
            damaged.extend(unreadable);
            meetings.extend(ended);
        }
        let damaged = damaged.into_iter().filter_map(|meeting| {
            let target = Target::Meeting {
                unit: meeting.unit.parse().ok()?,
                chair: meeting.chair.parse().ok()?,
                taken_from: None,
                sites: [].into(),
            };
            sees(&target).then(|| damaged_to_wire(meeting))
        });
        let damaged = damaged.collect();
        Ok(Response::new(pb::ListMeetingsResponse { meetings, damaged }))
    }

    async fn join_as_desk(
        &self,
        request: Request<pb::JoinAsDeskRequest>,
    ) -> Result<Response<pb::JoinAsDeskResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::JoinAsDeskRequest {
            meeting: id,
            lost_relay,
            lost_epoch,
        } = request.into_inner();
        let mut meeting = self.0.meeting_for(&caller, &id, Action::JoinAsDesk).await?;
        meeting
            .may_join_as_desk(&caller.actor.account)
            .map_err(|refusal| self.0.refused(&caller, Action::JoinAsDesk, refusal))?;
        if !lost_relay.is_empty() {
            let by = caller.account.name.clone();
            let meetings = &self.0.meetings;
            meetings.relay_named_lost(&id, lost_relay, lost_epoch, by).await?;
            meeting = meetings.view(&id).unwrap_or(meeting);
        }
        let chair = meeting.chair() == Some(&caller.actor.account);
        let desk = caller.actor.account.desk();
        let ticket = self.0.tickets.issue(&id, meeting.placement(), &desk, chair)?;
        Ok(Response::new(pb::JoinAsDeskResponse { ticket: Some(ticket) }))
    }

    async fn act(&self, request: Request<pb::ActRequest>) -> Result<Response<pb::ActResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let answer = self.carry_out(&caller, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}
