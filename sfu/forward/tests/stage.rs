//! Stage slots follow the stage document.
mod common;
use common::{Publisher, Room};
use muster_forward::SlotStatus;

fn room() -> Room {
    let mut room = Room::new();
    room.camera(1, "a", &[180]);
    room.camera(2, "desk:chair", &[180]);
    room.video_slot(10, 100);
    room.wish(100, &[(10, "stage", 0)]);
    room
}

#[test]
fn without_a_stage_the_slot_is_empty() {
    assert_eq!(room().status(10), SlotStatus::Empty);
}

#[test]
fn the_broadcast_site_is_shown_and_else_the_chair() {
    let mut room = room();
    room.stage(1, Some("a"), "desk:chair", &[]);
    assert_eq!(room.site(10), Some("a"));
    room.stage(2, None, "desk:chair", &[]);
    assert_eq!(room.site(10), Some("desk:chair"));
    room.stage(3, None, "", &[]);
    assert_eq!((room.status(10), room.site(10)), (SlotStatus::Empty, None));
}

#[test]
fn an_older_or_equal_version_is_ignored() {
    let mut room = room();
    room.stage(5, Some("a"), "desk:chair", &[]);
    room.stage(5, None, "desk:chair", &[]);
    room.stage(4, None, "desk:chair", &[]);
    assert_eq!(room.site(10), Some("a"));
}

#[test]
fn the_old_picture_goes_on_until_the_new_site_has_a_key_frame() {
    let mut room = room();
    let (mut a, mut chair) = (Publisher::new(100, 180), Publisher::new(60_000, 180));
    room.stage(1, Some("a"), "desk:chair", &[]);
    let first = room.send(1, 0, &a.key())[0];
    room.stage(2, None, "desk:chair", &[]);
    assert_eq!(
        (room.status(10), room.site(10)),
        (SlotStatus::Waiting, Some("desk:chair"))
    );
    room.pass(40);
    assert_eq!(room.send(1, 0, &a.delta()).len(), 1);
    assert!(room.send(2, 0, &chair.delta()).is_empty());
    room.pass(40);
    let switched = room.send(2, 0, &chair.key())[0];
    assert_eq!(room.status(10), SlotStatus::Live);
    assert_eq!(switched.seq, first.seq.wrapping_add(2));
    assert!(room.send(1, 0, &a.delta()).is_empty());
    assert_eq!(room.wanted(1, 0), [true, false]);
    let ids: Vec<u16> = room
        .out
        .iter()
        .filter_map(|f| f.patch)
        .map(|patch| patch.picture_id)
        .collect();
    assert!(
        ids.windows(2).all(|pair| pair[1] == (pair[0] + 1) & 0x7fff),
        "{ids:?}"
    );
}
