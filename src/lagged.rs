//! [`Lagged`]: a gap in what a slow reader receives.

use std::error::Error;
use std::fmt;

/// Error returned to a reader that was too slow: so many messages were dropped, the oldest of those
/// that waited. Reading goes on with the oldest that is left.
///
/// Returned by [`PresenceChanges::next`](crate::PresenceChanges::next) and
/// [`Subscription::recv`](crate::pubsub::Subscription::recv).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged(pub u64);

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the reader lagged behind: {} messages were dropped", self.0)
    }
}

impl Error for Lagged {}
