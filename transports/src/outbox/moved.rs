//! An outbox on its way to another node.

use std::sync::Arc;

use super::Sender;
use super::queue::Queue;
use super::streams::StreamId;
use super::wakeup::Wakeup;
use crate::frame::{Close, Message};
use crate::memory::Memory;

/// All that a resumable outbox holds for its client. Priority messages are not part of it: they end with the
/// connection, wherever the next one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MovedOutbox {
    /// Above all numbers that were given.
    pub(crate) next_number: u64,
    /// The highest number that was evicted although the client may not have seen it.
    pub(crate) evicted: u64,
    /// Whether the connection was cut, so that the client has read what reached its network.
    pub(crate) was_cut: bool,
    /// The last id that was given to a stream.
    pub(crate) last_stream: StreamId,
    /// In the order of their ids.
    pub(crate) streams: Vec<MovedStream>,
    /// What was sent and may not have arrived. The number of a message is the lowest one that shows, once the client
    /// has seen it, that the message has arrived.
    pub(crate) sent: Vec<(StreamId, Message)>,
    /// How many of `sent`, from the first, have reached the client's network.
    pub(crate) acked: usize,
}

/// A stream on its way to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MovedStream {
    pub(crate) id: StreamId,
    /// Whether the last reply that resumed it has arrived.
    pub(crate) has_reply_arrived: bool,
    pub(crate) discards_volatile: bool,
    pub(crate) waiting: Vec<Message>,
}

impl Sender {
    /// The id of the stream, which it keeps when its session moves to another node. 0 is the priority queue.
    pub fn stream_id(&self) -> u64 {
        self.stream
    }

    /// The stream of this id, as [`stream_id`](Self::stream_id) has returned it, perhaps on another node. If there is
    /// none, what is pushed into it is dropped.
    #[must_use]
    pub fn stream_of(&self, id: u64) -> Self {
        Self { shared: Arc::clone(&self.shared), stream: id }
    }

    /// Supersedes the connection of a resumable outbox, if there is one, and every older one, for a client that has seen
    /// the number `received`, if it reads numbers. Returns the epoch that begins without a connection, and the wake-up
    /// of the one before; `None` if the outbox is closed.
    pub(crate) fn fence(&self, received: Option<u64>) -> Option<(u64, Wakeup)> {
        let mut state = self.shared.state.lock();
        if state.close.is_some() {
            return None;
        }
        let (buffer, budget) = state.replay()?;
        let epoch = buffer.fence(received, budget);
        Some((epoch, Wakeup(state.waker.take())))
    }

    /// Returns the current epoch; 0 of a plain outbox.
    pub(crate) fn epoch(&self) -> u64 {
        self.shared.state.lock().replay().map_or(0, |(buffer, _)| buffer.epoch())
    }

    /// Takes everything out for another node, and closes the outbox. `None` if it is closed already.
    pub(crate) fn export(&self) -> Option<MovedOutbox> {
        let mut state = self.shared.state.lock();
        if state.close.is_some() {
            return None;
        }
        let Queue::Resumable(resumable) = &mut state.queue else { return None };
        let moved = resumable.buffer.export();
        resumable.has_moved = true;
        let waker = state.close_quietly(Close::Restart);
        state.clear();
        drop(state);
        Wakeup(waker).wake();
        Some(moved)
    }

    /// Continues the outbox of another node, in place of what a new one has. Returns the memory of the endpoint if that
    /// is exceeded now: the caller relieves it once it holds no lock.
    #[must_use]
    pub(crate) fn import(&self, moved: MovedOutbox) -> Option<Memory> {
        let mut state = self.shared.state.lock();
        if let Some((buffer, budget)) = state.replay() {
            buffer.import(moved, budget);
        }
        state.budget.take_exceeded()
    }
}
