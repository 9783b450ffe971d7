//! When a publisher is asked for a key frame.
mod common;
use common::{Publisher, Room};
use muster_forward::{Event, SlotId, SourceId};

fn watched_by(viewers: u64) -> (Room, Publisher) {
    let mut room = Room::new();
    room.camera(1, "a", &[180]);
    for viewer in 0..viewers {
        room.video_slot(10 + viewer, 100 + viewer);
        room.wish(100 + viewer, &[(10 + viewer, "a", 180)]);
    }
    (room, Publisher::new(7, 180))
}

#[test]
fn many_viewers_ask_once() {
    let (room, _) = watched_by(50);
    assert_eq!(room.key_frames_asked(1, 0), 1);
}

#[test]
fn wanting_is_told_before_asking() {
    let (room, _) = watched_by(1);
    let of_source = room
        .events
        .iter()
        .filter(|event| !matches!(event, Event::SlotChanged { .. }));
    let (source, layer) = (SourceId(1), 0);
    let expected = [
        Event::LayerWanted {
            source,
            layer,
            wanted: true,
        },
        Event::KeyFrameNeeded { source, layer },
    ];
    assert!(of_source.eq(&expected), "{:?}", room.events);
}

#[test]
fn it_is_repeated_every_half_second_until_the_key_frame_comes() {
    let (mut room, mut a) = watched_by(1);
    room.pass(499);
    assert_eq!(room.key_frames_asked(1, 0), 1);
    room.pass(1);
    assert_eq!(room.key_frames_asked(1, 0), 2);
    room.pass(1000);
    assert_eq!(room.key_frames_asked(1, 0), 4);
    room.send(1, 0, &a.key());
    room.take_events();
    room.pass(400);
    room.send(1, 0, &a.delta());
    room.pass(400);
    assert_eq!(room.key_frames_asked(1, 0), 0);
}

#[test]
fn requests_of_viewers_are_throttled_and_none_is_forgotten() {
    let (mut room, mut a) = watched_by(2);
    room.send(1, 0, &a.key());
    room.take_events();
    room.pass(100);
    for _ in 0..10 {
        room.meeting.request_key_frame(room.now, SlotId(10));
        room.meeting.request_key_frame(room.now, SlotId(11));
        room.drain();
    }
    assert_eq!(room.key_frames_asked(1, 0), 0, "asked 100 ms ago");
    room.pass(400);
    assert_eq!(room.key_frames_asked(1, 0), 1);
    room.send(1, 0, &a.key());
    room.pass(2000);
    assert_eq!(room.key_frames_asked(1, 0), 1);
}

#[test]
fn nobody_watching_asks_nothing() {
    let (mut room, _) = watched_by(1);
    room.wish(100, &[]);
    room.take_events();
    room.pass(3000);
    assert_eq!(room.key_frames_asked(1, 0), 0);
}

#[test]
fn a_source_that_never_had_a_whole_key_frame_is_asked_though_nobody_watches() {
    let (mut room, mut a) = watched_by(0);
    for _ in 0..45 {
        room.send(1, 0, &a.delta());
        room.pass(33);
    }
    assert!((1..=3).contains(&room.key_frames_asked(1, 0)));
    room.send(1, 0, &a.key());
    room.take_events();
    for _ in 0..45 {
        room.send(1, 0, &a.delta());
        room.pass(33);
    }
    assert_eq!(room.key_frames_asked(1, 0), 0);
}

#[test]
fn a_late_joiner_sees_a_picture_within_one_request() {
    let (mut room, mut a) = watched_by(3);
    room.send(1, 0, &a.key());
    room.pass(5000);
    room.take_events();
    room.video_slot(50, 150);
    room.wish(150, &[(50, "a", 180)]);
    assert_eq!(
        room.key_frames_asked(1, 0),
        1,
        "at once: the last was asked for long ago"
    );
    room.pass(150);
    assert_eq!(room.send(1, 0, &a.delta()).len(), 3);
    let out = room.send(1, 0, &a.key());
    assert_eq!(out.len(), 4, "one key frame serves all");
    room.pass(3000);
    assert_eq!(room.key_frames_asked(1, 0), 1);
}

#[test]
fn many_who_join_one_after_another_cost_two_requests_a_second() {
    let (mut room, mut a) = watched_by(1);
    room.send(1, 0, &a.key());
    room.pass(1000);
    room.take_events();
    let mut asked_at = None;
    for n in 0..200 {
        room.video_slot(1000 + n, 2000 + n);
        room.wish(2000 + n, &[(1000 + n, "a", 180)]);
        if room.key_frames_asked(1, 0) > 0 {
            let now = room.now;
            let since = asked_at.replace(now).map_or(u64::MAX, |at| now.since(at));
            assert!(since >= 500_000, "{since}");
            room.take_events();
            room.send(1, 0, &a.key());
        }
        room.pass(10);
        if room.key_frames_asked(1, 0) > 0 {
            asked_at = Some(room.now);
            room.take_events();
            room.send(1, 0, &a.key());
        }
    }
    // Two seconds of joins: whoever joined is shown a picture at most 500 ms later.
    room.pass(500);
    let out = room.send(1, 0, &a.key());
    assert_eq!(out.len(), 201);
}

#[test]
fn a_key_frame_that_nobody_asked_for_serves_those_who_wait() {
    let (mut room, mut a) = watched_by(2);
    assert_eq!(room.key_frames_asked(1, 0), 1);
    room.pass(100);
    assert_eq!(room.send(1, 0, &a.key()).len(), 2);
    room.take_events();
    room.pass(3000);
    assert_eq!(room.key_frames_asked(1, 0), 0);
}
