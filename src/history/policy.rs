//! [`History`]: how much of a topic is kept.

use std::time::Duration;

use tower_channels_transports::ConfigError;

use crate::adapter::Keep;

/// How much of the topics of a pattern is kept. See [`Builder::history`](crate::Builder::history).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "pass it to `Builder::history`"]
pub struct History {
    pub(crate) messages: usize,
    pub(crate) within: Duration,
    pub(crate) bytes: usize,
}

impl History {
    /// Keeps the last `messages` of each topic: for a day, and at most 1 MiB of them, unless told otherwise.
    pub fn last(messages: usize) -> Self {
        Self { messages, within: Duration::from_secs(24 * 60 * 60), bytes: 1 << 20 }
    }

    /// Keeps no message for longer. Default a day.
    pub fn within(mut self, age: Duration) -> Self {
        self.within = age;
        self
    }

    /// Keeps no more bytes of a topic: the payloads with the names of their events. Default 1 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// The same, for a store.
    pub(super) fn keep(&self) -> Keep {
        Keep { messages: self.messages, bytes: self.bytes, within: self.within }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.messages == 0 || self.bytes == 0 || self.within.is_zero() {
            return Err(ConfigError::new("a history must keep something"));
        }
        Ok(())
    }
}
