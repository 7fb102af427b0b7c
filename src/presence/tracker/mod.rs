//! Who is where, on one replica and as far as it knows on all others: plain code that knows no
//! task, no clock and no socket.

#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
mod clock;
mod entry;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
mod message;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[doc(hidden)]
pub mod model;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
mod replicas;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
mod replication;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
mod state;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::BTreeMap;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
use std::time::Duration;

use smol_str::SmolStr;

use self::entry::Parts;
pub(crate) use self::entry::{Entry, Meta, Owner, Replica};
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
use self::replication::Replication;
use self::topics::Topics;
pub(crate) use self::topics::{Metas, Snapshot};

/// The largest topic or key in bytes.
pub(crate) const MAX_TEXT: usize = 4096;

/// The largest meta in bytes.
pub(crate) const MAX_META: usize = 1024 * 1024;

/// The largest number of an operation, an incarnation or an age, up to which all JSON parsers are exact.
const MAX_NUMBER: u64 = 1 << 53;

/// How replicas watch each other.
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// How often a replica says that it lives and how far it is; 1.5 s.
    pub(crate) heartbeat: Duration,
    /// How long a replica may be silent before its entries are hidden; 30 s.
    pub(crate) down_after: Duration,
    /// How long a replica may be silent before it is forgotten for good; 20 min.
    pub(crate) gone_after: Duration,
    /// How many removals are remembered, so that who missed some is told these alone; 10,000.
    pub(crate) max_log: usize,
    /// About the largest message in bytes; what is more is sent in pieces. 1 MiB.
    pub(crate) max_message: usize,
}

/// The presences that one replica knows of.
#[derive(Debug)]
pub(crate) struct Tracker {
    replica: Replica,
    /// All that is shown: its own entries and those of all replicas that are up.
    topics: Topics,
    owned: BTreeMap<(Owner, SmolStr, SmolStr), Entry>,
    /// How many entries its incarnation has added and removed.
    operations: u64,
    /// The highest age of an entry seen so far.
    age: u64,
    #[cfg(any(test, fuzzing, feature = "unstable-internals"))]
    replication: Replication,
}

/// What came and went by a message or by the passing of time.
///
/// No entry is in both. An update is a leave of the old entry and a join of the new one. Applied to
/// what `list` said before, in either order, they give what it says now.
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) joins: Vec<Entry>,
    pub(crate) leaves: Vec<Entry>,
}

/// A message for other replicas.
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// For one replica, or for all others.
    pub(crate) to: Option<Replica>,
    /// JSON.
    pub(crate) message: String,
}

/// Why something is not tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackError {
    /// The owner tracks this key on this topic already.
    AlreadyTracked,
    /// The owner does not track this key on this topic.
    NotTracked,
    /// The topic or the key is larger than [`MAX_TEXT`] or the meta than [`MAX_META`].
    TooLarge,
    /// The meta is no JSON object.
    NotAnObject,
}

/// A message that is none, or of a version that is not understood. Nothing of it was applied.
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(1500),
            down_after: Duration::from_secs(30),
            gone_after: Duration::from_secs(20 * 60),
            max_log: 10_000,
            max_message: 1024 * 1024,
        }
    }
}

impl Tracker {
    /// Creates a replica that knows of no other.
    pub(crate) fn new(replica: Replica) -> Self {
        let (topics, owned) = Default::default();
        Self {
            replica,
            topics,
            owned,
            operations: 0,
            age: 0,
            #[cfg(any(test, fuzzing, feature = "unstable-internals"))]
            replication: Replication::default(),
        }
    }

    /// Adds an entry. Its costs do not depend on how many there are.
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
        entry::as_object(&meta).ok_or(TrackError::NotAnObject)?;
        let entry = self.add(topic, key, meta, None);
        self.owned.insert(id, entry.clone());
        Ok(entry)
    }

    /// Replaces an entry by a newer one: returns the old and the new. To apply `change` is left out
    /// if there is nothing to replace.
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
        entry::as_object(&meta).ok_or(TrackError::NotAnObject)?;
        self.remove(&old);
        let new = self.add(topic, key, meta, Some(old.phx_ref().clone()));
        self.owned.insert(id, new.clone());
        Ok((old, new))
    }

    /// Removes an entry, if there is one.
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

    /// Removes all entries of an owner, at the cost of these.
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

    /// What an owner tracks under a key.
    pub(crate) fn get(&self, owner: Owner, topic: &SmolStr, key: &SmolStr) -> Option<Entry> {
        self.owned.get(&(owner, topic.clone(), key.clone())).cloned()
    }

    /// The topic's presences now. Takes no time, and may be walked while others change.
    pub(crate) fn list(&self, topic: &str) -> Snapshot {
        self.topics.get(topic).cloned().unwrap_or_default()
    }

    /// The entries under one key, oldest first.
    pub(crate) fn get_by_key(&self, topic: &str, key: &str) -> Vec<Entry> {
        let metas = self.topics.get(topic).and_then(|snapshot| snapshot.get(key));
        metas.map(|metas| metas.iter().cloned().collect()).unwrap_or_default()
    }

    /// The number of keys.
    pub(crate) fn count(&self, topic: &str) -> usize {
        self.topics.get(topic).map_or(0, Snapshot::len)
    }

    /// The next operation adds an entry.
    fn add(&mut self, topic: &SmolStr, key: &SmolStr, meta: Meta, prev: Option<SmolStr>) -> Entry {
        self.age = (self.age + 1).min(MAX_NUMBER);
        let (topic, key) = (topic.clone(), key.clone());
        let parts = Parts { age: self.age, topic, key, meta, prev };
        self.operations += 1;
        let entry = Entry::new(&self.replica, self.operations, parts);
        #[cfg(any(test, fuzzing, feature = "unstable-internals"))]
        self.replication.add(entry.clone());
        self.topics.insert(entry.clone());
        entry
    }

    /// The next operation removes one.
    fn remove(&mut self, entry: &Entry) {
        self.operations += 1;
        #[cfg(any(test, fuzzing, feature = "unstable-internals"))]
        self.replication.remove(self.operations, entry);
        self.topics.remove(entry);
    }
}
