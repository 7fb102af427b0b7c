//! All resumable sessions of an endpoint, by the id that the client chose.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::census::Census;
use super::claim::{self, Claim, Elsewhere};
use super::config::ResumeConfig;
use super::expiry::{Deadlines, Timer};
use super::moved::MovedSession;
use super::session::{ResumableSession, Visited};
use super::state::{SessionId, Shared};
use super::sweeper::{self, Sweep};
use crate::connect_info::Transport;
use crate::frame::Close;
use crate::limited;
use crate::outbox;
use crate::peers::Peers;
use crate::session::Session;
use crate::telemetry::SESSIONS_EXPIRED;

/// The result of [`ResumeRegistry::open`].
pub(super) enum Opened<S> {
    /// The session cannot be resumable: its id is in use by another client, or there are too many.
    Own(S, outbox::Receiver),
    /// The new one.
    Resumable(Arc<ResumableSession<S>>),
    /// One that is there already, which the new one resumes.
    Resumed(Arc<ResumableSession<S>>, S),
}

/// All resumable sessions of an endpoint.
pub(crate) struct ResumeRegistry<S> {
    shared: Arc<Shared>,
    /// Held for a look-up or a change. The state of a session may be looked at under it, never its
    /// turn.
    sessions: Mutex<Sessions<S>>,
    deadlines: Arc<Mutex<Deadlines<SessionId>>>,
    elsewhere: Option<Elsewhere>,
}

struct Sessions<S> {
    by_id: HashMap<SessionId, Arc<ResumableSession<S>>>,
    /// The sessions of each socket id.
    by_socket_id: HashMap<Box<str>, Vec<SessionId>>,
    /// The task that ends sessions, which runs while there are any. It may have stopped early, with
    /// its runtime or because a session's `Drop` panicked: then the next session starts it again.
    sweeper: Option<JoinHandle<()>>,
}

impl<S: Session> ResumeRegistry<S> {
    #[cfg(test)]
    pub(crate) fn new(config: ResumeConfig) -> Arc<Self> {
        Self::with_peers(config, None)
    }

    pub(crate) fn with_peers(config: ResumeConfig, peers: Option<Arc<dyn Peers>>) -> Arc<Self> {
        Arc::new(Self {
            elsewhere: peers.map(Elsewhere::new),
            shared: Arc::new(Shared { config, census: Arc::default() }),
            sessions: Mutex::new(Sessions::new()),
            deadlines: Arc::default(),
        })
    }

    pub(crate) fn session_ttl(&self) -> Duration {
        self.shared.config.session_ttl
    }

    /// How many sessions have no connection.
    pub(crate) fn detached(&self) -> usize {
        self.shared.census.detached()
    }

    /// How many sessions there are, those included that are not resumable.
    pub(crate) fn census(&self) -> &Arc<Census> {
        &self.shared.census
    }

    /// Returns whether a connect over this transport is refused because the session's WebSockets keep dying: once for each
    /// that was cut, also on a node that has given the session away since.
    pub(crate) fn refuses(&self, id: &str, transport: Transport) -> bool {
        if transport != Transport::WebSocket {
            return false;
        }
        let here = self.find(id).and_then(|session| session.take_refusal());
        let given = || self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.take_refusal(id));
        here.or_else(given).is_some_and(|until| Instant::now() < until)
    }

    /// Returns whether the sessions of this socket id may be resumable.
    pub(super) fn is_eligible(&self, socket_id: Option<&str>) -> bool {
        let config = &self.shared.config;
        !config.session_ttl.is_zero() && (socket_id.is_some() || config.anonymous)
    }

    /// Finds the session that a client of this socket id can resume.
    pub(super) fn find_own(
        &self,
        id: &str,
        socket_id: Option<&str>,
        received: Option<u64>,
    ) -> Option<Arc<ResumableSession<S>>> {
        self.find(id).filter(|known| {
            known.socket_id() == socket_id && !known.is_in_conflict() && known.can_resume(received)
        })
    }

    /// Returns whether a client of another socket id has a session of this id.
    pub(super) fn is_foreign(&self, id: &str, socket_id: Option<&str>) -> bool {
        self.find(id).is_some_and(|known| known.is_alive() && known.socket_id() != socket_id)
    }

    /// Whether the session has no connection, and is not offered right now.
    pub(crate) fn is_left(&self, id: &str) -> bool {
        self.find(id).is_some_and(|known| known.state.lock().is_left(Instant::now()))
    }

    /// The other nodes, if there may be any.
    pub(crate) fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.elsewhere.as_ref().map(|elsewhere| &elsewhere.peers)
    }

    /// The other nodes and the claims of this one.
    pub(super) fn elsewhere(&self) -> Option<&Elsewhere> {
        self.elsewhere.as_ref()
    }

    /// Waits until no other task looks for the session elsewhere, or gives it away.
    pub(super) async fn claim(&self, id: &SessionId) -> Option<Claim> {
        match &self.elsewhere {
            Some(elsewhere) => Some(elsewhere.claim(id).await),
            None => None,
        }
    }

    /// Tells the other nodes that the session has ended here, unless another one has begun. No lock may be held.
    pub(super) fn release(&self, id: &SessionId) {
        if let Some(elsewhere) = &self.elsewhere
            && !self.knows(id)
        {
            elsewhere.peers.release(id);
        }
    }

    /// Does what [`release`](Self::release) does, unless a task has claimed the id, which does it then.
    pub(super) fn release_unclaimed(&self, id: &SessionId) {
        if self.elsewhere.as_ref().is_some_and(|elsewhere| !elsewhere.is_claimed(id)) {
            self.release(id);
        }
    }

    /// All sessions.
    pub(super) fn all(&self) -> Vec<(SessionId, Arc<ResumableSession<S>>)> {
        let sessions = self.sessions.lock();
        sessions.by_id.iter().map(|(id, it)| (Arc::clone(id), Arc::clone(it))).collect()
    }

    /// Returns whether there is such a session, whoever owns it.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.find(id).is_some_and(|session| session.is_alive())
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<ResumableSession<S>>> {
        self.sessions.lock().by_id.get(id).map(Arc::clone)
    }

    /// Finds the session that a new connection asks for. If there is none, the new one becomes the
    /// session of that id, and continues the one that has `moved` from another node.
    pub(super) fn open(
        self: &Arc<Self>,
        id: &SessionId,
        received: Option<u64>,
        moved: Option<Box<MovedSession>>,
        session: S,
        receiver: outbox::Receiver,
    ) -> Opened<S> {
        let config = &self.shared.config;
        let socket_id: Option<Box<str>> = session.id().map(Into::into);
        let (mut sessions, replaced, is_stuck) = loop {
            let known = self.find(id);
            let mut is_stuck = false;
            // One that is here beside it is older.
            if let Some(known) = known.as_ref().filter(|_| moved.is_none()) {
                if known.socket_id() != socket_id.as_deref() || known.is_in_conflict() {
                    limited!(INFO, "session id in use by another client");
                    return Opened::Own(session, receiver);
                }
                if known.can_resume(received) {
                    return Opened::Resumed(Arc::clone(known), session);
                }
                is_stuck = known.is_stuck();
            }
            let mut sessions = self.sessions.lock();
            // Unless another connection was faster.
            if sessions.by_id.get(id).map(Arc::as_ptr) == known.as_ref().map(Arc::as_ptr) {
                let replaced = sessions.remove(id);
                break (sessions, replaced, is_stuck);
            }
        };
        let room = match &socket_id {
            Some(socket_id) => sessions.make_room(socket_id, config.max_per_id),
            None => Ok(None),
        };
        let mut exceeded = None;
        // One that has moved had its place on another node.
        let opened = if room.is_ok() || moved.is_some() {
            let id = Arc::clone(id);
            let outbox = receiver.into_resumable(received.unwrap_or(0));
            if self.elsewhere.is_some() {
                outbox.keep_apart(claim::draw_gap());
            }
            let timer = Timer::new(Arc::clone(&self.deadlines), Arc::clone(&id));
            let shared = Arc::clone(&self.shared);
            let new = ResumableSession::new(shared, timer, socket_id, session, outbox);
            let new = Arc::new(new);
            exceeded = moved.and_then(|moved| new.import(*moved));
            sessions.insert(id, Arc::clone(&new));
            if sessions.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
                let sweeper = sweeper::run(Arc::downgrade(self), self.tick());
                sessions.sweeper = Some(tokio::spawn(sweeper));
            }
            Opened::Resumable(new)
        } else {
            Opened::Own(session, receiver)
        };
        drop(sessions);
        if let Some(memory) = exceeded {
            memory.relieve();
        }
        if replaced.is_some_and(|replaced| replaced.end(Close::Restart)) {
            Self::report_restart(is_stuck);
        }
        match room {
            Ok(Some((id, evicted))) => {
                if evicted.end(Close::GoingAway) {
                    limited!(INFO, "detached session ended: its socket id has too many");
                }
                if !evicted.is_given() {
                    self.release_unclaimed(&id);
                }
            }
            Ok(None) => {}
            Err(Full) => limited!(INFO, "session not resumable: its socket id has too many"),
        }
        opened
    }

    fn tick(&self) -> Duration {
        let config = &self.shared.config;
        let shortest = config.session_ttl.min(config.rejoin_grace) / 8;
        shortest.clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    /// Removes the session, unless another one has taken its id. Returns whether it was there.
    pub(super) fn remove(&self, id: &str, session: &Arc<ResumableSession<S>>) -> bool {
        let mut sessions = self.sessions.lock();
        let is_there = sessions.by_id.get(id).is_some_and(|known| Arc::ptr_eq(known, session));
        if is_there {
            sessions.remove(id);
        }
        is_there
    }
}

impl<S: Session> Sweep for ResumeRegistry<S> {
    type Key = SessionId;

    fn deadlines(&self) -> &Mutex<Deadlines<SessionId>> {
        &self.deadlines
    }

    fn visit(&self, id: &SessionId, now: Instant) {
        let Some(session) = self.find(id) else { return };
        if let Visited::Ended { expired } = session.visit(now) {
            if self.remove(id, &session) && !session.is_given() {
                self.release_unclaimed(id);
            }
            if expired {
                SESSIONS_EXPIRED.add(1);
                limited!(DEBUG, "detached session expired");
            }
        }
        session.run_pending();
    }

    fn clear_if_empty(&self) -> bool {
        let mut sessions = self.sessions.lock();
        let is_empty = sessions.by_id.is_empty();
        if is_empty {
            // A burst of sessions leaves no large maps behind.
            *sessions = Sessions::new();
            self.deadlines.lock().clear();
        }
        is_empty
    }
}

impl<S: Session> Sessions<S> {
    fn new() -> Self {
        Self { by_id: HashMap::new(), by_socket_id: HashMap::new(), sweeper: None }
    }

    fn insert(&mut self, id: SessionId, session: Arc<ResumableSession<S>>) {
        if let Some(socket_id) = session.socket_id() {
            if let Some(ids) = self.by_socket_id.get_mut(socket_id) {
                ids.push(Arc::clone(&id));
            } else {
                // Most socket ids have one session.
                self.by_socket_id.insert(socket_id.into(), vec![Arc::clone(&id)]);
            }
        }
        self.by_id.insert(id, session);
    }

    fn remove(&mut self, id: &str) -> Option<Arc<ResumableSession<S>>> {
        let session = self.by_id.remove(id)?;
        if let Some(socket_id) = session.socket_id()
            && let Some(ids) = self.by_socket_id.get_mut(socket_id)
        {
            ids.retain(|known| **known != *id);
            if ids.is_empty() {
                self.by_socket_id.remove(socket_id);
            }
        }
        Some(session)
    }

    /// Makes room for another session of a socket id that may have `max`. Returns the session that has
    /// to end for it: the one that has been without a connection for longest.
    fn make_room(&mut self, socket_id: &str, max: usize) -> Result<Option<Evicted<S>>, Full> {
        let ids = self.by_socket_id.get(socket_id).map_or(&[][..], Vec::as_slice);
        if ids.len() < max {
            return Ok(None);
        }
        let unused = ids.iter().filter_map(|id| Some((self.by_id.get(id)?.eviction_order()?, id)));
        let longest = unused.min_by_key(|(order, _)| *order).map(|(_, id)| Arc::clone(id));
        let id = longest.ok_or(Full)?;
        Ok(self.remove(&id).map(|session| (id, session)))
    }
}

/// A session that has to end for another one.
type Evicted<S> = (SessionId, Arc<ResumableSession<S>>);

/// All sessions of a socket id are connected.
struct Full;

impl<S> fmt::Debug for ResumeRegistry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeRegistry")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
