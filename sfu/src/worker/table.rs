//! The legs of a worker: by id, and by a small stable index, so that the packet path reaches them without a search.
//!
//! A freed index is used again. Whoever holds one lets go of it when its leg is removed: slots leave the core with their
//! leg, and a list of indices is emptied in the turn in which it was filled, or is of legs that are checked by id.

use muster_forward::{LegId, SlotId};

use super::state::{IdMap, LegEntry};

/// Where a slot is: the index of its leg, and its own among the leg's. The core knows it as a [`SlotId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotPlace {
    pub leg: usize,
    pub index: usize,
    /// The leg is a link.
    pub link: bool,
}

/// A leg has fewer slots than an offer may have m-lines (256).
const SLOT_BITS: u32 = 16;
const LINK: u64 = 1 << 63;

impl SlotPlace {
    pub fn id(self) -> SlotId {
        let link = if self.link { LINK } else { 0 };
        SlotId(link | (self.leg as u64) << SLOT_BITS | self.index as u64)
    }

    pub fn of(id: SlotId) -> Self {
        Self {
            leg: ((id.0 & !LINK) >> SLOT_BITS) as usize,
            index: (id.0 & ((1 << SLOT_BITS) - 1)) as usize,
            link: id.0 & LINK != 0,
        }
    }
}

#[derive(Default)]
pub(crate) struct Legs {
    places: IdMap<LegId, usize>,
    entries: Vec<Option<LegEntry>>,
    free: Vec<usize>,
}

impl Legs {
    /// The index that the next [`Legs::insert`] gives.
    pub fn next_index(&self) -> usize {
        self.free.last().copied().unwrap_or(self.entries.len())
    }

    /// Adds a leg whose id is new.
    pub fn insert(&mut self, id: LegId, entry: LegEntry) {
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index] = Some(entry);
                index
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        };
        self.places.insert(id, index);
    }

    pub fn remove(&mut self, id: &LegId) -> Option<LegEntry> {
        let index = self.places.remove(id)?;
        self.free.push(index);
        self.entries[index].take()
    }

    pub fn index_of(&self, id: &LegId) -> Option<usize> {
        self.places.get(id).copied()
    }

    pub fn contains(&self, id: &LegId) -> bool {
        self.places.contains_key(id)
    }

    pub fn get(&self, id: &LegId) -> Option<&LegEntry> {
        self.at(self.index_of(id)?)
    }

    pub fn get_mut(&mut self, id: &LegId) -> Option<&mut LegEntry> {
        self.at_mut(self.index_of(id)?)
    }

    /// Indices are below this.
    pub fn bound(&self) -> usize {
        self.entries.len()
    }

    pub fn at(&self, index: usize) -> Option<&LegEntry> {
        self.entries.get(index)?.as_ref()
    }

    pub fn at_mut(&mut self, index: usize) -> Option<&mut LegEntry> {
        self.entries.get_mut(index)?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = (LegId, &LegEntry)> {
        self.entries.iter().flatten().map(|leg| (leg.id, leg))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (LegId, &mut LegEntry)> {
        self.entries.iter_mut().flatten().map(|leg| (leg.id, leg))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_id_names_leg_and_slot() {
        for (leg, index, link) in [(0, 0, true), (0, 255, false), (70_000, 65_535, true)] {
            let place = SlotPlace { leg, index, link };
            assert_eq!(SlotPlace::of(place.id()), place);
        }
    }
}
