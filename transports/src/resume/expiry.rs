//! Deadlines in order, so that a sweep visits the sessions that are due and no others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Wake;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Keys with the time at which each is due.
///
/// Rescheduling is lazy: an entry is replaced by an earlier one only. When it fires, its owner finds
/// out what is due by then and schedules the next one.
#[derive(Debug)]
pub(crate) struct Deadlines<K>(BTreeSet<(Instant, K)>);

impl<K: Ord> Deadlines<K> {
    /// Adds an entry.
    pub(crate) fn schedule(&mut self, at: Instant, key: K) {
        self.0.insert((at, key));
    }

    /// Removes the earliest entry, if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.0.first()?.0 > now {
            return None;
        }
        self.0.pop_first().map(|(_, key)| key)
    }

    /// Removes an entry before it fires.
    pub(crate) fn cancel(&mut self, at: Instant, key: K) {
        self.0.remove(&(at, key));
    }

    /// Removes all entries.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

/// The deadline of one session, in the schedule that it shares with the others.
///
/// As a waker it makes the session due at once.
#[derive(Debug)]
pub(crate) struct Timer<K> {
    deadlines: Arc<Mutex<Deadlines<K>>>,
    key: K,
}

impl<K: Ord + Clone> Timer<K> {
    pub(crate) fn new(deadlines: Arc<Mutex<Deadlines<K>>>, key: K) -> Self {
        Self { deadlines, key }
    }
}

impl<K: Ord + Clone + Send + Sync + 'static> Wake for Timer<K> {
    fn wake(self: Arc<Self>) {
        self.deadlines.lock().schedule(Instant::now(), self.key.clone());
    }
}

/// The time for which a session is scheduled, if it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scheduled(Option<Instant>);

impl Scheduled {
    /// Schedules the session for `at`, unless it is scheduled for an earlier time.
    pub(crate) fn schedule<K: Ord + Clone>(&mut self, timer: &Timer<K>, at: Instant) {
        if self.0.is_some_and(|scheduled| scheduled <= at) {
            return;
        }
        let mut deadlines = timer.deadlines.lock();
        if let Some(later) = self.0.replace(at) {
            deadlines.cancel(later, timer.key.clone());
        }
        deadlines.schedule(at, timer.key.clone());
    }

    /// Removes the entry of a session that is gone.
    pub(crate) fn cancel<K: Ord + Clone>(&mut self, timer: &Timer<K>) {
        if let Some(at) = self.0.take() {
            timer.deadlines.lock().cancel(at, timer.key.clone());
        }
    }

    /// The session is visited, because an entry has fired.
    pub(crate) fn fired(&mut self, now: Instant) {
        self.0.take_if(|scheduled| *scheduled <= now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn entries_are_due_in_order_and_not_before_their_time() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        for (second, key) in [(3, 'c'), (1, 'a'), (2, 'b')] {
            deadlines.schedule(start + second * SECOND, key);
        }
        assert_eq!(deadlines.pop_due(start), None);
        assert_eq!(deadlines.pop_due(start + 2 * SECOND), Some('a'));
        assert_eq!(deadlines.pop_due(start + 2 * SECOND), Some('b'));
        assert_eq!(deadlines.pop_due(start + 2 * SECOND), None);
        deadlines.cancel(start + 3 * SECOND, 'c');
        deadlines.schedule(start + SECOND, 'd');
        deadlines.clear();
        assert_eq!(deadlines.pop_due(start + 3 * SECOND), None);
    }

    #[test]
    fn a_key_may_be_due_several_times() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.schedule(start, 'a');
        deadlines.schedule(start + SECOND, 'a');
        deadlines.schedule(start + SECOND, 'a');
        let due: Vec<_> = std::iter::from_fn(|| deadlines.pop_due(start + SECOND)).collect();
        assert_eq!(due, ['a', 'a']);
    }

    #[test]
    fn a_session_is_scheduled_once_for_the_earliest_time() {
        let start = Instant::now();
        let at = |second| start + second * SECOND;
        let deadlines = Arc::new(Mutex::new(Deadlines::default()));
        let timer = Timer::new(Arc::clone(&deadlines), 'a');
        let mut scheduled = Scheduled::default();
        for second in [60, 90, 15, 60] {
            scheduled.schedule(&timer, at(second));
        }
        assert_eq!(deadlines.lock().pop_due(at(14)), None);
        assert_eq!(deadlines.lock().pop_due(at(100)), Some('a'));
        assert_eq!(deadlines.lock().pop_due(at(100)), None);
        scheduled.fired(at(15));
        scheduled.schedule(&timer, at(90));
        assert_eq!(deadlines.lock().pop_due(at(90)), Some('a'));
    }

    #[test]
    fn waking_a_timer_makes_its_session_due() {
        let deadlines = Arc::new(Mutex::new(Deadlines::default()));
        Arc::new(Timer::new(Arc::clone(&deadlines), 'a')).wake();
        assert_eq!(deadlines.lock().pop_due(Instant::now()), Some('a'));
    }
}
