//! Configuration of the long-poll transport.

use std::time::Duration;

use crate::error::ConfigError;
use crate::path::is_path;

/// Configuration of the long-poll transport.
///
/// ```
/// use std::time::Duration;
/// use tower_channels_transports::LongPollConfig;
///
/// let config = LongPollConfig::new().poll_timeout(Duration::from_secs(25));
/// assert_eq!(config.validate(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongPollConfig {
    pub(crate) enabled: bool,
    pub(crate) path: String,
    pub(super) poll_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) cors: Cors,
}

/// What the responses say to pages of other sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cors {
    pub(super) is_on: bool,
    /// Whether a page of a public site may reach a server in a private network.
    pub(super) private_network: bool,
}

impl LongPollConfig {
    /// Creates the default configuration, which matches Phoenix's.
    #[must_use]
    pub fn new() -> Self {
        Self {
            enabled: true,
            path: "/longpoll".to_owned(),
            poll_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
            cors: Cors { is_on: true, private_network: false },
        }
    }

    /// Creates a configuration that disables long polling.
    #[must_use]
    pub fn off() -> Self {
        Self { enabled: false, ..Self::new() }
    }

    /// Sets the path of the transport, relative to the prefix of the endpoint. Default `/longpoll`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets how long a poll waits for a message. Default 10 s. A session without a poll for one and
    /// a half times as long has timed out, counted from when its client has read the last response at
    /// 1 KiB/s.
    #[must_use]
    pub fn poll_timeout(mut self, timeout: Duration) -> Self {
        self.poll_timeout = timeout;
        self
    }

    /// Sets how long nothing of the body of a POST may arrive, and how long a body may take besides
    /// one second for each KiB. Default 15 s. After that it is answered with status 408.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Sets whether responses carry CORS headers, and preflight requests are answered. Default: yes, as in
    /// Phoenix: any site may read the responses, because the [origin check](crate::CheckOrigin) decides who
    /// may send requests.
    ///
    /// Switch it off where something in front of the service, such as a proxy, adds these headers: browsers
    /// reject a response that has them twice. A preflight that reaches the service is then answered with
    /// HTTP 400.
    #[must_use]
    pub fn cors(mut self, is_on: bool) -> Self {
        self.cors.is_on = is_on;
        self
    }

    /// Sets whether the pages of public sites may reach this server in a private network or on the user's
    /// own machine: preflight requests with `Access-Control-Request-Private-Network` are answered with
    /// `Access-Control-Allow-Private-Network`. Default: no. Which sites may is up to the origin check. It
    /// makes no difference without [`cors`](Self::cors).
    #[must_use]
    pub fn private_network(mut self, is_allowed: bool) -> Self {
        self.cors.private_network = is_allowed;
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
                "long-poll path {:?} must be one or more segments, each after a slash, \
                 such as \"/longpoll\"",
                self.path
            )));
        }
        if self.poll_timeout.is_zero() {
            return Err(ConfigError::new("long-poll `poll_timeout` must be greater than zero"));
        }
        if self.body_timeout.is_zero() {
            return Err(ConfigError::new("long-poll `body_timeout` must be greater than zero"));
        }
        Ok(())
    }

    /// Returns how long a poll waits for a message.
    #[must_use]
    pub fn longest_poll(&self) -> Duration {
        self.poll_timeout
    }

    /// Returns how long a session may go without a poll.
    pub(super) fn session_timeout(&self) -> Duration {
        self.poll_timeout.saturating_add(self.poll_timeout / 2)
    }
}

impl Default for LongPollConfig {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_path_is_quoted_in_the_error() {
        for path in ["", "/", "longpoll", "//", "/a/", "/a?b", "/a b"] {
            let error = LongPollConfig::new().path(path).validate().expect_err(path).to_string();
            assert!(error.contains(&format!("{path:?}")), "{error}");
        }
        assert_eq!(LongPollConfig::new().path("/lp/v2").validate(), Ok(()));
    }

    #[test]
    fn a_timeout_of_zero_is_rejected_by_name() {
        let poll = LongPollConfig::new().poll_timeout(Duration::ZERO).validate();
        assert!(poll.is_err_and(|error| error.to_string().contains("poll_timeout")));
        let body = LongPollConfig::new().body_timeout(Duration::ZERO).validate();
        assert!(body.is_err_and(|error| error.to_string().contains("body_timeout")));
    }

    #[test]
    fn a_disabled_transport_needs_no_timeouts() {
        assert_eq!(LongPollConfig::off().poll_timeout(Duration::ZERO).validate(), Ok(()));
    }

    #[test]
    fn the_poll_timeout_has_no_upper_limit() {
        let config = LongPollConfig::new().poll_timeout(Duration::MAX);
        assert_eq!(config.session_timeout(), Duration::MAX);
    }
}
