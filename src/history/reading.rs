//! What is kept is read: by clients that return, which share their reads, and by the application.

use std::sync::Arc;

use smol_str::SmolStr;
use tokio::time::timeout;
use tower_channels_transports::limited;

use super::error::ReadError;
use super::position::Position;
use super::receiver::{decode, item};
use super::window::Limit;
use super::windows::{Found, Read};
use super::{Histories, PATIENCE, Place, Since};
use crate::adapter::{self, Kept};
use crate::telemetry::{HISTORY_READS, HISTORY_RECOVERIES};
use crate::topics::broadcast::Broadcast;

/// What a client has missed of a topic.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// In their order. Empty if it is not complete.
    pub(crate) messages: Vec<Arc<Broadcast>>,
    /// The position of the last message of the topic, up to which this is all. `None` if the store does not answer.
    pub(crate) last: Option<Position>,
    /// Whether nothing is missing.
    pub(crate) is_complete: bool,
}

/// Part of a topic's history, from [`PubSub::history`](crate::PubSub::history).
#[derive(Clone, Debug)]
pub struct Page {
    /// In their order, each with its [position](Broadcast::position).
    pub messages: Vec<Arc<Broadcast>>,
    /// Whether nothing is missing between the position that was asked for and these messages. Always true for
    /// [`Since::Newest`].
    pub is_complete: bool,
}

/// The most messages of one read.
const MAX_MESSAGES: usize = 10_000;

impl Histories {
    /// Returns what is kept of a topic after a position, all of it or nothing: if it is more than 10,000 messages or than
    /// may wait for a client, or the store does not answer within two seconds, it is not complete.
    ///
    /// The caller hears the topic already: what comes from now on may be missing.
    pub(crate) async fn recover(&self, topic: &str, after: Position) -> Recovery {
        let (recovery, result) = match self.find(topic, Some(after)).await {
            Some(Found { messages, last, is_complete }) => (
                Recovery { messages, last: Some(last), is_complete },
                if is_complete { "complete" } else { "gap" },
            ),
            None => {
                (Recovery { messages: Vec::new(), last: None, is_complete: false }, "unavailable")
            }
        };
        HISTORY_RECOVERIES.increment([result], 1);
        recovery
    }

    /// As [`recover`](Self::recover), after a number of the store, which may be above all of the topic.
    pub(crate) async fn recover_from(&self, topic: &str, from: Position) -> Recovery {
        let recovery = self.recover(topic, from).await;
        // Where the store ends, not this node, which may be behind.
        let ends_before = |last: Position| last.epoch == from.epoch && last.number < from.number;
        let is_complete = recovery.is_complete || recovery.last.is_some_and(ends_before);
        Recovery { is_complete, ..recovery }
    }

    /// Returns the position after which every message of a topic is yet to come, or has come since the call. `None` if the
    /// store does not answer within two seconds.
    pub(crate) async fn head(&self, topic: &str) -> Option<Position> {
        match self.place {
            Place::Memory(_) => self.read(topic, Since::Newest, 0).await.ok().map(|page| page.last),
            Place::Store(_) => self.find(topic, None).await.map(|found| found.last),
            // What is on its way through this node counts as yet to come.
            Place::Shared(_, ref follower) => match follower.last(topic) {
                Some(last) => Some(last),
                None => self.find(topic, None).await.map(|found| found.last),
            },
        }
    }

    /// Reads part of a topic's history.
    pub(crate) async fn page(
        &self,
        topic: &str,
        since: Since,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let page = self.read(topic, since, limit.min(MAX_MESSAGES)).await?;
        let messages = page.messages.into_iter();
        let messages = messages.filter_map(|kept| broadcast(topic.into(), kept)).collect();
        Ok(Page { messages, is_complete: page.is_complete })
    }

    /// Finds what follows a position, or only where the topic ends, in what another has read if possible.
    async fn find(&self, topic: &str, since: Option<Position>) -> Option<Found<Arc<Broadcast>>> {
        let topic = SmolStr::from(topic);
        timeout(PATIENCE, self.share(&topic, since)).await.ok()?
    }

    async fn share(
        &self,
        topic: &SmolStr,
        since: Option<Position>,
    ) -> Option<Found<Arc<Broadcast>>> {
        let receiver = &self.receiver;
        if let Some(found) = receiver.windows.find(topic, since, receiver.now()) {
            return Some(found);
        }
        let mut waiter = receiver.windows.wait(topic, since);
        let gate = Arc::clone(&waiter.gate);
        let _turn = gate.lock().await;
        if let Some(found) = receiver.windows.find(topic, since, receiver.now()) {
            return Some(found);
        }
        if waiter.has_failed() {
            return None;
        }
        // Those who have returned at the same moment say where they begin.
        tokio::task::yield_now().await;
        let limit = self.limit();
        let oldest = waiter.begin(since, limit);
        let read = self.read_for(topic, oldest).await.ok();
        waiter.finish(since, read, limit, receiver.now())
    }

    /// Reads all that follows a position, as far as it may be sent to a client; or only where the topic ends.
    async fn read_for(
        &self,
        topic: &SmolStr,
        since: Option<Position>,
    ) -> Result<Read<Arc<Broadcast>>, ReadError> {
        let nothing = |last: Position| Read {
            since: last.number,
            is_final: false,
            messages: Vec::new(),
            last,
        };
        let Some(since) = since else {
            return Ok(nothing(self.read(topic, Since::Newest, 0).await?.last));
        };
        let mut page = self.read(topic, Since::After(since), MAX_MESSAGES + 1).await?;
        if since.epoch != page.last.epoch || since.number > page.last.number {
            // Nothing is known of such a position, and this says nothing about others.
            return Ok(nothing(page.last));
        }
        if page.messages.len() > MAX_MESSAGES {
            page = self.read(topic, Since::Newest, MAX_MESSAGES).await?;
            page.is_complete = false;
        }
        let (mut start, mut is_final) = (since.number, !page.is_complete);
        if is_final {
            start = page.messages.first().map_or(page.last.number, |first| first.previous);
        }
        let mut messages = Vec::with_capacity(page.messages.len());
        for kept in page.messages {
            let (position, previous) = (kept.position, kept.previous);
            match broadcast(topic.clone(), kept) {
                Some(broadcast) => messages.push(item(&broadcast, position, previous)),
                None => {
                    (start, is_final) = (position.number, true);
                    messages.clear();
                }
            }
        }
        Ok(Read { since: start, is_final, messages, last: page.last })
    }

    /// Reads what is kept.
    async fn read(
        &self,
        topic: &str,
        since: Since,
        limit: usize,
    ) -> Result<adapter::Page, ReadError> {
        let (group, _) = self.find_policy(topic).ok_or(ReadError::NoHistory)?;
        let read = match &self.place {
            Place::Memory(memory) => {
                let now = self.receiver.now();
                Ok(memory.with(|rings| rings.read(topic, group, since, limit, now)))
            }
            Place::Store(store) | Place::Shared(store, _) => {
                match timeout(PATIENCE, store.read(topic, since, limit)).await {
                    Ok(read) => read.map_err(Some),
                    Err(_) => Err(None),
                }
            }
        };
        if let (Place::Shared(_, follower), Ok(page)) = (&self.place, &read) {
            follower.saw(topic, page.last);
        }
        HISTORY_READS.increment([if read.is_ok() { "ok" } else { "failed" }], 1);
        read.map_err(|error| {
            limited!(WARN, ?topic, ?error, "a history cannot be read: the store is unavailable");
            ReadError::Unavailable
        })
    }

    /// How much a client may be sent anew: it has room for a little more.
    fn limit(&self) -> Limit {
        let outbox = self.receiver.topics.max_outbox();
        Limit { messages: MAX_MESSAGES, bytes: outbox - outbox / 4 }
    }
}

fn broadcast(topic: SmolStr, kept: Kept) -> Option<Arc<Broadcast>> {
    let Kept { position, previous, content } = kept;
    let (broadcast, _) = decode(topic, content)?;
    Some(Arc::new(broadcast.kept(position, previous)))
}
