//! The errors of a configuration and of a connect.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use http::StatusCode;

use crate::panics::Panicked;
use crate::session::Rejected;

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
/// logged and counted already; the transport answers with its [`status`](Self::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The origin is not allowed, the handler rejected the client, or it did not decide in time.
    Rejected,
    /// The handler or the origin check panicked.
    Panicked,
    /// Too many others wait for the handler, or the memory of the endpoint is scarce.
    Busy,
}

impl ConnectError {
    /// Returns the HTTP status of the answer. A long poll carries 403 and 500 in its body.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Rejected => StatusCode::FORBIDDEN,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<Rejected> for ConnectError {
    fn from(_: Rejected) -> Self {
        Self::Rejected
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
            Self::Rejected => "the connection was rejected",
            Self::Panicked => "the connection failed: application code panicked",
            Self::Busy => "too many others are being connected, or memory is scarce",
        })
    }
}

impl Error for ConnectError {}
