//! [`HistoryStore`]: keeps the messages of topics, and hands them to the nodes in one order.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;
use tokio::sync::oneshot;

use super::{BoxFuture, PublishError, Store, StoreError};
use crate::history::Position;

/// Keeps the messages of the topics that have a history, and hands each to the nodes once it is kept.
///
/// Each kept message has a [`Position`]. The numbers of a topic grow within an epoch; a store that may have lost or
/// repeated numbers begins another epoch. The numbers of all topics grow together: what is kept later has a higher number,
/// whatever its topic and epoch. Within a topic that is exact; across topics a few seconds do not matter. So one number
/// says roughly up to when a node has handed over everything.
///
/// What is handed over is kept, and what is read contains everything that was kept before the call. Besides, there are two
/// kinds of stores:
///
/// - One of a single process, such as a file, hands over every message of every topic, each once and in order.
/// - One that several nodes share, from [`Adapter::history`](super::Adapter::history), hands over the topics that are
///   [listened](Self::listen) to. It may leave out messages and hand over one twice, also an older one; it need not
///   remember what it has handed over. A node sees by [`Kept::previous`] that messages are missing, reads them, and passes
///   on each once and in order. What is missing at the end, when nothing more follows, it cannot see:
///   that the store tells by [`HistoryInbox::interrupted`].
pub trait HistoryStore: fmt::Debug + Send + Sync + 'static {
    /// Begins to hand over what is kept from now on: each topic's messages in their order, and from one task or thread.
    /// Called once, within a runtime; after [`Adapter::start`](super::Adapter::start), if the store is an adapter's.
    fn start(&self, inbox: Arc<dyn HistoryInbox>);

    /// Hands over a topic. Resolves when what is kept from then on is handed over, at once if it is already; also if the
    /// engine is away, which is no reason to keep a client waiting: then [`HistoryInbox::interrupted`] follows once it is
    /// back. Called under a lock; calls no foreign code.
    ///
    /// The future need not be awaited: the topic is handed over all the same. By default every topic is, from the start.
    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        let _ = topic;
        Box::pin(ready(()))
    }

    /// Does not need to hand over a topic any more. Called under a lock; calls no foreign code.
    fn ignore(&self, topic: &str) {
        let _ = topic;
    }

    /// Takes a message to keep. Never blocks. Messages that one thread gives are kept in their order. What has become of
    /// it is told to [`Append::done`].
    ///
    /// # Errors
    /// [`PublishError::Overflow`] if too much waits: the message is dropped.
    fn append(&self, message: Append) -> Result<(), PublishError>;

    /// Reads what is kept of a topic, up to `limit` messages, in their order. A limit of 0 asks for the
    /// [last position](Page::last) alone, whenever a topic gets its first subscriber. Resolves within two seconds, with an
    /// error if the store does not answer. A topic that was never written has a last position, too, to which everything is
    /// added that is kept afterwards.
    ///
    /// # Errors
    /// If the store is away or refuses.
    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// The records that a store of a single process keeps beside, if it can: with them resumable sessions go on when the
    /// process was killed and is started again. They outlive it as the messages do. Not asked of the store of an adapter,
    /// which has [records of its own](super::Adapter::store).
    fn records(&self) -> Option<&dyn Store> {
        None
    }
}

/// Where a store hands over what is kept. Called from any one thread; returns quickly.
pub trait HistoryInbox: Send + Sync {
    /// Takes the next message of a topic. It is delivered to the clients of the node before this returns, unless earlier
    /// ones have to be read first.
    fn kept(&self, topic: &str, message: Kept);

    /// Of what was kept until now something may not have been handed over, of any topic that is listened to: a connection
    /// was lost, and stands again, or the engine has dropped something. Called when what is kept from now on is handed
    /// over again; the node reads what it has missed.
    fn interrupted(&self) {}

    /// A message for which nobody waits was taken, and was not kept.
    fn lost(&self, topic: &str, error: &StoreError) {
        let _ = (topic, error);
    }
}

/// A message to keep.
#[derive(Debug)]
pub struct Append {
    /// The topic.
    pub topic: SmolStr,
    /// What is kept, as [`Kept::content`] returns it.
    pub content: Bytes,
    /// For how long, among other messages of the topic.
    pub keep: Keep,
    /// Is told the position once the message is kept, or why it is not; by a store of one process before the message is
    /// handed over. `None` if nobody waits: then a failure is told to [`HistoryInbox::lost`].
    pub done: Option<oneshot::Sender<Result<Position, StoreError>>>,
}

/// How much of a topic is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many messages.
    pub messages: usize,
    /// The newest so many bytes of contents; the newest message in any case.
    pub bytes: usize,
    /// None for longer.
    pub within: Duration,
}

/// Which messages of a topic are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The oldest of those after a position.
    After(Position),
    /// The newest of those before a position.
    Before(Position),
    /// The newest of all.
    Newest,
}

/// Part of a topic's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In their order.
    pub messages: Vec<Kept>,
    /// Whether nothing is missing between the position that was asked for and the first of the messages, or the last
    /// position of the topic if there are none: no message was forgotten there, and the position is one of this store's
    /// present epoch. Always true for [`Since::Newest`].
    pub is_complete: bool,
    /// The last position of the topic: that of its newest message; without one, a position before every message that will
    /// come.
    pub last: Position,
}

/// A message that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where it stands.
    pub position: Position,
    /// The number of the message of the topic before it, also if that was forgotten since; 0 without one.
    pub previous: u64,
    /// What was to be kept.
    pub content: Bytes,
}
