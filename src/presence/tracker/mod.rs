//! The presence tracker: a delta-state CRDT, modelled on `Phoenix.Tracker`.
//!
//! Each replica adds and removes entries of its own and replicates those of all others; the state
//! of one replica is an observed-remove set. The tracker performs no I/O and reads no clock:
//! messages are values, and time is an argument. Without other nodes it keeps nothing for them.

mod entry;
pub(crate) mod replication;
#[cfg(test)]
mod tests;
mod topic_index;

use std::collections::BTreeMap;

use smol_str::SmolStr;

pub(crate) use self::entry::{Entry, Meta, Owner, Replica};
use self::entry::{Fields, MAX_COUNTER, MAX_META, MAX_TEXT, json_object};
use self::replication::Replication;
use self::topic_index::TopicIndex;
pub(crate) use self::topic_index::{Metas, Snapshot};

/// The presences known to one replica: its own, and those of all other replicas.
#[derive(Debug)]
pub(crate) struct Tracker {
    replica: Replica,
    /// All visible entries: those of the local replica and of all nodes that are up.
    topics: TopicIndex,
    /// The local entries by owner, topic and key.
    owned: BTreeMap<(Owner, SmolStr, SmolStr), Entry>,
    /// The number of local operations, which is the dot of the last one.
    operations: u64,
    /// The Lamport clock: the highest timestamp observed in an entry.
    lamport: u64,
    /// What is kept for other nodes, if there may be any.
    replication: Option<Box<Replication>>,
}

/// Error returned by [`Tracker::track`] and [`Tracker::update`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackError {
    /// The owner already tracks this key on this topic.
    AlreadyTracked,
    /// The owner does not track this key on this topic.
    NotTracked,
    /// The topic or the key exceeds [`MAX_TEXT`], or the meta [`MAX_META`].
    TooLarge,
    /// The meta is not a JSON object.
    NotAnObject,
}

impl Tracker {
    /// Creates a replica without entries, of a node that is alone.
    pub(crate) fn new(replica: Replica) -> Self {
        Self {
            replica,
            topics: TopicIndex::default(),
            owned: BTreeMap::new(),
            operations: 0,
            lamport: 0,
            replication: None,
        }
    }

    /// Adds an entry.
    pub(crate) fn track(
        &mut self,
        owner: Owner,
        topic: &SmolStr,
        key: &SmolStr,
        meta: Meta,
    ) -> Result<Entry, TrackError> {
        let id = (owner, topic.clone(), key.clone());
        if self.owned.contains_key(&id) {
            return Err(TrackError::AlreadyTracked);
        }
        if topic.len() > MAX_TEXT || key.len() > MAX_TEXT || meta.len() > MAX_META {
            return Err(TrackError::TooLarge);
        }
        json_object(&meta).ok_or(TrackError::NotAnObject)?;
        let entry = self.add(topic, key, meta, None);
        self.owned.insert(id, entry.clone());
        Ok(entry)
    }

    /// Replaces an entry by one with the meta that `change` returns. Returns the old entry and the
    /// new one.
    ///
    /// `change` is not called if the owner does not track the key.
    pub(crate) fn update(
        &mut self,
        owner: Owner,
        topic: &SmolStr,
        key: &SmolStr,
        change: impl FnOnce(&Meta) -> Meta,
    ) -> Result<(Entry, Entry), TrackError> {
        let id = (owner, topic.clone(), key.clone());
        let Some(old) = self.owned.get(&id).cloned() else { return Err(TrackError::NotTracked) };
        let meta = change(old.meta());
        if meta.len() > MAX_META {
            return Err(TrackError::TooLarge);
        }
        json_object(&meta).ok_or(TrackError::NotAnObject)?;
        self.remove(&old);
        let new = self.add(topic, key, meta, Some(old.phx_ref().clone()));
        self.owned.insert(id, new.clone());
        Ok((old, new))
    }

    /// Removes an entry and returns it, if the owner tracks the key.
    pub(crate) fn untrack(
        &mut self,
        owner: Owner,
        topic: &SmolStr,
        key: &SmolStr,
    ) -> Option<Entry> {
        let old = self.owned.remove(&(owner, topic.clone(), key.clone()))?;
        self.remove(&old);
        Some(old)
    }

    /// Removes all entries of an owner and returns them. Visits no entries of other owners.
    pub(crate) fn untrack_all(&mut self, owner: Owner) -> Vec<Entry> {
        let first = (owner, SmolStr::default(), SmolStr::default());
        let ids: Vec<_> = self
            .owned
            .range(first..)
            .map(|(id, _)| id.clone())
            .take_while(|(other, ..)| *other == owner)
            .collect();
        ids.iter().filter_map(|(owner, topic, key)| self.untrack(*owner, topic, key)).collect()
    }

    /// Returns the entry that an owner tracks under a key.
    pub(crate) fn get(&self, owner: Owner, topic: &SmolStr, key: &SmolStr) -> Option<Entry> {
        self.owned.get(&(owner, topic.clone(), key.clone())).cloned()
    }

    /// Returns a snapshot of a topic's presences, in constant time.
    pub(crate) fn list(&self, topic: &str) -> Snapshot {
        self.topics.get(topic).cloned().unwrap_or_default()
    }

    /// Returns the entries under one key, oldest first.
    pub(crate) fn get_by_key(&self, topic: &str, key: &str) -> Vec<Entry> {
        let metas = self.topics.get(topic).and_then(|snapshot| snapshot.get(key));
        metas.map(|metas| metas.iter().cloned().collect()).unwrap_or_default()
    }

    /// The number of keys on a topic.
    pub(crate) fn count(&self, topic: &str) -> usize {
        self.topics.get(topic).map_or(0, Snapshot::len)
    }

    /// Performs the next local operation, an add.
    fn add(&mut self, topic: &SmolStr, key: &SmolStr, meta: Meta, prev: Option<SmolStr>) -> Entry {
        self.lamport = (self.lamport + 1).min(MAX_COUNTER);
        let (topic, key) = (topic.clone(), key.clone());
        let fields = Fields { timestamp: self.lamport, topic, key, meta, prev };
        self.operations += 1;
        let entry = Entry::new(self.replica, self.operations, fields);
        if let Some(replication) = &mut self.replication {
            replication.add(entry.clone());
        }
        self.topics.insert(entry.clone());
        entry
    }

    /// Performs the next local operation, a remove.
    fn remove(&mut self, entry: &Entry) {
        self.operations += 1;
        if let Some(replication) = &mut self.replication {
            replication.remove(self.operations, entry);
        }
        self.topics.remove(entry);
    }
}
