//! How long polling behaves.

use std::time::Duration;

/// How long polling behaves.
#[derive(Clone, Debug)]
pub struct LongPollConfig {
    pub(crate) enabled: bool,
    pub(crate) path: String,
    pub(super) window: Duration,
    pub(super) body_timeout: Duration,
}

impl LongPollConfig {
    /// No long polling: its path goes to the inner service.
    pub fn off() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    /// Where it is found below the socket's prefix. Default `/longpoll`, which Phoenix clients ask
    /// for.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// How long a poll waits for a message. Default 10 s. A session ends when no poll came for half
    /// as long again.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// How long the body of a POST may take to arrive. Default 15 s.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// What is wrong with it, for the person who wrote it.
    pub fn validate(&self) -> Result<(), String> {
        if !self.enabled {
            return Ok(());
        }
        if self.window.is_zero() {
            return Err("the long-poll window is zero: a poll would never wait".to_owned());
        }
        if self.body_timeout.is_zero() {
            return Err("the long-poll body timeout is zero: no POST would arrive".to_owned());
        }
        crate::layer::validate_path("the long-poll path", &self.path)
    }

    /// After how long without a poll a session ends.
    pub(super) fn patience(&self) -> Duration {
        self.window.saturating_add(self.window / 2)
    }
}

impl Default for LongPollConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/longpoll".to_owned(),
            window: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
        }
    }
}
