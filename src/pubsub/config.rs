//! [`PubSubConfig`]: what the endpoints that share a [`PubSub`](super::PubSub) have in common.

use tower_channels_transports::ConfigError;

use crate::presence::PresenceConfig;

/// Configures a [`PubSub`](crate::PubSub).
///
/// ```
/// use tower_channels::{PubSub, PubSubConfig};
///
/// # fn main() -> Result<(), tower_channels::ConfigError> {
/// let pubsub = PubSub::with_config(PubSubConfig::new().memory(256 << 20))?;
/// # let _ = pubsub;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "pass it to `PubSub::with_config`"]
pub struct PubSubConfig {
    pub(super) memory: usize,
    pub(super) presence: PresenceConfig,
    pub(super) max_subscription: usize,
}

impl PubSubConfig {
    /// Creates the default configuration.
    pub fn new() -> Self {
        Self { memory: 1 << 30, presence: PresenceConfig::default(), max_subscription: 1 << 20 }
    }

    /// Sets how many bytes all sessions of all endpoints may hold together. Default 1 GiB. See
    /// [`Builder::memory`](crate::Builder::memory).
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Configures presence.
    pub fn presence(mut self, config: PresenceConfig) -> Self {
        self.presence = config;
        self
    }

    /// Sets how many bytes of broadcasts may wait in a [`Subscription`](crate::pubsub::Subscription).
    /// Default 1 MiB, at most 4 GiB. Beyond it the oldest are dropped.
    pub fn max_subscription(mut self, bytes: usize) -> Self {
        self.max_subscription = bytes;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.presence.validate()?;
        for (name, limit) in [("memory", self.memory), ("max_subscription", self.max_subscription)]
        {
            if limit == 0 {
                return Err(ConfigError::new(format!("`{name}` must be greater than zero")));
            }
        }
        Ok(())
    }
}

impl Default for PubSubConfig {
    fn default() -> Self {
        Self::new()
    }
}
