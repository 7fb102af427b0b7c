//! Closes the sessions that hold most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A session that can be closed to free what it holds.
pub(crate) trait Relievable: Send + Sync {
    /// How many bytes wait for its client or are reserved by it; `None` once it is closed.
    fn weight(&self) -> Option<usize>;

    /// Closes it, as it holds more than others. The caller holds no lock.
    fn overflow(&self);
}

/// All sessions that can be closed.
#[derive(Default)]
pub(super) struct Relief {
    /// Held for a look-up or a change; no other lock is taken under it.
    sessions: Mutex<Sessions>,
    /// Held during a run. When the last one ended.
    last: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Sessions {
    by_key: HashMap<u64, Weak<dyn Relievable>>,
    last_key: u64,
}

impl Relief {
    pub(super) fn add(&self, session: Weak<dyn Relievable>) -> u64 {
        let mut sessions = self.sessions.lock();
        sessions.last_key += 1;
        let key = sessions.last_key;
        sessions.by_key.insert(key, session);
        key
    }

    pub(super) fn remove(&self, key: u64) {
        let mut sessions = self.sessions.lock();
        sessions.by_key.remove(&key);
        if sessions.by_key.len() < sessions.by_key.capacity() / 8 {
            let room = 2 * sessions.by_key.len();
            sessions.by_key.shrink_to(room);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.lock().by_key.len()
    }

    /// Closes sessions that together hold `excess` bytes. Does nothing if another thread does so, or
    /// has done so a moment ago: what it closed is still being freed.
    pub(super) fn run(&self, excess: usize) {
        let Some(mut last) = self.last.try_lock() else { return };
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        let sessions: Vec<_> =
            self.sessions.lock().by_key.values().filter_map(Weak::upgrade).collect();
        let weight = |session: Arc<dyn Relievable>| Some((session.weight()?, session));
        let mut sessions: Vec<_> = sessions.into_iter().filter_map(weight).collect();
        sessions.retain(|(weight, _)| *weight >= WORTH_CLOSING);
        sessions.sort_unstable_by_key(|(weight, _)| Reverse(*weight));
        let (mut freed, mut closed) = (0_usize, 0_u64);
        for (weight, session) in &sessions {
            if freed >= excess {
                break;
            }
            session.overflow();
            freed = freed.saturating_add(*weight);
            closed += 1;
        }
        *last = Some(Instant::now());
        drop(last);
        metrics::counter!("tower_channels_sessions_closed_for_memory").increment(closed);
        tracing::warn!(closed, freed, "memory exceeded: the sessions that hold most are closed");
    }
}

/// The least time between two runs, in which the tasks of closed sessions free what they hold.
const PAUSE: Duration = Duration::from_millis(10);

/// A session that holds less than this is not what fills the memory.
const WORTH_CLOSING: usize = 8 * 1024;
