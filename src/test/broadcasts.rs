//! [`Broadcasts`]: the topics that a test has subscribed to.

use std::collections::HashMap;

use super::message::Message;
use super::unread::Unread;
use crate::pubsub::{PubSub, Subscription};

/// The topics that a test has subscribed to.
#[derive(Default)]
pub(super) struct Broadcasts(HashMap<String, Subscribed>);

/// The broadcasts of one topic.
pub(super) struct Subscribed {
    subscription: Subscription,
    pub(super) unread: Unread,
}

impl Broadcasts {
    /// Subscribes to a topic, unless it is subscribed to already.
    pub(super) fn subscribe(&mut self, pubsub: &PubSub, topic: &str) {
        self.0.entry(topic.to_owned()).or_insert_with(|| Subscribed {
            subscription: pubsub.subscribe(topic),
            unread: Unread::default(),
        });
    }

    pub(super) fn get_mut(&mut self, topic: &str) -> Option<&mut Subscribed> {
        self.0.get_mut(topic)
    }
}

impl Subscribed {
    /// Receives one broadcast.
    ///
    /// # Panics
    /// If more was broadcast since the last call than a subscription keeps.
    pub(super) async fn receive(&mut self) {
        let broadcast = self.subscription.recv().await;
        let broadcast = broadcast.unwrap_or_else(|lagged| panic!("broadcasts: {lagged}"));
        self.unread.push(Message::of(&broadcast));
    }
}
