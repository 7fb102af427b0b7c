//! What the callbacks of a channel return.

use std::error::Error;
use std::fmt;

use serde_json::json;

use crate::payload::Payload;
use crate::reply::Reply;

/// What a handler returns: a value, or the end of its channel.
pub type Result<T, E = Stop> = std::result::Result<T, E>;

/// A channel whose join succeeded, and what the join answers.
#[derive(Debug)]
pub struct Joined<C> {
    pub(crate) channel: C,
    pub(crate) response: Payload,
}

impl<C> Joined<C> {
    /// Joins with an empty response.
    pub fn new(channel: C) -> Self {
        Self { channel, response: Payload::EMPTY }
    }

    /// Sets what the client's join receives.
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

/// A connect or a join said no.
///
/// Any error becomes one through `?`: a join then answers `{"reason":"join crashed"}` and the error
/// is logged, as a connect's is; the client of a refused connect learns no more than HTTP 403.
#[derive(Debug)]
pub struct JoinError {
    pub(crate) response: Payload,
    pub(crate) error: Option<Box<dyn Error + Send + Sync>>,
}

impl JoinError {
    /// Refuses with `{"reason":reason}`.
    pub fn reason(reason: &str) -> Self {
        Self::with(json!({ "reason": reason }))
    }

    /// Refuses with a response of one's own.
    pub fn with(response: impl Into<Payload>) -> Self {
        Self { response: response.into(), error: None }
    }

    /// Logs the error that it came from, if it was none of the application's words.
    pub(crate) fn log(&self, topic: &str) {
        if let Some(error) = &self.error {
            tracing::error!(topic, %error, "join crashed");
        }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for JoinError {
    fn from(error: E) -> Self {
        Self { error: Some(error.into()), ..Self::reason("join crashed") }
    }
}

/// The end of a channel, from one of its own callbacks.
///
/// Any error becomes one through `?`: the channel then *crashes*, which its client sees as
/// `phx_error` and answers with a new join. [`Stop::normal`] ends it for good with `phx_close`.
#[derive(Debug)]
pub struct Stop(pub(crate) Why);

#[derive(Debug)]
pub(crate) enum Why {
    Normal(Reply),
    Crash(Box<dyn Error + Send + Sync>),
}

impl Stop {
    /// Ends the channel as it should end: [`Channel::terminate`], then `phx_close`.
    ///
    /// [`Channel::terminate`]: crate::Channel::terminate
    pub fn normal() -> Self {
        Self(Why::Normal(Reply::None))
    }

    /// Answers the push that is being handled before the channel ends. On a crash, and outside of
    /// [`Channel::handle_in`](crate::Channel::handle_in), it does nothing.
    #[must_use]
    pub fn reply(self, reply: Reply) -> Self {
        match self.0 {
            Why::Normal(_) => Self(Why::Normal(reply)),
            crash @ Why::Crash(_) => Self(crash),
        }
    }

    /// Crashes the channel over an event that it does not know, as Phoenix does.
    pub fn unmatched(event: &str) -> Self {
        Self::from(format!("no clause for the event {event:?}"))
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self(Why::Crash(error.into()))
    }
}

/// Why a channel ended, as [`Channel::terminate`](crate::Channel::terminate) learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The channel stopped itself with [`Stop::normal`].
    Normal,
    /// The client left.
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
            Why::Normal(_) => f.write_str("the channel stopped"),
            Why::Crash(error) => write!(f, "the channel crashed: {error}"),
        }
    }
}
