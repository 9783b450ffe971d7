//! Priority, hanging up, the lock, ends by time, fall-back and the chair, over real gRPC.

use crate::support::{FakeRelay, Fixture, Person, add_account, attached, small};
use muster_proto::command::v1 as pb;
use pb::act_request::Verb;
use pb::plan_service_client::PlanServiceClient;
use pb::{LegState, Priority, Role, SummonsReason, SummonsState};
use tonic::{Code, Status};

fn code(status: &Status) -> &str {
    let code = status.metadata().get("muster-code");
    code.and_then(|code| code.to_str().ok()).unwrap_or_default()
}

fn urgent(priority: Priority) -> pb::ConveneRequest {
    pb::ConveneRequest {
        title: format!("{priority:?}"),
        priority: priority.into(),
        ..Default::default()
    }
}

fn summons<'a>(meeting: &'a pb::Meeting, site: &str) -> &'a pb::Summons {
    let found = meeting.summonses.iter().find(|summons| summons.site == site);
    found.expect("the site is in the meeting")
}

async fn signed_in(fixture: &Fixture, name: &str, role: Role, unit: &str) -> Person {
    add_account(fixture.dir.path(), name, role, unit).await;
    Person::sign_in(fixture.channel().await, name).await
}

#[tokio::test]
async fn an_emergency_takes_sites_and_they_return_when_it_ends() {
    let fixture = small().await;
    let mut relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1", "A2"]).await;
    let person = fixture.person().await;
    let routine = person.convene_as(&["A1", "A2"], urgent(Priority::Routine)).await;
    for (site, endpoint) in ["A1", "A2"].into_iter().zip(&mut endpoints) {
        assert_eq!(endpoint.summoned().await.priority(), Priority::Routine);
        endpoint
            .report(&routine.id, SummonsState::Answered)
            .await
            .expect("answered");
        relay.on_air(&person, &routine.id, site).await;
    }

    let emergency = person.convene_as(&["A1"], urgent(Priority::Emergency)).await;
    assert_eq!(summons(&emergency, "A1").state(), SummonsState::Paged);
    assert_eq!(endpoints[0].withdrawn().await, "called away");
    let call = endpoints[0].summoned().await;
    assert_eq!(
        (call.meeting.as_str(), call.priority()),
        (&*emergency.id, Priority::Emergency)
    );
    let lost = person.until(&routine.id, "A1", SummonsState::Refused).await;
    assert_eq!(lost.reason(), SummonsReason::InOtherMeeting);
    assert_eq!(
        (
            lost.detail.as_str(),
            lost.other_title.as_str(),
            lost.other_priority()
        ),
        (&*emergency.id, "Emergency", Priority::Emergency)
    );
    let expelled = relay
        .stage(|stage| stage.meeting == routine.id && !stage.expelled_sites.is_empty())
        .await;
    assert_eq!(expelled.expelled_sites, ["A1"]);
    let others = person.meeting(&routine.id).await;
    assert_eq!(summons(&others, "A2").state(), SummonsState::OnAir);

    person.end(&emergency.id).await;
    assert_eq!(endpoints[0].withdrawn().await, "ended");
    assert_eq!(endpoints[0].summoned().await.meeting, routine.id);
    let back = person.until(&routine.id, "A1", SummonsState::Paged).await;
    assert_eq!(back.pages, 2);
    relay.on_air(&person, &routine.id, "A1").await;
}

#[tokio::test]
async fn equal_or_lower_priority_takes_nothing() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let _endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let first = person.convene_as(&["A1"], urgent(Priority::Urgent)).await;
    for priority in [Priority::Urgent, Priority::Routine] {
        let other = person.convene_as(&["A1", "A2"], urgent(priority)).await;
        let refused = summons(&other, "A1");
        assert_eq!(
            (refused.state(), refused.reason()),
            (SummonsState::Refused, SummonsReason::InOtherMeeting)
        );
        assert_eq!(
            (refused.detail.as_str(), refused.other_priority()),
            (&*first.id, Priority::Urgent)
        );
    }
    assert_ne!(
        summons(&person.meeting(&first.id).await, "A1").state(),
        SummonsState::Refused
    );
}

#[tokio::test]
async fn a_site_that_is_hung_up_is_out_until_it_is_called_again() {
    let fixture = small().await;
    let mut relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1", "A2"]).await.expect("convened");
    let id = meeting.id.as_str();
    endpoints[0].summoned().await;
    relay.on_air(&person, id, "A1").await;

    let hang_up = Verb::HangUp(pb::HangUp {
        sites: vec!["A1".into()],
    });
    let done = person.act(id, hang_up).await.expect("hung up");
    assert_eq!(done.sites, 1);
    assert!(done.seq > meeting.seq);
    assert_eq!(endpoints[0].withdrawn().await, "hung up");
    let left = person.until(id, "A1", SummonsState::Left).await;
    assert_eq!(left.reason(), SummonsReason::HungUpByChair);
    let stage = relay.stage(|stage| !stage.expelled_sites.is_empty()).await;
    assert_eq!(stage.expelled_sites, ["A1"]);
    let refused = endpoints[0].ticket(id).await.expect_err("it is out");
    assert_eq!(
        (refused.code(), code(&refused)),
        (Code::FailedPrecondition, "hung_up")
    );
    // What the relay still says of its leg brings it not back.
    relay.leg(id, "A1", LegState::OnAir, "").await;
    relay.leg(id, "A1", LegState::Left, "expelled").await;

    let again = pb::CallUnconnectedRequest {
        meeting: id.into(),
        sites: vec!["A1".into()],
    };
    person
        .meetings()
        .call_unconnected(person.request(again))
        .await
        .expect("called");
    endpoints[0].summoned().await;
    relay.on_air(&person, id, "A1").await;
    let stage = relay.stage(|stage| stage.expelled_sites.is_empty()).await;
    assert_eq!(stage.meeting, id);
}

#[tokio::test]
async fn a_locked_meeting_takes_nobody_new() {
    let fixture = small().await;
    let mut relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let officer = signed_in(&fixture, "zhao", Role::DutyOfficer, "D").await;
    let guest = signed_in(&fixture, "li", Role::DutyOfficer, "D").await;
    let meeting = person.convene(&["A1"]).await.expect("convened");
    let id = meeting.id.as_str();
    endpoints[0].summoned().await;
    relay.on_air(&person, id, "A1").await;
    // One officer's console is in, as the relay tells it.
    relay.quality(id, "desk:zhao", 1).await;
    let mut watch = person.watch(Vec::new()).await;
    let desk = |event: &pb::WatchResponse| match &event.event {
        Some(pb::watch_response::Event::Snapshot(snapshot)) => {
            snapshot.quality.iter().any(|quality| quality.site == "desk:zhao")
        }
        Some(pb::watch_response::Event::Quality(quality)) => {
            quality.sites.iter().any(|quality| quality.site == "desk:zhao")
        }
        _ => false,
    };
    while !desk(&watch.message().await.expect("stream").expect("not over")) {}

    person
        .act(id, Verb::Lock(pb::Lock { locked: true }))
        .await
        .expect("locked");
    assert!(person.meeting(id).await.locked);
    let stage = relay.stage(|stage| stage.locked).await;
    assert_eq!(stage.desks, ["zhao"]);
    assert!(endpoints[0].notice(|notice| notice.locked).await.meeting == id);
    let add = || {
        let selector = pb::Selector {
            sites: vec!["A2".into()],
            ..Default::default()
        };
        Verb::AddSites(pb::AddSites {
            selector: Some(selector),
        })
    };
    let refused = person.act(id, add()).await.expect_err("locked");
    assert_eq!(
        (refused.code(), code(&refused)),
        (Code::FailedPrecondition, "locked")
    );
    let join = |of: &Person| {
        let message = of.request(pb::JoinAsDeskRequest {
            meeting: id.into(),
            ..Default::default()
        });
        let mut client = of.meetings();
        async move { client.join_as_desk(message).await }
    };
    let refused = join(&guest).await.expect_err("locked");
    assert_eq!(code(&refused), "locked");
    join(&officer).await.expect("who was in may come back");
    join(&person).await.expect("the chair may always");
    endpoints[0].ticket(id).await.expect("so may a site");

    person
        .act(id, Verb::Lock(pb::Lock { locked: false }))
        .await
        .expect("unlocked");
    let added = person.act(id, add()).await.expect("added");
    assert_eq!(added.sites, 1);
    assert_eq!(
        summons(&person.meeting(id).await, "A2").reason(),
        SummonsReason::NeverSeen
    );
    join(&guest).await.expect("and a guest");
}

#[tokio::test]
async fn a_meeting_is_extended_and_its_deadline_ends_what_is_under_way() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let terms = pb::ConveneRequest {
        deadline_s: 1,
        minutes: 30,
        ..Default::default()
    };
    let meeting = person.convene_as(&["A1"], terms).await;
    let id = meeting.id.as_str();
    // Counted from when the call came in, which is a little before the meeting starts.
    let from = meeting.deadline_ms - 1_000;
    assert!((meeting.started_ms - 1_000..=meeting.started_ms).contains(&from));
    let from = meeting.ends_ms - 1_800_000;
    assert!((meeting.started_ms - 1_000..=meeting.started_ms).contains(&from));
    endpoints[0].summoned().await;
    endpoints[0]
        .report(id, SummonsState::Ringing)
        .await
        .expect("rings");
    let over = person.until(id, "A1", SummonsState::TimedOut).await;
    assert_eq!(over.reason(), SummonsReason::Deadline);
    assert_eq!(endpoints[0].withdrawn().await, "timed out");
    // Who comes later still counts.
    endpoints[0]
        .report(id, SummonsState::Answered)
        .await
        .expect("answers");
    relay.on_air(&person, id, "A1").await;

    person
        .act(id, Verb::Extend(pb::Extend { minutes: 15 }))
        .await
        .expect("extended");
    let ends = meeting.ends_ms + 900_000;
    assert_eq!(person.meeting(id).await.ends_ms, ends);
    assert_eq!(
        endpoints[0].notice(|notice| notice.ends_ms == ends).await.chair,
        "wang"
    );
    let refused = person
        .act(id, Verb::Extend(pb::Extend { minutes: 0 }))
        .await
        .expect_err("no time");
    assert_eq!(
        (refused.code(), code(&refused)),
        (Code::InvalidArgument, "bad_number")
    );
}

#[tokio::test]
async fn a_site_without_a_picture_is_called_for_sound() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let terms = pb::ConveneRequest {
        fallback: pb::Fallback::Audio.into(),
        ..Default::default()
    };
    let meeting = person.convene_as(&["A1"], terms).await;
    let id = meeting.id.as_str();
    assert!(!endpoints[0].summoned().await.audio_only);
    endpoints[0]
        .report(id, SummonsState::Answered)
        .await
        .expect("answers");
    endpoints[0]
        .refuse(id, SummonsReason::CameraBusy)
        .await
        .expect("says why");
    assert!(endpoints[0].summoned().await.audio_only);
    endpoints[0]
        .report(id, SummonsState::Answered)
        .await
        .expect("answers");
    relay.on_air(&person, id, "A1").await;
    let heard = person.until(id, "A1", SummonsState::OnAir).await;
    assert_eq!((heard.media(), heard.pages), (pb::Media::Audio, 2));
    assert!(heard.answered_by.starts_with("browser:"), "{}", heard.answered_by);
}

#[tokio::test]
async fn a_site_answers_as_its_policy_says() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let mut plans = PlanServiceClient::new(person.channel.clone());
    for (policy, by_itself) in [
        (pb::AnswerPolicy::Auto, true),
        (pb::AnswerPolicy::Ring, false),
        (pb::AnswerPolicy::Unspecified, false),
    ] {
        let selector = pb::Selector {
            sites: vec!["A1".into()],
            ..Default::default()
        };
        let message = pb::SetAnswerPolicyRequest {
            selector: Some(selector),
            answer: policy.into(),
        };
        plans
            .set_answer_policy(person.request(message))
            .await
            .expect("set");
        let meeting = person.convene(&["A1"]).await.expect("convened");
        assert_eq!(endpoints[0].summoned().await.auto_answer, by_itself, "{policy:?}");
        person.end(&meeting.id).await;
        assert_eq!(endpoints[0].withdrawn().await, "ended");
    }
}

#[tokio::test]
async fn the_chair_is_requested_given_and_released() {
    let fixture = small().await;
    let mut relay = FakeRelay::start(&fixture).await;
    let zhao = signed_in(&fixture, "zhao", Role::DutyOfficer, "A").await;
    let li = signed_in(&fixture, "li", Role::DutyOfficer, "A").await;
    let meeting = zhao.convene(&["A1"]).await.expect("convened");
    let id = meeting.id.as_str();
    assert_eq!(meeting.unit, "A");
    let lock = || Verb::Lock(pb::Lock { locked: true });
    let refused = li.act(id, lock()).await.expect_err("not the chair");
    assert_eq!(
        (refused.code(), code(&refused)),
        (Code::PermissionDenied, "not_the_chair")
    );

    let request = || Verb::RequestChair(pb::RequestChair { withdraw: false });
    li.act(id, request()).await.expect("requested");
    assert_eq!(zhao.meeting(id).await.chair_requests, ["li"]);
    let answer = |granted| {
        let account = "li".into();
        Verb::AnswerChairRequest(pb::AnswerChairRequest { account, granted })
    };
    zhao.act(id, answer(false)).await.expect("refused");
    assert!(zhao.meeting(id).await.chair_requests.is_empty());
    let nobody = zhao
        .act(id, answer(true))
        .await
        .expect_err("not requested any more");
    assert_eq!(code(&nobody), "not_requested");

    li.act(id, request()).await.expect("requested");
    zhao.act(id, answer(true)).await.expect("granted");
    let given = li.meeting(id).await;
    assert_eq!((given.chair.as_str(), given.convened_by.as_str()), ("li", "zhao"));
    relay.stage(|stage| stage.chair == "desk:li").await;
    li.act(id, lock()).await.expect("li runs it now");
    let refused = zhao.act(id, lock()).await.expect_err("and zhao no more");
    assert_eq!(code(&refused), "not_the_chair");
    li.act(id, Verb::ReleaseChair(pb::ReleaseChair {}))
        .await
        .expect("released");
    assert_eq!(zhao.meeting(id).await.chair, "zhao");
    let alone = zhao
        .act(id, Verb::ReleaseChair(pb::ReleaseChair {}))
        .await
        .expect_err("a meeting needs a chair");
    assert_eq!(code(&alone), "nobody_to_chair");
}

#[tokio::test]
async fn a_unit_above_takes_a_meeting_over_and_hands_it_back() {
    let fixture = small().await;
    let mut relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let wang = fixture.person().await;
    let zhao = signed_in(&fixture, "zhao", Role::DutyOfficer, "A").await;
    let beside = signed_in(&fixture, "sun", Role::DutyOfficer, "A").await;
    let meeting = zhao.convene(&["A1"]).await.expect("convened");
    let id = meeting.id.as_str();
    endpoints[0].summoned().await;
    relay.on_air(&wang, id, "A1").await;
    assert_eq!(endpoints[0].notice(|_| true).await.chair, "zhao");

    let take_over = || Verb::TakeOver(pb::TakeOver {});
    let refused = beside.act(id, take_over()).await.expect_err("beside, not above");
    assert_eq!(refused.code(), Code::PermissionDenied);
    wang.act(id, take_over()).await.expect("taken over");
    let taken = wang.meeting(id).await;
    assert_eq!(
        (taken.chair.as_str(), taken.taken_from.as_str()),
        ("wang", "zhao")
    );
    relay.stage(|stage| stage.chair == "desk:wang").await;
    endpoints[0].notice(|notice| notice.chair == "wang").await;
    let hand_back = || Verb::HandBack(pb::HandBack {});
    let refused = zhao.act(id, hand_back()).await.expect_err("not zhao's to give");
    assert_eq!(refused.code(), Code::PermissionDenied);
    wang.act(id, hand_back()).await.expect("handed back");
    let back = zhao.meeting(id).await;
    assert_eq!((back.chair.as_str(), back.taken_from.as_str()), ("zhao", ""));
    let again = wang.act(id, hand_back()).await.expect_err("once");
    assert!(
        ["not_taken_over", "not_the_chair"].contains(&code(&again)),
        "{again}"
    );
}
