//! Streams with dependency descriptors, written by a bit writer of this test: what is read, and what a viewer gets.
mod common;
use std::collections::BTreeSet;

use common::Room;
use muster_forward::dependency::{Indication, LayerIds, MAX_TARGETS, Structure, parse};
use muster_forward::{Codec, Forwarded, LegId, Packet, SlotId, SlotReason, SlotSpec, SourceId, SourceKind};
use proptest::prelude::*;

#[derive(Default)]
struct Writer(Vec<bool>);

impl Writer {
    fn put(&mut self, value: u32, bits: u32) -> &mut Self {
        self.0.extend((0..bits).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    /// `write_ns` of A.8.2.
    fn put_ns(&mut self, values: u32, value: u32) {
        if values == 1 {
            return;
        }
        let width = 32 - values.leading_zeros();
        let short = (1 << width) - values;
        if value < short {
            self.put(value, width - 1);
        } else {
            self.put(value + short, width);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let byte =
            |bits: &[bool]| (0..8).fold(0, |byte, at| byte << 1 | u8::from(bits.get(at) == Some(&true)));
        self.0.chunks(8).map(byte).collect()
    }
}

/// A row of the specification's tables: spatial and temporal layer, differences, chains, indications.
type Row = (u32, u32, &'static [u32], &'static [u32], &'static str);

/// A.10.2.1, with one chain.
const L1T3: [Row; 5] = [
    (0, 0, &[], &[0], "SSS"),
    (0, 0, &[4], &[4], "SSS"),
    (0, 1, &[2], &[2], "SD-"),
    (0, 2, &[1], &[1], "D--"),
    (0, 2, &[1], &[3], "D--"),
];

/// A.10.2.2: the targets are the three sizes from large to small, each with three rates of frames from high to low.
const L3T3: [Row; 15] = [
    (0, 0, &[], &[0, 0, 0], "SSSSSSSSS"),
    (0, 0, &[12], &[12, 11, 10], "RRRRRRSSS"),
    (0, 1, &[6], &[6, 5, 4], "RR-RR-SD-"),
    (0, 2, &[3], &[3, 2, 1], "R--R--D--"),
    (0, 2, &[3], &[9, 8, 7], "R--R--D--"),
    (1, 0, &[1], &[1, 1, 1], "SSSSSS---"),
    (1, 0, &[12, 1], &[1, 1, 1], "RRRSSS---"),
    (1, 1, &[6, 1], &[7, 6, 5], "RR-SD----"),
    (1, 2, &[3, 1], &[4, 3, 2], "R--D-----"),
    (1, 2, &[3, 1], &[10, 9, 8], "R--D-----"),
    (2, 0, &[1], &[2, 1, 1], "SSS------"),
    (2, 0, &[12, 1], &[2, 1, 1], "SSS------"),
    (2, 1, &[6, 1], &[8, 7, 6], "SD-------"),
    (2, 2, &[3, 1], &[5, 4, 3], "D--------"),
    (2, 2, &[3, 1], &[11, 10, 9], "D--------"),
];
const L3T3_CHAINS: [u32; 9] = [2, 2, 2, 1, 1, 1, 0, 0, 0];
const SIZES: [(u16, u16); 3] = [(320, 180), (640, 360), (1280, 720)];

fn indication(symbol: char) -> u32 {
    "-DSR".find(symbol).expect("a symbol") as u32
}

fn mandatory(out: &mut Writer, start: bool, end: bool, template: u32, frame: u16) {
    out.put(start.into(), 1).put(end.into(), 1);
    out.put(template, 6).put(frame.into(), 16);
}

fn structure(out: &mut Writer, offset: u32, rows: &[Row], protected_by: &[u32], sizes: &[(u16, u16)]) {
    let targets = rows[0].4.len() as u32;
    let chains = rows[0].3.len() as u32;
    out.put(offset, 6).put(targets - 1, 5);
    for pair in rows.windows(2) {
        let next = match (pair[1].0 - pair[0].0, pair[1].1 == pair[0].1) {
            (0, true) => 0,
            (0, false) => 1,
            _ => 2,
        };
        out.put(next, 2);
    }
    out.put(3, 2);
    for row in rows {
        row.4.chars().for_each(|symbol| {
            out.put(indication(symbol), 2);
        });
    }
    for row in rows {
        row.2.iter().for_each(|diff| {
            out.put(1, 1).put(diff - 1, 4);
        });
        out.put(0, 1);
    }
    out.put_ns(targets + 1, chains);
    protected_by.iter().for_each(|chain| out.put_ns(chains, *chain));
    for row in rows {
        row.3.iter().for_each(|diff| {
            out.put(*diff, 4);
        });
    }
    out.put(u32::from(!sizes.is_empty()), 1);
    for (width, height) in sizes {
        out.put(u32::from(*width) - 1, 16).put(u32::from(*height) - 1, 16);
    }
}

fn key_descriptor(offset: u32, frame: u16) -> Vec<u8> {
    let mut out = Writer::default();
    mandatory(&mut out, true, true, offset, frame);
    out.put(0b10000, 5);
    structure(&mut out, offset, &L3T3, &L3T3_CHAINS, &SIZES);
    out.bytes()
}

fn l3t3() -> Structure {
    let read = parse(&key_descriptor(60, 7), None).expect("well-formed");
    read.structure.expect("it brings one")
}

#[test]
fn the_structures_of_the_specification_are_read() {
    let read = parse(&key_descriptor(60, 7), None).expect("well-formed");
    assert_eq!((read.start, read.end, read.frame), (true, true, 7));
    assert_eq!((read.layer, read.active), (LayerIds::default(), Some(0x1ff)));
    assert!((0..9).all(|target| read.indications.of(target) == Indication::Switch));
    let structure = read.structure.expect("it brings one");
    assert_eq!(structure.sizes, SIZES);
    let layers = |spatial: u8| [2, 1, 0].map(|temporal| LayerIds { spatial, temporal });
    assert_eq!(structure.targets(), [2, 1, 0].map(layers).concat());
    // The numbers of the templates go round: offset 60, and so the tenth is number 6.
    let read = parse(&[0x80 | 6, 0xff, 0xfe], Some(&structure)).expect("known");
    assert_eq!((read.start, read.end, read.frame), (true, false, 0xfffe));
    let layer = LayerIds {
        spatial: 2,
        temporal: 0,
    };
    assert_eq!((read.layer, read.active), (layer, None));
    let mut out = Writer::default();
    mandatory(&mut out, true, false, 0, 1);
    out.put(0b10000, 5);
    super_structure(&mut out);
    let read = parse(&out.bytes(), None)
        .and_then(|read| read.structure)
        .expect("well-formed");
    let layers = [2, 1, 0].map(|temporal| LayerIds { spatial: 0, temporal });
    assert_eq!((read.targets(), &read.sizes[..]), (&layers[..], &[][..]));
}

fn super_structure(out: &mut Writer) {
    structure(out, 0, &L1T3, &[0, 0, 0], &[]);
}

#[test]
fn a_frame_may_say_its_own() {
    let known = l3t3();
    let mut out = Writer::default();
    mandatory(&mut out, false, true, 60 + 1, 9);
    out.put(0b01111, 5).put(0b111, 9);
    "---SSSD-R".chars().for_each(|symbol| {
        out.put(indication(symbol), 2);
    });
    out.put(1, 2).put(11, 4).put(2, 2).put(300, 8).put(0, 2);
    out.put(1, 8).put(2, 8).put(3, 8);
    let read = parse(&out.bytes(), Some(&known)).expect("well-formed");
    assert_eq!(read.active, Some(0b111));
    use Indication::{Discardable, NotPresent, Required, Switch};
    let expected = [
        NotPresent,
        NotPresent,
        NotPresent,
        Switch,
        Switch,
        Switch,
        Discardable,
        NotPresent,
        Required,
    ];
    assert_eq!(
        [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|target| read.indications.of(target)),
        expected
    );
}

#[test]
fn what_is_not_understood_is_nothing() {
    let known = l3t3();
    let key = key_descriptor(60, 7);
    assert_eq!(parse(&[0x80 | 60, 0, 1], None), None, "no structure");
    assert_eq!(
        parse(&[0x80 | 30, 0, 1], Some(&known)),
        None,
        "a template of another structure"
    );
    for cut in 0..key.len() {
        assert_eq!(parse(&key[..cut], None), None, "{cut}");
    }
    let mut out = Writer::default();
    mandatory(&mut out, true, true, 0, 0);
    out.put(0b10000, 5).put(0, 6).put(MAX_TARGETS as u32, 5);
    out.0.resize(2000, false);
    assert_eq!(parse(&out.bytes(), None), None, "too many decode targets");
    let mut out = Writer::default();
    mandatory(&mut out, true, true, 0, 0);
    out.put(0b10000, 5).put(0, 6).put(0, 5);
    out.0.resize(4000, false);
    assert_eq!(parse(&out.bytes(), None), None, "templates without end");
}

/// A publisher of L3T3, two packets a frame.
struct Svc {
    offset: u32,
    seq: u16,
    frame: u16,
    picture: u32,
    since_key: usize,
    key: bool,
}

struct Sent {
    seq: u16,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
    descriptor: Vec<u8>,
    spatial: usize,
    row: usize,
}

impl Svc {
    fn new(offset: u32, frame: u16) -> Self {
        Svc {
            offset,
            seq: 65_500,
            frame,
            picture: 0,
            since_key: 0,
            key: true,
        }
    }

    fn picture(&mut self) -> Vec<Sent> {
        let key = std::mem::take(&mut self.key);
        self.since_key = if key { 0 } else { self.since_key + 1 };
        let place = if key { 0 } else { [1, 3, 2, 4][self.since_key % 4] };
        self.picture += 1;
        let mut sent = Vec::new();
        for spatial in 0..3 {
            let row = 5 * spatial + place;
            for packet in 0..2 {
                let mut out = Writer::default();
                let template = (self.offset + row as u32) % 64;
                mandatory(&mut out, packet == 0, packet == 1, template, self.frame);
                let begins = key && spatial == 0 && packet == 0;
                if begins {
                    out.put(0b10000, 5);
                    structure(&mut out, self.offset, &L3T3, &L3T3_CHAINS, &SIZES);
                }
                // Aggregation header, and of a key frame's first packet a sequence header that says nothing more.
                let mut payload = if begins {
                    vec![0x18, 0x08, 0]
                } else {
                    vec![0x10, 0x30]
                };
                payload.resize(50 + 100 * spatial, 0x11);
                self.seq = self.seq.wrapping_add(1);
                sent.push(Sent {
                    seq: self.seq,
                    timestamp: 3000 * self.picture,
                    marker: spatial == 2 && packet == 1,
                    payload,
                    descriptor: out.bytes(),
                    spatial,
                    row,
                });
            }
            self.frame = self.frame.wrapping_add(1);
        }
        sent
    }
}

/// What a viewer got: the copy, the spatial layer, the row of the table.
type Got = (Forwarded, usize, usize);

fn send(room: &mut Room, source: u64, sent: &Sent) -> Option<Got> {
    let packet = Packet {
        seq: sent.seq,
        timestamp: sent.timestamp,
        marker: sent.marker,
        payload: &sent.payload,
        descriptor: &sent.descriptor,
        audio_level: None,
    };
    let mut out = Vec::new();
    room.meeting
        .handle_packet(room.now, SourceId(source), 0, &packet, &mut out);
    room.drain();
    out.first().map(|copy| (*copy, sent.spatial, sent.row))
}

fn run(room: &mut Room, svc: &mut Svc, pictures: usize) -> Vec<Vec<Got>> {
    let mut seen = Vec::new();
    for _ in 0..pictures {
        let sent = svc.picture();
        let got: Vec<Got> = sent.iter().filter_map(|sent| send(room, 1, sent)).collect();
        if !got.is_empty() {
            seen.push(got);
        }
        room.pass(33);
        svc.key |= room.key_frames_asked(1, 0) > 0;
        room.take_events();
    }
    seen
}

fn room() -> Room {
    let mut room = Room::new();
    room.source(1, "a", SourceKind::Camera, Codec::Av1, &[0]);
    room.slot(10, 100, "viewer", false, &[Codec::Vp8, Codec::Av1]);
    room.wish(100, &[(10, "a", 720)]);
    room
}

fn number(got: &Got) -> u16 {
    got.0.frame.expect("it has a descriptor").number
}

/// As a receiver sees it: unbroken sequence numbers, frames in order, each with all that it needs, a marker at the end of
/// each picture and nowhere else.
fn check(pictures: &[Vec<Got>]) {
    let all: Vec<&Got> = pictures.iter().flatten().collect();
    for pair in all.windows(2) {
        assert_eq!(pair[1].0.seq, pair[0].0.seq.wrapping_add(1));
        let step = number(pair[1]).wrapping_sub(number(pair[0]));
        assert!(step < 200, "{step}");
    }
    let mut decoded = BTreeSet::new();
    for got in &all {
        let needed = L3T3[got.2]
            .2
            .iter()
            .map(|diff| number(got).wrapping_sub(*diff as u16));
        let missing: Vec<u16> = needed.filter(|number| !decoded.contains(number)).collect();
        assert!(
            missing.is_empty(),
            "frame {} of row {} lacks {missing:?}",
            number(got),
            got.2
        );
        decoded.insert(number(got));
    }
    for picture in pictures {
        let markers: Vec<bool> = picture.iter().map(|got| got.0.marker).collect();
        let (last, before) = markers.split_last().expect("not empty");
        assert!(*last && !before.contains(&true), "{markers:?}");
    }
}

fn layers(picture: &[Got]) -> usize {
    let spatial: BTreeSet<usize> = picture.iter().map(|got| got.1).collect();
    spatial.len()
}

/// The decode targets that the last packet says are to be had.
fn active(pictures: &[Vec<Got>]) -> Option<u16> {
    let last = pictures.last().and_then(|picture| picture.last()).expect("some");
    let frame = last.0.frame.expect("it has a descriptor");
    (frame.targets > 0).then_some(frame.active)
}

#[test]
fn layers_drop_with_the_budget_and_come_back_where_they_can_be_decoded() {
    let mut room = room();
    let mut svc = Svc::new(60, 65_000);
    let all = run(&mut room, &mut svc, 150);
    assert!(all.iter().all(|picture| layers(picture) == 3));
    assert_eq!(active(&all), None, "nothing was left out");
    assert_eq!((room.state(10).width, room.state(10).height), (1280, 720));
    let rate = |bytes: u64| 2 * (bytes + 64) * 8 * 1000 / 33;
    let [base, middle, top] = [rate(50), rate(150), rate(250)];
    let budget = |room: &mut Room, bps: u64| room.meeting.set_budget(room.now, LegId(100), Some(bps));
    budget(&mut room, 2 * (base + middle + top));
    budget(&mut room, base + middle + top / 2);
    let two = run(&mut room, &mut svc, 60);
    assert!(two.iter().all(|picture| layers(picture) == 2));
    assert_eq!(room.state(10).reason, Some(SlotReason::LimitedByYourLink));
    assert_eq!((room.state(10).width, active(&two)), (640, Some(0b1_1111_1000)));
    budget(&mut room, base + middle / 2);
    let one = run(&mut room, &mut svc, 60);
    assert!(one.len() == 60 && one.iter().all(|picture| layers(picture) == 1));
    assert_eq!((room.state(10).width, active(&one)), (320, Some(0b1_1100_0000)));
    budget(&mut room, base * 6 / 10);
    let half = run(&mut room, &mut svc, 60);
    assert_eq!((half.len(), active(&half)), (30, Some(0b1_1000_0000)));
    // More frames need no key frame: the switch indication is in every frame of the lowest layer.
    let keys = svc.since_key;
    budget(&mut room, base + middle / 2);
    let more = run(&mut room, &mut svc, 60);
    assert!(
        more.len() > 40 && svc.since_key == keys + 60,
        "{} {}",
        more.len(),
        svc.since_key
    );
    budget(&mut room, 3 * (base + middle + top));
    let back = run(&mut room, &mut svc, 90);
    assert_eq!(layers(back.last().expect("some")), 3);
    assert_eq!(room.state(10).reason, None);
    check(&[all, two, one, half, more, back].concat());
}

#[test]
fn layers_follow_the_size_that_is_asked_for() {
    let mut room = room();
    let mut svc = Svc::new(0, 0);
    let mut pictures = run(&mut room, &mut svc, 60);
    for (height, expected) in [(180, 1), (360, 2), (200, 2), (100, 1), (0, 3), (90, 1), (720, 3)] {
        room.wish(100, &[(10, "a", height)]);
        svc.key |= room.key_frames_asked(1, 0) > 0;
        let shown = run(&mut room, &mut svc, 40);
        assert_eq!(layers(shown.last().expect("some")), expected, "{height}");
        let size = SIZES[expected - 1];
        assert_eq!((room.state(10).width, room.state(10).height), size, "{height}");
        assert_eq!(room.state(10).reason, None, "it is what was asked for");
        pictures.extend(shown);
    }
    check(&pictures);
}

#[test]
fn a_viewer_that_takes_no_descriptors_has_the_smallest_layer() {
    let mut room = room();
    let mut svc = Svc::new(0, 0);
    let spec = SlotSpec {
        id: SlotId(11),
        leg: LegId(101),
        site: "other".into(),
        audio: false,
        codecs: vec![Codec::Av1],
        descriptors: false,
        seed: 1,
    };
    room.meeting.add_slot(room.now, spec);
    room.wish(101, &[(11, "a", 720)]);
    run(&mut room, &mut svc, 30);
    assert_eq!((room.state(10).height, room.state(11).height), (720, 180));
    assert_eq!(room.state(11).reason, None);
}

#[test]
fn a_small_box_wants_no_more_than_its_layer() {
    let mut room = room();
    let mut svc = Svc::new(0, 0);
    room.meeting.set_budget(room.now, LegId(100), Some(10_000_000));
    run(&mut room, &mut svc, 100);
    let whole = room.meeting.wanted_bps(LegId(100));
    room.wish(100, &[(10, "a", 180)]);
    run(&mut room, &mut svc, 60);
    let small = room.meeting.wanted_bps(LegId(100));
    // 114 of 642 bytes, of which each packet's headers are 64.
    assert!(small * 5 < whole && small * 7 > whole, "{small} of {whole}");
}

#[test]
fn frame_numbers_go_on_over_a_switch_to_another_source() {
    let mut room = room();
    room.source(2, "b", SourceKind::Camera, Codec::Av1, &[0]);
    let (mut svc, mut other) = (Svc::new(60, 65_530), Svc::new(30, 40_000));
    let mut pictures = run(&mut room, &mut svc, 10);
    room.wish(100, &[(10, "b", 720)]);
    pictures.extend(run(&mut room, &mut svc, 3));
    let mut late = svc.picture();
    for _ in 0..5 {
        let sent = other.picture();
        pictures.push(sent.iter().filter_map(|sent| send(&mut room, 2, sent)).collect());
        room.pass(33);
    }
    assert_eq!(late.drain(..).find_map(|sent| send(&mut room, 1, &sent)), None);
    assert_eq!(pictures.len(), 18);
    check(&pictures);
}

#[test]
fn what_comes_late_has_the_number_of_its_place() {
    let mut room = room();
    let mut svc = Svc::new(0, 0);
    run(&mut room, &mut svc, 4);
    let (first, second) = (svc.picture(), svc.picture());
    let held = &first[1];
    let mut got: Vec<Got> = Vec::new();
    for sent in first
        .iter()
        .filter(|sent| sent.seq != held.seq)
        .chain(&second)
        .chain([held])
    {
        got.extend(send(&mut room, 1, sent));
    }
    got.sort_by_key(|got| got.0.seq);
    assert_eq!(got.len(), 12);
    let numbers: Vec<u16> = got.iter().map(number).collect();
    let steps: Vec<u16> = numbers.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(steps, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0], "two packets a frame");
}

#[test]
fn a_stream_whose_structure_was_missed_waits_for_a_key_frame() {
    let mut room = room();
    let mut svc = Svc::new(0, 0);
    run(&mut room, &mut svc, 3);
    // The publisher begins anew, and the packet that said how is lost.
    let mut svc = Svc::new(20, 100);
    svc.seq = 65_500 + 18;
    let lost = svc.picture();
    room.take_events();
    room.pass(600);
    let got: Vec<Got> = lost[1..]
        .iter()
        .filter_map(|sent| send(&mut room, 1, sent))
        .collect();
    assert!(got.is_empty(), "nobody could decode it");
    assert_eq!(room.key_frames_asked(1, 0), 1);
    svc.key = true;
    let again = svc.picture();
    assert_eq!(
        again.iter().filter_map(|sent| send(&mut room, 1, sent)).count(),
        6
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_a_panic(
        junk in prop::collection::vec(any::<u8>(), 0..260),
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let known = l3t3();
        let mut key = key_descriptor(60, 7);
        key[flip.0.index(20)] ^= flip.1;
        key.truncate(cut.index(key.len() + 1).max(30).min(key.len()));
        for value in [&junk, &key] {
            for structure in [None, Some(&known)] {
                let Some(read) = parse(value, structure) else { continue };
                prop_assert!(read.structure.is_some() || structure.is_some());
                let in_force = read.structure.as_ref().unwrap_or(&known);
                prop_assert!((1..=MAX_TARGETS).contains(&in_force.targets().len()));
                prop_assert_eq!(read.active.unwrap_or(0) & !in_force.all_targets(), 0);
            }
        }
    }

    #[test]
    fn descriptors_that_make_no_sense_bring_nothing_down(
        packets in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 1..60),
        bps in prop::option::of(0u64..2_000_000),
    ) {
        let mut room = room();
        room.meeting.set_budget(room.now, LegId(100), bps);
        let mut svc = Svc::new(0, 0);
        for (byte, junk, real) in packets {
            let mut sent = svc.picture();
            for sent in &mut sent {
                if !real {
                    sent.descriptor = [&[byte][..], &junk].concat();
                }
                send(&mut room, 1, sent);
            }
            room.pass(20);
        }
    }
}

/// Whatever the link went through before.
#[test]
fn a_viewer_that_enlarges_gets_the_larger_layers_at_once() {
    let (mut room, mut svc) = (room(), Svc::new(60, 65_000));
    let budget = |room: &mut Room, bps| room.meeting.set_budget(room.now, LegId(100), Some(bps));
    budget(&mut room, 50_000_000);
    run(&mut room, &mut svc, 150);
    for _ in 0..3 {
        budget(&mut room, 150_000);
        run(&mut room, &mut svc, 30);
        budget(&mut room, 50_000_000);
        run(&mut room, &mut svc, 60);
    }
    run(&mut room, &mut svc, 400);
    for _ in 0..3 {
        room.wish(100, &[(10, "a", 180)]);
        let small = run(&mut room, &mut svc, 30);
        assert_eq!(small.last().map(|picture| layers(picture)), Some(1));
        room.wish(100, &[(10, "a", 0)]);
        let large = run(&mut room, &mut svc, 5);
        assert_eq!(large.last().map(|picture| layers(picture)), Some(3));
    }
}
