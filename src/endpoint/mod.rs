//! [`Endpoint`]: channels, the decision who may connect, and the services to mount.

pub(crate) mod builder;
pub(crate) mod connect;
pub(crate) mod layer;
mod leaving;
mod local;

use std::fmt;
use std::sync::Arc;

use tower_channels_transports::{Acceptor, Handler, LongPoll, WebSocket};

use self::connect::ConnectHandler;
use self::layer::{Layer, LongPollService, Service, WebSocketService};
use self::leaving::Leaving;
use crate::cluster::Node;
use crate::history::{Position, PublishError};
use crate::inspect::Inspect;
use crate::payload::Payload;
use crate::presence::Presence;
use crate::pubsub::PubSub;
use crate::socket::registry::SessionRegistry;
use crate::socket::shutdown::ShutdownConfig;
use crate::telemetry::ChannelMetrics;

/// A set of channels, the decision who may connect to them, and the transports that serve them.
/// Cloning is cheap; clones share everything.
///
/// `A` is what `connect` returns: the assigns that every channel of a socket sees.
///
/// ```
/// # use tower_channels::channel::Result;
/// # use tower_channels::{Channel, Endpoint, Joined, Payload, Socket};
/// # struct Room;
/// # impl Channel for Room {
/// #     type Assigns = ();
/// #     type Info = ();
/// #     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> { Ok(Room.into()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build();
/// let app = axum::Router::<()>::new().nest_service("/socket", endpoint.service());
/// endpoint.broadcast("room:1", "new_msg", serde_json::json!({ "body": "from anywhere" }));
/// # let _ = app;
/// # }
/// ```
pub struct Endpoint<A: Send + Sync + 'static> {
    acceptor: Acceptor<ConnectHandler<A>>,
    pubsub: PubSub,
    sessions: SessionRegistry,
    channels: Arc<[Arc<ChannelMetrics>]>,
    websocket: WebSocket<ConnectHandler<A>>,
    /// Shared by all services: the polls of one client may reach different ones.
    long_poll: LongPoll<ConnectHandler<A>>,
    /// The sessions, for the other nodes, if there may be any.
    leaving: Option<Arc<Leaving<A>>>,
}

/// The number of an endpoint's sessions, from [`Endpoint::sessions`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionCount {
    /// Sessions with a connection.
    pub connected: usize,
    /// Resumable sessions whose client is disconnected and may return.
    pub detached: usize,
}

impl SessionCount {
    /// Returns the number of all sessions, which is what
    /// [`Builder::max_sessions`](crate::Builder::max_sessions) limits.
    pub fn total(self) -> usize {
        self.connected + self.detached
    }
}

impl<A: Send + Sync + 'static> Endpoint<A> {
    /// Returns the endpoint as a service to mount at the URL of its clients:
    ///
    /// ```
    /// # fn mount(endpoint: tower_channels::Endpoint<()>) -> axum::Router {
    /// let app = axum::Router::<()>::new().nest_service("/socket", endpoint.service());
    /// # app
    /// # }
    /// ```
    ///
    /// It knows its transports by the end of the path, whatever stands before: WebSocket at
    /// `…/websocket`, long poll at `…/longpoll`, each with or without one trailing slash. So it also works
    /// in a nested router, with `route_service("/socket/{*rest}", ..)`, or alone under hyper. Other paths
    /// get HTTP 404.
    ///
    /// # Panics
    /// If both transports are off, or the path of one ends in that of the other.
    pub fn service(&self) -> Service<A> {
        let service = Service::standalone(self.websocket.clone(), self.long_poll.clone());
        service.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns a layer that mounts the endpoint in front of another service: WebSocket at
    /// `prefix/websocket`, long poll at `prefix/longpoll`. Other requests go to the inner service.
    ///
    /// In axum it has one right place: on the outermost router, after all routes, merges and
    /// `.fallback(..)`. axum applies a layer to what the router has by then, and to a nested or merged
    /// router's own routes only: elsewhere the requests of clients get the router's 404. Where that is not
    /// at hand, mount the [`service`](Self::service).
    ///
    /// # Panics
    /// If `prefix` is neither empty nor a path without a trailing slash, such as `/socket`, or ends in the
    /// path of a transport, such as `/socket/websocket`; if both transports are off, or the path of one
    /// ends in that of the other.
    pub fn layer(&self, prefix: &str) -> Layer<A> {
        let layer = Layer::new(prefix, self.websocket.clone(), self.long_poll.clone());
        layer.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns the WebSocket transport as a service that answers every request, whatever its path.
    /// It works even if the configuration disables the transport for [`service`](Self::service).
    pub fn websocket(&self) -> WebSocketService<A> {
        WebSocketService(self.websocket.clone())
    }

    /// Returns the long-poll transport as a service that answers every request, whatever its path.
    /// It works even if the configuration disables the transport for [`service`](Self::service).
    pub fn long_poll(&self) -> LongPollService<A> {
        LongPollService(self.long_poll.clone())
    }

    /// Returns the acceptor by which a transport of another crate connects clients to this endpoint.
    ///
    /// See "Writing a transport" in the `tower-channels-transports` crate, and the `sse` example.
    pub fn acceptor(&self) -> Acceptor<impl Handler + use<A>> {
        self.acceptor.clone()
    }

    /// The topics, the presence and the socket ids of this endpoint, and of those that share its
    /// [`PubSub`]. The methods of the same names do the same.
    pub fn pubsub(&self) -> &PubSub {
        &self.pubsub
    }

    /// Sends an event to all subscribers of a topic.
    ///
    /// As in Phoenix, the event `disconnect` on a socket id disconnects its sockets.
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl Into<Payload>) {
        self.pubsub.broadcast(topic, event, payload);
    }

    /// Sends an event to all subscribers of a topic with a history, and returns once it is kept. See
    /// [`PubSub::publish`].
    ///
    /// # Errors
    /// As [`PubSub::publish`].
    pub async fn publish(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<Position, PublishError> {
        self.pubsub.publish(topic, event, payload).await
    }

    /// Disconnects every client whose socket has this id, and ends its session. The client may
    /// connect again unless `connect` rejects it.
    pub fn disconnect(&self, id: &str) {
        self.pubsub.disconnect(id);
    }

    /// Returns whether a client whose socket has this id is connected now. See
    /// [`PubSub::is_connected`].
    pub fn is_connected(&self, id: &str) -> bool {
        self.pubsub.is_connected(id)
    }

    /// Returns how many sessions have this socket id. See [`PubSub::sockets`].
    pub fn sockets(&self, id: &str) -> usize {
        self.pubsub.sockets(id)
    }

    /// Returns how many subscribers a topic has. See [`PubSub::subscriber_count`].
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.pubsub.subscriber_count(topic)
    }

    /// Returns the topics that have subscribers. See [`PubSub::topics`].
    pub fn topics(&self) -> impl Iterator<Item = String> + use<A> {
        self.pubsub.topics()
    }

    /// Returns the nodes of the cluster, this one first. See [`PubSub::nodes`].
    pub fn nodes(&self) -> Vec<Node> {
        self.pubsub.nodes()
    }

    /// Returns the presence of this endpoint.
    pub fn presence(&self) -> Presence {
        self.pubsub.presence().clone()
    }

    /// Returns how many sessions are connected and how many are detached. A snapshot: the two may be
    /// off by sessions that change between them.
    ///
    /// A session is counted from the moment `connect` accepts its client until it has ended. Its
    /// channels may run for longer, because each handles what its client has sent before: the gauge
    /// `tower_channels_channels` counts them.
    pub fn sessions(&self) -> SessionCount {
        let detached = self.acceptor.detached_sessions();
        SessionCount { connected: self.sessions.count().saturating_sub(detached), detached }
    }

    /// Returns what the endpoint does at the moment, for a dashboard of one's own: its sessions and topics in pages, and
    /// figures that need no metrics recorder. It costs nothing unless it is used.
    pub fn inspect(&self) -> Inspect {
        Inspect::new(&self.pubsub, &self.sessions, &self.channels, self.acceptor.figures())
    }

    /// Updates the gauges of this endpoint: sessions, channels, topics, subscribers, queued bytes and
    /// memory. Counters and histograms are recorded as things happen, while gauges are as old as the last
    /// call: call it before each scrape, or every few seconds.
    ///
    /// It looks at every session, a thousand at a time with other tasks in between. The gauges of several
    /// endpoints of a program add up. What an endpoint has contributed stays when it is dropped.
    ///
    /// Cancel safety: the gauges that were not updated yet stay as they are.
    ///
    /// ```
    /// # async fn metrics(endpoint: tower_channels::Endpoint<()>) -> String {
    /// # struct Prometheus; impl Prometheus { fn render(&self) -> String { String::new() } }
    /// # let prometheus = Prometheus;
    /// endpoint.record_gauges().await;
    /// prometheus.render()
    /// # }
    /// ```
    pub async fn record_gauges(&self) {
        self.acceptor.record_gauges();
        self.pubsub.registry().record_gauges();
        self.pubsub.cluster().iter().for_each(|cluster| cluster.record_gauges());
        self.pubsub.histories().iter().for_each(|histories| histories.record_gauges());
        self.channels.iter().for_each(|channel| channel.record_gauges());
        self.sessions.record_gauges().await;
    }

    /// Ends all sessions and rejects new ones: WebSockets close with code 1012, waiting polls are
    /// answered, and the clients reconnect, to another server if there is one. Stop accepting
    /// connections before, unless there are [other nodes](#with-other-nodes), and let the HTTP server finish its responses
    /// afterwards; see the example `hyper`.
    ///
    /// Takes a timeout or a [`ShutdownConfig`]. Connections are closed at its pace, by default evenly
    /// over half of the timeout, so that the clients do not all come back in one moment. A session
    /// whose client is not waiting ends at once: a detached session, or a long-poll session between two
    /// polls.
    ///
    /// Returns `true` when all sessions have ended, or `false` if some have not after the timeout. Those
    /// that were not closed until then, at a pace that is too slow for the timeout, are closed before it
    /// returns; with a timeout of zero that is all of them. A WebSocket whose client does not answer the CLOSE ends after
    /// [`close_timeout`](crate::WebSocketConfig::close_timeout).
    ///
    /// # With other nodes
    ///
    /// If the engine keeps records, resumable sessions move to the other nodes, with all that waits for their clients:
    ///
    /// - Their connections end at the pace above, and other nodes take them when their clients come there. One whose client
    ///   comes back here is resumed here. Other sessions end as above.
    /// - Clients are accepted until the last quarter of the timeout. The connections of those that have come meanwhile end
    ///   at that moment.
    /// - In the last quarter the sessions whose clients have not come, such as those of sleeping tabs, are left behind in
    ///   the engine, up to 64 KiB each, and continued by the node to which their client comes within
    ///   [`session_ttl`](crate::ResumeConfig::session_ttl). Their channels are told that broadcasts may be missing. A
    ///   session that is larger, or that the engine does not take, ends.
    /// - The other nodes learn that this one leaves, once all endpoints of its [`PubSub`] have been shut down.
    ///
    /// A single process with a [store](crate::Builder::store) that keeps records does the same, for the process that follows:
    /// sessions are left behind when all connections have ended.
    ///
    /// It returns as soon as no session is left, and with `true` if all have ended, moved or been left behind. With a timeout
    /// of zero all end at once, and nothing is left behind.
    ///
    /// Cancel safety: the sessions that were closed stay closed, and new ones are still rejected. With other nodes, sessions
    /// without a connection stay so, sessions that are being left behind end, and new ones are rejected if the last quarter
    /// has begun.
    pub async fn shutdown(&self, config: impl Into<ShutdownConfig>) -> bool {
        let config = config.into();
        let has_ended = match &self.leaving {
            Some(leaving) if config.lasts() => {
                self.sessions.drain(config, Arc::clone(leaving)).await
            }
            _ => {
                let sweep = || {
                    self.acceptor.sweep();
                    self.long_poll.sweep();
                };
                self.sessions.shutdown(config, sweep).await
            }
        };
        self.sessions.end_shutdown();
        if let Some(cluster) = self.pubsub.cluster() {
            cluster.leave().await;
        }
        has_ended
    }
}

impl<A: Send + Sync + 'static> Clone for Endpoint<A> {
    fn clone(&self) -> Self {
        Self {
            acceptor: self.acceptor.clone(),
            pubsub: self.pubsub.clone(),
            sessions: self.sessions.clone(),
            channels: Arc::clone(&self.channels),
            websocket: self.websocket.clone(),
            long_poll: self.long_poll.clone(),
            leaving: self.leaving.clone(),
        }
    }
}

impl<A: Send + Sync + 'static> fmt::Debug for Endpoint<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}
