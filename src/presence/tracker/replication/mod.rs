//! Replication of presences between the nodes of a cluster.
//!
//! Every replica speaks for itself alone. It broadcasts what it has done since its last broadcast
//! as a delta; how many operations there were, its *clock*, goes out with each heartbeat of its node.
//! A replica that learns from a clock, or from a gap before a delta, that it lacks operations asks
//! the replica that performed them. So a node that joins asks each of the others for its own
//! entries, and none answers for a third.
//!
//! Which nodes are up, down and gone is not decided here: the cluster says it by
//! [`set_standing`](super::Tracker::set_standing). A node that it has not named has no standing, and
//! what comes from it is ignored.

mod causal_context;
mod message;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[doc(hidden)]
pub mod model;
mod peer;
mod protocol;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use self::message::{DecodeError, Message};
use self::peer::Peer;
pub(crate) use self::peer::Standing;
pub(crate) use self::protocol::{Received, Settled};
pub(crate) use self::state::Diff;
use self::state::{RemovalLog, ReplicaState};
use super::entry::Entry;
use crate::adapter::NodeId;

/// Configuration of replication.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The number of local removes kept in the removal log; 10,000 by default. A peer that lacks
    /// an older one receives all that it may not have observed instead of a delta.
    pub(crate) max_removals: usize,
    /// The approximate maximum length of a message in bytes; 64 KiB by default, about 650 entries.
    /// Longer deltas are split.
    pub(crate) max_message: usize,
    /// The time between two requests to one replica, and after a piece of its answer; 1 s by default.
    pub(crate) pause: Duration,
}

/// What a tracker keeps for other nodes, and of them.
#[derive(Debug)]
pub(super) struct Replication {
    config: Config,
    /// The state of the local replica.
    local: ReplicaState,
    removal_log: RemovalLog,
    /// The dot of the last local operation that was broadcast.
    sent_to: u64,
    /// The same replica of the other nodes.
    peers: BTreeMap<NodeId, Peer>,
    /// Set by each local operation.
    changed: Arc<AtomicBool>,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_removals: 10_000, max_message: 64 * 1024, pause: Duration::from_secs(1) }
    }
}

impl Replication {
    fn new(config: Config, changed: Arc<AtomicBool>) -> Self {
        let (local, removal_log, peers) = Default::default();
        Self { config, local, removal_log, sent_to: 0, peers, changed }
    }

    /// Records a local operation that added an entry.
    pub(super) fn add(&mut self, entry: Entry) {
        self.local.add(entry);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Records the local operation `dot`, which removed an entry.
    pub(super) fn remove(&mut self, dot: u64, entry: &Entry) {
        self.local.remove(dot, entry);
        self.removal_log.push(dot, entry.dot(), self.config.max_removals);
        self.changed.store(true, Ordering::Relaxed);
    }
}
