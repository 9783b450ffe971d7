//! Who may do what where: every action, role and relation, by one table.

use muster_domain::authority::permits;
use muster_domain::*;

use crate::support::*;

fn actor(grants: &[(Role, &str)]) -> Actor {
    let grants = grants
        .iter()
        .map(|(role, id)| Grant {
            role: *role,
            unit: unit(id),
        })
        .collect();
    Actor {
        account: account("li"),
        grants,
    }
}

// Columns: commander, duty officer, engineer, auditor.
const TABLE: [(Action, &str); 11] = [
    (Action::View, "yyyy"),
    (Action::Convene, "yy.."),
    (Action::CallUnconnected, "yy.."),
    (Action::EndMeeting, "yy.."),
    (Action::Broadcast, "yy.."),
    (Action::Mute, "yy.."),
    (Action::JoinAsDesk, "yy.."),
    (Action::ImportSites, "y.y."),
    (Action::Enrol, "y.y."),
    (Action::CreateSiteLink, "yyy."),
    (Action::ReadLog, "y..y"),
];

/// Relation to the granted unit `WH-EL-01`, whether it is covered, and things that stand in it.
const RELATIONS: [(&str, bool, &str, &str); 5] = [
    ("own unit", true, "WH-EL-01", "WH-EL-01-S01"),
    ("below", true, "WH-EL-01-C001", "WH-EL-01-C001-S01"),
    ("above", false, "WH-EL", "WH-EL-S01"),
    ("beside", false, "WH-EL-02", "WH-EL-02-S01"),
    ("below beside", false, "WH-EL-02-C001", "WH-EL-02-C001-S01"),
];

#[test]
fn every_action_role_and_relation() {
    let tree = eastlake();
    assert_eq!(TABLE.map(|(action, _)| action), Action::ALL);
    for (action, letters) in TABLE {
        for (role, letter) in Role::ALL.iter().zip(letters.chars()) {
            assert_eq!(permits(*role, action), letter == 'y', "{role} {action}");
            let actor = actor(&[(*role, "WH-EL-01")]);
            for (relation, covered, in_unit, in_site) in RELATIONS {
                let targets = [
                    Target::Unit(unit(in_unit)),
                    Target::Site(site(in_site)),
                    Target::Meeting {
                        unit: unit(in_unit),
                        chair: account("wang"),
                    },
                ];
                for target in targets {
                    let expected = match (letter, covered) {
                        ('y', true) => Ok(()),
                        ('y', false) => Err("outside_authority"),
                        _ => Err("no_role"),
                    };
                    let found = authorize(&actor, action, &target, &tree).map_err(|r| r.code());
                    assert_eq!(found, expected, "{role} {action} {relation} {target}");
                }
            }
        }
    }
}

#[test]
fn a_chair_runs_the_own_meeting_but_only_with_a_role_for_it() {
    let tree = eastlake();
    let own = Target::Meeting {
        unit: unit("WH"),
        chair: account("li"),
    };
    let officer = actor(&[(Role::DutyOfficer, "WH-EL-01")]);
    assert_eq!(authorize(&officer, Action::EndMeeting, &own, &tree), Ok(()));
    let engineer = actor(&[(Role::Engineer, "WH")]);
    assert_eq!(
        authorize(&engineer, Action::EndMeeting, &own, &tree),
        Err(Refusal::NoRole {
            action: Action::EndMeeting
        })
    );
    let nobody = actor(&[]);
    assert_eq!(
        authorize(&nobody, Action::View, &own, &tree).unwrap_err().code(),
        "no_role"
    );
}

#[test]
fn roles_on_several_units_do_not_leak_into_each_other() {
    let tree = eastlake();
    let actor = actor(&[(Role::Engineer, "WH-EL-01"), (Role::DutyOfficer, "WH-EL-02")]);
    let may = |action, id: &str| authorize(&actor, action, &Target::Unit(unit(id)), &tree).is_ok();
    assert!(may(Action::Enrol, "WH-EL-01") && !may(Action::Enrol, "WH-EL-02"));
    assert!(may(Action::Convene, "WH-EL-02") && !may(Action::Convene, "WH-EL-01"));
    assert_eq!(
        actor.units_for(Action::View, &tree),
        [unit("WH-EL-01"), unit("WH-EL-02")]
    );
    assert_eq!(actor.units_for(Action::Convene, &tree), [unit("WH-EL-02")]);
}

#[test]
fn what_does_not_exist_is_unknown() {
    let tree = eastlake();
    let actor = actor(&[(Role::Commander, "WH")]);
    let code = |target| {
        authorize(&actor, Action::View, &target, &tree)
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
    assert_eq!(both.convening_unit(&street, &tree), Some(unit("WH-EL-01")));
    assert_eq!(both.convening_unit(&wide, &tree), Some(unit("WH")));
    assert_eq!(
        both.units_for(Action::Convene, &tree),
        [unit("WH")],
        "the lower one is covered"
    );
    let two = actor(&[(Role::DutyOfficer, "WH-EL-02"), (Role::DutyOfficer, "WH-EL-01")]);
    let across = [site("WH-EL-01-S01"), site("WH-EL-02-S01")];
    assert_eq!(two.convening_unit(&across, &tree), Some(unit("WH-EL-01")));
    assert_eq!(
        actor(&[(Role::Auditor, "WH")]).convening_unit(&street, &tree),
        None
    );
}

#[test]
fn an_import_needs_authority_where_things_are_and_where_they_go() {
    let empty = Tree::default();
    let first = import(&empty, EASTLAKE).unwrap();
    let may = |actor: &Actor, plan: &ImportPlan, tree: &Tree| {
        authorize_import(actor, plan, tree).map_err(|r| r.code())
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
