//! [`OfAdapter`]: the store of an adapter, with the adapter.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use tower_channels::adapter::{
    Adapter, Append, BoxFuture, HistoryInbox, HistoryStore, Link, NodeId, NodeInbox, Page,
    PublishError, Since, StoreError,
};

/// A store that is used as a node does: the adapter is started first, and both are dropped together.
#[derive(Debug)]
pub struct OfAdapter {
    store: Arc<dyn HistoryStore>,
    adapter: Box<dyn Adapter>,
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
        Self { store, adapter: Box::new(adapter) }
    }
}

impl HistoryStore for OfAdapter {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        self.adapter.start(NodeId(RandomState::new().hash_one(0)), Arc::new(Nobody));
        self.store.start(inbox);
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        self.store.listen(topic)
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
