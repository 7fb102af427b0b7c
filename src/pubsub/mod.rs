//! [`PubSub`]: broadcasts and sockets within reach of every channel, task and endpoint that shares it.

mod config;
mod history;
pub(crate) mod sockets;
mod subscription;

use std::fmt;
use std::sync::Arc;

use tower_channels_transports::{ConfigError, Memory};

pub use self::config::PubSubConfig;
use self::sockets::Sockets;
pub use self::subscription::Subscription;
use crate::adapter::{Adapter, BoxFuture, HistoryStore, NodeId};
use crate::cluster::config::Listen;
use crate::cluster::node::Node;
use crate::cluster::{Cluster, Local};
use crate::history::Histories;
use crate::payload::Payload;
use crate::presence::Presence;
use crate::topics::Topics;
pub use crate::topics::broadcast::Broadcast;
use crate::topics::heard::Origin;
use crate::topics::subscriber::Inbox;

/// The topics, the presence and the socket ids that endpoints share. A cheap clone, from
/// [`Endpoint::pubsub`], [`Socket::pubsub`] or [`new`](Self::new).
///
/// Every endpoint has one. To let several endpoints of a program share topics, give all of them the
/// same one with [`Builder::pubsub`]. They also share its budget of memory.
///
/// ```
/// # use tower_channels::channel::Result;
/// # use tower_channels::{Channel, Joined, Payload, Socket};
/// # struct Room;
/// # impl Channel for Room {
/// #     type Assigns = ();
/// #     type Info = ();
/// #     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> { Ok(Room.into()) }
/// # }
/// use serde_json::json;
/// use tower_channels::{Endpoint, PubSub};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let pubsub = PubSub::new();
/// let users = Endpoint::builder(|_| async { Ok(()) })
///     .channel::<Room>("room:*")
///     .pubsub(pubsub.clone())
///     .build();
/// let staff = Endpoint::builder(|_| async { Ok(()) })
///     .channel::<Room>("*")
///     .pubsub(pubsub.clone())
///     .build();
///
/// let mut room = pubsub.subscribe("room:1");
/// pubsub.broadcast("room:1", "new_msg", json!({ "body": "to clients of both, and to tasks" }));
/// assert_eq!(room.recv().await.unwrap().event(), "new_msg");
/// # let _ = (users, staff);
/// # }
/// ```
///
/// [`Builder::pubsub`]: crate::Builder::pubsub
/// [`Endpoint::pubsub`]: crate::Endpoint::pubsub
/// [`Socket::pubsub`]: crate::Socket::pubsub
#[derive(Clone)]
pub struct PubSub(Arc<Shared>);

struct Shared {
    topics: Topics,
    presence: Presence,
    sockets: Sockets,
    max_subscription: usize,
    /// The other nodes, if there may be any, or those that this process follows on or is followed by.
    cluster: Option<Arc<Cluster>>,
    /// What is kept, if anything is.
    histories: Option<Arc<Histories>>,
}

impl PubSub {
    /// Creates one with the default configuration.
    pub fn new() -> Self {
        Self::from_valid(PubSubConfig::new(), None, None)
    }

    /// Creates one.
    ///
    /// # Errors
    /// If a limit is zero, the configuration of presence, of the cluster or of a history is invalid, or it has an adapter
    /// or a store and there is no tokio runtime.
    pub fn with_config(config: PubSubConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let adapter = config.take_adapter()?;
        let store = match &adapter {
            Some(adapter) if config.has_history() => Some(shared_store(&**adapter)?),
            _ => config.take_store()?.map(Arc::from),
        };
        Ok(Self::from_valid(config, adapter, store))
    }

    fn from_valid(
        config: PubSubConfig,
        adapter: Option<Box<dyn Adapter>>,
        store: Option<Arc<dyn HistoryStore>>,
    ) -> Self {
        let topics = Topics::new(&Memory::new(config.memory));
        let sockets = Sockets::new();
        let node = config.cluster.node.unwrap_or_else(NodeId::random);
        let node = adapter.is_some().then_some(node);
        let presence = Presence::new(config.presence, topics.clone(), node);
        let local = || {
            let (topics, sockets) = (topics.clone(), sockets.clone());
            Local { topics, sockets, presence: Arc::clone(&presence.0) }
        };
        let cluster = match adapter.zip(node) {
            Some((adapter, node)) => Some(Cluster::start(node, adapter, config.cluster, local())),
            None => store.as_ref().and_then(|store| Cluster::start_alone(store, local())),
        };
        let history_memory = config.history_memory.unwrap_or(config.memory / 4);
        // A store that an adapter has is that of all nodes.
        let others = cluster.as_ref().filter(|cluster| !cluster.is_alone());
        let gaps = others.map(|cluster| cluster.gaps());
        let histories = (!config.histories.is_empty())
            .then(|| Histories::start(config.histories, history_memory, store, gaps, &topics));
        if let (Some(cluster), Some(histories)) = (&cluster, &histories)
            && histories.outlive_node()
        {
            let histories = Arc::clone(histories);
            cluster.set_delivered(move || histories.delivered());
        }
        let max_subscription = config.max_subscription;
        Self(Arc::new(Shared { topics, presence, sockets, max_subscription, cluster, histories }))
    }

    /// Sends an event to all subscribers of a topic: the clients that have joined it, the channels and
    /// the tasks that have subscribed to it. Never blocks.
    ///
    /// As in Phoenix, the event `disconnect` on a socket id disconnects its sockets.
    ///
    /// If there are several nodes, it reaches the subscribers on all of them; those on this node before anything that
    /// another node answers on the topic. A payload of more than 6 MiB reaches this node alone.
    ///
    /// On a topic with a [history](crate::Builder::history) it reaches everybody once it is kept, and nobody if it is not,
    /// which is logged and counted; [`publish`](Self::publish) says so.
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl Into<Payload>) {
        self.disconnect_on(topic, event);
        self.send(Broadcast::new(topic.into(), event.into(), payload.into()), None);
    }

    /// As [`broadcast`](Self::broadcast), but on this node only, if there are several, and never kept.
    pub fn local_broadcast(&self, topic: &str, event: &str, payload: impl Into<Payload>) {
        if event == DISCONNECT {
            self.0.sockets.disconnect(topic);
        }
        let broadcast = Broadcast::new(topic.into(), event.into(), payload.into());
        self.0.topics.broadcast(broadcast, None);
    }

    /// Subscribes a task to the broadcasts of a topic.
    ///
    /// A channel hears other topics through [`Socket::subscribe`](crate::Socket::subscribe).
    ///
    /// If this node hears [only some topics](crate::cluster::Listen::Topics), broadcasts of other nodes in the first moments
    /// may be missed.
    pub fn subscribe(&self, topic: &str) -> Subscription {
        drop(self.hear(topic));
        Subscription::new(&self.0.topics, topic.into(), self.0.max_subscription)
    }

    /// Disconnects every client whose socket has this id, and ends its session. The client may
    /// connect again unless `connect` rejects it.
    ///
    /// It reaches all nodes, if there are several, also those that do not hear the others at the moment: as soon as
    /// they do.
    pub fn disconnect(&self, id: &str) {
        self.0.sockets.disconnect(id);
        if let Some(cluster) = self.others() {
            cluster.disconnect(id);
        }
    }

    /// Returns the nodes of the cluster, this one first. Without an [adapter](PubSubConfig::adapter) there are none.
    pub fn nodes(&self) -> Vec<Node> {
        self.others().map(|cluster| cluster.nodes()).unwrap_or_default()
    }

    /// Chooses which topics this node hears from others, from now on. Does nothing without an
    /// [adapter](PubSubConfig::adapter).
    pub fn listen(&self, listen: Listen) {
        if let Some(cluster) = self.others() {
            cluster.listen(listen);
        }
    }

    /// Returns whether a client whose socket has this id is connected to this node now. A client of a resumable
    /// session that has lost its connection is not; a long-poll client between two polls is.
    pub fn is_connected(&self, id: &str) -> bool {
        self.0.sockets.is_connected(id)
    }

    /// Returns how many sessions of this node have this socket id, including those whose client is disconnected and
    /// may resume.
    pub fn sockets(&self, id: &str) -> usize {
        self.0.sockets.count(id)
    }

    /// Returns how many subscribers a topic has on this node: the channels that have joined it, including those of
    /// detached sessions, and the channels and tasks that have subscribed to it.
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.0.topics.subscribers(topic)
    }

    /// Returns the topics that have subscribers on this node, in no order. They are copied in slices, without a lock
    /// while the caller has the iterator: topics that come or go meanwhile may be missing.
    pub fn topics(&self) -> impl Iterator<Item = String> + use<> {
        self.0.topics.names().map(String::from)
    }

    /// The presence on all topics.
    pub fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// Disconnects the sockets with this id, if `event` asks for it.
    pub(crate) fn disconnect_on(&self, id: &str, event: &str) {
        if event == DISCONNECT {
            self.disconnect(id);
        }
    }

    /// Sends a broadcast of the application, except to the subscriber with the inbox `from`. Everything
    /// that other nodes have to send as well comes through here.
    pub(crate) fn send(&self, broadcast: Broadcast, from: Option<&Arc<dyn Inbox>>) {
        let not_kept = match &self.0.histories {
            Some(histories) => histories.broadcast(broadcast, from),
            None => Some(broadcast),
        };
        let Some(broadcast) = not_kept else { return };
        let Some(cluster) = self.others() else {
            return self.0.topics.broadcast(broadcast, from);
        };
        let frames = cluster.encode_broadcast(&broadcast);
        let topic = broadcast.topic_name();
        // The topic is locked until the clients of this node have it: on this topic they see no answer of another node
        // before what it answers.
        let mut sent = None;
        let send = || {
            let now_sent = cluster.publish(&topic, frames);
            sent = Some(now_sent);
            now_sent.origin()
        };
        self.0.topics.broadcast_from_node(broadcast, from, send);
        sent.into_iter().for_each(|sent| cluster.report_sent(&topic, sent));
    }

    /// Returns what a node has to have heard that is to go on where this one begins: of each node, this one included,
    /// the highest number of its broadcasts that has come, with or without having reached its subscribers. Empty
    /// without other nodes; this one alone if it does not notice what is lost.
    pub(crate) fn heard(&self) -> Vec<Origin> {
        self.others().map(|cluster| cluster.heard()).unwrap_or_default()
    }

    /// Returns whether all of these broadcasts have reached their subscribers on this node, and all before them. True
    /// if this node does not notice what is lost.
    pub(crate) fn has_heard(&self, numbers: &[Origin]) -> bool {
        self.others().is_none_or(|cluster| cluster.has_heard(numbers))
    }

    /// Returns what a new subscriber of the topic has to wait for; see [`Cluster::hear`] and [`Histories::hear`].
    pub(crate) fn hear(&self, topic: &str) -> Option<BoxFuture<'static, ()>> {
        let cluster = self.others()?;
        match self.histories().filter(|histories| histories.policy(topic).is_some()) {
            Some(histories) => histories.hear(topic),
            None => cluster.hear(topic),
        }
    }

    /// Returns whether clients of this node have yet to learn that they may have missed broadcasts.
    pub(crate) fn has_pending_gaps(&self) -> bool {
        self.others().is_some_and(|cluster| cluster.has_pending_gaps())
    }

    /// Tells a node that all channels which have moved from there with this ticket go on here, or end.
    pub(crate) fn settle(&self, node: NodeId, ticket: u64) {
        if let Some(cluster) = &self.0.cluster {
            cluster.settle(node, ticket);
        }
    }

    /// This node, if there may be others.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.others().map(|cluster| cluster.node())
    }

    /// The other nodes, if there may be any.
    fn others(&self) -> Option<&Arc<Cluster>> {
        self.0.cluster.as_ref().filter(|cluster| !cluster.is_alone())
    }

    /// What knows of sessions on other nodes, or in processes before this one.
    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.0.cluster.as_ref()
    }

    /// What is kept, if anything is.
    pub(crate) fn histories(&self) -> Option<&Arc<Histories>> {
        self.0.histories.as_ref()
    }

    /// The topics of this node.
    pub(crate) fn registry(&self) -> &Topics {
        &self.0.topics
    }

    /// The sockets of this node, by id.
    pub(crate) fn socket_registry(&self) -> &Sockets {
        &self.0.sockets
    }

    /// The budget of memory.
    pub(crate) fn memory(&self) -> &Memory {
        self.0.topics.account().memory()
    }
}

/// Returns where the engine of an adapter keeps histories.
fn shared_store(adapter: &dyn Adapter) -> Result<Arc<dyn HistoryStore>, ConfigError> {
    adapter.history().ok_or_else(|| {
        ConfigError::new(
            "a `history` is kept by the engine of the `adapter`, which all nodes share: this one keeps none",
        )
    })
}

/// The event that disconnects a socket, broadcast on its id.
const DISCONNECT: &str = "disconnect";

impl Default for PubSub {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PubSub").field("memory", self.memory()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
