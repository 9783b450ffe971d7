//! What was altered under the running server, or while it was down, is found, named and kept apart.

use crate::log::verify;
use crate::support::{ACCOUNT, FakeRelay, Fixture, Person, attached, channel, small, start_in};
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::path::Path;
use tonic::Code;

async fn statement(dir: &Path, sql: &'static str, stream: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(dir.join("muster.sqlite"))
        .foreign_keys(false);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("opened");
    let changed = sqlx::query(sql)
        .bind(stream)
        .execute(&pool)
        .await
        .expect("changed");
    assert!(changed.rows_affected() > 0, "{sql}");
    pool.close().await;
}

async fn ended(person: &Person, sites: &[&str]) -> pb::Meeting {
    let meeting = person.convene(sites).await.expect("convened");
    end(person, &meeting.id).await;
    meeting
}

async fn end(person: &Person, meeting: &str) {
    let end = pb::EndMeetingRequest {
        meeting: meeting.to_owned(),
    };
    person
        .meetings()
        .end_meeting(person.request(end))
        .await
        .expect("ended");
}

/// What is told to be broken, in a look at everything.
async fn broken(person: &Person) -> Vec<(String, u64, String)> {
    let lines = verify(person, "").await.expect("verified");
    let broken = lines.into_iter().filter(|line| line.broken_at > 0);
    broken
        .map(|line| (line.stream, line.broken_at, line.found))
        .collect()
}

async fn one_broken(fixture: &Fixture, person: &Person, sql: &'static str, stream: &str) -> (u64, String) {
    statement(fixture.dir.path(), sql, stream).await;
    let mut all = broken(person).await;
    all.retain(|line| line.0 == stream);
    assert_eq!(all.len(), 1, "{sql}: {all:?}");
    let (_, at, found) = all.remove(0);
    let named = verify(person, stream).await.expect("verified").remove(0);
    assert_eq!(
        (named.broken_at, &named.found),
        (at, &found),
        "the same when it is named"
    );
    (at, found)
}

#[tokio::test]
async fn whatever_is_altered_of_an_ended_meeting_is_told_with_its_event() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let forged = |title: &str, of: &pb::Meeting| {
        let state = pb::Meeting {
            title: title.to_owned(),
            ..of.clone()
        };
        state.encode_to_vec()
    };
    let cases: [(&'static str, u64, &str); 9] = [
        (
            "UPDATE events SET payload = x'00' WHERE stream = $1 AND seq = 2",
            2,
            "hash",
        ),
        (
            "UPDATE events SET hash = x'00' WHERE stream = $1 AND seq = 2",
            2,
            "32 bytes",
        ),
        (
            "UPDATE events SET payload = 7 WHERE stream = $1 AND seq = 2",
            2,
            "",
        ),
        (
            "UPDATE meetings SET final_state = x'ff' WHERE id = $1",
            0,
            "final state of the meeting cannot be read",
        ),
        (
            "UPDATE meetings SET final_state = NULL WHERE id = $1",
            0,
            "final state of the meeting is gone",
        ),
        (
            "UPDATE meetings SET ended_ms = NULL, final_state = NULL WHERE id = $1",
            0,
            "the end in the row",
        ),
        ("DELETE FROM events WHERE stream = $1", 1, "it is not there"),
        ("DELETE FROM heads WHERE stream = $1", 1, "head that was noted"),
        (
            "DELETE FROM meetings WHERE id = $1",
            0,
            "row of the meeting is gone",
        ),
    ];
    for (sql, at, text) in cases {
        let meeting = ended(&chief, &["A1"]).await;
        let (broken_at, found) = one_broken(&fixture, &chief, sql, &meeting.id).await;
        assert!(found.contains(text), "{sql}: {found}");
        assert!(at == 0 || broken_at == at, "{sql}: {broken_at}");
    }
    // Both at once: the event and the state that says whose it is.
    let meeting = ended(&chief, &["A1"]).await;
    statement(
        fixture.dir.path(),
        "UPDATE meetings SET final_state = x'ff' WHERE id = $1",
        &meeting.id,
    )
    .await;
    let sql = "UPDATE events SET payload = x'00' WHERE stream = $1 AND seq = 2";
    assert_eq!(one_broken(&fixture, &chief, sql, &meeting.id).await.0, 2);

    let meeting = ended(&chief, &["A1"]).await;
    let state = forged("STREET", &chief.meeting(&meeting.id).await);
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(fixture.dir.path().join("muster.sqlite"));
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("opened");
    sqlx::query("UPDATE meetings SET final_state = $2 WHERE id = $1")
        .bind(&meeting.id)
        .bind(state)
        .execute(&pool)
        .await
        .expect("forged");
    pool.close().await;
    let named = verify(&chief, &meeting.id).await.expect("verified").remove(0);
    assert!(named.broken_at > 0 && named.found.contains("title"), "{named:?}");
}

#[tokio::test]
async fn what_is_cut_off_a_unit_or_a_live_meeting_is_missed() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let _endpoints = attached(&fixture, &["A1"]).await;
    let meeting = chief.convene(&["A1"]).await.expect("convened");
    assert_eq!(broken(&chief).await, []);
    let last =
        "DELETE FROM events WHERE stream = $1 AND seq = (SELECT MAX(seq) FROM events WHERE stream = $1)";
    for stream in [meeting.id.as_str(), "unit:A"] {
        let (_, found) = one_broken(&fixture, &chief, last, stream).await;
        // What was attached may be written down after, behind the gap.
        assert!(
            found.contains("it is not there") || found.contains("has number"),
            "{found}"
        );
    }
    let (at, _) = one_broken(&fixture, &chief, "DELETE FROM events WHERE stream = $1", "unit:A").await;
    assert_eq!(at, 1);
    // Both of them go on, and what is gone stays missed.
    end(&chief, &meeting.id).await;
    let streams: Vec<_> = broken(&chief).await.into_iter().map(|line| line.0).collect();
    assert_eq!(streams, [meeting.id.as_str(), "unit:A"]);
    let unknown = verify(&chief, "unit:NOPE").await.expect_err("no such stream");
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn a_damaged_meeting_stays_out_while_all_others_go_on() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let _endpoints = attached(&fixture, &["A1", "A2"]).await;
    let damaged = chief.convene(&["A1"]).await.expect("convened");
    let whole = chief.convene(&["A2"]).await.expect("convened");
    let over = ended(&chief, &["B1"]).await;
    let Fixture { control_plane, dir } = fixture;
    control_plane.shutdown().await;
    let sql = "UPDATE events SET payload = payload || x'00' WHERE stream = $1 AND seq = 2";
    statement(dir.path(), sql, &damaged.id).await;
    statement(
        dir.path(),
        "UPDATE meetings SET final_state = x'ff' WHERE id = $1",
        &over.id,
    )
    .await;

    let control_plane = start_in(dir.path()).await;
    let chief = Person::sign_in(channel(&control_plane).await, ACCOUNT).await;
    let list = async |include_ended| {
        let message = pb::ListMeetingsRequest { include_ended };
        let answer = chief.meetings().list_meetings(chief.request(message)).await;
        answer.expect("listed").into_inner()
    };
    let live = list(false).await;
    let names: Vec<_> = live.meetings.iter().map(|m| m.id.as_str()).collect();
    assert_eq!(names, [whole.id.as_str()], "the others go on");
    let told = &live.damaged[0];
    assert_eq!(
        (told.id.as_str(), told.unit.as_str()),
        (damaged.id.as_str(), damaged.unit.as_str())
    );
    assert!(told.reason.contains("event 2"), "{told:?}");
    let all = list(true).await;
    assert_eq!(all.damaged.len(), 2, "one that has ended is skipped with a note");
    // Its sites are free, and itself it is led by nobody.
    let mute = pb::MuteSitesRequest {
        meeting: damaged.id.clone(),
        sites: vec![],
        muted: true,
    };
    let refused = chief
        .meetings()
        .mute_sites(chief.request(mute))
        .await
        .expect_err("out of service");
    assert!(refused.message().contains("out of service"), "{refused}");
    let next = chief.convene(&["A1"]).await.expect("its site is free");
    assert_ne!(next.summonses[0].reason(), pb::SummonsReason::InOtherMeeting);
    let streams: Vec<_> = broken(&chief).await.into_iter().map(|line| line.0).collect();
    assert_eq!(streams, [damaged.id.as_str(), over.id.as_str()]);
    control_plane.shutdown().await;
}
