//! Who begins to watch a source is shown its picture from the last key frame on, if all since is still there.
mod common;
use common::{Publisher, Room, Sent};
use muster_forward::{Forwarded, Packet, Replayed, SlotStatus, SourceId, Stored};

/// A watcher in slot 10; the newcomer's is slot 20. Each payload is stored at its sequence number.
fn room() -> (Room, Publisher) {
    let mut room = Room::new();
    room.camera(1, "a", &[180]);
    room.camera(2, "b", &[180]);
    room.video_slot(10, 100);
    room.video_slot(20, 200);
    room.wish(100, &[(10, "a", 180)]);
    (room, Publisher::new(500, 180))
}

fn send(room: &mut Room, sent: &Sent) -> Vec<Forwarded> {
    let packet = Packet {
        seq: sent.seq,
        timestamp: sent.timestamp,
        marker: sent.marker,
        payload: &sent.payload,
        descriptor: &[],
        audio_level: None,
    };
    let (mut out, stored) = (Vec::new(), Stored(sent.seq.into(), 1, 0));
    room.meeting
        .handle_stored(room.now, SourceId(1), 0, &packet, Some(stored), &mut out);
    room.drain();
    out
}

fn replays(room: &mut Room) -> Vec<Replayed> {
    let mut replays = Vec::new();
    room.meeting.take_replays(&mut replays);
    replays
}

/// A key frame of three packets and `frames` more of two, 33 ms apart.
fn begin(room: &mut Room, publisher: &mut Publisher, frames: usize) {
    for sent in publisher.frame(true, 3) {
        send(room, &sent);
    }
    for _ in 0..frames {
        room.pass(33);
        for sent in publisher.frame(false, 2) {
            send(room, &sent);
        }
    }
    assert!(
        replays(room).is_empty(),
        "who watches already is not shown it again"
    );
}

#[test]
fn a_newcomer_is_shown_the_picture_without_asking_for_a_key_frame() {
    let (mut room, mut publisher) = room();
    begin(&mut room, &mut publisher, 10);
    room.take_events();
    room.wish(200, &[(20, "a", 180)]);
    let shown = replays(&mut room);
    assert_eq!(room.key_frames_asked(1, 0), 0);
    assert_eq!(room.status(20), SlotStatus::Live);
    let stored: Vec<u64> = shown.iter().map(|replay| replay.stored.0).collect();
    assert_eq!(stored, (500..523).collect::<Vec<u64>>());
    assert!(shown[0].starts_key_frame && shown[0].copy.patch.is_some());
    assert_eq!(shown.iter().filter(|replay| replay.starts_key_frame).count(), 1);

    // What comes next follows without a gap, and goes to both.
    let live = send(&mut room, &publisher.delta());
    let next = live
        .iter()
        .find(|copy| copy.slot == shown[0].copy.slot)
        .expect("a copy");
    let last = shown.last().expect("some").copy;
    assert_eq!((live.len(), next.seq), (2, last.seq.wrapping_add(1)));
    assert_eq!(next.timestamp.wrapping_sub(last.timestamp), 3000);
    let picture = |copy: &Forwarded| copy.patch.expect("VP8").picture_id;
    assert_eq!(picture(next), (picture(&last) + 1) & 0x7fff);
    let span = last.timestamp.wrapping_sub(shown[0].copy.timestamp);
    assert_eq!(span, 10 * 3000 / 8, "shown faster than it was taken");
    assert!(replays(&mut room).is_empty());
}

#[test]
fn a_gap_is_filled_by_what_came_late() {
    let (mut room, mut publisher) = room();
    begin(&mut room, &mut publisher, 1);
    let sent = publisher.frame(false, 3);
    for at in [0, 2, 1] {
        send(&mut room, &sent[at]);
    }
    room.wish(200, &[(20, "a", 180)]);
    let stored: Vec<u64> = replays(&mut room).iter().map(|replay| replay.stored.0).collect();
    assert_eq!(stored, (500..508).collect::<Vec<u64>>());
}

#[test]
fn where_something_is_missing_or_old_a_key_frame_is_asked_for() {
    let missing = |room: &mut Room, publisher: &mut Publisher| {
        publisher.delta();
        send(room, &publisher.delta());
    };
    let old = |room: &mut Room, _: &mut Publisher| room.pass(1000);
    type Spoil<'a> = &'a dyn Fn(&mut Room, &mut Publisher);
    for spoil in [&missing as Spoil<'_>, &old] {
        let (mut room, mut publisher) = room();
        begin(&mut room, &mut publisher, 3);
        spoil(&mut room, &mut publisher);
        room.take_events();
        room.wish(200, &[(20, "a", 180)]);
        assert!(replays(&mut room).is_empty());
        assert_eq!(room.status(20), SlotStatus::Waiting);
        // At most every 500 ms, and there was one for the watcher.
        room.pass(500);
        assert!(room.key_frames_asked(1, 0) > 0);
    }
}
