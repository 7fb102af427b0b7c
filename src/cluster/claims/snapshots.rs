//! [`Snapshots`]: up to which number a node has delivered everything, for a while.

use std::collections::VecDeque;
use std::time::Duration;

/// What had been delivered at each of the last moments. Plain code: time is an argument.
#[derive(Debug, Default)]
pub(super) struct Snapshots(VecDeque<(Duration, u64)>);

/// For how long the number of one topic may come after a higher one of another, or a message be on its way to the outboxes.
const MARGIN: Duration = Duration::from_secs(2);

impl Snapshots {
    /// The store has handed over this number last. Returns the number up to which everything was delivered before: what is
    /// delivered from now on has a higher one. 0 as long as none is known.
    pub(super) fn take(&mut self, number: u64, now: Duration) -> u64 {
        self.0.push_back((now, number));
        let is_old = |(at, _): &(Duration, u64)| now.saturating_sub(*at) >= MARGIN;
        while self.0.get(1).is_some_and(is_old) {
            self.0.pop_front();
        }
        let is_known = self.0.front().is_some_and(is_old);
        // The lowest: a topic that is read again may be behind.
        let lowest = self.0.iter().map(|(_, number)| *number).min();
        lowest.filter(|_| is_known).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_number_counts_two_seconds_after_it_was_delivered() {
        let mut snapshots = Snapshots::default();
        let taken = [(0, 5), (1000, 7), (1999, 8), (2000, 9), (2999, 20), (3000, 30), (9000, 31)];
        let counts = taken.map(|(at, number)| snapshots.take(number, ms(at)));
        assert_eq!(counts, [0, 0, 0, 5, 5, 7, 30]);
    }

    #[test]
    fn a_lower_number_counts_at_once() {
        let mut snapshots = Snapshots::default();
        snapshots.take(100, ms(0));
        snapshots.take(110, ms(1000));
        assert_eq!(snapshots.take(3, ms(2000)), 3);
        assert_eq!(snapshots.take(4, ms(3000)), 3);
    }

    #[test]
    fn no_more_is_kept_than_the_margin_needs() {
        let mut snapshots = Snapshots::default();
        for second in 0..100 {
            snapshots.take(second, ms(1000 * second));
        }
        assert_eq!(snapshots.0.len(), 3);
    }
}
