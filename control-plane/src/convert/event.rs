//! The events of a meeting as they are stored and told to watchers: what the hash chain covers.

use super::meeting::{
    chair_cause_from_wire, chair_cause_to_wire, fallback_from_wire, fallback_to_wire, placement_to_wire,
    priority_from_wire, priority_to_wire,
};
use super::roll_call::{
    entry_from_wire, entry_to_wire, floor_from_wire, floor_to_wire, roll_call_from_wire, roll_call_to_wire,
};
use super::stage::{stage_from_wire, stage_to_wire};
use super::summons::{summons_from_wire, summons_to_wire};
use super::{corrupt, known_time, names, texts, time_to_wire};
use crate::store::StoreError;
use muster_domain::{AccountName, Event, MeetingId, Millis, Placement, Terms, UnitId};
use muster_proto::command::v1 as pb;
use pb::meeting_event::Event as Wire;

/// An event as it is stored and told to watchers; `cause` is [`muster_domain::Command::cause`] of what led to it.
pub fn event_to_wire(
    meeting: &MeetingId,
    seq: u64,
    now: Millis,
    actor: &str,
    cause: &str,
    event: &Event,
) -> pb::MeetingEvent {
    let at = match event {
        Event::Convened { at, .. }
        | Event::SitesAdded { at, .. }
        | Event::RollCallEnded { at, .. }
        | Event::Ended { at, .. } => *at,
        _ => now,
    };
    pb::MeetingEvent {
        meeting: meeting.to_string(),
        seq,
        at_ms: at.0,
        actor: actor.to_owned(),
        cause: cause.to_owned(),
        event: Some(to_wire(event)),
    }
}

fn to_wire(event: &Event) -> Wire {
    match event {
        Event::Convened { .. } => convened_to_wire(event),
        Event::SitesAdded { at: _, sites, unit } => Wire::SitesAdded(pb::SitesAdded {
            sites: texts(sites),
            unit: unit.as_ref().map(ToString::to_string).unwrap_or_default(),
        }),
        Event::SummonsChanged { summons } => Wire::Summons(pb::SummonsChanged {
            summons: Some(summons_to_wire(summons)),
        }),
        Event::StageChanged { stage } => Wire::Stage(pb::StageChanged {
            stage: Some(stage_to_wire(stage)),
        }),
        Event::ChairChanged { chair, before, cause } => Wire::Chair(pb::ChairChanged {
            chair: chair.to_string(),
            before: before.to_string(),
            cause: chair_cause_to_wire(*cause).into(),
        }),
        Event::ChairRequested { account, withdrawn } => Wire::ChairRequested(pb::ChairRequested {
            account: account.to_string(),
            withdrawn: *withdrawn,
        }),
        Event::LockChanged { locked, desks } => Wire::Lock(pb::LockChanged {
            locked: *locked,
            desks: texts(desks),
        }),
        Event::EndSet { ends_at } => Wire::EndSet(pb::EndSet { ends_ms: ends_at.0 }),
        Event::FloorChanged { floor } => Wire::Floor(pb::FloorChanged {
            floor: floor_to_wire(floor),
        }),
        Event::RollCallStarted { roll_call } => Wire::RollCallStarted(pb::RollCallStarted {
            roll_call: Some(roll_call_to_wire(roll_call)),
        }),
        Event::RollCallEntryChanged { entry } => Wire::RollCallEntry(pb::RollCallEntryChanged {
            entry: Some(entry_to_wire(entry)),
        }),
        Event::RollCallEnded { at, number } => Wire::RollCallEnded(pb::RollCallEnded {
            number: *number,
            ended_ms: at.0,
        }),
        Event::Placed { placement, before } => Wire::Placed(pb::MeetingPlaced {
            placement: Some(placement_to_wire(placement)),
            before: before.clone(),
        }),
        Event::Ended { at: _, reason } => Wire::Ended(pb::MeetingEnded {
            reason: reason.clone(),
        }),
    }
}

fn convened_to_wire(event: &Event) -> Wire {
    let Event::Convened {
        at: _,
        title,
        chair,
        unit,
        sites,
        idempotency_key,
        terms,
    } = event
    else {
        return Wire::Convened(pb::MeetingConvened::default());
    };
    Wire::Convened(pb::MeetingConvened {
        title: title.clone(),
        unit: unit.to_string(),
        chair: chair.to_string(),
        sites: texts(sites),
        idempotency_key: idempotency_key.clone(),
        priority: priority_to_wire(terms.priority).into(),
        deadline_ms: time_to_wire(terms.deadline),
        ends_ms: time_to_wire(terms.ends_at),
        fallback: fallback_to_wire(terms.fallback).into(),
        preset: terms.preset.clone(),
        schedule: terms.schedule.clone(),
    })
}

/// A stored event as the domain knows it.
pub fn event_from_wire(wire: pb::MeetingEvent) -> Result<Event, StoreError> {
    let at = Millis(wire.at_ms);
    let missing = || corrupt(format!("event {} of meeting {} is empty", wire.seq, wire.meeting));
    Ok(match wire.event.ok_or_else(missing)? {
        Wire::Convened(convened) => convened_from_wire(at, convened)?,
        Wire::SitesAdded(added) => Event::SitesAdded {
            at,
            sites: names(&added.sites)?,
            unit: match added.unit.as_str() {
                "" => None,
                unit => Some(unit.parse().map_err(corrupt)?),
            },
        },
        Wire::Summons(changed) => Event::SummonsChanged {
            summons: summons_from_wire(changed.summons.unwrap_or_default())?,
        },
        Wire::Stage(changed) => Event::StageChanged {
            stage: stage_from_wire(changed.stage.unwrap_or_default())?,
        },
        Wire::Chair(changed) => Event::ChairChanged {
            chair: AccountName::new(&changed.chair).map_err(corrupt)?,
            before: AccountName::new(&changed.before).map_err(corrupt)?,
            cause: chair_cause_from_wire(changed.cause)
                .ok_or_else(|| corrupt(format!("cause {} of a change of the chair", changed.cause)))?,
        },
        Wire::ChairRequested(requested) => Event::ChairRequested {
            account: AccountName::new(&requested.account).map_err(corrupt)?,
            withdrawn: requested.withdrawn,
        },
        Wire::Lock(changed) => Event::LockChanged {
            locked: changed.locked,
            desks: names(&changed.desks)?,
        },
        Wire::EndSet(set) => Event::EndSet {
            ends_at: Millis(set.ends_ms),
        },
        Wire::Floor(changed) => Event::FloorChanged {
            floor: floor_from_wire(changed.floor)?,
        },
        Wire::RollCallStarted(started) => Event::RollCallStarted {
            roll_call: roll_call_from_wire(started.roll_call.unwrap_or_default())?,
        },
        Wire::RollCallEntry(changed) => Event::RollCallEntryChanged {
            entry: entry_from_wire(changed.entry.unwrap_or_default())?,
        },
        Wire::RollCallEnded(ended) => Event::RollCallEnded {
            at: Millis(ended.ended_ms),
            number: ended.number,
        },
        Wire::Placed(placed) => placed_from_wire(placed),
        Wire::Ended(ended) => Event::Ended {
            at,
            reason: ended.reason,
        },
    })
}

fn convened_from_wire(at: Millis, convened: pb::MeetingConvened) -> Result<Event, StoreError> {
    Ok(Event::Convened {
        at,
        title: convened.title,
        chair: AccountName::new(&convened.chair).map_err(corrupt)?,
        unit: UnitId::new(&convened.unit).map_err(corrupt)?,
        sites: names(&convened.sites)?,
        idempotency_key: convened.idempotency_key,
        terms: Terms {
            priority: priority_from_wire(convened.priority).unwrap_or_default(),
            deadline: known_time(convened.deadline_ms),
            ends_at: known_time(convened.ends_ms),
            fallback: fallback_from_wire(convened.fallback).unwrap_or_default(),
            preset: convened.preset,
            schedule: convened.schedule,
        },
    })
}

fn placed_from_wire(placed: pb::MeetingPlaced) -> Event {
    let pb::Placement { relay, epoch } = placed.placement.unwrap_or_default();
    Event::Placed {
        placement: Placement { relay, epoch },
        before: placed.before,
    }
}
