//! Meetings as a dispatcher meets them, in virtual time.

use muster_domain::*;

use crate::support::*;

#[test]
fn a_convening_from_page_to_on_air() {
    let mut desk = Desk::new();
    let invitees = vec![
        online("S1"),
        Invitee {
            reach: Reach::NeverSeen,
            ..online("S2")
        },
        Invitee {
            reach: Reach::Offline { since: Millis(-9) },
            ..online("S3")
        },
        Invitee {
            claimed_by: Some(holder("m0", Priority::Routine)),
            ..online("S4")
        },
    ];
    assert_eq!(
        desk.told(0, convene(invitees)),
        "convened, S1 paged, S2 unreachable (never_seen), S3 unreachable (offline), S4 refused (in_other_meeting)"
    );
    assert_eq!(desk.meeting.seq(), 5);
    assert_eq!(desk.meeting.next_deadline(), Some(Millis(3_000)));
    assert_eq!(
        desk.told(100, report("S1", SummonsState::Answered)),
        "S1 answered"
    );
    assert_eq!(
        desk.told(101, report("S1", SummonsState::Ringing)),
        "",
        "out of order"
    );
    assert_eq!(
        desk.told(200, Command::LegJoining { site: site("S1") }),
        "S1 joining"
    );
    assert_eq!(
        desk.told(300, Command::LegOnAir { site: site("S1") }),
        "S1 on air"
    );
    assert_eq!(desk.told(301, Command::LegJoining { site: site("S1") }), "");
    let summons = desk.meeting.summons("S1").unwrap();
    assert_eq!(
        (summons.paged, summons.on_air),
        (Some(Millis(0)), Some(Millis(300)))
    );
    assert_eq!(desk.meeting.on_air(), 1);
    assert_eq!(desk.meeting.next_deadline(), None);
    let missing: Vec<&str> = desk.meeting.unconnected().map(SiteId::as_str).collect();
    assert_eq!(missing, ["S2", "S3", "S4"]);
    assert_eq!(
        desk.told(900, Command::EndpointAttached { site: site("S3") }),
        "S3 paged"
    );
    assert_eq!(
        desk.told(900, Command::EndpointAttached { site: site("S4") }),
        "",
        "in another meeting"
    );
}

#[test]
fn an_agent_that_dies_comes_back_by_itself() {
    let mut desk = Desk::convened(&["S1"]);
    desk.told(10, Command::LegOnAir { site: site("S1") });
    assert_eq!(
        desk.told(2_000, Command::EndpointDetached { site: site("S1") }),
        "",
        "its leg may live"
    );
    let lost = Command::LegEnded {
        site: site("S1"),
        end: LegEnd::Lost,
        reach: Reach::Offline { since: Millis(2_000) },
    };
    assert_eq!(desk.told(2_100, lost), "S1 unreachable (offline)");
    assert_eq!(desk.meeting.next_deadline(), None, "nothing is waited for");
    assert_eq!(
        desk.told(60_000, Command::EndpointAttached { site: site("S1") }),
        "S1 paged"
    );
    assert_eq!(
        desk.told(60_010, report("S1", SummonsState::Answered)),
        "S1 answered"
    );
    assert_eq!(
        desk.told(60_300, Command::LegOnAir { site: site("S1") }),
        "S1 on air"
    );
    assert_eq!(
        desk.meeting.summons("S1").unwrap().on_air,
        Some(Millis(10)),
        "first on air"
    );
}

#[test]
fn a_leg_that_is_replaced_leaves_the_site_on_air() {
    let mut desk = Desk::convened(&["S1"]);
    desk.told(10, Command::LegOnAir { site: site("S1") });
    let replaced = Command::LegEnded {
        site: site("S1"),
        end: LegEnd::Replaced,
        reach: Reach::Online,
    };
    assert_eq!(desk.told(20, replaced), "");
    let hung_up = Command::LegEnded {
        site: site("S1"),
        end: LegEnd::HungUp,
        reach: Reach::Online,
    };
    assert_eq!(desk.told(30, hung_up), "S1 left (hung_up)");
    assert_eq!(
        desk.told(40, Command::EndpointAttached { site: site("S1") }),
        "",
        "it chose to go"
    );
    assert_eq!(
        desk.meeting.may_join(&site("S1"), None),
        Ok(()),
        "and may come back"
    );
}

#[test]
fn ticks_end_what_lasts_too_long_and_calling_again_starts_anew() {
    let mut desk = Desk::convened(&["S1", "S2", "S3"]);
    desk.told(100, report("S2", SummonsState::Ringing));
    desk.told(200, report("S3", SummonsState::Joining));
    assert_eq!(desk.told(2_999, Command::Tick), "");
    assert_eq!(desk.told(3_000, Command::Tick), "S1 unreachable (no_delivery)");
    assert_eq!(desk.meeting.next_deadline(), Some(Millis(10_200)));
    assert_eq!(
        desk.told(40_000, Command::Tick),
        "S2 timed out (no_answer), S3 timed out (no_media)"
    );
    let all = vec![
        online("S1"),
        Invitee {
            reach: Reach::NeverSeen,
            ..online("S2")
        },
        online("S3"),
    ];
    assert_eq!(
        desk.told(50_000, Command::CallUnconnected { sites: all }),
        "S1 paged, S2 unreachable (never_seen), S3 paged"
    );
    assert_eq!(
        desk.told(50_500, report("S1", SummonsState::Delivered)),
        "S1 delivered"
    );
}

#[test]
fn without_a_relay_what_is_under_way_says_so() {
    let mut desk = Desk::convened(&["S1", "S2"]);
    desk.told(5, Command::LegOnAir { site: site("S2") });
    assert_eq!(
        desk.told(10, Command::NoRelay { sites: vec![] }),
        "S1 unreachable (no_relay)"
    );
    assert_eq!(
        desk.told(
            11,
            Command::NoRelay {
                sites: vec![site("S1")]
            }
        ),
        ""
    );
}

#[test]
fn the_stage_is_what_everyone_is_made_to_see() {
    let mut desk = Desk::convened(&["S1", "S2", "S3"]);
    let first = desk.meeting.stage_document();
    assert_eq!(
        (first.version, first.chair.as_str(), first.broadcast),
        (1, "desk:chen", None)
    );
    assert_eq!(
        desk.told(
            10,
            Command::Broadcast {
                site: Some(site("S2"))
            }
        ),
        "stage"
    );
    assert_eq!(
        desk.told(
            11,
            Command::Broadcast {
                site: Some(site("S2"))
            }
        ),
        "",
        "it is so already"
    );
    assert_eq!(
        desk.told(
            12,
            Command::Mute {
                sites: vec![site("S3")],
                muted: true
            }
        ),
        "stage"
    );
    assert_eq!(
        desk.told(
            13,
            Command::Mute {
                sites: vec![],
                muted: true
            }
        ),
        "stage"
    );
    assert_eq!(
        desk.told(
            14,
            Command::Mute {
                sites: vec![site("S1")],
                muted: false
            }
        ),
        "stage"
    );
    desk.told(15, Command::LegOnAir { site: site("S1") });
    let document = desk.meeting.stage_document();
    assert_eq!(document.broadcast, Some(site("S2")));
    assert_eq!(document.muted, [site("S2"), site("S3")]);
    assert_eq!(document.version, 8, "a site coming on air changes no stage");
    assert_eq!(desk.meeting.seq(), 9);
    assert_eq!(desk.told(16, Command::Broadcast { site: None }), "stage");
    assert_eq!(desk.meeting.stage_document().broadcast, None);
}

#[test]
fn a_site_taken_by_another_meeting_must_go_and_may_come_back() {
    let mut desk = Desk::convened(&["S1", "S2"]);
    let mut taken = online("S1");
    taken.claimed_by = Some(holder("m2", Priority::Routine));
    assert_eq!(
        desk.told(10, Command::CallUnconnected { sites: vec![taken] }),
        "S1 refused (in_other_meeting)"
    );
    let document = desk.meeting.stage_document();
    assert_eq!((document.version, document.expelled), (4, vec![site("S1")]));
    let elsewhere = Refusal::InOtherMeeting {
        site: site("S1"),
        meeting: meeting_id("m2"),
    };
    assert_eq!(desk.meeting.may_join(&site("S1"), None), Err(elsewhere.clone()));
    assert_eq!(
        desk.meeting.may_join(&site("S2"), Some(&meeting_id("m1"))),
        Ok(())
    );
    assert_eq!(
        desk.meeting
            .may_join(&site("S2"), Some(&meeting_id("m2")))
            .unwrap_err()
            .code(),
        "in_other_meeting"
    );
    assert_eq!(
        desk.told(
            20,
            Command::CallUnconnected {
                sites: vec![online("S1")]
            }
        ),
        "S1 paged"
    );
    let document = desk.meeting.stage_document();
    assert_eq!((document.version, document.expelled), (5, vec![]));
    assert_eq!(desk.meeting.may_join(&site("S1"), None), Ok(()));
}

#[test]
fn ending_is_final() {
    let mut desk = Desk::convened(&["S1", "S2"]);
    desk.told(5, Command::LegOnAir { site: site("S1") });
    desk.told(6, report("S2", SummonsState::Declined));
    assert_eq!(
        desk.told(
            10,
            Command::End {
                reason: "done".to_owned()
            }
        ),
        "ended"
    );
    assert_eq!(desk.meeting.ended(), Some((Millis(10), "done")));
    assert_eq!(desk.state("S1"), SummonsState::Left);
    assert_eq!(desk.state("S2"), SummonsState::Declined);
    assert!(desk.meeting.stage_document().ended);
    for command in [
        Command::End {
            reason: String::new(),
        },
        Command::Broadcast { site: None },
        Command::Mute {
            sites: vec![],
            muted: true,
        },
        Command::CallUnconnected { sites: vec![] },
        report("S1", SummonsState::Answered),
        convene(vec![online("S1")]),
    ] {
        assert_eq!(desk.run(20, command), Err(Refusal::MeetingEnded));
    }
    for trailing in [
        Command::LegEnded {
            site: site("S1"),
            end: LegEnd::HungUp,
            reach: Reach::Online,
        },
        Command::EndpointAttached { site: site("S9") },
        Command::Tick,
    ] {
        assert_eq!(desk.told(20, trailing), "");
    }
    assert_eq!(
        desk.meeting.may_join(&site("S1"), None),
        Err(Refusal::MeetingEnded)
    );
}

#[test]
fn what_cannot_be_is_refused_with_a_code() {
    let twice = vec![online("S1"), online("S1")];
    let long = "x".repeat(201);
    let titled = |title: &str| match convene(vec![online("S1")]) {
        Command::Convene {
            chair,
            unit,
            sites,
            idempotency_key,
            terms,
            opening,
            ..
        } => Command::Convene {
            title: title.to_owned(),
            chair,
            unit,
            sites,
            idempotency_key,
            terms,
            opening,
        },
        other => other,
    };
    let many = (0..10_001).map(|n| online(&format!("S{n}"))).collect();
    for (command, code) in [
        (convene(vec![]), "no_sites"),
        (convene(twice), "site_twice"),
        (convene(many), "too_many_sites"),
        (titled(" "), "bad_text"),
        (titled(&long), "bad_text"),
        (titled("a\nb"), "bad_text"),
        (Command::Broadcast { site: None }, "not_convened"),
        (Command::LegOnAir { site: site("S1") }, "not_convened"),
    ] {
        assert_eq!(Desk::new().run(0, command).unwrap_err().code(), code);
    }
    let s9 = site("S9");
    for (command, code) in [
        (convene(vec![online("S1")]), "already_convened"),
        (
            Command::Broadcast {
                site: Some(s9.clone()),
            },
            "not_in_meeting",
        ),
        (
            Command::Mute {
                sites: vec![site("S1"), s9.clone()],
                muted: true,
            },
            "not_in_meeting",
        ),
        (
            Command::CallUnconnected {
                sites: vec![online("S9")],
            },
            "not_in_meeting",
        ),
        (Command::LegOnAir { site: s9 }, "not_in_meeting"),
        (report("S1", SummonsState::OnAir), "not_a_report"),
        (report("S1", SummonsState::Left), "not_a_report"),
        (Command::End { reason: long.clone() }, "bad_text"),
    ] {
        let mut desk = Desk::convened(&["S1"]);
        let before = desk.meeting.clone();
        let refusal = desk.run(5, command).unwrap_err();
        assert_eq!(refusal.code(), code, "{refusal}");
        assert_eq!(desk.meeting, before);
    }
}

#[test]
fn events_that_cannot_stand_where_they_do_are_counted_and_ignored() {
    let stray = Event::SummonsChanged {
        summons: Summons::paged(site("S9"), Millis(1)),
    };
    let mut desk = Desk::convened(&["S1"]);
    let before = desk.meeting.clone();
    desk.meeting.apply(&stray);
    assert_eq!(desk.meeting.seq(), before.seq() + 1);
    assert_eq!(desk.meeting.summonses(), before.summonses());
    let alone = Meeting::replay(meeting_id("m1"), Timeouts::default(), [&stray]);
    assert!(!alone.is_live() && alone.summonses().is_empty() && alone.chair().is_none());
}

#[test]
fn a_site_is_in_one_meeting_at_a_time() {
    let mut first = Desk::convened(&["S1", "S2"]);
    let mut claims = Claims::of([&first.meeting]);
    assert_eq!(claims.holder("S1"), Some(&meeting_id("m1")));
    let mut second = Desk::new();
    second.meeting = Meeting::new(meeting_id("m2"), Timeouts::default());
    let invite = |claims: &Claims, id: &str| Invitee {
        claimed_by: claims.claim(id),
        ..online(id)
    };
    let sites = vec![invite(&claims, "S2"), invite(&claims, "S3")];
    for event in second.run(10, convene(sites)).unwrap() {
        claims.follow(&meeting_id("m2"), &event);
    }
    assert_eq!(second.state("S2"), SummonsState::Refused);
    let other = second.meeting.summons("S2").unwrap().other.clone().unwrap();
    assert_eq!(
        (other.meeting.as_str(), other.title.as_str()),
        ("m1", "Flood watch")
    );
    assert_eq!(claims.holder("S2"), Some(&meeting_id("m1")));
    assert_eq!(claims.holder("S3"), Some(&meeting_id("m2")));

    for event in first.run(20, report("S2", SummonsState::Declined)).unwrap() {
        claims.follow(&meeting_id("m1"), &event);
    }
    assert_eq!(claims.holder("S2"), None, "who declined is free");
    let again = Command::CallUnconnected {
        sites: vec![invite(&claims, "S2")],
    };
    for event in second.run(30, again).unwrap() {
        claims.follow(&meeting_id("m2"), &event);
    }
    assert_eq!(claims.holder("S2"), Some(&meeting_id("m2")));
    for event in first
        .run(
            40,
            Command::End {
                reason: String::new(),
            },
        )
        .unwrap()
    {
        claims.follow(&meeting_id("m1"), &event);
    }
    assert_eq!(claims.holder("S1"), None);
    assert_eq!(claims.len(), 2);
    assert_eq!(claims, Claims::of([&first.meeting, &second.meeting]));
}

#[test]
fn the_whole_example_tree_is_convened_and_comes_on_air() {
    let tree = eastlake();
    let invitees = tree.site_ids().iter().map(|id| online(id)).collect();
    let mut desk = Desk::new();
    desk.run(0, convene(invitees)).unwrap();
    assert_eq!(desk.meeting.seq(), 141);
    for (id, at) in tree.site_ids().iter().zip(100..) {
        desk.told(at, Command::LegOnAir { site: id.clone() });
    }
    assert_eq!(desk.meeting.on_air(), 140);
    assert_eq!(desk.meeting.unconnected().count(), 0);
    let replayed = Meeting::replay(meeting_id("m1"), Timeouts::default(), &desk.events);
    assert_eq!(replayed, desk.meeting);
}
