//! What a channel leaves behind on a node that its client has left, and brings to the one where it goes on.

use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::arrival::{Arrival, News};
use crate::adapter::NodeId;
use crate::history::Position;
use crate::payload::Payload;
use crate::pubsub::PubSub;
use crate::topics::heard::Heard;
use crate::topics::resting::Resting;

/// Asks a channel to end on this node, so that it can go on on another one.
pub(crate) struct PackRequest {
    /// What its presence lingers under.
    pub(crate) ticket: u64,
    /// Dropped by a channel that ends otherwise.
    pub(crate) reply: oneshot::Sender<PackedChannel>,
}

/// What is left of a channel that has ended so. Its stream goes along.
#[derive(Debug)]
pub(crate) struct PackedChannel {
    /// The result of [`Channel::pack`](crate::Channel::pack).
    pub(crate) packed: Option<Payload>,
    /// What it has received of its topic.
    pub(crate) heard: Heard,
    /// Up to where it has received the history of the topic, if several nodes share that.
    pub(crate) position: Option<Position>,
    /// Whether it is not known behind which message of that it has begun.
    pub(crate) is_unplaced: bool,
    /// Whether the client has requested the presence of the topic.
    pub(crate) follows: bool,
    /// What the reply to its join has told the client, if that has read it.
    pub(crate) news: Option<News>,
}

/// What the join of a topic on the new node continues, beside the stream.
pub(crate) struct Continued {
    /// [`Arrival::Moved`].
    pub(crate) arrival: Arrival,
    /// Keeps the broadcasts of the topic until then.
    pub(crate) resting: Option<Resting>,
    /// What was received on the old node.
    pub(crate) heard: Heard,
    /// Up to where the history of the topic was, if several nodes share that.
    pub(crate) position: Option<Position>,
    /// Held until the channel has joined.
    pub(crate) settlement: Arc<Settlement>,
}

/// The presence of channels that have moved here, which lingers on the nodes that they have left. Those let it go once this
/// is dropped: all topics were joined here, or will not be.
pub(crate) struct Settlement {
    pubsub: PubSub,
    /// The nodes, and the tickets under which it lingers there.
    origins: Mutex<Vec<(NodeId, u64)>>,
}

impl Settlement {
    pub(crate) fn new(pubsub: PubSub, origins: Vec<(NodeId, u64)>) -> Self {
        Self { pubsub, origins: Mutex::new(origins) }
    }

    /// Returns where presence lingers, for another node that the session moves to.
    pub(crate) fn pass_on(&self) -> Vec<(NodeId, u64)> {
        mem::take(&mut self.origins.lock())
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        for (node, ticket) in self.pass_on() {
            self.pubsub.settle(node, ticket);
        }
    }
}
