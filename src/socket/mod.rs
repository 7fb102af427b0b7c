//! One client: its joined topics, and a rule of the protocol for every message that it sends.

pub(crate) mod registry;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::task::JoinHandle;
use tower_channels_transports::{Close, Inbound, Session, Transport, outbox};

use self::registry::SessionPermit;
use crate::channel::context::{ChannelContext, TopicSubscription};
use crate::channel::instance::{PreviousInstance, TopicPermit};
use crate::channel::mailbox::{self, Command, SendError};
use crate::channel::result::JoinError;
use crate::channel::task::Join;
use crate::message::{ClientMessage, Name, Ref};
use crate::presence::Presence;
use crate::presence::tracked::Ownership;
use crate::pubsub::PubSub;
use crate::reply::Reply;
use crate::responder::{Exit, Responder};
use crate::router::{Router, Start};

/// What every socket of an endpoint shares.
pub(crate) struct EndpointContext<A> {
    pub(crate) router: Router<A>,
    pub(crate) pubsub: PubSub,
    pub(crate) presence: Presence,
    pub(crate) limits: ChannelLimits,
}

/// What one client may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelLimits {
    /// How many channels it may have joined.
    pub(crate) channels: usize,
    /// How many bytes may wait for one of them.
    pub(crate) mailbox: usize,
    pub(crate) join_timeout: Duration,
}

/// The session of one client.
pub struct SocketSession<A> {
    endpoint: Arc<EndpointContext<A>>,
    assigns: Arc<A>,
    client: Responder,
    /// Boxed, for the map has more places than most clients have channels.
    channels: HashMap<SmolStr, Box<Channel>>,
    /// The socket's id.
    id: Option<String>,
    /// Whether the client came with a token of a session that is gone, and may believe that its
    /// channels are joined.
    unknown_token: bool,
    /// The connection in use, of a kept session; 0 if the session lives as long as its connection.
    epoch: u64,
    /// Whether the client had its time to join again on this connection.
    rejoin_over: bool,
    /// The newest refs of this connection, if it is one of POSTs, which a browser may repeat.
    handled: Option<VecDeque<Ref>>,
    /// Ends with the session.
    _membership: SessionPermit,
}

/// A joined topic, as its socket knows it.
struct Channel {
    /// What the messages of this channel must carry, if they carry a join_ref at all.
    sent_join_ref: Ref,
    mailbox: mailbox::Owner,
    task: JoinHandle<()>,
    /// Its stream.
    outbox: outbox::Sender,
    /// The connection over which it was joined last.
    epoch: u64,
    /// Whether the client has shown that it knows of that join's answer.
    known: bool,
    permit: TopicPermit,
}

impl<A: Send + Sync + 'static> SocketSession<A> {
    pub(crate) fn new(
        endpoint: Arc<EndpointContext<A>>,
        assigns: A,
        client: Responder,
        id: Option<String>,
        unknown_token: bool,
        membership: SessionPermit,
    ) -> Self {
        Self {
            endpoint,
            assigns: Arc::new(assigns),
            client,
            channels: HashMap::new(),
            id,
            unknown_token,
            epoch: 0,
            rejoin_over: false,
            handled: None,
            _membership: membership,
        }
    }

    fn dispatch(&mut self, message: &ClientMessage<'_>) {
        let ClientMessage { join_ref, reference, topic, event, .. } = message;
        match (topic.as_text(), event.as_text()) {
            // A heartbeat's join_ref is not repeated.
            (Some("phoenix"), Some("heartbeat")) => {
                self.client.reply_to_heartbeat(reference, topic);
            }
            (Some(name), Some("phx_join")) if name != "phoenix" => self.join(name, message),
            (Some(name), _) if self.deliver(name, message) => {}
            // Leaving what is not joined succeeds.
            (_, Some("phx_leave")) => {
                self.client.reply(join_ref, reference, topic, &Reply::ack());
            }
            _ => {
                self.client.reply_unmatched(reference, topic);
                if let (true, false, Some(name)) =
                    (self.unknown_token, join_ref.is_null(), topic.as_text())
                {
                    // It holds the topic for joined; this makes every version join it again.
                    self.client.notify_exit(join_ref, name, Exit::SESSION_LOST);
                }
            }
        }
    }

    /// Whether a message of a kept session was handled already on this connection.
    fn is_repeated(&mut self, reference: &Ref) -> bool {
        let Some(handled) = self.handled.as_mut().filter(|_| !reference.is_null()) else {
            return false;
        };
        let repeated = handled.contains(reference);
        if !repeated {
            if handled.len() == REMEMBERED {
                handled.pop_front();
            }
            handled.push_back(reference.clone());
        }
        repeated
    }

    /// Returns whether a channel is joined, or still joining. Forgets one that is gone.
    fn is_joined(&mut self, topic: &str) -> bool {
        let Some(channel) = self.channels.get(topic) else { return false };
        let joined = !channel.mailbox.sender().is_over();
        if channel.is_gone() {
            self.channels.remove(topic);
        }
        joined
    }

    fn join(&mut self, topic: &str, message: &ClientMessage<'_>) {
        let ClientMessage { join_ref, reference, .. } = message;
        let name = Name::from(topic);
        let Some(start) = self.endpoint.router.find(topic) else {
            return self.client.reply_unmatched(reference, &name);
        };
        if self.epoch > 0 && self.is_joined(topic) && self.resume(topic, message) {
            return;
        }
        if !self.is_joined(topic) && self.is_full() {
            let full = Reply::reason("too many channels joined");
            return self.client.reply(join_ref, reference, &name, &full);
        }
        self.start(start, topic.into(), message);
    }

    /// Joins again a channel that is alive in a kept session. `false` if it has just ended.
    fn resume(&mut self, topic: &str, message: &ClientMessage<'_>) -> bool {
        let ClientMessage { join_ref, reference, payload, .. } = message;
        let Some(channel) = self.channels.get_mut(topic) else { return false };
        channel.sent_join_ref = join_ref.clone();
        (channel.epoch, channel.known) = (self.epoch, false);
        let (payload, epoch) = (payload.to_payload(), self.epoch);
        let mail = Command::Resume { reference: reference.clone(), payload, epoch };
        let sent = channel.send(topic, mail);
        if let Err(SendError::Full) = sent {
            let crashed = Reply::Error(JoinError::from("join crashed").response);
            self.client.reply(join_ref, reference, &Name::from(topic), &crashed);
        }
        !matches!(sent, Err(SendError::Closed))
    }

    /// Whether all places are taken by channels that have not ended.
    fn is_full(&mut self) -> bool {
        let limit = self.endpoint.limits.channels;
        if self.channels.len() < limit {
            return false;
        }
        self.channels.retain(|_, channel| !channel.is_gone());
        let alive = self.channels.values().filter(|channel| !channel.mailbox.sender().is_over());
        alive.count() >= limit
    }

    fn start(&mut self, start: Start<A>, topic: SmolStr, message: &ClientMessage<'_>) {
        let ClientMessage { join_ref, reference, payload, .. } = message;
        let old = self.channels.remove(&topic);
        let permit = old.as_ref().map_or_else(TopicPermit::default, |old| Arc::clone(&old.permit));
        let previous = old.and_then(|old| {
            let Channel { sent_join_ref, mailbox, task, .. } = *old;
            mailbox.replace().then_some(PreviousInstance { mailbox, task, sent_join_ref })
        });
        let (mailbox, commands) = mailbox::channel(self.endpoint.limits.mailbox);
        let client = Responder { outbox: self.client.outbox.stream(), ..self.client.clone() };
        let outbox = client.outbox.clone();
        let context = ChannelContext {
            assigns: Arc::clone(&self.assigns),
            topic: topic.clone(),
            join_ref: if join_ref.is_null() { reference.clone() } else { join_ref.clone() },
            sent_join_ref: join_ref.clone(),
            client,
            pubsub: self.endpoint.pubsub.clone(),
            presence: self.endpoint.presence.clone(),
            ownership: Ownership::default(),
            mailbox: mailbox.sender().clone(),
            subscription: TopicSubscription::default(),
        };
        let task = start(Join {
            context,
            commands,
            reference: reference.clone(),
            payload: payload.to_payload(),
            timeout: self.endpoint.limits.join_timeout,
            epoch: self.epoch,
            permit: Arc::clone(&permit),
            previous,
        });
        let (sent_join_ref, epoch) = (join_ref.clone(), self.epoch);
        let channel = Channel { sent_join_ref, mailbox, task, permit, outbox, epoch, known: false };
        self.channels.insert(topic, Box::new(channel));
    }

    /// Gives a message to the channel that is joined. `false` if there is none; one that has ended is
    /// forgotten.
    fn deliver(&mut self, topic: &str, message: &ClientMessage<'_>) -> bool {
        let ClientMessage { join_ref, reference, event, payload, .. } = message;
        let Some(channel) = self.channels.get_mut(topic) else { return false };
        // Meant for a channel that was joined under another join_ref: dropped without an answer.
        if !join_ref.is_null() && *join_ref != channel.sent_join_ref {
            return self.is_joined(topic);
        }
        let reference = reference.clone();
        let mail = match event.as_text() {
            Some("phx_leave") => {
                if self.epoch > 0
                    && !self.rejoin_over
                    && !channel.is_known()
                    && !channel.mailbox.sender().is_over()
                {
                    // A client whose join timed out over a dead line leaves and joins again: it has
                    // not given the channel up.
                    channel.epoch = 0;
                    channel.outbox.pause();
                    let topic = &Name::from(topic);
                    self.client.reply(&Ref::NULL, &reference, topic, &Reply::ack());
                    return true;
                }
                Command::Leave { reference }
            }
            Some(event) => {
                channel.known |= !join_ref.is_null();
                Command::Push { reference, event: event.into(), payload: payload.to_payload() }
            }
            None => Command::InvalidEvent,
        };
        let sent = channel.send(topic, mail);
        // One that is full crashes, and its client is notified of that.
        !matches!(sent, Err(SendError::Closed)) || self.is_joined(topic)
    }

    /// Lets dormant channels catch up: the client was taken for gone, and goes on without joining again.
    #[allow(dead_code, reason = "for `Session::reattached`")]
    fn catch_up_channels(&mut self) {
        for channel in self.channels.values() {
            // One without room for this is not dormant: it has commands to handle.
            let _ = channel.mailbox.sender().send(Command::Reattached);
        }
    }
}

impl Channel {
    fn send(&self, topic: &str, mail: Command) -> Result<(), SendError> {
        let sent = self.mailbox.sender().send(mail);
        if let Err(SendError::Full) = sent {
            // The handler is slower than its client, and waiting for it would hold up the other
            // channels: this one crashes.
            tracing::error!(topic, "channel crashed: too many messages wait for its handler");
            self.task.abort();
        }
        sent
    }

    /// Returns whether nothing is left of the channel, nor of those that it has replaced. Until then it
    /// must be remembered, for a next instance has to wait for the permit.
    fn is_gone(&self) -> bool {
        self.mailbox.sender().is_over() && self.permit.try_lock().is_ok()
    }

    /// Whether the client knows that it is joined.
    fn is_known(&self) -> bool {
        self.known || self.outbox.is_join_acked()
    }
}

/// How many refs of one connection are remembered.
const REMEMBERED: usize = 128;

impl<A: Send + Sync + 'static> Session for SocketSession<A> {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        let message = self.client.version.decode(message).map_err(|_| Close::Malformed)?;
        let is_join = message.event.as_text() == Some("phx_join");
        if is_join && message.join_ref.as_json().is_none() {
            // From a binary frame and no text: neither the answer nor the channel's end could be
            // told.
            return Err(Close::Malformed);
        }
        if !self.is_repeated(&message.reference) {
            self.dispatch(&message);
        }
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn attached(&mut self, epoch: u64, transport: Transport) {
        self.client.resumable = true;
        self.epoch = epoch;
        self.rejoin_over = false;
        self.handled = (transport == Transport::LongPoll).then(VecDeque::new);
    }

    /// Lets the channels rest: nobody waits for their broadcasts.
    fn detached(&mut self) {
        for channel in self.channels.values() {
            // One that has no room for this has more to do than to rest.
            let _ = channel.mailbox.sender().send(Command::Detached);
        }
    }

    /// Ends the channels that the client has not joined again.
    fn rejoin_deadline(&mut self) {
        self.rejoin_over = true;
        self.channels.retain(|_, channel| channel.epoch == self.epoch);
    }
}

impl<A> fmt::Debug for SocketSession<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.channels.keys();
        f.debug_struct("SocketSession").field("topics", &topics).finish_non_exhaustive()
    }
}
