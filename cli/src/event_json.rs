//! The JSON forms of what a watch stream tells and what the log keeps: `type` says which event it is, in the words of
//! the schema.

use muster_proto::command::v1::meeting_event::Event as MeetingChange;
use muster_proto::command::v1::unit_event::Event as UnitChange;
use muster_proto::command::v1::watch_response::Event;
use muster_proto::command::v1::{
    FleetChanged, MeetingEvent, ServiceState, SiteQuality, UnitEvent, WatchSnapshot,
};
use serde_json::{Value, json};

use crate::json::{self, list, word_of};

/// One line for each message of the stream; heartbeats have none.
pub fn watched(event: &Event) -> Option<Value> {
    let line = match event {
        Event::Snapshot(snapshot) => snapshot_line(snapshot),
        Event::Presence(changed) => {
            json!({ "type": "presence", "presence": list(&changed.presence, json::presence) })
        }
        Event::MeetingEvent(event) => with_type("meeting_event", meeting_event(event)),
        Event::Directory(_) => json!({ "type": "directory" }),
        Event::Heartbeat(_) => return None,
        Event::Fleet(fleet) => json!({ "type": "fleet", "relays": relays(fleet) }),
        Event::Quality(changed) => json!({ "type": "quality", "sites": list(&changed.sites, quality) }),
        Event::Permissions(permissions) => json!({
            "type": "permissions", "meeting": permissions.meeting, "actions": permissions.actions,
        }),
        Event::Service(state) => with_type("service", service(state)),
        Event::Plans(_) => json!({ "type": "plans" }),
        Event::Report(report) => with_type("report", json::report(report)),
    };
    Some(line)
}

fn with_type(name: &str, mut value: Value) -> Value {
    value["type"] = name.into();
    value
}

fn snapshot_line(snapshot: &WatchSnapshot) -> Value {
    json!({
        "type": "snapshot", "resumed": snapshot.resumed, "server_time_ms": snapshot.server_time_ms,
        "units": list(&snapshot.units, json::unit), "sites": list(&snapshot.sites, json::site),
        "presence": list(&snapshot.presence, json::presence), "meetings": list(&snapshot.meetings, json::meeting),
        "relays": snapshot.fleet.as_ref().map(relays), "quality": list(&snapshot.quality, quality),
    })
}

fn relays(fleet: &FleetChanged) -> Vec<Value> {
    list(
        &fleet.relays,
        |relay| json!({ "id": relay.id, "online": relay.online, "legs": relay.legs }),
    )
}

fn quality(site: &SiteQuality) -> Value {
    let known = site.quality.as_ref().map(|q| {
        json!({
            "mark": word_of!(q.mark(), "QUALITY_MARK_"), "reason": word_of!(q.reason(), "QUALITY_REASON_"),
            "up_loss_permille": q.up_loss_permille, "down_loss_permille": q.down_loss_permille,
            "rtt_ms": q.rtt_ms, "jitter_ms": q.jitter_ms, "up_bps": q.up_bps, "down_bps": q.down_bps,
            "estimate_bps": q.estimate_bps,
        })
    });
    json!({ "meeting": site.meeting, "site": site.site, "leg": site.leg, "quality": known })
}

fn service(state: &ServiceState) -> Value {
    json!({
        "store_ok": state.store_ok, "bus_ok": state.bus_ok, "replica": state.replica, "replicas": state.replicas,
    })
}

/// `event` is what it says, and `kind` which of the events of the schema it is.
pub fn meeting_event(event: &MeetingEvent) -> Value {
    let (kind, what) = event.event.as_ref().map_or(("", Value::Null), meeting_change);
    json!({
        "stream": event.meeting, "seq": event.seq, "at_ms": event.at_ms, "actor": event.actor,
        "cause": event.cause, "kind": kind, "event": what,
    })
}

fn meeting_change(change: &MeetingChange) -> (&'static str, Value) {
    match change {
        MeetingChange::Convened(e) => (
            "convened",
            json!({
                "title": e.title, "unit": e.unit, "chair": e.chair, "sites": e.sites,
                "priority": word_of!(e.priority(), "PRIORITY_"), "deadline_ms": e.deadline_ms,
                "ends_ms": e.ends_ms, "fallback": word_of!(e.fallback(), "FALLBACK_"),
                "preset": e.preset, "schedule": e.schedule,
            }),
        ),
        MeetingChange::Summons(e) => ("summons", e.summons.as_ref().map_or(Value::Null, json::summons)),
        MeetingChange::Stage(e) => ("stage", e.stage.as_ref().map_or(Value::Null, json::stage)),
        MeetingChange::Ended(e) => ("ended", json!({ "reason": e.reason })),
        MeetingChange::SitesAdded(e) => ("sites_added", json!({ "sites": e.sites })),
        MeetingChange::Chair(e) => (
            "chair",
            json!({ "chair": e.chair, "before": e.before, "cause": word_of!(e.cause(), "CHAIR_CAUSE_") }),
        ),
        MeetingChange::ChairRequested(e) => (
            "chair_requested",
            json!({ "account": e.account, "withdrawn": e.withdrawn }),
        ),
        MeetingChange::Lock(e) => ("lock", json!({ "locked": e.locked })),
        MeetingChange::EndSet(e) => ("end_set", json!({ "ends_ms": e.ends_ms })),
        MeetingChange::Floor(e) => ("floor", json!({ "floor": list(&e.floor, json::floor) })),
        MeetingChange::RollCallStarted(e) => (
            "roll_call_started",
            e.roll_call.as_ref().map_or(Value::Null, json::roll_call),
        ),
        MeetingChange::RollCallEntry(e) => (
            "roll_call_entry",
            e.entry.as_ref().map_or(Value::Null, json::roll_call_entry),
        ),
        MeetingChange::RollCallEnded(e) => (
            "roll_call_ended",
            json!({ "number": e.number, "ended_ms": e.ended_ms }),
        ),
        MeetingChange::Placed(e) => {
            let placement = e.placement.clone().unwrap_or_default();
            (
                "placed",
                json!({ "relay": placement.relay, "epoch": placement.epoch, "before": e.before }),
            )
        }
    }
}

pub fn unit_event(event: &UnitEvent) -> Value {
    let (kind, what) = event.event.as_ref().map_or(("", Value::Null), unit_change);
    json!({
        "stream": format!("unit:{}", event.unit), "seq": event.seq, "at_ms": event.at_ms, "actor": event.actor,
        "cause": event.cause, "kind": kind, "event": what,
    })
}

fn unit_change(change: &UnitChange) -> (&'static str, Value) {
    match change {
        UnitChange::Imported(e) => (
            "imported",
            json!({
                "units_added": e.units_added, "units_changed": e.units_changed, "sites_added": e.sites_added,
                "sites_changed": e.sites_changed, "sha256": e.sha256,
            }),
        ),
        UnitChange::AccountPut(e) => (
            "account_put",
            json!({ "account": e.account, "new_password": e.new_password }),
        ),
        UnitChange::RoleGranted(e) => (
            "role_granted",
            json!({ "account": e.account, "grant": e.grant.as_ref().map(json::grant) }),
        ),
        UnitChange::RoleRevoked(e) => (
            "role_revoked",
            json!({ "account": e.account, "role": word_of!(e.role(), "ROLE_") }),
        ),
        UnitChange::SessionsRevoked(e) => (
            "sessions_revoked",
            json!({ "account": e.account, "sessions": e.sessions }),
        ),
        UnitChange::PresetSaved(e) => (
            "preset_saved",
            e.preset.as_ref().map_or(Value::Null, json::preset),
        ),
        UnitChange::PresetDeleted(e) => ("preset_deleted", json!({ "preset": e.preset })),
        UnitChange::ScheduleSaved(e) => (
            "schedule_saved",
            e.schedule.as_ref().map_or(Value::Null, json::schedule),
        ),
        UnitChange::ScheduleDeleted(e) => ("schedule_deleted", json!({ "schedule": e.schedule })),
        UnitChange::DrillStarted(e) => ("drill_started", json!({ "drill": e.drill, "sites": e.sites })),
        UnitChange::DrillEnded(e) => ("drill_ended", e.drill.as_ref().map_or(Value::Null, json::drill)),
        UnitChange::AnswerPolicy(e) => (
            "answer_policy",
            json!({ "answer": word_of!(e.answer(), "ANSWER_POLICY_"), "sites": e.sites }),
        ),
        UnitChange::SecretMade(e) => (
            "secret_made",
            json!({ "identity": e.identity, "expires_ms": e.expires_ms }),
        ),
        UnitChange::SecretUsed(e) => ("secret_used", json!({ "identity": e.identity })),
        UnitChange::ReportTaken(e) => (
            "report_taken",
            e.report.as_ref().map_or(Value::Null, json::report),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::command::v1::{ChairCause, ChairChanged, Role, RoleRevoked, WatchHeartbeat};

    #[test]
    fn an_event_names_its_stream_place_actor_cause_and_kind() {
        let event = MeetingEvent {
            meeting: "m".to_owned(),
            seq: 7,
            at_ms: 1,
            actor: "wang".to_owned(),
            cause: "take_over".to_owned(),
            event: Some(MeetingChange::Chair(ChairChanged {
                chair: "wang".to_owned(),
                before: "li".to_owned(),
                cause: ChairCause::TakenOver.into(),
            })),
        };
        let line = watched(&Event::MeetingEvent(event)).expect("a line");
        assert_eq!(
            line,
            json!({
                "type": "meeting_event", "stream": "m", "seq": 7, "at_ms": 1, "actor": "wang", "cause": "take_over",
                "kind": "chair", "event": { "chair": "wang", "before": "li", "cause": "taken_over" },
            })
        );
        assert_eq!(watched(&Event::Heartbeat(WatchHeartbeat::default())), None);
    }

    #[test]
    fn a_unit_event_has_the_name_of_its_stream() {
        let event = UnitEvent {
            unit: "WH".to_owned(),
            event: Some(UnitChange::RoleRevoked(RoleRevoked {
                account: "li".to_owned(),
                role: Role::DutyOfficer.into(),
            })),
            ..UnitEvent::default()
        };
        let line = unit_event(&event);
        assert_eq!(line["stream"], "unit:WH");
        assert_eq!(line["event"]["role"], "duty_officer");
    }
}
