//! Topics with a history: messages that are sent once they are kept, and read again.

use super::PubSub;
use crate::history::{Page, Position, PublishError, ReadError, Since};
use crate::payload::Payload;
use crate::topics::broadcast::Broadcast;

impl PubSub {
    /// Sends an event to all subscribers of a topic with a [history](crate::Builder::history), as
    /// [`broadcast`](Self::broadcast) does, and returns its position once it is kept.
    ///
    /// Cancel safety: a message that was given to the store is sent all the same.
    ///
    /// # Errors
    /// If the topic has no history, the payload has more than 256 KiB, or the store is unavailable. The message reaches
    /// nobody, or everybody if the store turns out to have kept it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use serde_json::json;
    /// use tower_channels::{History, PubSub, PubSubConfig};
    ///
    /// let config = PubSubConfig::new().history("room:*", History::last(500));
    /// let pubsub = PubSub::with_config(config)?;
    /// let first = pubsub.publish("room:1", "new_msg", json!({ "body": "hi" })).await?;
    /// let second = pubsub.publish("room:1", "new_msg", json!({ "body": "there" })).await?;
    /// assert!(first.epoch == second.epoch && first.number < second.number);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<Position, PublishError> {
        let broadcast = Broadcast::new(topic.into(), event.into(), payload.into());
        let histories = self.histories().filter(|histories| histories.policy(topic).is_some());
        let histories = histories.ok_or(PublishError::NoHistory)?;
        self.disconnect_on(topic, event);
        histories.publish(broadcast).await
    }

    /// Reads part of the history of a topic, at most `limit` messages, and at most 10,000.
    ///
    /// # Errors
    /// If the topic has no history, or the store is unavailable.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use serde_json::json;
    /// use tower_channels::history::Since;
    /// use tower_channels::{History, PubSub, PubSubConfig};
    ///
    /// let config = PubSubConfig::new().history("room:*", History::last(500));
    /// let pubsub = PubSub::with_config(config)?;
    /// for number in 1..=5 {
    ///     pubsub.broadcast("room:1", "new_msg", json!(number));
    /// }
    /// // The newest two, and then the page before them.
    /// let page = pubsub.history("room:1", Since::Newest, 2).await?;
    /// assert_eq!(page.messages[0].payload(), &json!(4));
    /// let first = page.messages[0].position().unwrap();
    /// let page = pubsub.history("room:1", Since::Before(first), 2).await?;
    /// assert_eq!(page.messages[0].payload(), &json!(2));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn history(
        &self,
        topic: &str,
        since: Since,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let histories = self.histories().ok_or(ReadError::NoHistory)?;
        histories.page(topic, since, limit).await
    }
}
