use crate::support::{ACCOUNT, EASTLAKE, Endpoint, FakeRelay, Fixture, PASSWORD, leg};
use muster_control_plane::{Bootstrap, Config, ControlPlane};
use muster_proto::command::v1 as pb;
use pb::{LegState, SummonsState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Prints how long 140 sites take; what is asserted is that all of them come, not how fast this machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_140_sites_come_on_air() {
    let dir = tempfile::tempdir().expect("folder");
    let unit = "WH".into();
    let (account, password) = (ACCOUNT.into(), PASSWORD.into());
    let bootstrap = Bootstrap {
        account,
        password,
        role: pb::Role::Commander,
        unit,
    };
    let config = Config {
        bootstrap: Some(bootstrap),
        ..Config::local(dir.path())
    };
    let control_plane = ControlPlane::start(config).await.expect("started");
    let fixture = Fixture { control_plane, dir };
    let person = fixture.person().await;
    person.import(EASTLAKE).await.expect("imported");
    let relay = Arc::new(FakeRelay::start_for(&fixture, "WH").await);
    let tree = person
        .directory()
        .list_sites(person.request(pb::ListSitesRequest {}))
        .await
        .expect("listed");
    let mut tasks = tokio::task::JoinSet::new();
    let (attached, mut all_attached) = tokio::sync::mpsc::channel::<()>(1);
    for site in tree.into_inner().sites {
        let secret = person.site_link(&site.id).await;
        let (channel, relay, attached) = (fixture.channel().await, relay.clone(), attached.clone());
        tasks.spawn(async move {
            let mut endpoint = Endpoint::attach(channel, &secret).await.expect("attached");
            drop(attached);
            let meeting = endpoint.summoned().await.meeting;
            endpoint
                .report(&meeting, SummonsState::Answered)
                .await
                .expect("answered");
            relay
                .legs(vec![leg(&meeting, &site.id, LegState::Joining, "")])
                .await;
            relay
                .legs(vec![leg(&meeting, &site.id, LegState::OnAir, "")])
                .await;
            endpoint
        });
    }
    drop(attached);
    assert!(
        all_attached.recv().await.is_none(),
        "nobody sends: it closes when all are attached"
    );

    let called = Instant::now();
    let selector = pb::Selector {
        subtrees: vec!["WH".into()],
        ..Default::default()
    };
    let message = pb::ConveneRequest {
        selector: Some(selector),
        title: "All".into(),
        idempotency_key: String::new(),
        ..Default::default()
    };
    let answer = person
        .meetings()
        .convene(person.request(message))
        .await
        .expect("convened")
        .into_inner();
    let answered = called.elapsed();
    let meeting = answer.meeting.expect("meeting");
    let mut endpoints = Vec::new();
    while let Some(endpoint) = tasks.join_next().await {
        endpoints.push(endpoint.expect("ran"));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let done = loop {
        let now = person.meeting(&meeting.id).await;
        if now
            .summonses
            .iter()
            .all(|summons| summons.state() == SummonsState::OnAir)
        {
            break now;
        }
        assert!(
            Instant::now() < deadline,
            "{:?}",
            now.summonses.iter().find(|s| s.on_air_ms == 0)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((endpoints.len(), done.summonses.len()), (140, 140));
    let mut took: Vec<i64> = done
        .summonses
        .iter()
        .map(|summons| summons.on_air_ms - done.started_ms)
        .collect();
    took.sort_unstable();
    println!(
        "convene answered in {answered:?}; on air p50 {} ms, p95 {} ms",
        took[70], took[133]
    );
}
