//! What one node asks another, and tells it. Each goes to that node alone, in a frame with number 0.

use bytes::Bytes;
use prost::{Message, Oneof};
use tower_channels_transports::peers::Wanted;

/// Asks the recipient something, which it answers or [accepts](super::Body::Accepted) soon.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ask {
    /// No other question of the sender has it.
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    /// The index of the endpoint that it is for.
    #[prost(uint32, tag = "2")]
    pub(crate) endpoint: u32,
    /// `None` if a later release asks what this one does not know.
    #[prost(oneof = "Question", tags = "3, 4, 5, 6")]
    pub(crate) question: Option<Question>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Question {
    #[prost(message, tag = "3")]
    Poll(Poll),
    #[prost(message, tag = "4")]
    Post(Post),
    #[prost(message, tag = "5")]
    Offer(Offer),
    #[prost(message, tag = "6")]
    Take(Take),
}

/// A long-poll GET for a session of the recipient.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Poll {
    #[prost(string, tag = "1")]
    pub(crate) token: String,
}

/// A long-poll POST for a session of the recipient.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Post {
    #[prost(string, tag = "1")]
    pub(crate) token: String,
    #[prost(bool, tag = "2")]
    pub(crate) is_ndjson: bool,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body: Bytes,
}

/// Whether the recipient gives away this session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Offer {
    /// The id that the client chose.
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, optional, tag = "2")]
    pub(crate) socket_id: Option<String>,
    /// The last number that the client has seen.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) received: Option<u64>,
}

/// The recipient is to give away a session that it has offered.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Take {
    #[prost(uint64, tag = "1")]
    pub(crate) ticket: u64,
    /// What the sender has prepared.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) prepared: Bytes,
}

/// Answers a question of the recipient.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answered {
    /// The id of the question.
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(oneof = "Answer", tags = "2, 3, 4, 5, 6, 7")]
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Answer {
    /// There is no such endpoint, session or ticket; or the question is not understood.
    #[prost(message, tag = "2")]
    NotHere(()),
    /// Too much is asked of the node.
    #[prost(message, tag = "3")]
    Busy(()),
    #[prost(message, tag = "4")]
    Relayed(Relayed),
    #[prost(message, tag = "5")]
    Offered(Offered),
    /// The session is in use by another client, or contested.
    #[prost(message, tag = "6")]
    InUse(()),
    /// The session, which has ended on the node that says so.
    #[prost(bytes = "bytes", tag = "7")]
    Given(Bytes),
}

/// The response to a long-poll request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Relayed {
    /// The HTTP status.
    #[prost(uint32, tag = "1")]
    pub(crate) status: u32,
    /// In seconds.
    #[prost(uint32, optional, tag = "2")]
    pub(crate) retry_after: Option<u32>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body: Bytes,
}

/// The session is given to who takes it with this ticket.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Offered {
    #[prost(uint64, tag = "1")]
    pub(crate) ticket: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) outline: Bytes,
}

/// Questions, by their ids.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ids {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) ids: Vec<u64>,
}

/// Tells the recipient something that needs no answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Notify {
    #[prost(oneof = "Notice", tags = "1, 2, 3")]
    pub(crate) notice: Option<Notice>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Notice {
    #[prost(message, tag = "1")]
    Took(Took),
    /// All that belonged to a session which the recipient gave away is in its place, or will not be: the ticket is that
    /// of its presence.
    #[prost(uint64, tag = "2")]
    Settled(u64),
    /// The sender has heard what the recipient has told it by [`Took`](Self::Took).
    #[prost(message, tag = "3")]
    TookHeard(Took),
}

/// The sender has the session, which the recipient may believe to have.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Took {
    #[prost(uint32, tag = "1")]
    pub(crate) endpoint: u32,
    #[prost(string, tag = "2")]
    pub(crate) id: String,
    /// The number of this owner among all that the session had.
    #[prost(uint64, tag = "3")]
    pub(crate) generation: u64,
}

impl Question {
    /// Asks for a session.
    pub(crate) fn offer(wanted: &Wanted) -> Self {
        Self::Offer(Offer {
            id: wanted.id.to_string(),
            socket_id: wanted.socket_id.as_deref().map(Into::into),
            received: wanted.received,
        })
    }

    /// Takes a session that was offered.
    pub(crate) fn take(ticket: u64, prepared: Bytes) -> Self {
        Self::Take(Take { ticket, prepared })
    }

    /// Returns whether it is about a session that is to move.
    pub(crate) fn moves(&self) -> bool {
        matches!(self, Self::Offer(_) | Self::Take(_))
    }

    /// The name of the kind, in metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Poll(_) => "poll",
            Self::Post(_) => "post",
            Self::Offer(_) => "offer",
            Self::Take(_) => "take",
        }
    }
}

impl From<Offer> for Wanted {
    fn from(offer: Offer) -> Self {
        Self {
            id: offer.id.into(),
            socket_id: offer.socket_id.map(Into::into),
            received: offer.received,
        }
    }
}
