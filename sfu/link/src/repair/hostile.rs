//! What a peer can do to the core: nothing but be unheard.
//!
//! Any feedback and any datagram, in any order and again, never panic and keep memory within its bounds.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::rate::Bounds;
use super::wire::{BlockId, Datagram, Feedback};
use super::{Budget, Class, Micros, Packet, Receiver, Sender, Terms};

/// What happens next to a sender.
#[derive(Debug, Clone)]
enum Event {
    Push {
        video: bool,
        end: bool,
        len: usize,
        old: Micros,
    },
    Poll,
    Wait(Micros),
    Feedback(Feedback),
    /// The one before again.
    Replay,
}

fn feedback() -> impl Strategy<Value = Feedback> {
    let near = prop_oneof![0u16..40, any::<u16>()];
    let bitmap = proptest::collection::vec(any::<u8>(), 0..=128);
    let clock = prop_oneof![0u32..5_000_000, any::<u32>()];
    (
        clock,
        near.clone(),
        any::<u16>(),
        any::<u16>(),
        any::<u64>(),
        near,
        bitmap,
    )
        .prop_map(|(clock, newest, age, received, before, first, bitmap)| Feedback {
            clock,
            newest,
            age,
            received,
            before,
            first,
            bitmap: bitmap.into(),
        })
}

fn event() -> impl Strategy<Value = Event> {
    let old = prop_oneof![Just(0), 0u64..3_000_000];
    prop_oneof![
        6 => (any::<bool>(), any::<bool>(), 0usize..1300, old)
            .prop_map(|(video, end, len, old)| Event::Push { video, end, len, old }),
        6 => Just(Event::Poll),
        2 => (0u64..60_000).prop_map(Event::Wait),
        1 => (0u64..20_000_000).prop_map(Event::Wait),
        3 => feedback().prop_map(Event::Feedback),
        1 => Just(Event::Replay),
    ]
}

fn terms() -> impl Strategy<Value = Budget> {
    prop_oneof![
        Just(Budget::Auto),
        (0u64..2_000_000, 0u64..2_000_000).prop_map(|(video_deadline, audio_deadline)| {
            Budget::Fixed(Terms {
                video_deadline,
                audio_deadline,
            })
        }),
    ]
}

fn datagram() -> impl Strategy<Value = Datagram> {
    let near = prop_oneof![0u16..60, any::<u16>()];
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from);
    let shard = (1usize..20).prop_map(|pairs| Bytes::from(vec![7; pairs * 2]));
    prop_oneof![
        (near.clone(), near.clone(), bytes(40)).prop_map(|(transmission, number, body)| Datagram::Packet {
            transmission,
            number,
            body
        }),
        (near.clone(), near.clone(), 1u8.., 1u8.., any::<u8>(), shard).prop_map(
            |(transmission, first, packets, shards, index, shard)| Datagram::Parity {
                transmission,
                block: BlockId {
                    first,
                    packets,
                    shards
                },
                index: index % shards,
                shard,
            }
        ),
        (near.clone(), proptest::collection::vec((near, bytes(20)), 1..32)).prop_map(
            |(transmission, packets)| Datagram::Bundle {
                transmission,
                packets
            }
        ),
        feedback().prop_map(Datagram::Feedback),
        any::<u16>().prop_map(|transmission| Datagram::Filling {
            transmission,
            bytes: 1100
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_sender_takes_any_feedback(budget in terms(), events in proptest::collection::vec(event(), 1..400)) {
        let mut sender = Sender::new(budget, Bounds::default());
        let mut scratch = BytesMut::new();
        let (mut now, mut last) = (5_000_000, None);
        for event in events {
            match event {
                Event::Push { video, end, len, old } => {
                    let class = if video { Class::Video } else { Class::Audio };
                    let body = Bytes::from(vec![1; len]);
                    sender.push(now, Packet { class, captured: now - old, end, body });
                }
                Event::Poll => for _ in 0..20 {
                    if sender.poll(now, &mut scratch).is_none() {
                        break;
                    }
                },
                Event::Wait(passed) => now += passed,
                Event::Feedback(feedback) => {
                    sender.feedback(now, &feedback);
                    last = Some(feedback);
                }
                Event::Replay => if let Some(feedback) = &last {
                    sender.feedback(now, feedback);
                },
            }
            let rate = sender.rate();
            prop_assert!((64_000..=100_000_000).contains(&rate), "{rate}");
            sender.wake(now);
            sender.source_rate(now);
        }
    }

    #[test]
    fn a_receiver_takes_any_datagram(datagrams in proptest::collection::vec((datagram(), 0u64..200_000), 1..300)) {
        let mut receiver = Receiver::new();
        let mut scratch = BytesMut::new();
        let mut now = 0;
        for (datagram, passed) in datagrams {
            now += passed;
            // Feedback is not a receiver's, and that is all it says.
            let _ = receiver.take(now, datagram, &mut |_: Bytes| {});
            receiver.poll(now, &mut scratch);
            let [places, shards] = receiver.sizes();
            prop_assert!(places <= 2 * 1024 && shards <= 8 * 256, "{places} {shards}");
        }
    }
}

/// Everything is said to be lost, nothing may be sent, and packets go on coming.
#[test]
fn a_sender_that_is_lied_to_stays_small() {
    let mut sender = Sender::new(Budget::default(), Bounds::default());
    let mut scratch = BytesMut::new();
    let mut most = [0; 7];
    for step in 0..60_000u64 {
        let now = 1_000_000 + step * 500;
        let packet = Packet {
            class: if step % 7 == 0 { Class::Audio } else { Class::Video },
            captured: now,
            end: step % 9 == 0,
            body: Bytes::from_static(&[3; 1100]),
        };
        sender.push(now, packet);
        sender.poll(now, &mut scratch);
        if step % 10 == 0 {
            let feedback = Feedback {
                clock: (now + 7) as u32,
                newest: (sender.stats().datagrams as u16).wrapping_sub(1),
                age: 0,
                received: 1,
                before: 0,
                first: 0,
                bitmap: Bytes::new(),
            };
            sender.feedback(now, &feedback);
        }
        for (most, size) in most.iter_mut().zip(sender.sizes()) {
            *most = size.max(*most);
        }
    }
    let bounds = [4097, 8192, 4097, 20_000, 4096, 512, 512];
    for (most, bound) in most.iter().zip(bounds) {
        assert!(*most <= bound, "{most:?} {bounds:?}");
    }
}

/// Parity alone, each of packets that are far ahead: what is missing is remembered as far back as ever.
#[test]
fn parity_alone_does_not_fill_a_receiver() {
    let mut receiver = Receiver::new();
    let mut first = 0u16;
    for transmission in 0..5_000u16 {
        first = first.wrapping_add(800);
        let block = BlockId {
            first,
            packets: 2,
            shards: 1,
        };
        let datagram = Datagram::Parity {
            transmission,
            block,
            index: 0,
            shard: Bytes::from_static(&[0, 0]),
        };
        receiver
            .take(u64::from(transmission) * 100, datagram, &mut |_: Bytes| {})
            .expect("parity");
        let [places, shards] = receiver.sizes();
        assert!(places <= 1024 && shards <= 8 * 256, "{places} {shards}");
    }
}

/// The receiver's clock is told in 32 bits of microseconds, which is 72 minutes: a link rests for longer.
#[test]
fn a_link_that_rested_for_long_is_heard_again() {
    for minutes in [1u64, 30, 40, 60, 75, 100, 24 * 60] {
        let mut sender = Sender::new(Budget::default(), Bounds::default());
        let mut scratch = BytesMut::new();
        let rest = minutes * 60_000_000;
        for (number, now) in [(0u16, 1_000_000), (1, 1_000_000 + rest)] {
            let packet = Packet {
                class: Class::Audio,
                captured: now,
                end: false,
                body: Bytes::from_static(&[3; 100]),
            };
            sender.push(now, packet);
            let sent = now + 50_000;
            sender.poll(sent, &mut scratch).expect("a datagram");
            let feedback = Feedback {
                clock: (sent + 3_000_000_000) as u32,
                newest: number,
                received: number + 1,
                before: u64::from(number),
                first: number + 1,
                ..Feedback::default()
            };
            sender.feedback(sent + 20_000, &feedback);
        }
        assert_eq!(sender.stats().feedback, 2, "{minutes} minutes");
        assert_eq!(sender.unanswered_for(1_200_000 + rest), None, "{minutes} minutes");
    }
}
