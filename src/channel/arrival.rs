//! [`Arrival`]: why a channel was joined.

use crate::payload::Payload;

/// Why [`Channel::join`](crate::Channel::join) runs, from [`Socket::arrival`](crate::Socket::arrival).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Arrival {
    /// The client joins the topic anew.
    New,
    /// The client had joined the topic on another node, from which its session has moved here. What it has missed follows
    /// the reply to the join, in order.
    Moved {
        /// What [`Channel::pack`](crate::Channel::pack) has returned there. `None` also if that was too large.
        packed: Option<Payload>,
        /// Broadcasts of the topic may have been lost on the way. Otherwise the client receives all of them.
        has_gap: bool,
    },
    /// The client has named the last message that it has received of a topic with a [history](crate::Builder::history).
    /// What it has missed since follows the reply to the join, in order, and then what is new.
    Recovered {
        /// Not everything that it has missed is kept any more, so nothing of it follows. Send a snapshot.
        has_gap: bool,
    },
}

impl Arrival {
    /// The bytes that it holds outside of itself.
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            Self::Moved { packed: Some(packed), .. } => packed.heap_size(),
            Self::New | Self::Moved { .. } | Self::Recovered { .. } => 0,
        }
    }
}
