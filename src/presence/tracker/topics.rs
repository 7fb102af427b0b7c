//! The index of visible entries: topics, their keys, and the entries under each key.
//!
//! The maps are persistent (they share structure), so a snapshot is taken in constant time and may
//! be read while the index changes. A topic without outstanding snapshots is modified in place.

use std::collections::HashMap;

use rpds::{HashTrieMapSync, RedBlackTreeSetSync};
use smol_str::SmolStr;

use super::entry::{Diff, Entry};

#[derive(Debug, Default)]
pub(super) struct TopicIndex(HashMap<SmolStr, Snapshot>);

/// The presences of a topic at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot(HashTrieMapSync<SmolStr, Metas>);

/// The entries under one key. Never empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metas(RedBlackTreeSetSync<Entry>);

impl TopicIndex {
    pub(super) fn insert(&mut self, entry: Entry) {
        let Snapshot(keys) = self.0.entry(entry.topic().clone()).or_default();
        if let Some(Metas(metas)) = keys.get_mut(entry.key()) {
            metas.insert_mut(entry);
        } else {
            let key = entry.key().clone();
            let mut metas = RedBlackTreeSetSync::new_sync();
            metas.insert_mut(entry);
            keys.insert_mut(key, Metas(metas));
        }
    }

    /// Removes an entry, and its key and topic once they are empty.
    pub(super) fn remove(&mut self, entry: &Entry) {
        let Some(Snapshot(keys)) = self.0.get_mut(entry.topic()) else { return };
        let Some(Metas(metas)) = keys.get_mut(entry.key()) else { return };
        metas.remove_mut(entry);
        if metas.is_empty() {
            keys.remove_mut(entry.key());
            if keys.is_empty() {
                self.0.remove(entry.topic());
            }
        }
    }

    pub(super) fn apply(&mut self, diff: &Diff) {
        diff.leaves.iter().for_each(|entry| self.remove(entry));
        diff.joins.iter().for_each(|entry| self.insert(entry.clone()));
    }

    /// The topics that have entries, in no particular order.
    pub(super) fn names(&self) -> impl Iterator<Item = &SmolStr> {
        self.0.keys()
    }

    pub(super) fn get(&self, topic: &str) -> Option<&Snapshot> {
        self.0.get(topic)
    }
}

impl Snapshot {
    /// The number of keys.
    pub(crate) fn len(&self) -> usize {
        self.0.size()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Metas> {
        self.0.get(key)
    }

    /// The keys and their entries, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SmolStr, &Metas)> {
        self.0.iter()
    }
}

impl Metas {
    /// The entries, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// The number of entries, at least 1.
    pub(crate) fn len(&self) -> usize {
        self.0.size()
    }
}
