//! How fast a client may send: two token buckets, as plain code.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ConfigError;
use crate::limited;
use crate::progress::after;
use crate::telemetry::{CLOSED_FOR_RATE, THROTTLED};

/// How fast a client may send; see [`Limits::rate`](crate::Limits::rate).
///
/// ```
/// use std::time::Duration;
/// use tower_channels_transports::{Limits, Rate};
///
/// let rate = Rate::new(50, 100 << 10).burst(Duration::from_secs(10));
/// assert_eq!(Limits::new().rate(rate).validate(), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "pass it to `Limits::rate`"]
pub struct Rate {
    messages: u32,
    bytes: usize,
    burst: Duration,
}

impl Rate {
    /// Creates a rate of so many messages and so many bytes per second, with a burst of 5 s.
    pub fn new(messages: u32, bytes: usize) -> Self {
        Self { messages, bytes, burst: Duration::from_secs(5) }
    }

    /// Sets for how many seconds' worth a client that has been quiet may send at once. Default 5 s.
    pub fn burst(mut self, burst: Duration) -> Self {
        self.burst = burst;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.messages == 0 || self.bytes == 0 || self.burst.is_zero() {
            return Err(ConfigError::new(
                "messages, bytes and burst of `rate` must be greater than zero",
            ));
        }
        Ok(())
    }
}

/// What one client has sent against its rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throttle {
    rate: Rate,
    /// When the messages, and the bytes, so far would have been sent at the rate.
    messages_until: Instant,
    bytes_until: Instant,
    has_waited: bool,
}

/// Ten times the burst is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Excess;

impl Throttle {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, messages_until: now, bytes_until: now, has_waited: false }
    }

    /// Counts what was received. Returns what follows from it, which is [reported](Received::report)
    /// without a lock.
    pub(crate) fn receive(&mut self, messages: usize, bytes: usize, now: Instant) -> Received {
        if self.take(messages, bytes, now).is_err() {
            return Received::Excess;
        }
        self.waits_until(now).map_or(Received::Fine, |until| {
            let is_first = !std::mem::replace(&mut self.has_waited, true);
            Received::Waits { until, is_first }
        })
    }

    fn take(&mut self, messages: usize, bytes: usize, now: Instant) -> Result<(), Excess> {
        let Self { rate, messages_until, bytes_until, .. } = self;
        let spend = |until: &mut Instant, count: usize, per_second: usize| {
            let nanos = count as u128 * 1_000_000_000 / per_second.max(1) as u128;
            let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            *until = after((*until).max(now), cost);
        };
        spend(messages_until, messages, usize::try_from(rate.messages).unwrap_or(usize::MAX));
        spend(bytes_until, bytes, rate.bytes);
        if self.debt(now) > self.rate.burst.saturating_mul(MAX_BURSTS) {
            Err(Excess)
        } else {
            Ok(())
        }
    }

    /// Returns when the client is read again, if it has to wait.
    pub(crate) fn waits_until(&self, now: Instant) -> Option<Instant> {
        let excess = self.debt(now).checked_sub(self.rate.burst)?;
        (!excess.is_zero()).then(|| after(now, excess))
    }

    /// How many messages may be received at once; at least one.
    pub(crate) fn allowance(&self, now: Instant) -> usize {
        let spent = self.messages_until.saturating_duration_since(now);
        let left = self.rate.burst.saturating_sub(spent).as_nanos();
        let messages = left.saturating_mul(u128::from(self.rate.messages)) / 1_000_000_000;
        usize::try_from(messages).unwrap_or(usize::MAX).max(1)
    }

    /// How long what was received so far would have taken at the rate, beyond now.
    fn debt(&self, now: Instant) -> Duration {
        self.messages_until.max(self.bytes_until).saturating_duration_since(now)
    }
}

/// What follows from what a client has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Received {
    Fine,
    /// The client waits, perhaps for the first time.
    Waits {
        until: Instant,
        is_first: bool,
    },
    Excess,
}

impl Received {
    /// Counts and logs that a client has to wait, the first time, or is closed. Returns until when it
    /// waits.
    pub(crate) fn report(self) -> Result<Option<Instant>, Excess> {
        match self {
            Self::Fine => Ok(None),
            Self::Waits { until, is_first } => {
                if is_first {
                    THROTTLED.add(1);
                    limited!(INFO, "client throttled: it sends more than its rate");
                }
                Ok(Some(until))
            }
            Self::Excess => {
                CLOSED_FOR_RATE.add(1);
                limited!(WARN, "client closed: it has sent ten times its burst");
                Err(Excess)
            }
        }
    }
}

/// A client with so many bursts outstanding is closed.
const MAX_BURSTS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Ten messages and 1000 bytes per second, for two seconds at once.
    fn throttle() -> (Throttle, Instant) {
        let now = Instant::now();
        (Throttle::new(Rate::new(10, 1000).burst(2 * SECOND), now), now)
    }

    #[test]
    fn a_burst_is_received_at_once_and_what_follows_at_the_rate() {
        let (mut throttle, now) = throttle();
        assert_eq!(throttle.take(20, 0, now), Ok(()));
        assert_eq!(throttle.waits_until(now), None);
        assert_eq!(throttle.take(1, 0, now), Ok(()));
        assert_eq!(throttle.waits_until(now), Some(now + SECOND / 10));
        assert_eq!(throttle.waits_until(now + SECOND / 10), None);
        assert_eq!(throttle.take(1, 0, now + SECOND), Ok(()));
        assert_eq!(throttle.waits_until(now + SECOND), None, "a second has earned ten");
    }

    #[test]
    fn bytes_count_as_messages_do() {
        let (mut throttle, now) = throttle();
        assert_eq!(throttle.take(1, 3000, now), Ok(()));
        assert_eq!(throttle.waits_until(now), Some(now + SECOND));
    }

    #[test]
    fn the_allowance_is_what_is_left_of_the_burst_and_at_least_one() {
        let (mut throttle, now) = throttle();
        assert_eq!(throttle.allowance(now), 20);
        assert_eq!(throttle.take(15, 0, now), Ok(()));
        assert_eq!(throttle.allowance(now), 5);
        assert_eq!(throttle.take(100, 0, now), Ok(()));
        assert_eq!(throttle.allowance(now), 1);
        assert_eq!(throttle.allowance(now + 60 * SECOND), 20, "quiet time earns one burst");
    }

    #[test]
    fn ten_times_the_burst_is_too_much() {
        let (mut throttle, now) = throttle();
        assert_eq!(throttle.take(200, 0, now), Ok(()));
        assert_eq!(throttle.take(1, 0, now), Err(Excess));
    }

    #[test]
    fn the_first_wait_of_a_client_is_told_from_the_others() {
        let (mut throttle, now) = throttle();
        assert_eq!(throttle.receive(20, 0, now), Received::Fine);
        for (count, is_first) in [(1, true), (2, false)] {
            let until = now + count * SECOND / 10;
            assert_eq!(throttle.receive(1, 0, now), Received::Waits { until, is_first });
        }
        assert_eq!(throttle.receive(200, 0, now), Received::Excess);
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let now = Instant::now();
        for rate in [Rate::new(1, 1), Rate::new(u32::MAX, usize::MAX)] {
            for burst in [Duration::from_nanos(1), Duration::MAX] {
                let mut throttle = Throttle::new(rate.burst(burst), now);
                for _ in 0..3 {
                    let _ = throttle.receive(usize::MAX, usize::MAX, now);
                    let _ = (throttle.waits_until(now), throttle.allowance(now));
                }
            }
        }
    }
}
