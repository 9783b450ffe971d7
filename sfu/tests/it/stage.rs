//! The relay obeys the stage document.

use std::time::{Duration, Instant};

use muster_proto::command::v1::StageDocument;
use muster_proto::media::v1::{SlotWish, StageRef, slot_wish};

use crate::support::agent::{Agent, LARGE, slot, wish};
use crate::support::browser::Browser;
use crate::support::{Bench, http, stage, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_meeting_ends_all_are_told_and_closed() {
    let bench = Bench::start(2).await;
    let browser = Browser::join(&bench, "a", false, 1).await;
    let agent = Agent::in_meeting(&bench, 0, "box", Vec::new()).await;
    let mut ended = stage("m", 1);
    ended.ended = true;
    let start = Instant::now();
    bench.relay.set_stage(ended);
    until("the agent is told", || agent.seen().notice.ended.then_some(())).await;
    until("both have left", || (bench.relay.leg_count() == 0).then_some(())).await;
    assert!(
        start.elapsed() >= Duration::from_millis(400),
        "the notice has time to be read"
    );
    until("the browser's events end", || browser.seen().over.then_some(())).await;
    assert_eq!(agent.seen().closed, None, "the link stays for the next meeting");
    let late = http::post_offer(bench.relay.http_addr(), &bench.token("m", "c"), &browser.offer).await;
    assert_eq!((late.status, late.code().as_str()), (410, "ended"));
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expelled_site_goes_and_the_others_stay() {
    let bench = Bench::start(2).await;
    let out = Agent::in_meeting(&bench, 0, "out", Vec::new()).await;
    let stays = Agent::in_meeting(&bench, 1, "stays", Vec::new()).await;
    let mut document = stage("m", 3);
    document.expelled_sites = vec!["out".into()];
    bench.relay.set_stage(document);
    until("it is told", || {
        out.seen().closed.clone().filter(|why| why.contains("expelled"))
    })
    .await;
    until("it has left", || (bench.relay.leg_count() == 1).then_some(())).await;
    assert_eq!(stays.seen().closed, None);
    // An older document changes nothing.
    bench.relay.set_stage(stage("m", 2));
    let again = Agent::connect(&bench, 0, "out").await;
    again.join(bench.token("m", "out"), Vec::new()).await;
    assert_eq!(
        until("refused", || again.seen().refused.clone()).await,
        "expelled"
    );
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_that_is_placed_elsewhere_is_given_up_and_may_come_back() {
    let bench = Bench::start(2).await;
    let browser = Browser::join(&bench, "a", false, 1).await;
    let agent = Agent::in_meeting(&bench, 0, "box", Vec::new()).await;
    let placed = |version, epoch, relay: &str| StageDocument {
        epoch,
        relay: relay.into(),
        ..stage("m", version)
    };
    bench.relay.set_stage(placed(5, 2, "r1"));
    bench.relay.set_stage(placed(9, 1, "r2"));
    bench.relay.set_stage(placed(6, 3, "r2"));
    until("the agent is told", || agent.seen().notice.moved.then_some(())).await;
    until("it is put out", || {
        agent.seen().closed.clone().filter(|why| why.contains("moved"))
    })
    .await;
    until("the browser's events end", || browser.seen().over.then_some(())).await;
    until("both have left", || (bench.relay.leg_count() == 0).then_some(())).await;
    let late = http::post_offer(bench.relay.http_addr(), &bench.token("m", "c"), &browser.offer).await;
    assert_eq!((late.status, late.code().as_str()), (409, "moved"));
    bench.relay.set_stage(placed(7, 4, "r1"));
    let again = Agent::in_meeting(&bench, 1, "box", Vec::new()).await;
    assert!(!again.seen().notice.moved);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(again.seen().closed, None, "the order to go was of before");
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stage_follows_the_voice_and_who_comes_to_another_worker_sees_the_same() {
    let bench = Bench::start(2).await;
    let mut speaker = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    speaker.publish_camera();
    speaker.publish_sound(20);
    let large = SlotWish {
        what: Some(slot_wish::What::Stage(StageRef::default())),
        ..wish("v", "")
    };
    let viewer = Agent::in_meeting(&bench, 0, "v", vec![slot("v", false)]).await;
    viewer.set_view(vec![large.clone()]).await;
    bench.relay.set_stage(StageDocument {
        voice_switching: true,
        ..stage("m", 1)
    });
    viewer.sees(0, &format!("a/{LARGE}")).await;
    assert!(viewer.seen().notice.voice_switching);
    speaker.stop_publishing();
    speaker.publish_camera();
    let late = Agent::in_meeting(&bench, 1, "late", vec![slot("v", false)]).await;
    late.set_view(vec![large]).await;
    late.sees(0, &format!("a/{LARGE}")).await;
    bench.relay.shutdown().await;
}
