//! The import: the example file, each kind of bad line, and files broken at random.

use muster_domain::import::{COLUMNS, MAX_ERRORS};
use muster_domain::*;
use proptest::prelude::*;

use crate::support::*;

const HEADER: &str = "external_id,kind,tier,parent,name_zh,name_en,lat,lon,access,phase";

fn file(lines: &[&str]) -> String {
    format!("{HEADER}\n{}", lines.join("\n"))
}

/// What is wrong with these lines, with `current` as the tree so far.
fn errors(current: &Tree, lines: &[&str]) -> Vec<String> {
    match import(current, &file(lines)) {
        Ok(_) => vec![],
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn counts(plan: &ImportPlan) -> [usize; 5] {
    [
        plan.units_added,
        plan.units_changed,
        plan.sites_added,
        plan.sites_changed,
        plan.unchanged,
    ]
}

const CITY: &str = "A,unit,city,,甲,A,30,114,,existing";
const STREET: &str = "A-1,unit,street,A,乙,B,30,114,,existing";
const ROOM: &str = "A-1-S,site,street,A-1,丙,C,30,114,fibre,new";

#[test]
fn the_same_file_again_changes_nothing() {
    let first = import(&Tree::default(), EASTLAKE).unwrap();
    assert_eq!(counts(&first), [116, 0, 140, 0, 0]);
    assert_eq!((first.units.len(), first.sites.len()), (116, 140));
    let again = import(&first.tree, EASTLAKE).unwrap();
    assert_eq!(counts(&again), [0, 0, 0, 0, 256]);
    assert!(again.units.is_empty() && again.sites.is_empty());
    assert_eq!(again.tree, first.tree);
}

#[test]
fn a_part_of_the_file_leaves_the_rest_as_it_is() {
    let tree = eastlake();
    let plan = import(
        &tree,
        &file(&["WH-S01,site,city,WH,市指挥部,City centre,30.59,114.3,4g,existing"]),
    )
    .unwrap();
    assert_eq!(counts(&plan), [0, 0, 0, 1, 0]);
    assert_eq!(plan.tree.site_count(), 140);
    assert_eq!(plan.tree.site("WH-S01").unwrap().access, Access::FourG);
    assert_eq!(plan.sites[0].id, site("WH-S01"));
}

#[test]
fn moving_a_site_is_a_change_and_its_own_tags_stay() {
    let units: Vec<Unit> = import(&Tree::default(), &file(&[CITY, STREET])).unwrap().units;
    let mut room = import(&Tree::default(), &file(&[CITY, STREET, ROOM]))
        .unwrap()
        .sites;
    let tags = room[0].tags.iter().cloned();
    room[0].tags = tags.chain(["hospital".to_owned()]).collect();
    let tree = Tree::new(units, room).unwrap();
    let moved = ROOM
        .replace("site,street,A-1", "site,street,A")
        .replace("new", "existing");
    let plan = import(&tree, &file(&[&moved])).unwrap();
    assert_eq!(counts(&plan), [0, 0, 0, 1, 0]);
    let room = plan.tree.site("A-1-S").unwrap();
    assert_eq!(room.unit, unit("A"));
    let tags: Vec<&str> = room.tags.iter().map(String::as_str).collect();
    assert_eq!(tags, ["existing", "hospital"]);
}

#[test]
fn rows_and_columns_come_in_any_order() {
    let backwards = import(&Tree::default(), &file(&[ROOM, STREET, CITY])).unwrap();
    assert_eq!(counts(&backwards), [2, 0, 1, 0, 0]);
    let units: Vec<&str> = backwards.units.iter().map(|u| u.id.as_str()).collect();
    assert_eq!(units, ["A", "A-1"], "parents come first in the plan");

    let (header, rows) = table(EASTLAKE);
    let turned = |mut fields: Vec<String>| {
        fields.rotate_left(3);
        fields
    };
    let mut header = turned(header);
    header[0].insert(0, '\u{feff}');
    let rows: Vec<RawRow> = rows
        .into_iter()
        .map(|r| RawRow {
            line: r.line,
            fields: turned(r.fields),
        })
        .collect();
    assert_eq!(
        plan_import(&Tree::default(), &header, &rows).unwrap().tree,
        eastlake()
    );
}

#[test]
fn a_bad_header_is_told_alone() {
    let bad = "external_id,kind,tier,parent,name_zh,name_en,lat,lat,colour,phase\nrubbish";
    let told: Vec<String> = import(&Tree::default(), bad)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "line 1, column access: found \"\", expected this column in the header",
            "line 1, column colour: found \"colour\", expected one of the columns external_id, kind, \
             tier, parent, name_zh, name_en, lat, lon, access, phase",
            "line 1, column lat: found \"lat\", expected this column once",
            "line 1, column lon: found \"\", expected this column in the header",
        ]
    );
    assert_eq!(
        plan_import(&Tree::default(), &[], &[]).unwrap_err().len(),
        COLUMNS.len()
    );
}

#[test]
fn each_bad_field_is_named_with_what_was_expected() {
    let empty = Tree::default();
    for (line, expected) in [
        (
            "A B,unit,city,,甲,A,30,114,,new",
            "external_id: found \"A B\", expected 1 to 64 of A-Z a-z 0-9 . _ -",
        ),
        (
            "A,house,city,,甲,A,30,114,,new",
            "kind: found \"house\", expected unit or site",
        ),
        (
            "A,unit,village,,甲,A,30,114,,new",
            "tier: found \"village\", expected city, district, street or community",
        ),
        (
            "A,unit,city,Z,甲,A,30,114,,new",
            "parent: found \"Z\", expected the external_id of a unit in this file or imported before",
        ),
        (
            "A,unit,city,?,甲,A,30,114,,new",
            "parent: found \"?\", expected empty for a root, or 1 to 64 of A-Z a-z 0-9 . _ -",
        ),
        (
            "A,site,city,,甲,A,30,114,fibre,new",
            "parent: found \"\", expected the external_id of the site's unit",
        ),
        (
            "A,unit,city,, , ,30,114,,new",
            "name_zh: found \"\", expected a name, here or in name_en",
        ),
        (
            "A,unit,city,,甲\u{7},A,30,114,,new",
            "name_zh: found \"甲\\u{7}\", expected 200 characters at most, no control characters, none that turns the direction of writing",
        ),
        (
            "A,unit,city,,甲,A\u{85}b,30,114,,new",
            "name_en: found \"A\\u{85}b\", expected 200 characters at most, no control characters, none that turns the direction of writing",
        ),
        (
            "A,unit,city,,甲\u{202e}乙,A,30,114,,new",
            "name_zh: found \"甲\\u{202e}乙\", expected 200 characters at most, no control characters, none that turns the direction of writing",
        ),
        (
            "A,unit,city,,甲,A\u{2066}b\u{2069},30,114,,new",
            "name_en: found \"A\\u{2066}b\\u{2069}\", expected 200 characters at most, no control characters, none that turns the direction of writing",
        ),
        (
            "A,unit,city,,甲,A,91,114,,new",
            "lat: found \"91\", expected degrees, -90 to 90",
        ),
        (
            "A,unit,city,,甲,A,NaN,114,,new",
            "lat: found \"NaN\", expected degrees, -90 to 90",
        ),
        (
            "A,unit,city,,甲,A,30,,,new",
            "lon: found \"\", expected degrees, -180 to 180",
        ),
        (
            "A,unit,city,,甲,A,30,114,fibre,new",
            "access: found \"fibre\", expected nothing: only sites have it",
        ),
        (
            "A,unit,city,,甲,A,30,114,,planned",
            "phase: found \"planned\", expected existing or new",
        ),
    ] {
        assert_eq!(errors(&empty, &[line]), [format!("line 2, column {expected}")]);
    }
    assert_eq!(
        errors(&empty, &["A,unit,city"]),
        ["line 2: found \"3 fields\", expected 10 fields, as in the header"]
    );
}

#[test]
fn all_errors_are_told_and_nothing_is_imported() {
    let told = errors(
        &Tree::default(),
        &[
            CITY,
            "A-1,unit,stret,A,乙,B,30,north,,existing",
            "A-1-S,site,street,A-1,丙,C,30,114,dsl,new",
            "A-1-T,site,street,A-1,丁,D,30,114,fibre,new",
            "A,unit,city,,甲,A,30,114,,existing",
            ",,,,,,,,,",
        ],
    );
    assert_eq!(
        told,
        [
            "line 3, column lon: found \"north\", expected degrees, -180 to 180",
            "line 3, column tier: found \"stret\", expected city, district, street or community",
            "line 4, column access: found \"dsl\", expected fibre, adsl, 4g or satellite",
            "line 6, column external_id: found \"A\", expected each external_id once: line 2 has it already",
        ],
        "line 5 is not blamed for its parent, and the blank line is passed over"
    );
}

#[test]
fn relations_are_told_at_the_line_to_mend() {
    let tree = import(&Tree::default(), &file(&[CITY, STREET, ROOM]))
        .unwrap()
        .tree;
    let below_a_site = "N,site,street,A-1-S,丁,N,30,114,fibre,new";
    let room_as_unit = "A-1-S,unit,street,A,丙,C,30,114,,new";
    let street_as_site = "A-1,site,street,A,乙,B,30,114,fibre,new";
    let too_high = "N,unit,street,A-1,丁,N,30,114,,new";
    let high_room = "N,site,city,A-1,丁,N,30,114,fibre,new";
    let sunk = "A-1,unit,community,A,乙,B,30,114,,existing";
    for (line, expected) in [
        (
            below_a_site,
            "parent: found \"A-1-S\", expected the external_id of a unit: this is a site",
        ),
        (
            room_as_unit,
            "kind: found \"unit\", expected site: it is one already, and a site cannot become a unit",
        ),
        (
            street_as_site,
            "kind: found \"site\", expected unit: it is one already, and a unit cannot become a site",
        ),
        (
            too_high,
            "tier: found \"street\", expected a tier below street, as the parent A-1 is a street",
        ),
        (
            high_room,
            "tier: found \"city\", expected street or a lower tier, as the parent A-1 is a street",
        ),
        (
            sunk,
            "tier: found \"community\", expected a tier above that of what is below it: A-1-S is a street and not in this file",
        ),
    ] {
        assert_eq!(errors(&tree, &[line]), [format!("line 2, column {expected}")]);
    }
}

#[test]
fn rings_of_parents_are_found() {
    let told = errors(
        &Tree::default(),
        &[
            "A,unit,city,C,甲,A,30,114,,new",
            "B,unit,district,A,乙,B,30,114,,new",
            "C,unit,street,B,丙,C,30,114,,new",
            "D,unit,street,D,丁,D,30,114,,new",
        ],
    );
    assert_eq!(
        told,
        [
            "line 2, column parent: found \"C\", expected a unit that is not A itself or below it",
            "line 3, column parent: found \"A\", expected a unit that is not B itself or below it",
            "line 4, column parent: found \"B\", expected a unit that is not C itself or below it",
            "line 5, column parent: found \"D\", expected a unit that is not D itself or below it",
        ]
    );
    // A ring through a unit that is not in the file.
    let tree = import(&Tree::default(), &file(&[CITY, STREET])).unwrap().tree;
    let told = errors(&tree, &["A,unit,city,A-1,甲,A,30,114,,existing"]);
    assert_eq!(
        told,
        ["line 2, column parent: found \"A-1\", expected a unit that is not A itself or below it"]
    );
}

#[test]
fn errors_are_bounded_and_the_last_says_how_many_more() {
    let lines = vec!["x"; 3_000];
    let told = import(&Tree::default(), &file(&lines)).unwrap_err();
    assert_eq!(told.len(), MAX_ERRORS);
    let last = told.last().unwrap();
    assert_eq!((last.line, last.found.as_str()), (1_001, "2001 more errors"));
}

#[test]
fn a_large_file_is_planned() {
    let mut csv = EASTLAKE.to_owned();
    for n in 0..10_000 {
        csv.push_str(&format!(
            "N{n},site,community,WH-EL-01-C001,甲{n},N{n},30,114,4g,new\n"
        ));
    }
    let plan = import(&Tree::default(), &csv).unwrap();
    assert_eq!(plan.sites_added, 10_140);
}

/// One field of the file replaced, a line doubled, dropped, or moved.
#[derive(Clone, Debug)]
enum Damage {
    Field { row: usize, column: usize, text: String },
    Twice(usize),
    Drop(usize),
    Swap(usize, usize),
    Shorten(usize),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let text = prop_oneof![
        3 => proptest::sample::select(&["", "unit", "site", "city", "street", "community", "WH", "WH-EL-01",
            "WH-EL-02-S01", "4g", "new", "existing", "0", "-91", "nan"][..]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop_oneof![
        5 => (0usize..255, 0usize..10, text)
            .prop_map(|(row, column, text)| Damage::Field { row, column, text }),
        1 => (0usize..255).prop_map(Damage::Twice),
        1 => (0usize..255).prop_map(Damage::Drop),
        1 => (0usize..255, 0usize..255).prop_map(|(a, b)| Damage::Swap(a, b)),
        1 => (0usize..255).prop_map(Damage::Shorten),
    ]
}

fn damage(rows: &mut Vec<RawRow>, damages: Vec<Damage>) {
    for damage in damages {
        let last = rows.len() - 1;
        match damage {
            Damage::Field { row, column, text } => {
                if let Some(field) = rows[row.min(last)].fields.get_mut(column) {
                    *field = text;
                }
            }
            Damage::Twice(row) => rows.push(rows[row.min(last)].clone()),
            Damage::Drop(row) => drop(rows.remove(row.min(last))),
            Damage::Swap(a, b) => rows.swap(a.min(last), b.min(last)),
            Damage::Shorten(row) => drop(rows[row.min(last)].fields.pop()),
        }
    }
    for (row, line) in rows.iter_mut().zip(2..) {
        row.line = line;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_imported_whole_or_its_lines_are_named(
        damages in proptest::collection::vec(any_damage(), 1..5),
        over_existing in any::<bool>(),
    ) {
        let (header, mut rows) = table(EASTLAKE);
        damage(&mut rows, damages);
        let current = if over_existing { eastlake() } else { Tree::default() };
        match plan_import(&current, &header, &rows) {
            Ok(plan) => {
                let blank = rows.iter().filter(|r| r.fields.iter().all(|f| f.trim().is_empty())).count();
                prop_assert_eq!(counts(&plan).iter().sum::<usize>(), rows.len() - blank);
                let again = plan_import(&plan.tree, &header, &rows).expect("good twice");
                prop_assert_eq!(counts(&again)[..4].to_vec(), vec![0, 0, 0, 0]);
                prop_assert_eq!(&again.tree, &plan.tree);
                let in_tree = plan.units.iter().all(|u| plan.tree.unit(&u.id) == Some(u))
                    && plan.sites.iter().all(|s| plan.tree.site(&s.id) == Some(s));
                prop_assert!(in_tree);
            }
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!((2..=rows.len() as u32 + 1).contains(&error.line), "{}", error);
                    prop_assert!(error.column.is_empty() || COLUMNS.contains(&error.column.as_str()));
                    prop_assert!(!error.expected.is_empty());
                }
            }
        }
    }

    #[test]
    fn any_table_at_all_is_refused_or_imported_without_a_panic(
        header in proptest::collection::vec(proptest::sample::select(&COLUMNS[..]), 0..12),
        fields in proptest::collection::vec(proptest::collection::vec(any::<String>(), 0..12), 0..8),
    ) {
        let header: Vec<String> = header.into_iter().map(str::to_owned).collect();
        let rows: Vec<RawRow> =
            fields.into_iter().zip(2..).map(|(fields, line)| RawRow { line, fields }).collect();
        if let Err(errors) = plan_import(&eastlake(), &header, &rows) {
            prop_assert!(!errors.is_empty() && errors.len() <= MAX_ERRORS);
        }
    }
}
