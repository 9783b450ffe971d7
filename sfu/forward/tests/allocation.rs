//! How a leg's link is shared over its slots.
mod common;
use common::{Publisher, Room};
use muster_forward::LegId;

#[test]
fn what_is_wanted_is_guessed_by_size_and_then_measured() {
    let mut room = Room::new();
    room.camera(1, "a", &[180, 360]);
    room.video_slot(10, 100);
    assert_eq!(room.meeting.wanted_bps(LegId(100)), 0);
    room.wish(100, &[(10, "a", 360)]);
    let guess = room.meeting.wanted_bps(LegId(100));
    assert_eq!(guess, 640 * 360 * 3 * 115 / 100);
    let mut large = Publisher::new(1, 360);
    for frame in 0..90 {
        for sent in large.frame(frame == 0, 4) {
            room.send(1, 1, &sent);
        }
        room.pass(33);
    }
    // 30 frames a second, 4 packets of 64 bytes beside the payload.
    let measured = room.meeting.wanted_bps(LegId(100));
    assert!((80_000..100_000).contains(&measured), "{measured}");
    assert_eq!(room.meeting.wanted_bps(LegId(101)), 0);
}
