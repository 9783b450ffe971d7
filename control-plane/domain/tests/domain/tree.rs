//! The tree: the example as it is, queries, and what is no tree.

use muster_domain::*;
use std::collections::BTreeSet;

use crate::support::*;

pub fn a_unit(id: &str, tier: Tier, parent: Option<&str>) -> Unit {
    Unit {
        id: unit(id),
        tier,
        parent: parent.map(unit),
        name_zh: id.to_owned(),
        name_en: id.to_owned(),
        lat: 30.0,
        lon: 114.0,
    }
}

pub fn a_site(id: &str, tier: Tier, of: &str, tags: &[&str]) -> Site {
    Site {
        id: site(id),
        unit: unit(of),
        tier,
        name_zh: id.into(),
        name_en: id.into(),
        lat: 30.0,
        lon: 114.0,
        access: Access::Fibre,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        answer: Answer::Default,
    }
}

#[test]
fn the_example_has_140_sites_in_four_tiers() {
    let tree = eastlake();
    assert_eq!((tree.unit_count(), tree.site_count()), (116, 140));
    let all = TierCounts {
        city: 2,
        district: 8,
        street: 24,
        community: 106,
    };
    assert_eq!(tree.counts(None), all);
    assert_eq!(all.total(), 140);
    assert_eq!(tree.counts(Some("WH")), all);
    assert_eq!(tree.counts(Some("WH-EL")).total(), 138);
    let street = tree.counts(Some("WH-EL-01"));
    assert_eq!((street.street, street.community, street.city), (3, 10, 0));
    assert_eq!(tree.counts(Some("nowhere")).total(), 0);
    let new = tree.sites().filter(|s| s.tags.contains("new")).count();
    assert_eq!(new, 106);
}

#[test]
fn a_subtree_is_one_run_of_the_order() {
    let tree = eastlake();
    assert_eq!(tree.roots(), [unit("WH")]);
    assert_eq!(tree.subtree_sites("WH"), tree.site_ids());
    assert_eq!(tree.own_sites("WH"), [site("WH-S01"), site("WH-S02")]);
    assert_eq!(tree.children("WH"), [unit("WH-EL")]);
    assert_eq!(tree.children("WH-EL").len(), 8);
    assert_eq!(
        tree.subtree_units("WH-EL-03").len(),
        1 + tree.children("WH-EL-03").len()
    );
    for id in tree.units().map(|u| &u.id) {
        let by_path: Vec<&SiteId> = tree
            .sites()
            .filter(|s| tree.path(&s.unit).iter().any(|u| u.id == *id))
            .map(|s| &s.id)
            .collect();
        assert_eq!(tree.subtree_sites(id).iter().collect::<Vec<_>>(), by_path);
    }
    for (place, id) in tree.site_ids().iter().enumerate() {
        assert_eq!(tree.site_place(id), Some(place));
    }
}

#[test]
fn paths_and_ancestors() {
    let tree = eastlake();
    let path: Vec<&str> = tree.path("WH-EL-01-C001").iter().map(|u| u.id.as_str()).collect();
    assert_eq!(path, ["WH", "WH-EL", "WH-EL-01", "WH-EL-01-C001"]);
    assert!(tree.path("nowhere").is_empty());
    for (above, below, strictly, within) in [
        ("WH", "WH-EL-01-C001", true, true),
        ("WH-EL", "WH-EL", false, true),
        ("WH-EL-01", "WH-EL", false, false),
        ("WH-EL-01", "WH-EL-02-C001", false, false),
        ("nowhere", "WH", false, false),
        ("WH", "nowhere", false, false),
        ("nowhere", "nowhere", false, false),
    ] {
        assert_eq!(tree.is_ancestor(above, below), strictly, "{above} above {below}");
        assert_eq!(tree.is_within(below, above), within, "{below} in {above}");
    }
}

#[test]
fn several_roots_and_skipped_tiers_are_fine() {
    let units = vec![
        a_unit("B", Tier::District, None),
        a_unit("A-C", Tier::Community, Some("A")),
        a_unit("A", Tier::City, None),
    ];
    let sites = vec![a_site("A-room", Tier::Street, "A", &[])];
    let tree = Tree::new(units, sites).unwrap();
    assert_eq!(tree.roots(), [unit("A"), unit("B")]);
    let order: Vec<&str> = tree.units().map(|u| u.id.as_str()).collect();
    assert_eq!(order, ["A", "A-C", "B"]);
    assert!(Tree::default().is_empty());
}

#[test]
fn what_is_no_tree_is_told_all_at_once() {
    let units = vec![
        a_unit("A", Tier::City, None),
        a_unit("A", Tier::City, None),
        a_unit("B", Tier::City, Some("A")),
        a_unit("C", Tier::Street, Some("nowhere")),
        a_unit("X", Tier::Street, Some("Y")),
        a_unit("Y", Tier::District, Some("X")),
    ];
    let sites = vec![
        a_site("A", Tier::City, "A", &[]),
        a_site("S1", Tier::City, "C", &[]),
        a_site("S2", Tier::City, "nowhere", &[]),
    ];
    let errors: Vec<String> = Tree::new(units, sites)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        errors,
        [
            "id A names two things: expected one",
            "id A names two things: expected one",
            "unit B (city): expected a tier below that of its parent A (city)",
            "unit C: its parent nowhere does not exist",
            "unit Y (district): expected a tier below that of its parent X (street)",
            "site S1 (city): expected the tier of its unit C (street) or a lower one",
            "site S2: its unit nowhere does not exist",
        ]
    );
}

#[test]
fn the_order_does_not_depend_on_the_order_of_the_input() {
    let tree = eastlake();
    let units: Vec<Unit> = tree.units().cloned().collect();
    let sites: Vec<Site> = tree.sites().cloned().collect();
    let reversed = Tree::new(
        units.into_iter().rev().collect(),
        sites.into_iter().rev().collect(),
    )
    .unwrap();
    assert_eq!(reversed, tree);
    let ids: BTreeSet<&SiteId> = tree.site_ids().iter().collect();
    assert_eq!(ids.len(), 140);
}
