//! The log: read, verified, replayed; and what follows from it, attendance and roll calls.
//!
//! A stream is a meeting's id or `unit:ID`. Long streams go out a page at a time, so that a slow reader costs no memory.

use super::Answers;
use crate::convert::{event_from_wire, meeting_to_wire, roll_call_to_wire};
use crate::core::{Caller, Core, target_of, target_of_wire};
use crate::status::Failure;
use crate::store::{Store, StoreError, chain_hash};
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
        target_of_wire(&self.0.meetings.find(stream).await?)
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
            let target = self.target(&stream).await?;
            self.0.authorize(caller, action, &target)?;
            return Ok(vec![stream]);
        }
        if caller
            .actor
            .units_for(action, &self.0.tree(), self.0.clock.now())
            .is_empty()
        {
            return Err(self.0.refused(caller, action, Refusal::NoRole { action }));
        }
        let mut streams = Vec::new();
        for head in self.0.store.streams().await? {
            // A stream of which not even the beginning can be read is told too.
            let may = match self.target(&head.stream).await {
                Ok(target) => self.0.permits(caller, action, &target),
                Err(Failure::Store(StoreError::Unavailable(text))) => {
                    return Err(StoreError::Unavailable(text).into());
                }
                Err(_) => false,
            };
            if may {
                streams.push(head.stream);
            }
        }
        Ok(streams)
    }
}

/// Recomputes the chain of a stream. Memory stays bounded by a page.
async fn verify(store: &Store, stream: String) -> Result<pb::VerifyLogResponse, StoreError> {
    let mut line = pb::VerifyLogResponse {
        stream,
        ..Default::default()
    };
    let (mut seq, mut hash) = (0_u64, [0_u8; 32]);
    loop {
        let page = store.events_page(&line.stream, seq, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for stored in page {
            let expected = chain_hash(&hash, &stored.payload);
            let found = if stored.seq != seq + 1 {
                Some((
                    seq + 1,
                    format!("the next event there is has number {}", stored.seq),
                ))
            } else if stored.hash != expected {
                Some((stored.seq, "its hash does not fit what is stored".to_owned()))
            } else {
                None
            };
            if let Some((at, found)) = found {
                (line.broken_at, line.found) = (at, found);
                line.head = hash.to_vec();
                return Ok(line);
            }
            (seq, hash) = (stored.seq, stored.hash);
            line.events += 1;
        }
    }
    line.head = hash.to_vec();
    if let Some(end) = store.final_state(&line.stream).await? {
        let end = pb::Meeting::decode(end.as_slice())
            .map_err(|error| StoreError::Corrupt(format!("the end of {}: {error}", line.stream)))?;
        if end.seq > seq {
            line.broken_at = seq + 1;
            line.found = format!("the meeting ended with event {}, which is not there", end.seq);
        }
    }
    Ok(line)
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
        let events = self.events(&caller, &meeting, Action::ReadLog).await?;
        let id = MeetingId::new(&meeting).map_err(Failure::from)?;
        let until = match (at_ms, seq) {
            (0, 0) => Until::Seq(u64::MAX),
            (0, seq) => Until::Seq(seq),
            (at_ms, 0) => Until::Time(Millis(at_ms)),
            _ => {
                let text = "at_ms, seq: expected one of them at most";
                return Err(Failure::BadRequest(text.to_owned()).into());
            }
        };
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
