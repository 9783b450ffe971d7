//! Parts of the tree as runs of places in tree order.
//!
//! A subtree is one run, so what somebody sees or follows is a few runs, however many sites are in it. Invariant: runs
//! are in order, none is empty, and none touches the next. Places are of one tree; after a change they mean nothing.

use std::ops::Range;

use crate::ids::UnitId;
use crate::tree::Tree;

/// Places of sites, or of units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<Range<usize>>);

impl Places {
    /// Runs in any order, which may overlap.
    pub fn new(mut runs: Vec<Range<usize>>) -> Self {
        runs.retain(|run| !run.is_empty());
        runs.sort_by_key(|run| run.start);
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(runs.len());
        for run in runs {
            match joined.last_mut() {
                Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
                _ => joined.push(run),
            }
        }
        Self(joined)
    }

    /// The sites of these units and of all below. Unknown units have none.
    pub fn of_sites(tree: &Tree, units: &[UnitId]) -> Self {
        Self::new(units.iter().map(|unit| tree.subtree_site_places(unit)).collect())
    }

    /// These units and all below. Unknown units are passed over.
    pub fn of_units(tree: &Tree, units: &[UnitId]) -> Self {
        Self::new(units.iter().map(|unit| tree.subtree_unit_places(unit)).collect())
    }

    /// What is in both.
    pub fn common(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            both.push(a.start.max(b.start)..a.end.min(b.end));
            if a.end < b.end {
                ours.next();
            } else {
                theirs.next();
            }
        }
        Self::new(both)
    }

    /// In order.
    pub fn runs(&self) -> &[Range<usize>] {
        &self.0
    }

    /// How many places.
    pub fn count(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    pub fn contains(&self, place: usize) -> bool {
        let after = self.0.partition_point(|run| run.end <= place);
        self.0.get(after).is_some_and(|run| run.contains(&place))
    }

    /// Of items that are sorted by place, those that are in it: two binary searches a run.
    pub fn pick<'a, T>(
        &'a self,
        sorted: &'a [T],
        place: impl Fn(&T) -> usize + 'a,
    ) -> impl Iterator<Item = &'a T> {
        self.0.iter().flat_map(move |run| {
            let from = sorted.partition_point(|item| place(item) < run.start);
            let end = sorted.partition_point(|item| place(item) < run.end);
            sorted.get(from..end).unwrap_or(&[])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs() -> impl Strategy<Value = Vec<Range<usize>>> {
        prop::collection::vec(
            (0..60_usize, 0..20_usize).prop_map(|(at, len)| at..at + len),
            0..6,
        )
    }

    fn set(runs: &[Range<usize>]) -> Vec<usize> {
        (0..100)
            .filter(|at| runs.iter().any(|run| run.contains(at)))
            .collect()
    }

    proptest! {
        #[test]
        fn runs_are_the_set_that_they_stand_for(a in runs(), b in runs(), mut items in prop::collection::vec(0..100_usize, 0..40)) {
            let (ours, theirs) = (Places::new(a.clone()), Places::new(b.clone()));
            let (a, b) = (set(&a), set(&b));
            prop_assert_eq!(&set(ours.runs()), &a);
            prop_assert_eq!(ours.count(), a.len());
            let both: Vec<usize> = a.iter().copied().filter(|at| b.contains(at)).collect();
            prop_assert_eq!(set(ours.common(&theirs).runs()), both);
            for pair in ours.runs().windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            for at in 0..100 {
                prop_assert_eq!(ours.contains(at), a.contains(&at));
            }
            items.sort_unstable();
            let picked: Vec<usize> = ours.pick(&items, |at| *at).copied().collect();
            let right: Vec<usize> = items.iter().copied().filter(|at| a.contains(at)).collect();
            prop_assert_eq!(picked, right);
        }
    }
}
