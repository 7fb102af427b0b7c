//! What a channel has to do with presence: nothing, for most.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::store::PresenceStore;
use super::tracker::Owner;

/// Which owner a channel is, once it has tracked, and whether its client follows the list.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    /// 0 for none.
    owner: AtomicU64,
    follows: AtomicBool,
}

impl Ownership {
    /// The owner that this channel is. It becomes one if need be.
    pub(crate) fn owner(&self, store: &PresenceStore) -> Owner {
        self.known_owner().unwrap_or_else(|| {
            let new = store.owner();
            match self.owner.compare_exchange(0, new.0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => new,
                Err(other) => Owner(other),
            }
        })
    }

    /// The owner that this channel is, if it is one.
    pub(crate) fn known_owner(&self) -> Option<Owner> {
        match self.owner.load(Ordering::Relaxed) {
            0 => None,
            owner => Some(Owner(owner)),
        }
    }

    /// The client has been sent the list, and needs it again whenever it may have missed a diff.
    pub(crate) fn follow(&self) {
        self.follows.store(true, Ordering::Relaxed);
    }

    pub(crate) fn follows(&self) -> bool {
        self.follows.load(Ordering::Relaxed)
    }
}
