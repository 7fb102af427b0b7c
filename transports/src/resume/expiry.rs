//! Deadlines in order, so that a sweep visits the sessions that are due and no others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Keys with the time at which each is due.
///
/// A key may have several entries. Rescheduling is lazy: an entry fires, its owner finds out what is
/// due by then and schedules the next one.
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

/// The deadlines of one session, in the schedule that it shares with the others.
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

    pub(crate) fn schedule(&self, at: Instant) {
        self.deadlines.lock().schedule(at, self.key.clone());
    }
}

impl<K: Ord + Clone + Send + Sync + 'static> Wake for Timer<K> {
    fn wake(self: Arc<Self>) {
        self.schedule(Instant::now());
    }
}

/// The earliest entry of one session. A later one is not worth scheduling, as the session finds out
/// what is due next when this one fires.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scheduled(Option<Instant>);

impl Scheduled {
    /// Returns `at` if an entry has to be scheduled then.
    #[must_use]
    pub(crate) fn earlier(&mut self, at: Instant) -> Option<Instant> {
        let is_earlier = self.0.is_none_or(|scheduled| at < scheduled);
        is_earlier.then(|| *self.0.insert(at))
    }

    /// An entry has fired.
    pub(crate) fn fired(&mut self, now: Instant) {
        self.0.take_if(|scheduled| *scheduled <= now);
    }
}

/// Returns the time `duration` after `start`, or a time that no process sees.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or_else(|| start + FAR_FUTURE)
}

const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
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
    fn only_an_earlier_deadline_is_scheduled_until_the_next_one_fires() {
        let start = Instant::now();
        let at = |second| start + second * SECOND;
        let mut scheduled = Scheduled::default();
        assert_eq!(scheduled.earlier(at(60)), Some(at(60)));
        assert_eq!(scheduled.earlier(at(90)), None);
        assert_eq!(scheduled.earlier(at(15)), Some(at(15)));
        scheduled.fired(at(14));
        assert_eq!(scheduled.earlier(at(15)), None);
        scheduled.fired(at(16));
        assert_eq!(scheduled.earlier(at(90)), Some(at(90)));
    }

    #[test]
    fn a_duration_that_no_clock_can_hold_is_never_due() {
        let start = Instant::now();
        assert!(after(start, Duration::MAX) > start + 1000 * SECOND);
        assert_eq!(after(start, SECOND), start + SECOND);
    }

    #[test]
    fn waking_a_timer_makes_its_session_due() {
        let deadlines = Arc::new(Mutex::new(Deadlines::default()));
        Arc::new(Timer::new(Arc::clone(&deadlines), 'a')).wake();
        assert_eq!(deadlines.lock().pop_due(Instant::now()), Some('a'));
    }
}
