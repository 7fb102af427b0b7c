//! A store in memory that can be slow, fail or be silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use super::super::memory::Rings;
use crate::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Keep, Page, PublishError, Since, StoreError,
};
use crate::history::Position;

#[derive(Clone)]
pub(crate) struct Fake(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    appends: Mutex<Option<UnboundedSender<Append>>>,
    inbox: Mutex<Option<Arc<dyn HistoryInbox>>>,
    reads: AtomicUsize,
    /// How many reads are under way, and were at most.
    reading: Mutex<(usize, usize)>,
}

struct State {
    rings: Rings,
    mood: Mood,
    delay: Duration,
    is_cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    Fails,
    Silent,
    Full,
}

impl Fake {
    /// Creates a store that takes 10 ms for everything.
    pub(crate) fn new() -> Self {
        let keep = Keep { messages: usize::MAX, bytes: usize::MAX, within: Duration::MAX };
        let rings = Rings::new(7, usize::MAX, [keep].into_iter());
        let delay = Duration::from_millis(10);
        let state = State { rings, mood: Mood::Works, delay, is_cut: false };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            appends: Mutex::default(),
            inbox: Mutex::default(),
            reads: AtomicUsize::new(0),
            reading: Mutex::default(),
        }))
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.0.state.lock().mood = mood;
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.0.state.lock().delay = delay;
    }

    /// Hands over nothing more, or everything from now on.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.0.state.lock().is_cut = is_cut;
        if !is_cut {
            let inbox = self.0.inbox.lock().clone();
            inbox.expect("started").interrupted();
        }
    }

    /// How many reads were under way at most, since the last call.
    pub(crate) fn most_reads(&self) -> usize {
        std::mem::take(&mut self.0.reading.lock().1)
    }

    /// How often it was read.
    pub(crate) fn reads(&self) -> usize {
        self.0.reads.load(Ordering::Relaxed)
    }

    /// Keeps something without handing it over.
    pub(crate) fn insert(&self, topic: &str, content: Bytes) -> Position {
        let mut state = self.0.state.lock();
        state.rings.append(&topic.into(), 0, content, Duration::ZERO).0
    }

    fn count_reading(&self, begins: bool) {
        let (reading, most) = &mut *self.0.reading.lock();
        *reading = if begins { *reading + 1 } else { *reading - 1 };
        *most = (*most).max(*reading);
    }

    fn mood(&self) -> (Mood, Duration) {
        let state = self.0.state.lock();
        (state.mood, state.delay)
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl HistoryStore for Fake {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        let (sender, mut appends) = unbounded_channel::<Append>();
        *self.0.appends.lock() = Some(sender);
        *self.0.inbox.lock() = Some(Arc::clone(&inbox));
        let store = self.clone();
        tokio::spawn(async move {
            while let Some(Append { topic, content, done, .. }) = appends.recv().await {
                let (mood, delay) = store.mood();
                sleep(delay).await;
                let error = StoreError::new("as told");
                match (mood, done) {
                    (Mood::Silent, done) => std::mem::forget(done),
                    (Mood::Fails, Some(done)) => drop(done.send(Err(error))),
                    (Mood::Fails, None) => inbox.lost(&topic, &error),
                    (_, done) => {
                        let position = store.insert(&topic, content);
                        done.into_iter().for_each(|done| drop(done.send(Ok(position))));
                        let mut state = store.0.state.lock();
                        let mut page =
                            state.rings.read(&topic, 0, Since::Newest, 1, Duration::ZERO);
                        if state.is_cut {
                            page.messages.clear();
                        }
                        drop(state);
                        page.messages.into_iter().for_each(|kept| inbox.kept(&topic, kept));
                    }
                }
            }
        });
    }

    fn append(&self, message: Append) -> Result<(), PublishError> {
        if self.mood().0 == Mood::Full {
            return Err(PublishError::Overflow);
        }
        let appends = self.0.appends.lock();
        let sender = appends.as_ref().expect("started");
        sender.send(message).map_err(|_| PublishError::Overflow)
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            self.0.reads.fetch_add(1, Ordering::Relaxed);
            let (mood, delay) = self.mood();
            self.count_reading(true);
            sleep(delay).await;
            self.count_reading(false);
            match mood {
                Mood::Silent => std::future::pending().await,
                Mood::Fails => Err(StoreError::new("as told")),
                Mood::Works | Mood::Full => {
                    let rings = &mut self.0.state.lock().rings;
                    Ok(rings.read(topic, 0, since, limit, Duration::ZERO))
                }
            }
        })
    }
}
