//! [`Hidden`]: the entries of clients that are absent.

use std::collections::{BTreeMap, HashMap};

use smol_str::SmolStr;

use super::error::PresenceError;
use super::tracker::{Meta, Owner};

/// The entries of owners whose clients are absent, which nobody sees until they return. An owner is in
/// here while it is hidden, even without entries.
#[derive(Debug, Default)]
pub(super) struct Hidden(HashMap<Owner, Metas>);

/// The metas of an owner, by key. They are all on one topic.
pub(super) type Metas = BTreeMap<SmolStr, Meta>;

impl Hidden {
    /// Hides an owner, unless it is hidden, and adds these metas to its own.
    pub(super) fn add(&mut self, owner: Owner, metas: impl Iterator<Item = (SmolStr, Meta)>) {
        self.0.entry(owner).or_default().extend(metas);
    }

    /// Removes an owner and returns its metas, if it is hidden.
    pub(super) fn remove(&mut self, owner: Owner) -> Option<Metas> {
        let metas = self.0.remove(&owner);
        if self.0.is_empty() {
            // A crowd that left at once leaves no large map behind.
            self.0 = HashMap::new();
        }
        metas
    }

    /// Returns the metas of an owner, if it is hidden.
    pub(super) fn get(&mut self, owner: Owner) -> Option<&mut Metas> {
        self.0.get_mut(&owner)
    }
}

/// Adds an entry to those of a hidden owner.
pub(super) fn track(metas: &mut Metas, key: &SmolStr, meta: &str) -> Result<(), PresenceError> {
    if metas.contains_key(key) {
        return Err(PresenceError::AlreadyTracked);
    }
    metas.insert(key.clone(), meta.into());
    Ok(())
}

/// Replaces the meta of an entry of a hidden owner, and returns the old one.
pub(super) fn update(metas: &mut Metas, key: &SmolStr, meta: &str) -> Result<Meta, PresenceError> {
    let old = metas.get_mut(key).ok_or(PresenceError::NotTracked)?;
    Ok(std::mem::replace(old, meta.into()))
}
