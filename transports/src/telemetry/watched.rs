//! What is counted only while somebody watches, whether a recorder is installed or not. Otherwise it costs the test of a flag.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::Counter;

/// A counter that can also be read, while somebody watches.
#[derive(Debug)]
pub(crate) struct Tally {
    counter: Counter,
    watchers: AtomicUsize,
    counted: AtomicU64,
}

impl Tally {
    pub(crate) fn new(counter: Counter) -> Self {
        Self { counter, watchers: AtomicUsize::new(0), counted: AtomicU64::new(0) }
    }

    pub(crate) fn increment(&self, by: u64) {
        self.counter.increment(by);
        if self.watchers.load(Ordering::Relaxed) > 0 {
            self.counted.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Somebody begins to watch, or ends it.
    pub(crate) fn watch(&self, begins: bool) {
        change(&self.watchers, begins);
    }

    /// Returns what was counted while somebody watched.
    pub(crate) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }
}

/// The upper bounds of the classes of round trips, in milliseconds. What takes longer is in one more class, the last.
pub const ROUND_TRIPS: [f64; 20] = [
    0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0, 150.0, 250.0,
    500.0, 1000.0, 2000.0, 5000.0,
];

/// How many round trips of Pings took how long, while somebody watches.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    watchers: AtomicUsize,
    classes: [AtomicU64; ROUND_TRIPS.len() + 1],
}

impl RoundTrips {
    pub(crate) fn record(&self, took: Duration) {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            let millis = took.as_secs_f64() * 1000.0;
            let class = ROUND_TRIPS.partition_point(|bound| *bound < millis);
            self.classes[class].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Somebody begins to watch, or ends it.
    pub(crate) fn watch(&self, begins: bool) {
        change(&self.watchers, begins);
    }

    /// Returns how many there were in each class while somebody watched.
    pub(crate) fn counted(&self) -> [u64; ROUND_TRIPS.len() + 1] {
        self.classes.each_ref().map(|class| class.load(Ordering::Relaxed))
    }
}

fn change(watchers: &AtomicUsize, begins: bool) {
    if begins {
        watchers.fetch_add(1, Ordering::Relaxed);
    } else {
        watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_counted_unless_somebody_watches() {
        let tally = Tally::new(Counter::noop());
        let round_trips = RoundTrips::default();
        let count = || {
            tally.increment(3);
            round_trips.record(Duration::from_millis(4));
            (tally.counted(), round_trips.counted().iter().sum::<u64>())
        };
        assert_eq!(count(), (0, 0));
        tally.watch(true);
        round_trips.watch(true);
        assert_eq!(count(), (3, 1));
        tally.watch(false);
        round_trips.watch(false);
        assert_eq!(count(), (3, 1));
    }

    #[test]
    fn a_round_trip_is_in_the_class_of_the_next_bound() {
        let round_trips = RoundTrips::default();
        round_trips.watch(true);
        for micros in [0, 250, 251, 5_000_000, 5_000_001] {
            round_trips.record(Duration::from_micros(micros));
        }
        let counted = round_trips.counted();
        assert_eq!((counted[0], counted[1]), (2, 1));
        assert_eq!((counted[ROUND_TRIPS.len() - 1], counted[ROUND_TRIPS.len()]), (1, 1));
    }
}
