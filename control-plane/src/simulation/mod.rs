//! Three replicas in virtual time: over one database and one bus in memory, with endpoints, a relay, dispatchers and
//! watchers that call their services, while messages are lost, the store goes away and replicas are killed.
//!
//! Invariant: all that happens follows from a seed. A run that fails names its seed, and `MUSTER_SIM_SEED=N` runs that
//! one alone. What must hold is in `check`, `desk` and `field`; sockets, SQL and NATS are tested elsewhere.

mod check;
mod desk;
mod dice;
mod field;
mod taking;
mod world;

use check::Digest;
use dice::Dice;
use field::Temper;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::task::JoinSet;
use world::World;
pub(crate) use world::{fill, with_secret};

/// Seeds of each of the tests; there are four.
const SEEDS: u64 = 60;
/// How long there is trouble.
const TROUBLE: Duration = Duration::from_secs(20);
/// All must have come to rest this long after the trouble.
const REST: Duration = Duration::from_secs(90);

/// One run. Panics where something does not hold.
fn run(seed: u64) -> Digest {
    in_virtual_time(evening(seed))
}

fn in_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(run)
}

async fn evening(seed: u64) -> Digest {
    let dice = Dice::new(seed);
    let world = World::start(dice.fork(1)).await;
    let (mut people, mut watchers) = (JoinSet::new(), JoinSet::new());
    let relay = field::relay(&world, dice.fork(2), &mut people);
    for (n, site) in world::SITES.iter().enumerate() {
        let dice = dice.fork(100 + n as u64);
        people.spawn(field::endpoint(
            world.clone(),
            dice,
            site,
            Temper::Moody,
            n,
            relay.clone(),
        ));
    }
    for (n, name) in world::DISPATCHERS.iter().enumerate() {
        watchers.spawn(desk::watch(world.clone(), name, n));
        people.spawn(desk::dispatch(world.clone(), dice.fork(200 + n as u64), name, n));
    }
    watchers.spawn(desk::watch(world.clone(), world::DISPATCHERS[0], 2));
    people.spawn(world::kill(world.clone(), dice.fork(300)));
    people.spawn(world::weather(world.clone(), dice.fork(301)));
    tokio::time::sleep(TROUBLE).await;
    world.calm();
    check::until_at_rest(&world, REST).await;
    check::print_log(&world).await;
    world.rest.cancel();
    join(&mut watchers).await;
    let digest = check::all(&world).await;
    world.over.cancel();
    join(&mut people).await;
    digest
}

/// Waits until all have ended; a panic of one of them is one here.
async fn join(all: &mut JoinSet<()>) {
    while let Some(ended) = all.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

fn run_named(seed: u64) -> Digest {
    match catch_unwind(AssertUnwindSafe(|| run(seed))) {
        Ok(digest) => digest,
        Err(panic) => {
            eprintln!("seed {seed}: to run it alone, set MUSTER_SIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A quarter of the seeds, so that they use more than one processor.
fn quarter(number: u64) {
    let wanted = std::env::var("MUSTER_SIM_SEED").ok();
    if let Some(seed) = wanted {
        if number == 0 {
            println!("{:?}", run_named(seed.parse().expect("a number")));
        }
        return;
    }
    let mut seen = Digest::default();
    for seed in (0..SEEDS).map(|n| n * 4 + number) {
        seen.add(&run_named(seed));
    }
    println!("{seen:?}");
    seen.assert_worth_it(SEEDS);
}

#[test]
fn nothing_is_lost_or_given_twice_first_quarter() {
    quarter(0);
}

#[test]
fn nothing_is_lost_or_given_twice_second_quarter() {
    quarter(1);
}

#[test]
fn nothing_is_lost_or_given_twice_third_quarter() {
    quarter(2);
}

#[test]
fn nothing_is_lost_or_given_twice_last_quarter() {
    quarter(3);
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in [3, 5, 8] {
        assert_eq!(run_named(seed), run_named(seed), "seed {seed}");
    }
}
