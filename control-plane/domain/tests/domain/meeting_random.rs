//! Random commands at random times: what must hold after each of them.

use muster_domain::*;
use proptest::prelude::*;

use crate::support::*;

const SITES: [&str; 5] = ["S0", "S1", "S2", "S3", "S4"];

fn any_site() -> impl Strategy<Value = SiteId> {
    // One more than are convened: naming a stranger must be harmless.
    (0..=SITES.len()).prop_map(|n| site(&format!("S{n}")))
}

fn any_reach() -> impl Strategy<Value = Reach> {
    prop_oneof![
        4 => Just(Reach::Online),
        1 => Just(Reach::NeverSeen),
        1 => (0i64..100).prop_map(|at| Reach::Offline { since: Millis(at) }),
    ]
}

fn any_invitee() -> impl Strategy<Value = Invitee> {
    let other = prop_oneof![
        5 => Just(None),
        1 => Just(Some(holder("m1", Priority::Urgent))),
        1 => Just(Some(holder("m2", Priority::Routine))),
        1 => Just(Some(holder("m3", Priority::Emergency))),
    ];
    (any_site(), any_reach(), other).prop_map(|(site, reach, claimed_by)| Invitee {
        site,
        reach,
        claimed_by,
    })
}

fn any_report() -> impl Strategy<Value = Report> {
    let reason = proptest::option::of(proptest::sample::select(&Reason::ALL[..]));
    (
        proptest::sample::select(&SummonsState::ALL[..]),
        reason,
        "[a-c\n]{0,2}",
    )
        .prop_map(|(state, reason, detail)| Report {
            state,
            reason,
            detail,
            endpoint: "agent".to_owned(),
        })
}

fn any_command() -> impl Strategy<Value = Command> {
    let end = proptest::sample::select(&[LegEnd::HungUp, LegEnd::Lost, LegEnd::Replaced][..]);
    prop_oneof![
        6 => (any_site(), any_report()).prop_map(|(site, report)| Command::Report { site, report }),
        3 => any_site().prop_map(|site| Command::EndpointAttached { site }),
        2 => any_site().prop_map(|site| Command::EndpointDetached { site }),
        3 => any_site().prop_map(|site| Command::LegJoining { site }),
        4 => any_site().prop_map(|site| Command::LegOnAir { site }),
        2 => any_site().prop_map(|site| Command::LegSilent { site }),
        3 => (any_site(), end, any_reach())
            .prop_map(|(site, end, reach)| Command::LegEnded { site, end, reach }),
        1 => proptest::collection::vec(any_site(), 0..3).prop_map(|sites| Command::NoRelay { sites }),
        2 => proptest::collection::vec(any_invitee(), 0..4)
            .prop_map(|sites| Command::CallUnconnected { sites }),
        2 => proptest::option::of(any_site()).prop_map(|site| Command::Broadcast { site }),
        2 => (proptest::collection::vec(any_site(), 0..3), any::<bool>())
            .prop_map(|(sites, muted)| Command::Mute { sites, muted }),
        4 => Just(Command::Tick),
        1 => Just(convene(SITES.map(online).to_vec())),
    ]
}

/// What must hold between the state before a command and the state after.
fn check_step(before: &Meeting, after: &Meeting, command: &Command) {
    for (old, new) in before.summonses().iter().zip(after.summonses()) {
        assert!(new.at >= old.at, "{old:?} -> {new:?}");
        assert!(old.paged.is_none() || new.paged == old.paged);
        assert!(old.on_air.is_none() || new.on_air == old.on_air);
        if new.state == SummonsState::OnAir && old.state != SummonsState::OnAir {
            assert!(matches!(command, Command::LegOnAir { site } if *site == new.site));
        }
        let is_backwards = new.state < old.state && !old.state.is_end();
        let is_defined = matches!(command, Command::CallUnconnected { .. });
        assert!(!is_backwards || is_defined, "{command:?}: {old:?} -> {new:?}");
        assert!(new.state != SummonsState::OnAir || new.on_air.is_some());
    }
    let (old, new) = (before.stage_document(), after.stage_document());
    assert!(new.version >= old.version && new.version <= after.seq());
    assert_eq!(
        old == new,
        old.version == new.version,
        "a new document, and only that, has a new version"
    );
    let stage = after.stage();
    assert!(
        stage
            .broadcast
            .iter()
            .chain(&stage.muted)
            .all(|site| after.summons(site).is_some())
    );
}

/// What must hold of any state.
fn check_state(desk: &Desk, now: Millis) {
    let meeting = &desk.meeting;
    assert_eq!(meeting.seq(), desk.events.len() as u64);
    let replayed = Meeting::replay(meeting.id().clone(), Timeouts::default(), &desk.events);
    assert_eq!(&replayed, meeting);
    let mut claims = Claims::new();
    for event in &desk.events {
        claims.follow(meeting.id(), event);
    }
    assert_eq!(claims, Claims::of([meeting]));
    let ticked = meeting
        .decide(Command::Tick, now)
        .expect("ticks are never refused");
    let mut later = meeting.clone();
    ticked.iter().for_each(|event| later.apply(event));
    assert!(later.next_deadline().is_none_or(|due| due > now));
    assert_eq!(
        ticked.is_empty(),
        meeting.next_deadline().is_none_or(|due| due > now)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_commands_breaks_a_meeting(
        invitees in proptest::collection::vec(any_reach(), SITES.len()),
        commands in proptest::collection::vec((any_command(), 0i64..6_000), 1..60),
        ends in 0usize..80,
    ) {
        let mut desk = Desk::new();
        let first = SITES.iter().zip(invitees).map(|(id, reach)| Invitee { reach, ..online(id) });
        desk.run(0, convene(first.collect())).expect("convened");
        let mut now = 0;
        for (step, (command, wait)) in commands.into_iter().enumerate() {
            now += wait;
            if step == ends {
                desk.run(now, Command::End { reason: "enough".to_owned() }).expect("ended once");
            }
            let before = desk.meeting.clone();
            let outcome = desk.run(now, command.clone());
            if outcome.is_err() || before.ended().is_some() {
                prop_assert_eq!(&desk.meeting, &before);
            }
            check_step(&before, &desk.meeting, &command);
            check_state(&desk, Millis(now));
            if outcome.is_ok() {
                let again = desk.meeting.decide(command.clone(), Millis(now));
                prop_assert_eq!(again, Ok(vec![]), "twice is once: {:?}", command);
            }
        }
    }

    #[test]
    fn any_events_at_all_replay_without_a_panic(
        commands in proptest::collection::vec((any_command(), any::<i64>()), 1..30),
        cut in 0usize..8,
    ) {
        let mut desk = Desk::convened(&SITES);
        for (command, now) in commands {
            let _ = desk.run(now, command);
        }
        // A stream that lost its beginning, and time at its limits.
        let rest = desk.events.get(cut..).unwrap_or_default();
        let meeting = Meeting::replay(meeting_id("m1"), Timeouts::default(), rest);
        prop_assert_eq!(meeting.seq(), rest.len() as u64);
        let _ = (meeting.next_deadline(), meeting.stage_document());
    }
}
