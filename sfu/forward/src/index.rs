//! From a source's id to its key, on the packet path: those asked for lately are found at once.

use std::collections::BTreeMap;

use crate::source::SourceKey;
use crate::types::SourceId;

const RECENT_BITS: u32 = 8;

#[derive(Debug)]
pub(crate) struct SourceIndex {
    keys: BTreeMap<SourceId, SourceKey>,
    /// One of all ids that share a place. Invariant: what is here is in `keys`.
    recent: Vec<Option<(SourceId, SourceKey)>>,
}

impl Default for SourceIndex {
    fn default() -> Self {
        SourceIndex {
            keys: BTreeMap::new(),
            recent: vec![None; 1 << RECENT_BITS],
        }
    }
}

impl SourceIndex {
    /// HOT.
    pub fn find(&mut self, id: SourceId) -> Option<SourceKey> {
        let place = &mut self.recent[place(id)];
        if let Some((known, key)) = *place
            && known == id
        {
            return Some(key);
        }
        let key = *self.keys.get(&id)?;
        *place = Some((id, key));
        Some(key)
    }

    pub fn get(&self, id: SourceId) -> Option<SourceKey> {
        self.keys.get(&id).copied()
    }

    pub fn insert(&mut self, id: SourceId, key: SourceKey) {
        self.recent[place(id)] = None;
        self.keys.insert(id, key);
    }

    pub fn remove(&mut self, id: SourceId) -> Option<SourceKey> {
        self.recent[place(id)] = None;
        self.keys.remove(&id)
    }
}

/// Fibonacci hashing: ids that count up do not share places.
fn place(id: SourceId) -> usize {
    (id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - RECENT_BITS)) as usize
}
