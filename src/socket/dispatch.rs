//! The rules of the protocol: what each message of a client does to the channels of its socket.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use smol_str::SmolStr;
use tokio::time::Instant;
use tower_channels_transports::panics::{self, Panicked};
use tower_channels_transports::{Close, DetachReason, limited};
use tracing::Span;

use super::context::EndpointContext;
use super::joined_channel::JoinedChannel;
use super::moving::arriving::{Arriving, ArrivingTopic};
use super::remembering::Remembering;
use crate::channel::context::{ChannelContext, TopicSubscription};
use crate::channel::error::join_crashed;
use crate::channel::instance::{PreviousInstance, TopicPermit};
use crate::channel::mailbox::{self, Command, Rejoin, SendError};
use crate::channel::resources::Resources;
use crate::channel::task::Join;
use crate::guarded::Guarded;
use crate::message::{ClientMessage, Ref, Topic};
use crate::presence::tracked::Ownership;
use crate::reply::Reply;
use crate::responder::Responder;
use crate::router::RoutedChannel;
use crate::socket_info::SocketInfo;
use crate::telemetry::{JoinResult, MESSAGES_REPEATED, MESSAGES_UNMATCHED, PAYLOADS_REFUSED};

/// Dispatches the messages of one client to its channels.
pub(super) struct Dispatcher<A> {
    pub(super) endpoint: Arc<EndpointContext<A>>,
    assigns: Arc<Guarded<A>>,
    info: Arc<SocketInfo>,
    pub(super) responder: Responder,
    /// The span of the socket, the parent of those of its channels.
    span: Span,
    /// Boxed, because the map reserves more slots than most clients have channels.
    pub(super) channels: HashMap<SmolStr, Box<JoinedChannel>>,
    /// The connection epoch of a resumable session; 0 for any other.
    epoch: u64,
    /// Whether the rejoin deadline of this connection has passed.
    rejoin_over: bool,
    /// What the client had joined on another node, which the session comes from, and not yet here.
    pub(super) arriving: Option<Box<Arriving>>,
    pub(super) remembering: Remembering,
}

/// What became of a message for a channel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Taken,
    /// There is a channel, and the message is not for it or finds no room.
    Ignored,
    NotJoined,
}

impl<A: Send + Sync + 'static> Dispatcher<A> {
    pub(super) fn new(
        endpoint: Arc<EndpointContext<A>>,
        assigns: Arc<Guarded<A>>,
        info: Arc<SocketInfo>,
        responder: Responder,
        span: Span,
    ) -> Self {
        Self {
            endpoint,
            assigns,
            info,
            responder,
            span,
            channels: HashMap::new(),
            epoch: 0,
            rejoin_over: false,
            arriving: None,
            remembering: Remembering::Off,
        }
    }

    /// Lets the assigns take over what has changed in those of a later connect, which has no channels.
    ///
    /// # Errors
    /// If the application's function panics.
    pub(super) fn refresh(&self, newer: Self) -> Result<(), Panicked> {
        let Some(refresh) = &self.endpoint.refresh else { return Ok(()) };
        let newer = Arc::into_inner(newer.assigns).and_then(|mut newer| newer.take());
        newer.map_or(Ok(()), |newer| panics::catch("refresh", || refresh(&self.assigns, newer)))
    }

    /// Sends to the client outside of its channels.
    pub(super) fn responder(&self) -> &Responder {
        &self.responder
    }

    /// Begins the epoch of a connection that has taken the session over.
    pub(super) fn attach(&mut self, epoch: u64) {
        self.responder.resumable = true;
        self.remembering.attach(self.endpoint.peers.as_ref(), &self.responder.outbox);
        self.epoch = epoch;
        self.rejoin_over = false;
    }

    /// Lets the channels become dormant: nobody waits for their broadcasts.
    pub(super) fn detach(&mut self, reason: DetachReason) {
        self.remembering.get().into_iter().for_each(|it| it.set_attached(false));
        for channel in self.channels.values() {
            // A channel whose mailbox is full stays active, and present.
            let _ = channel.mailbox.send(Command::Detached(reason));
        }
    }

    /// Lets dormant channels catch up: the client was taken for gone, and goes on without a rejoin.
    pub(super) fn catch_up(&mut self) {
        for channel in self.channels.values() {
            // A channel without room for this is not dormant: it has commands to handle.
            let _ = channel.mailbox.send(Command::Reattached);
        }
        self.remembering.get().into_iter().for_each(|it| it.set_attached(true));
    }

    /// Ends the channels that the client has not rejoined in this epoch.
    pub(super) fn end_unjoined(&mut self) {
        self.rejoin_over = true;
        self.channels.retain(|_, channel| channel.epoch == self.epoch);
        self.arriving.take().into_iter().for_each(|arriving| arriving.end());
        self.remembering.get().into_iter().for_each(|it| it.end_awaited());
    }

    /// Applies the protocol rule for a message. Returns whether the message is done with: `false` if
    /// it was for a channel, and no channel has taken it.
    ///
    /// # Errors
    /// If the message ends the session.
    pub(super) fn dispatch(&mut self, message: &ClientMessage<'_>) -> Result<bool, Close> {
        let ClientMessage { join_ref, reference, topic, event, .. } = message;
        let delivery = match (topic.as_text(), event.as_text()) {
            // A heartbeat gets an empty reply, without the join_ref.
            (Some("phoenix"), Some("heartbeat")) => {
                self.responder.reply_to_heartbeat(reference, topic);
                Delivery::Taken
            }
            // The client of a resumable session goes for good.
            (Some("phoenix"), Some("end_session")) if self.epoch > 0 => {
                self.span.in_scope(|| limited!(DEBUG, "session ended by its client"));
                return Err(Close::Normal);
            }
            // A join starts or resumes a channel. The topic `phoenix` cannot be joined.
            (Some(name), Some("phx_join")) if name != "phoenix" => {
                self.join(name, message);
                Delivery::Taken
            }
            // Any other message goes to the channel of its topic, if that is joined.
            (Some(name), _) => self.deliver(name, message),
            (None, _) => Delivery::NotJoined,
        };
        match (delivery, event.as_text()) {
            (Delivery::Taken, _) => return Ok(true),
            (Delivery::Ignored, _) => {}
            // Leaving a topic that is not joined succeeds.
            (Delivery::NotJoined, Some("phx_leave")) => {
                if let (Some(arriving), Some(topic)) = (&mut self.arriving, topic.as_text()) {
                    arriving.leave(topic, join_ref);
                }
                self.responder.reply(join_ref, reference, topic, &Reply::ack());
            }
            // Anything else is an error.
            (Delivery::NotJoined, _) => self.reply_unmatched(message),
        }
        Ok(false)
    }

    /// Ignores a message that was handled before.
    pub(super) fn ignore_repeated(&self, message: &ClientMessage<'_>) {
        MESSAGES_REPEATED.add(1);
        let (topic, event) = message.loggable();
        self.span.in_scope(|| limited!(DEBUG, ?topic, ?event, "repeated message ignored"));
    }

    /// Replies to a message whose payload is invalid, whatever the message is. Nothing else happens.
    pub(super) fn refuse_payload(&self, message: &ClientMessage<'_>) {
        let ClientMessage { join_ref, reference, topic, .. } = message;
        PAYLOADS_REFUSED.add(1);
        let (name, event) = message.loggable();
        self.span.in_scope(|| {
            limited!(DEBUG, topic = ?name, ?event, "message refused: its payload is not acceptable JSON");
        });
        self.responder.reply(join_ref, reference, topic, &Reply::reason("invalid payload"));
    }

    /// Replies to a message for a topic that is not joined.
    fn reply_unmatched(&self, message: &ClientMessage<'_>) {
        MESSAGES_UNMATCHED.add(1);
        let (topic, event) = message.loggable();
        self.span.in_scope(|| limited!(DEBUG, ?topic, ?event, "message to an unmatched topic"));
        self.responder.reply_unmatched(&message.reference, &message.topic);
    }

    /// Handles `phx_join`.
    fn join(&mut self, topic: &str, message: &ClientMessage<'_>) {
        let ClientMessage { join_ref, reference, .. } = message;
        // No pattern matches: an error, as for a topic that is not joined.
        let Some(channel) = self.endpoint.router.find(topic) else {
            return self.reply_unmatched(message);
        };
        // The channel has outlived the client's last connection: it is resumed.
        if self.epoch > 0 && self.is_joined(topic) && self.resume(topic, message) {
            return;
        }
        let arriving = self.arriving.as_mut().and_then(|arriving| arriving.take(topic));
        if arriving.is_none() && !self.is_joined(topic) && self.is_full() {
            channel.metrics.count_join(JoinResult::Full);
            self.span.in_scope(|| limited!(INFO, ?topic, "join refused: too many channels"));
            let full = Reply::reason("too many channels joined");
            return self.responder.reply(join_ref, reference, &Topic::from(topic), &full);
        }
        // A second join of a topic replaces its channel.
        self.start(channel, topic.into(), message, arriving);
    }

    /// Returns whether the topic has a channel, perhaps one that is still joining. Removes a channel
    /// of which nothing is left.
    fn is_joined(&mut self, topic: &str) -> bool {
        let Some(channel) = self.channels.get(topic) else { return false };
        let joined = !channel.mailbox.is_over();
        if channel.is_gone() {
            self.channels.remove(topic);
        }
        joined
    }

    /// Returns whether the client has as many living channels as it may join.
    fn is_full(&mut self) -> bool {
        let arriving = self.arriving.as_ref().map_or(0, |arriving| arriving.len());
        let limit = self.endpoint.limits.channels.saturating_sub(arriving);
        if self.channels.len() < limit {
            return false;
        }
        self.channels.retain(|_, channel| !channel.is_gone());
        let alive = self.channels.values().filter(|channel| !channel.mailbox.is_over());
        alive.count() >= limit
    }

    /// Passes a rejoin to a living channel. `false` if the channel has just ended.
    fn resume(&mut self, topic: &str, message: &ClientMessage<'_>) -> bool {
        let ClientMessage { join_ref, reference, payload, .. } = message;
        let Some(channel) = self.channels.get_mut(topic) else { return false };
        channel.sent_join_ref = join_ref.clone();
        (channel.epoch, channel.joined_at) = (self.epoch, Instant::now());
        if std::mem::take(&mut channel.join_acked) {
            channel.outbox.set_known();
        }
        channel.outbox.expect_reply();
        let rejoin = Rejoin {
            join_ref: join_ref.clone(),
            reference: reference.clone(),
            payload: payload.to_payload(),
            after: message.after,
            epoch: self.epoch,
            timeout: self.endpoint.limits.join_timeout,
        };
        let sent = channel.send(topic, Command::Rejoin(Box::new(rejoin)));
        if let Err(SendError::Full) = sent {
            let crashed = Reply::Error(join_crashed());
            self.responder.reply(join_ref, reference, &Topic::from(topic), &crashed);
        }
        !matches!(sent, Err(SendError::Closed))
    }

    /// Starts a channel. One that is joined on the topic already is replaced, and one that has come from another node
    /// continued.
    fn start(
        &mut self,
        channel: RoutedChannel<A>,
        topic: SmolStr,
        message: &ClientMessage<'_>,
        arriving: Option<Box<ArrivingTopic>>,
    ) {
        let RoutedChannel { start, metrics, .. } = channel;
        let ClientMessage { join_ref, reference, payload, .. } = message;
        let old = self.channels.remove(&topic);
        let permit = old.as_ref().map_or_else(TopicPermit::default, |old| Arc::clone(&old.permit));
        let previous = old.and_then(|old| {
            let JoinedChannel { sent_join_ref, mailbox, task, .. } = *old;
            mailbox.replace().then_some(PreviousInstance { mailbox, task, sent_join_ref })
        });
        let account = self.responder.outbox.account();
        let (mailbox, commands) = mailbox::channel(self.endpoint.limits.mailbox, account);
        let ownership = Ownership::default();
        let (outbox, continued) = match arriving {
            None => (self.responder.outbox.stream(), None),
            Some(arriving) => {
                if arriving.follows() {
                    ownership.follow();
                }
                let (outbox, continued) = arriving.land();
                (outbox, Some(Box::new(continued)))
            }
        };
        let client = Responder { outbox: outbox.clone(), ..self.responder.clone() };
        let context = ChannelContext {
            assigns: Arc::clone(&self.assigns),
            info: Arc::clone(&self.info),
            topic: topic.clone(),
            join_ref: if join_ref.is_null() { reference.clone() } else { join_ref.clone() },
            client,
            pubsub: self.endpoint.pubsub.clone(),
            ownership,
            mailbox: commands.sender(),
            subscription: TopicSubscription::default(),
            metrics,
            resources: Resources::default(),
            arrival: OnceLock::new(),
            remembered: self.remembering.get().cloned(),
        };
        let task = start(Join {
            span: tracing::info_span!(parent: &self.span, "channel", ?topic),
            context,
            commands,
            sent_join_ref: join_ref.clone(),
            reference: reference.clone(),
            payload: payload.to_payload(),
            after: message.after,
            timeout: self.endpoint.limits.join_timeout,
            epoch: self.epoch,
            permit: Arc::clone(&permit),
            previous,
            continued,
        });
        let channel = JoinedChannel {
            sent_join_ref: join_ref.clone(),
            mailbox,
            task,
            permit,
            outbox,
            epoch: self.epoch,
            joined_at: Instant::now(),
            join_acked: false,
        };
        self.channels.insert(topic, Box::new(channel));
    }

    /// Passes a message to the channel of its topic.
    fn deliver(&mut self, topic: &str, message: &ClientMessage<'_>) -> Delivery {
        let ClientMessage { join_ref, reference, event, payload, .. } = message;
        let Some(channel) = self.channels.get_mut(topic) else { return Delivery::NotJoined };
        // A stale join_ref: meant for an earlier join of the topic, ignored as Phoenix does.
        if !join_ref.is_null() && *join_ref != channel.sent_join_ref {
            return self.ignore(topic);
        }
        let reference = reference.clone();
        let command = match event.as_text() {
            Some("phx_leave") => {
                let can_rejoin = self.epoch > 0 && !self.rejoin_over && !channel.mailbox.is_over();
                if can_rejoin && channel.may_have_timed_out(self.epoch) {
                    // phoenix.js also leaves when a join timed out, as over a dead connection, and
                    // then joins again: the channel must live on.
                    let _entered = self.span.enter();
                    limited!(DEBUG, ?topic, "left by a client that missed the reply to its join");
                    channel.epoch = 0;
                    channel.outbox.pause();
                    let topic = &Topic::from(topic);
                    self.responder.reply(&Ref::NULL, &reference, topic, &Reply::ack());
                    return Delivery::Taken;
                }
                Command::Leave { reference }
            }
            Some(event) => {
                channel.join_acked |= !join_ref.is_null();
                Command::Push { reference, event: event.into(), payload: payload.to_payload() }
            }
            None => Command::InvalidEvent,
        };
        match channel.send(topic, command) {
            Ok(()) => Delivery::Taken,
            // A channel whose mailbox is full, or that is ending, notifies the client of its end.
            Err(SendError::Full) => Delivery::Ignored,
            Err(SendError::Closed) => self.ignore(topic),
        }
    }

    /// Ignores a message, unless its topic turns out not to be joined.
    fn ignore(&mut self, topic: &str) -> Delivery {
        if self.is_joined(topic) { Delivery::Ignored } else { Delivery::NotJoined }
    }
}

impl<A> Dispatcher<A> {
    /// Returns the joined topics.
    pub(super) fn topics(&self) -> Vec<&SmolStr> {
        self.channels.keys().collect()
    }
}
