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

fn any_account() -> impl Strategy<Value = AccountName> {
    proptest::sample::select(&["chen", "li", "sun"][..]).prop_map(account)
}

fn any_fact() -> impl Strategy<Value = Command> {
    let end = proptest::sample::select(&[LegEnd::HungUp, LegEnd::Lost, LegEnd::Replaced][..]);
    let other = proptest::sample::select(&["m2", "m3"][..]);
    prop_oneof![
        6 => (any_site(), any_report()).prop_map(|(site, report)| Command::Report { site, report }),
        3 => any_site().prop_map(|site| Command::EndpointAttached { site }),
        2 => any_site().prop_map(|site| Command::EndpointDetached { site }),
        3 => any_site().prop_map(|site| Command::LegJoining { site }),
        8 => any_site().prop_map(|site| Command::LegOnAir { site }),
        2 => any_site().prop_map(|site| Command::LegSilent { site }),
        3 => (any_site(), end, any_reach())
            .prop_map(|(site, end, reach)| Command::LegEnded { site, end, reach }),
        1 => proptest::collection::vec(any_site(), 0..3).prop_map(|sites| Command::NoRelay { sites }),
        1 => (any_site(), other)
            .prop_map(|(site, id)| Command::SiteTaken { site, by: holder(id, Priority::Emergency) }),
        2 => any_invitee().prop_map(|site| Command::SiteReturned { site }),
        4 => Just(Command::Tick),
        1 => ("r[12]", 0u64..4).prop_map(|(relay, epoch)| Command::Place { relay, epoch }),
        3 => (any_site(), any::<bool>(), any::<bool>())
            .prop_map(|(site, up, down)| Command::Evidence { site, up, down }),
    ]
}

fn any_able() -> impl Strategy<Value = Able> {
    proptest::collection::btree_set(any_account(), 0..4)
}

fn any_verb() -> impl Strategy<Value = Command> {
    let sites = || proptest::collection::vec(any_site(), 0..3);
    let polling = (
        proptest::sample::select(&[0i64, 5_000, 7][..]),
        0usize..4,
        any::<bool>(),
    );
    let layout = proptest::option::of(proptest::sample::select(&Layout::ALL[..]));
    let seat = prop_oneof![
        any_site().prop_map(Seat::Site),
        any_account().prop_map(Seat::Desk)
    ];
    prop_oneof![
        2 => proptest::collection::vec(any_invitee(), 0..4)
            .prop_map(|sites| Command::CallUnconnected { sites }),
        1 => proptest::collection::vec(any_invitee(), 0..3).prop_map(|sites| Command::AddSites { sites, over: None }),
        1 => sites().prop_map(|sites| Command::HangUp { sites }),
        2 => proptest::option::of(any_site()).prop_map(|site| Command::Broadcast { site }),
        1 => proptest::option::of(any_site()).prop_map(|site| Command::WatchSite { site }),
        1 => proptest::option::of(seat).prop_map(|seat| Command::SetContent { seat }),
        1 => layout.prop_map(|layout| Command::SetLayout { layout }),
        2 => proptest::option::of(polling).prop_map(|order| Command::SetPolling {
            polling: order.map(|(interval_ms, per_page, paused)| PollingOrder { interval_ms, per_page, paused }),
        }),
        1 => any::<bool>().prop_map(|on| Command::SetVoiceSwitching { on }),
        2 => (sites(), any::<bool>()).prop_map(|(sites, muted)| Command::Mute { sites, muted }),
        1 => (any::<bool>(), proptest::collection::vec(any_account(), 0..2))
            .prop_map(|(locked, desks)| Command::Lock { locked, desks }),
        1 => (any_account(), any::<bool>())
            .prop_map(|(by, withdraw)| Command::RequestChair { by, withdraw, held: true }),
        1 => (any_account(), any::<bool>())
            .prop_map(|(account, granted)| Command::AnswerChairRequest {
                able: [account.clone()].into(), account, granted,
            }),
        1 => any_account().prop_map(|by| Command::TakeOver { by }),
        3 => (any_site(), any::<bool>()).prop_map(|(site, withdraw)| Command::RequestFloor { site, withdraw }),
        2 => (any_site(), 0u32..10).prop_map(|(site, seconds)| Command::GrantFloor { site, seconds }),
        1 => any_site().prop_map(|site| Command::TakeFloor { site }),
        2 => (any_account(), 0u32..8, sites())
            .prop_map(|(by, answer_s, sites)| Command::StartRollCall { by, answer_s, sites }),
        3 => (any_site(), proptest::option::of(any_account()))
            .prop_map(|(site, by)| Command::Acknowledge { site, by }),
        1 => Just(convene(SITES.map(online).to_vec())),
    ]
}

/// Those of which a second one right after is another step, or is refused.
fn any_step_verb() -> impl Strategy<Value = Command> {
    prop_oneof![
        (any_account(), any_able()).prop_map(|(by, able)| Command::ReleaseChair { by, able }),
        (any_account(), any_able()).prop_map(|(by, able)| Command::HandBack { by, able }),
        any::<bool>().prop_map(|forward| Command::TurnPage { forward }),
        (0u32..3).prop_map(|minutes| Command::Extend { minutes }),
        proptest::option::of(any_site()).prop_map(|site| Command::NextRollCall { site }),
        Just(Command::EndRollCall),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![4 => any_fact(), 3 => any_verb(), 1 => any_step_verb()]
}

/// Whether the same command right after changes nothing.
fn is_idempotent(command: &Command) -> bool {
    !matches!(
        command,
        Command::ReleaseChair { .. }
            | Command::HandBack { .. }
            | Command::AnswerChairRequest { .. }
            | Command::TurnPage { .. }
            | Command::Extend { .. }
            | Command::NextRollCall { .. }
            | Command::EndRollCall
            | Command::StartRollCall { .. }
    )
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
        let is_fallback = new.media == Media::Audio && old.media == Media::Video;
        let is_defined = matches!(command, Command::CallUnconnected { .. }) || is_fallback;
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
    check_floor(before, after);
    check_microphones(after);
}

/// Who is in the queue before and after is in the same order, and nobody is in it twice.
fn check_floor(before: &Meeting, after: &Meeting) {
    let order = |of: &Meeting, also: &Meeting| -> Vec<SiteId> {
        let requests = of.floor().0.iter().map(|request| &request.site);
        let kept = requests.filter(|site| {
            // One that gave its request back and asked anew in one step is not here: a step is one command.
            also.floor().of(site).is_some()
        });
        kept.cloned().collect()
    };
    assert_eq!(order(before, after), order(after, before));
    let mut sites: Vec<&SiteId> = after.floor().0.iter().map(|r| &r.site).collect();
    sites.sort_unstable();
    sites.dedup();
    assert_eq!(sites.len(), after.floor().0.len());
    let out = |request: &FloorRequest| after.summons(&request.site).is_none_or(|s| !s.holds_claim());
    assert!(after.ended().is_some() || !after.floor().0.iter().any(out));
}

/// The document says what `is_muted` says; during a roll call everyone is muted but the called one.
fn check_microphones(meeting: &Meeting) {
    let document = meeting.stage_document();
    let closed = |s: &&Summons| meeting.is_muted(&s.site);
    let mut expected: Vec<SiteId> = meeting
        .summonses()
        .iter()
        .filter(closed)
        .map(|s| s.site.clone())
        .collect();
    expected.sort_unstable();
    assert_eq!(document.muted, expected);
    let Some(roll_call) = meeting.roll_call().filter(|roll_call| roll_call.is_on()) else {
        return;
    };
    let called: Vec<&RollCallEntry> = roll_call
        .entries
        .iter()
        .filter(|entry| entry.result == RollCallResult::Called)
        .collect();
    assert_eq!(called.len(), 1, "one is called while it goes on");
    let open = |s: &&Summons| !meeting.is_muted(&s.site);
    let open: Vec<&SiteId> = meeting.summonses().iter().filter(open).map(|s| &s.site).collect();
    assert_eq!(open, [&called[0].site], "one microphone is open");
    assert_eq!(
        meeting.summons(&called[0].site).map(|s| s.state),
        Some(SummonsState::OnAir)
    );
}

/// What must hold of any state.
fn check_state(desk: &Desk, now: Millis) {
    let meeting = &desk.meeting;
    assert_eq!(meeting.seq(), desk.events.len() as u64);
    let replayed = Meeting::replay(meeting.id().clone(), Timeouts::default(), &desk.events);
    assert_eq!(&replayed, meeting);
    check_replay_until(desk);
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

/// A replay up to an event or a time is the state of then.
fn check_replay_until(desk: &Desk) {
    let until = |until| {
        let timed = desk.times.iter().copied().zip(&desk.events);
        Meeting::replay_until(desk.meeting.id().clone(), Timeouts::default(), timed, until)
    };
    assert_eq!(until(Until::Seq(desk.meeting.seq())), desk.meeting);
    assert_eq!(until(Until::Seq(0)).seq(), 0);
    let half = desk.meeting.seq() / 2;
    let events = desk.events.iter().take(usize::try_from(half).expect("small"));
    let then = Meeting::replay(desk.meeting.id().clone(), Timeouts::default(), events);
    assert_eq!(until(Until::Seq(half)), then);
    let Some(last) = desk.times.last().copied() else {
        return;
    };
    assert_eq!(until(Until::Time(last)), desk.meeting);
    let before = desk.times.iter().filter(|at| **at < last).count();
    assert_eq!(until(Until::Time(last.plus(-1))).seq(), before as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_commands_breaks_a_meeting(
        invitees in proptest::collection::vec(any_reach(), SITES.len()),
        commands in proptest::collection::vec((any_command(), 0i64..6_000), 1..60),
        ends in 0usize..80,
        deadline in proptest::option::of(1i64..40_000),
        ends_at in proptest::option::of(60_000i64..300_000),
        audio in any::<bool>(),
    ) {
        let mut desk = Desk::new();
        let first = SITES.iter().zip(invitees).map(|(id, reach)| Invitee { reach, ..online(id) });
        let terms = Terms {
            priority: Priority::Urgent,
            deadline: deadline.map(Millis),
            ends_at: ends_at.map(Millis),
            fallback: if audio { Fallback::Audio } else { Fallback::None },
            ..Terms::default()
        };
        desk.run(0, convene_with(first.collect(), terms)).expect("convened");
        let mut now = 0;
        for (step, (command, wait)) in commands.into_iter().enumerate() {
            now += wait;
            if step == ends && desk.meeting.is_live() {
                desk.run(now, Command::End { reason: "enough".to_owned() }).expect("ended once");
            }
            let before = desk.meeting.clone();
            let outcome = desk.run(now, command.clone());
            if outcome.is_err() || before.ended().is_some() {
                prop_assert_eq!(&desk.meeting, &before);
            }
            check_step(&before, &desk.meeting, &command);
            check_state(&desk, Millis(now));
            if outcome.is_ok() && is_idempotent(&command) && before.is_live() == desk.meeting.is_live() {
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
