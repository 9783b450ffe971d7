//! How each leg fares, kept for the control plane: the newest of each, and which it has not been told yet.
//!
//! Invariant: only legs that are here are known, so memory is bounded by their number, with a control plane or without.
//! What is worth telling is decided in the core (`muster_forward::quality`).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use muster_forward::LegId;
use muster_proto::command::v1::SiteQuality;

#[derive(Default)]
struct Known {
    newest: HashMap<LegId, SiteQuality>,
    untold: BTreeSet<LegId>,
}

#[derive(Default)]
pub(crate) struct Qualities(Mutex<Known>);

impl Qualities {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, leg: LegId, quality: SiteQuality) {
        let mut known = self.known();
        known.newest.insert(leg, quality);
        known.untold.insert(leg);
    }

    /// The leg is gone.
    pub fn remove(&self, leg: LegId) {
        let mut known = self.known();
        known.newest.remove(&leg);
        known.untold.remove(&leg);
    }

    /// Somebody new listens, and must be told all.
    pub fn tell_anew(&self) {
        let mut known = self.known();
        let Known { newest, untold } = &mut *known;
        untold.extend(newest.keys());
    }

    /// What has not been told; it counts as told from now on.
    pub fn take(&self) -> Vec<SiteQuality> {
        let mut known = self.known();
        let Known { newest, untold } = &mut *known;
        std::mem::take(untold)
            .into_iter()
            .filter_map(|leg| newest.get(&leg).cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(site: &str, leg: &str) -> SiteQuality {
        SiteQuality {
            site: site.into(),
            leg: leg.into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_newest_of_each_leg_is_told_once() {
        let qualities = Qualities::default();
        qualities.put(LegId(1), quality("a", "old"));
        qualities.put(LegId(2), quality("b", "b"));
        qualities.put(LegId(1), quality("a", "new"));
        assert_eq!(qualities.take(), [quality("a", "new"), quality("b", "b")]);
        assert!(qualities.take().is_empty());
        qualities.put(LegId(2), quality("b", "c"));
        assert_eq!(qualities.take(), [quality("b", "c")]);
    }

    #[test]
    fn a_control_plane_that_comes_back_is_told_of_all_legs_that_are_here() {
        let qualities = Qualities::default();
        qualities.put(LegId(1), quality("a", "1"));
        qualities.put(LegId(2), quality("b", "2"));
        qualities.take();
        qualities.remove(LegId(1));
        qualities.tell_anew();
        assert_eq!(qualities.take(), [quality("b", "2")]);
    }
}
