//! [`Arriving`]: the topics of a session that has come from another node, until its client joins them here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use smol_str::SmolStr;
use tower_channels_transports::peers::BoxFuture;
use tower_channels_transports::{FixedReservation, outbox};

use super::wire::{self, Outline, Packed, Prepared};
use crate::channel::arrival::Arrival;
use crate::channel::moving::{Continued, Settlement};
use crate::cluster::claims::LeftTopic;
use crate::history::Position;
use crate::message::{LONGEST_NAME, Ref};
use crate::payload::Payload;
use crate::pubsub::PubSub;
use crate::responder::Responder;
use crate::topics::heard::Heard;
use crate::topics::resting::Resting;

/// How long a session waits until it hears its topics.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// The topics of a session that comes from another node.
#[derive(Default)]
pub(in crate::socket) struct Arriving {
    /// What keeps their broadcasts while the session is on its way.
    prepared: HashMap<SmolStr, Resting>,
    topics: HashMap<SmolStr, Box<ArrivingTopic>>,
    /// For what their channels have packed.
    _memory: Option<FixedReservation>,
}

/// What else a packed session has.
pub(in crate::socket) struct Unpacked {
    /// The refs that were handled, if they are counted.
    pub(in crate::socket) handled: Option<Vec<(u64, u64)>>,
    /// The topics that were joined on a node that was gone before.
    pub(in crate::socket) left: Vec<LeftTopic>,
}

/// A topic that the client had joined on another node, and not here yet.
pub(in crate::socket) struct ArrivingTopic {
    /// Its stream.
    pub(super) outbox: outbox::Sender,
    pub(super) packed: Option<Payload>,
    pub(super) has_gap: bool,
    pub(super) heard: Heard,
    /// Up to where the client has received the history of the topic, if the nodes share that.
    pub(super) position: Option<Position>,
    pub(super) follows: bool,
    /// The join_ref, if the client has received the reply to its join.
    pub(super) joined: Option<Ref>,
    /// `None` if there were too many topics, or they have no channel here.
    pub(super) resting: Option<Resting>,
    pub(super) settlement: Arc<Settlement>,
}

impl Arriving {
    /// Keeps the broadcasts of the topics in an outline from now on: of those that `is_known`, and no more than `limit`.
    /// Returns what to wait for, which says how far the other nodes were heard.
    pub(in crate::socket) fn prepare(
        &mut self,
        outline: &Bytes,
        pubsub: &PubSub,
        responder: &Responder,
        limit: usize,
        is_known: impl Fn(&str) -> bool,
    ) -> BoxFuture<Bytes> {
        let outline = Outline::decode(&**outline).unwrap_or_default();
        let is_same = outline.version == wire::version(responder.version);
        let topics = outline.topics.into_iter().filter(|it| is_same && it.len() <= LONGEST_NAME);
        let topics = topics.map(SmolStr::from).filter(|topic| is_known(topic)).take(limit);
        let mut hearing = Vec::new();
        for topic in topics {
            hearing.extend(pubsub.hear(&topic));
            let resting = pubsub.registry().rest(&topic);
            self.prepared.insert(topic, resting);
        }
        let pubsub = pubsub.clone();
        Box::pin(async move {
            let hear_all = async {
                for heard in hearing {
                    heard.await;
                }
            };
            let is_late = tokio::time::timeout(HEARD_WITHIN, hear_all).await.is_err();
            let heard = wire::numbers(pubsub.heard());
            Prepared { heard, is_late }.encode_to_vec().into()
        })
    }

    /// Expects that the topics of a packed session are joined. `None` if the session cannot be continued.
    pub(in crate::socket) fn unpack(
        &mut self,
        packed: &Bytes,
        pubsub: &PubSub,
        responder: &Responder,
    ) -> Option<Unpacked> {
        let Packed { version, lingering, topics, handled, left } =
            Packed::decode(&**packed).ok()?;
        let settlement = Settlement::new(pubsub.clone(), wire::by_node(&lingering));
        if version != wire::version(responder.version) {
            return None;
        }
        let settlement = Arc::new(settlement);
        let mut prepared = std::mem::take(&mut self.prepared);
        for topic in topics {
            let wire::Topic { topic, stream, state, heard, follows, has_gap, joined, position } =
                topic;
            let position = position.map(Position::from);
            let topic = SmolStr::from(topic);
            let resting = prepared.remove(&topic);
            let arriving = ArrivingTopic {
                outbox: responder.outbox.stream_of(stream),
                packed: state.map(Payload::from),
                // What is missing of a history is read.
                has_gap: has_gap || (resting.is_none() && position.is_none()),
                position,
                heard: wire::by_node(&heard).into_iter().collect(),
                follows,
                joined: joined.as_deref().and_then(Ref::from_json),
                resting,
                settlement: Arc::clone(&settlement),
            };
            self.topics.insert(topic, Box::new(arriving));
        }
        let bytes =
            self.topics.values().filter_map(|it| it.packed.as_ref()).map(Payload::heap_size);
        let size = self.topics.len() * size_of::<ArrivingTopic>() + bytes.sum::<usize>();
        self._memory = responder.outbox.account().map(|account| account.hold(size));
        let pairs =
            |bounds: Vec<u64>| bounds.chunks_exact(2).map(|range| (range[0], range[1])).collect();
        Some(Unpacked { handled: handled.map(|handled| pairs(handled.bounds)), left })
    }

    /// How many topics the client may still join.
    pub(in crate::socket) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(in crate::socket) fn names(&self) -> impl Iterator<Item = &SmolStr> {
        self.topics.keys()
    }

    /// Takes a topic that the client joins.
    pub(in crate::socket) fn take(&mut self, topic: &str) -> Option<Box<ArrivingTopic>> {
        self.topics.remove(topic)
    }

    pub(super) fn into_topics(self) -> impl Iterator<Item = (SmolStr, Box<ArrivingTopic>)> {
        self.topics.into_iter()
    }

    /// The client leaves a topic that it has not joined here: for good, if it has received the reply to its last join. If it
    /// has not, it may leave because it waited for that in vain, and join again.
    pub(in crate::socket) fn leave(&mut self, topic: &str, join_ref: &Ref) {
        let is_left = |it: &ArrivingTopic| it.joined.as_ref() == Some(join_ref);
        if self.topics.get(topic).is_some_and(|topic| is_left(topic)) {
            self.topics.remove(topic).into_iter().for_each(|topic| topic.end());
        }
    }

    /// The client has not joined the topics in time.
    pub(in crate::socket) fn end(self) {
        self.topics.into_values().for_each(|topic| topic.end());
    }
}

impl ArrivingTopic {
    /// Lets go what waits for the client.
    fn end(&self) {
        self.outbox.end_stream();
    }

    /// Returns the stream, and what the join continues.
    pub(in crate::socket) fn land(self) -> (outbox::Sender, Continued) {
        let Self { outbox, packed, has_gap, heard, position, follows, resting, settlement, .. } =
            self;
        let has_missed = || resting.as_ref().is_some_and(Resting::missed);
        let has_gap = has_gap || (position.is_none() && has_missed());
        outbox.expect_reply();
        if follows {
            outbox.discard_volatile();
        }
        let arrival = Arrival::Moved { packed, has_gap };
        (outbox, Continued { arrival, resting, heard, position, settlement })
    }

    /// Whether the client follows the presence of the topic.
    pub(in crate::socket) fn follows(&self) -> bool {
        self.follows
    }
}
