use crate::support::{FakeRelay, Fixture, Person, add_account, attached, quality, small};
use muster_control_plane::bus::Hint;
use muster_control_plane::store::{Append, EndedRow, MeetingRow, NewEvent, Store};
use muster_proto::command::v1 as pb;
use pb::watch_response::Event;
use pb::{LegState, SummonsState};
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Streaming};

/// The next event that is neither heartbeat, presence nor fleet.
async fn next(stream: &mut Streaming<pb::WatchResponse>) -> Event {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), stream.message());
        let message = message
            .await
            .expect("within 10 s")
            .expect("stream")
            .expect("not over");
        match message.event.expect("event") {
            Event::Heartbeat(_)
            | Event::Presence(_)
            | Event::Fleet(_)
            | Event::Permissions(_)
            | Event::Service(_) => {}
            other => return other,
        }
    }
}

async fn snapshot(stream: &mut Streaming<pb::WatchResponse>) -> pb::WatchSnapshot {
    match next(stream).await {
        Event::Snapshot(snapshot) => snapshot,
        other => panic!("expected a snapshot, found {other:?}"),
    }
}

async fn event(stream: &mut Streaming<pb::WatchResponse>) -> pb::MeetingEvent {
    match next(stream).await {
        Event::MeetingEvent(event) => event,
        other => panic!("expected an event of a meeting, found {other:?}"),
    }
}

#[tokio::test]
async fn a_watcher_that_was_cut_off_resumes_with_nothing_lost_or_repeated() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1", "A2"]).await;
    let person = fixture.person().await;
    let mut stream = person.watch(vec![]).await;
    let first = snapshot(&mut stream).await;
    assert_eq!(
        (
            first.units.len(),
            first.sites.len(),
            first.meetings.len(),
            first.resumed
        ),
        (3, 5, 0, false)
    );
    assert_eq!(first.presence.iter().filter(|p| p.online).count(), 2);

    let meeting = person.convene(&["A1", "A2"]).await.expect("convened");
    let mut seen = vec![event(&mut stream).await];
    drop(stream);
    for (endpoint, site) in endpoints.iter_mut().zip(["A1", "A2"]) {
        endpoint
            .report(&meeting.id, SummonsState::Answered)
            .await
            .expect("taken");
        relay.leg(&meeting.id, site, LegState::OnAir, "").await;
        person.until(&meeting.id, site, SummonsState::OnAir).await;
    }
    let position = pb::Position {
        stream: meeting.id.clone(),
        seq: seen[0].seq,
    };
    let mut stream = person.watch(vec![position]).await;
    let again = snapshot(&mut stream).await;
    assert!(again.resumed && again.meetings.is_empty());
    let end = pb::EndMeetingRequest {
        meeting: meeting.id.clone(),
    };
    person
        .meetings()
        .end_meeting(person.request(end))
        .await
        .expect("ended");
    while !matches!(
        seen.last().expect("one").event,
        Some(pb::meeting_event::Event::Ended(_))
    ) {
        seen.push(event(&mut stream).await);
    }
    let numbers: Vec<_> = seen.iter().map(|event| event.seq).collect();
    let expected: Vec<_> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
    let on_air = seen.iter().filter(|event| match &event.event {
        Some(pb::meeting_event::Event::Summons(s)) => {
            s.summons.as_ref().expect("summons").state() == SummonsState::OnAir
        }
        _ => false,
    });
    assert_eq!(on_air.count(), 2);
}

async fn convene_and_end(person: &Person, site: &str) -> String {
    let meeting = person.convene(&[site]).await.expect("convened").id;
    let end = pb::EndMeetingRequest {
        meeting: meeting.clone(),
    };
    person
        .meetings()
        .end_meeting(person.request(end))
        .await
        .expect("ended");
    meeting
}

/// The events of these meetings as they are told, until all have ended; each once and in order.
async fn told_whole(stream: &mut Streaming<pb::WatchResponse>, meetings: &[&str]) {
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut ended = Vec::new();
    while ended.len() < meetings.len() {
        let event = event(stream).await;
        assert!(
            meetings.contains(&event.meeting.as_str()),
            "told already: {event:?}"
        );
        let last = last.entry(event.meeting.clone()).or_default();
        assert_eq!(event.seq, *last + 1, "{event:?}");
        *last = event.seq;
        if matches!(event.event, Some(pb::meeting_event::Event::Ended(_))) {
            ended.push(event.meeting);
        }
    }
    assert_eq!(ended, meetings);
}

/// Nothing of a meeting is told before a heartbeat that comes a second from now or later.
async fn silent(stream: &mut Streaming<pb::WatchResponse>) {
    let since_epoch = std::time::UNIX_EPOCH.elapsed().expect("a clock");
    let later = i64::try_from(since_epoch.as_millis()).expect("small") + 1000;
    loop {
        let message = stream.message().await.expect("stream").expect("not over");
        match message.event.expect("event") {
            Event::MeetingEvent(event) => panic!("told again: {event:?}"),
            Event::Heartbeat(beat) if beat.server_time_ms >= later => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_meeting_that_began_and_ended_while_the_watcher_was_away_is_told() {
    let fixture = small().await;
    let person = fixture.person().await;
    let mut stream = person.watch(vec![]).await;
    let message = stream.message().await.expect("stream").expect("not over");
    assert!(matches!(message.event, Some(Event::Snapshot(_))));
    let mut position = message.position;
    // Nothing was live when it went away: its cursor is empty, its position is not.
    drop(stream);
    let first = convene_and_end(&person, "A1").await;
    let second = convene_and_end(&person, "A2").await;
    let mut stream = person.watch_at(vec![], Some(position)).await;
    let message = stream.message().await.expect("stream").expect("not over");
    assert!(matches!(message.event, Some(Event::Snapshot(snapshot)) if snapshot.resumed));
    told_whole(&mut stream, &[&first, &second]).await;
    let third = convene_and_end(&person, "A1").await;
    told_whole(&mut stream, &[&third]).await;
    // One that goes on, and others that come and go: at the position that came with the last event.
    let live = person.convene(&["A1"]).await.expect("convened");
    let mut cursor = pb::Position {
        stream: live.id.clone(),
        seq: 0,
    };
    while cursor.seq < live.seq {
        let message = stream.message().await.expect("stream").expect("not over");
        position = message.position;
        if let Some(Event::MeetingEvent(event)) = message.event {
            assert_eq!(event.meeting, live.id);
            cursor.seq = event.seq;
        }
    }
    drop(stream);
    let fourth = convene_and_end(&person, "A2").await;
    for told in [Some(position), None] {
        // Without a position that of the newest meeting in the cursor counts.
        let mut stream = person.watch_at(vec![cursor.clone()], told).await;
        assert!(snapshot(&mut stream).await.resumed);
        told_whole(&mut stream, &[&fourth]).await;
        silent(&mut stream).await;
    }
    let mut unknown = person.watch_at(vec![], Some(position + 1000)).await;
    assert!(
        !snapshot(&mut unknown).await.resumed,
        "of another store: a fresh snapshot says so"
    );
}

/// Stores the same meeting once more under another name, past the control plane.
async fn put_by_another(fixture: &Fixture, meeting: &str) -> String {
    let store = Store::open(fixture.dir.path()).await.expect("opened");
    let id = format!("{meeting}b");
    let row = store.kept_meeting(meeting).await.expect("read").expect("a row");
    let mut append = Append {
        meeting: id.clone(),
        convened: Some(MeetingRow {
            id: id.clone(),
            title: row.title,
            unit: row.unit,
            chair: row.chair,
            idempotency_key: None,
            started_ms: row.started_ms,
        }),
        ..Append::default()
    };
    for stored in store.events_after(meeting, 0).await.expect("read") {
        let mut event = pb::MeetingEvent::decode(stored.payload.as_slice()).expect("an event");
        event.meeting.clone_from(&id);
        append.events.push(NewEvent {
            seq: event.seq,
            at_ms: event.at_ms,
            actor: event.actor.clone(),
            payload: event.encode_to_vec(),
        });
    }
    let state = row.final_state.expect("ended");
    let mut state = pb::Meeting::decode(state.as_slice()).expect("a meeting");
    state.id.clone_from(&id);
    append.ended = Some(EndedRow {
        ended_ms: state.ended_ms,
        final_state: state.encode_to_vec(),
    });
    store.append(&append).await.expect("stored");
    store.close().await;
    id
}

#[tokio::test]
async fn hints_that_are_lost_or_repeated_change_nothing() {
    let fixture = small().await;
    let person = fixture.person().await;
    let mut stream = person.watch(vec![]).await;
    snapshot(&mut stream).await;
    let whole = convene_and_end(&person, "A1").await;
    told_whole(&mut stream, &[&whole]).await;
    // The hints of a meeting that has ended come again.
    let bus = fixture.control_plane.bus();
    for (meeting, seq) in [(&whole, 1), (&whole, 2), (&whole, 99)] {
        let event = pb::MeetingEvent {
            meeting: meeting.clone(),
            seq,
            ..Default::default()
        };
        bus.publish(Hint::Meeting(Arc::new(event)));
    }
    silent(&mut stream).await;
    // One of which no hint comes at all: it is in the store as if another had put it there.
    let unhinted = put_by_another(&fixture, &whole).await;
    told_whole(&mut stream, &[&unhinted]).await;
    let next = convene_and_end(&person, "A2").await;
    told_whole(&mut stream, &[&next]).await;
    silent(&mut stream).await;
}

#[tokio::test]
async fn a_cursor_that_is_not_known_gets_a_snapshot() {
    let fixture = small().await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1"]).await.expect("convened");
    for position in [
        pb::Position {
            stream: "m-of-another-life".into(),
            seq: 4,
        },
        pb::Position {
            stream: meeting.id.clone(),
            seq: 4000,
        },
    ] {
        let mut stream = person.watch(vec![position]).await;
        let snapshot = snapshot(&mut stream).await;
        assert!(!snapshot.resumed);
        assert_eq!(snapshot.meetings, [person.meeting(&meeting.id).await]);
    }
}

/// Reads until the site's presence and the relay's state have both been told as wanted.
async fn until(stream: &mut Streaming<pb::WatchResponse>, site_online: Option<bool>, relay_online: bool) {
    let (mut site, mut relay) = (site_online.is_none(), false);
    let told = async {
        while !(site && relay) {
            match stream
                .message()
                .await
                .expect("stream")
                .expect("not over")
                .event
                .expect("event")
            {
                Event::Presence(changed) => {
                    site |= changed
                        .presence
                        .iter()
                        .any(|p| p.site == "A1" && Some(p.online) == site_online);
                }
                Event::Fleet(fleet) => relay |= fleet.relays.iter().any(|r| r.online == relay_online),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .expect("told within 10 s");
}

#[tokio::test]
async fn presence_and_relays_are_told_as_they_change() {
    let fixture = small().await;
    let person = fixture.person().await;
    let mut stream = person.watch(vec![]).await;
    snapshot(&mut stream).await;
    let mut relay = FakeRelay::start(&fixture).await;
    let endpoints = attached(&fixture, &["A1"]).await;
    until(&mut stream, Some(true), true).await;
    relay.fall_silent();
    until(&mut stream, None, false).await;
    relay.leg("m0", "A1", LegState::Joining, "").await;
    until(&mut stream, None, true).await;
    drop((endpoints, relay));
    until(&mut stream, Some(false), false).await;
}

/// What is told of quality next.
async fn told(stream: &mut Streaming<pb::WatchResponse>) -> Vec<pb::SiteQuality> {
    loop {
        if let Event::Quality(changed) = next(stream).await {
            return changed.sites;
        }
    }
}

#[tokio::test]
async fn how_each_site_fares_is_told_in_the_snapshot_and_as_it_changes() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let _endpoints = attached(&fixture, &["A1", "A2"]).await;
    let person = fixture.person().await;
    let meeting = person.convene(&["A1", "A2"]).await.expect("convened");
    let of = |site: &str, up_bps: u32| quality(&meeting.id, site, up_bps);
    let mut early = person.watch(vec![]).await;
    assert!(snapshot(&mut early).await.quality.is_empty());
    for (meeting, site) in [
        ("m-unknown", "A1"),
        (meeting.id.as_str(), "B1"),
        (meeting.id.as_str(), "A1"),
    ] {
        relay.quality(meeting, site, 5).await;
    }
    // Of a meeting or a site that is not called nothing is taken.
    assert_eq!(told(&mut early).await, [of("A1", 5)]);
    relay.quality(&meeting.id, "desk:duty", 6).await;
    assert_eq!(told(&mut early).await, [of("desk:duty", 6)]);

    let mut late = person.watch(vec![]).await;
    assert_eq!(
        snapshot(&mut late).await.quality,
        [of("A1", 5), of("desk:duty", 6)]
    );
    let position = pb::Position {
        stream: meeting.id.clone(),
        seq: meeting.seq,
    };
    let mut resumed = person.watch(vec![position]).await;
    let again = snapshot(&mut resumed).await;
    assert!(again.resumed);
    assert_eq!(again.quality, [of("A1", 5), of("desk:duty", 6)]);
    relay.quality(&meeting.id, "A1", 7).await;
    assert_eq!(told(&mut resumed).await, [of("A1", 7)]);

    let gone = |site: &str| pb::SiteQuality {
        quality: None,
        ..of(site, 0)
    };
    relay.leg(&meeting.id, "A1", LegState::Left, "left").await;
    assert_eq!(told(&mut resumed).await, [gone("A1")]);
    drop(relay);
    assert_eq!(told(&mut resumed).await, [gone("desk:duty")]);
}

#[tokio::test]
async fn a_session_that_was_ended_ends_its_watch() {
    let fixture = small().await;
    let person = fixture.person().await;
    let mut stream = person.watch(vec![]).await;
    snapshot(&mut stream).await;
    let mut sessions = pb::session_service_client::SessionServiceClient::new(person.channel.clone());
    sessions
        .sign_out(person.request(pb::SignOutRequest {}))
        .await
        .expect("signed out");
    let end = loop {
        match tokio::time::timeout(Duration::from_secs(10), stream.message())
            .await
            .expect("within 10 s")
        {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn of_the_units_that_are_followed_all_is_told_and_of_others_nothing() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let mut endpoints = attached(&fixture, &["A1", "B1", "D1"]).await;
    let person = fixture.person().await;
    let of_a = person.convene(&["A1"]).await.expect("convened");
    let of_b = person.convene(&["D1"]).await.expect("convened");
    for (meeting, site) in [(&of_a, "A1"), (&of_b, "D1")] {
        relay.quality(&meeting.id, site, 5).await;
    }
    let mut all = person.watch(vec![]).await;
    while snapshot(&mut all).await.quality.len() < 2 {
        all = person.watch(vec![]).await;
    }

    let mut stream = person.watch_units(vec![], &["B", "A"]).await.expect("watching");
    let both = snapshot(&mut stream).await;
    assert_eq!(
        (both.units.len(), both.sites.len(), both.presence.len()),
        (2, 4, 4)
    );
    let mut stream = person.watch_units(vec![], &["B"]).await.expect("watching");
    let first = snapshot(&mut stream).await;
    let sites: Vec<_> = first.sites.iter().map(|site| site.id.as_str()).collect();
    assert_eq!((sites, first.units.len()), (vec!["B1"], 1));
    assert_eq!((first.meetings.len(), first.quality.len()), (0, 0));

    // A1 is of no unit that is followed; B1 is, and tells that the news of A1 came before it.
    endpoints.remove(0);
    endpoints.remove(0);
    loop {
        let message = stream.message().await.expect("stream").expect("not over");
        if let Some(Event::Presence(changed)) = message.event {
            assert!(changed.presence.iter().all(|presence| presence.site == "B1"));
            if !changed.presence[0].online {
                break;
            }
        }
    }

    // A meeting counts from the moment that it has a site of the unit, and is told from its beginning.
    let verb = pb::act_request::Verb::AddSites(pb::AddSites {
        selector: Some(pb::Selector {
            sites: vec!["B1".to_owned()],
            ..pb::Selector::default()
        }),
    });
    person.act(&of_b.id, verb).await.expect("added");
    for seq in 1..=of_b.seq + 1 {
        let told = event(&mut stream).await;
        assert_eq!((told.meeting.as_str(), told.seq), (of_b.id.as_str(), seq));
    }
    person.end(&of_a.id).await;
    person.end(&of_b.id).await;
    let last = loop {
        let told = event(&mut stream).await;
        assert_eq!(told.meeting, of_b.id);
        if matches!(told.event, Some(pb::meeting_event::Event::Ended(_))) {
            break told.seq;
        }
    };

    // It resumes where it was left, also of a meeting that has ended; a meeting of other units is no cursor.
    let at = |meeting: &pb::Meeting, seq| pb::Position {
        stream: meeting.id.clone(),
        seq,
    };
    for (cursor, resumed) in [(at(&of_b, last), true), (at(&of_a, 1), false)] {
        let mut again = person.watch_units(vec![cursor], &["B"]).await.expect("watching");
        assert_eq!(snapshot(&mut again).await.resumed, resumed);
    }
}

#[tokio::test]
async fn a_unit_that_is_not_there_or_not_seen_is_refused() {
    let fixture = small().await;
    add_account(fixture.dir.path(), "street-a", pb::Role::DutyOfficer, "A").await;
    let person = Person::sign_in(fixture.channel().await, "street-a").await;
    for (unit, code, word) in [
        ("nowhere", Code::NotFound, "unknown_unit"),
        ("B", Code::PermissionDenied, "outside_authority"),
        ("D", Code::PermissionDenied, "outside_authority"),
        ("no unit", Code::InvalidArgument, "bad_request"),
    ] {
        let refused = person.watch_units(vec![], &[unit]).await.expect_err(unit);
        let told = refused.metadata().get("muster-code").expect("a word");
        assert_eq!(
            (refused.code(), told.to_str().expect("ascii")),
            (code, word),
            "{unit}"
        );
    }
    let many = vec!["A"; 1001];
    let refused = person.watch_units(vec![], &many).await.expect_err("too many");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut stream = person.watch_units(vec![], &["A"]).await.expect("watching");
    assert_eq!(snapshot(&mut stream).await.sites.len(), 3);
}
