//! Which relay is the nearest to a site: up the tree from it, and joined by uplinks to the relay that a meeting is placed on.

use crate::replicas;
use muster_domain::Tree;
use std::collections::BTreeMap;

/// Relays above one.
const MAX_ABOVE: usize = 8;

/// Of the relays that are joined to `root` by their uplinks the nearest to the site, if there is one.
pub(super) fn nearest(
    tree: &Tree,
    all: &BTreeMap<String, replicas::Relay>,
    root: &str,
    site: &str,
) -> Option<replicas::Relay> {
    let unit = &tree.site(site)?.unit;
    let near = all.values().filter(|relay| {
        let is_above = |of: &str| tree.is_within(unit, of);
        let may = relay.below && !relay.suspected;
        may && unit_of(&relay.id).is_some_and(is_above) && is_joined(all, relay, root)
    });
    let depth = |relay: &&replicas::Relay| unit_of(&relay.id).map_or(0, |of| tree.path(of).len());
    near.max_by_key(depth).cloned()
}

/// A relay is named after its unit: `UNIT-` and what tells it from others there.
fn unit_of(relay: &str) -> Option<&str> {
    relay.rsplit_once('-').map(|(unit, _)| unit)
}

/// Whether the relay's uplinks lead to `root`.
fn is_joined(all: &BTreeMap<String, replicas::Relay>, relay: &replicas::Relay, root: &str) -> bool {
    let mut at = relay;
    // More relays above one another than there are tiers are a circle.
    for _ in 0..MAX_ABOVE {
        if at.uplink == root {
            return true;
        }
        let Some(above) = all.get(&at.uplink) else {
            return false;
        };
        at = above;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::{Fleet as _, Relays};
    use crate::bus::Bus;
    use muster_domain::{Access, Answer, Site, SiteId, Tags, Tier, Tree, Unit, UnitId};
    use muster_proto::command::v1 as pb;
    use std::sync::Arc;

    fn hello(has_uplink: bool) -> pb::RelayHello {
        pb::RelayHello {
            http_url: "http://127.0.0.1:1".into(),
            link_addrs: vec!["a".into()],
            has_uplink,
            ..Default::default()
        }
    }

    fn unit(id: &str, tier: Tier, parent: &str) -> Unit {
        Unit {
            id: UnitId::new(id).expect("an id"),
            tier,
            parent: UnitId::new(parent).ok(),
            name_zh: String::new(),
            name_en: String::new(),
            lat: 0.0,
            lon: 0.0,
        }
    }

    fn site(id: &str, unit: &str) -> Site {
        Site {
            id: SiteId::new(id).expect("an id"),
            unit: UnitId::new(unit).expect("an id"),
            tier: Tier::Community,
            name_zh: "".into(),
            name_en: "".into(),
            lat: 0.0,
            lon: 0.0,
            access: Access::Fibre,
            tags: Tags::default(),
            answer: Answer::Default,
        }
    }

    /// S1 is in the street T of the district D, S2 in the district E; both are of the city C.
    fn tree() -> Arc<Tree> {
        let units = vec![
            unit("C", Tier::City, ""),
            unit("D", Tier::District, "C"),
            unit("T", Tier::Street, "D"),
            unit("E", Tier::District, "C"),
        ];
        Arc::new(Tree::new(units, vec![site("S1", "T"), site("S2", "E")]).expect("a tree"))
    }

    #[test]
    fn a_sites_leg_is_at_the_nearest_relay_that_is_joined_to_the_meetings() {
        let relays = Relays::new(Bus::default());
        relays.set_tree(tree());
        let _city = relays.register("C-1", &hello(false));
        let district = relays.register("D-1", &hello(true));
        let street = relays.register("T-1", &hello(true));
        let beat = |uplink: &str| pb::RelayHeartbeat {
            legs: 0,
            uplink: uplink.into(),
        };
        let at = |site: &str| relays.place_at("C-1", site).expect("a place").relay;
        assert_eq!(at("S1"), "C-1", "nobody is joined yet");
        relays.heard(&street, Some(&beat("D-1")));
        assert_eq!(at("S1"), "C-1", "the district is not");
        relays.heard(&district, Some(&beat("C-1")));
        assert_eq!(
            (at("S1"), at("S2"), at("desk:x")),
            ("T-1".into(), "C-1".into(), "C-1".into())
        );
        assert_eq!(
            relays.place("S1").expect("a place").relay,
            "T-1",
            "warm links too"
        );
        assert_eq!(
            relays.other_than("").as_deref(),
            Some("C-1"),
            "meetings are at the top"
        );
        relays.heard(&street, Some(&beat("")));
        assert_eq!(at("S1"), "D-1");
        // A circle leads nowhere.
        relays.heard(&street, Some(&beat("D-1")));
        relays.heard(&district, Some(&beat("T-1")));
        assert_eq!(at("S1"), "C-1");
    }
}
