//! What a [`PresenceStore`] exchanges with those of the other nodes of a cluster.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smol_str::SmolStr;
use tower_channels_transports::limited;

use super::{PresenceStore, Shard, cost_of};
use crate::adapter::NodeId;
use crate::presence::tracker::replication::{
    DecodeError, Diff, Message, Received, Settled, Standing,
};
use crate::presence::tracker::{Entry, Replica};
use crate::presence::types::validate_key;
use crate::telemetry::PRESENCES_REFUSED;

/// A message to other nodes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The shard at the sender, which is that at the recipients.
    pub(crate) shard: u32,
    message: Message,
}

/// How many entries are shown or hidden under one hold of a shard's lock.
const STEP: usize = 1000;

impl Outgoing {
    /// Returns the message as JSON, of about 64 KiB at most.
    pub(crate) fn encode(&self) -> String {
        self.message.encode()
    }
}

impl PresenceStore {
    /// Returns what happened on this node since the last call, to be sent to all nodes.
    pub(in crate::presence) fn collect(&self) -> Vec<Outgoing> {
        if !self.changed.load(Ordering::Relaxed) || !self.changed.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let collect = |index: usize| {
            let operations = self.shards[index].lock().tracker.collect();
            operations.into_messages().map(move |message| Outgoing::new(index, message))
        };
        (0..self.shards.len()).flat_map(collect).collect()
    }

    /// Returns how many operations of each shard were collected.
    pub(in crate::presence) fn clocks(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.lock().tracker.clock()).collect()
    }

    /// Compares the clocks of another node with what has come from it, and returns requests for
    /// what has not.
    pub(in crate::presence) fn hear_clocks(
        &self,
        from: NodeId,
        clocks: &[u64],
        now: Duration,
    ) -> Vec<Outgoing> {
        let shards = self.shards.iter().zip(clocks).enumerate();
        let request = shards.filter_map(|(index, (shard, clock))| {
            let request = shard.lock().tracker.hear_clock(from, *clock, now)?;
            Some(Outgoing::new(index, request))
        });
        request.collect()
    }

    /// Handles a message of another node. Returns the topics that changed, and the answer.
    pub(in crate::presence) fn receive(
        &self,
        from: NodeId,
        shard: u32,
        json: &[u8],
        now: Duration,
    ) -> Result<(HashSet<SmolStr>, Vec<Outgoing>), DecodeError> {
        let index = usize::try_from(shard).ok().filter(|index| *index < self.shards.len());
        let index = index.ok_or(DecodeError("unknown shard"))?;
        let replica = Replica { node: from, shard: index as u8 };
        // Before the lock is taken, since it takes most of the time.
        let mut message = Message::decode(json, replica)?;
        let refused = message.retain(|entry| self.accepts(index, entry));
        if refused > 0 {
            PRESENCES_REFUSED.add(refused as u64);
            limited!(WARN, node = ?from, refused, "refused presences of another node");
        }
        let mut shard = self.shards[index].lock();
        let received = shard.tracker.receive(from, message, now);
        let Received { visible, hidden, answer, request, is_refused } = received;
        shard.reserve(&visible);
        shard.reserve(&hidden);
        let topics = shard.record(visible);
        drop(shard);
        drop(hidden);
        if is_refused {
            PRESENCES_REFUSED.add(1);
            limited!(WARN, node = ?from, "refused presences of another node: too scattered");
        }
        let replies = answer.into_messages().chain(request);
        Ok((topics, replies.map(|reply| Outgoing::new(index, reply)).collect()))
    }

    /// Changes the standing of another node, which [`settle`](Self::settle) puts into effect.
    pub(in crate::presence) fn set_standing(&self, node: NodeId, standing: Standing) {
        for shard in &self.shards {
            shard.lock().tracker.set_standing(node, standing);
        }
    }

    /// Takes a step towards the standing of a node in a shard: shows or hides some of its entries.
    /// Returns the topics that changed, and whether another step is needed.
    pub(in crate::presence) fn settle(
        &self,
        node: NodeId,
        shard: usize,
    ) -> (HashSet<SmolStr>, bool) {
        let mut locked = self.shards[shard].lock();
        let settled = locked.tracker.settle(node, STEP);
        let Settled { diff, forgotten, is_unfinished } = settled;
        let topics = locked.record(diff);
        drop(locked);
        let freed = forgotten.entries().map(cost_of).sum();
        drop(forgotten);
        if freed > 0 {
            self.shards[shard].lock().reservation.subtract(freed);
        }
        (topics, is_unfinished)
    }

    /// Forgets the changes of a topic that nobody follows, unless they are about to be announced.
    pub(in crate::presence) fn discard(&self, topic: &str) {
        let mut shard = self.shard(topic);
        let updates = shard.updates.get(topic);
        if updates.is_some_and(|updates| !updates.is_scheduled && updates.requests.is_empty()) {
            let updates = shard.updates.remove(topic);
            drop(shard);
            drop(updates);
        }
    }

    /// Returns whether an entry of another node is within the limits of this one.
    fn accepts(&self, shard: usize, entry: &Entry) -> bool {
        super::shard_of(entry.topic()) == shard
            && entry.meta().len() <= self.max_meta
            && validate_key(entry.key()).is_ok()
    }
}

impl Shard {
    /// Reserves memory for entries that came, and frees that of entries that went.
    fn reserve(&mut self, diff: &Diff) {
        self.reservation.add(diff.joins.iter().map(cost_of).sum());
        self.reservation.subtract(diff.leaves.iter().map(cost_of).sum());
    }

    /// Records what is to be announced, and returns the topics.
    fn record(&mut self, Diff { joins, leaves }: Diff) -> HashSet<SmolStr> {
        let changed = joins.iter().chain(&leaves).map(|entry| entry.topic().clone());
        let topics = changed.collect();
        leaves.into_iter().for_each(|entry| {
            let topic = entry.topic().clone();
            self.updates(&topic).diff.leave(entry);
        });
        joins.into_iter().for_each(|entry| {
            let topic = entry.topic().clone();
            self.updates(&topic).diff.join(entry);
        });
        topics
    }
}

impl Outgoing {
    fn new(shard: usize, message: Message) -> Self {
        Self { shard: shard as u32, message }
    }
}

#[cfg(test)]
mod tests;
