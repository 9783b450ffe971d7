//! Who may do what where: every action, role and relation, by one table.

use muster_domain::authority::permits;
use muster_domain::*;

use crate::support::*;

fn actor(grants: &[(Role, &str)]) -> Actor {
    let grants = grants
        .iter()
        .map(|(role, id)| Grant::lasting(*role, unit(id)))
        .collect();
    Actor {
        account: account("li"),
        grants,
    }
}

fn delegated(role: Role, id: &str, end: i64) -> Actor {
    let mut actor = actor(&[(role, id)]);
    actor.grants[0].expires = Some(Millis(end));
    actor
}

const NOW: Millis = Millis(1_000_000);

/// What an account is to a meeting, besides its role.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// Another has the chair.
    None,
    Chair,
    /// Took it over from another.
    TookOver,
}

/// Columns: commander, duty officer, engineer, auditor; then how a meeting is concerned:
/// `.` like anything of its unit, `r` runs it, `c` chair only, `h` who took it over, `n` not the chair,
/// `t` a unit above or a commander.
const TABLE: [(Action, &str, char); 28] = [
    (Action::View, "yyyy", '.'),
    (Action::Convene, "yy..", '.'),
    (Action::CallUnconnected, "yy..", 'r'),
    (Action::AddSites, "yy..", 'r'),
    (Action::HangUp, "yy..", 'r'),
    (Action::Mute, "yy..", 'r'),
    (Action::Broadcast, "yy..", 'r'),
    (Action::SetStage, "yy..", 'r'),
    (Action::WatchSite, "yy..", 'r'),
    (Action::RollCall, "yy..", 'r'),
    (Action::Floor, "yy..", 'r'),
    (Action::Lock, "yy..", 'r'),
    (Action::Extend, "yy..", 'r'),
    (Action::EndMeeting, "yy..", 'r'),
    (Action::RequestChair, "yy..", 'n'),
    (Action::ReleaseChair, "yy..", 'c'),
    (Action::TakeOver, "yy..", 't'),
    (Action::HandBack, "yy..", 'h'),
    (Action::JoinAsDesk, "yy..", '.'),
    (Action::ManagePresets, "yy..", '.'),
    (Action::Schedule, "yy..", '.'),
    (Action::Drill, "yyy.", '.'),
    (Action::SetAnswerPolicy, "y.y.", '.'),
    (Action::ImportSites, "y.y.", '.'),
    (Action::Enrol, "y.y.", '.'),
    (Action::CreateSiteLink, "yyy.", '.'),
    (Action::ManageAccounts, "y...", '.'),
    (Action::ReadLog, "y..y", '.'),
];

/// Relation of a thing to the granted unit `WH-EL-01`, whether it is covered, and what stands in it.
const RELATIONS: [(&str, bool, &str, &str); 5] = [
    ("own unit", true, "WH-EL-01", "WH-EL-01-S01"),
    ("below", true, "WH-EL-01-C001", "WH-EL-01-C001-S01"),
    ("above", false, "WH-EL", "WH-EL-S01"),
    ("beside", false, "WH-EL-02", "WH-EL-02-S01"),
    ("below beside", false, "WH-EL-02-C001", "WH-EL-02-C001-S01"),
];

/// What is to come out, in a refusal's code.
fn expected_in_meeting(role: Role, rule: char, relation: &str, part: Part) -> Result<(), &'static str> {
    let (chair, commander) = (part != Part::None, role == Role::Commander);
    let unless = |allowed: bool, code| if allowed { Ok(()) } else { Err(code) };
    match rule {
        'r' => unless(chair || commander, "not_the_chair"),
        'c' => unless(chair, "not_the_chair"),
        'n' => unless(!chair, "is_the_chair"),
        'h' if !chair => Err("not_the_chair"),
        'h' => unless(part == Part::TookOver, "not_taken_over"),
        't' if chair => Err("is_the_chair"),
        't' => unless(commander || relation == "below", "not_above"),
        _ => Ok(()),
    }
}

fn meeting_of(id: &str, part: Part) -> Target {
    Target::Meeting {
        unit: unit(id),
        chair: account(if part == Part::None { "wang" } else { "li" }),
        taken_from: (part == Part::TookOver).then(|| account("wang")),
        sites: [site("WH-EL-S01")].into(),
    }
}

#[test]
fn every_action_role_and_relation() {
    let tree = eastlake();
    assert_eq!(
        TABLE.map(|(action, ..)| action),
        Action::ALL,
        "an action is missing"
    );
    for (action, letters, rule) in TABLE {
        for (role, letter) in Role::ALL.iter().zip(letters.chars()) {
            assert_eq!(permits(*role, action), letter == 'y', "{role} {action}");
            let lasting = actor(&[(*role, "WH-EL-01")]);
            let expired = delegated(*role, "WH-EL-01", NOW.0);
            let delegated = delegated(*role, "WH-EL-01", NOW.0 + 1);
            for (relation, covered, in_unit, in_site) in RELATIONS {
                let place = match (letter, covered) {
                    ('y', true) => Ok(()),
                    ('y', false) => Err("outside_authority"),
                    _ => Err("no_role"),
                };
                let check = |target: Target, expected| {
                    let found = |actor| authorize(actor, action, &target, &tree, NOW).map_err(|r| r.code());
                    let what = format!("{role} {action} {relation} {target:?}");
                    assert_eq!(found(&lasting), expected, "{what}");
                    assert_eq!(found(&delegated), expected, "{what}: until later");
                    let over = if letter == 'y' { "role_ran_out" } else { "no_role" };
                    assert_eq!(found(&expired), Err(over), "{what}: has run out");
                    let listed = lasting.permitted(&target, &tree, NOW).contains(&action);
                    let told = !matches!(target, Target::Meeting { .. }) || action.in_meeting();
                    assert_eq!(listed, expected.is_ok() && told, "{what}: permitted");
                };
                check(Target::Unit(unit(in_unit)), place);
                check(Target::Site(site(in_site)), place);
                for part in [Part::None, Part::Chair, Part::TookOver] {
                    let expected = place.and_then(|()| expected_in_meeting(*role, rule, relation, part));
                    check(meeting_of(in_unit, part), expected);
                }
            }
        }
    }
}

#[test]
fn each_action_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<_> = Action::ALL.iter().map(|a| a.as_str()).collect();
    assert_eq!(words.len(), Action::ALL.len());
    let snake = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert!(words.iter().all(snake), "{words:?}");
    for (action, _, rule) in TABLE {
        assert_eq!(action.runs_meeting(), rule == 'r', "{action}");
        assert!(action.in_meeting() || rule == '.', "{action}");
    }
}

#[test]
fn a_chair_whose_delegation_has_run_out_is_chair_in_name_only() {
    let tree = eastlake();
    let mut officer = actor(&[(Role::DutyOfficer, "WH-EL-01")]);
    officer.grants.push(Grant {
        expires: Some(NOW),
        ..Grant::lasting(Role::DutyOfficer, unit("WH-EL"))
    });
    let own = meeting_of("WH-EL", Part::Chair);
    let code = |now| authorize(&officer, Action::EndMeeting, &own, &tree, now).map_err(|r| r.code());
    assert_eq!(code(Millis(NOW.0 - 1)), Ok(()));
    assert_eq!(code(NOW), Err("role_ran_out"));
    assert_eq!(officer.next_expiry(Millis(0)), Some(NOW));
    assert_eq!(officer.next_expiry(NOW), None);
    assert_eq!(officer.units_for(Action::Convene, &tree, NOW), [unit("WH-EL-01")]);
    assert_eq!(officer.permitted(&own, &tree, NOW), []);
    assert!(officer.permitted_anywhere(NOW).contains(&Action::Convene));
}

/// A duty officer of a unit above takes over, one of the unit itself requests the chair.
#[test]
fn what_may_be_done_in_a_meeting_is_listed() {
    let tree = eastlake();
    let words = |actor: &Actor, part| {
        let actions = actor.permitted(&meeting_of("WH-EL-01", part), &tree, NOW);
        actions.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(" ")
    };
    let (above, own) = (
        actor(&[(Role::DutyOfficer, "WH-EL")]),
        actor(&[(Role::DutyOfficer, "WH-EL-01")]),
    );
    assert_eq!(
        words(&above, Part::None),
        "view request_chair take_over join_as_desk"
    );
    assert_eq!(words(&own, Part::None), "view request_chair join_as_desk");
    let running = "view call_unconnected add_sites hang_up mute broadcast set_stage watch_site roll_call floor lock extend end_meeting release_chair";
    assert_eq!(words(&own, Part::Chair), format!("{running} join_as_desk"));
    assert_eq!(
        words(&above, Part::TookOver),
        format!("{running} hand_back join_as_desk")
    );
    assert_eq!(
        words(&actor(&[(Role::Auditor, "WH")]), Part::None),
        "view read_log"
    );
}

#[test]
fn nobody_gives_more_than_they_have() {
    let tree = eastlake();
    let until = |end: Option<i64>, id: &str| Grant {
        role: Role::DutyOfficer,
        unit: unit(id),
        expires: end.map(Millis),
    };
    let code = |actor: &Actor, grant: &Grant| {
        authorize_grant(actor, grant, &tree, NOW).map_err(|refusal| refusal.code())
    };
    let commander = actor(&[(Role::Commander, "WH-EL-01")]);
    assert_eq!(code(&commander, &until(None, "WH-EL-01-C001")), Ok(()));
    assert_eq!(code(&commander, &until(None, "WH-EL")), Err("outside_authority"));
    assert_eq!(code(&commander, &until(None, "XX")), Err("unknown_unit"));
    let end = NOW.0 + 1000;
    let deputy = delegated(Role::Commander, "WH-EL-01", end);
    assert_eq!(code(&deputy, &until(Some(end), "WH-EL-01")), Ok(()));
    assert_eq!(
        code(&deputy, &until(Some(end + 1), "WH-EL-01")),
        Err("beyond_own_end")
    );
    assert_eq!(code(&deputy, &until(None, "WH-EL-01")), Err("beyond_own_end"));
    assert_eq!(code(&deputy, &until(Some(1), "WH-EL-01")), Ok(()), "has run out");
    for role in [Role::DutyOfficer, Role::Engineer, Role::Auditor] {
        assert_eq!(
            code(&actor(&[(role, "WH")]), &until(Some(end), "WH-EL-01")),
            Err("no_role")
        );
    }
    let account = |actor: &Actor, grants: &[Grant]| {
        authorize_account(actor, grants, &tree, NOW).map_err(|refusal| refusal.code())
    };
    assert_eq!(account(&commander, &[]), Ok(()));
    assert_eq!(account(&commander, &commander.grants), Ok(()));
    assert_eq!(account(&deputy, &commander.grants), Err("beyond_own_end"));
    let both = [until(None, "WH-EL-01"), until(None, "WH-EL-02")];
    assert_eq!(account(&commander, &both), Err("outside_authority"));
    assert_eq!(account(&actor(&[(Role::Engineer, "WH")]), &[]), Err("no_role"));
}

#[test]
fn roles_on_several_units_do_not_leak_into_each_other() {
    let tree = eastlake();
    let actor = actor(&[(Role::Engineer, "WH-EL-01"), (Role::DutyOfficer, "WH-EL-02")]);
    let may = |action, id: &str| authorize(&actor, action, &Target::Unit(unit(id)), &tree, NOW).is_ok();
    assert!(may(Action::Enrol, "WH-EL-01") && !may(Action::Enrol, "WH-EL-02"));
    assert!(may(Action::Convene, "WH-EL-02") && !may(Action::Convene, "WH-EL-01"));
    assert_eq!(
        actor.units_for(Action::View, &tree, NOW),
        [unit("WH-EL-01"), unit("WH-EL-02")]
    );
    assert_eq!(actor.units_for(Action::Convene, &tree, NOW), [unit("WH-EL-02")]);
}

#[test]
fn what_does_not_exist_is_unknown() {
    let tree = eastlake();
    let actor = actor(&[(Role::Commander, "WH")]);
    let code = |target| {
        authorize(&actor, Action::View, &target, &tree, NOW)
            .unwrap_err()
            .code()
    };
    assert_eq!(code(Target::Unit(unit("XX"))), "unknown_unit");
    assert_eq!(code(Target::Site(site("XX"))), "unknown_site");
}

#[test]
fn a_meeting_is_convened_over_the_lowest_unit_that_has_all() {
    let tree = eastlake();
    let both = actor(&[(Role::Commander, "WH"), (Role::DutyOfficer, "WH-EL-01")]);
    let street = [site("WH-EL-01-S01"), site("WH-EL-01-C001-S01")];
    let wide = [site("WH-EL-01-S01"), site("WH-S01")];
    assert_eq!(both.convening_unit(&street, &tree, NOW), Ok(unit("WH-EL-01")));
    assert_eq!(both.convening_unit(&wide, &tree, NOW), Ok(unit("WH")));
    assert_eq!(
        both.units_for(Action::Convene, &tree, NOW),
        [unit("WH")],
        "the lower one is covered"
    );
    let two = actor(&[(Role::DutyOfficer, "WH-EL-02"), (Role::DutyOfficer, "WH-EL-01")]);
    let across = [site("WH-EL-01-S01"), site("WH-EL-02-S01")];
    assert_eq!(
        two.convening_unit(&across, &tree, NOW),
        Ok(unit("WH-EL")),
        "the lowest that has both, though it is not the actor's"
    );
    assert_eq!(
        actor(&[(Role::Auditor, "WH")]).convening_unit(&street, &tree, NOW),
        Err(Refusal::NoRole {
            action: Action::Convene
        })
    );
}

/// A meeting of sites of two streets, convened by an officer of both: none who has one of them alone runs it.
#[test]
fn a_meeting_across_units_is_run_by_who_has_all_of_its_sites() {
    let tree = eastlake();
    let across = |chair: &str, taken_from: Option<&str>| Target::Meeting {
        unit: unit("WH-EL"),
        chair: account(chair),
        taken_from: taken_from.map(account),
        sites: [site("WH-EL-01-S01"), site("WH-EL-02-C001-S01")].into(),
    };
    let officer = Role::DutyOfficer;
    let both = actor(&[(officer, "WH-EL-01"), (officer, "WH-EL-02")]);
    let one = actor(&[(Role::Commander, "WH-EL-01")]);
    let above = actor(&[(Role::Commander, "WH-EL")]);
    let code = |actor: &Actor, action, target: &Target| {
        authorize(actor, action, target, &tree, NOW).map_err(|refusal| refusal.code())
    };
    let runs = |actor: &Actor, target: &Target| {
        let all = Action::ALL.iter().filter(|action| action.runs_meeting());
        let may: Vec<_> = all.map(|action| code(actor, *action, target)).collect();
        assert!(may.windows(2).all(|two| two[0] == two[1]), "{may:?}");
        may[0]
    };
    // "li" is each of them in turn.
    let rows = [
        ("the convener", &both, "li", None, Ok(())),
        (
            "one of the streets, as the chair",
            &one,
            "li",
            None,
            Err("outside_authority"),
        ),
        ("one of the streets", &one, "sun", None, Err("outside_authority")),
        ("a commander of the unit", &above, "sun", None, Ok(())),
        (
            "the convener, taken over",
            &both,
            "sun",
            Some("li"),
            Err("not_the_chair"),
        ),
        (
            "both streets, and no part in it",
            &both,
            "sun",
            None,
            Err("outside_authority"),
        ),
    ];
    for (what, actor, chair, taken_from, expected) in rows {
        assert_eq!(runs(actor, &across(chair, taken_from)), expected, "{what}");
    }
    let (own, others) = (across("li", None), across("sun", None));
    assert_eq!(code(&one, Action::TakeOver, &others), Err("outside_authority"));
    assert_eq!(code(&above, Action::TakeOver, &others), Ok(()));
    let taken = across("sun", Some("li"));
    assert_eq!(code(&both, Action::View, &taken), Ok(()), "it may come back");
    assert_eq!(code(&both, Action::TakeOver, &taken), Err("not_above"));
    assert_eq!(code(&both, Action::ReleaseChair, &own), Ok(()));
    let Target::Meeting { sites, .. } = &own else {
        unreachable!("a meeting")
    };
    let able = |actor: &Actor| may_chair(actor, &unit("WH-EL"), sites, &tree, NOW);
    assert_eq!([&both, &one, &above].map(able), [true, false, true]);
}

#[test]
fn the_last_commander_of_a_tree_stays() {
    let tree = eastlake();
    let named = |name: &str, grants: &[(Role, &str)], end: Option<i64>| {
        let mut actor = actor(grants);
        actor.account = account(name);
        actor
            .grants
            .iter_mut()
            .for_each(|grant| grant.expires = end.map(Millis));
        actor
    };
    let top = Grant::lasting(Role::Commander, unit("WH"));
    let until = |end| Grant {
        expires: Some(Millis(end)),
        ..top.clone()
    };
    let may = |grant: &Grant, after: Option<&Grant>, others: &[Actor]| {
        let own = Actor {
            account: account("li"),
            grants: vec![grant.clone()],
        };
        let all: Vec<Actor> = others.iter().cloned().chain([own]).collect();
        leaves_a_commander(grant, &account("li"), after, &all, &tree, NOW).map_err(|r| r.code())
    };
    let none = Err("last_commander");
    assert_eq!(may(&top, None, &[]), none);
    assert_eq!(
        may(&top, Some(&until(NOW.0 + 9)), &[]),
        none,
        "nor is it shortened"
    );
    assert_eq!(may(&top, Some(&top), &[]), Ok(()));
    assert_eq!(
        may(&top, None, &[named("sun", &[(Role::Commander, "WH")], None)]),
        Ok(())
    );
    assert_eq!(
        may(
            &top,
            None,
            &[named("sun", &[(Role::Commander, "WH")], Some(NOW.0 + 9))]
        ),
        none
    );
    assert_eq!(
        may(&top, None, &[named("sun", &[(Role::DutyOfficer, "WH")], None)]),
        none
    );
    assert_eq!(
        may(&top, None, &[named("sun", &[(Role::Commander, "WH-EL")], None)]),
        none
    );
    assert_eq!(may(&until(1), None, &[]), Ok(()), "it has run out");
    let street = Grant::lasting(Role::Commander, unit("WH-EL-01"));
    assert_eq!(may(&street, None, &[]), Ok(()));
}

#[test]
fn an_import_needs_authority_where_things_are_and_where_they_go() {
    let empty = Tree::default();
    let first = import(&empty, EASTLAKE).unwrap();
    let may = |actor: &Actor, plan: &ImportPlan, tree: &Tree| {
        authorize_import(actor, plan, tree, NOW).map_err(|r| r.code())
    };
    let engineer = actor(&[(Role::Engineer, "WH")]);
    assert_eq!(
        may(&engineer, &first, &empty),
        Ok(()),
        "the first import into an empty tree"
    );
    let district = actor(&[(Role::Engineer, "WH-EL")]);
    assert_eq!(may(&district, &first, &empty), Err("outside_authority"));
    assert_eq!(
        may(&actor(&[(Role::Auditor, "WH")]), &first, &empty),
        Err("no_role")
    );

    let again = import(&first.tree, EASTLAKE).unwrap();
    assert_eq!(
        may(&district, &again, &first.tree),
        Ok(()),
        "what is so already needs nothing"
    );

    let moved = EASTLAKE.replace(
        "WH-EL-01-S01,site,street,WH-EL-01,",
        "WH-EL-01-S01,site,street,WH-EL-02,",
    );
    let plan = import(&first.tree, &moved).unwrap();
    assert_eq!(may(&district, &plan, &first.tree), Ok(()));
    for one_end in ["WH-EL-01", "WH-EL-02"] {
        let street = actor(&[(Role::Engineer, one_end)]);
        assert_eq!(may(&street, &plan, &first.tree), Err("outside_authority"));
    }
}
