use super::*;
use crate::frame::{Inbound, Message};
use crate::outbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

mod lifetime;
mod locks;

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

const TOKEN: Token = Token { id: [b'a'; 22], node: None, cursor: 0 };

fn session(reads_binary: bool) -> (LongPollSession<Echo>, outbox::Sender) {
    with_limit(reads_binary, 1000)
}

fn with_limit(reads_binary: bool, limit: usize) -> (LongPollSession<Echo>, outbox::Sender) {
    let (outbox, receiver) = outbox::channel(limit);
    let connected = Connected::own(Echo(outbox.clone()), receiver);
    let timer = Timer::new(Arc::default(), TOKEN.id);
    let handles = Arc::new(Handles::new());
    (LongPollSession::new(connected, reads_binary, SESSION_TIMEOUT, timer, handles), outbox)
}

fn batch(text: &str) -> Batch {
    Batch::new(text.to_owned().into(), false, 1000).unwrap()
}

fn messages<const N: usize>(texts: [&'static str; N], cursor: u64) -> Answered {
    rendered(&texts.map(Message::text), cursor)
}

fn rendered(messages: &[Message], cursor: u64) -> Answered {
    let token = Token { cursor, ..TOKEN };
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
    match session.poll_answer(poll, TOKEN, &mut Context::from_waker(Waker::noop())) {
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
    session.poll_answer(poll, TOKEN, &mut Context::from_waker(Waker::noop())).is_ready()
}

fn wait(session: &LongPollSession<Echo>, poll: PollId, waker: &Waker) {
    assert!(session.poll_answer(poll, TOKEN, &mut Context::from_waker(waker)).is_pending());
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
