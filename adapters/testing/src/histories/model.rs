//! [`Model`]: a store in memory, by the simplest rules that keep the contract.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_channels::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Kept, Page, PublishError, Since, StoreError,
};
use tower_channels::history::Position;

use super::Harness;

/// What is kept, in memory: it outlives the stores, and is forgotten with this.
#[derive(Debug, Default)]
pub struct ModelHarness(Arc<Mutex<Shelf>>);

impl Harness for ModelHarness {
    async fn start() -> Option<Self> {
        Some(Self::default())
    }

    async fn open(&self) -> Box<dyn HistoryStore> {
        Box::new(Model {
            shared: Arc::new(Shared {
                shelf: self.0.clone(),
                waiting: Mutex::default(),
                filled: Notify::new(),
            }),
            task: Mutex::default(),
        })
    }

    async fn forget(&mut self) {
        let mut shelf = lock(&self.0);
        *shelf = Shelf { epoch: shelf.epoch + 1, ..Shelf::default() };
    }
}

/// A [`HistoryStore`] in memory. It needs no thread, so that time can be paused.
pub struct Model {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    shelf: Arc<Mutex<Shelf>>,
    waiting: Mutex<VecDeque<Append>>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Shelf {
    epoch: u64,
    last: u64,
    topics: HashMap<String, Topic>,
}

#[derive(Debug, Default)]
struct Topic {
    messages: VecDeque<(Instant, Kept)>,
    within: Duration,
    last: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}

impl Topic {
    fn forget_old(&mut self) {
        let now = Instant::now();
        while self.messages.front().is_some_and(|(at, _)| now - *at > self.within) {
            self.messages.pop_front();
        }
    }
}

impl Shelf {
    /// Keeps a message, tells whoever waits, and returns what is handed over.
    fn keep(&mut self, message: Append) -> (String, Kept) {
        self.last += 1;
        let position = Position { epoch: self.epoch, number: self.last };
        let topic = self.topics.entry(message.topic.to_string()).or_default();
        topic.forget_old();
        let kept = Kept { position, previous: topic.last, content: message.content };
        topic.last = self.last;
        topic.within = message.keep.within;
        topic.messages.push_back((Instant::now(), kept.clone()));
        let bytes = |topic: &Topic| topic.messages.iter().map(|(_, it)| it.content.len()).sum();
        while topic.messages.len() > message.keep.messages
            || (topic.messages.len() > 1 && message.keep.bytes < bytes(topic))
        {
            topic.messages.pop_front();
        }
        if let Some(done) = message.done {
            let _ = done.send(Ok(position));
        }
        (message.topic.to_string(), kept)
    }

    fn read(&mut self, topic: &str, since: Since, limit: usize) -> Page {
        let mut none = Topic { last: self.last, ..Topic::default() };
        let is_new = !self.topics.contains_key(topic);
        let topic = self.topics.get_mut(topic).unwrap_or(&mut none);
        topic.forget_old();
        let forgotten = match topic.messages.front() {
            Some((_, oldest)) => oldest.previous,
            None if is_new => 0,
            None => topic.last,
        };
        let knows = |it: Position| it.epoch == self.epoch && it.number <= self.last;
        let all = topic.messages.iter().map(|(_, kept)| kept.clone());
        let mut messages: Vec<_> = match since {
            Since::After(after) => all
                .filter(|kept| knows(after) && kept.position.number > after.number)
                .take(limit)
                .collect(),
            Since::Before(before) => {
                all.filter(|kept| knows(before) && kept.position.number < before.number).collect()
            }
            Since::Newest => all.collect(),
        };
        messages.drain(..messages.len().saturating_sub(limit));
        let is_complete = match since {
            Since::After(after) => knows(after) && forgotten <= after.number,
            Since::Before(before) => knows(before) && (!messages.is_empty() || forgotten == 0),
            Since::Newest => true,
        };
        Page { messages, is_complete, last: Position { epoch: self.epoch, number: topic.last } }
    }
}

impl HistoryStore for Model {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        let shared = self.shared.clone();
        let task = tokio::spawn(async move {
            loop {
                shared.filled.notified().await;
                while let Some(message) = { lock(&shared.waiting).pop_front() } {
                    let (topic, kept) = { lock(&shared.shelf).keep(message) };
                    inbox.kept(&topic, kept);
                    tokio::task::yield_now().await;
                }
            }
        });
        *lock(&self.task) = Some(task);
    }

    fn append(&self, message: Append) -> Result<(), PublishError> {
        lock(&self.shared.waiting).push_back(message);
        self.shared.filled.notify_one();
        Ok(())
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move { Ok(lock(&self.shared.shelf).read(topic, since, limit)) })
    }
}

/// Keeps what waits, which nobody is handed any more.
impl Drop for Model {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
        for message in lock(&self.shared.waiting).drain(..) {
            lock(&self.shared.shelf).keep(message);
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").finish_non_exhaustive()
    }
}
