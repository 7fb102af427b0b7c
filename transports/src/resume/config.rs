//! Configuration of resumable sessions.

use crate::error::ConfigError;
use std::time::Duration;

/// Configures how long sessions outlive their connections, and for whom.
///
/// A client asks for a resumable session with the connect parameter `session`, a random id of its own.
/// A connection that presents the id and whose `connect` yields the same socket id resumes the session.
/// The session id needs no secrecy as long as `connect` verifies the socket id; an anonymous session is
/// protected by its id alone.
///
/// ```
/// use std::time::Duration;
/// use tower_channels_transports::ResumeConfig;
///
/// let config = ResumeConfig::new().session_ttl(Duration::from_secs(120));
/// assert_eq!(config.validate(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumeConfig {
    pub(crate) session_ttl: Duration,
    pub(crate) acknowledged_ttl: Duration,
    pub(crate) rejoin_grace: Duration,
    pub(crate) max_per_id: usize,
    pub(crate) anonymous: bool,
    pub(crate) flapping_limit: u32,
    pub(crate) flapping_age: Duration,
    pub(crate) flapping_pause: Duration,
}

impl ResumeConfig {
    /// Creates the default configuration.
    pub fn new() -> Self {
        Self {
            session_ttl: Duration::from_secs(60),
            acknowledged_ttl: Duration::from_secs(90),
            rejoin_grace: Duration::from_secs(15),
            max_per_id: 32,
            anonymous: false,
            flapping_limit: 5,
            flapping_age: Duration::from_secs(3),
            flapping_pause: Duration::from_secs(10),
        }
    }

    /// Creates a configuration that makes no session resumable.
    pub fn off() -> Self {
        Self { session_ttl: Duration::ZERO, ..Self::new() }
    }

    /// Sets how long a session is kept without a connection. Default 60 s. Zero makes no session
    /// resumable.
    #[must_use]
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = ttl;
        self
    }

    /// Sets how long messages are retained that the client's network has acknowledged and the client
    /// itself has not, while there is a connection. Default 90 s; at most twice as long, and at most
    /// 256 KiB.
    ///
    /// phoenix.js sends a heartbeat every 30 s: within a minute a client finds its connection dead or,
    /// if it reads no sequence numbers, shows what it has read; and it needs a moment to reconnect. A
    /// client that comes back later, and has missed messages, gets a new session.
    #[must_use]
    pub fn acknowledged_ttl(mut self, ttl: Duration) -> Self {
        self.acknowledged_ttl = ttl;
        self
    }

    /// Sets how long a client has to rejoin its topics after it has reconnected. Default 15 s:
    /// phoenix.js waits 10 s for the reply to a join, and over a dead line it leaves and joins again
    /// only then.
    #[must_use]
    pub fn rejoin_grace(mut self, grace: Duration) -> Self {
        self.rejoin_grace = grace;
        self
    }

    /// Sets how many resumable sessions one socket id may have. Default 32: a user has a few tabs, and
    /// must not fill the server's memory with made-up session ids.
    ///
    /// Above it, the session ends that has been without a connection for longest. If all of them are
    /// connected, the new session is not resumable.
    #[must_use]
    pub fn max_per_id(mut self, sessions: usize) -> Self {
        self.max_per_id = sessions;
        self
    }

    /// Sets whether sessions without a socket id are resumable, too. Default: no. Only the limit on all
    /// sessions bounds their number.
    #[must_use]
    pub fn anonymous(mut self, allowed: bool) -> Self {
        self.anonymous = allowed;
        self
    }

    /// Sets after how many short-lived WebSockets in a row the next one is refused, so that its client falls back to long
    /// polling; and after each further one again. Default 5. Zero disables the check. Those that the server ends, as
    /// for a shutdown, do not count, nor those that the client closed itself, with code 1000, 1001 or without one.
    ///
    /// A client without a fallback is back with its next attempt.
    #[must_use]
    pub fn flapping_limit(mut self, connections: u32) -> Self {
        self.flapping_limit = connections;
        self
    }

    /// Sets the age below which a WebSocket that is cut counts as short-lived. Default 3 s.
    #[must_use]
    pub fn flapping_age(mut self, age: Duration) -> Self {
        self.flapping_age = age;
        self
    }

    /// Sets for how long the next WebSocket of a session that keeps losing them is refused. Default 10 s. One that comes
    /// later is accepted.
    #[must_use]
    pub fn flapping_pause(mut self, pause: Duration) -> Self {
        self.flapping_pause = pause;
        self
    }

    /// Checks the configuration.
    ///
    /// # Errors
    ///
    /// A description of the first setting that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.session_ttl.is_zero() {
            return Ok(());
        }
        let must_not_be_zero = [
            ("acknowledged_ttl", self.acknowledged_ttl.is_zero()),
            ("rejoin_grace", self.rejoin_grace.is_zero()),
            ("max_per_id", self.max_per_id == 0),
            ("flapping_age", self.flapping_limit > 0 && self.flapping_age.is_zero()),
            ("flapping_pause", self.flapping_limit > 0 && self.flapping_pause.is_zero()),
        ];
        match must_not_be_zero.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => {
                Err(ConfigError::new(format!("`{name}` of resumable sessions must not be zero")))
            }
            None => Ok(()),
        }
    }
}

impl Default for ResumeConfig {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_zero_that_cannot_work_is_named() {
        let config = ResumeConfig::new();
        for (name, config) in [
            ("acknowledged_ttl", config.clone().acknowledged_ttl(Duration::ZERO)),
            ("rejoin_grace", config.clone().rejoin_grace(Duration::ZERO)),
            ("max_per_id", config.clone().max_per_id(0)),
            ("flapping_age", config.clone().flapping_age(Duration::ZERO)),
            ("flapping_pause", config.clone().flapping_pause(Duration::ZERO)),
        ] {
            let problem = config.validate().expect_err(name);
            assert!(problem.to_string().contains(name), "{problem}");
        }
    }

    #[test]
    fn what_is_switched_off_needs_no_settings() {
        assert_eq!(ResumeConfig::off().rejoin_grace(Duration::ZERO).validate(), Ok(()));
        let no_flapping = ResumeConfig::new().flapping_limit(0).flapping_age(Duration::ZERO);
        assert_eq!(no_flapping.validate(), Ok(()));
    }
}
