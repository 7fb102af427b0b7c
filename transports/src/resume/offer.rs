//! The node that gives a session away.
//!
//! A session that is *offered* is left without a connection: it is *fenced* by an epoch of its own. Until it is given
//! away it may be resumed here, which withdraws the offer.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::moved::MovedSession;
use super::registry::ResumeRegistry;
use super::session::ResumableSession;
use super::state::{Conduct, SessionId};
use crate::frame::Close;
use crate::limited;
use crate::panics;
use crate::peers::{BoxFuture, Handover, Offering, Wanted};
use crate::session::Session;
use crate::telemetry::{SESSIONS_MOVED, SESSIONS_STUCK};

/// A session that is offered to another node.
struct Offered<S: Session> {
    registry: Arc<ResumeRegistry<S>>,
    id: SessionId,
    session: Arc<ResumableSession<S>>,
    /// The epoch that fences it.
    epoch: u64,
    outline: Bytes,
}

impl<S: Session> ResumeRegistry<S> {
    /// Decides as a connect on this node would, and fences the session if it is offered.
    pub(crate) fn offer(self: &Arc<Self>, wanted: &Wanted) -> Offering {
        let known = self.find(&wanted.id).filter(|session| session.is_alive());
        let Some(session) = known else {
            let is_claimed = self.elsewhere().is_some_and(|it| it.is_claimed(&wanted.id));
            return if is_claimed { Offering::Busy } else { Offering::None };
        };
        if session.socket_id() != wanted.socket_id.as_deref() || session.is_in_conflict() {
            limited!(INFO, "session id in use by another client, on another node");
            return Offering::Taken;
        }
        if !session.can_resume(wanted.received) {
            self.end_unresumable(&session);
            return Offering::None;
        }
        let Some(fenced) = session.fence(wanted.received) else { return Offering::Busy };
        let Some((epoch, outline)) = fenced else {
            self.end_unresumable(&session);
            return Offering::None;
        };
        let (registry, id) = (Arc::clone(self), Arc::clone(&wanted.id));
        Offering::Offered(Box::new(Offered { registry, id, session, epoch, outline }))
    }

    /// Reports that a session was ended because its client cannot resume it.
    pub(super) fn report_restart(is_stuck: bool) {
        if is_stuck {
            SESSIONS_STUCK.add(1);
            limited!(WARN, "session restarted: three connections were lost over one message");
        } else {
            limited!(INFO, "session restarted: its client has missed too much");
        }
    }

    fn end_unresumable(&self, session: &ResumableSession<S>) {
        let is_stuck = session.is_stuck();
        if session.end(Close::Restart) {
            Self::report_restart(is_stuck);
        }
    }

    /// Ends the session of this id, which another node has by now.
    pub(crate) fn end_moved(&self, id: &str) {
        let Some(session) = self.find(id) else { return };
        self.remove(id, &session);
        if session.end(Close::Restart) {
            limited!(INFO, "session ended: another node has it");
        }
    }

    /// The sessions that have no connection and are not offered right now, by their ids and socket ids.
    pub(crate) fn detached_ids(&self) -> Vec<(SessionId, Option<Box<str>>)> {
        let (mut sessions, now) = (self.all(), Instant::now());
        sessions.retain(|(_, session)| session.state.lock().is_left(now));
        sessions.into_iter().map(|(id, it)| (id, it.socket_id().map(Into::into))).collect()
    }
}

impl<S: Session> ResumableSession<S> {
    /// Ends the connection, if there is one. Returns the epoch that begins without one, and the outline of the
    /// session, if that is there. `None` if a callback has the turn for too long.
    fn fence(&self, received: Option<u64>) -> Option<Option<(u64, Bytes)>> {
        let mut turn = self.turn.try_lock_for(TURN_TIMEOUT)?;
        let has_conflict = self.outbox.take_conflict();
        let Some((epoch, superseded)) = self.outbox.fence(received) else { return Some(None) };
        let now = Instant::now();
        let mut state = self.state.lock();
        if has_conflict {
            state.add_conflict(now);
        }
        let was_attached = state.fence(epoch, now);
        drop(state);
        let (_, gone) = self.apply_pending(&mut turn);
        let outline = turn.as_ref().map(|it| panics::catch("session", || it.outline()));
        drop(turn);
        drop(gone);
        superseded.wake();
        if was_attached {
            self.report_detached(epoch);
        }
        self.run_pending();
        Some(outline.and_then(Result::ok).map(|outline| (epoch, outline)))
    }

    /// Returns how the clients have behaved until now.
    fn conduct(&self, now: Instant) -> Conduct {
        let mut state = self.state.lock();
        if self.outbox.take_conflict() {
            state.add_conflict(now);
        }
        state.conduct(now)
    }

    /// Takes the value out, unless the epoch is over or the session has ended: from then on nobody uses the session.
    /// `None` if a callback has the turn.
    fn give_away(&self, epoch: u64) -> Option<Option<S>> {
        let mut turn = self.turn.try_lock()?;
        let (current, gone) = self.apply_pending(&mut turn);
        let mut state = self.state.lock();
        let is_current = epoch == current
            && epoch == state.epoch()
            && epoch == self.outbox.epoch()
            && !state.has_ended()
            && !self.outbox.is_closed();
        let session = if is_current { turn.take() } else { None };
        if session.is_some() {
            state.give_away();
        }
        drop(state);
        drop(turn);
        drop(gone);
        Some(session)
    }
}

impl<S: Session> Offered<S> {
    async fn give(self, prepared: Option<Bytes>) -> Option<Bytes> {
        let Self { registry, id, session, epoch, .. } = self;
        let take = async {
            // Whoever comes back to this node for it waits, and looks for it on the other.
            let claim = registry.claim(&id).await;
            loop {
                if let Some(taken) = session.give_away(epoch) {
                    break (claim, taken);
                }
                tokio::time::sleep(TURN_TIMEOUT).await;
            }
        };
        // After that, who has asked would have no time left to see it packed.
        let Ok((_claim, taken)) = timeout(GIVE_TIMEOUT, take).await else {
            // It may have died meanwhile.
            registry.release_unclaimed(&id);
            return None;
        };
        let Some(mut value) = taken else {
            registry.release(&id);
            return None;
        };
        registry.remove(&id, &session);
        let mut giving =
            Giving { registry: &registry, id: &id, session: &session, is_given: false };
        let pack = async move { (value.pack(prepared).await, value) };
        let packed = timeout(PACK_TIMEOUT, panics::catch_async("session", pack)).await;
        let Ok(Ok((packed, value))) = packed else {
            limited!(WARN, "session ended: it could not be packed for another node");
            return None;
        };
        let outbox = session.outbox.export();
        let _ = panics::catch("drop", || drop(value));
        let outbox = outbox?;
        let now = Instant::now();
        let conduct = session.conduct(now);
        if let Some(elsewhere) = registry.elsewhere() {
            elsewhere.remember(&id, &session, now);
        }
        giving.is_given = true;
        SESSIONS_MOVED.increment(["out"], 1);
        limited!(DEBUG, epoch, "session given to another node");
        Some(MovedSession { conduct, packed, outbox }.encode())
    }
}

/// A session that is being packed. It ends if that comes to nothing.
struct Giving<'a, S: Session> {
    registry: &'a ResumeRegistry<S>,
    id: &'a SessionId,
    session: &'a ResumableSession<S>,
    is_given: bool,
}

impl<S: Session> Drop for Giving<'_, S> {
    fn drop(&mut self) {
        if !mem::replace(&mut self.is_given, true) {
            self.session.outbox.close_quietly(Close::Restart);
            self.registry.release(self.id);
        }
    }
}

impl<S: Session> Handover for Offered<S> {
    fn outline(&self) -> Bytes {
        self.outline.clone()
    }

    fn give(self: Box<Self>, prepared: Option<Bytes>) -> BoxFuture<Option<Bytes>> {
        Box::pin((*self).give(prepared))
    }
}

impl<S: Session> fmt::Debug for Offered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// How long a callback of a session may take before others go on without it.
const TURN_TIMEOUT: Duration = Duration::from_millis(10);

/// How long the session may be in use otherwise when it is given away.
const GIVE_TIMEOUT: Duration = Duration::from_millis(300);

/// How long a session may take to be packed, at most: it is meant to take a second. Who has asked waits for two.
const PACK_TIMEOUT: Duration = Duration::from_millis(1500);
