//! Frames as a node sends them, and a node over no engine.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::{Bytes, BytesMut};
use tower_channels::adapter::{
    Adapter, AdapterLimits, BoxFuture, Channel, NodeId, NodeInbox, PublishError, Reached,
};
use tower_channels::{Payload, PubSub, PubSubConfig};

pub(crate) const TOPIC: &str = "room:1";
pub(crate) const EVENT: &str = "new_msg";

/// Returns JSON of so many bytes.
pub(crate) fn payload(size: usize) -> Payload {
    Payload::json(&"x".repeat(size - 2)).expect("JSON")
}

/// An adapter that sends nothing, and keeps the frame that was published last.
#[derive(Clone, Default)]
pub(crate) struct Nowhere(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inbox: OnceLock<Arc<dyn NodeInbox>>,
    last: Mutex<Bytes>,
}

impl Nowhere {
    /// Creates the node. To be called in a runtime.
    pub(crate) fn node(&self) -> PubSub {
        PubSub::with_config(PubSubConfig::new().adapter(self.clone())).expect("it is valid")
    }

    /// The frame that was published last.
    pub(crate) fn last(&self) -> Bytes {
        self.0.last.lock().expect("no panic").clone()
    }

    /// Hands a frame to the node.
    pub(crate) fn receive(&self, frame: Bytes) {
        self.0.inbox.get().expect("it is started").receive(frame);
    }
}

impl Adapter for Nowhere {
    fn start(&self, _: NodeId, inbox: Arc<dyn NodeInbox>) {
        let _ = self.0.inbox.set(inbox);
    }

    fn publish(&self, _: Channel<'_>, frame: Bytes) -> Result<(), PublishError> {
        *self.0.last.lock().expect("no panic") = frame;
        Ok(())
    }

    fn reach(&self, _: NodeId, _: Bytes) -> BoxFuture<'_, Reached> {
        Box::pin(async { Reached::Someone })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn ignore(&self, _: &str) {}

    fn hear_all(&self, _: bool) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn reconnect(&self) {}

    fn limits(&self) -> AdapterLimits {
        AdapterLimits::new(1 << 20)
    }
}

impl fmt::Debug for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nowhere")
    }
}

/// The broadcasts of a node that does not exist.
pub(crate) struct Sender {
    template: Bytes,
    last: u64,
}

impl Sender {
    /// Creates a sender of broadcasts with payloads of so many bytes. To be called in a runtime.
    pub(crate) fn new(node: u64, topic: &str, size: usize) -> Self {
        let nowhere = Nowhere::default();
        nowhere.node().broadcast(topic, EVENT, payload(size));
        let mut template = BytesMut::from(&nowhere.last()[..]);
        template[1..9].copy_from_slice(&node.to_be_bytes());
        Self { template: template.freeze(), last: 0 }
    }

    /// Returns the next frame.
    pub(crate) fn next(&mut self) -> Bytes {
        self.last += 1;
        let mut frame = BytesMut::from(&self.template[..]);
        frame[9..17].copy_from_slice(&self.last.to_be_bytes());
        frame.freeze()
    }
}
