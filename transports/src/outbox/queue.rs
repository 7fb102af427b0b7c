//! The state that both sides of an outbox share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Waker;

use parking_lot::Mutex;

use super::budget::ByteBudget;
use super::replay_buffer::ReplayBuffer;
use crate::frame::{Close, Message};
use crate::memory::{Account, Relievable};

pub(super) struct Shared {
    /// Held for a few instructions at a time, and never across an await, a wake-up, a log line or a
    /// metric.
    pub(super) state: Mutex<State>,
    /// Whether the receiver is gone, and with it everything that was not written. Written under the
    /// lock.
    pub(super) receiver_dropped: AtomicBool,
    /// The session in the memory of its endpoint.
    session: Option<Session>,
}

/// A session that holds memory, and can be closed to free it.
pub(super) struct Session {
    pub(super) account: Arc<Account>,
    pub(super) key: u64,
}

pub(super) struct State {
    pub(super) queue: Queue,
    /// The cost of everything that was pushed and not yet released.
    pub(super) budget: ByteBudget,
    pub(super) close: Option<Close>,
    /// The receiver's task while it waits.
    pub(super) waker: Option<Waker>,
}

pub(super) enum Queue {
    Plain(Vec<Message>),
    Resumable(Box<Resumable>),
}

pub(super) struct Resumable {
    pub(super) buffer: ReplayBuffer,
    /// Woken by a close while no receiver waits: the session has no task of its own.
    pub(super) on_close: Option<Waker>,
    /// Whether another node has it now.
    pub(super) has_moved: bool,
}

impl Resumable {
    pub(super) fn new(buffer: ReplayBuffer) -> Self {
        Self { buffer, on_close: None, has_moved: false }
    }
}

impl Shared {
    pub(super) fn new(limit: usize, session: Option<Session>) -> Self {
        let account = session.as_ref().map(|session| &session.account);
        let state = State {
            queue: Queue::Plain(Vec::new()),
            budget: ByteBudget::within(limit, account),
            close: None,
            waker: None,
        };
        Self { state: Mutex::new(state), receiver_dropped: AtomicBool::new(false), session }
    }

    /// Wakes `waker` when the outbox is closed while no receiver waits, at once if it is closed
    /// already. A plain outbox ends with its receiver and ignores it.
    pub(super) fn on_close(&self, waker: Waker) {
        let mut state = self.state.lock();
        if state.close.is_some() {
            drop(state);
            waker.wake();
        } else if let Queue::Resumable(resumable) = &mut state.queue {
            resumable.on_close = Some(waker);
        }
    }
}

impl Relievable for Shared {
    fn account(&self) -> Option<&Arc<Account>> {
        self.session.as_ref().map(|session| &session.account)
    }

    fn backlog(&self) -> Option<usize> {
        let state = self.state.lock();
        state.close.is_none().then(|| state.budget.bytes())
    }

    fn overflow(&self) {
        let mut state = self.state.lock();
        if state.close.is_some() {
            return;
        }
        state.clear();
        let waker = state.close(Close::Overflow);
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(Session { account, key }) = &self.session {
            account.memory().remove(*key);
        }
    }
}

impl State {
    /// Closes the outbox unless it is closed already, and returns the task to wake once the lock is
    /// released.
    pub(super) fn close(&mut self, close: Close) -> Option<Waker> {
        let receiver = self.close_quietly(close);
        receiver.or_else(|| match &mut self.queue {
            Queue::Plain(_) => None,
            Queue::Resumable(resumable) => resumable.on_close.take(),
        })
    }

    /// Closes the outbox without waking the listener of [`Shared::on_close`], for callers that are the
    /// listener themselves.
    pub(super) fn close_quietly(&mut self, close: Close) -> Option<Waker> {
        self.close.get_or_insert(close);
        self.waker.take()
    }

    /// Drops everything that no client will receive, in an outbox that is closed. From a plain queue
    /// the connection has taken the rest, and reserves it itself.
    pub(super) fn clear(&mut self) {
        match &mut self.queue {
            Queue::Plain(queue) => {
                *queue = Vec::new();
                self.budget.end_reservation();
            }
            Queue::Resumable(resumable) => resumable.buffer.clear(&mut self.budget),
        }
    }

    /// Appends a message to a plain queue.
    pub(super) fn append(&mut self, message: Message) {
        if let Queue::Plain(queue) = &mut self.queue {
            // Most queues hold a single message; allocate exactly one slot.
            if queue.capacity() == 0 {
                queue.reserve_exact(1);
            }
            queue.push(message);
        }
    }

    /// The replay buffer and the budget, if the outbox is resumable.
    pub(super) fn replay(&mut self) -> Option<(&mut ReplayBuffer, &mut ByteBudget)> {
        match &mut self.queue {
            Queue::Plain(_) => None,
            Queue::Resumable(resumable) => Some((&mut resumable.buffer, &mut self.budget)),
        }
    }

    /// The replay buffer and the budget while `epoch` is the current one.
    pub(super) fn replay_of(&mut self, epoch: u64) -> Option<(&mut ReplayBuffer, &mut ByteBudget)> {
        self.replay().filter(|(buffer, _)| buffer.epoch() == epoch)
    }

    /// Lets the next push or close wake `waker`. Returns the waker that it replaced, which is dropped
    /// once the lock is released.
    #[must_use]
    pub(super) fn wait(&mut self, waker: &Waker) -> Option<Waker> {
        if self.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return None;
        }
        self.waker.replace(waker.clone())
    }
}
