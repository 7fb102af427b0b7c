//! When a session ends, and what is delivered before.

use super::*;

#[test]
fn an_error_of_the_session_ends_it_and_its_waiting_poll() {
    let (session, outbox) = session(false);
    let wakes = Arc::new(Wakes::default());
    let poll = session.begin_poll(0).unwrap();
    wait(&session, poll, &Waker::from(Arc::clone(&wakes)));
    assert_eq!(session.handle_in(&mut batch("bad")), Ok(Err(Close::Malformed)));
    assert_eq!(wakes.count(), 1);
    assert!(outbox.is_closed());
    assert_eq!(answer(&session, poll), Answered::Over);
    assert_eq!(session.handle_in(&mut batch("more")), Err(Gone));
    assert_eq!(session.begin_poll(0), Err(Gone));
}

#[test]
fn messages_before_a_close_are_delivered_and_then_the_session_is_gone() {
    let (session, outbox) = session(false);
    outbox.push(Message::text("bye"));
    outbox.close(Close::GoingAway);
    assert_eq!(poll(&session, 0), Ok(messages(["bye"], 1)));
    assert_eq!(session.handle_in(&mut batch("hello")), Err(Gone));
    assert_eq!(poll(&session, 0), Ok(messages(["bye"], 1)));
    assert_eq!(poll(&session, 1), Err(Gone));
}

#[test]
fn an_overflow_ends_the_session() {
    let (session, outbox) = session(false);
    for _ in 0..3 {
        outbox.push(Message::text("x".repeat(2000)));
    }
    assert_eq!(session.begin_poll(0), Err(Gone));
}

#[test]
fn what_the_application_made_is_dropped_as_soon_as_the_session_is_over() {
    let (session, outbox) = session(false);
    outbox.close(Close::GoingAway);
    assert_eq!(session.begin_poll(0), Err(Gone));
    assert!(session.turn.lock().is_none());
}

#[test]
fn a_panic_ends_the_session() {
    let (session, outbox) = session(false);
    assert_eq!(session.handle_in(&mut batch("panic")), Ok(Err(Close::Malformed)));
    assert!(outbox.is_closed());
    assert_eq!(session.begin_poll(0), Err(Gone));
    assert!(session.turn.lock().is_none());
}

#[test]
fn a_session_ends_when_no_poll_comes_for_long_enough() {
    let (session, _) = session(false);
    let start = session.state.lock().idle_since.unwrap();
    let after = |seconds| start + Duration::from_secs(seconds);
    assert!(!session.visit(after(14)));
    let poll = session.begin_poll(0).unwrap();
    assert!(!session.visit(after(1000)), "a poll waits");
    session.end_poll(poll, after(1000));
    assert!(!session.visit(after(1014)));
    assert!(session.visit(after(1015)));
    assert_eq!(session.begin_poll(0), Err(Gone));
}

#[test]
fn the_session_timeout_does_not_run_while_an_answer_is_read() {
    let (session, outbox) = with_limit(false, 1 << 20);
    outbox.push(Message::text("x".repeat(64 << 10)));
    let start = session.state.lock().idle_since.unwrap();
    let after = |seconds| start + Duration::from_secs(seconds);
    let poll = session.begin_poll(0).unwrap();
    assert_eq!(cursor(&answer(&session, poll)), Some(1));
    session.end_poll(poll, start);
    // A POST meanwhile does not start it.
    session.check(0).unwrap();
    assert!(!session.visit(after(15 + 63)), "a client that reads 1 KiB/s is not done");
    assert!(session.visit(after(15 + 66)));
}

/// A poll that was answered with one message of 2 MiB and has ended, and the body of its response.
fn large_answer(session: &LongPollSession<Echo>, outbox: &outbox::Sender) -> bytes::Bytes {
    outbox.push(Message::text("x".repeat(2 << 20)));
    let poll = session.begin_poll(0).unwrap();
    let Answered::Messages(body) = answer(session, poll) else { panic!("an answer") };
    session.end_poll(poll, Instant::now());
    body
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_session_of_a_client_that_died_over_a_large_answer_ends_soon() {
    let (session, outbox) = with_limit(false, 4 << 20);
    drop(large_answer(&session, &outbox));
    // What the buffers of the network hold may still be read.
    tokio::time::advance(142 * SECOND).await;
    assert!(!session.visit(Instant::now()));
    tokio::time::advance(2 * SECOND).await;
    assert!(session.visit(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn the_session_timeout_starts_when_a_large_answer_is_written_or_its_connection_is_gone() {
    let (session, outbox) = with_limit(false, 4 << 20);
    let body = large_answer(&session, &outbox);
    for _ in 0..10 {
        tokio::time::advance(100 * SECOND).await;
        assert!(!session.visit(Instant::now()), "it is being read, at 1 KiB/s");
    }
    drop(body);
    tokio::time::advance(142 * SECOND).await;
    assert!(!session.visit(Instant::now()));
    tokio::time::advance(2 * SECOND).await;
    assert!(session.visit(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_client_that_never_reads_a_large_answer_ends() {
    let (session, outbox) = with_limit(false, 4 << 20);
    let _body = large_answer(&session, &outbox);
    let begun = Instant::now();
    while !session.visit(Instant::now()) {
        tokio::time::advance(SECOND).await;
    }
    let seconds = begun.elapsed().as_secs();
    assert!((2048 + 128 + 15..2048 + 128 + 30).contains(&seconds), "{seconds}");
}

#[test]
fn everything_that_was_pushed_before_a_close_can_be_polled() {
    let (session, outbox) = with_limit(false, 1 << 20);
    (0..4).for_each(|_| outbox.push(Message::text("x".repeat(60_000))));
    outbox.close(Close::GoingAway);
    for position in 0..4 {
        assert!(!session.is_over());
        assert_eq!(cursor(&poll(&session, position).unwrap()), Some(position + 1));
    }
    assert_eq!(poll(&session, 4), Err(Gone));
}
