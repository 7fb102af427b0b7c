//! How long sessions are resumable, and whose.

use std::time::Duration;

/// How long sessions are resumable, and whose.
///
/// A client asks for a resumable session with the connect parameter `session`, its own random id. Who
/// knows the id and connects under the same socket id is that client: the id needs no secrecy as
/// long as `connect` proves the socket id. An anonymous session is protected by its id alone.
#[derive(Clone, Copy, Debug)]
pub struct ResumeConfig {
    /// How long a session without a connection is resumable. Default 60 s. Zero: no session is resumable.
    pub session_ttl: Duration,
    /// How long what the client's network has acknowledged, and the client not, is resumable while there
    /// is a connection. Default 90 s: with phoenix.js's heartbeats, one in 30 s, a client shows within
    /// a minute what it has read, or finds that its connection is dead, and needs a moment to return.
    /// One that returns later and has not read it gets a new session. At most twice as long, and at
    /// most 256 KiB.
    pub acknowledged_ttl: Duration,
    /// How long a client has to join again after it returned. Default 15 s: phoenix.js waits 10 s for
    /// the answer to a join, and over a dead line leaves and joins again only then.
    pub rejoin_grace: Duration,
    /// How many sessions are resumable for one socket id: a user has a few tabs, and must not hold the
    /// server's memory with made-up session ids. Default 32. Over it the one ends that has been
    /// parked for longest; if none is, the newcomer's session is not resumable.
    pub max_per_id: usize,
    /// Whether sessions without a socket id are resumable, too. Default no. Their number is bounded only by
    /// that of all sessions.
    pub anonymous: bool,
    /// How many WebSockets of a session in a row may die young before the next ones are refused for
    /// [`flapping_pause`](Self::flapping_pause), so that its client falls back to long poll. Default
    /// 5; 0: never.
    pub flapping_limit: u32,
    /// At what age a WebSocket no longer dies young. Default 3 s.
    pub flapping_age: Duration,
    /// How long WebSockets of a flapping session are refused. Default 10 s.
    pub flapping_pause: Duration,
}

impl Default for ResumeConfig {
    fn default() -> Self {
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
}
