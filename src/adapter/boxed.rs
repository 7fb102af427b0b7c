//! An adapter that is chosen when the program runs.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Adapter, AdapterLimits, BoxFuture, Channel, HistoryStore, NodeId, NodeInbox, PublishError,
    Reached, Store,
};

/// What the adapter in the box does.
impl Adapter for Box<dyn Adapter> {
    fn start(&self, node: NodeId, inbox: Arc<dyn NodeInbox>) {
        (**self).start(node, inbox);
    }

    fn publish(&self, to: Channel<'_>, frame: Bytes) -> Result<(), PublishError> {
        (**self).publish(to, frame)
    }

    fn reach(&self, node: NodeId, frame: Bytes) -> BoxFuture<'_, Reached> {
        (**self).reach(node, frame)
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        (**self).flush()
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        (**self).listen(topic)
    }

    fn ignore(&self, topic: &str) {
        (**self).ignore(topic);
    }

    fn hear_all(&self, all: bool) -> BoxFuture<'static, ()> {
        (**self).hear_all(all)
    }

    fn reconnect(&self) {
        (**self).reconnect();
    }

    fn limits(&self) -> AdapterLimits {
        (**self).limits()
    }

    fn store(&self) -> Option<&dyn Store> {
        (**self).store()
    }

    fn history(&self) -> Option<Arc<dyn HistoryStore>> {
        (**self).history()
    }
}
