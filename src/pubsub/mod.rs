//! Broadcasts: encoded once a protocol version, however many receive them.

pub(crate) mod registry;
mod replay;

use std::fmt;
use std::sync::{Arc, OnceLock};

use smol_str::SmolStr;
use tower_channels_transports::{Close, Message};

use self::registry::{Registry, walk};
use self::replay::ReplayLog;
use crate::channel::mailbox::{self, Command};
use crate::payload::Payload;
use crate::responder::Responder;
use crate::serializer::{ServerMessage, Version};

/// A message to everyone on a topic.
pub(crate) struct Broadcast {
    topic: SmolStr,
    event: SmolStr,
    payload: Payload,
    volatile: bool,
    /// What each version makes of it: `None` where it cannot be said.
    encoded: [OnceLock<Option<Message>>; Version::COUNT],
}

/// One channel of one client, as its topic knows it.
pub(crate) struct Subscriber {
    pub(crate) client: Responder,
    pub(crate) mailbox: mailbox::Sender,
    /// The events that go to the mailbox, for `Channel::handle_out`.
    pub(crate) intercept: &'static [&'static str],
    pub(crate) rest: Option<Rest>,
}

/// A subscriber whose client is away. It costs a broadcast next to nothing: what it misses is kept
/// once for all who rest on the topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// The position in the topic's history of what it missed first.
    since: u64,
    /// Whether the client will be sent anew what is volatile.
    follows: bool,
}

/// A subscription, which ends when it is dropped.
pub(crate) struct Subscription(registry::Subscription<Subscriber, Missed>);

type Missed = ReplayLog<Arc<Broadcast>>;

/// Registry and their subscribers. A cheap clone.
#[derive(Clone)]
pub(crate) struct PubSub {
    topics: Arc<Registry<Subscriber, Missed>>,
    /// How many bytes are kept of a topic for those who rest: what may wait for a client.
    limit: usize,
}

impl PubSub {
    pub(crate) fn new(limit: usize) -> Self {
        Self { topics: Arc::new(Registry::new()), limit }
    }

    /// Subscribes; what `first` sends comes before every broadcast.
    pub(crate) fn subscribe(
        &self,
        topic: &SmolStr,
        subscriber: Subscriber,
        first: impl FnOnce(),
    ) -> Subscription {
        Subscription(self.topics.add(topic, subscriber, first))
    }

    /// Sends to everyone on the topic but the channel whose mailbox is `from`.
    pub(crate) fn broadcast(&self, broadcast: Broadcast, from: Option<&mailbox::Sender>) {
        let broadcast = Arc::new(broadcast);
        self.topics.with(&broadcast.topic, |subscribers, missed| {
            if !broadcast.volatile {
                missed.push(Arc::clone(&broadcast), broadcast.cost(), self.limit);
            }
            walk(subscribers, Subscriber::prefetch, |subscriber| {
                let sleeps = subscriber.defers(&broadcast, missed);
                if !sleeps && !from.is_some_and(|from| from.is(&subscriber.mailbox)) {
                    subscriber.receive(&broadcast);
                }
            });
        });
    }
}

impl Subscription {
    /// The client is away: until it wakes, broadcasts are kept for it on its topic. Not of a channel
    /// that intercepts: it goes on handling them. `false` if it does not rest.
    pub(crate) fn rest(&self, follows: bool) -> bool {
        let rest = |subscriber: &mut Subscriber, missed: &mut Missed| {
            if subscriber.rest.is_none() && subscriber.intercept.is_empty() {
                subscriber.rest = Some(Rest { since: missed.rest(), follows });
            }
            subscriber.rest.is_some()
        };
        self.0.with(rest).unwrap_or(false)
    }

    /// Sends what was kept. Without effect if it does not rest.
    pub(crate) fn wake(&self) {
        self.0.with(Subscriber::wake);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.with(|subscriber, missed| {
            if subscriber.rest.take().is_some() {
                missed.leave();
            }
        });
    }
}

impl Subscriber {
    /// See [`outbox::Sender::prefetch`](tower_channels_transports::outbox::Sender::prefetch).
    fn prefetch(&self) {
        if self.rest.is_none() {
            self.client.outbox.prefetch();
        }
    }

    /// Whether a broadcast is none of its business while it rests.
    fn defers(&mut self, broadcast: &Broadcast, missed: &mut Missed) -> bool {
        let Some(Rest { since, follows }) = self.rest else { return false };
        if missed.has_lost(since) {
            // As when so much waits in the outbox itself: the session begins anew.
            self.rest = None;
            missed.leave();
            metrics::counter!("tower_channels_outbox_overflows").increment(1);
            self.client.outbox.close(Close::Overflow);
            return true;
        }
        if broadcast.volatile && !follows {
            self.wake(missed);
            return false;
        }
        true
    }

    fn wake(&mut self, missed: &mut Missed) {
        let Some(Rest { since, .. }) = self.rest.take() else { return };
        let missed = missed.wake(since);
        metrics::counter!("tower_channels_messages_replayed").increment(missed.len() as u64);
        missed.iter().for_each(|broadcast| self.receive(broadcast));
    }

    fn receive(&self, broadcast: &Arc<Broadcast>) {
        if self.intercept.contains(&&*broadcast.event) {
            // A channel that has ended receives nothing; one that is overrun loses the message as
            // its client would have.
            if self.mailbox.send(Command::Broadcast(Arc::clone(broadcast))).is_err() {
                metrics::counter!("tower_channels_intercepts_dropped").increment(1);
            }
        } else if let Some(message) = broadcast.encode(self.client.version) {
            self.client.outbox.push(message.clone());
        } else {
            Responder::skipped();
        }
    }
}

impl Broadcast {
    pub(crate) fn new(topic: SmolStr, event: SmolStr, payload: Payload) -> Self {
        Self { topic, event, payload, volatile: false, encoded: Default::default() }
    }

    /// Makes it one that is worthless to a client that was away: it will be told anew.
    pub(crate) fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    pub(crate) fn event(&self) -> &str {
        &self.event
    }

    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// What it costs to keep.
    fn cost(&self) -> usize {
        self.payload.len() + self.topic.len() + self.event.len() + size_of::<Self>()
    }

    fn encode(&self, version: Version) -> Option<&Message> {
        let Self { topic, event, payload, .. } = self;
        let encode = || {
            let message = version.encode(&ServerMessage::Broadcast { topic, event, payload })?;
            let message = message.for_many();
            Some(if self.volatile { message.volatile() } else { message })
        };
        self.encoded[version.index()].get_or_init(encode).as_ref()
    }
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, event, .. } = self;
        f.debug_struct("Broadcast")
            .field("topic", topic)
            .field("event", event)
            .finish_non_exhaustive()
    }
}
