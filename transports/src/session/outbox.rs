//! A bounded queue from any task to the one that writes to a client.
//!
//! Its limit counts bytes until they are *released*, that is written or acknowledged, not merely
//! taken: a reader that stops reading cannot hide its backlog in the transport.
//!
//! An outbox is plain, a queue that one connection empties, or *kept*: then it has a [`Log`] and
//! outlives its connections, each of which is an attachment with a [`Drain`] of its own.

use std::collections::VecDeque;
use std::fmt;
use std::hint::black_box;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::{CONTROL, Lane};
use super::log::{Attached, Log};
use super::visit::Visit;
use crate::backlog::Backlog;
use crate::frame::{Close, Message};

/// The sending side; a cheap clone. Never blocks and never fails: a message for a client that is
/// gone is dropped.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
    lane: Lane,
}

/// The writing side, held by the transport alone. Dropping it closes a plain outbox, and parks a kept
/// one.
pub struct Drain {
    shared: Arc<Shared>,
    /// Which attachment this is; 0 for that of a plain outbox.
    attachment: u64,
}

/// In this order and of this size for [`Outbox::prefetch`].
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
    backlog: Backlog,
    close: Option<Close>,
    /// The drain's task, while it waits.
    waker: Option<Waker>,
}

enum Queue {
    Plain(Vec<Message>),
    Kept(Box<Log>),
}

/// Mostly no other waits, and then there is room for this one alone.
fn line_up(queue: &mut Vec<Message>, message: Message) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
    queue.push(message);
}

impl Outbox {
    /// An outbox whose backlog may reach `limit` bytes, and the side that empties it.
    ///
    /// Over it the connection ends as [`Close::Overflow`]; see [`Backlog`] for what counts.
    pub fn new(limit: usize) -> (Self, Drain) {
        let state = State {
            queue: Queue::Plain(Vec::new()),
            backlog: Backlog::new(limit),
            close: None,
            waker: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), over: AtomicBool::new(false) });
        (Self { shared: Arc::clone(&shared), lane: CONTROL }, Drain { shared, attachment: 0 })
    }

    /// Has the processor fetch what a push will touch: whoever pushes into many outboxes calls this
    /// for some of them first. It merely reads, without a lock, and so the processor waits for all of
    /// them at once; pushes alone would wait for one after the other, each for its lock.
    pub fn prefetch(&self) {
        black_box(self.shared.state.is_poisoned());
        black_box(self.shared.over.load(Ordering::Relaxed));
    }

    /// Puts a message at the end. After a close it is dropped.
    pub fn push(&self, message: Message) {
        self.admit(message, |state, lane, message| match &mut state.queue {
            Queue::Plain(queue) => line_up(queue, message),
            Queue::Kept(log) => {
                let cost = message.cost();
                if !log.push(lane, message) {
                    state.backlog.remove(cost);
                }
            }
        });
    }

    /// Pushes the answer to a message of which a client sends the next only after it has read the
    /// answer to the last, as a heartbeat: so a kept session learns what has arrived.
    pub fn push_pulse(&self, message: Message) {
        self.admit(message, |state, _, message| match &mut state.queue {
            Queue::Plain(queue) => line_up(queue, message),
            Queue::Kept(log) => log.push_pulse(message, &mut state.backlog),
        });
    }

    /// An outbox to the same client whose messages belong together: when a kept session's connection
    /// is replaced they are held back until the lane is [opened](Self::open) again. Without a kept
    /// session it makes no difference.
    #[must_use]
    pub fn lane(&self) -> Self {
        let lane = match &mut self.shared.lock().queue {
            Queue::Plain(_) => CONTROL,
            Queue::Kept(log) => log.lane(),
        };
        Self { shared: Arc::clone(&self.shared), lane }
    }

    /// The same outbox without its lane: what is pushed overtakes what waits.
    #[must_use]
    pub fn control(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), lane: CONTROL }
    }

    /// Opens the lane with an answer that goes before all that waits in it. If a newer connection
    /// than `attachment` has the session by now, nothing happens.
    pub fn open(&self, attachment: u64, answer: Message) {
        self.admit(answer, |state, lane, answer| match &mut state.queue {
            Queue::Plain(queue) => line_up(queue, answer),
            Queue::Kept(log) => {
                let cost = answer.cost();
                if !log.open(lane, attachment, answer) {
                    state.backlog.remove(cost);
                }
            }
        });
    }

    /// Holds what is pushed into the lane until it is opened again.
    pub fn hold(&self) {
        let mut state = self.shared.lock();
        let State { queue, backlog, .. } = &mut *state;
        if let Queue::Kept(log) = queue {
            log.hold(self.lane, backlog);
        }
    }

    /// Says that whoever owns the lane repeats what matters of its
    /// [transient](Message::transient) messages each time it is opened: so what waits of them for a
    /// connection that is gone is dropped.
    pub fn refresh(&self) {
        if let Queue::Kept(log) = &mut self.shared.lock().queue {
            log.refresh(self.lane);
        }
    }

    /// Whether the answer that opened the lane is known to have arrived.
    pub fn is_open_known(&self) -> bool {
        match &self.shared.lock().queue {
            Queue::Plain(_) => true,
            Queue::Kept(log) => log.is_open_known(self.lane),
        }
    }

    /// Says that nothing follows in the lane.
    pub fn end_lane(&self) {
        let mut state = self.shared.lock();
        let State { queue, backlog, .. } = &mut *state;
        if let Queue::Kept(log) = queue {
            log.end_lane(self.lane, backlog);
        }
    }

    fn admit(&self, message: Message, push: impl FnOnce(&mut State, Lane, Message)) {
        let mut state = self.shared.lock();
        if state.close.is_some() {
            return;
        }
        let has_room = state.backlog.add(message.cost());
        if has_room {
            push(&mut state, self.lane, message);
        } else {
            state.clear();
            state.close = Some(Close::Overflow);
        }
        State::wake(state);
        if !has_room {
            // The recorder is the application's, as what traces is: outside the lock.
            metrics::counter!("tower_channels_outbox_overflows").increment(1);
        }
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
            Queue::Kept(log) if log.attachment() == 0 => over,
            Queue::Kept(log) => state.close.is_some() && !log.is_attached(),
        }
    }

    /// Begins an attachment to a kept outbox and ends the one before, unless there would be a gap. See
    /// [`Log::attach`].
    pub(crate) fn attach(&self, received: Option<u64>) -> Option<Drain> {
        let mut state = self.shared.lock();
        let State { queue, backlog, .. } = &mut *state;
        let attached = match queue {
            Queue::Plain(_) => None,
            Queue::Kept(log) => Some(log.attach(received, backlog)?),
        };
        State::wake(state);
        let attachment = attached.map_or(0, |Attached { attachment, replayed }| {
            metrics::counter!("tower_channels_messages_replayed").increment(replayed as u64);
            tracing::debug!(attachment, replayed, "a kept session was attached");
            attachment
        });
        Some(Drain { shared: Arc::clone(&self.shared), attachment })
    }

    /// Whether a client that has seen so much can go on without a gap.
    pub(crate) fn has_all_after(&self, received: Option<u64>) -> bool {
        match &self.shared.lock().queue {
            Queue::Plain(_) => true,
            Queue::Kept(log) => log.has_all_after(received),
        }
    }

    /// Gives up what the client's network has had for so long. See [`Log::age`].
    pub(crate) fn age(&self, now: Instant, ttl: Duration) {
        if let Queue::Kept(log) = &mut self.shared.lock().queue {
            log.age(now, ttl);
        }
    }

    /// Whether a connection holds the kept outbox.
    pub(crate) fn is_attached(&self) -> bool {
        matches!(&self.shared.lock().queue, Queue::Kept(log) if log.is_attached())
    }

    /// Whether a connection whose session was taken over has shown since this was asked last that its
    /// client is there: that client and the newer one are two.
    pub(crate) fn was_contested(&self) -> bool {
        match &mut self.shared.lock().queue {
            Queue::Plain(_) => false,
            Queue::Kept(log) => log.was_contested(),
        }
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
        self.poll_take_some(cx, batch, 0, usize::MAX, usize::MAX)
    }

    /// As [`poll_take`](Self::poll_take), after a [`release`](Self::release) of what is `written`. Of
    /// a kept outbox it takes about `chunk` bytes, and none but control while `window` bytes are on
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
            Queue::Kept(log) if log.attachment() != self.attachment => {
                return Poll::Ready(Err(Close::Restart));
            }
            Queue::Kept(log) => log.take(chunk, window, |message| batch.push_back(message.clone())),
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

    /// Gives back the room of messages that were taken from a plain outbox and are now written. A kept
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

    /// Makes an outbox a kept one, whose messages are numbered from `received` on. Until the first
    /// attachment this drain keeps its use.
    pub(crate) fn keep(&self, received: u64) {
        let mut state = self.shared.lock();
        let mut log = Box::new(Log::new(received));
        if let Queue::Plain(queue) = &mut state.queue {
            for message in queue.drain(..) {
                log.push(CONTROL, message);
            }
        }
        state.queue = Queue::Kept(log);
    }

    /// Makes the outbox one that outlives its connections, of which this is none.
    pub(crate) fn into_kept(self, received: u64) -> Outbox {
        self.keep(received);
        let outbox = Outbox { shared: Arc::clone(&self.shared), lane: CONTROL };
        // An attachment that is over: this drain is superseded, and the outbox without a connection.
        if let Some(drain) = outbox.attach(None) {
            drain.visit(|outbox| outbox.park());
        }
        outbox
    }

    /// Whether the outbox is kept beyond this connection.
    pub(crate) fn is_kept(&self) -> bool {
        self.attachment != 0
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
            Queue::Kept(log) if log.attachment() == self.attachment => Some(&mut **log),
            _ => None,
        };
        work(&mut Visit { log, backlog, close: *close, waker })
    }

    /// Which attachment this is; 0 if there is only one.
    pub(crate) fn attachment(&self) -> u64 {
        self.attachment
    }

    /// Whether this is a kept outbox's connection no more.
    pub(crate) fn is_superseded(&self) -> bool {
        matches!(&self.shared.lock().queue, Queue::Kept(log) if log.attachment() != self.attachment)
    }

    /// The client of this connection is there. Matters only after a newer one has taken its session.
    pub(crate) fn contest(&self) {
        if let Queue::Kept(log) = &mut self.shared.lock().queue {
            log.contest(self.attachment);
        }
    }

    /// The log, while this attachment has it.
    fn current<R>(&self, work: impl FnOnce(&mut Log, &mut Backlog) -> R) -> Option<R> {
        self.visit(|outbox| outbox.log.as_mut().map(|log| work(log, outbox.backlog)))
    }

    /// Ends the outbox from the transport's side: whatever waits is dropped. Of a kept outbox only
    /// the connection ends.
    pub fn close(&self, close: Close) {
        let mut state = self.shared.lock();
        if self.attachment != 0 {
            if let Queue::Kept(log) = &mut state.queue {
                log.detach(self.attachment, close == Close::Normal);
            }
            return;
        }
        state.close.get_or_insert(close);
        state.clear();
        State::wake(state);
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if self.is_superseded() {
            return;
        }
        // Who lets go without a word was cut off.
        self.close(Close::GoingAway);
        let mut state = self.shared.lock();
        self.shared.over.store(true, Ordering::Relaxed);
        // A kept outbox would hold what is left of the connection as long as it is parked.
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
            Queue::Kept(log) => log.clear(),
        }
    }

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
        let backlog = self.shared.lock().backlog.bytes();
        f.debug_struct("Outbox").field("backlog", &backlog).finish_non_exhaustive()
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

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

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
    fn a_parked_outbox_holds_nothing_of_its_connection() {
        struct Task;
        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        let outbox = Outbox::new(1000).1.into_kept(0);
        let mut drain = outbox.attach(None).expect("a new one has no gap");
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        assert!(drain.poll_take(&mut cx, &mut VecDeque::new()).is_pending());
        drop((drain, waker));
        assert!(!outbox.is_attached() && !outbox.is_closed());
        assert_eq!(Arc::strong_count(&task), 1);
    }

    #[test]
    fn an_outbox_whose_drain_is_gone_drops_what_it_gets() {
        let (outbox, drain) = Outbox::new(1000);
        drop(drain);
        outbox.push(Message::text("x"));
        assert!(outbox.is_closed());
    }

    /// Looks, whenever a counter is asked for, whether an outbox is locked.
    struct Looks(Outbox, AtomicBool);

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
        let (outbox, _drain) = Outbox::new(0);
        let overflows = |outbox: &Outbox| (0..3).for_each(|_| outbox.push(Message::text("x")));
        let kept = Outbox::new(1000).1.into_kept(0);
        let attaches = |outbox: &Outbox| assert!(outbox.attach(None).is_some());
        for (outbox, act) in [(outbox, &overflows as &dyn Fn(&_)), (kept, &attaches)] {
            let looks = Looks(outbox.clone(), AtomicBool::new(false));
            metrics::with_local_recorder(&looks, || act(&outbox));
            assert!(looks.1.into_inner(), "counted");
        }
    }
}
