//! A busy machine is no narrow link: the peer, or the relay, gets no processor for 20 to 200 ms several times a
//! second, or feedback is late. Nothing is lost and there is room, so nobody may be shown less. A link
//! that is narrow as well is still seen to be.

use crate::link::Conditions;
use crate::path::{Path, layers};
use crate::sleeper::{Late, Sleeper};
use crate::whole::Whole;
use crate::within;

/// A picture of a single layer, as the load generator has it; and what is wanted for it.
const SINGLE: u64 = 2_600_000;
const WANTED: u64 = SINGLE * 115 / 100;

fn sleeper(seed: u64) -> Sleeper {
    Sleeper::new(seed, 50..350, 20..200)
}

fn wide(seed: u64) -> Path {
    let mut path = Path::new(seed, Conditions::rate(100_000));
    path.side.set_wanted_bps(path.now(), Some(WANTED));
    path
}

/// Half a minute of the single layer; the estimate is never below what is sent once it has climbed.
fn stays_above(what: &str, mut path: Path) {
    path.run(30, |_| SINGLE);
    let lowest = path.over(3..30).lowest_kbps;
    let sent = path.over(3..30).carried_kbps;
    println!("{what}: lowest {lowest} kbit/s of {sent}");
    within(what, lowest, sent..=100_000);
}

#[test]
fn a_peer_that_gets_no_processor_is_no_narrow_link() {
    for seed in 1..=20 {
        let mut path = wide(seed);
        path.receiver = sleeper(seed);
        stays_above("the peer sleeps", path);
    }
}

#[test]
fn nor_is_a_relay_that_gets_none() {
    for seed in 1..=20 {
        let mut path = wide(seed);
        path.sender = sleeper(seed + 100);
        stays_above("the relay sleeps", path);
        let mut path = wide(seed);
        path.receiver = sleeper(seed);
        path.sender = sleeper(seed + 100);
        stays_above("both sleep", path);
    }
}

#[test]
fn a_peer_that_sleeps_longer_than_it_wakes_is_no_narrow_link() {
    for seed in 1..=20 {
        let mut path = wide(seed);
        path.receiver = Sleeper::new(seed, 10..100, 20..200);
        stays_above("the peer sleeps most of the time", path);
    }
}

#[test]
fn late_feedback_is_no_narrow_link() {
    for seed in 1..=20 {
        let mut path = wide(seed);
        path.late = Late::new(seed, 1000);
        stays_above("late feedback", path);
        let mut path = wide(seed);
        path.late = Late::new(seed, 1000);
        path.receiver = sleeper(seed);
        stays_above("late feedback of a peer that sleeps", path);
    }
}

#[test]
fn a_narrow_link_is_seen_though_the_peer_sleeps() {
    for seed in 1..=10 {
        let mut path = crate::path(seed, Conditions::rate(4000).queue(300));
        path.receiver = sleeper(seed);
        path.run(15, layers);
        path.down.conditions.rate_kbps = 350;
        path.run(20, layers);
        println!("seed {seed}: {:?}", &path.seconds[15..19]);
        within("estimate 2 s after", path.seconds[16].estimate_kbps, 100..=500);
        // A probe that the peer half sleeps through may promise too much, and fill the queue once.
        let mut queues: Vec<u64> = path.seconds[19..35].iter().map(|s| s.queue_ms).collect();
        queues.sort_unstable();
        within("longest queue of the median second", queues[8], 0..=150);
        path.down.conditions.rate_kbps = 4000;
        path.run(15, layers);
        within("estimate after", path.seconds[44].estimate_kbps, 2_560..=5_400);
    }
}

#[test]
fn the_whole_path_shows_the_full_picture_though_the_viewer_sleeps() {
    for seed in 1..=5 {
        let mut whole = Whole::new(seed, Conditions::rate(100_000));
        whole.sleeper = sleeper(seed);
        whole.run(30);
        let viewer = &whole.viewer;
        let first = viewer.steadily(720, 0).expect("the full layer");
        let less = viewer.shown.iter().filter(|s| s.0 > 5_000 && s.1 < 720).count();
        println!("seed {seed}: full after {first} ms, {less} smaller pictures after that");
        within("first full picture", first, 0..=3_000);
        assert_eq!(less, 0, "smaller pictures");
        within("freeze", viewer.freeze(5_000, 29_900), 0..=300);
    }
}

#[test]
fn on_a_wide_link_the_full_picture_is_there_in_two_seconds() {
    for seed in 1..=5 {
        let mut whole = Whole::new(seed, Conditions::rate(100_000));
        whole.run(8);
        let first = whole.viewer.steadily(720, 0).expect("the full layer");
        println!("seed {seed}: full after {first} ms");
        within("first full picture", first, 0..=2_000);
    }
}
