//! Histories of topics, in a stream of JetStream.
//!
//! A message is published to `tc.{app}.h.{partition}.{topic}`, where the stream takes it. The server answers to
//! `tc.{app}.a.{node}.{number}`, and publishes what it has kept once more, to `tc.{app}.r.{partition}.{topic}`, where the
//! nodes hear it. The number of a message in the stream is that of its position.

mod ack;
mod config;
mod direct;
mod link;
mod message;
pub(crate) mod names;
mod pending;
mod reading;
mod run;
mod search;
mod serving;
mod session;
mod shared;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::ServerAddr;
use tower_channels::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Page, PublishError, Since, StoreError,
};

pub use self::config::HistoryConfig;
use self::shared::Shared;
use crate::config::NatsConfig;

/// The [`HistoryStore`] of an adapter. It has a connection of its own, so that pages and frames do not wait for each other.
pub(crate) struct History {
    shared: Arc<Shared>,
    is_started: AtomicBool,
}

impl History {
    pub(crate) fn new(config: &NatsConfig, servers: Vec<ServerAddr>) -> Self {
        let shared = Arc::new(Shared::new(config.clone(), servers));
        Self { shared, is_started: AtomicBool::new(false) }
    }
}

impl HistoryStore for History {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        if !self.is_started.swap(true, Ordering::Relaxed) {
            self.shared.start(inbox);
            // It ends by itself, once this is dropped and everything is kept.
            tokio::spawn(serving::run(self.shared.clone()));
        }
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        self.shared.change(|interest| interest.listen(topic))
    }

    fn ignore(&self, topic: &str) {
        drop(self.shared.change(|interest| interest.ignore(topic)));
    }

    fn append(&self, message: Append) -> Result<(), PublishError> {
        self.shared.append(message)
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.shared.read(topic, since, limit))
    }
}

/// Keeps what waits, which nobody is handed any more.
impl Drop for History {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}
