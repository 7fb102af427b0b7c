//! A store that remembers what its inbox got.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tower_channels::adapter::{
    Adapter, Append, HistoryInbox, HistoryStore, Keep, Kept, Page, Since, StoreError,
};
use tower_channels::history::Position;
use tower_channels_nats::{Nats, NatsConfig};

pub const KEEP: Keep = Keep { messages: 1000, bytes: 16 << 20, within: Duration::from_secs(3600) };

pub type Told = oneshot::Receiver<Result<Position, StoreError>>;

/// A started store.
pub struct Store {
    store: Arc<dyn HistoryStore>,
    _nats: Nats,
    pub inbox: Arc<Inbox>,
}

#[derive(Default)]
pub struct Inbox {
    pub heard: Mutex<Vec<Kept>>,
    pub lost: AtomicUsize,
    pub interruptions: AtomicUsize,
}

impl HistoryInbox for Inbox {
    fn kept(&self, _: &str, message: Kept) {
        self.heard.lock().push(message);
    }

    fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::SeqCst);
    }

    fn lost(&self, _: &str, _: &StoreError) {
        self.lost.fetch_add(1, Ordering::SeqCst);
    }
}

impl Store {
    /// Starts a store that listens to the topic `t`.
    pub async fn start(config: NatsConfig) -> Self {
        let nats = Nats::connect(config).await.expect("it can be used");
        let store = nats.history().expect("it has one");
        let inbox = Arc::<Inbox>::default();
        store.start(inbox.clone());
        drop(store.listen("t"));
        Self { store, _nats: nats, inbox }
    }

    /// The same, and waits until it hears.
    pub async fn up(config: NatsConfig) -> Self {
        let store = Self::start(config).await;
        store.is_interrupted(1).await;
        store
    }

    pub fn listen(&self, topic: &str) -> impl Future<Output = ()> {
        self.store.listen(topic)
    }

    #[allow(clippy::needless_pass_by_value, reason = "numbers and texts are passed alike")]
    pub fn append(&self, topic: &str, text: impl ToString) -> Told {
        let (done, told) = oneshot::channel();
        let content = text.to_string().into();
        let message = Append { topic: topic.into(), content, keep: KEEP, done: Some(done) };
        self.store.append(message).expect("room in the queue");
        told
    }

    pub async fn keep(&self, topic: &str, text: impl ToString) -> Position {
        self.append(topic, text).await.expect("it is told").expect("it is kept")
    }

    /// Appends until it is kept.
    pub async fn keep_at_last(&self, topic: &str, text: &str) -> Position {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.append(topic, text).await.expect("it is told") {
                Ok(position) => return position,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    pub async fn try_read(&self, topic: &str, since: Since) -> Result<Page, StoreError> {
        self.store.read(topic, since, 10_000).await
    }

    /// Reads, until the engine answers.
    pub async fn read(&self, topic: &str, since: Since) -> Page {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.try_read(topic, since).await {
                Ok(page) => return page,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn newest(&self, topic: &str) -> Page {
        self.read(topic, Since::Newest).await
    }

    pub async fn after(&self, topic: &str, position: Position) -> Page {
        self.read(topic, Since::After(position)).await
    }

    /// Waits until it was told so often that something may be missing, the start included.
    pub async fn is_interrupted(&self, count: usize) {
        super::until("an interruption", || {
            self.inbox.interruptions.load(Ordering::SeqCst) >= count
        })
        .await;
    }

    pub async fn hears(&self, count: usize) -> Vec<Kept> {
        super::until("the messages", || self.inbox.heard.lock().len() >= count).await;
        self.inbox.heard.lock().clone()
    }
}

pub fn texts(messages: &[Kept]) -> Vec<String> {
    messages.iter().map(|kept| String::from_utf8_lossy(&kept.content).into_owned()).collect()
}

pub fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}
