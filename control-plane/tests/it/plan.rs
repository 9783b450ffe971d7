//! Presets, schedules, drills and answer policies over real gRPC.

use crate::admin::{code_of, now_ms, someone, until_refused};
use crate::support::{Endpoint, FakeRelay, Fixture, Person, attached, small};
use muster_proto::command::v1 as pb;
use pb::attach_response::Event as Pushed;
use pb::plan_service_client::PlanServiceClient;
use pb::watch_response::Event;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

fn plans(person: &Person) -> PlanServiceClient<Channel> {
    PlanServiceClient::new(person.channel.clone())
}

pub fn of_street_a() -> pb::Preset {
    pb::Preset {
        unit: "A".into(),
        name: "防汛".into(),
        selector: Some(pb::Selector {
            subtrees: vec!["A".into()],
            ..Default::default()
        }),
        priority: pb::Priority::Urgent.into(),
        fallback: pb::Fallback::Audio.into(),
        deadline_s: 60,
        minutes: 30,
        layout: pb::Layout::Layout9.into(),
        broadcast_site: "A2".into(),
        mute_all: true,
        ..Default::default()
    }
}

pub async fn save(person: &Person, preset: pb::Preset) -> Result<pb::Preset, Status> {
    let message = pb::SavePresetRequest { preset: Some(preset) };
    let answer = plans(person).save_preset(person.request(message)).await?;
    Ok(answer.into_inner().preset.expect("a preset"))
}

pub async fn save_schedule(person: &Person, schedule: pb::Schedule) -> Result<pb::Schedule, Status> {
    let message = pb::SaveScheduleRequest {
        schedule: Some(schedule),
    };
    let answer = plans(person).save_schedule(person.request(message)).await?;
    Ok(answer.into_inner().schedule.expect("a schedule"))
}

pub async fn list(person: &Person) -> pb::ListPlansResponse {
    let answer = plans(person)
        .list_plans(person.request(pb::ListPlansRequest {}))
        .await;
    answer.expect("listed").into_inner()
}

/// Waits until the schedule has moved on.
async fn carried_out(person: &Person, id: &str, due: i64) -> pb::Schedule {
    for _ in 0..500 {
        let plans = list(person).await;
        let found = plans
            .schedules
            .into_iter()
            .find(|schedule| schedule.id == id)
            .expect("the schedule");
        if found.last_ms == due {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("schedule {id} was not carried out within 10 s");
}

async fn drill(person: &Person, id: &str) -> Result<pb::Drill, Status> {
    let message = pb::GetDrillRequest { drill: id.into() };
    let answer = plans(person).get_drill(person.request(message)).await?;
    Ok(answer.into_inner().drill.expect("a drill"))
}

pub async fn drill_ended(person: &Person, id: &str) -> pb::Drill {
    for _ in 0..700 {
        let found = drill(person, id).await.expect("the drill");
        if found.ended_ms > 0 {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("drill {id} did not end within 14 s");
}

async fn plans_changed(stream: &mut tonic::Streaming<pb::WatchResponse>) {
    let told = async {
        loop {
            let message = stream.message().await.expect("stream").expect("not over");
            if matches!(message.event, Some(Event::Plans(_))) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .expect("told within 10 s");
}

#[tokio::test]
async fn a_preset_is_saved_convened_with_its_stage_and_deleted() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let officer = someone(&fixture, "officer", pb::Role::DutyOfficer, "A").await;
    let mut watch = officer.watch(Vec::new()).await;
    let saved = save(&officer, of_street_a()).await.expect("saved");
    plans_changed(&mut watch).await;
    assert!(!saved.id.is_empty());
    let renamed = pb::Preset {
        name: "防火".into(),
        ..saved.clone()
    };
    assert_eq!(save(&officer, renamed).await.expect("changed").id, saved.id);
    assert_eq!(list(&officer).await.presets.len(), 1);

    let before = now_ms();
    let message = pb::ConveneRequest {
        preset: saved.id.clone(),
        ..Default::default()
    };
    let meeting = officer
        .meetings()
        .convene(officer.request(message))
        .await
        .expect("convened");
    let meeting = meeting.into_inner().meeting.expect("a meeting");
    assert_eq!(
        (meeting.title.as_str(), meeting.preset.as_str()),
        ("防火", saved.id.as_str())
    );
    assert_eq!(
        (meeting.priority(), meeting.fallback()),
        (pb::Priority::Urgent, pb::Fallback::Audio)
    );
    assert_eq!(meeting.summonses.len(), 3);
    assert!(meeting.ends_ms >= before + 30 * 60_000 && meeting.deadline_ms >= before + 60_000);
    let stage = meeting.stage.expect("a stage");
    assert_eq!(
        (stage.layout(), stage.broadcast_site.as_str()),
        (pb::Layout::Layout9, "A2")
    );
    assert_eq!(stage.muted_sites.len(), 3);

    // What is given besides wins over the preset.
    let message = pb::ConveneRequest {
        preset: saved.id.clone(),
        title: "Only one".into(),
        selector: Some(pb::Selector {
            sites: vec!["A1".into()],
            ..Default::default()
        }),
        priority: pb::Priority::Emergency.into(),
        ..Default::default()
    };
    let other = officer
        .meetings()
        .convene(officer.request(message))
        .await
        .expect("convened");
    let other = other.into_inner().meeting.expect("a meeting");
    assert_eq!((other.title.as_str(), other.summonses.len()), ("Only one", 1));
    assert_eq!(other.priority(), pb::Priority::Emergency);

    let delete = pb::DeletePresetRequest {
        preset: saved.id.clone(),
    };
    plans(&officer)
        .delete_preset(officer.request(delete.clone()))
        .await
        .expect("deleted");
    let again = plans(&officer)
        .delete_preset(officer.request(delete))
        .await
        .expect_err("gone");
    assert_eq!(
        (again.code(), code_of(&again).as_str()),
        (Code::NotFound, "unknown_plan")
    );
}

#[tokio::test]
async fn plans_belong_to_a_unit_and_who_may_not_is_refused() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let street_b = someone(&fixture, "street-b", pb::Role::DutyOfficer, "B").await;
    let engineer = someone(&fixture, "engineer", pb::Role::Engineer, "A").await;
    let saved = save(&chief, of_street_a()).await.expect("saved");
    assert!(
        list(&street_b).await.presets.is_empty(),
        "what is not theirs is not shown"
    );
    assert_eq!(list(&engineer).await.presets.len(), 1);
    let refused = save(&street_b, of_street_a()).await.expect_err("not their unit");
    assert_eq!(
        (refused.code(), code_of(&refused).as_str()),
        (Code::PermissionDenied, "outside_authority")
    );
    let refused = save(&engineer, of_street_a()).await.expect_err("no role");
    assert_eq!(code_of(&refused), "no_role");
    let moved = pb::Preset {
        unit: "B".into(),
        ..saved.clone()
    };
    assert_eq!(
        save(&chief, moved).await.expect_err("stays").code(),
        Code::InvalidArgument
    );
    let bad = pb::Preset {
        name: String::new(),
        ..of_street_a()
    };
    let bad = save(&chief, bad).await.expect_err("no name");
    assert_eq!(
        (bad.code(), code_of(&bad).as_str()),
        (Code::InvalidArgument, "bad_text")
    );
    let message = pb::ConveneRequest {
        preset: saved.id.clone(),
        ..Default::default()
    };
    let hidden = street_b
        .meetings()
        .convene(street_b.request(message))
        .await
        .expect_err("not theirs");
    assert_eq!(hidden.code(), Code::NotFound);
    let schedule = pb::Schedule {
        unit: "A".into(),
        preset: saved.id.clone(),
        next_ms: now_ms() + 60_000,
        repeat: pb::Repeat::Once.into(),
        ..Default::default()
    };
    let refused = save_schedule(&engineer, schedule.clone())
        .await
        .expect_err("no role");
    assert_eq!(code_of(&refused), "no_role");
    let kept = save_schedule(&chief, schedule.clone()).await.expect("saved");
    let delete = pb::DeletePresetRequest { preset: saved.id };
    let used = plans(&chief)
        .delete_preset(chief.request(delete))
        .await
        .expect_err("in use");
    assert_eq!(
        (used.code(), code_of(&used).as_str()),
        (Code::FailedPrecondition, "preset_in_use")
    );
    let delete = pb::DeleteScheduleRequest { schedule: kept.id };
    let refused = plans(&street_b)
        .delete_schedule(street_b.request(delete.clone()))
        .await;
    assert_eq!(
        refused.expect_err("not theirs").code(),
        Code::NotFound,
        "as one that is not there"
    );
    plans(&chief)
        .delete_schedule(chief.request(delete))
        .await
        .expect("deleted");
    assert!(list(&chief).await.schedules.is_empty());
    let past = pb::Schedule {
        next_ms: now_ms() - 1,
        ..schedule
    };
    assert_eq!(
        code_of(&save_schedule(&chief, past).await.expect_err("past")),
        "past_time"
    );
    let recorded = [
        ("street-b", "manage presets"),
        ("street-b", "convene"),
        ("engineer", "manage presets"),
        ("engineer", "schedule meetings"),
        ("street-b", "schedule meetings"),
    ];
    until_refused(&chief, &recorded).await;
}

#[tokio::test]
async fn a_schedule_convenes_once_at_its_time_and_keeps_a_refusal() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let officer = someone(&fixture, "officer", pb::Role::DutyOfficer, "A").await;
    let preset = save(&officer, of_street_a()).await.expect("saved");
    let due = now_ms() + 700;
    let schedule = |repeat: pb::Repeat, due: i64| pb::Schedule {
        unit: "A".into(),
        preset: preset.id.clone(),
        next_ms: due,
        repeat: repeat.into(),
        ..Default::default()
    };
    let saved = save_schedule(&officer, schedule(pb::Repeat::Daily, due))
        .await
        .expect("saved");
    assert_eq!((saved.next_ms, saved.account.as_str()), (due, "officer"));
    let done = carried_out(&officer, &saved.id, due).await;
    assert_eq!(done.next_ms, due + 24 * 3_600_000);
    assert_eq!(done.last_refusal, "");
    let meeting = officer.meeting(&done.last_meeting).await;
    assert_eq!(
        (meeting.chair.as_str(), meeting.schedule.as_str()),
        ("officer", saved.id.as_str())
    );
    assert!(meeting.started_ms >= due, "not before its time");
    let message = pb::ListMeetingsRequest { include_ended: true };
    let all = chief
        .meetings()
        .list_meetings(chief.request(message))
        .await
        .expect("listed");
    assert_eq!(all.into_inner().meetings.len(), 1, "once");

    // What the account may do then is what counts, and the refusal is kept.
    let due = now_ms() + 1_000;
    let later = save_schedule(&officer, schedule(pb::Repeat::Once, due))
        .await
        .expect("saved");
    let mut accounts = crate::admin::accounts(&chief);
    let revoke = pb::RevokeRoleRequest {
        account: "officer".into(),
        role: pb::Role::DutyOfficer.into(),
        unit: "A".into(),
    };
    accounts
        .revoke_role(chief.request(revoke))
        .await
        .expect("taken away");
    let refused = carried_out(&chief, &later.id, due).await;
    assert_eq!((refused.next_ms, refused.last_meeting.as_str()), (0, ""));
    assert!(!refused.last_refusal.is_empty());
}

async fn answer(endpoint: &mut Endpoint, camera: pb::Check) -> String {
    let call = match endpoint.next().await {
        Pushed::Drill(call) => call,
        other => panic!("expected a drill, found {other:?}"),
    };
    assert!(call.server_time_ms > 0);
    let result = pb::DrillResult {
        site: "somebody else".into(),
        link: pb::Check::Ok.into(),
        camera: camera.into(),
        microphone: pb::Check::Ok.into(),
        clock: pb::Check::Ok.into(),
        clock_off_ms: -20,
        rtt_ms: 31,
        detail: "嘉佳\u{7}".into(),
        ..Default::default()
    };
    endpoint.report_drill(&call.drill, result).await.expect("taken");
    call.drill
}

pub async fn start_drill(person: &Person, sites: &[&str]) -> Result<pb::Drill, Status> {
    let message = pb::StartDrillRequest {
        selector: Some(pb::Selector {
            sites: sites.iter().map(|&site| site.to_owned()).collect(),
            ..Default::default()
        }),
        preset: String::new(),
    };
    let answer = plans(person).start_drill(person.request(message)).await?;
    Ok(answer.into_inner().drill.expect("a drill"))
}

pub fn result<'a>(drill: &'a pb::Drill, site: &str) -> &'a pb::DrillResult {
    drill
        .results
        .iter()
        .find(|result| result.site == site)
        .expect("a result")
}

#[tokio::test]
async fn a_drill_asks_what_is_attached_and_says_of_the_rest_why() {
    let fixture = small().await;
    let engineer = someone(&fixture, "engineer", pb::Role::Engineer, "D").await;
    let mut endpoints = attached(&fixture, &["A1", "A2"]).await;
    let mut watch = engineer.watch(Vec::new()).await;
    let started = start_drill(&engineer, &["A1", "A2", "A3"])
        .await
        .expect("started");
    plans_changed(&mut watch).await;
    assert_eq!(
        (started.asked, started.by.as_str(), started.ended_ms),
        (3, "engineer", 0)
    );
    assert_eq!(result(&started, "A3").reason(), pb::SummonsReason::NeverSeen);
    assert_eq!(answer(&mut endpoints[0], pb::Check::Busy).await, started.id);
    let halfway = drill(&engineer, &started.id).await.expect("goes on");
    assert_eq!((halfway.ended_ms, halfway.ready), (0, 1));
    answer(&mut endpoints[1], pb::Check::Failed).await;
    let ended = drill_ended(&engineer, &started.id).await;
    assert!(
        ended.ended_ms - ended.started_ms < 9_000,
        "it does not wait when all have answered"
    );
    assert_eq!((ended.ready, ended.asked, ended.results.len()), (1, 3, 3));
    let first = result(&ended, "A1");
    assert_eq!(
        (first.camera(), first.rtt_ms, first.clock_off_ms),
        (pb::Check::Busy, 31, -20)
    );
    assert_eq!(
        (first.detail.as_str(), first.reason()),
        ("嘉佳", pb::SummonsReason::Unspecified)
    );
    assert_eq!(result(&ended, "A2").camera(), pb::Check::Failed);
    let listed = list(&engineer).await.drills;
    assert_eq!(
        (listed.len(), listed[0].ready, listed[0].results.len()),
        (1, 1, 0)
    );
    plans_changed(&mut watch).await;

    let auditor = someone(&fixture, "auditor", pb::Role::Auditor, "D").await;
    let refused = start_drill(&auditor, &["A1"]).await.expect_err("no role");
    assert_eq!(
        (refused.code(), code_of(&refused).as_str()),
        (Code::PermissionDenied, "no_role")
    );
    let street_b = someone(&fixture, "street-b", pb::Role::Engineer, "B").await;
    let hidden = drill(&street_b, &started.id).await.expect_err("not theirs");
    assert_eq!(hidden.code(), Code::NotFound);
    assert_eq!(
        start_drill(&street_b, &["A1"])
            .await
            .expect_err("not theirs")
            .code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn who_does_not_answer_a_drill_is_told_after_its_time_and_a_schedule_can_hold_one() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let _silent = attached(&fixture, &["A1"]).await;
    let preset = save(&chief, of_street_a()).await.expect("saved");
    let due = now_ms() + 600;
    let schedule = pb::Schedule {
        unit: "A".into(),
        preset: preset.id,
        next_ms: due,
        repeat: pb::Repeat::Weekly.into(),
        drill: true,
        ..Default::default()
    };
    let saved = save_schedule(&chief, schedule).await.expect("saved");
    let done = carried_out(&chief, &saved.id, due).await;
    assert_eq!(done.next_ms, due + 7 * 24 * 3_600_000);
    assert!(done.last_meeting.starts_with(&saved.id), "{done:?}");
    let ended = drill_ended(&chief, &done.last_meeting).await;
    assert_eq!((ended.ready, ended.asked), (0, 3));
    assert_eq!(result(&ended, "A1").reason(), pb::SummonsReason::NoAnswer);
    assert!(ended.ended_ms - ended.started_ms >= 10_000);
}

#[tokio::test]
async fn a_drill_that_its_replica_left_behind_is_ended_by_the_next() {
    use muster_control_plane::store::{DrillRow, NewEvent, Store, UnitAppend, UnitEffect};
    use prost::Message as _;
    let fixture = small().await;
    let chief = fixture.person().await;
    let started_ms = now_ms() - 60_000;
    let drill = pb::Drill {
        id: "d-left".into(),
        unit: "A".into(),
        by: "wang".into(),
        started_ms,
        asked: 2,
        ..Default::default()
    };
    let started = pb::DrillStarted {
        drill: drill.id.clone(),
        sites: vec!["A1".into(), "A2".into()],
    };
    let event = pb::UnitEvent {
        unit: "A".into(),
        seq: 1,
        at_ms: started_ms,
        event: Some(pb::unit_event::Event::DrillStarted(started)),
        ..Default::default()
    };
    let store = Store::open(fixture.dir.path()).await.expect("store");
    let append = UnitAppend {
        stream: "unit:A".into(),
        events: vec![NewEvent {
            seq: 1,
            at_ms: started_ms,
            actor: "wang".into(),
            payload: event.encode_to_vec(),
        }],
        effects: vec![UnitEffect::PutDrill(DrillRow {
            id: drill.id.clone(),
            unit: "A".into(),
            started_ms,
            body: drill.encode_to_vec(),
        })],
        ..UnitAppend::default()
    };
    store.append_unit(&append).await.expect("stored");
    store.close().await;
    let ended = drill_ended(&chief, "d-left").await;
    assert_eq!((ended.ready, ended.results.len()), (0, 2));
    assert_eq!(result(&ended, "A2").reason(), pb::SummonsReason::NoAnswer);
}

async fn set_answer(person: &Person, sites: &[&str], answer: pb::AnswerPolicy) -> Result<u32, Status> {
    let message = pb::SetAnswerPolicyRequest {
        selector: Some(pb::Selector {
            sites: sites.iter().map(|&site| site.to_owned()).collect(),
            ..Default::default()
        }),
        answer: answer.into(),
    };
    let answer = plans(person).set_answer_policy(person.request(message)).await?;
    Ok(answer.into_inner().sites)
}

async fn answers(fixture: &Fixture) -> Vec<(String, pb::AnswerPolicy)> {
    let person = fixture.person().await;
    let listed = person
        .directory()
        .list_sites(person.request(pb::ListSitesRequest {}))
        .await;
    let sites = listed.expect("listed").into_inner().sites;
    sites
        .into_iter()
        .map(|site| (site.id.clone(), site.answer()))
        .filter(|(_, answer)| *answer != pb::AnswerPolicy::Unspecified)
        .collect()
}

#[tokio::test]
async fn how_sites_answer_is_set_and_an_import_leaves_it() {
    use pb::AnswerPolicy::{Auto, Ring, Unspecified};
    let fixture = small().await;
    let engineer = someone(&fixture, "engineer", pb::Role::Engineer, "A").await;
    assert_eq!(set_answer(&engineer, &["A1", "A2"], Auto).await.expect("set"), 2);
    assert_eq!(
        set_answer(&engineer, &["A1", "A2"], Auto)
            .await
            .expect("so already"),
        0
    );
    assert_eq!(set_answer(&engineer, &["A2"], Ring).await.expect("set"), 1);
    let expected = [("A1".to_owned(), Auto), ("A2".to_owned(), Ring)];
    assert_eq!(answers(&fixture).await, expected);
    let moved = crate::support::SMALL.replace("A one", "A first");
    fixture
        .person()
        .await
        .import(moved.as_bytes())
        .await
        .expect("imported");
    assert_eq!(answers(&fixture).await, expected);
    let fixture = fixture.restarted().await;
    assert_eq!(answers(&fixture).await, expected);
    let chief = fixture.person().await;
    assert_eq!(
        set_answer(&chief, &["A1"], Unspecified)
            .await
            .expect("taken back"),
        1
    );
    let officer = someone(&fixture, "officer", pb::Role::DutyOfficer, "A").await;
    let refused = set_answer(&officer, &["A1"], Auto).await.expect_err("no role");
    assert_eq!(
        (refused.code(), code_of(&refused).as_str()),
        (Code::PermissionDenied, "no_role")
    );
}
