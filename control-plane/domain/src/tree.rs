//! The administrative tree: units, and the sites that belong to them.
//!
//! A [`Tree`] is always whole: every parent exists and is of a higher tier (so there is no cycle and no more
//! than four levels), every site belongs to a unit and is of its tier or a lower one, and no id names two
//! things. It is a value that is replaced, not changed. *Tree order* is fixed: a unit, its own sites by id,
//! then its units by id; so a subtree's sites are one slice. Several roots are fine.
//!
//! It knows no authority, presence or meeting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use crate::ids::{SiteId, UnitId};
use crate::tags::{TagPool, Tags};
use crate::words::{Access, Answer, Tier};

/// An element of the administrative tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    pub id: UnitId,
    pub tier: Tier,
    /// None for a root.
    pub parent: Option<UnitId>,
    pub name_zh: String,
    pub name_en: String,
    /// Degrees, WGS 84.
    pub lat: f64,
    pub lon: f64,
}

/// A place that meets.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    pub id: SiteId,
    pub unit: UnitId,
    pub tier: Tier,
    pub name_zh: Box<str>,
    pub name_en: Box<str>,
    /// Degrees, WGS 84.
    pub lat: f64,
    pub lon: f64,
    pub access: Access,
    /// The phase of the import ("existing" or "new") and what was added by hand.
    pub tags: Tags,
    /// How its endpoints answer a call; set by hand, never by an import.
    pub answer: Answer,
}

/// Why units and sites do not make a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeError {
    IdTwice(String),
    NoParent {
        unit: UnitId,
        parent: UnitId,
    },
    NotBelowParent {
        unit: UnitId,
        tier: Tier,
        parent: UnitId,
        parent_tier: Tier,
    },
    NoUnit {
        site: SiteId,
        unit: UnitId,
    },
    AboveUnit {
        site: SiteId,
        tier: Tier,
        unit: UnitId,
        unit_tier: Tier,
    },
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TreeError::IdTwice(id) => write!(f, "id {id} names two things: expected one"),
            TreeError::NoParent { unit, parent } => {
                write!(f, "unit {unit}: its parent {parent} does not exist")
            }
            TreeError::NotBelowParent {
                unit,
                tier,
                parent,
                parent_tier,
            } => {
                write!(
                    f,
                    "unit {unit} ({tier}): expected a tier below that of its parent {parent} ({parent_tier})"
                )
            }
            TreeError::NoUnit { site, unit } => write!(f, "site {site}: its unit {unit} does not exist"),
            TreeError::AboveUnit {
                site,
                tier,
                unit,
                unit_tier,
            } => {
                write!(
                    f,
                    "site {site} ({tier}): expected the tier of its unit {unit} ({unit_tier}) or a lower one"
                )
            }
        }
    }
}

impl std::error::Error for TreeError {}

/// How many sites of each tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierCounts {
    pub city: usize,
    pub district: usize,
    pub street: usize,
    pub community: usize,
}

impl TierCounts {
    /// Sites of one tier.
    pub fn of(&self, tier: Tier) -> usize {
        match tier {
            Tier::City => self.city,
            Tier::District => self.district,
            Tier::Street => self.street,
            Tier::Community => self.community,
        }
    }

    /// Sites of all tiers.
    pub fn total(&self) -> usize {
        Tier::ALL.iter().map(|tier| self.of(*tier)).sum()
    }

    /// Counts one more.
    pub fn add(&mut self, tier: Tier) {
        match tier {
            Tier::City => self.city += 1,
            Tier::District => self.district += 1,
            Tier::Street => self.street += 1,
            Tier::Community => self.community += 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Node {
    unit: Unit,
    children: Vec<UnitId>,
    /// Places in `unit_order` of this unit and all below.
    units: Range<usize>,
    /// Places in `sites` of its own sites.
    own_sites: Range<usize>,
    /// Places in `sites` of the sites of the whole subtree.
    sites: Range<usize>,
}

/// Units and sites, whole and in order.
///
/// Sites are many, so each costs little: it is kept once, at its place, and what it has in common with others (the id
/// of its unit, its tags) is shared with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    nodes: BTreeMap<UnitId, Node>,
    roots: Vec<UnitId>,
    unit_order: Vec<UnitId>,
    /// In tree order, as `site_order`.
    sites: Vec<Site>,
    site_order: Vec<SiteId>,
    /// Places in `sites`, by id.
    by_id: Vec<u32>,
}

impl Tree {
    /// Puts units and sites, in any order, together. All that is wrong is told, not only the first.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn new(units: Vec<Unit>, sites: Vec<Site>) -> Result<Tree, Vec<TreeError>> {
        let mut errors = Vec::new();
        let unit_ids = units.iter().map(|u| u.id.as_str());
        let mut ids: Vec<&str> = unit_ids.chain(sites.iter().map(|s| s.id.as_str())).collect();
        ids.sort_unstable();
        for pair in ids.windows(2) {
            if let [first, second] = pair
                && first == second
            {
                errors.push(TreeError::IdTwice((*first).to_owned()));
            }
        }
        let tiers: BTreeMap<&UnitId, Tier> = units.iter().map(|u| (&u.id, u.tier)).collect();
        errors.extend(units.iter().filter_map(|unit| check_unit(unit, &tiers)));
        errors.extend(sites.iter().filter_map(|site| check_site(site, &tiers)));
        if errors.is_empty() {
            Ok(Tree::build(units, sites))
        } else {
            Err(errors)
        }
    }

    fn build(units: Vec<Unit>, sites: Vec<Site>) -> Tree {
        let mut tree = Tree::default();
        let mut children: BTreeMap<UnitId, BTreeSet<UnitId>> = BTreeMap::new();
        for unit in units {
            match &unit.parent {
                Some(parent) => {
                    children
                        .entry(parent.clone())
                        .or_default()
                        .insert(unit.id.clone());
                }
                None => tree.roots.push(unit.id.clone()),
            }
            let node = Node {
                unit,
                children: Vec::new(),
                units: 0..0,
                own_sites: 0..0,
                sites: 0..0,
            };
            tree.nodes.insert(node.unit.id.clone(), node);
        }
        tree.roots.sort();
        for root in tree.roots.clone() {
            tree.lay_out(&root, &mut children);
        }
        tree.settle(sites);
        tree
    }

    /// Gives a subtree its place in the order. At most four levels deep, as tiers go strictly down.
    fn lay_out(&mut self, id: &UnitId, children: &mut BTreeMap<UnitId, BTreeSet<UnitId>>) {
        let first = self.unit_order.len();
        self.unit_order.push(id.clone());
        let below: Vec<UnitId> = children.remove(id).unwrap_or_default().into_iter().collect();
        for child in &below {
            self.lay_out(child, children);
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.children = below;
            node.units = first..self.unit_order.len();
        }
    }

    /// Gives the sites their places, once the units have theirs.
    fn settle(&mut self, mut sites: Vec<Site>) {
        let mut tags = TagPool::default();
        for site in &mut sites {
            site.tags = tags.shared(site.tags.clone());
            if let Some(node) = self.nodes.get(&site.unit) {
                site.unit = node.unit.id.clone();
            }
        }
        let unit_place = |site: &Site| self.nodes.get(&site.unit).map(|node| node.units.start);
        sites.sort_by_cached_key(|site| (unit_place(site), site.id.clone()));
        sites.shrink_to_fit();
        // Where the sites of each unit begin.
        let mut starts = vec![0; self.unit_order.len() + 1];
        for place in sites.iter().filter_map(unit_place) {
            starts[place + 1] += 1;
        }
        for place in 1..starts.len() {
            starts[place] += starts[place - 1];
        }
        for node in self.nodes.values_mut() {
            let first = node.units.start;
            node.own_sites = starts[first]..starts[first + 1];
            node.sites = starts[first]..starts[node.units.end];
        }
        self.site_order = sites.iter().map(|site| site.id.clone()).collect();
        self.by_id = (0..).take(sites.len()).collect();
        self.by_id
            .sort_unstable_by(|a, b| sites[*a as usize].id.cmp(&sites[*b as usize].id));
        self.sites = sites;
    }

    pub fn unit(&self, id: &str) -> Option<&Unit> {
        self.nodes.get(id).map(|n| &n.unit)
    }

    pub fn site(&self, id: &str) -> Option<&Site> {
        self.sites.get(self.site_place(id)?)
    }

    /// By id.
    pub fn roots(&self) -> &[UnitId] {
        &self.roots
    }

    /// In tree order.
    pub fn units(&self) -> impl Iterator<Item = &Unit> {
        self.unit_order.iter().filter_map(|id| self.unit(id))
    }

    /// In tree order.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter()
    }

    /// The sites at these places; none of places that there are not.
    pub fn sites_at(&self, places: Range<usize>) -> &[Site] {
        self.sites.get(places).unwrap_or(&[])
    }

    /// All units, in tree order.
    pub fn unit_ids(&self) -> &[UnitId] {
        &self.unit_order
    }

    /// All sites, in tree order.
    pub fn site_ids(&self) -> &[SiteId] {
        &self.site_order
    }

    pub fn unit_count(&self) -> usize {
        self.nodes.len()
    }

    pub fn site_count(&self) -> usize {
        self.sites.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The units directly below, by id; empty for an unknown one.
    pub fn children(&self, unit: &str) -> &[UnitId] {
        self.nodes.get(unit).map_or(&[], |n| &n.children)
    }

    /// The unit and all units below, in tree order; empty for an unknown one.
    pub fn subtree_units(&self, unit: &str) -> &[UnitId] {
        self.nodes
            .get(unit)
            .and_then(|n| self.unit_order.get(n.units.clone()))
            .unwrap_or(&[])
    }

    /// The sites of the unit itself, by id; empty for an unknown one.
    pub fn own_sites(&self, unit: &str) -> &[SiteId] {
        self.nodes
            .get(unit)
            .and_then(|n| self.site_order.get(n.own_sites.clone()))
            .unwrap_or(&[])
    }

    /// The sites of the unit and of all below, in tree order; empty for an unknown one.
    pub fn subtree_sites(&self, unit: &str) -> &[SiteId] {
        self.nodes
            .get(unit)
            .and_then(|n| self.site_order.get(n.sites.clone()))
            .unwrap_or(&[])
    }

    /// Place of a site in tree order.
    pub fn site_place(&self, site: &str) -> Option<usize> {
        let of = |place: &u32| self.site_order.get(*place as usize).map(SiteId::as_str);
        let at = self
            .by_id
            .binary_search_by(|place| of(place).cmp(&Some(site)))
            .ok()?;
        self.by_id.get(at).map(|place| *place as usize)
    }

    /// Place of a unit in tree order.
    pub fn unit_place(&self, unit: &str) -> Option<usize> {
        self.nodes.get(unit).map(|node| node.units.start)
    }

    /// Places of the unit and of all below; empty for an unknown one.
    pub fn subtree_unit_places(&self, unit: &str) -> Range<usize> {
        self.nodes.get(unit).map_or(0..0, |node| node.units.clone())
    }

    /// Places of the sites of the unit and of all below; empty for an unknown one.
    pub fn subtree_site_places(&self, unit: &str) -> Range<usize> {
        self.nodes.get(unit).map_or(0..0, |node| node.sites.clone())
    }

    /// From the root down to the unit itself; empty for an unknown one.
    pub fn path(&self, unit: &str) -> Vec<&Unit> {
        let mut path = Vec::new();
        let mut next = self.unit(unit);
        while let Some(unit) = next {
            path.push(unit);
            next = unit.parent.as_ref().and_then(|parent| self.unit(parent));
        }
        path.reverse();
        path
    }

    /// The lowest unit that has all of these within it; none of none, or where they are in several trees.
    pub fn common_unit<'a>(&self, units: impl IntoIterator<Item = &'a UnitId>) -> Option<UnitId> {
        let mut common: Option<Vec<&Unit>> = None;
        for unit in units {
            let path = self.path(unit);
            common = Some(match common {
                None => path,
                Some(known) => known
                    .into_iter()
                    .zip(path)
                    .map_while(|(a, b)| (a.id == b.id).then_some(a))
                    .collect(),
            });
        }
        common?.last().map(|unit| unit.id.clone())
    }

    /// Whether `above` is strictly above `below`. False if either is unknown.
    pub fn is_ancestor(&self, above: &str, below: &str) -> bool {
        above != below && self.is_within(below, above)
    }

    /// Whether `unit` is `of` or below it. False if either is unknown.
    pub fn is_within(&self, unit: &str, of: &str) -> bool {
        match (self.nodes.get(unit), self.nodes.get(of)) {
            (Some(unit), Some(of)) => of.units.contains(&unit.units.start),
            _ => false,
        }
    }

    /// Sites a tier of the unit's subtree; of the whole tree for none.
    pub fn counts(&self, unit: Option<&str>) -> TierCounts {
        let places = unit.map_or(0..self.sites.len(), |unit| self.subtree_site_places(unit));
        let mut counts = TierCounts::default();
        for site in self.sites_at(places) {
            counts.add(site.tier);
        }
        counts
    }
}

fn check_unit(unit: &Unit, tiers: &BTreeMap<&UnitId, Tier>) -> Option<TreeError> {
    let parent = unit.parent.as_ref()?;
    match tiers.get(parent) {
        None => Some(TreeError::NoParent {
            unit: unit.id.clone(),
            parent: parent.clone(),
        }),
        Some(parent_tier) if unit.tier <= *parent_tier => Some(TreeError::NotBelowParent {
            unit: unit.id.clone(),
            tier: unit.tier,
            parent: parent.clone(),
            parent_tier: *parent_tier,
        }),
        Some(_) => None,
    }
}

fn check_site(site: &Site, tiers: &BTreeMap<&UnitId, Tier>) -> Option<TreeError> {
    match tiers.get(&site.unit) {
        None => Some(TreeError::NoUnit {
            site: site.id.clone(),
            unit: site.unit.clone(),
        }),
        Some(unit_tier) if site.tier < *unit_tier => Some(TreeError::AboveUnit {
            site: site.id.clone(),
            tier: site.tier,
            unit: site.unit.clone(),
            unit_tier: *unit_tier,
        }),
        Some(_) => None,
    }
}
