//! [`ChannelContext`]: a channel's identity, and its connections to its client and its topic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use smol_str::SmolStr;
use tower_channels_transports::Message;
use tower_channels_transports::outbox::Enqueued;

use super::arrival::Arrival;
use super::mailbox;
use super::remembered::Remembered;
use super::resources::Resources;
use crate::guarded::Guarded;
use crate::history::{Position, PublishError};
use crate::message::{Ref, Topic};
use crate::payload::Payload;
use crate::presence::tracked::Ownership;
use crate::pubsub::PubSub;
use crate::reply::Reply;
use crate::responder::{Exit, Responder};
use crate::serializer::ServerMessage;
use crate::socket_info::SocketInfo;
use crate::telemetry::ChannelMetrics;
use crate::topics::Membership;
use crate::topics::broadcast::Broadcast;
use crate::topics::heard::Heard;

/// A channel's identity, and its connections to its client and its topic. Shared by its task, its
/// exit guard and the clones of its `Socket`.
pub(crate) struct ChannelContext<A> {
    pub(crate) assigns: Arc<Guarded<A>>,
    pub(crate) info: Arc<SocketInfo>,
    pub(crate) topic: SmolStr,
    /// The join_ref of pushes and replies: the ref of the join if it had no join_ref.
    pub(crate) join_ref: Ref,
    pub(crate) client: Responder,
    pub(crate) pubsub: PubSub,
    pub(crate) ownership: Ownership,
    pub(crate) mailbox: mailbox::Sender,
    pub(crate) subscription: TopicSubscription,
    pub(crate) metrics: Arc<ChannelMetrics>,
    pub(crate) resources: Resources,
    /// Empty for [`Arrival::New`]. Set before `join` runs.
    pub(crate) arrival: OnceLock<Box<Arrival>>,
    /// For the next node, if this one dies.
    pub(crate) remembered: Option<Arc<Remembered>>,
}

/// The subscription of a joined channel to its topic.
#[derive(Default)]
pub(crate) struct TopicSubscription {
    /// Guards the subscription between the channel's task, which sets it, and the other tasks that
    /// let it catch up. Held for the call of one of its methods.
    current: Mutex<Option<Membership>>,
    /// Whether the subscription may be dormant. Spares pushes the lock.
    may_be_dormant: AtomicBool,
    /// Whether it is not known behind which message of the topic's history it has begun, and so the client was not told.
    is_unplaced: AtomicBool,
}

/// The task from which a message to the client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The channel's own, which is running, so that the channel cannot end meanwhile.
    ChannelTask,
    /// Any other.
    OtherTask,
}

impl<A> ChannelContext<A> {
    /// Returns the context of the instance that follows on the same stream.
    pub(crate) fn next(&self, join_ref: Ref, mailbox: mailbox::Sender) -> Self {
        Self {
            assigns: Arc::clone(&self.assigns),
            info: Arc::clone(&self.info),
            topic: self.topic.clone(),
            join_ref,
            client: self.client.clone(),
            pubsub: self.pubsub.clone(),
            ownership: Ownership::default(),
            mailbox,
            subscription: TopicSubscription::default(),
            metrics: Arc::clone(&self.metrics),
            resources: Resources::default(),
            arrival: OnceLock::new(),
            remembered: self.remembered.clone(),
        }
    }

    /// Ends what the channel hears, and its timers: nothing of it reaches the mailbox any more.
    pub(crate) fn unsubscribe_all(&self) {
        self.subscription.set(None);
        self.resources.end();
        self.remembered.iter().for_each(|remembered| remembered.leave(&self.topic));
    }

    /// Pushes an event to the client, which stands for the broadcast at a position of the topic's history if there is one.
    pub(crate) fn push(
        &self,
        caller: Caller,
        position: Option<Position>,
        event: &str,
        payload: &Payload,
    ) {
        let carried = position.filter(|_| self.client.positions.fit(payload));
        let message = self.encode_push(event, payload, carried);
        let untold = position.filter(|_| carried.is_none() || message.is_none());
        self.send(caller, message);
        untold.into_iter().for_each(|position| self.tell(caller, position));
    }

    /// Sends a broadcast of the topic's history to the client.
    pub(crate) fn forward(&self, caller: Caller, broadcast: &Broadcast) {
        let Some([message, position]) = broadcast.encode_with_position(&self.client) else {
            return;
        };
        if message.is_none() {
            self.client.skip();
        }
        self.send(caller, message);
        self.send(caller, position);
    }

    /// Tells the client that it has everything up to a position of the topic's history.
    pub(crate) fn tell(&self, caller: Caller, position: Position) {
        self.send(caller, self.client.encode_position(&self.topic, position));
    }

    /// Replies to a push.
    pub(crate) fn reply(&self, caller: Caller, reference: &Ref, reply: &Reply) {
        let topic = self.topic_name();
        self.send(caller, self.client.encode_reply(&self.join_ref, reference, &topic, reply));
    }

    /// Broadcasts to every subscriber of the topic, or to all but this channel.
    pub(crate) fn broadcast(&self, event: &str, payload: Payload, except_self: bool) {
        self.subscription.catch_up();
        let from = except_self.then(|| self.mailbox.inbox());
        let broadcast = Broadcast::new(self.topic.clone(), event.into(), payload);
        self.pubsub.send(broadcast, from.as_ref());
    }

    /// Broadcasts to every subscriber of the topic, and returns once the message is kept.
    pub(crate) async fn publish(
        &self,
        event: &str,
        payload: Payload,
    ) -> Result<Position, PublishError> {
        self.subscription.catch_up();
        self.pubsub.publish(&self.topic, event, payload).await
    }

    /// Replies to the join of a client that has returned: from here on its messages flow again, as
    /// long as the connection of `epoch` lasts.
    pub(crate) fn resume(&self, epoch: u64, join_ref: &Ref, reference: &Ref, response: Payload) {
        self.subscription.catch_up();
        if let Some(reply) = self.encode_reply(join_ref, reference, &Reply::Ok(response)) {
            self.client.outbox.resume(epoch, reply);
        }
    }

    /// Replies to a failed join or to a leave, ahead of everything that waits for the client.
    pub(crate) fn reply_first(&self, join_ref: &Ref, reference: &Ref, reply: &Reply) {
        self.client.reply_first(join_ref, reference, &self.topic_name(), reply);
    }

    /// Encodes the reply to a join, with the join_ref as the client sent it.
    pub(crate) fn encode_reply(
        &self,
        join_ref: &Ref,
        reference: &Ref,
        reply: &Reply,
    ) -> Option<Message> {
        self.client.encode_reply(join_ref, reference, &self.topic_name(), reply)
    }

    /// Replies to a push that waited for a join which failed.
    pub(crate) fn reply_unmatched(&self, reference: &Ref) {
        let reply = Reply::reason("unmatched topic");
        self.client.reply_first(&Ref::NULL, reference, &self.topic_name(), &reply);
    }

    /// Puts the end of the channel into the client's outbox.
    pub(crate) fn enqueue_exit(&self, join_ref: &Ref, exit: Exit) -> Option<Enqueued> {
        let message = self.client.encode_exit(join_ref, &self.topic, exit)?;
        Some(self.client.outbox.enqueue(message))
    }

    /// Puts the end of a channel that the client has left into its outbox.
    pub(crate) fn enqueue_left(&self, join_ref: &Ref) -> Option<Enqueued> {
        let message = self.client.encode_exit(join_ref, &self.topic, Exit::CLOSE)?;
        Some(self.client.outbox.enqueue_last(message))
    }

    fn encode_push(
        &self,
        event: &str,
        payload: &Payload,
        position: Option<Position>,
    ) -> Option<Message> {
        let Self { topic, .. } = self;
        let join_ref = self.client.wire_join_ref(&self.join_ref);
        self.client.encode(&ServerMessage::Push { join_ref, topic, event, payload, position })
    }

    /// Sends a message unless the channel has ended, and behind the broadcasts that came before it.
    pub(super) fn send(&self, caller: Caller, message: Option<Message>) {
        let Some(message) = message else { return };
        self.subscription.catch_up();
        match caller {
            Caller::ChannelTask if self.mailbox.is_muted() => {}
            Caller::ChannelTask => self.client.outbox.push(message),
            Caller::OtherTask => {
                let enqueue = || self.client.outbox.enqueue(message);
                if let Some(enqueued) = self.mailbox.while_alive(enqueue) {
                    enqueued.finish();
                }
            }
        }
    }

    fn topic_name(&self) -> Topic<'_> {
        Topic::from(&*self.topic)
    }
}

impl TopicSubscription {
    /// Replaces the subscription. `None` ends it.
    pub(crate) fn set(&self, subscription: Option<Membership>) {
        let old = std::mem::replace(&mut *self.current.lock(), subscription);
        drop(old);
    }

    pub(crate) fn set_unplaced(&self) {
        self.is_unplaced.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_unplaced(&self) -> bool {
        self.is_unplaced.load(Ordering::Relaxed)
    }

    /// Makes the subscription dormant, as the client is away. With `resends_volatile` the channel
    /// sends the subject of volatile broadcasts anew when the client returns.
    pub(crate) fn make_dormant(&self, resends_volatile: bool) {
        let subscription = self.current.lock();
        // Set before the subscription is dormant, so that every push that comes after lets it catch
        // up.
        self.may_be_dormant.store(true, Ordering::Release);
        let is_dormant = subscription.as_ref().is_some_and(|it| it.make_dormant(resends_volatile));
        self.may_be_dormant.store(is_dormant, Ordering::Release);
    }

    /// Ends the subscription, behind what was broadcast while it was dormant. Returns what it has received; see
    /// [`Membership::leave_history`].
    pub(crate) fn leave(
        &self,
        last: impl FnOnce() -> Option<Position>,
    ) -> (Heard, Option<Position>) {
        let subscription = self.current.lock().take();
        subscription.map(|subscription| subscription.leave_history(last)).unwrap_or_default()
    }

    /// Sends what was broadcast while the subscription was dormant.
    pub(crate) fn catch_up(&self) {
        if !self.may_be_dormant.load(Ordering::Acquire) {
            return;
        }
        let subscription = self.current.lock();
        let effects = subscription.as_ref().map(Membership::catch_up);
        self.may_be_dormant.store(false, Ordering::Release);
        drop(subscription);
        if let Some(effects) = effects {
            effects.run();
        }
    }
}
