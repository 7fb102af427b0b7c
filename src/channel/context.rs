//! What is known of a channel outside its own state, and its way to its client and its topic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smol_str::SmolStr;

use super::mailbox;
use crate::message::{Ref, Topic};
use crate::payload::Payload;
use crate::presence::{Ownership, Presence};
use crate::pubsub::{Broadcast, PubSub, Subscription};
use crate::reply::Reply;
use crate::responder::Responder;
use crate::serializer::ServerMessage;

/// What is known of a channel outside its own state.
pub(crate) struct ChannelContext<A> {
    pub(crate) assigns: Arc<A>,
    pub(crate) topic: SmolStr,
    /// What the client named its join, for pushes and replies; never null unless its ref was too.
    pub(crate) join_ref: Ref,
    /// The same as it was sent, which may be null: what the end of the channel carries.
    pub(crate) sent_join_ref: Ref,
    pub(crate) client: Responder,
    pub(crate) pubsub: PubSub,
    pub(crate) presence: Presence,
    pub(crate) ownership: Ownership,
    pub(crate) mailbox: mailbox::Sender,
    /// While the channel is joined.
    pub(crate) subscription: Mutex<Option<Subscription>>,
    /// Whether the subscription rests, or did until lately.
    pub(crate) rests: AtomicBool,
}

impl<A> ChannelContext<A> {
    /// Subscribes to the topic, or ends the subscription.
    pub(crate) fn subscribe(&self, subscription: Option<Subscription>) {
        let mut current = self.subscription.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, subscription);
        drop(current);
        drop(old);
    }

    /// The client is away: what is broadcast waits at the topic.
    pub(crate) fn rest(&self) {
        let subscription = self.subscription.lock().unwrap_or_else(PoisonError::into_inner);
        // The flag first: whoever sees the rest must see it.
        self.rests.store(true, Ordering::Release);
        let follows = self.ownership.follows();
        let rests = subscription.as_ref().is_some_and(|subscription| subscription.rest(follows));
        self.rests.store(rests, Ordering::Release);
    }

    /// What was broadcast while the client was away comes before what is said to it now.
    pub(crate) fn wake(&self) {
        if self.rests.load(Ordering::Acquire) {
            let subscription = self.subscription.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(subscription) = &*subscription {
                subscription.wake();
            }
            self.rests.store(false, Ordering::Release);
        }
    }

    pub(crate) fn push(&self, event: &str, payload: &Payload) {
        self.say(event, payload, Responder::send);
    }

    /// Sends an event that is worthless once the connection is gone, to a channel that says it anew.
    pub(crate) fn push_volatile(&self, event: &str, payload: &Payload) {
        self.say(event, payload, Responder::send_volatile);
    }

    fn say(&self, event: &str, payload: &Payload, send: fn(&Responder, &ServerMessage<'_>)) {
        self.wake();
        let Self { topic, .. } = self;
        let join_ref = self.client.wire_join_ref(&self.join_ref);
        let push = ServerMessage::Push { join_ref, topic, event, payload };
        self.mailbox.unless_over(|| send(&self.client, &push));
    }

    pub(crate) fn broadcast(&self, event: &str, payload: Payload, from: Option<&mailbox::Sender>) {
        self.wake();
        self.pubsub.broadcast(Broadcast::new(self.topic.clone(), event.into(), payload), from);
    }

    /// Answers a push, unless the channel has ended.
    pub(crate) fn reply(&self, reference: &Ref, reply: &Reply) {
        self.wake();
        let topic = self.topic_name();
        self.mailbox.unless_over(|| self.client.reply(&self.join_ref, reference, &topic, reply));
    }

    /// Answers the join with success: with the join_ref as it was sent.
    pub(crate) fn open(&self, epoch: u64, reference: &Ref, response: Payload) {
        self.wake();
        let (join_ref, topic) = (&self.sent_join_ref, &self.topic_name());
        self.client.open(epoch, join_ref, reference, topic, &Reply::Ok(response));
    }

    /// Answers a join that failed, or a leave: past all that waits for the client.
    pub(crate) fn reply_to_join(&self, reference: &Ref, reply: &Reply) {
        self.client.priority().reply(&self.sent_join_ref, reference, &self.topic_name(), reply);
    }

    /// Answers a push that came for a join which failed.
    pub(crate) fn reply_unmatched(&self, reference: &Ref) {
        self.client.priority().reply_unmatched(reference, &self.topic_name());
    }

    /// Tells the client that the channel which it joined as `sent_join_ref` has ended.
    pub(crate) fn end(&self, sent_join_ref: &Ref, event: &str, payload: &str) {
        self.client.end(sent_join_ref, &self.topic, event, payload);
    }

    fn topic_name(&self) -> Topic<'_> {
        Topic::from(&*self.topic)
    }
}
