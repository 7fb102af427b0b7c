//! [`PubSub`]: broadcasts and sockets within reach of every channel, task and endpoint that shares it.

mod config;
pub(crate) mod sockets;
mod subscription;

use std::fmt;
use std::sync::Arc;

use tower_channels_transports::{ConfigError, Memory};

pub use self::config::PubSubConfig;
use self::sockets::Sockets;
pub use self::subscription::Subscription;
use crate::payload::Payload;
use crate::presence::Presence;
use crate::topics::Topics;
pub use crate::topics::broadcast::Broadcast;
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
}

impl PubSub {
    /// Creates one with the default configuration.
    pub fn new() -> Self {
        Self::from_valid(PubSubConfig::new())
    }

    /// Creates one.
    ///
    /// # Errors
    /// If a limit is zero, or the configuration of presence is invalid.
    pub fn with_config(config: PubSubConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::from_valid(config))
    }

    fn from_valid(config: PubSubConfig) -> Self {
        let topics = Topics::new(&Memory::new(config.memory));
        Self(Arc::new(Shared {
            presence: Presence::new(config.presence, topics.clone(), None),
            topics,
            sockets: Sockets::new(),
            max_subscription: config.max_subscription,
        }))
    }

    /// Sends an event to all subscribers of a topic: the clients that have joined it, the channels and
    /// the tasks that have subscribed to it. Never blocks.
    ///
    /// As in Phoenix, the event `disconnect` on a socket id disconnects its sockets.
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl Into<Payload>) {
        self.disconnect_on(topic, event);
        self.publish(Broadcast::new(topic.into(), event.into(), payload.into()), None);
    }

    /// As [`broadcast`](Self::broadcast), but on this node only, should there be several.
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
    pub fn subscribe(&self, topic: &str) -> Subscription {
        Subscription::new(&self.0.topics, topic.into(), self.0.max_subscription)
    }

    /// Disconnects every client whose socket has this id, and ends its session. The client may
    /// connect again unless `connect` rejects it.
    pub fn disconnect(&self, id: &str) {
        self.0.sockets.disconnect(id);
    }

    /// Returns whether a client whose socket has this id is connected now. A client of a resumable
    /// session that has lost its connection is not; a long-poll client between two polls is.
    pub fn is_connected(&self, id: &str) -> bool {
        self.0.sockets.is_connected(id)
    }

    /// Returns how many sessions have this socket id, including those whose client is disconnected and
    /// may resume.
    pub fn sockets(&self, id: &str) -> usize {
        self.0.sockets.count(id)
    }

    /// Returns how many subscribers a topic has: the channels that have joined it, including those of
    /// detached sessions, and the channels and tasks that have subscribed to it.
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.0.topics.subscribers(topic)
    }

    /// Returns the topics that have subscribers, in no order. They are copied in slices, without a lock
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
    pub(crate) fn publish(&self, broadcast: Broadcast, from: Option<&Arc<dyn Inbox>>) {
        self.0.topics.broadcast(broadcast, from);
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
