//! Who tracks presence: [`TrackGuard`] for a task, [`Ownership`] for a channel.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;
use smol_str::SmolStr;

use super::announcer::Announcer;
use super::error::PresenceError;
use super::tracker::Owner;
use super::types::MetaUpdate;

/// The presence of a task, from [`Presence::track_task`](crate::Presence::track_task). Dropping it
/// ends the presence.
#[must_use = "dropping it ends the presence"]
pub struct TrackGuard {
    announcer: Arc<Announcer>,
    owner: Owner,
    topic: SmolStr,
    key: SmolStr,
}

impl TrackGuard {
    pub(super) fn new(
        announcer: &Arc<Announcer>,
        topic: &str,
        key: &str,
        meta: impl Serialize,
    ) -> Result<Self, PresenceError> {
        let meta = announcer.store.encode(key, meta)?;
        let (announcer, topic, key) = (Arc::clone(announcer), SmolStr::new(topic), key.into());
        let owner = announcer.store.new_owner();
        announcer.store.track(owner, &topic, &key, &meta)?;
        announcer.schedule_diff(&topic);
        Ok(Self { announcer, owner, topic, key })
    }

    /// Updates the meta: to a JSON value, or with a function of the old one.
    ///
    /// # Errors
    /// If the new meta is not valid. Then the old one stays.
    pub fn update(&self, update: impl MetaUpdate) -> Result<(), PresenceError> {
        let Self { announcer, owner, topic, key } = self;
        let meta = announcer.store.encode_update(*owner, topic, key, update)?;
        announcer.store.update(*owner, topic, key, &meta)?;
        announcer.schedule_diff(topic);
        Ok(())
    }
}

impl Drop for TrackGuard {
    fn drop(&mut self) {
        self.announcer.untrack_all(self.owner, &self.topic);
    }
}

impl fmt::Debug for TrackGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, key, .. } = self;
        f.debug_struct("TrackGuard").field("topic", topic).field("key", key).finish_non_exhaustive()
    }
}

/// What a channel has to do with presence: nothing, for most.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    /// The owner of the channel's entries; 0 until it tracks one.
    owner: AtomicU64,
    /// Whether the client has requested the state of the topic, and so needs it again after a gap.
    follows: AtomicBool,
    /// Counts the beginnings and ends of the client's absences.
    absences: AtomicU64,
}

impl Ownership {
    /// The owner of the channel's entries, which is created with the first.
    pub(crate) fn get_or_create(&self, announcer: &Announcer) -> Owner {
        self.get().unwrap_or_else(|| {
            let new = announcer.store.new_owner();
            match self.owner.compare_exchange(0, new.0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => new,
                Err(other) => Owner(other),
            }
        })
    }

    /// The owner of the channel's entries, if it has tracked any.
    pub(crate) fn get(&self) -> Option<Owner> {
        match self.owner.load(Ordering::Relaxed) {
            0 => None,
            owner => Some(Owner(owner)),
        }
    }

    /// The client is absent from now on. Returns the number of this absence.
    pub(crate) fn begin_absence(&self) -> u64 {
        self.absences.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn end_absence(&self) {
        self.absences.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether the absence of this number goes on.
    pub(crate) fn is_absent(&self, absence: u64) -> bool {
        self.absences.load(Ordering::Relaxed) == absence
    }

    /// The client needs the state of the topic again whenever it may have missed a diff.
    pub(crate) fn follow(&self) {
        self.follows.store(true, Ordering::Relaxed);
    }

    pub(crate) fn follows(&self) -> bool {
        self.follows.load(Ordering::Relaxed)
    }
}
