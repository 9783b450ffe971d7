//! What a wish comes to: waiting, live, absent, empty, refused; and what the publisher is told of it.
mod common;
use common::{Publisher, Room};
use muster_forward::{Codec, Event, LegId, SlotId, SlotReason, SlotStatus, SourceId, SourceKind};

fn room() -> (Room, Publisher) {
    let mut room = Room::new();
    room.camera(1, "a", &[180]);
    room.video_slot(10, 100);
    (room, Publisher::new(7, 180))
}

#[test]
fn a_slot_waits_for_the_first_key_frame_and_is_then_live() {
    let (mut room, mut a) = room();
    assert_eq!(room.status(10), SlotStatus::Empty);
    room.wish(100, &[(10, "a", 180)]);
    assert_eq!((room.status(10), room.site(10)), (SlotStatus::Waiting, Some("a")));
    assert!(room.send(1, 0, &a.delta()).is_empty());
    assert_eq!(room.send(1, 0, &a.key())[0].slot, SlotId(10));
    assert_eq!(room.send(1, 0, &a.delta()).len(), 1);
    let state = room.state(10);
    assert_eq!(
        (state.status, state.width, state.height),
        (SlotStatus::Live, 320, 180)
    );
    assert_eq!(state.codec, Some(Codec::Vp8));
}

#[test]
fn changes_are_told_once() {
    let (mut room, mut a) = room();
    room.wish(100, &[(10, "a", 180)]);
    room.send(1, 0, &a.key());
    room.take_events();
    for _ in 0..20 {
        room.send(1, 0, &a.delta());
        room.pass(33);
    }
    room.wish(100, &[(10, "a", 180)]);
    assert_eq!(room.take_events(), []);
}

#[test]
fn an_unnamed_slot_is_emptied_and_the_layer_no_longer_wanted() {
    let (mut room, mut a) = room();
    room.wish(100, &[(10, "a", 180)]);
    assert_eq!(room.wanted(1, 0), [true]);
    room.send(1, 0, &a.key());
    room.take_events();
    room.wish(100, &[]);
    assert_eq!(room.status(10), SlotStatus::Empty);
    assert_eq!(room.wanted(1, 0), [false]);
    assert!(room.send(1, 0, &a.key()).is_empty());
}

#[test]
fn a_layer_is_wanted_from_the_first_slot_to_the_last() {
    let (mut room, _) = room();
    room.video_slot(11, 101);
    room.wish(100, &[(10, "a", 180)]);
    room.wish(101, &[(11, "a", 180)]);
    room.wish(100, &[]);
    assert_eq!(room.wanted(1, 0), [true]);
    room.meeting.remove_leg(room.now, LegId(101));
    room.drain();
    assert_eq!(room.wanted(1, 0), [true, false]);
}

#[test]
fn an_unknown_source_is_absent_until_it_comes_and_after_it_leaves() {
    let (mut room, _) = room();
    room.wish(100, &[(10, "b", 180)]);
    assert_eq!(
        (room.status(10), room.state(10).reason),
        (SlotStatus::Absent, Some(SlotReason::UnknownSource))
    );
    room.camera(2, "b", &[180]);
    assert_eq!(room.status(10), SlotStatus::Waiting);
    let mut b = Publisher::new(9, 180);
    room.send(2, 0, &b.key());
    room.pass(300);
    room.meeting.remove_leg(room.now, LegId(2));
    let state = room.state(10);
    assert_eq!(
        (state.status, state.reason),
        (SlotStatus::Absent, Some(SlotReason::LegLeft))
    );
    assert_eq!(state.age_ms, 300);
    assert!(room.send(2, 0, &b.key()).is_empty());
}

#[test]
fn a_rejoined_site_takes_its_old_place() {
    let (mut room, mut a) = room();
    room.wish(100, &[(10, "a", 180)]);
    room.send(1, 0, &a.key());
    room.camera(2, "a", &[180]);
    room.meeting.remove_source(room.now, SourceId(1));
    assert_eq!(room.status(10), SlotStatus::Waiting);
    let mut again = Publisher::new(500, 180);
    assert_eq!(room.send(2, 0, &again.key()).len(), 1);
    assert_eq!(room.status(10), SlotStatus::Live);
}

#[test]
fn a_codec_that_the_viewer_lacks_is_refused_with_the_reason() {
    let (mut room, _) = room();
    room.source(2, "h", SourceKind::Camera, Codec::H264, &[180]);
    room.wish(100, &[(10, "h", 180)]);
    let state = room.state(10);
    assert_eq!(
        (state.status, state.reason),
        (SlotStatus::Refused, Some(SlotReason::CodecNotSupported))
    );
    assert_eq!(state.codec, Some(Codec::H264));
    assert_eq!(room.wanted(2, 0), []);
    room.wish(100, &[(10, "a", 180)]);
    assert_eq!(room.status(10), SlotStatus::Waiting);
}

#[test]
fn a_wish_for_the_slot_of_another_leg_is_ignored() {
    let (mut room, _) = room();
    room.video_slot(11, 101);
    room.wish(100, &[(11, "a", 180)]);
    assert_eq!(room.status(11), SlotStatus::Empty);
}

#[test]
fn a_source_is_live_when_its_first_key_frame_is_whole() {
    let (mut room, mut a) = room();
    let live = Event::SourceLive {
        source: SourceId(1),
        layer: 0,
    };
    let broken = a.frame(true, 3);
    room.send(1, 0, &broken[0]);
    room.send(1, 0, &broken[2]);
    room.send(1, 0, &a.delta());
    assert!(!room.events.contains(&live));
    let whole = a.frame(true, 3);
    for packet in [&whole[0], &whole[2], &whole[1]] {
        assert!(!room.events.contains(&live));
        room.send(1, 0, packet);
    }
    room.send(1, 0, &a.key());
    assert_eq!(room.events.iter().filter(|&event| *event == live).count(), 1);
}
