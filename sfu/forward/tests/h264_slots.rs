//! H.264 in a slot: it begins where a decoder can, and its packets carry no VP8 patch.
mod common;
use common::{Publisher, Room, Sent};
use muster_forward::{Codec, SlotReason, SlotStatus, SourceKind};

const SPS: &[u8] = &[0x67, 0x42];
const SLICE_START: &[u8] = &[0x7c, 0x85, 0x88];
const SLICE_REST: &[u8] = &[0x7c, 0x05, 0x88];
const DELTA: &[u8] = &[0x41, 0x9a];

fn room() -> Room {
    let mut room = Room::new();
    room.source(1, "h", SourceKind::Camera, Codec::H264, &[0]);
    room.slot(10, 100, "viewer", false, &[Codec::Vp8, Codec::H264]);
    room.wish(100, &[(10, "h", 0)]);
    room
}

fn packet(seq: u16, timestamp: u32, payload: &[u8]) -> Sent {
    Sent {
        seq,
        timestamp,
        marker: false,
        payload: payload.to_vec(),
        level: None,
    }
}

#[test]
fn it_begins_at_the_parameter_set() {
    let mut room = room();
    assert!(room.send(1, 0, &packet(1, 100, DELTA)).is_empty());
    let first = room.send(1, 0, &packet(2, 200, SPS))[0];
    assert_eq!((first.codec, first.patch), (Codec::H264, None));
    assert_eq!(room.send(1, 0, &packet(3, 200, SLICE_START)).len(), 1);
    assert_eq!(room.status(10), SlotStatus::Live);
}

#[test]
fn it_does_not_begin_at_a_later_slice_of_a_picture() {
    let mut room = room();
    room.send(1, 0, &packet(1, 200, &[0x68, 0xce]));
    assert!(room.send(1, 0, &packet(2, 200, SLICE_START)).is_empty());
    assert!(room.send(1, 0, &packet(3, 200, SLICE_REST)).is_empty());
    assert_eq!(room.send(1, 0, &packet(4, 300, SLICE_START)).len(), 1);
}

#[test]
fn a_slot_goes_from_one_codec_to_the_other_without_a_break() {
    let mut room = room();
    room.camera(2, "v", &[180]);
    let last = room.send(1, 0, &packet(9, 200, SPS))[0];
    room.wish(100, &[(10, "v", 0)]);
    let next = room.send(2, 0, &Publisher::new(60_000, 180).key())[0];
    assert_eq!((next.codec, next.seq), (Codec::Vp8, last.seq.wrapping_add(1)));
    assert!(next.patch.is_some());
}

#[test]
fn an_audio_slot_without_opus_is_refused() {
    let mut room = room();
    room.slot(11, 100, "viewer", true, &[]);
    let state = room.state(11);
    assert_eq!(
        (state.status, state.reason),
        (SlotStatus::Refused, Some(SlotReason::CodecNotSupported))
    );
}
