//! [`Backoff`]: the pauses between attempts to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// A connection that lasted for less does not shorten the pauses again, so that a server which accepts connections
/// and cuts them is not flooded with attempts.
const STABLE: Duration = Duration::from_secs(5);

/// Pauses that double from 20 ms to 1 s, each shortened by up to a half so that the nodes of a cluster do not
/// all come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: SHORTEST }
    }

    /// Returns the next pause; `random` is any number.
    pub(crate) fn pause(&mut self, random: u64) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST);
        let percent = u32::try_from(random % 51).unwrap_or(0);
        longest * (100 - percent) / 100
    }

    /// Notes how long a connection lasted.
    pub(crate) fn lasted(&mut self, time: Duration) {
        if time >= STABLE {
            self.next = SHORTEST;
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

    fn millis(backoff: &mut Backoff, random: u64) -> u128 {
        backoff.pause(random).as_millis()
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..8).map(|_| millis(&mut backoff, 0)).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn chance_shortens_a_pause_by_half_at_most() {
        for random in [1, 50, 51, 12_345, u64::MAX] {
            let pause = millis(&mut Backoff::new(), random);
            assert!((10..=20).contains(&pause), "{pause}");
        }
        assert_eq!(millis(&mut Backoff::new(), 50), 10);
    }

    #[test]
    fn only_a_stable_connection_shortens_the_next_pause() {
        let mut backoff = Backoff::new();
        backoff.pause(0);
        backoff.lasted(Duration::from_secs(1));
        assert_eq!(millis(&mut backoff, 0), 40);
        backoff.lasted(STABLE);
        assert_eq!(millis(&mut backoff, 0), 20);
    }
}
