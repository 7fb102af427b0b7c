//! A bounded queue from any task to the one that writes to a client.
//!
//! Its limit counts bytes until they are *released*, that is written or acknowledged, not merely
//! taken: a reader that stops reading cannot hide its backlog in the transport.
//!
//! An outbox is plain, a queue that one connection empties, or *resumable*: then it has a [`ReplayBuffer`] and
//! outlives its connections, each of which is an epoch with a [`Receiver`] of its own.

mod budget;
#[doc(hidden)]
pub mod model;
mod replay_buffer;
mod streams;
mod visit;

use std::collections::VecDeque;
use std::fmt;
use std::hint::black_box;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

pub use self::budget::ByteBudget;
use self::replay_buffer::{Attached, ReplayBuffer};
use self::streams::{PRIORITY, StreamId};
pub(crate) use self::visit::Visit;
use crate::frame::{Close, Message};

/// The sending side; a cheap clone. Never blocks and never fails: a message for a client that is
/// gone is dropped.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
    stream: StreamId,
}

/// The writing side, held by the transport alone. Dropping it closes a plain outbox, and parks a resumable
/// one.
pub struct Receiver {
    shared: Arc<Shared>,
    /// Which epoch this is; 0 for that of a plain outbox.
    epoch: u64,
}

/// In this order and of this size for [`Sender::prefetch`].
#[repr(C)]
struct Shared {
    /// The lock guards the queue for a few instructions at a time, or as long as it takes to write the
    /// answer to a poll, and is never held across an await, a wake-up or a system call.
    state: Mutex<State>,
    /// Whether nobody will write what is left. It changes under the lock.
    over: AtomicBool,
}

/// Behind the two counts of its `Arc`, which a push does not touch, and at an address that 16 divides,
/// so much lies in two cache lines, with the lock in the first and `over` in the second.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Shared>() <= 80);

struct State {
    queue: Queue,
    /// All that was pushed and not yet released.
    backlog: ByteBudget,
    close: Option<Close>,
    /// The receiver's task, while it waits.
    waker: Option<Waker>,
}

enum Queue {
    Plain(Vec<Message>),
    Resumable(Box<ReplayBuffer>),
}

/// Mostly no other waits, and then there is room for this one alone.
fn line_up(queue: &mut Vec<Message>, message: Message) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
    queue.push(message);
}

/// An outbox whose backlog may reach `limit` bytes, and the side that empties it.
///
/// Over it the connection ends as [`Close::Overflow`]; see [`ByteBudget`] for what counts.
pub fn channel(limit: usize) -> (Sender, Receiver) {
    let state = State {
        queue: Queue::Plain(Vec::new()),
        backlog: ByteBudget::new(limit),
        close: None,
        waker: None,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), over: AtomicBool::new(false) });
    (Sender { shared: Arc::clone(&shared), stream: PRIORITY }, Receiver { shared, epoch: 0 })
}

/// What [`Sender::enqueue`] leaves to do once the caller has released its own locks.
#[derive(Debug, Default)]
#[must_use = "the receiver is not woken before `finish`"]
pub struct Enqueued {
    /// Wakes the receiver's task.
    pub wakeup: Wakeup,
    /// Whether the message exceeded the outbox limit, which closed the connection with
    /// [`Close::Overflow`].
    pub overflowed: bool,
}

impl Enqueued {
    /// Counts the overflow, if there was one, and wakes the receiver.
    pub fn finish(self) {
        if self.overflowed {
            metrics::counter!("tower_channels_outbox_overflows").increment(1);
        }
        self.wakeup.wake();
    }

    /// Returns whether [`finish`](Self::finish) would do nothing.
    pub fn is_finished(&self) -> bool {
        !self.overflowed && self.wakeup.0.is_none()
    }
}

/// A wake-up that is still to be delivered.
#[derive(Debug, Default)]
#[must_use = "the receiver is not woken before `wake`"]
pub struct Wakeup(Option<Waker>);

impl Wakeup {
    /// Wakes the receiver's task, if it waits.
    pub fn wake(self) {
        if let Some(waker) = self.0 {
            waker.wake();
        }
    }
}

impl Sender {
    /// Has the processor fetch what a push will touch: whoever pushes into many outboxes calls this
    /// for some of them first. It merely reads, without a lock, and so the processor waits for all of
    /// them at once; pushes alone would wait for one after the other, each for its lock.
    pub fn prefetch(&self) {
        black_box(self.shared.state.is_poisoned());
        black_box(self.shared.over.load(Ordering::Relaxed));
    }

    /// Puts a message at the end. After a close it is dropped.
    pub fn push(&self, message: Message) {
        self.enqueue(message).finish();
    }

    /// Does what [`push`](Self::push) does, but for the caller to wake the receiver, and to count an
    /// overflow, once it holds no lock.
    pub fn enqueue(&self, message: Message) -> Enqueued {
        self.admit(message, |state, stream, message| match &mut state.queue {
            Queue::Plain(queue) => line_up(queue, message),
            Queue::Resumable(log) => {
                let cost = message.cost();
                if !log.push(stream, message) {
                    state.backlog.remove(cost);
                }
            }
        })
    }

    /// Pushes the answer to a message of which a client sends the next only after it has read the
    /// answer to the last, as a heartbeat: so a resumable session learns what has arrived.
    pub fn push_heartbeat_reply(&self, message: Message) {
        self.admit(message, |state, _, message| match &mut state.queue {
            Queue::Plain(queue) => line_up(queue, message),
            Queue::Resumable(log) => log.push_heartbeat_reply(message, &mut state.backlog),
        })
        .finish();
    }

    /// An outbox to the same client whose messages belong together: when a resumable session's connection
    /// is replaced they are held back until the stream is [opened](Self::open) again. Without a resumable
    /// session it makes no difference.
    #[must_use]
    pub fn stream(&self) -> Self {
        let stream = match &mut self.shared.lock().queue {
            Queue::Plain(_) => PRIORITY,
            Queue::Resumable(log) => log.stream(),
        };
        Self { shared: Arc::clone(&self.shared), stream }
    }

    /// The same outbox without its stream: what is pushed overtakes what waits.
    #[must_use]
    pub fn priority(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), stream: PRIORITY }
    }

    /// Opens the stream with an answer that goes before all that waits in it. If a newer connection
    /// than `epoch` has the session by now, nothing happens.
    pub fn resume(&self, epoch: u64, answer: Message) {
        self.enqueue_resume(epoch, answer).finish();
    }

    /// Does what [`resume`](Self::resume) does, with the effects left to the caller, as by
    /// [`enqueue`](Self::enqueue).
    pub fn enqueue_resume(&self, epoch: u64, answer: Message) -> Enqueued {
        self.admit(answer, |state, stream, answer| match &mut state.queue {
            Queue::Plain(queue) => line_up(queue, answer),
            Queue::Resumable(log) => {
                let cost = answer.cost();
                if !log.resume(stream, epoch, answer) {
                    state.backlog.remove(cost);
                }
            }
        })
    }

    /// Holds what is pushed into the stream until it is opened again.
    pub fn pause(&self) {
        let mut state = self.shared.lock();
        let State { queue, backlog, .. } = &mut *state;
        if let Queue::Resumable(log) = queue {
            log.pause(self.stream, backlog);
        }
    }

    /// Says that whoever owns the stream repeats what matters of its
    /// [volatile](Message::volatile) messages each time it is opened: so what waits of them for a
    /// connection that is gone is dropped.
    pub fn discard_volatile(&self) {
        if let Queue::Resumable(log) = &mut self.shared.lock().queue {
            log.discard_volatile(self.stream);
        }
    }

    /// Whether the answer that opened the stream is known to have arrived.
    pub fn is_join_acked(&self) -> bool {
        match &self.shared.lock().queue {
            Queue::Plain(_) => true,
            Queue::Resumable(log) => log.is_join_acked(self.stream),
        }
    }

    /// Says that nothing follows in the stream.
    pub fn end_stream(&self) {
        let mut state = self.shared.lock();
        let State { queue, backlog, .. } = &mut *state;
        if let Queue::Resumable(log) = queue {
            log.end_stream(self.stream, backlog);
        }
    }

    fn admit(
        &self,
        message: Message,
        push: impl FnOnce(&mut State, StreamId, Message),
    ) -> Enqueued {
        let mut state = self.shared.lock();
        if state.close.is_some() {
            return Enqueued::default();
        }
        let has_room = state.backlog.add(message.cost());
        if has_room {
            push(&mut state, self.stream, message);
        } else {
            state.clear();
            state.close = Some(Close::Overflow);
        }
        Enqueued { wakeup: Wakeup(state.waker.take()), overflowed: !has_room }
    }

    /// Ends the connection once everything pushed so far has been written. The first close counts.
    pub fn close(&self, close: Close) {
        let mut state = self.shared.lock();
        state.close.get_or_insert(close);
        State::wake(state);
    }

    /// Whether it takes no more messages.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().close.is_some()
    }

    /// Whether the transport has let go of the connection: a close has been written, or there was
    /// no point in it.
    pub fn is_over(&self) -> bool {
        let state = self.shared.lock();
        let over = self.shared.over.load(Ordering::Relaxed);
        match &state.queue {
            Queue::Plain(_) => over,
            Queue::Resumable(log) if log.epoch() == 0 => over,
            Queue::Resumable(log) => state.close.is_some() && !log.is_attached(),
        }
    }

    /// Begins an epoch to a resumable outbox and ends the one before, unless there would be a gap. See
    /// [`ReplayBuffer::attach`].
    pub(crate) fn attach(&self, received: Option<u64>) -> Option<Receiver> {
        let mut state = self.shared.lock();
        let State { queue, backlog, .. } = &mut *state;
        let attached = match queue {
            Queue::Plain(_) => None,
            Queue::Resumable(log) => Some(log.attach(received, backlog)?),
        };
        State::wake(state);
        let epoch = attached.map_or(0, |Attached { epoch, replayed }| {
            metrics::counter!("tower_channels_messages_replayed").increment(replayed as u64);
            tracing::debug!(epoch, replayed, "a resumable session was attached");
            epoch
        });
        Some(Receiver { shared: Arc::clone(&self.shared), epoch })
    }

    /// Whether a client that has seen so much can go on without a gap.
    pub(crate) fn has_all_after(&self, received: Option<u64>) -> bool {
        match &self.shared.lock().queue {
            Queue::Plain(_) => true,
            Queue::Resumable(log) => log.has_all_after(received),
        }
    }

    /// Gives up what the client's network has had for so long. See [`ReplayBuffer::age`].
    pub(crate) fn age(&self, now: Instant, ttl: Duration) {
        if let Queue::Resumable(log) = &mut self.shared.lock().queue {
            log.age(now, ttl);
        }
    }

    /// Whether a connection holds the resumable outbox.
    pub(crate) fn is_attached(&self) -> bool {
        matches!(&self.shared.lock().queue, Queue::Resumable(log) if log.is_attached())
    }

    /// Whether a connection whose session was taken over has shown since this was asked last that its
    /// client is there: that client and the newer one are two.
    pub(crate) fn take_conflict(&self) -> bool {
        match &mut self.shared.lock().queue {
            Queue::Plain(_) => false,
            Queue::Resumable(log) => log.take_conflict(),
        }
    }
}

impl Receiver {
    /// Moves everything that waits to the end of `batch`. `Err` once there is nothing more to come.
    ///
    /// `Pending` means that nothing was moved, and that the task is woken at the next push or close.
    pub fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut VecDeque<Message>,
    ) -> Poll<Result<(), Close>> {
        self.poll_take_some(cx, batch, 0, usize::MAX, usize::MAX)
    }

    /// As [`poll_take`](Self::poll_take), after a [`release`](Self::release) of what is `written`. Of
    /// a resumable outbox it takes about `chunk` bytes, and none but control while `window` bytes are on
    /// their way.
    pub(crate) fn poll_take_some(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut VecDeque<Message>,
        written: usize,
        chunk: usize,
        window: usize,
    ) -> Poll<Result<(), Close>> {
        let mut state = self.shared.lock();
        let State { queue, backlog, .. } = &mut *state;
        let taken = match queue {
            Queue::Plain(queue) => {
                backlog.remove(written);
                let waits = !queue.is_empty();
                if waits && batch.is_empty() {
                    // Each gets the other's room; nothing is copied.
                    let room = mem::take(batch).into();
                    *batch = mem::replace(queue, room).into();
                } else if waits {
                    batch.extend(queue.drain(..));
                }
                waits
            }
            // A newer connection has taken the session over.
            Queue::Resumable(log) if log.epoch() != self.epoch => {
                return Poll::Ready(Err(Close::Restart));
            }
            Queue::Resumable(log) => {
                log.take(chunk, window, |message| batch.push_back(message.clone()))
            }
        };
        if taken {
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

    /// Gives back the room of messages that were taken from a plain outbox and are now written. A resumable
    /// one waits until they are acknowledged.
    pub fn release(&self, cost: usize) {
        let mut state = self.shared.lock();
        if let Queue::Plain(_) = state.queue {
            state.backlog.remove(cost);
        }
    }

    /// Says that the client itself has read all that was taken: none of it will be sent again. It
    /// makes no difference to a plain outbox.
    pub fn read(&self) {
        self.current(|log, backlog| log.read(backlog));
    }

    /// The cost of all that was pushed and not yet released.
    pub fn backlog(&self) -> usize {
        self.shared.lock().backlog.bytes()
    }

    /// Makes an outbox a resumable one, whose messages are numbered from `received` on. Until the first
    /// epoch this receiver keeps its use.
    pub(crate) fn keep(&self, received: u64) {
        let mut state = self.shared.lock();
        let mut log = Box::new(ReplayBuffer::new(received));
        if let Queue::Plain(queue) = &mut state.queue {
            for message in queue.drain(..) {
                log.push(PRIORITY, message);
            }
        }
        state.queue = Queue::Resumable(log);
    }

    /// Makes the outbox one that outlives its connections, of which this is none.
    pub(crate) fn into_resumable(self, received: u64) -> Sender {
        self.keep(received);
        let outbox = Sender { shared: Arc::clone(&self.shared), stream: PRIORITY };
        // An epoch that is over: this receiver is superseded, and the outbox without a connection.
        if let Some(receiver) = outbox.attach(None) {
            receiver.visit(|outbox| outbox.park());
        }
        outbox
    }

    /// Whether the outbox is resumable beyond this connection.
    pub(crate) fn is_resumable(&self) -> bool {
        self.epoch != 0
    }

    /// The position behind all that was taken; 0 for a plain outbox.
    pub(crate) fn position(&self) -> u64 {
        self.current(|log, _| log.position()).unwrap_or(0)
    }

    /// Everything before this position has reached the client's network.
    pub(crate) fn pong(&self, position: u64) {
        self.current(|log, backlog| log.pong(position, backlog));
    }

    /// What a long poll does with its outbox at one time.
    pub(crate) fn visit<R>(&self, work: impl FnOnce(&mut Visit<'_>) -> R) -> R {
        let mut state = self.shared.lock();
        let State { queue, backlog, close, waker, .. } = &mut *state;
        let log = match queue {
            Queue::Resumable(log) if log.epoch() == self.epoch => Some(&mut **log),
            _ => None,
        };
        work(&mut Visit { log, backlog, close: *close, waker })
    }

    /// Which epoch this is; 0 if there is only one.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether this is a resumable outbox's connection no more.
    pub(crate) fn is_superseded(&self) -> bool {
        matches!(&self.shared.lock().queue, Queue::Resumable(log) if log.epoch() != self.epoch)
    }

    /// The client of this connection is there. Matters only after a newer one has taken its session.
    pub(crate) fn report_conflict(&self) {
        if let Queue::Resumable(log) = &mut self.shared.lock().queue {
            log.report_conflict(self.epoch);
        }
    }

    /// The log, while this epoch has it.
    fn current<R>(&self, work: impl FnOnce(&mut ReplayBuffer, &mut ByteBudget) -> R) -> Option<R> {
        self.visit(|outbox| outbox.log.as_mut().map(|log| work(log, outbox.backlog)))
    }

    /// Ends the outbox from the transport's side: whatever waits is dropped. Of a resumable outbox only
    /// the connection ends.
    pub fn close(&self, close: Close) {
        let mut state = self.shared.lock();
        if self.epoch != 0 {
            if let Queue::Resumable(log) = &mut state.queue {
                log.detach(self.epoch, close == Close::Normal);
            }
            return;
        }
        state.close.get_or_insert(close);
        state.clear();
        State::wake(state);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.is_superseded() {
            return;
        }
        // Who lets go without a word was cut off.
        self.close(Close::GoingAway);
        let mut state = self.shared.lock();
        self.shared.over.store(true, Ordering::Relaxed);
        // A resumable outbox would hold what is left of the connection as long as it is parked.
        let waker = state.waker.take();
        drop(state);
        drop(waker);
    }
}

impl Shared {
    /// Nothing panics while holding the lock, so poison has no meaning here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn clear(&mut self) {
        match &mut self.queue {
            Queue::Plain(queue) => *queue = Vec::new(),
            Queue::Resumable(log) => log.clear(),
        }
    }

    /// Unlocks and wakes the receiver's task, once: until it polls again, pushes are free of wake-ups.
    fn wake(mut state: MutexGuard<'_, Self>) {
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backlog = self.shared.lock().backlog.bytes();
        f.debug_struct("Sender").field("backlog", &backlog).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

    use super::*;

    fn take(receiver: &mut Receiver) -> Poll<Result<Vec<Message>, Close>> {
        let mut batch = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        receiver.poll_take(&mut cx, &mut batch).map_ok(|()| batch.into())
    }

    #[test]
    fn messages_leave_in_order_and_before_the_close() {
        let (outbox, mut receiver) = channel(1000);
        outbox.push(Message::text("a"));
        outbox.push(Message::text("b"));
        outbox.close(Close::GoingAway);
        outbox.push(Message::text("late"));
        assert_eq!(
            take(&mut receiver),
            Poll::Ready(Ok(vec![Message::text("a"), Message::text("b")]))
        );
        assert_eq!(take(&mut receiver), Poll::Ready(Err(Close::GoingAway)));
    }

    #[test]
    fn a_message_larger_than_the_limit_passes_and_what_is_too_much_overflows() {
        let (outbox, mut receiver) = channel(10);
        outbox.push(Message::text("x".repeat(100)));
        outbox.push(Message::text("y"));
        assert!(matches!(take(&mut receiver), Poll::Ready(Ok(batch)) if batch.len() == 2));
        outbox.push(Message::text("z"));
        assert_eq!(take(&mut receiver), Poll::Ready(Err(Close::Overflow)));
    }

    #[test]
    fn taken_messages_count_until_they_are_released() {
        let (outbox, mut receiver) = channel(150);
        let message = Message::text("x".repeat(100));
        outbox.push(message.clone());
        outbox.push(message.clone());
        assert!(take(&mut receiver).is_ready());
        receiver.release(2 * message.cost());
        assert_eq!(receiver.backlog(), 0);
        outbox.push(message);
        assert!(!outbox.is_closed());
    }

    #[test]
    fn a_parked_outbox_holds_nothing_of_its_connection() {
        struct Task;
        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        let outbox = channel(1000).1.into_resumable(0);
        let mut receiver = outbox.attach(None).expect("a new one has no gap");
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        assert!(receiver.poll_take(&mut cx, &mut VecDeque::new()).is_pending());
        drop((receiver, waker));
        assert!(!outbox.is_attached() && !outbox.is_closed());
        assert_eq!(Arc::strong_count(&task), 1);
    }

    #[test]
    fn an_outbox_whose_drain_is_gone_drops_what_it_gets() {
        let (outbox, receiver) = channel(1000);
        drop(receiver);
        outbox.push(Message::text("x"));
        assert!(outbox.is_closed());
    }

    /// Looks, whenever a counter is asked for, whether an outbox is locked.
    struct Looks(Sender, AtomicBool);

    impl metrics::Recorder for Looks {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            assert!(self.0.shared.state.try_lock().is_ok(), "the recorder may push, too");
            self.1.store(true, Ordering::Relaxed);
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn what_is_counted_is_counted_outside_the_lock() {
        let (outbox, _drain) = channel(0);
        let overflows = |outbox: &Sender| (0..3).for_each(|_| outbox.push(Message::text("x")));
        let resumable = channel(1000).1.into_resumable(0);
        let attaches = |outbox: &Sender| assert!(outbox.attach(None).is_some());
        for (outbox, act) in [(outbox, &overflows as &dyn Fn(&_)), (resumable, &attaches)] {
            let looks = Looks(outbox.clone(), AtomicBool::new(false));
            metrics::with_local_recorder(&looks, || act(&outbox));
            assert!(looks.1.into_inner(), "counted");
        }
    }
}
