//! The sessions of an endpoint: their number and limit, and shutdown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Instant;
use tower_channels_transports::telemetry::{Level, QUEUED, UNLABELED};
use tower_channels_transports::{Close, Rejected, outbox};

use super::shutdown::ShutdownConfig;
use crate::pubsub::sockets::{Socket, Sockets};
use crate::socket_info::SocketInfo;
use crate::topics::registry::Membership;

/// The sessions of an endpoint. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct SessionRegistry(Arc<Shared>);

struct Shared {
    limit: usize,
    /// Guards the list of sessions. Nothing is called while it is locked.
    sessions: Mutex<Open>,
    /// Those with a socket id, of all endpoints that share them.
    sockets: Sockets,
    queued: Level,
}

struct Open {
    sessions: Slab<Admitted>,
    phase: Phase,
}

/// A session that has its place.
#[derive(Clone)]
pub(crate) struct Admitted {
    pub(crate) outbox: outbox::Sender,
    pub(crate) info: Arc<SocketInfo>,
}

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Sessions are leaving for other nodes, and new ones are still admitted.
    Draining,
    /// None is admitted any more.
    Closed,
    /// It is over.
    ShutDown,
}

/// The right of one session to exist. Dropping it releases its place.
pub(crate) struct SessionPermit {
    registry: SessionRegistry,
    key: usize,
    _socket: Option<Membership<Socket>>,
}

/// Error returned when no further session is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    /// The limit is reached.
    Full,
    ShuttingDown,
}

impl NotAdmitted {
    /// Returns the answer: HTTP 503, since another server may take the client, or
    /// this one later.
    pub(crate) fn refuse(self) -> Rejected {
        let (label, reason) = match self {
            Self::Full => ("full", "there are too many sessions"),
            Self::ShuttingDown => ("draining", "the endpoint is shutting down"),
        };
        Rejected::status(StatusCode::SERVICE_UNAVAILABLE).with_reason(reason).with_label(label)
    }
}

impl SessionRegistry {
    /// Creates a registry that admits up to `limit` sessions.
    pub(crate) fn new(limit: usize, sockets: Sockets) -> Self {
        let sessions = Mutex::new(Open { sessions: Slab::new(), phase: Phase::Serving });
        let queued = Level::new(QUEUED.handle(UNLABELED));
        Self(Arc::new(Shared { limit, sessions, sockets, queued }))
    }

    /// Admits a session and registers its socket id.
    pub(crate) fn acquire(
        &self,
        outbox: &outbox::Sender,
        info: &Arc<SocketInfo>,
    ) -> Result<SessionPermit, NotAdmitted> {
        let mut sessions = self.0.sessions.lock();
        if sessions.phase >= Phase::Closed {
            return Err(NotAdmitted::ShuttingDown);
        }
        if sessions.sessions.len() >= self.0.limit {
            return Err(NotAdmitted::Full);
        }
        let admitted = Admitted { outbox: outbox.clone(), info: Arc::clone(info) };
        let key = sessions.sessions.insert(admitted);
        drop(sessions);
        let socket = info.id().map(|id| self.0.sockets.register(id, outbox, info));
        Ok(SessionPermit { registry: self.clone(), key, _socket: socket })
    }

    /// Returns whether a shutdown has come so far.
    pub(crate) fn is_in(&self, phase: Phase) -> bool {
        self.0.sessions.lock().phase >= phase
    }

    /// Goes on with a shutdown. Returns the sessions that there are.
    pub(super) fn enter(&self, phase: Phase) -> Vec<outbox::Sender> {
        let mut sessions = self.0.sessions.lock();
        sessions.phase = sessions.phase.max(phase);
        sessions.sessions.iter().map(|(_, session)| session.outbox.clone()).collect()
    }

    /// Notes that a shutdown is over.
    pub(crate) fn end_shutdown(&self) {
        self.enter(Phase::ShutDown);
    }

    /// Returns the number of sessions.
    pub(crate) fn count(&self) -> usize {
        self.0.count()
    }

    /// Updates the gauge of the bytes that wait for clients.
    pub(crate) async fn record_gauges(&self) {
        let mut bytes = 0_usize;
        let mut from = 0;
        loop {
            let (sessions, next) = self.slice(from, SLICE);
            let queued = sessions.iter().map(|(_, session)| session.outbox.backlog());
            bytes = queued.fold(bytes, usize::saturating_add);
            drop(sessions);
            let Some(next) = next else { break };
            from = next;
            tokio::task::yield_now().await;
        }
        self.0.queued.set(bytes);
    }

    /// Returns the sessions in `places` places from `from` on, with their places, and where the next slice begins.
    pub(crate) fn slice(
        &self,
        from: usize,
        places: usize,
    ) -> (Vec<(usize, Admitted)>, Option<usize>) {
        let sessions = self.0.sessions.lock();
        let end = sessions.sessions.capacity();
        let next = from.saturating_add(places);
        let slice = (from..end.min(next))
            .filter_map(|key| Some((key, sessions.sessions.get(key)?.clone())))
            .collect();
        (slice, (next < end).then_some(next))
    }

    /// Rejects new sessions and ends the existing ones: those that no client waits on at once, the
    /// others at the configured pace. `sweep` lets the transports drop sessions that are over. Returns
    /// `true` once all sessions have ended and all connections are closed, or `false` if some are not
    /// within the timeout, when those that are left are closed, too.
    ///
    /// Cancel safety: sessions that were closed stay closed, and new ones are still rejected.
    pub(crate) async fn shutdown(&self, config: ShutdownConfig, sweep: impl Fn()) -> bool {
        let outboxes = self.enter(Phase::Closed);
        let (idle, connected) =
            outboxes.into_iter().partition::<Vec<_>, _>(outbox::Sender::is_idle);
        let shutdown = async {
            Self::close_all(&idle, &sweep).await;
            let (pace, began) = (config.pace(connected.len()), Instant::now());
            let mut waiting = &connected[..];
            loop {
                let left = connected.len() - pace.due(began.elapsed());
                let (due, rest) = waiting.split_at(waiting.len() - left);
                due.iter().for_each(|outbox| outbox.close(Close::Restart));
                sweep();
                waiting = rest;
                if waiting.is_empty() {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            let mut closing = [&idle[..], &connected].concat();
            loop {
                closing.retain(|outbox| !outbox.is_over());
                if closing.is_empty() && self.count() == 0 {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
                sweep();
            }
        };
        let has_ended = tokio::time::timeout(config.timeout, shutdown).await.is_ok();
        if !has_ended {
            Self::close_all(&idle, &sweep).await;
            Self::close_all(&connected, &sweep).await;
        }
        has_ended
    }

    pub(super) async fn close_all(outboxes: &[outbox::Sender], sweep: impl Fn()) {
        for batch in outboxes.chunks(BATCH) {
            batch.iter().for_each(|outbox| outbox.close(Close::Restart));
            sweep();
            tokio::task::yield_now().await;
        }
    }
}

impl Shared {
    fn count(&self) -> usize {
        self.sessions.lock().sessions.len()
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let removed = self.registry.0.sessions.lock().sessions.try_remove(self.key);
        drop(removed);
    }
}

impl fmt::Debug for SessionRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRegistry").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// How many sessions a shutdown ends at once before other tasks get their turn.
pub(super) const BATCH: usize = 256;

/// How many sessions are looked at for the gauge before other tasks get their turn.
const SLICE: usize = 1000;

/// How often a shutdown closes what is due, and looks for what has ended.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use tower_channels_transports::Transport;

    use super::*;
    use crate::pubsub::PubSub;

    fn registry(limit: usize) -> SessionRegistry {
        SessionRegistry::new(limit, PubSub::new().socket_registry().clone())
    }

    fn anonymous() -> Arc<SocketInfo> {
        Arc::new(SocketInfo::new(None, Transport::InMemory))
    }

    fn outbox() -> outbox::Sender {
        outbox::channel(1000).0
    }

    #[test]
    fn no_more_sessions_than_the_limit_are_admitted() {
        let sessions = registry(1);
        let first = sessions.acquire(&outbox(), &anonymous()).expect("room");
        let full = sessions.acquire(&outbox(), &anonymous()).err();
        assert_eq!(full, Some(NotAdmitted::Full));
        drop(first);
        assert!(sessions.acquire(&outbox(), &anonymous()).is_ok());
    }

    #[test]
    fn disconnect_closes_the_sessions_of_one_id_only() {
        let pubsub = PubSub::new();
        let sessions = SessionRegistry::new(10, pubsub.socket_registry().clone());
        let info = |id: &str| Arc::new(SocketInfo::new(Some(id.into()), Transport::InMemory));
        let (a, _a) = outbox::channel(1000);
        let (b, _b) = outbox::channel(1000);
        let _permits = [
            sessions.acquire(&a, &info("user:1")).expect("room"),
            sessions.acquire(&b, &info("user:2")).expect("room"),
        ];
        pubsub.disconnect("user:1");
        assert!(a.is_closed());
        assert!(!b.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_closes_all_sessions_and_waits_for_them() {
        let sessions = registry(2000);
        let (outboxes, receivers): (Vec<_>, Vec<_>) =
            (0..1200).map(|_| outbox::channel(1000)).unzip();
        let acquire = |outbox| sessions.acquire(outbox, &anonymous()).expect("room");
        let permits: Vec<_> = outboxes.iter().map(acquire).collect();
        let shutdown = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.shutdown(Duration::from_secs(2).into(), || ()).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let closed = outboxes.iter().filter(|outbox| outbox.is_closed()).count();
        assert!((570..=601).contains(&closed), "half of them, as of the last pause: {closed}");
        tokio::time::sleep(Duration::from_millis(550)).await;
        assert!(outboxes.iter().all(outbox::Sender::is_closed));
        let refused = sessions.acquire(&outbox(), &anonymous()).err();
        assert_eq!(refused, Some(NotAdmitted::ShuttingDown));
        drop(permits);
        assert!(!shutdown.is_finished(), "the connections are still being closed");
        drop(receivers);
        assert!(shutdown.await.expect("no panic"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_gives_up_after_its_timeout() {
        let sessions = registry(10);
        let (outbox, _receiver) = outbox::channel(1000);
        let _permit = sessions.acquire(&outbox, &anonymous()).expect("room");
        assert!(!sessions.shutdown(Duration::from_secs(1).into(), || ()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_whose_time_runs_out_closes_what_is_left() {
        let paced = ShutdownConfig::new(Duration::from_secs(1)).sessions_per_second(1);
        for config in [paced, Duration::ZERO.into()] {
            let sessions = registry(2000);
            let (outboxes, _receivers): (Vec<_>, Vec<_>) =
                (0..1200).map(|_| outbox::channel(1000)).unzip();
            let acquire = |outbox| sessions.acquire(outbox, &anonymous()).expect("room");
            let _permits: Vec<_> = outboxes.iter().map(acquire).collect();
            assert!(!sessions.shutdown(config, || ()).await);
            let open = outboxes.iter().filter(|outbox| !outbox.is_closed()).count();
            assert_eq!(open, 0, "{config:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_a_session_whose_connection_is_gone_already() {
        let sessions = registry(10);
        let (outbox, receiver) = outbox::channel(1000);
        let permit = sessions.acquire(&outbox, &anonymous()).expect("room");
        drop(receiver);
        assert!(!sessions.shutdown(Duration::from_secs(1).into(), || ()).await);
        drop(permit);
        assert!(sessions.shutdown(Duration::from_secs(1).into(), || ()).await);
    }
}
