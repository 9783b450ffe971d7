//! The stream to the control plane: hello, reports, stages, and life without it.

use std::time::Duration;

use muster_identity::{Authority, Identity};
use muster_link::{Dial, EdgeLink, LinkError, Ways};
use muster_proto::command::v1::{LegState, StageDocument};
use muster_proto::media::v1::{QualityMark, QualityReason};
use muster_sfu::Relay;

use crate::support::agent::{Agent, LARGE, slot, wish};
use crate::support::control_plane::ControlPlane;
use crate::support::{Bench, box_and_chair, config, http, stage, until, until_async};

async fn with_control_plane() -> (Bench, ControlPlane) {
    let dir = tempfile::tempdir().expect("temp dir");
    let authority = Authority::load_or_create(&dir.path().join("authority")).expect("authority");
    let control_plane = ControlPlane::start(&authority, "127.0.0.1:0").await;
    let mut config = config(&authority, dir.path());
    config.control_plane = vec![control_plane.addr.to_string()];
    let relay = Relay::start(config).await.expect("relay starts");
    (
        Bench {
            relay,
            authority,
            _dir: dir,
        },
        control_plane,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leg_is_reported_from_joining_to_left() {
    let (bench, control_plane) = with_control_plane().await;
    let hello = until("hello", || control_plane.heard().hellos.first().cloned()).await;
    assert_eq!(hello.http_url, format!("http://{}", bench.relay.http_addr()));
    assert_eq!(hello.link_addrs, [bench.relay.link_addrs()[0].to_string()]);
    until("heartbeats", || {
        (control_plane.heard().heartbeats >= 3).then_some(())
    })
    .await;

    let reported = async |what: LegState| {
        until(&format!("{what:?} is reported"), || {
            let states = control_plane.heard().states("a");
            states
                .last()
                .filter(|(state, _)| *state == what)
                .map(|(_, reason)| reason.clone())
        })
        .await
    };
    let mut agent = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    reported(LegState::Joining).await;
    agent.publish_camera();
    agent.publish_sound(20);
    reported(LegState::OnAir).await;
    // Its layers are paused, since nobody watches: that is no silence.
    until("paused", || {
        (agent.seen().paused.get(&LARGE) == Some(&true)).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    reported(LegState::OnAir).await;

    let viewer = Agent::in_meeting(&bench, 0, "b", vec![slot("v", false)]).await;
    viewer.set_view(vec![wish("v", "a")]).await;
    viewer.sees(0, &format!("a/{LARGE}")).await;
    agent.stop_publishing();
    reported(LegState::Silent).await;
    agent.publish_camera();
    reported(LegState::OnAir).await;
    agent.sender.close("bye");
    assert_eq!(reported(LegState::Left).await, "left");
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_outlives_the_control_plane_and_says_what_it_has() {
    let (bench, control_plane) = with_control_plane().await;
    let mut agent = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    agent.publish_camera();
    until("on air", || {
        let on_air = |state: &(LegState, String)| state.0 == LegState::OnAir;
        control_plane.heard().states("a").iter().any(on_air).then_some(())
    })
    .await;
    let address = control_plane.addr.to_string();
    control_plane.kill();

    // Joins and pictures go on without it.
    let viewer = Agent::in_meeting(&bench, 0, "b", vec![slot("v", false)]).await;
    viewer.set_view(vec![wish("v", "a")]).await;
    viewer.sees(0, &format!("a/{LARGE}")).await;

    let control_plane = ControlPlane::start(&bench.authority, &address).await;
    let hello = until("hello again", || control_plane.heard().hellos.first().cloned()).await;
    let mut legs: Vec<_> = hello
        .legs
        .iter()
        .map(|leg| (leg.site.as_str(), leg.state()))
        .collect();
    legs.sort_unstable();
    assert_eq!(legs, [("a", LegState::OnAir), ("b", LegState::Joining)]);

    until("how it fares is told again", || {
        control_plane.heard().quality("a")
    })
    .await;
    let mut ended = stage("m", 9);
    ended.ended = true;
    until("the relay listens", || {
        (control_plane.heard().heartbeats > 0).then_some(())
    })
    .await;
    control_plane.send_stage(ended);
    until("all have left", || (bench.relay.leg_count() == 0).then_some(())).await;
    until("that they left is reported", || {
        let left =
            |site| control_plane.heard().states(site).last() == Some(&(LegState::Left, "ended".to_owned()));
        (left("a") && left("b")).then_some(())
    })
    .await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_replica_dies_the_next_one_is_told_what_there_is_at_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let authority = Authority::load_or_create(&dir.path().join("authority")).expect("authority");
    let first = ControlPlane::start(&authority, "127.0.0.1:0").await;
    let second = ControlPlane::start(&authority, "127.0.0.1:0").await;
    let mut config = config(&authority, dir.path());
    config.control_plane = [&first, &second].map(|replica| replica.addr.to_string()).into();
    let bench = Bench {
        relay: Relay::start(config).await.expect("relay starts"),
        authority,
        _dir: dir,
    };
    until("the first is told", || {
        (first.heard().heartbeats > 0).then_some(())
    })
    .await;
    let _agent = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    assert_eq!(second.heard().hellos.len(), 0, "one stream is enough");
    let killed = std::time::Instant::now();
    first.kill();
    let hello = until("the second is told", || second.heard().hellos.first().cloned()).await;
    println!("the other replica was told after {:?}", killed.elapsed());
    let legs: Vec<_> = hello.legs.iter().map(|leg| leg.site.as_str()).collect();
    assert_eq!(legs, ["a"]);
    second.send_stage(StageDocument {
        expelled_sites: vec!["a".into()],
        ..stage("m", 4)
    });
    until("it is obeyed", || (bench.relay.leg_count() == 0).then_some(())).await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_leg_fares_is_reported_whatever_its_wire() {
    let (bench, control_plane) = with_control_plane().await;
    let (mut agent, _browser) = box_and_chair(&bench).await;
    for site in ["box", "desk:chair"] {
        until(&format!("{site} fares well, with pictures both ways"), || {
            let quality = control_plane.heard().quality(site)?;
            let pictures = quality.published.is_some() && quality.shown.is_some_and(|shown| shown.width > 0);
            let flows = quality.up_bps > 0 && quality.down_bps > 0;
            (pictures && flows && quality.mark() == QualityMark::Good).then_some(())
        })
        .await;
    }
    agent.stop_publishing();
    until("the silence is told with its reason", || {
        let quality = control_plane.heard().quality("box")?;
        let silent = (QualityMark::Poor, QualityReason::NoMedia);
        ((quality.mark(), quality.reason()) == silent).then_some(())
    })
    .await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leg_whose_link_goes_over_tcp_is_told_as_such() {
    let (bench, control_plane) = with_control_plane().await;
    let mut agent = Agent::connect_by(Ways::TcpAlone, &bench, 0, "box")
        .await
        .into_meeting(&bench, Vec::new())
        .await;
    agent.publish_camera();
    let mut viewer = Agent::in_meeting(&bench, 0, "viewer", vec![slot("v", false)]).await;
    viewer.publish_camera();
    viewer.set_view(vec![wish("v", "box")]).await;
    viewer.sees(0, &format!("box/{LARGE}")).await;
    until("how it comes is told", || {
        let heard = control_plane.heard();
        let (agent, viewer) = (heard.quality("box")?, heard.quality("viewer")?);
        (agent.by_tcp && !viewer.by_tcp).then_some(())
    })
    .await;
    until_async("one tunnel is counted", || async {
        let page = http::request(bench.relay.http_addr(), "GET", "/metrics", &[], "").await;
        let line = "muster_relay_link_tunnels{worker=\"0\"} 1";
        page.body.contains(line).then_some(()).ok_or(page.body)
    })
    .await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_over_tcp_can_be_turned_off() {
    let dir = tempfile::tempdir().expect("temp dir");
    let authority = Authority::load_or_create(&dir.path().join("authority")).expect("authority");
    let mut config = config(&authority, dir.path());
    config.link_tcp = false;
    let relay = Relay::start(config).await.expect("relay starts");
    let agent = authority
        .credentials(Identity::Agent("a".into()))
        .expect("certificate");
    let dial = |ways| {
        let dial = Dial {
            ways,
            ..Dial::default()
        };
        let address = relay.link_addrs()[0].to_string();
        let agent = &agent;
        async move { EdgeLink::dial(&address, agent, dial).await }
    };
    let refused = dial(Ways::TcpAlone).await;
    assert!(matches!(refused, Err(LinkError::Tunnel(_))), "{refused:?}");
    dial(Ways::UdpAlone).await.expect("UDP is taken");
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_camera_is_told_though_its_sound_comes() {
    let (bench, control_plane) = with_control_plane().await;
    let (mut agent, _browser) = box_and_chair(&bench).await;
    let mark = || {
        let quality = control_plane.heard().quality("box")?;
        Some((quality.mark(), quality.reason(), quality.published.is_some()))
    };
    until("the box fares well", || {
        mark().filter(|&(mark, _, pictures)| mark == QualityMark::Good && pictures)
    })
    .await;
    agent.stop_publishing();
    agent.publish_sound(20);
    until("the missing picture is told with its reason", || {
        mark().filter(|&told| told == (QualityMark::Poor, QualityReason::NoMedia, false))
    })
    .await;
    let states = control_plane.heard().states("box");
    assert_eq!(states.last().map(|(state, _)| *state), Some(LegState::OnAir));
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_without_identity_says_what_to_do() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = muster_sfu::RelayConfig {
        identity_dir: dir.path().join("none"),
        ..Default::default()
    };
    let error = Relay::start(config).await.err().expect("no identity");
    assert!(error.to_string().contains("--enrol-token"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_hundred_and_forty_agents_come_on_air() {
    let (bench, control_plane) = with_control_plane().await;
    let mut agents = Vec::new();
    for n in 0..140 {
        agents.push(Agent::connect(&bench, 0, &format!("s{n}")).await);
    }
    let start = std::time::Instant::now();
    for agent in &mut agents {
        agent
            .join(bench.token("m", &agent.site), vec![slot("v", false)])
            .await;
        agent.publish_camera();
    }
    until("all are on air", || {
        let heard = control_plane.heard();
        let on_air = heard
            .reports
            .iter()
            .filter(|report| report.state() == LegState::OnAir);
        (on_air
            .map(|report| &report.site)
            .collect::<std::collections::HashSet<_>>()
            .len()
            == 140)
            .then_some(())
    })
    .await;
    println!("140 agents on air after {:?}", start.elapsed());
    assert_eq!(bench.relay.leg_count(), 140);
    let told: usize = agents.iter().map(|agent| agent.seen().events).sum();
    assert!(
        told < 140 * 10,
        "a join is no news to all the others: {told} events"
    );
    bench.relay.shutdown().await;
}
