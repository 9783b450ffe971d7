//! The words by which sites are selected. Few sets of them are told apart in a city, so clones share one.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

/// A set of tags. A clone shares it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tags(Arc<BTreeSet<String>>);

impl Deref for Tags {
    type Target = BTreeSet<String>;
    fn deref(&self) -> &BTreeSet<String> {
        &self.0
    }
}

impl From<BTreeSet<String>> for Tags {
    fn from(tags: BTreeSet<String>) -> Self {
        Self(Arc::new(tags))
    }
}

impl FromIterator<String> for Tags {
    fn from_iter<I: IntoIterator<Item = String>>(tags: I) -> Self {
        tags.into_iter().collect::<BTreeSet<_>>().into()
    }
}

/// Sets that are there already, so that equal ones become one.
#[derive(Debug, Default)]
pub struct TagPool(BTreeSet<Tags>);

impl TagPool {
    /// The one set that all who ask for these tags share.
    pub fn shared(&mut self, tags: Tags) -> Tags {
        if let Some(known) = self.0.get(&tags) {
            return known.clone();
        }
        self.0.insert(tags.clone());
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_become_one_and_others_do_not() {
        let mut pool = TagPool::default();
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Tags>();
        let first = pool.shared(set(&["new", "depot"]));
        let second = pool.shared(set(&["depot", "new"]));
        assert!(Arc::ptr_eq(&first.0, &second.0));
        let other = pool.shared(set(&["new"]));
        assert_ne!(first, other);
    }
}
