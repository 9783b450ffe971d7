//! The JSON forms of what several commands show. Field names are those of the schema; words of an enumeration are its
//! words in small letters without the prefix, and empty where unspecified. Times are milliseconds since the Unix epoch.

use muster_proto::command::v1::{
    Account, Attendance, DamagedMeeting, Drill, DrillResult, FloorRequest, Grant, Meeting, Polling, Presence,
    Preset, Report, RollCall, RollCallEntry, Schedule, Selector, Site, Stage, Summons, Tier, Unit,
};
use serde_json::{Value, json};

use crate::args::{layout_word, tier_name};
use crate::meeting::{reason_name, state_name};
use crate::watch::on_air;

/// `SUMMONS_STATE_ON_AIR` is `on_air`.
pub fn word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase();
    if word == "unspecified" {
        String::new()
    } else {
        word
    }
}

macro_rules! word_of {
    ($value:expr, $prefix:literal) => {
        $crate::json::word($value.as_str_name(), $prefix)
    };
}
pub(crate) use word_of;

pub fn list<T>(items: &[T], form: impl Fn(&T) -> Value) -> Vec<Value> {
    items.iter().map(form).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

pub fn meeting(meeting: &Meeting) -> Value {
    let state = meeting.stage.clone().unwrap_or_default();
    let placement = meeting.placement.clone().unwrap_or_default();
    json!({
        "id": meeting.id, "title": meeting.title, "chair": meeting.chair, "unit": meeting.unit,
        "started_ms": meeting.started_ms, "ended_ms": meeting.ended_ms, "seq": meeting.seq,
        "sites": meeting.summonses.len(), "on_air": on_air(meeting),
        "broadcast_site": state.broadcast_site, "muted_sites": state.muted_sites, "stage": stage(&state),
        "priority": word_of!(meeting.priority(), "PRIORITY_"), "locked": meeting.locked, "ends_ms": meeting.ends_ms,
        "deadline_ms": meeting.deadline_ms, "fallback": word_of!(meeting.fallback(), "FALLBACK_"),
        "convened_by": meeting.convened_by, "taken_from": meeting.taken_from,
        "chair_requests": meeting.chair_requests, "floor": list(&meeting.floor, floor),
        "roll_call": meeting.roll_call.as_ref().map(roll_call),
        "relay": placement.relay, "epoch": placement.epoch,
        "preset": meeting.preset, "schedule": meeting.schedule,
        "summonses": list(&meeting.summonses, summons),
    })
}

/// A meeting that cannot be shown; `damaged` says why.
pub fn damaged(meeting: &DamagedMeeting) -> Value {
    json!({
        "id": meeting.id, "title": meeting.title, "unit": meeting.unit, "convened_by": meeting.chair,
        "started_ms": meeting.started_ms, "damaged": meeting.reason,
    })
}

pub fn summons(summons: &Summons) -> Value {
    json!({
        "site": summons.site, "state": state_name(summons.state()), "reason": reason_name(summons.reason()),
        "at_ms": summons.at_ms, "reason_since_ms": summons.reason_since_ms,
        "paged_ms": summons.paged_ms, "on_air_ms": summons.on_air_ms, "detail": summons.detail,
        "media": word_of!(summons.media(), "MEDIA_"), "answered_by": summons.answered_by,
        "other_title": summons.other_title,
        "other_priority": word_of!(summons.other_priority(), "PRIORITY_"), "pages": summons.pages,
    })
}

pub fn stage(stage: &Stage) -> Value {
    json!({
        "broadcast_site": stage.broadcast_site, "muted_sites": stage.muted_sites,
        "layout": layout_word(stage.layout()), "polling": stage.polling.as_ref().map(polling),
        "voice_switching": stage.voice_switching, "content_site": stage.content_site,
        "watched_site": stage.watched_site,
    })
}

fn polling(polling: &Polling) -> Value {
    json!({
        "interval_s": polling.interval_s, "per_page": polling.per_page, "page": polling.page, "pages": polling.pages,
        "sites": polling.sites, "next": polling.next, "turned_ms": polling.turned_ms, "paused": polling.paused,
    })
}

pub fn floor(request: &FloorRequest) -> Value {
    json!({
        "site": request.site, "state": word_of!(request.state(), "FLOOR_STATE_"),
        "requested_ms": request.requested_ms, "granted_ms": request.granted_ms, "until_ms": request.until_ms,
    })
}

pub fn roll_call(call: &RollCall) -> Value {
    json!({
        "number": call.number, "by": call.by, "started_ms": call.started_ms, "ended_ms": call.ended_ms,
        "answer_s": call.answer_s, "entries": list(&call.entries, roll_call_entry),
    })
}

pub fn roll_call_entry(entry: &RollCallEntry) -> Value {
    json!({
        "site": entry.site, "result": word_of!(entry.result(), "ROLL_CALL_RESULT_"),
        "seen_up": entry.seen_up, "seen_down": entry.seen_down, "acknowledged_by": entry.acknowledged_by,
        "called_ms": entry.called_ms, "answered_ms": entry.answered_ms, "reason": reason_name(entry.reason()),
    })
}

pub fn attendance(attendance: &Attendance) -> Value {
    let spans = list(
        &attendance.on_air,
        |span| json!({ "from_ms": span.from_ms, "to_ms": span.to_ms }),
    );
    json!({ "site": attendance.site, "on_air": spans, "total_ms": attendance.total_ms })
}

pub fn unit(unit: &Unit) -> Value {
    json!({
        "id": unit.id, "tier": tier_name(unit.tier), "parent": unit.parent, "name_zh": unit.name_zh,
        "name_en": unit.name_en, "lat": unit.lat, "lon": unit.lon,
    })
}

pub fn site(site: &Site) -> Value {
    json!({
        "id": site.id, "unit": site.unit, "tier": tier_name(site.tier), "name_zh": site.name_zh,
        "name_en": site.name_en, "lat": site.lat, "lon": site.lon,
        "access": word_of!(site.access(), "ACCESS_"), "tags": site.tags,
        "answer": word_of!(site.answer(), "ANSWER_POLICY_"),
    })
}

pub fn presence(presence: &Presence) -> Value {
    json!({
        "site": presence.site, "online": presence.online, "since_ms": presence.since_ms,
        "endpoint": presence.endpoint,
    })
}

pub fn grant(grant: &Grant) -> Value {
    json!({
        "role": word_of!(grant.role(), "ROLE_"), "unit": grant.unit, "expires_ms": grant.expires_ms,
        "granted_by": grant.granted_by, "granted_ms": grant.granted_ms,
    })
}

pub fn account(account: &Account) -> Value {
    json!({
        "name": account.name, "display_name": account.display_name, "grants": list(&account.grants, grant),
    })
}

pub fn selector(selector: &Selector) -> Value {
    json!({
        "subtrees": selector.subtrees, "tiers": list(&selector.tiers, |&tier| tier_word(tier).into()),
        "sites": selector.sites, "tags": selector.tags, "exclude_subtrees": selector.exclude_subtrees,
        "exclude_sites": selector.exclude_sites,
    })
}

fn tier_word(tier: i32) -> String {
    Tier::try_from(tier).map_or_else(|_| tier.to_string(), |tier| word_of!(tier, "TIER_"))
}

pub fn preset(preset: &Preset) -> Value {
    json!({
        "id": preset.id, "unit": preset.unit, "name": preset.name, "title": preset.title,
        "selector": preset.selector.as_ref().map(selector), "priority": word_of!(preset.priority(), "PRIORITY_"),
        "fallback": word_of!(preset.fallback(), "FALLBACK_"), "deadline_s": preset.deadline_s,
        "minutes": preset.minutes, "layout": layout_word(preset.layout()), "broadcast_site": preset.broadcast_site,
        "mute_all": preset.mute_all, "voice_switching": preset.voice_switching, "polling_s": preset.polling_s,
    })
}

pub fn schedule(schedule: &Schedule) -> Value {
    json!({
        "id": schedule.id, "unit": schedule.unit, "preset": schedule.preset, "next_ms": schedule.next_ms,
        "repeat": word_of!(schedule.repeat(), "REPEAT_"), "account": schedule.account, "drill": schedule.drill,
        "last_ms": schedule.last_ms, "last_meeting": schedule.last_meeting, "last_refusal": schedule.last_refusal,
    })
}

pub fn drill(drill: &Drill) -> Value {
    json!({
        "id": drill.id, "unit": drill.unit, "by": drill.by, "started_ms": drill.started_ms,
        "ended_ms": drill.ended_ms, "ready": drill.ready, "asked": drill.asked,
        "results": list(&drill.results, drill_result),
    })
}

fn drill_result(result: &DrillResult) -> Value {
    json!({
        "site": result.site, "link": word_of!(result.link(), "CHECK_"), "camera": word_of!(result.camera(), "CHECK_"),
        "microphone": word_of!(result.microphone(), "CHECK_"), "clock": word_of!(result.clock(), "CHECK_"),
        "clock_off_ms": result.clock_off_ms, "rtt_ms": result.rtt_ms, "at_ms": result.at_ms,
        "reason": reason_name(result.reason()), "detail": result.detail,
        "camera_reason": reason_name(result.camera_reason()),
    })
}

pub fn report(report: &Report) -> Value {
    json!({
        "site": report.site, "id": report.id, "kind": word_of!(report.kind(), "REPORT_KIND_"), "text": report.text,
        "written_ms": report.written_ms, "received_ms": report.received_ms, "unit": report.unit,
        "meeting": report.meeting, "roll_call": report.roll_call,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::command::v1::{Layout, Priority};

    #[test]
    fn words_are_small_and_empty_where_unspecified() {
        assert_eq!(word_of!(Priority::Emergency, "PRIORITY_"), "emergency");
        assert_eq!(word_of!(Priority::Unspecified, "PRIORITY_"), "");
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }

    #[test]
    fn a_meeting_has_its_stage_and_its_roll_call() {
        let shown = meeting(&Meeting {
            id: "m".to_owned(),
            stage: Some(Stage {
                layout: Layout::Layout17.into(),
                polling: Some(Polling::default()),
                ..Stage::default()
            }),
            roll_call: Some(RollCall {
                number: 2,
                ..RollCall::default()
            }),
            ..Meeting::default()
        });
        assert_eq!(shown["stage"]["layout"], "1+7");
        assert_eq!(shown["stage"]["polling"]["paused"], false);
        assert_eq!(shown["roll_call"]["number"], 2);
        assert_eq!(shown["on_air"], 0);
    }
}
