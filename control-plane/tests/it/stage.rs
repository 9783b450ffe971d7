//! Layout, polling, the floor, the roll call, and what late joiners find, over real gRPC.

use crate::support::{Endpoint, FakeRelay, Fixture, Person, attached, small};
use muster_proto::command::v1 as pb;
use pb::act_request::Verb;
use pb::{FloorState, RollCallResult, SummonsReason, SummonsState};
use tonic::Status;

fn code(status: &Status) -> &str {
    let code = status.metadata().get("muster-code");
    code.and_then(|code| code.to_str().ok()).unwrap_or_default()
}

/// A meeting of these sites with the first `present` of them on air.
struct Scene {
    fixture: Fixture,
    relay: FakeRelay,
    endpoints: Vec<Endpoint>,
    person: Person,
    id: String,
}

async fn scene(sites: &[&str], present: usize) -> Scene {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &sites[..present]).await;
    let person = fixture.person().await;
    let id = person.convene(sites).await.expect("convened").id;
    for (site, endpoint) in sites.iter().zip(&mut endpoints) {
        endpoint.summoned().await;
        endpoint
            .report(&id, SummonsState::Answered)
            .await
            .expect("answered");
        relay.on_air(&person, &id, site).await;
    }
    Scene {
        fixture,
        relay,
        endpoints,
        person,
        id,
    }
}

impl Scene {
    async fn act(&self, verb: Verb) -> pb::ActResponse {
        self.person.act(&self.id, verb).await.expect("carried out")
    }

    async fn refused(&self, verb: Verb) -> String {
        let refused = self.person.act(&self.id, verb).await.expect_err("refused");
        code(&refused).to_owned()
    }

    async fn stage(&self) -> pb::Stage {
        self.person.meeting(&self.id).await.stage.unwrap_or_default()
    }
}

fn polling(interval_s: u32, per_page: u32) -> Verb {
    Verb::SetPolling(pb::SetPolling {
        on: true,
        interval_s,
        per_page,
        paused: true,
    })
}

#[tokio::test]
async fn the_wall_is_polled_in_pages_of_those_on_air() {
    let scene = scene(&["D1", "A1", "A2", "A3", "B1"], 4).await;
    scene.act(polling(5, 2)).await;
    let shown = scene.stage().await.polling.expect("polling");
    assert_eq!((shown.page, shown.pages, shown.paused), (0, 2, true));
    let first = shown.sites.clone();
    assert_eq!((first.len(), shown.next.len()), (2, 2));
    scene.act(Verb::TurnPage(pb::TurnPage { by: 1 })).await;
    let second = scene.stage().await.polling.expect("polling");
    assert_eq!((second.page, &second.sites), (1, &shown.next));
    assert_eq!(second.next, first, "and round again");
    assert!(!second.sites.contains(&"B1".to_owned()), "the dead are skipped");
    scene.act(Verb::TurnPage(pb::TurnPage { by: -1 })).await;
    assert_eq!(scene.stage().await.polling.expect("polling").sites, first);

    // Let go, it turns by itself.
    let mut running = polling(5, 2);
    if let Verb::SetPolling(set) = &mut running {
        set.paused = false;
    }
    scene.act(running).await;
    let turned = |meeting: &pb::Meeting| {
        let polling = meeting.stage.as_ref().and_then(|stage| stage.polling.as_ref());
        polling.is_some_and(|polling| polling.sites != first)
    };
    scene.person.until_meeting(&scene.id, turned).await;
    let off = pb::SetPolling::default();
    scene.act(Verb::SetPolling(off)).await;
    assert!(scene.stage().await.polling.is_none());
    assert_eq!(
        scene.refused(Verb::TurnPage(pb::TurnPage { by: 1 })).await,
        "not_polling"
    );
    assert_eq!(scene.refused(polling(4, 2)).await, "bad_number");
    assert_eq!(
        scene.refused(Verb::TurnPage(pb::TurnPage { by: 2 })).await,
        "bad_request"
    );
}

#[tokio::test]
async fn the_floor_is_requested_in_order_granted_for_a_time_and_withdrawn() {
    let mut scene = scene(&["A1", "A2", "A3"], 2).await;
    let id = scene.id.clone();
    let mute = pb::MuteSitesRequest {
        meeting: id.clone(),
        sites: Vec::new(),
        muted: true,
    };
    let person = scene.person.clone();
    let muted = person.meetings().mute_sites(person.request(mute)).await;
    muted.expect("all muted");
    scene.endpoints[0].notice(|notice| notice.muted).await;
    for endpoint in &mut scene.endpoints {
        endpoint.request_floor(&id, false).await.expect("requested");
    }
    let waiting = scene.endpoints[1].notice(|notice| notice.floor_place > 0).await;
    assert_eq!(
        (waiting.floor(), waiting.floor_place, waiting.muted),
        (FloorState::Waiting, 2, true)
    );
    let queue: Vec<_> = person
        .meeting(&id)
        .await
        .floor
        .into_iter()
        .map(|r| r.site)
        .collect();
    assert_eq!(queue, ["A1", "A2"]);

    let grant = |site: &str, seconds| {
        let site = site.into();
        Verb::GrantFloor(pb::GrantFloor { site, seconds })
    };
    scene.act(grant("A1", 1)).await;
    let granted = scene.endpoints[0]
        .notice(|n| n.floor() == FloorState::Granted)
        .await;
    assert!(!granted.muted && granted.floor_until_ms > 0);
    let open = scene.relay.stage(|stage| stage.muted_sites.len() == 2).await;
    assert_eq!(open.muted_sites, ["A2", "A3"]);
    let next = scene.endpoints[1].notice(|notice| notice.floor_place == 1).await;
    assert_eq!(next.floor(), FloorState::Waiting);
    // Its time over, the microphone closes.
    let over = scene.endpoints[0]
        .notice(|n| n.floor() == FloorState::Unspecified)
        .await;
    assert!(over.muted);
    scene.relay.stage(|stage| stage.muted_sites.len() == 3).await;

    scene.endpoints[1]
        .request_floor(&id, true)
        .await
        .expect("withdrawn");
    assert!(person.meeting(&id).await.floor.is_empty());
    scene.act(grant("A2", 0)).await;
    let take = Verb::TakeFloor(pb::TakeFloor { site: "A2".into() });
    scene.act(take).await;
    assert!(person.meeting(&id).await.floor.is_empty());
    assert_eq!(scene.refused(grant("A3", 0)).await, "not_on_air");
}

fn results(meeting: &pb::Meeting) -> Vec<(String, RollCallResult)> {
    let entries = meeting.roll_call.iter().flat_map(|call| &call.entries);
    entries
        .map(|entry| (entry.site.clone(), entry.result()))
        .collect()
}

#[tokio::test]
async fn a_roll_call_tells_present_absent_broken_and_unreachable() {
    // In calling order: D1 answers, A1 does not, A2 loses what is sent there, A3 is not there; B1, to which nothing is
    // sent, the caller hears.
    let sites = ["D1", "A1", "A2", "B1", "A3"];
    let mut scene = scene(&sites, 4).await;
    let id = scene.id.clone();
    for (site, down) in [("D1", 0), ("A1", 9), ("B1", 0)] {
        scene.relay.flows(&id, site, 9, down).await;
    }
    scene.relay.loses(&id, "A2").await;
    let start = |answer_s| {
        Verb::StartRollCall(pb::StartRollCall {
            answer_s,
            sites: Vec::new(),
        })
    };
    assert_eq!(scene.refused(start(2)).await, "bad_number");
    assert_eq!(scene.act(start(3)).await.sites, 5);
    assert_eq!(scene.refused(start(3)).await, "roll_call_goes_on");
    let called = scene.endpoints[0].notice(|notice| notice.roll_called).await;
    assert!(called.answer_by_ms > 0 && !called.muted);
    let alone = scene.relay.stage(|stage| stage.muted_sites.len() == 4).await;
    assert!(
        !alone.muted_sites.contains(&"D1".to_owned()),
        "one microphone is open: {:?}",
        alone.muted_sites
    );
    let early = scene.endpoints[1]
        .answer_roll_call(&id)
        .await
        .expect_err("not yet");
    assert_eq!(code(&early), "not_called");
    let late = Verb::AcknowledgeRollCall(pb::AcknowledgeRollCall { site: "A1".into() });
    assert_eq!(scene.refused(late).await, "not_called", "a press marks no other");
    scene.endpoints[0].answer_roll_call(&id).await.expect("present");

    let order = |meeting: &pb::Meeting| -> Vec<String> {
        results(meeting).into_iter().map(|(site, _)| site).collect()
    };
    let order = order(&scene.person.meeting(&id).await);
    let is_called = |site: &'static str| {
        move |meeting: &pb::Meeting| results(meeting).contains(&(site.into(), RollCallResult::Called))
    };
    assert_eq!(order.len(), 5);
    scene.person.until_meeting(&id, is_called("B1")).await;
    let hear = Verb::AcknowledgeRollCall(pb::AcknowledgeRollCall { site: "B1".into() });
    scene.act(hear).await;
    let ended = |meeting: &pb::Meeting| meeting.roll_call.as_ref().is_some_and(|call| call.ended_ms > 0);
    let over = scene.person.until_meeting(&id, ended).await;
    let found = results(&over);
    let result = |site: &str| found.iter().find(|(name, _)| name == site).expect("called").1;
    assert_eq!(result("D1"), RollCallResult::Present);
    assert_eq!(result("A1"), RollCallResult::Absent);
    assert_eq!(result("A2"), RollCallResult::Broken);
    assert_eq!(result("B1"), RollCallResult::Present);
    assert_eq!(result("A3"), RollCallResult::Unreachable);
    let entries = over.roll_call.expect("a roll call").entries;
    let entry = |site: &str| entries.iter().find(|entry| entry.site == site).expect("called");
    assert_eq!(entry("D1").acknowledged_by, "site:D1");
    assert_eq!(entry("B1").acknowledged_by, "wang");
    assert_eq!((entry("A2").seen_up, entry("A2").seen_down), (true, false));
    assert_eq!(entry("A3").reason(), SummonsReason::NeverSeen);
    assert!(entry("A1").answered_ms >= entry("A1").called_ms + 3_000);
    scene.relay.stage(|stage| stage.muted_sites.is_empty()).await;
    let over = Verb::NextRollCall(pb::NextRollCall::default());
    assert_eq!(scene.refused(over).await, "no_roll_call");
}

#[tokio::test]
async fn a_late_joiner_finds_the_forced_stage() {
    let mut scene = scene(&["A1", "A2"], 1).await;
    let id = scene.id.clone();
    scene
        .act(Verb::SetLayout(pb::SetLayout {
            layout: pb::Layout::Layout16.into(),
        }))
        .await;
    scene
        .act(Verb::SetVoiceSwitching(pb::SetVoiceSwitching { on: true }))
        .await;
    scene
        .act(Verb::SetContent(pb::SetContent {
            site: "desk:wang".into(),
        }))
        .await;
    scene
        .act(Verb::WatchSite(pb::WatchSite { site: "A1".into() }))
        .await;
    let mute = pb::MuteSitesRequest {
        meeting: id.clone(),
        sites: Vec::new(),
        muted: true,
    };
    let person = scene.person.clone();
    let muted = person.meetings().mute_sites(person.request(mute)).await;
    muted.expect("all muted");
    let forced = scene.stage().await;
    assert_eq!(
        (forced.layout(), forced.voice_switching, &*forced.content_site),
        (pb::Layout::Layout16, true, "desk:wang")
    );

    // A site that comes late is told that it is muted, and the relay too.
    let mut late = attached(&scene.fixture, &["A2"]).await;
    late[0].summoned().await;
    late[0]
        .report(&id, SummonsState::Answered)
        .await
        .expect("answered");
    assert!(late[0].notice(|_| true).await.muted);
    // One that is added while all are muted is muted as well.
    let selector = pb::Selector {
        sites: vec!["A3".into()],
        ..Default::default()
    };
    let add = Verb::AddSites(pb::AddSites {
        selector: Some(selector),
    });
    assert_eq!(scene.act(add).await.sites, 1);
    let told = scene.relay.stage(|stage| stage.muted_sites.len() == 3).await;
    assert!(told.voice_switching && told.content_site == "desk:wang");
    // A relay that comes back is told the same.
    let credentials = scene.relay.credentials.clone();
    let mut back = FakeRelay::dial(&scene.fixture.control_plane, credentials, Vec::new()).await;
    let again = back.stage(|stage| stage.meeting == id).await;
    assert_eq!(
        (again.muted_sites.len(), again.voice_switching),
        (3, true),
        "{again:?}"
    );
    // And so does an endpoint that attaches again.
    let mut again = late[0].again(scene.fixture.channel().await).await;
    assert!(again.notice(|_| true).await.muted);
    // A watcher that comes now sees it at once.
    let mut watch = person.watch(Vec::new()).await;
    let first = watch.message().await.expect("stream").expect("not over");
    let Some(pb::watch_response::Event::Snapshot(snapshot)) = first.event else {
        panic!("expected a snapshot: {first:?}");
    };
    let seen = snapshot.meetings[0].stage.clone().unwrap_or_default();
    assert_eq!(
        (seen.layout(), seen.watched_site.as_str()),
        (pb::Layout::Layout16, "A1")
    );
}

#[tokio::test]
async fn an_answer_from_the_queue_of_a_box_counts_in_the_roll_call_that_it_answers() {
    let mut scene = scene(&["D1", "A1"], 2).await;
    let id = scene.id.clone();
    for site in ["D1", "A1"] {
        scene.relay.flows(&id, site, 9, 9).await;
    }
    let start = || {
        Verb::StartRollCall(pb::StartRollCall {
            answer_s: 0,
            sites: vec!["D1".into()],
        })
    };
    scene.act(start()).await;
    let called = scene.endpoints[0].notice(|notice| notice.roll_called).await;
    assert_eq!(called.roll_call, 1);
    let answer = |id: &str, roll_call: u32| pb::HandInReportRequest {
        id: id.into(),
        kind: pb::ReportKind::RollCallAnswer.into(),
        meeting: scene.id.clone(),
        roll_call,
        written_ms: 5,
        ..Default::default()
    };
    let (other, right, late) = (answer("a0", 7), answer("a1", 1), answer("a2", 1));
    scene.endpoints[0].hand_in(other).await.expect("kept");
    let results_of = |meeting: &pb::Meeting| results(meeting)[0].1;
    assert_eq!(
        results_of(&scene.person.meeting(&id).await),
        RollCallResult::Called,
        "an answer to another roll call answers none"
    );
    scene.endpoints[0].hand_in(right).await.expect("taken");
    let present = |meeting: &pb::Meeting| results(meeting)[0].1 == RollCallResult::Present;
    scene.person.until_meeting(&id, present).await;
    // All have answered, so it is over. The next one is not answered by what was said in the last.
    scene.act(start()).await;
    scene.endpoints[0].hand_in(late).await.expect("kept");
    assert_eq!(
        results_of(&scene.person.meeting(&id).await),
        RollCallResult::Called
    );
}
