//! VP9 with its layers, and AV1: what the parsers find, and what a viewer gets.
mod common;
use common::{Room, Sent};
use muster_forward::{
    Codec, Forwarded, LegId, SlotReason, SlotStatus, SourceKind, av1, starts_key_frame, vp8::PictureId, vp9,
};
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

/// The first packet of libvpx by GStreamer's rtpvp9pay, 636 by 358: a structure of one layer.
const VP9_KEY: &str = "8acf7c18 027c0166 010401 82498342 2027b0165 60e38241c18aa1007805f";
/// Temporal delimiter, sequence header and the start of a key frame by libaom, 636 by 358.
const AV1_KEY: &str = "1200 0a0c0000000cc4f765e06d7c8020 32d3bd01135f58010000c32e26eb1c61";

#[test]
fn a_vp9_key_frame_of_another_packetizer() {
    let payload = bytes(VP9_KEY);
    let d = vp9::parse(&payload).expect("whole");
    assert_eq!(
        (d.begins, d.ends, d.inter_picture, d.len),
        (true, false, false, 11)
    );
    let (value, bits) = (0x4f7c, 15);
    assert_eq!(d.picture_id, Some(PictureId { value, bits }));
    assert_eq!(vp9::key_frame_size(&payload, &d), Some((636, 358)));
    // The same frame without the structure: its own header tells the size.
    let plain = [&[0x88, 0xcf, 0x7c][..], &payload[11..]].concat();
    let d = vp9::parse(&plain).expect("whole");
    assert_eq!(
        (d.sizes.list(), vp9::key_frame_size(&plain, &d)),
        (&[][..], Some((636, 358)))
    );
    assert!(starts_key_frame(Codec::Vp9, &plain));
}

#[test]
fn vp9_descriptors_of_every_shape() {
    // Flexible, with two references and layers: TID 2, U, SID 1, D.
    let d = vp9::parse(&[0xfc, 0x15, 0x53, 0x03, 0x04, 0xff]).expect("whole");
    assert_eq!((d.tid, d.sid, d.switching_up, d.len), (2, 1, true, 5));
    assert_eq!((d.tl0_pic_idx, d.inter_picture), (None, true));
    assert_eq!(d.picture_id, Some(PictureId { value: 0x15, bits: 7 }));
    // Non-flexible: TL0PICIDX follows.
    let d = vp9::parse(&[0xe4, 0x80, 0x07, 0x40, 0x99]).expect("whole");
    assert_eq!(
        (d.tid, d.sid, d.ends, d.tl0_pic_idx, d.len),
        (2, 0, true, Some(0x99), 5)
    );
    for cut in 0..5 {
        assert_eq!(vp9::parse(&[0xe4, 0x80, 0x07, 0x40, 0x99][..cut]), None);
    }
}

#[test]
fn an_av1_key_frame_of_another_encoder() {
    let obus = bytes(AV1_KEY);
    // As packets have it: no delimiter, no sizes within the elements, two elements, the first of a sequence.
    let header: Vec<u8> = [&[0x08][..], &obus[4..16]].concat();
    assert_eq!(av1::picture_size(&header[1..]), Some((636, 358)));
    let mut payload = vec![0x28, header.len() as u8];
    payload.extend(&header);
    payload.extend([0x30, 0x13, 0x5f]);
    assert_eq!(av1::key_frame(&payload), Some(Some((636, 358))));
    // Some keep the sizes.
    let mut sized = vec![0x18];
    sized.extend(&obus[2..16]);
    assert_eq!(av1::key_frame(&sized), Some(Some((636, 358))));
    // A continued frame, and a frame of its own, begin nothing.
    assert_eq!(av1::key_frame(&[0x90, 0x0a, 0x01]), None);
    assert_eq!(av1::key_frame(&[0x10, 0x30, 0x13]), None);
    assert!(starts_key_frame(Codec::Av1, &payload) && !starts_key_frame(Codec::Av1, &[0x10, 0x30]));
}

/// A VP9 publisher of one stream with spatial and temporal layers, a packet a layer and picture.
struct Svc {
    seq: u16,
    picture: u16,
    tl0: u8,
    frame: usize,
    key: bool,
    spatial: u8,
}

impl Svc {
    fn new(spatial: u8) -> Self {
        Svc {
            seq: 65_500,
            picture: 0x7ff0,
            tl0: 250,
            frame: 0,
            key: true,
            spatial,
        }
    }

    fn picture(&mut self) -> Vec<Sent> {
        if std::mem::take(&mut self.key) {
            self.frame = 0;
        }
        let key = self.frame == 0;
        let (tid, up) = if self.spatial == 0 {
            (0, 0)
        } else {
            [(0u8, 0u8), (2, 1), (1, 1), (2, 0)][self.frame % 4]
        };
        self.tl0 = self.tl0.wrapping_add(u8::from(tid == 0));
        let sent = (0..=self.spatial).map(|sid| {
            // I, P unless of a key picture, L, B and E.
            let mut payload = vec![0x80 | if key { 0 } else { 0x40 } | 0x20 | 0x08 | 0x04];
            payload.extend((0x8000 | self.picture).to_be_bytes());
            payload.extend([tid << 5 | up << 4 | sid << 1, self.tl0]);
            payload.resize(100 + 300 * usize::from(sid), 0x11);
            self.seq = self.seq.wrapping_add(1);
            Sent {
                seq: self.seq,
                timestamp: 3000 * u32::from(self.picture),
                marker: sid == self.spatial,
                payload,
                level: None,
            }
        });
        let sent = sent.collect();
        self.picture = (self.picture + 1) & 0x7fff;
        self.frame += 1;
        sent
    }
}

/// Pictures to a viewer: of each the packets that went out, with their payloads as patched.
fn run(room: &mut Room, svc: &mut Svc, pictures: usize) -> Vec<Vec<(Forwarded, Vec<u8>)>> {
    let mut seen = Vec::new();
    for _ in 0..pictures {
        let mut out = Vec::new();
        for sent in svc.picture() {
            for copy in room.send(1, 0, &sent) {
                let mut payload = sent.payload.clone();
                copy.patch
                    .expect("picture ids")
                    .apply_to(copy.codec, &mut payload);
                out.push((copy, payload));
            }
        }
        if !out.is_empty() {
            seen.push(out);
        }
        room.pass(33);
        svc.key |= room.key_frames_asked(1, 0) > 0;
        room.take_events();
    }
    seen
}

fn vp9_room() -> Room {
    let mut room = Room::new();
    room.source(1, "a", SourceKind::Camera, Codec::Vp9, &[0]);
    room.slot(10, 100, "viewer", false, &[Codec::Vp8, Codec::Vp9]);
    room.wish(100, &[(10, "a", 720)]);
    room
}

/// Unbroken numbers, one picture after the other, a marker at the end of each and nowhere else.
fn check(pictures: &[Vec<(Forwarded, Vec<u8>)>]) {
    let all: Vec<_> = pictures.iter().flatten().collect();
    assert!(
        all.windows(2)
            .all(|pair| pair[1].0.seq == pair[0].0.seq.wrapping_add(1))
    );
    let id = |picture: &Vec<(Forwarded, Vec<u8>)>| {
        let ids: Vec<_> = picture
            .iter()
            .map(|(_, payload)| {
                vp9::parse(payload)
                    .and_then(|d| d.picture_id)
                    .expect("it has one")
                    .value
            })
            .collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "one picture, one id");
        ids[0]
    };
    for pair in pictures.windows(2) {
        assert_eq!(id(&pair[1]), (id(&pair[0]) + 1) & 0x7fff);
    }
    for picture in pictures {
        let markers: Vec<bool> = picture.iter().map(|(copy, _)| copy.marker).collect();
        let (last, before) = markers.split_last().expect("not empty");
        assert!(*last && !before.contains(&true), "{markers:?}");
    }
}

fn layers(picture: &[(Forwarded, Vec<u8>)]) -> Vec<(u8, u8)> {
    let parse = |payload: &Vec<u8>| vp9::parse(payload).map(|d| (d.sid, d.tid)).expect("ours");
    picture.iter().map(|(_, payload)| parse(payload)).collect()
}

#[test]
fn vp9_spatial_layers_drop_before_frames_and_come_back_at_a_key_picture() {
    let mut room = vp9_room();
    let mut svc = Svc::new(2);
    let all = run(&mut room, &mut svc, 150);
    check(&all);
    assert!(all.iter().all(|picture| picture.len() == 3));
    let rate = |bytes: u64| (bytes + 64) * 8 * 1000 / 33;
    let [base, middle, top] = [rate(100), rate(400), rate(700)];
    let budget = |room: &mut Room, bps: u64| room.meeting.set_budget(room.now, LegId(100), Some(bps));
    budget(&mut room, 2 * (base + middle + top));
    budget(&mut room, base + middle + top / 2);
    let two = run(&mut room, &mut svc, 60);
    assert!(two.iter().all(|picture| picture.len() == 2));
    assert_eq!(room.state(10).reason, Some(SlotReason::LimitedByYourLink));
    budget(&mut room, base + middle / 2);
    let one = run(&mut room, &mut svc, 60);
    assert!(one.len() == 60 && one.iter().all(|picture| picture.len() == 1));
    budget(&mut room, base * 6 / 10);
    let half = run(&mut room, &mut svc, 60);
    assert_eq!(half.len(), 30);
    assert!(
        half.iter()
            .flat_map(|picture| layers(picture))
            .all(|(sid, tid)| sid == 0 && tid <= 1)
    );
    budget(&mut room, 3 * (base + middle + top));
    let back = run(&mut room, &mut svc, 90);
    assert_eq!(layers(back.last().expect("some")).len(), 3);
    check(&[two, one, half, back].concat());
    assert_eq!((room.status(10), room.state(10).reason), (SlotStatus::Live, None));
}

#[test]
fn vp9_without_layers_is_switched_at_key_frames() {
    let mut room = vp9_room();
    room.source(2, "b", SourceKind::Camera, Codec::Vp9, &[0]);
    let mut svc = Svc::new(0);
    let first = run(&mut room, &mut svc, 10);
    room.wish(100, &[(10, "b", 720)]);
    let still = run(&mut room, &mut svc, 5);
    let mut other = Svc::new(0);
    let key = other.picture().remove(0);
    let copy = room.send(2, 0, &key)[0];
    let mut payload = key.payload.clone();
    copy.patch
        .expect("picture ids")
        .apply_to(Codec::Vp9, &mut payload);
    check(&[first, still, vec![vec![(copy, payload)]]].concat());
}

#[test]
fn av1_begins_with_a_sequence_header() {
    let mut room = Room::new();
    room.source(1, "a", SourceKind::Camera, Codec::Av1, &[0]);
    room.slot(10, 100, "viewer", false, &[Codec::Av1]);
    room.slot(11, 100, "viewer", false, &[Codec::Vp8]);
    room.wish(100, &[(10, "a", 720), (11, "a", 720)]);
    assert_eq!(room.state(11).reason, Some(SlotReason::CodecNotSupported));
    let sent = |seq: u16, payload: Vec<u8>| Sent {
        seq,
        timestamp: 3000 * u32::from(seq),
        marker: true,
        payload,
        level: None,
    };
    assert!(room.send(1, 0, &sent(1, vec![0x10, 0x30, 1, 2])).is_empty());
    let mut key = vec![0x18, 0x08];
    key.extend(&bytes(AV1_KEY)[4..16]);
    let copy = room.send(1, 0, &sent(2, key))[0];
    assert_eq!((copy.codec, copy.patch, copy.marker), (Codec::Av1, None, true));
    assert_eq!((room.state(10).width, room.state(10).height), (636, 358));
    let next = room.send(1, 0, &sent(3, vec![0x10, 0x30, 1, 2]))[0];
    assert_eq!(next.seq, copy.seq.wrapping_add(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_parsed_without_a_panic(mut payload in prop::collection::vec(any::<u8>(), 0..80), id in any::<u16>(), tl0 in any::<u8>()) {
        if let Some(d) = vp9::parse(&payload) {
            prop_assert!(d.len <= payload.len());
            vp9::key_frame_size(&payload, &d);
        }
        av1::key_frame(&payload);
        av1::picture_size(&payload);
        let before = vp9::parse(&payload);
        let patch = muster_forward::Vp8Patch { picture_id: id, tl0_pic_idx: tl0 };
        for codec in [Codec::H264, Codec::Av1, Codec::Opus] {
            let was = payload.clone();
            patch.apply_to(codec, &mut payload);
            prop_assert_eq!(&was, &payload);
        }
        patch.apply_to(Codec::Vp9, &mut payload);
        let after = vp9::parse(&payload);
        prop_assert_eq!(before.map(|d| (d.len, d.sid, d.tid)), after.map(|d| (d.len, d.sid, d.tid)));
    }
}
