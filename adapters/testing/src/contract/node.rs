//! [`Node`]: an adapter and what its inbox got.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower_channels::adapter::{Adapter, Channel, Link, NodeId, NodeInbox, PublishError, Reached};

use super::Line;

/// How long anything may take, and how long a node may hear nothing. Nothing that works comes near it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A node of a test.
pub(super) struct Node {
    pub(super) adapter: Box<dyn Adapter>,
    pub(super) id: NodeId,
    pub(super) line: Box<dyn Line>,
    ear: Arc<Ear>,
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Heard>,
    changed: Notify,
}

/// What an inbox got.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) frames: Vec<Bytes>,
    pub(super) lost: Vec<Bytes>,
    pub(super) links: Vec<Link>,
}

impl Heard {
    /// How often a frame was heard.
    pub(super) fn count(&self, frame: &[u8]) -> usize {
        self.frames.iter().filter(|it| *it == frame).count()
    }

    /// How often a frame was lost.
    pub(super) fn count_lost(&self, frame: &[u8]) -> usize {
        self.lost.iter().filter(|it| *it == frame).count()
    }

    /// The frames that begin with this text, in the order in which they were heard.
    pub(super) fn starting_with(&self, prefix: &str) -> Vec<&str> {
        let texts = self.frames.iter().filter_map(|frame| std::str::from_utf8(frame).ok());
        texts.filter(|text| text.starts_with(prefix)).collect()
    }
}

/// Enough to see why a wait was in vain.
impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            |frame: &Bytes| String::from_utf8_lossy(&frame[..frame.len().min(20)]).into_owned();
        let tail = |frames: &[Bytes]| frames.iter().rev().take(10).map(text).collect::<Vec<_>>();
        write!(f, "{} frames, the newest {:?}; ", self.frames.len(), tail(&self.frames))?;
        write!(f, "{} lost, the newest {:?}; {:?}", self.lost.len(), tail(&self.lost), self.links)
    }
}

impl NodeInbox for Ear {
    fn receive(&self, frame: Bytes) {
        self.heard.lock().expect("not poisoned").frames.push(frame);
        self.changed.notify_one();
    }

    fn link(&self, link: Link) {
        self.heard.lock().expect("not poisoned").links.push(link);
        self.changed.notify_one();
    }

    fn lost(&self, frame: Bytes) {
        self.heard.lock().expect("not poisoned").lost.push(frame);
        self.changed.notify_one();
    }
}

impl Node {
    /// Starts an adapter, and waits until it hears.
    pub(super) async fn start(adapter: Box<dyn Adapter>, line: Box<dyn Line>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let id = NodeId(COUNT.fetch_add(1, Ordering::Relaxed) | 0xabc0_0000_0000_0000);
        let ear = Arc::<Ear>::default();
        EARS.with_borrow_mut(|ears| ears.push((id, Arc::downgrade(&ear))));
        adapter.start(id, ear.clone());
        let node = Self { adapter, id, line, ear };
        node.is_told(&[Link::Up]).await;
        node
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.ear.heard.lock().expect("not poisoned")
    }

    /// Waits until what it got is so, for as long as it gets anything.
    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Heard) -> bool) {
        while !condition(&self.heard()) {
            let got = timeout(PATIENCE, self.ear.changed.notified()).await;
            assert!(got.is_ok(), "node {} waited for {what} in vain; {}", self.id, all_heard());
        }
    }

    /// Waits until it has heard a frame.
    pub(super) async fn hears(&self, frame: &str) {
        self.until(frame, |heard| heard.count(frame.as_bytes()) > 0).await;
    }

    /// Waits until it was told about its link as often, and asserts what.
    pub(super) async fn is_told(&self, links: &[Link]) {
        self.until(&format!("{links:?}"), |heard| heard.links.len() >= links.len()).await;
        assert_eq!(self.heard().links, links);
    }

    pub(super) fn publish(
        &self,
        to: Channel<'_>,
        frame: impl Into<Bytes>,
    ) -> Result<(), PublishError> {
        self.adapter.publish(to, frame.into())
    }

    /// Publishes a frame for which there is room.
    pub(super) fn all(&self, frame: impl Into<Bytes>) {
        self.publish(Channel::All, frame).expect("room in the queue");
    }

    /// Publishes a frame for which there is room.
    pub(super) fn topic(&self, topic: &str, frame: impl Into<Bytes>) {
        self.publish(Channel::Topic(topic), frame).expect("room in the queue");
    }

    pub(super) async fn reach(&self, node: NodeId, frame: impl Into<Bytes>) -> Reached {
        let reached = self.adapter.reach(node, frame.into());
        timeout(PATIENCE, reached).await.expect("an answer of reach")
    }

    pub(super) async fn flush(&self) {
        timeout(PATIENCE, self.adapter.flush()).await.expect("an end of flush");
    }

    pub(super) async fn listen(&self, topic: &str) {
        timeout(PATIENCE, self.adapter.listen(topic)).await.expect("an end of listen");
    }

    pub(super) async fn hear_all(&self, all: bool) {
        timeout(PATIENCE, self.adapter.hear_all(all)).await.expect("an end of hear_all");
    }

    /// Cuts the line, and waits until the node is told.
    pub(super) async fn lose_link(&self) {
        let count = self.heard().links.len();
        self.line.cut();
        self.until("Down", |heard| heard.links.len() > count).await;
        assert_eq!(self.heard().links.last(), Some(&Link::Down));
    }

    /// Heals the line, and waits until the node is told.
    pub(super) async fn regain_link(&self) {
        self.line.heal();
        self.until("Up", |heard| heard.links.last() == Some(&Link::Up)).await;
    }

    /// The inbox, which must not outlive the adapter.
    pub(super) fn inbox(&self) -> Weak<dyn NodeInbox> {
        let inbox: Weak<dyn NodeInbox> = Arc::<Ear>::downgrade(&self.ear);
        inbox
    }
}

/// Waits until something is so, asking every now and then.
pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        let mut pause = Duration::from_millis(5);
        while !condition().await {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    });
    assert!(waited.await.is_ok(), "waited for {what} in vain; {}", all_heard());
}

thread_local! {
    /// The nodes of the test that runs in this thread.
    static EARS: RefCell<Vec<(NodeId, Weak<Ear>)>> = const { RefCell::new(Vec::new()) };
}

/// What all nodes of the test have got.
fn all_heard() -> String {
    EARS.with_borrow(|ears| {
        let ears = ears.iter().filter_map(|(id, ear)| Some((id, ear.upgrade()?)));
        let heard = |ear: &Ear| format!("{:?}", ear.heard.lock().expect("not poisoned"));
        ears.map(|(id, ear)| format!("{id}: {}", heard(&ear))).collect::<Vec<_>>().join("; ")
    })
}

/// Texts that begin alike and end with a number.
pub(super) fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}
