//! The configuration of an endpoint.

mod sharing;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tower_channels_transports::peers::Peers;
use tower_channels_transports::{
    Acceptor, CheckOrigin, ConfigError, ConnectInfo, Limits, LongPoll, LongPollConfig, Rate,
    Rejected, ResumeConfig, WebSocket, WebSocketConfig,
};

use super::Endpoint;
use super::connect::{ConnectFn, ConnectHandler, ExpiresFn, IdFn};
use super::leaving::Leaving;
use super::local::Local;
use crate::channel::callbacks::Channel;
use crate::pubsub::{PubSub, PubSubConfig};
use crate::router::Router;
use crate::socket::registry::SessionRegistry;
use crate::socket::{ChannelLimits, EndpointContext, RefreshFn};
use crate::telemetry::describe_metrics;

/// Configures and builds an [`Endpoint`]. Returned by [`Endpoint::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<A> {
    connect: ConnectFn<A>,
    id: IdFn<A>,
    expires: Option<ExpiresFn<A>>,
    refresh: Option<RefreshFn<A>>,
    router: Router<A>,
    check_origin: CheckOrigin,
    limits: Limits,
    channel_limits: ChannelLimits,
    max_sessions: usize,
    websocket: WebSocketConfig,
    long_poll: LongPollConfig,
    resume: ResumeConfig,
    pubsub: Option<PubSub>,
    /// The configuration of a [`PubSub`] of its own, and what of it was set.
    own_pubsub: PubSubConfig,
    own_options: Vec<&'static str>,
}

impl<A: Send + Sync + 'static> Endpoint<A> {
    /// Returns a builder for an endpoint. `connect` decides whether a client may connect, and
    /// returns the assigns of its channels.
    ///
    /// A closure that captures state clones it and moves the clone into its future.
    pub fn builder<F, C>(connect: C) -> Builder<A>
    where
        C: Fn(ConnectInfo) -> F + Send + Sync + 'static,
        F: Future<Output = Result<A, Rejected>> + Send + 'static,
    {
        Builder::new(connect)
    }
}

impl<A: Send + Sync + 'static> Builder<A> {
    fn new<F, C>(connect: C) -> Self
    where
        C: Fn(ConnectInfo) -> F + Send + Sync + 'static,
        F: Future<Output = Result<A, Rejected>> + Send + 'static,
    {
        Self {
            connect: Box::new(move |info| Box::pin(connect(info))),
            id: Box::new(|_| None),
            expires: None,
            refresh: None,
            router: Router::new(),
            check_origin: CheckOrigin::default(),
            limits: Limits::new(),
            channel_limits: ChannelLimits {
                channels: 100,
                mailbox: 1 << 20,
                join_timeout: Duration::from_secs(10),
            },
            max_sessions: usize::MAX,
            websocket: WebSocketConfig::new(),
            long_poll: LongPollConfig::new(),
            resume: ResumeConfig::default(),
            pubsub: None,
            own_pubsub: PubSubConfig::new(),
            own_options: Vec::new(),
        }
    }

    /// Routes the topics that match `pattern` to the channel `C`. A pattern is an exact topic, or a
    /// prefix followed by `*`. The first matching pattern wins.
    pub fn channel<C: Channel<Assigns = A>>(mut self, pattern: &str) -> Self {
        self.router.add::<C>(pattern);
        self
    }

    /// Sets the function that derives a socket's id, such as `user:7`, from its assigns.
    /// [`Endpoint::disconnect`] takes such an id, and sessions are resumable by clients with the
    /// same id only. By default sockets have no id. A client whose id is longer than 255 bytes is
    /// rejected.
    pub fn id(mut self, id: impl Fn(&A) -> Option<String> + Send + Sync + 'static) -> Self {
        self.id = Box::new(id);
        self
    }

    /// Sets the function that derives from its assigns until when a client may stay, such as the expiry of
    /// its token. `None` means as long as it likes, which is the default.
    ///
    /// At that time the connection ends: a WebSocket with close code 1012, on which clients connect anew; a
    /// poll at once, and the next request with status 500. The client comes back with a fresh token, or
    /// `connect` rejects it. A session ends with its connection; one that is resumable is detached, and
    /// goes on if its client comes back with a fresh token before
    /// [`session_ttl`](ResumeConfig::session_ttl) has passed. A client that comes back earlier, because it
    /// lost its connection, may stay as long as its newest assigns allow.
    ///
    /// A client whose time has passed already when it connects is rejected with HTTP 403. The system's
    /// clock is read when a client connects; setting it later changes nothing for those that are
    /// connected. A panic is one of `connect`.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use tower_channels::{ConnectInfo, Endpoint, Rejected};
    ///
    /// struct User {
    ///     token_expires: SystemTime,
    /// }
    ///
    /// async fn connect(_: ConnectInfo) -> Result<User, Rejected> {
    ///     Ok(User { token_expires: SystemTime::now() + Duration::from_secs(3600) })
    /// }
    ///
    /// let builder = Endpoint::builder(connect).expires(|user| Some(user.token_expires));
    /// # let _ = builder;
    /// ```
    pub fn expires(
        mut self,
        expires: impl Fn(&A) -> Option<SystemTime> + Send + Sync + 'static,
    ) -> Self {
        self.expires = Some(Box::new(expires));
        self
    }

    /// Sets the function that lets the assigns of a resumable session take over what has changed, when its
    /// client has connected again and `connect` has returned the second argument. By default that is
    /// dropped, and the channels keep seeing the assigns of the first connect.
    ///
    /// Channels share the assigns, so what may change is behind a lock or an atomic. The function runs
    /// before [`Channel::resume`] of any channel. It must not block. If it panics, the session ends, and its
    /// client begins another with the fresh assigns.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use tower_channels::{ConnectInfo, Endpoint, Rejected};
    ///
    /// struct User {
    ///     is_admin: AtomicBool,
    /// }
    ///
    /// async fn connect(_: ConnectInfo) -> Result<User, Rejected> {
    ///     Ok(User { is_admin: true.into() })
    /// }
    ///
    /// let builder = Endpoint::builder(connect)
    ///     .refresh(|user, fresh| user.is_admin.store(fresh.is_admin.into_inner(), Ordering::Relaxed));
    /// # let _ = builder;
    /// ```
    pub fn refresh(mut self, refresh: impl Fn(&A, A) + Send + Sync + 'static) -> Self {
        self.refresh = Some(Box::new(refresh));
        self
    }

    /// Sets which web pages may connect. Default: those of the same host.
    pub fn check_origin(mut self, check_origin: CheckOrigin) -> Self {
        self.check_origin = check_origin;
        self
    }

    /// Configures or disables the WebSocket transport.
    pub fn websocket(mut self, config: WebSocketConfig) -> Self {
        self.websocket = config;
        self
    }

    /// Configures or disables the long-poll transport.
    pub fn long_poll(mut self, config: LongPollConfig) -> Self {
        self.long_poll = config;
        self
    }

    /// Configures resumable sessions, which outlive their connections for clients that ask for it.
    pub fn resume(mut self, config: ResumeConfig) -> Self {
        self.resume = config;
        self
    }

    /// Sets the largest message that a client may send, in bytes. Default 1 MiB. A larger one ends
    /// the connection with close code 1009, or is answered with HTTP 413.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_message(bytes);
        self
    }

    /// Sets how many bytes may wait for one client. Default 1 MiB, at most 4 GiB. Beyond it a
    /// WebSocket ends with close code 1013, and a long-poll client gets a new session.
    pub fn max_outbox(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_outbox(bytes);
        self
    }

    /// Sets how many bytes of messages may wait for the handlers of one channel. Default 1 MiB, at
    /// most 4 GiB.
    ///
    /// Beyond it, a push from the client crashes that channel and no other; an intercepted
    /// broadcast is dropped and counted; [`Handle::send`](crate::Handle::send) returns an error.
    pub fn max_mailbox(mut self, bytes: usize) -> Self {
        self.channel_limits.mailbox = bytes;
        self
    }

    /// Sets how fast a client may send over each of its connections, WebSocket or long poll. Default: as
    /// it likes. Above the rate a client is read more slowly; with ten times the burst outstanding a
    /// WebSocket ends with close code 1008, and a long poll with status 500. A resumable session is
    /// then detached, and its client may return.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.limits = self.limits.rate(rate);
        self
    }

    /// Sets how many channels one socket may join. Default 100. Beyond it a join gets an error
    /// reply.
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.channel_limits.channels = channels;
        self
    }

    /// Sets how many sessions may exist at a time, connected or detached. Default: no limit. Beyond
    /// it clients are answered with HTTP 503.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// Sets how many clients may wait for `connect` at a time. Default 1024. Another one is answered with HTTP 503.
    pub fn max_connecting(mut self, clients: usize) -> Self {
        self.limits = self.limits.max_connecting(clients);
        self
    }

    /// Sets how long `connect` may take. Default 10 s. After that the client is answered with HTTP 503.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits = self.limits.connect_timeout(timeout);
        self
    }

    /// Sets how long [`Channel::join`] may take, including the wait until the previous instance of the
    /// channel has ended. Default 10 s. After that the join gets an error reply.
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.channel_limits.join_timeout = timeout;
        self
    }

    /// Builds the endpoint.
    ///
    /// # Panics
    /// If the configuration is invalid. [`try_build`](Self::try_build) returns the error instead.
    pub fn build(self) -> Endpoint<A> {
        self.try_build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Builds the endpoint.
    ///
    /// # Errors
    /// If the configuration is invalid, for example an endpoint without a channel, a topic pattern that
    /// never matches, a limit of zero, or a malformed path. The error says what to change.
    pub fn try_build(mut self) -> Result<Endpoint<A>, ConfigError> {
        self.validate()?;
        describe_metrics();
        self.router.register_metrics();
        let channels = self.router.metrics();
        let pubsub = Self::choose_pubsub(self.pubsub, self.own_pubsub, &self.own_options)?;
        pubsub.registry().allow_outbox(self.limits.outbox_limit());
        let sessions = SessionRegistry::new(self.max_sessions, pubsub.socket_registry().clone());
        let local = Arc::new(Local::new(sessions.clone(), self.long_poll.longest_poll()));
        let peers = pubsub.cluster().map(|cluster| cluster.add_endpoint(local.clone()));
        let endpoint = Arc::new(EndpointContext {
            router: self.router,
            refresh: self.refresh,
            pubsub: pubsub.clone(),
            limits: self.channel_limits,
            peers: peers.clone(),
        });
        let handler = ConnectHandler {
            connect: self.connect,
            id: self.id,
            expires: self.expires,
            endpoint,
            sessions: sessions.clone(),
        };
        let Self { check_origin, limits, resume, .. } = self;
        let memory = pubsub.memory().clone();
        let others: Option<Arc<dyn Peers>> = peers.clone().map(|it| it as _);
        let acceptor = Acceptor::with_peers(handler, check_origin, limits, resume, memory, others);
        let long_poll = LongPoll::new(acceptor.clone(), self.long_poll);
        local.begin(&acceptor, &long_poll);
        let leaving = Leaving::new(&acceptor, &long_poll, &pubsub, peers);
        Ok(Endpoint {
            websocket: WebSocket::new(acceptor.clone(), self.websocket),
            long_poll,
            acceptor,
            pubsub,
            sessions,
            channels,
            leaving,
        })
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.router.validate()?;
        self.limits.validate()?;
        self.websocket.validate()?;
        self.long_poll.validate()?;
        self.resume.validate()?;
        for (name, is_zero) in [
            ("max_mailbox", self.channel_limits.mailbox == 0),
            ("max_channels", self.channel_limits.channels == 0),
            ("max_sessions", self.max_sessions == 0),
            ("join_timeout", self.channel_limits.join_timeout.is_zero()),
        ] {
            if is_zero {
                return Err(ConfigError::new(format!("`{name}` must be greater than zero")));
            }
        }
        Ok(())
    }
}

impl<A> fmt::Debug for Builder<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("channels", &self.router).finish_non_exhaustive()
    }
}
