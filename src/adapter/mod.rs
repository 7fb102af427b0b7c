//! [`Adapter`]: how the nodes of a cluster reach each other.

mod boxed;
mod history;
mod queue;
mod store;

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

pub use self::history::{Append, HistoryInbox, HistoryStore, Keep, Kept, Page, Since};
pub use self::queue::{Outgoing, SendQueue};
pub use self::store::{Record, Replaced, Revision, Store, StoreError};

/// A boxed future, so that adapters are object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries frames between the nodes of a cluster, over an engine such as Redis or NATS. It knows no topic's
/// subscribers, no session and no presence, and does not look into frames.
///
/// An adapter belongs to one [`PubSub`](crate::PubSub), which starts it once and drops it when it is
/// dropped itself. Dropping it ends its tasks.
///
/// No frame may arrive twice. What one node publishes must arrive at each other in the order in which it was published,
/// frames to all and frames to topics taken together, as long as every topic is heard; among the frames to one topic
/// always. An engine that cannot promise that says so in its [`limits`](Self::limits). A frame may be lost, which the
/// adapter reports where it can know: through [`NodeInbox::lost`] or [`NodeInbox::link`].
///
/// A frame is never empty, so that adapters can use empty ones among themselves.
///
/// The contract is tested by the suite in `adapters/testing/`, for an adapter of one's own as for those of the
/// workspace.
pub trait Adapter: fmt::Debug + Send + Sync + 'static {
    /// Begins to hear everything that is published, and hands it to `inbox`, in the order in which it comes and
    /// from one task. Called once, within a runtime; spawns the tasks of the adapter and returns.
    ///
    /// The adapter connects, and connects again for as long as it exists. It hears every topic until it is told
    /// otherwise by [`hear_all`](Self::hear_all).
    fn start(&self, node: NodeId, inbox: Arc<dyn NodeInbox>);

    /// Takes a frame to send. Never blocks and calls no foreign code: it is called under a lock.
    ///
    /// # Errors
    /// [`PublishError::Overflow`] if too much waits to be sent, [`PublishError::Unsupported`] for a kind of channel that
    /// the adapter does not know. The frame is dropped, and the caller knows.
    fn publish(&self, to: Channel<'_>, frame: Bytes) -> Result<(), PublishError>;

    /// Sends a frame to one node, and resolves when the engine has taken it. Frames sent in this way have no order
    /// among those that are published.
    fn reach(&self, node: NodeId, frame: Bytes) -> BoxFuture<'_, Reached>;

    /// Resolves when everything published before has been handed to the engine, or was lost.
    fn flush(&self) -> BoxFuture<'_, ()>;

    /// Hears a topic. Resolves when frames published from then on are heard, at once if they are already; also
    /// if the engine is away, which is no reason to keep a client waiting.
    ///
    /// The future need not be awaited: the topic is heard all the same.
    fn listen(&self, topic: &str) -> BoxFuture<'static, ()>;

    /// Does not need to hear a topic any more.
    fn ignore(&self, topic: &str);

    /// Chooses between hearing every topic and hearing those of [`listen`](Self::listen) alone. Resolves when it is
    /// done. Until then, and after each reconnection for as long as it takes, every topic may be heard. Nothing is missed
    /// meanwhile that is heard before and after, unless the change is told as an interruption of the link.
    fn hear_all(&self, all: bool) -> BoxFuture<'static, ()>;

    /// Gives up the connection on which it hears, and connects anew: the node has not heard itself for a while.
    fn reconnect(&self);

    /// What the engine can do. Asked once, before [`start`](Self::start).
    fn limits(&self) -> AdapterLimits;

    /// The records that the engine keeps, if it can. Without them sessions do not move to other nodes.
    fn store(&self) -> Option<&dyn Store> {
        None
    }

    /// The histories of topics that the engine keeps for all nodes, if it can. Asked once, before
    /// [`start`](Self::start); used until the [`PubSub`](crate::PubSub) is dropped, which may be after the adapter. Without
    /// it no topic can have a history.
    fn history(&self) -> Option<Arc<dyn HistoryStore>> {
        None
    }
}

/// Where an adapter hands over what it hears and notices. All methods return quickly, and may be called
/// from any task.
pub trait NodeInbox: Send + Sync {
    /// Takes a frame. It is delivered to the clients of the node before this returns, so an adapter that calls it
    /// from the task that reads from the engine has no queue that could be full: a node that cannot keep up
    /// reads more slowly.
    fn receive(&self, frame: Bytes);

    /// The node does not hear the engine any more, or hears it again.
    fn link(&self, link: Link);

    /// A frame was not sent, or it is not known whether it was.
    fn lost(&self, frame: Bytes);
}

/// Whether a node hears the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Link {
    /// It hears everything that is published from now on.
    Up,
    /// It may miss what is published.
    Down,
}

/// To whom a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Channel<'a> {
    /// All nodes, the sender included.
    All,
    /// The nodes that hear the topic, the sender included if it does.
    Topic(&'a str),
}

/// The identity of a node: 64 random bits, drawn anew by every process and every [`PubSub`](crate::PubSub).
/// Nobody configures it, so that no two nodes share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// Draws one.
    pub(crate) fn random() -> Self {
        // The keys of a `RandomState` come from the system.
        Self(RandomState::new().build_hasher().finish())
    }
}

/// What became of a frame to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reached {
    /// The node hears the engine, which has taken the frame.
    Someone,
    /// No such node hears the engine: its process is gone, or its connection.
    Nobody,
    /// The engine cannot know, or is away.
    Unknown,
}

/// Error returned by [`Adapter::publish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// Too much waits to be sent.
    Overflow,
    /// The adapter does not know such a channel.
    Unsupported,
}

/// What an engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterLimits {
    /// The largest frame, in bytes. Larger messages are sent in parts.
    pub max_frame: usize,
    /// Whether what one node publishes arrives at every other in order. If not, lost and repeated frames are not
    /// noticed by their numbers.
    pub is_ordered: bool,
}

impl AdapterLimits {
    /// Creates the limits of an engine that keeps the order of each sender's frames.
    #[must_use]
    pub fn new(max_frame: usize) -> Self {
        Self { max_frame, is_ordered: true }
    }

    /// Says that frames of one sender may arrive in another order.
    #[must_use]
    pub fn unordered(self) -> Self {
        Self { is_ordered: false, ..self }
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overflow => "too much waits to be sent to the other nodes",
            Self::Unsupported => "the adapter cannot send to such a channel",
        })
    }
}

impl std::error::Error for PublishError {}
