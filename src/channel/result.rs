//! The values that the callbacks of a channel return.

use std::error::Error;
use std::fmt;

use serde_json::json;
use tower_channels_transports::limited;

use crate::payload::Payload;
use crate::reply::Reply;

/// The result of a channel's callback: an error ends the channel.
pub type Result<T, E = Stop> = std::result::Result<T, E>;

/// A successful join: the channel, and the response to the client.
#[derive(Debug)]
pub struct Joined<C> {
    pub(crate) channel: C,
    pub(crate) response: Payload,
}

impl<C> Joined<C> {
    /// Creates a join with an empty response.
    pub fn new(channel: C) -> Self {
        Self { channel, response: Payload::EMPTY }
    }

    /// Sets the response to the client's join.
    #[must_use]
    pub fn reply(mut self, response: impl Into<Payload>) -> Self {
        self.response = response.into();
        self
    }
}

impl<C> From<C> for Joined<C> {
    fn from(channel: C) -> Self {
        Self::new(channel)
    }
}

/// Error returned by [`Channel::join`] and [`Channel::resume`].
///
/// [`reason`](Self::reason) and [`with`](Self::with) refuse the client. Any other error converts
/// through `?`: it is logged, and the client receives `{"reason":"join crashed"}`.
///
/// [`Channel::join`]: crate::Channel::join
/// [`Channel::resume`]: crate::Channel::resume
#[derive(Debug)]
pub struct JoinError {
    pub(crate) response: Payload,
    pub(crate) error: Option<Box<dyn Error + Send + Sync>>,
}

impl JoinError {
    /// Refuses the join with `{"reason":reason}`.
    pub fn reason(reason: &str) -> Self {
        Self::with(json!({ "reason": reason }))
    }

    /// Refuses the join with a response of your own.
    pub fn with(response: impl Into<Payload>) -> Self {
        Self { response: response.into(), error: None }
    }

    /// The reply to a join whose channel has crashed.
    pub(crate) fn crashed() -> Self {
        Self::reason("join crashed")
    }

    /// Logs the error that it was converted from, if there is one.
    pub(crate) fn log(&self, topic: &str) {
        if let Some(error) = &self.error {
            limited!(ERROR, ?topic, error = ?error.to_string(), "join crashed");
        }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for JoinError {
    fn from(error: E) -> Self {
        Self { error: Some(error.into()), ..Self::crashed() }
    }
}

/// Error returned by the other callbacks of a channel: it ends the channel.
///
/// Any error converts through `?` and *crashes* the channel: it is logged, and the client receives
/// `phx_error` and joins again. [`Stop::normal`] ends the channel for good, with `phx_close`.
#[derive(Debug)]
pub struct Stop(pub(crate) StopKind);

#[derive(Debug)]
pub(crate) enum StopKind {
    Normal(Reply),
    Crash(Box<dyn Error + Send + Sync>),
}

impl Stop {
    /// Ends the channel in order: [`Channel::terminate`], then `phx_close`.
    ///
    /// [`Channel::terminate`]: crate::Channel::terminate
    pub fn normal() -> Self {
        Self(StopKind::Normal(Reply::None))
    }

    /// Replies to the current push before the channel ends. Has no effect on a crash, nor outside
    /// of [`Channel::handle_in`](crate::Channel::handle_in).
    #[must_use]
    pub fn reply(self, reply: Reply) -> Self {
        match self.0 {
            StopKind::Normal(_) => Self(StopKind::Normal(reply)),
            crash @ StopKind::Crash(_) => Self(crash),
        }
    }

    /// Crashes the channel because of an unknown event, as Phoenix does.
    pub fn unmatched(event: &str) -> Self {
        Self::from(format!("no clause for the event {event:?}"))
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self(StopKind::Crash(error.into()))
    }
}

/// Why a channel ends, as passed to [`Channel::terminate`](crate::Channel::terminate).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The channel returned [`Stop::normal`].
    Normal,
    /// The client left the topic.
    Left,
    /// The client is gone, or was disconnected.
    Closed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Left => "left",
            Self::Closed => "closed",
        })
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "join crashed: {error}"),
            None => write!(f, "join rejected: {:?}", self.response),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            StopKind::Normal(_) => f.write_str("the channel stopped"),
            StopKind::Crash(error) => write!(f, "the channel crashed: {error}"),
        }
    }
}
