//! Who is interested in a name: a sharded map from topics, or socket ids, to their members.
//!
//! A shard's lock is held for a lookup, a member list's for as long as it is walked. So a broadcast
//! to a crowd holds up the joins of that one topic and of no other, and everyone on a topic
//! receives concurrent broadcasts in the same order.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use slab::Slab;
use smol_str::SmolStr;

/// Names and their members, who may have something in common.
pub(crate) struct Registry<T, C = ()> {
    shards: Box<[Shard<T, C>]>,
    hasher: RandomState,
}

type Shard<T, C> = RwLock<HashMap<SmolStr, Arc<Subscribers<T, C>>>>;

struct Subscribers<T, C>(Mutex<SubscriberList<T, C>>);

struct SubscriberList<T, C> {
    members: Slab<T>,
    common: C,
}

/// A membership, which ends when it is dropped.
pub(crate) struct Subscription<T, C: Default = ()> {
    topics: Arc<Registry<T, C>>,
    topic: SmolStr,
    members: Arc<Subscribers<T, C>>,
    key: usize,
}

const SHARDS: usize = 64;

impl<T, C: Default> Registry<T, C> {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::new() }
    }

    /// Adds a member. `first` runs before the member can be reached: what it sends comes before
    /// anything that is sent to all.
    pub(crate) fn add(
        self: &Arc<Self>,
        topic: &SmolStr,
        value: T,
        first: impl FnOnce(),
    ) -> Subscription<T, C> {
        let shard = self.shard(topic);
        let insert = |members: &Arc<Subscribers<T, C>>| {
            let mut crowd = members.lock();
            first();
            let key = crowd.members.insert(value);
            drop(crowd);
            let (topics, members) = (Arc::clone(self), Arc::clone(members));
            Subscription { topics, topic: topic.clone(), members, key }
        };
        // The shard stays locked while the member goes in, so that an empty list is not removed
        // under its first new member.
        let known = shard.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(members) = known.get(topic) {
            return insert(members);
        }
        drop(known);
        let mut known = shard.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            // Most socket ids have one member.
            let crowd = SubscriberList { members: Slab::with_capacity(1), common: C::default() };
            Arc::new(Subscribers(Mutex::new(crowd)))
        };
        insert(known.entry(topic.clone()).or_insert_with(new))
    }

    /// Calls `visit` for each member.
    pub(crate) fn each(&self, topic: &str, mut visit: impl FnMut(&T)) {
        self.with(topic, |members, _| members.iter().for_each(|(_, member)| visit(member)));
    }

    /// Calls `work` with all members and what they have in common, if there is any.
    pub(crate) fn with(&self, topic: &str, work: impl FnOnce(&mut Slab<T>, &mut C)) {
        let known = self.shard(topic).read().unwrap_or_else(PoisonError::into_inner);
        let Some(members) = known.get(topic).map(Arc::clone) else { return };
        drop(known);
        let SubscriberList { members, common } = &mut *members.lock();
        work(members, common);
    }

    fn shard(&self, topic: &str) -> &Shard<T, C> {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARDS]
    }
}

/// Calls `visit` for each member, and before that `prefetch` for some of them in a row. Of members who
/// were silent for long nothing is in a cache: so they are fetched side by side and not one by one.
pub(crate) fn walk<T>(members: &mut Slab<T>, prefetch: impl Fn(&T), mut visit: impl FnMut(&mut T)) {
    for first in (0..members.capacity()).step_by(AHEAD) {
        let keys = first..first + AHEAD;
        keys.clone().filter_map(|key| members.get(key)).for_each(&prefetch);
        for key in keys {
            if let Some(member) = members.get_mut(key) {
                visit(member);
            }
        }
    }
}

/// How many are fetched at once: more than a processor can wait for, and far less than a cache holds.
const AHEAD: usize = 32;

impl<T, C> Subscribers<T, C> {
    fn lock(&self) -> MutexGuard<'_, SubscriberList<T, C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, C: Default> Subscription<T, C> {
    /// Calls `work` with the member and what all have in common.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T, &mut C) -> R) -> Option<R> {
        let SubscriberList { members, common } = &mut *self.members.lock();
        members.get_mut(self.key).map(|member| work(member, common))
    }
}

impl<T, C: Default> Drop for Subscription<T, C> {
    fn drop(&mut self) {
        let mut crowd = self.members.lock();
        let gone = crowd.members.try_remove(self.key);
        let empty = crowd.members.is_empty();
        drop(crowd);
        if empty {
            let shard = self.topics.shard(&self.topic);
            let mut known = shard.write().unwrap_or_else(PoisonError::into_inner);
            if known.get(&self.topic).is_some_and(|known| known.lock().members.is_empty()) {
                known.remove(&self.topic);
            }
        }
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(topics: &Registry<u8>, topic: &str) -> Vec<u8> {
        let mut all = Vec::new();
        topics.each(topic, |member| all.push(*member));
        all
    }

    #[test]
    fn a_member_is_reached_until_it_is_dropped() {
        let topics = Arc::new(Registry::<u8>::new());
        let a = topics.add(&"t".into(), 1, || ());
        let b = topics.add(&"t".into(), 2, || ());
        assert_eq!(members(&topics, "t"), [1, 2]);
        drop(a);
        assert_eq!(members(&topics, "t"), [2]);
        assert!(members(&topics, "u").is_empty());
        drop(b);
        assert!(members(&topics, "t").is_empty());
    }

    #[test]
    fn a_topic_without_members_is_forgotten() {
        let topics = Arc::new(Registry::<u8>::new());
        for _ in 0..3 {
            drop(topics.add(&"t".into(), 1, || ()));
        }
        let known = topics.shards.iter().map(|shard| shard.read().expect("not poisoned").len());
        assert_eq!(known.sum::<usize>(), 0);
    }

    #[test]
    fn what_comes_first_runs_before_the_member_can_be_reached() {
        let topics = Arc::new(Registry::<u8>::new());
        let mut ran = false;
        let member = topics.add(&"t".into(), 1, || ran = true);
        assert!(ran);
        drop(member);
    }
}
