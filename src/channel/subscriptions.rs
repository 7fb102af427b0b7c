//! The subscriptions of a channel to topics other than its own.

use std::fmt;

use smol_str::SmolStr;

use super::callbacks::{Channel, Socket};
use super::resources::{Acquired, Subscription};
use crate::message::LONGEST_NAME;
use crate::payload::heap_size;

/// Error returned by [`Socket::subscribe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// It is the channel's own topic. Its broadcasts go to the client; list events in
    /// [`Channel::INTERCEPT`] to handle them in the channel.
    OwnTopic,
    /// The topic is longer than 255 bytes.
    TopicTooLong,
    /// The channel has subscribed to 1000 topics.
    TooMany,
    /// The channel has ended.
    Ended,
}

impl<C: Channel> Socket<C> {
    /// Subscribes the channel to another topic, of any name: its broadcasts reach
    /// [`Channel::handle_broadcast`] from now on, until the channel ends or
    /// [unsubscribes](Self::unsubscribe). A second call for the same topic changes nothing.
    ///
    /// It may be called anywhere, also in [`Channel::join`]: what is broadcast meanwhile is handled
    /// after [`Channel::after_join`], or by nobody if the join fails. So subscribe before you read what
    /// the broadcasts change, and nothing is missed in between.
    ///
    /// Broadcasts wait with the other messages of the channel. If more than [`Builder::max_mailbox`]
    /// waits already, a broadcast is dropped and counted, as an intercepted one is.
    ///
    /// If the client chooses the topic, check that it may hear it.
    ///
    /// ```
    /// use tower_channels::channel::Result;
    /// use tower_channels::{Channel, Joined, Payload, Socket};
    ///
    /// struct Inbox;
    ///
    /// impl Channel for Inbox {
    ///     type Assigns = ();
    ///     type Info = ();
    ///
    ///     async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
    ///         socket.subscribe("news:eu")?;
    ///         Ok(Inbox.into())
    ///     }
    ///
    ///     async fn handle_broadcast(
    ///         &mut self,
    ///         topic: &str,
    ///         _: &str,
    ///         news: Payload,
    ///         socket: &Socket<Self>,
    ///     ) -> Result<()> {
    ///         socket.push(topic, news);
    ///         Ok(())
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # use serde_json::json;
    /// # let endpoint = tower_channels::Endpoint::builder(|_| async { Ok(()) }).channel::<Inbox>("inbox").build();
    /// # let mut client = tower_channels::test::connect(&endpoint, &[]).await.unwrap();
    /// # client.join("inbox", json!({})).await;
    /// endpoint.broadcast("news:eu", "rain", json!({ "mm": 3 }));
    /// # assert_eq!(client.next_push().await, ("news:eu".into(), json!({ "mm": 3 }).into()));
    /// # }
    /// ```
    ///
    /// # Errors
    /// If it is the channel's own topic, if the topic is longer than 255 bytes, if the channel has
    /// subscribed to 1000 topics already, or if it has ended.
    ///
    /// [`Builder::max_mailbox`]: crate::Builder::max_mailbox
    pub fn subscribe(&self, topic: &str) -> Result<(), SubscribeError> {
        let context = self.context();
        if topic == context.topic {
            return Err(SubscribeError::OwnTopic);
        }
        if topic.len() > LONGEST_NAME {
            return Err(SubscribeError::TopicTooLong);
        }
        drop(context.pubsub.hear(topic));
        let account = context.client.outbox.account();
        let subscribe = |acquired: &mut Acquired| {
            let subscriptions = &mut acquired.subscriptions;
            if subscriptions.contains_key(topic) {
                return Ok(());
            }
            if subscriptions.len() >= MOST {
                return Err(SubscribeError::TooMany);
            }
            let topic = SmolStr::new(topic);
            let inbox = context.mailbox.inbox();
            let membership = context.pubsub.registry().add_inbox(&topic, inbox);
            let memory = account.map(|it| it.hold(SUBSCRIPTION + 3 * heap_size(&topic)));
            let subscription = Subscription::new(membership, memory);
            subscriptions.insert(topic, subscription);
            Ok(())
        };
        context.resources.acquire(subscribe).unwrap_or(Err(SubscribeError::Ended))?;
        account.iter().for_each(|account| account.memory().relieve());
        Ok(())
    }

    /// Ends a subscription. Broadcasts that still wait are discarded, unless the channel subscribes to the
    /// topic again before their turn. Does nothing without a subscription to the topic.
    pub fn unsubscribe(&self, topic: &str) {
        self.context().resources.unsubscribe(topic);
    }
}

/// How many other topics a channel may hear: a client may choose them.
const MOST: usize = 1000;

/// What a subscription holds at least, in bytes: its places in the channel and in the topic, which it
/// may be the only subscriber of.
const SUBSCRIPTION: usize = 640;

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnTopic => "the channel receives its own topic already",
            Self::TopicTooLong => "the topic is longer than 255 bytes",
            Self::TooMany => "the channel has subscribed to too many topics",
            Self::Ended => "the channel has ended",
        })
    }
}

impl std::error::Error for SubscribeError {}
