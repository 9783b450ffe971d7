//! What a source delivers, as those are told who judge how its leg fares.

mod common;

use common::*;
use muster_forward::SourceId;

#[test]
fn the_largest_layer_that_comes_is_told_and_that_a_larger_one_is_missed() {
    let mut sim = Room::new();
    sim.camera(1, "a", &[180, 720]);
    let published = |sim: &Room| {
        let told = sim.meeting.published(sim.now, SourceId(1));
        told.map(|told| (told.size.1, told.less))
    };
    assert_eq!(published(&sim), None, "nothing has come");
    let (mut small, mut large) = (Publisher::new(100, 180), Publisher::new(900, 720));
    let packet = small.key();
    sim.send(1, 0, &packet);
    assert_eq!(published(&sim), Some((180, false)), "the larger one never came");
    let packet = large.key();
    sim.send(1, 1, &packet);
    assert_eq!(published(&sim), Some((720, false)));
    for _ in 0..15 {
        sim.pass(100);
        let packet = small.delta();
        sim.send(1, 0, &packet);
    }
    assert_eq!(published(&sim), Some((180, true)));
    sim.meeting.set_paused(SourceId(1), 1, true);
    assert_eq!(
        published(&sim),
        Some((180, false)),
        "a layer that was paused is not missed"
    );
    sim.pass(2_000);
    assert_eq!(published(&sim), None);
}

#[test]
fn a_camera_that_stops_is_missed_after_four_seconds_though_sound_comes() {
    let mut sim = Room::new();
    sim.camera(1, "a", &[180, 720]);
    sim.microphone(2, "a");
    let (mut picture, mut voice) = (Publisher::new(100, 180), Publisher::new(900, 0));
    let missed = |sim: &Room| sim.meeting.is_missed(sim.now, SourceId(1));
    sim.pass(10_000);
    assert!(!missed(&sim), "it never came");
    sim.send(1, 0, &picture.key());
    let talk = |sim: &mut Room, voice: &mut Publisher, ms: u64| {
        for _ in 0..ms / 20 {
            sim.send(2, 0, &voice.voice(Some(30)));
            sim.pass(20);
        }
    };
    talk(&mut sim, &mut voice, 3_900);
    assert!(!missed(&sim));
    talk(&mut sim, &mut voice, 200);
    assert!(missed(&sim));
    sim.send(1, 0, &picture.delta());
    assert!(!missed(&sim), "it comes again");
    // A camera that its user has switched off: a black picture a second.
    for _ in 0..20 {
        talk(&mut sim, &mut voice, 1_000);
        assert!(!missed(&sim));
        sim.send(1, 0, &picture.delta());
    }
}

#[test]
fn a_camera_that_nobody_wants_is_not_missed() {
    let mut sim = Room::new();
    sim.camera(1, "a", &[180, 720]);
    let mut picture = Publisher::new(100, 180);
    sim.send(1, 0, &picture.key());
    sim.meeting.set_paused(SourceId(1), 0, true);
    let missed = |sim: &Room| sim.meeting.is_missed(sim.now, SourceId(1));
    sim.pass(20_000);
    assert!(!missed(&sim), "paused; and the other layer has never come");
    sim.meeting.handle_timeout(sim.now);
    sim.meeting.set_paused(SourceId(1), 0, false);
    assert!(!missed(&sim), "it has a moment to come again");
    sim.pass(4_100);
    assert!(missed(&sim));
}
