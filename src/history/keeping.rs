//! What is broadcast on a topic with a history is kept before it is delivered.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tower_channels_transports::limited;

use super::entry;
use super::error::PublishError;
use super::position::Position;
use super::{Histories, InMemory, PATIENCE, Place};
use crate::adapter::{Append, Keep, StoreError};
use crate::telemetry::{HISTORY_LOST, HISTORY_TOPICS_FORGOTTEN};
use crate::topics::broadcast::Broadcast;
use crate::topics::subscriber::Inbox;

/// The longest payload of a message that is kept.
const MAX_PAYLOAD: usize = 256 << 10;

/// Is told what has become of a message.
type Done = oneshot::Sender<Result<Position, StoreError>>;

impl Histories {
    /// Keeps a broadcast and delivers it, except to the subscriber with the inbox `from`. Returns it if its topic has no
    /// history. Never blocks.
    pub(crate) fn broadcast(
        &self,
        broadcast: Broadcast,
        from: Option<&Arc<dyn Inbox>>,
    ) -> Option<Broadcast> {
        let Some((place, history)) = self.find_policy(broadcast.topic()) else {
            return Some(broadcast);
        };
        // What is not kept has been counted.
        let _ = self.keep(place, history.keep(), broadcast, from, None);
        None
    }

    /// Keeps a message and delivers it. Returns once it is kept.
    pub(crate) async fn publish(&self, broadcast: Broadcast) -> Result<Position, PublishError> {
        let topic = broadcast.topic_name();
        let found = self.find_policy(&topic).map(|(place, history)| (place, history.keep()));
        let (place, keep) = found.ok_or(PublishError::NoHistory)?;
        let (done, told) = oneshot::channel();
        if let Some(position) = self.keep(place, keep, broadcast, None, Some(done))? {
            return Ok(position);
        }
        let error = match timeout(PATIENCE, told).await {
            Ok(Ok(Ok(position))) => return Ok(position),
            Ok(Ok(Err(error))) => Some(error),
            Ok(Err(_)) | Err(_) => None,
        };
        HISTORY_LOST.increment(["unavailable"], 1);
        limited!(ERROR, ?topic, ?error, "a message could not be kept: the store is unavailable");
        Err(PublishError::Unavailable)
    }

    /// Keeps a message, in memory at once; otherwise `done` is told.
    fn keep(
        &self,
        place: usize,
        keep: Keep,
        broadcast: Broadcast,
        from: Option<&Arc<dyn Inbox>>,
        done: Option<Done>,
    ) -> Result<Option<Position>, PublishError> {
        let topic = broadcast.topic_name();
        let (event, payload) = (broadcast.event(), broadcast.payload());
        if payload.len() > MAX_PAYLOAD {
            HISTORY_LOST.increment(["too_large"], 1);
            limited!(ERROR, ?topic, "a message is too large to be kept: it reaches nobody");
            return Err(PublishError::TooLarge);
        }
        let store = match &self.place {
            Place::Memory(memory) => {
                let content = entry::encode(event, payload, None);
                return Ok(Some(self.keep_in_memory(memory, place, broadcast, from, content)));
            }
            Place::Store(store) | Place::Shared(store, _) => store,
        };
        let token = from.map(|from| self.receiver.remember(from));
        let content = entry::encode(event, payload, token);
        let append = Append { topic: topic.clone(), content, keep, done };
        store.append(append).map(|()| None).map_err(|_| {
            token.map(|token| self.receiver.recall(token));
            HISTORY_LOST.increment(["overflow"], 1);
            limited!(ERROR, ?topic, "too much waits to be kept: a message reaches nobody");
            PublishError::Unavailable
        })
    }

    fn keep_in_memory(
        &self,
        memory: &InMemory,
        group: usize,
        broadcast: Broadcast,
        from: Option<&Arc<dyn Inbox>>,
        content: Bytes,
    ) -> Position {
        let topic = broadcast.topic_name();
        let (mut position, mut count) = (Position { epoch: 0, number: 0 }, 0);
        self.receiver.deliver(broadcast, from, |now| {
            let placed = memory.with(|rings| {
                let placed = rings.append(&topic, group, content, now);
                count = rings.take_displaced();
                placed
            });
            position = placed.0;
            placed
        });
        if count > 0 {
            HISTORY_TOPICS_FORGOTTEN.add(count);
            limited!(WARN, count, "the histories of topics were forgotten: too much is kept");
        }
        position
    }
}
