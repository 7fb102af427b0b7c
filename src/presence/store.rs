//! [`PresenceStore`]: the entries of an endpoint and the changes that are yet to be announced, by
//! topic.

mod exchange;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde_json::{Map, Value};
use smol_str::SmolStr;
use tower_channels_transports::{Account, Reservation};

use super::error::PresenceError;
use super::hidden::{self, Hidden, Metas};
use super::pending_diff::PendingDiff;
use super::tracker::replication::Config;
use super::tracker::{Entry, Meta, Owner, Replica, Snapshot, Tracker};
use super::types::{MetaUpdate, PresenceDiff, Presences, encode_meta, validate_key};
use crate::adapter::NodeId;
use crate::topics::broadcast::Broadcast;

pub(crate) use self::exchange::Outgoing;

/// The entries of an endpoint and the changes that are yet to be announced, by topic.
pub(crate) struct PresenceStore {
    /// Each guards the topics of one shard, for a few steps in maps. It is taken under the lock of
    /// a channel's mailbox, and no lock is taken under it.
    shards: Box<[Mutex<Shard>]>,
    /// Whether anything was tracked, updated or untracked that other nodes do not know of.
    changed: Arc<AtomicBool>,
    last_owner: AtomicU64,
    max_meta: usize,
}

struct Shard {
    tracker: Tracker,
    /// For the entries.
    reservation: Reservation,
    hidden: Hidden,
    /// The topics that have something to announce, or a task that will announce it.
    updates: HashMap<SmolStr, TopicUpdates>,
}

#[derive(Default)]
struct TopicUpdates {
    diff: PendingDiff,
    /// The channels that have requested the state of the topic.
    requests: Vec<Arc<dyn StateRecipient>>,
    /// Whether a task will announce all of this.
    is_scheduled: bool,
}

/// A channel that receives the state of its topic.
pub(crate) trait StateRecipient: Send + Sync {
    fn receive_state(&self, state: &Broadcast);
}

/// What there is to announce on a topic at one moment. The diff leads from the last announcement to
/// the list.
pub(super) struct Announcement {
    /// Empty without a recipient.
    pub(super) list: Presences,
    pub(super) recipients: Vec<Arc<dyn StateRecipient>>,
    pub(super) diff: PresenceDiff,
}

/// The bytes that an entry holds, visible or hidden: its key, its meta, and its places in maps.
fn cost(key: &str, meta: &str) -> usize {
    key.len() + meta.len() + PLACES
}

fn cost_of(entry: &Entry) -> usize {
    cost(entry.key(), entry.meta())
}

fn cost_of_all(metas: &Metas) -> usize {
    metas.iter().map(|(key, meta)| cost(key, meta)).sum()
}

/// The number of shards. As the [hash](shard_of), it is part of what nodes have to agree on.
pub(crate) const SHARDS: usize = 16;

/// What an entry without a key and a meta holds, about.
const PLACES: usize = 512;

impl PresenceStore {
    /// Creates a store whose metas have at most `max_meta` bytes, of a node that has others beside
    /// it if it has an id.
    pub(super) fn new(max_meta: usize, account: &Arc<Account>, node: Option<NodeId>) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let alone = NodeId(started.as_millis() as u64);
        let changed = Arc::new(AtomicBool::new(false));
        let shard = |index: usize| {
            // Each shard is a replica of its own, so that no two entries have the same `phx_ref`.
            let replica = Replica { node: node.unwrap_or(alone), shard: index as u8 };
            let tracker = match node {
                Some(_) => Tracker::replicated(replica, Config::default(), Arc::clone(&changed)),
                None => Tracker::new(replica),
            };
            let reservation = Reservation::new(Arc::clone(account));
            let (hidden, updates) = (Hidden::default(), HashMap::new());
            Mutex::new(Shard { tracker, reservation, hidden, updates })
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            changed,
            last_owner: AtomicU64::new(0),
            max_meta,
        }
    }

    pub(crate) fn new_owner(&self) -> Owner {
        Owner(self.last_owner.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Validates a key and encodes its meta, for [`track`](Self::track).
    pub(crate) fn encode(&self, key: &str, meta: impl Serialize) -> Result<String, PresenceError> {
        let meta = serde_json::to_value(meta).map_err(|_| PresenceError::NotAnObject)?;
        validate_key(key)?;
        encode_meta(meta, self.max_meta)
    }

    /// Encodes what an update makes of a tracked meta, for [`update`](Self::update).
    pub(crate) fn encode_update(
        &self,
        owner: Owner,
        topic: &SmolStr,
        key: &SmolStr,
        update: impl MetaUpdate,
    ) -> Result<String, PresenceError> {
        let old = self.shard(topic).meta(owner, topic, key).ok_or(PresenceError::NotTracked)?;
        let old = serde_json::from_str::<Map<String, Value>>(&old).unwrap_or_default();
        encode_meta(update.update(old), self.max_meta)
    }

    /// Adds an entry.
    pub(crate) fn track(
        &self,
        owner: Owner,
        topic: &SmolStr,
        key: &SmolStr,
        meta: &str,
    ) -> Result<(), PresenceError> {
        let shard = &mut *self.shard(topic);
        if let Some(hidden) = shard.hidden.get(owner) {
            hidden::track(hidden, key, meta)?;
            shard.reservation.add(cost(key, meta));
            return Ok(());
        }
        let entry = shard.tracker.track(owner, topic, key, meta.into())?;
        shard.reservation.add(cost_of(&entry));
        shard.updates(topic).diff.join(entry);
        Ok(())
    }

    /// Replaces the meta of an entry.
    pub(crate) fn update(
        &self,
        owner: Owner,
        topic: &SmolStr,
        key: &SmolStr,
        meta: &str,
    ) -> Result<(), PresenceError> {
        let shard = &mut *self.shard(topic);
        if let Some(hidden) = shard.hidden.get(owner) {
            let old = hidden::update(hidden, key, meta)?;
            shard.reservation.add(meta.len());
            shard.reservation.subtract(old.len());
            return Ok(());
        }
        let (old, new) = shard.tracker.update(owner, topic, key, |_| meta.into())?;
        shard.reservation.add(cost_of(&new));
        shard.reservation.subtract(cost_of(&old));
        let updates = shard.updates(topic);
        updates.diff.leave(old);
        updates.diff.join(new);
        Ok(())
    }

    /// Removes an entry. Returns whether it was visible.
    pub(crate) fn untrack(&self, owner: Owner, topic: &SmolStr, key: &SmolStr) -> bool {
        let shard = &mut *self.shard(topic);
        if let Some(hidden) = shard.hidden.get(owner) {
            if let Some(meta) = hidden.remove(key) {
                shard.reservation.subtract(cost(key, &meta));
            }
            return false;
        }
        let removed = shard.tracker.untrack(owner, topic, key);
        let was_there = removed.is_some();
        if let Some(entry) = removed {
            shard.reservation.subtract(cost_of(&entry));
            shard.updates(topic).diff.leave(entry);
        }
        was_there
    }

    /// Removes all entries of an owner, which are on one topic. Returns whether any was visible.
    pub(super) fn untrack_all(&self, owner: Owner, topic: &SmolStr) -> bool {
        let mut shard = self.shard(topic);
        let hidden = shard.take_hidden(owner);
        let any_left = !shard.take_all(owner, topic).is_empty();
        drop(shard);
        drop(hidden);
        any_left
    }

    /// Hides all entries of an owner, which are on one topic, and those that it adds from now on, if
    /// `is_absent`. Returns whether any left.
    pub(super) fn hide_all(
        &self,
        owner: Owner,
        topic: &SmolStr,
        is_absent: impl FnOnce() -> bool,
    ) -> bool {
        let mut shard = self.shard(topic);
        if !is_absent() {
            return false;
        }
        let entries = shard.take_all(owner, topic);
        shard.reservation.add(entries.iter().map(cost_of).sum());
        shard.hidden.add(owner, entries.iter().map(|it| (it.key().clone(), it.meta().clone())));
        !entries.is_empty()
    }

    /// Removes the entries of an owner if they are hidden, and returns whether they were.
    pub(super) fn forget_hidden(&self, owner: Owner, topic: &SmolStr) -> bool {
        let hidden = self.shard(topic).take_hidden(owner);
        hidden.is_some()
    }

    /// Adds the hidden entries of an owner again, which are on one topic. Returns whether there were
    /// any.
    pub(super) fn show_all(&self, owner: Owner, topic: &SmolStr) -> bool {
        let mut shard = self.shard(topic);
        let hidden = shard.take_hidden(owner).unwrap_or_default();
        let mut any_came = false;
        for (key, meta) in hidden {
            if let Ok(entry) = shard.tracker.track(owner, topic, &key, meta) {
                shard.reservation.add(cost_of(&entry));
                shard.updates(topic).diff.join(entry);
                any_came = true;
            }
        }
        any_came
    }

    /// Adds a recipient of the topic's next list.
    pub(super) fn add_recipient(&self, topic: &SmolStr, recipient: Arc<dyn StateRecipient>) {
        self.shard(topic).updates(topic).requests.push(recipient);
    }

    pub(super) fn list(&self, topic: &str) -> Presences {
        let mut shard = self.shard(topic);
        let snapshot = shard.tracker.list(topic);
        shard.mark_seen(topic);
        drop(shard);
        Presences::from(&snapshot)
    }

    /// Returns the presences of a topic as they are now, for an onlooker: unlike [`list`](Self::list) it changes nothing in
    /// what is announced.
    pub(crate) fn snapshot(&self, topic: &str) -> Snapshot {
        self.shard(topic).tracker.list(topic)
    }

    pub(super) fn get_by_key(&self, topic: &str, key: &str) -> Presences {
        let mut shard = self.shard(topic);
        let entries = shard.tracker.get_by_key(topic, key);
        shard.mark_seen(topic);
        drop(shard);
        entries.into_iter().collect()
    }

    pub(super) fn count(&self, topic: &str) -> usize {
        self.shard(topic).tracker.count(topic)
    }

    /// Makes it the caller's task to announce a topic. Returns `false` if it is another's already,
    /// or if there is nothing to announce.
    pub(super) fn schedule(&self, topic: &str) -> bool {
        let mut shard = self.shard(topic);
        let updates = shard.updates.get_mut(topic);
        updates.is_some_and(|updates| !std::mem::replace(&mut updates.is_scheduled, true))
    }

    /// Gives up a [schedule](Self::schedule).
    pub(super) fn unschedule(&self, topic: &str) {
        if let Some(updates) = self.shard(topic).updates.get_mut(topic) {
            updates.is_scheduled = false;
        }
    }

    /// Takes what there is to announce on a topic. `None` if there is nothing, which ends the
    /// schedule.
    pub(super) fn take(&self, topic: &SmolStr) -> Option<Announcement> {
        let mut shard = self.shard(topic);
        let TopicUpdates { diff, requests: mut recipients, .. } = shard.updates.remove(topic)?;
        if diff.is_empty() && recipients.is_empty() {
            return None;
        }
        shard.updates(topic).is_scheduled = true;
        let snapshot = (!recipients.is_empty()).then(|| shard.tracker.list(topic));
        drop(shard);
        // A client that rejoins may have requested the state twice.
        recipients.sort_unstable_by_key(|recipient| Arc::as_ptr(recipient).addr());
        recipients.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let list = snapshot.as_ref().map(Presences::from).unwrap_or_default();
        let (joins, leaves) = diff.into_changes();
        let (joins, leaves) = (joins.into_iter().collect(), leaves.into_iter().collect());
        let diff = PresenceDiff { topic: topic.to_string(), joins, leaves };
        Some(Announcement { list, recipients, diff })
    }

    fn shard(&self, topic: &str) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(topic)].lock()
    }
}

/// The shard of a topic: its FNV-1a hash of 64 bits, modulo [`SHARDS`].
fn shard_of(topic: &str) -> usize {
    let hash = topic.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash % SHARDS as u64) as usize
}

impl Shard {
    fn updates(&mut self, topic: &SmolStr) -> &mut TopicUpdates {
        if !self.updates.contains_key(topic) {
            self.updates.insert(topic.clone(), TopicUpdates::default());
        }
        self.updates.get_mut(topic).expect("it was inserted")
    }

    /// Removes all entries of an owner that are visible, and returns them.
    fn take_all(&mut self, owner: Owner, topic: &SmolStr) -> Vec<Entry> {
        let entries = self.tracker.untrack_all(owner);
        if !entries.is_empty() {
            self.reservation.subtract(entries.iter().map(cost_of).sum());
            let updates = self.updates(topic);
            entries.iter().for_each(|entry| updates.diff.leave(entry.clone()));
        }
        entries
    }

    /// Removes an owner from the hidden ones, and returns its metas.
    fn take_hidden(&mut self, owner: Owner) -> Option<Metas> {
        let metas = self.hidden.remove(owner)?;
        self.reservation.subtract(cost_of_all(&metas));
        Some(metas)
    }

    /// Returns the meta of an entry, visible or not.
    fn meta(&mut self, owner: Owner, topic: &SmolStr, key: &SmolStr) -> Option<Meta> {
        match self.hidden.get(owner) {
            Some(metas) => metas.get(key).cloned(),
            None => self.tracker.get(owner, topic, key).map(|entry| entry.meta().clone()),
        }
    }

    /// A list of the topic is read.
    fn mark_seen(&mut self, topic: &str) {
        if let Some(updates) = self.updates.get_mut(topic) {
            updates.diff.mark_seen();
        }
    }
}

#[cfg(test)]
mod tests;
