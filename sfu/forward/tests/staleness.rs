//! A picture that stands still says so.
mod common;
use common::{Publisher, Room};
use muster_forward::{Event, SlotReason, SlotStatus, SourceId};

fn live() -> (Room, Publisher) {
    let mut room = Room::new();
    room.camera(1, "a", &[180]);
    room.video_slot(10, 100);
    room.wish(100, &[(10, "a", 180)]);
    let mut a = Publisher::new(7, 180);
    room.send(1, 0, &a.key());
    room.take_events();
    (room, a)
}

fn ages(room: &Room) -> Vec<u32> {
    let age = |event: &Event| match event {
        Event::SlotChanged { state, .. } if state.status == SlotStatus::Stale => Some(state.age_ms),
        _ => None,
    };
    room.events.iter().filter_map(age).collect()
}

#[test]
fn it_is_stale_after_a_second_and_its_age_is_told_every_second() {
    let (mut room, _) = live();
    room.pass(999);
    assert_eq!(room.status(10), SlotStatus::Live);
    room.pass(2600);
    assert_eq!(room.state(10).reason, Some(SlotReason::NoMedia));
    let ages = ages(&room);
    assert_eq!(ages.len(), 3, "{ages:?}");
    assert!((1000..1200).contains(&ages[0]), "{ages:?}");
    assert!(
        ages.windows(2)
            .all(|pair| (1000..1300).contains(&(pair[1] - pair[0]))),
        "{ages:?}"
    );
}

#[test]
fn the_next_packet_makes_it_live_again() {
    let (mut room, mut a) = live();
    room.pass(1500);
    assert_eq!(room.status(10), SlotStatus::Stale);
    assert_eq!(room.send(1, 0, &a.delta()).len(), 1);
    assert_eq!((room.status(10), room.state(10).age_ms), (SlotStatus::Live, 0));
}

#[test]
fn a_paused_layer_is_not_stale_and_has_a_second_after_it_resumes() {
    let (mut room, _) = live();
    room.meeting.set_paused(SourceId(1), 0, true);
    room.pass(5000);
    assert_eq!(room.status(10), SlotStatus::Live);
    room.meeting.handle_timeout(room.now);
    room.meeting.set_paused(SourceId(1), 0, false);
    room.pass(900);
    assert_eq!(room.status(10), SlotStatus::Live);
    room.pass(300);
    assert_eq!(room.status(10), SlotStatus::Stale);
}

#[test]
fn a_source_that_sends_nothing_at_all_is_waited_for_and_says_why() {
    let mut room = Room::new();
    room.camera(1, "a", &[180]);
    room.video_slot(10, 100);
    room.wish(100, &[(10, "a", 180)]);
    room.pass(1300);
    assert_eq!(
        (room.status(10), room.state(10).reason),
        (SlotStatus::Waiting, Some(SlotReason::NoMedia))
    );
}
