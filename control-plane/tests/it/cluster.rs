//! Several replicas as real processes, killed at many points; with the bus and the database killed and back. Times are
//! printed, not asserted, but for generous deadlines.

use crate::replicas::{Cluster, Field, PATIENCE, Tab};
use crate::support::{Endpoint, FakeRelay, Person, leg};
use muster_proto::command::v1 as pb;
use pb::SummonsState;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// A console that hears nothing for this long goes elsewhere.
const SILENCE: Duration = Duration::from_millis(2500);
/// That the database is away, or back, is told sooner.
const TOLD: Duration = Duration::from_secs(5);

async fn convene(person: &Person, sites: &[&str], key: &str) -> Result<pb::Meeting, Status> {
    let selector = pb::Selector {
        sites: sites.iter().map(|&s| s.to_owned()).collect(),
        ..Default::default()
    };
    let message = pb::ConveneRequest {
        selector: Some(selector),
        title: "Flood".into(),
        idempotency_key: key.into(),
        ..Default::default()
    };
    let answer = person.meetings().convene(person.request(message)).await?;
    Ok(answer.into_inner().meeting.expect("a meeting"))
}

async fn end(person: &Person, meeting: &str) {
    let message = pb::EndMeetingRequest {
        meeting: meeting.into(),
    };
    let began = Instant::now();
    while let Err(status) = person
        .meetings()
        .end_meeting(person.request(message.clone()))
        .await
    {
        if status.code() == Code::FailedPrecondition {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until every site of the meeting is on air, as this person's replica knows it.
async fn until_on_air(person: &Person, meeting: &str) -> Duration {
    let began = Instant::now();
    loop {
        let listed = person
            .meetings()
            .list_meetings(person.request(pb::ListMeetingsRequest { include_ended: true }))
            .await;
        let meetings = listed
            .map(|answer| answer.into_inner().meetings)
            .unwrap_or_default();
        let found = meetings.into_iter().find(|found| found.id == meeting);
        let on_air = |summons: &pb::Summons| summons.state() == SummonsState::OnAir;
        if found
            .as_ref()
            .is_some_and(|found| found.summonses.iter().all(on_air))
        {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "not all on air: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_convened_on_one_replica_reaches_the_endpoints_of_the_others() {
    let cluster = Cluster::start().await;
    let credentials = cluster.enrol_relay().await;
    let relay = FakeRelay::dial_at(&cluster.agents_addr(2), credentials, Vec::new())
        .await
        .expect("serving");
    let person = cluster.person(0).await;
    let mut endpoints = Vec::new();
    for (n, site) in ["A1", "A2", "A3"].into_iter().enumerate() {
        let secret = person.site_link(site).await;
        let attached = Endpoint::attach(cluster.channel(n).await, &secret).await;
        endpoints.push((site, attached.expect("attached")));
    }
    let mut tab = Tab::open(&cluster, 1).await;
    until_online(&person, 3).await;
    let began = Instant::now();
    let meeting = convene(&person, &["A1", "A2", "A3"], "").await.expect("convened");
    println!("acknowledged after {:?}", began.elapsed());
    for (site, endpoint) in &mut endpoints {
        let call = endpoint.summoned().await;
        println!("{site} was paged after {:?}", began.elapsed());
        assert_eq!(call.meeting, meeting.id);
        assert!(call.ticket.is_some(), "a ticket for the relay of another replica");
        endpoint
            .report(&meeting.id, SummonsState::Answered)
            .await
            .expect("reported");
        relay
            .legs(vec![leg(&meeting.id, site, pb::LegState::OnAir, "")])
            .await;
    }
    for n in 0..3 {
        until_on_air(&cluster.person(n).await, &meeting.id).await;
    }
    println!("on air everywhere after {:?}", began.elapsed());
    // A second meeting on another replica does not get a site that is taken.
    let other = convene(&cluster.person(1).await, &["A1"], "")
        .await
        .expect("convened");
    let reason = other.summonses[0].reason();
    assert_eq!(reason, pb::SummonsReason::InOtherMeeting);
    // The same key on two replicas at once is one meeting.
    let (left, right) = (cluster.person(1).await, cluster.person(2).await);
    let (left, right) = tokio::join!(convene(&left, &["B1"], "k"), convene(&right, &["B1"], "k"));
    assert_eq!(left.expect("convened").id, right.expect("convened").id);
    end(&cluster.person(2).await, &meeting.id).await;
    for (_, endpoint) in &mut endpoints {
        assert_eq!(endpoint.withdrawn().await, "ended");
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = tab.next(deadline).await.expect("the end is told");
        if event.meeting == meeting.id && matches!(event.event, Some(pb::meeting_event::Event::Ended(_))) {
            break;
        }
    }
}

async fn until_online(person: &Person, count: usize) {
    let began = Instant::now();
    loop {
        let listed = person
            .directory()
            .list_sites(person.request(pb::ListSitesRequest {}))
            .await;
        let presence = listed.expect("listed").into_inner().presence;
        if presence.iter().filter(|site| site.online).count() >= count {
            println!(
                "{count} sites online as this replica knows after {:?}",
                began.elapsed()
            );
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{presence:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Kills one replica so many milliseconds after the convening began, at each in turn.
#[tokio::test]
async fn a_replica_that_is_killed_at_any_point_of_a_convening_takes_nothing_acknowledged_with_it() {
    let mut cluster = Cluster::start().await;
    let field = Field::start(&cluster, &["A1", "A2", "A3"]).await;
    until_online(&cluster.person(0).await, 3).await;
    let mut tab = Tab::open(&cluster, 0).await;
    let mut slowest = Duration::ZERO;
    for (round, after_ms) in [0, 2, 5, 8, 12, 18, 25, 40, 60, 100].into_iter().enumerate() {
        let (killed, at) = (round % 3, (round / 2) % 3);
        let key = format!("round {round}");
        let persons = [
            cluster.person(0).await,
            cluster.person(1).await,
            cluster.person(2).await,
        ];
        let asking = tokio::spawn({
            let (person, key) = (persons[at].clone(), key.clone());
            async move { convene(&person, &["A1", "A2", "A3"], &key).await }
        });
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        cluster.kill(killed);
        let answer = asking.await.expect("asked");
        let survivor = &persons[(killed + 1) % 3];
        // Whoever got no answer asks again, elsewhere, with the same key.
        let again = convene(survivor, &["A1", "A2", "A3"], &key)
            .await
            .expect("convened");
        if let Ok(first) = &answer {
            assert_eq!(first.id, again.id, "what was acknowledged is there");
        }
        let took = until_on_air(survivor, &again.id).await;
        slowest = slowest.max(took);
        println!(
            "round {round}: asked {at}, killed {killed} after {after_ms} ms, acknowledged: {}, all on air {took:?} later",
            answer.is_ok()
        );
        watch_until(&mut tab, &again.id).await;
        end(survivor, &again.id).await;
        cluster.resume(killed);
        one_meeting_a_site(survivor).await;
        until_online(&cluster.person(killed).await, 3).await;
    }
    println!(
        "slowest after a kill: {slowest:?}; watchers were back after {:?} at most",
        tab.longest
    );
    // Every page was of the meeting that had the site: none in two at once.
    let summoned = field.seen.summoned.lock().expect("lock").clone();
    let meetings: BTreeSet<&String> = summoned.iter().map(|(_, meeting)| meeting).collect();
    assert_eq!(meetings.len(), 10, "{summoned:?}");
}

/// Takes what the tab is told until the meeting's sites are on air; gaps and repetitions are found on the way.
async fn watch_until(tab: &mut Tab, meeting: &str) {
    let began = Instant::now();
    while tab.on_air.iter().filter(|(of, _)| of == meeting).count() < 3 {
        tab.next(Instant::now() + Duration::from_millis(100)).await;
        assert!(began.elapsed() < PATIENCE, "all is told: {:?}", tab.on_air);
    }
}

async fn one_meeting_a_site(person: &Person) {
    let listed = person
        .meetings()
        .list_meetings(person.request(pb::ListMeetingsRequest::default()))
        .await
        .expect("listed");
    let mut busy = BTreeSet::new();
    for meeting in listed.into_inner().meetings {
        for summons in meeting.summonses {
            let in_it = matches!(summons.state(), SummonsState::Joining | SummonsState::OnAir);
            assert!(
                !in_it || busy.insert(summons.site.clone()),
                "{} is in two",
                summons.site
            );
        }
    }
}

#[tokio::test]
async fn without_the_bus_calls_go_by_the_store_and_all_recover() {
    let mut cluster = Cluster::start().await;
    let _field = Field::start(&cluster, &["A1", "A2", "A3"]).await;
    let person = cluster.person(0).await;
    until_online(&person, 3).await;
    let mut tab = Tab::open(&cluster, 0).await;
    tab.one(PATIENCE).await;
    cluster.nats.kill();
    let began = Instant::now();
    let meeting = convene(&person, &["A1", "A2", "A3"], "").await.expect("convened");
    until_on_air(&person, &meeting.id).await;
    println!("without the bus all were on air after {:?}", began.elapsed());
    end(&person, &meeting.id).await;
    // Later the endpoints of others count as cut off; the replicas that have them see the call in the store.
    tokio::time::timeout(PATIENCE, async {
        while online(&person).await == 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("others are away without the bus");
    let began = Instant::now();
    let meeting = convene(&person, &["A1", "A2", "A3"], "").await.expect("convened");
    let away = |summons: &&pb::Summons| summons.reason() == pb::SummonsReason::ReplicaAway;
    let away = meeting.summonses.iter().filter(away).count();
    assert!(away > 0, "{:?}", meeting.summonses);
    until_on_air(&person, &meeting.id).await;
    println!(
        "{away} of 3 cut off, and on air by the store after {:?}",
        began.elapsed()
    );
    cluster.nats.resume();
    let began = Instant::now();
    until_online(&person, 3).await;
    println!("the bus is back: all known again after {:?}", began.elapsed());
    end(&person, &meeting.id).await;
    let _ = tab.next(Instant::now() + Duration::from_secs(1)).await;
    while tab
        .next(Instant::now() + Duration::from_millis(200))
        .await
        .is_some()
    {}
    let told: Vec<bool> = tab.services.iter().map(|state| state.bus_ok).collect();
    assert!(told.contains(&false) && told.last() == Some(&true), "{told:?}");
}

async fn online(person: &Person) -> usize {
    let listed = person
        .directory()
        .list_sites(person.request(pb::ListSitesRequest {}))
        .await;
    let presence = listed.expect("listed").into_inner().presence;
    presence.iter().filter(|site| site.online).count()
}

#[tokio::test]
async fn without_the_database_nothing_is_acknowledged_and_facts_are_kept() {
    let mut cluster = Cluster::start().await;
    let credentials = cluster.enrol_relay().await;
    let relay = FakeRelay::dial_at(&cluster.agents_addr(2), credentials, Vec::new())
        .await
        .expect("serving");
    let person = cluster.person(0).await;
    let secret = person.site_link("A1").await;
    let mut endpoint = Endpoint::attach(cluster.channel(1).await, &secret)
        .await
        .expect("attached");
    until_online(&person, 1).await;
    let meeting = convene(&person, &["A1"], "").await.expect("convened");
    endpoint.summoned().await;
    let mut tab = Tab::open(&cluster, 0).await;
    tab.one(PATIENCE).await;
    // One that may have no snapshot yet when the database goes away.
    let mut newcomer = Tab::open(&cluster, 0).await;
    cluster.postgres.kill();
    let began = Instant::now();
    let (refused, told_after) = tokio::join!(
        async {
            let refused = convene(&person, &["A2"], "").await.expect_err("refused");
            println!(
                "without the database: refused after {:?}: {refused}",
                began.elapsed()
            );
            refused
        },
        tab.until_store_is(false, SILENCE)
    );
    println!("watchers were told after {told_after:?}");
    assert!(told_after < TOLD, "{told_after:?}");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    // The relay sees the site meanwhile.
    relay
        .legs(vec![leg(&meeting.id, "A1", pb::LegState::OnAir, "")])
        .await;
    // Away for longer than the looks of a watcher at the store are apart: heartbeats go on.
    for _ in 0..7 {
        while !tab.one(SILENCE).await {}
    }
    cluster.postgres.resume();
    let (stored_after, told_after) = tokio::join!(
        until_on_air(&person, &meeting.id),
        tab.until_store_is(true, SILENCE)
    );
    println!(
        "the database is back: what was seen meanwhile is stored after {stored_after:?}, watchers are told after {told_after:?}"
    );
    assert!(told_after < TOLD, "{told_after:?}");
    newcomer.one(PATIENCE).await;
    assert!(
        newcomer.cursor.contains_key(&meeting.id),
        "it has its snapshot now at the latest"
    );
    newcomer.until_store_is(true, SILENCE).await;
    convene(&person, &["A2"], "").await.expect("convened");
    while tab.next(Instant::now() + Duration::from_secs(2)).await.is_some() {}
    let told: Vec<bool> = tab.services.iter().map(|state| state.store_ok).collect();
    assert!(told.contains(&false) && told.last() == Some(&true), "{told:?}");
    assert_eq!(tab.longest, Duration::ZERO, "the watcher stayed where it was");
}

/// Convenes many times at once; each is refused within 4 s.
async fn all_are_refused(person: &Person) {
    let began = Instant::now();
    let asked = (0..30).map(|n| async move {
        let refused = convene(person, &["A1"], &format!("frozen {n}")).await;
        (refused.expect_err("refused"), began.elapsed())
    });
    let refused = futures_util::future::join_all(asked).await;
    let slowest = refused.iter().map(|(_, took)| *took).max();
    println!("frozen: refused after {slowest:?} at most: {}", refused[0].0);
    for (status, took) in refused {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(
            status.message().contains("the store is not available"),
            "{status}"
        );
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}

/// Somebody who asks and commands without a pause until `over`; how long the longest call took, and how many were refused.
async fn busy(person: Person, meeting: Option<String>, over: Arc<AtomicBool>) -> (Duration, usize) {
    let (mut longest, mut refused, mut locked) = (Duration::ZERO, 0, false);
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = match &meeting {
            Some(meeting) => {
                locked = !locked;
                let verb = pb::act_request::Verb::Lock(pb::Lock { locked });
                person.act(meeting, verb).await.map(drop)
            }
            None => {
                let request = person.request(pb::ListMeetingsRequest { include_ended: true });
                person.meetings().list_meetings(request).await.map(drop)
            }
        };
        longest = longest.max(began.elapsed());
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            refused += 1;
        }
    }
    (longest, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_frozen_is_a_clear_refusal_and_all_works_again_when_it_thaws() {
    let mut cluster = Cluster::start().await;
    let person = cluster.person(0).await;
    let before = convene(&person, &["A2"], "").await.expect("convened");
    let mut tab = Tab::open(&cluster, 0).await;
    tab.one(PATIENCE).await;
    let over = Arc::new(AtomicBool::new(false));
    let calls = (0..24).map(|n| {
        let meeting = (n == 0).then(|| before.id.clone());
        tokio::spawn(busy(person.clone(), meeting, over.clone()))
    });
    let calls: Vec<_> = calls.collect();
    while !tab.one(SILENCE).await {}
    // Some calls are with the database at this moment: they have their connections, and get no answer.
    tokio::task::block_in_place(|| cluster.postgres.freeze());
    let told_after = tab.until_store_is(false, SILENCE).await;
    println!("frozen: watchers were told after {told_after:?}");
    assert!(told_after < TOLD, "{told_after:?}");
    for _ in 0..6 {
        while !tab.one(SILENCE).await {}
    }
    over.store(true, Ordering::Relaxed);
    let calls = tokio::time::timeout(Duration::from_secs(4), futures_util::future::join_all(calls));
    for call in calls.await.expect("no call hangs") {
        let (longest, refused) = call.expect("all refusals are clear");
        println!("{refused} refused, the longest call took {longest:?}");
        assert!(refused > 0 && longest < Duration::from_secs(4), "{longest:?}");
    }
    all_are_refused(&person).await;
    cluster.postgres.thaw();
    let told_after = tab.until_store_is(true, SILENCE).await;
    println!("it thaws: watchers are told after {told_after:?}");
    assert!(told_after < TOLD, "{told_after:?}");
    for n in 0..3 {
        let (began, key) = (Instant::now(), format!("thawed {n}"));
        // The server first gets through all who came and left meanwhile.
        let again = loop {
            match convene(&cluster.person(n).await, &["A1"], &key).await {
                Ok(meeting) => break meeting.id,
                Err(status) => assert!(began.elapsed() < PATIENCE, "{status}"),
            }
        };
        println!("replica {n} convenes again after {:?}", began.elapsed());
        end(&person, &again).await;
    }
    let request = person.request(pb::ListMeetingsRequest { include_ended: true });
    let listed = person.meetings().list_meetings(request).await.expect("listed");
    let count = listed.into_inner().meetings.len();
    assert_eq!(count, 4, "nothing that was refused is there");
    end(&person, &before.id).await;
}

/// Waits until every site of a meeting is as wanted, as this person's replica knows it.
async fn until_all(person: &Person, meeting: &str, what: &str, wanted: impl Fn(&pb::Summons) -> bool) {
    let began = Instant::now();
    loop {
        let listed = person
            .meetings()
            .list_meetings(person.request(pb::ListMeetingsRequest { include_ended: true }))
            .await;
        let meetings = listed.expect("listed").into_inner().meetings;
        // Another replica may not have heard of it yet.
        let found = meetings.into_iter().find(|found| found.id == meeting);
        if found
            .as_ref()
            .is_some_and(|found| found.summonses.iter().all(&wanted))
        {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "not all {what}: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn convene_at(person: &Person, sites: &[&str], priority: pb::Priority) -> pb::Meeting {
    let selector = pb::Selector {
        sites: sites.iter().map(|&s| s.to_owned()).collect(),
        ..Default::default()
    };
    let message = pb::ConveneRequest {
        selector: Some(selector),
        title: format!("{priority:?}"),
        priority: priority.into(),
        ..Default::default()
    };
    let answer = person.meetings().convene(person.request(message)).await;
    answer.expect("convened").into_inner().meeting.expect("a meeting")
}

/// A routine and an emergency meeting of the same sites, so long after each other on two replicas: each site ends in the
/// emergency alone, and returns when that is over.
async fn emergency_after(persons: &[Person; 3], gap: Duration) {
    let sites = ["A1", "A2", "A3"];
    let (routine, emergency) = tokio::join!(convene_at(&persons[0], &sites, pb::Priority::Routine), async {
        tokio::time::sleep(gap).await;
        convene_at(&persons[1], &sites, pb::Priority::Emergency).await
    });
    let on_air = |summons: &pb::Summons| summons.state() == SummonsState::OnAir;
    let taken = |summons: &pb::Summons| summons.reason() == pb::SummonsReason::InOtherMeeting;
    for person in persons {
        until_all(person, &emergency.id, "on air in the emergency", on_air).await;
        until_all(person, &routine.id, "out of the routine meeting", taken).await;
    }
    end(&persons[2], &emergency.id).await;
    until_all(&persons[0], &routine.id, "back on air", on_air).await;
    end(&persons[1], &routine.id).await;
    // Who still believes it live would refuse its sites to the next of the same rank.
    for person in persons {
        until_ended(person, &routine.id).await;
    }
}

async fn until_ended(person: &Person, meeting: &str) {
    let began = Instant::now();
    loop {
        let listed = person
            .meetings()
            .list_meetings(person.request(pb::ListMeetingsRequest { include_ended: false }))
            .await;
        let live = listed.expect("listed").into_inner().meetings;
        if live.iter().all(|live| live.id != meeting) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{meeting} is still live");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn however_close_two_replicas_convene_the_same_sites_each_is_in_the_higher_meeting_alone() {
    let mut cluster = Cluster::start().await;
    let _field = Field::start(&cluster, &["A1", "A2", "A3"]).await;
    let persons = [
        cluster.person(0).await,
        cluster.person(1).await,
        cluster.person(2).await,
    ];
    until_online(&persons[0], 3).await;
    for gap_ms in [0, 2, 4, 6, 8, 10, 0, 3, 5, 12] {
        emergency_after(&persons, Duration::from_millis(gap_ms)).await;
    }
    // Without the bus nobody hears of the other for a whole second.
    cluster.nats.kill();
    for gap_ms in [0, 300] {
        emergency_after(&persons, Duration::from_millis(gap_ms)).await;
    }
}

fn named_leg(meeting: &str, site: &str, name: &str, state: pb::LegState) -> pb::LegReport {
    pb::LegReport {
        leg: format!("{name}-{site}"),
        ..leg(meeting, site, state, "")
    }
}

#[tokio::test]
async fn a_relay_that_died_and_thaws_takes_nobody_off_air_who_moved_to_the_next() {
    let sites = ["A1", "A2"];
    let cluster = Cluster::start().await;
    let dial = |n: usize, credentials: &muster_identity::Credentials, legs: Vec<pb::LegReport>| {
        let (addr, credentials) = (cluster.agents_addr(n), credentials.clone());
        async move {
            FakeRelay::dial_at(&addr, credentials, legs)
                .await
                .expect("serving")
        }
    };
    let (old, new) = (cluster.enrol_relay().await, cluster.enrol_relay().await);
    let old_relay = dial(0, &old, Vec::new()).await;
    let person = cluster.person(2).await;
    let mut endpoints = Vec::new();
    for site in sites {
        let secret = person.site_link(site).await;
        let attached = Endpoint::attach(cluster.channel(2).await, &secret).await;
        endpoints.push(attached.expect("attached"));
    }
    until_online(&cluster.person(0).await, 2).await;
    let meeting = convene(&person, &sites, "").await.expect("convened").id;
    let legs = |name: &str| -> Vec<pb::LegReport> {
        let on_air = |site: &&str| named_leg(&meeting, site, name, pb::LegState::OnAir);
        sites.iter().map(on_air).collect()
    };
    let ticket = endpoints[0].summoned().await.ticket.expect("a ticket");
    old_relay.legs(legs("old")).await;
    until_on_air(&person, &meeting).await;
    let new_relay = dial(1, &new, Vec::new()).await;
    drop(old_relay);
    // An endpoint says so until the replica that it asks knows too, and is sent to the other relay.
    let began = Instant::now();
    loop {
        let told = endpoints[0].lost(&meeting, &ticket).await;
        if told.is_ok_and(|next| next.epoch > ticket.epoch) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the meeting is placed anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    new_relay.legs(legs("new")).await;
    stay_on_air(&cluster, &meeting, Duration::from_secs(8)).await;
    // It was only frozen: it comes with what it had, and lets go of it.
    let thawed = dial(0, &old, legs("old")).await;
    for site in sites {
        let left = named_leg(&meeting, site, "old", pb::LegState::Left);
        thawed.legs(vec![left]).await;
    }
    stay_on_air(&cluster, &meeting, Duration::from_secs(1)).await;
    drop(thawed);
    stay_on_air(&cluster, &meeting, Duration::from_secs(6)).await;
    // The relay that it is on now is believed, at every replica.
    let left = named_leg(&meeting, "A1", "new", pb::LegState::Left);
    new_relay.legs(vec![left]).await;
    let lost = person.until(&meeting, "A1", SummonsState::Unreachable).await;
    assert_eq!(lost.reason(), pb::SummonsReason::LinkLost);
}

/// All sites are on air for so long, as every replica knows it.
async fn stay_on_air(cluster: &Cluster, meeting: &str, time: Duration) {
    let persons = [
        cluster.person(0).await,
        cluster.person(1).await,
        cluster.person(2).await,
    ];
    for person in &persons {
        until_on_air(person, meeting).await;
    }
    let began = Instant::now();
    while began.elapsed() < time {
        for person in &persons {
            let found = person.meeting(meeting).await;
            let on_air = |summons: &pb::Summons| summons.state() == SummonsState::OnAir;
            assert!(found.summonses.iter().all(on_air), "{found:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
