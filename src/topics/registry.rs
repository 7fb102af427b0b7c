//! [`Registry`]: a sharded map from names, such as topics or socket ids, to their members.
//!
//! A walk over the members of one name takes two locks. `order` is held from its first to its last
//! member, so that all members see concurrent walks in the same order. The lock of the members is
//! handed to a waiting thread after every few members: a join or a leave never waits for a whole
//! walk.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexMap;
use parking_lot::{Mutex, MutexGuard, RwLock};
use smol_str::SmolStr;

/// Names, their members, and a state that the members of a name share.
pub(crate) struct Registry<T, S = ()> {
    shards: Box<[Shard<T, S>]>,
    hasher: RandomState,
    /// How many memberships there are.
    memberships: AtomicUsize,
}

/// Guards which names have members. The lock is held for a lookup, or to add or remove one member.
type Shard<T, S> = RwLock<HashMap<SmolStr, Arc<Entry<T, S>>>>;

struct Entry<T, S> {
    /// Guards nothing by itself: held for the whole of a walk, and taken before `members`. Callers
    /// of [`Registry::walk`] run foreign code, such as wakers, only after it has returned: code
    /// that began another walk of this name would wait for itself.
    order: Mutex<()>,
    /// Guards the list, the walk's place in it, and the shared state. Held for [`CHUNK`] members at
    /// most.
    members: Mutex<Members<T, S>>,
}

struct Members<T, S> {
    list: WalkList<T>,
    shared: S,
}

/// A membership, which ends when it is dropped.
pub(crate) struct Membership<T, S: Default = ()> {
    registry: Arc<Registry<T, S>>,
    name: SmolStr,
    entry: Arc<Entry<T, S>>,
    key: u64,
}

/// In how many maps the names are.
pub(crate) const SHARDS: usize = 64;

/// How many members are visited before the lock is offered to a waiting thread. They are prefetched
/// together: more than a processor can fetch at once, and far less than a cache holds.
const CHUNK: usize = 32;

impl<T, S: Default> Registry<T, S> {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::new(), memberships: AtomicUsize::new(0) }
    }

    /// Adds a member, which `create` returns under the lock, before a walk can reach it.
    pub(crate) fn add(
        self: &Arc<Self>,
        name: &SmolStr,
        create: impl FnOnce(&mut S) -> T,
    ) -> Membership<T, S> {
        let shard = self.shard(name);
        let insert = |entry: &Arc<Entry<T, S>>| {
            let mut members = entry.members.lock();
            let member = create(&mut members.shared);
            let key = members.list.insert(member);
            drop(members);
            self.memberships.fetch_add(1, Ordering::Relaxed);
            let (registry, entry) = (Arc::clone(self), Arc::clone(entry));
            Membership { registry, name: name.clone(), entry, key }
        };
        // The shard stays locked meanwhile, so that an entry without members is not removed under
        // its first new one.
        let known = shard.read();
        if let Some(entry) = known.get(name) {
            return insert(entry);
        }
        drop(known);
        insert(shard.write().entry(name.clone()).or_default())
    }

    /// Visits every member of a name that was there when the walk began and has not left meanwhile,
    /// and no member twice. `begin` and `end` bound the walk; `prefetch` is called for some members
    /// in a row before they are visited. All of these run under a lock and must not call foreign
    /// code. Returns `false`, having called nothing, if there is no member.
    pub(crate) fn walk(
        &self,
        name: &str,
        begin: impl FnOnce(&mut S),
        prefetch: impl Fn(&T),
        mut visit: impl FnMut(&mut T, &mut S),
        end: impl FnOnce(&mut S),
    ) -> bool {
        let Some(entry) = self.shard(name).read().get(name).cloned() else { return false };
        let _order = entry.order.lock();
        let mut members = entry.members.lock();
        // It may be on its way out of the map.
        if members.list.is_empty() {
            return false;
        }
        members.list.begin_walk();
        begin(&mut members.shared);
        loop {
            let Members { list, shared } = &mut *members;
            list.next_members(CHUNK).for_each(&prefetch);
            for _ in 0..CHUNK {
                let Some(member) = list.next() else {
                    end(shared);
                    return true;
                };
                visit(member, shared);
            }
            MutexGuard::bump(&mut members);
        }
    }

    /// Calls `work` if the name has no members, before it can get one. Returns whether it had none. `work` runs under a
    /// lock and must not call foreign code.
    pub(crate) fn if_nobody(&self, name: &str, work: impl FnOnce()) -> bool {
        let known = self.shard(name).write();
        let is_empty = known.get(name).is_none_or(|entry| entry.members.lock().list.is_empty());
        if is_empty {
            work();
        }
        is_empty
    }

    /// Clones every member of a name.
    pub(crate) fn members(&self, name: &str) -> Vec<T>
    where
        T: Clone,
    {
        let mut all = Vec::new();
        self.walk(name, |_| (), |_| (), |member, _| all.push(member.clone()), |_| ());
        all
    }

    /// Returns how many names there are, and how many memberships. The two may be off by those that
    /// change meanwhile.
    pub(crate) fn totals(&self) -> (usize, usize) {
        let names = self.shards.iter().map(|shard| shard.read().len()).sum();
        (names, self.memberships.load(Ordering::Relaxed))
    }

    /// Returns the number of members of a name.
    pub(crate) fn count(&self, name: &str) -> usize {
        let entry = self.shard(name).read().get(name).cloned();
        entry.map_or(0, |entry| entry.members.lock().list.len())
    }

    /// Returns the names of one shard, each with the number of its members. `None` behind the last shard.
    pub(crate) fn counts(&self, shard: usize) -> Option<Vec<(SmolStr, usize)>> {
        let shard = self.shards.get(shard)?;
        let entries = |known: &HashMap<SmolStr, Arc<Entry<T, S>>>| {
            known.iter().map(|(name, entry)| (name.clone(), Arc::clone(entry))).collect::<Vec<_>>()
        };
        let entries = entries(&shard.read());
        let count = |entry: &Entry<T, S>| entry.members.lock().list.len();
        Some(entries.into_iter().map(|(name, entry)| (name, count(&entry))).collect())
    }

    /// Returns the names that have members, as of the moments at which the iterator comes to them: it
    /// copies the names of one shard at a time, and holds no lock in between.
    pub(crate) fn names(self: Arc<Self>) -> impl Iterator<Item = SmolStr> {
        (0..SHARDS).flat_map(move |shard| {
            let shard = self.shards[shard].read();
            shard.keys().cloned().collect::<Vec<_>>()
        })
    }

    fn shard(&self, name: &str) -> &Shard<T, S> {
        &self.shards[self.hasher.hash_one(name) as usize % SHARDS]
    }
}

impl<T, S: Default> Default for Entry<T, S> {
    fn default() -> Self {
        let members = Members { list: WalkList::default(), shared: S::default() };
        Self { order: Mutex::default(), members: Mutex::new(members) }
    }
}

impl<T, S: Default> Membership<T, S> {
    /// Calls `work` under the lock with the member, the shared state, and whether the walk under
    /// way has visited the member already; without a walk that is true.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T, &mut S, bool) -> R) -> Option<R> {
        let Members { list, shared } = &mut *self.entry.members.lock();
        let (member, visited) = list.get_mut(self.key)?;
        Some(work(member, shared, visited))
    }

    /// Replaces the member, under the lock. A walk under way does not visit the new one.
    pub(crate) fn replace(&mut self, replace: impl FnOnce(T, &mut S) -> T) {
        let Members { list, shared } = &mut *self.entry.members.lock();
        if let Some(old) = list.remove(self.key) {
            self.key = list.insert(replace(old, shared));
        }
    }
}

impl<T, S: Default> Drop for Membership<T, S> {
    fn drop(&mut self) {
        self.registry.memberships.fetch_sub(1, Ordering::Relaxed);
        let mut members = self.entry.members.lock();
        let member = members.list.remove(self.key);
        let is_empty = members.list.is_empty();
        drop(members);
        if is_empty {
            let mut known = self.registry.shard(&self.name).write();
            if known.get(&self.name).is_some_and(|entry| entry.members.lock().list.is_empty()) {
                known.remove(&self.name);
            }
        }
        drop(member);
    }
}

/// A dense list that may change while it is walked.
///
/// The walk goes downwards. The first `unvisited` values are yet to be visited; those behind them
/// have been, or came after the walk began. Insertion and removal keep that order, so no value is
/// missed or visited twice.
pub(super) struct WalkList<T> {
    values: IndexMap<u64, T>,
    unvisited: usize,
    last_key: u64,
}

impl<T> WalkList<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn insert(&mut self, value: T) -> u64 {
        self.last_key += 1;
        // Most topics and socket ids have a single member.
        if self.values.capacity() == 0 {
            self.values.reserve_exact(1);
        }
        self.values.insert(self.last_key, value);
        self.last_key
    }

    /// The value and whether it counts as visited.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<(&mut T, bool)> {
        let (index, _, value) = self.values.get_full_mut(&key)?;
        Some((value, index >= self.unvisited))
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let mut index = self.values.get_index_of(&key)?;
        if index < self.unvisited {
            // Its place goes to the last unvisited value, whose place a visited one may take.
            self.unvisited -= 1;
            self.values.swap_indices(index, self.unvisited);
            index = self.unvisited;
        }
        let (_, value) = self.values.swap_remove_index(index)?;
        if self.values.len() < self.values.capacity() / 4 {
            self.values.shrink_to(self.values.len() * 2);
        }
        Some(value)
    }

    pub(super) fn begin_walk(&mut self) {
        self.unvisited = self.values.len();
    }

    /// Visits the next value of the walk.
    pub(super) fn next(&mut self) -> Option<&mut T> {
        self.unvisited = self.unvisited.checked_sub(1)?;
        self.values.get_index_mut(self.unvisited).map(|(_, value)| value)
    }

    /// The next `count` values of the walk, without visiting them.
    pub(super) fn next_members(&self, count: usize) -> impl Iterator<Item = &T> {
        let start = self.unvisited.saturating_sub(count);
        let values = self.values.get_range(start..self.unvisited);
        values.into_iter().flat_map(|values| values.values())
    }
}

impl<T> Default for WalkList<T> {
    fn default() -> Self {
        Self { values: IndexMap::new(), unvisited: 0, last_key: 0 }
    }
}

#[cfg(test)]
mod tests;
