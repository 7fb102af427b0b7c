//! [`Bus`]: an engine in memory.

mod engine;
mod histories;
mod path;
mod records;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

pub use self::engine::Place;
use self::engine::{Engine, Entry, Line, Settings};
use self::histories::BusHistory;
pub use self::histories::HistoryPath;
pub use self::path::Path;
pub use self::records::StorePath;
use crate::adapter::{
    Adapter, AdapterLimits, BoxFuture, Channel, HistoryStore, Kept, NodeId, NodeInbox,
    PublishError, Reached, Store,
};

/// An engine in memory: what Redis or NATS is to nodes in several processes, for several nodes in one test.
/// A cheap clone. It keeps records, too, and the histories of topics, which [stay](Bus::forget_records) when it is started
/// again.
///
/// Works with paused time, and then the same steps lead to the same deliveries.
#[derive(Clone, Default)]
pub struct Bus(Arc<Mutex<Engine>>);

impl Bus {
    /// Creates an engine to which nothing is connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the adapter of another node.
    #[must_use]
    pub fn adapter(&self) -> BusAdapter {
        let place = self.0.lock().place();
        BusAdapter {
            bus: self.clone(),
            place,
            settings: Settings::default(),
            has_store: true,
            has_history: true,
            task: Mutex::default(),
        }
    }

    /// Changes the engine, and wakes those whom it concerns when it is unlocked.
    fn change<T>(&self, change: impl FnOnce(&mut Engine) -> T) -> T {
        let mut engine = self.0.lock();
        let result = change(&mut engine);
        let mut woken = engine.take_woken();
        woken.append(&mut engine.histories.take_woken());
        drop(engine);
        for wake in woken {
            wake.notify_one();
        }
        result
    }
}

/// Faults. A node's line to the engine is named by [`BusAdapter::place`].
#[cfg_attr(
    not(feature = "unstable-internals"),
    allow(dead_code, reason = "for tests of this workspace")
)]
#[doc(hidden)]
impl Bus {
    /// Ends the engine. All nodes learn that they do not hear it; what was on its way is lost.
    pub fn stop(&self) {
        self.change(Engine::stop);
    }

    /// Starts the engine again, and all nodes whose line is whole hear it.
    pub fn restart(&self) {
        self.restart_apart(Duration::ZERO);
    }

    /// As [`restart`](Self::restart), but the nodes are back one after another, with this time between two.
    pub fn restart_apart(&self, time: Duration) {
        self.change(|engine| engine.restart(time));
    }

    /// Cuts the line of a node, which notices. What was on its way to it is lost.
    pub fn cut(&self, place: Place) {
        self.change(|engine| engine.cut(place));
    }

    /// Holds back everything that the node and the engine send to each other. Neither notices.
    pub fn stall(&self, place: Place) {
        self.change(|engine| engine.set_line(place, Line::Stalled));
    }

    /// Makes a node hear nothing, without its noticing, until it reconnects or its line is healed.
    pub fn deafen(&self, place: Place) {
        self.change(|engine| engine.set_line(place, Line::Deaf));
    }

    /// Ends what [`cut`](Self::cut), [`stall`](Self::stall) and [`deafen`](Self::deafen) have done.
    pub fn heal(&self, place: Place) {
        self.change(|engine| engine.set_line(place, Line::Whole));
    }

    /// Sets what happens to frames from one node to another from now on.
    pub fn set_path(&self, from: Place, to: Place, path: Path) {
        self.0.lock().set_path(from, to, path);
    }

    /// Sets what happens to a node's calls of the store from now on.
    pub fn set_store(&self, place: Place, path: StorePath) {
        self.0.lock().records.set_path(place, path);
    }

    /// Loses the records, as an engine does that is started again and keeps nothing.
    pub fn forget_records(&self) {
        self.0.lock().records.forget();
    }

    /// Sets what happens to the histories at a node from now on.
    pub fn set_history(&self, place: Place, path: HistoryPath) {
        self.change(|engine| engine.histories.set_path(place, path));
    }

    /// Takes what was kept since the last call, topic by topic and content by content. The first call begins to record it.
    #[must_use]
    pub fn take_kept(&self) -> Vec<(SmolStr, Kept)> {
        self.change(|engine| engine.histories.take_record())
    }

    /// Loses all histories, and begins another epoch.
    pub fn forget_histories(&self) {
        self.change(|engine| engine.histories.forget());
    }

    /// Forgets the messages of all histories, as though they were too old.
    pub fn forget_messages(&self) {
        self.change(|engine| engine.histories.forget_messages());
    }

    /// How many nodes are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.lock().connections()
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

/// Connects one node to a [`Bus`].
pub struct BusAdapter {
    bus: Bus,
    place: Place,
    settings: Settings,
    has_store: bool,
    has_history: bool,
    task: Mutex<Option<AbortHandle>>,
}

#[cfg_attr(
    not(feature = "unstable-internals"),
    allow(dead_code, reason = "for tests of this workspace")
)]
#[doc(hidden)]
impl BusAdapter {
    /// Names the node's line to the engine: adapters are numbered in the order in which they are created.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Sets how many bytes may wait while the engine is away. Default: 8 MiB
    #[must_use]
    pub fn max_waiting(mut self, bytes: usize) -> Self {
        self.settings.max_waiting = bytes;
        self
    }

    /// Sets how long a frame may wait while the engine is away. Default: 2 s
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.settings.max_age = age;
        self
    }

    /// Sets the largest frame, in bytes. Default: 1 MiB
    #[must_use]
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.settings.max_frame = bytes;
        self
    }

    /// Is of an engine that keeps no records.
    #[must_use]
    pub fn without_store(mut self) -> Self {
        self.has_store = false;
        self
    }

    /// Is of an engine that keeps no histories.
    #[must_use]
    pub fn without_history(mut self) -> Self {
        self.has_history = false;
        self
    }

    /// Says that frames may overtake others of the same node.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.settings.is_ordered = false;
        self
    }
}

impl Adapter for BusAdapter {
    fn start(&self, node: NodeId, inbox: Arc<dyn NodeInbox>) {
        self.bus.change(|engine| engine.connect(self.place, node, self.settings));
        let task = tokio::spawn(run(self.bus.clone(), self.place, inbox));
        *self.task.lock() = Some(task.abort_handle());
    }

    /// # Panics
    /// If the frame is larger than the limit.
    fn publish(&self, to: Channel<'_>, frame: Bytes) -> Result<(), PublishError> {
        assert!(frame.len() <= self.settings.max_frame, "a frame of {} bytes", frame.len());
        self.bus.change(|engine| engine.publish(self.place, to, frame))
    }

    fn reach(&self, node: NodeId, frame: Bytes) -> BoxFuture<'_, Reached> {
        assert!(frame.len() <= self.settings.max_frame, "a frame of {} bytes", frame.len());
        Box::pin(async move {
            match self.bus.change(|engine| engine.reach(self.place, node, &frame)) {
                Some(reached) => reached,
                None => {
                    sleep(PATIENCE).await;
                    Reached::Unknown
                }
            }
        })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while self.bus.0.lock().is_waiting(self.place) {
                sleep(Duration::from_millis(10)).await;
            }
        })
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        self.bus.0.lock().listen(self.place, topic);
        Box::pin(ready(()))
    }

    fn ignore(&self, topic: &str) {
        self.bus.0.lock().ignore(self.place, topic);
    }

    fn hear_all(&self, all: bool) -> BoxFuture<'static, ()> {
        self.bus.0.lock().hear_all(self.place, all);
        Box::pin(ready(()))
    }

    fn reconnect(&self) {
        self.bus.change(|engine| engine.reconnect(self.place));
    }

    fn limits(&self) -> AdapterLimits {
        let limits = AdapterLimits::new(self.settings.max_frame);
        if self.settings.is_ordered { limits } else { limits.unordered() }
    }

    fn store(&self) -> Option<&dyn Store> {
        self.has_store.then_some(self)
    }

    fn history(&self) -> Option<Arc<dyn HistoryStore>> {
        self.has_history.then(|| Arc::new(BusHistory::new(&self.bus, self.place)) as _)
    }
}

/// How long a node waits for an engine that does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The task of a node: hands over what is due.
async fn run(bus: Bus, place: Place, inbox: Arc<dyn NodeInbox>) {
    let wake = bus.0.lock().wake(place);
    loop {
        let (due, next) = bus.change(|engine| engine.take_due(place, Instant::now()));
        for entry in due {
            match entry {
                Entry::Frame(frame) => inbox.receive(frame),
                Entry::Link(link) => inbox.link(link),
                Entry::Lost(frame) => inbox.lost(frame),
            }
        }
        match next {
            Some(at) => drop(timeout_at(at, wake.notified()).await),
            None => wake.notified().await,
        }
    }
}

impl Drop for BusAdapter {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
        self.bus.0.lock().disconnect(self.place);
    }
}

impl fmt::Debug for BusAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusAdapter").field("place", &self.place).finish_non_exhaustive()
    }
}
