//! Every event there and back; and what older versions stored.

use super::*;
use muster_domain::*;
use muster_proto::command::v1 as pb;
use pb::meeting_event::Event as Wire;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use std::sync::Arc;

fn site() -> impl Strategy<Value = SiteId> {
    "[A-Z][0-9]{1,3}".prop_map(|id| SiteId::new(id).expect("an id"))
}

fn account() -> impl Strategy<Value = AccountName> {
    "[a-z]{1,6}".prop_map(|name| AccountName::new(name).expect("a name"))
}

/// 0 stands for none on the wire.
fn time() -> impl Strategy<Value = Millis> {
    (1..i64::MAX).prop_map(Millis)
}

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn priority() -> impl Strategy<Value = Priority> {
    any_of(&Priority::ALL)
}

fn media() -> impl Strategy<Value = Media> {
    any_of(&[Media::Video, Media::Audio])
}

fn holder() -> impl Strategy<Value = Arc<Holder>> {
    ("m[0-9]{1,4}", ".{0,8}", priority()).prop_map(|(meeting, title, priority)| {
        Arc::new(Holder {
            meeting: MeetingId::new(meeting).expect("an id"),
            title,
            priority,
        })
    })
}

fn summons() -> impl Strategy<Value = Summons> {
    let words = (
        any_of(&SummonsState::ALL),
        option::of(any_of(&Reason::ALL)),
        media(),
        ".{0,8}",
    );
    let times = (time(), option::of(time()), option::of(time()), option::of(time()));
    let rest = ("(agent|browser:[0-9a-f]{8})?", holder(), any::<u32>());
    (site(), words, times, rest).prop_map(|(site, words, times, (answered_by, other, pages))| {
        let (state, reason, media, detail) = words;
        let elsewhere = reason == Some(Reason::InOtherMeeting);
        Summons {
            site,
            state,
            reason,
            at: times.0,
            reason_since: times.1,
            paged: times.2,
            on_air: times.3,
            detail: if elsewhere { String::new() } else { detail },
            media,
            answered_by,
            other: elsewhere.then_some(other),
            pages,
        }
    })
}

fn polling() -> impl Strategy<Value = Polling> {
    let numbers = (5..600_i64, 1..50_usize, 0..9_usize, 0..9_usize);
    let pages = (vec(site(), 0..4), vec(site(), 0..4));
    (numbers, pages, time(), any::<bool>()).prop_map(|(numbers, (sites, next), turned, paused)| Polling {
        interval_ms: numbers.0 * 1_000,
        per_page: numbers.1,
        page: numbers.2,
        pages: numbers.3,
        sites,
        next,
        turned,
        paused,
    })
}

fn stage() -> impl Strategy<Value = Stage> {
    let seat = prop_oneof![site().prop_map(Seat::Site), account().prop_map(Seat::Desk)];
    let seats = (option::of(site()), option::of(seat), option::of(site()));
    let layout = option::of(any_of(&Layout::ALL));
    let rest = (layout, option::of(polling()), any::<bool>());
    (seats, btree_set(site(), 0..5), rest).prop_map(|((broadcast, content, watched), muted, rest)| Stage {
        broadcast,
        muted,
        layout: rest.0,
        polling: rest.1,
        voice_switching: rest.2,
        content,
        watched,
    })
}

fn terms() -> impl Strategy<Value = Terms> {
    let times = (option::of(time()), option::of(time()));
    let fallback = any_of(&[Fallback::None, Fallback::Audio]);
    (priority(), times, fallback, "[a-z0-9]{0,8}", "[a-z0-9]{0,8}").prop_map(
        |(priority, (deadline, ends_at), fallback, preset, schedule)| Terms {
            priority,
            deadline,
            ends_at,
            fallback,
            preset,
            schedule,
        },
    )
}

fn entry() -> impl Strategy<Value = RollCallEntry> {
    let seen = (any::<bool>(), any::<bool>(), "(site:A1|[a-z]{1,5})?");
    let times = (option::of(time()), option::of(time()));
    let result = (any_of(&RollCallResult::ALL), option::of(any_of(&Reason::ALL)));
    (site(), seen, times, result).prop_map(|(site, seen, (called, answered), (result, reason))| {
        RollCallEntry {
            site,
            result,
            seen_up: seen.0,
            seen_down: seen.1,
            acknowledged_by: seen.2,
            called,
            answered,
            reason,
        }
    })
}

fn roll_call() -> impl Strategy<Value = RollCall> {
    (
        any::<u32>(),
        account(),
        time(),
        option::of(time()),
        vec(entry(), 0..4),
    )
        .prop_map(|(number, by, started, ended, entries)| RollCall {
            number,
            by,
            started,
            ended,
            answer_s: number % 120,
            entries,
        })
}

fn floor() -> impl Strategy<Value = Floor> {
    let state = any_of(&[FloorState::Waiting, FloorState::Granted]);
    let request = (site(), state, time(), option::of(time()), option::of(time()));
    let request = request.prop_map(|(site, state, requested, granted, until)| FloorRequest {
        site,
        state,
        requested,
        granted,
        until,
    });
    vec(request, 0..4).prop_map(Floor)
}

fn event() -> impl Strategy<Value = Event> {
    let names = (".{0,8}", account(), "[A-Z]{1,4}", "[a-z0-9]{0,8}");
    let convened = (time(), names, vec(site(), 0..5), terms());
    let cause = any_of(&[
        ChairCause::Granted,
        ChairCause::Released,
        ChairCause::TakenOver,
        ChairCause::HandedBack,
    ]);
    prop_oneof![
        convened.prop_map(|(at, (title, chair, unit, key), sites, terms)| Event::Convened {
            at,
            title,
            chair,
            unit: UnitId::new(unit).expect("an id"),
            sites,
            idempotency_key: key,
            terms,
        }),
        (
            time(),
            vec(site(), 0..5),
            proptest::option::of("[A-Z]{1,3}".prop_map(|id| UnitId::new(id).expect("an id")))
        )
            .prop_map(|(at, sites, unit)| Event::SitesAdded { at, sites, unit }),
        summons().prop_map(|summons| Event::SummonsChanged { summons }),
        stage().prop_map(|stage| Event::StageChanged { stage }),
        (account(), account(), cause).prop_map(|(chair, before, cause)| Event::ChairChanged {
            chair,
            before,
            cause
        }),
        (account(), any::<bool>())
            .prop_map(|(account, withdrawn)| Event::ChairRequested { account, withdrawn }),
        (any::<bool>(), vec(account(), 0..3))
            .prop_map(|(locked, desks)| Event::LockChanged { locked, desks }),
        time().prop_map(|ends_at| Event::EndSet { ends_at }),
        floor().prop_map(|floor| Event::FloorChanged { floor }),
        roll_call().prop_map(|roll_call| Event::RollCallStarted { roll_call }),
        entry().prop_map(|entry| Event::RollCallEntryChanged { entry }),
        (time(), any::<u32>()).prop_map(|(at, number)| Event::RollCallEnded { at, number }),
        ("[a-z]{1,6}", any::<u64>(), "[a-z]{0,6}").prop_map(|(relay, epoch, before)| Event::Placed {
            placement: Placement { relay, epoch },
            before,
        }),
        (time(), ".{0,8}").prop_map(|(at, reason)| Event::Ended { at, reason }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_comes_back_as_it_was(event in event(), now in time()) {
        let meeting = MeetingId::new("m1").expect("an id");
        let wire = event_to_wire(&meeting, 7, now, "chen", "tick", &event);
        let stored = wire.encode_to_vec();
        let read = pb::MeetingEvent::decode(stored.as_slice()).expect("a message");
        prop_assert_eq!((read.seq, read.actor.as_str(), read.cause.as_str()), (7, "chen", "tick"));
        prop_assert_eq!(event_from_wire(read).expect("an event"), event);
    }

    #[test]
    fn any_bytes_at_all_are_an_event_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = pb::MeetingEvent::decode(bytes.as_slice()) {
            let _ = event_from_wire(wire);
        }
    }
}

fn stored(event: Wire) -> Event {
    let wire = pb::MeetingEvent {
        meeting: "m1".into(),
        seq: 1,
        at_ms: 5,
        actor: "chen".into(),
        event: Some(event),
        ..Default::default()
    };
    event_from_wire(wire).expect("an event")
}

#[test]
fn what_an_older_version_stored_reads_as_what_was_true_then() {
    let convened = stored(Wire::Convened(pb::MeetingConvened {
        title: "Flood".into(),
        unit: "WH".into(),
        chair: "chen".into(),
        sites: vec!["S1".into()],
        ..Default::default()
    }));
    let Event::Convened { terms, .. } = convened else {
        panic!("expected a convening: {convened:?}");
    };
    assert_eq!(terms, Terms::default());

    let changed = stored(Wire::Summons(pb::SummonsChanged {
        summons: Some(pb::Summons {
            site: "S1".into(),
            state: pb::SummonsState::Refused.into(),
            reason: pb::SummonsReason::InOtherMeeting.into(),
            at_ms: 5,
            detail: "m0".into(),
            ..Default::default()
        }),
    }));
    let Event::SummonsChanged { summons } = changed else {
        panic!("expected a summons: {changed:?}");
    };
    assert_eq!(summons.media, Media::Video);
    let other = summons.other.expect("the other meeting");
    assert_eq!(
        (other.meeting.as_str(), other.priority),
        ("m0", Priority::Routine)
    );

    let stage = stored(Wire::Stage(pb::StageChanged {
        stage: Some(pb::Stage {
            muted_sites: vec!["S1".into()],
            ..Default::default()
        }),
    }));
    let Event::StageChanged { stage } = stage else {
        panic!("expected a stage: {stage:?}");
    };
    assert!(stage.polling.is_none() && stage.layout.is_none() && stage.muted.contains("S1"));
}
