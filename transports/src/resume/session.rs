//! One resumable session.
//!
//! Its callbacks run one after the other, in the *turn*. What happens to its connections does not wait
//! for a callback that takes its time: it is queued as an event, and applied at once if the turn is
//! free, or else by the thread that holds the turn.

use std::fmt;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::expiry::Timer;
use super::moved::MovedSession;
use super::state::{SessionEvent, SessionId, Shared, State};
use crate::connect_info::Transport;
use crate::frame::{Close, Inbound};
use crate::limited;
use crate::memory::Memory;
use crate::outbox::{self, Loss};
use crate::session::{DetachReason, Session};
use crate::telemetry::{SESSIONS_ATTACHED, SESSIONS_DETACHED};

/// A session that outlives its connections.
pub(crate) struct ResumableSession<S> {
    socket_id: Option<Box<str>>,
    pub(super) outbox: outbox::Sender,
    /// Held for a few instructions, and never while application code runs. The lock of the outbox may
    /// be taken under it.
    pub(super) state: Mutex<State>,
    /// The turn: held while a callback of the session runs. `None` once the session has ended.
    pub(super) turn: Mutex<Option<S>>,
    /// What the newest connect would have been without this session, until the session has seen it. Set
    /// under the lock of the state.
    newer: Mutex<Option<Box<S>>>,
    /// The token of the last long-poll connect, which may not have been used yet.
    newest_token: Mutex<Option<TokenId>>,
}

/// What identifies the token of a long-poll connect.
pub(crate) type TokenId = [u8; 22];

/// The result of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visited {
    Alive,
    /// The session has ended, perhaps because nobody resumed it in time.
    Ended {
        expired: bool,
    },
}

impl<S: Session> ResumableSession<S> {
    /// Creates a session that no connection has used yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        timer: Timer<SessionId>,
        socket_id: Option<Box<str>>,
        session: S,
        outbox: outbox::Sender,
    ) -> Self {
        let timer = Arc::new(timer);
        outbox.on_close(Arc::clone(&timer).into());
        let now = Instant::now();
        let mut state = State::new(shared, timer, now);
        state.schedule(now);
        let (state, turn) = (Mutex::new(state), Mutex::new(Some(session)));
        let (newer, newest_token) = (Mutex::new(None), Mutex::default());
        Self { socket_id, outbox, state, turn, newer, newest_token }
    }

    /// Continues a session of another node, before the first connection uses it. Returns the memory of the endpoint if
    /// that is exceeded now.
    #[must_use]
    pub(super) fn import(&self, moved: MovedSession) -> Option<Memory> {
        self.state.lock().set_conduct(&moved.conduct, Instant::now());
        self.outbox.import(moved.outbox)
    }

    /// Returns whether another node has the session, or is about to.
    pub(super) fn is_given(&self) -> bool {
        self.state.lock().is_given()
    }

    /// Remembers the token of a long-poll connect, and returns the one before.
    pub(super) fn replace_token(&self, id: TokenId) -> Option<TokenId> {
        self.newest_token.lock().replace(id)
    }

    pub(super) fn socket_id(&self) -> Option<&str> {
        self.socket_id.as_deref()
    }

    /// Returns whether the session is there and can be used.
    pub(super) fn is_alive(&self) -> bool {
        !self.state.lock().has_ended() && !self.outbox.is_closed()
    }

    /// Returns whether a client that has seen `received` can resume the session without a gap.
    pub(super) fn can_resume(&self, received: Option<u64>) -> bool {
        self.is_alive() && self.outbox.has_all_after(received) && !self.is_stuck()
    }

    /// Returns whether one message keeps the session from going on: each connection is lost over it.
    /// A connection in use counts, because its client is about to replace it.
    pub(super) fn is_stuck(&self) -> bool {
        self.count_try(&self.state.lock(), Instant::now());
        self.outbox.is_stuck()
    }

    fn count_try(&self, state: &State, now: Instant) {
        if state.has_lasted(now) {
            self.outbox.count_try(state.epoch());
        }
    }

    /// See [`State::eviction_order`].
    pub(super) fn eviction_order(&self) -> Option<Option<Instant>> {
        self.state.lock().eviction_order()
    }

    /// Returns whether two clients keep taking the session from each other.
    pub(super) fn is_in_conflict(&self) -> bool {
        self.state.lock().is_in_conflict(Instant::now())
    }

    /// See [`State::take_refusal`].
    pub(super) fn take_refusal(&self) -> Option<Instant> {
        self.state.lock().take_refusal()
    }

    /// Begins an epoch for a connect that has resumed the session, unless `newer` is `None`. Returns
    /// `None` if the session has ended, or ends now because the client would miss messages.
    pub(super) fn attach(
        &self,
        received: Option<u64>,
        transport: Transport,
        newer: Option<S>,
    ) -> Option<outbox::Receiver> {
        if self.state.lock().has_ended() {
            return None;
        }
        let has_conflict = self.outbox.take_conflict();
        let Some(receiver) = self.outbox.attach(received) else {
            self.end(Close::Restart);
            return None;
        };
        let (now, newer) = (Instant::now(), newer.map(Box::new));
        let mut state = self.state.lock();
        if has_conflict {
            state.add_conflict(now);
        }
        let is_newest = state.attach(receiver.epoch(), transport, now);
        // Not needed any more: of this connect, or of one before.
        let unseen = if is_newest { mem::replace(&mut *self.newer.lock(), newer) } else { newer };
        drop(state);
        drop(unseen);
        SESSIONS_ATTACHED.increment([transport.name()], 1);
        self.run_pending();
        Some(receiver)
    }

    /// Handles a message of the connection `epoch`. An error of the session ends it.
    pub(super) fn handle_in(&self, epoch: u64, message: Inbound<'_>) -> Result<(), Close> {
        let mut turn = self.turn.lock();
        let (current, gone) = self.apply_pending(&mut turn);
        let handled = match &mut *turn {
            _ if current != epoch => Err(Close::Restart),
            None => Err(Close::GoingAway),
            Some(session) => session.handle_in(message).inspect_err(|_| {
                // Within the turn: nothing is handled after this.
                self.end_now();
            }),
        };
        let has_failed = turn.is_some() && current == epoch;
        drop(turn);
        drop(gone);
        if let (true, Err(close)) = (has_failed, handled) {
            self.outbox.close_quietly(close);
        }
        self.run_pending();
        handled
    }

    /// The connection `epoch` is lost. The session ends if its outbox is closed.
    pub(super) fn detach(&self, epoch: u64) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if epoch != state.epoch() {
            return;
        }
        self.count_try(&state, now);
        let is_detached = if self.outbox.is_closed() {
            state.end();
            state.schedule(now);
            false
        } else {
            let is_closed = self.outbox.loss() == Some(Loss::Closed);
            let reason = if is_closed { DetachReason::ClientClosed } else { DetachReason::Lost };
            // A newer epoch of the outbox alone means that this node has ended the connection.
            let was_cut = !is_closed && self.outbox.epoch() == epoch;
            state.lose_connection(reason, was_cut, now)
        };
        drop(state);
        if is_detached {
            self.report_detached(epoch);
        }
        self.run_pending();
    }

    /// The client of the connection `epoch` waits for messages.
    pub(super) fn set_active(&self, epoch: u64) {
        let mut state = self.state.lock();
        if epoch == state.epoch() {
            state.set_active();
            self.outbox.set_active(epoch);
        }
    }

    /// The client of the connection `epoch` was there, and does not wait for messages.
    pub(super) fn set_idle(&self, epoch: u64, now: Instant) {
        let mut state = self.state.lock();
        if epoch == state.epoch() {
            state.set_idle(now);
            self.outbox.set_idle(epoch);
        }
    }

    /// The client of the connection `epoch` has been idle for too long. Returns whether this detached
    /// the session.
    pub(super) fn detach_idle(&self, epoch: u64) -> bool {
        let mut state = self.state.lock();
        if epoch != state.epoch() {
            return false;
        }
        self.count_try(&state, Instant::now());
        state.detach_idle()
    }

    pub(super) fn report_detached(&self, epoch: u64) {
        SESSIONS_DETACHED.add(1);
        limited!(DEBUG, epoch, "session detached");
    }

    /// Ends the session and its connection. Returns whether it was there.
    pub(super) fn end(&self, close: Close) -> bool {
        let was_there = self.end_now();
        self.outbox.close_quietly(close);
        self.run_pending();
        was_there
    }

    /// Ends the session, and has the next visit remove it from the registry. Returns whether it was
    /// there.
    fn end_now(&self) -> bool {
        let mut state = self.state.lock();
        let was_there = state.end();
        state.schedule(Instant::now());
        was_there
    }

    /// Does what is due by `now`, and schedules the next visit. Events are left to
    /// [`run_pending`](Self::run_pending).
    pub(super) fn visit(&self, now: Instant) -> Visited {
        let mut state = self.state.lock();
        state.fired(now);
        if state.has_ended() {
            return Visited::Ended { expired: false };
        }
        let is_closed = state.unused_since().is_some() && self.outbox.is_closed();
        if is_closed || state.is_expired(now) {
            state.end();
            drop(state);
            if is_closed {
                self.outbox.close_quietly(Close::GoingAway);
            } else {
                self.outbox.expire();
            }
            return Visited::Ended { expired: !is_closed };
        }
        if let Some(ttl) = state.acknowledged_ttl() {
            self.outbox.age(now, ttl);
        }
        state.check_rejoin(now);
        state.schedule(now);
        Visited::Alive
    }

    /// Applies the queued events, unless another thread has the turn: that one applies them then.
    pub(super) fn run_pending(&self) {
        while self.state.lock().has_pending() {
            let Some(mut turn) = self.turn.try_lock() else { return };
            let (_, gone) = self.apply_pending(&mut turn);
            drop(turn);
            drop(gone);
        }
    }

    /// Applies the queued events. Returns the epoch that they lead to, and the session if it has
    /// ended: it is dropped once the turn is over.
    pub(super) fn apply_pending(&self, turn: &mut Option<S>) -> (u64, Option<S>) {
        let mut gone = None;
        loop {
            let mut state = self.state.lock();
            let Some(event) = state.next_event() else { return (state.epoch(), gone) };
            drop(state);
            let Some(session) = turn else { continue };
            match event {
                SessionEvent::Attached(epoch, transport) => {
                    let newer = self.newer.lock().take();
                    if let Some(newer) = newer {
                        session.resumed(*newer);
                    }
                    session.attached(epoch, transport);
                }
                SessionEvent::Reattached => session.reattached(),
                SessionEvent::Detached(reason) => session.detached(reason),
                SessionEvent::RejoinDeadline => session.rejoin_deadline(),
                SessionEvent::Ended => gone = turn.take(),
            }
        }
    }
}

impl<S> fmt::Debug for ResumableSession<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumableSession").finish_non_exhaustive()
    }
}
