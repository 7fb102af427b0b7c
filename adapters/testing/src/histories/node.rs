//! [`Node`]: a store and what its inbox got.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tower_channels::adapter::{
    Append, HistoryInbox, HistoryStore, Keep, Kept, Page, Since, StoreError,
};
use tower_channels::history::Position;

/// How long anything may take. Nothing that works comes near it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// More than any test writes.
pub(super) const KEEP: Keep =
    Keep { messages: 10_000, bytes: 64 << 20, within: Duration::from_secs(3600) };

/// What becomes of a message.
pub(super) type Done = oneshot::Receiver<Result<Position, StoreError>>;

/// A started store.
pub(super) struct Node {
    pub(super) store: Box<dyn HistoryStore>,
    ear: Arc<Ear>,
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<(String, Kept)>>,
    changed: Notify,
}

impl HistoryInbox for Ear {
    fn kept(&self, topic: &str, message: Kept) {
        self.heard.lock().expect("not poisoned").push((topic.to_owned(), message));
        self.changed.notify_one();
    }
}

/// Names that are easily taken for others, or for more than a name.
pub(super) const NAMES: [&str; 18] = [
    "t", "T", "t ", " t", "t.", "t:*", "*", ">", "%", "'", "\"; --", "\0", "\n", "ä", "a\u{308}",
    "👋", "{t}", "t\\",
];

/// The longest name that a topic can have.
pub(super) fn longest_name() -> String {
    "x".repeat(255)
}

/// All topics of the tests, which a node listens to.
fn topics() -> impl Iterator<Item = String> {
    let plain = ["a", "b", "c", "other", "brief", "stays"].into_iter().chain(NAMES);
    let rooms = (0..30).map(|number| format!("room:{number}"));
    plain.map(str::to_owned).chain(rooms).chain([longest_name()])
}

impl Node {
    /// Starts a store that hands over all topics of the tests.
    pub(super) async fn start(store: Box<dyn HistoryStore>) -> Self {
        let ear = Arc::<Ear>::default();
        store.start(ear.clone());
        listen(&*store).await;
        Self { store, ear }
    }

    /// Appends a message for which there is room.
    pub(super) fn append_for(&self, topic: &str, content: impl Into<Bytes>, keep: Keep) -> Done {
        let (done, told) = oneshot::channel();
        let message =
            Append { topic: topic.into(), content: content.into(), keep, done: Some(done) };
        self.store.append(message).expect("room in the queue");
        told
    }

    pub(super) fn append(&self, topic: &str, content: impl Into<Bytes>) -> Done {
        self.append_for(topic, content, KEEP)
    }

    /// Appends a message, and waits until it is kept.
    pub(super) async fn keep_for(
        &self,
        topic: &str,
        content: impl Into<Bytes>,
        keep: Keep,
    ) -> Position {
        kept(self.append_for(topic, content, keep)).await
    }

    pub(super) async fn keep(&self, topic: &str, content: impl Into<Bytes>) -> Position {
        self.keep_for(topic, content, KEEP).await
    }

    pub(super) async fn read(&self, topic: &str, since: Since, limit: usize) -> Page {
        let page = timeout(PATIENCE, self.store.read(topic, since, limit)).await;
        let page = page.expect("an end of read").expect("a store that answers");
        assert!(page.messages.len() <= limit, "{} of {limit} messages", page.messages.len());
        page
    }

    pub(super) async fn after(&self, topic: &str, position: Position) -> Page {
        self.read(topic, Since::After(position), 10_000).await
    }

    pub(super) async fn newest(&self, topic: &str) -> Page {
        self.read(topic, Since::Newest, 10_000).await
    }

    /// What was handed over of a topic.
    pub(super) fn heard(&self, topic: &str) -> Vec<Kept> {
        let heard = self.ear.heard.lock().expect("not poisoned");
        heard.iter().filter(|(name, _)| name == topic).map(|(_, kept)| kept.clone()).collect()
    }

    /// Waits until as many messages of a topic were handed over, and returns them.
    pub(super) async fn hears(&self, topic: &str, count: usize) -> Vec<Kept> {
        let waited = timeout(PATIENCE, async {
            while self.heard(topic).len() < count {
                self.ear.changed.notified().await;
            }
        });
        let has_come = waited.await.is_ok();
        let heard = self.heard(topic);
        assert!(has_come, "{} of {count} messages were handed over on {topic:?}", heard.len());
        heard
    }

    /// The inbox, which must not outlive the store.
    pub(super) fn inbox(&self) -> Weak<dyn HistoryInbox> {
        let inbox: Weak<dyn HistoryInbox> = Arc::<Ear>::downgrade(&self.ear);
        inbox
    }
}

/// Listens to all topics of the tests.
pub(super) async fn listen(store: &dyn HistoryStore) {
    let listening: Vec<_> = topics().map(|topic| store.listen(&topic)).collect();
    for listened in listening {
        timeout(PATIENCE, listened).await.expect("an end of listen");
    }
}

/// Waits until a message is kept.
pub(super) async fn kept(done: Done) -> Position {
    let told = timeout(PATIENCE, done).await.expect("an end of the append");
    told.expect("whoever waits is told").expect("a store that keeps messages")
}

/// The contents of messages, which are texts.
pub(super) fn texts(messages: &[Kept]) -> Vec<String> {
    messages.iter().map(|kept| String::from_utf8_lossy(&kept.content).into_owned()).collect()
}

/// Asserts that each message has a higher number than the one before, and names it.
pub(super) fn assert_chained(messages: &[Kept]) {
    for pair in messages.windows(2) {
        assert_eq!(pair[0].position.epoch, pair[1].position.epoch);
        assert_eq!(pair[1].previous, pair[0].position.number, "{pair:?}");
        assert!(pair[0].position.number < pair[1].position.number, "{pair:?}");
    }
}

/// Waits until something is so, asking every now and then.
pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        let mut pause = Duration::from_millis(5);
        while !condition().await {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    });
    assert!(waited.await.is_ok(), "waited for {what} in vain");
}

/// Texts that begin alike and end with a number.
pub(super) fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}
