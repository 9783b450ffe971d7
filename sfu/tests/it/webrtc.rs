//! Browsers among themselves, and with agents.

use std::time::{Duration, Instant};

use muster_proto::media::v1::watch_leg_response::Event;
use muster_proto::media::v1::{SlotStatus, SlotWish, SourceKind};

use crate::support::agent::{Agent, LARGE, slot, wish};
use crate::support::browser::Browser;
use crate::support::{Bench, stage, until, vp8};

async fn browser_sees_browser(workers: usize) {
    let bench = Bench::start(workers).await;
    let mut publisher = Browser::join(&bench, "a", true, 0).await;
    publisher.publish_camera();
    let mut viewer = Browser::join(&bench, "b", false, 2).await;
    viewer.set_view(vec![wish("0", "a")]).await.expect("a good wish");
    viewer.sees("a").await;
    let live = viewer
        .slot_is("0", "is live at its size", |s| {
            s.status() == SlotStatus::Live && s.width > 0 && s.bitrate_bps > 0
        })
        .await;
    let source = live.source.expect("a source");
    assert_eq!((source.site.as_str(), source.kind()), ("a", SourceKind::Camera));
    assert_eq!((live.width, live.height, live.codec.as_str()), (320, 180, "VP8"));
    viewer
        .slot_is("1", "is empty", |s| s.status() == SlotStatus::Empty)
        .await;

    {
        let seen = viewer.seen();
        assert!(vp8::is_key(&seen.payloads[0].1), "begins with a key frame");
        let mut seqs: Vec<u16> = seen.payloads.iter().map(|(seq, _)| *seq).collect();
        seqs.dedup();
        assert_eq!(seqs.len(), seen.payloads.len(), "no number comes twice");
    }
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_sees_another_on_the_same_worker() {
    browser_sees_browser(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_sees_another_on_another_worker() {
    browser_sees_browser(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_sees_an_agent_and_the_agent_the_browser() {
    let bench = Bench::start(1).await;
    let mut agent = Agent::in_meeting(&bench, 0, "box", vec![slot("v", false)]).await;
    agent.publish_camera();
    let mut browser = Browser::join(&bench, "desk:chair", true, 1).await;
    browser.publish_camera();
    browser
        .set_view(vec![wish("1", "box")])
        .await
        .expect("a good wish");
    agent.set_view(vec![wish("v", "desk:chair")]).await;
    browser.sees(&format!("box/{LARGE}")).await;
    agent.sees(0, "desk:chair").await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_slot_shows_the_chair_and_then_who_is_broadcast() {
    use muster_proto::media::v1::{StageRef, slot_wish::What};
    let bench = Bench::start(2).await;
    bench.relay.set_stage(stage("m", 1));
    let mut chair = Agent::in_meeting(&bench, 0, "other", Vec::new()).await;
    chair.publish_camera();
    let mut desk = Browser::join(&bench, "desk:chair", true, 0).await;
    desk.publish_camera();
    let mut viewer = Browser::join(&bench, "b", false, 1).await;
    let wish = SlotWish {
        slot: "0".into(),
        what: Some(What::Stage(StageRef {})),
        max_width: 0,
        max_height: 0,
    };
    viewer.set_view(vec![wish]).await.expect("a good wish");
    viewer.sees("desk:chair").await;
    let mut next = stage("m", 2);
    next.broadcast_site = "other".into();
    bench.relay.set_stage(next);
    viewer.sees(&format!("other/{LARGE}")).await;
    until("the notice names the site", || {
        let told = |event: &Event| matches!(event, Event::Notice(notice) if notice.broadcast_site == "other");
        viewer.seen().events.iter().any(told).then_some(())
    })
    .await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_that_cannot_be_says_why() {
    let bench = Bench::start(1).await;
    let mut viewer = Browser::join(&bench, "b", false, 1).await;
    let error = viewer
        .set_view(vec![wish("nine", "a")])
        .await
        .expect_err("no such slot");
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().contains("`nine`"), "{}", error.message());
    viewer
        .set_view(vec![wish("0", "nobody")])
        .await
        .expect("a source may come later");
    viewer
        .slot_is("0", "is absent", |s| s.status() == SlotStatus::Absent)
        .await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_says_goodbye_within_two_seconds() {
    let bench = Bench::start(2).await;
    let browser = Browser::join(&bench, "a", false, 1).await;
    let agent = Agent::in_meeting(&bench, 0, "box", Vec::new()).await;
    assert_eq!(bench.relay.leg_count(), 2);
    let start = Instant::now();
    bench.relay.shutdown().await;
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "took {:?}",
        start.elapsed()
    );
    until("the link is closed", || {
        agent
            .seen()
            .closed
            .clone()
            .filter(|why| why.contains("relay stopped"))
    })
    .await;
    until("the events end", || browser.seen().over.then_some(())).await;
}
