//! Where the client of the model has been: its newest visit decides which node has the session.

use super::World;
use super::node::Running;
use crate::adapter::NodeId;

/// The last visit of the client to a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Visit {
    /// When it came, and when it had the session.
    began: u64,
    ended: u64,
    /// Whether it has come again.
    pub(super) is_next_under_way: bool,
}

impl Visit {
    pub(super) fn new(claim: &Running, now: u64) -> Self {
        Self { began: claim.started, ended: now, is_next_under_way: false }
    }
}

impl World {
    /// Asserts that a session which ends because another node has it is not the one to which its client has come last.
    pub(super) fn check_newer(&self, winner: NodeId, loser: NodeId) {
        let (Some(winner), Some(loser)) = (self.visits.get(&winner), self.visits.get(&loser))
        else {
            return;
        };
        let is_newest = !winner.is_next_under_way && winner.ended < loser.began;
        assert!(self.is_skewed || !is_newest, "{winner:?} has ended {loser:?}");
    }
}
