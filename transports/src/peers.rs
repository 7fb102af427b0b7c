//! [`Peers`]: the other nodes, which may have the session that a client asks for.
//!
//! A long-poll request whose token names another node is *relayed* to it. A session moves: the node to which its
//! client has come *finds* it, prepares for it by the *outline* of what it hears, and *takes* it; the other *offers* it
//! and gives it away.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

/// A boxed future, so that the traits are object-safe.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Identifies a node.
pub type NodeId = u64;

/// The other nodes of a cluster, as an endpoint reaches them. The endpoint on the other node answers with
/// [`LongPoll::relayed`](crate::LongPoll::relayed) and [`Acceptor::offer`](crate::Acceptor::offer).
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// This node, which long-poll tokens name.
    fn node(&self) -> NodeId;

    /// Returns whether there is such a node, or was, as far as this one can know. A token that names any other is refused
    /// as an unknown one, before a body is read for it.
    fn knows(&self, node: NodeId) -> bool {
        let _ = node;
        true
    }

    /// Passes a long-poll request to the node that its token names, and resolves with the answer: within a second if
    /// that node is gone, and otherwise shortly after it should have answered. Dropping the future withdraws the
    /// request.
    fn relay(&self, node: NodeId, request: Relayed)
    -> BoxFuture<Result<RelayedAnswer, NotRelayed>>;

    /// Finds the node that has the session of this id, which may be this one. If there is none, the id belongs to this
    /// node from then on.
    /// Resolves within two seconds, also if the others or the store do not answer.
    fn find(&self, wanted: Wanted) -> BoxFuture<Found>;

    /// The session of this id, which this node had, has ended here.
    fn release(&self, id: &Arc<str>);
}

/// A long-poll request for a session of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relayed {
    /// A GET with this token.
    Poll {
        /// The text of the token.
        token: String,
    },
    /// A POST.
    Post {
        /// The text of the token.
        token: String,
        /// Whether the body has one message per line.
        ndjson: bool,
        /// At most as long as the largest body of the endpoint that has read it.
        body: Bytes,
    },
}

/// The answer to a relayed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The value of `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// The body.
    pub body: Bytes,
}

/// Why a request has no answer of the node that it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotRelayed {
    /// The node is gone, or silent for too long.
    Gone,
    /// The node is there, and has not answered in time.
    Late,
    /// Too many requests are being relayed.
    Busy,
}

/// The session that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The id that the client chose.
    pub id: Arc<str>,
    /// The socket id that `connect` has yielded.
    pub socket_id: Option<Box<str>>,
    /// The last number that the client has seen, if it reads numbers.
    pub received: Option<u64>,
}

/// The result of [`Peers::find`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Found {
    /// No other node has it: this one may begin it.
    None,
    /// Its node is gone: this one may begin it, and knows this of it; see [`Session::recover`](crate::Session::recover).
    Left(Bytes),
    /// This node has it.
    Here,
    /// Another client has the id, or the session is contested: the client gets a session of its own.
    Taken,
    /// Another node offers it, or has left it behind.
    Offered(Box<dyn Offer>),
}

/// A session that another node gives away.
pub trait Offer: fmt::Debug + Send {
    /// The [outline](crate::Session::outline) of the session.
    fn outline(&self) -> &Bytes;

    /// Takes the session: it has ended there when this resolves with it, as [`Handover::give`] has encoded it. `None`
    /// if it cannot be had after all. Dropping the offer leaves it where it is. `prepared` is what
    /// [`Session::prepare`](crate::Session::prepare) has returned.
    fn take(self: Box<Self>, prepared: Bytes) -> BoxFuture<Option<Bytes>>;
}

/// What an endpoint says to the wish of another node; see [`Acceptor::offer`](crate::Acceptor::offer).
#[derive(Debug)]
#[non_exhaustive]
pub enum Offering {
    /// The session is not here, or has ended, or its client would miss messages: then it ends.
    None,
    /// It is in use by another client, or contested.
    Taken,
    /// It is on its way here, or away, for another connection. The answer is known in a moment.
    Busy,
    /// It is given away. Its connection has ended.
    Offered(Box<dyn Handover>),
}

/// A session that is about to move. Dropping it leaves the session here, without a connection.
pub trait Handover: fmt::Debug + Send {
    /// The [outline](crate::Session::outline) of the session.
    fn outline(&self) -> Bytes;

    /// Ends the session here, and resolves with all that lets another node continue it. `None` if its client has come
    /// back to this node meanwhile, or it has ended. `prepared` is what the other node has prepared; `None` if there is
    /// none yet, and the session waits in a store.
    fn give(self: Box<Self>, prepared: Option<Bytes>) -> BoxFuture<Option<Bytes>>;
}
