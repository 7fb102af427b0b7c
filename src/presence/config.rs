//! How presence is announced, and what is added to it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// How an endpoint announces presence.
#[derive(Clone)]
#[must_use = "it is given to `Builder::presence`"]
pub struct PresenceConfig {
    pub(super) interval: Duration,
    pub(super) max_meta: usize,
    pub(super) fetch: Option<Fetch>,
    pub(super) fetch_timeout: Duration,
}

/// What a fetch hook knows of keys: for each an object, whose fields stand beside `metas`.
pub type Fetched = HashMap<String, Value>;

pub(super) type Fetch = Arc<dyn Fn(String, Vec<String>) -> Fetching + Send + Sync>;
type Fetching = Pin<Box<dyn Future<Output = Fetched> + Send>>;

impl PresenceConfig {
    /// For how long changes are collected before they are announced together. Default 10 ms. Zero
    /// announces with the next turn of the scheduler; what happens in one turn still goes together.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The largest meta, in bytes of JSON. Default 4 KiB.
    pub fn max_meta(mut self, bytes: usize) -> Self {
        self.max_meta = bytes;
        self
    }

    /// Adds to every list and every diff what is known of its keys elsewhere, as in a database: one
    /// call for all of them, with the topic and the keys. The fields of what it returns for a key
    /// stand beside the key's `metas`.
    ///
    /// Announcements of one topic wait for it, in order. If it panics, or takes longer than
    /// [`fetch_timeout`](Self::fetch_timeout), that is logged and they go without. It is not called
    /// where there is no key, and ends early where nobody waits for its answer any more.
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

    /// How long [`fetch`](Self::fetch) may take. Default 5 s.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.fetch_timeout = timeout;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.max_meta < "{}".len() {
            return Err("no meta is as small as `max_meta`".to_owned());
        }
        if self.fetch_timeout.is_zero() {
            return Err("`fetch_timeout` is zero, with which nothing could be fetched".to_owned());
        }
        Ok(())
    }
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(10),
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
            .field("max_meta", &self.max_meta)
            .field("fetch", &self.fetch.is_some())
            .finish_non_exhaustive()
    }
}
