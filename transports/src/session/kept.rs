//! Sessions that outlive their connections, by the id that the client chose for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::ContinuityConfig;
use super::outbox::{Drain, Outbox};
use super::{Close, Inbound, Session};
use crate::connect_info::Transport;

/// All kept sessions of an endpoint.
pub(crate) struct KeptSessions<S> {
    config: Arc<ContinuityConfig>,
    /// The lock guards the map for one look-up or change. A session's lock may be taken under it,
    /// and never the other way round.
    sessions: Mutex<Sessions<S>>,
}

struct Sessions<S> {
    by_id: HashMap<String, Arc<Kept<S>>>,
    /// The session ids of each socket id.
    by_socket_id: HashMap<String, Vec<String>>,
    /// The task that ends them, which there is while there is one. It may have ended before its time,
    /// with its runtime or because a session's `Drop` panicked: then the next session starts it anew.
    sweeper: Option<JoinHandle<()>>,
}

/// A session that outlives its connections.
pub(crate) struct Kept<S> {
    config: Arc<ContinuityConfig>,
    socket_id: Option<String>,
    outbox: Outbox,
    /// The lock is held while a message is handled, and never across an await.
    state: Mutex<State<S>>,
}

struct State<S> {
    /// `None` once it is over.
    session: Option<S>,
    attachment: u64,
    transport: Transport,
    since: Instant,
    settled: bool,
    /// When it was first seen without a connection.
    parked: Option<Instant>,
    /// When it was found that a client had taken it from another that was there, within
    /// [`TAKEOVER_TIME`].
    takeovers: Vec<Instant>,
    died_young: u32,
    last_death: Instant,
}

/// What a connect became: a session of its own, or one that is kept.
pub(crate) enum Connected<S> {
    Own(S, Drain),
    Kept(Arc<Kept<S>>),
}

/// A session as one connection has it.
pub(crate) enum Attached<S: Session> {
    Own(S),
    Kept { kept: Arc<Kept<S>>, attachment: u64 },
}

impl<S: Session> KeptSessions<S> {
    pub(crate) fn new(config: ContinuityConfig) -> Arc<Self> {
        Arc::new(Self { config: Arc::new(config), sessions: Mutex::new(Sessions::new()) })
    }

    /// Whether the transport may be used for this session now. A WebSocket that keeps dying is
    /// refused for a while.
    pub(crate) fn admits(&self, id: &str, transport: Transport) -> bool {
        let kept = self.lock().by_id.get(id).map(Arc::clone);
        transport != Transport::WebSocket || kept.is_none_or(|kept| !kept.is_flapping())
    }

    /// Whether there is such a session, whoever's it is.
    pub(crate) fn knows(&self, id: &str) -> bool {
        let kept = self.lock().by_id.get(id).map(Arc::clone);
        kept.is_some_and(|kept| kept.is_alive())
    }

    /// Finds the session that a connection asks for, or keeps the new one as such. The new one is
    /// dropped if it is not needed.
    pub(crate) fn connect(
        self: &Arc<Self>,
        id: &str,
        received: Option<u64>,
        session: S,
        drain: Drain,
    ) -> Connected<S> {
        if self.config.session_ttl.is_zero() || (session.id().is_none() && !self.config.anonymous) {
            return Connected::Own(session, drain);
        }
        let mut sessions = self.lock();
        if let Some(known) = sessions.by_id.get(id) {
            if known.socket_id.as_deref() != session.id() || known.is_contested() {
                drop(sessions);
                tracing::info!("a session was asked for that has another owner");
                return Connected::Own(session, drain);
            }
            if known.is_alive() && known.outbox.has_all_after(received) {
                let known = Arc::clone(known);
                drop(sessions);
                return Connected::Kept(known);
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
            tracing::info!("a session is not kept: its socket id has too many");
            return Connected::Own(session, drain);
        };
        let kept = Arc::new(Kept {
            config: Arc::clone(&self.config),
            socket_id: session.id().map(Into::into),
            outbox: drain.into_kept(received.unwrap_or(0)),
            state: Mutex::new(State {
                session: Some(session),
                attachment: 0,
                transport: Transport::InMemory,
                since: now,
                settled: true,
                parked: Some(now),
                takeovers: Vec::new(),
                died_young: 0,
                last_death: now,
            }),
        });
        sessions.insert(id, Arc::clone(&kept));
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
        Connected::Kept(kept)
    }

    fn tick(&self) -> Duration {
        let shortest = self.config.session_ttl.min(self.config.rejoin_grace) / 8;
        shortest.clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    /// Ends what expired. Whether anything is left.
    fn sweep(&self, now: Instant) -> bool {
        let all: Vec<_> = {
            let sessions = self.lock();
            sessions.by_id.iter().map(|(id, kept)| (id.clone(), Arc::clone(kept))).collect()
        };
        for (id, kept) in all {
            if kept.expire(now) {
                let mut sessions = self.lock();
                if sessions.by_id.get(&id).is_some_and(|known| Arc::ptr_eq(known, &kept)) {
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

    fn insert(&mut self, id: &str, kept: Arc<Kept<S>>) {
        if let Some(socket_id) = &kept.socket_id {
            // Most have one.
            let ids = self.by_socket_id.entry(socket_id.clone());
            ids.or_insert_with(|| Vec::with_capacity(1)).push(id.to_owned());
        }
        self.by_id.insert(id.to_owned(), kept);
    }

    fn remove(&mut self, id: &str) -> Option<Arc<Kept<S>>> {
        let kept = self.by_id.remove(id)?;
        if let Some(socket_id) = &kept.socket_id
            && let Some(ids) = self.by_socket_id.get_mut(socket_id)
        {
            ids.retain(|known| known != id);
            if ids.is_empty() {
                self.by_socket_id.remove(socket_id);
            }
        }
        Some(kept)
    }

    /// Makes room for another session of a socket id that may have `max`. Returns the one that has to
    /// end for it: that which has been parked for longest.
    fn make_room(
        &mut self,
        socket_id: &str,
        max: usize,
        now: Instant,
    ) -> Result<Option<Arc<Kept<S>>>, Full> {
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
async fn sweep<S: Session>(sessions: Weak<KeptSessions<S>>, tick: Duration) {
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
    ) -> Option<(Attached<S>, Drain)> {
        match self {
            Self::Own(session, drain) => Some((Attached::Own(session), drain)),
            Self::Kept(kept) => {
                let drain = kept.attach(received, transport)?;
                let attachment = drain.attachment();
                Some((Attached::Kept { kept, attachment }, drain))
            }
        }
    }
}

impl<S: Session> Kept<S> {
    fn attach(&self, received: Option<u64>, transport: Transport) -> Option<Drain> {
        let now = Instant::now();
        let mut state = self.lock();
        let State { session, takeovers, .. } = &mut *state;
        let session = session.as_mut()?;
        if self.outbox.was_contested() {
            takeovers.retain(|at| now.duration_since(*at) < TAKEOVER_TIME);
            takeovers.push(now);
        }
        let Some(drain) = self.outbox.attach(received) else {
            drop(state);
            self.end(Close::Restart);
            return None;
        };
        session.attached(drain.attachment(), transport);
        state.attachment = drain.attachment();
        (state.transport, state.since) = (transport, now);
        (state.settled, state.parked) = (false, None);
        let label = transport.name();
        metrics::counter!("tower_channels_sessions_attached", "transport" => label).increment(1);
        Some(drain)
    }

    fn handle_in(&self, attachment: u64, message: Inbound<'_>) -> Result<(), Close> {
        let mut state = self.lock();
        if attachment != state.attachment {
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
    fn detached(&self, attachment: u64) {
        let mut state = self.lock();
        if attachment != state.attachment {
            return;
        }
        let now = Instant::now();
        if state.transport == Transport::WebSocket {
            let young = now.duration_since(state.since) < self.config.flapping_age;
            state.died_young = if young { state.died_young + 1 } else { 0 };
            state.last_death = now;
        }
        let gone = if self.outbox.is_closed() { state.session.take() } else { None };
        if let Some(session) = &mut state.session {
            session.detached();
        }
        drop(state);
        drop(gone);
        metrics::counter!("tower_channels_sessions_parked").increment(1);
        tracing::debug!(attachment, "a session was parked");
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
        if !state.settled && now.duration_since(state.since) >= self.config.rejoin_grace {
            state.settled = true;
            if let Some(session) = &mut state.session {
                session.settle();
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
    fn is_contested(&self) -> bool {
        let now = Instant::now();
        let recent = |at: &&Instant| now.duration_since(**at) < TAKEOVER_TIME;
        self.lock().takeovers.iter().filter(recent).count() >= TAKEOVERS
    }

    fn is_flapping(&self) -> bool {
        let state = self.lock();
        self.config.flapping_limit > 0
            && state.died_young >= self.config.flapping_limit
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
            Self::Kept { kept, attachment } => kept.handle_in(*attachment, message),
        }
    }
}

impl<S: Session> Drop for Attached<S> {
    fn drop(&mut self) {
        if let Self::Kept { kept, attachment } = self {
            kept.detached(*attachment);
        }
    }
}

impl<S> fmt::Debug for KeptSessions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptSessions").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<S: Session> fmt::Debug for Attached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Own(_)) { "Own" } else { "Kept" })
    }
}

impl<S> fmt::Debug for Connected<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Own(..)) { "Own" } else { "Kept" })
    }
}

/// So many takeovers from a client that was there within so much time are two clients with one id: the
/// next one gets a session of its own. A client that comes back from a connection that died, or that it
/// gave up, is none: nobody answers on that connection that it was taken over.
const TAKEOVERS: usize = 8;
const TAKEOVER_TIME: Duration = Duration::from_secs(10);
