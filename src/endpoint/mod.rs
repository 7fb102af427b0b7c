//! The whole of it: who may connect, which channels there are, and how all of that is mounted.

mod builder;
mod connect;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tower_channels_transports::{
    Acceptor, ConnectInfo, LongPoll, NotFound, Session, SocketLayer, SocketService, WebSocket,
    outbox,
};

pub use self::builder::{Builder, ConfigError};
pub use self::connect::{Connect, Rejected};
use crate::payload::Payload;
use crate::presence::Presence;
use crate::pubsub::PubSub;
use crate::pubsub::broadcast::Broadcast;
use crate::socket::registry::SessionRegistry;

/// Channels, who may connect to them, and the transports that lead there. A cheap clone.
///
/// `A` is what `connect` returns: every channel of a socket sees it as its assigns.
///
/// ```
/// # use tower_channels::{Channel, Endpoint, Joined, Payload, JoinError, Socket};
/// # struct Room;
/// # impl Channel for Room {
/// #     type Assigns = ();
/// #     type Info = ();
/// #     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> { Ok(Room.into()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build();
/// let app = axum::Router::<()>::new().layer(endpoint.layer("/socket"));
/// endpoint.broadcast("room:1", "new_msg", serde_json::json!({ "body": "from anywhere" }));
/// # let _ = app;
/// # }
/// ```
pub struct Endpoint<A: Send + Sync + 'static> {
    acceptor: Acceptor<Connect<A>>,
    pubsub: PubSub,
    presence: Presence,
    sessions: SessionRegistry,
    websocket: WebSocket<Connect<A>>,
    /// One for all: a client's polls may reach the endpoint through any of its services.
    long_poll: LongPoll<Connect<A>>,
}

impl<A: Send + Sync + 'static> Endpoint<A> {
    /// Begins an endpoint. `connect` decides on every client that wants to connect, and makes what
    /// its channels will know of it.
    ///
    /// A closure that captures something clones it and moves the clone into its future.
    pub fn builder<F, C>(connect: C) -> Builder<A>
    where
        C: Fn(ConnectInfo) -> F + Send + Sync + 'static,
        F: Future<Output = Result<A, Rejected>> + Send + 'static,
    {
        Builder::new(connect)
    }

    /// Mounts the endpoint in front of another service, as with axum's `Router::layer`: WebSocket
    /// at `prefix/websocket`, long poll at `prefix/longpoll`. What is neither goes on to the inner
    /// service.
    ///
    /// # Panics
    /// If `prefix` is no path: it begins with `/` and does not end with one, or is empty. If both
    /// transports are off, or have the same path.
    pub fn layer(&self, prefix: &str) -> SocketLayer<Connect<A>> {
        let layer = SocketLayer::new(prefix, self.websocket(), self.long_poll());
        layer.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The endpoint as a service of its own, for hyper: what is not its answers 404.
    ///
    /// # Panics
    /// As [`layer`](Self::layer).
    pub fn service(&self, prefix: &str) -> SocketService<Connect<A>, NotFound> {
        tower_layer::Layer::layer(&self.layer(prefix), NotFound)
    }

    /// The WebSocket transport alone: a service that expects requests for it, whatever their path,
    /// and even if [`layer`](Self::layer) would leave it out.
    pub fn websocket(&self) -> WebSocket<Connect<A>> {
        self.websocket.clone()
    }

    /// The long-poll transport alone: a service that expects requests for it, whatever their path,
    /// and even if [`layer`](Self::layer) would leave it out.
    pub fn long_poll(&self) -> LongPoll<Connect<A>> {
        self.long_poll.clone()
    }

    /// Sends an event to everyone on a topic.
    ///
    /// As in Phoenix, the event `disconnect` on a socket's id disconnects it.
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl Into<Payload>) {
        if event == "disconnect" {
            self.sessions.disconnect(topic);
        }
        self.pubsub.broadcast(Broadcast::new(topic.into(), event.into(), payload.into()), None);
    }

    /// Disconnects every client whose socket has this id. They may connect again; refusing that is
    /// up to `connect`.
    pub fn disconnect(&self, id: &str) {
        self.sessions.disconnect(id);
    }

    /// Who is present on which topic.
    pub fn presence(&self) -> Presence {
        self.presence.clone()
    }

    /// How many clients are connected.
    pub fn sessions(&self) -> usize {
        self.sessions.count()
    }

    /// Ends all sessions, a batch at a time, and refuses new ones: WebSockets close with code 1012,
    /// waiting polls are answered, and the clients connect again, elsewhere if there is another
    /// server. Returns when all have ended, or after `timeout`: `false` if some have not.
    ///
    /// Cancel safety: the endpoint goes on refusing new sessions.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.sessions.shutdown(timeout).await
    }

    /// Connects a client without a network, for [`test`](crate::test).
    pub(crate) async fn connect(
        &self,
        info: ConnectInfo,
    ) -> Result<(impl Session + use<A>, outbox::Receiver), tower_channels_transports::Rejected>
    {
        self.acceptor.connect(info).await
    }
}

impl<A: Send + Sync + 'static> Clone for Endpoint<A> {
    fn clone(&self) -> Self {
        Self {
            acceptor: self.acceptor.clone(),
            pubsub: self.pubsub.clone(),
            presence: self.presence.clone(),
            sessions: self.sessions.clone(),
            websocket: self.websocket.clone(),
            long_poll: self.long_poll.clone(),
        }
    }
}

impl<A: Send + Sync + 'static> fmt::Debug for Endpoint<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}
