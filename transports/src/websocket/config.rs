//! Configuration of the WebSocket transport.

use std::time::Duration;

use crate::error::ConfigError;
use crate::path::is_path;

/// Configuration of the WebSocket transport.
///
/// ```
/// use std::time::Duration;
/// use tower_channels_transports::WebSocketConfig;
///
/// let config = WebSocketConfig::new().idle_timeout(Duration::from_secs(90));
/// assert_eq!(config.validate(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketConfig {
    pub(crate) enabled: bool,
    pub(crate) path: String,
    pub(crate) idle_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) empty_continuations: bool,
    pub(crate) session_pings: bool,
}

impl WebSocketConfig {
    /// Creates the default configuration, which matches Phoenix's.
    #[must_use]
    pub fn new() -> Self {
        Self {
            enabled: true,
            path: "/websocket".to_owned(),
            idle_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            empty_continuations: false,
            session_pings: true,
        }
    }

    /// Creates a configuration that disables WebSocket.
    #[must_use]
    pub fn off() -> Self {
        Self { enabled: false, ..Self::new() }
    }

    /// Sets the path of the transport, relative to the prefix of the endpoint. Default
    /// `/websocket`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets how long a client may send nothing at all. Default 60 s, twice the heartbeat interval
    /// of phoenix.js. After that the connection ends with close code 1002.
    ///
    /// An unfinished message may take twice as long, and one second for each KiB that has arrived. While
    /// the connection is not read from, because the client has too much to read itself, each KiB that
    /// it reads adds a second.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how long closing may take: until what was pushed before is written, besides one second
    /// for each KiB of it and at most four times as long, and from then until the client has closed
    /// the TCP connection. Default 5 s each. After that the connection is dropped.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Sets whether a client may send empty continuation frames that do not end their message. They
    /// are legal (RFC 6455 section 5.4) but serve no purpose. By default they end the connection
    /// with close code 1008.
    #[must_use]
    pub fn empty_continuations(mut self, allowed: bool) -> Self {
        self.empty_continuations = allowed;
        self
    }

    /// Sets whether the server pings the clients of resumable sessions to learn what they have
    /// received. Default `true`. Without pings, messages are acknowledged by the client's next
    /// heartbeat only, so a busy session may overflow its outbox before it; disable them behind a
    /// proxy that answers pings itself.
    #[must_use]
    pub fn session_pings(mut self, pings: bool) -> Self {
        self.session_pings = pings;
        self
    }

    /// Checks the configuration. One that is [off](Self::off) is always valid.
    ///
    /// # Errors
    /// If the path is not one that a request can have, or a timeout is zero.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.enabled {
            return Ok(());
        }
        if !is_path(&self.path) {
            return Err(ConfigError::new(format!(
                "WebSocket path {:?} must be one or more segments, each after a slash, \
                 such as \"/websocket\"",
                self.path
            )));
        }
        if self.idle_timeout.is_zero() {
            return Err(ConfigError::new("WebSocket `idle_timeout` must be greater than zero"));
        }
        if self.close_timeout.is_zero() {
            return Err(ConfigError::new("WebSocket `close_timeout` must be greater than zero"));
        }
        Ok(())
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_path_is_quoted_in_the_error() {
        for path in ["", "/", "websocket", "//", "/a/", "/a?b", "/a b"] {
            let error = WebSocketConfig::new().path(path).validate().expect_err(path).to_string();
            assert!(error.contains(&format!("{path:?}")), "{error}");
        }
        for path in ["/websocket", "/ws/v2"] {
            assert_eq!(WebSocketConfig::new().path(path).validate(), Ok(()));
        }
    }

    #[test]
    fn a_timeout_of_zero_is_rejected_by_name() {
        let idle = WebSocketConfig::new().idle_timeout(Duration::ZERO).validate();
        assert!(idle.is_err_and(|error| error.to_string().contains("idle_timeout")));
        let close = WebSocketConfig::new().close_timeout(Duration::ZERO).validate();
        assert!(close.is_err_and(|error| error.to_string().contains("close_timeout")));
    }

    #[test]
    fn a_disabled_transport_needs_no_path() {
        assert_eq!(WebSocketConfig::off().path("").validate(), Ok(()));
    }
}
