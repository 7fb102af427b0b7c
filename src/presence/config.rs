//! [`PresenceConfig`].

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tower_channels_transports::ConfigError;

use serde_json::Value;

/// Configures the presence of an endpoint; see [`Builder::presence`](crate::Builder::presence).
#[derive(Clone)]
#[must_use = "pass it to `Builder::presence`"]
pub struct PresenceConfig {
    pub(super) interval: Duration,
    pub(super) leave_grace: Duration,
    pub(super) max_meta: usize,
    pub(super) fetch: Option<Fetch>,
    pub(super) fetch_timeout: Duration,
}

/// The result of a fetch hook: an object by key, whose fields are added beside the key's `metas`.
pub type Fetched = HashMap<String, Value>;

pub(super) type Fetch = Arc<dyn Fn(String, Vec<String>) -> Fetching + Send + Sync>;
type Fetching = Pin<Box<dyn Future<Output = Fetched> + Send>>;

impl PresenceConfig {
    /// Sets how long changes are collected before one diff announces them. Default 10 ms. Zero
    /// announces them as soon as the scheduler runs the topic's task; changes before that share a
    /// diff.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how long entries stay whose client has closed its WebSocket itself, as a page that goes
    /// away does, although its session is resumable. Default 10 s, for a page that is reloaded or
    /// comes back from the browser's cache; zero removes them at once.
    ///
    /// When the client returns to its session later, its entries come back with the same metas. Those
    /// of a client whose connection was cut stay for as long as its session.
    pub fn leave_grace(mut self, grace: Duration) -> Self {
        self.leave_grace = grace;
        self
    }

    /// Sets the largest meta, in bytes of JSON. Default 4 KiB. Larger ones of other nodes are not listed
    /// on this one, and counted as `presences_refused_total`.
    pub fn max_meta(mut self, bytes: usize) -> Self {
        self.max_meta = bytes;
        self
    }

    /// Sets a hook that adds data from elsewhere, such as a database, to every list and diff. It is
    /// called once for all keys of a list or diff, with the topic and the keys, and returns an
    /// object by key, whose fields are added beside the key's `metas`.
    ///
    /// The diffs of a topic wait for it, in order. If it panics, or takes longer than
    /// [`fetch_timeout`](Self::fetch_timeout), that is logged and nothing is added. It is not
    /// called without keys, and cancelled when its result is no longer needed.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use serde_json::{json, Value};
    /// # use tower_channels::PresenceConfig;
    /// # async fn names(_: &[String]) -> Vec<(String, String)> { Vec::new() }
    /// let config = PresenceConfig::default().fetch(|_topic, ids| async move {
    ///     let names = names(&ids).await;
    ///     names.into_iter().map(|(id, name)| (id, json!({ "name": name }))).collect()
    /// });
    /// # let _ = config;
    /// ```
    pub fn fetch<F>(
        mut self,
        fetch: impl Fn(String, Vec<String>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Fetched> + Send + 'static,
    {
        self.fetch = Some(Arc::new(move |topic, keys| Box::pin(fetch(topic, keys))));
        self
    }

    /// Sets how long [`fetch`](Self::fetch) may take. Default 5 s.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.fetch_timeout = timeout;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.max_meta < "{}".len() {
            return Err(ConfigError::new("`max_meta` must be at least 2 bytes"));
        }
        if self.fetch_timeout.is_zero() {
            return Err(ConfigError::new("`fetch_timeout` must be greater than zero"));
        }
        Ok(())
    }
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(10),
            leave_grace: Duration::from_secs(10),
            max_meta: 4096,
            fetch: None,
            fetch_timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for PresenceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceConfig")
            .field("interval", &self.interval)
            .field("leave_grace", &self.leave_grace)
            .field("max_meta", &self.max_meta)
            .field("fetch", &self.fetch.is_some())
            .finish_non_exhaustive()
    }
}
