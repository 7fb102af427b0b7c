//! What an endpoint can share with others: the options of its [`PubSub`].

use tower_channels_transports::ConfigError;

use super::Builder;
use crate::adapter::{Adapter, HistoryStore};
use crate::cluster::ClusterConfig;
use crate::history::History;
use crate::presence::PresenceConfig;
use crate::pubsub::{PubSub, PubSubConfig};

impl<A: Send + Sync + 'static> Builder<A> {
    /// Shares topics, presence, socket ids and the budget of memory with the other endpoints that have
    /// the same [`PubSub`]. By default an endpoint has one of its own.
    pub fn pubsub(mut self, pubsub: PubSub) -> Self {
        self.pubsub = Some(pubsub);
        self
    }

    /// Configures presence. That of a shared [`pubsub`](Self::pubsub) is configured by
    /// [`PubSubConfig::presence`].
    pub fn presence(self, config: PresenceConfig) -> Self {
        self.own("presence", |pubsub| pubsub.presence(config))
    }

    /// Connects the endpoint with those of other nodes, through an engine: broadcasts, disconnects and presence
    /// reach the clients of all nodes. The adapter of a shared [`pubsub`](Self::pubsub) is set by
    /// [`PubSubConfig::adapter`].
    ///
    /// Its engine keeps the messages of topics with a [history](Self::history), if it can: see the page "History".
    ///
    /// The endpoint must then be built in a tokio runtime. See the page "Several nodes" of the documentation.
    pub fn adapter(self, adapter: impl Adapter) -> Self {
        self.own("adapter", |pubsub| pubsub.adapter(adapter))
    }

    /// Configures how this node lives with the others. It has no effect without an [`adapter`](Self::adapter).
    pub fn cluster(self, config: ClusterConfig) -> Self {
        self.own("cluster", |pubsub| pubsub.cluster(config))
    }

    /// Keeps what is broadcast on the topics that match `pattern`, so that clients can receive what they have missed, also
    /// long after their sessions have ended. The first matching pattern wins. That of a shared [`pubsub`](Self::pubsub) is
    /// set by [`PubSubConfig::history`]. See the page "History" of the documentation. All nodes of an
    /// [`adapter`](Self::adapter) must have the same patterns.
    ///
    /// Kept are all broadcasts of the application on the topic; not kept are
    /// [local ones](crate::PubSub::local_broadcast), presence, and what is pushed to one client. A payload has at most
    /// 256 KiB.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_channels::{Endpoint, History};
    ///
    /// let builder = Endpoint::builder(|_| async { Ok(()) })
    ///     .history("room:*", History::last(500).within(Duration::from_secs(7 * 24 * 3600)));
    /// # let _: tower_channels::Builder<()> = builder;
    /// ```
    pub fn history(self, pattern: &str, history: History) -> Self {
        self.own("history", |pubsub| pubsub.history(pattern, history))
    }

    /// Sets where the messages of topics with a [history](Self::history) are kept. Default: in memory, for as long as the
    /// process lives. The store of a shared [`pubsub`](Self::pubsub) is set by [`PubSubConfig::store`].
    ///
    /// With an [`adapter`](Self::adapter) its engine keeps them for all nodes, and there is no other store.
    ///
    /// A store with [records](HistoryStore::records) lets resumable sessions go on in the process that follows this one, after
    /// its death or a [`shutdown`](crate::Endpoint::shutdown).
    ///
    /// The endpoint must then be built in a tokio runtime.
    pub fn store(self, store: impl HistoryStore) -> Self {
        self.own("store", |pubsub| pubsub.store(store))
    }

    /// Sets how many bytes all sessions may hold together. Default 1 GiB. At nine tenths new sessions
    /// are refused with HTTP 503; beyond all of it the sessions that hold most are closed, a WebSocket
    /// with code 1013. See [`Limits::memory`] for what counts. The memory of a shared
    /// [`pubsub`](Self::pubsub) is set by [`PubSubConfig::memory`].
    ///
    /// [`Limits::memory`]: tower_channels_transports::Limits::memory
    pub fn memory(self, bytes: usize) -> Self {
        self.own("memory", |pubsub| pubsub.memory(bytes))
    }

    /// Sets an option of its own PubSub.
    fn own(mut self, option: &'static str, set: impl FnOnce(PubSubConfig) -> PubSubConfig) -> Self {
        self.own_pubsub = set(self.own_pubsub);
        self.own_options.push(option);
        self
    }

    /// Returns the shared PubSub, or creates one.
    pub(super) fn choose_pubsub(
        shared: Option<PubSub>,
        own: PubSubConfig,
        own_options: &[&'static str],
    ) -> Result<PubSub, ConfigError> {
        match (shared, own_options.first()) {
            (None, _) => PubSub::with_config(own),
            (Some(shared), None) => Ok(shared),
            (Some(_), Some(name)) => Err(ConfigError::new(format!(
                "`{name}` is that of the shared `pubsub`: set it with `PubSubConfig::{name}`"
            ))),
        }
    }
}
