//! Permissions on the watch stream: what one may do is told, and told anew whenever it changes.

use crate::admin::{grant, now_ms, put, someone};
use crate::support::{FakeRelay, PASSWORD, Person, small};
use muster_proto::command::v1 as pb;
use pb::watch_response::Event;
use std::time::Duration;
use tonic::{Code, Streaming};

/// The next message of the kind that is looked for; others are passed over.
async fn next<T>(stream: &mut Streaming<pb::WatchResponse>, wanted: impl Fn(&Event) -> Option<T>) -> T {
    let found = async {
        loop {
            let message = stream.message().await.expect("stream").expect("not over");
            if let Some(found) = message.event.as_ref().and_then(&wanted) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .expect("within 10 s")
}

async fn permissions(stream: &mut Streaming<pb::WatchResponse>, meeting: &str) -> Vec<String> {
    next(stream, |event| match event {
        Event::Permissions(told) if told.meeting == meeting => Some(told.actions.clone()),
        _ => None,
    })
    .await
}

fn has(actions: &[String], action: &str) -> bool {
    actions.iter().any(|found| found == action)
}

#[tokio::test]
async fn permissions_come_after_the_snapshot_and_with_each_meeting() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let officer = someone(&fixture, "officer", pb::Role::DutyOfficer, "A").await;
    let mut stream = officer.watch(Vec::new()).await;
    let first = stream.message().await.expect("stream").expect("not over").event;
    assert!(matches!(first, Some(Event::Snapshot(_))), "{first:?}");
    let at_all = permissions(&mut stream, "").await;
    assert!(has(&at_all, "convene") && has(&at_all, "schedule"), "{at_all:?}");
    assert!(
        !has(&at_all, "import_sites") && !has(&at_all, "manage_accounts"),
        "{at_all:?}"
    );

    let own = officer.convene(&["A1"]).await.expect("convened");
    let in_own = permissions(&mut stream, &own.id).await;
    assert!(
        has(&in_own, "end_meeting") && has(&in_own, "release_chair"),
        "{in_own:?}"
    );
    assert!(
        !has(&in_own, "take_over") && !has(&in_own, "convene"),
        "{in_own:?}"
    );

    let mut above = chief.watch(Vec::new()).await;
    let of_chief = permissions(&mut above, &own.id).await;
    assert!(
        has(&of_chief, "take_over") && has(&of_chief, "end_meeting"),
        "{of_chief:?}"
    );
    let end = pb::EndMeetingRequest {
        meeting: own.id.clone(),
    };
    officer
        .meetings()
        .end_meeting(officer.request(end))
        .await
        .expect("ended");
    assert!(
        permissions(&mut stream, &own.id).await.is_empty(),
        "nothing is left to do"
    );
    assert!(permissions(&mut above, &own.id).await.is_empty());
}

#[tokio::test]
async fn a_delegation_that_runs_out_counts_for_nothing_at_once_also_on_an_open_watch() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    put(&chief, "li", PASSWORD).await.expect("made");
    grant(&chief, "li", pb::Role::Auditor, "B", 0)
        .await
        .expect("given");
    let li = Person::sign_in(fixture.channel().await, "li").await;
    let mut stream = li.watch(Vec::new()).await;
    assert_eq!(permissions(&mut stream, "").await, ["view", "read_log"]);

    let end = now_ms() + 2_500;
    grant(&chief, "li", pb::Role::DutyOfficer, "A", end)
        .await
        .expect("given");
    let more = permissions(&mut stream, "").await;
    assert!(has(&more, "convene"), "told at once: {more:?}");
    let meeting = li.convene(&["A1"]).await.expect("may now");
    assert!(has(&permissions(&mut stream, &meeting.id).await, "end_meeting"));

    let less = permissions(&mut stream, "").await;
    assert!(now_ms() >= end, "not before its time");
    assert_eq!(less, ["view", "read_log"]);
    assert!(permissions(&mut stream, &meeting.id).await.is_empty());
    let end_it = pb::EndMeetingRequest {
        meeting: meeting.id.clone(),
    };
    let refused = li
        .meetings()
        .end_meeting(li.request(end_it.clone()))
        .await
        .expect_err("over");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        li.convene(&["A2"]).await.expect_err("over").code(),
        Code::PermissionDenied
    );
    // What happens in the meeting is not told any more, what happens in their own unit is.
    chief
        .meetings()
        .end_meeting(chief.request(end_it))
        .await
        .expect("ended");
    let other = chief.convene(&["B1"]).await.expect("convened");
    let seen = grant(&chief, "li", pb::Role::Engineer, "D", 0)
        .await
        .expect("given");
    assert_eq!(seen.grants.len(), 3);
    let told = next(&mut stream, |event| match event {
        Event::MeetingEvent(event) => Some(event.clone()),
        _ => None,
    })
    .await;
    assert_eq!(
        (told.meeting.as_str(), told.seq),
        (other.id.as_str(), 1),
        "from its beginning"
    );
}
