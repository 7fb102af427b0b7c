//! [`Expiry`]: until when a client may stay, and the timer that ends its connection then.

use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tower_channels_transports::{Rejected, limited, outbox};

use crate::telemetry::CONNECTIONS_EXPIRED;

/// Until when a client may stay. Its connection ends then, unless this is dropped before.
pub(crate) struct Expiry {
    at: Instant,
    /// The session may be resumed, and with it this be started, by any thread.
    runtime: Handle,
    timer: Option<AbortHandle>,
}

impl Expiry {
    /// Reads the clocks once: what is set later does not move the end. `None` for a time that is too far
    /// ahead to be represented.
    ///
    /// # Errors
    /// If the time has passed: a connection that ends at once would be made again at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn until(time: SystemTime) -> Result<Option<Box<Self>>, Rejected> {
        let left = time.duration_since(SystemTime::now()).unwrap_or_default();
        if left.is_zero() {
            return Err(Rejected::reason("the client has expired already"));
        }
        let at = Instant::now().checked_add(left);
        Ok(at.map(|at| Box::new(Self { at, runtime: Handle::current(), timer: None })))
    }

    /// Returns whether the time has passed.
    pub(crate) fn has_passed(&self) -> bool {
        self.at <= Instant::now()
    }

    /// Starts the timer of a session with this outbox, in place of an earlier one.
    pub(crate) fn start(&mut self, outbox: outbox::Sender) {
        let at = self.at;
        let timer = self.runtime.spawn(async move {
            tokio::time::sleep_until(at).await;
            if outbox.end_connection() {
                CONNECTIONS_EXPIRED.add(1);
                limited!(DEBUG, "connection ended: its client has expired");
            }
        });
        if let Some(earlier) = self.timer.replace(timer.abort_handle()) {
            earlier.abort();
        }
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn in_a_minute() -> Box<Expiry> {
        Expiry::until(SystemTime::now() + MINUTE).expect("it is ahead").expect("not too far")
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_ends_in_time_and_not_before() {
        let (outbox, _receiver) = outbox::channel(1000);
        let mut expiry = in_a_minute();
        expiry.start(outbox.clone());
        tokio::time::sleep(MINUTE - Duration::from_secs(1)).await;
        assert!(!outbox.is_closed());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(outbox.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_has_ended_leaves_no_timer() {
        let (outbox, _receiver) = outbox::channel(1000);
        let mut expiry = in_a_minute();
        expiry.start(outbox.clone());
        drop(expiry);
        tokio::time::sleep(2 * MINUTE).await;
        assert!(!outbox.is_closed());
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn starting_again_leaves_one_timer() {
        let (outbox, _receiver) = outbox::channel(1000);
        let mut expiry = in_a_minute();
        expiry.start(outbox::channel(1000).0);
        expiry.start(outbox);
        tokio::task::yield_now().await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
        tokio::time::sleep(2 * MINUTE).await;
        assert!(expiry.has_passed());
    }

    #[tokio::test]
    async fn a_time_that_has_passed_refuses_the_client() {
        for time in [SystemTime::UNIX_EPOCH, SystemTime::now()] {
            assert!(Expiry::until(time).is_err());
        }
    }

    #[tokio::test]
    async fn a_time_that_is_too_far_ahead_is_never() {
        let years = |years: u64| Duration::from_secs(years * 365 * 24 * 60 * 60);
        if let Some(time) = SystemTime::now().checked_add(years(200_000_000_000)) {
            assert!(Expiry::until(time).is_ok());
        }
        let mut expiry = Expiry::until(SystemTime::now() + years(10_000)).expect("it is ahead");
        if let Some(expiry) = &mut expiry {
            expiry.start(outbox::channel(1000).0);
            tokio::task::yield_now().await;
        }
    }
}
