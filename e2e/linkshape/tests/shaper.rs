//! What holds for every profile and every sender, and the link in memory.

use muster_linkshape::{Cause, Direction, IP_UDP_OVERHEAD, Network, Profile, Row, Shaper, Verdict};
use proptest::prelude::*;
use std::sync::Arc;

fn constant(row: Row) -> Arc<Profile> {
    Arc::new(Profile::constant(row))
}

fn lossy() -> Row {
    Row {
        loss_good: 0.05,
        loss_bad: 0.7,
        p_gb: 0.1,
        p_bg: 0.3,
        ..Row::default()
    }
}

/// The numbers of the packets that are lost to the chain.
fn losses(shaper: &mut Shaper, packets: u64, gap_us: u64, bytes: impl Fn(u64) -> usize) -> Vec<u64> {
    (0..packets)
        .filter(|n| shaper.offer(n * gap_us, bytes(*n)) == Verdict::Drop(Cause::Loss))
        .collect()
}

#[test]
fn which_packet_is_lost_does_not_depend_on_sizes_times_and_other_drops() {
    let roomy = losses(&mut Shaper::new(constant(lossy()), 9), 5_000, 10_000, |_| 100);
    assert!(roomy.len() > 500);
    // Most packets overflow here; who is lost stays the same.
    let narrow = Row {
        rate_kbps: 64,
        queue_ms: 5,
        delay_us: 90_000,
        jitter_us: 50_000,
        ..lossy()
    };
    let mut shaper = Shaper::new(constant(narrow), 9);
    assert_eq!(
        losses(&mut shaper, 5_000, 700, |n| 40 + (n as usize * 7) % 1400),
        roomy
    );
    assert!(shaper.counters().overflowed.packets > 2_000);
    // Down for a time: the chain goes on meanwhile.
    let rows = vec![
        lossy(),
        Row {
            from_us: 1_000_000,
            up: false,
            ..lossy()
        },
        Row {
            from_us: 3_000_000,
            ..lossy()
        },
    ];
    let gap = Arc::new(Profile::from_rows("gap", rows, 60_000_000).expect("a profile"));
    let outside: Vec<u64> = roomy
        .iter()
        .copied()
        .filter(|n| !(100..300).contains(n))
        .collect();
    assert_eq!(losses(&mut Shaper::new(gap, 9), 5_000, 10_000, |_| 100), outside);
}

#[test]
fn the_queue_drains_at_the_rate_in_force() {
    // 1000 bytes are 8 ms at 1 Mbit/s and 80 ms at 100 kbit/s.
    let row = |from_us, rate_kbps| Row {
        from_us,
        rate_kbps,
        queue_ms: 1_000,
        delay_us: 0,
        ..Row::default()
    };
    let rows = vec![row(0, 1_000), row(20_000, 100), row(200_000, 1_000)];
    let profile = Arc::new(Profile::from_rows("cliff", rows, 400_000).expect("a profile"));
    let mut shaper = Shaper::new(profile, 1);
    let at: Vec<Verdict> = (0..6).map(|_| shaper.offer(0, 1_000)).collect();
    // The third has 4 ms at the fast rate and the other half at the slow one: 40 ms. The fifth gets 60 of its 80 ms.
    let expected = [8_000, 16_000, 60_000, 140_000, 202_000, 210_000];
    assert_eq!(at, expected.map(|at_us| Verdict::Deliver { at_us }));
    assert_eq!(shaper.counters().max_queue_us, 202_000);
    // Arriving in the slow row, the queue is measured at the slow rate.
    let mut shaper = Shaper::new(shaper_profile(&shaper), 1);
    let taken = (0..100)
        .filter(|_| matches!(shaper.offer(100_000, 1_000), Verdict::Deliver { .. }))
        .count();
    assert_eq!(
        taken, 13,
        "the one being sent, and those that wait for 80 ms to 960 ms"
    );
}

fn shaper_profile(shaper: &Shaper) -> Arc<Profile> {
    Arc::new(shaper.profile().clone())
}

#[test]
fn packets_in_flight_arrive_although_the_link_goes_down() {
    let rows = vec![
        Row {
            delay_us: 300_000,
            ..Row::default()
        },
        Row {
            from_us: 50_000,
            up: false,
            ..Row::default()
        },
    ];
    let mut network = Network::new(
        Arc::new(Profile::from_rows("cut", rows, 10_000_000).expect("a profile")),
        1,
    );
    assert!(matches!(
        network.send(49_000, Direction::Up, &b"before"[..]),
        Verdict::Deliver { .. }
    ));
    assert_eq!(
        network.send(50_000, Direction::Up, &b"after"[..]),
        Verdict::Drop(Cause::Down)
    );
    assert_eq!(network.pop(u64::MAX), Some((Direction::Up, "before".into())));
    assert_eq!(network.pop(u64::MAX), None);
}

#[test]
fn held_it_loses_nothing_and_released_it_begins_anew() {
    let row = Row {
        loss_good: 0.8,
        loss_bad: 0.8,
        rate_kbps: 1_000,
        jitter_us: 4_000,
        ..Row::default()
    };
    let profile = constant(row);
    let from_start = losses(&mut Shaper::new(Arc::clone(&profile), 4), 2_000, 5_000, |_| 200);
    for handshake in [0, 1, 17] {
        let mut shaper = Shaper::new(Arc::clone(&profile), 4);
        shaper.hold(1_000);
        for n in 0..handshake {
            let now_us = 2_000 + n * 5_000;
            let Verdict::Deliver { at_us } = shaper.offer(now_us, 250) else {
                panic!("dropped while held")
            };
            // 2 ms to send, 10 ± 4 ms to travel.
            assert!((8_000..=16_000).contains(&(at_us - now_us)), "{}", at_us - now_us);
        }
        let began = 777_777;
        shaper.release(began);
        let lost: Vec<u64> = (0..2_000)
            .filter(|n| shaper.offer(began + n * 5_000, 200) == Verdict::Drop(Cause::Loss))
            .collect();
        assert_eq!(lost, from_start, "after {handshake} packets of handshake");
        assert_eq!(shaper.counters().offered.packets, handshake + 2_000);
    }
}

#[test]
fn a_release_begins_the_first_row_and_keeps_what_is_queued() {
    let rows = vec![
        Row {
            rate_kbps: 1_000,
            delay_us: 0,
            ..Row::default()
        },
        Row {
            from_us: 100_000,
            up: false,
            delay_us: 0,
            ..Row::default()
        },
    ];
    let mut shaper = Shaper::new(
        Arc::new(Profile::from_rows("two", rows, 200_000).expect("a profile")),
        4,
    );
    shaper.hold(0);
    assert_eq!(
        shaper.offer(5_000_000, 1_000),
        Verdict::Deliver { at_us: 5_008_000 },
        "never down while held"
    );
    shaper.release(5_002_000);
    assert_eq!(
        shaper.offer(5_002_000, 1_000),
        Verdict::Deliver { at_us: 5_016_000 },
        "behind the one before"
    );
    assert_eq!(
        shaper.offer(5_101_999, 1_000),
        Verdict::Deliver { at_us: 5_102_160 },
        "its second row is faster"
    );
    assert_eq!(shaper.offer(5_102_000, 1_000), Verdict::Drop(Cause::Down));
}

#[test]
fn both_directions_are_the_shapers_of_their_seeds() {
    let profile = constant(Row {
        jitter_us: 3_000,
        ..lossy()
    });
    let mut network = Network::new(Arc::clone(&profile), 42);
    let mut alone = Direction::BOTH.map(|direction| Shaper::new(Arc::clone(&profile), direction.seed(42)));
    for n in 0..3_000u64 {
        for (direction, shaper) in Direction::BOTH.into_iter().zip(&mut alone) {
            let payload = vec![n as u8; 10 + n as usize % 900];
            let expected = shaper.offer(n * 1_000, payload.len() + IP_UDP_OVERHEAD);
            assert_eq!(network.send(n * 1_000, direction, payload), expected);
        }
    }
    for (direction, shaper) in Direction::BOTH.into_iter().zip(&alone) {
        assert_eq!(network.counters(direction), shaper.counters());
    }
    assert_ne!(alone[0].counters(), alone[1].counters());
}

#[test]
fn the_network_gives_each_packet_at_its_time_and_in_order() {
    let mut network = Network::new(
        constant(Row {
            delay_us: 10_000,
            ..Row::default()
        }),
        1,
    );
    assert_eq!((network.next_at(), network.pop(u64::MAX)), (None, None));
    let mut sent = Vec::new();
    for n in 0..50u64 {
        let direction = Direction::BOTH[n as usize % 2];
        let Verdict::Deliver { at_us } = network.send(n * 100, direction, vec![n as u8; 97]) else {
            panic!("dropped")
        };
        sent.push((at_us, direction, n as u8));
    }
    sent.sort();
    for (at_us, direction, n) in sent {
        assert_eq!(network.next_at(), Some(at_us));
        assert_eq!(network.pop(at_us - 1), None, "not yet");
        let (way, payload) = network.pop(at_us).expect("it is there");
        assert_eq!((way, payload[0]), (direction, n));
    }
    assert_eq!(network.next_at(), None);
}

fn any_profile() -> impl Strategy<Value = Profile> {
    let row = (
        1..=200u64,
        1..=20_000u32,
        0..=500u32,
        0..=300u64,
        0..=300u64,
        any::<[u8; 4]>(),
        0..10u8,
    );
    prop::collection::vec(row, 1..8).prop_map(|rows| {
        let mut end_us = 0;
        let rows = rows
            .into_iter()
            .map(|(gap, rate_kbps, queue_ms, delay, jitter, chances, up)| {
                let [loss_good, loss_bad, p_gb, p_bg] = chances.map(|c| f64::from(c) / 255.0);
                let (delay_us, jitter_us, from_us) = (delay * 1000, jitter.min(delay) * 1000, end_us);
                end_us += gap * 1000;
                Row {
                    from_us,
                    rate_kbps,
                    queue_ms,
                    delay_us,
                    jitter_us,
                    loss_good,
                    loss_bad,
                    p_gb,
                    p_bg,
                    up: up > 0,
                }
            });
        let rows = rows.collect();
        Profile::from_rows("any", rows, end_us).expect("a profile")
    })
}

proptest! {
    #[test]
    fn every_packet_is_counted_in_order_and_in_time(
        profile in any_profile(),
        seed in any::<u64>(),
        packets in prop::collection::vec((0..30_000u64, 28..1500usize), 0..300),
        held in 0..100usize,
    ) {
        let profile = Arc::new(profile);
        let least = profile.rows().iter().map(|row| row.delay_us - row.jitter_us).min().expect("a row");
        let fastest = profile.rows().iter().map(|row| row.rate_kbps).max().expect("a row");
        let mut shaper = Shaper::new(Arc::clone(&profile), seed);
        shaper.hold(0);
        let (mut now_us, mut last, mut delivered) = (0, 0, 0);
        let mut in_flight: Vec<(u64, u64)> = Vec::new();
        for (n, (gap_us, bytes)) in packets.iter().copied().enumerate() {
            now_us += gap_us;
            if n == held {
                shaper.release(now_us);
            }
            if let Verdict::Deliver { at_us } = shaper.offer(now_us, bytes) {
                prop_assert!(at_us >= last, "in order");
                prop_assert!(at_us >= now_us + least + bytes as u64 * 8000 / u64::from(fastest));
                last = at_us;
                delivered += bytes as u64;
                in_flight.retain(|(at_us, _)| *at_us > now_us);
                in_flight.push((at_us, bytes as u64));
                let held_bytes = in_flight.iter().map(|(_, bytes)| bytes).sum::<u64>();
                prop_assert!(held_bytes <= profile.most_in_flight(1500), "{held_bytes}");
            }
        }
        let counters = shaper.counters();
        let all = [counters.delivered, counters.lost, counters.overflowed, counters.down];
        prop_assert_eq!(counters.offered.packets, packets.len() as u64);
        prop_assert_eq!(all.iter().map(|tally| tally.packets).sum::<u64>(), counters.offered.packets);
        prop_assert_eq!(all.iter().map(|tally| tally.bytes).sum::<u64>(), counters.offered.bytes);
        prop_assert_eq!(counters.delivered.bytes, delivered);
    }

    #[test]
    fn no_time_and_no_size_makes_it_panic(
        profile in any_profile(),
        offers in prop::collection::vec((any::<u64>(), any::<usize>()), 0..20),
    ) {
        let mut shaper = Shaper::new(Arc::new(profile), 1);
        for (n, (now_us, bytes)) in offers.into_iter().enumerate() {
            match n % 5 {
                3 => shaper.hold(now_us),
                4 => shaper.release(now_us),
                _ => {}
            }
            shaper.offer(now_us, bytes);
        }
    }
}
