//! The administration of units: the events of a unit's stream, and the reports of its sites.

use super::directory::{answer_from_wire, answer_to_wire, role_from_wire, role_to_wire};
use super::plan::{
    drill_from_wire, drill_to_wire, preset_from_wire, preset_to_wire, schedule_from_wire, schedule_to_wire,
};
use super::{corrupt, known_time, large, small, time_to_wire};
use crate::store::StoreError;
use muster_domain::{
    Grant, MeetingId, Millis, PlanId, Record, ReportId, ReportKind, SiteId, SiteReport, UnitEvent, UnitId,
};
use muster_proto::command::v1 as pb;
use pb::unit_event::Event as Wire;

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
    use muster_domain::{
        Answer, Check, Drill, DrillResult, Layout, Outcome, Preset, Priority, Reach, Repeat, Role, Schedule,
        Selector, Tier,
    };

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
