//! Topics: broadcasts and their subscribers.

pub(crate) mod broadcast;
pub(crate) mod registry;
mod replay;
pub(crate) mod subscriber;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use smol_str::SmolStr;
use tower_channels_transports::{Account, Memory};

use self::broadcast::Broadcast;
use self::registry::Registry;
use self::replay::ReplayLog;
use self::subscriber::{Inbox, Subscriber};
use crate::effects::Effects;

type Log = ReplayLog<Arc<Broadcast>>;

/// All topics and their subscribers. A cheap clone.
#[derive(Clone)]
pub(crate) struct PubSub {
    topics: Arc<Registry<Subscriber, Log>>,
    /// The most bytes kept on one topic for its dormant subscribers: twice what may wait for a client,
    /// because a broadcast is kept as it came and encoded.
    max_log: usize,
    /// The protocol versions of all subscribers so far: what is kept is encoded for these.
    versions: Arc<AtomicU8>,
    /// For what is kept, and for what many clients share.
    account: Arc<Account>,
}

/// A subscription, which ends when it is dropped.
pub(crate) struct Subscription(registry::Subscription<Subscriber, Log>);

impl PubSub {
    pub(crate) fn new(max_log: usize, memory: &Memory) -> Self {
        let (topics, account) = (Arc::new(Registry::new()), memory.account());
        Self { topics, max_log, versions: Arc::default(), account }
    }

    /// The account for what many clients share.
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Subscribes to a topic. What `first` enqueues precedes every broadcast that the subscriber
    /// receives, and no broadcast after it is missed. It runs under the topic's lock.
    pub(crate) fn subscribe(
        &self,
        topic: &SmolStr,
        subscriber: Subscriber,
        first: impl FnOnce(&mut Effects),
    ) -> Subscription {
        let version = 1 << subscriber.version().index();
        if self.versions.load(Ordering::Relaxed) & version == 0 {
            self.versions.fetch_or(version, Ordering::Relaxed);
        }
        let mut effects = Effects::default();
        let subscription = self.topics.add(topic, subscriber, || first(&mut effects));
        effects.run();
        Subscription(subscription)
    }

    /// Sends to every subscriber of the topic, except to the one with the inbox `from`. All of them
    /// receive concurrent broadcasts in the same order.
    pub(crate) fn broadcast(&self, broadcast: Broadcast, from: Option<&Arc<dyn Inbox>>) {
        let broadcast = Arc::new(broadcast.hold(&self.account));
        let mut effects = Effects::default();
        let begin = |log: &mut Log| {
            if !broadcast.is_volatile() {
                let versions = self.versions.load(Ordering::Relaxed).count_ones();
                let cost = broadcast.cost(versions as usize);
                log.begin_delivery(Arc::clone(&broadcast), cost, self.max_log);
            }
        };
        let end = |log: &mut Log| {
            if !broadcast.is_volatile() {
                log.end_delivery(Some(&self.account));
            }
        };
        self.topics.walk(
            broadcast.topic(),
            begin,
            Subscriber::prefetch,
            |subscriber, log| subscriber.receive(&broadcast, from, log, &mut effects),
            end,
        );
        drop(broadcast);
        let memory = self.account.memory();
        effects.relieve(memory.is_exceeded().then(|| memory.clone()));
        effects.run();
    }
}

impl Subscription {
    /// Keeps further broadcasts on the topic, once for all its dormant subscribers, until
    /// [`catch_up`](Self::catch_up). Returns whether the subscriber is dormant: one that intercepts
    /// stays live, as its channel goes on to handle broadcasts.
    ///
    /// With `resends_volatile`, volatile broadcasts are not kept: the channel sends their subject
    /// anew.
    pub(crate) fn make_dormant(&self, resends_volatile: bool) -> bool {
        let make_dormant = |subscriber: &mut Subscriber, log: &mut Log, reached| {
            subscriber.make_dormant(resends_volatile, log, reached)
        };
        self.0.with(make_dormant).unwrap_or(false)
    }

    /// Enqueues what was kept since [`make_dormant`](Self::make_dormant), and makes the subscriber
    /// live again.
    pub(crate) fn catch_up(&self) -> Effects {
        let mut effects = Effects::default();
        self.0.with(|subscriber, log, reached| {
            let end = log.end(reached);
            subscriber.catch_up(log, end, &mut effects);
        });
        effects
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.with(|subscriber, log, _| subscriber.close(log));
    }
}
