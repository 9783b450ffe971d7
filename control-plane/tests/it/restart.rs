use crate::support::{
    ACCOUNT, Endpoint, FakeRelay, Fixture, Person, attached, channel, leg, small, start_in,
};
use muster_proto::command::v1 as pb;
use pb::{LegState, SummonsReason, SummonsState};

#[tokio::test]
async fn a_meeting_outlives_the_process_and_learns_what_it_missed() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1", "A2", "A3"]).await;
    let person = fixture.person().await;
    let link = endpoints[0].secret.clone();
    let meeting = person.convene(&["A1", "A2", "A3"]).await.expect("convened");
    for (endpoint, site) in endpoints.iter_mut().zip(["A1", "A2"]) {
        endpoint
            .report(&meeting.id, SummonsState::Answered)
            .await
            .expect("taken");
        relay.leg(&meeting.id, site, LegState::OnAir, "").await;
        person.until(&meeting.id, site, SummonsState::OnAir).await;
    }
    endpoints[2]
        .report(&meeting.id, SummonsState::Ringing)
        .await
        .expect("taken");
    let mute = pb::MuteSitesRequest {
        meeting: meeting.id.clone(),
        sites: vec!["A2".into()],
        muted: true,
    };
    person
        .meetings()
        .mute_sites(person.request(mute))
        .await
        .expect("muted");
    let before = person.meeting(&meeting.id).await;
    let credentials = relay.credentials.clone();
    drop((endpoints, relay));
    let Fixture { control_plane, dir } = fixture;
    // As if the process were killed: nothing is said, nothing is waited for.
    drop(control_plane);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;

    let control_plane = start_in(dir.path()).await;
    let person = Person {
        channel: channel(&control_plane).await,
        token: person.token,
    };
    let after = person.meeting(&meeting.id).await;
    assert_eq!(
        without_presence_changes(&after),
        without_presence_changes(&before),
        "the session holds too"
    );
    // While nobody was there, one site left and another came on air.
    let legs = vec![
        leg(&meeting.id, "A1", LegState::OnAir, ""),
        leg(&meeting.id, "A3", LegState::OnAir, ""),
        leg(&meeting.id, "desk:wang", LegState::OnAir, ""),
    ];
    let mut relay = FakeRelay::dial(&control_plane, credentials, legs).await;
    assert_eq!(
        relay.stage(|stage| stage.meeting == meeting.id).await.muted_sites,
        ["A2"]
    );
    person.until(&meeting.id, "A3", SummonsState::OnAir).await;
    let lost = person.until(&meeting.id, "A2", SummonsState::Unreachable).await;
    assert!(matches!(
        lost.reason(),
        SummonsReason::Offline | SummonsReason::LinkLost
    ));
    assert_eq!(
        person
            .until(&meeting.id, "A1", SummonsState::OnAir)
            .await
            .on_air_ms,
        before.summonses[0].on_air_ms
    );

    // The endpoint that answered is told of its meeting when it comes back: who that is outlives the process.
    let mut endpoint = Endpoint::attach(channel(&control_plane).await, &link)
        .await
        .expect("attached");
    assert_eq!(endpoint.summoned().await.meeting, meeting.id);
    control_plane.shutdown().await;
}

/// The endpoints went away before the process did, which it may or may not have seen.
fn without_presence_changes(meeting: &pb::Meeting) -> (String, Vec<String>, Vec<i64>) {
    let on_air = meeting
        .summonses
        .iter()
        .map(|summons| summons.on_air_ms)
        .collect();
    (
        meeting.title.clone(),
        meeting.stage.clone().unwrap_or_default().muted_sites,
        on_air,
    )
}

#[tokio::test]
async fn when_no_relay_comes_back_the_sites_are_lost_after_the_grace() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let person = fixture.person().await;
    let endpoints = attached(&fixture, &["A1"]).await;
    let meeting = person.convene(&["A1"]).await.expect("convened");
    relay.leg(&meeting.id, "A1", LegState::OnAir, "").await;
    person.until(&meeting.id, "A1", SummonsState::OnAir).await;
    drop((relay, endpoints));
    let Fixture { control_plane, dir } = fixture;
    control_plane.shutdown().await;
    let control_plane = start_in(dir.path()).await;
    let person = Person::sign_in(channel(&control_plane).await, ACCOUNT).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(
        person.meeting(&meeting.id).await.summonses[0].state(),
        SummonsState::OnAir,
        "still believed"
    );
    let lost = person.until(&meeting.id, "A1", SummonsState::Unreachable).await;
    assert_eq!(lost.reason(), SummonsReason::Offline);
}

#[tokio::test]
async fn while_the_store_is_away_commands_are_refused_and_facts_are_kept() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1"]).await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1"]).await.expect("convened");
    endpoints[0].summoned().await;
    endpoints[0]
        .report(&meeting.id, SummonsState::Answered)
        .await
        .expect("taken");

    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(fixture.dir.path().join("muster.sqlite"));
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("opened");
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.expect("locked");
    relay.leg(&meeting.id, "A1", LegState::OnAir, "").await;
    let before = person.meeting(&meeting.id).await;
    let mute = pb::MuteSitesRequest {
        meeting: meeting.id.clone(),
        sites: vec![],
        muted: true,
    };
    let refused = person
        .meetings()
        .mute_sites(person.request(mute.clone()))
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert_eq!(
        person.meeting(&meeting.id).await,
        before,
        "nothing is believed that is not stored"
    );

    lock.rollback().await.expect("released");
    person.until(&meeting.id, "A1", SummonsState::OnAir).await;
    person
        .meetings()
        .mute_sites(person.request(mute))
        .await
        .expect("muted");
    assert_eq!(
        person
            .meeting(&meeting.id)
            .await
            .stage
            .expect("stage")
            .muted_sites,
        ["A1"]
    );
}
