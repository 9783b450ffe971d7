//! The floor and the roll call, in virtual time.

use muster_domain::*;

use crate::support::*;

fn desk_on_air(ids: &[&str]) -> Desk {
    let mut desk = Desk::convened(ids);
    for id in ids {
        desk.told(1, Command::LegOnAir { site: site(id) });
    }
    desk
}

fn ask(id: &str) -> Command {
    Command::RequestFloor {
        site: site(id),
        withdraw: false,
    }
}

fn grant(id: &str, seconds: u32) -> Command {
    Command::GrantFloor {
        site: site(id),
        seconds,
    }
}

fn muted(desk: &Desk) -> Vec<String> {
    let document = desk.meeting.stage_document();
    document.muted.iter().map(ToString::to_string).collect()
}

fn lost(id: &str) -> Command {
    Command::LegEnded {
        site: site(id),
        end: LegEnd::Lost,
        reach: Reach::Online,
    }
}

#[test]
fn the_floor_goes_in_order_for_a_time_and_opens_a_muted_microphone() {
    let mut desk = desk_on_air(&["S1", "S2", "S3"]);
    let all = Command::Mute {
        sites: vec![],
        muted: true,
    };
    desk.told(10, all);
    assert_eq!(desk.told(20, ask("S2")), "floor [\"S2\"]");
    assert_eq!(desk.told(21, ask("S1")), "floor [\"S2\", \"S1\"]");
    assert_eq!(desk.told(22, ask("S2")), "", "once");
    let notice = desk.meeting.notice("S1").expect("in the meeting");
    assert_eq!((notice.floor, notice.floor_place), (Some(FloorState::Waiting), 2));
    assert_eq!(desk.told(30, grant("S1", 60)), "floor [\"S2\", \"S1!\"]");
    assert_eq!(muted(&desk), ["S2", "S3"]);
    assert_eq!(desk.meeting.next_deadline(), Some(Millis(60_030)));
    let longer = desk.told(40, grant("S1", 90));
    assert_eq!(
        longer, "floor [\"S2\", \"S1!\"]",
        "granted again, it lasts longer"
    );
    assert_eq!(desk.meeting.floor().of("S1").unwrap().granted, Some(Millis(30)));
    assert_eq!(desk.told(60_030, Command::Tick), "");
    assert_eq!(desk.told(90_040, Command::Tick), "floor [\"S2\"]");
    assert_eq!(muted(&desk), ["S1", "S2", "S3"]);
    assert_eq!(
        desk.told(91_000, grant("S3", 0)),
        "floor [\"S2\", \"S3!\"]",
        "one that did not ask is asked to speak"
    );
    assert_eq!(desk.meeting.next_deadline(), None, "without limit");
    assert_eq!(
        desk.told(92_000, Command::TakeFloor { site: site("S3") }),
        "floor [\"S2\"]"
    );
    let back = Command::RequestFloor {
        site: site("S2"),
        withdraw: true,
    };
    assert_eq!(desk.told(93_000, back.clone()), "floor []");
    assert_eq!(desk.told(93_000, back), "");
}

#[test]
fn the_floor_is_for_who_is_there() {
    let mut desk = desk_on_air(&["S1", "S2"]);
    let mut away = Desk::convened(&["S1"]);
    assert_eq!(away.run(10, ask("S1")).unwrap_err().code(), "not_on_air");
    assert_eq!(away.run(10, grant("S1", 5)).unwrap_err().code(), "not_on_air");
    assert_eq!(desk.run(10, ask("S9")).unwrap_err().code(), "not_in_meeting");
    assert_eq!(
        desk.run(10, grant("S1", 86_401)).unwrap_err().code(),
        "bad_number"
    );
    desk.told(20, ask("S1"));
    desk.told(21, ask("S2"));
    assert_eq!(
        desk.told(30, lost("S1")),
        "S1 unreachable (link_lost)",
        "who is lost for a while keeps its place"
    );
    let hang_up = Command::HangUp {
        sites: vec![site("S1")],
    };
    assert_eq!(
        desk.told(40, hang_up),
        "S1 left (hung_up_by_chair), floor [\"S2\"]",
        "who is out does not"
    );
}

fn start(answer_s: u32, ids: &[&str]) -> Command {
    Command::StartRollCall {
        by: account("chen"),
        answer_s,
        sites: ids.iter().map(|id| site(id)).collect(),
    }
}

fn seen(id: &str, up: bool, down: bool) -> Command {
    Command::Evidence {
        site: site(id),
        up,
        down,
    }
}

fn at_site(id: &str) -> Command {
    Command::Acknowledge {
        site: site(id),
        by: None,
    }
}

fn heard(id: &str) -> Command {
    Command::Acknowledge {
        site: site(id),
        by: Some(account("chen")),
    }
}

#[test]
fn what_is_known_when_time_is_over_decides_the_result() {
    use RollCallResult::{Absent, Broken, Called, Present};
    // Media seen up, down; acknowledged: the result before time is over, and after.
    for (up, down, acknowledged, before, after) in [
        (true, true, true, Present, Present),
        (true, true, false, Called, Absent),
        (true, false, true, Called, Broken),
        (false, true, true, Called, Broken),
        (true, false, false, Called, Broken),
        (false, false, false, Called, Broken),
    ] {
        let mut desk = desk_on_air(&["S1", "S2"]);
        assert_eq!(desk.told(1_000, start(5, &["S1"])), "roll call 1, S1 called");
        desk.told(1_100, seen("S1", up, false));
        desk.told(1_200, seen("S1", false, down));
        if acknowledged {
            desk.told(1_300, at_site("S1"));
        }
        let result = |desk: &Desk| desk.meeting.roll_call().unwrap().entry("S1").unwrap().clone();
        assert_eq!(result(&desk).result, before, "{up} {down} {acknowledged}");
        if before == Called {
            assert_eq!(desk.meeting.next_deadline(), Some(Millis(6_000)));
            assert_eq!(desk.told(5_999, Command::Tick), "");
            desk.told(6_000, Command::Tick);
        }
        let entry = result(&desk);
        assert_eq!(entry.result, after, "{up} {down} {acknowledged}");
        assert_eq!((entry.seen_up, entry.seen_down), (up, down));
        assert_eq!(entry.called, Some(Millis(1_000)));
        assert!(!desk.meeting.roll_call().unwrap().is_on());
    }
}

#[test]
fn a_roll_call_goes_through_the_roster_with_one_microphone_open() {
    let mut desk = desk_on_air(&["S1", "S2", "S4"]);
    let add = Command::AddSites {
        sites: vec![Invitee {
            reach: Reach::NeverSeen,
            ..online("S5")
        }],
        over: None,
    };
    desk.told(10, add);
    desk.told(20, grant("S2", 0));
    assert_eq!(desk.told(100, start(0, &[])), "roll call 1, S1 called");
    assert_eq!(muted(&desk), ["S2", "S4", "S5"], "the floor does not count now");
    assert!(desk.meeting.notice("S1").unwrap().roll_called);
    assert_eq!(desk.meeting.notice("S1").unwrap().answer_by, None);
    assert!(!desk.meeting.notice("S2").unwrap().roll_called);
    assert_eq!(desk.meeting.next_deadline(), None, "until the caller goes on");
    assert_eq!(desk.run(110, at_site("S2")).unwrap_err().code(), "not_called");
    assert_eq!(desk.told(120, seen("S2", true, true)), "", "not called");
    desk.told(130, seen("S1", true, true));
    assert_eq!(desk.told(140, at_site("S1")), "S1 present, S2 called");
    assert_eq!(desk.told(141, at_site("S1")), "", "pressed twice");
    assert_eq!(muted(&desk), ["S1", "S4", "S5"]);
    // The called one drops out: unreachable with its reason, and the next is called.
    assert_eq!(
        desk.told(150, lost("S2")),
        "S2 unreachable (link_lost), S2 unreachable, S4 called"
    );
    let entry = desk.meeting.roll_call().unwrap().entry("S2").unwrap();
    assert_eq!(entry.reason, Some(Reason::LinkLost));
    desk.told(160, seen("S4", true, true));
    assert_eq!(
        desk.told(170, heard("S4")),
        "S4 present, S5 unreachable, roll call over"
    );
    let roll_call = desk.meeting.roll_call().unwrap();
    assert_eq!(roll_call.entry("S4").unwrap().acknowledged_by, "chen");
    assert_eq!(roll_call.entry("S1").unwrap().acknowledged_by, "site:S1");
    assert_eq!(roll_call.entry("S5").unwrap().reason, Some(Reason::NeverSeen));
    assert_eq!(roll_call.counts()[&RollCallResult::Unreachable], 2);
    assert_eq!(muted(&desk), Vec::<String>::new(), "as before");
    assert_eq!(desk.told(200, start(0, &["S4"])), "roll call 2, S4 called");
    let history = RollCall::history(&desk.events);
    let numbers: Vec<(u32, bool)> = history.iter().map(|call| (call.number, call.is_on())).collect();
    assert_eq!(numbers, [(1, false), (2, true)]);
    assert_eq!(history.last(), desk.meeting.roll_call());
}

#[test]
fn the_caller_goes_on_names_a_site_and_ends() {
    let mut desk = desk_on_air(&["S1", "S2", "S3"]);
    let next = |id: Option<&str>| Command::NextRollCall { site: id.map(site) };
    assert_eq!(desk.run(5, next(None)).unwrap_err().code(), "no_roll_call");
    desk.told(100, start(0, &["S3", "S1", "S2"]));
    assert_eq!(
        desk.told(110, next(Some("S3"))),
        "S1 broken, S3 called",
        "in calling order, and then as named"
    );
    assert_eq!(
        desk.told(120, next(Some("S1"))),
        "S3 broken, S1 called",
        "once more"
    );
    desk.told(130, seen("S1", true, true));
    assert_eq!(desk.told(140, next(None)), "S1 absent, S2 called");
    assert_eq!(
        desk.run(150, next(Some("S9"))).unwrap_err().code(),
        "not_in_roll_call"
    );
    assert_eq!(desk.run(150, start(0, &[])), Err(Refusal::RollCallGoesOn));
    assert_eq!(desk.told(160, Command::EndRollCall), "S2 broken, roll call over");
    assert_eq!(desk.run(170, Command::EndRollCall), Err(Refusal::NoRollCall));
    for answer_s in [1, 2, 121] {
        let refusal = desk.run(180, start(answer_s, &[])).unwrap_err();
        assert_eq!(refusal.code(), "bad_number", "{refusal}");
    }
    assert_eq!(
        desk.run(190, start(0, &["S9"])).unwrap_err().code(),
        "not_in_meeting"
    );
}

#[test]
fn an_early_end_leaves_those_not_called_waiting() {
    let mut desk = desk_on_air(&["S1", "S2"]);
    desk.told(100, start(0, &[]));
    desk.told(110, Command::EndRollCall);
    let result = |id: &str| desk.meeting.roll_call().unwrap().entry(id).unwrap().result;
    assert_eq!(result("S2"), RollCallResult::Waiting);

    let mut desk = desk_on_air(&["S1", "S2"]);
    desk.told(100, start(0, &[]));
    let end = Command::End {
        reason: "done".to_owned(),
    };
    assert_eq!(
        desk.told(110, end),
        "S1 broken, roll call over, ended",
        "a meeting that ends ends it first"
    );
    assert_eq!(desk.told(120, seen("S1", true, true)), "");
}

#[test]
fn a_roster_of_which_nobody_is_there_is_over_at_once() {
    let mut desk = Desk::convened(&["S1", "S2"]);
    assert_eq!(
        desk.told(10, start(5, &[])),
        "roll call 1, S1 unreachable, S2 unreachable, roll call over"
    );
}
