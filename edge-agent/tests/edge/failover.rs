//! A relay or a replica of the control plane dies; the agent is back by itself.

use std::time::{Duration, Instant};

use muster_proto::command::v1::{SummonsWithdrawn, attach_response};
use muster_proto::media::v1::{MeetingNotice, WatchLegResponse, link_down, watch_leg_response};
use muster_testcard::PictureSize;

use crate::meeting::on_air;
use crate::world::{MEETING, RunningAgent, World};

/// Waits until pictures come by the second relay; says when the first came.
async fn filmed_by_second(world: &World) -> Instant {
    world
        .until("pictures at the second relay", |world| {
            world.seen().filmed.is_some_and(|(relay, _)| relay == "r2")
        })
        .await;
    world.seen().filmed.expect("filmed").1
}

#[tokio::test]
async fn when_its_relay_dies_the_agent_is_on_the_other_within_two_seconds() {
    let (mut world, agent) = on_air().await;
    let second = world.spare_second_relay();
    world.kill_relay();
    let killed = Instant::now();
    let back = filmed_by_second(&world).await.duration_since(killed);
    println!(
        "back on the second relay {} ms after the first was killed",
        back.as_millis()
    );
    assert!(back < Duration::from_secs(2), "{back:?}");
    world.until_state("on_air").await;
    assert_eq!(world.status()["relay"], second);
    {
        let seen = world.seen();
        assert_eq!(seen.lost, [("r1".to_owned(), 1)], "one question did");
        let names = |join: usize| {
            let slots = seen.joins[join].slots.iter();
            slots.map(|slot| slot.slot.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(0), names(1), "the same slots");
    }
    world
        .until("the same wishes", |world| {
            let views = &world.seen().views;
            views.len() == 2 && views[0] == views[1]
        })
        .await;
    // The warm link has moved for good.
    world.push(attach_response::Event::Withdrawn(SummonsWithdrawn {
        meeting: MEETING.into(),
        reason: "ended".into(),
    }));
    world.until_state("attached").await;
    assert_eq!(world.status()["relay"], second);
    agent.stop().await;
}

#[tokio::test]
async fn a_relay_that_is_dead_but_not_replaced_is_asked_about_again_until_it_is() {
    let (mut world, agent) = on_air().await;
    world.kill_relay();
    world
        .until("several questions", |world| world.seen().lost.len() >= 3)
        .await;
    let asked = world.seen().lost.len();
    assert!(asked < 8, "a storm of {asked} questions");
    world.spare_second_relay();
    filmed_by_second(&world).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_relay_that_says_that_the_meeting_has_moved_is_left_at_once() {
    let (world, agent) = on_air().await;
    let second = world.move_to_second_relay();
    let told = Instant::now();
    let notice = MeetingNotice {
        moved: true,
        ..MeetingNotice::default()
    };
    let event = Some(watch_leg_response::Event::Notice(notice));
    world.tell_leg(link_down::Message::Event(WatchLegResponse { event }));
    let moved = filmed_by_second(&world).await.duration_since(told);
    println!("at the other relay {} ms after the word", moved.as_millis());
    assert_eq!(world.seen().lost, [], "no relay was lost");
    assert_eq!(world.status()["relay"], second);
    agent.stop().await;
}

#[tokio::test]
async fn when_its_replica_dies_the_agent_attaches_to_the_next_at_once() {
    let mut world = World::new().await;
    let second = world.add_replica();
    let mut config = world.config(PictureSize::P180_5);
    config.control_plane.push(second.to_string());
    let agent = RunningAgent::start(config);
    world.until_state("attached").await;
    // It began with either, so that the agents of a town are with all replicas.
    let addresses = [world.control_plane.to_string(), second.to_string()];
    let at = |world: &World| {
        let address = world.status()["control_plane"].clone();
        addresses.iter().position(|known| address == known.as_str())
    };
    let first = at(&world).expect("attached to one of them");
    world.kill_replica(first);
    let killed = Instant::now();
    world
        .until("attached to the other", |world| at(world) == Some(1 - first))
        .await;
    println!("attached to the other replica after {:?}", killed.elapsed());
    world.summon();
    world.until_state("on_air").await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_asked_to_wait_waits_so_long_and_a_little() {
    let world = World::new().await;
    world.seen().crowded_ms = Some(1500);
    let agent = RunningAgent::start(world.config(PictureSize::P180_5));
    world
        .until("the wait is shown", |world| {
            let error = world.status()["last_error"].clone();
            error
                .as_str()
                .is_some_and(|error| error.contains("asks to wait 1.5 s"))
                && world.status()["attach_at_ms"].as_i64() > Some(0)
        })
        .await;
    world.until_state("attached").await;
    let attempts = world.seen().attempts.clone();
    let waited = attempts[1].duration_since(attempts[0]);
    assert_eq!(attempts.len(), 2);
    assert!(waited >= Duration::from_millis(1500), "{waited:?}");
    assert_eq!(world.status()["attach_at_ms"], 0);
    agent.stop().await;
}
