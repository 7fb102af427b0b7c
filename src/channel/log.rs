//! The log lines of joins and pushes, at the levels that the channel names.

use std::time::Duration;

use tokio::time::Instant;
use tower_channels_transports::limited;
use tracing::Level;

use super::callbacks::Channel;
use super::context::ChannelContext;
use super::error::{Error, Outcome, Result};
use crate::telemetry::{CHANNELS_RESUMED, JoinResult};

/// Logs a line at a level that is not known where it is written. The subscriber knows a line by the place
/// that it comes from, so that each level is a place of its own.
macro_rules! log_at {
    ($level:expr, $($line:tt)+) => {
        match $level {
            Some(Level::ERROR) => limited!(ERROR, $($line)+),
            Some(Level::WARN) => limited!(WARN, $($line)+),
            Some(Level::INFO) => limited!(INFO, $($line)+),
            Some(Level::DEBUG) => limited!(DEBUG, $($line)+),
            Some(Level::TRACE) => limited!(TRACE, $($line)+),
            None => {}
        }
    };
}

/// Records and logs a join. One that crashed is logged with its error, elsewhere.
pub(super) fn report_join<C: Channel, J, T>(
    context: &ChannelContext<C::Assigns>,
    joined: &Result<Result<J>, T>,
    took: Duration,
) {
    let result = match joined {
        Ok(Ok(_)) => JoinResult::Joined,
        Ok(Err(Error(Outcome::Crash(_)))) => JoinResult::Crashed,
        Ok(Err(_)) => JoinResult::Refused,
        Err(_) => JoinResult::TimedOut,
    };
    context.metrics.join(result, took);
    let topic = &context.topic;
    match result {
        JoinResult::Joined => log_at!(C::LOG_JOIN, ?topic, ?took, "joined"),
        JoinResult::Refused => log_at!(C::LOG_JOIN, ?topic, ?took, "join refused"),
        JoinResult::TimedOut => log_at!(C::LOG_JOIN, ?topic, ?took, "join timed out"),
        JoinResult::Crashed | JoinResult::Full => {}
    }
}

/// Counts and logs a join of a living channel.
pub(super) fn report_resume<C: Channel>(topic: &str) {
    CHANNELS_RESUMED.add(1);
    log_at!(C::LOG_JOIN, ?topic, "resumed");
}

/// Returns the time before a push is handled, if somebody wants to know how long that takes.
pub(super) fn start_handle_in<C: Channel>(context: &ChannelContext<C::Assigns>) -> Option<Instant> {
    let is_wanted = context.metrics.handle_in().is_recorded() || logs_handle_in::<C>();
    is_wanted.then(Instant::now)
}

/// Records and logs a push that was handled.
pub(super) fn report_handle_in<C: Channel>(
    context: &ChannelContext<C::Assigns>,
    event: &str,
    took: Duration,
) {
    context.metrics.handle_in().record(took);
    log_at!(C::LOG_HANDLE_IN, topic = ?context.topic, ?event, ?took, "handled");
}

fn logs_handle_in<C: Channel>() -> bool {
    match C::LOG_HANDLE_IN {
        Some(Level::ERROR) => tracing::enabled!(Level::ERROR),
        Some(Level::WARN) => tracing::enabled!(Level::WARN),
        Some(Level::INFO) => tracing::enabled!(Level::INFO),
        Some(Level::DEBUG) => tracing::enabled!(Level::DEBUG),
        Some(Level::TRACE) => tracing::enabled!(Level::TRACE),
        None => false,
    }
}
