//! What is tracked and what is yet to be announced, by topic.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use smol_str::SmolStr;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::PresenceError;
use super::announcer;
use super::changes::{Changes, PresenceChanges};
use super::config::{Fetched, PresenceConfig};
use super::list::{PresenceDiff, Presences};
use super::meta::{Meta, MetaUpdate, check_key, checked_meta};
use super::pending_diff::PendingDiff;
use super::tracker::{Config, Entry, Owner, Replica, TrackError, Tracker};
use crate::payload::Payload;
use crate::pubsub::{Broadcast, PubSub};

/// Everything that is present on an endpoint.
pub(crate) struct PresenceStore {
    pub(super) config: PresenceConfig,
    pubsub: PubSub,
    /// The lock of a shard is taken under that of a channel's mailbox, and no other under it.
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    last_owner: AtomicU64,
    changes: Changes,
    /// Where announcers run that are needed from outside of a runtime.
    runtime: OnceLock<Handle>,
}

struct Shard {
    tracker: Tracker,
    /// Registry on which there is something to say, each with a task that says it.
    updates: HashMap<SmolStr, TopicUpdates>,
}

#[derive(Default)]
struct TopicUpdates {
    pending: PendingDiff,
    /// Those who are to receive the whole.
    waiting: Vec<Arc<dyn StateRecipient>>,
    announced: bool,
}

/// A channel that receives the state of its topic.
pub(crate) trait StateRecipient: Send + Sync {
    fn receive_state(&self, state: &Payload);
}

/// What is to be said at one moment: the diff leads from what was said before to the list.
pub(super) struct Announcement {
    pub(super) topic: SmolStr,
    pub(super) list: Presences,
    pub(super) waiting: Vec<Arc<dyn StateRecipient>>,
    pub(super) diff: PresenceDiff,
}

const SHARDS: usize = 16;

impl PresenceStore {
    pub(crate) fn new(config: PresenceConfig, pubsub: PubSub) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = started.as_millis() as u64;
        let shard = |index: usize| {
            // Each shard is a replica of its own: so no two of their entries have one `phx_ref`.
            let replica = Replica { name: format!("local/{index}").into(), incarnation: started };
            let tracker = Tracker::new(replica, Config::default());
            Mutex::new(Shard { tracker, updates: HashMap::new() })
        };
        Self {
            config,
            pubsub,
            shards: (0..SHARDS).map(shard).collect(),
            hasher: RandomState::new(),
            last_owner: AtomicU64::new(0),
            changes: Changes::default(),
            runtime: OnceLock::new(),
        }
    }

    /// Someone new who may track.
    pub(crate) fn owner(&self) -> Owner {
        Owner(self.last_owner.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The text of a meta that may be tracked.
    pub(crate) fn check(&self, key: &str, meta: Value) -> Result<String, PresenceError> {
        check_key(key)?;
        checked_meta(meta, self.config.max_meta)
    }

    /// Tracks a meta that was [checked](Self::check).
    pub(crate) fn track(
        self: &Arc<Self>,
        owner: Owner,
        topic: &SmolStr,
        key: &str,
        meta: &str,
    ) -> Result<(), PresenceError> {
        let key = SmolStr::new(key);
        let mut shard = self.shard(topic);
        let entry = shard.tracker.track(owner, topic, &key, meta.into())?;
        self.announce(shard, topic, |updates| updates.pending.join(entry));
        Ok(())
    }

    /// The text of the meta that an update makes of what is tracked.
    pub(crate) fn updated(
        &self,
        owner: Owner,
        topic: &SmolStr,
        key: &str,
        update: impl MetaUpdate,
    ) -> Result<String, PresenceError> {
        let old = self.shard(topic).tracker.get(owner, topic, &key.into());
        let old = old.ok_or(PresenceError::NotTracked)?;
        let old = serde_json::from_str::<Map<String, Value>>(old.meta()).unwrap_or_default();
        checked_meta(update.update(old), self.config.max_meta)
    }

    /// Replaces a meta by one that was checked.
    pub(crate) fn update(
        self: &Arc<Self>,
        owner: Owner,
        topic: &SmolStr,
        key: &str,
        meta: &str,
    ) -> Result<(), PresenceError> {
        let key = SmolStr::new(key);
        let mut shard = self.shard(topic);
        let (old, new) = shard.tracker.update(owner, topic, &key, |_| meta.into())?;
        self.announce(shard, topic, |updates| {
            updates.pending.leave(old);
            updates.pending.join(new);
        });
        Ok(())
    }

    /// Ends one entry. Whether there was one.
    pub(crate) fn untrack(self: &Arc<Self>, owner: Owner, topic: &SmolStr, key: &str) -> bool {
        let key = SmolStr::new(key);
        let mut shard = self.shard(topic);
        let Some(entry) = shard.tracker.untrack(owner, topic, &key) else { return false };
        self.announce(shard, topic, |updates| updates.pending.leave(entry));
        true
    }

    /// Ends all entries of an owner, who tracked on this topic only.
    pub(crate) fn leave(self: &Arc<Self>, owner: Owner, topic: &SmolStr) {
        let mut shard = self.shard(topic);
        let gone = shard.tracker.untrack_all(owner);
        if !gone.is_empty() {
            self.announce(shard, topic, |updates| {
                gone.into_iter().for_each(|entry| updates.pending.leave(entry));
            });
        }
    }

    /// Sends a channel the list of its topic, with the next announcement.
    pub(crate) fn request_state(self: &Arc<Self>, topic: &SmolStr, from: Arc<dyn StateRecipient>) {
        let shard = self.shard(topic);
        self.announce(shard, topic, |updates| updates.waiting.push(from));
    }

    pub(super) fn list(&self, topic: &str) -> Presences {
        let mut shard = self.shard(topic);
        let snapshot = shard.tracker.list(topic);
        shard.seen(topic);
        drop(shard);
        Presences::from(&snapshot)
    }

    pub(super) fn get_by_key(&self, topic: &str, key: &str) -> Presences {
        let mut shard = self.shard(topic);
        let entries = shard.tracker.get_by_key(topic, key);
        shard.seen(topic);
        drop(shard);
        presences(entries)
    }

    pub(super) fn count(&self, topic: &str) -> usize {
        self.shard(topic).tracker.count(topic)
    }

    pub(super) fn changes(&self) -> PresenceChanges {
        self.changes.subscribe()
    }

    /// What the application knows of keys elsewhere.
    pub(super) async fn fetch(&self, topic: &str, keys: Vec<String>) -> Fetched {
        let Some(fetch) = self.config.fetch.as_ref().filter(|_| !keys.is_empty()) else {
            return Fetched::new();
        };
        let (fetch, topic) = (Arc::clone(fetch), topic.to_owned());
        // A task of its own, so that a panic in it ends nothing else. It ends with the set.
        let mut fetching = JoinSet::new();
        fetching.spawn(async move { fetch(topic, keys).await });
        match tokio::time::timeout(self.config.fetch_timeout, fetching.join_next()).await {
            Ok(Some(Ok(fetched))) => return fetched,
            Ok(Some(Err(error))) => tracing::error!(%error, "the presence fetch hook crashed"),
            Ok(None) => {}
            Err(_) => tracing::error!("the presence fetch hook timed out"),
        }
        Fetched::new()
    }

    /// Adds to what is to be said on a topic, and sees to it that somebody says it.
    fn announce(
        self: &Arc<Self>,
        mut shard: MutexGuard<'_, Shard>,
        topic: &SmolStr,
        say: impl FnOnce(&mut TopicUpdates),
    ) {
        if !shard.updates.contains_key(topic) {
            shard.updates.insert(topic.clone(), TopicUpdates::default());
        }
        let Some(updates) = shard.updates.get_mut(topic) else { return };
        say(updates);
        if updates.announced {
            return;
        }
        let runtime = Handle::try_current().ok().or_else(|| self.runtime.get().cloned());
        // Outside of any runtime it waits for whoever changes something next.
        if let Some(runtime) = runtime {
            updates.announced = true;
            drop(shard);
            self.runtime.get_or_init(|| runtime.clone());
            runtime.spawn(announcer::run(Arc::clone(self), topic.clone()));
        }
    }

    /// What is to be said now. `None` if that is nothing: then the announcer ends.
    pub(super) fn announcement(&self, topic: &SmolStr) -> Option<Announcement> {
        let mut shard = self.shard(topic);
        let TopicUpdates { pending, mut waiting, .. } = shard.updates.remove(topic)?;
        if pending.is_empty() && waiting.is_empty() {
            return None;
        }
        let updates = TopicUpdates { announced: true, ..TopicUpdates::default() };
        shard.updates.insert(topic.clone(), updates);
        let snapshot = (!waiting.is_empty()).then(|| shard.tracker.list(topic));
        drop(shard);
        // Who joins twice in a row asks twice.
        waiting.sort_unstable_by_key(|recipient| Arc::as_ptr(recipient).addr());
        waiting.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let list = snapshot.as_ref().map(Presences::from).unwrap_or_default();
        let (joins, leaves) = pending.into_changes();
        let (joins, leaves) = (presences(joins), presences(leaves));
        let diff = PresenceDiff { topic: topic.to_string(), joins, leaves };
        Some(Announcement { topic: topic.clone(), list, waiting, diff })
    }

    /// The announcer of a topic is gone without having said everything.
    pub(super) fn unannounced(&self, topic: &SmolStr) {
        if let Some(updates) = self.shard(topic).updates.get_mut(topic) {
            updates.announced = false;
        }
    }

    /// Sends a diff to everyone on its topic, and to the server's own code.
    pub(super) fn broadcast(
        &self,
        topic: SmolStr,
        diff: PresenceDiff,
    ) -> Result<(), serde_json::Error> {
        let payload = Payload::json(&diff)?;
        self.pubsub
            .broadcast(Broadcast::new(topic, "presence_diff".into(), payload).volatile(), None);
        self.changes.send(diff);
        Ok(())
    }

    /// Nothing panics while holding the lock, so poison has no meaning here.
    fn shard(&self, topic: &str) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[self.hasher.hash_one(topic) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Somebody sees what is there on a topic.
    fn seen(&mut self, topic: &str) {
        if let Some(updates) = self.updates.get_mut(topic) {
            updates.pending.seen();
        }
    }
}

fn presences(entries: Vec<Entry>) -> Presences {
    entries.into_iter().map(|entry| (entry.key().clone(), Meta::new(entry))).collect()
}

impl From<TrackError> for PresenceError {
    fn from(error: TrackError) -> Self {
        match error {
            TrackError::AlreadyTracked => Self::AlreadyTracked,
            TrackError::NotTracked => Self::NotTracked,
            TrackError::TooLarge => Self::MetaTooLong,
            TrackError::NotAnObject => Self::NotAnObject,
        }
    }
}
