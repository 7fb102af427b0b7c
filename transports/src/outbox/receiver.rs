//! The receiving side of an outbox, which a connection holds.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::loss::Loss;
use super::queue::{Queue, Resumable, Shared};
use super::replay_buffer::ReplayBuffer;
use super::streams::PRIORITY;
use super::wakeup::Wakeup;
use crate::frame::{Close, Message};
use crate::memory::{Account, Cost, Relievable};

/// The receiving side of an outbox, held by the transport alone.
///
/// Dropping it closes a plain outbox, and detaches the connection of a resumable one.
pub struct Receiver {
    pub(super) shared: Arc<Shared>,
    /// The epoch of this connection; 0 for a plain outbox.
    pub(super) epoch: u64,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, epoch: u64) -> Self {
        Self { shared, epoch }
    }

    /// Moves everything that waits to the end of `batch`. Returns `Err` once nothing more will come.
    ///
    /// `Pending` means that nothing was moved, and that the task is woken at the next push or close.
    pub fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut VecDeque<Message>,
    ) -> Poll<Result<(), Close>> {
        self.poll_take_some(cx, batch, Cost::default(), usize::MAX, usize::MAX)
    }

    /// [Releases](Self::release) `written` bytes, then takes messages as [`poll_take`](Self::poll_take)
    /// does.
    ///
    /// From a resumable outbox it takes about `chunk` bytes, and only priority messages while `window`
    /// bytes are in flight.
    pub(crate) fn poll_take_some(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut VecDeque<Message>,
        written: Cost,
        chunk: usize,
        window: usize,
    ) -> Poll<Result<(), Close>> {
        let mut state = self.shared.state.lock();
        let has_taken = match &mut state.queue {
            Queue::Plain(queue) => {
                let is_waiting = !queue.is_empty();
                if is_waiting && batch.is_empty() {
                    // The two swap their allocations; nothing is copied.
                    let room = mem::take(batch).into();
                    *batch = mem::replace(queue, room).into();
                } else if is_waiting {
                    batch.extend(queue.drain(..));
                }
                state.budget.release(written);
                is_waiting
            }
            Queue::Resumable(resumable) if resumable.buffer.epoch() != self.epoch => {
                return Poll::Ready(Err(Close::Restart));
            }
            Queue::Resumable(resumable) => {
                resumable.buffer.take(chunk, window, |message| batch.push_back(message.clone()))
            }
        };
        if has_taken {
            return Poll::Ready(Ok(()));
        }
        if let Some(close) = state.close {
            return Poll::Ready(Err(close));
        }
        let replaced = state.wait(cx.waker());
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Releases the bytes of messages that were taken from a plain outbox and are now written. A
    /// resumable outbox releases them when they are acknowledged.
    pub fn release(&self, cost: Cost) {
        let mut state = self.shared.state.lock();
        if let Queue::Plain(_) = state.queue {
            state.budget.release(cost);
        }
    }

    /// Acknowledges on behalf of the client that it has read everything that was taken: none of it
    /// is replayed. Makes no difference to a plain outbox.
    pub fn read(&self) {
        if let Some((buffer, budget)) = self.shared.state.lock().replay_of(self.epoch) {
            buffer.acknowledge_all(budget);
        }
    }

    /// Returns what the session has reserved of the memory of its endpoint, if that is limited.
    pub(crate) fn account(&self) -> Option<&Arc<Account>> {
        self.shared.account()
    }

    /// The limit of the backlog, in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.shared.state.lock().budget.limit()
    }

    /// The cost of everything that was pushed and not yet released.
    pub fn backlog(&self) -> usize {
        self.shared.state.lock().budget.bytes()
    }

    /// Gives the outbox a replay buffer, unless it has one, whose numbers begin after `received`. This
    /// receiver stays in use until the first epoch begins.
    pub(crate) fn enable_replay(&self, received: u64) {
        let mut state = self.shared.state.lock();
        match &mut state.queue {
            Queue::Plain(queue) => {
                let mut buffer = ReplayBuffer::new(received);
                for message in queue.drain(..) {
                    buffer.push(PRIORITY, message);
                }
                state.queue = Queue::Resumable(Box::new(Resumable::new(buffer)));
            }
            Queue::Resumable(resumable) => resumable.buffer.begin_after(received),
        }
    }

    /// Returns whether the outbox is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.state.lock().close.is_some()
    }

    /// Returns whether a newer connection has taken over a session that is still there, or on another node.
    pub(crate) fn is_superseded(&self) -> bool {
        let state = self.shared.state.lock();
        match &state.queue {
            Queue::Plain(_) => false,
            Queue::Resumable(resumable) => {
                let is_there = state.close.is_none() || resumable.has_moved;
                is_there && resumable.buffer.epoch() != self.epoch
            }
        }
    }

    /// Wakes `waker` when the resumable outbox is closed while no receiver waits.
    pub(crate) fn on_close(&self, waker: Waker) {
        self.shared.on_close(waker);
    }

    /// Whether the outbox outlives this connection.
    pub(crate) fn is_resumable(&self) -> bool {
        self.epoch != 0
    }

    /// The position behind everything that was taken; 0 for a plain outbox.
    pub(crate) fn position(&self) -> u64 {
        let mut state = self.shared.state.lock();
        state.replay_of(self.epoch).map_or(0, |(buffer, _)| buffer.position())
    }

    /// Records that everything before `position` has reached the client's network.
    pub(crate) fn pong(&self, position: u64) {
        if let Some((buffer, budget)) = self.shared.state.lock().replay_of(self.epoch) {
            buffer.acknowledge_network(position, budget);
        }
    }

    /// The epoch of this connection; 0 for a plain outbox.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Reports that the client of this connection is still there. Matters only after a newer
    /// connection has taken the session over.
    pub(crate) fn report_conflict(&self) {
        if let Some((buffer, _)) = self.shared.state.lock().replay() {
            buffer.report_conflict(self.epoch);
        }
    }

    /// Closes the outbox from the transport's side and drops what waits. Of a resumable outbox
    /// only the connection ends; [`Close::Normal`] means that its client closed it in order.
    pub fn close(&self, close: Close) {
        self.close_after(close, if close == Close::Normal { Loss::Closed } else { Loss::Cut });
    }

    /// Does what [`close`](Self::close) does, for a connection that was lost in this way.
    pub(crate) fn close_after(&self, close: Close, loss: Loss) {
        let mut state = self.shared.state.lock();
        let waker = if self.is_resumable() {
            if let Some((buffer, _)) = state.replay() {
                buffer.detach(self.epoch, loss);
            }
            None
        } else {
            state.clear();
            state.close_quietly(close)
        };
        drop(state);
        Wakeup(waker).wake();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // A single critical section: in between, a newer connection could attach and wait, and its
        // waker would be taken.
        let mut state = self.shared.state.lock();
        match &mut state.queue {
            Queue::Resumable(resumable) if resumable.buffer.epoch() != self.epoch => return,
            // A connection that ends without a close was cut off.
            Queue::Resumable(resumable) if self.epoch != 0 => {
                resumable.buffer.detach(self.epoch, Loss::Cut);
            }
            _ => {
                state.clear();
                if let Some((buffer, budget)) = state.replay() {
                    buffer.acknowledge_all(budget);
                }
                state.close.get_or_insert(Close::GoingAway);
            }
        }
        self.shared.receiver_dropped.store(true, Ordering::Relaxed);
        // The detached outbox must not keep the task of its last connection alive.
        let waker = state.waker.take();
        drop(state);
        drop(waker);
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}
