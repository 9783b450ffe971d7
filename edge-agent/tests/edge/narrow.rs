//! An agent on a path that gets narrow, or goes dark: what it sends then, and what it says of it.

use std::time::Duration;

use crate::meeting::on_air_with;
use crate::world::World;
use muster_proto::media::v1::Rung;
use muster_testcard::PictureSize;

/// 8 Mbit/s, then 90 kbit/s for long, then 8 Mbit/s again.
const NARROW: &str = "t_ms,rate_kbps,queue_ms,delay_ms,jitter_ms,loss_good,loss_bad,p_gb,p_bg,up
0,8000,200,20,0,0,0,0,1,1
2000,90,400,20,0,0,0,0,1,1
22000,8000,200,20,0,0,0,0,1,1
900000,8000,200,20,0,0,0,0,1,1
";

/// Gone for three seconds.
const DARK: &str = "t_ms,rate_kbps,queue_ms,delay_ms,jitter_ms,loss_good,loss_bad,p_gb,p_bg,up
0,8000,200,20,0,0,0,0,1,1
1000,8000,200,20,0,0,0,0,1,0
4000,8000,200,20,0,0,0,0,1,1
900000,8000,200,20,0,0,0,0,1,1
";

#[tokio::test]
async fn a_narrow_path_takes_the_site_down_the_ladder_and_it_climbs_again() {
    let mut world = World::new().await;
    world.shape(NARROW);
    let (world, agent) = on_air_with(world, PictureSize::P360_15).await;
    assert_eq!(world.status()["rung"], "full");
    world.release();
    world
        .until("fewer pictures", |world| {
            let status = world.status();
            status["rung_why"] == "narrow" && status["rung"] != "full"
        })
        .await;
    world
        .until("stills or sound alone, and the relay is told", |world| {
            let rungs = &world.seen().rungs;
            rungs
                .iter()
                .any(|rung| matches!(rung, Rung::Stills | Rung::Audio))
        })
        .await;
    let sounds = world.seen().audio;
    world
        .until("sound goes on", |world| world.seen().audio > sounds + 20)
        .await;
    world
        .until_within(Duration::from_secs(90), "everything again", |world| {
            world.status()["rung"] == "full" && world.seen().rungs.last() == Some(&Rung::Full)
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn after_the_dark_the_picture_is_back_and_the_leg_is_the_same() {
    let mut world = World::new().await;
    world.shape(DARK);
    let (world, agent) = on_air_with(world, PictureSize::P180_5).await;
    world.release();
    world
        .until("the dark is told", |world| {
            let status = world.status();
            status["rung_why"] == "dark" && status["way"]["dark_since_ms"].as_i64() > Some(0)
        })
        .await;
    let pictures = world.seen().pictures.len();
    world
        .until("a picture again, from a key frame on", |world| {
            let seen = world.seen();
            seen.pictures.len() > pictures && world.status()["rung"] == "full"
        })
        .await;
    {
        let seen = world.seen();
        assert!(seen.pictures[pictures..].iter().any(|(_, key)| *key));
        assert_eq!((seen.joins.len(), seen.links_lost), (1, 0), "nobody joined anew");
    }
    agent.stop().await;
}
