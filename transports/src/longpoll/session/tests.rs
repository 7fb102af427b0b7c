use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread;

use super::*;
use crate::frame::{Inbound, Message};
use crate::outbox;

/// Answers every message with itself; `bad` ends it.
struct Echo(outbox::Sender);

impl Session for Echo {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        match message {
            Inbound::Text("bad") => Err(Close::Malformed),
            Inbound::Text("panic") => panic!("as requested"),
            Inbound::Text(text) => {
                self.0.push(Message::text(text.to_owned()));
                Ok(())
            }
            Inbound::Binary(_) => Ok(()),
        }
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

fn session(reads_binary: bool) -> (LongPollSession<Echo>, outbox::Sender) {
    with_limit(reads_binary, 1000)
}

fn with_limit(reads_binary: bool, limit: usize) -> (LongPollSession<Echo>, outbox::Sender) {
    let (outbox, receiver) = outbox::channel(limit);
    let connected = Connected::own(Echo(outbox.clone()), receiver);
    let timer = Timer::new(Arc::default(), [b'a'; 22]);
    (LongPollSession::new(connected, reads_binary, SESSION_TIMEOUT, timer), outbox)
}

fn batch(text: &str) -> Batch {
    Batch::new(text.to_owned().into(), false, 1000).unwrap()
}

fn messages<const N: usize>(texts: [&'static str; N], cursor: u64) -> Answered {
    rendered(&texts.map(Message::text), cursor)
}

fn rendered(messages: &[Message], cursor: u64) -> Answered {
    let token = Token { id: [b'a'; 22], cursor };
    Answered::Messages(answer::render(StatusCode::OK, messages, token).into())
}

/// The position in the token of an answer; `None` without messages.
fn cursor(answered: &Answered) -> Option<u64> {
    let Answered::Messages(body) = answered else { return None };
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    Some(Token::parse(body["token"].as_str().unwrap()).unwrap().cursor)
}

/// What a poll is answered by now.
fn answer(session: &LongPollSession<Echo>, poll: PollId) -> Answered {
    match session.poll_answer(poll, &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answered) => answered,
        Poll::Pending => Answered::Nothing,
    }
}

/// Polls once and is answered.
fn poll(session: &LongPollSession<Echo>, cursor: u64) -> Result<Answered, Gone> {
    let poll = session.begin_poll(cursor)?;
    let answered = answer(session, poll);
    session.end_poll(poll, Instant::now());
    Ok(answered)
}

fn is_ready(session: &LongPollSession<Echo>, poll: PollId) -> bool {
    session.poll_answer(poll, &mut Context::from_waker(Waker::noop())).is_ready()
}

fn wait(session: &LongPollSession<Echo>, poll: PollId, waker: &Waker) {
    assert!(session.poll_answer(poll, &mut Context::from_waker(waker)).is_pending());
}

fn backlog(session: &LongPollSession<Echo>) -> usize {
    session.state.lock().receiver().expect("it is attached").backlog()
}

#[test]
fn an_answer_is_repeated_until_a_poll_acknowledges_it() {
    let (session, outbox) = session(false);
    outbox.push(Message::text("a"));
    assert_eq!(poll(&session, 0), Ok(messages(["a"], 1)));
    outbox.push(Message::text("b"));
    assert_eq!(poll(&session, 0), Ok(messages(["a", "b"], 2)));
    assert_eq!(poll(&session, 1), Ok(messages(["b"], 2)));
    assert_eq!(poll(&session, 2), Ok(Answered::Nothing));
}

#[test]
fn an_older_token_acknowledges_nothing_and_gets_what_is_left() {
    let (session, outbox) = session(false);
    outbox.push(Message::text("a"));
    poll(&session, 0).unwrap();
    poll(&session, 1).unwrap();
    outbox.push(Message::text("b"));
    assert_eq!(poll(&session, 0), Ok(messages(["b"], 2)));
}

#[test]
fn a_cursor_that_was_never_handed_out_is_gone() {
    let (session, outbox) = session(false);
    outbox.push(Message::text("a"));
    assert_eq!(poll(&session, 1), Err(Gone));
    assert_eq!(session.check(1), Err(Gone));
    assert_eq!(poll(&session, 0), Ok(messages(["a"], 1)));
    assert_eq!(session.check(1), Ok(()));
}

#[test]
fn messages_are_released_when_they_are_acknowledged_and_not_before() {
    let (session, outbox) = session(false);
    outbox.push(Message::text("a"));
    poll(&session, 0).unwrap();
    assert_eq!(backlog(&session), Message::text("a").cost().bytes());
    poll(&session, 1).unwrap();
    assert_eq!(backlog(&session), 0);
}

#[test]
fn a_waiting_poll_is_woken_by_a_message() {
    let (session, outbox) = session(false);
    let wakes = Arc::new(Wakes::default());
    let poll = session.begin_poll(0).unwrap();
    wait(&session, poll, &Waker::from(Arc::clone(&wakes)));
    // A POST meanwhile looks into the outbox as well.
    session.check(0).unwrap();
    outbox.push(Message::text("a"));
    assert_eq!(wakes.count(), 1);
    assert_eq!(answer(&session, poll), messages(["a"], 1));
}

#[test]
fn a_newer_poll_ends_an_older_one_and_gets_everything() {
    let (session, outbox) = session(false);
    let wakes = Arc::new(Wakes::default());
    let older = session.begin_poll(0).unwrap();
    wait(&session, older, &Waker::from(Arc::clone(&wakes)));
    let newer = session.begin_poll(0).unwrap();
    assert_eq!(wakes.count(), 1);
    outbox.push(Message::text("a"));
    assert!(is_ready(&session, older));
    assert_eq!(answer(&session, older), Answered::Nothing);
    session.end_poll(older, Instant::now());
    assert!(is_ready(&session, newer));
    assert_eq!(answer(&session, newer), messages(["a"], 1));
}

#[test]
fn a_poll_whose_client_vanished_loses_nothing() {
    let (session, outbox) = session(false);
    let vanished = session.begin_poll(0).unwrap();
    outbox.push(Message::text("a"));
    assert!(is_ready(&session, vanished));
    session.end_poll(vanished, Instant::now());
    assert_eq!(poll(&session, 0), Ok(messages(["a"], 1)));
}

#[test]
fn a_poll_that_has_ended_leaves_no_task_to_wake() {
    let (session, outbox) = session(false);
    let wakes = Arc::new(Wakes::default());
    let poll = session.begin_poll(0).unwrap();
    wait(&session, poll, &Waker::from(Arc::clone(&wakes)));
    session.end_poll(poll, Instant::now());
    assert_eq!(Arc::strong_count(&wakes), 1);
    outbox.push(Message::text("a"));
    assert_eq!(wakes.count(), 0);
}

#[test]
fn a_binary_message_is_skipped_unless_the_client_reads_them() {
    let (session, outbox) = session(false);
    let waiting = session.begin_poll(0).unwrap();
    outbox.push(Message::binary(vec![1]));
    assert!(!is_ready(&session, waiting));
    assert_eq!(backlog(&session), 0);
    outbox.push(Message::text("a"));
    // The skipped message has a position, too.
    assert_eq!(answer(&session, waiting), messages(["a"], 2));
}

#[test]
fn a_client_that_reads_binary_messages_gets_them() {
    let (session, outbox) = session(true);
    let message = Message::binary(vec![1]);
    outbox.push(message.clone());
    assert_eq!(poll(&session, 0), Ok(rendered(&[message], 1)));
}

#[test]
fn a_batch_is_handled() {
    let (session, _) = session(false);
    assert_eq!(session.handle_in(&mut batch("hello")), Ok(Ok(false)));
    assert_eq!(poll(&session, 0), Ok(messages(["hello"], 1)));
}

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
fn an_answer_is_bounded_and_the_rest_follows_with_the_next_poll() {
    let (session, outbox) = with_limit(false, 1 << 20);
    for _ in 0..60 {
        outbox.push(Message::text("x".repeat(15_000)));
    }
    let mut cursors = vec![0];
    while let Some(cursor) = cursor(&poll(&session, cursors[cursors.len() - 1]).unwrap()) {
        cursors.push(cursor);
    }
    assert_eq!(cursors, (0..=60).step_by(6).collect::<Vec<_>>());
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
fn an_older_poll_leaves_the_answer_of_a_newer_one_alone() {
    let (session, outbox) = session(false);
    let session = Arc::new(session);
    let older = session.begin_poll(0).unwrap();
    outbox.push(Message::binary(vec![1]));
    outbox.push(Message::text("a"));
    // The count of the binary message is reported while the older poll is being answered.
    let newer = Arc::new(Mutex::new(None));
    let act = {
        let (session, newer) = (Arc::clone(&session), Arc::clone(&newer));
        move || {
            outbox.push(Message::text("b".repeat(300)));
            let poll = session.begin_poll(0).unwrap();
            let answered = answer(&session, poll);
            *newer.lock() = Some((poll, answered, session.state.lock().answered));
        }
    };
    crate::reentrant::run(act, || assert_eq!(answer(&session, older), Answered::Nothing));
    let (newest, answered, size) = newer.lock().take().expect("the older poll reports");
    assert_eq!(session.state.lock().answered, size);
    let Answered::Messages(body) = answered else { panic!("an answer") };
    let Answered::Messages(again) = answer(&session, newest) else { panic!("an answer") };
    assert_eq!(again.as_ptr(), body.as_ptr());
}

#[test]
fn polls_that_are_answered_alike_share_one_response() {
    let (session, outbox) = session(false);
    outbox.push(Message::text("a"));
    let bodies: Vec<_> = (0..200)
        .map(|_| match poll(&session, 0) {
            Ok(Answered::Messages(body)) => body,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(bodies.iter().all(|body| body.as_ptr() == bodies[0].as_ptr()));
    outbox.push(Message::text("b"));
    assert_eq!(poll(&session, 0), Ok(messages(["a", "b"], 2)));
    assert_eq!(poll(&session, 1), Ok(messages(["b"], 2)));
}

#[test]
fn cursors_that_were_never_handed_out_are_repeats() {
    let (session, _) = session(false);
    assert_eq!((0..100).filter(|cursor| session.admit_repeat(*cursor)).count(), 50);
}

#[test]
fn messages_behind_many_that_are_skipped_are_found() {
    let (session, outbox) = with_limit(false, 1 << 20);
    for _ in 0..9 {
        outbox.push(Message::binary(vec![7; 90_000]));
    }
    outbox.push(Message::text("a"));
    outbox.close(Close::GoingAway);
    assert_eq!(poll(&session, 0), Ok(messages(["a"], 10)));
    assert_eq!(poll(&session, 10), Err(Gone));
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

#[test]
fn a_handler_that_blocks_delays_no_poll() {
    struct Blocking(std::sync::mpsc::Receiver<()>);
    impl Session for Blocking {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            self.0.recv().map_err(|_| Close::Malformed)
        }
    }
    let (unblock, blocked) = std::sync::mpsc::channel();
    let (outbox, receiver) = outbox::channel(1000);
    let connected = Connected::own(Blocking(blocked), receiver);
    let timer = Timer::new(Arc::default(), [b'a'; 22]);
    let session = LongPollSession::new(connected, false, SESSION_TIMEOUT, timer);
    thread::scope(|scope| {
        let handler = scope.spawn(|| session.handle_in(&mut batch("blocks")));
        while session.turn.try_lock().is_some() {
            thread::yield_now();
        }
        let poll = session.begin_poll(0).unwrap();
        outbox.push(Message::text("a"));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(session.poll_answer(poll, &mut cx), Poll::Ready(messages(["a"], 1)));
        session.end_poll(poll, Instant::now());
        assert!(!session.visit(Instant::now()));
        unblock.send(()).unwrap();
        assert_eq!(handler.join().unwrap(), Ok(Ok(false)));
    });
}

#[test]
fn recorders_and_subscribers_may_use_the_session_when_messages_are_skipped() {
    let (session, outbox) = session(false);
    let session = Arc::new(session);
    let act = {
        let (session, outbox) = (Arc::clone(&session), outbox.clone());
        move || {
            outbox.push(Message::text("from the recorder"));
            assert_eq!(session.check(0), Ok(()));
            assert!(!session.is_over());
            assert_eq!(session.handle_in(&mut batch("from the recorder")), Ok(Ok(false)));
        }
    };
    let calls = crate::reentrant::run(act, || {
        outbox.push(Message::binary(vec![1]));
        poll(&session, 0).unwrap();
        outbox.push(Message::binary(vec![1]));
        session.handle_in(&mut batch("hello")).unwrap().unwrap();
        outbox.push(Message::binary(vec![1]));
        assert!(!session.visit(Instant::now()));
    });
    assert!(calls >= 3, "{calls}");
}
