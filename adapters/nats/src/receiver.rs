//! [`Receiver`]: delivers what one connection hears.

use std::collections::{HashMap, VecDeque};
use std::future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, Error, Message, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep, sleep_until};
use tower_channels::adapter::{NodeId, NodeInbox};

use crate::Shared;
use crate::backlog::Backlog;
use crate::connection::{End, Ended};
use crate::interest::Selection;
use crate::topics::Topics;

/// Delivers what one connection hears, and changes its subscriptions to topics.
///
/// A change is followed by a message to the node itself that bears its version. When it is heard, the server has
/// made the change, and whatever it sent before waits in the queues of the subscriptions.
pub(crate) struct Receiver<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) inbox: &'a Arc<dyn NodeInbox>,
    pub(crate) id: NodeId,
    pub(crate) client: Client,
    pub(crate) all: Subscriber,
    pub(crate) node: Subscriber,
    pub(crate) topics: Topics,
    pub(crate) selection: Selection,
    pub(crate) backlog: Backlog,
    /// Topics are heard in another way than before, and this may come again.
    pub(crate) repeats: Option<Repeats>,
    /// The version of that, once repeats are among what waits, or have been.
    pub(crate) switched: Option<u64>,
    /// See [`Connection`](crate::connection::Connection).
    pub(crate) propagation: Duration,
    /// Versions that the own server knows, and when the others of its cluster do.
    pub(crate) propagating: VecDeque<(Instant, u64)>,
}

/// Frames that were delivered, and come again.
#[derive(Debug, Default)]
pub(crate) struct Repeats(HashMap<Bytes, u32>);

/// For how long messages are delivered before other tasks get the worker.
const TURN: Duration = Duration::from_millis(5);

/// For how long topics are heard in two ways. A server that was delivering a message when it took the new
/// subscription, delivers it to the old one alone, perhaps later than what it did afterwards.
const OVERLAP: Duration = Duration::from_millis(50);

/// A shorter frame is copied: as a slice it would keep the buffer that it was read into.
const SHORT: usize = 4096;

impl Receiver<'_> {
    /// Delivers until the connection ends.
    pub(crate) async fn run(&mut self, ended: &Ended) -> End {
        let (end, changed) = (ended.wait(), self.shared.changed.notified());
        tokio::pin!(end, changed);
        loop {
            let handled = tokio::select! {
                biased;
                end = &mut end => return end,
                () = &mut changed, if self.repeats.is_none() => {
                    changed.set(self.shared.changed.notified());
                    tokio::select! {
                        end = &mut end => return end,
                        changed = self.change() => changed,
                    }
                }
                handled = self.handle_next() => handled,
            };
            if handled.is_err() {
                return End::Disconnected;
            }
            if !self.deliver_topics() {
                if self.backlog.is_exceeded(self.read()) {
                    return End::Backlog;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits for something, and handles it.
    async fn handle_next(&mut self) -> Result<(), Error> {
        tokio::select! {
            biased;
            message = self.node.next() => self.take_own(closed_if_none(message)?),
            message = self.all.next() => {
                let message = closed_if_none(message)?;
                while let Some(before) = self.waiting_topic() {
                    self.deliver_topic(before);
                }
                self.deliver_broadcast(message);
            }
            version = propagated(&mut self.propagating), if !self.propagating.is_empty() => {
                self.shared.applied.send_replace(version);
            }
            message = self.topics.next(), if !self.topics.is_empty() => match message {
                Some(message) => self.deliver_topic(message),
                None if self.selection.is_all => return Err("closed".into()),
                None => {}
            },
        }
        Ok(())
    }

    /// Delivers the broadcasts to topics that wait. Returns `false` if it is others' turn before all are delivered.
    fn deliver_topics(&mut self) -> bool {
        let mut begin = None;
        for number in 1_u32.. {
            let Some(message) = self.waiting_topic() else {
                self.backlog.emptied(self.read());
                if let Some(version) = self.switched.take() {
                    self.repeats = None;
                    self.applied(version);
                }
                return true;
            };
            self.deliver_topic(message);
            if number.is_multiple_of(16) && begin.get_or_insert_with(Instant::now).elapsed() > TURN
            {
                break;
            }
        }
        false
    }

    /// Takes a broadcast to a topic that waits. What a node publishes to all follows what it published to topics before: it
    /// waits for that, since the two come by different queues, which are filled in order.
    fn waiting_topic(&mut self) -> Option<Message> {
        unconstrained(self.topics.next()).now_or_never().flatten()
    }

    /// Takes a message to this node: a frame of another one, which has a reply subject, or a version from itself.
    fn take_own(&mut self, message: Message) {
        match own_version(&message) {
            None => self.deliver(message),
            Some(version) if self.repeats.is_some() => {
                // Once the topics that wait have been delivered.
                self.switched = Some(version);
            }
            Some(version) => self.applied(version),
        }
    }

    /// The server has made the changes up to this version.
    fn applied(&mut self, version: u64) {
        if self.propagation.is_zero() {
            self.shared.applied.send_replace(version);
        } else {
            self.propagating.push_back((Instant::now() + self.propagation, version));
        }
    }

    fn deliver_topic(&mut self, message: Message) {
        let is_repeat = self.repeats.as_mut().is_some_and(|repeats| repeats.take(&message.payload));
        if !is_repeat {
            self.deliver_broadcast(message);
        }
    }

    fn deliver_broadcast(&mut self, message: Message) {
        // With a reply subject it is from a node that wants to hear itself.
        if message.reply.is_none() {
            self.deliver(message);
        }
    }

    fn deliver(&mut self, message: Message) {
        self.backlog.delivered(message.length);
        let frame = message.payload;
        let frame = if frame.len() < SHORT { Bytes::copy_from_slice(&frame) } else { frame };
        self.inbox.receive(frame);
    }

    /// Subscribes to what is wanted now.
    async fn change(&mut self) -> Result<(), Error> {
        let (wanted, version) = self.shared.wanted();
        let subjects = &self.shared.subjects;
        if wanted.is_all == self.selection.is_all {
            for partition in wanted.beyond(self.selection) {
                self.topics.add(&self.client, subjects, partition).await?;
            }
            for partition in self.selection.beyond(wanted) {
                self.topics.remove(partition).await?;
            }
        } else {
            self.switch(wanted, version).await?;
        }
        self.selection = wanted;
        self.publish_version(version).await
    }

    /// Hears topics in another way. They are heard in both for a moment, so that nothing is missed; what was heard in
    /// the old way is remembered, so that it is not delivered again.
    async fn switch(&mut self, wanted: Selection, version: u64) -> Result<(), Error> {
        let new = Topics::subscribe(&self.client, &self.shared.subjects, wanted).await?;
        self.publish_version(version).await?;
        let mut repeats = Repeats::default();
        let end = sleep(OVERLAP.max(self.propagation));
        tokio::pin!(end);
        let mut is_subscribed = false;
        loop {
            tokio::select! {
                biased;
                () = &mut end, if is_subscribed => break,
                message = self.node.next() => {
                    let message = closed_if_none(message)?;
                    if own_version(&message) == Some(version) {
                        is_subscribed = true;
                        end.as_mut().reset(Instant::now() + OVERLAP.max(self.propagation));
                    } else {
                        self.take_own(message);
                    }
                }
                message = self.all.next() => {
                    let message = closed_if_none(message)?;
                    while let Some(before) = self.waiting_topic() {
                        repeats.add(&before.payload);
                        self.deliver_topic(before);
                    }
                    self.deliver_broadcast(message);
                }
                message = self.topics.next(), if !self.topics.is_empty() => {
                    if let Some(message) = message {
                        repeats.add(&message.payload);
                        self.deliver_topic(message);
                    }
                }
            }
        }
        self.topics.unsubscribe().await?;
        while let Some(message) = self.topics.next().await {
            repeats.add(&message.payload);
            self.deliver_topic(message);
        }
        self.topics = new;
        self.repeats = Some(repeats);
        Ok(())
    }

    async fn publish_version(&self, version: u64) -> Result<(), Error> {
        let version = Bytes::copy_from_slice(&version.to_be_bytes());
        Ok(self.client.publish(self.shared.subjects.node(self.id), version).await?)
    }

    /// How many bytes were read from the connection.
    fn read(&self) -> u64 {
        self.client.statistics().in_bytes.load(Ordering::Relaxed)
    }
}

/// Waits until the next version is known everywhere.
pub(crate) async fn propagated(versions: &mut VecDeque<(Instant, u64)>) -> u64 {
    let Some(&(at, version)) = versions.front() else { return future::pending().await };
    sleep_until(at).await;
    versions.pop_front();
    version
}

fn own_version(message: &Message) -> Option<u64> {
    let version = <[u8; 8]>::try_from(&message.payload[..]).ok()?;
    message.reply.is_none().then_some(u64::from_be_bytes(version))
}

fn closed_if_none(message: Option<Message>) -> Result<Message, Error> {
    message.ok_or_else(|| "closed".into())
}

impl Repeats {
    fn add(&mut self, frame: &Bytes) {
        *self.0.entry(frame.clone()).or_default() += 1;
    }

    /// Whether this is a frame that was delivered. Not more often than it was.
    fn take(&mut self, frame: &Bytes) -> bool {
        let Some(count) = self.0.get_mut(frame) else { return false };
        *count -= 1;
        if *count == 0 {
            self.0.remove(frame);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_repeat_as_often_as_it_was_delivered() {
        let mut repeats = Repeats::default();
        for frame in ["a", "b", "a"] {
            repeats.add(&frame.into());
        }
        let mut take = |frame: &'static str| repeats.take(&frame.into());
        assert_eq!(
            ["a", "c", "a", "a", "b", "b"].map(&mut take),
            [true, false, true, false, true, false]
        );
    }
}
