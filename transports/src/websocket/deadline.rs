//! The idle or close timeout of a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::progress::{after, at_floor};

/// A deadline that every read moves. Moving it costs no more than reading the clock, because the timer
/// stays as it is and is set again when it fires too early.
///
/// While reading is *paused*, the client's reading takes the place of its sending: then a client that
/// reads slower than the floor times out.
pub(super) struct Deadline {
    timeout: Duration,
    /// When something was received last, or reading was resumed.
    last_activity: Instant,
    /// When a client that reads at the floor has everything that was written.
    read_by: Instant,
    /// Never set to a later time than the deadline.
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    /// Starts a timeout.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a timer.
    pub(super) fn new(timeout: Duration) -> Self {
        let (now, timeout) = (Instant::now(), timeout.min(MAX_TIMEOUT));
        Self {
            timeout,
            last_activity: now,
            read_by: now,
            timer: Box::pin(tokio::time::sleep_until(now + timeout)),
        }
    }

    /// Starts the same timeout again: something was received, or reading is resumed.
    pub(super) fn extend(&mut self, now: Instant) {
        self.last_activity = now;
    }

    /// Records that `size` bytes were written, while reading was paused or not.
    pub(super) fn on_write(&mut self, size: usize, is_paused: bool) {
        let now = Instant::now();
        // A client that was too slow is not forgiven while more waits for it.
        let from = if is_paused { self.read_by } else { self.read_by.max(now) };
        self.read_by = (from + at_floor(size.min(MAX_UNDERWAY))).min(now + at_floor(MAX_UNDERWAY));
    }

    /// Starts another timeout.
    pub(super) fn restart(&mut self, timeout: Duration) {
        let now = Instant::now();
        (self.timeout, self.last_activity, self.read_by) = (timeout.min(MAX_TIMEOUT), now, now);
    }

    /// The timeout.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns when so many times the timeout have passed since it was started.
    pub(super) fn after_timeouts(&self, times: u32) -> Instant {
        after(self.last_activity, self.timeout.saturating_mul(times))
    }

    /// Ready with `true` once the deadline has passed, and with `false` at `earlier`, or sooner.
    /// The deadline is no later than `limit`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        is_paused: bool,
        limit: Option<Instant>,
        earlier: Option<Instant>,
    ) -> Poll<bool> {
        let read_by = if is_paused { self.read_by } else { self.last_activity };
        let deadline = self.last_activity.max(read_by) + self.timeout;
        let deadline = limit.map_or(deadline, |limit| limit.min(deadline));
        let next = earlier.map_or(deadline, |earlier| earlier.min(deadline));
        if self.timer.deadline() > next {
            self.timer.as_mut().reset(next);
        }
        ready!(self.timer.as_mut().poll(cx));
        let has_passed = deadline <= Instant::now();
        if !has_passed {
            self.timer.as_mut().reset(deadline);
        }
        Poll::Ready(has_passed)
    }
}

/// Timeouts are capped at 30 years, because adding `Duration::MAX` to an `Instant` panics.
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How many bytes may be on their way to a client, and not yet read: a socket accepts them in a burst
/// and then nothing until most of them have arrived.
const MAX_UNDERWAY: usize = 512 * 1024;
