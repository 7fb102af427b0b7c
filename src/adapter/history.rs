//! [`HistoryStore`]: keeps the messages of topics, and hands them to the nodes in one order.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;
use tokio::sync::oneshot;

use super::{BoxFuture, PublishError, StoreError};
use crate::history::Position;

/// Keeps the messages of the topics that have a history, and hands each to every node once it is kept.
///
/// All nodes, the sender included, receive the messages of a topic in the order in which they are kept. A message is
/// handed over after it is kept, never before, and never without.
///
/// Each kept message has a [`Position`]. The numbers of a topic grow within an epoch; a store that may have lost or
/// repeated numbers begins another epoch.
pub trait HistoryStore: fmt::Debug + Send + Sync + 'static {
    /// Begins to hand over what is kept from now on: each topic's messages in their order, and from one task or thread.
    /// Called once, within a runtime.
    fn start(&self, inbox: Arc<dyn HistoryInbox>);

    /// Takes a message to keep. Never blocks. Messages that one thread gives are kept in their order. What has become of
    /// it is told to [`Append::done`].
    ///
    /// # Errors
    /// [`PublishError::Overflow`] if too much waits: the message is dropped.
    fn append(&self, message: Append) -> Result<(), PublishError>;

    /// Reads what is kept of a topic, up to `limit` messages, in their order. Resolves within two seconds, with an error
    /// if the store does not answer.
    ///
    /// # Errors
    /// If the store is away or refuses.
    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>>;
}

/// Where a store hands over what is kept. Called from any one thread; returns quickly.
pub trait HistoryInbox: Send + Sync {
    /// Takes the next message of a topic. It is delivered to the clients of the node before this returns.
    fn kept(&self, topic: &str, message: Kept);

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
    /// Is told the position once the message is kept and before it is handed over, or why it is not. `None` if nobody
    /// waits: then a failure is told to [`HistoryInbox::lost`].
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
