//! [`Busiest`]: how many broadcasts there are, and on which topics most of them, while somebody watches.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use slab::Slab;
use smol_str::SmolStr;

/// Counts broadcasts by topic, while somebody watches. Otherwise a broadcast costs the test of a flag.
#[derive(Default)]
pub(crate) struct Busiest {
    watchers: AtomicUsize,
    /// One for each watcher. Held for a look-up; no other lock is taken under it.
    counts: Mutex<Slab<Counts>>,
}

/// What was counted since it was read last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) broadcasts: u64,
    /// The busiest topics. Each count is too low by at most `broadcasts / CAPACITY`, and a topic with more than that is
    /// here: the algorithm of Misra and Gries.
    pub(crate) topics: HashMap<SmolStr, u64>,
}

/// How many topics are counted.
pub(crate) const CAPACITY: usize = 1024;

impl Busiest {
    /// Begins to count for one more watcher, whose key is returned.
    pub(crate) fn watch(&self) -> usize {
        let key = self.counts.lock().insert(Counts::default());
        self.watchers.fetch_add(1, Ordering::Relaxed);
        key
    }

    /// Ends what [`watch`](Self::watch) has begun.
    pub(crate) fn unwatch(&self, key: usize) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
        let counts = self.counts.lock().try_remove(key);
        drop(counts);
    }

    /// Returns what was counted for a watcher since the last call.
    pub(crate) fn take(&self, key: usize) -> Counts {
        self.counts.lock().get_mut(key).map(mem::take).unwrap_or_default()
    }

    /// Counts a broadcast.
    pub(super) fn add(&self, topic: &str) {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            self.counts.lock().iter_mut().for_each(|(_, counts)| counts.add(topic));
        }
    }
}

impl Counts {
    fn add(&mut self, topic: &str) {
        self.broadcasts += 1;
        if let Some(count) = self.topics.get_mut(topic) {
            *count += 1;
        } else if self.topics.len() < CAPACITY {
            self.topics.insert(topic.into(), 1);
        } else {
            // Each topic pays with a broadcast that was counted, so that this is rare.
            self.topics.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_counted_without_a_watcher_and_each_has_its_own_counts() {
        let busiest = Busiest::default();
        busiest.add("a");
        let (one, other) = (busiest.watch(), busiest.watch());
        assert_eq!(busiest.take(one), Counts::default());
        busiest.add("a");
        assert_eq!(busiest.take(one).topics, HashMap::from([("a".into(), 1)]));
        assert_eq!(busiest.take(one).broadcasts, 0);
        assert_eq!(busiest.take(other).broadcasts, 1);
        busiest.unwatch(one);
        busiest.unwatch(other);
        busiest.add("a");
        assert!(busiest.counts.lock().is_empty());
    }

    #[test]
    fn the_busiest_topic_is_found_among_more_than_are_counted() {
        let busiest = Busiest::default();
        let key = busiest.watch();
        for number in 0..50_000 {
            busiest.add(&format!("quiet:{number}"));
            if number % 10 == 0 {
                busiest.add("busy");
            }
        }
        let counts = busiest.take(key);
        assert_eq!(counts.broadcasts, 55_000);
        assert!(counts.topics.len() <= CAPACITY);
        let busy = counts.topics["busy"];
        assert!((5000 - 55_000 / CAPACITY as u64..=5000).contains(&busy), "{busy}");
        assert_eq!(counts.topics.values().max(), Some(&busy));
    }
}
