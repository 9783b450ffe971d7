//! What a link knows of its path before anything was sent on it.

use std::sync::Arc;

use bytes::BytesMut;
use muster_link::repair::rate::Bounds;
use muster_link::repair::wire::Datagram;
use muster_link::repair::{Budget, Receiver, Sender, Terms};
use muster_linkshape::{Direction, Network, Profile, Row};

const SECOND: u64 = 1_000_000;
const TERMS: Terms = Terms {
    video_deadline: 400_000,
    audio_deadline: 400_000,
};

/// Explores for so many µs; the rate that it found, and the datagrams that it took.
fn explore(row: Row, seed: u64, until: u64) -> (u64, u64) {
    let profile = Profile::from_rows("made", vec![row], 60 * SECOND).expect("a row");
    let mut network = Network::new(Arc::new(profile), seed);
    let mut sender = Sender::new(Budget::Fixed(TERMS), Bounds::default());
    let mut receiver = Receiver::new();
    let mut scratch = BytesMut::new();
    sender.explore();
    let mut now = 0;
    while now < until {
        while let Some((direction, bytes)) = network.pop(now) {
            match (direction, Datagram::read(&bytes).expect("one of ours")) {
                (Direction::Down, Datagram::Feedback(feedback)) => sender.feedback(now, &feedback),
                (Direction::Up, datagram) => receiver
                    .take(now, datagram, &mut |_| panic!("nothing was sent"))
                    .expect("one of ours"),
                other => panic!("{other:?}"),
            }
        }
        while let Some(feedback) = receiver.poll(now, &mut scratch) {
            network.send(now, Direction::Down, feedback);
        }
        while let Some(datagram) = sender.poll(now, &mut scratch) {
            network.send(now, Direction::Up, datagram);
        }
        let next = [network.next_at(), sender.wake(now), receiver.wake()];
        now = next.into_iter().flatten().min().unwrap_or(until).max(now + 200);
    }
    (sender.rate(), sender.stats().datagrams)
}

fn row(rate_kbps: u32, loss: f64) -> Row {
    Row {
        rate_kbps,
        queue_ms: 500,
        delay_us: 40_000,
        jitter_us: 5_000,
        loss_good: loss,
        ..Row::default()
    }
}

#[test]
fn a_good_path_is_known_within_a_second() {
    for (kbps, least, most) in [
        (2_000, 400_000, 2_000_000),
        (4_000, 2_200_000, 4_000_000),
        (50_000, 3_000_000, 6_000_000),
    ] {
        for seed in 1..=5 {
            let (rate, datagrams) = explore(row(kbps, 0.0), seed, SECOND);
            assert!((least..=most).contains(&rate), "{kbps}, {seed}: {rate}");
            // Where the last comes first a train is sent again.
            assert!(datagrams <= 3 + 12 + 32 + 12, "{kbps}, {seed}: {datagrams}");
        }
    }
}

#[test]
fn a_narrow_path_is_not_filled() {
    for (kbps, least, datagrams) in [(128, 80_000, 3), (500, 150_000, 15), (1_000, 350_000, 15)] {
        for seed in 1..=5 {
            let (rate, took) = explore(row(kbps, 0.0), seed, 3 * SECOND);
            let most = u64::from(kbps) * 1000;
            assert!((least..=most).contains(&rate), "{kbps}, {seed}: {rate}");
            assert!(took <= datagrams, "{kbps}, {seed}: {took}");
        }
    }
}

#[test]
fn loss_does_not_lead_astray() {
    let mut rates: Vec<_> = (1..=20)
        .map(|seed| explore(row(4_000, 0.3), seed, 2 * SECOND).0)
        .collect();
    rates.sort_unstable();
    assert!(rates[10] >= 500_000, "{rates:?}");
    assert!(rates[19] <= 6_000_000, "{rates:?}");
}

#[test]
fn a_path_that_takes_nothing_is_left_alone() {
    let dead = Row {
        up: false,
        ..row(4_000, 0.0)
    };
    let (rate, datagrams) = explore(dead, 1, 20 * SECOND);
    assert_eq!(rate, Bounds::default().start);
    assert!(datagrams <= 9, "{datagrams}");
}
