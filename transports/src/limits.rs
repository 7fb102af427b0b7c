//! Limits that apply to every transport of an endpoint.

use std::time::Duration;

use crate::error::ConfigError;
use crate::rate::Rate;

/// Limits that apply to every transport of an endpoint.
///
/// ```
/// use std::time::Duration;
/// use tower_channels_transports::Limits;
///
/// let limits = Limits::new().max_message(64 << 10).connect_timeout(Duration::from_secs(5));
/// assert_eq!(limits.validate(), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) message: usize,
    pub(crate) outbox: usize,
    pub(crate) connecting: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) memory: usize,
    pub(crate) rate: Option<Rate>,
}

impl Limits {
    /// Creates the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self {
            message: 1 << 20,
            outbox: 1 << 20,
            connecting: 1024,
            connect_timeout: Duration::from_secs(10),
            memory: 1 << 30,
            rate: None,
        }
    }

    /// Sets the largest message a client may send, in bytes. Default 1 MiB. A larger one ends the
    /// connection with close code 1009, or is answered with HTTP 413.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.message = bytes;
        self
    }

    /// Sets how many bytes may wait for a client. Default 1 MiB, at most 4 GiB. Beyond it the
    /// connection ends with [`Close::Overflow`].
    ///
    /// [`Close::Overflow`]: crate::Close::Overflow
    #[must_use]
    pub fn max_outbox(mut self, bytes: usize) -> Self {
        self.outbox = bytes;
        self
    }

    /// Sets how many clients may wait for [`Handler::connect`] at a time. Default 1024. Another one is
    /// answered with HTTP 503. Each holds its request's parameters, at most 160 KiB, and its headers,
    /// as many as the HTTP server accepts.
    ///
    /// [`Handler::connect`]: crate::Handler::connect
    #[must_use]
    pub fn max_connecting(mut self, clients: usize) -> Self {
        self.connecting = clients;
        self
    }

    /// Sets how many bytes all sessions of the endpoint may hold together. Default 1 GiB.
    ///
    /// What counts is what clients can make grow: outboxes, mailboxes, replay logs, presence, unfinished
    /// messages, bodies of POSTs, and answers to polls. A broadcast to many counts once. At nine tenths
    /// new sessions are refused with HTTP 503, and replay logs keep nothing; beyond all of it the
    /// sessions that hold most are closed with [`Close::Overflow`]. The memory of the process is larger by what its connections, tasks and
    /// the application hold.
    ///
    /// [`Close::Overflow`]: crate::Close::Overflow
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Sets how fast a client may send, over each of its connections. Default: as it likes.
    ///
    /// Above the rate a client is not cut, but read more slowly: a WebSocket is not read, and the answer
    /// to a POST waits. A connection with ten times the burst outstanding is closed with
    /// [`Close::Policy`]; a resumable session is then detached, and its client may return. Only the
    /// transports of this crate apply the rate, not one of the application's own.
    ///
    /// [`Close::Policy`]: crate::Close::Policy
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sets how long [`Handler::connect`] may take. Default 10 s. After that the client is answered
    /// with HTTP 503.
    ///
    /// [`Handler::connect`]: crate::Handler::connect
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Returns the largest message a transport may accept from a client, in bytes.
    pub fn message_limit(&self) -> usize {
        self.message
    }

    /// Returns how many bytes all sessions may hold together.
    pub fn memory_limit(&self) -> usize {
        self.memory
    }

    /// Returns how many bytes may wait for a client.
    pub fn outbox_limit(&self) -> usize {
        self.outbox
    }

    /// Checks that a connection can work within these limits.
    ///
    /// # Errors
    /// If a limit is zero.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.rate.as_ref().map_or(Ok(()), Rate::validate)?;
        for (name, is_zero) in [
            ("max_message", self.message == 0),
            ("max_outbox", self.outbox == 0),
            ("memory", self.memory == 0),
            ("max_connecting", self.connecting == 0),
            ("connect_timeout", self.connect_timeout.is_zero()),
        ] {
            if is_zero {
                return Err(ConfigError::new(format!("`{name}` must be greater than zero")));
            }
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_rejected_by_name() {
        assert_eq!(Limits::new().validate(), Ok(()));
        for (limits, name) in [
            (Limits::new().max_message(0), "max_message"),
            (Limits::new().max_outbox(0), "max_outbox"),
            (Limits::new().memory(0), "memory"),
            (Limits::new().rate(Rate::new(0, 1)), "rate"),
            (Limits::new().rate(Rate::new(1, 0)), "rate"),
            (Limits::new().rate(Rate::new(1, 1).burst(Duration::ZERO)), "rate"),
            (Limits::new().max_connecting(0), "max_connecting"),
            (Limits::new().connect_timeout(Duration::ZERO), "connect_timeout"),
        ] {
            let error = limits.validate().expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
