use crate::support::{FakeRelay, Person, attached, small};
use muster_identity::{Identity, Role, View};
use muster_proto::command::v1 as pb;
use pb::{LegState, SummonsReason, SummonsState};
use tonic::Code;

#[tokio::test]
async fn a_convened_site_comes_on_air_and_the_relay_obeys_the_stage() {
    let fixture = small().await;
    let mut relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;

    let meeting = person.convene(&["A1"]).await.expect("convened");
    assert_eq!(meeting.summonses[0].state(), SummonsState::Paged);
    let stage = relay.stage(|stage| stage.meeting == meeting.id).await;
    assert_eq!(stage.chair, "desk:wang");

    let call = endpoints[0].summoned().await;
    assert_eq!(
        (call.meeting.as_str(), call.title.as_str(), call.from.as_str()),
        (&*meeting.id, "Flood", "wang")
    );
    let ticket = call.ticket.expect("ticket");
    assert_eq!(
        (ticket.relay_url.as_str(), ticket.site.as_str()),
        ("http://127.0.0.1:9", "A1")
    );
    let now_s = muster_control_plane::clock::Clock::Wall.now_ms() / 1000;
    let claims = relay
        .verifier()
        .verify(&ticket.token, now_s)
        .expect("a token that the relay takes");
    assert_eq!(
        (claims.meeting.as_str(), claims.site.as_str(), claims.role),
        (&*meeting.id, "A1", Role::Site)
    );
    assert_eq!(
        claims.view,
        View::Stage,
        "a site sees what everyone is made to see"
    );
    assert_eq!(
        Identity::Relay(claims.relay.expect("one")),
        relay.credentials.identity
    );

    endpoints[0]
        .report(&meeting.id, SummonsState::Answered)
        .await
        .expect("taken");
    person.until(&meeting.id, "A1", SummonsState::Answered).await;
    relay.leg(&meeting.id, "A1", LegState::Joining, "").await;
    person.until(&meeting.id, "A1", SummonsState::Joining).await;
    relay.leg(&meeting.id, "A1", LegState::OnAir, "").await;
    let summons = person.until(&meeting.id, "A1", SummonsState::OnAir).await;
    assert!(summons.paged_ms <= summons.on_air_ms && summons.on_air_ms > 0);

    let id = meeting.id.clone();
    let mute = pb::MuteSitesRequest {
        meeting: id.clone(),
        sites: vec!["A1".into()],
        muted: true,
    };
    person
        .meetings()
        .mute_sites(person.request(mute))
        .await
        .expect("muted");
    assert_eq!(
        relay
            .stage(|stage| !stage.muted_sites.is_empty())
            .await
            .muted_sites,
        ["A1"]
    );
    let broadcast = pb::BroadcastSiteRequest {
        meeting: id.clone(),
        site: "A1".into(),
    };
    person
        .meetings()
        .broadcast_site(person.request(broadcast))
        .await
        .expect("broadcast");
    assert_eq!(
        relay
            .stage(|stage| !stage.broadcast_site.is_empty())
            .await
            .broadcast_site,
        "A1"
    );

    person
        .meetings()
        .end_meeting(person.request(pb::EndMeetingRequest { meeting: id.clone() }))
        .await
        .expect("ended");
    assert!(relay.stage(|stage| stage.ended).await.version > stage.version);
    assert_eq!(endpoints[0].withdrawn().await, "ended");
    let ended = person.meeting(&id).await;
    assert!(ended.ended_ms >= ended.started_ms);
    assert_eq!(ended.summonses[0].state(), SummonsState::Left);
    let late = endpoints[0].ticket(&id).await.expect_err("over");
    assert_eq!(late.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_site_that_cannot_be_reached_says_why_and_is_called_again() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let person = fixture.person().await;
    let seen = attached(&fixture, &["A2"]).await;
    drop(seen);
    let mut summons = pb::Summons::default();
    for _ in 0..100 {
        let selector = pb::Selector {
            sites: vec!["A2".into()],
            ..Default::default()
        };
        let message = pb::PreviewConveneRequest {
            selector: Some(selector),
            ..Default::default()
        };
        let preview = person
            .meetings()
            .preview_convene(person.request(message))
            .await
            .expect("preview")
            .into_inner();
        if let Some(doubtful) = preview.doubtful.into_iter().next() {
            summons = doubtful;
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(summons.reason(), SummonsReason::Offline);

    let meeting = person.convene(&["A1", "A2"]).await.expect("convened");
    let reasons: Vec<_> = meeting
        .summonses
        .iter()
        .map(|s| (s.state(), s.reason()))
        .collect();
    assert_eq!(
        reasons,
        [
            (SummonsState::Unreachable, SummonsReason::NeverSeen),
            (SummonsState::Unreachable, SummonsReason::Offline)
        ]
    );
    assert!(meeting.summonses[1].reason_since_ms > 0, "offline since");

    // One attaches by itself and is called; the other is called again by a person and still is not there.
    let mut endpoints = attached(&fixture, &["A1"]).await;
    endpoints[0].summoned().await;
    endpoints[0]
        .report(&meeting.id, SummonsState::Declined)
        .await
        .expect("declined");
    person.until(&meeting.id, "A1", SummonsState::Declined).await;
    let again = pb::CallUnconnectedRequest {
        meeting: meeting.id.clone(),
        sites: vec![],
    };
    let called = person
        .meetings()
        .call_unconnected(person.request(again))
        .await
        .expect("called")
        .into_inner();
    assert_eq!(called.called, 1);
    endpoints[0].summoned().await;
    relay.leg(&meeting.id, "A1", LegState::OnAir, "").await;
    person.until(&meeting.id, "A1", SummonsState::OnAir).await;
}

#[tokio::test]
async fn without_a_relay_the_reason_says_so_and_the_call_follows_when_one_comes() {
    let fixture = small().await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1"]).await.expect("convened");
    assert_eq!(meeting.summonses[0].reason(), SummonsReason::NoRelay);
    let _relay = FakeRelay::start(&fixture).await;
    assert!(endpoints[0].summoned().await.ticket.is_some());
}

#[tokio::test]
async fn of_two_endpoints_of_a_site_the_first_to_answer_takes_the_call() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1", "A1"]).await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1"]).await.expect("convened");
    let (first, second) = (endpoints[0].summoned().await, endpoints[1].summoned().await);
    assert_ne!(
        first.ticket.expect("ticket").token,
        second.ticket.expect("ticket").token,
        "a token for each"
    );
    endpoints[1]
        .report(&meeting.id, SummonsState::Answered)
        .await
        .expect("taken");
    assert_eq!(endpoints[0].withdrawn().await, "taken by another endpoint");
    let late = endpoints[0]
        .report(&meeting.id, SummonsState::Answered)
        .await
        .expect_err("too late");
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert_eq!(
        endpoints[0]
            .ticket(&meeting.id)
            .await
            .expect_err("too late")
            .code(),
        Code::FailedPrecondition
    );
    endpoints[1].ticket(&meeting.id).await.expect("its own");
}

#[tokio::test]
async fn no_site_is_in_two_meetings() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let first = person.convene(&["A1"]).await.expect("convened");
    endpoints[0].summoned().await;
    let second = person.convene(&["A1", "B1"]).await.expect("convened");
    let summons = second.summonses.iter().find(|s| s.site == "A1").expect("site");
    assert_eq!(
        (summons.state(), summons.reason()),
        (SummonsState::Refused, SummonsReason::InOtherMeeting)
    );
    assert_eq!(summons.detail, first.id);
    assert_eq!(
        endpoints[0]
            .ticket(&second.id)
            .await
            .expect_err("elsewhere")
            .code(),
        Code::FailedPrecondition
    );
    let end = pb::EndMeetingRequest { meeting: first.id };
    person
        .meetings()
        .end_meeting(person.request(end))
        .await
        .expect("ended");
    assert_eq!(endpoints[0].withdrawn().await, "ended");
    let again = pb::CallUnconnectedRequest {
        meeting: second.id.clone(),
        sites: vec!["A1".into()],
    };
    let called = person
        .meetings()
        .call_unconnected(person.request(again))
        .await
        .expect("called")
        .into_inner();
    assert_eq!(called.called, 1, "the claim was given back");
    assert_eq!(endpoints[0].summoned().await.meeting, second.id);
}

#[tokio::test]
async fn a_lost_leg_and_a_lost_endpoint_are_told_apart() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1", "A2"]).await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1", "A2"]).await.expect("convened");
    for (endpoint, site) in endpoints.iter_mut().zip(["A1", "A2"]) {
        endpoint.summoned().await;
        endpoint
            .report(&meeting.id, SummonsState::Answered)
            .await
            .expect("taken");
        relay.leg(&meeting.id, site, LegState::OnAir, "").await;
        person.until(&meeting.id, site, SummonsState::OnAir).await;
    }
    relay.leg(&meeting.id, "A1", LegState::Silent, "").await;
    relay.leg(&meeting.id, "A1", LegState::Left, "timed out").await;
    let lost = person.until(&meeting.id, "A1", SummonsState::Unreachable).await;
    assert_eq!(lost.reason(), SummonsReason::LinkLost);
    endpoints[0].ticket(&meeting.id).await.expect("it may come back");

    drop(endpoints.remove(1));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    relay.leg(&meeting.id, "A2", LegState::Left, "timed out").await;
    let lost = person.until(&meeting.id, "A2", SummonsState::Unreachable).await;
    assert_eq!(lost.reason(), SummonsReason::Offline);

    relay.leg(&meeting.id, "A1", LegState::OnAir, "").await;
    relay.leg(&meeting.id, "A1", LegState::Left, "hung up").await;
    let left = person.until(&meeting.id, "A1", SummonsState::Left).await;
    assert_eq!(left.reason(), SummonsReason::HungUp);
}

#[tokio::test]
async fn the_same_key_gives_the_same_meeting_and_the_desk_gets_a_ticket() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let person = fixture.person().await;
    let ids: Vec<_> = [convene_with_key(&person).await, convene_with_key(&person).await].into();
    assert_eq!(ids[0], ids[1]);
    let message = pb::JoinAsDeskRequest {
        meeting: ids[0].clone(),
        ..Default::default()
    };
    let ticket = person
        .meetings()
        .join_as_desk(person.request(message))
        .await
        .expect("joined")
        .into_inner()
        .ticket;
    let ticket = ticket.expect("ticket");
    assert_eq!(ticket.site, "desk:wang");
    let claims = relay
        .verifier()
        .verify(
            &ticket.token,
            muster_control_plane::clock::Clock::Wall.now_ms() / 1000,
        )
        .expect("token");
    assert_eq!(claims.role, Role::Chair);
}

async fn convene_with_key(person: &Person) -> String {
    let selector = pb::Selector {
        subtrees: vec!["A".into()],
        ..Default::default()
    };
    let message = pb::ConveneRequest {
        selector: Some(selector),
        title: "Flood".into(),
        idempotency_key: "key-1".into(),
        ..Default::default()
    };
    let answer = person
        .meetings()
        .convene(person.request(message))
        .await
        .expect("convened")
        .into_inner();
    let meeting = answer.meeting.expect("meeting");
    assert_eq!(meeting.summonses.len(), 3);
    meeting.id
}
