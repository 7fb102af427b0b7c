//! [`HistoryConfig`].

use std::time::Duration;

use crate::config::Storage;

/// How NATS keeps histories, if the application's stream is not there yet. One that is there is used as it is.
///
/// ```
/// use std::time::Duration;
///
/// use tower_channels_nats::{HistoryConfig, NatsConfig};
///
/// let week = Duration::from_secs(7 * 24 * 3600);
/// let history = HistoryConfig::new().replicas(3).messages(5000).within(4 * week);
/// let config = NatsConfig::new("nats://10.0.0.5:4222").history(history);
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[must_use = "pass it to `NatsConfig::history`"]
pub struct HistoryConfig {
    pub(crate) storage: Storage,
    pub(crate) replicas: usize,
    pub(crate) messages: usize,
    pub(crate) within: Duration,
    pub(crate) max_bytes: u64,
    pub(crate) max_queue: usize,
}

/// For how long a message stays beyond its time: the position of a quiet topic is valid for so much longer.
pub(crate) const QUIET: Duration = Duration::from_secs(24 * 3600);

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            storage: Storage::File,
            replicas: 1,
            messages: 1000,
            within: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 1 << 30,
            max_queue: 16 << 20,
        }
    }
}

impl HistoryConfig {
    /// Creates the default configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where messages are kept. Default: in files.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Sets how many servers of a NATS cluster keep a copy: 1 to 5. Default 1.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets how many messages of a topic are kept, the largest number that a history of the application asks for. Topics
    /// whose history asks for less take the room, too, but are not read further back. Default 1000.
    pub fn messages(mut self, messages: usize) -> Self {
        self.messages = messages;
        self
    }

    /// Sets for how long messages are kept, the longest time that a history of the application asks for. Their positions
    /// are kept for a day longer. Default 7 days.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Sets how many bytes all topics may take on each server, which reserves them; beyond, the oldest messages of all are
    /// forgotten. Default 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how many bytes of messages may wait to be kept; more are refused. Default 16 MiB.
    pub fn max_queue(mut self, bytes: usize) -> Self {
        self.max_queue = bytes;
        self
    }

    /// Describes the first invalid setting.
    pub(crate) fn invalid(&self) -> Option<&'static str> {
        if !(1..=5).contains(&self.replicas) {
            Some("`HistoryConfig::replicas` must be 1 to 5")
        } else if self.messages == 0 {
            Some("`HistoryConfig::messages` must be greater than zero")
        } else if self.within < Duration::from_secs(1) {
            Some("`HistoryConfig::within` must be at least a second")
        } else if self.max_bytes < 1 << 20 {
            Some("`HistoryConfig::max_bytes` must be at least 1 MiB")
        } else if self.max_queue == 0 {
            Some("`HistoryConfig::max_queue` must be greater than zero")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_configuration_is_refused_with_the_option_to_change() {
        let config = HistoryConfig::new;
        assert_eq!(config().invalid(), None);
        for (config, option) in [
            (config().replicas(0), "replicas"),
            (config().replicas(6), "replicas"),
            (config().messages(0), "messages"),
            (config().within(Duration::ZERO), "within"),
            (config().max_bytes(1000), "max_bytes"),
            (config().max_queue(0), "max_queue"),
        ] {
            assert!(config.invalid().is_some_and(|reason| reason.contains(option)), "{config:?}");
        }
    }
}
