//! [`Follower`]: passes on what a store of several nodes hands over, and reads what is missing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tower_channels_transports::limited;

use super::following::{Cause, Following, HEARD_WITHIN, Id, Listened, Read, Step};
use super::position::Position;
use super::receiver::Receiver;
use super::{PATIENCE, Since};
use crate::adapter::{BoxFuture, HistoryInbox, HistoryStore, Kept, StoreError};
use crate::cluster::{Gaps, Shared};
use crate::pattern;
use crate::telemetry::{HISTORY_GAPS, HISTORY_READS};

/// Follows the topics of a store that several nodes share. The store has it, and it does not keep the store.
pub(super) struct Follower {
    receiver: Arc<Receiver>,
    store: Weak<dyn HistoryStore>,
    /// Of the topics with a history.
    patterns: Vec<String>,
    gaps: Arc<Gaps>,
    /// Where tasks are spawned: the store, or the application, may call from a thread without a runtime.
    runtime: Handle,
    following: Mutex<Following<Gate>>,
    /// Held while the store is told which topics to hand over, so that it is told in order.
    telling: Mutex<()>,
    /// Something is due.
    wake: Notify,
}

/// Dropped when a topic is heard.
type Gate = watch::Sender<()>;

/// How many messages one read returns.
const PAGE: usize = 200;

/// How often it looks for topics without subscribers.
const TICK: Duration = Duration::from_secs(1);

/// After how many messages of a topic a task yields.
const BATCH: usize = 64;

impl Follower {
    /// Starts the store, and to follow it. To be called in a runtime.
    pub(super) fn start(
        receiver: &Arc<Receiver>,
        store: &Arc<dyn HistoryStore>,
        patterns: Vec<String>,
        gaps: Arc<Gaps>,
    ) -> Arc<Self> {
        let follower = Arc::new(Self {
            receiver: Arc::clone(receiver),
            store: Arc::downgrade(store),
            patterns,
            gaps,
            runtime: Handle::current(),
            following: Mutex::new(Following::new()),
            telling: Mutex::default(),
            wake: Notify::new(),
        });
        let shared: Weak<dyn Shared> = Arc::downgrade(&(Arc::clone(&follower) as _));
        follower.gaps.share(shared);
        store.start(Arc::clone(&follower) as _);
        tokio::spawn(run(Arc::downgrade(&follower)));
        follower
    }

    /// A topic is about to have a subscriber. Returns what to wait for until it is heard; `None` if it is.
    pub(super) fn hear(self: &Arc<Self>, topic: &str) -> Option<BoxFuture<'static, ()>> {
        let store = self.store.upgrade()?;
        let telling = self.telling.lock();
        let mut following = self.following.lock();
        let (mut heard, new) = match following.listen(topic, self.receiver.now(), Gate::default) {
            Listened::Heard => return None,
            Listened::Unheard(gate) => (gate.subscribe(), None),
            Listened::New(id, gate) => (gate.subscribe(), Some(id)),
        };
        drop(following);
        if let Some(id) = new {
            let (follower, listening) = (Arc::downgrade(self), store.listen(topic));
            self.runtime.spawn(async move {
                listening.await;
                if let Some(follower) = follower.upgrade() {
                    follower.following.lock().listened(id);
                    follower.read_on();
                }
            });
        }
        drop(telling);
        // An engine that does not answer keeps no client waiting.
        Some(Box::pin(async move {
            let _ = timeout(HEARD_WITHIN, heard.changed()).await;
        }))
    }

    /// Up to where a topic was delivered here. `None` if it is not heard.
    pub(super) fn last(&self, topic: &str) -> Option<Position> {
        self.following.lock().last(topic)
    }

    /// See [`Following::delivered`].
    pub(super) fn delivered(&self) -> u64 {
        self.following.lock().delivered()
    }

    /// See [`Following::saw`].
    pub(super) fn saw(&self, topic: &str, end: Position) {
        if self.following.lock().saw(topic, end) {
            self.wake.notify_one();
        }
    }

    /// Begins the reads that are due.
    fn read_on(self: &Arc<Self>) {
        loop {
            let read = self.following.lock().next_read(self.receiver.now());
            let Some(read) = read else { return };
            self.runtime.spawn(read_one(Arc::downgrade(self), self.store.clone(), read));
        }
    }

    /// Delivers what a read has brought, and what has come meanwhile.
    async fn pass_on(self: Arc<Self>, id: Id) {
        for count in 1_usize.. {
            let step = self.following.lock().step(&id);
            match step {
                Some(Step::Pass(message)) => self.pass(&id.topic, message),
                Some(Step::Miss(cause)) => self.miss(&id.topic, cause),
                Some(Step::Heard(gate)) => drop(gate),
                None => break,
            }
            if count.is_multiple_of(BATCH) {
                tokio::task::yield_now().await;
            }
        }
        self.read_on();
    }

    /// Delivers the next message of a topic.
    fn pass(&self, topic: &str, message: Kept) {
        let position = message.position;
        let passed = || self.following.lock().passed(topic, position);
        if !self.receiver.pass(topic, message, passed) {
            passed();
        }
    }

    /// Messages of a topic are missing.
    fn miss(&self, topic: &str, cause: Cause) {
        let cause = match cause {
            Cause::Forgotten => "forgotten",
            Cause::Unavailable => "unavailable",
            Cause::Unheard => "unheard",
        };
        HISTORY_GAPS.increment([cause], 1);
        limited!(WARN, ?topic, cause, "messages of a history may be missing: clients join again");
        self.gaps.report_history(topic);
        self.receiver.windows.forget(topic);
    }

    /// Ignores the topics that have had no subscriber for a while.
    fn sweep(&self) {
        let Some(store) = self.store.upgrade() else { return };
        let now = self.receiver.now();
        let quiet = self.following.lock().quiet(now);
        for topic in quiet {
            if self.receiver.topics.subscribers(&topic) > 0 {
                self.following.lock().is_used(&topic, now);
                continue;
            }
            let _telling = self.telling.lock();
            if self.following.lock().ignore(&topic, now) {
                store.ignore(&topic);
                // It does not learn of what comes from now on.
                self.receiver.windows.forget(&topic);
            }
        }
    }
}

impl HistoryInbox for Follower {
    fn kept(&self, topic: &str, message: Kept) {
        let mut following = self.following.lock();
        let next = following.kept(topic, message);
        let is_due = following.is_due();
        drop(following);
        match next {
            Some(message) => self.pass(topic, message),
            None if is_due => self.wake.notify_one(),
            None => {}
        }
    }

    fn interrupted(&self) {
        self.following.lock().interrupted(self.receiver.now());
        self.wake.notify_one();
    }

    fn lost(&self, topic: &str, error: &StoreError) {
        self.receiver.lost(topic, error);
    }
}

impl Shared for Follower {
    fn has(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern::matches(pattern, topic))
    }

    fn doubt(&self) {
        self.interrupted();
    }
}

/// Makes a read, and delivers what it brings.
async fn read_one(follower: Weak<Follower>, store: Weak<dyn HistoryStore>, read: Read) {
    let Read { id, after } = read;
    let page = match store.upgrade() {
        Some(store) => {
            let (since, limit) =
                after.map_or((Since::Newest, 0), |after| (Since::After(after), PAGE));
            timeout(PATIENCE, store.read(&id.topic, since, limit)).await
        }
        None => return,
    };
    let Some(follower) = follower.upgrade() else { return };
    let page = page.map_err(|_| None).and_then(|read| read.map_err(Some));
    HISTORY_READS.increment([if page.is_ok() { "ok" } else { "failed" }], 1);
    if let Err(error) = &page {
        let topic = &id.topic;
        limited!(WARN, ?topic, ?error, "a history cannot be read: the store is unavailable");
    }
    follower.following.lock().finish_read(&id, page.ok(), follower.receiver.now());
    follower.pass_on(id).await;
}

/// Runs until the store is dropped.
async fn run(follower: Weak<Follower>) {
    while let Some(follower) = follower.upgrade().filter(|it| it.store.strong_count() > 0) {
        follower.sweep();
        follower.read_on();
        let pause = follower.following.lock().retries_in(follower.receiver.now()).unwrap_or(TICK);
        let _ = timeout(pause, follower.wake.notified()).await;
    }
}
