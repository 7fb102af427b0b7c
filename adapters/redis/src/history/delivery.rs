//! [`Delivery`]: from the connection that hears to the inbox.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tower_channels::adapter::HistoryInbox;
use tower_channels_transports::limited;

use super::entry;
use crate::hearing::Interest;

/// Which topics are handed over, and to whom. Shared by the store and by the task that hears.
pub(crate) struct Delivery {
    pub(crate) interest: Interest,
    /// None before the start and after the end.
    inbox: Mutex<Option<Arc<dyn HistoryInbox>>>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { interest: Interest::in_some(), inbox: Mutex::default() }
    }
}

impl Delivery {
    pub(super) fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        *self.inbox.lock() = Some(inbox);
        self.interest.changed.notify_one();
    }

    /// Lets go of the inbox.
    pub(super) fn end(&self) {
        drop(self.inbox.lock().take());
    }

    pub(super) fn inbox(&self) -> Option<Arc<dyn HistoryInbox>> {
        self.inbox.lock().clone()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.inbox.lock().is_some()
    }

    /// Takes what was published of a topic.
    pub(crate) fn take(&self, topic: &[u8], message: Vec<u8>) {
        let Some(inbox) = self.inbox() else { return };
        let (Ok(topic), Some(kept)) = (str::from_utf8(topic), entry::published(message)) else {
            limited!(WARN, "somebody else has published on a channel of a history in Redis");
            return;
        };
        inbox.kept(topic, kept);
    }

    /// Everything is heard from now on, and something may have been missed.
    pub(crate) fn interrupted(&self) {
        if let Some(inbox) = self.inbox() {
            inbox.interrupted();
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").finish_non_exhaustive()
    }
}
