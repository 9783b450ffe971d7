//! The chair and the lock as a table of what each verb leads to, in virtual time.

use muster_domain::*;

use crate::support::*;

/// Everybody whom these tests speak of may have the chair.
fn able() -> Able {
    let named = ["chen", "li", "sun", "wang", "zhou"].map(account);
    let many = (0..100).map(|n| account(&format!("b{n}")));
    named.into_iter().chain(many).collect()
}

fn request(name: &str, withdraw: bool) -> Command {
    Command::RequestChair {
        by: account(name),
        withdraw,
        held: true,
    }
}

fn answer(name: &str, granted: bool) -> Command {
    Command::AnswerChairRequest {
        account: account(name),
        granted,
        able: able(),
    }
}

fn release(name: &str) -> Command {
    Command::ReleaseChair {
        by: account(name),
        able: able(),
    }
}

fn take_over(name: &str) -> Command {
    Command::TakeOver { by: account(name) }
}

fn hand_back(name: &str) -> Command {
    Command::HandBack {
        by: account(name),
        able: able(),
    }
}

/// What a sequence of commands tells, each on a line of its own; a refusal by its code.
fn play(desk: &mut Desk, commands: Vec<Command>) -> Vec<String> {
    let told = commands.into_iter().map(|command| {
        let events = desk.run(1_000, command);
        match events {
            Ok(events) => events.iter().map(tell_event).collect::<Vec<_>>().join(", "),
            Err(refusal) => format!("no: {}", refusal.code()),
        }
    });
    told.collect()
}

#[test]
fn each_verb_of_the_chair_leads_where_the_table_says() {
    // chen convened it. Each row begins anew.
    let rows: Vec<(Vec<Command>, Vec<&str>)> = vec![
        (
            vec![request("li", false), request("li", false), request("li", true)],
            vec!["li wants the chair", "", "li wants the chair no more"],
        ),
        (
            vec![request("chen", false), request("li", true)],
            vec!["no: is_the_chair", ""],
        ),
        (
            vec![answer("li", true), answer("li", false), answer("chen", true)],
            vec!["no: not_requested", "no: not_requested", ""],
        ),
        (
            vec![request("li", false), answer("li", false), answer("li", true)],
            vec![
                "li wants the chair",
                "li wants the chair no more",
                "no: not_requested",
            ],
        ),
        (
            vec![
                request("li", false),
                answer("li", true),
                release("chen"),
                release("li"),
                release("chen"),
            ],
            vec![
                "li wants the chair",
                "chair chen -> li Granted",
                "no: not_the_chair",
                "chair li -> chen Released",
                "no: nobody_to_chair",
            ],
        ),
        (
            // Who requested it first gets what is released.
            vec![
                request("li", false),
                request("sun", false),
                release("chen"),
                release("li"),
                release("sun"),
            ],
            vec![
                "li wants the chair",
                "sun wants the chair",
                "chair chen -> li Released",
                "chair li -> sun Released",
                "chair sun -> chen Released",
            ],
        ),
        (
            vec![
                take_over("wang"),
                take_over("wang"),
                hand_back("chen"),
                hand_back("wang"),
                hand_back("chen"),
            ],
            vec![
                "chair chen -> wang TakenOver",
                "",
                "no: not_the_chair",
                "chair wang -> chen HandedBack",
                "no: not_taken_over",
            ],
        ),
        (
            // Taken twice, it is handed back twice.
            vec![
                take_over("wang"),
                take_over("zhou"),
                hand_back("zhou"),
                hand_back("wang"),
            ],
            vec![
                "chair chen -> wang TakenOver",
                "chair wang -> zhou TakenOver",
                "chair zhou -> wang HandedBack",
                "chair wang -> chen HandedBack",
            ],
        ),
        (
            // Released by who took it over, it goes to whom it was taken from.
            vec![take_over("wang"), release("wang"), hand_back("chen")],
            vec![
                "chair chen -> wang TakenOver",
                "chair wang -> chen Released",
                "no: not_taken_over",
            ],
        ),
    ];
    for (commands, expected) in rows {
        let mut desk = Desk::convened(&["S1"]);
        assert_eq!(play(&mut desk, commands), expected);
        let replayed = Meeting::replay(meeting_id("m1"), Timeouts::default(), &desk.events);
        assert_eq!(replayed, desk.meeting);
    }
}

#[test]
fn the_chair_never_goes_to_whom_it_may_not() {
    let only = |names: &[&str]| names.iter().map(|name| account(name)).collect::<Able>();
    let back = |by: &str, names: &[&str]| Command::HandBack {
        by: account(by),
        able: only(names),
    };
    let release = |by: &str, names: &[&str]| Command::ReleaseChair {
        by: account(by),
        able: only(names),
    };
    let give = |to: &str, names: &[&str]| Command::AnswerChairRequest {
        account: account(to),
        granted: true,
        able: only(names),
    };
    let want = |by: &str, held| Command::RequestChair {
        by: account(by),
        withdraw: false,
        held,
    };
    // chen convened it. Each row begins anew.
    let rows: Vec<(Vec<Command>, Vec<&str>)> = vec![
        (
            // The role of who had it before has ended: it stays, or goes to the one before that.
            vec![
                take_over("wang"),
                back("wang", &["wang"]),
                take_over("zhou"),
                back("zhou", &["chen", "zhou"]),
            ],
            vec![
                "chair chen -> wang TakenOver",
                "no: may_not_chair",
                "chair wang -> zhou TakenOver",
                "chair zhou -> chen HandedBack",
            ],
        ),
        (
            vec![want("li", true), want("sun", true), release("chen", &["sun"])],
            vec![
                "li wants the chair",
                "sun wants the chair",
                "chair chen -> sun Released",
            ],
        ),
        (
            vec![want("li", true), release("chen", &[]), give("li", &["chen"])],
            vec!["li wants the chair", "no: nobody_to_chair", "no: may_not_chair"],
        ),
        (
            // Nobody is left who could grant it.
            vec![want("li", false), want("chen", true)],
            vec!["chair chen -> li Granted", "chen wants the chair"],
        ),
    ];
    for (commands, expected) in rows {
        let mut desk = Desk::convened(&["S1"]);
        assert_eq!(play(&mut desk, commands), expected);
        let replayed = Meeting::replay(meeting_id("m1"), Timeouts::default(), &desk.events);
        assert_eq!(replayed, desk.meeting);
        assert_eq!(desk.meeting.taken_from(), None);
    }
}

#[test]
fn the_meeting_moves_to_the_unit_that_has_what_is_added() {
    let mut desk = Desk::convened(&["S1"]);
    let add = |id: &str, believed: &str| Command::AddSites {
        sites: vec![online(id)],
        over: Some((unit(believed), unit("WH"))),
    };
    assert_eq!(desk.meeting.unit(), Some(&unit("WH-EL")));
    assert_eq!(desk.run(1, add("S2", "WH-EL-01")), Err(Refusal::UnitMoved));
    desk.told(2, add("S2", "WH-EL"));
    assert_eq!(desk.meeting.unit(), Some(&unit("WH")));
    assert_eq!(desk.meeting.sites()[..], [site("S1"), site("S2")]);
}

#[test]
fn the_desk_on_the_large_picture_is_that_of_who_has_the_chair_now() {
    let mut desk = Desk::convened(&["S1"]);
    let before = desk.meeting.stage_document();
    assert_eq!(desk.told(5, request("wang", false)), "wang wants the chair");
    assert_eq!(desk.meeting.stage_document(), before, "a wish changes no stage");
    desk.told(6, take_over("wang"));
    let after = desk.meeting.stage_document();
    assert_eq!(after.chair, "desk:wang");
    assert!(after.version > before.version);
    assert!(desk.meeting.chair_requests().is_empty(), "it has been met");
    assert_eq!(desk.meeting.taken_from(), Some(&account("chen")));
    assert_eq!(desk.meeting.convened_by(), Some(&account("chen")));
}

#[test]
fn chairs_and_requests_are_bounded() {
    let mut desk = Desk::convened(&["S1"]);
    for n in 0..64 {
        desk.told(1, request(&format!("a{n}"), false));
    }
    let refusal = desk.run(2, request("late", false)).unwrap_err();
    assert_eq!(refusal.code(), "too_many_chair_requests");
    for n in 0..100 {
        desk.told(3, take_over(&format!("b{n}")));
    }
    let mut back = 0;
    while let Some(chair) = desk.meeting.taken_from().and(desk.meeting.chair()).cloned() {
        desk.told(4, hand_back(&chair));
        back += 1;
    }
    assert_eq!(back, 16);
}

#[test]
fn a_locked_meeting_adds_nobody_and_lets_back_who_was_in() {
    let mut desk = Desk::convened(&["S1"]);
    let lock = |locked| Command::Lock {
        locked,
        desks: vec![account("li"), account("li")],
    };
    let add = || Command::AddSites {
        sites: vec![online("S1"), online("S2")],
        over: None,
    };
    assert_eq!(desk.told(10, lock(true)), "locked");
    assert_eq!(desk.told(11, lock(true)), "");
    assert_eq!(desk.run(12, add()), Err(Refusal::Locked));
    assert_eq!(desk.meeting.may_join_as_desk(&account("li")), Ok(()));
    assert_eq!(
        desk.meeting.may_join_as_desk(&account("chen")),
        Ok(()),
        "the chair"
    );
    assert_eq!(
        desk.meeting.may_join_as_desk(&account("sun")),
        Err(Refusal::Locked)
    );
    assert_eq!(desk.meeting.may_join(&site("S1"), None), Ok(()));
    let document = desk.meeting.stage_document();
    assert_eq!((document.locked, document.desks), (true, vec![account("li")]));
    assert_eq!(desk.told(20, lock(false)), "unlocked");
    assert_eq!(
        desk.told(21, add()),
        "1 added, S2 paged",
        "who is in is passed over"
    );
    assert_eq!(desk.told(21, add()), "");
    assert_eq!(desk.meeting.may_join_as_desk(&account("sun")), Ok(()));
}

#[test]
fn a_placement_counts_by_its_epoch() {
    let mut desk = Desk::convened(&["S1"]);
    let place = |relay: &str, epoch| Command::Place {
        relay: relay.to_owned(),
        epoch,
    };
    assert_eq!(desk.told(1, place("r1", 1)), "on r1 #1");
    assert_eq!(desk.told(2, place("r1", 1)), "", "told twice");
    for (relay, epoch) in [("r2", 1), ("r1", 0)] {
        let refusal = desk.run(3, place(relay, epoch)).unwrap_err();
        assert_eq!(refusal.code(), "old_epoch", "{refusal}");
    }
    let version = desk.meeting.stage_document().version;
    let moved = desk.run(4, place("r2", 2)).expect("a higher epoch");
    assert!(matches!(&moved[..], [Event::Placed { before, .. }] if before == "r1"));
    let document = desk.meeting.stage_document();
    let placement = document.placement.expect("placed");
    assert_eq!((placement.relay.as_str(), placement.epoch), ("r2", 2));
    assert!(document.version > version);
    desk.told(
        5,
        Command::End {
            reason: String::new(),
        },
    );
    assert_eq!(desk.run(6, place("r3", 3)), Err(Refusal::MeetingEnded));
}
