//! [`Keeper`]: the history of an adapter that was started, and what it hands over.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tower_channels::adapter::{
    Append, HistoryInbox, HistoryStore, Keep, Kept, Page, Since, StoreError,
};
use tower_channels::history::Position;
use tower_channels_adapter_tests::histories::OfAdapter;
use tower_channels_redis::{Redis, RedisConfig};

use crate::node::PATIENCE;

/// More than any test writes.
pub(crate) const KEEP: Keep =
    Keep { messages: 10_000, bytes: 256 << 20, within: Duration::from_secs(3600) };

/// A store that was started.
pub(crate) struct Keeper {
    pub(crate) store: OfAdapter,
    ear: Arc<Ear>,
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<(String, Kept)>>,
    lost: Mutex<Vec<String>>,
    interruptions: watch::Sender<usize>,
}

impl HistoryInbox for Ear {
    fn kept(&self, topic: &str, message: Kept) {
        self.heard.lock().unwrap().push((topic.to_owned(), message));
    }

    fn interrupted(&self) {
        self.interruptions.send_modify(|count| *count += 1);
    }

    fn lost(&self, topic: &str, _: &StoreError) {
        self.lost.lock().unwrap().push(topic.to_owned());
    }
}

pub(crate) type Told = oneshot::Receiver<Result<Position, StoreError>>;

impl Keeper {
    /// Starts a store, and waits until it hears the topics.
    pub(crate) async fn start(config: RedisConfig, topics: &[&str]) -> Self {
        let redis = Redis::connect(config).await.expect("connects");
        let (store, ear) = (OfAdapter::new(redis), Arc::<Ear>::default());
        store.start(ear.clone());
        for topic in topics {
            timeout(PATIENCE, store.listen(topic)).await.expect("it is heard");
        }
        Self { store, ear }
    }

    pub(crate) fn append(&self, topic: &str, content: impl Into<Bytes>) -> Told {
        self.append_for(topic, content, KEEP)
    }

    pub(crate) fn append_for(&self, topic: &str, content: impl Into<Bytes>, keep: Keep) -> Told {
        let (done, told) = oneshot::channel();
        let content = content.into();
        let message = Append { topic: topic.into(), content, keep, done: Some(done) };
        self.store.append(message).expect("room in the queue");
        told
    }

    /// Appends a message for which nobody waits.
    pub(crate) fn append_untold(&self, topic: &str, content: impl Into<Bytes>) {
        let content = content.into();
        let message = Append { topic: topic.into(), content, keep: KEEP, done: None };
        self.store.append(message).expect("room in the queue");
    }

    /// Appends a message, and returns what has become of it.
    pub(crate) async fn try_keep(
        &self,
        topic: &str,
        content: impl Into<Bytes>,
    ) -> Result<Position, StoreError> {
        told(self.append(topic, content)).await
    }

    pub(crate) async fn keep(&self, topic: &str, content: impl Into<Bytes>) -> Position {
        self.try_keep(topic, content).await.expect("it is kept")
    }

    pub(crate) async fn read(&self, topic: &str, since: Since) -> Page {
        let page = timeout(PATIENCE, self.store.read(topic, since, 100_000)).await;
        page.expect("an end of read").expect("a store that answers")
    }

    pub(crate) async fn newest(&self, topic: &str) -> Page {
        self.read(topic, Since::Newest).await
    }

    pub(crate) async fn after(&self, topic: &str, position: Position) -> Page {
        self.read(topic, Since::After(position)).await
    }

    /// What was handed over of a topic.
    pub(crate) fn heard(&self, topic: &str) -> Vec<Kept> {
        let of_topic = |(name, kept): &(String, Kept)| (name == topic).then(|| kept.clone());
        lock(&self.ear.heard).iter().filter_map(of_topic).collect()
    }

    /// Waits until a message of a topic is handed over.
    pub(crate) async fn hears(&self, topic: &str, position: Position) {
        self.eventually("it is heard", || {
            self.heard(topic).iter().any(|kept| kept.position == position)
        })
        .await;
    }

    pub(crate) fn lost(&self) -> Vec<String> {
        lock(&self.ear.lost).clone()
    }

    /// How often it was told that something may be missing.
    pub(crate) fn interruptions(&self) -> usize {
        *self.ear.interruptions.borrow()
    }

    /// Waits for an interruption beyond so many.
    pub(crate) async fn interrupted(&self, before: usize) {
        let mut interruptions = self.ear.interruptions.subscribe();
        let more = interruptions.wait_for(|count| *count > before);
        timeout(PATIENCE, more).await.expect("it is told").expect("the ear is there");
    }

    pub(crate) async fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let waited = timeout(PATIENCE, async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: in vain");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

pub(crate) async fn told(told: Told) -> Result<Position, StoreError> {
    timeout(PATIENCE, told).await.expect("an end").expect("whoever waits is told")
}

/// The contents of messages, which are texts.
pub(crate) fn texts(messages: &[Kept]) -> Vec<String> {
    messages.iter().map(|kept| String::from_utf8_lossy(&kept.content).into_owned()).collect()
}
