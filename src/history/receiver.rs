//! [`Receiver`]: delivers the messages that are kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use metrics::Counter;
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::time::Instant;
use tower_channels_transports::limited;
use tower_channels_transports::telemetry::UNLABELED;

use super::entry::{self, Entry, Token};
use super::position::Position;
use super::window::Item;
use super::windows::Windows;
use crate::adapter::{HistoryInbox, Kept, NodeId, StoreError};
use crate::telemetry::{HISTORY_KEPT, HISTORY_LOST};
use crate::topics::Topics;
use crate::topics::broadcast::Broadcast;
use crate::topics::subscriber::Inbox;

/// Delivers the messages of this node, or of a store, to the subscribers of their topics. It does not know the store, which
/// has it.
pub(super) struct Receiver {
    pub(super) topics: Topics,
    pub(super) windows: Windows<Arc<Broadcast>>,
    senders: Mutex<Senders>,
    started: Instant,
    /// The number of the last message that the store of a single process has handed over, and its epoch.
    pub(super) delivered: AtomicU64,
    pub(super) epoch: AtomicU64,
    kept: Counter,
}

/// The channels that are left out by broadcasts on their way through the store.
struct Senders {
    node: u64,
    last: u64,
    waiting: BTreeMap<u64, Weak<dyn Inbox>>,
}

/// How many channels are remembered. Those of broadcasts that were lost stay until then.
const MAX_SENDERS: usize = 1 << 16;

impl Receiver {
    pub(super) fn new(topics: &Topics, windows: usize) -> Self {
        let senders = Senders { node: NodeId::random().0, last: 0, waiting: BTreeMap::new() };
        Self {
            windows: Windows::new(topics.account(), windows),
            topics: topics.clone(),
            senders: Mutex::new(senders),
            started: Instant::now(),
            delivered: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            kept: HISTORY_KEPT.handle(UNLABELED),
        }
    }

    /// The time since this was created.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Delivers a message. `place` returns its position and the number of the one before it, and is called under the
    /// topic's lock.
    pub(super) fn deliver(
        &self,
        broadcast: Broadcast,
        from: Option<&Arc<dyn Inbox>>,
        place: impl FnOnce(Duration) -> (Position, u64),
    ) {
        let (topic, now) = (broadcast.topic_name(), self.now());
        let mut dropped = Vec::new();
        self.topics.broadcast_and_keep(broadcast, from, |broadcast| {
            let (position, previous) = place(now);
            broadcast.set_kept(position, previous);
            let item = item(broadcast, position, previous);
            self.windows.push(&topic, item, now, &mut dropped);
        });
        self.kept.increment(1);
    }

    /// Remembers a channel that a broadcast leaves out.
    pub(super) fn remember(&self, from: &Arc<dyn Inbox>) -> Token {
        let Senders { node, last, waiting } = &mut *self.senders.lock();
        *last += 1;
        waiting.insert(*last, Arc::downgrade(from));
        if waiting.len() > MAX_SENDERS {
            waiting.pop_first();
        }
        Token { node: *node, number: *last }
    }

    /// Returns the channel that a broadcast leaves out, if it is one of this node, and forgets it.
    pub(super) fn recall(&self, token: Token) -> Option<Arc<dyn Inbox>> {
        let Senders { node, waiting, .. } = &mut *self.senders.lock();
        let sender = if token.node == *node { waiting.remove(&token.number) } else { None };
        sender?.upgrade()
    }

    /// Delivers a message of the store. `passed` is called under the topic's lock. Returns `false`, without having called
    /// it, if the message cannot be read.
    pub(super) fn pass(&self, topic: &str, message: Kept, passed: impl FnOnce()) -> bool {
        let Kept { position, previous, content } = message;
        let Some((broadcast, from)) = decode(topic.into(), content) else { return false };
        let from = from.and_then(|token| self.recall(token));
        self.deliver(broadcast, from.as_ref(), |_| {
            passed();
            (position, previous)
        });
        true
    }
}

impl HistoryInbox for Receiver {
    fn kept(&self, topic: &str, message: Kept) {
        let Position { epoch, number } = message.position;
        // Under the topic's lock: a channel that leaves it knows what it has received.
        self.pass(topic, message, || {
            self.epoch.store(epoch, Ordering::Relaxed);
            self.delivered.store(number, Ordering::Relaxed);
        });
    }

    fn lost(&self, topic: &str, error: &StoreError) {
        HISTORY_LOST.increment(["unavailable"], 1);
        limited!(ERROR, ?topic, ?error, "a broadcast could not be kept: it reaches nobody");
    }
}

/// A broadcast with its place, for a window.
pub(super) fn item(
    broadcast: &Arc<Broadcast>,
    position: Position,
    previous: u64,
) -> Item<Arc<Broadcast>> {
    let Position { epoch, number } = position;
    let (bytes, message) = (broadcast.outbox_cost(), Arc::clone(broadcast));
    Item { epoch, number, previous, bytes, message }
}

/// Makes a broadcast of what was kept. What cannot be read is counted.
pub(super) fn decode(topic: SmolStr, content: Bytes) -> Option<(Broadcast, Option<Token>)> {
    let Some(Entry { event, payload, from }) = entry::decode(content) else {
        HISTORY_LOST.increment(["malformed"], 1);
        limited!(ERROR, ?topic, "a message in the store of the history cannot be read");
        return None;
    };
    Some((Broadcast::new(topic, event, payload), from))
}
