//! The administration of units: plans, drills and the events of a unit's stream.

use super::directory::{
    answer_from_wire, answer_to_wire, role_from_wire, role_to_wire, selector_from_wire, selector_to_wire,
};
use super::meeting::{fallback_from_wire, fallback_to_wire, priority_from_wire, priority_to_wire};
use super::stage::{layout_from_wire, layout_to_wire};
use super::summons::{optional_reason, reason_from_wire};
use super::{corrupt, known_time, paired, text, time_to_wire};
use crate::store::StoreError;
use muster_domain::{
    Drill, DrillResult, Grant, MeetingId, Millis, Outcome, PlanId, Preset, Record, Repeat, ReportId,
    ReportKind, Schedule, SiteId, SiteReport, UnitEvent, UnitId,
};
use muster_proto::command::v1 as pb;
use pb::unit_event::Event as Wire;

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

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn large(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
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

fn record_to_wire(done: &Done<'_>, record: &Record) -> Wire {
    match record {
        Record::Imported {
            units_added,
            units_changed,
            sites_added,
            sites_changed,
            sha256,
        } => Wire::Imported(pb::TreeImported {
            units_added: small(*units_added),
            units_changed: small(*units_changed),
            sites_added: small(*sites_added),
            sites_changed: small(*sites_changed),
            sha256: sha256.clone(),
        }),
        Record::AccountPut {
            account,
            new_password,
        } => Wire::AccountPut(pb::AccountPut {
            account: account.to_string(),
            new_password: *new_password,
        }),
        Record::SessionsRevoked { account, sessions } => Wire::SessionsRevoked(pb::SessionsRevoked {
            account: account.to_string(),
            sessions: small(*sessions),
        }),
        Record::SecretMade { identity, expires } => Wire::SecretMade(pb::SecretMade {
            identity: identity.clone(),
            expires_ms: expires.0,
        }),
        Record::SecretUsed { identity } => Wire::SecretUsed(pb::SecretUsed {
            identity: identity.clone(),
        }),
        Record::Reported(report) => Wire::ReportTaken(pb::ReportTaken {
            report: Some(report_to_wire(done, report)),
        }),
    }
}

/// A report as it is told, with when and where it was stored.
pub fn report_to_wire(done: &Done<'_>, report: &SiteReport) -> pb::Report {
    let (kind, meeting, roll_call) = match &report.kind {
        ReportKind::Words => (pb::ReportKind::Words, String::new(), 0),
        ReportKind::RollCallAnswer { meeting, roll_call } => {
            (pb::ReportKind::RollCallAnswer, meeting.to_string(), *roll_call)
        }
    };
    pb::Report {
        site: report.site.to_string(),
        id: report.id.to_string(),
        kind: kind.into(),
        text: report.text.clone(),
        written_ms: report.written.0,
        received_ms: done.at.0,
        unit: done.unit.to_string(),
        meeting,
        roll_call,
    }
}

/// What a site hands in. The error says what was expected.
pub fn report_from_wire(site: SiteId, wire: pb::HandInReportRequest) -> Result<SiteReport, String> {
    let kind = match pb::ReportKind::try_from(wire.kind) {
        Ok(pb::ReportKind::Words | pb::ReportKind::Unspecified) => ReportKind::Words,
        Ok(pb::ReportKind::RollCallAnswer) => ReportKind::RollCallAnswer {
            meeting: MeetingId::new(wire.meeting).map_err(|error| error.to_string())?,
            roll_call: wire.roll_call,
        },
        Err(_) => return Err(format!("kind: found {}, expected a kind of report", wire.kind)),
    };
    Ok(SiteReport {
        site,
        id: ReportId::new(wire.id).map_err(|error| error.to_string())?,
        kind,
        text: wire.text,
        written: Millis(wire.written_ms),
    })
}

/// Who did something to a unit, when, and in which place of its stream.
pub struct Done<'a> {
    pub unit: &'a UnitId,
    pub seq: u64,
    pub at: Millis,
    pub actor: &'a str,
    pub cause: &'a str,
}

/// An event as it is stored.
pub fn unit_event_to_wire(done: &Done<'_>, event: &UnitEvent) -> pb::UnitEvent {
    let names = |sites: &[SiteId]| sites.iter().map(ToString::to_string).collect();
    let wire = match event {
        UnitEvent::PresetSaved { id, preset } => Wire::PresetSaved(pb::PresetSaved {
            preset: Some(preset_to_wire(done.unit, id, preset)),
        }),
        UnitEvent::PresetDeleted { id } => Wire::PresetDeleted(pb::PresetDeleted {
            preset: id.to_string(),
        }),
        UnitEvent::ScheduleSaved { id, schedule } => Wire::ScheduleSaved(pb::ScheduleSaved {
            schedule: Some(schedule_to_wire(done.unit, id, schedule)),
        }),
        UnitEvent::ScheduleDeleted { id } => Wire::ScheduleDeleted(pb::ScheduleDeleted {
            schedule: id.to_string(),
        }),
        UnitEvent::DrillStarted { id, sites } => Wire::DrillStarted(pb::DrillStarted {
            drill: id.to_string(),
            sites: names(sites),
        }),
        UnitEvent::DrillEnded { id, drill } => Wire::DrillEnded(pb::DrillEnded {
            drill: Some(drill_to_wire(done.unit, id, drill)),
        }),
        UnitEvent::AnswerSet { sites, answer } => Wire::AnswerPolicy(pb::AnswerPolicySet {
            answer: answer_to_wire(*answer).into(),
            sites: names(sites),
        }),
        UnitEvent::Granted { account, grant } => Wire::RoleGranted(pb::RoleGranted {
            account: account.to_string(),
            grant: Some(pb::Grant {
                role: role_to_wire(grant.role).into(),
                unit: grant.unit.to_string(),
                expires_ms: time_to_wire(grant.expires),
                granted_by: done.actor.to_owned(),
                granted_ms: done.at.0,
            }),
        }),
        UnitEvent::Revoked { account, role } => Wire::RoleRevoked(pb::RoleRevoked {
            account: account.to_string(),
            role: role_to_wire(*role).into(),
        }),
        UnitEvent::Recorded(record) => record_to_wire(done, record),
    };
    pb::UnitEvent {
        unit: done.unit.to_string(),
        seq: done.seq,
        at_ms: done.at.0,
        actor: done.actor.to_owned(),
        cause: done.cause.to_owned(),
        event: Some(wire),
    }
}

fn id_of(text: &str) -> Result<PlanId, StoreError> {
    PlanId::new(text).map_err(corrupt)
}

fn sites_of(names: &[String]) -> Result<Vec<SiteId>, StoreError> {
    names
        .iter()
        .map(|site| SiteId::new(site).map_err(corrupt))
        .collect()
}

fn record_from_wire(wire: Wire) -> Result<Record, StoreError> {
    Ok(match wire {
        Wire::Imported(imported) => Record::Imported {
            units_added: large(imported.units_added),
            units_changed: large(imported.units_changed),
            sites_added: large(imported.sites_added),
            sites_changed: large(imported.sites_changed),
            sha256: imported.sha256,
        },
        Wire::AccountPut(put) => Record::AccountPut {
            account: put.account.parse().map_err(corrupt)?,
            new_password: put.new_password,
        },
        Wire::SessionsRevoked(revoked) => Record::SessionsRevoked {
            account: revoked.account.parse().map_err(corrupt)?,
            sessions: large(revoked.sessions),
        },
        Wire::SecretMade(made) => Record::SecretMade {
            identity: made.identity,
            expires: Millis(made.expires_ms),
        },
        Wire::SecretUsed(used) => Record::SecretUsed {
            identity: used.identity,
        },
        Wire::ReportTaken(taken) => {
            let report = taken.report.unwrap_or_default();
            let site = SiteId::new(&report.site).map_err(corrupt)?;
            let handed_in = pb::HandInReportRequest {
                id: report.id,
                kind: report.kind,
                text: report.text,
                written_ms: report.written_ms,
                meeting: report.meeting,
                roll_call: report.roll_call,
            };
            Record::Reported(report_from_wire(site, handed_in).map_err(corrupt)?)
        }
        other => return Err(corrupt(format!("an event of a newer version: {other:?}"))),
    })
}

/// A stored event as the domain knows it.
pub fn unit_event_from_wire(wire: pb::UnitEvent) -> Result<UnitEvent, StoreError> {
    let missing = || corrupt(format!("event {} of unit {} is empty", wire.seq, wire.unit));
    Ok(match wire.event.ok_or_else(missing)? {
        Wire::PresetSaved(saved) => {
            let preset = saved.preset.unwrap_or_default();
            UnitEvent::PresetSaved {
                id: id_of(&preset.id)?,
                preset: preset_from_wire(preset).map_err(corrupt)?,
            }
        }
        Wire::PresetDeleted(deleted) => UnitEvent::PresetDeleted {
            id: id_of(&deleted.preset)?,
        },
        Wire::ScheduleSaved(saved) => {
            let schedule = saved.schedule.unwrap_or_default();
            UnitEvent::ScheduleSaved {
                id: id_of(&schedule.id)?,
                schedule: schedule_from_wire(&schedule)?,
            }
        }
        Wire::ScheduleDeleted(deleted) => UnitEvent::ScheduleDeleted {
            id: id_of(&deleted.schedule)?,
        },
        Wire::DrillStarted(started) => UnitEvent::DrillStarted {
            id: id_of(&started.drill)?,
            sites: sites_of(&started.sites)?,
        },
        Wire::DrillEnded(ended) => {
            let drill = ended.drill.unwrap_or_default();
            UnitEvent::DrillEnded {
                id: id_of(&drill.id)?,
                drill: drill_from_wire(&drill, &[])?,
            }
        }
        Wire::AnswerPolicy(set) => UnitEvent::AnswerSet {
            sites: sites_of(&set.sites)?,
            answer: answer_from_wire(set.answer)
                .ok_or_else(|| corrupt(format!("an answer policy is {}", set.answer)))?,
        },
        Wire::RoleGranted(granted) => {
            let grant = granted.grant.unwrap_or_default();
            UnitEvent::Granted {
                account: granted.account.parse().map_err(corrupt)?,
                grant: Grant {
                    role: role_from_wire(grant.role)
                        .ok_or_else(|| corrupt(format!("a grant's role is {}", grant.role)))?,
                    unit: grant.unit.parse().map_err(corrupt)?,
                    expires: known_time(grant.expires_ms),
                },
            }
        }
        Wire::RoleRevoked(revoked) => UnitEvent::Revoked {
            account: revoked.account.parse().map_err(corrupt)?,
            role: role_from_wire(revoked.role)
                .ok_or_else(|| corrupt(format!("a revoked role is {}", revoked.role)))?,
        },
        record => UnitEvent::Recorded(record_from_wire(record)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_domain::{Answer, Layout, Priority, Reach, Role, Selector, Tier};

    fn site(id: &str) -> SiteId {
        SiteId::new(id).expect("id")
    }

    fn schedule(last: Option<(Millis, Outcome)>) -> Schedule {
        Schedule {
            preset: id_of("p1").expect("id"),
            next: last.is_none().then_some(Millis(99)),
            repeat: Repeat::Weekly,
            account: "wang".parse().expect("name"),
            drill: last.is_some(),
            last,
        }
    }

    fn a_drill() -> Drill {
        let sites = [(site("S1"), Reach::Online), (site("S2"), Reach::NeverSeen)];
        let mut drill = Drill::start("wang".parse().expect("name"), &sites, Millis(7));
        drill.report(DrillResult {
            link: Check::Ok,
            camera: Check::Failed,
            microphone: Check::Busy,
            clock_off_ms: -5,
            camera_reason: Some(muster_domain::Reason::CameraSilent),
            rtt_ms: 30,
            reason: None,
            detail: "no camera".into(),
            ..DrillResult::none(site("S1"), muster_domain::Reason::NoAnswer, Millis(8))
        });
        drill.end(Millis(9));
        drill
    }

    fn report(text: &str, kind: ReportKind) -> SiteReport {
        SiteReport {
            site: site("S1"),
            id: ReportId::new("r1").expect("id"),
            kind,
            text: text.into(),
            written: Millis(2),
        }
    }

    fn records() -> Vec<Record> {
        let account = || "li".parse().expect("name");
        vec![
            Record::Imported {
                units_added: 1,
                units_changed: 2,
                sites_added: 3,
                sites_changed: 4,
                sha256: "ab".into(),
            },
            Record::AccountPut {
                account: account(),
                new_password: true,
            },
            Record::SessionsRevoked {
                account: account(),
                sessions: 3,
            },
            Record::SecretMade {
                identity: "agent:S1".into(),
                expires: Millis(5),
            },
            Record::SecretUsed {
                identity: "agent:S1".into(),
            },
            Record::Reported(report("水漫进地下室\n需要沙袋", ReportKind::Words)),
            Record::Reported(report(
                "",
                ReportKind::RollCallAnswer {
                    meeting: MeetingId::new("m1").expect("id"),
                    roll_call: 2,
                },
            )),
        ]
    }

    fn one_of_each() -> Vec<UnitEvent> {
        let id = || id_of("x1").expect("id");
        let preset = Preset {
            name: "Flood".into(),
            selector: Selector {
                subtrees: vec!["D".into()],
                tiers: vec![Tier::Street],
                ..Selector::default()
            },
            priority: Priority::Emergency,
            layout: Some(Layout::OneAndSeven),
            broadcast: Some(site("S1")),
            polling_s: 10,
            ..Preset::default()
        };
        let grant = |expires| Grant {
            role: Role::Engineer,
            unit: UnitId::new("D").expect("id"),
            expires,
        };
        let account = || "li".parse().expect("name");
        let saved = |last| UnitEvent::ScheduleSaved {
            id: id_of("x1").expect("id"),
            schedule: schedule(last),
        };
        let mut events = vec![
            UnitEvent::PresetSaved { id: id(), preset },
            UnitEvent::PresetDeleted { id: id() },
            saved(None),
            saved(Some((Millis(4), Outcome::Done("m1".into())))),
            saved(Some((Millis(4), Outcome::Refused("no role".into())))),
            UnitEvent::ScheduleDeleted { id: id() },
            UnitEvent::DrillStarted {
                id: id(),
                sites: vec![site("S1"), site("S2")],
            },
            UnitEvent::DrillEnded {
                id: id(),
                drill: a_drill(),
            },
            UnitEvent::AnswerSet {
                sites: vec![site("S1")],
                answer: Answer::Ring,
            },
            UnitEvent::Granted {
                account: account(),
                grant: grant(Some(Millis(5))),
            },
            UnitEvent::Granted {
                account: account(),
                grant: grant(None),
            },
            UnitEvent::Revoked {
                account: account(),
                role: Role::Auditor,
            },
        ];
        events.extend(records().into_iter().map(UnitEvent::Recorded));
        events
    }

    #[test]
    fn what_is_stored_is_what_was_decided() {
        let unit = UnitId::new("D").expect("id");
        for (seq, event) in (1..).zip(one_of_each()) {
            let done = Done {
                unit: &unit,
                seq,
                at: Millis(3),
                actor: "wang",
                cause: "test",
            };
            let wire = unit_event_to_wire(&done, &event);
            assert_eq!((wire.seq, wire.at_ms, wire.actor.as_str()), (seq, 3, "wang"));
            assert_eq!(unit_event_from_wire(wire).expect("read"), event);
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error_and_no_guess() {
        let empty = pb::UnitEvent::default();
        assert!(matches!(unit_event_from_wire(empty), Err(StoreError::Corrupt(_))));
        let bad = pb::UnitEvent {
            event: Some(Wire::RoleRevoked(pb::RoleRevoked {
                account: "li".into(),
                role: 99,
            })),
            ..Default::default()
        };
        assert!(matches!(unit_event_from_wire(bad), Err(StoreError::Corrupt(_))));
        let nameless = pb::Preset {
            broadcast_site: "not an id".into(),
            ..Default::default()
        };
        assert!(
            preset_from_wire(nameless)
                .expect_err("told")
                .contains("broadcast_site")
        );
    }
}
