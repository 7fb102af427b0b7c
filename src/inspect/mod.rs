//! What an endpoint does at the moment, for a dashboard: [`Inspect`], from [`Endpoint::inspect`].
//!
//! Nothing here needs a metrics recorder, and nothing costs anything before it is asked for. Lists come in pages, of which
//! each looks at a bounded part of the whole and holds no lock while it does: a caller that lets other tasks run between two
//! pages disturbs nobody, however many sessions there are.
//!
//! ```
//! use tower_channels::inspect::{Cursor, Inspect};
//!
//! /// The ids of the sockets for which most waits.
//! async fn slowest(inspect: &Inspect) -> Vec<(usize, Option<String>)> {
//!     let mut slowest = Vec::new();
//!     let mut next = Some(Cursor::default());
//!     while let Some(cursor) = next {
//!         let page = inspect.sessions(cursor);
//!         slowest.extend(page.items.into_iter().map(|session| (session.queued, session.id)));
//!         slowest.sort_unstable_by(|one, other| other.cmp(one));
//!         slowest.truncate(10);
//!         next = page.next;
//!         tokio::task::yield_now().await;
//!     }
//!     slowest
//! }
//! # let _ = slowest;
//! ```
//!
//! [`Endpoint::inspect`]: crate::Endpoint::inspect

mod types;
mod watch;

use std::fmt;
use std::sync::Arc;

use tower_channels_transports::Figures;
pub use tower_channels_transports::TransportFigures;
pub use tower_channels_transports::telemetry::ROUND_TRIPS;

pub use self::types::{
    ChannelFigures, CounterFigures, Cursor, Page, PresentKey, Presents, SessionInfo, SessionState,
    TopicInfo,
};
pub use self::watch::{Broadcasts, Watch};
use crate::pubsub::PubSub;
use crate::socket::registry::SessionRegistry;
use crate::telemetry::{ChannelMetrics, all_metrics};
use crate::topics::registry::SHARDS;

/// What an endpoint does at the moment. A cheap clone, from [`Endpoint::inspect`](crate::Endpoint::inspect).
#[derive(Clone)]
pub struct Inspect {
    pubsub: PubSub,
    sessions: SessionRegistry,
    channels: Arc<[Arc<ChannelMetrics>]>,
    figures: Figures,
}

/// How many places of sessions a page looks at.
const PLACES: usize = 256;

impl Inspect {
    pub(crate) fn new(
        pubsub: &PubSub,
        sessions: &SessionRegistry,
        channels: &Arc<[Arc<ChannelMetrics>]>,
        figures: Figures,
    ) -> Self {
        let (pubsub, sessions) = (pubsub.clone(), sessions.clone());
        Self { pubsub, sessions, channels: Arc::clone(channels), figures }
    }

    /// The topics, the presence and the socket ids of the endpoint.
    pub fn pubsub(&self) -> &PubSub {
        &self.pubsub
    }

    /// Returns how many sessions there are, connected or detached.
    pub fn session_count(&self) -> usize {
        self.sessions.count()
    }

    /// Returns a page of the sessions: those in the next 256 places, of which many may be empty. A session keeps its place
    /// until it ends, and its place is the [number](Cursor::from_number) of the cursor from which a page begins with it. Sessions that
    /// come or go between two pages may be missing.
    pub fn sessions(&self, from: Cursor) -> Page<SessionInfo> {
        let (sessions, next) = self.sessions.slice(from.0, PLACES);
        let items = sessions.iter().map(|(place, session)| SessionInfo::new(*place, session));
        Page { items: items.collect(), next: next.map(Cursor) }
    }

    /// Returns how many topics have subscribers on this node, and how many subscriptions there are.
    pub fn topic_count(&self) -> (usize, usize) {
        self.pubsub.registry().totals()
    }

    /// Returns a page of the topics that have subscribers on this node, in no order: about a 64th of all of them. A topic
    /// is always in the same page.
    pub fn topics(&self, from: Cursor) -> Page<TopicInfo> {
        let topics = self.pubsub.registry().counts(from.0).unwrap_or_default().into_iter();
        let items = topics.map(|(name, subscribers)| TopicInfo { name: name.into(), subscribers });
        let next = from.0.saturating_add(1);
        Page { items: items.collect(), next: (next < SHARDS).then_some(Cursor(next)) }
    }

    /// Returns up to `most` keys that are present on a topic, in no order, and how many there are.
    pub fn presences(&self, topic: &str, most: usize) -> Presents {
        let snapshot = self.pubsub.presence().0.store.snapshot(topic);
        let present = snapshot.iter().take(most).map(|(key, metas)| PresentKey {
            key: key.to_string(),
            metas: metas.iter().map(|entry| entry.meta().to_string()).collect(),
        });
        Presents { count: snapshot.len(), keys: present.collect() }
    }

    /// Returns how many channels of each topic pattern there are.
    pub fn channels(&self) -> Vec<ChannelFigures> {
        let figures = |channel: &Arc<ChannelMetrics>| ChannelFigures {
            pattern: channel.pattern().to_owned(),
            running: channel.running(),
        };
        self.channels.iter().map(figures).collect()
    }

    /// Returns the sessions and the messages by transport. Messages are counted while there is a [`Watch`].
    pub fn transports(&self) -> [TransportFigures; 3] {
        self.figures.transports()
    }

    /// Returns how many round trips took how long, in classes whose upper bounds are [`ROUND_TRIPS`], in milliseconds, with one
    /// more for all that took longer. Counted while there is a [`Watch`]. A round trip is that of a Ping of a WebSocket with a
    /// resumable session, which sends one after what it writes, at most every 250 ms or so.
    pub fn round_trips(&self) -> [u64; ROUND_TRIPS.len() + 1] {
        self.figures.round_trips()
    }

    /// Returns how many bytes of the [budget of memory](crate::Builder::memory) are reserved, and the budget.
    pub fn memory(&self) -> (usize, usize) {
        let memory = self.figures.memory();
        (memory.reserved(), memory.limit())
    }

    /// Returns the counters of the program that have counted anything: those of rare events, with all label values together.
    /// They are those of all endpoints, and named as in the [metrics](crate::describe_metrics).
    pub fn counters(&self) -> Vec<CounterFigures> {
        let counters = all_metrics().filter(|metric| metric.kind() == "counter");
        let counters = counters.map(|metric| CounterFigures {
            name: metric.name(),
            meaning: metric.meaning(),
            total: metric.total(),
        });
        counters.filter(|counter| counter.total > 0).collect()
    }

    /// Lets messages, broadcasts and round trips be counted until the result is dropped. Meanwhile a read, a write and a
    /// broadcast cost an addition more, and a broadcast a look-up of its topic under a lock.
    pub fn watch(&self) -> Watch {
        Watch::new(self.pubsub.registry(), self.figures.watch())
    }
}

impl fmt::Debug for Inspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspect").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
