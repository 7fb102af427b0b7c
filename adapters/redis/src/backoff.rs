//! [`Attempts`] and [`Retries`]: the pauses between attempts to connect.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(400);

/// For how long nothing is sent after an interruption: by then the other nodes hear again, if the server was away.
pub(crate) const HOLD: Duration = Duration::from_millis(500);

/// A connection that lasted for less does not shorten the pauses again, so that a server which accepts connections
/// and cuts them is not flooded with attempts.
const STABLE: Duration = Duration::from_secs(5);

/// Attempts to connect, with pauses between them that double from 20 ms to 400 ms, each shortened by up to a half so that
/// the nodes of a cluster do not all come back at once.
#[derive(Debug)]
pub(crate) struct Attempts {
    next: Duration,
    /// Why the last one failed.
    failure: Option<String>,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self { next: SHORTEST, failure: None }
    }

    /// Returns the next pause; `random` is any number.
    pub(crate) fn pause(&mut self, random: u64) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST);
        let percent = u32::try_from(random % 51).unwrap_or(0);
        longest * (100 - percent) / 100
    }

    /// Notes why a connection ended that lasted for this time, `None` if it never began. Returns whether that is
    /// news.
    pub(crate) fn ended(&mut self, reason: &impl fmt::Debug, lasted: Option<Duration>) -> bool {
        if lasted.is_some_and(|time| time >= STABLE) {
            self.next = SHORTEST;
        }
        let failure = lasted.is_none().then(|| format!("{reason:?}"));
        let is_news = failure.is_none() || failure != self.failure;
        self.failure = failure;
        is_news
    }
}

/// The pauses of the connections. When one of them finds the server, the others need not wait any longer.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    pub(crate) hearing: Retry,
    pub(crate) sending: Retry,
    pub(crate) keeping: Retry,
}

#[derive(Debug, Default)]
pub(crate) struct Retry(Notify);

impl Retry {
    /// Waits, unless there is reason to try now.
    pub(crate) async fn wait(&self, pause: Duration) {
        let _ = timeout(pause, self.0.notified()).await;
    }

    /// There is reason to try now: ends this pause, or the next.
    pub(crate) fn now(&self) {
        self.0.notify_one();
    }
}

/// A random number, from the keys that std draws for every map.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn millis(attempts: &mut Attempts, random: u64) -> u128 {
        attempts.pause(random).as_millis()
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut attempts = Attempts::new();
        let pauses: Vec<_> = (0..8).map(|_| millis(&mut attempts, 0)).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 400, 400, 400]);
    }

    #[test]
    fn chance_shortens_a_pause_by_half_at_most() {
        for random in [1, 50, 51, 12_345, u64::MAX] {
            let pause = millis(&mut Attempts::new(), random);
            assert!((10..=20).contains(&pause), "{pause}");
        }
        assert_eq!(millis(&mut Attempts::new(), 50), 10);
    }

    #[test]
    fn only_a_stable_connection_shortens_the_next_pause() {
        let mut attempts = Attempts::new();
        attempts.pause(0);
        attempts.ended(&"closed", Some(Duration::from_secs(1)));
        assert_eq!(millis(&mut attempts, 0), 40);
        attempts.ended(&"refused", None);
        assert_eq!(millis(&mut attempts, 0), 80);
        attempts.ended(&"closed", Some(STABLE));
        assert_eq!(millis(&mut attempts, 0), 20);
    }

    #[test]
    fn attempts_that_fail_alike_are_news_once() {
        let mut attempts = Attempts::new();
        let failures = ["refused", "refused", "too late", "refused"];
        let news = failures.map(|reason| attempts.ended(&reason, None));
        assert_eq!(news, [true, false, true, true]);
        // It was up in between.
        assert!(attempts.ended(&"refused", Some(Duration::ZERO)));
        assert!(attempts.ended(&"refused", None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_connection_ends_a_pause_or_the_next() {
        let (retry, begun) = (Retry::default(), Instant::now());
        retry.wait(Duration::from_secs(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        retry.now();
        retry.wait(Duration::from_secs(1)).await;
        tokio::join!(retry.wait(Duration::from_secs(1)), async { retry.now() });
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }
}
