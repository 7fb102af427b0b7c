//! The instances of a channel that follow each other on one topic of one client.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use super::mailbox;
use crate::message::Ref;

/// The right to run a client's channel on a topic, which passes from each instance to the one that
/// replaces it: an instance begins once it has the lock, and holds it until nothing of it is left.
/// It is tokio's mutex, because it is awaited.
pub(crate) type TopicPermit = Arc<Mutex<()>>;

/// The permit of one instance, or of those that follow each other in one task.
pub(super) enum Permit {
    Awaited(TopicPermit),
    Held(#[expect(dead_code, reason = "released when dropped")] OwnedMutexGuard<()>),
}

impl Permit {
    /// Waits until nothing is left of the previous instance.
    pub(super) async fn acquire(&mut self) {
        if let Self::Awaited(permit) = self {
            *self = Self::Held(Arc::clone(permit).lock_owned().await);
        }
    }
}

/// The instance that a new join of the same topic replaces.
pub(crate) struct PreviousInstance {
    pub(crate) mailbox: mailbox::Owner,
    pub(crate) task: JoinHandle<()>,
    pub(crate) sent_join_ref: Ref,
}
