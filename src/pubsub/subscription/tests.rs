use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use serde_json::json;
use tokio::task::yield_now;
use tower_channels_transports::Memory;

use super::*;

fn broadcast(topics: &Topics, number: u32) {
    topics.broadcast(Broadcast::new("room".into(), "n".into(), json!(number).into()), None);
}

/// Everything that waits: the numbers, and how many were missed in their place.
fn drain(subscription: &mut Subscription) -> Vec<Result<u32, Lagged>> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    while let Poll::Ready(received) = subscription.queue.poll_recv(&mut cx) {
        all.push(received.map(|it| it.payload().parse().expect("a number")));
    }
    all
}

fn subscribe(topics: &Topics, limit: usize) -> Subscription {
    Subscription::new(topics, "room".into(), limit)
}

#[test]
fn a_subscription_receives_what_is_sent_to_its_topic_while_it_lasts() {
    let topics = Topics::new(&Memory::new(1 << 30));
    broadcast(&topics, 0);
    let mut subscription = subscribe(&topics, 1 << 20);
    broadcast(&topics, 1);
    topics.broadcast(Broadcast::new("other".into(), "n".into(), json!(2).into()), None);
    broadcast(&topics, 3);
    assert_eq!(drain(&mut subscription), [Ok(1), Ok(3)]);
    assert_eq!(topics.subscribers("room"), 1);
    drop(subscription);
    assert_eq!((topics.subscribers("room"), topics.names().count()), (0, 0));
}

#[test]
fn a_lagging_reader_is_told_how_many_it_missed_and_goes_on_with_the_oldest_that_is_left() {
    let topics = Topics::new(&Memory::new(1 << 30));
    let mut subscription = subscribe(&topics, 4000);
    (0..100).for_each(|number| broadcast(&topics, number));
    let received = drain(&mut subscription);
    let left = received.len() - 1;
    assert!((2..20).contains(&left), "{received:?}");
    assert_eq!(received[0], Err(Lagged(100 - left as u64)));
    let newest: Vec<_> = (100 - left as u32..100).map(Ok).collect();
    assert_eq!(received[1..], newest);
    broadcast(&topics, 100);
    assert_eq!(drain(&mut subscription), [Ok(100)]);
}

#[test]
fn one_broadcast_of_any_size_finds_room() {
    let topics = Topics::new(&Memory::new(1 << 30));
    let mut subscription = subscribe(&topics, 1);
    let large = Broadcast::new("room".into(), "n".into(), vec_payload(1 << 20));
    topics.broadcast(large, None);
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(received)) = subscription.queue.poll_recv(&mut cx) else {
        panic!("nothing received");
    };
    assert_eq!(received.payload().as_binary().map(|bytes| bytes.len()), Some(1 << 20));
    broadcast(&topics, 1);
    assert_eq!(drain(&mut subscription), [Ok(1)]);
}

fn vec_payload(size: usize) -> crate::payload::Payload {
    crate::payload::Payload::binary(vec![0; size])
}

#[test]
fn what_waits_is_reserved_until_it_is_received_or_dropped() {
    let memory = Memory::new(1 << 30);
    let topics = Topics::new(&memory);
    let mut subscription = subscribe(&topics, 1 << 20);
    (0..1000).for_each(|number| broadcast(&topics, number));
    let full = memory.reserved();
    assert!(full > 100_000, "{full}");
    assert_eq!(drain(&mut subscription).len(), 1000);
    assert!(memory.reserved() < full / 10, "{memory:?}");
    (0..1000).for_each(|number| broadcast(&topics, number));
    drop(subscription);
    assert_eq!(memory.reserved(), 0);
}

#[test]
fn a_shared_payload_is_reserved_once_for_all_subscriptions() {
    let memory = Memory::new(1 << 30);
    let topics = Topics::new(&memory);
    let all: Vec<_> = (0..50).map(|_| subscribe(&topics, 1 << 20)).collect();
    topics.broadcast(Broadcast::new("room".into(), "n".into(), vec_payload(500_000)), None);
    assert!((500_000..600_000).contains(&memory.reserved()), "{memory:?}");
    drop(all);
    assert_eq!(memory.reserved(), 0);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_waiting_reader_is_woken_once_per_wait() {
    let topics = Topics::new(&Memory::new(1 << 30));
    let subscription = subscribe(&topics, 1 << 20);
    let counter = Arc::new(Counter::default());
    let waker = Arc::clone(&counter).into();
    let mut cx = Context::from_waker(&waker);
    assert!(subscription.queue.poll_recv(&mut cx).is_pending());
    (0..3).for_each(|number| broadcast(&topics, number));
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    for _ in 0..3 {
        assert!(subscription.queue.poll_recv(&mut cx).is_ready());
    }
    assert!(subscription.queue.poll_recv(&mut cx).is_pending());
    broadcast(&topics, 3);
    assert_eq!(counter.0.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let topics = Topics::new(&Memory::new(1 << 30));
    let mut subscription = subscribe(&topics, 1 << 20);
    tokio::select! {
        biased;
        received = subscription.recv() => panic!("{received:?}"),
        () = yield_now() => {}
    }
    broadcast(&topics, 1);
    assert_eq!(drain(&mut subscription), [Ok(1)]);
}

#[tokio::test]
async fn a_reader_with_much_to_read_lets_other_tasks_run() {
    let topics = Topics::new(&Memory::new(1 << 30));
    let mut subscription = subscribe(&topics, 1 << 20);
    (0..1000).for_each(|number| broadcast(&topics, number));
    let read = Arc::new(AtomicUsize::new(0));
    let reader = tokio::spawn({
        let read = Arc::clone(&read);
        async move {
            while subscription.recv().await.is_ok() {
                read.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    yield_now().await;
    assert!((1..1000).contains(&read.load(Ordering::Relaxed)), "{read:?}");
    reader.abort();
}
