//! Topics with a history: what is broadcast on them is kept, numbered, and read again by clients that return.

mod policy;
mod position;

use std::fmt;
use std::sync::Arc;

pub use self::policy::History;
pub use self::position::{InvalidPosition, Position};
use crate::adapter::HistoryStore;
use crate::pattern;
use crate::topics::Topics;
use crate::topics::broadcast::Broadcast;

/// The histories of the topics of a [`PubSub`](crate::PubSub).
pub(crate) struct Histories {
    /// By topic pattern: the first that matches counts.
    policies: Vec<(String, History)>,
}

/// What a client has missed of a topic.
#[allow(dead_code)]
pub(crate) struct Recovery {
    /// In their order. Empty if it is not complete.
    pub(crate) messages: Vec<Arc<Broadcast>>,
    /// The position of the last message of the topic, up to which this is all. `None` if the store does not answer.
    pub(crate) last: Option<Position>,
    /// Whether nothing is missing.
    pub(crate) is_complete: bool,
}

impl Histories {
    /// Creates the histories, in memory if there is no store.
    pub(crate) fn start(
        policies: Vec<(String, History)>,
        _memory: usize,
        _store: Option<Box<dyn HistoryStore>>,
        _topics: &Topics,
    ) -> Arc<Self> {
        Arc::new(Self { policies })
    }

    /// How much of a topic is kept. `None` if it has no history.
    pub(crate) fn policy(&self, topic: &str) -> Option<&History> {
        let mut policies = self.policies.iter();
        let found = policies.find(|(pattern, _)| pattern::matches(pattern, topic));
        found.map(|(_, history)| history)
    }

    /// Returns what is kept of a topic after a position, all of it or nothing: if it is more than 10,000 messages or than
    /// may wait for a client, or does not answer within two seconds, it is not complete.
    #[allow(dead_code)]
    pub(crate) async fn recover(&self, _topic: &str, _after: Position) -> Recovery {
        Recovery { messages: Vec::new(), last: None, is_complete: false }
    }

    /// Returns the position after which every message of a topic is yet to come. `None` if the store does not answer.
    #[allow(dead_code)]
    pub(crate) async fn head(&self, _topic: &str) -> Option<Position> {
        None
    }
}

impl fmt::Debug for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histories").field("policies", &self.policies).finish_non_exhaustive()
    }
}
