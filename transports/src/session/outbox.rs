//! A bounded queue from any task to the one that writes to a client.
//!
//! Its limit counts bytes until they are *released*, that is written or acknowledged, not merely
//! taken: a reader that stops reading cannot hide its backlog in the transport.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::backlog::Backlog;
use crate::frame::{Close, Message};

/// The sending side; a cheap clone. Never blocks and never fails: a message for a client that is
/// gone is dropped.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

/// The writing side, held by the transport alone. Dropping it closes the outbox.
pub struct Drain(Arc<Shared>);

/// The lock guards the queue for a few instructions at a time and is never held across an await, a
/// wake-up or a system call.
struct Shared(Mutex<State>);

struct State {
    queue: VecDeque<Message>,
    /// All that was pushed and not yet released.
    backlog: Backlog,
    close: Option<Close>,
    /// The drain's task, while it waits.
    waker: Option<Waker>,
    /// Whether the drain has been dropped.
    over: bool,
}

impl Outbox {
    /// An outbox whose backlog may reach `limit` bytes, and the side that empties it.
    ///
    /// Over it the connection ends as [`Close::Overflow`]; see [`Backlog`] for what counts.
    pub fn new(limit: usize) -> (Self, Drain) {
        let state = State {
            queue: VecDeque::new(),
            backlog: Backlog::new(limit),
            close: None,
            waker: None,
            over: false,
        };
        let shared = Arc::new(Shared(Mutex::new(state)));
        (Self(Arc::clone(&shared)), Drain(shared))
    }

    /// Puts a message at the end. After a close it is dropped.
    pub fn push(&self, message: Message) {
        let mut state = self.0.lock();
        if state.close.is_some() {
            return;
        }
        if state.backlog.add(message.cost()) {
            state.queue.push_back(message);
        } else {
            metrics::counter!("tower_channels_outbox_overflows").increment(1);
            state.queue = VecDeque::new();
            state.close = Some(Close::Overflow);
        }
        State::wake(state);
    }

    /// Ends the connection once everything pushed so far has been written. The first close counts.
    pub fn close(&self, close: Close) {
        let mut state = self.0.lock();
        state.close.get_or_insert(close);
        State::wake(state);
    }

    /// Whether it takes no more messages.
    pub fn is_closed(&self) -> bool {
        self.0.lock().close.is_some()
    }

    /// Whether the transport has let go of the connection: a close has been written, or there was
    /// no point in it.
    pub fn is_over(&self) -> bool {
        self.0.lock().over
    }
}

impl Drain {
    /// Moves everything that waits to the end of `batch`. `Err` once there is nothing more to come.
    ///
    /// `Pending` means that nothing was moved, and that the task is woken at the next push or close.
    pub fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut VecDeque<Message>,
    ) -> Poll<Result<(), Close>> {
        let mut state = self.0.lock();
        if !state.queue.is_empty() {
            if batch.is_empty() {
                std::mem::swap(batch, &mut state.queue);
            } else {
                batch.append(&mut state.queue);
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(close) = state.close {
            return Poll::Ready(Err(close));
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Gives back the room of messages that were taken and are now written or acknowledged.
    pub fn release(&self, cost: usize) {
        self.0.lock().backlog.remove(cost);
    }

    /// The cost of all that was pushed and not yet released.
    pub fn backlog(&self) -> usize {
        self.0.lock().backlog.bytes()
    }

    /// Ends the outbox from the transport's side: whatever waits is dropped.
    pub fn close(&self, close: Close) {
        let mut state = self.0.lock();
        state.close.get_or_insert(close);
        state.queue = VecDeque::new();
        State::wake(state);
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.close(Close::Normal);
        self.0.lock().over = true;
    }
}

impl Shared {
    /// Nothing panics while holding the lock, so poison has no meaning here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Unlocks and wakes the drain's task, once: until it polls again, pushes are free of wake-ups.
    fn wake(mut state: MutexGuard<'_, Self>) {
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("backlog", &self.0.lock().backlog.bytes())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;

    fn take(drain: &mut Drain) -> Poll<Result<Vec<Message>, Close>> {
        let mut batch = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        drain.poll_take(&mut cx, &mut batch).map_ok(|()| batch.into())
    }

    #[test]
    fn messages_leave_in_order_and_before_the_close() {
        let (outbox, mut drain) = Outbox::new(1000);
        outbox.push(Message::text("a"));
        outbox.push(Message::text("b"));
        outbox.close(Close::GoingAway);
        outbox.push(Message::text("late"));
        assert_eq!(take(&mut drain), Poll::Ready(Ok(vec![Message::text("a"), Message::text("b")])));
        assert_eq!(take(&mut drain), Poll::Ready(Err(Close::GoingAway)));
    }

    #[test]
    fn a_message_larger_than_the_limit_passes_and_what_is_too_much_overflows() {
        let (outbox, mut drain) = Outbox::new(10);
        outbox.push(Message::text("x".repeat(100)));
        outbox.push(Message::text("y"));
        assert!(matches!(take(&mut drain), Poll::Ready(Ok(batch)) if batch.len() == 2));
        outbox.push(Message::text("z"));
        assert_eq!(take(&mut drain), Poll::Ready(Err(Close::Overflow)));
    }

    #[test]
    fn taken_messages_count_until_they_are_released() {
        let (outbox, mut drain) = Outbox::new(150);
        let message = Message::text("x".repeat(100));
        outbox.push(message.clone());
        outbox.push(message.clone());
        assert!(take(&mut drain).is_ready());
        drain.release(2 * message.cost());
        assert_eq!(drain.backlog(), 0);
        outbox.push(message);
        assert!(!outbox.is_closed());
    }

    #[test]
    fn an_outbox_whose_drain_is_gone_drops_what_it_gets() {
        let (outbox, drain) = Outbox::new(1000);
        drop(drain);
        outbox.push(Message::text("x"));
        assert!(outbox.is_closed());
    }
}
