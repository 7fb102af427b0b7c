//! Presence of what is no channel.

use std::fmt;

use serde::Serialize;
use smol_str::SmolStr;

use super::meta::MetaUpdate;
use super::tracker::Owner;
use super::{Presence, PresenceError};

/// The presence of a task, from [`Presence::track_task`]. It ends when this is dropped.
#[must_use = "dropping it ends the presence"]
pub struct TrackGuard {
    presence: Presence,
    owner: Owner,
    topic: SmolStr,
    key: SmolStr,
}

impl TrackGuard {
    pub(super) fn new(
        presence: &Presence,
        topic: &str,
        key: &str,
        meta: impl Serialize,
    ) -> Result<Self, PresenceError> {
        let meta = serde_json::to_value(meta).map_err(|_| PresenceError::NotAnObject)?;
        let meta = presence.0.check(key, meta)?;
        let owner = presence.0.owner();
        let (presence, topic, key) = (presence.clone(), SmolStr::new(topic), SmolStr::new(key));
        presence.0.track(owner, &topic, &key, &meta)?;
        Ok(Self { presence, owner, topic, key })
    }

    /// Changes the meta: to a JSON value, or with a function of the old one.
    ///
    /// # Errors
    /// If the new meta may not be. Then the old one stays.
    pub fn update(&self, update: impl MetaUpdate) -> Result<(), PresenceError> {
        let Self { presence, owner, topic, key } = self;
        let meta = presence.0.updated(*owner, topic, key, update)?;
        presence.0.update(*owner, topic, key, &meta)
    }
}

impl Drop for TrackGuard {
    fn drop(&mut self) {
        self.presence.0.leave(self.owner, &self.topic);
    }
}

impl fmt::Debug for TrackGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, key, .. } = self;
        f.debug_struct("TrackGuard").field("topic", topic).field("key", key).finish_non_exhaustive()
    }
}
