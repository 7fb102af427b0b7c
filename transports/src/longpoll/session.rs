//! One long-poll session as a value: messages with numbers, resumable until a poll acknowledges them.
//!
//! ```text
//! messages   1 2 3 | 4 5 6 | 7 8
//!                  ^       ^    ^ taken from the outbox
//!                  |       sent: the newest cursor that was handed out
//!                  acknowledged: gone, and given back to the outbox's limit
//! ```
//! An answer carries everything above what is acknowledged, however often it is asked for: a
//! browser repeats a GET whose connection died, and an answer may be lost with it.

use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::Messages;
use super::batch::Batch;
use crate::connect_info::Transport;
use crate::frame::{Close, Message};
use crate::outbox::{self, Visit};
use crate::resume::{Attached, Connected};
use crate::session::Session;

/// A session that polls and POSTs share.
///
/// The lock guards the whole session. It is held while a batch is handled, which keeps the order of
/// POSTs, and never across an await.
#[derive(Debug)]
pub(super) struct Shared<S: Session>(Mutex<LongPollSession<S>>);

#[derive(Debug)]
pub(super) struct LongPollSession<S: Session> {
    link: Link<S>,
    /// Whether the session outlives this token.
    resumable: bool,
    closed: bool,
    /// Whether the client can read binary messages.
    binary: bool,
    /// The newest cursor that was handed out.
    sent: u64,
    /// The newest poll; older ones are answered with nothing.
    newest: PollId,
    /// When the last poll ended; `None` while one waits.
    idle_since: Option<Instant>,
}

#[derive(Debug)]
enum Link<S: Session> {
    /// The token was not used yet: clients ask for some that they never use.
    Unused(Connected<S>, Option<u64>),
    Used(Attached<S>, outbox::Receiver),
    /// It is over, and what was not acknowledged can still be asked for.
    Over(Option<outbox::Receiver>),
}

/// Polls are counted, so that an older one sees that it is.
pub(super) type PollId = u64;

/// What a poll is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// All messages that are not acknowledged, and the number of the last.
    Messages(Messages, u64),
    /// None came, or a newer poll gets them.
    Nothing,
    /// None will come: the session is over.
    Over,
}

/// A cursor that was never handed out, or a session that is over: as if there were no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl<S: Session> Shared<S> {
    pub(super) fn new(session: LongPollSession<S>) -> Self {
        Self(Mutex::new(session))
    }

    /// Runs `f` on the session. If that was its end, what the handler made is dropped after the
    /// lock is released: its `Drop` is the application's.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut LongPollSession<S>) -> R) -> R {
        let mut session = self.0.lock().unwrap_or_else(|poisoned| {
            // `handle_in` panicked: that ends the session, as it ends a WebSocket's.
            self.0.clear_poison();
            let mut session = poisoned.into_inner();
            session.close(Close::Malformed);
            session
        });
        let result = f(&mut session);
        let over = if session.closed { session.end() } else { None };
        drop(session);
        drop(over);
        result
    }
}

impl<S: Session> LongPollSession<S> {
    /// A session of the token's own, or one that is resumable and that the token's first use attaches to.
    pub(super) fn new(
        connected: Connected<S>,
        received: Option<u64>,
        binary: bool,
        now: Instant,
    ) -> Self {
        let resumable = matches!(connected, Connected::Resumable(_));
        let link = match connected {
            Connected::Own(session, receiver) => {
                receiver.keep(0);
                Link::Used(Attached::Own(session), receiver)
            }
            resumable => Link::Unused(resumable, received),
        };
        Self { link, resumable, closed: false, binary, sent: 0, newest: 0, idle_since: Some(now) }
    }

    /// Whether the session outlives this token.
    pub(super) fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// A poll arrived: acknowledges what the token's answer carried and ends an older poll.
    pub(super) fn begin_poll(&mut self, cursor: u64) -> Result<PollId, Gone> {
        self.attach();
        let known = cursor <= self.sent;
        let begun = self.visit(|outbox, reader| {
            outbox.unpark();
            let gone = !known || outbox.acknowledge(cursor).is_err() || reader.is_over(outbox);
            if gone { None } else { Some(outbox.take_waiting()) }
        });
        let Some(older) = begun.flatten() else {
            if let Some(receiver) = self.receiver() {
                receiver.report_conflict();
            }
            return Err(Gone);
        };
        self.newest += 1;
        self.idle_since = None;
        if let Some(older) = older {
            older.wake();
        }
        Ok(self.newest)
    }

    /// What a poll is answered, as soon as there is something to say.
    pub(super) fn poll_answer(&mut self, poll: PollId, cx: &mut Context<'_>) -> Poll<Answered> {
        if poll != self.newest {
            return Poll::Ready(Answered::Nothing);
        }
        let answered = self.visit(|outbox, reader| {
            let mut messages = Messages::default();
            reader.unread(outbox).for_each(|message| messages.push(message));
            if !messages.is_empty() {
                Poll::Ready(Answered::Messages(messages, outbox.position()))
            } else if reader.closed {
                Poll::Ready(Answered::Over)
            } else {
                outbox.wait(cx.waker());
                Poll::Pending
            }
        });
        if let Some(Poll::Ready(Answered::Messages(_, position))) = answered {
            self.sent = position;
        }
        answered.unwrap_or(Poll::Ready(Answered::Over))
    }

    /// A poll was answered, or its client went away.
    pub(super) fn end_poll(&mut self, poll: PollId, now: Instant) {
        if poll != self.newest {
            return;
        }
        self.idle_since = Some(now);
        let waiting = self.receiver().map(|receiver| {
            receiver.visit(|outbox| {
                if self.resumable {
                    // Only a poll that waits shows that the client is there.
                    outbox.park();
                }
                outbox.take_waiting()
            })
        });
        drop(waiting);
    }

    /// Whether a token of this session is good. Its use shows that the client is there.
    pub(super) fn check(&mut self, cursor: u64) -> Result<(), Gone> {
        self.attach();
        let is_over = self.visit(|outbox, reader| {
            outbox.unpark();
            reader.is_over(outbox)
        });
        if cursor > self.sent || is_over.unwrap_or(true) { Err(Gone) } else { Ok(()) }
    }

    /// Whether nothing will come of it any more.
    pub(super) fn is_over(&mut self) -> bool {
        self.visit(|outbox, reader| reader.is_over(outbox)).unwrap_or(self.closed)
    }

    /// Handles a batch. A message that is not accepted ends the session.
    pub(super) fn handle_in(&mut self, batch: &Batch) -> Result<Result<(), Close>, Gone> {
        self.visit(|_, _| {});
        let Link::Used(session, _) = &mut self.link else { return Err(Gone) };
        if self.closed {
            return Err(Gone);
        }
        let handled = batch.deliver(|message| session.handle_in(message));
        if let Err(close) = handled {
            self.close(close);
        }
        Ok(handled)
    }

    /// Ends the session if no poll came for as long as `session_timeout`; one that is resumable is parked. Whether
    /// the token is worth nothing any more.
    pub(super) fn expire(&mut self, now: Instant, session_timeout: Duration) -> bool {
        let is_over = self.is_over();
        let idle =
            self.idle_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if idle < session_timeout {
            return !self.resumable && is_over;
        }
        if !self.resumable {
            self.close(Close::Normal);
            return true;
        }
        if let Some(receiver) = self.receiver() {
            receiver.visit(|outbox| outbox.park());
        }
        // Its next use is told that the session is over, not that there never was one.
        let is_over = self.closed || matches!(self.link, Link::Unused(..));
        is_over && idle >= session_timeout + REMEMBERED
    }

    /// The first use of the token.
    fn attach(&mut self) {
        if !matches!(self.link, Link::Unused(..)) {
            return;
        }
        self.link = match std::mem::replace(&mut self.link, Link::Over(None)) {
            Link::Unused(connected, received) => {
                match connected.attach(received, Transport::LongPoll) {
                    Some((session, receiver)) => Link::Used(session, receiver),
                    None => Link::Over(None),
                }
            }
            link => link,
        };
        self.closed |= matches!(self.link, Link::Over(_));
    }

    fn receiver(&self) -> Option<&outbox::Receiver> {
        match &self.link {
            Link::Used(_, receiver) | Link::Over(Some(receiver)) => Some(receiver),
            Link::Unused(..) | Link::Over(None) => None,
        }
    }

    /// Looks into the outbox: takes what waits, sees whether it is closed, and does the work that
    /// needs it, at one time. `None` if there is no outbox.
    fn visit<R>(&mut self, work: impl FnOnce(&mut Visit<'_>, Reader) -> R) -> Option<R> {
        let (Link::Used(_, receiver) | Link::Over(Some(receiver))) = &self.link else {
            return None;
        };
        let mut reader = Reader { binary: self.binary, closed: self.closed };
        let mut skipped = 0;
        let done = receiver.visit(|outbox| {
            if !reader.closed {
                let see = |message: &Message| skipped += u64::from(!reader.can_read(message));
                let open = outbox.collect(see);
                reader.closed = !open;
            }
            if skipped > 0 && reader.unread(outbox).next().is_none() {
                let _ = outbox.acknowledge(outbox.position());
            }
            work(outbox, reader)
        });
        self.closed = reader.closed;
        if skipped > 0 {
            metrics::counter!("tower_channels_longpoll_binary_skipped").increment(skipped);
            tracing::debug!(skipped, "binary messages for a client that cannot read them");
        }
        Some(done)
    }

    fn close(&mut self, close: Close) {
        if let Some(receiver) = self.receiver() {
            let waiting = receiver.visit(|outbox| {
                let _ = outbox.acknowledge(outbox.position());
                outbox.take_waiting()
            });
            receiver.close(close);
            if let Some(poll) = waiting {
                poll.wake();
            }
        }
        self.closed = true;
    }

    /// Takes out what the application made.
    fn end(&mut self) -> Option<Attached<S>> {
        match std::mem::replace(&mut self.link, Link::Over(None)) {
            Link::Used(session, receiver) => {
                self.link = Link::Over(Some(receiver));
                Some(session)
            }
            link => {
                self.link = link;
                None
            }
        }
    }
}

/// What a client can read of its outbox, and whether that is the end of it.
#[derive(Clone, Copy)]
struct Reader {
    /// Whether it can read binary messages.
    binary: bool,
    closed: bool,
}

impl Reader {
    fn can_read(self, message: &Message) -> bool {
        self.binary || !message.is_binary()
    }

    /// What was not acknowledged.
    fn unread<'a>(self, outbox: &'a Visit<'_>) -> impl Iterator<Item = &'a Message> {
        outbox.unacknowledged().filter(move |message| self.can_read(message))
    }

    /// Whether nothing will come any more.
    fn is_over(self, outbox: &Visit<'_>) -> bool {
        self.closed && self.unread(outbox).next().is_none()
    }
}

/// How long the token of a resumable session that is over is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;
    use crate::frame::Inbound;
    use crate::outbox;

    /// Answers every message with itself; `bad` ends it.
    struct Echo(outbox::Sender);

    impl Session for Echo {
        fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
            match message {
                Inbound::Text("bad") => Err(Close::Malformed),
                Inbound::Text("panic") => panic!("as it was asked to"),
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

    fn session(binary: bool) -> (LongPollSession<Echo>, outbox::Sender) {
        let (outbox, receiver) = outbox::channel(1000);
        let echo = Echo(outbox.clone());
        let connected = Connected::Own(echo, receiver);
        (LongPollSession::new(connected, None, binary, Instant::now()), outbox)
    }

    fn batch(text: &str) -> Batch {
        Batch::new(text.to_owned().into(), false, 1000).unwrap()
    }

    fn messages<const N: usize>(texts: [&'static str; N], cursor: u64) -> Answered {
        Answered::Messages(texts.map(Message::text).into_iter().collect(), cursor)
    }

    /// What a poll is answered by now.
    fn answer(session: &mut LongPollSession<Echo>, poll: PollId) -> Answered {
        match session.poll_answer(poll, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answered) => answered,
            Poll::Pending => Answered::Nothing,
        }
    }

    /// Polls once and is answered.
    fn poll(session: &mut LongPollSession<Echo>, cursor: u64) -> Result<Answered, Gone> {
        let poll = session.begin_poll(cursor)?;
        let answered = answer(session, poll);
        session.end_poll(poll, Instant::now());
        Ok(answered)
    }

    fn is_ready(session: &mut LongPollSession<Echo>, poll: PollId) -> bool {
        session.poll_answer(poll, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn an_answer_is_repeated_until_a_poll_acknowledges_it() {
        let (mut session, outbox) = session(false);
        outbox.push(Message::text("a"));
        assert_eq!(poll(&mut session, 0), Ok(messages(["a"], 1)));
        outbox.push(Message::text("b"));
        assert_eq!(poll(&mut session, 0), Ok(messages(["a", "b"], 2)));
        assert_eq!(poll(&mut session, 1), Ok(messages(["b"], 2)));
        assert_eq!(poll(&mut session, 2), Ok(Answered::Nothing));
    }

    #[test]
    fn an_older_token_acknowledges_nothing_and_gets_what_is_left() {
        let (mut session, outbox) = session(false);
        outbox.push(Message::text("a"));
        poll(&mut session, 0).unwrap();
        poll(&mut session, 1).unwrap();
        outbox.push(Message::text("b"));
        assert_eq!(poll(&mut session, 0), Ok(messages(["b"], 2)));
    }

    #[test]
    fn a_cursor_that_was_never_handed_out_is_gone() {
        let (mut session, outbox) = session(false);
        outbox.push(Message::text("a"));
        assert_eq!(poll(&mut session, 1), Err(Gone));
        assert_eq!(session.check(1), Err(Gone));
        assert_eq!(poll(&mut session, 0), Ok(messages(["a"], 1)));
        assert_eq!(session.check(1), Ok(()));
    }

    #[test]
    fn the_outbox_has_room_again_for_what_was_acknowledged_and_not_before() {
        let (mut session, outbox) = session(false);
        outbox.push(Message::text("a"));
        poll(&mut session, 0).unwrap();
        assert_eq!(session.receiver().unwrap().backlog(), Message::text("a").cost());
        poll(&mut session, 1).unwrap();
        assert_eq!(session.receiver().unwrap().backlog(), 0);
    }

    #[test]
    fn a_waiting_poll_is_woken_by_a_message() {
        let (mut session, outbox) = session(false);
        let wakes = Arc::new(Wakes::default());
        let poll = session.begin_poll(0).unwrap();
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(session.poll_answer(poll, &mut Context::from_waker(&waker)).is_pending());
        // A POST meanwhile looks into the outbox as well.
        session.check(0).unwrap();
        outbox.push(Message::text("a"));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(answer(&mut session, poll), messages(["a"], 1));
    }

    #[test]
    fn a_newer_poll_ends_an_older_one_and_gets_everything() {
        let (mut session, outbox) = session(false);
        let wakes = Arc::new(Wakes::default());
        let older = session.begin_poll(0).unwrap();
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(session.poll_answer(older, &mut Context::from_waker(&waker)).is_pending());
        let newer = session.begin_poll(0).unwrap();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        outbox.push(Message::text("a"));
        assert!(is_ready(&mut session, older));
        assert_eq!(answer(&mut session, older), Answered::Nothing);
        session.end_poll(older, Instant::now());
        assert!(is_ready(&mut session, newer));
        assert_eq!(answer(&mut session, newer), messages(["a"], 1));
    }

    #[test]
    fn a_poll_whose_client_vanished_loses_nothing() {
        let (mut session, outbox) = session(false);
        let vanished = session.begin_poll(0).unwrap();
        outbox.push(Message::text("a"));
        assert!(is_ready(&mut session, vanished));
        session.end_poll(vanished, Instant::now());
        assert_eq!(poll(&mut session, 0), Ok(messages(["a"], 1)));
    }

    #[test]
    fn a_poll_that_ended_leaves_no_task_to_wake() {
        let (mut session, outbox) = session(false);
        let wakes = Arc::new(Wakes::default());
        let poll = session.begin_poll(0).unwrap();
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(session.poll_answer(poll, &mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        session.end_poll(poll, Instant::now());
        assert_eq!(Arc::strong_count(&wakes), 1);
        outbox.push(Message::text("a"));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_binary_message_is_skipped_unless_it_was_asked_for() {
        let (mut session, outbox) = session(false);
        let waiting = session.begin_poll(0).unwrap();
        outbox.push(Message::binary(vec![1]));
        assert!(!is_ready(&mut session, waiting));
        assert_eq!(session.receiver().unwrap().backlog(), 0);
        outbox.push(Message::text("a"));
        // What was skipped had a number, too.
        assert_eq!(answer(&mut session, waiting), messages(["a"], 2));
    }

    #[test]
    fn a_client_that_asked_for_binary_messages_gets_them() {
        let (mut session, outbox) = session(true);
        let message = Message::binary(vec![1]);
        outbox.push(message.clone());
        assert_eq!(
            poll(&mut session, 0),
            Ok(Answered::Messages([message].into_iter().collect(), 1))
        );
    }

    #[test]
    fn a_batch_is_handled() {
        let (mut session, _) = session(false);
        assert_eq!(session.handle_in(&batch("hello")), Ok(Ok(())));
        assert_eq!(poll(&mut session, 0), Ok(messages(["hello"], 1)));
    }

    #[test]
    fn a_message_that_is_not_accepted_ends_the_session_and_its_waiting_poll() {
        let (session, outbox) = session(false);
        let shared = Shared::new(session);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let poll = shared.with(|session| session.begin_poll(0)).unwrap();
        shared.with(|session| {
            assert!(session.poll_answer(poll, &mut Context::from_waker(&waker)).is_pending());
        });
        let handled = shared.with(|session| session.handle_in(&batch("bad")));
        assert_eq!(handled, Ok(Err(Close::Malformed)));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(outbox.is_closed());
        assert_eq!(shared.with(|session| answer(session, poll)), Answered::Over);
        assert_eq!(shared.with(|session| session.handle_in(&batch("more"))), Err(Gone));
        assert_eq!(shared.with(|session| session.begin_poll(0)), Err(Gone));
    }

    #[test]
    fn what_was_pushed_before_a_close_is_delivered_and_then_the_session_is_gone() {
        let (mut session, outbox) = session(false);
        outbox.push(Message::text("bye"));
        outbox.close(Close::GoingAway);
        assert_eq!(poll(&mut session, 0), Ok(messages(["bye"], 1)));
        assert_eq!(session.handle_in(&batch("hello")), Err(Gone));
        assert_eq!(poll(&mut session, 0), Ok(messages(["bye"], 1)));
        assert_eq!(poll(&mut session, 1), Err(Gone));
    }

    #[test]
    fn an_overflow_ends_the_session() {
        let (mut session, outbox) = session(false);
        for _ in 0..3 {
            outbox.push(Message::text("x".repeat(2000)));
        }
        assert_eq!(session.begin_poll(0), Err(Gone));
    }

    #[test]
    fn what_the_handler_made_is_dropped_as_soon_as_the_session_is_over() {
        let (session, outbox) = session(false);
        let shared = Shared::new(session);
        outbox.close(Close::GoingAway);
        assert_eq!(shared.with(|session| session.begin_poll(0)), Err(Gone));
        shared.with(|session| assert!(matches!(session.link, Link::Over(_))));
    }

    #[test]
    fn a_panic_ends_the_session() {
        let (session, outbox) = session(false);
        let shared = Shared::new(session);
        let handled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            shared.with(|session| session.handle_in(&batch("panic")))
        }));
        assert!(handled.is_err());
        assert_eq!(shared.with(|session| session.begin_poll(0)), Err(Gone));
        assert!(outbox.is_closed());
    }

    #[test]
    fn a_session_ends_when_no_poll_comes_for_long_enough() {
        let (mut session, _) = session(false);
        let start = session.idle_since.unwrap();
        let session_timeout = Duration::from_secs(15);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!session.expire(after(14), session_timeout));
        let poll = session.begin_poll(0).unwrap();
        assert!(!session.expire(after(1000), session_timeout), "a poll waits");
        session.end_poll(poll, after(1000));
        assert!(!session.expire(after(1014), session_timeout));
        assert!(session.expire(after(1015), session_timeout));
        assert_eq!(session.begin_poll(0), Err(Gone));
    }
}
