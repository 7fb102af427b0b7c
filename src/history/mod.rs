//! Topics with a history: what is broadcast on them is kept, numbered, and read again by clients that return.

mod entry;
mod error;
mod keeping;
pub(crate) mod memory;
mod policy;
mod position;
mod reading;
mod receiver;
mod window;
mod windows;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tower_channels_transports::Reservation;
use tower_channels_transports::telemetry::{Level, UNLABELED};

pub use self::error::{PublishError, ReadError};
use self::memory::Rings;
pub use self::policy::History;
pub use self::position::{InvalidPosition, Position};
pub use self::reading::Page;
pub(crate) use self::reading::Recovery;
use self::receiver::Receiver;
pub use crate::adapter::Since;
use crate::adapter::{HistoryStore, NodeId};
use crate::pattern;
use crate::telemetry::HISTORY_BYTES;
use crate::topics::Topics;

/// The histories of the topics of a [`PubSub`](crate::PubSub).
pub(crate) struct Histories {
    /// By topic pattern: the first that matches counts.
    policies: Vec<(String, History)>,
    place: Place,
    receiver: Arc<Receiver>,
    level: Level,
}

/// Where messages are kept.
enum Place {
    Memory(InMemory),
    Store(Arc<dyn HistoryStore>),
}

struct InMemory(Mutex<(Rings, Reservation)>);

/// For how long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part of the memory for histories that clients which return together may take beside.
const WINDOWS: usize = 8;

/// How many topics of each pattern are looked at when the gauge is updated.
const SWEEP: usize = 1000;

impl Histories {
    /// Creates the histories, in `memory` bytes if there is no store.
    pub(crate) fn start(
        policies: Vec<(String, History)>,
        memory: usize,
        store: Option<Arc<dyn HistoryStore>>,
        topics: &Topics,
    ) -> Arc<Self> {
        let receiver = Arc::new(Receiver::new(topics, memory / WINDOWS));
        let place = match store {
            Some(store) => {
                store.start(Arc::clone(&receiver) as _);
                Place::Store(store)
            }
            None => {
                let keeps = policies.iter().map(|(_, history)| history.keep());
                let rings = Rings::new(NodeId::random().0, memory, keeps);
                let reservation = Reservation::new(Arc::clone(topics.account()));
                Place::Memory(InMemory(Mutex::new((rings, reservation))))
            }
        };
        let level = Level::new(HISTORY_BYTES.handle(UNLABELED));
        Arc::new(Self { policies, place, receiver, level })
    }

    /// How much of a topic is kept. `None` if it has no history.
    pub(crate) fn policy(&self, topic: &str) -> Option<&History> {
        self.find_policy(topic).map(|(_, history)| history)
    }

    /// The policy of a topic, and its place among all.
    fn find_policy(&self, topic: &str) -> Option<(usize, &History)> {
        let mut policies = self.policies.iter().enumerate();
        let found = policies.find(|(_, (pattern, _))| pattern::matches(pattern, topic));
        found.map(|(place, (_, history))| (place, history))
    }

    /// Returns whether what is kept outlives this node.
    pub(crate) fn outlives_node(&self) -> bool {
        matches!(self.place, Place::Store(_))
    }

    /// The number of the last message that was delivered here, by a store.
    pub(crate) fn delivered(&self) -> u64 {
        self.receiver.delivered.load(Ordering::Relaxed)
    }

    /// Updates the gauge, and forgets what has become too old. The caller holds no lock.
    pub(crate) fn record_gauges(&self) {
        let now = self.receiver.now();
        let kept = match &self.place {
            Place::Memory(memory) => memory.with(|rings| {
                rings.sweep(now, SWEEP);
                rings.bytes()
            }),
            Place::Store(_) => 0,
        };
        self.level.set(kept.saturating_add(self.receiver.windows.held(now)));
    }
}

impl InMemory {
    /// Works with what is kept, and reserves what it takes then.
    fn with<R>(&self, work: impl FnOnce(&mut Rings) -> R) -> R {
        let (rings, reservation) = &mut *self.0.lock();
        let result = work(rings);
        reservation.set(rings.bytes());
        result
    }
}

impl fmt::Debug for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histories").field("policies", &self.policies).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
