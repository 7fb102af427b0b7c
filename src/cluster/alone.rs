//! [`Alone`]: a node without others, whose store keeps records for the process that follows it.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;

use crate::adapter::{
    Adapter, AdapterLimits, BoxFuture, Channel, HistoryStore, NodeId, NodeInbox, PublishError,
    Reached, Store,
};

/// Reaches nobody, and is never linked.
#[derive(Debug)]
pub(super) struct Alone(pub(super) Arc<dyn HistoryStore>);

impl Adapter for Alone {
    fn start(&self, _: NodeId, _: Arc<dyn NodeInbox>) {}

    fn publish(&self, _: Channel<'_>, _: Bytes) -> Result<(), PublishError> {
        Ok(())
    }

    fn reach(&self, _: NodeId, _: Bytes) -> BoxFuture<'_, Reached> {
        Box::pin(ready(Reached::Nobody))
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn ignore(&self, _: &str) {}

    fn hear_all(&self, _: bool) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn reconnect(&self) {}

    fn limits(&self) -> AdapterLimits {
        AdapterLimits::new(usize::MAX).unordered()
    }

    fn store(&self) -> Option<&dyn Store> {
        self.0.records()
    }
}
