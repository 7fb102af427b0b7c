//! All sessions of an endpoint: how many there are, whose they are, and how they are ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tower_channels_transports::{Close, outbox};

use crate::pubsub::registry::{Registry, Subscription};

/// All sessions of an endpoint. A cheap clone.
#[derive(Clone)]
pub(crate) struct SessionRegistry(Arc<Shared>);

struct Shared {
    limit: usize,
    /// The lock is held for a few instructions, or to walk a batch of a drain.
    all: Mutex<All>,
    by_id: Arc<Registry<outbox::Sender>>,
}

struct All {
    outboxes: Slab<outbox::Sender>,
    shutting_down: bool,
}

/// A session's place among the others, which it gives up when it is dropped.
pub(crate) struct SessionPermit {
    sessions: SessionRegistry,
    key: usize,
    _id: Option<Subscription<outbox::Sender>>,
}

/// There is no place for another session.
#[derive(Debug)]
pub(crate) struct Full;

impl SessionRegistry {
    /// Room for `limit` sessions.
    pub(crate) fn new(limit: usize) -> Self {
        let all = Mutex::new(All { outboxes: Slab::new(), shutting_down: false });
        Self(Arc::new(Shared { limit, all, by_id: Arc::new(Registry::new()) }))
    }

    /// Takes a place, and the socket id that [`disconnect`](Self::disconnect) will name. Who is
    /// `resuming` a session that has its place may come in beyond the limit, until that is found.
    pub(crate) fn enter(
        &self,
        outbox: &outbox::Sender,
        id: Option<String>,
        resuming: bool,
    ) -> Result<SessionPermit, Full> {
        let mut all = self.0.all();
        let is_full = all.outboxes.len() >= self.0.limit && !resuming;
        if all.shutting_down || is_full {
            return Err(Full);
        }
        let key = all.outboxes.insert(outbox.clone());
        drop(all);
        let id = id.map(|id| self.0.by_id.add(&id.into(), outbox.clone(), || ()));
        Ok(SessionPermit { sessions: self.clone(), key, _id: id })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.all().outboxes.len()
    }

    /// Ends every session with this socket id.
    pub(crate) fn disconnect(&self, id: &str) {
        let outboxes = self.0.by_id.members(id);
        outboxes.iter().for_each(|outbox| outbox.close(Close::GoingAway));
    }

    /// Refuses new sessions and ends those that are there, some at a time so that their clients do
    /// not all return in the same moment. Returns once their connections are over, or `false` if
    /// some are not within `timeout`.
    ///
    /// Cancel safety: what has been ended stays so, and no new sessions are accepted.
    pub(crate) async fn shutdown(&self, timeout: Duration) -> bool {
        let mut ending = {
            let mut all = self.0.all();
            all.shutting_down = true;
            all.outboxes.iter().map(|(_, outbox)| outbox.clone()).collect::<Vec<_>>()
        };
        let shutdown = async {
            for batch in ending.chunks(BATCH) {
                batch.iter().for_each(|outbox| outbox.close(Close::Restart));
                tokio::time::sleep(PAUSE).await;
            }
            loop {
                ending.retain(|outbox| !outbox.is_over());
                if ending.is_empty() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(timeout, shutdown).await.is_ok()
    }
}

impl Shared {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut all = self.sessions.0.all();
        let gone = all.outboxes.try_remove(self.key);
        drop((all, gone));
    }
}

impl fmt::Debug for SessionRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRegistry").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// How many sessions a drain ends at once, and how long it waits before the next.
const BATCH: usize = 500;
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> outbox::Sender {
        outbox::channel(1000).0
    }

    #[test]
    fn there_is_room_for_as_many_as_the_limit_says() {
        let sessions = SessionRegistry::new(1);
        let first = sessions.enter(&outbox(), None, false).expect("room");
        assert!(sessions.enter(&outbox(), None, false).is_err());
        drop(first);
        assert!(sessions.enter(&outbox(), None, false).is_ok());
    }

    #[test]
    fn all_sessions_of_an_id_are_disconnected_and_no_others() {
        let sessions = SessionRegistry::new(10);
        let (a, _a) = outbox::channel(1000);
        let (b, _b) = outbox::channel(1000);
        let _members = [
            sessions.enter(&a, Some("user:1".into()), false).expect("room"),
            sessions.enter(&b, Some("user:2".into()), false).expect("room"),
        ];
        sessions.disconnect("user:1");
        assert!(a.is_closed());
        assert!(!b.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_all_sessions_and_waits_for_them() {
        let sessions = SessionRegistry::new(2000);
        let (outboxes, drains): (Vec<_>, Vec<_>) = (0..1200).map(|_| outbox::channel(1000)).unzip();
        let enter = |outbox| sessions.enter(outbox, None, false).expect("room");
        let members: Vec<_> = outboxes.iter().map(enter).collect();
        let shutdown = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.shutdown(Duration::from_secs(1)).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(outboxes.iter().all(outbox::Sender::is_closed));
        assert!(sessions.enter(&outbox(), None, false).is_err());
        drop(members);
        assert!(!shutdown.is_finished(), "the connections are still being closed");
        drop(drains);
        assert!(shutdown.await.expect("no panic"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_does_not_wait_for_ever() {
        let sessions = SessionRegistry::new(10);
        let (outbox, _drain) = outbox::channel(1000);
        let _member = sessions.enter(&outbox, None, false).expect("room");
        assert!(!sessions.shutdown(Duration::from_secs(1)).await);
    }
}
