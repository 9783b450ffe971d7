//! Frames left out of a layer leave no trace in the viewer's numbers, whatever is lost or late on the way here.
mod common;
use std::collections::{BTreeMap, BTreeSet};

use common::{Publisher, Room, Sent};
use muster_forward::{Forwarded, LegId, SlotStatus, vp8};
use proptest::prelude::*;

const TIDS: [(u8, bool); 8] = [
    (0, false),
    (2, true),
    (1, true),
    (2, false),
    (0, false),
    (2, false),
    (1, false),
    (2, false),
];
const PACKET: usize = 436;

#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Late,
}

#[derive(Clone, Debug)]
enum Action {
    Frame { key: bool, fates: Vec<Fate> },
    Release,
    Budget(u64),
}

struct Run {
    room: Room,
    publisher: Publisher,
    frame: usize,
    tl0: u8,
    /// By number as sent: what was sent, and what came out of it.
    sent: BTreeMap<i64, (Sent, Option<Forwarded>)>,
    /// What came in its order: of anything else the core could not know in time what it was.
    in_order: BTreeSet<i64>,
    next: i64,
    held: Vec<(i64, Sent)>,
}

impl Run {
    fn new(start: u16) -> Self {
        let mut room = Room::new();
        room.camera(1, "a", &[180]);
        room.video_slot(10, 100);
        room.wish(100, &[(10, "a", 180)]);
        let mut run = Run {
            room,
            publisher: Publisher::new(start, 180),
            frame: 0,
            tl0: 0,
            sent: BTreeMap::new(),
            in_order: BTreeSet::new(),
            next: 0,
            held: Vec::new(),
        };
        // Two seconds, so that the rates are known: 30 frames of 2 packets, 4000 bits each.
        run.act(&Action::Frame {
            key: true,
            fates: vec![Fate::Arrives; 2],
        });
        for _ in 0..60 {
            run.act(&Action::Frame {
                key: false,
                fates: vec![Fate::Arrives; 2],
            });
        }
        run
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Frame { key, fates } => self.send(*key, fates),
            Action::Release => {
                for (number, sent) in std::mem::take(&mut self.held) {
                    self.arrive(number, &sent);
                }
            }
            Action::Budget(bps) => {
                self.room
                    .meeting
                    .set_budget(self.room.now, LegId(100), Some(*bps));
                self.room.drain();
            }
        }
    }

    fn send(&mut self, key: bool, fates: &[Fate]) {
        if key {
            self.frame = 0;
        }
        let (tid, sync) = TIDS[self.frame % TIDS.len()];
        self.frame += 1;
        self.tl0 = self.tl0.wrapping_add(u8::from(tid == 0));
        for (mut sent, fate) in self.publisher.frame(key, fates.len()).into_iter().zip(fates) {
            sent.payload[4] = self.tl0;
            sent.payload[5] = tid << 6 | u8::from(sync) << 5;
            sent.payload.resize(PACKET, 0x11);
            let number = self.next;
            self.next += 1;
            self.sent.insert(number, (sent.clone(), None));
            match fate {
                Fate::Arrives => self.arrive(number, &sent),
                Fate::Lost => {}
                Fate::Twice => {
                    self.arrive(number, &sent);
                    self.arrive(number, &sent);
                }
                Fate::Late => self.held.push((number, sent)),
            }
        }
        self.room.pass(33);
    }

    fn arrive(&mut self, number: i64, sent: &Sent) {
        if self.in_order.last().is_none_or(|&last| last < number) {
            self.in_order.insert(number);
        }
        let out = self.room.send(1, 0, sent);
        assert!(out.len() <= 1);
        if let Some(&out) = out.first() {
            let slot = &mut self.sent.get_mut(&number).expect("sent").1;
            assert!(slot.is_none(), "the same packet twice");
            *slot = Some(out);
        }
    }

    /// Pairs of neighbours in the viewer's numbers.
    fn check(&self) {
        let out: Vec<_> = self
            .sent
            .iter()
            .filter_map(|(&number, (sent, out))| Some((number, sent, (*out)?)))
            .collect();
        for pair in out.windows(2) {
            let [(from, before, a), (to, after, b)] = pair else {
                unreachable!("windows of two")
            };
            let lost = (from + 1..*to)
                .filter(|number| !self.in_order.contains(number))
                .count();
            let step = b.seq.wrapping_sub(a.seq);
            assert!(step >= 1, "in order: {from}, {to}");
            assert!(
                usize::from(step) <= 1 + lost,
                "a gap of {step} from {from} to {to} with {lost} lost"
            );
            let numbers = |sent: &Sent, out: &Forwarded| {
                let mut payload = sent.payload.clone();
                out.patch.expect("picture ids").apply(&mut payload);
                vp8::parse(&payload).expect("ours")
            };
            let (x, y) = (numbers(before, a), numbers(after, b));
            let id = |d: &vp8::Descriptor| d.picture_id.expect("it has one").value;
            let pictures = id(&y).wrapping_sub(id(&x)) & 0x7fff;
            let new = u16::from(before.timestamp != after.timestamp);
            assert!(pictures >= new && usize::from(pictures) <= usize::from(new) + lost);
            let base = y
                .tl0_pic_idx
                .expect("it has one")
                .wrapping_sub(x.tl0_pic_idx.expect("it has one"));
            let sent_base = after.payload[4].wrapping_sub(before.payload[4]);
            assert_eq!(base, sent_base, "all base pictures go out");
            assert!(b.timestamp.wrapping_sub(a.timestamp) as i32 >= 0);
        }
    }

    fn out(&self, from: i64) -> usize {
        self.sent
            .range(from..)
            .filter(|(_, (_, out))| out.is_some())
            .count()
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![10 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 1 => Just(Fate::Twice), 2 => Just(Fate::Late)]
}

fn action() -> impl Strategy<Value = Action> {
    let fates = prop::collection::vec(fate(), 1..5);
    prop_oneof![
        12 => (proptest::bool::weighted(0.05), fates).prop_map(|(key, fates)| Action::Frame { key, fates }),
        2 => Just(Action::Release),
        1 => prop::sample::select(vec![200_000, 350_000, 600_000, 2_000_000]).prop_map(Action::Budget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_out_leaves_no_gap_and_what_is_lost_keeps_its_place(
        start in prop_oneof![any::<u16>(), 65_300..=65_535u16, 32_600..=32_767u16],
        actions in prop::collection::vec(action(), 1..150),
    ) {
        let mut run = Run::new(start);
        for action in &actions {
            run.act(action);
        }
        run.check();
    }
}

#[test]
fn a_long_time_with_base_frames_only_wraps_every_number() {
    let mut run = Run::new(40_000);
    run.act(&Action::Budget(90_000));
    for n in 0..70_000 {
        // Upper frames are at odd places; some of them are lost, whole or in part.
        let fates = match n % 50 {
            7 => vec![Fate::Lost, Fate::Arrives],
            19 => vec![Fate::Arrives, Fate::Lost],
            _ => vec![Fate::Arrives; 2],
        };
        run.act(&Action::Frame { key: false, fates });
    }
    run.check();
    assert_eq!(run.room.status(10), SlotStatus::Live);
    let seqs: Vec<_> = run
        .sent
        .values()
        .filter_map(|(_, out)| Some(out.as_ref()?.seq))
        .collect();
    let gaps = seqs
        .windows(2)
        .filter(|pair| pair[1] != pair[0].wrapping_add(1))
        .count();
    let base_or_unsure = 70_000 / 50 * 2;
    assert!(gaps < base_or_unsure, "{gaps}");
    assert!(run.out(1000) < 70_000 * 2 / 3);
}

#[test]
fn a_lost_packet_of_a_frame_that_is_left_out_provokes_no_request() {
    let mut run = Run::new(7);
    run.act(&Action::Budget(90_000));
    let from = run.next;
    for n in 0..32 {
        let upper = TIDS[run.frame % TIDS.len()].0 > 0;
        let fates = match (upper, n % 3) {
            (true, 0) => vec![Fate::Arrives, Fate::Lost, Fate::Arrives],
            (true, 1) => vec![Fate::Arrives, Fate::Arrives, Fate::Lost],
            (true, _) => vec![Fate::Lost, Fate::Arrives, Fate::Arrives],
            (false, _) => vec![Fate::Arrives; 3],
        };
        run.act(&Action::Frame { key: false, fates });
    }
    let seqs: Vec<_> = run
        .sent
        .range(from..)
        .filter_map(|(_, (_, out))| Some(out.as_ref()?.seq))
        .collect();
    assert!(seqs.len() >= 8 * 3, "the base frames");
    assert!(
        seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)),
        "{seqs:?}"
    );
}

#[test]
fn a_lost_packet_of_a_frame_that_goes_out_keeps_its_place() {
    let mut run = Run::new(7);
    run.act(&Action::Budget(90_000));
    for _ in 0..3 {
        run.act(&Action::Frame {
            key: false,
            fates: vec![Fate::Arrives; 2],
        });
    }
    while TIDS[run.frame % TIDS.len()].0 > 0 {
        run.act(&Action::Frame {
            key: false,
            fates: vec![Fate::Arrives; 2],
        });
    }
    let from = run.next;
    run.act(&Action::Frame {
        key: false,
        fates: vec![Fate::Arrives, Fate::Late, Fate::Arrives],
    });
    for _ in 0..6 {
        run.act(&Action::Frame {
            key: false,
            fates: vec![Fate::Arrives; 2],
        });
    }
    let seqs = |run: &Run| -> Vec<u16> {
        run.sent
            .range(from..)
            .filter_map(|(_, (_, out))| Some(out.as_ref()?.seq))
            .collect()
    };
    let before = seqs(&run);
    assert_eq!(before[1], before[0].wrapping_add(2));
    run.act(&Action::Release);
    let after = seqs(&run);
    assert_eq!(after[1], after[0].wrapping_add(1));
    assert!(
        after.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)),
        "{after:?}"
    );
}
