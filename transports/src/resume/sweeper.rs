//! The task that visits the sessions of a registry when they are due.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

/// A registry of sessions that have deadlines.
pub(crate) trait Sweep: Send + Sync + 'static {
    /// Visits at most `limit` sessions that are due.
    fn sweep(&self, now: Instant, limit: usize) -> Swept;
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

/// How many sessions are visited in one poll of the task.
const BATCH: usize = 256;
