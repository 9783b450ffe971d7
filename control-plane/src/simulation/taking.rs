//! Sites that an emergency takes from a meeting and lets go again: with hints that are late or lost, a replica reads the
//! two streams in either order, and each site must be called back all the same.

use super::dice::Dice;
use super::field::{self, Temper};
use super::in_virtual_time;
use super::world::{DISPATCHERS, REPLICAS, SITES, Said, World, ask, with_secret};
use crate::bus::Trouble;
use crate::services::meeting::MeetingCalls;
use muster_domain::SummonsState;
use muster_proto::command::v1 as pb;
use pb::meeting_service_server::MeetingService as _;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const SEEDS: u64 = 60;
/// Emergencies of one run.
const ROUNDS: usize = 4;
/// An endpoint answers within three seconds and shows a picture within one; a replica reads what is stored each second.
const SOON: Duration = Duration::from_secs(10);

async fn convene(world: &World, replica: usize, title: &str, priority: pb::Priority) -> String {
    let message = pb::ConveneRequest {
        selector: Some(pb::Selector {
            sites: SITES.iter().map(|&site| site.to_owned()).collect(),
            ..Default::default()
        }),
        title: title.to_owned(),
        priority: priority.into(),
        ..Default::default()
    };
    let replica = &world.living()[replica];
    let calls = MeetingCalls(replica.core.clone());
    match ask(replica, calls.convene(with_secret(DISPATCHERS[0], message))).await {
        Said::Done(answer) => answer.meeting.expect("a meeting").id,
        Said::Refused(status) => panic!("convening is refused: {status}"),
        Said::Unknown => panic!("convening has no answer"),
    }
}

async fn end(world: &World, replica: usize, meeting: &str) {
    let message = pb::EndMeetingRequest {
        meeting: meeting.to_owned(),
    };
    let replica = &world.living()[replica];
    let calls = MeetingCalls(replica.core.clone());
    match ask(replica, calls.end_meeting(with_secret(DISPATCHERS[0], message))).await {
        Said::Done(_) => {}
        Said::Refused(status) => panic!("ending is refused: {status}"),
        Said::Unknown => panic!("ending has no answer"),
    }
}

/// Waits until each replica knows all sites to be on air in this meeting.
async fn until_on_air(world: &World, meeting: &str) {
    let began = Instant::now();
    loop {
        let views: Vec<_> = world
            .living()
            .iter()
            .map(|replica| replica.core.meetings.view(meeting))
            .collect();
        let all = views.iter().all(|view| {
            view.as_ref()
                .is_some_and(|view| view.summonses().iter().all(|s| s.state == SummonsState::OnAir))
        });
        if all {
            return;
        }
        if began.elapsed() > SOON {
            super::check::print_log(world).await;
            panic!("not all sites are on air in {meeting}: {views:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn emergencies(seed: u64) {
    let mut dice = Dice::new(seed);
    let world = World::start(dice.fork(1)).await;
    let mut people = JoinSet::new();
    let relay = field::relay(&world, dice.fork(2), &mut people);
    for (n, site) in SITES.into_iter().enumerate() {
        let dice = dice.fork(100 + n as u64);
        let endpoint = field::endpoint(world.clone(), dice, site, Temper::Willing, n, relay.clone());
        people.spawn(endpoint);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.hub.set_trouble(Trouble {
        lost: 100,
        delayed: 500,
        delay: Duration::from_millis(300),
        ..Trouble::default()
    });
    let routine = convene(&world, dice.below(REPLICAS), "drill", pb::Priority::Routine).await;
    until_on_air(&world, &routine).await;
    for round in 0..ROUNDS {
        let title = format!("flood {round}");
        let emergency = convene(&world, dice.below(REPLICAS), &title, pb::Priority::Emergency).await;
        // Often before all have answered, but not while the first page is on its way.
        if dice.percent(50) {
            until_on_air(&world, &emergency).await;
        } else {
            tokio::time::sleep(dice.ms(100, 1500)).await;
        }
        end(&world, dice.below(REPLICAS), &emergency).await;
        until_on_air(&world, &routine).await;
    }
    world.over.cancel();
    super::join(&mut people).await;
}

#[test]
fn who_was_taken_is_called_back_whatever_a_replica_hears_first() {
    let wanted = std::env::var("MUSTER_SIM_SEED").ok();
    let seeds = match wanted {
        Some(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        None => 0..SEEDS,
    };
    for seed in seeds {
        println!("seed {seed}: to run it alone, set MUSTER_SIM_SEED={seed}");
        in_virtual_time(emergencies(seed));
    }
}
