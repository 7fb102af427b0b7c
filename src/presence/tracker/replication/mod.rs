//! Replication of presences between the nodes of a cluster.

mod causal_context;
mod message;
#[doc(hidden)]
pub mod model;
mod protocol;
mod replicas;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::replicas::Replicas;
use self::state::{RemovalLog, ReplicaState};
use super::entry::Entry;

/// Configuration of replication.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The interval at which a replica broadcasts its vector clock; 1.5 s by default.
    pub(crate) heartbeat: Duration,
    /// How long a replica may be silent before its entries are hidden; 30 s by default.
    pub(crate) down_after: Duration,
    /// How long a replica may be silent before it is removed for good; 20 min by default.
    pub(crate) gone_after: Duration,
    /// The number of local removes kept in the removal log; 10,000 by default. A peer that lacks
    /// an older one receives the full state instead of a delta.
    pub(crate) max_removals: usize,
    /// The approximate maximum length of a message in bytes; 1 MiB by default. Longer deltas are
    /// split.
    pub(crate) max_message: usize,
}

/// What a tracker knows of the other replicas, and keeps for them.
#[derive(Debug, Default)]
pub(super) struct Replication {
    config: Config,
    /// The state of the local replica.
    local: ReplicaState,
    removal_log: RemovalLog,
    /// The dot of the last local operation that was broadcast.
    sent_to: u64,
    /// The remote replicas.
    replicas: Replicas,
    last_tick: Option<Duration>,
    last_heartbeat: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(1500),
            down_after: Duration::from_secs(30),
            gone_after: Duration::from_secs(20 * 60),
            max_removals: 10_000,
            max_message: 1024 * 1024,
        }
    }
}

impl Replication {
    fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Records a local operation that added an entry.
    pub(super) fn add(&mut self, entry: Entry) {
        self.local.add(entry);
    }

    /// Records the local operation `dot`, which removed an entry.
    pub(super) fn remove(&mut self, dot: u64, entry: &Entry) {
        self.local.remove(dot, entry);
        self.removal_log.push(dot, entry.dot(), self.config.max_removals);
    }

    /// Discards the local operations, for a new incarnation of the local replica.
    fn reset_local(&mut self) {
        (self.local, self.removal_log, self.sent_to) = Default::default();
    }
}
