//! What a join returns, and why a channel ends.

use std::fmt;

use crate::payload::Payload;

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

/// Why a channel ends, as passed to [`Channel::terminate`](crate::Channel::terminate).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The channel returned [`Error::stop`](super::Error::stop).
    Normal,
    /// The client left the topic.
    Left,
    /// The client is gone, or was disconnected.
    Closed,
    /// The client's session moves to another node, where its channel is joined again with
    /// [`Arrival::Moved`](crate::Arrival::Moved). The client has not left: tell nobody that it has.
    Moved,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Left => "left",
            Self::Closed => "closed",
            Self::Moved => "moved",
        })
    }
}
