//! What is administered, with three processes on one PostgreSQL and one NATS: grants, plans, drills and schedules reach
//! all replicas, and each time of a schedule happens once.

use crate::admin::{grant, now_ms, put};
use crate::plan::{drill_ended, list, of_street_a, result, save, save_schedule, start_drill};
use crate::replicas::{Cluster, PATIENCE};
use crate::support::{Endpoint, PASSWORD, Person};
use muster_proto::command::v1 as pb;
use pb::attach_response::Event as Pushed;
use pb::watch_response::Event;
use std::time::Duration;
use tonic::Streaming;

async fn next<T>(stream: &mut Streaming<pb::WatchResponse>, wanted: impl Fn(&Event) -> Option<T>) -> T {
    let found = async {
        loop {
            let message = stream.message().await.expect("stream").expect("not over");
            if let Some(found) = message.event.as_ref().and_then(&wanted) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("told in time")
}

async fn permitted(stream: &mut Streaming<pb::WatchResponse>) -> Vec<String> {
    next(stream, |event| match event {
        Event::Permissions(told) if told.meeting.is_empty() => Some(told.actions.clone()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn what_is_administered_at_one_replica_holds_at_all() {
    let cluster = Cluster::start().await;
    let chief = cluster.person(0).await;
    put(&chief, "li", PASSWORD).await.expect("made");
    let li = Person::sign_in(cluster.channel(2).await, "li").await;
    let mut watch = li.watch(Vec::new()).await;
    assert!(permitted(&mut watch).await.is_empty());
    grant(&chief, "li", pb::Role::Engineer, "D", 0)
        .await
        .expect("given");
    let more = permitted(&mut watch).await;
    assert!(more.iter().any(|action| action == "drill"), "{more:?}");

    // Its endpoint is attached to a replica that knows nothing of the drill but what the others say.
    let secret = chief.site_link("A1").await;
    let mut endpoint = Endpoint::attach(cluster.channel(1).await, &secret)
        .await
        .expect("attached");
    let reached = async {
        loop {
            let listed = li
                .directory()
                .list_sites(li.request(pb::ListSitesRequest {}))
                .await;
            let presence = listed.expect("listed").into_inner().presence;
            if presence
                .iter()
                .any(|presence| presence.site == "A1" && presence.online)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("known at the other replica");
    let drill = start_drill(&li, &["A1", "A2"]).await.expect("started");
    let Pushed::Drill(call) = endpoint.next().await else {
        panic!("expected a drill")
    };
    assert_eq!(call.drill, drill.id);
    let found = pb::DrillResult {
        camera: pb::Check::Ok.into(),
        rtt_ms: 12,
        ..Default::default()
    };
    endpoint.report_drill(&call.drill, found).await.expect("taken");
    let ended = drill_ended(&chief, &drill.id).await;
    assert_eq!((ended.ready, ended.results.len()), (1, 2));
    assert_eq!(result(&ended, "A1").rtt_ms, 12);
    assert!(ended.ended_ms - ended.started_ms < 9_000, "nobody was waited for");
    next(&mut watch, |event| matches!(event, Event::Plans(_)).then_some(())).await;
}

#[tokio::test]
async fn a_scheduled_meeting_happens_once_and_also_where_its_replica_died() {
    let mut cluster = Cluster::start().await;
    let chief = cluster.person(1).await;
    let preset = save(&chief, of_street_a()).await.expect("saved");
    let due = now_ms() + 2_000;
    let schedule = pb::Schedule {
        unit: "A".into(),
        preset: preset.id,
        next_ms: due,
        repeat: pb::Repeat::Daily.into(),
        ..Default::default()
    };
    let saved = save_schedule(&chief, schedule).await.expect("saved");
    cluster.kill(1);
    let other = cluster.person(2).await;
    let carried_out = async {
        loop {
            let schedules = list(&other).await.schedules;
            let found = schedules
                .into_iter()
                .find(|schedule| schedule.id == saved.id)
                .expect("it");
            if found.last_ms == due {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, carried_out)
        .await
        .expect("carried out");
    assert_eq!(
        (done.last_refusal.as_str(), done.next_ms),
        ("", due + 24 * 3_600_000)
    );
    for n in [0, 2] {
        let person = cluster.person(n).await;
        let message = pb::ListMeetingsRequest { include_ended: true };
        let listed = person.meetings().list_meetings(person.request(message)).await;
        let meetings = listed.expect("listed").into_inner().meetings;
        let ids: Vec<_> = meetings.iter().map(|meeting| meeting.id.as_str()).collect();
        assert_eq!(ids, [done.last_meeting.as_str()], "once, at replica {n}");
    }
}
