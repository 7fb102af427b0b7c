//! All sessions of an endpoint: how many there are, whose they are, and how they are ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tower_channels_transports::{Close, Outbox};

use crate::topics::{Member, Topics};

/// All sessions of an endpoint. A cheap clone.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Shared>);

struct Shared {
    limit: usize,
    /// The lock is held for a few instructions, or to walk a batch of a drain.
    all: Mutex<All>,
    by_id: Arc<Topics<Outbox>>,
}

struct All {
    outboxes: Slab<Outbox>,
    draining: bool,
}

/// A session's place among the others, which it gives up when it is dropped.
pub(crate) struct Membership {
    sessions: Sessions,
    key: usize,
    _id: Option<Member<Outbox>>,
}

/// There is no place for another session.
#[derive(Debug)]
pub(crate) struct Full;

impl Sessions {
    /// Room for `limit` sessions.
    pub(crate) fn new(limit: usize) -> Self {
        let all = Mutex::new(All { outboxes: Slab::new(), draining: false });
        Self(Arc::new(Shared { limit, all, by_id: Arc::new(Topics::new()) }))
    }

    /// Takes a place, and the socket id that [`disconnect`](Self::disconnect) will name. Who is
    /// `resuming` a session that has its place may come in beyond the limit, until that is found.
    pub(crate) fn enter(
        &self,
        outbox: &Outbox,
        id: Option<String>,
        resuming: bool,
    ) -> Result<Membership, Full> {
        let mut all = self.0.all();
        let is_full = all.outboxes.len() >= self.0.limit && !resuming;
        if all.draining || is_full {
            return Err(Full);
        }
        let key = all.outboxes.insert(outbox.clone());
        drop(all);
        let id = id.map(|id| self.0.by_id.add(&id.into(), outbox.clone(), || ()));
        Ok(Membership { sessions: self.clone(), key, _id: id })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.all().outboxes.len()
    }

    /// Ends every session with this socket id.
    pub(crate) fn disconnect(&self, id: &str) {
        self.0.by_id.each(id, |outbox| outbox.close(Close::GoingAway));
    }

    /// Refuses new sessions and ends those that are there, some at a time so that their clients do
    /// not all return in the same moment. Returns once their connections are over, or `false` if
    /// some are not within `patience`.
    ///
    /// Cancel safety: what has been ended stays so, and no new sessions are accepted.
    pub(crate) async fn drain(&self, patience: Duration) -> bool {
        let mut ending = {
            let mut all = self.0.all();
            all.draining = true;
            all.outboxes.iter().map(|(_, outbox)| outbox.clone()).collect::<Vec<_>>()
        };
        let drain = async {
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
        tokio::time::timeout(patience, drain).await.is_ok()
    }
}

impl Shared {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut all = self.sessions.0.all();
        let gone = all.outboxes.try_remove(self.key);
        drop((all, gone));
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// How many sessions a drain ends at once, and how long it waits before the next.
const BATCH: usize = 500;
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(1000).0
    }

    #[test]
    fn there_is_room_for_as_many_as_the_limit_says() {
        let sessions = Sessions::new(1);
        let first = sessions.enter(&outbox(), None, false).expect("room");
        assert!(sessions.enter(&outbox(), None, false).is_err());
        drop(first);
        assert!(sessions.enter(&outbox(), None, false).is_ok());
    }

    #[test]
    fn all_sessions_of_an_id_are_disconnected_and_no_others() {
        let sessions = Sessions::new(10);
        let (a, _a) = Outbox::new(1000);
        let (b, _b) = Outbox::new(1000);
        let _members = [
            sessions.enter(&a, Some("user:1".into()), false).expect("room"),
            sessions.enter(&b, Some("user:2".into()), false).expect("room"),
        ];
        sessions.disconnect("user:1");
        assert!(a.is_closed());
        assert!(!b.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_all_sessions_and_waits_for_them() {
        let sessions = Sessions::new(2000);
        let (outboxes, drains): (Vec<_>, Vec<_>) = (0..1200).map(|_| Outbox::new(1000)).unzip();
        let enter = |outbox| sessions.enter(outbox, None, false).expect("room");
        let members: Vec<_> = outboxes.iter().map(enter).collect();
        let drain = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.drain(Duration::from_secs(1)).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(outboxes.iter().all(Outbox::is_closed));
        assert!(sessions.enter(&outbox(), None, false).is_err());
        drop(members);
        assert!(!drain.is_finished(), "the connections are still being closed");
        drop(drains);
        assert!(drain.await.expect("no panic"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_does_not_wait_for_ever() {
        let sessions = Sessions::new(10);
        let (outbox, _drain) = Outbox::new(1000);
        let _member = sessions.enter(&outbox, None, false).expect("room");
        assert!(!sessions.drain(Duration::from_secs(1)).await);
    }
}
