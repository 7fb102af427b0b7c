//! The memory of an endpoint and the outboxes in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::*;
use crate::frame::{Close, Message};
use crate::outbox;

const LIMIT: usize = 100_000;

fn outboxes(memory: &Memory, count: usize) -> Vec<(outbox::Sender, outbox::Receiver)> {
    (0..count).map(|_| outbox::channel_in(1 << 20, memory)).collect()
}

fn message(size: usize) -> Message {
    Message::binary(vec![0; size])
}

#[tokio::test(start_paused = true)]
async fn the_sessions_that_hold_most_are_closed_until_memory_is_not_scarce() {
    let memory = Memory::new(LIMIT);
    let all = outboxes(&memory, 4);
    for ((outbox, _), size) in all.iter().zip([1000, 20_000, 30_000, 40_000]) {
        outbox.push(message(size));
    }
    assert!(memory.is_scarce() && !memory.is_exceeded());
    all[0].0.push(message(9_000));
    let closed: Vec<_> = all.iter().map(|(outbox, _)| outbox.is_closed()).collect();
    assert_eq!(closed, [false, false, false, true]);
    assert!(!memory.is_scarce());
    let (_, receiver) = &mut { all }[3];
    let mut cx = Context::from_waker(Waker::noop());
    let taken = receiver.poll_take(&mut cx, &mut VecDeque::new());
    assert_eq!(taken, std::task::Poll::Ready(Err(Close::Overflow)));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_closed_while_what_was_closed_a_moment_ago_is_being_freed() {
    let memory = Memory::new(LIMIT);
    let shared = message(90_000).held_in(&memory);
    let all = outboxes(&memory, 3);
    all[0].0.push(shared.clone());
    all[1].0.push(message(12_000));
    assert!(all[0].0.is_closed());
    all[2].0.push(message(12_000));
    assert!(memory.is_exceeded() && !all[1].0.is_closed() && !all[2].0.is_closed());
    tokio::time::advance(Duration::from_millis(10)).await;
    drop(shared);
    all[2].0.push(message(12_000));
    assert!(!memory.is_exceeded() && !all[1].0.is_closed() && !all[2].0.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_to_many_is_counted_once() {
    let memory = Memory::new(LIMIT);
    let all = outboxes(&memory, 100);
    let shared = message(50_000).for_many().held_in(&memory);
    all.iter().for_each(|(outbox, _)| outbox.push(shared.clone()));
    drop(shared);
    assert!((50_000..60_000).contains(&memory.reserved()), "{memory:?}");
    assert!(all.iter().all(|(outbox, _)| !outbox.is_closed()));
    drop(all);
    assert_eq!(memory.reserved(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_retained_for_the_next_connection_is_counted_until_it_is_evicted() {
    let memory = Memory::new(LIMIT);
    let (outbox, receiver) = outbox::channel_in(1 << 20, &memory);
    let _session = receiver.into_resumable(0);
    let mut receiver = outbox.attach(None).expect("no gap");
    let stream = outbox.stream();
    stream.resume(receiver.epoch(), message(10));
    stream.push(message(50_000));
    let mut cx = Context::from_waker(Waker::noop());
    while receiver.poll_take(&mut cx, &mut VecDeque::new()).is_ready() {}
    receiver.pong(receiver.position());
    assert_eq!(receiver.backlog(), 0);
    assert!(memory.reserved() > 50_000, "{memory:?}");
    for _ in 0..2 {
        outbox.age(tokio::time::Instant::now(), Duration::ZERO);
    }
    assert_eq!(memory.reserved(), 0);
}

#[test]
fn a_session_that_ends_is_forgotten() {
    let memory = Memory::new(LIMIT);
    let all = outboxes(&memory, 1000);
    assert_eq!(memory.0.relief.len(), 1000);
    drop(all);
    assert_eq!(memory.0.relief.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_closed_session_has_yet_to_free_closes_nobody_else() {
    let memory = Memory::new(LIMIT);
    let all = outboxes(&memory, 2);
    let mut writer = Reservation::new(Arc::clone(all[0].0.account().expect("limited")));
    writer.set(50_000);
    all[0].0.push(message(20_000));
    all[1].0.push(message(35_000));
    assert!(all[0].0.is_closed() && !all[1].0.is_closed());
    for _ in 0..4 {
        tokio::time::advance(Duration::from_millis(20)).await;
        all[1].0.push(message(5_000));
    }
    assert!(memory.is_exceeded() && !all[1].0.is_closed());
    drop(writer);
    assert!(!memory.is_exceeded());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_shares_a_broadcast_is_not_closed_for_one_that_holds_bytes_of_its_own() {
    let memory = Memory::new(LIMIT);
    let all = outboxes(&memory, 10);
    let shared = message(80_000).for_many().held_in(&memory);
    all[1..].iter().for_each(|(outbox, _)| outbox.push(shared.clone()));
    all[0].0.push(message(20_000));
    let closed: Vec<_> = all.iter().map(|(outbox, _)| outbox.is_closed()).collect();
    assert_eq!(closed.iter().position(|is_closed| *is_closed), Some(0));
    assert_eq!(closed.iter().filter(|is_closed| **is_closed).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_finds_nobody_to_close_is_followed_by_a_longer_pause() {
    let memory = Memory::new(LIMIT);
    let mut held = Reservation::new(memory.account());
    held.set(2 * LIMIT);
    memory.relieve();
    let (outbox, _receiver) = outbox::channel_in(1 << 20, &memory);
    for millis in [0, 500, 499] {
        tokio::time::advance(Duration::from_millis(millis)).await;
        outbox.push(message(20_000));
        assert!(!outbox.is_closed());
    }
    tokio::time::advance(Duration::from_millis(1)).await;
    outbox.push(message(20_000));
    assert!(outbox.is_closed());
}

/// Looks whether a run is under way when it is woken.
struct Looks(Memory, AtomicBool);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        assert!(!self.0.0.relief.is_locked(), "a waker may push, too");
        self.1.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn wakers_of_closed_sessions_run_without_a_lock() {
    let memory = Memory::new(LIMIT);
    let mut all = outboxes(&memory, 2);
    all[0].0.push(message(60_000));
    let looks = Arc::new(Looks(memory.clone(), AtomicBool::new(false)));
    let waker = Arc::clone(&looks).into();
    let receiver = &mut all[0].1;
    let mut cx = Context::from_waker(&waker);
    while receiver.poll_take(&mut cx, &mut VecDeque::new()).is_ready() {}
    all[1].0.push(message(50_000));
    assert!(looks.1.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_resumable_session_that_is_closed_for_memory_frees_what_it_has_sent() {
    let memory = Memory::new(LIMIT);
    let (outbox, receiver) = outbox::channel_in(1 << 20, &memory);
    let _session = receiver.into_resumable(0);
    let mut receiver = outbox.attach(None).expect("no gap");
    let stream = outbox.stream();
    stream.resume(receiver.epoch(), message(10));
    stream.push(message(50_000));
    let mut cx = Context::from_waker(Waker::noop());
    let mut batch = VecDeque::new();
    while receiver.poll_take(&mut cx, &mut batch).is_ready() {}
    let shared: Vec<_> = batch.into_iter().map(|message| message.to_bytes()).collect();
    stream.push(message(60_000));
    assert!(outbox.is_closed());
    assert_eq!(memory.reserved(), 0);
    assert!(shared.into_iter().all(|bytes| bytes.is_unique()), "the outbox keeps nothing");
}
