//! Closes the sessions that hold most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::reservation::Account;
use crate::limited;
use crate::telemetry::CLOSED_FOR_MEMORY;

/// A session that can be closed to free what it holds.
pub(crate) trait Relievable: Send + Sync {
    /// What it has reserved.
    fn account(&self) -> Option<&Arc<Account>>;

    /// How many bytes wait for its client, those included that other sessions hold, too; `None` once
    /// it is closed.
    fn backlog(&self) -> Option<usize>;

    /// Closes it, as it holds more than others. The caller holds no lock.
    fn overflow(&self);
}

/// All sessions that can be closed.
#[derive(Default)]
pub(super) struct Relief {
    /// Held for a look-up or a change; no other lock is taken under it.
    sessions: Mutex<Sessions>,
    /// Held while a run decides whom to close, and not while it closes them.
    run: Mutex<Run>,
}

#[derive(Default)]
struct Sessions {
    by_key: HashMap<u64, Weak<dyn Relievable>>,
    last_key: u64,
}

/// What the runs so far leave for the next one.
#[derive(Default)]
struct Run {
    /// When the next run may begin.
    next: Option<Instant>,
    /// When sessions were closed last.
    last_closed: Option<Instant>,
    /// What was closed, with the time: its memory is being freed.
    closed: Vec<(Instant, Weak<Account>)>,
}

/// A session with the bytes that it is to free.
type Candidate = (usize, Arc<dyn Relievable>);

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
    pub(super) fn is_locked(&self) -> bool {
        self.run.is_locked()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.lock().by_key.len()
    }

    /// Closes sessions that together hold `excess` bytes, besides what those hold that are closed
    /// already. Does nothing if another thread does so, or has done so a moment ago.
    pub(super) fn run(&self, excess: usize) {
        let Some(mut run) = self.run.try_lock() else { return };
        let now = Instant::now();
        if run.next.is_some_and(|next| now < next) {
            return;
        }
        let missing = excess.saturating_sub(run.being_freed(now));
        // Dropped without a lock: the last clone of a session drops wakers.
        let sessions = if missing > 0 { self.open_sessions() } else { Vec::new() };
        let chosen = choose(&sessions, missing);
        let accounts = chosen.iter().filter_map(|(_, session)| session.account());
        run.closed.extend(accounts.map(|account| (now, Arc::downgrade(account))));
        let has_failed = missing > 0 && chosen.is_empty();
        run.next = Some(now + if has_failed { LONG_PAUSE } else { PAUSE });
        let mut is_new_episode = false;
        if !chosen.is_empty() {
            let before = run.last_closed.replace(now);
            is_new_episode = before.is_none_or(|before| now - before >= EPISODE);
        }
        drop(run);
        if chosen.is_empty() {
            return;
        }
        chosen.iter().for_each(|(_, session)| session.overflow());
        let (closed, bytes) = (chosen.len(), chosen.iter().map(|(bytes, _)| bytes).sum::<usize>());
        CLOSED_FOR_MEMORY.add(closed as u64);
        if is_new_episode {
            limited!(
                WARN,
                closed,
                bytes,
                "memory exceeded: the sessions that hold most are closed"
            );
        } else {
            limited!(DEBUG, closed, bytes, "more sessions closed for memory");
        }
    }

    fn open_sessions(&self) -> Vec<Arc<dyn Relievable>> {
        self.sessions.lock().by_key.values().filter_map(Weak::upgrade).collect()
    }
}

impl Run {
    /// How much those still have reserved that were closed.
    fn being_freed(&mut self, now: Instant) -> usize {
        let mut sum = 0_usize;
        self.closed.retain(|(closed_at, account)| {
            let reserved = account.upgrade().map_or(0, |account| account.reserved());
            let is_being_freed = reserved > 0 && now - *closed_at < PATIENCE;
            sum = sum.saturating_add(if is_being_freed { reserved } else { 0 });
            is_being_freed
        });
        sum
    }
}

/// Chooses those that have reserved most, until they free `missing` bytes. If all together cannot, the
/// memory is held by what sessions share, and those are chosen for which most waits.
fn choose(sessions: &[Arc<dyn Relievable>], missing: usize) -> Vec<Candidate> {
    let open = || sessions.iter().filter_map(|session| Some((session.backlog()?, session)));
    let reserved =
        |session: &Arc<dyn Relievable>| session.account().map_or(0, |account| account.reserved());
    let own = open().map(|(_, session)| (reserved(session), Arc::clone(session)));
    let own: Vec<_> = own.filter(|(bytes, _)| *bytes >= WORTH_CLOSING).collect();
    let sum = own.iter().fold(0_usize, |sum, (bytes, _)| sum.saturating_add(*bytes));
    if sum >= missing {
        return largest(own, missing);
    }
    let all = open().map(|(bytes, session)| (bytes.max(reserved(session)), Arc::clone(session)));
    largest(all.filter(|(bytes, _)| *bytes >= WORTH_CLOSING).collect(), missing)
}

/// The largest that have `missing` bytes together.
fn largest(mut candidates: Vec<Candidate>, missing: usize) -> Vec<Candidate> {
    candidates.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
    let mut sum = 0_usize;
    let enough = candidates.iter().position(|(bytes, _)| {
        let is_enough = sum >= missing;
        sum = sum.saturating_add(*bytes);
        is_enough
    });
    candidates.truncate(enough.unwrap_or(candidates.len()));
    candidates
}

/// The least time between two runs, in which the tasks of closed sessions free what they hold.
const PAUSE: Duration = Duration::from_millis(10);

/// The least time after a run that found nobody to close.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// How long a closed session may take to free what it has reserved.
const PATIENCE: Duration = Duration::from_secs(30);

/// If nobody was closed for so long, the next close is worth a warning.
const EPISODE: Duration = Duration::from_secs(10);

/// A session that holds less than this is not what fills the memory.
const WORTH_CLOSING: usize = 8 * 1024;
