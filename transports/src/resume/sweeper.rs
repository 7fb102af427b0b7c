//! The task that visits the sessions of a registry when they are due.

use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::expiry::Deadlines;

/// A registry of sessions that have deadlines.
pub(crate) trait Sweep: Send + Sync + 'static {
    /// Names a session.
    type Key: Ord;

    fn deadlines(&self) -> &Mutex<Deadlines<Self::Key>>;

    /// Does what is due for a session, which may be gone already.
    fn visit(&self, key: &Self::Key, now: Instant);

    /// Releases the memory of a registry without sessions. Returns whether there are none.
    fn clear_if_empty(&self) -> bool;

    /// Visits at most [`BATCH`] sessions that are due, ahead of the task.
    fn sweep_now(&self) {
        for _ in 0..BATCH {
            let due = self.deadlines().lock().pop_due(Instant::now());
            let Some(key) = due else { return };
            self.visit(&key, Instant::now());
        }
    }

    /// Visits at most `limit` sessions that are due.
    fn sweep(&self, now: Instant, limit: usize) -> Swept {
        for visited in 0..limit {
            let due = self.deadlines().lock().pop_due(now);
            match due {
                Some(key) => self.visit(&key, now),
                None if self.clear_if_empty() => return Swept::Empty,
                None => return Swept::UpToDate(visited),
            }
        }
        Swept::Limited
    }
}

/// The result of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swept {
    /// Nothing more is due. How many were visited.
    UpToDate(usize),
    /// The limit is reached, and more may be due.
    Limited,
    /// No session is left, and the task ends.
    Empty,
}

/// Sweeps every `tick` until the registry is empty or gone.
pub(crate) async fn run<R: Sweep>(registry: Weak<R>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        loop {
            let Some(registry) = registry.upgrade() else { return };
            let swept = registry.sweep(Instant::now(), BATCH);
            drop(registry);
            match swept {
                Swept::UpToDate(_) => break,
                // Other tasks get their turn.
                Swept::Limited => tokio::task::yield_now().await,
                Swept::Empty => return,
            }
        }
    }
}

/// How many sessions are visited before other tasks get their turn.
const BATCH: usize = 256;
