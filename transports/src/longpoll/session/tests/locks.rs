//! What may happen while a poll is answered or a message is handled.

use std::thread;

use super::*;

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
    let session =
        LongPollSession::new(connected, false, SESSION_TIMEOUT, timer, Arc::new(Handles::new()));
    thread::scope(|scope| {
        let handler = scope.spawn(|| session.handle_in(&mut batch("blocks")));
        while session.turn.try_lock().is_some() {
            thread::yield_now();
        }
        let poll = session.begin_poll(0).unwrap();
        outbox.push(Message::text("a"));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(session.poll_answer(poll, TOKEN, &mut cx), Poll::Ready(messages(["a"], 1)));
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
