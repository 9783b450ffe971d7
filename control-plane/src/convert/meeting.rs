//! A whole meeting, its terms, and what relays and endpoints are told of it.

use super::roll_call::{floor_to_wire, roll_call_to_wire};
use super::stage::stage_to_wire;
use super::summons::summons_to_wire;
use super::{paired, text, texts, time_to_wire};
use muster_domain::{ChairCause, Fallback, FloorState, Meeting, Notice, Placement, Priority, StageDocument};
use muster_proto::command::v1 as pb;

paired!(Priority, pb::Priority, priority_to_wire, priority_from_wire, {
    Routine = Routine, Urgent = Urgent, Emergency = Emergency,
});
paired!(Fallback, pb::Fallback, fallback_to_wire, fallback_from_wire, { None = None, Audio = Audio });
paired!(ChairCause, pb::ChairCause, chair_cause_to_wire, chair_cause_from_wire, {
    Granted = Granted, Released = Released, TakenOver = TakenOver, HandedBack = HandedBack,
});

pub(super) fn placement_to_wire(placement: &Placement) -> pb::Placement {
    pb::Placement {
        relay: placement.relay.clone(),
        epoch: placement.epoch,
    }
}

pub fn meeting_to_wire(meeting: &Meeting) -> pb::Meeting {
    let terms = meeting.terms();
    let name = |account: Option<&muster_domain::AccountName>| text(&account);
    pb::Meeting {
        id: meeting.id().to_string(),
        title: meeting.title().to_owned(),
        chair: name(meeting.chair()),
        unit: text(&meeting.unit()),
        started_ms: time_to_wire(meeting.started()),
        ended_ms: time_to_wire(meeting.ended().map(|(at, _)| at)),
        summonses: meeting.summonses().iter().map(summons_to_wire).collect(),
        stage: Some(stage_to_wire(meeting.stage())),
        seq: meeting.seq(),
        priority: priority_to_wire(terms.priority).into(),
        locked: meeting.is_locked(),
        ends_ms: time_to_wire(terms.ends_at),
        deadline_ms: time_to_wire(terms.deadline),
        fallback: fallback_to_wire(terms.fallback).into(),
        convened_by: name(meeting.convened_by()),
        taken_from: name(meeting.taken_from()),
        chair_requests: texts(meeting.chair_requests()),
        floor: floor_to_wire(meeting.floor()),
        roll_call: meeting.roll_call().map(roll_call_to_wire),
        placement: meeting.placement().map(placement_to_wire),
        preset: terms.preset.clone(),
        schedule: terms.schedule.clone(),
    }
}

pub fn stage_document_to_wire(document: &StageDocument) -> pb::StageDocument {
    let placement = document.placement.as_ref();
    pb::StageDocument {
        meeting: document.meeting.to_string(),
        version: document.version,
        ended: document.ended,
        broadcast_site: text(&document.broadcast),
        muted_sites: texts(&document.muted),
        chair: document.chair.clone(),
        expelled_sites: texts(&document.expelled),
        epoch: placement.map_or(0, |placement| placement.epoch),
        relay: placement
            .map(|placement| placement.relay.clone())
            .unwrap_or_default(),
        voice_switching: document.voice_switching,
        content_site: text(&document.content),
        locked: document.locked,
        desks: texts(&document.desks),
    }
}

/// What a person at a site must know; `chair` is shown to them.
pub fn notice_to_wire(meeting: &Meeting, notice: &Notice, chair: &str) -> pb::EndpointNotice {
    let floor = notice
        .floor
        .map_or(pb::FloorState::Unspecified, |state| match state {
            FloorState::Waiting => pb::FloorState::Waiting,
            FloorState::Granted => pb::FloorState::Granted,
        });
    pb::EndpointNotice {
        meeting: meeting.id().to_string(),
        roll_called: notice.roll_called,
        answer_by_ms: time_to_wire(notice.answer_by),
        floor: floor.into(),
        floor_place: u32::try_from(notice.floor_place).unwrap_or(u32::MAX),
        floor_until_ms: time_to_wire(notice.floor_until),
        muted: notice.muted,
        locked: notice.locked,
        chair: chair.to_owned(),
        ends_ms: time_to_wire(notice.ends_at),
        roll_call: meeting
            .roll_call()
            .filter(|_| notice.roll_called)
            .map_or(0, |roll_call| roll_call.number),
    }
}
