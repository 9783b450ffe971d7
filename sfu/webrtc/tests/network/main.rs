//! Congestion control in virtual time over a seeded network: first the sending side alone, then the
//! whole path from a camera through the core to a viewer who counts freezes. Every number asserted
//! is what was measured, with room for a change that makes nothing worse.

mod busy;
mod camera;
mod link;
mod path;
mod sleeper;
mod viewer;
mod whole;

use link::Conditions;
use path::{Path, Second, greedy, layers};
use whole::Whole;

const WANTED: u64 = 2_700_000;

fn path(seed: u64, conditions: Conditions) -> Path {
    let mut path = Path::new(seed, conditions);
    path.side.set_wanted_bps(path.now(), Some(WANTED));
    path
}

#[track_caller]
fn within(what: &str, value: u64, range: std::ops::RangeInclusive<u64>) {
    assert!(range.contains(&value), "{what}: {value} is not in {range:?}");
}

#[test]
fn a_step_down_is_followed_at_once_and_a_step_up_in_seconds() {
    let mut path = path(1, Conditions::rate(4000).queue(300));
    path.run(15, layers);
    within("estimate before", path.seconds[3].estimate_kbps, 2_700..=4_200);
    path.down.conditions.rate_kbps = 350;
    path.run(20, layers);
    within(
        "estimate a second after",
        path.seconds[15].estimate_kbps,
        150..=350,
    );
    // What was on its way stands in the queue; it drains in three seconds.
    within("queue", path.over(19..35).queue_ms, 0..=120);
    within("estimate", path.over(19..35).estimate_kbps, 280..=420);
    path.down.conditions.rate_kbps = 4000;
    path.run(15, layers);
    within(
        "estimate 5 s after",
        path.seconds[40].estimate_kbps,
        2_700..=4_200,
    );
    within("audio waits to leave", path.over(0..50).audio_wait_ms, 0..=0);
}

#[test]
fn random_loss_without_a_queue_takes_no_bandwidth() {
    for (loss, at_least) in [(0.0, 85), (0.02, 85), (0.1, 85), (0.2, 80)] {
        for seed in 1..=5 {
            let mut path = path(seed, Conditions::rate(2000).losing(loss));
            path.side.set_wanted_bps(path.now(), Some(6_000_000));
            path.run(60, greedy(6_000_000));
            let Second {
                estimate_kbps,
                carried_kbps,
                queue_ms,
                ..
            } = path.over(10..60);
            // What is carried is after the loss.
            let used = carried_kbps as f64 / (1.0 - loss) / 2000.0 * 100.0;
            println!(
                "loss {loss} seed {seed}: {estimate_kbps} kbit/s, {used:.0} % used, queue {queue_ms} ms"
            );
            within("per cent used", used as u64, at_least..=101);
            within("estimate", estimate_kbps, 1_600..=2_150);
            // The link drops what is beyond 200 ms.
            within("queue", queue_ms, 0..=210);
        }
    }
}

#[test]
fn loss_that_comes_and_goes_at_a_steady_rate_is_not_taken_for_congestion() {
    let mut path = path(3, Conditions::rate(8000));
    path.run(10, layers);
    path.down.conditions = path.down.conditions.losing(0.2);
    path.run(20, layers);
    path.down.conditions = path.down.conditions.losing(0.0);
    path.run(10, layers);
    let lowest = path.seconds[5..].iter().map(|s| s.estimate_kbps).min();
    within("lowest estimate", lowest.unwrap_or(0), 2_600..=9_000);
}

#[test]
fn bursts_of_loss_and_jitter_leave_a_village_its_picture() {
    let village = Conditions {
        loss_good: 0.005,
        loss_bad: 0.35,
        good_to_bad: 0.01,
        bad_to_good: 0.2,
        queue_ms: 500,
        delay_ms: 45,
        jitter_ms: 12,
        ..Conditions::rate(2500)
    };
    for seed in 1..=5 {
        let mut path = path(seed, village);
        path.side.set_wanted_bps(path.now(), Some(6_000_000));
        // 4G breathes: up to a third more or less, each half second.
        for step in 0..60u64 {
            path.down.conditions.rate_kbps = 2500 + (step * 7919 % 13) * 120 - 720;
            path.run_ms(500, greedy(6_000_000));
        }
        let over = path.over(5..30);
        println!("village seed {seed}: {over:?}");
        within("carried", over.carried_kbps, 1_500..=2_600);
        within("queue", over.queue_ms, 0..=450);
    }
}

#[test]
fn a_long_queue_is_not_filled() {
    let mut path = path(5, Conditions::rate(1000).queue(300));
    path.side.set_wanted_bps(path.now(), Some(6_000_000));
    path.run(60, greedy(6_000_000));
    let over = path.over(10..60);
    within("carried", over.carried_kbps, 850..=1_010);
    within("longest queue", over.queue_ms, 0..=220);
    let mut each: Vec<u64> = path.seconds[10..].iter().map(|s| s.queue_ms).collect();
    each.sort_unstable();
    within(
        "longest queue of the median second",
        each[each.len() / 2],
        0..=120,
    );
}

#[test]
fn an_idle_leg_keeps_its_estimate_and_uses_it_when_it_is_busy_again() {
    let mut path = path(1, Conditions::rate(4000).queue(300));
    path.run(10, layers);
    let before = path.seconds[9].estimate_kbps;
    path.side.set_wanted_bps(path.now(), Some(0));
    path.run(60, |_| 0);
    assert_eq!(path.seconds[69].estimate_kbps, before, "neither more nor less");
    assert_eq!(path.over(11..70).probe_kbps, 0, "nothing wanted, nothing probed");
    path.side.set_wanted_bps(path.now(), Some(WANTED));
    path.run(5, layers);
    within("carried at once", path.seconds[71].carried_kbps, 2_500..=2_800);
    within("queue", path.over(70..75).queue_ms, 0..=60);
}

#[test]
fn probes_stay_below_twice_what_is_wanted_and_cost_little() {
    let mut path = path(1, Conditions::rate(100_000));
    path.side.set_wanted_bps(path.now(), Some(1_000_000));
    path.run(20, |_| 200_000);
    within("estimate", path.seconds[19].estimate_kbps, 1_000..=2_000);
    let mut held = Path::new(2, Conditions::rate(350).queue(300));
    held.side.set_wanted_bps(held.now(), Some(WANTED));
    held.run(60, layers);
    within("probes", held.over(10..60).probe_kbps, 0..=30);
    within("queue", held.over(10..60).queue_ms, 0..=130);
}

#[test]
fn without_padding_media_itself_finds_the_room() {
    let mut path = path(1, Conditions::rate(4000));
    path.side.set_can_probe(false);
    path.can_probe = false;
    path.run(25, layers);
    within("estimate", path.seconds[24].estimate_kbps, 2_600..=4_200);
    assert_eq!(path.over(0..25).probe_kbps, 0);
}

#[test]
fn a_path_that_is_cut_for_seconds_is_used_again_soon() {
    for outage_ms in [300, 1000, 3000] {
        let mut path = path(4, Conditions::rate(4000));
        path.run(10, layers);
        path.down.conditions.up = false;
        path.run_ms(outage_ms, layers);
        path.down.conditions.up = true;
        let from = path.seconds.len() as u64 * 1000;
        let mut back = 0;
        while path.estimate_kbps() < 2_560 || back < 500 {
            path.run_ms(100, layers);
            back += 100;
            assert!(back < 10_000, "cut for {outage_ms} ms, not back in 10 s");
        }
        println!("cut for {outage_ms} ms after {from} ms: back {back} ms later");
    }
}

#[test]
fn the_whole_path_goes_down_without_a_freeze_and_comes_back() {
    for seed in 1..=5 {
        let mut whole = Whole::new(seed, Conditions::rate(4000).queue(300));
        whole.run(15);
        whole.down.conditions.rate_kbps = 350;
        whole.run(20);
        whole.down.conditions.rate_kbps = 4000;
        whole.run(15);
        let viewer = &whole.viewer;
        let first = viewer.steadily(720, 0).expect("the full layer");
        let down = viewer.freeze(14_500, 20_000);
        let small = viewer.freeze(20_000, 35_000);
        let back = viewer.steadily(720, 35_000).expect("the full layer again") - 35_000;
        println!(
            "seed {seed}: full after {first} ms, freeze going down {down} ms, then {small} ms, full again {back} ms"
        );
        within("first full picture", first, 0..=5_000);
        within("freeze going down", down, 0..=1_000);
        within("freeze while down", small, 0..=400);
        within("full layer back", back, 0..=10_000);
        within("freeze going up", viewer.freeze(35_000, 49_900), 0..=400);
        within("audio waits to leave", whole.audio_wait_ms, 0..=0);
    }
}

#[test]
fn the_whole_path_goes_on_under_loss() {
    // Loss; longest freeze, pictures of 900 at least, and how many of them in the largest layer.
    for (loss, freeze, pictures, largest) in [
        (0.0, 200, 890, 890),
        (0.02, 500, 880, 880),
        (0.1, 900, 800, 800),
        (0.2, 1_500, 700, 50),
    ] {
        let mut of_all = 0;
        for seed in 1..=5 {
            let mut whole = Whole::new(seed, Conditions::rate(4000).losing(loss));
            whole.run(40);
            let viewer = &whole.viewer;
            let (longest, shown) = (viewer.freeze(10_000, 40_000), viewer.frames(10_000, 40_000));
            let full = viewer.shown.iter().filter(|s| s.0 > 10_000 && s.1 == 720).count();
            println!(
                "loss {loss} seed {seed}: freeze {longest} ms, {shown} pictures, {full} of them full, {} repeats, {} key frames asked, audio in the queue {} ms",
                whole.repeats, viewer.plis, whole.audio_delay_ms
            );
            within("longest freeze", longest, 0..=freeze);
            within("pictures", shown as u64, pictures..=915);
            within("of them in the largest layer", full as u64, largest..=915);
            within("audio in the queue", whole.audio_delay_ms, 0..=200);
            of_all += full as u64;
        }
        within("on the average", of_all / 5, largest.max(300)..=915);
    }
}
