//! How a shutdown proceeds: [`ShutdownConfig`], and the pace at which it closes connections.

use std::time::Duration;

/// Configures [`Endpoint::shutdown`](crate::Endpoint::shutdown). A `Duration` converts into one with
/// this timeout.
///
/// ```
/// use std::time::Duration;
/// use tower_channels::ShutdownConfig;
///
/// let config = ShutdownConfig::new(Duration::from_secs(30)).sessions_per_second(1000);
/// # let _ = config;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "pass it to `Endpoint::shutdown`"]
pub struct ShutdownConfig {
    pub(super) timeout: Duration,
    sessions_per_second: Option<u32>,
}

impl ShutdownConfig {
    /// Creates a configuration. A shutdown that is not done after `timeout` closes the connections that
    /// are left all at once, and returns `false`. With a `timeout` of zero it closes all of them.
    ///
    /// With other nodes that can take the sessions, the timeout is divided: over the first half connections are ended, until
    /// the last quarter begins clients are accepted, and in that quarter sessions are left behind for which no client has
    /// come. Give it half a minute or more, and the process as long before it is killed.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, sessions_per_second: None }
    }

    /// Sets how many connections are closed in a second, at least 1. Their clients reconnect at this
    /// pace, except for those that are left when the timeout has passed: choose a timeout that suffices
    /// for the number of connections; with other nodes, three quarters of it. By default all are closed evenly over half of the timeout, but at least 10 in a second;
    /// the other half is left for the last ones to end.
    pub fn sessions_per_second(mut self, sessions: u32) -> Self {
        self.sessions_per_second = Some(sessions.max(1));
        self
    }

    /// Returns the pace at which to close `total` connections.
    pub(super) fn pace(&self, total: usize) -> Pace {
        let at = |per_second: u32| {
            Duration::try_from_secs_f64(total as f64 / f64::from(per_second))
                .unwrap_or(Duration::MAX)
        };
        let over = match self.sessions_per_second {
            Some(per_second) => at(per_second),
            None => (self.timeout / 2).min(at(SLOWEST)),
        };
        Pace { total, over }
    }

    /// Returns whether it does not do everything at once.
    pub(crate) fn lasts(&self) -> bool {
        !self.timeout.is_zero()
    }

    /// Returns what is done when, if there are other nodes.
    pub(super) fn schedule(&self) -> Schedule {
        Schedule { timeout: self.timeout }
    }
}

/// When a node that shuts down does what, if there are others which can take its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    timeout: Duration,
}

impl Schedule {
    /// How long after the start the last quarter begins, in which nobody is admitted.
    pub(super) fn last_quarter(self) -> Duration {
        self.timeout / 4 * 3
    }

    /// Into the last quarter, how long the sessions have that have just lost their connection. The other half of it is left
    /// for leaving them behind.
    pub(super) fn patience(self) -> Duration {
        self.timeout / 8
    }

    /// Returns the pace at which so many sessions are left behind that have slept before the last quarter.
    pub(super) fn deposits(self, total: usize) -> Pace {
        Pace { total, over: self.patience() }
    }
}

/// The slowest pace by default, in sessions per second: a few sessions are no storm.
const SLOWEST: u32 = 10;

impl From<Duration> for ShutdownConfig {
    fn from(timeout: Duration) -> Self {
        Self::new(timeout)
    }
}

/// Events that are spread evenly over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    total: usize,
    over: Duration,
}

impl Pace {
    /// How many events are due `elapsed` after the start. The first one is due at once.
    pub(super) fn due(&self, elapsed: Duration) -> usize {
        if elapsed >= self.over {
            return self.total;
        }
        let share = elapsed.as_secs_f64() / self.over.as_secs_f64();
        ((self.total as f64 * share) as usize).saturating_add(1).min(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn sessions_are_spread_over_half_of_the_timeout() {
        let pace = ShutdownConfig::new(20 * SECOND).pace(1000);
        let due = [0, 1, 5, 9, 10, 15].map(|second| pace.due(second * SECOND));
        assert_eq!(due, [1, 101, 501, 901, 1000, 1000]);
    }

    #[test]
    fn a_few_sessions_do_not_take_half_of_a_long_timeout() {
        let pace = ShutdownConfig::new(3600 * SECOND).pace(20);
        let due = [0, 1, 2].map(|second| pace.due(second * SECOND));
        assert_eq!(due, [1, 11, 20]);
    }

    #[test]
    fn a_configured_pace_counts_whatever_the_timeout_is() {
        let pace = ShutdownConfig::new(SECOND).sessions_per_second(4).pace(10);
        let due = [0, 1, 2, 3].map(|second| pace.due(second * SECOND));
        assert_eq!(due, [1, 5, 9, 10]);
        let slowest = ShutdownConfig::new(SECOND).sessions_per_second(0).pace(3);
        assert_eq!([0, 1, 2, 3].map(|second| slowest.due(second * SECOND)), [1, 2, 3, 3]);
    }

    #[test]
    fn sessions_that_sleep_are_left_behind_over_an_eighth_of_the_timeout() {
        let schedule = ShutdownConfig::new(80 * SECOND).schedule();
        assert_eq!(schedule.last_quarter(), 60 * SECOND);
        let pace = schedule.deposits(100);
        let due = [0, 1, 5, 9, 10].map(|second| pace.due(second * SECOND));
        assert_eq!(due, [1, 11, 51, 91, 100]);
        assert_eq!(schedule.patience(), 10 * SECOND);
        assert_eq!(schedule.deposits(0).due(SECOND), 0);
    }

    #[test]
    fn extreme_timeouts_and_numbers_are_no_problem() {
        for timeout in [Duration::ZERO, Duration::MAX] {
            for total in [0, 1, usize::MAX] {
                let config = ShutdownConfig::new(timeout);
                for pace in [config.pace(total), config.sessions_per_second(1).pace(total)] {
                    assert!(pace.due(Duration::ZERO) <= total);
                    assert_eq!(pace.due(Duration::MAX), total);
                }
                let schedule = config.schedule();
                assert!(schedule.last_quarter() <= timeout && schedule.patience() <= timeout);
                assert_eq!(schedule.deposits(total).due(Duration::MAX), total);
            }
        }
    }
}
