//! What happens between two steps: callers that go away, endpoints and relays that come at a bad moment.

use crate::support::{
    ACCOUNT, Endpoint, FakeRelay, Fixture, PASSWORD, Person, attached, channel, leg, sign_in, small, start_in,
};
use muster_proto::command::v1 as pb;
use pb::{LegState, SummonsState};
use std::time::Duration;

fn convene_with(person: &Person, key: &str) -> tonic::Request<pb::ConveneRequest> {
    let selector = pb::Selector {
        sites: vec!["A1".into()],
        ..Default::default()
    };
    person.request(pb::ConveneRequest {
        selector: Some(selector),
        title: "Flood".into(),
        idempotency_key: key.into(),
        ..Default::default()
    })
}

async fn end(person: &Person, meeting: &str) -> Result<(), tonic::Status> {
    let end = pb::EndMeetingRequest {
        meeting: meeting.into(),
    };
    person
        .meetings()
        .end_meeting(person.request(end))
        .await
        .map(|_| ())
}

async fn database(fixture: &Fixture) -> sqlx::SqlitePool {
    let path = fixture.dir.path().join("muster.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    sqlx::SqlitePool::connect_with(options).await.expect("opened")
}

#[tokio::test]
async fn a_convening_is_whole_although_its_caller_goes_away_at_any_moment() {
    let fixture = small().await;
    let person = fixture.person().await;
    for step in 0..60_u64 {
        let key = format!("key-{step}");
        let mut client = person.meetings();
        let asked = client.convene(convene_with(&person, &key));
        // The call is dropped somewhere between its arrival and its answer.
        let _ = tokio::time::timeout(Duration::from_micros(200 * step), asked).await;
        let again = person.meetings().convene(convene_with(&person, &key)).await;
        let meeting = again.unwrap_or_else(|status| panic!("after {step} steps: {status}"));
        let meeting = meeting.into_inner().meeting.expect("a meeting");
        assert_ne!(
            meeting.summonses[0].state(),
            SummonsState::Refused,
            "after {step} steps the site is in a meeting that is not there"
        );
        end(&person, &meeting.id).await.expect("ended");
    }
}

#[tokio::test]
async fn an_endpoint_that_attaches_while_a_meeting_is_being_stored_is_called() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let person = fixture.person().await;
    let link = person.site_link("A1").await;
    let pool = database(&fixture).await;
    let lock = pool.begin_with("BEGIN IMMEDIATE").await.expect("locked");
    let convening = tokio::spawn({
        let person = person.clone();
        async move { person.convene(&["A1"]).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut endpoint = Endpoint::attach(fixture.channel().await, &link)
        .await
        .expect("attached");
    lock.rollback().await.expect("released");
    let meeting = convening.await.expect("task").expect("convened");
    assert_eq!(endpoint.summoned().await.meeting, meeting.id);
}

#[tokio::test]
async fn after_a_restart_a_relay_says_nothing_of_the_legs_of_another() {
    let fixture = small().await;
    let first = FakeRelay::start(&fixture).await;
    let second = FakeRelay::start(&fixture).await;
    let endpoints = attached(&fixture, &["A1", "A2"]).await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1", "A2"]).await.expect("convened");
    first.leg(&meeting.id, "A1", LegState::OnAir, "").await;
    second.leg(&meeting.id, "A2", LegState::OnAir, "").await;
    for site in ["A1", "A2"] {
        person.until(&meeting.id, site, SummonsState::OnAir).await;
    }
    let credentials = first.credentials.clone();
    drop((first, second, endpoints));
    let Fixture { control_plane, dir } = fixture;
    control_plane.shutdown().await;

    let control_plane = start_in(dir.path()).await;
    let person = Person::sign_in(channel(&control_plane).await, ACCOUNT).await;
    let legs = vec![leg(&meeting.id, "A1", LegState::OnAir, "")];
    let _first = FakeRelay::dial(&control_plane, credentials, legs).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = |meeting: pb::Meeting, at: usize| meeting.summonses[at].state();
    assert_eq!(
        state(person.meeting(&meeting.id).await, 1),
        SummonsState::OnAir,
        "the second relay may be on its way"
    );
    // It never comes, and then what it had is lost; what the first has is not.
    person.until(&meeting.id, "A2", SummonsState::Unreachable).await;
    assert_eq!(state(person.meeting(&meeting.id).await, 0), SummonsState::OnAir);
}

#[tokio::test]
async fn a_meeting_that_has_ended_is_not_unknown() {
    let fixture = small().await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1"]).await.expect("convened");
    end(&person, &meeting.id).await.expect("ended");
    let again = end(&person, &meeting.id).await.expect_err("refused");
    assert_eq!(again.code(), tonic::Code::FailedPrecondition, "{again}");
    let unknown = end(&person, "m0").await.expect_err("refused");
    assert_eq!(unknown.code(), tonic::Code::NotFound, "{unknown}");
}

#[tokio::test]
async fn a_session_that_cannot_be_extended_still_reads() {
    let fixture = small().await;
    let token = sign_in(fixture.channel().await, ACCOUNT, PASSWORD)
        .await
        .expect("signed in")
        .session_token;
    let person = Person {
        channel: fixture.channel().await,
        token,
    };
    let pool = database(&fixture).await;
    // Old enough to be extended, and a disk on which nothing can be written any more.
    sqlx::query("UPDATE sessions SET expires_ms = expires_ms - 3600000")
        .execute(&pool)
        .await
        .expect("aged");
    sqlx::query("CREATE TRIGGER full BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .execute(&pool)
        .await
        .expect("trigger");
    let listed = person
        .directory()
        .list_sites(person.request(pb::ListSitesRequest {}))
        .await
        .expect("listed");
    assert_eq!(listed.into_inner().sites.len(), 5);
}
