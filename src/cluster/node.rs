//! [`Node`]: what is known of a node.

use std::time::Duration;

use crate::adapter::NodeId;

/// A node of the cluster, as another one or itself sees it; see [`PubSub::nodes`](crate::PubSub::nodes).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// Its identity, which a new process draws anew.
    pub id: NodeId,
    /// Whether it is this node.
    pub is_self: bool,
    /// How long it has existed, as of what it said last.
    pub uptime: Duration,
    /// How many sessions it has, connected or detached.
    pub sessions: u64,
    /// Whether it is shutting down.
    pub is_draining: bool,
    /// Whether it was heard lately. A node that is not stays known for a while.
    pub is_up: bool,
}
