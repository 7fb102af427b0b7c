//! The sending side of an outbox.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::loss::Loss;
use super::queue::{Shared, State};
use super::receiver::Receiver;
use super::replay_buffer::NewEpoch;
use super::streams::{PRIORITY, StreamId};
use super::wakeup::{Enqueued, Wakeup};
use crate::frame::{Close, Message};
use crate::limited;
use crate::memory::{Account, Relievable};
use crate::telemetry::MESSAGES_REPLAYED;

/// The sending side of an outbox; a cheap clone.
///
/// Sending never blocks and never fails: a message for a client that is gone is dropped.
#[derive(Clone)]
pub struct Sender {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: StreamId,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, stream: PRIORITY }
    }

    /// Loads the cache lines that a push will touch.
    ///
    /// A broadcast to many idle clients calls this for several outboxes ahead, so that the processor
    /// waits for their memory once and not for one after the other.
    pub fn prefetch(&self) {
        black_box(self.shared.state.is_locked());
        black_box(self.shared.receiver_dropped.load(Ordering::Relaxed));
    }

    /// Appends a message and wakes the receiver. After a close the message is dropped.
    pub fn push(&self, message: Message) {
        self.enqueue(message).finish();
    }

    /// Appends a message, and leaves it to the caller to wake the receiver.
    ///
    /// For callers that hold a lock of their own: no waker, metrics recorder or log subscriber runs
    /// before [`Enqueued::finish`].
    pub fn enqueue(&self, message: Message) -> Enqueued {
        self.admit(message, |state, stream, message| match state.replay() {
            None => state.append(message),
            Some((buffer, budget)) => {
                let cost = message.cost();
                if !buffer.push(stream, message) {
                    budget.release(cost);
                }
            }
        })
    }

    /// Pushes the reply to a heartbeat.
    ///
    /// phoenix.js sends a heartbeat only after it has read the reply to the one before, so over a
    /// WebSocket the next one shows a resumable session what the client has read; or, if the client
    /// reads sequence numbers, what has reached its network. For a client that may send heartbeats
    /// without reading, push the reply into the [priority queue](Self::priority) instead.
    pub fn push_heartbeat_reply(&self, message: Message) {
        self.admit(message, |state, _, message| match state.replay() {
            None => state.append(message),
            Some((buffer, budget)) => buffer.push_heartbeat_reply(message, budget),
        })
        .finish();
    }

    /// Creates a stream: an outbox to the same client whose messages belong together.
    ///
    /// When the connection of a resumable session is replaced, its streams are paused until each is
    /// [resumed](Self::resume). Without a resumable session streams make no difference.
    #[must_use]
    pub fn stream(&self) -> Self {
        let stream = match self.shared.state.lock().replay() {
            None => PRIORITY,
            Some((buffer, _)) => buffer.stream(),
        };
        Self { shared: Arc::clone(&self.shared), stream }
    }

    /// The priority queue of the same outbox: its messages overtake those that wait in streams, and
    /// are not replayed.
    #[must_use]
    pub fn priority(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), stream: PRIORITY }
    }

    /// Resumes the stream with a reply that goes before everything that waits in it. Does nothing if
    /// a newer connection than `epoch` has the session by now.
    pub fn resume(&self, epoch: u64, reply: Message) {
        self.enqueue_resume(epoch, reply).finish();
    }

    /// Does what [`resume`](Self::resume) does, and leaves it to the caller to wake the receiver, as
    /// [`enqueue`](Self::enqueue) does.
    pub fn enqueue_resume(&self, epoch: u64, reply: Message) -> Enqueued {
        self.admit(reply, |state, stream, reply| match state.replay() {
            None => state.append(reply),
            Some((buffer, budget)) => {
                let cost = reply.cost();
                if !buffer.resume(stream, epoch, reply) {
                    budget.release(cost);
                }
            }
        })
    }

    /// Pauses the stream: what is pushed into it waits until it is [resumed](Self::resume).
    pub fn pause(&self) {
        if let Some((buffer, budget)) = self.shared.state.lock().replay() {
            buffer.pause(self.stream, budget);
        }
    }

    /// Lets the stream discard [volatile](Message::volatile) messages that wait for a lost connection,
    /// because the owner of the stream sends the current state each time it is resumed.
    pub fn discard_volatile(&self) {
        if let Some((buffer, _)) = self.shared.state.lock().replay() {
            buffer.discard_volatile(self.stream);
        }
    }

    /// Appends the last message of a stream that the client has asked to end, as
    /// [`enqueue`](Self::enqueue) does: it does not wait for the stream to be resumed.
    pub fn enqueue_last(&self, message: Message) -> Enqueued {
        self.admit(message, |state, stream, message| match state.replay() {
            None => state.append(message),
            Some((buffer, budget)) => {
                let cost = message.cost();
                if !buffer.push_last(stream, message) {
                    budget.release(cost);
                }
            }
        })
    }

    /// Ends the stream: nothing more is pushed into it.
    pub fn end_stream(&self) {
        if let Some((buffer, budget)) = self.shared.state.lock().replay() {
            buffer.end_stream(self.stream, budget);
        }
    }

    /// Ends the stream, and makes this sender and its clones those of another one: what was pushed
    /// before goes ahead of it, and is not replayed.
    pub fn restart_stream(&self) {
        if let Some((buffer, budget)) = self.shared.state.lock().replay() {
            buffer.restart_stream(self.stream, budget);
        }
    }

    fn admit(
        &self,
        message: Message,
        append: impl FnOnce(&mut State, StreamId, Message),
    ) -> Enqueued {
        let mut state = self.shared.state.lock();
        if state.close.is_some() {
            return Enqueued::default();
        }
        let overflowed = !state.budget.try_acquire(message.cost());
        let waker = if overflowed {
            state.clear();
            state.close(Close::Overflow)
        } else {
            append(&mut state, self.stream, message);
            // Until the receiver polls again, pushes wake nothing.
            state.waker.take()
        };
        let exceeded = state.budget.take_exceeded();
        Enqueued { wakeup: Wakeup(waker), overflowed, exceeded }
    }

    /// Closes the connection once everything that was pushed before has been written. The first close
    /// counts.
    pub fn close(&self, close: Close) {
        let waker = self.shared.state.lock().close(close);
        Wakeup(waker).wake();
    }

    /// Ends the connection with [`Close::Restart`], so that the client connects anew. A plain session ends
    /// with it, as by [`close`](Self::close); a resumable one is left without a connection. Returns whether
    /// there was one.
    pub fn end_connection(&self) -> bool {
        let mut state = self.shared.state.lock();
        if state.close.is_some() {
            return false;
        }
        let waker = match state.replay() {
            Some((buffer, _)) if buffer.epoch() > 0 => {
                if !buffer.end_epoch() {
                    return false;
                }
                state.waker.take()
            }
            _ => state.close(Close::Restart),
        };
        drop(state);
        Wakeup(waker).wake();
        true
    }

    /// Closes the outbox on behalf of its session: the listener of [`on_close`](Self::on_close), which is
    /// the session, is not woken.
    pub(crate) fn close_quietly(&self, close: Close) {
        let waker = self.shared.state.lock().close_quietly(close);
        Wakeup(waker).wake();
    }

    /// Does what [`close_quietly`](Self::close_quietly) does, for a session that no client will use
    /// again, and drops everything.
    pub(crate) fn expire(&self) {
        let mut state = self.shared.state.lock();
        let waker = state.close_quietly(Close::GoingAway);
        state.clear();
        drop(state);
        Wakeup(waker).wake();
    }

    /// Returns what the session has reserved of the memory of its endpoint, if that is limited.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.shared.account()
    }

    /// Returns whether the outbox is closed, and so drops what is pushed.
    pub fn is_closed(&self) -> bool {
        self.shared.state.lock().close.is_some()
    }

    /// Returns how many bytes wait for the client, or are not acknowledged yet.
    pub fn backlog(&self) -> usize {
        self.shared.state.lock().budget.bytes()
    }

    /// Returns how many more bytes may wait for the client.
    pub fn room(&self) -> usize {
        self.shared.state.lock().budget.room()
    }

    /// Returns whether the transport is done with the connection: the close has been written, or
    /// there is no connection to write it to.
    pub fn is_over(&self) -> bool {
        let dropped = &self.shared.receiver_dropped;
        let mut state = self.shared.state.lock();
        let is_closed = state.close.is_some();
        match state.replay() {
            Some((buffer, _)) if buffer.epoch() > 0 => is_closed && !buffer.is_attached(),
            _ => dropped.load(Ordering::Relaxed),
        }
    }

    /// Returns whether no client waits for messages: the session is detached, or its long-poll client is
    /// between two polls.
    pub fn is_idle(&self) -> bool {
        self.shared.state.lock().replay().is_some_and(|(buffer, _)| !buffer.is_attached())
    }

    /// Returns whether the session has lost its connection; a long-poll client between two polls has not.
    pub fn is_detached(&self) -> bool {
        self.shared.state.lock().replay().is_some_and(|(buffer, _)| buffer.loss().is_some())
    }

    /// Begins a new epoch of a resumable outbox and supersedes the current one. Returns `None` if the
    /// client would miss messages; see `ReplayBuffer::attach`.
    pub(crate) fn attach(&self, received: Option<u64>) -> Option<Receiver> {
        let mut state = self.shared.state.lock();
        let Some((buffer, budget)) = state.replay() else {
            return Some(Receiver::new(Arc::clone(&self.shared), 0));
        };
        let NewEpoch { epoch, replayed } = buffer.attach(received, budget)?;
        let superseded = state.waker.take();
        drop(state);
        Wakeup(superseded).wake();
        MESSAGES_REPLAYED.add(replayed as u64);
        limited!(DEBUG, epoch, replayed, "resumable session attached");
        Some(Receiver::new(Arc::clone(&self.shared), epoch))
    }

    /// See `ReplayBuffer::keep_apart`.
    pub(crate) fn keep_apart(&self, gap: u64) {
        if let Some((buffer, _)) = self.shared.state.lock().replay() {
            buffer.keep_apart(gap);
        }
    }

    /// Returns whether a client that has seen everything up to `received` can go on without a gap.
    pub(crate) fn has_all_after(&self, received: Option<u64>) -> bool {
        match self.shared.state.lock().replay() {
            None => true,
            Some((buffer, _)) => buffer.has_all_after(received),
        }
    }

    /// Counts the connection of `epoch`, which is lost or about to be replaced after a time in which a
    /// message could arrive, as a try of the first message that did not.
    pub(crate) fn count_try(&self, epoch: u64) {
        if let Some((buffer, _)) = self.shared.state.lock().replay() {
            buffer.count_try(epoch);
        }
    }

    /// Returns whether one message was sent on several connections and arrived on none.
    pub(crate) fn is_stuck(&self) -> bool {
        let mut state = self.shared.state.lock();
        state.replay().is_some_and(|(buffer, _)| buffer.is_stuck())
    }

    /// Evicts what the client's network acknowledged at least `ttl` ago; see `ReplayBuffer::age`.
    pub(crate) fn age(&self, now: Instant, ttl: Duration) {
        if let Some((buffer, budget)) = self.shared.state.lock().replay() {
            buffer.age(now, ttl, budget);
        }
    }

    /// Marks the connection of `epoch` as in use.
    pub(crate) fn set_active(&self, epoch: u64) {
        if let Some((buffer, _)) = self.shared.state.lock().replay() {
            buffer.set_active(epoch);
        }
    }

    /// Marks the connection of `epoch` as idle: its client may be gone.
    pub(crate) fn set_idle(&self, epoch: u64) {
        if let Some((buffer, _)) = self.shared.state.lock().replay() {
            buffer.set_idle(epoch);
        }
    }

    /// How the current connection of a resumable outbox was lost, if it was.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.shared.state.lock().replay().and_then(|(buffer, _)| buffer.loss())
    }

    /// Returns whether a superseded connection has shown, since the last call, that its client is
    /// still there: then two clients share the session id.
    pub(crate) fn take_conflict(&self) -> bool {
        let mut state = self.shared.state.lock();
        state.replay().is_some_and(|(buffer, _)| buffer.take_conflict())
    }

    /// Wakes `waker` when the resumable outbox is closed while no receiver waits.
    pub(crate) fn on_close(&self, waker: Waker) {
        self.shared.on_close(waker);
    }

    #[cfg(test)]
    pub(crate) fn is_attached(&self) -> bool {
        self.shared.state.lock().replay().is_some_and(|(buffer, _)| buffer.is_attached())
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.shared.state.is_locked()
    }
}

impl Receiver {
    /// Makes the outbox resumable, and leaves it without a connection.
    pub(crate) fn into_resumable(self, received: u64) -> Sender {
        self.enable_replay(received);
        if let Some((buffer, budget)) = self.shared.state.lock().replay() {
            // An epoch in which nothing was sent: no client has missed anything.
            buffer.attach(None, budget);
            buffer.detach(buffer.epoch(), Loss::GivenUp);
        }
        Sender::new(Arc::clone(&self.shared))
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}
