//! A node that remembers what its inbox got.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tower_channels::adapter::{Adapter, Channel, Link, NodeId, NodeInbox};
use tower_channels_nats::{Nats, NatsConfig};

#[allow(dead_code, reason = "each test file needs a part")]
pub mod history;

pub const MS: Duration = Duration::from_millis(1);

/// How long anything may take. Nothing that works comes near it.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Node {
    pub nats: Nats,
    pub id: NodeId,
    pub inbox: Arc<Inbox>,
}

#[derive(Default)]
pub struct Inbox {
    pub heard: Mutex<Vec<Bytes>>,
    pub lost: Mutex<Vec<Bytes>>,
    pub links: Mutex<Vec<Link>>,
    /// How long it takes to deliver a frame.
    pub delay: Mutex<Duration>,
}

impl NodeInbox for Inbox {
    fn receive(&self, frame: Bytes) {
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        self.heard.lock().push(frame);
    }

    fn link(&self, link: Link) {
        self.links.lock().push(link);
    }

    fn lost(&self, frame: Bytes) {
        self.lost.lock().push(frame);
    }
}

impl Node {
    /// Starts a node, and waits until it hears the others.
    pub async fn start(id: u64, config: NatsConfig) -> Self {
        let nats = Nats::connect(config).await.expect("it can be used");
        let node = Self { nats, id: NodeId(id), inbox: Arc::default() };
        node.nats.start(node.id, node.inbox.clone());
        node.is_told(&[Link::Up]).await;
        node
    }

    pub fn topic(&self, topic: &str, frame: impl Into<Bytes>) {
        self.nats.publish(Channel::Topic(topic), frame.into()).expect("room in the queue");
    }

    pub async fn hears(&self, frame: impl Into<Bytes>) {
        let frame = frame.into();
        until("the frame", || self.inbox.heard.lock().contains(&frame)).await;
    }

    /// Waits until these are the links that it was told.
    pub async fn is_told(&self, links: &[Link]) {
        until(&format!("{links:?}"), || *self.inbox.links.lock() == links).await;
    }
}

/// Waits until something is true.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(MS).await;
    }
}

/// Waits until something is true that has to be asked for.
pub async fn until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(MS).await;
    }
}
