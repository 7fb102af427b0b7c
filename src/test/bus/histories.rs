//! The [`HistoryStore`] of a [`Bus`](super::Bus).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::Bus;
use super::engine::{Engine, Place};
use crate::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Keep, Kept, Page, PublishError, Since,
    StoreError,
};
use crate::history::Position;

/// What happens to the histories at one node. By default everything is done and handed over at once.
#[derive(Clone, Copy, Debug, Default)]
#[doc(hidden)]
pub struct HistoryPath {
    /// Reads and messages of the node are refused.
    pub is_away: bool,
    /// What is read is known so much later.
    pub read_delay: Duration,
    /// What is kept is handed over so much later.
    pub delay: Duration,
    /// The next so many messages are not handed over. The node is told a second later that something may be missing.
    pub lose: u32,
    /// The next so many are handed over twice.
    pub repeat: u32,
    /// The next so many messages of the node are kept, and it is told that they are not.
    pub lose_answers: u32,
}

/// What is kept, and what is on its way.
#[derive(Default)]
pub(super) struct Histories {
    epochs: u64,
    /// The last number.
    last: u64,
    topics: BTreeMap<SmolStr, Topic>,
    ends: BTreeMap<Place, End>,
    /// Numbers what is on its way, so that it keeps its order.
    count: u64,
    woken: Vec<Arc<Notify>>,
    /// Everything that was ever kept, if that is recorded.
    record: Option<Vec<(SmolStr, Kept)>>,
}

#[derive(Default)]
struct Topic {
    messages: VecDeque<(Kept, Instant)>,
    /// The number of the newest that was forgotten.
    forgotten: u64,
    last: u64,
}

/// A node, as the histories see it.
#[derive(Default)]
struct End {
    is_started: bool,
    path: HistoryPath,
    topics: BTreeSet<SmolStr>,
    due: BTreeMap<(Instant, u64), Due>,
    /// When the newest message is handed over.
    newest: Option<Instant>,
    wake: Arc<Notify>,
}

/// What a node is told.
enum Due {
    Kept(SmolStr, Kept),
    Interrupted,
    /// What became of a message of its own.
    Failed(SmolStr, Option<oneshot::Sender<Result<Position, StoreError>>>),
}

/// How long a node waits for an engine that does not answer.
const PATIENCE: Duration = Duration::from_millis(1900);

impl Histories {
    fn epoch(&self) -> u64 {
        self.epochs + 1
    }

    pub(super) fn forget(&mut self) {
        self.epochs += 1;
        self.topics.clear();
    }

    /// Forgets the messages of all topics, but not where they stood.
    pub(super) fn forget_messages(&mut self) {
        for topic in self.topics.values_mut() {
            topic.messages.clear();
            topic.forgotten = topic.last;
        }
    }

    /// Takes what was kept since the last call. The first begins to record it.
    pub(super) fn take_record(&mut self) -> Vec<(SmolStr, Kept)> {
        self.record.replace(Vec::new()).unwrap_or_default()
    }

    pub(super) fn set_path(&mut self, place: Place, path: HistoryPath) {
        self.end(place).path = path;
    }

    pub(super) fn take_woken(&mut self) -> Vec<Arc<Notify>> {
        std::mem::take(&mut self.woken)
    }

    /// What was on its way to a node is lost.
    pub(super) fn hang_up(&mut self, place: Place) {
        self.end(place).due.retain(|_, due| matches!(due, Due::Failed(..)));
    }

    /// A node is handed over everything from now on.
    pub(super) fn pick_up(&mut self, place: Place) {
        self.enter(place, Instant::now(), Due::Interrupted);
    }

    fn end(&mut self, place: Place) -> &mut End {
        self.ends.entry(place).or_default()
    }

    fn enter(&mut self, place: Place, at: Instant, due: Due) {
        self.count += 1;
        let count = self.count;
        let end = self.end(place);
        let wake = Arc::clone(&end.wake);
        if end.is_started {
            end.due.insert((at, count), due);
            self.woken.push(wake);
        }
    }

    fn append(&mut self, topic: &SmolStr, content: bytes::Bytes, keep: Keep, now: Instant) -> Kept {
        self.last += 1;
        let position = Position { epoch: self.epoch(), number: self.last };
        let it = self.topics.entry(topic.clone()).or_default();
        let previous = std::mem::replace(&mut it.last, position.number);
        let kept = Kept { position, previous, content };
        it.messages.push_back((kept.clone(), now));
        if let Some(record) = &mut self.record {
            record.push((topic.clone(), kept.clone()));
        }
        it.trim(keep, now);
        kept
    }

    fn read(&self, topic: &str, since: Since, limit: usize) -> Page {
        let nothing = Topic { last: self.last, ..Topic::default() };
        let it = self.topics.get(topic).unwrap_or(&nothing);
        let position = |number| Position { epoch: self.epoch(), number };
        let place =
            |number| it.messages.partition_point(|(kept, _)| kept.position.number <= number);
        let is_known = |at: Position| at.epoch == self.epoch();
        let len = it.messages.len();
        let (range, is_complete) = match since {
            Since::After(at) => {
                let start = if is_known(at) { place(at.number) } else { len };
                let is_there = (it.forgotten..=it.last).contains(&at.number);
                (start..start.saturating_add(limit).min(len), is_known(at) && is_there)
            }
            Since::Before(at) => {
                let end = if is_known(at) { place(at.number.saturating_sub(1)) } else { 0 };
                (end.saturating_sub(limit)..end, is_known(at) && (end > 0 || it.forgotten == 0))
            }
            Since::Newest => (len.saturating_sub(limit)..len, true),
        };
        let messages = it.messages.range(range).map(|(kept, _)| kept.clone()).collect();
        Page { messages, is_complete, last: position(it.last) }
    }

    /// What is due at a node, and when something will be.
    fn take_due(&mut self, place: Place, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let end = self.end(place);
        let mut due = Vec::new();
        while let Some(first) = end.due.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        (due, end.due.first_key_value().map(|((at, _), _)| *at))
    }
}

impl Topic {
    fn trim(&mut self, keep: Keep, now: Instant) {
        let mut bytes: usize = self.messages.iter().map(|(kept, _)| kept.content.len()).sum();
        while let Some((first, at)) = self.messages.front() {
            let is_too_much = self.messages.len() > keep.messages || bytes > keep.bytes;
            let is_old = now.saturating_duration_since(*at) >= keep.within;
            if !is_old && (!is_too_much || self.messages.len() == 1) {
                return;
            }
            bytes -= first.content.len();
            self.forgotten = first.position.number;
            self.messages.pop_front();
        }
    }
}

impl Engine {
    fn keep(&mut self, place: Place, message: Append) {
        let Append { topic, content, keep, done } = message;
        let now = Instant::now();
        let path = self.histories.end(place).path;
        match self.is_reachable(place).filter(|_| !path.is_away) {
            Some(true) => {}
            Some(false) => return self.histories.enter(place, now, Due::Failed(topic, done)),
            None if path.is_away => {
                return self.histories.enter(place, now, Due::Failed(topic, done));
            }
            None => return self.histories.enter(place, now + PATIENCE, Due::Failed(topic, done)),
        }
        let kept = self.histories.append(&topic, content, keep, now);
        if path.lose_answers > 0 {
            self.histories.end(place).path.lose_answers -= 1;
            self.histories.enter(place, now, Due::Failed(topic.clone(), done));
        } else if let Some(done) = done {
            let _ = done.send(Ok(kept.position));
        }
        let all: Vec<_> = self.histories.ends.keys().copied().collect();
        for to in all {
            if self.is_heard_by(to) {
                self.histories.hand_over(to, &topic, &kept, now);
            }
        }
    }
}

impl Histories {
    fn hand_over(&mut self, to: Place, topic: &SmolStr, kept: &Kept, now: Instant) {
        let end = self.end(to);
        if !end.topics.contains(topic) {
            return;
        }
        let path = &mut end.path;
        if path.lose > 0 {
            path.lose -= 1;
            return self.enter(to, now + Duration::from_secs(1), Due::Interrupted);
        }
        let copies = if path.repeat > 0 { 2 } else { 1 };
        path.repeat = path.repeat.saturating_sub(1);
        let at = (now + path.delay).max(end.newest.unwrap_or(now));
        end.newest = Some(at);
        for _ in 0..copies {
            self.enter(to, at, Due::Kept(topic.clone(), kept.clone()));
        }
    }
}

/// The histories of a [`Bus`], as one node has them.
pub(super) struct BusHistory {
    bus: Bus,
    place: Place,
    task: Mutex<Option<AbortHandle>>,
}

impl BusHistory {
    pub(super) fn new(bus: &Bus, place: Place) -> Self {
        Self { bus: bus.clone(), place, task: Mutex::default() }
    }
}

impl HistoryStore for BusHistory {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        self.bus.change(|engine| engine.histories.end(self.place).is_started = true);
        let task = tokio::spawn(run(self.bus.clone(), self.place, inbox));
        *self.task.lock() = Some(task.abort_handle());
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        self.bus.change(|engine| engine.histories.end(self.place).topics.insert(topic.into()));
        Box::pin(ready(()))
    }

    fn ignore(&self, topic: &str) {
        self.bus.change(|engine| engine.histories.end(self.place).topics.remove(topic));
    }

    fn append(&self, message: Append) -> Result<(), PublishError> {
        self.bus.change(|engine| engine.keep(self.place, message));
        Ok(())
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let (page, wait) = self.bus.change(|engine| {
                let path = engine.histories.end(self.place).path;
                let is_reachable = engine.is_reachable(self.place);
                match is_reachable {
                    None => (None, PATIENCE),
                    Some(true) if !path.is_away => {
                        (Some(engine.histories.read(topic, since, limit)), path.read_delay)
                    }
                    Some(_) => (None, Duration::ZERO),
                }
            });
            if !wait.is_zero() {
                sleep(wait.min(PATIENCE)).await;
            }
            page.filter(|_| wait < PATIENCE).ok_or_else(|| StoreError::new("it is away"))
        })
    }
}

/// The task of a node: hands over what is due, unless its line is stalled.
async fn run(bus: Bus, place: Place, inbox: Arc<dyn HistoryInbox>) {
    let wake = bus.change(|engine| Arc::clone(&engine.histories.end(place).wake));
    loop {
        let (due, next) = bus.change(|engine| match engine.is_reachable(place) {
            None => (Vec::new(), Some(Instant::now() + Duration::from_millis(20))),
            Some(_) => engine.histories.take_due(place, Instant::now()),
        });
        for due in due {
            match due {
                Due::Kept(topic, kept) => inbox.kept(&topic, kept),
                Due::Interrupted => inbox.interrupted(),
                Due::Failed(topic, done) => {
                    let error = StoreError::new("it is away");
                    match done {
                        Some(done) => drop(done.send(Err(error))),
                        None => inbox.lost(&topic, &error),
                    }
                }
            }
        }
        match next {
            Some(at) => drop(timeout_at(at, wake.notified()).await),
            None => wake.notified().await,
        }
    }
}

impl Drop for BusHistory {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
        let end = self.bus.change(|engine| engine.histories.ends.remove(&self.place));
        // What it holds may be foreign: not under the lock.
        drop(end);
    }
}

impl fmt::Debug for BusHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusHistory").field("place", &self.place).finish_non_exhaustive()
    }
}
