//! The presence of several nodes: what the cluster tells the [`Announcer`] and takes from it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::announcer::Announcer;
pub(crate) use super::store::Outgoing;
use super::store::SHARDS;
use super::tracker::Owner;
pub(crate) use super::tracker::replication::DecodeError;
use super::tracker::replication::Standing;
use crate::adapter::NodeId;

/// Times are since an arbitrary start, which must be the same for all calls. Another node counts from
/// [`node_up`](Self::node_up) to [`node_gone`](Self::node_gone); before and after, what it sends has
/// no effect. None of these methods waits.
impl Announcer {
    /// Returns what happened on this node since the last call, to be sent to all others in this
    /// order. Reads one atomic if nothing did.
    ///
    /// What is lost on its way is asked for by the others.
    pub(crate) fn collect(&self) -> Vec<Outgoing> {
        self.store.collect()
    }

    /// Returns how many operations were [collected](Self::collect), by shard, to be sent to all
    /// others with the heartbeat, behind what was collected.
    pub(crate) fn clocks(&self) -> Vec<u64> {
        self.store.clocks()
    }

    /// Handles the [clocks](Self::clocks) of another node. Returns requests for what is missing, to
    /// be sent to this node; at most one per second and shard.
    pub(crate) fn hear_clocks(&self, from: NodeId, clocks: &[u64], now: Duration) -> Vec<Outgoing> {
        self.store.hear_clocks(from, clocks, now)
    }

    /// Handles a message of another node. Returns the messages with which it is answered, to be sent
    /// to this node in this order.
    ///
    /// The answer to a node that joins is all of a shard, in many messages, which are encoded as they
    /// are sent.
    ///
    /// # Errors
    /// If the message is malformed, or of another version. Then it has no effect.
    pub(crate) fn receive(
        self: &Arc<Self>,
        from: NodeId,
        shard: u32,
        json: &[u8],
        now: Duration,
    ) -> Result<Vec<Outgoing>, DecodeError> {
        let (topics, replies) = self.store.receive(from, shard, json, now)?;
        self.schedule_diffs(topics);
        Ok(replies)
    }

    /// Lets the entries of an owner stay, which are on one topic: its channel has moved to another node, with the session
    /// that `ticket` names. They leave a second after the [release](Self::release) of the ticket, or after 20 s. Those
    /// that are hidden already do not come back.
    pub(crate) fn linger(&self, ticket: u64, owner: Owner, topic: &SmolStr) {
        if self.store.forget_hidden(owner, topic) {
            return;
        }
        self.lingering.lock().add(ticket, owner, topic.clone());
    }

    /// The channels of a session that has moved have been joined elsewhere, or will not be.
    pub(crate) fn release(&self, ticket: u64) {
        self.lingering.lock().release(ticket);
    }

    /// Returns whether any entries [linger](Self::linger) under this ticket.
    pub(crate) fn lingers(&self, ticket: u64) -> bool {
        self.lingering.lock().has(ticket)
    }

    /// Returns whether any entries [linger](Self::linger).
    pub(crate) fn is_lingering(&self) -> bool {
        !self.lingering.lock().is_empty()
    }

    /// Removes the entries that have [lingered](Self::linger) for long enough. To be called several times a second.
    pub(crate) fn expire_lingering(self: &Arc<Self>, now: Duration) {
        let expired = self.lingering.lock().expire(now);
        expired.iter().for_each(|(owner, topic)| self.untrack_all(*owner, topic));
    }

    /// Another node is heard, for the first time or again: shows its entries.
    pub(crate) fn node_up(self: &Arc<Self>, node: NodeId) {
        self.set_standing(node, Standing::Up);
    }

    /// Another node is not heard: hides its entries.
    pub(crate) fn node_down(self: &Arc<Self>, node: NodeId) {
        self.set_standing(node, Standing::Down);
    }

    /// Another node has left, or was not heard for too long: forgets its entries.
    pub(crate) fn node_gone(self: &Arc<Self>, node: NodeId) {
        self.set_standing(node, Standing::Gone);
    }

    /// Shows or hides the entries of a node in a task, with a pause after each thousand.
    fn set_standing(self: &Arc<Self>, node: NodeId, standing: Standing) {
        self.store.set_standing(node, standing);
        let announcer = Arc::clone(self);
        match self.runtime() {
            Some(runtime) => drop(runtime.spawn(async move {
                for shard in 0..SHARDS {
                    while announcer.settle(node, shard) {
                        tokio::task::yield_now().await;
                    }
                }
            })),
            None => (0..SHARDS).for_each(|shard| while announcer.settle(node, shard) {}),
        }
    }

    /// Takes a step, and returns whether another one is needed.
    fn settle(self: &Arc<Self>, node: NodeId, shard: usize) -> bool {
        let (topics, is_unfinished) = self.store.settle(node, shard);
        self.schedule_diffs(topics);
        is_unfinished
    }

    /// Announces what changed on these topics, if anybody follows them.
    fn schedule_diffs(self: &Arc<Self>, topics: HashSet<SmolStr>) {
        for topic in topics {
            if self.is_followed(&topic) {
                self.schedule_diff(&topic);
            } else {
                self.store.discard(&topic);
            }
        }
    }
}

#[cfg(test)]
mod tests;
