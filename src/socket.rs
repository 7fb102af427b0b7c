//! One client: its joined topics, and a rule of the protocol for every message that it sends.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::task::JoinHandle;
use tower_channels_transports::{Close, Inbound, Session};

use crate::channel::Link;
use crate::client::Client;
use crate::mailbox::{self, Mail, Mailbox, Undelivered};
use crate::message::{Incoming, Name, Ref};
use crate::pubsub::PubSub;
use crate::reply::Reply;
use crate::router::{Router, Start};
use crate::server::{Join, Replaced, Seat};
use crate::sessions::Membership;

/// What every socket of an endpoint shares.
pub(crate) struct Rules<A> {
    pub(crate) router: Router<A>,
    pub(crate) pubsub: PubSub,
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
    rules: Arc<Rules<A>>,
    assigns: Arc<A>,
    client: Client,
    channels: HashMap<SmolStr, Channel>,
    /// Ends with the session.
    _membership: Membership,
}

/// A joined topic, as its socket knows it.
struct Channel {
    /// What the messages of this channel must carry, if they carry a join_ref at all.
    sent_join_ref: Ref,
    mailbox: Mailbox,
    task: JoinHandle<()>,
    seat: Seat,
}

impl<A: Send + Sync + 'static> SocketSession<A> {
    pub(crate) fn new(
        rules: Arc<Rules<A>>,
        assigns: A,
        client: Client,
        membership: Membership,
    ) -> Self {
        let (assigns, channels) = (Arc::new(assigns), HashMap::new());
        Self { rules, assigns, client, channels, _membership: membership }
    }

    fn dispatch(&mut self, message: &Incoming<'_>) {
        let Incoming { join_ref, reference, topic, event, .. } = message;
        match (topic.as_text(), event.as_text()) {
            // A heartbeat's join_ref is not repeated.
            (Some("phoenix"), Some("heartbeat")) => {
                self.client.reply(&Ref::NULL, reference, topic, &Reply::ack());
            }
            (Some(name), Some("phx_join")) if name != "phoenix" => self.join(name, message),
            (Some(name), _) if self.is_joined(name) => self.deliver(name, message),
            // Leaving what is not joined succeeds.
            (_, Some("phx_leave")) => {
                self.client.reply(join_ref, reference, topic, &Reply::ack());
            }
            _ => self.client.reply_unmatched(reference, topic),
        }
    }

    /// Whether a channel is there, which may be joining still. Forgets one that has ended.
    fn is_joined(&mut self, topic: &str) -> bool {
        let Some(channel) = self.channels.get(topic) else { return false };
        let joined = !channel.mailbox.address().is_over();
        if !joined {
            self.channels.remove(topic);
        }
        joined
    }

    fn join(&mut self, topic: &str, message: &Incoming<'_>) {
        let Incoming { join_ref, reference, .. } = message;
        let name = Name::from(topic);
        let Some(start) = self.rules.router.find(topic) else {
            return self.client.reply_unmatched(reference, &name);
        };
        if !self.is_joined(topic) && self.is_full() {
            let full = Reply::reason("too many channels joined");
            return self.client.reply(join_ref, reference, &name, &full);
        }
        self.start(start, topic.into(), message);
    }

    /// Whether all places are taken by channels that have not ended.
    fn is_full(&mut self) -> bool {
        let limit = self.rules.limits.channels;
        if self.channels.len() >= limit {
            self.channels.retain(|_, channel| !channel.mailbox.address().is_over());
        }
        self.channels.len() >= limit
    }

    fn start(&mut self, start: Start<A>, topic: SmolStr, message: &Incoming<'_>) {
        let Incoming { join_ref, reference, payload, .. } = message;
        let old = self.channels.remove(&topic);
        let seat = old.as_ref().map_or_else(Seat::default, |old| Arc::clone(&old.seat));
        let replaced = old.and_then(|Channel { sent_join_ref, mailbox, task, .. }| {
            mailbox.replace().then_some(Replaced { mailbox, task, sent_join_ref })
        });
        let (mailbox, letters) = mailbox::mailbox(self.rules.limits.mailbox);
        let link = Link {
            assigns: Arc::clone(&self.assigns),
            topic: topic.clone(),
            join_ref: if join_ref.is_null() { reference.clone() } else { join_ref.clone() },
            sent_join_ref: join_ref.clone(),
            client: self.client.clone(),
            pubsub: self.rules.pubsub.clone(),
            mailbox: mailbox.address().clone(),
        };
        let task = start(Join {
            link,
            letters,
            reference: reference.clone(),
            payload: payload.to_payload(),
            timeout: self.rules.limits.join_timeout,
            seat: Arc::clone(&seat),
            replaced,
        });
        let channel = Channel { sent_join_ref: join_ref.clone(), mailbox, task, seat };
        self.channels.insert(topic, channel);
    }

    /// Gives a message to the channel that is joined.
    fn deliver(&mut self, topic: &str, message: &Incoming<'_>) {
        let Incoming { join_ref, reference, event, payload, .. } = message;
        let Some(channel) = self.channels.get(topic) else { return };
        // Meant for a channel that was joined under another join_ref: dropped without an answer.
        if !join_ref.is_null() && *join_ref != channel.sent_join_ref {
            return;
        }
        let reference = reference.clone();
        let mail = match event.as_text() {
            Some("phx_leave") => Mail::Leave { reference },
            Some(event) => {
                Mail::In { reference, event: event.into(), payload: payload.to_payload() }
            }
            None => Mail::Nonsense,
        };
        match channel.mailbox.address().send(mail) {
            Ok(()) | Err(Undelivered::Ended) => {}
            Err(Undelivered::Full) => {
                // The handler is slower than its client, and waiting for it would hold up the other
                // channels: this one crashes.
                tracing::error!(topic, "channel crashed: too many messages wait for its handler");
                channel.task.abort();
            }
        }
    }
}

impl<A: Send + Sync + 'static> Session for SocketSession<A> {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        let message = self.client.version.decode(message).map_err(|_| Close::Malformed)?;
        let is_join = message.event.as_text() == Some("phx_join");
        if is_join && message.join_ref.as_json().is_none() {
            // From a binary frame and no text: neither the answer nor the channel's end could be
            // told.
            return Err(Close::Malformed);
        }
        self.dispatch(&message);
        Ok(())
    }
}

impl<A> fmt::Debug for SocketSession<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.channels.keys();
        f.debug_struct("SocketSession").field("topics", &topics).finish_non_exhaustive()
    }
}
