//! What the control plane asks of an agent beside pictures: to ring, to send sound alone, to show, to check itself.

use muster_proto::command::v1::{
    Check, DrillCall, EndpointNotice, FloorState, SummonsCall, SummonsState, SummonsWithdrawn,
    attach_response,
};
use muster_proto::media::v1::SourceKind;

use crate::meeting::{attached, on_air};
use crate::world::{MEETING, World};

fn withdraw(world: &World, reason: &str) {
    world.push(attach_response::Event::Withdrawn(SummonsWithdrawn {
        meeting: MEETING.into(),
        reason: reason.into(),
    }));
}

#[tokio::test]
async fn a_call_that_is_not_to_be_answered_by_itself_rings_until_it_is_taken() {
    let (world, agent) = attached().await;
    world.call(SummonsCall::default());
    world.until_state("ringing").await;
    assert_eq!(world.status()["ringing"]["title"], "drill");
    world
        .until("the report", |world| {
            world.seen().reports == [(MEETING.to_owned(), SummonsState::Ringing)]
        })
        .await;
    withdraw(&world, "taken by another endpoint");
    world.until_state("attached").await;
    assert!(world.seen().joins.is_empty() && world.status()["ringing"].is_null());
    // The site's policy may have changed meanwhile.
    world.call(SummonsCall::default());
    world.until_state("ringing").await;
    world.summon();
    world.until_state("on_air").await;
    assert!(world.status()["ringing"].is_null());
    agent.stop().await;
}

#[tokio::test]
async fn a_site_that_is_asked_for_sound_alone_opens_no_camera() {
    let (world, agent) = attached().await;
    world.call(SummonsCall {
        auto_answer: true,
        audio_only: true,
        ..SummonsCall::default()
    });
    world.until_state("on_air").await;
    world.until("sound", |world| world.seen().audio > 3).await;
    let kinds = |join: usize| {
        let sources = world.seen().joins[join].sources.clone();
        sources.iter().map(|source| source.kind()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(0), [SourceKind::Audio]);
    assert_eq!(world.status()["audio_only"], true);
    assert_eq!(world.status()["pictures_sent"], 0);
    // Called again with its picture: another join, and nobody has hung up.
    world.summon();
    world
        .until("pictures", |world| !world.seen().pictures.is_empty())
        .await;
    assert_eq!(kinds(1), [SourceKind::Camera, SourceKind::Audio]);
    assert_eq!(world.seen().leaves, 0);
    agent.stop().await;
}

#[tokio::test]
async fn the_person_at_the_site_is_shown_roll_call_floor_and_why_it_is_out() {
    let (world, agent) = on_air().await;
    let notice = EndpointNotice {
        meeting: MEETING.into(),
        roll_called: true,
        answer_by_ms: 17,
        floor: FloorState::Waiting.into(),
        floor_place: 2,
        muted: true,
        chair: "Duty officer".into(),
        ..EndpointNotice::default()
    };
    world.push(attach_response::Event::Notice(EndpointNotice {
        meeting: "another".into(),
        locked: true,
        ..EndpointNotice::default()
    }));
    world.push(attach_response::Event::Notice(notice));
    world
        .until("the notice", |world| {
            world.status()["notice"]["roll_called"] == true
        })
        .await;
    let shown = world.status()["notice"].clone();
    assert_eq!(
        (&shown["floor"], &shown["floor_place"], &shown["answer_by_ms"]),
        (&"waiting".into(), &2.into(), &17.into())
    );
    assert_eq!(
        (&shown["locked"], &shown["chair"]),
        (&false.into(), &"Duty officer".into())
    );
    assert_eq!(world.status()["muted"], true);
    withdraw(&world, "called away");
    world.until_state("attached").await;
    assert_eq!(world.status()["left"], "called away");
    assert_eq!(world.status()["notice"]["roll_called"], false);
    agent.stop().await;
}

#[tokio::test]
async fn a_drill_finds_a_ready_site_and_disturbs_nothing() {
    let (world, agent) = on_air().await;
    let before = world.seen().reports.len();
    let call = DrillCall {
        drill: "d-1".into(),
        server_time_ms: now_ms(),
    };
    world.push(attach_response::Event::Drill(call));
    world
        .until("the report", |world| !world.seen().drills.is_empty())
        .await;
    let found = world.seen().drills[0].clone();
    let checks = [found.link(), found.camera(), found.microphone(), found.clock()];
    assert_eq!(checks, [Check::Ok; 4], "{found:?}");
    assert!(found.rtt_ms >= 1 && found.clock_off_ms.abs() < 1000, "{found:?}");
    {
        let seen = world.seen();
        assert_eq!((seen.reports.len(), seen.joins.len()), (before, 1));
    }
    assert_eq!(world.status()["state"], "on_air");
    agent.stop().await;
}

#[tokio::test]
async fn a_drill_finds_a_wrong_clock_and_a_dead_link() {
    let (mut world, agent) = attached().await;
    world.kill_relay();
    let call = DrillCall {
        drill: "d-2".into(),
        server_time_ms: now_ms() - 5000,
    };
    world.push(attach_response::Event::Drill(call));
    world
        .until("the report", |world| !world.seen().drills.is_empty())
        .await;
    let found = world.seen().drills[0].clone();
    assert_eq!(
        (found.link(), found.clock()),
        (Check::Failed, Check::Failed),
        "{found:?}"
    );
    assert_eq!((found.camera(), found.microphone()), (Check::Ok, Check::Ok));
    assert!(
        found.clock_off_ms >= 5000 && !found.detail.is_empty(),
        "{found:?}"
    );
    agent.stop().await;
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}
