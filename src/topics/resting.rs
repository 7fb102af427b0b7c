//! [`Resting`]: a subscriber that has yet to come from another node.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use super::broadcast::Broadcast;
use super::heard::Heard;
use super::subscriber::{Inbox, Subscriber, Undelivered};
use super::{Log, Membership, Topic, Topics};
use crate::effects::Effects;
use crate::history::Position;

/// A place among the subscribers of a topic, for a channel whose session comes from another node: what is broadcast
/// is kept in the topic's replay log, until it [wakes](Self::wake) or is dropped.
#[must_use = "dropping it gives up what rests"]
pub(crate) struct Resting {
    topics: Topics,
    membership: Membership,
    /// Whether its owner knows that something was missed.
    is_told: AtomicBool,
}

impl Resting {
    pub(super) fn new(topics: Topics, membership: Membership) -> Self {
        Self { topics, membership, is_told: AtomicBool::new(false) }
    }

    /// Returns whether a broadcast may have been missed: on its way from another node, or because the log could not
    /// keep it.
    pub(crate) fn missed(&self) -> bool {
        let has_missed = self.membership.0.with(|subscriber, topic, _| {
            subscriber.rest_mut().is_none_or(|rest| rest.has_missed(&topic.log))
        });
        let has_missed = has_missed.unwrap_or(true);
        self.is_told.fetch_or(has_missed, Ordering::Relaxed);
        has_missed
    }

    /// Puts a subscriber in its place. It receives what `first` enqueues, then what it has missed, then what rested, then
    /// every broadcast from now on, but for what it has had `before`; `first` runs under the topic's lock. Volatile
    /// broadcasts did not rest.
    ///
    /// If something was missed since the last call of [`missed`](Self::missed), its inbox is told. The caller holds no
    /// lock.
    pub(crate) fn wake(
        self,
        mut subscriber: Subscriber,
        before: Before,
        first: impl FnOnce(&mut Effects),
    ) -> Membership {
        let Self { topics, mut membership, is_told } = self;
        topics.add_version(&subscriber);
        let inbox = Arc::clone(subscriber.inbox_ref());
        let mut effects = Effects::default();
        let mut has_missed = false;
        membership.0.replace(|mut resting, topic| {
            first(&mut effects);
            let Before { heard, missed, until } = before;
            effects.replay(missed.len() as u64);
            missed.iter().for_each(|broadcast| subscriber.deliver(broadcast, &mut effects));
            subscriber.set_ahead(heard, until);
            if let Some(rest) = resting.rest_mut() {
                has_missed = rest.has_missed(&topic.log);
                rest.replay(&mut subscriber, topic, &mut effects);
            }
            resting.close(&mut topic.log);
            subscriber
        });
        effects.run();
        if has_missed && !is_told.into_inner() {
            inbox.miss();
        }
        membership
    }
}

/// What a subscriber receives before what rested, and what it does not receive again.
#[derive(Default)]
pub(crate) struct Before {
    /// What it has received on another node.
    pub(crate) heard: Heard,
    /// Of the history of the topic, in order.
    pub(crate) missed: Vec<Arc<Broadcast>>,
    /// Where the history ended when that was read: it receives nothing again that stands there or before.
    pub(crate) until: Option<Position>,
}

/// What a resting subscriber has to receive.
pub(super) struct Rest {
    /// The position in the topic's log of the first broadcast.
    since: u64,
    /// A broadcast was lost on its way.
    has_gap: bool,
    /// Those that were sent by a channel to all but itself, with their positions: it may be the one to come.
    own: VecDeque<(u64, Weak<dyn Inbox>)>,
}

impl Rest {
    /// Keeps what comes from now on; a delivery under way has come before.
    pub(super) fn begin(log: &mut Log) -> Self {
        log.hold();
        Self { since: log.end(true), has_gap: false, own: VecDeque::new() }
    }

    /// A broadcast that is kept is being delivered.
    pub(super) fn receive(&mut self, from: Option<&Arc<dyn Inbox>>, log: &Log) {
        if let Some(from) = from {
            while self.own.front().is_some_and(|(position, _)| log.has_evicted(*position)) {
                self.own.pop_front();
            }
            self.own.push_back((log.end(false), Arc::downgrade(from)));
        }
    }

    /// A broadcast was lost on its way.
    pub(super) fn miss(&mut self) {
        self.has_gap = true;
    }

    /// Delivers what rested to the subscriber that has come.
    fn replay(&self, subscriber: &mut Subscriber, topic: &Topic, effects: &mut Effects) {
        let inbox = &Arc::clone(subscriber.inbox_ref());
        let mut count = 0;
        for (position, broadcast) in topic.log.since(self.since) {
            let is_last = topic.log.is_delivering(position);
            let is_own = self.is_from(position, inbox) || (is_last && topic.is_from(inbox));
            if !is_own {
                subscriber.deliver(broadcast, effects);
                count += 1;
            }
        }
        effects.replay(count);
    }

    fn has_missed(&self, log: &Log) -> bool {
        self.has_gap || log.has_evicted(self.since)
    }

    fn is_from(&self, position: u64, inbox: &Arc<dyn Inbox>) -> bool {
        let address = Arc::as_ptr(inbox).addr();
        let is_it = |(at, from): &(u64, Weak<dyn Inbox>)| {
            *at == position && from.as_ptr().addr() == address
        };
        self.own.iter().any(is_it)
    }
}

/// The inbox of a subscriber that rests: nothing is delivered to it.
pub(super) struct NoInbox;

impl Inbox for NoInbox {
    fn deliver(&self, _: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        Err(Undelivered)
    }
}

#[cfg(test)]
mod tests;
