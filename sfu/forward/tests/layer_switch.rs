//! Which layer a wish gets, and how a slot goes from one to another.
mod common;
use common::{Publisher, Room};
use muster_forward::{SlotStatus, SourceId};

fn room(heights: &[u16]) -> (Room, Vec<Publisher>) {
    let mut room = Room::new();
    room.camera(1, "a", heights);
    room.video_slot(10, 100);
    let publishers = [180, 360, 720]
        .iter()
        .zip(1..)
        .map(|(&h, n)| Publisher::new(n * 15_000, h));
    (room, publishers.collect())
}

/// The layer whose key frame the slot takes, when all send one.
fn layer_of(wish: u16) -> Option<usize> {
    let (mut room, mut layers) = room(&[180, 360, 720]);
    room.wish(100, &[(10, "a", wish)]);
    (0..3).find(|&layer| !room.send(1, layer, &layers[layer].key()).is_empty())
}

#[test]
fn the_smallest_layer_that_covers_the_wish_is_taken() {
    let taken: Vec<_> = [90, 180, 181, 360, 500, 720, 1080, 0].map(layer_of).into();
    assert_eq!(taken, [0, 0, 1, 1, 2, 2, 2, 2].map(Some));
}

#[test]
fn layers_of_unknown_size_are_tried_smallest_first() {
    let (mut room, mut layers) = room(&[0, 0, 0]);
    room.wish(100, &[(10, "a", 360)]);
    assert_eq!(room.send(1, 0, &layers[0].key()).len(), 1);
    // Its key frame says 180: the next is tried.
    assert_eq!((room.wanted(1, 1), room.wanted(1, 2)), (vec![true], vec![]));
    assert_eq!(room.send(1, 1, &layers[1].key()).len(), 1);
    assert_eq!(room.state(10).height, 360);
    assert_eq!(room.wanted(1, 0), [true, false]);
    assert_eq!(room.wanted(1, 2), []);
}

#[test]
fn a_size_told_by_the_shell_moves_the_slot() {
    let (mut room, _) = room(&[0, 0]);
    room.wish(100, &[(10, "a", 360)]);
    room.meeting.set_layer_size(SourceId(1), 0, 320, 180);
    room.drain();
    assert_eq!(room.wanted(1, 1), [true]);
}

#[test]
fn the_old_layer_goes_on_until_a_key_frame_of_the_new_one() {
    let (mut room, mut layers) = room(&[180, 360, 720]);
    room.wish(100, &[(10, "a", 180)]);
    room.send(1, 0, &layers[0].key());
    room.take_events();
    room.wish(100, &[(10, "a", 720)]);
    assert_eq!((room.wanted(1, 0), room.wanted(1, 2)), (vec![], vec![true]));
    assert_eq!(room.key_frames_asked(1, 2), 1);
    assert!(room.send(1, 2, &layers[2].delta()).is_empty());
    assert_eq!(room.send(1, 0, &layers[0].delta()).len(), 1);
    assert_eq!(room.status(10), SlotStatus::Live);
    room.pass(33);
    let late = layers[0].delta();
    assert_eq!(room.send(1, 2, &layers[2].key()).len(), 1);
    assert!(room.send(1, 0, &late).is_empty());
    assert_eq!((room.wanted(1, 0), room.state(10).height), (vec![false], 720));
    let seqs: Vec<u16> = room.out.iter().map(|f| f.seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
}

#[test]
fn a_switch_does_not_begin_within_a_key_frame_whose_rest_came_first() {
    let (mut room, mut layers) = room(&[180]);
    room.wish(100, &[(10, "a", 180)]);
    let frame = layers[0].frame(true, 2);
    room.take_events();
    room.pass(600);
    room.take_events();
    assert!(room.send(1, 0, &frame[1]).is_empty());
    assert!(
        room.send(1, 0, &frame[0]).is_empty(),
        "the viewer would never get the second packet"
    );
    room.pass(600);
    assert!(room.key_frames_asked(1, 0) >= 1);
    assert_eq!(room.send(1, 0, &layers[0].key()).len(), 1);
}

#[test]
fn a_layer_that_delivers_nothing_is_replaced_by_one_that_does_until_it_returns() {
    let (mut room, mut layers) = room(&[180, 360, 720]);
    room.wish(100, &[(10, "a", 720)]);
    room.send(1, 2, &layers[2].key());
    for _ in 0..40 {
        room.pass(33);
        room.send(1, 0, &layers[0].delta());
    }
    assert_eq!(room.wanted(1, 0), [true]);
    assert!(room.key_frames_asked(1, 0) >= 1);
    assert_eq!(room.send(1, 0, &layers[0].key()).len(), 1);
    assert_eq!((room.state(10).height, room.status(10)), (180, SlotStatus::Live));
    assert_eq!(room.wanted(1, 2), [true], "the fitting layer stays wanted");
    // The fitting layer comes back.
    assert!(room.send(1, 2, &layers[2].delta()).is_empty());
    assert_eq!(room.send(1, 2, &layers[2].key()).len(), 1);
    assert_eq!(room.state(10).height, 720);
    assert_eq!(room.wanted(1, 0), [true, false]);
}

#[test]
fn a_publisher_that_starts_its_numbers_anew_is_taken_up_at_a_key_frame() {
    let (mut room, mut layers) = room(&[180]);
    room.wish(100, &[(10, "a", 180)]);
    let last = room.send(1, 0, &layers[0].key())[0];
    room.pass(100);
    let mut anew = Publisher::new(50_000, 180);
    assert!(room.send(1, 0, &anew.delta()).is_empty());
    assert!(room.send(1, 0, &anew.delta()).is_empty());
    let next = room.send(1, 0, &anew.key())[0];
    assert_eq!(next.seq, last.seq.wrapping_add(1));
    assert_eq!(next.timestamp.wrapping_sub(last.timestamp), 9000);
}
