//! The log: read, verified, replayed; and what follows from it, attendance and roll calls.
//!
//! A stream is a meeting's id or `unit:ID`. Long streams go out a page at a time, so that a slow reader costs no memory.

use super::Answers;
use super::verify::verify;
use crate::convert::{event_from_wire, meeting_to_wire, roll_call_to_wire};
use crate::core::{Caller, Core, target_of, target_of_wire};
use crate::status::Failure;
use crate::store::StoreError;
use muster_domain::meeting::Until;
use muster_domain::{
    Action, Attendance, Event, Meeting, MeetingId, Millis, Refusal, RollCall, Target, Timeouts, UnitId,
    attendance,
};
use muster_proto::command::v1 as pb;
use pb::log_service_server::LogService;
use prost::Message as _;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Events read at once.
const PAGE: i64 = 500;
/// Messages that the reader may be behind.
const QUEUE: usize = 64;
/// Events of a meeting that are replayed; a longer one is read instead.
const MAX_REPLAY: usize = 500_000;

pub struct Logs(pub Arc<Core>);

impl Logs {
    /// What a stream is about, as the domain's `authorize` wants it.
    async fn target(&self, stream: &str) -> Result<Target, Failure> {
        if let Some(unit) = stream.strip_prefix("unit:") {
            return Ok(Target::Unit(UnitId::new(unit)?));
        }
        if let Some(view) = self.0.meetings.view(stream) {
            return target_of(&view).map_err(|_| Refusal::NotConvened.into());
        }
        let found = match self.0.meetings.find(stream).await {
            Ok(meeting) => target_of_wire(&meeting),
            Err(failure) => Err(failure),
        };
        match found {
            Err(failure) if !is_away(&failure) => self.target_by_row(stream).await?.ok_or(failure),
            found => found,
        }
    }

    /// Of a meeting whose state cannot be read: what its row says.
    async fn target_by_row(&self, stream: &str) -> Result<Option<Target>, Failure> {
        let row = match self.0.store.kept_meeting(stream).await {
            Err(StoreError::Corrupt(_)) => None,
            row => row?,
        };
        Ok(row.and_then(|row| {
            Some(Target::Meeting {
                unit: row.unit.parse().ok()?,
                chair: row.chair.parse().ok()?,
                taken_from: None,
                sites: [].into(),
            })
        }))
    }

    /// Whether the unit of this target is one of the tree, so that somebody can be responsible for it.
    fn is_known(&self, target: &Target) -> bool {
        let (Target::Unit(unit) | Target::Meeting { unit, .. }) = target else {
            return true;
        };
        self.0.tree().unit(unit).is_some()
    }

    /// The stored events of a meeting with their times, if the caller may do this in it.
    async fn events(
        &self,
        caller: &Caller,
        meeting: &str,
        action: Action,
    ) -> Result<Vec<(Millis, Event)>, Status> {
        if meeting.starts_with("unit:") {
            return Err(Failure::BadRequest("meeting: expected the id of a meeting".to_owned()).into());
        }
        let target = self.target(meeting).await?;
        self.0.authorize(caller, action, &target)?;
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page = self.0.store.events_page(meeting, after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(events);
            };
            after = last.seq;
            for stored in &page {
                let wire = pb::MeetingEvent::decode(stored.payload.as_slice()).map_err(|error| {
                    StoreError::Corrupt(format!("event {} of {meeting}: {error}", stored.seq))
                })?;
                events.push((Millis(wire.at_ms), event_from_wire(wire)?));
            }
            if events.len() > MAX_REPLAY {
                return Err(Failure::BadRequest(format!("meeting {meeting} has too many events")).into());
            }
        }
    }

    /// The streams to verify: the named one, or all that the caller may read.
    async fn readable(&self, caller: &Caller, stream: String) -> Result<Vec<String>, Status> {
        let action = Action::ReadLog;
        if !stream.is_empty() {
            if self.reads_any(caller) && !self.0.store.streams().await?.contains(&stream) {
                return Err(Failure::NoStream(stream).into());
            }
            if !self.may_verify(caller, &stream).await? {
                let target = self.target(&stream).await?;
                self.0.authorize(caller, action, &target)?;
            }
            return Ok(vec![stream]);
        }
        if !self.reads_any(caller) {
            return Err(self.0.refused(caller, action, Refusal::NoRole { action }));
        }
        let mut streams = Vec::new();
        for stream in self.0.store.streams().await? {
            if self.may_verify(caller, &stream).await? {
                streams.push(stream);
            }
        }
        Ok(streams)
    }

    fn reads_any(&self, caller: &Caller) -> bool {
        let units = caller
            .actor
            .units_for(Action::ReadLog, &self.0.tree(), self.0.clock.now());
        !units.is_empty()
    }

    /// Whose a stream is that cannot be read cannot be told: everybody who reads any log is told that it is damaged.
    async fn may_verify(&self, caller: &Caller, stream: &str) -> Result<bool, Status> {
        match self.target(stream).await {
            Ok(target) if self.0.permits(caller, Action::ReadLog, &target) => Ok(true),
            Ok(target) if self.is_known(&target) => {
                // A final state that was forged may say that the meeting was another unit's.
                let by_row = self.target_by_row(stream).await?;
                Ok(by_row.is_some_and(|target| self.0.permits(caller, Action::ReadLog, &target)))
            }
            Err(failure) if is_away(&failure) => Err(failure.into()),
            Ok(_) | Err(_) => Ok(self.reads_any(caller)),
        }
    }
}

fn is_away(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Store(StoreError::Unavailable(_)) | Failure::Busy
    )
}

fn attendance_to_wire(one: &Attendance, now: Millis) -> pb::Attendance {
    pb::Attendance {
        site: one.site.to_string(),
        on_air: one
            .spans
            .iter()
            .map(|span| pb::Span {
                from_ms: span.from.0,
                to_ms: span.to.map_or(0, |to| to.0),
            })
            .collect(),
        total_ms: one.total_ms(now),
    }
}

#[tonic::async_trait]
impl LogService for Logs {
    type ReadLogStream = Answers<pb::ReadLogResponse>;
    type VerifyLogStream = Answers<pb::VerifyLogResponse>;

    async fn read_log(
        &self,
        request: Request<pb::ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::ReadLogRequest { stream, mut after } = request.into_inner();
        let target = self.target(&stream).await?;
        self.0.authorize(&caller, Action::ReadLog, &target)?;
        let (queue, answers) = mpsc::channel(QUEUE);
        let store = self.0.store.clone();
        tokio::spawn(async move {
            loop {
                let page = match store.events_page(&stream, after, PAGE).await {
                    Ok(page) => page,
                    Err(error) => {
                        let _ = queue.send(Err(error.into())).await;
                        return;
                    }
                };
                if page.is_empty() {
                    return;
                }
                for stored in page {
                    after = stored.seq;
                    let answer = pb::ReadLogResponse {
                        seq: stored.seq,
                        payload: stored.payload,
                        hash: stored.hash.to_vec(),
                    };
                    if queue.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn verify_log(
        &self,
        request: Request<pb::VerifyLogRequest>,
    ) -> Result<Response<Self::VerifyLogStream>, Status> {
        let caller = self.0.caller(&request).await?;
        let streams = self.readable(&caller, request.into_inner().stream).await?;
        let (queue, answers) = mpsc::channel(QUEUE);
        let store = self.0.store.clone();
        tokio::spawn(async move {
            for stream in streams {
                let line = verify(&store, stream).await.map_err(Status::from);
                let over = line.is_err();
                if queue.send(line).await.is_err() || over {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn replay_meeting(
        &self,
        request: Request<pb::ReplayMeetingRequest>,
    ) -> Result<Response<pb::ReplayMeetingResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::ReplayMeetingRequest { meeting, at_ms, seq } = request.into_inner();
        let bad = |text: String| Status::from(Failure::BadRequest(text));
        let until = match (at_ms, seq) {
            (None, None) => Until::Seq(u64::MAX),
            (None, Some(0)) => {
                return Err(bad(
                    "seq: found 0, expected 1 or more: events count from 1".to_owned()
                ));
            }
            (None, Some(seq)) => Until::Seq(seq),
            (Some(at_ms), None) => Until::Time(Millis(at_ms)),
            (Some(_), Some(_)) => return Err(bad("at_ms, seq: expected one of them at most".to_owned())),
        };
        let events = self.events(&caller, &meeting, Action::ReadLog).await?;
        let id = MeetingId::new(&meeting).map_err(Failure::from)?;
        let first = events.first().map(|(at, _)| *at);
        if let (Until::Time(time), Some(first)) = (until, first)
            && time < first
        {
            let text = format!(
                "at_ms: found {}, and meeting {meeting} began at {}",
                time.0, first.0
            );
            return Err(bad(text));
        }
        if let Until::Seq(seq) = until
            && seq != u64::MAX
            && seq > events.len() as u64
        {
            let text = format!(
                "seq: found {seq}, and the last event of meeting {meeting} is {}",
                events.len()
            );
            return Err(bad(text));
        }
        let events = events.iter().map(|(at, event)| (*at, event));
        let state = Meeting::replay_until(id, Timeouts::default(), events, until);
        let meeting = Some(meeting_to_wire(&state));
        Ok(Response::new(pb::ReplayMeetingResponse { meeting }))
    }

    async fn get_attendance(
        &self,
        request: Request<pb::GetAttendanceRequest>,
    ) -> Result<Response<pb::GetAttendanceResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let meeting = request.into_inner().meeting;
        let events = self.events(&caller, &meeting, Action::View).await?;
        let attendances = attendance(events.iter().map(|(_, event)| event));
        let now = self.0.clock.now();
        let attendances = attendances
            .iter()
            .map(|one| attendance_to_wire(one, now))
            .collect();
        Ok(Response::new(pb::GetAttendanceResponse { attendances }))
    }

    async fn list_roll_calls(
        &self,
        request: Request<pb::ListRollCallsRequest>,
    ) -> Result<Response<pb::ListRollCallsResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let meeting = request.into_inner().meeting;
        let events = self.events(&caller, &meeting, Action::View).await?;
        let calls = RollCall::history(events.iter().map(|(_, event)| event));
        let roll_calls = calls.iter().map(roll_call_to_wire).collect();
        Ok(Response::new(pb::ListRollCallsResponse { roll_calls }))
    }
}
