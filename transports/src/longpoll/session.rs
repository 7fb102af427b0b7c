//! One long-poll session, which polls and POSTs share.
//!
//! ```text
//! messages   1 2 3 | 4 5 6 | 7 8
//!                  ^       ^    ^ collected from the outbox
//!                  |       sent: the newest cursor that was handed out
//!                  acknowledged: dropped, and released to the outbox's limit
//! ```
//! An answer carries what is not acknowledged, as much of it as fits, however often it is asked for: a
//! browser repeats a GET whose connection was lost, and an answer may be lost with it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::StatusCode;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::answer;
use super::batch::Batch;
pub(super) use super::state::{Answered, Gone, PollId};
use super::state::{AttachState, Closed, State};
use super::token::{Id, Token};
use crate::connect_info::Transport;
use crate::frame::Close;
use crate::memory::Account;
use crate::outbox::{Collected, Receiver};
use crate::panics;
use crate::progress::after;
use crate::rate::{Rate, Throttle};
use crate::resume::expiry::Timer;
use crate::resume::{Attached, Connected};
use crate::session::Session;
use crate::telemetry::Handles;

#[derive(Debug)]
pub(super) struct LongPollSession<S: Session> {
    /// Whether the client can read binary messages.
    reads_binary: bool,
    /// How long the session may be without a poll.
    session_timeout: Duration,
    timer: Arc<Timer<Id>>,
    handles: Arc<Handles>,
    /// Held for a few instructions, and never while application code runs. The locks of the outbox and
    /// of a resumable session's state may be taken under it.
    pub(super) state: Mutex<State<S>>,
    /// The turn: held while the session attaches or handles a slice of a batch.
    pub(super) turn: Mutex<Option<Attached<S>>>,
    /// Held while a batch is handled, which keeps the order of POSTs. It is tokio's mutex, because it is
    /// awaited.
    order: Arc<tokio::sync::Mutex<()>>,
    /// Only if the rate of clients is limited, from the first POST.
    throttle: Mutex<Option<Box<Throttle>>>,
}

impl<S: Session> LongPollSession<S> {
    /// Creates the session of a token. To a resumable session the token attaches with its first use.
    pub(super) fn new(
        connected: Connected<S>,
        reads_binary: bool,
        session_timeout: Duration,
        timer: Timer<Id>,
        handles: Arc<Handles>,
    ) -> Self {
        let (now, timer) = (Instant::now(), Arc::new(timer));
        if let Some(receiver) = connected.receiver() {
            receiver.enable_replay(0);
            receiver.set_idle();
            receiver.on_close(Arc::clone(&timer).into());
        }
        let is_own = connected.is_own();
        let mut state = State::new(AttachState::Unused(connected), now);
        state.schedule(&timer, after(now, session_timeout));
        let session = Self {
            reads_binary,
            session_timeout,
            timer,
            handles,
            state: Mutex::new(state),
            turn: Mutex::default(),
            order: Arc::default(),
            throttle: Mutex::default(),
        };
        if is_own {
            session.attach();
        }
        session
    }

    /// Prepares the removal of a token that was never used. Returns `false` for any other.
    pub(super) fn discard_unused(&self) -> bool {
        let mut state = self.state.lock();
        let is_unused = matches!(state.attach, AttachState::Unused(_));
        if is_unused {
            state.scheduled.cancel(&self.timer);
        }
        is_unused
    }

    /// Whether a newer connection has the session.
    pub(super) fn is_superseded(&self) -> bool {
        self.state.lock().is_superseded()
    }

    /// Counts a poll with a token of this cursor. Returns `false` if it is repeated too often.
    pub(super) fn admit_repeat(&self, cursor: u64) -> bool {
        let mut state = self.state.lock();
        // A cursor that was never handed out acknowledges nothing.
        let cursor = cursor.min(state.sent);
        state.repeats.admit(cursor, Instant::now())
    }

    /// What the session has reserved of the memory of its endpoint.
    pub(super) fn account(&self) -> Option<Arc<Account>> {
        self.state.lock().receiver()?.account().cloned()
    }

    /// Begins a poll: acknowledges what the token's answer carried, and ends an older poll.
    pub(super) fn begin_poll(&self, cursor: u64) -> Result<PollId, Gone> {
        self.attach();
        let mut state = self.state.lock();
        let is_known = state.acknowledge(cursor).is_ok();
        let collected = state.collect(self.reads_binary);
        let begun = if is_known && !collected.is_over() {
            state.newest += 1;
            state.set_active();
            state.answered = 0;
            Ok((state.newest, state.take_waker()))
        } else {
            if let Some(receiver) = state.receiver() {
                receiver.report_conflict();
            }
            Err(Gone)
        };
        self.unlock(state, collected);
        begun.map(|(poll, older)| {
            older.into_iter().for_each(Waker::wake);
            poll
        })
    }

    /// Answers a poll with this token as soon as there is an answer.
    pub(super) fn poll_answer(
        &self,
        poll: PollId,
        token: Token,
        cx: &mut Context<'_>,
    ) -> Poll<Answered> {
        let mut state = self.state.lock();
        if poll != state.newest {
            return Poll::Ready(Answered::Nothing);
        }
        let Some(receiver) = state.receiver() else { return Poll::Ready(Answered::Over) };
        let (polled, collected) = receiver.poll_collect(cx, self.reads_binary);
        let (range, mut rendered, mut unread) = (collected.range(), None, Vec::new());
        if collected.has_unread {
            rendered = state.answer.get(range);
            if rendered.is_none() {
                unread = receiver.unread(self.reads_binary);
            }
            state.sent = collected.position;
            state.answered = rendered.as_ref().map_or(0, |body| body.len());
        }
        state.end_unless(collected.is_open);
        self.unlock(state, collected);
        polled.map(|()| {
            if rendered.is_none() && !unread.is_empty() {
                let token = Token { cursor: collected.position, ..token };
                let body = answer::render(StatusCode::OK, &unread, token);
                self.handles.longpoll.sent.increment(unread.len() as u64);
                let mut state = self.state.lock();
                if poll != state.newest {
                    return Answered::Nothing;
                }
                state.answered = body.len();
                let account = state.receiver().and_then(|receiver| receiver.account().cloned());
                rendered = Some(state.answer.insert(range, body, account));
            }
            rendered.map_or(Answered::Over, Answered::Messages)
        })
    }

    /// Ends a poll, which was answered or whose client went away.
    ///
    /// The session timeout starts when even a [slow](State::read_by) client has read the answer.
    pub(super) fn end_poll(&self, poll: PollId, now: Instant) {
        let mut state = self.state.lock();
        if poll != state.newest {
            return;
        }
        state.ended_at = now;
        let read_by = state.read_by(now);
        self.set_idle(&mut state, read_by);
        let waker = state.take_waker();
        drop(state);
        drop(waker);
    }

    /// Checks the token of a POST, which shows that the client is there.
    pub(super) fn check(&self, cursor: u64) -> Result<(), Gone> {
        self.attach();
        let mut state = self.state.lock();
        let collected = state.collect(self.reads_binary);
        let is_good = cursor <= state.sent && !collected.is_over();
        if is_good
            && state.epoch().is_some()
            && let Some(since) = state.idle_since
        {
            self.set_idle(&mut state, since.max(Instant::now()));
        }
        self.unlock(state, collected);
        if is_good { Ok(()) } else { Err(Gone) }
    }

    /// Whether the session is over and everything is acknowledged.
    pub(super) fn is_over(&self) -> bool {
        let mut state = self.state.lock();
        let collected = state.collect(self.reads_binary);
        self.unlock(state, collected);
        collected.is_over()
    }

    /// Handles a batch behind those that came before. Other tasks run between the slices of a long one.
    ///
    /// Cancel safety: all messages of the batch are handled, or none.
    pub(super) async fn handle_batch(
        self: Arc<Self>,
        mut batch: Batch,
    ) -> Result<Result<(), Close>, Gone> {
        let order = Arc::clone(&self.order).lock_owned().await;
        let handled = self.handle_in(&mut batch);
        if handled != Ok(Ok(true)) {
            return handled.map(|handled| handled.map(drop));
        }
        let rest = tokio::spawn(async move {
            let _order = order;
            loop {
                tokio::task::yield_now().await;
                let handled = self.handle_in(&mut batch);
                if handled != Ok(Ok(true)) {
                    return handled.map(|handled| handled.map(drop));
                }
            }
        });
        // A panic has ended the session.
        rest.await.unwrap_or(Ok(Err(Close::Malformed)))
    }

    /// Counts a batch against the rate of the client. Returns until when its answer waits. Ends a session
    /// that has sent far too much.
    pub(super) fn throttle(
        &self,
        rate: Option<Rate>,
        batch: &Batch,
    ) -> Result<Option<Instant>, Gone> {
        let Some(rate) = rate else { return Ok(None) };
        let (now, (messages, bytes)) = (Instant::now(), batch.size());
        let mut throttle = self.throttle.lock();
        let received = throttle
            .get_or_insert_with(|| Box::new(Throttle::new(rate, now)))
            .receive(messages, bytes, now);
        drop(throttle);
        received.report().map_err(|_| {
            let closed = self.state.lock().close(Close::Policy);
            closed.finish();
            self.release();
            Gone
        })
    }

    /// Handles a slice of a batch, and returns whether there is more. An error or a panic
    /// of the session ends it.
    pub(super) fn handle_in(&self, batch: &mut Batch) -> Result<Result<bool, Close>, Gone> {
        let (mut turn, mut received) = (self.turn.lock(), 0);
        let collected = self.state.lock().collect(self.reads_binary);
        let handled = match turn.as_mut().filter(|_| collected.is_open) {
            Some(session) => {
                let deliver = || {
                    batch.deliver(SLICE, |message| {
                        received += 1;
                        session.handle_in(message)
                    })
                };
                Ok(panics::catch("session", deliver).unwrap_or(Err(Close::Malformed)))
            }
            None => Err(Gone),
        };
        let closed = match handled {
            // Within the turn: nothing is handled after this.
            Ok(Err(close)) => Some(self.state.lock().close(close)),
            _ => None,
        };
        drop(turn);
        self.handles.longpoll.received.increment(received);
        collected.report_skipped();
        if let Some(closed) = closed {
            closed.finish();
        }
        self.release();
        handled
    }

    /// Ends a session that has had no poll for the session timeout, or detaches it if it is resumable.
    /// Returns whether the token is of no more use.
    pub(super) fn visit(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.scheduled.fired(now);
        let collected = state.collect(self.reads_binary);
        let read_by = state.read_by(now);
        if state.idle_since.is_some_and(|since| since < read_by) {
            // A large answer was still being written.
            self.set_idle(&mut state, read_by);
        }
        let timeout = after(state.idle_since.unwrap_or(now), self.session_timeout);
        let (mut closed, mut detached) = (None, None);
        let (is_useless, next) = if self.ends_with_server(&state) {
            closed = Some(state.close(Close::Restart));
            (true, timeout)
        } else if now < timeout {
            (collected.is_over() && !state.is_superseded(), timeout)
        } else {
            // A resumable session may still be polled again with this token.
            let is_attaching = state.is_attaching() && self.turn.is_locked();
            let is_kept = state.epoch().is_some() || is_attaching;
            detached = state.epoch().filter(|epoch| epoch.detach_idle()).cloned();
            closed = (!is_kept).then(|| state.close(Close::Normal));
            (!is_kept, after(now, self.session_timeout))
        };
        if !is_useless {
            state.schedule(&self.timer, next);
        }
        self.unlock(state, collected);
        closed.into_iter().for_each(Closed::finish);
        if let Some(epoch) = detached {
            epoch.report_detached();
        }
        is_useless
    }

    /// Attaches to the session, if this is the first use of the token.
    fn attach(&self) {
        if self.state.lock().is_attached() {
            return;
        }
        let mut turn = self.turn.lock();
        let Some(connected) = self.state.lock().attach.begin() else { return };
        let attached = connected.attach(Transport::LongPoll);
        self.state.lock().attach = match attached {
            Some((session, receiver)) => {
                let epoch = session.epoch();
                *turn = Some(session);
                AttachState::Attached { receiver, epoch }
            }
            None => AttachState::Ended(None),
        };
    }

    pub(super) fn set_idle(&self, state: &mut State<S>, now: Instant) {
        state.set_idle(now);
        let timeout = after(now, self.session_timeout);
        state.schedule(&self.timer, if self.ends_with_server(state) { now } else { timeout });
    }

    /// Returns whether the server shuts down and no poll waits: then the client connects elsewhere,
    /// and needs nothing more of a session that cannot be resumed.
    fn ends_with_server(&self, state: &State<S>) -> bool {
        let is_restarting = || state.outbox().is_some_and(Receiver::is_restarting);
        state.epoch().is_none() && state.idle_since.is_some() && is_restarting()
    }

    /// Releases the lock and does what must be done without it.
    fn unlock(&self, state: MutexGuard<'_, State<S>>, collected: Collected) {
        let epoch = state.epoch().cloned();
        drop(state);
        collected.report_skipped();
        if let Some(epoch) = epoch {
            epoch.run_pending();
        }
        if !collected.is_open {
            self.release();
        }
    }

    /// Drops what the application made, if the session is over. If another thread has the turn, that
    /// one does it then.
    fn release(&self) {
        if !matches!(self.state.lock().attach, AttachState::Ended(_)) {
            return;
        }
        let gone = self.turn.try_lock().and_then(|mut turn| turn.take());
        drop(gone);
    }
}

/// How many messages of a batch are handled before other tasks get their turn.
const SLICE: usize = 32;

#[cfg(test)]
mod tests;
