//! The pause before an unknown token is answered.
//!
//! After a restart every client presents a token that is gone, and behind a load balancer without
//! sticky sessions so does every second request, if no adapter connects the servers. The pause spreads
//! the clients, and slows each of them down.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::limited;
use crate::telemetry::LONGPOLL_PAUSES_SKIPPED;

/// The pauses of one service.
#[derive(Debug, Default)]
pub(super) struct Pauses(AtomicUsize);

/// A pause that counts. Dropping it makes room for another.
struct Slot<'a>(&'a AtomicUsize);

impl Pauses {
    /// Waits between 0.5 and 1.5 s, or not at all if too many wait already.
    pub(super) async fn pause(&self) {
        let Some(_slot) = self.enter() else {
            LONGPOLL_PAUSES_SKIPPED.add(1);
            limited!(DEBUG, "unknown token refused without a pause: too many wait");
            return;
        };
        tokio::time::sleep(draw()).await;
    }

    fn enter(&self) -> Option<Slot<'_>> {
        let Self(waiting) = self;
        let slot = Slot(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(slot)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Draws the length of a pause.
fn draw() -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    SHORTEST + SPREAD.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

const SHORTEST: Duration = Duration::from_millis(500);
const SPREAD: Duration = Duration::from_secs(1);

/// How many requests may wait at a time. Each keeps its connection and little else.
const MAX_WAITING: usize = 10_000;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_are_spread_over_a_second() {
        let pauses = Pauses::default();
        let mut lengths = Vec::new();
        for _ in 0..100 {
            let began = Instant::now();
            pauses.pause().await;
            lengths.push(began.elapsed());
        }
        let (shortest, longest) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
        assert!(*shortest >= SHORTEST && *longest <= Duration::from_millis(1502), "{lengths:?}");
        assert!(*longest - *shortest > SPREAD / 2, "{lengths:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_over_the_limit_does_not_wait_and_takes_no_place() {
        let pauses = Pauses::default();
        let mut slots: Vec<_> = (0..MAX_WAITING).map(|_| pauses.enter()).collect();
        assert!(slots.iter().all(Option::is_some));
        for _ in 0..10 {
            let began = Instant::now();
            pauses.pause().await;
            assert!(began.elapsed().is_zero());
        }
        slots.pop();
        let began = Instant::now();
        pauses.pause().await;
        assert!(began.elapsed() >= SHORTEST);
    }
}
