//! Presence for the server's own code: a stream of what is announced.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

use super::list::PresenceDiff;

/// Where changes go, once somebody wants them.
#[derive(Default)]
pub(super) struct Changes(OnceLock<Sender<Arc<PresenceDiff>>>);

impl Changes {
    pub(super) fn subscribe(&self) -> PresenceChanges {
        PresenceChanges(self.0.get_or_init(|| broadcast::channel(WAITING).0).subscribe())
    }

    pub(super) fn send(&self, diff: PresenceDiff) {
        if let Some(sender) = self.0.get() {
            // Nobody may listen any more.
            let _ = sender.send(Arc::new(diff));
        }
    }
}

/// Who comes and goes, from [`Presence::changes`](super::Presence::changes).
pub struct PresenceChanges(Receiver<Arc<PresenceDiff>>);

/// Whoever reads the changes was too slow: so many of them are lost, and only a new
/// [`list`](super::Presence::list) says how things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged(pub u64);

impl PresenceChanges {
    /// The next change, or `None` once the endpoint is gone.
    ///
    /// Cancel safety: no change is lost.
    ///
    /// # Errors
    /// If more than 1024 changes waited: the oldest were dropped, and the next call goes on behind
    /// them.
    pub async fn next(&mut self) -> Option<Result<Arc<PresenceDiff>, Lagged>> {
        match self.0.recv().await {
            Ok(diff) => Some(Ok(diff)),
            Err(RecvError::Lagged(missed)) => Some(Err(Lagged(missed))),
            Err(RecvError::Closed) => None,
        }
    }
}

impl fmt::Debug for PresenceChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceChanges").finish_non_exhaustive()
    }
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} presence changes were missed", self.0)
    }
}

impl std::error::Error for Lagged {}

const WAITING: usize = 1024;
