//! The sessions of one long-poll service, and the task that ends those that are no longer polled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::session::LongPollSession;
use super::token::Id;
use crate::resume::Connected;
use crate::resume::expiry::{Deadlines, Timer};
use crate::resume::sweeper::{self, Sweep};
use crate::session::Session;
use crate::telemetry::Handles;

#[derive(Debug)]
pub(super) struct Registry<S: Session> {
    session_timeout: Duration,
    /// How long a poll waits.
    pub(super) poll_timeout: Duration,
    handles: Arc<Handles>,
    /// Held for a look-up or a change. Of a session's locks only those of a new one are taken under it,
    /// which nobody else has, and that of the deadlines.
    sessions: Mutex<Sessions<S>>,
    deadlines: Arc<Mutex<Deadlines<Id>>>,
}

#[derive(Debug)]
struct Sessions<S: Session> {
    by_id: HashMap<Id, Arc<LongPollSession<S>>>,
    /// The task that ends sessions, which runs while there are any. It may have stopped early, with
    /// its runtime or because a session's `Drop` panicked: then the next session starts it again.
    sweeper: Option<JoinHandle<()>>,
}

impl<S: Session> Registry<S> {
    /// Creates a registry whose sessions end after `session_timeout` without a poll.
    pub(super) fn new(
        session_timeout: Duration,
        poll_timeout: Duration,
        handles: Arc<Handles>,
    ) -> Arc<Self> {
        let sessions = Mutex::new(Sessions { by_id: HashMap::new(), sweeper: None });
        let deadlines = Arc::default();
        Arc::new(Self { session_timeout, poll_timeout, handles, sessions, deadlines })
    }

    /// Creates the session of a new token. Of the tokens for one resumable session that were not used,
    /// only the newest stays.
    pub(super) fn insert(self: &Arc<Self>, id: Id, connected: Connected<S>, reads_binary: bool) {
        if let Some(older) = connected.replace_token(id)
            && self.find(&older).is_some_and(|older| older.discard_unused())
        {
            self.remove(&older);
        }
        let mut sessions = self.sessions.lock();
        let timer = Timer::new(Arc::clone(&self.deadlines), id);
        let (timeout, handles) = (self.session_timeout, Arc::clone(&self.handles));
        let session = LongPollSession::new(connected, reads_binary, timeout, timer, handles);
        sessions.by_id.insert(id, Arc::new(session));
        if sessions.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            let tick = (self.session_timeout / 4).max(Duration::from_millis(1));
            sessions.sweeper = Some(tokio::spawn(sweeper::run(Arc::downgrade(self), tick)));
        }
    }

    pub(super) fn find(&self, id: &Id) -> Option<Arc<LongPollSession<S>>> {
        self.sessions.lock().by_id.get(id).map(Arc::clone)
    }

    pub(super) fn remove(&self, id: &Id) {
        let removed = self.sessions.lock().by_id.remove(id);
        // The application's `Drop` may run here, outside the lock.
        drop(removed);
    }
}

impl<S: Session> Sweep for Registry<S> {
    type Key = Id;

    fn deadlines(&self) -> &Mutex<Deadlines<Id>> {
        &self.deadlines
    }

    fn visit(&self, id: &Id, now: Instant) {
        if self.find(id).is_some_and(|session| session.visit(now)) {
            self.remove(id);
        }
    }

    fn clear_if_empty(&self) -> bool {
        let mut sessions = self.sessions.lock();
        let is_empty = sessions.by_id.is_empty();
        if is_empty {
            // A burst of sessions leaves no large map behind.
            *sessions = Sessions { by_id: HashMap::new(), sweeper: None };
            self.deadlines.lock().clear();
        }
        is_empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Close, Inbound};
    use crate::outbox;
    use crate::resume::sweeper::Swept;

    struct Silent;

    impl Session for Silent {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            Ok(())
        }
    }

    fn registry<S: Session>(timeout: Duration) -> Arc<Registry<S>> {
        Registry::new(timeout, timeout, Arc::new(Handles::new()))
    }

    fn insert(registry: &Arc<Registry<Silent>>, id: Id) -> outbox::Sender {
        let (outbox, receiver) = outbox::channel(1000);
        registry.insert(id, Connected::own(Silent, receiver), false);
        outbox
    }

    const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_never_polled_ends() {
        let registry = registry(SESSION_TIMEOUT);
        let outbox = insert(&registry, [1; 22]);
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert!(registry.find(&[1; 22]).is_some() && !outbox.is_closed());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(registry.find(&[1; 22]).is_none() && outbox.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_sweeper_ends_with_the_last_session_and_starts_again_with_the_next() {
        let registry = registry(SESSION_TIMEOUT);
        for id in [[1; 22], [2; 22]] {
            insert(&registry, id);
            assert!(registry.sessions.lock().sweeper.is_some());
            tokio::time::sleep(2 * SESSION_TIMEOUT).await;
            assert!(registry.sessions.lock().sweeper.is_none());
            assert!(registry.find(&id).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_closed_between_two_polls_does_not_wait_for_its_timeout() {
        let registry = registry(SESSION_TIMEOUT);
        let outbox = insert(&registry, [1; 22]);
        outbox.close(Close::GoingAway);
        tokio::time::sleep(SESSION_TIMEOUT / 3).await;
        assert!(registry.find(&[1; 22]).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_visits_only_what_is_due() {
        let registry = registry(SESSION_TIMEOUT);
        let number = |number: u32| {
            let mut id = [0; 22];
            id[..4].copy_from_slice(&number.to_be_bytes());
            id
        };
        (0..1000).for_each(|n| drop(insert(&registry, number(n))));
        tokio::time::advance(SESSION_TIMEOUT / 2).await;
        (1000..3000).for_each(|n| drop(insert(&registry, number(n))));
        assert_eq!(registry.sweep(Instant::now(), 256), Swept::UpToDate(0));
        let due = Instant::now() + SESSION_TIMEOUT / 2;
        for _ in 0..3 {
            assert_eq!(registry.sweep(due, 256), Swept::Limited);
        }
        assert_eq!(registry.sweep(due, 256), Swept::UpToDate(1000 - 3 * 256));
        assert_eq!(registry.sessions.lock().by_id.len(), 2000);
    }

    #[test]
    fn sessions_expire_even_if_the_runtime_of_the_first_is_gone() {
        let registry = registry(Duration::from_millis(40));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime().expect("a runtime").block_on(async { insert(&registry, [1; 22]) });
        runtime().expect("a runtime").block_on(async {
            insert(&registry, [2; 22]);
            let expired = async {
                while !registry.sessions.lock().by_id.is_empty() {
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
                assert!(!self.0, "as requested");
            }
        }
        let registry = registry(SESSION_TIMEOUT);
        for (id, panics) in [([1; 22], true), ([2; 22], false)] {
            let (outbox, receiver) = outbox::channel(1000);
            registry.insert(id, Connected::own(Fragile(panics), receiver), false);
            tokio::time::sleep(2 * SESSION_TIMEOUT).await;
            assert!(outbox.is_closed());
        }
        assert!(registry.find(&[2; 22]).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_end_with_their_service() {
        let registry = registry(SESSION_TIMEOUT);
        let outbox = insert(&registry, [1; 22]);
        drop(registry);
        assert!(outbox.is_closed());
    }
}
