//! The replication protocol: what a tracker sends, and what it makes of what comes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::causal_context::CausalContext;
use super::message::Message;
use super::peer::{Peer, Standing};
use super::state::{Delta, Diff, ReplicaState};
use super::{Config, Replication};
use crate::adapter::NodeId;
use crate::presence::tracker::Tracker;
use crate::presence::tracker::entry::{Entry, Replica};

/// The effect of a message.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// What changed in the listing.
    pub(crate) visible: Diff,
    /// What changed of a node whose entries are hidden.
    pub(crate) hidden: Diff,
    /// What answers a request of the node, to be sent to it.
    pub(crate) answer: Operations,
    /// A request to the node for what is missing.
    pub(crate) request: Option<Message>,
    /// Whether its operations were refused, as they are too scattered to be remembered.
    pub(crate) is_refused: bool,
}

/// Local operations for other nodes: a lock under which they were taken need not be held until they
/// are messages.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    delta: Delta,
    max_message: usize,
}

/// The effect of a step towards a [`Standing`].
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// What changed in the listing.
    pub(crate) diff: Diff,
    /// The entries of a node that is gone and forgotten with this step.
    pub(crate) forgotten: ReplicaState,
    /// Whether another step is needed.
    pub(crate) is_unfinished: bool,
}

impl Tracker {
    /// Creates a replica without entries, of a node that may have others beside it. `changed` is set
    /// by each local operation.
    pub(crate) fn replicated(replica: Replica, config: Config, changed: Arc<AtomicBool>) -> Self {
        let replication = Some(Box::new(Replication::new(config, changed)));
        Self { replication, ..Self::new(replica) }
    }

    /// Returns the local operations since the last call, to be sent to all nodes.
    pub(crate) fn collect(&mut self) -> Operations {
        let Some(replication) = &mut self.replication else { return Operations::default() };
        let since = std::mem::replace(&mut replication.sent_to, self.operations);
        if !replication.removal_log.reaches(since) {
            // Instead of receiving the full state, let each replica ask for what it lacks.
            return Operations::default();
        }
        replication.delta(&CausalContext::up_to(since))
    }

    /// Returns the number of local operations that were [collected](Self::collect), for the
    /// heartbeat.
    pub(crate) fn clock(&self) -> u64 {
        self.replication.as_ref().map_or(0, |replication| replication.sent_to)
    }

    /// Handles the clock of another node. Returns a request to it, if its operations are missing.
    ///
    /// `now` is the time since an arbitrary start, which must be the same for all calls.
    pub(crate) fn hear_clock(
        &mut self,
        from: NodeId,
        clock: u64,
        now: Duration,
    ) -> Option<Message> {
        let replication = self.replication.as_mut()?;
        let peer = replication.peers.get(&from)?;
        let is_behind = peer.state().context().prefix() < clock;
        if is_behind { replication.request(from, now) } else { replication.fill_gap(from, now) }
    }

    /// Handles a message of another node. Has no effect on a second time.
    pub(crate) fn receive(&mut self, from: NodeId, message: Message, now: Duration) -> Received {
        let mut received = Received::default();
        let Some(replication) = &mut self.replication else { return received };
        let Message { state, more, request } = message;
        if let Some(known) = request {
            received.answer = replication.delta(&known);
        }
        let Some(peer) = replication.peers.get_mut(&from).filter(|peer| !peer.is_gone()) else {
            return received;
        };
        let Some(fragment) = state else { return received };
        let newest = fragment.entries.iter().map(Entry::timestamp).max();
        let Some(Diff { joins, leaves }) = peer.merge(fragment) else {
            received.is_refused = true;
            return received;
        };
        self.lamport = self.lamport.max(newest.unwrap_or_default());
        let is_visible = |entry: &Entry| peer.is_visible(entry);
        (received.visible.joins, received.hidden.joins) = joins.into_iter().partition(is_visible);
        (received.visible.leaves, received.hidden.leaves) =
            leaves.into_iter().partition(is_visible);
        if more {
            peer.extend_request(now);
        } else {
            received.request = replication.fill_gap(from, now);
        }
        self.apply(&received.visible);
        received
    }

    /// Changes the standing of another node; a node without one is added if it is up. Its entries
    /// are shown and hidden by [`settle`](Self::settle).
    pub(crate) fn set_standing(&mut self, node: NodeId, standing: Standing) {
        let Some(replication) = &mut self.replication else { return };
        if let Some(peer) = replication.peers.get_mut(&node) {
            peer.set_standing(standing);
        } else if standing == Standing::Up && node != self.replica.node {
            replication.peers.insert(node, Peer::new());
        }
    }

    /// Takes a step towards the standing of a node: up to `max` of its entries are shown or hidden.
    pub(crate) fn settle(&mut self, node: NodeId, max: usize) -> Settled {
        let mut settled = Settled::default();
        let Some(replication) = &mut self.replication else { return settled };
        let Some(peer) = replication.peers.get_mut(&node) else { return settled };
        if !peer.is_settled() {
            settled.diff = peer.settle(max);
        }
        settled.is_unfinished = !peer.is_settled();
        if peer.is_gone() && peer.is_settled() {
            let peer = replication.peers.remove(&node);
            settled.forgotten = peer.map(Peer::into_state).unwrap_or_default();
        }
        self.apply(&settled.diff);
        settled
    }

    fn apply(&mut self, diff: &Diff) {
        diff.leaves.iter().for_each(|entry| self.topics.remove(entry));
        diff.joins.iter().for_each(|entry| self.topics.insert(entry.clone()));
    }
}

impl Replication {
    /// Requests the operations of a replica that are missing, unless it was asked just now.
    fn request(&mut self, from: NodeId, now: Duration) -> Option<Message> {
        let peer = self.peers.get_mut(&from).filter(|peer| !peer.is_gone())?;
        peer.start_request(now, self.config.pause)
            .then(|| Message::request(peer.state().context().clone()))
    }

    /// As [`request`](Self::request), if operations are missing before some that are known.
    fn fill_gap(&mut self, from: NodeId, now: Duration) -> Option<Message> {
        let has_gap = self.peers.get(&from)?.state().context().has_gap();
        if has_gap { self.request(from, now) } else { None }
    }

    /// Returns the local operations that are not `known`.
    fn delta(&self, known: &CausalContext) -> Operations {
        let delta = self.local.delta(known, &self.removal_log);
        Operations { delta, max_message: self.config.max_message }
    }
}

impl Operations {
    /// Returns the messages, of limited size, to be sent in this order.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = Message> {
        let fragments = self.delta.split(self.max_message);
        let last = fragments.len().saturating_sub(1);
        let fragments = fragments.into_iter().enumerate();
        fragments.map(move |(index, fragment)| Message::state(fragment, index < last))
    }
}
