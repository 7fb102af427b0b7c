//! [`Topics`]: broadcasts and their subscribers.

pub(crate) mod broadcast;
pub(crate) mod busiest;
pub(crate) mod heard;
pub(crate) mod positioned;
pub(crate) mod registry;
mod replay;
pub(crate) mod resting;
pub(crate) mod subscriber;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use metrics::Counter;
use smol_str::SmolStr;
use tower_channels_transports::telemetry::{Level, UNLABELED};
use tower_channels_transports::{Account, Memory};

use self::broadcast::Broadcast;
use self::busiest::Busiest;
use self::heard::{Heard, Origin};
use self::registry::Registry;
use self::replay::ReplayLog;
use self::resting::Resting;
use self::subscriber::{Inbox, Subscriber};
use crate::effects::Effects;
use crate::history::Position;
use crate::serializer::Version;
use crate::telemetry::{BROADCASTS, SUBSCRIBERS, TOPICS};

type Log = ReplayLog<Arc<Broadcast>>;

/// All topics and their subscribers. A cheap clone.
#[derive(Clone)]
pub(crate) struct Topics(Arc<Shared>);

struct Shared {
    registry: Arc<Registry<Subscriber, Topic>>,
    /// The most bytes kept on one topic for its dormant subscribers.
    max_log: AtomicUsize,
    /// The [encodings](Subscriber::encoding) of all subscribers so far: what is kept is encoded in these.
    versions: AtomicU8,
    /// For what is kept, and for what many clients share.
    account: Arc<Account>,
    broadcasts: Counter,
    busiest: Busiest,
    gauges: [Level; 2],
}

/// What the subscribers of a topic share.
#[derive(Default)]
struct Topic {
    log: Log,
    heard: Heard,
    /// The address of the inbox that the broadcast under way leaves out, or 0.
    from: usize,
}

impl Topic {
    /// Returns whether the broadcast under way leaves out this inbox.
    fn is_from(&self, inbox: &Arc<dyn Inbox>) -> bool {
        self.from == Arc::as_ptr(inbox).addr()
    }
}

/// The membership of a subscriber in a topic, which ends when it is dropped.
pub(crate) struct Membership(registry::Membership<Subscriber, Topic>);

impl Topics {
    pub(crate) fn new(memory: &Memory) -> Self {
        Self(Arc::new(Shared {
            registry: Arc::new(Registry::new()),
            max_log: AtomicUsize::new(0),
            versions: AtomicU8::new(0),
            account: memory.account(),
            broadcasts: BROADCASTS.handle(UNLABELED),
            busiest: Busiest::default(),
            gauges: [&TOPICS, &SUBSCRIBERS].map(|gauge| Level::new(gauge.handle(UNLABELED))),
        }))
    }

    /// Allows for clients with this outbox limit: a log keeps twice as much of one topic as may wait
    /// for any client, because a broadcast is kept as it came and encoded.
    pub(crate) fn allow_outbox(&self, limit: usize) {
        self.0.max_log.fetch_max(limit.saturating_mul(2), Ordering::Relaxed);
    }

    /// The most bytes that may wait for any client.
    pub(crate) fn max_outbox(&self) -> usize {
        self.0.max_log.load(Ordering::Relaxed) / 2
    }

    /// The account for what many clients share.
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.0.account
    }

    /// Subscribes to a topic. What `first` enqueues precedes every broadcast that the subscriber
    /// receives, and no broadcast after it is missed. It runs under the topic's lock.
    pub(crate) fn subscribe(
        &self,
        topic: &SmolStr,
        subscriber: Subscriber,
        first: impl FnOnce(&mut Effects),
    ) -> Membership {
        self.add_version(&subscriber);
        let mut effects = Effects::default();
        let membership = self.0.registry.add(topic, |_| {
            first(&mut effects);
            subscriber
        });
        effects.run();
        Membership(membership)
    }

    /// Keeps what is broadcast on a topic from now on, for a subscriber that is to come.
    pub(crate) fn rest(&self, topic: &SmolStr) -> Resting {
        let membership = self.0.registry.add(topic, |topic| Subscriber::resting(&mut topic.log));
        Resting::new(self.clone(), Membership(membership))
    }

    /// What is kept from now on is encoded for this subscriber's client, too.
    fn add_version(&self, subscriber: &Subscriber) {
        let version = subscriber.encoding().map_or(0, |encoding| 1 << encoding);
        if self.0.versions.load(Ordering::Relaxed) & version != version {
            self.0.versions.fetch_or(version, Ordering::Relaxed);
        }
    }

    /// Subscribes an inbox, which receives every broadcast of a topic from now on. Calls no foreign
    /// code, and so may be called under a lock, but not under one that the inbox takes.
    pub(crate) fn add_inbox(&self, topic: &SmolStr, inbox: Arc<dyn Inbox>) -> Membership {
        Membership(self.0.registry.add(topic, |_| Subscriber::inbox(inbox)))
    }

    /// Sends to every subscriber of the topic, except to the one with the inbox `from`. All of them
    /// receive concurrent broadcasts in the same order.
    pub(crate) fn broadcast(&self, broadcast: Broadcast, from: Option<&Arc<dyn Inbox>>) {
        self.deliver(broadcast, from, None::<fn(&Arc<Broadcast>) -> Option<Origin>>);
    }

    /// As [`broadcast`](Self::broadcast), if several nodes hear it. `send` returns its origin, having sent it to the
    /// others if this node does; it is called once, before any subscriber is reached and under the topic's lock, so that
    /// all nodes see the broadcasts of this one on a topic in the same order.
    pub(crate) fn broadcast_from_node(
        &self,
        broadcast: Broadcast,
        from: Option<&Arc<dyn Inbox>>,
        send: impl FnOnce() -> Option<Origin>,
    ) {
        self.deliver(broadcast, from, Some(|_: &Arc<Broadcast>| send()));
    }

    /// As [`broadcast`](Self::broadcast), on a topic whose messages are kept here. `keep` gives the broadcast its
    /// position; it is called once, before any subscriber is reached and under the topic's lock, so that the order of the
    /// positions is that of the delivery.
    pub(crate) fn broadcast_and_keep(
        &self,
        broadcast: Broadcast,
        from: Option<&Arc<dyn Inbox>>,
        keep: impl FnOnce(&Arc<Broadcast>),
    ) {
        let keep = |broadcast: &Arc<Broadcast>| {
            keep(broadcast);
            None
        };
        self.deliver(broadcast, from, Some(keep));
    }

    fn deliver(
        &self,
        broadcast: Broadcast,
        from: Option<&Arc<dyn Inbox>>,
        send: Option<impl FnOnce(&Arc<Broadcast>) -> Option<Origin>>,
    ) {
        let Shared { registry, max_log, versions, account, broadcasts, busiest, .. } = &*self.0;
        let broadcast = Arc::new(broadcast.hold(account));
        let mut effects = Effects::default();
        let (is_sent, send) = (send.is_none(), Cell::new(send));
        let begin = |topic: &mut Topic| {
            if let Some(origin) = send.take().and_then(|send| send(&broadcast)) {
                broadcast.set_origin(origin);
                topic.heard.add(origin);
            }
            topic.from = from.map_or(0, |inbox| Arc::as_ptr(inbox).addr());
            if !broadcast.is_volatile() {
                let encodings = encodings(versions.load(Ordering::Relaxed), &broadcast);
                let cost = broadcast.cost(encodings);
                let max_log = max_log.load(Ordering::Relaxed);
                topic.log.begin_delivery(Arc::clone(&broadcast), cost, max_log);
            }
        };
        let end = |topic: &mut Topic| {
            topic.from = 0;
            if !broadcast.is_volatile() {
                topic.log.end_delivery(Some(account));
            }
        };
        let mut visit = |subscriber: &mut Subscriber, topic: &mut Topic| {
            subscriber.receive(&broadcast, from, &mut topic.log, &mut effects);
        };
        let name = broadcast.topic();
        while !registry.walk(name, begin, Subscriber::prefetch, &mut visit, end) {
            // Nobody is here, nor comes while it is sent: who begins to rest later knows of its number.
            let send = || {
                let _ = send.take().map(|send| send(&broadcast));
            };
            if is_sent || registry.if_nobody(name, send) {
                break;
            }
        }
        busiest.add(name);
        drop(broadcast);
        broadcasts.increment(1);
        let memory = account.memory();
        effects.relieve(memory.is_exceeded().then(|| memory.clone()));
        effects.run();
    }

    /// Updates the gauges. The caller holds no lock.
    pub(crate) fn record_gauges(&self) {
        let (names, memberships) = self.0.registry.totals();
        let [topics, subscribers] = &self.0.gauges;
        topics.set(names);
        subscribers.set(memberships);
    }

    /// Returns the number of subscribers of a topic.
    pub(crate) fn subscribers(&self, topic: &str) -> usize {
        self.0.registry.count(topic)
    }

    /// Returns how many topics there are, and how many subscriptions to them.
    pub(crate) fn totals(&self) -> (usize, usize) {
        self.0.registry.totals()
    }

    /// Returns the topics of one shard of [`SHARDS`](registry::SHARDS), each with the number of its subscribers.
    pub(crate) fn counts(&self, shard: usize) -> Option<Vec<(SmolStr, usize)>> {
        self.0.registry.counts(shard)
    }

    /// Counts broadcasts by topic, while somebody watches.
    pub(crate) fn busiest(&self) -> &Busiest {
        &self.0.busiest
    }

    /// Broadcasts on a topic may have been missed. Returns the inboxes of those subscribers that have to be told: that were
    /// [interrupted](Self::interrupt), and, if `all_are_told`, whose clients have resumable sessions. Those that rest
    /// remember it.
    pub(crate) fn miss(&self, topic: &str, all_are_told: bool) -> Vec<Weak<dyn Inbox>> {
        let mut inboxes = Vec::new();
        let visit = |subscriber: &mut Subscriber, _: &mut Topic| {
            inboxes.extend(subscriber.miss(all_are_told));
        };
        self.0.registry.walk(topic, |_| (), |_| (), visit, |_| ());
        inboxes
    }

    /// Messages of a topic with a history are missing. Subscribers whose clients want positions receive nothing more.
    pub(crate) fn interrupt(&self, topic: &str) {
        let visit =
            |subscriber: &mut Subscriber, topic: &mut Topic| subscriber.interrupt(&mut topic.log);
        self.0.registry.walk(topic, |_| (), |_| (), visit, |_| ());
    }

    /// Returns the topics that have subscribers.
    pub(crate) fn names(&self) -> impl Iterator<Item = SmolStr> + use<> {
        Arc::clone(&self.0.registry).names()
    }
}

/// Returns in how many forms a broadcast is encoded, of those that there are subscribers for.
fn encodings(all: u8, broadcast: &Broadcast) -> usize {
    let is_kept = broadcast.position().is_some();
    // Without a position both forms of a version are one.
    let plain = (all | all >> Version::COUNT) & ((1 << Version::COUNT) - 1);
    (if is_kept { all } else { plain }).count_ones() as usize
}

impl Membership {
    /// Keeps further broadcasts on the topic, once for all its dormant subscribers, until
    /// [`catch_up`](Self::catch_up). Returns whether the subscriber is dormant: one that intercepts
    /// stays live, as its channel goes on to handle broadcasts.
    ///
    /// With `resends_volatile`, volatile broadcasts are not kept: the channel sends their subject
    /// anew.
    pub(crate) fn make_dormant(&self, resends_volatile: bool) -> bool {
        let make_dormant = |subscriber: &mut Subscriber, topic: &mut Topic, reached| {
            subscriber.make_dormant(resends_volatile, &mut topic.log, reached)
        };
        self.0.with(make_dormant).unwrap_or(false)
    }

    /// Enqueues what was kept since [`make_dormant`](Self::make_dormant), and makes the subscriber
    /// live again.
    pub(crate) fn catch_up(&self) -> Effects {
        let mut effects = Effects::default();
        self.0.with(|subscriber, topic, reached| {
            let end = topic.log.end(reached);
            subscriber.catch_up(&mut topic.log, end, &mut effects);
        });
        effects
    }

    /// Ends it, and returns what the subscriber has received of each node: all that was broadcast on the topic until
    /// now, also what was kept for it and what is being delivered, and what it had received elsewhere before. The caller
    /// holds no lock.
    pub(crate) fn leave(self) -> Heard {
        self.leave_history(|| None).0
    }

    /// As [`leave`](Self::leave), and returns up to where it has received the history of the topic, of which `last` returns
    /// under the topic's lock up to where it was delivered.
    pub(crate) fn leave_history(
        self,
        last: impl FnOnce() -> Option<Position>,
    ) -> (Heard, Option<Position>) {
        let mut effects = Effects::default();
        let left = self.0.with(|subscriber, topic, reached| {
            let position = subscriber.position(last());
            (subscriber.finish(topic, reached, &mut effects), position)
        });
        drop(self);
        effects.run();
        left.unwrap_or_default()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.with(|subscriber, topic, _| subscriber.close(&mut topic.log));
    }
}
