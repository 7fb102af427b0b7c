//! The whole of it: who may connect, which channels there are, and how all of that is mounted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tower_channels_transports::{
    self as transports, CheckOrigin, ConnectInfo, ContinuityConfig, Drain, Gateway, Handler,
    Limits, LongPoll, LongPollConfig, NotFound, Outbox, Session, SocketLayer, SocketService,
    WebSocket, WebSocketConfig,
};

use crate::channel::Channel;
use crate::client::Client;
use crate::payload::Payload;
use crate::presence::{Hub, Presence, PresenceConfig};
use crate::pubsub::{Broadcast, PubSub};
use crate::reply::{Refused, Result};
use crate::router::Router;
use crate::serializer::Version;
use crate::sessions::Sessions;
use crate::socket::{ChannelLimits, Rules, SocketSession};

/// Channels, who may connect to them, and the transports that lead there. A cheap clone.
///
/// `A` is what `connect` returns: every channel of a socket sees it as its assigns.
///
/// ```
/// # use tower_channels::{Channel, Endpoint, Joined, Payload, Refused, Socket};
/// # struct Room;
/// # impl Channel for Room {
/// #     type Assigns = ();
/// #     type Info = ();
/// #     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, Refused> { Ok(Room.into()) }
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
    gateway: Gateway<Connect<A>>,
    pubsub: PubSub,
    presence: Presence,
    sessions: Sessions,
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
        F: Future<Output = Result<A, Refused>> + Send + 'static,
    {
        Builder {
            connect: Box::new(move |info| Box::pin(connect(info))),
            id: Box::new(|_| None),
            router: Router::new(),
            check_origin: CheckOrigin::default(),
            limits: Limits::default(),
            channel_limits: ChannelLimits {
                channels: 100,
                mailbox: 1 << 20,
                join_timeout: Duration::from_secs(10),
            },
            max_sessions: usize::MAX,
            websocket: WebSocketConfig::default(),
            long_poll: LongPollConfig::default(),
            continuity: ContinuityConfig::default(),
            presence: PresenceConfig::default(),
        }
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
    /// server. Returns when all have ended, or after `patience`: `false` if some have not.
    ///
    /// Cancel safety: the endpoint goes on refusing new sessions.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.sessions.drain(patience).await
    }

    /// Connects a client without a network, for [`test`](crate::test).
    pub(crate) async fn connect(
        &self,
        info: ConnectInfo,
    ) -> Result<(impl Session + use<A>, Drain), transports::Refused> {
        self.gateway.connect(info).await
    }
}

/// What an [`Endpoint`] is made of.
#[must_use = "an endpoint is made by `build`"]
pub struct Builder<A> {
    connect: ConnectFn<A>,
    id: IdFn<A>,
    router: Router<A>,
    check_origin: CheckOrigin,
    limits: Limits,
    channel_limits: ChannelLimits,
    max_sessions: usize,
    websocket: WebSocketConfig,
    long_poll: LongPollConfig,
    continuity: ContinuityConfig,
    presence: PresenceConfig,
}

impl<A: Send + Sync + 'static> Builder<A> {
    /// Serves topics like `pattern` with the channel `C`: an exact topic, or one that ends with `*`
    /// for any rest. The first pattern that matches wins.
    pub fn channel<C: Channel<Assigns = A>>(mut self, pattern: &str) -> Self {
        self.router.add::<C>(pattern);
        self
    }

    /// Gives sockets an id, such as `user:7`, by which [`Endpoint::disconnect`] finds them. By
    /// default there is none.
    pub fn id(mut self, id: impl Fn(&A) -> Option<String> + Send + Sync + 'static) -> Self {
        self.id = Box::new(id);
        self
    }

    /// Which web pages may connect. Default: those of the same host.
    pub fn check_origin(mut self, check_origin: CheckOrigin) -> Self {
        self.check_origin = check_origin;
        self
    }

    /// Where and how WebSocket is served, or that it is not.
    pub fn websocket(mut self, config: WebSocketConfig) -> Self {
        self.websocket = config;
        self
    }

    /// Where and how long poll is served, or that it is not.
    pub fn long_poll(mut self, config: LongPollConfig) -> Self {
        self.long_poll = config;
        self
    }

    /// How long sessions outlive their connections, for clients that ask for it, and whose.
    pub fn continuity(mut self, config: ContinuityConfig) -> Self {
        self.continuity = config;
        self
    }

    /// How presence is announced, and what is added to it.
    pub fn presence(mut self, config: PresenceConfig) -> Self {
        self.presence = config;
        self
    }

    /// The largest message that a client may send, in bytes. Default 1 MiB. Over it: close code
    /// 1009, or HTTP 413.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.limits.message = bytes;
        self
    }

    /// How many bytes may wait for one client. Default 1 MiB, at most 4 GiB. Over it: close code 1013, or a new
    /// long-poll session.
    pub fn max_outbox(mut self, bytes: usize) -> Self {
        self.limits.outbox = bytes;
        self
    }

    /// How many bytes of a client's messages may wait for one channel's handler. Default 1 MiB, at most
    /// 4 GiB.
    /// Over it that channel crashes; the others go on. What else would have to wait there is not
    /// let in: an intercepted broadcast is dropped and counted, `Handle::send` returns an error.
    pub fn max_mailbox(mut self, bytes: usize) -> Self {
        self.channel_limits.mailbox = bytes;
        self
    }

    /// How many channels one socket may have joined. Default 100. Over it: an error reply.
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.channel_limits.channels = channels;
        self
    }

    /// How many sessions there may be. Default: no limit. Over it clients are refused.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// How long `connect` may take. Default 10 s. Over it the client is refused.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// How long [`Channel::join`] may take. Default 10 s. Over it: an error reply.
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.channel_limits.join_timeout = timeout;
        self
    }

    /// Makes the endpoint.
    ///
    /// # Panics
    /// If something of it cannot be meant, in words that say what; [`try_build`](Self::try_build)
    /// returns them instead.
    pub fn build(self) -> Endpoint<A> {
        self.try_build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes the endpoint, or says what of it cannot be meant: topic patterns that collide, sizes
    /// and times of zero, paths that are none.
    pub fn try_build(self) -> Result<Endpoint<A>, BuildError> {
        self.check().map_err(BuildError)?;
        let sessions = Sessions::new(self.max_sessions);
        let pubsub = PubSub::new(self.limits.outbox);
        let presence = Presence::new(Hub::new(self.presence, pubsub.clone()));
        let rules = Arc::new(Rules {
            router: self.router,
            pubsub: pubsub.clone(),
            presence: presence.clone(),
            limits: self.channel_limits,
        });
        let handler =
            Connect { connect: self.connect, id: self.id, rules, sessions: sessions.clone() };
        let gateway =
            Gateway::with_continuity(handler, self.check_origin, self.limits, self.continuity);
        Ok(Endpoint {
            websocket: WebSocket::new(gateway.clone(), self.websocket),
            long_poll: LongPoll::new(gateway.clone(), self.long_poll),
            gateway,
            pubsub,
            presence,
            sessions,
        })
    }

    fn check(&self) -> Result<(), String> {
        self.router.check()?;
        self.websocket.validate()?;
        self.long_poll.validate()?;
        self.presence.validate()?;
        for (name, is_zero) in [
            ("max_message", self.limits.message == 0),
            ("max_outbox", self.limits.outbox == 0),
            ("max_mailbox", self.channel_limits.mailbox == 0),
            ("max_channels", self.channel_limits.channels == 0),
            ("max_sessions", self.max_sessions == 0),
            ("connect_timeout", self.limits.connect_timeout.is_zero()),
            ("join_timeout", self.channel_limits.join_timeout.is_zero()),
        ] {
            if is_zero {
                return Err(format!("`{name}` is zero, with which nothing could work"));
            }
        }
        Ok(())
    }
}

/// An endpoint that cannot be meant, in words.
#[derive(Debug)]
pub struct BuildError(String);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BuildError {}

type ConnectFn<A> = Box<dyn Fn(ConnectInfo) -> Connecting<A> + Send + Sync>;
type Connecting<A> = Pin<Box<dyn Future<Output = Result<A, Refused>> + Send>>;
type IdFn<A> = Box<dyn Fn(&A) -> Option<String> + Send + Sync>;

/// Makes a socket of a client that `connect` lets in. It has no use outside the types of an
/// endpoint's services.
pub struct Connect<A> {
    connect: ConnectFn<A>,
    id: IdFn<A>,
    rules: Arc<Rules<A>>,
    sessions: Sessions,
}

impl<A: Send + Sync + 'static> Handler for Connect<A> {
    type Session = SocketSession<A>;

    async fn connect(
        &self,
        info: ConnectInfo,
        outbox: Outbox,
    ) -> Result<SocketSession<A>, transports::Refused> {
        let (returning, resuming) = (info.is_returning(), info.is_resuming());
        let version = Version::negotiate(info.params().get("vsn")).ok_or(transports::Refused)?;
        let assigns = (self.connect)(info).await.map_err(|refused| {
            if let Some(error) = refused.error {
                tracing::error!(%error, "connect failed");
            }
            transports::Refused
        })?;
        let id = (self.id)(&assigns);
        let Ok(membership) = self.sessions.enter(&outbox, id.clone(), resuming) else {
            metrics::counter!("tower_channels_sessions_refused").increment(1);
            return Err(transports::Refused);
        };
        let (rules, client) = (Arc::clone(&self.rules), Client { outbox, version, kept: false });
        Ok(SocketSession::new(rules, assigns, client, id, returning, membership))
    }
}

impl<A: Send + Sync + 'static> Clone for Endpoint<A> {
    fn clone(&self) -> Self {
        Self {
            gateway: self.gateway.clone(),
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

impl<A> fmt::Debug for Builder<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("channels", &self.router).finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for Connect<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("rules", &self.rules.router).finish_non_exhaustive()
    }
}
