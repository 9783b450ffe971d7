//! Browsers among themselves, and with agents.

use std::time::{Duration, Instant};

use muster_proto::media::v1::watch_leg_response::Event;
use muster_proto::media::v1::{SlotReason, SlotStatus, SlotWish, SourceKind};

use crate::support::agent::{Agent, LARGE, slot, wish};
use crate::support::browser::Browser;
use crate::support::{Bench, box_and_chair, stage, until, vp8};

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
    let (agent, browser) = box_and_chair(&bench).await;
    browser.sees(&format!("box/{LARGE}")).await;
    agent.sees(0, "desk:chair").await;
    bench.relay.shutdown().await;
}

/// A STAP-A of parameter sets and the start of an IDR picture (RFC 6184), with a mark.
fn h264_key_picture(mark: &str) -> Vec<u8> {
    let idr = [&[0x65, 0x88][..], mark.as_bytes()].concat();
    let mut payload = vec![0x78, 0, 4, 0x67, 0x42, 0xe0, 0x1f, 0, 2, 0x68, 0xce];
    payload.extend(u16::try_from(idr.len()).expect("short").to_be_bytes());
    payload.extend(idr);
    payload
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h264_reaches_who_can_decode_it_and_says_why_to_who_cannot() {
    let bench = Bench::start(2).await;
    let mut publisher = Agent::connect(&bench, 0, "h").await;
    publisher
        .join_with_h264(bench.token("m", "h"), h264_key_picture("h/264"))
        .await;
    let mut browser = Browser::join(&bench, "b", false, 1).await;
    browser.set_view(vec![wish("0", "h")]).await.expect("a good wish");
    browser.sees("h/264").await;
    let live = browser
        .slot_is("0", "is live", |s| s.status() == SlotStatus::Live)
        .await;
    assert_eq!(live.codec, "H264");
    // The viewer's own payload type, not the link's.
    let payload_type = browser.seen().payload_type;
    assert!(
        browser
            .answer
            .body
            .contains(&format!("a=rtpmap:{payload_type} H264/90000"))
    );
    assert_ne!(payload_type, muster_link::rtp::PT_H264);

    let only_vp8 = Agent::in_meeting(&bench, 1, "v", vec![slot("s", false)]).await;
    only_vp8.set_view(vec![wish("s", "h")]).await;
    let refused = until("the slot is refused", || {
        let state = only_vp8.seen().slots.get("s").cloned();
        state.filter(|s| s.status() == SlotStatus::Refused)
    })
    .await;
    assert_eq!(refused.reason(), SlotReason::CodecNotSupported);
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
        what: Some(What::Stage(StageRef::default())),
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
