//! The floor and the roll call.

use super::summons::{optional_reason, reason_from_wire};
use super::{corrupt, known_time, paired, time_to_wire};
use crate::store::StoreError;
use muster_domain::{
    AccountName, Floor, FloorRequest, FloorState, Millis, RollCall, RollCallEntry, RollCallResult, SiteId,
};
use muster_proto::command::v1 as pb;

paired!(FloorState, pb::FloorState, floor_state_to_wire, floor_state_from_wire, {
    Waiting = Waiting, Granted = Granted,
});
paired!(RollCallResult, pb::RollCallResult, result_to_wire, result_from_wire, {
    Waiting = Waiting, Called = Called, Present = Present, Absent = Absent, Unreachable = Unreachable,
    Broken = Broken,
});

pub(super) fn floor_to_wire(floor: &Floor) -> Vec<pb::FloorRequest> {
    let request = |request: &FloorRequest| pb::FloorRequest {
        site: request.site.to_string(),
        state: floor_state_to_wire(request.state).into(),
        requested_ms: request.requested.0,
        granted_ms: time_to_wire(request.granted),
        until_ms: time_to_wire(request.until),
    };
    floor.0.iter().map(request).collect()
}

pub(super) fn floor_from_wire(wire: Vec<pb::FloorRequest>) -> Result<Floor, StoreError> {
    let request = |wire: pb::FloorRequest| {
        Ok(FloorRequest {
            site: SiteId::new(&wire.site).map_err(corrupt)?,
            state: floor_state_from_wire(wire.state)
                .ok_or_else(|| corrupt(format!("floor state {}", wire.state)))?,
            requested: Millis(wire.requested_ms),
            granted: known_time(wire.granted_ms),
            until: known_time(wire.until_ms),
        })
    };
    wire.into_iter().map(request).collect::<Result<_, _>>().map(Floor)
}

pub(super) fn entry_to_wire(entry: &RollCallEntry) -> pb::RollCallEntry {
    pb::RollCallEntry {
        site: entry.site.to_string(),
        result: result_to_wire(entry.result).into(),
        seen_up: entry.seen_up,
        seen_down: entry.seen_down,
        acknowledged_by: entry.acknowledged_by.clone(),
        called_ms: time_to_wire(entry.called),
        answered_ms: time_to_wire(entry.answered),
        reason: optional_reason(entry.reason),
    }
}

pub(super) fn entry_from_wire(wire: pb::RollCallEntry) -> Result<RollCallEntry, StoreError> {
    Ok(RollCallEntry {
        site: SiteId::new(&wire.site).map_err(corrupt)?,
        result: result_from_wire(wire.result)
            .ok_or_else(|| corrupt(format!("roll call result {}", wire.result)))?,
        seen_up: wire.seen_up,
        seen_down: wire.seen_down,
        acknowledged_by: wire.acknowledged_by,
        called: known_time(wire.called_ms),
        answered: known_time(wire.answered_ms),
        reason: reason_from_wire(wire.reason),
    })
}

pub fn roll_call_to_wire(roll_call: &RollCall) -> pb::RollCall {
    pb::RollCall {
        number: roll_call.number,
        by: roll_call.by.to_string(),
        started_ms: roll_call.started.0,
        ended_ms: time_to_wire(roll_call.ended),
        answer_s: roll_call.answer_s,
        entries: roll_call.entries.iter().map(entry_to_wire).collect(),
    }
}

pub(super) fn roll_call_from_wire(wire: pb::RollCall) -> Result<RollCall, StoreError> {
    Ok(RollCall {
        number: wire.number,
        by: AccountName::new(&wire.by).map_err(corrupt)?,
        started: Millis(wire.started_ms),
        ended: known_time(wire.ended_ms),
        answer_s: wire.answer_s,
        entries: wire
            .entries
            .into_iter()
            .map(entry_from_wire)
            .collect::<Result<_, _>>()?,
    })
}
