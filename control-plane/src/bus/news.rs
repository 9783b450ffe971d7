//! The newest state of the sites that came or went, once for all who watch.
//!
//! It is in tree order, by the tree that it carries: who watches a part of the tree has a few runs of places, and finds
//! what is in them by binary search, however many sites changed and however many are watched.

use muster_domain::{Places, Tree};
use muster_proto::command::v1 as pb;
use std::sync::Arc;

/// Sites that changed, sorted by their place in a tree.
#[derive(Debug)]
pub struct PresenceNews {
    tree: Arc<Tree>,
    sites: Vec<(usize, pb::Presence)>,
}

impl PresenceNews {
    /// Sites that are not in the tree are left out: nobody sees them.
    pub fn new(tree: Arc<Tree>, sites: impl Iterator<Item = pb::Presence>) -> Self {
        let with_place = |site: pb::Presence| Some((tree.site_place(&site.site)?, site));
        let mut sites: Vec<_> = sites.filter_map(with_place).collect();
        sites.sort_by_key(|(place, _)| *place);
        Self { tree, sites }
    }

    /// The tree whose places these are.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Those that are at these places.
    pub fn at(&self, places: &Places) -> Vec<pb::Presence> {
        let picked = places.pick(&self.sites, |(place, _)| *place);
        picked.map(|(_, presence)| presence.clone()).collect()
    }
}
