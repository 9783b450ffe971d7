//! Choosing sites: resolved once, and shown before anybody is called.
//!
//! Chosen are the sites of the subtrees, narrowed by tiers and tags (a site must be of one of the tiers and
//! carry one of the tags, where any are given), and the sites named one by one; without subtrees, tiers and
//! tags choose from all that the caller may call. Whatever is excluded is out, however it was chosen. Nothing
//! outside the caller's authority is ever chosen, and a name out of it looks just as one that does not exist.

use std::collections::BTreeSet;

use crate::ids::{SiteId, UnitId, cut};
use crate::tree::Tree;
use crate::words::Tier;

/// Which sites are meant. Ids are texts from outside and need not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub subtrees: Vec<String>,
    pub tiers: Vec<Tier>,
    pub sites: Vec<String>,
    pub tags: Vec<String>,
    pub exclude_subtrees: Vec<String>,
    pub exclude_sites: Vec<String>,
}

/// What a selector came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// In tree order, each once.
    pub sites: Vec<SiteId>,
    /// Names that do not exist or are out of the caller's authority; in the selector's order, each once.
    pub unknown: Vec<String>,
}

impl Selector {
    /// The sites that are meant, of those in the subtrees of `authority` (units).
    pub fn resolve(&self, tree: &Tree, authority: &[UnitId]) -> Resolution {
        let scope = Scope { tree, authority };
        let mut unknown = Unknown::default();
        let mut places = BTreeSet::new();
        self.choose_subtrees(&scope, &mut places, &mut unknown);
        for id in &self.sites {
            match scope.site(id) {
                Some(place) => {
                    places.insert(place);
                }
                None => unknown.add(id),
            }
        }
        self.check_tags(&scope, &mut unknown);
        for id in &self.exclude_subtrees {
            match scope.unit(id) {
                Some(unit) => {
                    for place in scope.places(unit) {
                        places.remove(&place);
                    }
                }
                None => unknown.add(id),
            }
        }
        for id in &self.exclude_sites {
            match scope.site(id) {
                Some(place) => {
                    places.remove(&place);
                }
                None => unknown.add(id),
            }
        }
        let order = tree.site_ids();
        let sites = places
            .into_iter()
            .filter_map(|place| order.get(place).cloned())
            .collect();
        Resolution {
            sites,
            unknown: unknown.names,
        }
    }

    fn choose_subtrees(&self, scope: &Scope<'_>, places: &mut BTreeSet<usize>, unknown: &mut Unknown) {
        let mut units: Vec<&str> = Vec::new();
        for id in &self.subtrees {
            match scope.unit(id) {
                Some(unit) => units.push(unit),
                None => unknown.add(id),
            }
        }
        if self.subtrees.is_empty() && !(self.tiers.is_empty() && self.tags.is_empty()) {
            units.extend(scope.authority.iter().map(UnitId::as_str));
        }
        for unit in units {
            for site in scope
                .tree
                .subtree_sites(unit)
                .iter()
                .filter_map(|id| scope.tree.site(id))
            {
                let tier = self.tiers.is_empty() || self.tiers.contains(&site.tier);
                let tag = self.tags.is_empty() || self.tags.iter().any(|tag| site.tags.contains(tag));
                if tier && tag {
                    places.extend(scope.tree.site_place(&site.id));
                }
            }
        }
    }

    /// A tag that no site of the caller carries is most likely a slip of the pen.
    fn check_tags(&self, scope: &Scope<'_>, unknown: &mut Unknown) {
        for tag in &self.tags {
            let carried = scope
                .authority
                .iter()
                .flat_map(|unit| scope.tree.subtree_sites(unit))
                .filter_map(|id| scope.tree.site(id))
                .any(|site| site.tags.contains(tag));
            if !carried {
                unknown.add(tag);
            }
        }
    }
}

struct Scope<'a> {
    tree: &'a Tree,
    authority: &'a [UnitId],
}

impl<'a> Scope<'a> {
    fn unit<'b>(&self, id: &'b str) -> Option<&'b str> {
        self.authority
            .iter()
            .any(|root| self.tree.is_within(id, root))
            .then_some(id)
    }

    fn site(&self, id: &str) -> Option<usize> {
        let site = self.tree.site(id)?;
        self.unit(&site.unit)?;
        self.tree.site_place(id)
    }

    fn places(&self, unit: &str) -> impl Iterator<Item = usize> + use<'a> {
        let tree = self.tree;
        tree.subtree_sites(unit)
            .iter()
            .filter_map(|id| tree.site_place(id))
    }
}

#[derive(Default)]
struct Unknown {
    seen: BTreeSet<String>,
    names: Vec<String>,
}

impl Unknown {
    fn add(&mut self, name: &str) {
        let name = cut(name, 80);
        if self.seen.insert(name.clone()) {
            self.names.push(name);
        }
    }
}
