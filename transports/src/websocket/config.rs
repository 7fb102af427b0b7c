//! How the WebSocket transport is set up.

use std::time::Duration;

use crate::path::is_path;

/// How the WebSocket transport is set up.
///
/// ```
/// use std::time::Duration;
/// use tower_channels_transports::websocket::WebSocketConfig;
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
    /// The defaults, which are Phoenix's.
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

    /// No WebSocket at all.
    pub fn off() -> Self {
        Self { enabled: false, ..Self::new() }
    }

    /// Where it is served, below the endpoint's path. Default `/websocket`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// How long a client may send nothing at all. Default 60 s, twice the interval of phoenix.js's
    /// heartbeats. Over it: close code 1002.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long a close may take, from the decision until the client hangs up. Default 5 s. Over
    /// it the connection is cut.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Whether a client may send continuation frames that carry nothing and end nothing: legal, and
    /// of no use. Default: close code 1008.
    pub fn empty_continuations(mut self, allowed: bool) -> Self {
        self.empty_continuations = allowed;
        self
    }

    /// Whether resumable sessions are told by Pings what has arrived. Default: yes. Without them they wait
    /// for the client's next heartbeat, and a busy one may overflow its outbox until then; turn them
    /// off behind proxies that answer Pings themselves.
    pub fn session_pings(mut self, pings: bool) -> Self {
        self.session_pings = pings;
        self
    }

    /// Whether this can work; if not, what is to be mended.
    pub fn validate(&self) -> Result<(), String> {
        if !self.enabled {
            return Ok(());
        }
        if !is_path(&self.path) {
            return Err(format!(
                "the WebSocket's path {:?} must be one or more names after a slash each, such as \"/websocket\"",
                self.path
            ));
        }
        if self.idle_timeout.is_zero() {
            return Err("the WebSocket's idle_timeout must not be zero".to_owned());
        }
        if self.close_timeout.is_zero() {
            return Err("the WebSocket's close_timeout must not be zero".to_owned());
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
    fn a_path_that_no_request_can_have_is_named() {
        for path in ["", "/", "websocket", "//", "/a/", "/a?b", "/a b"] {
            let problem = WebSocketConfig::new().path(path).validate().expect_err(path);
            assert!(problem.contains(&format!("{path:?}")), "{problem}");
        }
        for path in ["/websocket", "/ws/v2"] {
            assert_eq!(WebSocketConfig::new().path(path).validate(), Ok(()));
        }
    }

    #[test]
    fn a_timeout_of_zero_is_named() {
        let idle = WebSocketConfig::new().idle_timeout(Duration::ZERO);
        assert!(idle.validate().is_err_and(|problem| problem.contains("idle_timeout")));
        let close = WebSocketConfig::new().close_timeout(Duration::ZERO);
        assert!(close.validate().is_err_and(|problem| problem.contains("close_timeout")));
    }

    #[test]
    fn what_is_off_needs_no_path() {
        assert_eq!(WebSocketConfig::off().path("").validate(), Ok(()));
    }
}
