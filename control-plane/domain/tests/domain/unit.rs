//! The administration of a unit: presets, schedules, drills, answer policies and grants; and that replay of what was
//! stored gives the same state.

use muster_domain::unit::{DAY_MS, DRILL_MS, MAX_DRILLS, MAX_PLANS};
use muster_domain::*;
use proptest::prelude::*;

use crate::support::*;

const HOUR: i64 = 3600 * 1000;

fn id(text: &str) -> PlanId {
    PlanId::new(text).expect("an id")
}

fn preset(name: &str) -> Preset {
    Preset {
        name: name.to_owned(),
        selector: Selector {
            subtrees: vec!["WH-EL".to_owned()],
            ..Selector::default()
        },
        ..Preset::default()
    }
}

fn schedule(next: i64, repeat: Repeat) -> Schedule {
    Schedule {
        preset: id("p1"),
        next: Some(Millis(next)),
        repeat,
        account: account("chen"),
        drill: false,
        last: None,
    }
}

/// An administration with what was stored.
struct Office {
    state: Administration,
    events: Vec<UnitEvent>,
}

impl Office {
    fn new() -> Self {
        Office {
            state: Administration::new(unit("WH-EL")),
            events: Vec::new(),
        }
    }

    fn run(&mut self, now: i64, order: Order) -> Result<usize, &'static str> {
        let events = self.state.decide(order, Millis(now)).map_err(|r| r.code())?;
        events.iter().for_each(|event| self.state.apply(event));
        self.events.extend(events.iter().cloned());
        Ok(events.len())
    }

    fn with_preset() -> Self {
        let mut office = Office::new();
        assert_eq!(office.run(0, save_preset("p1", true, preset("Flood"))), Ok(1));
        office
    }
}

fn save_preset(name: &str, is_new: bool, preset: Preset) -> Order {
    Order::SavePreset {
        id: id(name),
        is_new,
        preset,
    }
}

fn save_schedule(name: &str, is_new: bool, schedule: Schedule) -> Order {
    Order::SaveSchedule {
        id: id(name),
        is_new,
        schedule,
    }
}

fn carried(name: &str, due: i64, outcome: Outcome) -> Order {
    Order::Carried {
        id: id(name),
        due: Millis(due),
        outcome,
    }
}

#[test]
fn a_preset_is_saved_changed_and_deleted() {
    let mut office = Office::with_preset();
    assert_eq!(
        office.run(1, save_preset("p1", true, preset("Again"))),
        Err("already_done")
    );
    assert_eq!(
        office.run(1, save_preset("p2", false, preset("None"))),
        Err("unknown_plan")
    );
    assert_eq!(
        office.run(1, save_preset("p1", false, preset("Flood"))),
        Ok(0),
        "so already"
    );
    assert_eq!(
        office.run(1, save_preset("p2", true, preset(" Flood"))),
        Err("name_taken"),
        "two of one name cannot be told apart"
    );
    assert_eq!(office.run(1, save_preset("p1", false, preset("Storm"))), Ok(1));
    assert_eq!(office.state.preset("p1").expect("saved").meeting_title(), "Storm");
    assert_eq!(
        office.run(2, save_schedule("s1", true, schedule(HOUR, Repeat::Once))),
        Ok(1)
    );
    let far = schedule(400 * 24 * HOUR, Repeat::Once);
    assert_eq!(
        office.run(2, save_schedule("s2", true, far)),
        Err("bad_text"),
        "a year ahead at most"
    );
    assert_eq!(
        office.run(3, Order::DeletePreset { id: id("p1") }),
        Err("preset_in_use")
    );
    assert_eq!(office.run(4, Order::DeleteSchedule { id: id("s1") }), Ok(1));
    assert_eq!(office.run(5, Order::DeletePreset { id: id("p1") }), Ok(1));
    assert_eq!(
        office.run(6, Order::DeletePreset { id: id("p1") }),
        Err("unknown_plan")
    );
    assert_eq!(office.state.seq(), 5);
}

#[test]
fn a_preset_that_makes_no_sense_is_refused() {
    let bad = |code: &str, change: &dyn Fn(&mut Preset)| {
        let mut preset = preset("Flood");
        change(&mut preset);
        let found = Office::new().run(0, save_preset("p1", true, preset));
        assert_eq!(found, Err(code));
    };
    bad("bad_text", &|p| p.name = "  ".into());
    bad("bad_text", &|p| p.name = "x".repeat(81));
    bad("bad_text", &|p| p.title = "a\nb".into());
    bad("no_sites", &|p| p.selector = Selector::default());
    bad("too_many_plans", &|p| p.selector.sites = vec!["S".into(); 10_001]);
    bad("bad_text", &|p| p.deadline_s = 86_401);
    bad("bad_text", &|p| p.minutes = 10_081);
    bad("bad_text", &|p| p.polling_s = 4);
    let mut office = Office::new();
    for n in 0..MAX_PLANS {
        assert_eq!(
            office.run(
                0,
                save_preset(&format!("p{n}"), true, preset(&format!("Flood {n}")))
            ),
            Ok(1)
        );
    }
    assert_eq!(
        office.run(0, save_preset("more", true, preset("Flood"))),
        Err("too_many_plans")
    );
    assert_eq!(office.run(0, save_preset("p0", false, preset("Other"))), Ok(1));
}

#[test]
fn a_preset_opens_with_its_stage() {
    let mut preset = preset("Flood");
    preset.polling_s = 10;
    preset.layout = Some(Layout::Nine);
    preset.mute_all = true;
    let opening = preset.opening();
    assert_eq!(opening.polling_ms, Some(10_000));
    assert_eq!(opening.layout, Some(Layout::Nine));
    assert!(opening.mute_all && !opening.voice_switching && opening.broadcast.is_none());
    preset.title = "Night".into();
    assert_eq!(preset.meeting_title(), "Night");
}

#[test]
fn the_next_time_is_whole_days_later_and_in_the_future() {
    let at = |ms: Option<Millis>| ms.map(|ms| ms.0);
    assert_eq!(at(Repeat::Once.next(Millis(10), Millis(5))), Some(10));
    assert_eq!(at(Repeat::Once.next(Millis(10), Millis(10))), None);
    assert_eq!(at(Repeat::Daily.next(Millis(10), Millis(10))), Some(10 + DAY_MS));
    assert_eq!(
        at(Repeat::Daily.next(Millis(10), Millis(9 + DAY_MS))),
        Some(10 + DAY_MS)
    );
    assert_eq!(
        at(Repeat::Weekly.next(Millis(10), Millis(10 + DAY_MS))),
        Some(10 + 7 * DAY_MS)
    );
    assert_eq!(
        at(Repeat::Weekly.next(Millis(10), Millis(11 + 70 * DAY_MS))),
        Some(10 + 77 * DAY_MS)
    );
}

#[test]
fn a_schedule_is_carried_out_once_a_time_and_keeps_what_came_of_it() {
    let mut office = Office::with_preset();
    assert_eq!(
        office.run(HOUR, save_schedule("s1", true, schedule(10, Repeat::Once))),
        Err("past_time")
    );
    let mut never = schedule(10, Repeat::Once);
    never.next = None;
    assert_eq!(office.run(0, save_schedule("s1", true, never)), Err("past_time"));
    assert_eq!(
        office.run(0, save_schedule("s1", true, schedule(HOUR, Repeat::Daily))),
        Ok(1)
    );
    let done = || Outcome::Done("m7".to_owned());
    assert_eq!(office.run(HOUR + 5, carried("s1", HOUR, done())), Ok(1));
    assert_eq!(
        office.run(HOUR + 6, carried("s1", HOUR, done())),
        Err("already_done"),
        "another replica"
    );
    let after = office.state.schedule("s1").expect("saved").clone();
    assert_eq!(after.next, Some(Millis(HOUR + DAY_MS)));
    assert_eq!(after.last, Some((Millis(HOUR), done())));
    // Away for three days: the times in between are not made up for.
    let late = Outcome::Refused("x".repeat(1000));
    assert_eq!(
        office.run(HOUR + 4 * DAY_MS, carried("s1", HOUR + DAY_MS, late)),
        Ok(1)
    );
    let after = office.state.schedule("s1").expect("saved").clone();
    assert_eq!(after.next, Some(Millis(HOUR + 5 * DAY_MS)));
    let Some((_, Outcome::Refused(reason))) = after.last else {
        panic!("{after:?}")
    };
    assert!(reason.chars().count() <= 301, "what is kept is bounded");
    // A change of the plan keeps what came of the last time.
    assert_eq!(
        office.run(
            5 * DAY_MS,
            save_schedule("s1", false, schedule(10 * DAY_MS, Repeat::Once))
        ),
        Ok(1)
    );
    assert!(office.state.schedule("s1").expect("saved").last.is_some());
    assert_eq!(office.run(10 * DAY_MS, carried("s1", 10 * DAY_MS, done())), Ok(1));
    assert_eq!(
        office.state.schedule("s1").expect("saved").next,
        None,
        "once is once"
    );
    assert_eq!(
        office.run(10 * DAY_MS, Order::DeletePreset { id: id("p1") }),
        Ok(1),
        "nothing needs it any more"
    );
}

fn result_of(name: &str, camera: Check) -> DrillResult {
    DrillResult {
        reason: None,
        camera,
        link: Check::Ok,
        ..DrillResult::none(site(name), Reason::NoAnswer, Millis(3))
    }
}

#[test]
fn a_drill_waits_for_those_that_can_be_reached() {
    let sites = [
        (site("S1"), Reach::Online),
        (site("S2"), Reach::NeverSeen),
        (site("S3"), Reach::Offline { since: Millis(1) }),
        (site("S4"), Reach::Online),
        (site("S5"), Reach::Online),
    ];
    let mut drill = Drill::start(account("chen"), &sites, Millis(0));
    assert_eq!(drill.waiting().count(), 3);
    assert!(drill.report(result_of("S1", Check::Busy)));
    assert!(!drill.report(result_of("S1", Check::Failed)), "the first counts");
    assert!(!drill.report(result_of("S2", Check::Ok)), "it was not asked");
    assert!(!drill.report(result_of("S9", Check::Ok)), "a stranger");
    assert!(drill.report(result_of("S4", Check::Failed)));
    assert!(!drill.is_over(Millis(DRILL_MS - 1)));
    assert!(drill.is_over(Millis(DRILL_MS)));
    let kept = Drill::restore(
        drill.by.clone(),
        drill.started,
        None,
        drill.asked,
        drill.results.clone(),
        &sites.map(|(site, _)| site),
    );
    assert_eq!(kept, drill, "another replica can end it");
    drill.end(Millis(DRILL_MS));
    let reason = |name: &str| {
        let found = drill.results.iter().find(|result| result.site.as_str() == name);
        found.expect("a result").reason
    };
    assert_eq!(reason("S1"), None);
    assert_eq!(reason("S2"), Some(Reason::NeverSeen));
    assert_eq!(reason("S3"), Some(Reason::Offline));
    assert_eq!(reason("S5"), Some(Reason::NoAnswer));
    assert_eq!((drill.ready(), drill.asked, drill.results.len()), (1, 5, 5));
    assert!(!drill.report(result_of("S5", Check::Ok)), "too late");
}

#[test]
fn a_drill_begins_and_ends_once() {
    let mut office = Office::new();
    let start = |name: &str| Order::StartDrill {
        id: id(name),
        sites: vec![site("S1")],
    };
    let end = |name: &str| Order::EndDrill {
        id: id(name),
        drill: Drill::start(account("chen"), &[(site("S1"), Reach::Online)], Millis(0)),
    };
    let none = Order::StartDrill {
        id: id("d0"),
        sites: Vec::new(),
    };
    assert_eq!(office.run(0, none), Err("no_sites"));
    assert_eq!(office.run(0, start("d1")), Ok(1));
    assert_eq!(office.state.drill_sites("d1"), Some(&[site("S1")][..]));
    assert_eq!(office.run(0, start("d1")), Err("already_done"));
    assert_eq!(office.run(0, end("d2")), Err("unknown_plan"));
    assert_eq!(office.run(DRILL_MS, end("d1")), Ok(1));
    assert_eq!(office.run(DRILL_MS, end("d1")), Err("already_done"));
    assert_eq!(
        (office.state.drill("d1"), office.state.drill_sites("d1")),
        (Some(true), None)
    );
    for n in 2..=MAX_DRILLS {
        assert_eq!(office.run(0, start(&format!("d{n}"))), Ok(1));
    }
    assert_eq!(office.state.outdated_drill(), Some(&id("d1")));
    assert_eq!(office.run(0, start("more")), Ok(1));
    assert_eq!(office.state.drill("d1"), None, "what is remembered is bounded");
}

#[test]
fn grants_and_answers_are_as_they_were_last_set() {
    let mut office = Office::new();
    let grant = |expires: Option<i64>| Order::Grant {
        account: account("li"),
        grant: Grant {
            role: Role::DutyOfficer,
            unit: unit("WH-EL"),
            expires: expires.map(Millis),
        },
    };
    assert_eq!(office.run(10, grant(Some(10))), Err("past_time"));
    assert_eq!(office.run(10, grant(Some(20))), Ok(1));
    assert_eq!(
        office.run(10, grant(None)),
        Ok(1),
        "the same again sets the new end"
    );
    assert_eq!(office.state.grants().count(), 1);
    let revoke = Order::Revoke {
        account: account("li"),
        role: Role::DutyOfficer,
    };
    assert_eq!(office.run(11, revoke), Ok(1));
    assert_eq!(office.state.grants().count(), 0);
    let answer = |sites: &[&str], answer| Order::SetAnswer {
        sites: sites.iter().map(|name| site(name)).collect(),
        answer,
    };
    assert_eq!(office.run(12, answer(&[], Answer::Auto)), Err("no_sites"));
    assert_eq!(office.run(12, answer(&["S1", "S2", "S1"], Answer::Auto)), Ok(1));
    assert_eq!(office.run(12, answer(&["S1", "S2"], Answer::Ring)), Ok(1));
    let kept: Vec<_> = office.state.answers().map(|(_, answer)| answer).collect();
    assert_eq!(kept, [Answer::Ring, Answer::Ring]);
}

#[test]
fn a_report_has_words_and_an_answer_needs_none() {
    let mut office = Office::new();
    let report = |text: &str, kind: ReportKind| {
        Order::Record(Record::Reported(SiteReport {
            site: site("S1"),
            id: ReportId::new("r1").expect("an id"),
            kind,
            text: text.into(),
            written: Millis(1),
        }))
    };
    let before = office.state.clone();
    assert_eq!(office.run(1, report("水\n火", ReportKind::Words)), Ok(1));
    assert_eq!(office.run(1, report(&"水".repeat(500), ReportKind::Words)), Ok(1));
    for bad in [String::new(), " \n".into(), "水".repeat(501), "a\tb".into()] {
        assert_eq!(
            office.run(1, report(&bad, ReportKind::Words)),
            Err("bad_text"),
            "{bad}"
        );
    }
    let answer = ReportKind::RollCallAnswer {
        meeting: MeetingId::new("m1").expect("an id"),
        roll_call: 1,
    };
    assert_eq!(office.run(2, report("", answer)), Ok(1));
    // It is kept in the log alone.
    assert_eq!(office.state.seq(), before.seq() + 3);
    assert_eq!(
        office.state,
        Administration::replay(unit("WH-EL"), &office.events)
    );
}

#[test]
fn the_first_use_of_a_link_is_an_event() {
    let mut office = Office::new();
    let made = || {
        Order::Record(Record::SecretMade {
            identity: "site_link:S1".into(),
            expires: Millis(9),
        })
    };
    let used = |identity: &str| {
        Order::Record(Record::SecretUsed {
            identity: identity.into(),
        })
    };
    assert_eq!(
        office.run(1, used("site_link:S1")),
        Ok(0),
        "made before there was a log"
    );
    assert_eq!(office.run(1, made()), Ok(1));
    assert_eq!(office.run(2, used("site_link:S1")), Ok(1));
    assert_eq!(
        office.run(3, used("site_link:S1")),
        Ok(0),
        "a page that is loaded again"
    );
    assert_eq!(office.run(4, made()), Ok(1));
    assert_eq!(office.run(5, used("site_link:S1")), Ok(1), "another link");
    assert_eq!(
        office.run(6, used("agent:S1")),
        Ok(1),
        "enrolment tokens are used once"
    );
}

fn any_order() -> impl Strategy<Value = Order> {
    let name = || (0..4u8).prop_map(|n| id(&format!("x{n}")));
    let outcome = prop_oneof![
        Just(Outcome::Done("m1".into())),
        Just(Outcome::Refused("no".into()))
    ];
    let repeat = prop_oneof![Just(Repeat::Once), Just(Repeat::Daily), Just(Repeat::Weekly)];
    let account = || (0..3u8).prop_map(|n| account(&format!("a{n}")));
    prop_oneof![
        (name(), any::<bool>(), "[a-z ]{0,3}").prop_map(|(id, is_new, text)| Order::SavePreset {
            id,
            is_new,
            preset: preset(&text)
        }),
        name().prop_map(|id| Order::DeletePreset { id }),
        (name(), any::<bool>(), name(), 0..10 * DAY_MS, repeat).prop_map(
            |(id, is_new, preset, next, repeat)| {
                let schedule = Schedule {
                    preset,
                    ..schedule(next, repeat)
                };
                Order::SaveSchedule { id, is_new, schedule }
            }
        ),
        name().prop_map(|id| Order::DeleteSchedule { id }),
        (name(), 0..10 * DAY_MS, outcome).prop_map(|(id, due, outcome)| Order::Carried {
            id,
            due: Millis(due),
            outcome
        }),
        name().prop_map(|id| Order::StartDrill {
            id,
            sites: vec![site("S1")]
        }),
        name().prop_map(|id| Order::EndDrill {
            id,
            drill: Drill::start(
                crate::support::account("chen"),
                &[(site("S1"), Reach::Online)],
                Millis(0)
            ),
        }),
        (0..3u8, proptest::sample::select(Answer::ALL)).prop_map(|(n, answer)| Order::SetAnswer {
            sites: vec![site(&format!("S{n}"))],
            answer
        }),
        (
            account(),
            proptest::sample::select(Role::ALL),
            proptest::option::of(0..10 * DAY_MS)
        )
            .prop_map(|(account, role, expires)| Order::Grant {
                account,
                grant: Grant {
                    role,
                    unit: unit("WH-EL"),
                    expires: expires.map(Millis)
                },
            }),
        (account(), proptest::sample::select(Role::ALL))
            .prop_map(|(account, role)| Order::Revoke { account, role }),
    ]
}

proptest! {
    #[test]
    fn replay_gives_the_same_state_and_nothing_is_due_in_the_past(
        steps in proptest::collection::vec((0..10 * DAY_MS, any_order()), 0..50)
    ) {
        let mut office = Office::new();
        for (now, order) in steps {
            let before = office.state.clone();
            // A schedule is carried out at its own time, which a random one seldom is.
            let order = match order {
                Order::Carried { id, due, outcome } => {
                    let due = office.state.schedule(&id).and_then(|s| s.next).unwrap_or(due);
                    Order::Carried { id, due, outcome }
                }
                other => other,
            };
            let moves = matches!(order, Order::Carried { .. } | Order::SaveSchedule { .. });
            let refused = office.run(now, order).is_err();
            prop_assert!(!refused || office.state == before, "a refusal changes nothing");
            prop_assert_eq!(office.state.seq(), office.events.len() as u64);
            if let (true, Some(UnitEvent::ScheduleSaved { schedule, .. })) = (moves && !refused, office.events.last()) {
                prop_assert!(schedule.next.is_none_or(|next| next.0 > now));
            }
        }
        prop_assert_eq!(&Administration::replay(unit("WH-EL"), &office.events), &office.state);
    }
}
