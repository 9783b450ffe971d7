//! An agent on a network that drops UDP: its link goes over TCP, and it says so.

use std::time::Instant;

use crate::meeting::on_air_with;
use crate::world::World;
use muster_testcard::PictureSize;

#[tokio::test]
async fn where_udp_is_blocked_a_summoned_site_is_on_the_air_over_tcp_and_says_so() {
    let mut world = World::new().await;
    world.block_udp();
    let start = Instant::now();
    let (world, agent) = on_air_with(world, PictureSize::P360_15).await;
    eprintln!(
        "UDP blocked: on the air {} ms after the start",
        start.elapsed().as_millis()
    );
    assert_eq!(world.status()["transport"], "tcp");
    let (pictures, sounds) = {
        let seen = world.seen();
        (seen.pictures.len(), seen.audio)
    };
    world
        .until("pictures and sound go on", |world| {
            let seen = world.seen();
            seen.pictures.len() > pictures + 30 && seen.audio > sounds + 5
        })
        .await;
    {
        let seen = world.seen();
        assert_eq!((seen.damaged, seen.links_lost), (0, 0));
        assert_eq!(seen.joins.len(), 1);
    }
    assert_eq!(world.status()["rung"], "full");
    assert_eq!(world.link().transport(), muster_link::Transport::Tcp);
    agent.stop().await;
}

#[tokio::test]
async fn where_udp_works_the_status_says_udp() {
    let (world, agent) = on_air_with(World::new().await, PictureSize::P180_5).await;
    assert_eq!(world.status()["transport"], "udp");
    agent.stop().await;
}
