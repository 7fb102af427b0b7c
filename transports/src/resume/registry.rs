//! Sessions that outlive their connections, by the id that the client chose for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::ResumeConfig;
use crate::connect_info::Transport;
use crate::frame::{Close, Inbound};
use crate::outbox;
use crate::session::Session;

/// All resumable sessions of an endpoint.
pub(crate) struct ResumeRegistry<S> {
    config: Arc<ResumeConfig>,
    /// The lock guards the map for one look-up or change. A session's lock may be taken under it,
    /// and never the other way round.
    sessions: Mutex<Sessions<S>>,
}

struct Sessions<S> {
    by_id: HashMap<String, Arc<ResumableSession<S>>>,
    /// The session ids of each socket id.
    by_socket_id: HashMap<String, Vec<String>>,
    /// The task that ends them, which there is while there is one. It may have ended before its time,
    /// with its runtime or because a session's `Drop` panicked: then the next session starts it anew.
    sweeper: Option<JoinHandle<()>>,
}

/// A session that outlives its connections.
pub(crate) struct ResumableSession<S> {
    config: Arc<ResumeConfig>,
    socket_id: Option<String>,
    outbox: outbox::Sender,
    /// The lock is held while a message is handled, and never across an await.
    state: Mutex<State<S>>,
}

struct State<S> {
    /// `None` once it is over.
    session: Option<S>,
    epoch: u64,
    transport: Transport,
    since: Instant,
    rejoin_over: bool,
    /// When it was first seen without a connection.
    parked: Option<Instant>,
    /// When it was found that a client had taken it from another that was there, within
    /// [`CONFLICT_WINDOW`].
    conflicts: Vec<Instant>,
    short_lived: u32,
    last_death: Instant,
}

/// What a connect became: a session of its own, or one that is resumable.
pub(crate) enum Connected<S> {
    Own(S, outbox::Receiver),
    Resumable(Arc<ResumableSession<S>>),
}

/// A session as one connection has it.
pub(crate) enum Attached<S: Session> {
    Own(S),
    Resumable { resumable: Arc<ResumableSession<S>>, epoch: u64 },
}

impl<S: Session> ResumeRegistry<S> {
    pub(crate) fn new(config: ResumeConfig) -> Arc<Self> {
        Arc::new(Self { config: Arc::new(config), sessions: Mutex::new(Sessions::new()) })
    }

    /// Whether the transport may be used for this session now. A WebSocket that keeps dying is
    /// refused for a while.
    pub(crate) fn admits(&self, id: &str, transport: Transport) -> bool {
        let resumable = self.lock().by_id.get(id).map(Arc::clone);
        transport != Transport::WebSocket
            || resumable.is_none_or(|resumable| !resumable.is_flapping())
    }

    /// Whether there is such a session, whoever's it is.
    pub(crate) fn knows(&self, id: &str) -> bool {
        let resumable = self.lock().by_id.get(id).map(Arc::clone);
        resumable.is_some_and(|resumable| resumable.is_alive())
    }

    /// Finds the session that a connection asks for, or keeps the new one as such. The new one is
    /// dropped if it is not needed.
    pub(crate) fn connect(
        self: &Arc<Self>,
        id: &str,
        received: Option<u64>,
        session: S,
        receiver: outbox::Receiver,
    ) -> Connected<S> {
        if self.config.session_ttl.is_zero() || (session.id().is_none() && !self.config.anonymous) {
            return Connected::Own(session, receiver);
        }
        let mut sessions = self.lock();
        if let Some(known) = sessions.by_id.get(id) {
            if known.socket_id.as_deref() != session.id() || known.is_in_conflict() {
                drop(sessions);
                tracing::info!("a session was asked for that has another owner");
                return Connected::Own(session, receiver);
            }
            if known.is_alive() && known.outbox.has_all_after(received) {
                let known = Arc::clone(known);
                drop(sessions);
                return Connected::Resumable(known);
            }
        }
        let now = Instant::now();
        let gone = sessions.remove(id);
        let crowded_out = match session.id() {
            Some(socket_id) => sessions.make_room(socket_id, self.config.max_per_id, now),
            None => Ok(None),
        };
        let Ok(crowded_out) = crowded_out else {
            drop(sessions);
            let _ = gone.map(|gone| gone.end(Close::Restart));
            tracing::info!("a session is not resumable: its socket id has too many");
            return Connected::Own(session, receiver);
        };
        let resumable = Arc::new(ResumableSession {
            config: Arc::clone(&self.config),
            socket_id: session.id().map(Into::into),
            outbox: receiver.into_resumable(received.unwrap_or(0)),
            state: Mutex::new(State {
                session: Some(session),
                epoch: 0,
                transport: Transport::InMemory,
                since: now,
                rejoin_over: true,
                parked: Some(now),
                conflicts: Vec::new(),
                short_lived: 0,
                last_death: now,
            }),
        });
        sessions.insert(id, Arc::clone(&resumable));
        if sessions.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            sessions.sweeper = Some(tokio::spawn(sweep(Arc::downgrade(self), self.tick())));
        }
        drop(sessions);
        if gone.is_some_and(|gone| gone.end(Close::Restart)) {
            tracing::info!("a session begins anew: its client has missed too much");
        }
        if crowded_out.is_some_and(|oldest| oldest.end(Close::GoingAway)) {
            tracing::info!("a parked session has ended: its socket id has too many");
        }
        Connected::Resumable(resumable)
    }

    fn tick(&self) -> Duration {
        let shortest = self.config.session_ttl.min(self.config.rejoin_grace) / 8;
        shortest.clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    /// Ends what expired. Whether anything is left.
    fn sweep(&self, now: Instant) -> bool {
        let all: Vec<_> = {
            let sessions = self.lock();
            sessions
                .by_id
                .iter()
                .map(|(id, resumable)| (id.clone(), Arc::clone(resumable)))
                .collect()
        };
        for (id, resumable) in all {
            if resumable.expire(now) {
                let mut sessions = self.lock();
                if sessions.by_id.get(&id).is_some_and(|known| Arc::ptr_eq(known, &resumable)) {
                    sessions.remove(&id);
                }
            }
        }
        let mut sessions = self.lock();
        if sessions.by_id.is_empty() {
            *sessions = Sessions::new();
        }
        sessions.sweeper.is_some()
    }

    /// Nothing panics while holding the lock, so poison has no meaning here.
    fn lock(&self) -> MutexGuard<'_, Sessions<S>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Session> Sessions<S> {
    fn new() -> Self {
        Self { by_id: HashMap::new(), by_socket_id: HashMap::new(), sweeper: None }
    }

    fn insert(&mut self, id: &str, resumable: Arc<ResumableSession<S>>) {
        if let Some(socket_id) = &resumable.socket_id {
            // Most have one.
            let ids = self.by_socket_id.entry(socket_id.clone());
            ids.or_insert_with(|| Vec::with_capacity(1)).push(id.to_owned());
        }
        self.by_id.insert(id.to_owned(), resumable);
    }

    fn remove(&mut self, id: &str) -> Option<Arc<ResumableSession<S>>> {
        let resumable = self.by_id.remove(id)?;
        if let Some(socket_id) = &resumable.socket_id
            && let Some(ids) = self.by_socket_id.get_mut(socket_id)
        {
            ids.retain(|known| known != id);
            if ids.is_empty() {
                self.by_socket_id.remove(socket_id);
            }
        }
        Some(resumable)
    }

    /// Makes room for another session of a socket id that may have `max`. Returns the one that has to
    /// end for it: that which has been parked for longest.
    fn make_room(
        &mut self,
        socket_id: &str,
        max: usize,
        now: Instant,
    ) -> Result<Option<Arc<ResumableSession<S>>>, Full> {
        let ids = self.by_socket_id.get(socket_id).map_or(&[][..], Vec::as_slice);
        if ids.len() < max {
            return Ok(None);
        }
        let parked = ids.iter().filter_map(|id| Some((self.by_id.get(id)?.parked_since(now)?, id)));
        let longest = parked.min_by_key(|(since, _)| *since).map(|(_, id)| id.clone());
        let id = longest.ok_or(Full)?;
        Ok(self.remove(&id))
    }
}

/// All sessions of a socket id are in use.
struct Full;

/// Ends with the last session, or with the endpoint.
async fn sweep<S: Session>(sessions: Weak<ResumeRegistry<S>>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        let Some(sessions) = sessions.upgrade() else { return };
        if !sessions.sweep(Instant::now()) {
            return;
        }
    }
}

impl<S: Session> Connected<S> {
    /// Begins to use the session on a connection. `None` if it has ended meanwhile.
    pub(crate) fn attach(
        self,
        received: Option<u64>,
        transport: Transport,
    ) -> Option<(Attached<S>, outbox::Receiver)> {
        match self {
            Self::Own(session, receiver) => Some((Attached::Own(session), receiver)),
            Self::Resumable(resumable) => {
                let receiver = resumable.attach(received, transport)?;
                let epoch = receiver.epoch();
                Some((Attached::Resumable { resumable, epoch }, receiver))
            }
        }
    }
}

impl<S: Session> ResumableSession<S> {
    fn attach(&self, received: Option<u64>, transport: Transport) -> Option<outbox::Receiver> {
        let now = Instant::now();
        let mut state = self.lock();
        let State { session, conflicts, .. } = &mut *state;
        let session = session.as_mut()?;
        if self.outbox.take_conflict() {
            conflicts.retain(|at| now.duration_since(*at) < CONFLICT_WINDOW);
            conflicts.push(now);
        }
        let Some(receiver) = self.outbox.attach(received) else {
            drop(state);
            self.end(Close::Restart);
            return None;
        };
        session.attached(receiver.epoch(), transport);
        state.epoch = receiver.epoch();
        (state.transport, state.since) = (transport, now);
        (state.rejoin_over, state.parked) = (false, None);
        let label = transport.name();
        metrics::counter!("tower_channels_sessions_attached", "transport" => label).increment(1);
        Some(receiver)
    }

    fn handle_in(&self, epoch: u64, message: Inbound<'_>) -> Result<(), Close> {
        let mut state = self.lock();
        if epoch != state.epoch {
            return Err(Close::Restart);
        }
        let Some(session) = &mut state.session else { return Err(Close::GoingAway) };
        let handled = session.handle_in(message);
        if let Err(close) = handled {
            let gone = state.session.take();
            drop(state);
            self.outbox.close(close);
            drop(gone);
        }
        handled
    }

    /// A connection is gone. The session stays, unless its outbox is closed.
    fn detached(&self, epoch: u64) {
        let mut state = self.lock();
        if epoch != state.epoch {
            return;
        }
        let now = Instant::now();
        if state.transport == Transport::WebSocket {
            let young = now.duration_since(state.since) < self.config.flapping_age;
            state.short_lived = if young { state.short_lived + 1 } else { 0 };
            state.last_death = now;
        }
        let gone = if self.outbox.is_closed() { state.session.take() } else { None };
        if let Some(session) = &mut state.session {
            session.detached();
        }
        drop(state);
        drop(gone);
        metrics::counter!("tower_channels_sessions_parked").increment(1);
        tracing::debug!(epoch, "a session was parked");
    }

    /// Ends the session, and its connection. Whether it was there.
    fn end(&self, close: Close) -> bool {
        let gone = self.lock().session.take();
        self.outbox.close(close);
        gone.is_some()
    }

    /// Ends the session if it was parked for long enough, or its outbox is closed. Whether it is over.
    fn expire(&self, now: Instant) -> bool {
        let attached = self.outbox.is_attached();
        let mut state = self.lock();
        if attached {
            self.outbox.age(now, self.config.acknowledged_ttl);
            state.parked = None;
        } else {
            let parked = *state.parked.get_or_insert(now);
            let expired = now.duration_since(parked) >= self.config.session_ttl;
            if expired || self.outbox.is_closed() {
                drop(state);
                if self.end(Close::GoingAway) {
                    metrics::counter!("tower_channels_sessions_expired").increment(1);
                    tracing::debug!("a parked session has ended");
                }
                return true;
            }
        }
        if !state.rejoin_over && now.duration_since(state.since) >= self.config.rejoin_grace {
            state.rejoin_over = true;
            if let Some(session) = &mut state.session {
                session.rejoin_deadline();
            }
        }
        state.session.is_none() && !attached
    }

    /// Since when it has been without a connection, if it is; `now` if nobody has seen that yet.
    fn parked_since(&self, now: Instant) -> Option<Instant> {
        if self.outbox.is_attached() { None } else { Some(self.lock().parked.unwrap_or(now)) }
    }

    fn is_alive(&self) -> bool {
        self.lock().session.is_some() && !self.outbox.is_closed()
    }

    /// Whether two clients take it from each other.
    fn is_in_conflict(&self) -> bool {
        let now = Instant::now();
        let recent = |at: &&Instant| now.duration_since(**at) < CONFLICT_WINDOW;
        self.lock().conflicts.iter().filter(recent).count() >= MAX_CONFLICTS
    }

    fn is_flapping(&self) -> bool {
        let state = self.lock();
        self.config.flapping_limit > 0
            && state.short_lived >= self.config.flapping_limit
            && state.last_death.elapsed() < self.config.flapping_pause
    }

    /// A panic in a session is the application's, and ends nothing but what it was about.
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Session> Session for Attached<S> {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        match self {
            Self::Own(session) => session.handle_in(message),
            Self::Resumable { resumable, epoch } => resumable.handle_in(*epoch, message),
        }
    }
}

impl<S: Session> Drop for Attached<S> {
    fn drop(&mut self) {
        if let Self::Resumable { resumable, epoch } = self {
            resumable.detached(*epoch);
        }
    }
}

impl<S> fmt::Debug for ResumeRegistry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeRegistry").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<S: Session> fmt::Debug for Attached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Own(_)) { "Own" } else { "ResumableSession" })
    }
}

impl<S> fmt::Debug for Connected<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Own(..)) { "Own" } else { "ResumableSession" })
    }
}

/// So many conflicts from a client that was there within so much time are two clients with one id: the
/// next one gets a session of its own. A client that comes back from a connection that died, or that it
/// gave up, is none: nobody answers on that connection that it was taken over.
const MAX_CONFLICTS: usize = 8;
const CONFLICT_WINDOW: Duration = Duration::from_secs(10);
