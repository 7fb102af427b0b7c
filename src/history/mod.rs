//! Topics with a history: what is broadcast on them is kept, numbered, and read again by clients that return.

mod entry;
mod error;
mod follower;
pub(crate) mod following;
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
use self::follower::Follower;
use self::memory::Rings;
pub use self::policy::History;
pub use self::position::{InvalidPosition, Position};
pub use self::reading::Page;
pub(crate) use self::reading::Recovery;
use self::receiver::Receiver;
pub use crate::adapter::Since;
use crate::adapter::{BoxFuture, HistoryStore, NodeId};
use crate::cluster::Gaps;
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
    /// Several nodes share it.
    Shared(Arc<dyn HistoryStore>, Arc<Follower>),
}

struct InMemory(Mutex<(Rings, Reservation)>);

/// For how long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part of the memory for histories that clients which return together may take beside.
const WINDOWS: usize = 8;

/// How many topics of each pattern are looked at when the gauge is updated.
const SWEEP: usize = 1000;

impl Histories {
    /// Creates the histories, in `memory` bytes if there is no store. Several nodes share the store if clients may have to
    /// be told of `gaps`.
    pub(crate) fn start(
        policies: Vec<(String, History)>,
        memory: usize,
        store: Option<Arc<dyn HistoryStore>>,
        gaps: Option<Arc<Gaps>>,
        topics: &Topics,
    ) -> Arc<Self> {
        let receiver = Arc::new(Receiver::new(topics, memory / WINDOWS));
        let place = match (store, gaps) {
            (Some(store), Some(gaps)) => {
                let patterns = policies.iter().map(|(pattern, _)| pattern.clone()).collect();
                let follower = Follower::start(&receiver, &store, patterns, gaps);
                Place::Shared(store, follower)
            }
            (Some(store), None) => {
                store.start(Arc::clone(&receiver) as _);
                Place::Store(store)
            }
            (None, _) => {
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

    /// A topic with a history is about to have a subscriber. Returns what to wait for, a second at most, until every message
    /// that is kept from then on reaches it; `None` if that is so already.
    pub(crate) fn hear(&self, topic: &str) -> Option<BoxFuture<'static, ()>> {
        match &self.place {
            Place::Memory(_) | Place::Store(_) => None,
            Place::Shared(_, follower) => follower.hear(topic),
        }
    }

    /// Up to where a topic with a history was delivered on this node, of a store that outlives it. `None` if that is not
    /// known. May be called under the topic's lock.
    pub(crate) fn last(&self, topic: &str) -> Option<Position> {
        match &self.place {
            Place::Memory(_) => None,
            // The number of another topic, perhaps.
            Place::Store(_) if self.policy(topic).is_some() => {
                let number = self.delivered();
                let epoch = self.receiver.epoch.load(Ordering::Relaxed);
                (number > 0).then_some(Position { epoch, number })
            }
            Place::Store(_) => None,
            Place::Shared(_, follower) => follower.last(topic),
        }
    }

    /// The policy of a topic, and its place among all.
    fn find_policy(&self, topic: &str) -> Option<(usize, &History)> {
        let mut policies = self.policies.iter().enumerate();
        let found = policies.find(|(_, (pattern, _))| pattern::matches(pattern, topic));
        found.map(|(place, (_, history))| (place, history))
    }

    /// Whether what is kept outlives this node.
    pub(crate) fn outlive_node(&self) -> bool {
        !matches!(self.place, Place::Memory(_))
    }

    /// The number up to which a store's messages were delivered on this node, as far as it can know.
    pub(crate) fn delivered(&self) -> u64 {
        match &self.place {
            Place::Memory(_) => 0,
            Place::Store(_) => self.receiver.delivered.load(Ordering::Relaxed),
            Place::Shared(_, follower) => follower.delivered(),
        }
    }

    /// Updates the gauge, and forgets what has become too old. The caller holds no lock.
    pub(crate) fn record_gauges(&self) {
        let now = self.receiver.now();
        let kept = match &self.place {
            Place::Memory(memory) => memory.with(|rings| {
                rings.sweep(now, SWEEP);
                rings.bytes()
            }),
            Place::Store(_) | Place::Shared(..) => 0,
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
