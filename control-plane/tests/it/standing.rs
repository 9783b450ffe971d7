//! Who runs a meeting of sites of several units, to whom its chair goes, and what is said to those who may not.

use crate::admin::{accounts, grant, now_ms, revoke};
use crate::plan::{save, save_schedule};
use crate::support::{FakeRelay, Fixture, Person, add_account, attached, small};
use muster_proto::command::v1 as pb;
use pb::Role;
use pb::act_request::Verb;
use std::time::Duration;
use tonic::Status;

fn code(status: &Status) -> &str {
    let code = status.metadata().get("muster-code");
    code.and_then(|code| code.to_str().ok()).unwrap_or_default()
}

async fn signed_in(fixture: &Fixture, name: &str, role: Role, unit: &str) -> Person {
    add_account(fixture.dir.path(), name, role, unit).await;
    Person::sign_in(fixture.channel().await, name).await
}

/// An officer of both streets.
async fn officer_of_both(fixture: &Fixture, chief: &Person) -> Person {
    let both = signed_in(fixture, "both", Role::DutyOfficer, "A").await;
    grant(chief, "both", Role::DutyOfficer, "B", 0)
        .await
        .expect("granted");
    both
}

fn take_over() -> Verb {
    Verb::TakeOver(pb::TakeOver {})
}

fn hand_back() -> Verb {
    Verb::HandBack(pb::HandBack {})
}

fn hang_up(sites: &[&str]) -> Verb {
    let sites = sites.iter().map(|&site| site.to_owned()).collect();
    Verb::HangUp(pb::HangUp { sites })
}

fn selector(sites: &[&str]) -> pb::Selector {
    pb::Selector {
        sites: sites.iter().map(|&site| site.to_owned()).collect(),
        ..Default::default()
    }
}

fn add(sites: &[&str]) -> Verb {
    let selector = Some(selector(sites));
    Verb::AddSites(pb::AddSites { selector })
}

#[tokio::test]
async fn a_commander_of_one_unit_does_not_reach_the_sites_of_another() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let both = officer_of_both(&fixture, &chief).await;
    let street = signed_in(&fixture, "street", Role::Commander, "A").await;
    let across = both.convene(&["A1", "B1"]).await.expect("convened");
    let id = across.id.as_str();
    assert_eq!(across.unit, "D", "the lowest that has both");
    for verb in [take_over(), hang_up(&["B1"]), add(&["A2"])] {
        let refused = street.act(id, verb).await.expect_err("not theirs");
        assert_eq!(code(&refused), "outside_authority");
    }
    let done = both.act(id, hang_up(&["B1", "B1"])).await.expect("the chair's");
    assert_eq!(done.sites, 1, "what was done, not what was named");
    assert_eq!(both.act(id, hang_up(&["B1"])).await.expect("so already").sites, 0);
    chief.act(id, take_over()).await.expect("taken over");
    assert_eq!(both.meeting(id).await.chair, "wang", "it is still seen");
    chief.act(id, hand_back()).await.expect("handed back");
    both.act(id, hang_up(&["A1"])).await.expect("the chair's again");
}

#[tokio::test]
async fn a_meeting_that_gets_sites_of_another_unit_does_not_go_back_to_whom_they_are_foreign() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let street = signed_in(&fixture, "street", Role::DutyOfficer, "A").await;
    let own = street.convene(&["A1"]).await.expect("convened");
    let id = own.id.as_str();
    assert_eq!(own.unit, "A");
    chief.act(id, take_over()).await.expect("taken over");
    chief.act(id, add(&["B1"])).await.expect("added");
    assert_eq!(chief.meeting(id).await.unit, "D");
    let refused = chief
        .act(id, hand_back())
        .await
        .expect_err("not all of it is theirs");
    assert_eq!(code(&refused), "may_not_chair");
    let refused = street.act(id, hang_up(&["B1"])).await.expect_err("foreign");
    assert_eq!(code(&refused), "outside_authority");
}

#[tokio::test]
async fn the_chair_goes_to_nobody_whose_role_has_ended_and_is_there_for_who_asks() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let zhao = signed_in(&fixture, "zhao", Role::DutyOfficer, "A").await;
    let li = signed_in(&fixture, "li", Role::DutyOfficer, "A").await;
    let commander = signed_in(&fixture, "street", Role::Commander, "A").await;
    let meeting = zhao.convene(&["A1"]).await.expect("convened");
    let id = meeting.id.as_str();
    let give = Verb::AnswerChairRequest(pb::AnswerChairRequest {
        account: "li".into(),
        granted: true,
    });
    let refused = commander.act(id, give).await.expect_err("the chair's alone");
    assert!(
        refused.message().contains("chair of the meeting alone"),
        "{refused}"
    );
    chief.act(id, take_over()).await.expect("taken over");
    revoke(&chief, "zhao", Role::DutyOfficer, "A")
        .await
        .expect("revoked");
    let refused = chief.act(id, hand_back()).await.expect_err("zhao has no role");
    assert_eq!(code(&refused), "may_not_chair");
    assert_eq!(chief.meeting(id).await.chair, "wang", "it stays");

    // A chair whose role ends is nobody to wait for.
    let own = li.convene(&["A2"]).await.expect("convened").id;
    let request = || Verb::RequestChair(pb::RequestChair { withdraw: false });
    commander.act(&own, request()).await.expect("requested");
    assert_eq!(commander.meeting(&own).await.chair, "li");
    revoke(&chief, "li", Role::DutyOfficer, "A")
        .await
        .expect("revoked");
    let other = signed_in(&fixture, "sun", Role::DutyOfficer, "A").await;
    other.act(&own, request()).await.expect("requested");
    assert_eq!(other.meeting(&own).await.chair, "sun");
}

#[tokio::test]
async fn the_last_commander_of_the_top_cannot_go() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let refused = revoke(&chief, "wang", Role::Commander, "D")
        .await
        .expect_err("the last");
    assert_eq!(code(&refused), "last_commander");
    let soon = now_ms() + 60_000;
    let refused = grant(&chief, "wang", Role::Commander, "D", soon)
        .await
        .expect_err("nor for a minute");
    assert_eq!(code(&refused), "last_commander");
    let second = signed_in(&fixture, "second", Role::Commander, "D").await;
    revoke(&chief, "wang", Role::Commander, "D")
        .await
        .expect("another is there");
    let refused = revoke(&second, "second", Role::Commander, "D")
        .await
        .expect_err("the last");
    assert_eq!(code(&refused), "last_commander");
}

#[tokio::test]
async fn what_is_outside_ones_authority_is_refused_in_one_way_and_recorded() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let street = signed_in(&fixture, "street", Role::DutyOfficer, "A").await;
    for site in ["B1", "NOSUCH"] {
        let refused = street.convene(&["A1", site]).await.expect_err("outside");
        assert_eq!(code(&refused), "unknown_names");
        assert!(
            refused.message().contains("does not exist or is outside"),
            "{refused}"
        );
    }
    let preset = |name: &str, sites: &[&str], broadcast: &str| pb::Preset {
        unit: "A".into(),
        name: name.into(),
        selector: Some(selector(sites)),
        broadcast_site: broadcast.into(),
        ..Default::default()
    };
    let bad = save(&street, preset("Foreign", &["B1"], ""))
        .await
        .expect_err("outside");
    assert_eq!(code(&bad), "unknown_names");
    let bad = save(&street, preset("Shown", &["A1"], "A2"))
        .await
        .expect_err("not among them");
    assert_eq!(code(&bad), "bad_text");
    save(&street, preset("Own", &["A1"], "A1")).await.expect("saved");
    let bad = save(&street, preset("Own", &["A2"], ""))
        .await
        .expect_err("twice");
    assert_eq!(code(&bad), "name_taken");

    let hidden = pb::Preset {
        unit: "B".into(),
        ..preset("Hidden", &["B1"], "")
    };
    let hidden = save(&chief, hidden).await.expect("saved").id;
    let convene = pb::ConveneRequest {
        preset: hidden.clone(),
        ..Default::default()
    };
    let convened = street.meetings().convene(street.request(convene)).await;
    let delete = pb::DeletePresetRequest { preset: hidden };
    let mut plans = pb::plan_service_client::PlanServiceClient::new(street.channel.clone());
    let deleted = plans.delete_preset(street.request(delete)).await;
    let (convened, deleted) = (convened.expect_err("unseen"), deleted.expect_err("unseen"));
    assert_eq!(
        (code(&convened), convened.message()),
        (code(&deleted), deleted.message())
    );
    assert_eq!(code(&deleted), "unknown_plan");

    let tried = [
        "convene",
        "convene",
        "convene",
        "manage presets",
        "manage presets",
    ];
    let mut found = Vec::new();
    for _ in 0..200 {
        let message = pb::ListRefusalsRequest { limit: 0 };
        let answer = accounts(&chief).list_refusals(chief.request(message)).await;
        let refusals = answer.expect("listed").into_inner().refusals;
        found = refusals.into_iter().map(|refusal| refusal.action).collect();
        found.sort();
        if found.len() == tried.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(found, tried);
}

#[tokio::test]
async fn a_role_that_ran_out_is_named_with_its_time_also_by_a_schedule() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let li = signed_in(&fixture, "li", Role::Engineer, "B").await;
    let ends = now_ms() + 2_500;
    grant(&chief, "li", Role::DutyOfficer, "A", ends)
        .await
        .expect("granted");
    let preset = pb::Preset {
        unit: "A".into(),
        name: "Evening".into(),
        selector: Some(selector(&["A1"])),
        ..Default::default()
    };
    let preset = save(&li, preset).await.expect("saved").id;
    let schedule = |next_ms| pb::Schedule {
        unit: "A".into(),
        preset: preset.clone(),
        next_ms,
        repeat: pb::Repeat::Once.into(),
        ..Default::default()
    };
    let far = save_schedule(&li, schedule(now_ms() + 400 * 24 * 3_600_000)).await;
    assert_eq!(code(&far.expect_err("too far")), "bad_text");
    let made = save_schedule(&li, schedule(ends + 200)).await.expect("saved").id;
    let mut outcome = String::new();
    for _ in 0..300 {
        let plans = crate::plan::list(&chief).await;
        let schedule = plans
            .schedules
            .into_iter()
            .find(|schedule| schedule.id == made)
            .expect("listed");
        outcome = schedule.last_refusal;
        if !outcome.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        outcome.contains("ran out at 20") && outcome.contains("li"),
        "{outcome}"
    );
    let refused = li.convene(&["A1"]).await.expect_err("ran out");
    assert_eq!(code(&refused), "role_ran_out");
}

#[tokio::test]
async fn a_preview_names_those_that_another_meeting_would_lose() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let chief = fixture.person().await;
    let routine = chief.convene(&["A1"]).await.expect("convened").id;
    endpoints[0].summoned().await;
    relay.on_air(&chief, &routine, "A1").await;
    let preview = async |priority: pb::Priority| {
        let message = pb::PreviewConveneRequest {
            selector: Some(selector(&["A1"])),
            priority: priority.into(),
            preset: String::new(),
        };
        let answer = chief.meetings().preview_convene(chief.request(message)).await;
        let preview = answer.expect("a preview").into_inner();
        (preview.doubtful, preview.taken)
    };
    let (doubtful, taken) = preview(pb::Priority::Routine).await;
    assert_eq!((doubtful.len(), taken.len()), (1, 0));
    let (doubtful, taken) = preview(pb::Priority::Emergency).await;
    assert_eq!(doubtful, []);
    assert_eq!((taken[0].site.as_str(), &taken[0].detail), ("A1", &routine));
    assert_eq!(taken[0].other_title, "Flood");
}

#[tokio::test]
async fn the_ended_meetings_of_a_unit_are_found_behind_those_of_others() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let street = signed_in(&fixture, "street", Role::DutyOfficer, "A").await;
    let own = street.convene(&["A1"]).await.expect("convened").id;
    street.end(&own).await;
    for _ in 0..101 {
        let other = chief.convene(&["B1"]).await.expect("convened").id;
        chief.end(&other).await;
    }
    assert_eq!(street.meeting(&own).await.id, own);
}

#[tokio::test]
async fn verbs_that_mean_nothing_are_refused() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let id = chief.convene(&["A1", "A2"]).await.expect("convened").id;
    let content = |site: &str| Verb::SetContent(pb::SetContent { site: site.into() });
    let extend = Verb::Extend(pb::Extend { minutes: 5 });
    let watch = Verb::WatchSite(pb::WatchSite { site: "A2".into() });
    chief.act(&id, hang_up(&["A2"])).await.expect("hung up");
    let rows = [
        (content("desk:nosuch"), "unknown_desk"),
        (content("A2"), "hung_up"),
        (watch, "hung_up"),
        (extend, "no_end"),
    ];
    for (verb, expected) in rows {
        let refused = chief.act(&id, verb).await.expect_err("refused");
        assert_eq!(code(&refused), expected);
    }
    chief
        .act(&id, content("desk:wang"))
        .await
        .expect("somebody who can take part");
}
