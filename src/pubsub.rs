//! Broadcasts: encoded once a protocol version, however many receive them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use smol_str::SmolStr;
use tower_channels_transports::Message;

use crate::client::Client;
use crate::mailbox::{Address, Mail};
use crate::payload::Payload;
use crate::serializer::{Outgoing, Version};
use crate::topics::{Member, Topics};

/// A message to everyone on a topic.
pub(crate) struct Broadcast {
    topic: SmolStr,
    event: SmolStr,
    payload: Payload,
    transient: bool,
    /// What each version makes of it: `None` where it cannot be said.
    encoded: [OnceLock<Option<Message>>; Version::COUNT],
}

/// One channel of one client, as its topic knows it.
pub(crate) struct Subscriber {
    pub(crate) client: Client,
    pub(crate) mailbox: Address,
    /// The events that go to the mailbox, for `Channel::handle_out`.
    pub(crate) intercept: &'static [&'static str],
}

/// A subscription, which ends when it is dropped.
pub(crate) type Subscription = Member<Subscriber>;

/// Topics and their subscribers. A cheap clone.
#[derive(Clone)]
pub(crate) struct PubSub(Arc<Topics<Subscriber>>);

impl PubSub {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Topics::new()))
    }

    /// Subscribes; what `first` sends comes before every broadcast.
    pub(crate) fn subscribe(
        &self,
        topic: &SmolStr,
        subscriber: Subscriber,
        first: impl FnOnce(),
    ) -> Subscription {
        self.0.add(topic, subscriber, first)
    }

    /// Sends to everyone on the topic but the channel whose mailbox is `from`.
    pub(crate) fn broadcast(&self, broadcast: Broadcast, from: Option<&Address>) {
        let broadcast = Arc::new(broadcast);
        self.0.each(&broadcast.topic, |subscriber| {
            if !from.is_some_and(|from| from.is(&subscriber.mailbox)) {
                subscriber.receive(&broadcast);
            }
        });
    }
}

impl Subscriber {
    fn receive(&self, broadcast: &Arc<Broadcast>) {
        if self.intercept.contains(&&*broadcast.event) {
            // A channel that has ended receives nothing; one that is overrun loses the message as
            // its client would have.
            if self.mailbox.send(Mail::Out(Arc::clone(broadcast))).is_err() {
                metrics::counter!("tower_channels_intercepts_dropped").increment(1);
            }
        } else if let Some(message) = broadcast.encode(self.client.version) {
            self.client.outbox.push(message);
        } else {
            Client::skipped();
        }
    }
}

impl Broadcast {
    pub(crate) fn new(topic: SmolStr, event: SmolStr, payload: Payload) -> Self {
        Self { topic, event, payload, transient: false, encoded: Default::default() }
    }

    /// Makes it one that is worthless to a client that was away: it will be told anew.
    pub(crate) fn transient(self) -> Self {
        Self { transient: true, ..self }
    }

    pub(crate) fn event(&self) -> &str {
        &self.event
    }

    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    fn encode(&self, version: Version) -> Option<Message> {
        let Self { topic, event, payload, .. } = self;
        let encode = || {
            let message = version.encode(&Outgoing::Broadcast { topic, event, payload })?;
            Some(if self.transient { message.transient() } else { message })
        };
        self.encoded[version.index()].get_or_init(encode).clone()
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
