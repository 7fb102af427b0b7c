use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use parking_lot::Mutex;

use super::*;
use crate::frame::{Close, Message};

fn take(receiver: &mut Receiver) -> Poll<Result<Vec<Message>, Close>> {
    let mut batch = VecDeque::new();
    let mut cx = Context::from_waker(Waker::noop());
    receiver.poll_take(&mut cx, &mut batch).map_ok(|()| batch.into())
}

fn wait(receiver: &mut Receiver, waker: &Waker) {
    let mut cx = Context::from_waker(waker);
    assert!(receiver.poll_take(&mut cx, &mut VecDeque::new()).is_pending());
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn messages_leave_in_order_and_before_the_close() {
    let (outbox, mut receiver) = channel(1000);
    outbox.push(Message::text("a"));
    outbox.push(Message::text("b"));
    outbox.close(Close::GoingAway);
    outbox.push(Message::text("late"));
    assert_eq!(take(&mut receiver), Poll::Ready(Ok(vec![Message::text("a"), Message::text("b")])));
    assert_eq!(take(&mut receiver), Poll::Ready(Err(Close::GoingAway)));
}

#[test]
fn a_message_larger_than_the_limit_passes_and_the_next_ones_overflow() {
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
    receiver.release((2 * message.cost().bytes()).into());
    assert_eq!(receiver.backlog(), 0);
    outbox.push(message);
    assert!(!outbox.is_closed());
}

#[test]
fn an_outbox_whose_receiver_is_gone_drops_messages() {
    let (outbox, receiver) = channel(1000);
    drop(receiver);
    outbox.push(Message::text("x"));
    assert!(outbox.is_closed() && outbox.is_over());
}

#[test]
fn enqueue_leaves_the_wake_up_to_its_caller() {
    let (outbox, mut receiver) = channel(1000);
    let wakes = Arc::new(Wakes::default());
    wait(&mut receiver, &Waker::from(Arc::clone(&wakes)));
    let first = outbox.enqueue(Message::text("a"));
    let second = outbox.enqueue(Message::text("b"));
    assert_eq!(wakes.count(), 0);
    assert!(second.wakeup.into_waker().is_none(), "one wake-up is enough");
    first.finish();
    assert_eq!(wakes.count(), 1);
    assert!(matches!(take(&mut receiver), Poll::Ready(Ok(batch)) if batch.len() == 2));
}

#[test]
fn enqueue_reports_an_overflow_and_leaves_the_wake_up_to_its_caller() {
    let (outbox, mut receiver) = channel(0);
    outbox.push(Message::text("a"));
    outbox.push(Message::text("b"));
    assert!(take(&mut receiver).is_ready());
    let wakes = Arc::new(Wakes::default());
    wait(&mut receiver, &Waker::from(Arc::clone(&wakes)));
    let enqueued = outbox.enqueue(Message::text("c"));
    assert!(enqueued.overflowed && outbox.is_closed());
    assert_eq!(wakes.count(), 0);
    enqueued.finish();
    assert_eq!(wakes.count(), 1);
    assert_eq!(take(&mut receiver), Poll::Ready(Err(Close::Overflow)));
}

#[test]
fn a_detached_outbox_keeps_nothing_of_its_connection() {
    let outbox = channel(1000).1.into_resumable(0);
    let mut receiver = outbox.attach(None).expect("nothing was sent");
    let task = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&task));
    wait(&mut receiver, &waker);
    drop((receiver, waker));
    assert!(!outbox.is_attached() && !outbox.is_closed());
    assert_eq!(Arc::strong_count(&task), 1);
}

#[test]
fn a_newer_connection_wakes_the_one_that_it_supersedes() {
    let outbox = channel(1000).1.into_resumable(0);
    let mut older = outbox.attach(None).expect("nothing was sent");
    let wakes = Arc::new(Wakes::default());
    wait(&mut older, &Waker::from(Arc::clone(&wakes)));
    let _newer = outbox.attach(None);
    assert_eq!(wakes.count(), 1);
    assert_eq!(take(&mut older), Poll::Ready(Err(Close::Restart)));
}

#[test]
fn the_close_of_a_detached_outbox_is_reported_once_and_late_listeners_hear_of_it() {
    let outbox = channel(1000).1.into_resumable(0);
    let wakes = Arc::new(Wakes::default());
    outbox.on_close(Waker::from(Arc::clone(&wakes)));
    outbox.priority().push(Message::text("x"));
    assert_eq!(wakes.count(), 0);
    outbox.close(Close::GoingAway);
    outbox.close(Close::GoingAway);
    assert_eq!(wakes.count(), 1);
    outbox.on_close(Waker::from(Arc::clone(&wakes)));
    assert_eq!(wakes.count(), 2);
}

#[test]
fn a_heartbeat_does_not_acknowledge_what_a_poll_may_be_answered_with_again() {
    for received in [None, Some(0)] {
        let outbox = channel(1000).1.into_resumable(0);
        let receiver = outbox.attach(received).expect("nothing was sent");
        for text in ["a", "b"] {
            outbox.push_heartbeat_reply(Message::text(text));
            receiver.collect(true);
        }
        let mut cx = Context::from_waker(Waker::noop());
        let (poll, _) = receiver.poll_collect(&mut cx, true);
        let unread = receiver.unread(true);
        assert_eq!((poll, unread), (Poll::Ready(()), vec![Message::text("a"), Message::text("b")]));
    }
}

/// Waits until both threads have arrived at the same point.
fn meet(arrived: &AtomicUsize, point: usize) {
    arrived.fetch_add(1, Ordering::SeqCst);
    while arrived.load(Ordering::SeqCst) < 2 * point {
        thread::yield_now();
    }
}

#[test]
fn a_connection_that_attaches_while_the_older_receiver_is_dropped_is_woken() {
    const ROUNDS: usize = 150_000;
    let outbox = channel(1 << 30).1.into_resumable(0);
    let arrived = AtomicUsize::new(0);
    let older = Mutex::new(None);
    let mut lost = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                meet(&arrived, 2 * round + 1);
                drop(older.lock().take());
                meet(&arrived, 2 * round + 2);
            }
        });
        let mut current = outbox.attach(None).expect("nothing was sent");
        for round in 0..ROUNDS {
            *older.lock() = Some(current);
            meet(&arrived, 2 * round + 1);
            let mut newer = outbox.attach(None).expect("nothing was sent");
            let wakes = Arc::new(Wakes::default());
            wait(&mut newer, &Waker::from(Arc::clone(&wakes)));
            meet(&arrived, 2 * round + 2);
            outbox.priority().push(Message::text("x"));
            lost += usize::from(wakes.count() == 0);
            current = newer;
        }
    });
    assert_eq!(lost, 0, "lost wake-ups in {ROUNDS} rounds");
}

/// Checks at every metric that the outbox is not locked.
struct Unlocked(Sender, AtomicBool);

impl metrics::Recorder for Unlocked {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        assert!(!self.0.is_locked(), "the recorder may push, too");
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
fn metrics_are_recorded_outside_the_lock() {
    let (plain, _receiver) = channel(0);
    let overflows = |outbox: &Sender| (0..3).for_each(|_| outbox.push(Message::text("x")));
    let resumable = channel(1000).1.into_resumable(0);
    let attaches = |outbox: &Sender| assert!(outbox.attach(None).is_some());
    for (outbox, act) in [(plain, &overflows as &dyn Fn(&_)), (resumable, &attaches)] {
        let recorder = Unlocked(outbox.clone(), AtomicBool::new(false));
        metrics::with_local_recorder(&recorder, || act(&outbox));
        assert!(recorder.1.into_inner(), "something was counted");
    }
}

#[test]
fn a_plain_outbox_ends_with_its_connection() {
    let (outbox, mut receiver) = channel(1000);
    outbox.push(Message::text("a"));
    assert!(outbox.end_connection());
    assert_eq!(take(&mut receiver), Poll::Ready(Ok(vec![Message::text("a")])));
    assert_eq!(take(&mut receiver), Poll::Ready(Err(Close::Restart)));
    assert!(outbox.is_closed() && !outbox.end_connection());
}

#[test]
fn a_resumable_outbox_outlives_the_end_of_its_connection() {
    let (outbox, receiver) = channel(1000);
    let outbox = [outbox, receiver.into_resumable(0)];
    assert!(!outbox[0].end_connection(), "there is none yet");
    for received in [None, Some(0)] {
        let mut receiver = outbox[1].attach(received).expect("nothing was missed");
        let wakes = Arc::new(Wakes::default());
        wait(&mut receiver, &Arc::clone(&wakes).into());
        assert!(outbox[0].end_connection());
        assert_eq!(wakes.count(), 1);
        assert_eq!(take(&mut receiver), Poll::Ready(Err(Close::Restart)));
        assert!(receiver.is_superseded() && outbox[0].is_idle() && !outbox[0].is_closed());
        assert!(!outbox[0].end_connection(), "it has ended");
    }
}

#[test]
fn what_the_end_of_a_connection_has_lost_is_sent_on_the_next_one() {
    let resumable = channel(1000).1.into_resumable(0);
    let stream = resumable.stream();
    let mut receiver = resumable.attach(None).expect("it is there");
    stream.resume(receiver.epoch(), Message::text("joined"));
    stream.push(Message::text("a"));
    assert!(matches!(take(&mut receiver), Poll::Ready(Ok(batch)) if batch.len() == 2));
    stream.push(Message::text("b"));
    assert!(resumable.end_connection());
    stream.push(Message::text("c"));
    assert_eq!(take(&mut receiver), Poll::Ready(Err(Close::Restart)));
    let mut receiver = resumable.attach(None).expect("it is there");
    stream.resume(receiver.epoch(), Message::text("resumed"));
    let texts = ["resumed", "a", "b", "c"].map(Message::text).to_vec();
    assert_eq!(take(&mut receiver), Poll::Ready(Ok(texts)));
}
