//! The presence tracker: a delta-state CRDT, modelled on `Phoenix.Tracker`.
//!
//! Each replica adds and removes entries of its own and replicates those of all others; the state
//! of one replica is an observed-remove set, see [`state`]. The tracker performs no I/O and reads no
//! clock: messages are values, and time is an argument.

mod clock;
mod entry;
mod message;
#[doc(hidden)]
pub mod model;
mod replicas;
mod replication;
mod state;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::BTreeMap;
use std::time::Duration;

use smol_str::SmolStr;

use self::clock::MAX_COUNTER;
pub(crate) use self::entry::{Entry, Meta, Owner, Replica};
use self::entry::{Fields, MAX_META, MAX_TEXT, json_object};
use self::replicas::Replicas;
use self::state::{RemovalLog, ReplicaState};
use self::topics::TopicIndex;
pub(crate) use self::topics::{Metas, Snapshot};

/// Configuration of a tracker.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The interval at which a replica broadcasts its vector clock; 1.5 s by default.
    pub(crate) heartbeat: Duration,
    /// How long a replica may be silent before its entries are hidden; 30 s by default.
    pub(crate) down_after: Duration,
    /// How long a replica may be silent before it is removed for good; 20 min by default.
    pub(crate) gone_after: Duration,
    /// The number of local removes kept in the removal log; 10,000 by default. A peer that lacks
    /// an older one receives the full state instead of a delta.
    pub(crate) max_removals: usize,
    /// The approximate maximum length of a message in bytes; 1 MiB by default. Longer deltas are
    /// split.
    pub(crate) max_message: usize,
}

/// The presences known to one replica: its own, and those of all other replicas.
#[derive(Debug)]
pub(crate) struct Tracker {
    replica: Replica,
    config: Config,
    /// All visible entries: those of the local replica and of all replicas that are up.
    topics: TopicIndex,
    /// The local entries by owner, topic and key.
    owned: BTreeMap<(Owner, SmolStr, SmolStr), Entry>,
    local: ReplicaState,
    removal_log: RemovalLog,
    /// The dot of the last local operation that was broadcast.
    sent_to: u64,
    /// The Lamport clock: the highest timestamp observed in an entry.
    lamport: u64,
    /// The remote replicas.
    replicas: Replicas,
    last_tick: Option<Duration>,
    last_heartbeat: Option<Duration>,
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

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(1500),
            down_after: Duration::from_secs(30),
            gone_after: Duration::from_secs(20 * 60),
            max_removals: 10_000,
            max_message: 1024 * 1024,
        }
    }
}

impl Tracker {
    /// Creates a replica without entries that knows no other replicas.
    pub(crate) fn new(replica: Replica, config: Config) -> Self {
        let (topics, owned, local, removal_log, replicas) = Default::default();
        let (sent_to, lamport, last_tick, last_heartbeat) = Default::default();
        Self {
            replica,
            config,
            topics,
            owned,
            local,
            removal_log,
            sent_to,
            lamport,
            replicas,
            last_tick,
            last_heartbeat,
        }
    }

    /// The local replica. Its incarnation increases when another replica considers it gone.
    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
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
        let entry = Entry::new(&self.replica, self.next_dot(), fields);
        self.local.add(entry.clone());
        self.topics.insert(entry.clone());
        entry
    }

    /// Performs the next local operation, a remove.
    fn remove(&mut self, entry: &Entry) {
        let dot = self.next_dot();
        self.local.remove(dot, entry);
        self.removal_log.push(dot, entry.dot(), self.config.max_removals);
        self.topics.remove(entry);
    }

    fn next_dot(&self) -> u64 {
        self.local.context().prefix() + 1
    }
}
