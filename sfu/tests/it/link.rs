//! Links: forwarding, layers that nobody watches, rejoining, refusals.

use muster_proto::media::v1::{LinkLeave, LinkPing, SlotStatus, link_up};

use crate::support::agent::{AUDIO, Agent, LARGE, SMALL, slot, wish};
use crate::support::{Bench, until, vp8};

async fn agents_see_each_other(workers: usize) {
    let bench = Bench::start(workers).await;
    let mut a = Agent::in_meeting(&bench, 0, "a", vec![slot("v", false)]).await;
    let mut b = Agent::in_meeting(&bench, workers - 1, "b", vec![slot("v", false)]).await;
    a.publish_camera();
    b.publish_camera();
    a.set_view(vec![wish("v", "b")]).await;
    b.set_view(vec![wish("v", "a")]).await;
    a.sees(0, &format!("b/{LARGE}")).await;
    b.sees(0, &format!("a/{LARGE}")).await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_see_each_other_on_one_worker() {
    agents_see_each_other(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_see_each_other_across_workers() {
    agents_see_each_other(2).await;
}

async fn unwatched_layers_pause(workers: usize) {
    let bench = Bench::start(workers).await;
    let mut agent = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    agent.publish_camera();
    let paused = |small: bool, large: bool| {
        let seen = agent.seen();
        let is = |flow| seen.paused.get(&flow) == Some(&true);
        ((is(SMALL), is(LARGE)) == (small, large)).then_some(())
    };
    until("nobody watches: both pause, once live", || paused(true, true)).await;

    let viewer = Agent::in_meeting(&bench, workers - 1, "b", vec![slot("v", false)]).await;
    let small = muster_proto::media::v1::SlotWish {
        max_width: 320,
        max_height: 180,
        ..wish("v", "a")
    };
    viewer.set_view(vec![small]).await;
    viewer.sees(0, &format!("a/{SMALL}")).await;
    until("only the large one pauses", || paused(false, true)).await;
    assert!(
        agent
            .seen()
            .key_frames
            .get(&SMALL)
            .is_some_and(|asked| *asked >= 1),
        "resumes with a key frame"
    );

    viewer.set_view(vec![wish("v", "a")]).await;
    viewer.sees(0, &format!("a/{LARGE}")).await;
    until("only the small one pauses", || paused(true, false)).await;
    viewer.set_view(Vec::new()).await;
    until("both pause again", || paused(true, true)).await;

    {
        let seen = viewer.seen();
        let packets = &seen.packets[&1];
        for pair in packets.windows(2) {
            assert!(
                pair[1].0.wrapping_sub(pair[0].0) < 0x8000,
                "numbers rise across the switch"
            );
        }
        let switch = packets
            .iter()
            .position(|(_, payload)| vp8::has_mark(payload, &format!("a/{LARGE}")));
        assert!(
            vp8::is_key(&packets[switch.expect("seen")].1),
            "switches at a key frame"
        );
    }
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_nobody_watches_pause_and_resume() {
    unwatched_layers_pause(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_nobody_on_any_worker_watches_pause_and_resume() {
    unwatched_layers_pause(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_vanishes_is_stale_then_absent_and_comes_back() {
    let bench = Bench::start(1).await;
    let viewer = Agent::in_meeting(&bench, 0, "b", vec![slot("v", false)]).await;
    viewer.set_view(vec![wish("v", "a")]).await;
    let mut agent = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    agent.publish_camera();
    viewer.sees(0, &format!("a/{LARGE}")).await;
    let status = |wanted: SlotStatus| {
        viewer
            .seen()
            .slots
            .get("v")
            .filter(|slot| slot.status() == wanted)
            .map(|slot| slot.age_ms)
    };
    agent.stop_publishing();
    until("stale with an age", || {
        status(SlotStatus::Stale).filter(|age| *age >= 1000)
    })
    .await;
    agent.sender.close("gone");
    until("absent", || status(SlotStatus::Absent)).await;
    let mut again = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    again.publish_camera();
    until("live again", || status(SlotStatus::Live)).await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_outlives_its_leg() {
    let bench = Bench::start(1).await;
    let agent = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    agent.send(link_up::Message::Leave(LinkLeave {})).await;
    until("the leg has left", || {
        (bench.relay.leg_count() == 0).then_some(())
    })
    .await;
    agent.join(bench.token("m2", "a"), vec![slot("v", false)]).await;
    until("joined again", || (agent.seen().flows.len() == 1).then_some(())).await;
    assert_eq!(bench.relay.leg_count(), 1);
    // A join while there is a leg takes its place.
    agent
        .join(bench.token("m3", "a"), vec![slot("v", false), slot("w", false)])
        .await;
    until("joined a third time", || {
        (agent.seen().flows.len() == 2).then_some(())
    })
    .await;
    assert_eq!(bench.relay.leg_count(), 1);
    assert_eq!(agent.seen().closed, None);
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_link_of_the_site_replaces_the_older() {
    let bench = Bench::start(2).await;
    let old = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    let new = Agent::in_meeting(&bench, 1, "a", Vec::new()).await;
    until("the old one is told", || {
        old.seen().closed.clone().filter(|why| why.contains("replaced"))
    })
    .await;
    until("one leg is left", || (bench.relay.leg_count() == 1).then_some(())).await;
    assert_eq!(new.seen().closed, None);
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_that_must_not_be_are_refused_and_the_link_goes_on() {
    let bench = Bench::start(1).await;
    let agent = Agent::connect(&bench, 0, "a").await;
    let refused = async |token: String, expect: &str| {
        agent.seen().refused = None;
        agent.join(token, Vec::new()).await;
        let code = until("refused", || agent.seen().refused.clone()).await;
        assert_eq!(code, expect);
    };
    refused("nonsense".into(), "token_invalid").await;
    refused(bench.token("m", "another-site"), "token_invalid").await;
    let past = muster_identity::JoinClaims::new("m", "a", false, true, 1_000_000);
    refused(bench.sign(&past), "token_expired").await;
    let token = bench.token("m", "a");
    agent.join(token.clone(), vec![slot("v", false)]).await;
    until("joined", || (agent.seen().flows.len() == 1).then_some(())).await;
    refused(token, "token_used").await;
    agent.seen().refused = None;
    agent
        .join(
            bench.token("m", "a"),
            vec![slot("twice", false), slot("twice", false)],
        )
        .await;
    assert_eq!(
        until("refused", || agent.seen().refused.clone()).await,
        "bad_request"
    );
    assert_eq!(agent.seen().closed, None);
    agent.send(link_up::Message::Ping(LinkPing { nonce: 5 })).await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_may_not_publish_is_not_seen() {
    let bench = Bench::start(1).await;
    let mut guest = Agent::connect(&bench, 0, "guest").await;
    let claims = muster_identity::JoinClaims::new("m", "guest", false, false, crate::support::now_s());
    guest.join(bench.sign(&claims), vec![slot("v", false)]).await;
    until("joined", || (guest.seen().flows.len() == 1).then_some(())).await;
    guest.publish_camera();
    guest.publish_sound(10);
    let viewer = Agent::in_meeting(&bench, 0, "b", vec![slot("v", false), slot("s", true)]).await;
    viewer.set_view(vec![wish("v", "guest")]).await;
    until("absent", || {
        viewer
            .seen()
            .slots
            .get("v")
            .filter(|s| s.status() == SlotStatus::Absent)
            .map(drop)
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(viewer.seen().packets.is_empty());
    assert!(!viewer.seen().paused.contains_key(&AUDIO));
    bench.relay.shutdown().await;
}
