//! The sessions of one long-poll service, and the task that ends those nobody polls any more.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::session::{LongPollSession, Shared};
use super::token::Id;
use crate::session::Session;

#[derive(Debug)]
pub(super) struct Registry<S: Session> {
    session_timeout: Duration,
    /// The lock guards the map for one look-up or change, and no session's lock is taken under it.
    sessions: Mutex<Sessions<S>>,
}

#[derive(Debug)]
struct Sessions<S: Session> {
    by_id: HashMap<Id, Arc<Shared<S>>, BuildHasherDefault<IdHasher>>,
    /// The task below, which there is while there is a session. It may have ended before its time,
    /// with its runtime or because a session's `Drop` panicked: then the next session starts it anew.
    reaper: Option<JoinHandle<()>>,
}

/// Hashes by what an id begins with: it was drawn at random, and here alone. Ids that clients make up
/// are only looked for.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(bytes) = bytes.first_chunk() {
            // A character is six bits of chance in eight: this spreads them.
            let wide = u128::from(u64::from_ne_bytes(*bytes)) * 0x9e37_79b9_7f4a_7c15;
            self.0 = (wide >> 64) as u64 ^ wide as u64;
        }
    }

    // An array says first how long it is.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<S: Session> Registry<S> {
    /// `session_timeout` is how long a session may be without a poll.
    pub(super) fn new(session_timeout: Duration) -> Arc<Self> {
        let sessions = Sessions { by_id: HashMap::default(), reaper: None };
        Arc::new(Self { session_timeout, sessions: Mutex::new(sessions) })
    }

    pub(super) fn insert(self: &Arc<Self>, id: Id, session: LongPollSession<S>) {
        let mut sessions = self.lock();
        sessions.by_id.insert(id, Arc::new(Shared::new(session)));
        if sessions.reaper.as_ref().is_none_or(JoinHandle::is_finished) {
            let tick = (self.session_timeout / 4).max(Duration::from_millis(1));
            sessions.reaper = Some(tokio::spawn(reap(Arc::downgrade(self), tick)));
        }
    }

    pub(super) fn find(&self, id: &Id) -> Option<Arc<Shared<S>>> {
        self.lock().by_id.get(id).map(Arc::clone)
    }

    pub(super) fn remove(&self, id: &Id) {
        let removed = self.lock().by_id.remove(id);
        // The application's `Drop` may run here, outside the lock.
        drop(removed);
    }

    /// Ends what expired. Whether anything is left.
    fn sweep(&self, now: Instant) -> bool {
        let all: Vec<_> = {
            let sessions = self.lock();
            sessions.by_id.iter().map(|(id, session)| (*id, Arc::clone(session))).collect()
        };
        for (id, session) in all {
            if session.with(|session| session.expire(now, self.session_timeout)) {
                self.remove(&id);
            }
        }
        let mut sessions = self.lock();
        if sessions.by_id.is_empty() {
            // A burst of sessions leaves no large map behind.
            *sessions = Sessions { by_id: HashMap::default(), reaper: None };
        }
        sessions.reaper.is_some()
    }

    /// Nothing panics while holding the lock, so poison has no meaning here.
    fn lock(&self) -> MutexGuard<'_, Sessions<S>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends with the last session, or with the service.
async fn reap<S: Session>(registry: Weak<Registry<S>>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        let Some(registry) = registry.upgrade() else { return };
        if !registry.sweep(Instant::now()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Close, Inbound};
    use crate::outbox;

    struct Silent;

    impl Session for Silent {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            Ok(())
        }
    }

    fn session() -> (LongPollSession<Silent>, outbox::Sender) {
        let (outbox, receiver) = outbox::channel(1000);
        let connected = crate::resume::Connected::Own(Silent, receiver);
        (LongPollSession::new(connected, None, false, Instant::now()), outbox)
    }

    const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_never_polled_ends() {
        let registry = Registry::new(SESSION_TIMEOUT);
        let (session, outbox) = session();
        registry.insert([1; 22], session);
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert!(registry.find(&[1; 22]).is_some() && !outbox.is_closed());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(registry.find(&[1; 22]).is_none() && outbox.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_last_session_and_begins_again_with_the_next() {
        let registry = Registry::new(SESSION_TIMEOUT);
        for id in [[1; 22], [2; 22]] {
            registry.insert(id, session().0);
            assert!(registry.lock().reaper.is_some());
            tokio::time::sleep(2 * SESSION_TIMEOUT).await;
            assert!(registry.lock().reaper.is_none());
            assert!(registry.find(&id).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_closed_between_two_polls_does_not_wait_to_expire() {
        let registry = Registry::new(SESSION_TIMEOUT);
        let (session, outbox) = session();
        registry.insert([1; 22], session);
        outbox.close(Close::GoingAway);
        tokio::time::sleep(SESSION_TIMEOUT / 3).await;
        assert!(registry.find(&[1; 22]).is_none());
    }

    #[test]
    fn sessions_expire_even_if_the_runtime_of_the_first_is_gone() {
        let registry = Registry::new(Duration::from_millis(40));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime().expect("a runtime").block_on(async { registry.insert([1; 22], session().0) });
        runtime().expect("a runtime").block_on(async {
            registry.insert([2; 22], session().0);
            let expired = async {
                while !registry.lock().by_id.is_empty() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), expired).await.expect("both expire");
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_panics_when_it_is_dropped_keeps_no_other_alive() {
        struct Fragile(bool);
        impl Session for Fragile {
            fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
                Ok(())
            }
        }
        impl Drop for Fragile {
            fn drop(&mut self) {
                assert!(!self.0, "it was asked to panic");
            }
        }
        let registry = Registry::new(SESSION_TIMEOUT);
        for (id, panics) in [([1; 22], true), ([2; 22], false)] {
            let (outbox, receiver) = outbox::channel(1000);
            let session = {
                let connected = crate::resume::Connected::Own(Fragile(panics), receiver);
                LongPollSession::new(connected, None, false, Instant::now())
            };
            registry.insert(id, session);
            tokio::time::sleep(2 * SESSION_TIMEOUT).await;
            assert!(outbox.is_closed());
        }
        assert!(registry.lock().by_id.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_end_with_their_service() {
        let registry = Registry::new(SESSION_TIMEOUT);
        let (session, outbox) = session();
        registry.insert([1; 22], session);
        drop(registry);
        assert!(outbox.is_closed());
    }
}
