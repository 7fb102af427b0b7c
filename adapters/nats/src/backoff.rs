//! [`Backoff`]: the pauses between attempts to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Pauses that double from 20 ms to 400 ms, each shortened by up to a half so that the nodes of a cluster do not all
/// come back at once.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(400);

/// For how long nothing is sent after an interruption: by then the other nodes hear again, if the server was away.
pub(crate) const HOLD: Duration = Duration::from_millis(500);

/// A connection that lasted for less does not shorten the pauses again.
const STABLE: Duration = Duration::from_secs(5);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(SHORTEST)
    }

    /// Returns the next pause; `random` is any number.
    pub(crate) fn pause(&mut self, random: u64) -> Duration {
        let longest = self.0;
        self.0 = (longest * 2).min(LONGEST);
        longest.mul_f64(1.0 - (random % 1024) as f64 / 2048.0)
    }

    /// Notes how long a connection lasted.
    pub(crate) fn lasted(&mut self, time: Duration) {
        if time >= STABLE {
            self.0 = SHORTEST;
        }
    }
}

/// A random number, from the keys that std draws for every map.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause(0).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 400, 400, 400]);
    }

    #[test]
    fn chance_shortens_a_pause_by_half_at_most() {
        for random in [1, 1023, 1024, 12_345, u64::MAX] {
            let pause = Backoff::new().pause(random).as_millis();
            assert!((10..=20).contains(&pause), "{pause}");
        }
    }

    #[test]
    fn only_a_stable_connection_shortens_the_next_pause() {
        let mut backoff = Backoff::new();
        backoff.pause(0);
        backoff.lasted(Duration::from_secs(1));
        assert_eq!(backoff.pause(0), SHORTEST * 2);
        backoff.lasted(STABLE);
        assert_eq!(backoff.pause(0), SHORTEST);
    }
}
