//! The errors of a configuration and of a connect.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::panics::Panicked;
use crate::rejected::{RETRY_AFTER, Rejected};

/// Error returned for an invalid configuration. Its text names the setting and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Cow<'static, str>);

impl ConfigError {
    /// Creates an error from a text that names the setting and what to change.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}

/// Error returned by [`Acceptor`](crate::Acceptor) for a client that does not get a connection. It is
/// logged and counted already; the transport answers with its [`status`](Self::status) and
/// [`retry_after`](Self::retry_after).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The handler rejected the client, or its session found no place, or the origin is not allowed.
    Rejected(Rejected),
    /// The handler or the origin check panicked.
    Panicked,
    /// The handler did not decide in time.
    TimedOut,
    /// Too many others wait for the handler, or the memory of the endpoint is scarce.
    Busy,
}

impl ConnectError {
    /// Returns the HTTP status of the answer. A long poll carries 403 or 500 in its body.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Rejected(rejected) => rejected.status_code(),
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TimedOut | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the value of the header `Retry-After` of the answer.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rejected(rejected) => rejected.retry_after(),
            Self::Panicked => None,
            Self::TimedOut | Self::Busy => Some(RETRY_AFTER),
        }
    }

    /// Returns the refusal as the handler would give it.
    pub fn into_rejected(self) -> Rejected {
        match self {
            Self::Rejected(rejected) => rejected,
            error => Rejected::status(error.status()).with_reason(error.to_string()),
        }
    }
}

impl From<Rejected> for ConnectError {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<Panicked> for ConnectError {
    fn from(_: Panicked) -> Self {
        Self::Panicked
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected(rejected) => {
                return write!(f, "the connection was rejected: {rejected}");
            }
            Self::Panicked => "the connection failed: application code panicked",
            Self::TimedOut => "the connection failed: the decision took too long",
            Self::Busy => "too many others are being connected, or memory is scarce",
        })
    }
}

impl Error for ConnectError {}
