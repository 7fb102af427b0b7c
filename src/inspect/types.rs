//! What can be seen, as values.

use std::time::Duration;

use tower_channels_transports::Transport;

use crate::socket::registry::Admitted;

/// Where a page begins. The default is the beginning of the first page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor(pub(super) usize);

impl Cursor {
    /// Returns it as a number, for [`from_number`](Self::from_number).
    pub fn number(self) -> u64 {
        self.0 as u64
    }

    /// Creates a cursor from its number. One that was never returned leads to an empty page, or to another part of the list.
    pub fn from_number(number: u64) -> Self {
        Self(usize::try_from(number).unwrap_or(usize::MAX))
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is in this part; perhaps nothing.
    pub items: Vec<T>,
    /// Where the next page begins; `None` behind the last one.
    pub next: Option<Cursor>,
}

/// An empty part, behind which there is nothing.
impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

/// A session, from [`Inspect::sessions`](super::Inspect::sessions).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its place, which another session may get when it has ended.
    pub place: u64,
    /// The socket id, if it has one.
    pub id: Option<String>,
    /// The transport of its connection, or of its last one.
    pub transport: Transport,
    /// How long ago its client connected first, to this node.
    pub age: Duration,
    /// How many channels it has.
    pub channels: usize,
    /// How many bytes wait for its client, or are not acknowledged.
    pub queued: usize,
    /// What it is doing.
    pub state: SessionState,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionState {
    /// It has a connection, or its long-poll client is between two polls.
    Connected,
    /// Its client is away and may resume it.
    Detached,
    /// It is about to end.
    Closing,
}

impl SessionInfo {
    pub(super) fn new(place: usize, session: &Admitted) -> Self {
        let Admitted { outbox, info } = session;
        let state = match (outbox.is_closed(), info.is_detached()) {
            (true, _) => SessionState::Closing,
            (false, true) => SessionState::Detached,
            (false, false) => SessionState::Connected,
        };
        Self {
            place: place as u64,
            id: info.id().map(ToString::to_string),
            transport: info.transport(),
            age: info.since().elapsed(),
            channels: info.channels() as usize,
            queued: outbox.backlog(),
            state,
        }
    }
}

/// A topic, from [`Inspect::topics`](super::Inspect::topics).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The topic.
    pub name: String,
    /// How many subscribers it has on this node.
    pub subscribers: usize,
}

/// Some of the keys that are present on a topic, from [`Inspect::presences`](super::Inspect::presences).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presents {
    /// How many keys are present.
    pub count: usize,
    /// Some of them.
    pub keys: Vec<PresentKey>,
}

/// A key that is present on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresentKey {
    /// The key.
    pub key: String,
    /// The metas, oldest first, each as JSON.
    pub metas: Vec<String>,
}

/// The channels of a topic pattern, from [`Inspect::channels`](super::Inspect::channels).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelFigures {
    /// The topic pattern, such as `room:*`.
    pub pattern: String,
    /// How many channels there are, those of clients that are gone included.
    pub running: usize,
}

/// A counter, from [`Inspect::counters`](super::Inspect::counters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterFigures {
    /// The name of the metric.
    pub name: &'static str,
    /// What it counts.
    pub meaning: &'static str,
    /// What it has counted since the program began.
    pub total: u64,
}
