//! The membership of remote replicas: up, down, or gone.
//!
//! A replica that has been silent for a while is *down*: its entries are hidden, and shown again
//! once it is heard from. A replica that stays silent is *gone*: its state is discarded, and that
//! incarnation is never admitted again. `Phoenix.Tracker` calls these states `down` and `permdown`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use smol_str::SmolStr;

use super::clock::CausalContext;
use super::entry::{Diff, Replica};
use super::state::{Fragment, ReplicaState};

/// The maximum number of replicas, including the local one. Further replicas are ignored.
pub(super) const MAX_REPLICAS: usize = 1024;

/// The maximum number of gone replicas that are remembered. The oldest are forgotten first.
const MAX_GONE: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Replicas {
    /// The newest incarnation of each node that is up or down, by name.
    peers: BTreeMap<SmolStr, Peer>,
    /// The highest gone incarnation of each node, which delayed messages must not bring back.
    gone: HashMap<SmolStr, u64>,
    /// The names in `gone`, oldest first.
    gone_order: VecDeque<SmolStr>,
}

#[derive(Debug)]
pub(super) struct Peer {
    replica: Replica,
    state: ReplicaState,
    /// When a message of this replica last arrived, or when another replica first mentioned it.
    last_heard: Duration,
    /// Whether its entries are visible.
    is_up: bool,
    /// When it was last asked for missing operations.
    last_request: Option<Duration>,
}

impl Replicas {
    pub(super) fn get(&self, replica: &Replica) -> Option<&Peer> {
        self.peers.get(&replica.name).filter(|peer| peer.replica == *replica)
    }

    pub(super) fn get_mut(&mut self, replica: &Replica) -> Option<&mut Peer> {
        self.peers.get_mut(&replica.name).filter(|peer| peer.replica == *replica)
    }

    /// The causal context of a replica's state, empty if the replica is unknown.
    pub(super) fn context(&self, replica: &Replica) -> CausalContext {
        self.get(replica).map(|peer| peer.state.context().clone()).unwrap_or_default()
    }

    /// The vector clock: each replica, with the contiguous prefix of its dots observed here.
    pub(super) fn clock(&self) -> impl Iterator<Item = (Replica, u64)> {
        self.peers.values().map(|peer| (peer.replica.clone(), peer.state.context().prefix()))
    }

    /// The newest incarnation of a node, whether up, down or gone.
    pub(super) fn newest_incarnation(&self, name: &str) -> Option<u64> {
        let known = self.peers.get(name).map(|peer| peer.replica.incarnation);
        known.max(self.gone.get(name).copied())
    }

    /// Returns whether the replica is gone or superseded by a newer incarnation.
    pub(super) fn is_obsolete(&self, replica: &Replica) -> bool {
        let is_gone = self.gone.get(&replica.name).is_some_and(|gone| replica.incarnation <= *gone);
        let newest = self.newest_incarnation(&replica.name);
        is_gone || newest.is_some_and(|newest| replica.incarnation < newest)
    }

    /// Returns whether any incarnation of the node is up.
    pub(super) fn is_up(&self, name: &str) -> bool {
        self.peers.get(name).is_some_and(|peer| peer.is_up)
    }

    /// Returns a replica, adding it if it is new and replacing an older incarnation of its node.
    ///
    /// Returns `None` if the replica is obsolete, or if there are [`MAX_REPLICAS`] already.
    pub(super) fn admit(
        &mut self,
        replica: &Replica,
        now: Duration,
        diff: &mut Diff,
    ) -> Option<&mut Peer> {
        if self.is_obsolete(replica) {
            return None;
        }
        let is_known = self.peers.contains_key(&replica.name);
        if !is_known && self.peers.len() + 1 >= MAX_REPLICAS {
            return None;
        }
        let new = || Peer {
            replica: replica.clone(),
            state: ReplicaState::default(),
            last_heard: now,
            is_up: true,
            last_request: None,
        };
        let peer = self.peers.entry(replica.name.clone()).or_insert_with(new);
        if peer.replica.incarnation < replica.incarnation {
            peer.mark_down(diff);
            *peer = new();
        }
        Some(peer)
    }

    /// Marks replicas as down that have been silent for `down_after`, and as gone those that have
    /// been silent for `gone_after`.
    pub(super) fn expire(
        &mut self,
        now: Duration,
        down_after: Duration,
        gone_after: Duration,
        diff: &mut Diff,
    ) {
        let mut gone = Vec::new();
        self.peers.retain(|_, peer| {
            let silence = now.saturating_sub(peer.last_heard);
            let is_gone = silence >= gone_after;
            if is_gone || silence >= down_after {
                peer.mark_down(diff);
            }
            if is_gone {
                gone.push(peer.replica.clone());
            }
            !is_gone
        });
        gone.into_iter().for_each(|replica| self.remember_gone(replica));
    }

    /// Extends all deadlines by a time in which the local replica processed no messages, so that
    /// its own pause does not count as silence of the others.
    pub(super) fn extend_deadlines(&mut self, pause: Duration, now: Duration) {
        for peer in self.peers.values_mut() {
            peer.last_heard = (peer.last_heard + pause).min(now);
        }
    }

    fn remember_gone(&mut self, Replica { name, incarnation }: Replica) {
        if self.gone.insert(name.clone(), incarnation).is_some() {
            self.gone_order.retain(|other| *other != name);
        }
        self.gone_order.push_back(name);
        if self.gone_order.len() > MAX_GONE
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }
}

impl Peer {
    pub(super) fn state(&self) -> &ReplicaState {
        &self.state
    }

    /// Merges a fragment of the replica's state.
    pub(super) fn merge(&mut self, fragment: Fragment, diff: &mut Diff) {
        let merged = self.state.merge(fragment);
        if self.is_up {
            diff.joins.extend(merged.joins);
            diff.leaves.extend(merged.leaves);
        }
    }

    /// Marks the replica as up after a message from it. Returns whether it had been down.
    pub(super) fn mark_up(&mut self, now: Duration, diff: &mut Diff) -> bool {
        self.last_heard = now;
        let was_up = std::mem::replace(&mut self.is_up, true);
        if !was_up {
            diff.joins.extend(self.state.entries().cloned());
        }
        !was_up
    }

    /// Returns whether a request may be sent, at most one per `interval`, and records it.
    pub(super) fn start_request(&mut self, now: Duration, interval: Duration) -> bool {
        let is_due = self.last_request.is_none_or(|last| now.saturating_sub(last) >= interval);
        if is_due {
            self.last_request = Some(now);
        }
        is_due
    }

    fn mark_down(&mut self, diff: &mut Diff) {
        if std::mem::replace(&mut self.is_up, false) {
            diff.leaves.extend(self.state.entries().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use smol_str::format_smolstr;

    use super::*;

    fn replica(number: usize) -> Replica {
        Replica { name: format_smolstr!("{number}"), incarnation: 1 }
    }

    #[test]
    fn only_the_latest_gone_replicas_are_remembered() {
        let mut replicas = Replicas::default();
        (0..3 * MAX_GONE).for_each(|number| replicas.remember_gone(replica(number)));
        replicas.remember_gone(replica(3 * MAX_GONE - 1));
        assert_eq!((replicas.gone.len(), replicas.gone_order.len()), (MAX_GONE, MAX_GONE));
        assert!(replicas.is_obsolete(&replica(3 * MAX_GONE - 1)));
        assert!(!replicas.is_obsolete(&replica(0)));
    }

    #[test]
    fn replicas_above_the_maximum_are_not_admitted() {
        let mut replicas = Replicas::default();
        for number in 0..2 * MAX_REPLICAS {
            replicas.admit(&replica(number), Duration::ZERO, &mut Diff::default());
        }
        assert_eq!(replicas.peers.len(), MAX_REPLICAS - 1);
        let again = replicas.admit(&replica(1), Duration::ZERO, &mut Diff::default());
        assert!(again.is_some());
    }
}
