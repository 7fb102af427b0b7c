//! How long a transfer may take: longer the more of it has moved.
//!
//! A fixed timeout ends a slow transfer like a dead one, and a timeout that restarts with every byte is
//! held open by a drip. So each byte adds the time that it takes at a floor of 1 KiB/s: a transfer
//! that is faster than the floor never times out, and a slower one gains next to nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The progress of one transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    started: Instant,
    bytes: usize,
}

impl Progress {
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, bytes: 0 }
    }

    /// Records that bytes have moved.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Does not count the time until `now`, in which nothing could move.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.started = now;
    }

    /// Returns when the transfer has timed out, unless more moves until then.
    pub(crate) fn deadline(&self, timeout: Duration) -> Instant {
        after(after(self.started, timeout), at_floor(self.bytes))
    }
}

/// Returns how long `bytes` take at the slowest rate that counts as progress.
pub(crate) fn at_floor(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 / FLOOR * 1000 + bytes as u64 % FLOOR * 1000 / FLOOR)
}

/// Bytes per second.
const FLOOR: u64 = 1024;

/// Returns the time `duration` after `start`, or a time that no process sees.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or_else(|| start + FAR_FUTURE)
}

const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);

    #[test]
    fn each_byte_adds_the_time_that_it_takes_at_the_floor() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        assert_eq!(progress.deadline(TIMEOUT), start + TIMEOUT);
        progress.add(512);
        progress.add(512);
        assert_eq!(progress.deadline(TIMEOUT), start + TIMEOUT + Duration::from_secs(1));
        progress.restart(start + TIMEOUT);
        assert_eq!(progress.deadline(TIMEOUT), start + 2 * TIMEOUT + Duration::from_secs(1));
    }

    #[test]
    fn a_duration_that_no_clock_can_hold_is_never_due() {
        let start = Instant::now();
        assert!(after(start, Duration::MAX) > start + 1000 * TIMEOUT);
        assert_eq!(after(start, TIMEOUT), start + TIMEOUT);
    }

    #[test]
    fn no_timeout_and_no_number_of_bytes_overflows() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        progress.add(usize::MAX);
        progress.add(usize::MAX);
        assert!(progress.deadline(Duration::MAX) > start);
        assert!(at_floor(usize::MAX) > TIMEOUT);
    }
}
