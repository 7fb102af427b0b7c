//! [`OfAdapter`]: the store of an adapter, with the adapter.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tower_channels::adapter::{
    Adapter, Append, BoxFuture, HistoryInbox, HistoryStore, Kept, Link, NodeId, NodeInbox, Page,
    PublishError, Since, StoreError,
};

/// A store that is used as a node does: the adapter is started first, and both are dropped together.
#[derive(Debug)]
pub struct OfAdapter {
    store: Arc<dyn HistoryStore>,
    adapter: Box<dyn Adapter>,
    /// Whether the engine was reached.
    is_up: watch::Sender<bool>,
}

/// Learns that the engine was reached.
struct Ear {
    inner: Arc<dyn HistoryInbox>,
    is_up: watch::Sender<bool>,
}

impl HistoryInbox for Ear {
    fn kept(&self, topic: &str, message: Kept) {
        self.inner.kept(topic, message);
    }

    fn interrupted(&self) {
        self.is_up.send_replace(true);
        self.inner.interrupted();
    }

    fn lost(&self, topic: &str, error: &StoreError) {
        self.inner.lost(topic, error);
    }
}

/// Nobody hears what the adapter hears.
struct Nobody;

impl NodeInbox for Nobody {
    fn receive(&self, _: Bytes) {}

    fn link(&self, _: Link) {}

    fn lost(&self, _: Bytes) {}
}

impl OfAdapter {
    /// Takes the store of an adapter.
    ///
    /// # Panics
    /// If it has none.
    pub fn new(adapter: impl Adapter) -> Self {
        let store = adapter.history().expect("an adapter with histories");
        Self { store, adapter: Box::new(adapter), is_up: watch::Sender::new(false) }
    }
}

impl HistoryStore for OfAdapter {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        self.adapter.start(NodeId(RandomState::new().hash_one(0)), Arc::new(Nobody));
        self.store.start(Arc::new(Ear { inner: inbox, is_up: self.is_up.clone() }));
    }

    /// Does not resolve before the engine was reached for the first time.
    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        let (mut is_up, listened) = (self.is_up.subscribe(), self.store.listen(topic));
        Box::pin(async move {
            let _ = is_up.wait_for(|is_up| *is_up).await;
            listened.await;
        })
    }

    fn ignore(&self, topic: &str) {
        self.store.ignore(topic);
    }

    fn append(&self, message: Append) -> Result<(), PublishError> {
        self.store.append(message)
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.store.read(topic, since, limit)
    }
}
