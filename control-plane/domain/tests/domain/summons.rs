//! Every transition of a summons: each state against each thing that can happen.

use muster_domain::*;

use crate::support::*;

const NOW: Millis = Millis(100_000);

fn in_state(state: SummonsState, reason: Option<Reason>) -> Summons {
    Summons {
        state,
        reason,
        other: (reason == Some(Reason::InOtherMeeting)).then(|| holder("m2", Priority::Routine)),
        ..Summons::paged(site("S1"), Millis(1_000))
    }
}

/// The rows of the table: its letter, and the state.
fn rows() -> Vec<(char, Summons)> {
    use SummonsState::*;
    vec![
        ('P', in_state(Paged, None)),
        ('D', in_state(Delivered, None)),
        ('R', in_state(Ringing, None)),
        ('A', in_state(Answered, None)),
        ('J', in_state(Joining, None)),
        ('O', in_state(OnAir, None)),
        ('X', in_state(Declined, Some(Reason::Declined))),
        ('U', in_state(Unreachable, Some(Reason::LinkLost))),
        ('T', in_state(TimedOut, Some(Reason::NoAnswer))),
        ('F', in_state(Refused, Some(Reason::CameraBusy))),
        ('E', in_state(Refused, Some(Reason::InOtherMeeting))),
        ('L', in_state(Left, Some(Reason::HungUp))),
        ('H', in_state(Left, Some(Reason::HungUpByChair))),
    ]
}

fn letter(summons: &Summons) -> char {
    use SummonsState::*;
    match summons.state {
        Refused if summons.is_elsewhere() => 'E',
        Left if summons.is_hung_up() => 'H',
        Paged => 'P',
        Delivered => 'D',
        Ringing => 'R',
        Answered => 'A',
        Joining => 'J',
        OnAir => 'O',
        Declined => 'X',
        Unreachable => 'U',
        TimedOut => 'T',
        Refused => 'F',
        Left => 'L',
    }
}

fn reported(summons: &Summons, state: SummonsState) -> Option<Summons> {
    let reason = (state == SummonsState::Refused).then_some(Reason::CameraBusy);
    summons.reported(
        &Report {
            state,
            reason,
            detail: String::new(),
            endpoint: "agent".to_owned(),
        },
        NOW,
    )
}

fn called(summons: &Summons, reach: Reach, other: Option<&str>) -> Option<Summons> {
    let invitee = Invitee {
        site: site("S1"),
        reach,
        claimed_by: other.map(|id| holder(id, Priority::Routine)),
    };
    summons.called_again(&invitee, calling(&meeting_id("m1")), NOW)
}

type Input = fn(&Summons) -> Option<Summons>;

/// The columns of the table, in its order.
fn inputs() -> Vec<Input> {
    use SummonsState::*;
    vec![
        |s| reported(s, Delivered),
        |s| reported(s, Ringing),
        |s| reported(s, Answered),
        |s| reported(s, Joining),
        |s| reported(s, Declined),
        |s| reported(s, Refused),
        |s| s.attached(NOW),
        |s| s.detached(NOW),
        |s| s.leg_joining(NOW),
        |s| s.leg_on_air(NOW),
        |s| s.leg_silent(NOW),
        |s| s.leg_ended(LegEnd::HungUp, Reach::Online, NOW),
        |s| s.leg_ended(LegEnd::Lost, Reach::Online, NOW),
        |s| s.leg_ended(LegEnd::Replaced, Reach::Online, NOW),
        |s| s.no_relay(NOW),
        |s| called(s, Reach::Online, None),
        |s| called(s, Reach::Offline { since: Millis(5) }, None),
        |s| called(s, Reach::Online, Some("m2")),
        |s| s.tick(&Timeouts::default(), None, NOW),
        |s| s.meeting_ended(NOW),
        |s| s.hung_up(NOW),
        |s| s.taken(&holder("m2", Priority::Routine), NOW),
    ]
}

// Columns: reports delivered, ringing, answered, joining, declined, refused | endpoint attached, detached |
// leg joining, on air, silent, hung up, lost, replaced | no relay | called again online, offline, elsewhere |
// time over, meeting ended | hung up by the chair, taken by another meeting. A dot is: nothing changes. E is refused
// for being in another meeting, H is left because the chair hung up.
const TABLE: &str = "
    P  D R A J X F | . U | J O . . . . | U | P U E | U L | H E
    D  . R A J X F | . U | J O . . . . | U | P U E | T L | H E
    R  . . A J X F | . U | J O . . . . | U | P U E | T L | H E
    A  . . . J X F | . . | J O . . . . | U | . . . | T L | H E
    J  . . . . X F | . . | . O . L U . | U | . . . | T L | H E
    O  . . . . L . | . . | . . O L U . | . | . . . | . L | H E
    X  . . . . . F | . . | J O . . . . | . | P U E | . . | H E
    U  D R A J X F | P U | J O . . . . | . | P U E | . . | H E
    T  D R A J X F | P . | J O . . . . | . | P U E | . . | H E
    F  D R A J X . | P . | J O . . . . | . | P U E | . . | H E
    E  . . . . . . | . . | . . . . . . | . | P U . | . . | H .
    L  . . . . . . | . . | J O . . . . | . | P U E | . . | H E
    H  . . . . . . | . . | . . . . . . | . | P U E | . . | . .
";

#[test]
fn every_state_answers_every_input_as_the_table_says() {
    let lines: Vec<Vec<char>> = TABLE
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.chars().filter(|c| !c.is_whitespace() && *c != '|').collect())
        .collect();
    assert_eq!(lines.len(), rows().len());
    for ((name, summons), expected) in rows().into_iter().zip(lines) {
        assert_eq!(expected[0], name);
        let found: String = inputs()
            .iter()
            .map(|input| input(&summons).as_ref().map_or('.', letter))
            .collect();
        assert_eq!(found, expected[1..].iter().collect::<String>(), "from {name}");
    }
}

#[test]
fn whatever_changes_keeps_the_first_times_and_enters_now() {
    for (name, summons) in rows() {
        for (column, input) in inputs().iter().enumerate() {
            let Some(next) = input(&summons) else { continue };
            assert_eq!(next.paged, summons.paged, "{name} {column}");
            assert_eq!(next.site, summons.site);
            let entered = if next.state == summons.state && next.state == SummonsState::OnAir {
                summons.at
            } else {
                NOW
            };
            assert_eq!(next.at, entered, "{name} {column}");
            assert_eq!(next.on_air, (letter(&next) == 'O' && name != 'O').then_some(NOW));
            let has_reason = next.state.is_end() && column != 19;
            assert_eq!(
                next.reason.is_some(),
                has_reason || letter(&next) == 'O' && name == 'O'
            );
        }
    }
}

#[test]
fn each_step_has_its_time_and_its_end() {
    use SummonsState::*;
    for (state, ms, end) in [
        (Paged, 3_000, "S1 unreachable (no_delivery)"),
        (Delivered, 30_000, "S1 timed out (no_answer)"),
        (Ringing, 30_000, "S1 timed out (no_answer)"),
        (Answered, 10_000, "S1 timed out (join_failed)"),
        (Joining, 10_000, "S1 timed out (no_media)"),
    ] {
        let summons = in_state(state, None);
        let due = summons.at.plus(ms);
        let timeouts = Timeouts::default();
        assert_eq!(summons.deadline(&timeouts, None), Some(due), "{state}");
        assert_eq!(summons.tick(&timeouts, None, due.plus(-1)), None, "{state}");
        let over = summons.tick(&timeouts, None, due).expect("over");
        assert_eq!(tell(&over), end);
        assert_eq!(over.reason_since, Some(summons.at));
        assert_eq!(over.deadline(&timeouts, None), None);
    }
}

#[test]
fn a_first_call_ends_at_once_with_the_reason_where_it_must() {
    let call = |reach, claimed_by: Option<&str>| {
        let invitee = Invitee {
            site: site("S1"),
            reach,
            claimed_by: claimed_by.map(|id| holder(id, Priority::Routine)),
        };
        Summons::called(&invitee, calling(&meeting_id("m1")), NOW)
    };
    let paged = call(Reach::Online, None);
    assert_eq!((tell(&paged).as_str(), paged.paged), ("S1 paged", Some(NOW)));
    assert_eq!(
        tell(&call(Reach::Online, Some("m1"))),
        "S1 paged",
        "its own claim is no obstacle"
    );

    let never = call(Reach::NeverSeen, None);
    assert_eq!(tell(&never), "S1 unreachable (never_seen)");
    assert_eq!((never.paged, never.reason_since), (None, None));

    let offline = call(Reach::Offline { since: Millis(7) }, None);
    assert_eq!(tell(&offline), "S1 unreachable (offline)");
    assert_eq!((offline.paged, offline.reason_since), (None, Some(Millis(7))));
    assert_eq!(
        offline.attached(NOW.plus(5)).expect("paged").paged,
        Some(NOW.plus(5))
    );

    let elsewhere = call(Reach::Online, Some("m2"));
    assert_eq!(tell(&elsewhere), "S1 refused (in_other_meeting)");
    assert_eq!(elsewhere.other, Some(holder("m2", Priority::Routine)));
    assert!(!elsewhere.holds_claim());
}

#[test]
fn silence_is_a_reason_on_air_until_media_is_seen_again() {
    let on_air = in_state(SummonsState::OnAir, None);
    let silent = on_air.leg_silent(NOW).expect("changed");
    assert_eq!(tell(&silent), "S1 on air (no_media)");
    assert_eq!((silent.at, silent.reason_since), (on_air.at, Some(NOW)));
    assert_eq!(silent.leg_silent(NOW.plus(1)), None);
    let heard = silent.leg_on_air(NOW.plus(2)).expect("changed");
    assert_eq!(heard, on_air);
}

#[test]
fn a_camera_that_dies_on_air_is_a_reason_until_its_endpoint_takes_it_back() {
    let told = |summons: &Summons, reason| {
        let report = Report {
            state: SummonsState::Answered,
            reason,
            detail: String::new(),
            endpoint: "agent".to_owned(),
        };
        summons.reported(&report, NOW)
    };
    let on_air = in_state(SummonsState::OnAir, None);
    let dark = told(&on_air, Some(Reason::CameraSilent)).expect("changed");
    assert_eq!(tell(&dark), "S1 on air (camera_silent)");
    assert_eq!((dark.at, dark.reason_since), (on_air.at, Some(NOW)));
    assert_eq!(dark.leg_on_air(NOW), None, "its sound is no picture");
    assert_eq!(dark.leg_silent(NOW), None);
    let unplugged = told(&dark, Some(Reason::CameraUnreachable)).expect("changed");
    assert_eq!(tell(&unplugged), "S1 on air (camera_unreachable)");
    assert_eq!(told(&unplugged, None), Some(on_air.clone()));
    // What is no camera's reason changes nothing, and takes no silence back.
    assert_eq!(told(&on_air, Some(Reason::Declined)), None);
    assert_eq!(told(&on_air.leg_silent(NOW).expect("silent"), None), None);
}

#[test]
fn a_lost_leg_says_offline_where_the_endpoint_is_gone_too() {
    let on_air = in_state(SummonsState::OnAir, None);
    let lost = on_air.leg_ended(LegEnd::Lost, Reach::Online, NOW).expect("lost");
    assert_eq!(tell(&lost), "S1 unreachable (link_lost)");
    let gone = on_air
        .leg_ended(LegEnd::Lost, Reach::Offline { since: Millis(9) }, NOW)
        .expect("lost");
    assert_eq!(tell(&gone), "S1 unreachable (offline)");
    assert_eq!(gone.reason_since, Some(Millis(9)));
    assert_eq!(LegEnd::from_words("hung up"), LegEnd::HungUp);
    assert_eq!(LegEnd::from_words("replaced"), LegEnd::Replaced);
    assert_eq!(LegEnd::from_words("timed out"), LegEnd::Lost);
    assert_eq!(LegEnd::from_words(""), LegEnd::Lost);
}

#[test]
fn an_endpoint_is_believed_only_what_it_can_know() {
    let summons = in_state(SummonsState::Answered, None);
    let refused = |reason, detail: &str| {
        let report = Report {
            state: SummonsState::Refused,
            reason,
            detail: detail.to_owned(),
            endpoint: String::new(),
        };
        summons.reported(&report, NOW).expect("refused")
    };
    assert_eq!(
        tell(&refused(Some(Reason::CameraMissing), "")),
        "S1 refused (camera_missing)"
    );
    assert_eq!(
        tell(&refused(Some(Reason::InOtherMeeting), "m9")),
        "S1 refused (join_failed)"
    );
    assert_eq!(tell(&refused(None, "")), "S1 refused (join_failed)");
    assert_eq!(refused(None, "video0\u{7} is\nbusy").detail, "video0 isbusy");
    assert_eq!(refused(None, &"x".repeat(5_000)).detail.chars().count(), 201);
}

#[test]
fn a_clock_that_steps_back_never_takes_a_summons_back() {
    let summons = in_state(SummonsState::Paged, None);
    let early = summons.leg_on_air(Millis(5)).expect("on air");
    assert_eq!((early.at, early.on_air), (summons.at, Some(summons.at)));
}
