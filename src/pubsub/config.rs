//! [`PubSubConfig`]: what the endpoints that share a [`PubSub`](super::PubSub) have in common.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tower_channels_transports::ConfigError;

use crate::adapter::{Adapter, HistoryStore};
use crate::cluster::config::ClusterConfig;
use crate::history::History;
use crate::pattern;
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
    /// How much is kept of the topics that match each pattern.
    pub(super) histories: Vec<(String, History)>,
    pub(super) history_memory: Option<usize>,
    adapter: Option<Given<dyn Adapter>>,
    store: Option<Given<dyn HistoryStore>>,
}

/// An adapter or a store until the first [`PubSub`](crate::PubSub) of the configuration takes it.
type Given<T> = Arc<Mutex<Option<Box<T>>>>;

impl PubSubConfig {
    /// Creates the default configuration.
    pub fn new() -> Self {
        Self {
            memory: 1 << 30,
            presence: PresenceConfig::default(),
            max_subscription: 1 << 20,
            cluster: ClusterConfig::new(),
            histories: Vec::new(),
            history_memory: None,
            adapter: None,
            store: None,
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

    /// Keeps the messages of the topics that match a pattern; see [`Builder::history`](crate::Builder::history). With an
    /// [`adapter`](Self::adapter) its engine keeps them for all nodes, which must have the same patterns.
    pub fn history(mut self, pattern: &str, history: History) -> Self {
        self.histories.push((pattern.to_owned(), history));
        self
    }

    /// Sets where the messages of topics with a [history](Self::history) are kept; see
    /// [`Builder::store`](crate::Builder::store). Not with an [`adapter`](Self::adapter).
    pub fn store(mut self, store: impl HistoryStore) -> Self {
        self.store = Some(Arc::new(Mutex::new(Some(Box::new(store)))));
        self
    }

    /// Sets how many bytes the histories of all topics may take in memory together, if there is neither a
    /// [`store`](Self::store) nor an [`adapter`](Self::adapter). Default a quarter of [`memory`](Self::memory), of which they are part. Beyond it those of
    /// the topics that have been quiet for longest are forgotten.
    pub fn history_memory(mut self, bytes: usize) -> Self {
        self.history_memory = Some(bytes);
        self
    }

    /// Takes the adapter, for the one [`PubSub`](crate::PubSub) that it connects.
    pub(super) fn take_adapter(&self) -> Result<Option<Box<dyn Adapter>>, ConfigError> {
        take(self.adapter.as_ref(), "adapter")
    }

    /// Takes the store, for the one [`PubSub`](crate::PubSub) whose messages it keeps.
    pub(super) fn take_store(&self) -> Result<Option<Box<dyn HistoryStore>>, ConfigError> {
        take(self.store.as_ref(), "store")
    }

    /// Whether any topic has a history.
    pub(super) fn has_history(&self) -> bool {
        !self.histories.is_empty()
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.presence.validate()?;
        self.cluster.validate()?;
        pattern::validate(self.histories.iter().map(|(pattern, _)| &**pattern))?;
        self.histories.iter().try_for_each(|(_, history)| history.validate())?;
        match (&self.adapter, &self.store) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::new(
                    "a `store` is of one node: with an `adapter`, its engine keeps the `history` for all",
                ));
            }
            (_, Some(_)) if self.histories.is_empty() => {
                return Err(ConfigError::new("the `store` keeps nothing: add a `history`"));
            }
            _ => {}
        }
        for (name, limit) in [
            ("memory", self.memory),
            ("max_subscription", self.max_subscription),
            ("history_memory", self.history_memory.unwrap_or(1)),
        ] {
            if limit == 0 {
                return Err(ConfigError::new(format!("`{name}` must be greater than zero")));
            }
        }
        Ok(())
    }
}

/// Takes what is for one [`PubSub`](crate::PubSub) alone, and has tasks.
fn take<T: ?Sized>(given: Option<&Given<T>>, what: &str) -> Result<Option<Box<T>>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    if Handle::try_current().is_err() {
        let article = if what == "adapter" { "an" } else { "a" };
        return Err(ConfigError::new(format!(
            "a node with {article} {what} has to be built in a tokio runtime"
        )));
    }
    let taken = given.lock().take();
    match taken {
        Some(taken) => Ok(Some(taken)),
        None => Err(ConfigError::new(format!("the {what} belongs to another `PubSub`"))),
    }
}

impl Default for PubSubConfig {
    fn default() -> Self {
        Self::new()
    }
}
