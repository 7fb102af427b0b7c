//! [`PubSubConfig`]: what the endpoints that share a [`PubSub`](super::PubSub) have in common.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tower_channels_transports::ConfigError;

use crate::adapter::Adapter;
use crate::cluster::config::ClusterConfig;
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
    pub(super) cluster: ClusterConfig,
    adapter: Option<GivenAdapter>,
}

/// An adapter until the first [`PubSub`](crate::PubSub) of the configuration takes it.
type GivenAdapter = Arc<Mutex<Option<Box<dyn Adapter>>>>;

impl PubSubConfig {
    /// Creates the default configuration.
    pub fn new() -> Self {
        Self {
            memory: 1 << 30,
            presence: PresenceConfig::default(),
            max_subscription: 1 << 20,
            cluster: ClusterConfig::new(),
            adapter: None,
        }
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

    /// Connects this node with others, through an engine; see [`Builder::adapter`](crate::Builder::adapter). Several
    /// endpoints that share it must be built in the same order on all nodes: by that they reach each other.
    pub fn adapter(mut self, adapter: impl Adapter) -> Self {
        self.adapter = Some(Arc::new(Mutex::new(Some(Box::new(adapter)))));
        self
    }

    /// Configures how this node lives with the others. It has no effect without an [`adapter`](Self::adapter).
    pub fn cluster(mut self, config: ClusterConfig) -> Self {
        self.cluster = config;
        self
    }

    /// Takes the adapter, for the one [`PubSub`](crate::PubSub) that it connects.
    pub(super) fn take_adapter(&self) -> Result<Option<Box<dyn Adapter>>, ConfigError> {
        let Some(adapter) = &self.adapter else { return Ok(None) };
        if Handle::try_current().is_err() {
            return Err(ConfigError::new(
                "a node with an adapter has to be built in a tokio runtime",
            ));
        }
        let taken = adapter.lock().take();
        match taken {
            Some(adapter) => Ok(Some(adapter)),
            None => Err(ConfigError::new("the adapter belongs to another `PubSub`")),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.presence.validate()?;
        self.cluster.validate()?;
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
