//! Plans of a unit, presets and schedules, and its drills.

use super::directory::{selector_from_wire, selector_to_wire};
use super::meeting::{fallback_from_wire, fallback_to_wire, priority_from_wire, priority_to_wire};
use super::stage::{layout_from_wire, layout_to_wire};
use super::summons::{optional_reason, reason_from_wire};
use super::{corrupt, known_time, large, paired, small, text, time_to_wire};
use crate::store::StoreError;
use muster_domain::{Drill, DrillResult, Millis, Outcome, PlanId, Preset, Repeat, Schedule, SiteId, UnitId};
use muster_proto::command::v1 as pb;

paired!(Repeat, pb::Repeat, repeat_to_wire, repeat_from_wire, { Once = Once, Daily = Daily, Weekly = Weekly });

type Check = muster_domain::Check;

fn check_to_wire(check: Check) -> i32 {
    let wire = match check {
        Check::Unknown => pb::Check::Unspecified,
        Check::Ok => pb::Check::Ok,
        Check::Failed => pb::Check::Failed,
        Check::Busy => pb::Check::Busy,
    };
    wire.into()
}

/// What is not known is as good as not looked at.
fn check_from_wire(number: i32) -> Check {
    match pb::Check::try_from(number).unwrap_or_default() {
        pb::Check::Unspecified => Check::Unknown,
        pb::Check::Ok => Check::Ok,
        pb::Check::Failed => Check::Failed,
        pb::Check::Busy => Check::Busy,
    }
}

pub fn preset_to_wire(unit: &UnitId, id: &PlanId, preset: &Preset) -> pb::Preset {
    pb::Preset {
        id: id.to_string(),
        unit: unit.to_string(),
        name: preset.name.clone(),
        selector: Some(selector_to_wire(&preset.selector)),
        title: preset.title.clone(),
        priority: priority_to_wire(preset.priority).into(),
        fallback: fallback_to_wire(preset.fallback).into(),
        deadline_s: preset.deadline_s,
        minutes: preset.minutes,
        layout: preset
            .layout
            .map_or(pb::Layout::Unspecified, layout_to_wire)
            .into(),
        broadcast_site: text(&preset.broadcast),
        mute_all: preset.mute_all,
        voice_switching: preset.voice_switching,
        polling_s: preset.polling_s,
    }
}

/// What makes no sense is told as what was found and expected.
pub fn preset_from_wire(wire: pb::Preset) -> Result<Preset, String> {
    let broadcast = match wire.broadcast_site.as_str() {
        "" => None,
        site => Some(SiteId::new(site).map_err(|error| format!("preset.broadcast_site: {error}"))?),
    };
    Ok(Preset {
        name: wire.name.trim().to_owned(),
        selector: selector_from_wire(wire.selector.unwrap_or_default())?,
        title: wire.title.trim().to_owned(),
        priority: priority_from_wire(wire.priority).unwrap_or_default(),
        fallback: fallback_from_wire(wire.fallback).unwrap_or_default(),
        deadline_s: wire.deadline_s,
        minutes: wire.minutes,
        layout: layout_from_wire(wire.layout),
        broadcast,
        mute_all: wire.mute_all,
        voice_switching: wire.voice_switching,
        polling_s: wire.polling_s,
    })
}

pub fn schedule_to_wire(unit: &UnitId, id: &PlanId, schedule: &Schedule) -> pb::Schedule {
    let (last, done, refused) = match &schedule.last {
        None => (None, "", ""),
        Some((at, Outcome::Done(what))) => (Some(*at), what.as_str(), ""),
        Some((at, Outcome::Refused(reason))) => (Some(*at), "", reason.as_str()),
    };
    pb::Schedule {
        id: id.to_string(),
        unit: unit.to_string(),
        preset: schedule.preset.to_string(),
        next_ms: time_to_wire(schedule.next),
        repeat: repeat_to_wire(schedule.repeat).into(),
        account: schedule.account.to_string(),
        drill: schedule.drill,
        last_ms: time_to_wire(last),
        last_meeting: done.to_owned(),
        last_refusal: refused.to_owned(),
    }
}

pub fn schedule_from_wire(wire: &pb::Schedule) -> Result<Schedule, StoreError> {
    let outcome = if wire.last_refusal.is_empty() {
        Outcome::Done(wire.last_meeting.clone())
    } else {
        Outcome::Refused(wire.last_refusal.clone())
    };
    Ok(Schedule {
        preset: PlanId::new(&wire.preset).map_err(corrupt)?,
        next: known_time(wire.next_ms),
        repeat: repeat_from_wire(wire.repeat)
            .ok_or_else(|| corrupt(format!("schedule {}: repeat {}", wire.id, wire.repeat)))?,
        account: wire.account.parse().map_err(corrupt)?,
        drill: wire.drill,
        last: known_time(wire.last_ms).map(|at| (at, outcome)),
    })
}

pub fn drill_result_to_wire(result: &DrillResult) -> pb::DrillResult {
    pb::DrillResult {
        site: result.site.to_string(),
        link: check_to_wire(result.link),
        camera: check_to_wire(result.camera),
        microphone: check_to_wire(result.microphone),
        clock: check_to_wire(result.clock),
        clock_off_ms: result.clock_off_ms,
        rtt_ms: result.rtt_ms,
        at_ms: result.at.0,
        reason: optional_reason(result.reason),
        detail: result.detail.clone(),
        camera_reason: optional_reason(result.camera_reason),
    }
}

/// A result of this site; what it names itself does not matter.
pub fn drill_result_from_wire(site: SiteId, at: Millis, wire: &pb::DrillResult) -> DrillResult {
    DrillResult {
        site,
        link: check_from_wire(wire.link),
        camera: check_from_wire(wire.camera),
        microphone: check_from_wire(wire.microphone),
        clock: check_from_wire(wire.clock),
        clock_off_ms: wire.clock_off_ms,
        rtt_ms: wire.rtt_ms,
        at,
        reason: reason_from_wire(wire.reason),
        detail: wire.detail.clone(),
        camera_reason: reason_from_wire(wire.camera_reason).filter(|reason| reason.is_cameras()),
    }
}

pub fn drill_to_wire(unit: &UnitId, id: &PlanId, drill: &Drill) -> pb::Drill {
    pb::Drill {
        id: id.to_string(),
        unit: unit.to_string(),
        by: drill.by.to_string(),
        started_ms: drill.started.0,
        ended_ms: time_to_wire(drill.ended),
        results: drill.results.iter().map(drill_result_to_wire).collect(),
        ready: small(drill.ready()),
        asked: small(drill.asked),
    }
}

/// A drill as it is stored. Who was waited for is not stored: of one that has not ended, `sites` are those that it
/// began with.
pub fn drill_from_wire(wire: &pb::Drill, sites: &[SiteId]) -> Result<Drill, StoreError> {
    let result = |wire: &pb::DrillResult| {
        let site = SiteId::new(&wire.site).map_err(corrupt)?;
        Ok(drill_result_from_wire(site, Millis(wire.at_ms), wire))
    };
    let results = wire
        .results
        .iter()
        .map(result)
        .collect::<Result<_, StoreError>>()?;
    let by = wire.by.parse().map_err(corrupt)?;
    Ok(Drill::restore(
        by,
        Millis(wire.started_ms),
        known_time(wire.ended_ms),
        large(wire.asked),
        results,
        sites,
    ))
}
