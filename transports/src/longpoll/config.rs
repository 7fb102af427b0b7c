//! How long polling behaves.

use std::time::Duration;

use crate::path::is_path;

/// How long polling behaves.
///
/// ```
/// use std::time::Duration;
/// use tower_channels_transports::longpoll::LongPollConfig;
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
}

impl LongPollConfig {
    /// The defaults, which are Phoenix's.
    pub fn new() -> Self {
        Self {
            enabled: true,
            path: "/longpoll".to_owned(),
            poll_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
        }
    }

    /// No long polling at all.
    pub fn off() -> Self {
        Self { enabled: false, ..Self::new() }
    }

    /// Where it is served, below the endpoint's path. Default `/longpoll`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// How long a poll waits for a message. Default 10 s. A session ends when no poll came for half
    /// as long again.
    pub fn poll_timeout(mut self, timeout: Duration) -> Self {
        self.poll_timeout = timeout;
        self
    }

    /// How long the body of a POST may take to arrive. Default 15 s.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Whether this can work; if not, what is to be mended.
    pub fn validate(&self) -> Result<(), String> {
        if !self.enabled {
            return Ok(());
        }
        if !is_path(&self.path) {
            return Err(format!(
                "the long poll's path {:?} must be one or more names after a slash each, such as \"/longpoll\"",
                self.path
            ));
        }
        if self.poll_timeout.is_zero() {
            return Err("the long poll_timeout must not be zero: no poll would wait".to_owned());
        }
        if self.body_timeout.is_zero() {
            return Err("the long poll's body_timeout must not be zero".to_owned());
        }
        Ok(())
    }

    /// After how long without a poll a session ends.
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
    fn a_path_that_no_request_can_have_is_named() {
        for path in ["", "/", "longpoll", "//", "/a/", "/a?b", "/a b"] {
            let problem = LongPollConfig::new().path(path).validate().expect_err(path);
            assert!(problem.contains(&format!("{path:?}")), "{problem}");
        }
        assert_eq!(LongPollConfig::new().path("/lp/v2").validate(), Ok(()));
    }

    #[test]
    fn a_time_of_zero_is_named() {
        let poll_timeout = LongPollConfig::new().poll_timeout(Duration::ZERO);
        assert!(poll_timeout.validate().is_err_and(|problem| problem.contains("poll_timeout")));
        let body = LongPollConfig::new().body_timeout(Duration::ZERO);
        assert!(body.validate().is_err_and(|problem| problem.contains("body_timeout")));
    }

    #[test]
    fn what_is_off_needs_no_window() {
        assert_eq!(LongPollConfig::off().poll_timeout(Duration::ZERO).validate(), Ok(()));
    }

    #[test]
    fn a_window_may_be_as_long_as_one_likes() {
        let config = LongPollConfig::new().poll_timeout(Duration::MAX);
        assert_eq!(config.session_timeout(), Duration::MAX);
    }
}
