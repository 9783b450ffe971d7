//! Whatever comes in and however slots are switched, a viewer sees one unbroken run of numbers.
mod common;
use std::collections::BTreeSet;

use common::{Publisher, Room, Sent};
use muster_forward::{Codec, Forwarded, SlotId, SourceKind};
use proptest::prelude::*;

const FEEDS: [(u64, usize); 4] = [(1, 0), (1, 1), (2, 0), (2, 1)];

#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Late,
}

#[derive(Clone, Debug)]
enum Action {
    Frame {
        feed: usize,
        key: bool,
        fates: Vec<Fate>,
    },
    /// The packets held up arrive now.
    Release,
    /// Source 1 or 2, small or large layer; 0 empties the slot.
    Wish {
        site: usize,
        large: bool,
    },
    Pass {
        ms: u64,
    },
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![12 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 1 => Just(Fate::Twice), 2 => Just(Fate::Late)]
}

fn action() -> impl Strategy<Value = Action> {
    let frame = (
        0..FEEDS.len(),
        proptest::bool::weighted(0.3),
        prop::collection::vec(fate(), 1..5),
    );
    prop_oneof![
        12 => frame.prop_map(|(feed, key, fates)| Action::Frame { feed, key, fates }),
        2 => Just(Action::Release),
        2 => (0..3usize, any::<bool>()).prop_map(|(site, large)| Action::Wish { site, large }),
        3 => (0..700u64).prop_map(|ms| Action::Pass { ms }),
    ]
}

/// What the viewer has seen, checked packet by packet.
#[derive(Default)]
struct Viewer {
    seen: BTreeSet<i64>,
    /// Extended seq and timestamp of all.
    all: Vec<(i64, u32)>,
    highest: i64,
    highest_picture: u16,
    segment: Option<Segment>,
    remapped: bool,
}

struct Segment {
    feed: usize,
    start: i64,
    seq_shift: u16,
    timestamp_shift: u32,
    picture_shift: u16,
    newest_seq: i64,
}

impl Viewer {
    fn take(&mut self, feed: usize, sent: &Sent, out: &Forwarded) {
        let patch = out.patch.expect("VP8 with a picture id is patched");
        let in_picture = u16::from_be_bytes([sent.payload[2], sent.payload[3]]) & 0x7fff;
        let seq_shift = out.seq.wrapping_sub(sent.seq);
        let timestamp_shift = out.timestamp.wrapping_sub(sent.timestamp);
        let picture_shift = patch.picture_id.wrapping_sub(in_picture) & 0x7fff;
        let seq = match self.all.first() {
            None => i64::from(out.seq),
            Some(_) => self.highest + i64::from(out.seq.wrapping_sub(self.highest as u16) as i16),
        };
        assert!(self.seen.insert(seq), "sequence number {seq} twice");
        // A slot that was emptied and filled again may by chance go on with the same shift of the seq.
        let same = self.segment.as_ref().is_some_and(|s| {
            let goes_on = !self.remapped || s.timestamp_shift == timestamp_shift;
            s.feed == feed && s.seq_shift == seq_shift && goes_on
        });
        if !same {
            if let Some(segment) = &self.segment {
                assert!(
                    segment.feed != feed || self.remapped,
                    "renumbered without a switch"
                );
                assert_eq!(seq, self.highest + 1, "a switch leaves no gap");
                assert_eq!(
                    patch.picture_id,
                    (self.highest_picture + 1) & 0x7fff,
                    "picture ids go on by one"
                );
            }
            assert_eq!(sent.payload[0] & 0x10, 0x10, "a switch begins with a frame");
            assert_eq!(
                sent.payload.get(9..12),
                Some(&[0x9d, 0x01, 0x2a][..]),
                "a switch begins with a key frame"
            );
            let newest_seq = seq - 1;
            let segment = Segment {
                feed,
                start: seq,
                seq_shift,
                timestamp_shift,
                picture_shift,
                newest_seq,
            };
            self.segment = Some(segment);
        }
        self.remapped = false;
        let segment = self.segment.as_mut().expect("just set");
        assert!(seq >= segment.start, "a packet of before the switch");
        assert_eq!(
            timestamp_shift, segment.timestamp_shift,
            "timestamps of a layer keep their distances"
        );
        assert_eq!(
            picture_shift, segment.picture_shift,
            "picture ids of a layer keep their distances"
        );
        if seq > segment.newest_seq {
            segment.newest_seq = seq;
            self.highest = seq;
            self.highest_picture = patch.picture_id;
        }
        self.all.push((seq, out.timestamp));
    }

    fn finish(mut self) {
        self.all.sort_unstable_by_key(|&(seq, _)| seq);
        for pair in self.all.windows(2) {
            assert!(
                pair[1].1.wrapping_sub(pair[0].1) as i32 >= 0,
                "timestamps go back: {pair:?}"
            );
        }
    }
}

struct Run {
    room: Room,
    viewer: Viewer,
    publishers: Vec<Publisher>,
    held: Vec<(usize, Sent)>,
}

impl Run {
    fn new(starts: [u16; 4]) -> Self {
        let mut room = Room::new();
        room.camera(1, "a", &[180, 360]);
        room.camera(2, "b", &[180, 360]);
        room.slot(10, 100, "viewer", false, &[Codec::Vp8]);
        let heights = [180, 360, 180, 360];
        let publishers = starts
            .iter()
            .zip(heights)
            .map(|(&start, height)| Publisher::new(start, height))
            .collect();
        Run {
            room,
            viewer: Viewer::default(),
            publishers,
            held: Vec::new(),
        }
    }

    fn arrive(&mut self, feed: usize, sent: &Sent) {
        let (source, layer) = FEEDS[feed];
        let out = self.room.send(source, layer, sent);
        assert!(out.len() <= 1);
        for out in &out {
            self.viewer.take(feed, sent, out);
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Frame { feed, key, fates } => {
                let packets = self.publishers[*feed].frame(*key, fates.len());
                for (sent, fate) in packets.into_iter().zip(fates) {
                    match fate {
                        Fate::Arrives => self.arrive(*feed, &sent),
                        Fate::Lost => {}
                        Fate::Twice => {
                            self.arrive(*feed, &sent);
                            self.arrive(*feed, &sent);
                        }
                        Fate::Late => self.held.push((*feed, sent)),
                    }
                }
            }
            Action::Release => {
                for (feed, sent) in std::mem::take(&mut self.held) {
                    self.arrive(feed, &sent);
                }
            }
            Action::Wish { site: 0, .. } => self.wish(&[]),
            Action::Wish { site, large } => {
                let height = if *large { 360 } else { 180 };
                self.wish(&[(10, ["", "a", "b"][*site], height)]);
            }
            Action::Pass { ms } => self.room.pass(*ms),
        }
    }

    fn wish(&mut self, wishes: &[(u64, &str, u16)]) {
        self.room.wish(100, wishes);
        self.viewer.remapped = true;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn numbers_never_repeat_nor_go_back(
        starts in prop::array::uniform4(prop_oneof![any::<u16>(), 65_500..=65_535u16, 32_740..=32_767u16]),
        actions in prop::collection::vec(action(), 1..150),
    ) {
        let mut run = Run::new(starts);
        run.wish(&[(10, "a", 180)]);
        for action in &actions {
            run.act(action);
        }
        run.viewer.finish();
    }

    #[test]
    fn random_payloads_neither_panic_nor_repeat(
        payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0..2u64, any::<u16>()), 0..200),
    ) {
        let mut room = Room::new();
        room.camera(0, "v", &[0]);
        room.source(1, "h", SourceKind::Camera, Codec::H264, &[0]);
        room.slot(10, 100, "viewer", false, &[Codec::Vp8, Codec::H264]);
        room.slot(11, 100, "viewer", false, &[Codec::Vp8, Codec::H264]);
        room.wish(100, &[(10, "v", 0), (11, "h", 0)]);
        let mut seen = BTreeSet::new();
        for (mut payload, source, seq) in payloads {
            let sent = Sent { seq: seq % 4000, timestamp: u32::from(seq), marker: false, payload: payload.clone(), level: None };
            for out in room.send(source, 0, &sent) {
                prop_assert_eq!(out.slot, SlotId(10 + source));
                prop_assert!(seen.insert((out.slot, out.seq)));
                if let Some(patch) = out.patch {
                    patch.apply(&mut payload);
                }
            }
        }
    }
}

#[test]
fn a_long_run_wraps_every_number_and_keeps_gaps() {
    let mut run = Run::new([65_000, 32_000, 0, 0]);
    run.wish(&[(10, "a", 180)]);
    run.act(&Action::Frame {
        feed: 0,
        key: true,
        fates: vec![Fate::Arrives],
    });
    for n in 0..70_000 {
        let fate = if n % 50 == 7 { Fate::Lost } else { Fate::Arrives };
        run.act(&Action::Frame {
            feed: 0,
            key: false,
            fates: vec![fate],
        });
    }
    let lost = 70_000 / 50;
    assert_eq!(run.viewer.all.len(), 70_001 - lost);
    let first = run.viewer.all[0].0;
    assert_eq!(run.viewer.highest, first + 70_000);
    run.viewer.finish();
}

#[test]
fn the_timestamp_goes_on_by_the_time_that_has_passed() {
    let mut run = Run::new([10, 20, 30, 40]);
    let key = |feed| Action::Frame {
        feed,
        key: true,
        fates: vec![Fate::Arrives],
    };
    run.wish(&[(10, "a", 180)]);
    run.act(&key(0));
    for (feed, site, ms, step) in [(2, "b", 500, 45_000), (0, "a", 0, 3000)] {
        run.wish(&[(10, site, 180)]);
        run.room.pass(ms);
        run.act(&key(feed));
        let [.., before, after] = &run.viewer.all[..] else {
            panic!("two packets were sent")
        };
        assert_eq!(after.1.wrapping_sub(before.1), step);
    }
}
