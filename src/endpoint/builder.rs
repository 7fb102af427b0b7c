//! How an endpoint is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_channels_transports::{
    Acceptor, CheckOrigin, ConnectInfo, Limits, LongPoll, LongPollConfig, ResumeConfig, WebSocket,
    WebSocketConfig,
};

use super::Endpoint;
use super::connect::{Connect, ConnectFn, IdFn, Rejected};
use crate::channel::callbacks::Channel;
use crate::presence::{Presence, PresenceConfig};
use crate::pubsub::PubSub;
use crate::router::Router;
use crate::socket::registry::SessionRegistry;
use crate::socket::{ChannelLimits, EndpointContext};

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
    resume: ResumeConfig,
    presence: PresenceConfig,
}

impl<A: Send + Sync + 'static> Builder<A> {
    pub(super) fn new<F, C>(connect: C) -> Self
    where
        C: Fn(ConnectInfo) -> F + Send + Sync + 'static,
        F: Future<Output = Result<A, Rejected>> + Send + 'static,
    {
        Self {
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
            resume: ResumeConfig::default(),
            presence: PresenceConfig::default(),
        }
    }

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
    pub fn resume(mut self, config: ResumeConfig) -> Self {
        self.resume = config;
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
    pub fn try_build(self) -> Result<Endpoint<A>, ConfigError> {
        self.check().map_err(ConfigError)?;
        let sessions = SessionRegistry::new(self.max_sessions);
        let pubsub = PubSub::new(self.limits.outbox);
        let presence = Presence::new(self.presence, pubsub.clone());
        let endpoint = Arc::new(EndpointContext {
            router: self.router,
            pubsub: pubsub.clone(),
            presence: presence.clone(),
            limits: self.channel_limits,
        });
        let handler =
            Connect { connect: self.connect, id: self.id, endpoint, sessions: sessions.clone() };
        let acceptor = Acceptor::with_resume(handler, self.check_origin, self.limits, self.resume);
        Ok(Endpoint {
            websocket: WebSocket::new(acceptor.clone(), self.websocket),
            long_poll: LongPoll::new(acceptor.clone(), self.long_poll),
            acceptor,
            pubsub,
            presence,
            sessions,
        })
    }

    fn check(&self) -> Result<(), String> {
        self.router.validate()?;
        self.websocket.validate()?;
        self.long_poll.validate()?;
        self.resume.validate()?;
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
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl<A> fmt::Debug for Builder<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("channels", &self.router).finish_non_exhaustive()
    }
}
