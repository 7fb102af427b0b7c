//! [`PresenceChanges`]: the diffs that clients receive, as a stream for the server's own code.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

use super::types::PresenceDiff;
use crate::lagged::Lagged;

/// The sending side, created with the first subscription.
#[derive(Default)]
pub(super) struct Changes(OnceLock<Sender<Arc<PresenceDiff>>>);

impl Changes {
    pub(super) fn subscribe(&self) -> PresenceChanges {
        PresenceChanges(self.0.get_or_init(|| broadcast::channel(CAPACITY).0).subscribe())
    }

    /// Returns whether there is any subscription.
    pub(super) fn is_followed(&self) -> bool {
        self.0.get().is_some_and(|sender| sender.receiver_count() > 0)
    }

    pub(super) fn send(&self, diff: PresenceDiff) {
        if let Some(sender) = self.0.get() {
            // An error means that all subscriptions are gone.
            let _ = sender.send(Arc::new(diff));
        }
    }
}

/// The joins and leaves on all topics, from [`Presence::changes`](crate::Presence::changes).
pub struct PresenceChanges(Receiver<Arc<PresenceDiff>>);

impl PresenceChanges {
    /// Waits for the next diff. Returns `None` once the endpoint is gone.
    ///
    /// Cancel safety: no diff is lost.
    ///
    /// # Errors
    /// [`Lagged`] if more than 1024 diffs waited: the oldest were dropped, and the next call
    /// returns the oldest that is left. A new [`list`](crate::Presence::list) has the current state.
    pub async fn next(&mut self) -> Option<Result<Arc<PresenceDiff>, Lagged>> {
        match self.0.recv().await {
            Ok(diff) => Some(Ok(diff)),
            Err(RecvError::Lagged(dropped)) => Some(Err(Lagged(dropped))),
            Err(RecvError::Closed) => None,
        }
    }
}

impl fmt::Debug for PresenceChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceChanges").finish_non_exhaustive()
    }
}

/// How many diffs wait for the slowest reader.
const CAPACITY: usize = 1024;
