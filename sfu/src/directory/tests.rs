use metrics::Counter;
use muster_forward::SourceKind;

use super::*;

fn directory() -> Directory {
    Directory::new(
        vec![Arc::default(), Arc::default()],
        10,
        "here".into(),
        Reports::new(Counter::noop(), true),
    )
}

fn leg(id: u64, site: &str, worker: usize) -> NewLeg {
    NewLeg {
        id: LegId(id),
        name: format!("leg-{id}").into(),
        meeting: "m".into(),
        site: site.into(),
        worker,
        secret: format!("secret-{id}"),
        sources: Vec::new(),
    }
}

fn stage(version: u64) -> StageDocument {
    StageDocument {
        meeting: "m".into(),
        version,
        ..Default::default()
    }
}

#[test]
fn a_second_leg_of_a_site_replaces_the_first() {
    let directory = directory();
    directory.enter(leg(1, "a", 0)).expect("room");
    directory.enter(leg(2, "a", 1)).expect("room");
    assert_eq!(directory.look("m", 0).ordered_out, [(LegId(1), "replaced")]);
    assert!(directory.look("m", 1).ordered_out.is_empty());
    directory.leave(&"m".into(), LegId(1), "closed here");
    let told: Vec<_> = directory
        .reports
        .take()
        .into_iter()
        .map(|r| (r.leg, r.state, r.reason))
        .collect();
    assert_eq!(
        told,
        [
            ("leg-1".into(), LegState::Left as i32, "replaced".into()),
            ("leg-2".into(), LegState::Joining as i32, String::new())
        ]
    );
}

#[test]
fn the_higher_version_of_a_stage_wins() {
    let directory = directory();
    directory.enter(leg(1, "a", 0)).expect("room");
    directory.set_stage(StageDocument {
        expelled_sites: vec!["b".into()],
        ..stage(5)
    });
    directory.set_stage(StageDocument {
        ended: true,
        ..stage(4)
    });
    assert_eq!(
        directory.look("m", 0).stage.map(|s| (s.version, s.ended)),
        Some((5, false))
    );
    assert_eq!(
        directory.enter(leg(2, "b", 0)).map_err(|r| r.code),
        Err("expelled")
    );
    directory.set_stage(StageDocument {
        ended: true,
        ..stage(6)
    });
    assert_eq!(directory.enter(leg(3, "c", 0)).map_err(|r| r.code), Err("ended"));
}

#[test]
fn a_leg_is_found_with_its_own_secret_only() {
    let directory = directory();
    directory.enter(leg(1, "a", 1)).expect("room");
    let found = Some(Found {
        id: LegId(1),
        worker: 1,
    });
    assert_eq!(directory.find("leg-1", "secret-1"), found);
    assert_eq!(directory.find_by_secret("secret-1"), found);
    assert_eq!(directory.find("leg-1", "secret-2"), None);
    assert_eq!(directory.find("leg-1", ""), None);
    directory.leave(&"m".into(), LegId(1), "hung up");
    assert_eq!(directory.find_by_secret("secret-1"), None);
}

#[test]
fn cameras_are_in_the_order_they_came_and_only_of_those_here() {
    let directory = directory();
    let publisher = |id: u64, kind| NewLeg {
        sources: vec![SourceSpec {
            id: muster_forward::SourceId(100 + id),
            leg: LegId(id),
            site: format!("s{id}").into(),
            kind,
            codec: muster_forward::Codec::Vp8,
            layers: Vec::new(),
        }],
        ..leg(id, &format!("s{id}"), 0)
    };
    for id in [3, 1, 2] {
        directory.enter(publisher(id, SourceKind::Camera)).expect("room");
    }
    directory.enter(publisher(4, SourceKind::Audio)).expect("room");
    let cameras = || {
        directory
            .cameras("m")
            .iter()
            .map(|s| s.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(cameras(), ["s1", "s2", "s3"]);
    directory.leave(&"m".into(), LegId(1), "left");
    assert_eq!(cameras(), ["s2", "s3"]);
    assert!(directory.cameras("other").is_empty());
    assert!(directory.find_in("m", "leg-2").is_some());
    assert!(directory.find_in("other", "leg-2").is_none());
}

#[test]
fn legs_beyond_the_limit_are_refused_and_the_emptier_worker_is_next() {
    let directory = directory();
    for id in 0..10 {
        let worker = directory.least_loaded();
        directory.enter(leg(id, &format!("s{id}"), worker)).expect("room");
    }
    assert_eq!(directory.look("m", 0).workers, 0b11);
    assert_eq!(directory.enter(leg(11, "x", 0)).map_err(|r| r.code), Err("full"));
}

#[test]
fn a_worker_that_ended_gets_no_legs_and_those_it_had_are_lost() {
    let directory = directory();
    directory.enter(leg(1, "a", 0)).expect("room");
    directory.enter(leg(2, "b", 1)).expect("room");
    directory.reports.take();
    directory.worker_ended(0);
    assert!((0..4).all(|_| directory.least_loaded() == 1));
    assert_eq!(directory.leg_count(), 1);
    assert_eq!(directory.find_by_secret("secret-1"), None);
    let told: Vec<_> = directory
        .reports
        .take()
        .into_iter()
        .map(|r| (r.leg, r.state))
        .collect();
    assert_eq!(told, [("leg-1".into(), LegState::Left as i32)]);
}

#[test]
fn an_empty_meeting_is_forgotten_unless_it_has_a_stage() {
    let directory = directory();
    directory.enter(leg(1, "a", 0)).expect("room");
    directory.leave(&"m".into(), LegId(1), "hung up");
    directory.set_stage(stage(1));
    directory.forget_idle(Instant::now() + FORGET_AFTER + Duration::from_secs(1));
    assert!(directory.look("m", 0).stage.is_some());
    directory.set_stage(StageDocument {
        ended: true,
        ..stage(2)
    });
    directory.forget_idle(Instant::now() + FORGET_ENDED_AFTER + Duration::from_secs(1));
    assert!(directory.look("m", 0).stage.is_none());
}

#[test]
fn an_answer_goes_with_its_leg_or_when_it_is_old() {
    let directory = directory();
    let keep = |id: u64| {
        directory.enter(leg(id, &format!("s{id}"), 0)).expect("room");
        let answer = Arc::new(Answered {
            body: String::new(),
            leg: format!("leg-{id}"),
            secret: String::new(),
            etag: String::new(),
            answer: String::new(),
        });
        directory.keep_answer(answer.clone());
        Arc::downgrade(&answer)
    };
    let (stays, leaves) = (keep(1), keep(2));
    directory.leave(&"m".into(), LegId(2), "hung up");
    directory.forget_idle(Instant::now());
    assert_eq!((stays.strong_count(), leaves.strong_count()), (1, 0));
    directory.forget_idle(Instant::now() + KEEP_ANSWER + Duration::from_secs(1));
    assert_eq!(stays.strong_count(), 0);
    assert_eq!(directory.leg_count(), 1);
}

fn refused(directory: &Directory, id: u64, site: &str) -> &'static str {
    directory
        .enter(leg(id, site, 0))
        .map_or_else(|refusal| refusal.code, |()| "")
}

#[test]
fn a_locked_meeting_takes_back_who_was_in_and_nobody_else() {
    let directory = directory();
    directory.set_stage(stage(1));
    directory.enter(leg(1, "a", 0)).expect("room");
    directory.leave(&"m".into(), LegId(1), "timed out");
    directory.set_stage(StageDocument {
        locked: true,
        ..stage(2)
    });
    assert_eq!(refused(&directory, 2, "b"), "locked");
    assert_eq!(refused(&directory, 3, "a"), "");
    directory.set_stage(stage(3));
    assert_eq!(refused(&directory, 4, "b"), "");
}

#[test]
fn a_relay_that_comes_to_a_locked_meeting_leaves_the_lock_to_the_tickets() {
    let directory = directory();
    let locked = |version| StageDocument {
        locked: true,
        ..stage(version)
    };
    directory.set_stage(locked(7));
    directory.set_stage(locked(8));
    assert_eq!(refused(&directory, 1, "a"), "");
}

#[test]
fn a_later_placement_elsewhere_takes_the_meeting_away_and_an_older_one_is_ignored() {
    let directory = directory();
    let placed = |version, epoch, relay: &str| StageDocument {
        epoch,
        relay: relay.into(),
        ..stage(version)
    };
    let moved = || directory.look("m", 0).moved;
    directory.enter(leg(1, "a", 0)).expect("room");
    directory.set_stage(placed(5, 2, "here"));
    directory.set_stage(placed(9, 1, "there"));
    assert!(!moved(), "an older placement");
    directory.set_stage(placed(6, 3, "there"));
    assert!(moved());
    assert_eq!(refused(&directory, 2, "b"), "moved");
    directory.set_stage(placed(8, 2, "here"));
    assert!(moved(), "an older placement");
    directory.set_stage(placed(7, 4, "here"));
    assert!(!moved());
    assert_eq!(refused(&directory, 3, "b"), "");
}
