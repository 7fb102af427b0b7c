//! The idle or close timeout of a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A deadline that every message moves. Moving it costs no more than reading the clock, because the
/// timer stays as it is and is set again when it fires too early.
pub(super) struct Deadline {
    last_activity: Instant,
    timeout: Duration,
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
        let (last_activity, timeout) = (Instant::now(), timeout.min(MAX_TIMEOUT));
        let timer = Box::pin(tokio::time::sleep_until(last_activity + timeout));
        Self { last_activity, timeout, timer }
    }

    /// Starts the same timeout again.
    pub(super) fn extend(&mut self) {
        self.last_activity = Instant::now();
    }

    /// Starts another timeout.
    pub(super) fn restart(&mut self, timeout: Duration) {
        self.timeout = timeout.min(MAX_TIMEOUT);
        self.extend();
    }

    /// Ready with `true` once the deadline has passed, and with `false` at `earlier`, or sooner.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, earlier: Option<Instant>) -> Poll<bool> {
        let deadline = self.last_activity + self.timeout;
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
