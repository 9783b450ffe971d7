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
