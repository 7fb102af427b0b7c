//! Limits that hold for every transport of an endpoint.

use std::time::Duration;

/// Limits that hold for every transport of an endpoint.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message a client may send, in bytes. Default 1 MiB. Over it: close code 1009, or
    /// HTTP 413.
    pub message: usize,
    /// How many bytes may wait for a client. Default 1 MiB. Over it: [`Close::Overflow`].
    ///
    /// [`Close::Overflow`]: crate::Close::Overflow
    pub outbox: usize,
    /// How long [`Handler::connect`] may take. Default 10 s. Over it the client is refused.
    ///
    /// [`Handler::connect`]: crate::Handler::connect
    pub connect_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 1 << 20, outbox: 1 << 20, connect_timeout: Duration::from_secs(10) }
    }
}
