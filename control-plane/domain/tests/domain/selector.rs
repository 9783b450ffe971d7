//! Selectors: by table on the example tree, and at random against a plain reading of the rule.

use std::collections::BTreeSet;

use muster_domain::*;
use proptest::prelude::*;

use crate::support::*;

fn texts(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn resolve(selector: &Selector, authority: &[&str]) -> Resolution {
    let units: Vec<UnitId> = authority.iter().map(|id| unit(id)).collect();
    selector.resolve(&eastlake(), &units)
}

#[test]
fn selectors_choose_as_the_table_says() {
    let subtree = |ids: &[&str]| Selector {
        subtrees: texts(ids),
        ..Selector::default()
    };
    for (name, selector, authority, count, unknown) in [
        ("nothing", Selector::default(), "WH", 0, vec![]),
        ("all", subtree(&["WH"]), "WH", 140, vec![]),
        ("a street", subtree(&["WH-EL-01"]), "WH", 13, vec![]),
        (
            "twice the same",
            subtree(&["WH-EL", "WH-EL-01"]),
            "WH",
            138,
            vec![],
        ),
        ("above one's authority", subtree(&["WH"]), "WH-EL", 0, vec!["WH"]),
        (
            "beside it",
            subtree(&["WH-EL-02", "WH-EL-01"]),
            "WH-EL-01",
            13,
            vec!["WH-EL-02"],
        ),
        (
            "what does not exist",
            subtree(&["x y", "x y"]),
            "WH",
            0,
            vec!["x y"],
        ),
        ("without authority", subtree(&["WH"]), "nowhere", 0, vec!["WH"]),
        (
            "a tier of all",
            Selector {
                tiers: vec![Tier::Street],
                ..Selector::default()
            },
            "WH",
            24,
            vec![],
        ),
        (
            "a tier of a subtree",
            Selector {
                tiers: vec![Tier::Street],
                ..subtree(&["WH-EL-01"])
            },
            "WH",
            3,
            vec![],
        ),
        (
            "tier and tag",
            Selector {
                tiers: vec![Tier::Street, Tier::Community],
                tags: texts(&["existing"]),
                ..Selector::default()
            },
            "WH",
            24,
            vec![],
        ),
        (
            "one's own of a tier",
            Selector {
                tiers: vec![Tier::Street, Tier::City],
                ..Selector::default()
            },
            "WH-EL-01",
            3,
            vec![],
        ),
        (
            "a site beside a tier",
            Selector {
                sites: texts(&["WH-S01", "WH-S01", "nobody"]),
                ..Selector {
                    tiers: vec![Tier::Street],
                    ..subtree(&["WH-EL-01"])
                }
            },
            "WH",
            4,
            vec!["nobody"],
        ),
        (
            "an exclusion of what was named",
            Selector {
                sites: texts(&["WH-S01", "WH-EL-01-S01"]),
                exclude_sites: texts(&["WH-S01"]),
                exclude_subtrees: texts(&["WH-EL-01"]),
                ..Selector::default()
            },
            "WH",
            0,
            vec![],
        ),
        (
            "unknown exclusions and tags",
            Selector {
                tags: texts(&["marquee"]),
                exclude_sites: texts(&["gone"]),
                exclude_subtrees: texts(&["away"]),
                ..subtree(&["WH"])
            },
            "WH",
            0,
            vec!["marquee", "away", "gone"],
        ),
    ] {
        let found = resolve(&selector, &[authority]);
        assert_eq!(
            (found.sites.len(), found.unknown),
            (count, texts(&unknown)),
            "{name}"
        );
    }
}

#[test]
fn what_is_chosen_comes_in_tree_order() {
    let selector = Selector {
        sites: texts(&["WH-EL-02-S01", "WH-S01", "WH-EL-S01"]),
        ..Selector::default()
    };
    let found = resolve(&selector, &["WH"]);
    assert_eq!(
        found.sites,
        [site("WH-S01"), site("WH-EL-S01"), site("WH-EL-02-S01")]
    );
}

fn ids_of(tree: &Tree) -> (Vec<String>, Vec<String>) {
    let units = tree
        .units()
        .map(|u| u.id.to_string())
        .chain(["nowhere".to_owned()])
        .collect();
    let sites = tree
        .sites()
        .map(|s| s.id.to_string())
        .chain(["nobody".to_owned()])
        .collect();
    (units, sites)
}

fn any_selector(units: Vec<String>, sites: Vec<String>) -> impl Strategy<Value = Selector> {
    use proptest::collection::vec;
    use proptest::sample::select;
    let tags = vec!["new".to_owned(), "existing".to_owned(), "marquee".to_owned()];
    (
        vec(select(units.clone()), 0..3),
        vec(select(Tier::ALL), 0..2),
        vec(select(sites.clone()), 0..4),
        vec(select(tags), 0..2),
        vec(select(units), 0..3),
        vec(select(sites), 0..4),
    )
        .prop_map(
            |(subtrees, tiers, sites, tags, exclude_subtrees, exclude_sites)| Selector {
                subtrees,
                tiers,
                sites,
                tags,
                exclude_subtrees,
                exclude_sites,
            },
        )
}

fn any_case() -> impl Strategy<Value = (Selector, Vec<UnitId>)> {
    let (units, sites) = ids_of(&eastlake());
    let authority = proptest::collection::vec(proptest::sample::select(units.clone()), 0..3);
    (any_selector(units, sites), authority)
        .prop_map(|(selector, authority)| (selector, authority.iter().map(|id| unit(id)).collect()))
}

/// The rule, one site at a time.
fn is_chosen(selector: &Selector, tree: &Tree, authority: &[UnitId], site: &Site) -> bool {
    let mine = |id: &str| authority.iter().any(|root| tree.is_within(id, root));
    let under = |ids: &[String]| ids.iter().any(|id| mine(id) && tree.is_within(&site.unit, id));
    let tier = selector.tiers.is_empty() || selector.tiers.contains(&site.tier);
    let tag = selector.tags.is_empty() || selector.tags.iter().any(|t| site.tags.contains(t));
    let narrows = !selector.tiers.is_empty() || !selector.tags.is_empty();
    let by_tree = if selector.subtrees.is_empty() {
        narrows
    } else {
        under(&selector.subtrees)
    };
    let named = |ids: &[String]| ids.iter().any(|id| id.as_str() == site.id.as_str());
    let chosen = by_tree && tier && tag || named(&selector.sites);
    mine(&site.unit) && chosen && !named(&selector.exclude_sites) && !under(&selector.exclude_subtrees)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exclusions_win_and_authority_bounds((selector, authority) in any_case()) {
        let tree = eastlake();
        let found = selector.resolve(&tree, &authority);
        let expected: Vec<SiteId> = tree
            .sites()
            .filter(|site| is_chosen(&selector, &tree, &authority, site))
            .map(|site| site.id.clone())
            .collect();
        prop_assert_eq!(&found.sites, &expected);
        for id in &found.sites {
            let site = tree.site(id).expect("chosen from the tree");
            prop_assert!(authority.iter().any(|root| tree.is_within(&site.unit, root)));
            prop_assert!(!selector.exclude_sites.iter().any(|x| x.as_str() == id.as_str()));
        }
        let unknown: BTreeSet<&String> = found.unknown.iter().collect();
        prop_assert_eq!(unknown.len(), found.unknown.len());
    }
}
